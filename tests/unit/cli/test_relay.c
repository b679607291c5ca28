/* The keys by which a user leaves a guest: how they are written. */
#include "cli/relay.h"

#include "base/cleanup.h"

#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void assert_keys(const char *text, const char *expected)
{
	struct relay_keys keys = {0};
	struct error err = {0};

	if (relay_parse_keys(text, &keys, &err) < 0)
		fail_msg("%s", err.message);
	assert_int_equal(keys.n, strlen(expected));
	assert_memory_equal(keys.v, expected, keys.n);
}

static void test_keys(void **context)
{
	assert_keys(RELAY_DETACH_KEYS, "\x10\x11");
	assert_keys("ctrl-a", "\x01");
	assert_keys("ctrl-z", "\x1a");
	assert_keys("q", "q");
	assert_keys("a,b,c", "abc");
	assert_keys("ctrl-a,d", "\x01"
				"d");
	assert_keys("c,t,r,l", "ctrl");
	assert_keys("c", "c");
	assert_keys("1,2,3,4,5,6,7,8", "12345678"); /* as many as there is room for */
}

static void test_wrong_keys(void **context)
{
	static const char *const wrong[] = {
		"",        "ctrl-",        "ctrl-A",    "ctrl-1",   "ctrl-p ctrl-q",     "ab",
		"ctrl-pq", "ctrl-p,ctrl-", "ctrl-p,qq", "nonsense", "1,2,3,4,5,6,7,8,9",
	};

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct relay_keys keys;
		struct error err = {0};

		if (relay_parse_keys(wrong[i], &keys, &err) != -EINVAL)
			fail_msg("'%s' was taken", wrong[i]);
		assert_true(err.hint[0]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_wrong_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
