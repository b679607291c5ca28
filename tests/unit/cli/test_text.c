/* Help texts: how they are taken apart and filled, as plain text and as a man page. */
#include "base/cleanup.h"
#include "cli/help_text.h"
#include "cli/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void expect(const char *text, int width, const char *expected)
{
	autofree char *printed = NULL;
	size_t size;
	struct text_out out = {.file = open_memstream(&printed, &size), .width = width};

	text_print(&out, text, 0);
	fclose(out.file);
	assert_string_equal(printed, expected);
}

static void test_fill(void **state)
{
	expect("one two three four", 9, "one two\nthree\nfour\n");
	expect("one\ntwo   three", 80, "one two three\n");
	expect("a-word-longer-than-the-line b", 10, "a-word-longer-than-the-line\nb\n");
	expect("first\n\n\n\nsecond\n", 80, "first\n\nsecond\n");
	expect("caf\xc3\xa9 caf\xc3\xa9 x", 9, "caf\xc3\xa9 caf\xc3\xa9\nx\n");
	expect("", 80, "");
}

static void test_literal(void **state)
{
	expect("Do this:\n\n    lodge   ls\n    lodge rm x\n\nThen that.", 12,
	       "Do this:\n\n    lodge   ls\n    lodge rm x\n\nThen that.\n");
}

static void test_items(void **state)
{
	expect("# TITLE\n- `0` success.\n- `125` failure of\nLodge itself", 80,
	       "TITLE:\n\n  0           success.\n  125         failure of Lodge itself\n");
}

static void test_rows(void **state)
{
	autofree char *printed = NULL;
	size_t size;
	struct text_out out = {.file = open_memstream(&printed, &size), .width = 24};

	text_row(&out, "-d", "in the background", 10);
	text_row(&out, "--a-long-one", "right", 10);
	fclose(out.file);
	assert_string_equal(printed, "  -d      in the\n          background\n"
				     "  --a-long-one\n          right\n");
}

/* What roff would take for a request or an escape is text. */
static void test_man_escapes(void **state)
{
	static const struct verb leaf = {
		.name = "leaf",
		.synopsis = "",
		.summary = "do it",
		.description = ".SH not a heading, a \\ and `--bold`\n'quoted' ~x^",
	};
	const struct verb root = {.name = "lodge",
				  .verbs = (const struct verb *const[]){&leaf, NULL}};
	autofree char *printed = NULL;
	size_t size;
	FILE *f = open_memstream(&printed, &size);

	help_man(&root, &leaf, "group leaf", f);
	fclose(f);
	assert_non_null(strstr(printed, ".TH LODGE-GROUP-LEAF 1 "));
	assert_non_null(strstr(printed, "\nlodge\\-group\\-leaf \\- do it\n"));
	assert_non_null(strstr(printed, "\n\\&.SH not a heading, a \\e and \\fB\\-\\-bold\\fR\n"));
	assert_non_null(strstr(printed, "\n\\&\\(aqquoted\\(aq \\(tix\\(ha\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fill),        cmocka_unit_test(test_literal),
		cmocka_unit_test(test_items),       cmocka_unit_test(test_rows),
		cmocka_unit_test(test_man_escapes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
