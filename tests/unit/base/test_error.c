/* The one way to fail: wording, codes, and what a hostile name can't do to a terminal. */
#include "base/error.h"

#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_set_wrap_hint(void **context)
{
	struct error err = {0};

	assert_int_equal(error_set(&err, EINVAL, "key '%s' is wrong", "x"), -EINVAL);
	assert_string_equal(err.message, "key 'x' is wrong");
	assert_int_equal(err.code, EINVAL);
	error_hint(&err, "write %d", 1);
	assert_int_equal(error_wrap(&err, "read %s", "conf"), -EINVAL);
	assert_string_equal(err.message, "read conf: key 'x' is wrong");
	assert_string_equal(err.hint, "write 1");
	/* A new error is not explained by the old hint. */
	err.exit_status = 127;
	assert_int_equal(error_sys(&err, ENOENT, "open %s", "f"), -ENOENT);
	assert_string_equal(err.message, "open f: No such file or directory");
	assert_string_equal(err.hint, "");
	assert_int_equal(err.exit_status, 0);
	assert_int_equal(error_oom(&err), -ENOMEM);
	assert_string_equal(err.message, "out of memory");
	error_clear(&err);
	assert_int_equal(err.code, 0);
	assert_string_equal(err.message, "");
}

static void test_without_a_struct(void **context)
{
	assert_int_equal(error_set(NULL, EPERM, "x"), -EPERM);
	assert_int_equal(error_sys(NULL, EPERM, "x"), -EPERM);
	assert_int_equal(error_wrap(NULL, "x"), -EIO);
	assert_int_equal(error_oom(NULL), -ENOMEM);
	error_hint(NULL, "x");
	error_clear(NULL);
}

static void test_wrap_without_an_error(void **context)
{
	struct error err = {0};

	assert_int_equal(error_wrap(&err, "x"), -EIO);
}

static void test_one_printable_line(void **context)
{
	struct error err = {0};

	/* Escape sequences, also the 8-bit CSI in UTF-8; a newline would be a second message. */
	error_set(&err, EINVAL,
		  "a\x1b[2Jb\nc\td\x7f"
		  "e\xc2\x9b"
		  "2Jf");
	assert_string_equal(err.message, "a?[2Jb c d?e??2Jf");
	error_hint(&err, "a\x1b\n");
	assert_string_equal(err.hint, "a? ");
	error_set(&err, EINVAL, "b");
	error_wrap(&err, "a\x1b"
			 "a");
	assert_string_equal(err.message, "a?a: b");
	/* Other languages stay as they are. */
	error_set(&err, EINVAL,
		  "gr\xc3\xbc\xc3\x9f"
		  "e \xe6\x96\x87");
	assert_string_equal(err.message, "gr\xc3\xbc\xc3\x9f"
					 "e \xe6\x96\x87");
}

static void test_long_messages_are_cut(void **context)
{
	struct error err = {0};
	char text[2000];

	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	error_sys(&err, ENOENT, "%s", text);
	assert_int_equal(strlen(err.message), sizeof(err.message) - 1);
	assert_int_equal(error_wrap(&err, "why"), -ENOENT);
	assert_int_equal(strlen(err.message), sizeof(err.message) - 1);
	assert_memory_equal(err.message, "why: xxx", 8);
	assert_string_equal(err.message + sizeof(err.message) - 5, "x...");
	error_wrap(&err, "%s", text);
	assert_int_equal(strlen(err.message), sizeof(err.message) - 1);
	error_hint(&err, "%s", text);
	assert_int_equal(strlen(err.hint), sizeof(err.hint) - 1);
}

static void test_wrap_with_its_own_message(void **context)
{
	struct error err = {0};

	error_set(&err, EINVAL, "inner");
	error_wrap(&err, "%s", err.message);
	assert_string_equal(err.message, "inner: inner");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set_wrap_hint),
		cmocka_unit_test(test_without_a_struct),
		cmocka_unit_test(test_wrap_without_an_error),
		cmocka_unit_test(test_one_printable_line),
		cmocka_unit_test(test_long_messages_are_cut),
		cmocka_unit_test(test_wrap_with_its_own_message),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
