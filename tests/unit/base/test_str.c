/* What users write: sizes, numbers, processors; and lists of strings. */
#include "base/str.h"

#include "base/cleanup.h"

#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void test_sizes(void **context)
{
	static const struct {
		const char *text;
		uint64_t size_bytes;
	} good[] = {
		{"0", 0},
		{"1", 1},
		{"12b", 12},
		{"12B", 12},
		{"1k", 1024},
		{"1K", 1024},
		{"1KB", 1024},
		{"1kb", 1024},
		{"1KiB", 1024},
		{"512M", 512ULL << 20},
		{"1.5G", 3ULL << 29},
		{"0.5k", 512},
		{"2T", 2ULL << 40},
		{"8388607T", 8388607ULL << 40},
		{"9223372036854775807", INT64_MAX},
		{"0000000001", 1},
	};
	static const char *const bad[] = {
		"",      "12Q",  "-1",
		"+1",    " 1",   "1 ",
		"0x10",  "x",    "k",
		".5",    "1.",   "1..5",
		"1.5.2", "1Kx",  "1KiBx",
		"1Ki",   "1iB",  "1bb",
		"1e3",   "inf",  "nan",
		"1,5G",  "1 G",  "0x",
		"1G1",   "1\nG", "00000000000000000000000000000000000000000001",
	};
	static const char *const large[] = {"8388608T", "9223372036854775808", "100000000000000P",
					    "99999999999999999999999999999999999999"};
	struct error err = {0};
	uint64_t size;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		size = 99;
		if (parse_size(good[i].text, "--memory", &size, &err) < 0 ||
		    size != good[i].size_bytes)
			fail_msg("%s: %llu", good[i].text, (unsigned long long)size);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		size = 99;
		if (parse_size(bad[i], "--memory", &size, &err) != -EINVAL || size != 99)
			fail_msg("'%s' is taken", bad[i]);
		assert_true(str_starts_with(err.message, "--memory: "));
		assert_true(err.hint[0]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(large); i++)
		if (parse_size(large[i], "--memory", &size, &err) != -ERANGE)
			fail_msg("'%s' is taken", large[i]);
}

static void test_numbers(void **context)
{
	static const char *const bad[] = {"",    "x",  " 1", "1 ",  "0x10",
					  "1.0", "1k", "-",  "--1", "\t1"};
	struct error err = {0};
	int64_t n = 0;

	assert_int_equal(parse_number("0", "n", 0, 10, &n, &err), 0);
	assert_int_equal(n, 0);
	assert_int_equal(parse_number("10", "n", 0, 10, &n, &err), 0);
	assert_int_equal(n, 10);
	assert_int_equal(parse_number("-5", "n", -5, 10, &n, &err), 0);
	assert_int_equal(n, -5);
	assert_int_equal(parse_number("010", "n", 0, 10, &n, &err), 0);
	assert_int_equal(n, 10);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (parse_number(bad[i], "n", -100, 100, &n, &err) != -EINVAL)
			fail_msg("'%s' is taken", bad[i]);
	assert_int_equal(parse_number("11", "n", 0, 10, &n, &err), -ERANGE);
	assert_string_equal(err.message, "n: 11 is outside 0..10");
	assert_int_equal(parse_number("-1", "n", 0, 10, &n, &err), -ERANGE);
	assert_int_equal(parse_number("9223372036854775808", "n", INT64_MIN, INT64_MAX, &n, &err),
			 -ERANGE);
	assert_int_equal(parse_number("-9223372036854775809", "n", INT64_MIN, INT64_MAX, &n, &err),
			 -ERANGE);
	assert_int_equal(n, 10);
}

static void test_cpus(void **context)
{
	static const char *const bad[] = {"", "x", "-1", "1c", "0x1", "1.", ".5", "1 ", "nan"};
	struct error err = {0};
	uint64_t m = 0;

	assert_int_equal(parse_cpus("2", "--cpus", &m, &err), 0);
	assert_int_equal(m, 2000);
	assert_int_equal(parse_cpus("0.5", "--cpus", &m, &err), 0);
	assert_int_equal(m, 500);
	assert_int_equal(parse_cpus("0.01", "--cpus", &m, &err), 0);
	assert_int_equal(m, 10);
	assert_int_equal(parse_cpus("1.2345", "--cpus", &m, &err), 0);
	assert_int_equal(m, 1235); /* to the nearest */
	assert_int_equal(parse_cpus("65536", "--cpus", &m, &err), 0);
	assert_int_equal(m, 65536000);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (parse_cpus(bad[i], "--cpus", &m, &err) != -EINVAL)
			fail_msg("'%s' is taken", bad[i]);
	assert_int_equal(parse_cpus("0", "--cpus", &m, &err), -ERANGE);
	assert_int_equal(parse_cpus("0.009", "--cpus", &m, &err), -ERANGE);
	assert_int_equal(parse_cpus("65537", "--cpus", &m, &err), -ERANGE);
}

static void test_format_size(void **context)
{
	static const struct {
		uint64_t size_bytes;
		const char *text;
	} rows[] = {
		{0, "0 B"},
		{1023, "1023 B"},
		{1024, "1.0 KiB"},
		{1536, "1.5 KiB"},
		{10240, "10 KiB"},
		{1 << 20, "1.0 MiB"},
		{(1 << 20) - 1, "1.0 MiB"},
		{10 * 1024 - 1, "10 KiB"},
		{1023 * 1024, "1023 KiB"},
		{5ULL << 30, "5.0 GiB"},
		{UINT64_MAX, "16 EiB"},
	};
	char buf[16];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		assert_string_equal(format_size(rows[i].size_bytes, buf), rows[i].text);
}

static void test_lists(void **context)
{
	autostrv struct strv list = {0};
	struct error err = {0};
	char text[16];

	for (int i = 0; i < 1000; i++) {
		if (i & 1)
			assert_int_equal(strv_pushf(&list, &err, "%d", i), 0);
		else {
			snprintf(text, sizeof(text), "%d", i);
			assert_int_equal(strv_push(&list, text, &err), 0);
		}
		/* Always fit for execve(). */
		assert_int_equal(list.n, i + 1);
		assert_null(list.v[list.n]);
	}
	for (int i = 0; i < 1000; i++) {
		snprintf(text, sizeof(text), "%d", i);
		assert_string_equal(list.v[i], text);
	}
	strv_free(&list);
	assert_int_equal(list.n, 0);
	assert_null(list.v);
}

static void test_small_things(void **context)
{
	autofree char *s = str_printf("%s-%d", "a", 5);
	char text[] = "line \r\n\n", blank[] = " \n", empty[] = "";

	assert_string_equal(s, "a-5");
	assert_string_equal(str_chomp(text), "line");
	assert_string_equal(str_chomp(blank), "");
	assert_string_equal(str_chomp(empty), "");
	assert_true(str_eq("a", "a") && str_eq(NULL, NULL));
	assert_false(str_eq("a", "b") || str_eq("a", NULL) || str_eq(NULL, "a") ||
		     str_eq("", NULL));
	assert_true(str_starts_with("abc", "ab") && str_starts_with("a", ""));
	assert_false(str_starts_with("a", "ab"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes), cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_cpus),  cmocka_unit_test(test_format_size),
		cmocka_unit_test(test_lists), cmocka_unit_test(test_small_things),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
