/* See table.h. */
#include "cli/table.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { GAP = 2 }; /* columns between columns */

const char *const table_format_words[] = {"table", "json", NULL};

const char *table_size(const json_t *value, char *buf, size_t size)
{
	char text[16];

	snprintf(buf, size, "%s", format_size((uint64_t)json_integer_value(value), text));
	return buf;
}

const char *table_age(const json_t *value, char *buf, size_t size)
{
	static const struct {
		int64_t seconds;
		const char *name;
	} units[] = {
		{365 * 86400, "year"}, {30 * 86400, "month"}, {7 * 86400, "week"},
		{86400, "day"},        {3600, "hour"},        {60, "minute"},
	};
	int64_t age = (int64_t)time(NULL) - (int64_t)json_number_value(value);

	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		int64_t n = age / units[i].seconds;

		/* "90 minutes" says more than "1 hour"; from two on the unit is good enough. */
		if (n >= 2 || (n == 1 && i == ARRAY_SIZE(units) - 1)) {
			snprintf(buf, size, "%" PRId64 " %s%s ago", n, units[i].name,
				 n == 1 ? "" : "s");
			return buf;
		}
	}
	return "just now";
}

const char *table_cpus(const json_t *value, char *buf, size_t size)
{
	snprintf(buf, size, "%g", (double)json_integer_value(value) / 1000);
	return buf;
}

/* A string that the caller frees. */
static char *join(const json_t *array)
{
	autofree char *text = strdup("");
	json_t *item;
	size_t i;

	json_array_foreach (array, i, item) {
		const char *s = json_string_value(item);
		char *longer = str_printf("%s%s%s", text ?: "", i ? "," : "", s ? s : "?");

		free(text);
		text = longer;
	}
	return steal_ptr(&text);
}

/* What a terminal would act on must not come from a guest's or an image's own words. */
static char *printable(char *s)
{
	for (char *p = s; p && *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	return s;
}

/* A cell's text, which the caller frees; NULL when out of memory. */
static char *cell_text(const json_t *row, const struct table_column *column)
{
	const json_t *value = json_object_get(row, column->key);
	char buf[256];

	if (!value || json_is_null(value))
		return strdup("-");
	if (column->format)
		return printable(strdup(column->format(value, buf, sizeof(buf))));
	switch (json_typeof(value)) {
	case JSON_STRING:
		return printable(strdup(json_string_value(value)));
	case JSON_INTEGER:
		return str_printf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
	case JSON_REAL:
		return str_printf("%g", json_real_value(value));
	case JSON_ARRAY:
		return printable(json_array_size(value) ? join(value) : strdup("-"));
	case JSON_TRUE:
		return strdup("yes");
	case JSON_FALSE:
		return strdup("no");
	default:
		return strdup("...");
	}
}

static int text_columns(const char *s)
{
	int columns = 0;

	for (; *s; s++)
		columns += ((unsigned char)*s & 0xc0) != 0x80;
	return columns;
}

/* Cuts s to so many columns, the last of them an ellipsis. */
static void print_cut(FILE *file, const char *s, int columns)
{
	int at = 0;

	if (text_columns(s) <= columns) {
		fputs(s, file);
		return;
	}
	for (; *s; s++) {
		at += ((unsigned char)*s & 0xc0) != 0x80;
		if (at >= columns)
			break;
		fputc(*s, file);
	}
	fputs("…", file);
}

static int terminal_width(FILE *file)
{
	struct winsize size;

	if (!isatty(fileno(file)) || ioctl(fileno(file), TIOCGWINSZ, &size) < 0)
		return 0;
	return size.ws_col;
}

static void print_line(FILE *file, const char *const *cells, const struct table_column *columns,
		       const int *widths, size_t n, int terminal)
{
	int at = 0;

	for (size_t i = 0; i < n; i++) {
		int pad = widths[i] - text_columns(cells[i]);
		bool last = i + 1 == n;

		if (columns[i].right)
			fprintf(file, "%*s%s", pad, "", cells[i]);
		else if (last && terminal > at + 8)
			print_cut(file, cells[i], terminal - at);
		else
			fputs(cells[i], file);
		if (!last)
			fprintf(file, "%*s", columns[i].right ? GAP : pad + GAP, "");
		at += widths[i] + GAP;
	}
	fputc('\n', file);
}

static void cells_free(char ***cells)
{
	for (char **c = *cells; c && *c; c++)
		free(*c);
	free(*cells);
}

static int print_text(FILE *file, const json_t *rows, const struct table_column *columns,
		      struct error *err)
{
	__attribute__((cleanup(cells_free))) char **cells = NULL;
	autofree const char **headers = NULL;
	autofree int *widths = NULL;
	size_t n = 0, n_rows = json_array_size(rows);
	int terminal = terminal_width(file);

	while (columns[n].header)
		n++;
	cells = calloc(n * n_rows + 1, sizeof(*cells));
	headers = calloc(n + 1, sizeof(*headers));
	widths = calloc(n + 1, sizeof(*widths));
	if (!cells || !headers || !widths)
		return error_oom(err);
	for (size_t c = 0; c < n; c++) {
		headers[c] = columns[c].header;
		widths[c] = text_columns(headers[c]);
	}
	for (size_t i = 0; i < n * n_rows; i++) {
		int width;

		cells[i] = cell_text(json_array_get(rows, i / n), &columns[i % n]);
		if (!cells[i])
			return error_oom(err);
		width = text_columns(cells[i]);
		if (width > widths[i % n])
			widths[i % n] = width;
	}
	print_line(file, headers, columns, widths, n, terminal);
	for (size_t r = 0; r < n_rows; r++)
		print_line(file, (const char *const *)cells + r * n, columns, widths, n, terminal);
	return 0;
}

int table_print(FILE *file, const json_t *rows, const struct table_column *columns,
		enum table_format format, struct error *err)
{
	if (!json_is_array(rows))
		return error_set(err, EINVAL, "a listing needs an array of rows");
	if (format == TABLE_TEXT)
		return print_text(file, rows, columns, err);
	if (json_dumpf(rows, file, JSON_INDENT(2)) < 0 && !ferror(file))
		return error_oom(err);
	fputc('\n', file);
	return 0;
}

void table_print_member(FILE *file, const json_t *rows, const char *key)
{
	const json_t *row;
	size_t i;

	json_array_foreach (rows, i, row) {
		const char *s = json_string_value(json_object_get(row, key));

		if (s)
			fprintf(file, "%s\n", s);
	}
}
