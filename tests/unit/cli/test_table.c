/* Listings: alignment, formatters, JSON, and values that could harm a terminal. */
#include "base/cleanup.h"
#include "base/json.h"
#include "cli/table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static const struct table_column columns[] = {
	{"NAME", "name"},
	{"MEMORY", "memory_bytes", table_size, true},
	{"CPUS", "millicpus", table_cpus, true},
	{"UP", "up"},
	{"PORTS", "ports"},
	{},
};

/* The caller frees what it returns. */
static char *print(const char *rows, enum table_format format)
{
	autojson json_t *json = json_loads(rows, 0, NULL);
	struct error err = {};
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	assert_non_null(json);
	assert_int_equal(table_print(f, json, columns, format, &err), 0);
	fclose(f);
	return text;
}

static void expect(const char *rows, const char *expected)
{
	autofree char *text = print(rows, TABLE_TEXT);

	assert_string_equal(text, expected);
}

static void test_text(void **state)
{
	expect("[]", "NAME  MEMORY  CPUS  UP  PORTS\n");
	expect("[{\"name\": \"web\", \"memory_bytes\": 1610612736, \"millicpus\": 500, \"up\": "
	       "true,"
	       "  \"ports\": [\"80:80\", \"443:443\"]},"
	       " {\"name\": \"database\", \"memory_bytes\": 512, \"millicpus\": 2000, \"up\": "
	       "false,"
	       "  \"ports\": []},"
	       " {\"name\": \"caf\xc3\xa9\", \"memory_bytes\": null}]",
	       "NAME       MEMORY  CPUS  UP   PORTS\n"
	       "web       1.5 GiB   0.5  yes  80:80,443:443\n"
	       "database    512 B     2  no   -\n"
	       "caf\xc3\xa9            -     -  -    -\n");
}

static void test_terminal_controls(void **state)
{
	expect("[{\"name\": \"a\\u001b[2Jb\\n\", \"ports\": [\"\\u0007\"]}]",
	       "NAME     MEMORY  CPUS  UP  PORTS\n"
	       "a?[2Jb?       -     -  -   ?\n");
}

/* JSON shows everything, also what is no column. */
static void test_json(void **state)
{
	static const char rows[] = "[{\"name\": \"web\", \"pid\": 17, \"ports\": [\"80:80\"]}]";
	autofree char *text = print(rows, TABLE_JSON);
	autojson json_t *in = json_loads(rows, 0, NULL), *out = json_loads(text, 0, NULL);

	assert_non_null(out);
	assert_true(json_equal(in, out));
}

static void test_member(void **state)
{
	autojson json_t *rows =
		json_loads("[{\"name\": \"a\"}, {\"x\": 1}, {\"name\": \"b\"}]", 0, NULL);
	autofree char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	table_print_member(f, rows, "name");
	fclose(f);
	assert_string_equal(text, "a\nb\n");
}

static void test_age(void **state)
{
	static const struct {
		int64_t seconds;
		const char *text;
	} ages[] = {
		{-5, "just now"},
		{3, "just now"},
		{60, "1 minute ago"},
		{150, "2 minutes ago"},
		{5400, "90 minutes ago"},
		{7300, "2 hours ago"},
		{86400, "24 hours ago"},
		{3 * 86400, "3 days ago"},
		{20 * 86400, "2 weeks ago"},
		{100 * 86400, "3 months ago"},
		{800 * 86400, "2 years ago"},
	};
	char buf[64];

	for (size_t i = 0; i < ARRAY_SIZE(ages); i++) {
		autojson json_t *then = json_integer(time(NULL) - ages[i].seconds);

		assert_string_equal(table_age(then, buf, sizeof(buf)), ages[i].text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text), cmocka_unit_test(test_terminal_controls),
		cmocka_unit_test(test_json), cmocka_unit_test(test_member),
		cmocka_unit_test(test_age),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
