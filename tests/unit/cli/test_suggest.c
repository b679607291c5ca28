/* "Did you mean": near words are offered, far ones are not. */
#include "cli/suggest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const char *nearest(const char *typed)
{
	static const char *const words[] = {"run",   "rm",     "start",   "stats",  "stop",
					    "image", "memory", "migrate", "network"};
	struct suggestion s = {.typed = typed};

	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		suggestion_offer(&s, words[i]);
	return s.nearest;
}

static void test_near(void **state)
{
	assert_string_equal(nearest("rnu"), "run");
	assert_string_equal(nearest("RUN"), "run");
	assert_string_equal(nearest("strat"), "start");
	assert_string_equal(nearest("stpo"), "stop");
	assert_string_equal(nearest("imagee"), "image");
	assert_string_equal(nearest("mig"), "migrate");
	assert_string_equal(nearest("memroy"), "memory");
	assert_string_equal(nearest("netwrok"), "network");
}

static void test_far(void **state)
{
	assert_null(nearest(""));
	assert_null(nearest("x"));
	assert_null(nearest("frobnicate"));
	assert_null(nearest("xyz"));
	assert_null(nearest("a-word-much-longer-than-any-verb-could-be"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_near),
		cmocka_unit_test(test_far),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
