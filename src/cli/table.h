/*
 * Listings: the same rows as aligned columns for people or as JSON for programs. A verb builds an
 * array of objects and says which members are columns; with `--format json` everything is shown.
 */
#pragma once

#include "base/error.h"
#include "cli/verb.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

struct table_column {
	const char *header; /* "MEMORY" */
	const char *key;    /* member of the row's object */
	/*
	 * The text of a value, in buf or elsewhere. NULL: strings as they are, whole numbers,
	 * yes and no, arrays of strings separated by commas. A missing or null member is "-"
	 * without a call.
	 */
	const char *(*format)(const json_t *value, char *buf, size_t size);
	bool right; /* for numbers: aligned to the right */
};

/* Formatters: bytes as "1.5 GiB", seconds since 1970 as "3 minutes ago", millicpus as "0.5". */
const char *table_size(const json_t *value, char *buf, size_t size);
const char *table_age(const json_t *value, char *buf, size_t size);
const char *table_cpus(const json_t *value, char *buf, size_t size);

enum table_format { TABLE_TEXT, TABLE_JSON };

extern const char *const table_format_words[];

/* The row of a listing's option table for `--format`; `f` is an int or enum table_format. */
#define TABLE_FORMAT_OPTION(t, f)                                                                  \
	{                                                                                          \
		"format", 0, "FORMAT", option_choice(t, f, table_format_words),                    \
			"a table for people, or JSON with everything known for programs (table)"   \
	}

/*
 * Prints an array of objects. `columns` ends with a NULL header and may be NULL for JSON. On a
 * terminal the last column is cut at the right edge. Errors: EINVAL, ENOMEM; a failed write shows
 * when stdout is flushed.
 */
int table_print(FILE *file, const json_t *rows, const struct table_column *columns,
		enum table_format format, struct error *err);

/* `--quiet`: one member of each row, a line each. */
void table_print_member(FILE *file, const json_t *rows, const char *key);
