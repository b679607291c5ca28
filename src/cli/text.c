/* See text.h. */
#include "cli/text.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { WIDEST = 100, NARROWEST = 40, NO_TERMINAL = 80 };

static bool begins_block(const char *line)
{
	return strncmp(line, "- `", 3) == 0 || strncmp(line, "# ", 2) == 0;
}

static bool is_literal(const char *line)
{
	return *line == ' ' || *line == '\t';
}

bool text_next(const char **text, struct text_block *block)
{
	const char *p = *text, *end;

	while (p && *p == '\n')
		p++;
	if (!p || !*p)
		return false;
	*block = (struct text_block){.kind = is_literal(p) ? TEXT_LITERAL : TEXT_FILL, .start = p};
	if (strncmp(p, "# ", 2) == 0) {
		block->kind = TEXT_HEADING;
		block->start = p + 2;
	} else if (begins_block(p) && strchr(p + 3, '`')) {
		block->kind = TEXT_ITEM;
		block->term = p + 3;
		block->term_len = strcspn(block->term, "`");
		block->start = block->term + block->term_len + 1;
		block->start += *block->start == ' ';
	}
	/* To a blank line, a line of another kind, or the end. */
	for (end = p;;) {
		end += strcspn(end, "\n");
		if (!*end || block->kind == TEXT_HEADING || !end[1] || end[1] == '\n' ||
		    begins_block(end + 1))
			break;
		if (is_literal(end + 1) != (block->kind == TEXT_LITERAL))
			break;
		end++;
	}
	block->len = (size_t)(end - block->start);
	*text = end;
	return true;
}

struct text_out text_out_for(FILE *file)
{
	struct text_out out = {.file = file, .width = NO_TERMINAL};
	struct winsize size;

	if (!isatty(fileno(file)))
		return out;
	out.bold = true;
	if (ioctl(fileno(file), TIOCGWINSZ, &size) == 0 && size.ws_col)
		out.width = size.ws_col;
	if (out.width > WIDEST)
		out.width = WIDEST;
	if (out.width < NARROWEST)
		out.width = NARROWEST;
	return out;
}

/* One word; back quotes in it switch between literal and not. Returns the columns it took. */
static int put_word(const struct text_out *out, const char *word, size_t len, bool *literal)
{
	int columns = 0;

	for (size_t i = 0; i < len; i++) {
		if (word[i] == '`') {
			*literal = !*literal;
			if (out->bold) {
				fputs(*literal ? "\033[1m" : "\033[m", out->file);
				continue;
			}
		}
		fputc(word[i], out->file);
		/* Continuation bytes of UTF-8 take no column of their own. */
		columns += ((unsigned char)word[i] & 0xc0) != 0x80;
	}
	return columns;
}

static int word_columns(const struct text_out *out, const char *word, size_t len)
{
	int columns = 0;

	for (size_t i = 0; i < len; i++)
		columns +=
			((unsigned char)word[i] & 0xc0) != 0x80 && !(out->bold && word[i] == '`');
	return columns;
}

/* Fills words into lines from `indent` on; the cursor stands at column `at`. */
static void fill(const struct text_out *out, const char *text, size_t len, int indent, int at)
{
	const char *end = text + len;
	bool literal = false, first = true;

	while (text < end) {
		size_t word;
		int columns;

		if (*text == ' ' || *text == '\n' || *text == '\t') {
			text++;
			continue;
		}
		word = strcspn(text, " \n\t");
		if (word > (size_t)(end - text))
			word = (size_t)(end - text);
		columns = word_columns(out, text, word);
		if (!first && at + 1 + columns > out->width) {
			fputc('\n', out->file);
			at = 0;
		} else if (!first) {
			fputc(' ', out->file);
			at++;
		}
		if (at < indent) {
			fprintf(out->file, "%*s", indent - at, "");
			at = indent;
		}
		at += put_word(out, text, word, &literal);
		text += word;
		first = false;
	}
	fputc('\n', out->file);
}

static void print_literal(const struct text_out *out, const struct text_block *b, int indent)
{
	const char *p = b->start, *end = b->start + b->len;

	while (p < end) {
		size_t line = strcspn(p, "\n");

		if (line > (size_t)(end - p))
			line = (size_t)(end - p);
		fprintf(out->file, "%*s%.*s\n", indent, "", (int)line, p);
		p += line + 1;
	}
}

void text_print(const struct text_out *out, const char *text, int indent)
{
	struct text_block b;
	enum text_kind before = TEXT_HEADING;
	char term[48];

	for (bool first = true; text_next(&text, &b); first = false, before = b.kind) {
		if (!first && !(b.kind == TEXT_ITEM && before == TEXT_ITEM))
			fputc('\n', out->file);
		switch (b.kind) {
		case TEXT_FILL:
			fill(out, b.start, b.len, indent, 0);
			break;
		case TEXT_LITERAL:
			print_literal(out, &b, indent);
			break;
		case TEXT_HEADING:
			fprintf(out->file, "%.*s:\n", (int)b.len, b.start);
			break;
		case TEXT_ITEM:
			snprintf(term, sizeof(term), "%.*s", (int)b.term_len, b.term);
			fprintf(out->file, "%*s%s%s%s", indent + 2, "", out->bold ? "\033[1m" : "",
				term, out->bold ? "\033[m" : "");
			if (b.term_len > 10)
				fputc('\n', out->file);
			fill(out, b.start, b.len, indent + 14,
			     b.term_len > 10 ? 0 : indent + 2 + (int)b.term_len);
			break;
		}
	}
}

void text_row(const struct text_out *out, const char *left, const char *right, int column)
{
	int at = fprintf(out->file, "  %s", left);

	if (at + 2 > column) {
		fputc('\n', out->file);
		at = 0;
	}
	fill(out, right, strlen(right), column, at);
}

void text_title(const struct text_out *out, const char *title)
{
	fprintf(out->file, out->bold ? "\n\033[1m%s\033[m\n" : "\n%s\n", title);
}
