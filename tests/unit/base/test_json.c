/* JSON: errors that name the place and the key, and defaults that stay. */
#include "base/json.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static json_t *parse(const char *text)
{
	struct error err = {0};
	json_t *j = NULL;

	if (json_parse(text, "test", &j, &err) < 0)
		fail_msg("%s", err.message);
	return j;
}

static void test_parse_errors_name_the_place(void **context)
{
	struct error err = {0};
	json_t *j = NULL;

	assert_int_equal(json_parse("{\n  \"a\": }", "config.json", &j, &err), -EINVAL);
	assert_true(str_starts_with(err.message, "config.json: line 2, column "));
	assert_null(j);
	assert_int_equal(json_parse("", "x", &j, &err), -EINVAL);
	assert_int_equal(json_parse("{} x", "x", &j, &err), -EINVAL);
	/* Which of the two would hold is anybody's guess. */
	assert_int_equal(json_parse("{\"a\":1,\"a\":2}", "x", &j, &err), -EINVAL);
	assert_non_null(strstr(err.message, "duplicate"));
	/* A string that C would cut. */
	assert_int_equal(json_parse("{\"a\":\"x\\u0000y\"}", "x", &j, &err), -EINVAL);
}

static void test_deep_nesting_is_refused(void **context)
{
	autofree char *text = malloc(200001);
	json_t *j = NULL;

	memset(text, '[', 200000);
	text[200000] = '\0';
	assert_int_equal(json_parse(text, "x", &j, NULL), -EINVAL);
}

static void test_members(void **context)
{
	autojson json_t *j = parse("{\"s\":\"text\", \"i\":-7, \"b\":true, \"o\":{\"k\":1}, "
				   "\"a\":[\"x\",\"y\"], \"n\":null}");
	autostrv struct strv list = {0};
	json_t *object = NULL, *array = NULL;
	const char *s = "default";
	int64_t i = 5;
	bool b = false;

	assert_int_equal(json_get_str(j, "s", &s, NULL), 0);
	assert_string_equal(s, "text");
	assert_int_equal(json_get_int(j, "i", &i, NULL), 0);
	assert_int_equal(i, -7);
	assert_int_equal(json_get_bool(j, "b", &b, NULL), 0);
	assert_true(b);
	assert_int_equal(json_get_object(j, "o", &object, NULL), 0);
	assert_int_equal(json_object_size(object), 1);
	assert_int_equal(json_get_array(j, "a", &array, NULL), 0);
	assert_int_equal(json_array_size(array), 2);
	assert_int_equal(json_get_strv(j, "a", &list, NULL), 0);
	assert_int_equal(json_get_strv(j, "a", &list, NULL), 0); /* appends */
	assert_int_equal(list.n, 4);
	assert_string_equal(list.v[3], "y");
}

static void test_missing_and_null_leave_defaults(void **context)
{
	autojson json_t *j = parse("{\"n\":null}");
	static const char *const keys[] = {"n", "missing"};
	autostrv struct strv list = {0};

	for (size_t k = 0; k < ARRAY_SIZE(keys); k++) {
		const char *s = "default";
		json_t *other = j;
		int64_t i = 5;
		bool b = true;

		assert_int_equal(json_get_str(j, keys[k], &s, NULL), 0);
		assert_string_equal(s, "default");
		assert_int_equal(json_get_int(j, keys[k], &i, NULL), 0);
		assert_int_equal(i, 5);
		assert_int_equal(json_get_bool(j, keys[k], &b, NULL), 0);
		assert_true(b);
		assert_int_equal(json_get_object(j, keys[k], &other, NULL), 0);
		assert_int_equal(json_get_array(j, keys[k], &other, NULL), 0);
		assert_ptr_equal(other, j);
		assert_int_equal(json_get_strv(j, keys[k], &list, NULL), 0);
		assert_int_equal(list.n, 0);
	}
}

static void test_wrong_types_name_the_key(void **context)
{
	autojson json_t *j = parse("{\"s\":\"1\", \"r\":1.5, \"a\":[\"x\",1]}");
	autostrv struct strv list = {0};
	struct error err = {0};
	const char *s;
	json_t *other;
	int64_t i;
	bool b;

	assert_int_equal(json_get_int(j, "s", &i, &err), -EINVAL);
	assert_string_equal(err.message, "key 's' must be a whole number");
	assert_int_equal(json_get_int(j, "r", &i, &err), -EINVAL);
	assert_int_equal(json_get_str(j, "r", &s, &err), -EINVAL);
	assert_string_equal(err.message, "key 'r' must be a string");
	assert_int_equal(json_get_bool(j, "s", &b, &err), -EINVAL);
	assert_string_equal(err.message, "key 's' must be true or false");
	assert_int_equal(json_get_object(j, "a", &other, &err), -EINVAL);
	assert_int_equal(json_get_array(j, "s", &other, &err), -EINVAL);
	assert_int_equal(json_get_strv(j, "a", &list, &err), -EINVAL);
	assert_string_equal(err.message, "key 'a' must be an array of strings");
}

static void test_there_and_back(void **context)
{
	autostrv struct strv list = {0};
	autojson json_t *array = NULL;
	autofree char *text = NULL;

	strv_push(&list, "a\"b", NULL);
	strv_push(&list, "", NULL);
	array = json_from_strv(&list);
	text = json_text(array);
	assert_string_equal(text, "[\"a\\\"b\",\"\"]");
	strv_push(&list, "\xff", NULL); /* not UTF-8 */
	assert_null(json_from_strv(&list));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse_errors_name_the_place),
		cmocka_unit_test(test_deep_nesting_is_refused),
		cmocka_unit_test(test_members),
		cmocka_unit_test(test_missing_and_null_leave_defaults),
		cmocka_unit_test(test_wrong_types_name_the_key),
		cmocka_unit_test(test_there_and_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
