/* See json.h. */
#include "base/json.h"

#include "base/str.h"

int json_parse(const char *text, const char *what, json_t **out, struct error *err)
{
	json_error_t why;
	json_t *j = json_loads(text, JSON_REJECT_DUPLICATES, &why);

	if (!j)
		return error_set(err, EINVAL, "%s: line %d, column %d: %s", what, why.line,
				 why.column, why.text);
	*out = j;
	return 0;
}

char *json_text(const json_t *j)
{
	return json_dumps(j, JSON_COMPACT | JSON_ENCODE_ANY);
}

/* Finds a member that is there and not null; *value is NULL otherwise. */
static int find(const json_t *object, const char *key, bool right_type(const json_t *),
		const char *type, const json_t **value, struct error *err)
{
	*value = json_object_get(object, key);
	if (*value && json_is_null(*value))
		*value = NULL;
	if (*value && !right_type(*value))
		return error_set(err, EINVAL, "key '%s' must be %s", key, type);
	return 0;
}

static bool is_str(const json_t *j)
{
	return json_is_string(j);
}

static bool is_int(const json_t *j)
{
	return json_is_integer(j);
}

static bool is_bool(const json_t *j)
{
	return json_is_boolean(j);
}

static bool is_object(const json_t *j)
{
	return json_is_object(j);
}

static bool is_array(const json_t *j)
{
	return json_is_array(j);
}

int json_get_str(const json_t *object, const char *key, const char **out, struct error *err)
{
	const json_t *value;
	int rc = find(object, key, is_str, "a string", &value, err);

	if (!rc && value)
		*out = json_string_value(value);
	return rc;
}

int json_get_int(const json_t *object, const char *key, int64_t *out, struct error *err)
{
	const json_t *value;
	int rc = find(object, key, is_int, "a whole number", &value, err);

	if (!rc && value)
		*out = json_integer_value(value);
	return rc;
}

int json_get_bool(const json_t *object, const char *key, bool *out, struct error *err)
{
	const json_t *value;
	int rc = find(object, key, is_bool, "true or false", &value, err);

	if (!rc && value)
		*out = json_is_true(value);
	return rc;
}

int json_get_object(const json_t *object, const char *key, json_t **out, struct error *err)
{
	const json_t *value;
	int rc = find(object, key, is_object, "an object", &value, err);

	if (!rc && value)
		*out = (json_t *)value;
	return rc;
}

int json_get_array(const json_t *object, const char *key, json_t **out, struct error *err)
{
	const json_t *value;
	int rc = find(object, key, is_array, "an array", &value, err);

	if (!rc && value)
		*out = (json_t *)value;
	return rc;
}

int json_get_strv(const json_t *object, const char *key, struct strv *list, struct error *err)
{
	json_t *array = NULL, *item;
	size_t i;
	int rc = json_get_array(object, key, &array, err);

	if (rc < 0 || !array)
		return rc;
	json_array_foreach (array, i, item) {
		if (!json_is_string(item))
			return error_set(err, EINVAL, "key '%s' must be an array of strings", key);
		rc = strv_push(list, json_string_value(item), err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

json_t *json_from_strv(const struct strv *list)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < list->n; i++) {
		if (json_array_append_new(array, json_string(list->v[i])) < 0) {
			json_decref(array);
			return NULL;
		}
	}
	return array;
}
