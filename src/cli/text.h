/*
 * The light markup of help texts (see struct verb) and its rendering for terminals and pipes.
 * help_man.c renders the same blocks as a man page.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum text_kind {
	TEXT_FILL,    /* a paragraph */
	TEXT_LITERAL, /* lines that begin with white space */
	TEXT_HEADING, /* "# TITLE" */
	TEXT_ITEM,    /* "- `TERM` explanation" */
};

/* A piece of a text; points into it. */
struct text_block {
	enum text_kind kind;
	const char *start; /* TEXT_HEADING: the title; TEXT_ITEM: the explanation */
	size_t len;
	const char *term; /* TEXT_ITEM */
	size_t term_len;
};

/* Takes the next block off *text; false at the end, and where *text is NULL. */
bool text_next(const char **text, struct text_block *block);

/* Where text is printed to, and how. */
struct text_out {
	FILE *file;
	int width; /* columns */
	bool bold; /* literals in bold (a terminal) rather than in back quotes */
};

/* For stdout or stderr: the terminal's width, at most 100; otherwise 80 and plain. */
struct text_out text_out_for(FILE *file);

/* All blocks of a text, filled, `indent` columns from the left, blank lines between. */
void text_print(const struct text_out *out, const char *text, int indent);

/* "  left    right ...", the right side filled from `column` on; a left side that is too long
 * gets a line of its own. */
void text_row(const struct text_out *out, const char *left, const char *right, int column);

void text_title(const struct text_out *out, const char *title);
