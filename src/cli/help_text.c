/* See help_text.h: the terminal's side. */
#include "cli/help_text.h"

#include "cli/text.h"

#include <string.h>

const char *help_section(enum verb_section section)
{
	static const char *const titles[] = {
		[VERB_GUESTS] = "Guests",
		[VERB_WATCH] = "Looking at guests and into them",
		[VERB_MOVE] = "Snapshots, copies and moves",
		[VERB_STORE] = "Images",
		[VERB_HOST] = "The host",
	};

	return titles[section];
}

const char *help_placeholder(const struct verb_option *o, char buf[static 128])
{
	size_t used = 0;

	if (o->target.kind != OPTION_CHOICE) {
		snprintf(buf, 128, "%s", o->arg);
		return buf;
	}
	buf[0] = '\0';
	for (const char *const *w = o->target.words; *w && used < 127; w++)
		used += (size_t)snprintf(buf + used, 128 - used, "%s%s", used ? "|" : "", *w);
	return buf;
}

static void each_leaf(const struct verb *group, const char *path,
		      void (*each)(const struct verb *leaf, const char *path, void *context),
		      void *context)
{
	for (const struct verb *const *v = group->verbs; *v; v++) {
		char name[64];

		if ((*v)->flags & VERB_HIDDEN)
			continue;
		snprintf(name, sizeof(name), "%s%s%s", path, *path ? " " : "", (*v)->name);
		if ((*v)->verbs)
			each_leaf(*v, name, each, context);
		else
			each(*v, name, context);
	}
}

void help_each_leaf(const struct verb *root,
		    void (*each)(const struct verb *leaf, const char *path, void *context),
		    void *context)
{
	each_leaf(root, "", each, context);
}

static void print_options(const struct text_out *out, const struct verb *verb)
{
	enum { WIDEST_LEFT = 28 };
	char left[192], placeholder[128];
	int column = 0;

	for (int pass = 0; pass < 2; pass++) {
		for (const struct verb_option *o = verb->options; o && o->name; o++) {
			char letter[5] = "    ";
			int len;

			if (o->letter)
				snprintf(letter, sizeof(letter), "-%c, ", o->letter);
			len = snprintf(left, sizeof(left), "%s--%s%s%s", letter, o->name,
				       o->arg ? " " : "",
				       o->arg ? help_placeholder(o, placeholder) : "");
			if (pass == 1)
				text_row(out, left, o->help, column);
			else if (len <= WIDEST_LEFT && len + 4 > column)
				column = len + 4;
		}
		if (pass == 0 && !column)
			column = WIDEST_LEFT;
	}
}

static void print_verbs(const struct text_out *out, const struct verb *group, int section)
{
	for (const struct verb *const *v = group->verbs; *v; v++)
		if (!((*v)->flags & VERB_HIDDEN) && (section < 0 || (int)(*v)->section == section))
			text_row(out, (*v)->name, (*v)->summary, 14);
}

static bool section_empty(const struct verb *root, enum verb_section section)
{
	for (const struct verb *const *v = root->verbs; *v; v++)
		if (!((*v)->flags & VERB_HIDDEN) && (*v)->section == section)
			return false;
	return true;
}

void help_overview(const struct verb *root, FILE *file)
{
	struct text_out out = text_out_for(file);

	text_print(&out, root->description, 0);
	fprintf(file, "\n  %s %s\n", root->name, root->synopsis);
	for (enum verb_section s = 0; s < VERB_SECTIONS; s++) {
		if (section_empty(root, s))
			continue;
		text_title(&out, help_section(s));
		print_verbs(&out, root, (int)s);
	}
	text_title(&out, "Options, before the verb");
	print_options(&out, root);
	fputc('\n', file);
	text_print(&out, "`lodge help VERB` describes a verb, its options and examples.", 0);
}

void help_verb(const struct verb *verb, const char *path, FILE *file)
{
	const char *synopsis = verb_synopsis(verb);
	struct text_out out = text_out_for(file);

	fprintf(file, "%slodge %s%s - %s\n\n  lodge %s%s%s\n\n", out.bold ? "\033[1m" : "", path,
		out.bold ? "\033[m" : "", verb->summary, path, *synopsis ? " " : "", synopsis);
	text_print(&out, verb->description, 0);
	if (verb->verbs) {
		text_title(&out, "Verbs");
		print_verbs(&out, verb, -1);
		fprintf(file, "\n'lodge help %s VERB' describes each.\n", path);
	}
	if (verb->options && verb->options->name) {
		text_title(&out, "Options");
		print_options(&out, verb);
	}
	if (verb->examples) {
		text_title(&out, "Examples");
		text_print(&out, verb->examples, 2);
	}
}
