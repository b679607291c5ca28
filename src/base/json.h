/*
 * JSON by jansson, with errors that name the key and what would be accepted, and an attribute
 * that drops a reference at the end of its scope.
 */
#pragma once

#include "base/error.h"

#include <jansson.h>
#include <stdint.h>

static inline void cleanup_json(json_t **j)
{
	json_decref(*j);
}

#define autojson __attribute__((cleanup(cleanup_json)))

/* Parses a document; `what` names it in the error. *out is the caller's reference. */
int json_parse(const char *text, const char *what, json_t **out, struct error *err);

/* Compact text that the caller frees; NULL when out of memory. */
char *json_text(const json_t *j);

/*
 * Members of an object. A missing key (or null) leaves *out as it is and succeeds, so that the
 * caller sets defaults first; a value of another type is EINVAL with the key's name. Strings and
 * objects stay owned by `object`.
 */
int json_get_str(const json_t *object, const char *key, const char **out, struct error *err);
int json_get_int(const json_t *object, const char *key, int64_t *out, struct error *err);
int json_get_bool(const json_t *object, const char *key, bool *out, struct error *err);
int json_get_object(const json_t *object, const char *key, json_t **out, struct error *err);
int json_get_array(const json_t *object, const char *key, json_t **out, struct error *err);

struct strv;

/* An array of strings, appended to `list`. */
int json_get_strv(const json_t *object, const char *key, struct strv *list, struct error *err);

/* The other way; NULL when out of memory or where a string is not UTF-8. */
json_t *json_from_strv(const struct strv *list);
