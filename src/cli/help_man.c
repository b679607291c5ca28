/*
 * See help_text.h: a verb's tables as a man page in the man(7) macros. `make install` writes one
 * for each verb through `lodge help --man`; tests/e2e/test_help.py has mandoc check them all.
 */
#include "cli/help_text.h"
#include "cli/text.h"

#include <ctype.h>
#include <string.h>

/* The day of the last release, not of the build: the same source makes the same pages. */
#define MANUAL_DATE "2026-11-22"

/* Text as roff sees it: hyphens that can be copied, no escapes, no accidental requests. Back
 * quotes switch bold on and off. */
static void put_text(FILE *f, const char *text, size_t len, bool fill)
{
	bool literal = false, line_start = true;

	for (size_t i = 0; i < len; i++) {
		char c = text[i];

		/* In filled text roff breaks lines itself; indentation would break them early. */
		if (fill && line_start && (c == ' ' || c == '\t'))
			continue;
		if (line_start && (c == '.' || c == '\''))
			fputs("\\&", f);
		line_start = c == '\n';
		switch (c) {
		case '`':
			literal = !literal;
			fputs(literal ? "\\fB" : "\\fR", f);
			break;
		case '\\':
			fputs("\\e", f);
			break;
		case '-':
			fputs("\\-", f);
			break;
		case '\'':
			fputs("\\(aq", f);
			break;
		case '"':
			fputs("\\(dq", f);
			break;
		case '^':
			fputs("\\(ha", f);
			break;
		case '~':
			fputs("\\(ti", f);
			break;
		default:
			fputc(c, f);
		}
	}
}

static void put_filled(FILE *f, const char *text)
{
	put_text(f, text, strlen(text), true);
}

static void put_heading(FILE *f, const char *title, size_t len)
{
	fputs(".SH ", f);
	for (size_t i = 0; i < len; i++)
		fputc(toupper((unsigned char)title[i]), f);
	fputc('\n', f);
}

static void put_blocks(FILE *f, const char *text)
{
	struct text_block b;
	bool after_heading = true;

	while (text_next(&text, &b)) {
		switch (b.kind) {
		case TEXT_HEADING:
			put_heading(f, b.start, b.len);
			break;
		case TEXT_FILL:
			if (!after_heading)
				fputs(".PP\n", f);
			put_text(f, b.start, b.len, true);
			fputc('\n', f);
			break;
		case TEXT_LITERAL:
			fputs(after_heading ? ".nf\n" : ".PP\n.nf\n", f);
			put_text(f, b.start, b.len, false);
			fputs("\n.fi\n", f);
			break;
		case TEXT_ITEM:
			fputs(".TP\n\\fB", f);
			put_text(f, b.term, b.term_len, true);
			fputs("\\fR\n", f);
			put_text(f, b.start, b.len, true);
			fputc('\n', f);
			break;
		}
		after_heading = b.kind == TEXT_HEADING;
	}
}

static void put_options(FILE *f, const struct verb *verb)
{
	char placeholder[128];

	for (const struct verb_option *o = verb->options; o && o->name; o++) {
		fputs(".TP\n", f);
		if (o->letter)
			fprintf(f, "\\fB\\-%c\\fR, ", o->letter);
		fputs("\\fB\\-\\-", f);
		put_filled(f, o->name);
		fputs("\\fR", f);
		if (o->arg) {
			fputs(" \\fI", f);
			put_filled(f, help_placeholder(o, placeholder));
			fputs("\\fR", f);
		}
		fputc('\n', f);
		put_filled(f, o->help);
		fputs(".\n", f);
	}
}

static void put_see_also(const struct verb *leaf, const char *path, void *context)
{
	FILE *f = context;

	fputs(",\n.BR lodge\\-", f);
	for (const char *p = path; *p; p++)
		fputs(*p == ' ' || *p == '-' ? "\\-" : (char[]){*p, '\0'}, f);
	fputs(" (1)", f);
}

static void put_verb_summary(const struct verb *leaf, const char *path, void *context)
{
	FILE *f = context;

	fputs(".TP\n\\fB", f);
	put_filled(f, path);
	fputs("\\fR\n", f);
	put_filled(f, leaf->summary);
	fputs(".\n", f);
}

static void list_verbs(const struct verb *root, FILE *f)
{
	for (enum verb_section s = 0; s < VERB_SECTIONS; s++) {
		bool first = true;

		for (const struct verb *const *v = root->verbs; *v; v++) {
			if (((*v)->flags & VERB_HIDDEN) || (*v)->section != s)
				continue;
			if (first)
				fprintf(f, ".SS %s\n", help_section(s));
			first = false;
			put_verb_summary(*v, (*v)->name, f);
		}
	}
}

static void put_name(FILE *f, const char *path, bool upper)
{
	fputs(upper ? "LODGE" : "lodge", f);
	if (*path)
		fputs(upper ? "-" : "\\-", f);
	for (const char *p = path; *p; p++) {
		if (*p == ' ' || *p == '-')
			fputs(upper ? "-" : "\\-", f);
		else
			fputc(upper ? toupper((unsigned char)*p) : *p, f);
	}
}

void help_man(const struct verb *root, const struct verb *verb, const char *path, FILE *f)
{
	bool main_page = verb == root;
	const char *synopsis = verb_synopsis(verb);

	fputs(".\\\" Made by `lodge help --man` from the program's own tables.\n.TH ", f);
	put_name(f, path, true);
	fputs(" 1 " MANUAL_DATE " \"Lodge " LODGE_VERSION "\" \"Lodge Manual\"\n.SH NAME\n", f);
	put_name(f, path, false);
	fputs(" \\- ", f);
	put_filled(f, verb->summary);
	fputs("\n.SH SYNOPSIS\n\\fBlodge", f);
	if (*path)
		fputc(' ', f);
	put_filled(f, path);
	fputs(*synopsis ? "\\fR " : "\\fR", f);
	put_filled(f, synopsis);
	fputs("\n.SH DESCRIPTION\n", f);
	put_blocks(f, verb->description);
	if (verb->verbs) {
		fputs(".SH VERBS\n", f);
		if (main_page)
			list_verbs(root, f);
		else
			for (const struct verb *const *v = verb->verbs; *v; v++)
				if (!((*v)->flags & VERB_HIDDEN))
					put_verb_summary(*v, (*v)->name, f);
	}
	if (verb->options && verb->options->name) {
		fputs(".SH OPTIONS\n", f);
		put_options(f, verb);
	}
	if (verb->details)
		put_blocks(f, verb->details);
	if (verb->examples) {
		fputs(".SH EXAMPLES\n", f);
		put_blocks(f, verb->examples);
	}
	fputs(".SH SEE ALSO\n", f);
	if (main_page) {
		fputs(".BR man (1)", f);
		help_each_leaf(root, put_see_also, f);
		fputc('\n', f);
	} else {
		fputs(".BR lodge (1)\n", f);
	}
}
