/* See save.h. */
#include "device/save.h"

#include <stdlib.h>
#include <string.h>

static void append(struct save_writer *w, const void *data, size_t size)
{
	if (w->failed || !size)
		return;
	if (size > w->capacity - w->size) {
		size_t capacity = (w->size + size) * 2 + 256;
		uint8_t *grown = realloc(w->data, capacity);

		if (!grown) {
			w->failed = true;
			return;
		}
		w->data = grown;
		w->capacity = capacity;
	}
	memcpy(w->data + w->size, data, size);
	w->size += size;
}

static void append_name(struct save_writer *w, const char *name)
{
	uint8_t length = (uint8_t)strlen(name);

	append(w, &length, 1);
	append(w, name, length);
}

static void close_section(struct save_writer *w)
{
	uint32_t size;

	if (!w->section || w->failed)
		return;
	size = (uint32_t)(w->size - w->section - sizeof(size));
	memcpy(w->data + w->section, &size, sizeof(size));
	w->section = 0;
}

void save_section(struct save_writer *w, const char *name, unsigned int version)
{
	uint16_t v = (uint16_t)version;
	uint32_t size = 0;

	close_section(w);
	append_name(w, name);
	append(w, &v, sizeof(v));
	w->section = w->size;
	append(w, &size, sizeof(size));
}

void save_put(struct save_writer *w, const char *name, const void *data, size_t size)
{
	uint32_t n = (uint32_t)size;

	append_name(w, name);
	append(w, &n, sizeof(n));
	append(w, data, size);
}

int save_finish(struct save_writer *w, struct error *err)
{
	close_section(w);
	return w->failed ? error_oom(err) : 0;
}

void save_writer_free(struct save_writer *w)
{
	free(w->data);
	*w = (struct save_writer){0};
}

/* Takes `size` bytes off the front; NULL when there are not as many. */
static const uint8_t *take(const uint8_t **at, size_t *left, size_t size)
{
	const uint8_t *p = *at;

	if (size > *left)
		return NULL;
	*at += size;
	*left -= size;
	return p;
}

/* Takes the name, the version (of a section) and the body. */
static bool take_item(const uint8_t **at, size_t *left, bool section, const uint8_t **name,
		      uint8_t *name_size, uint16_t *version, const uint8_t **body, uint32_t *size)
{
	const uint8_t *p = take(at, left, 1);

	if (!p)
		return false;
	*name_size = *p;
	*name = take(at, left, *name_size);
	if (!*name)
		return false;
	if (section) {
		p = take(at, left, sizeof(*version));
		if (!p)
			return false;
		memcpy(version, p, sizeof(*version));
	}
	p = take(at, left, sizeof(*size));
	if (!p)
		return false;
	memcpy(size, p, sizeof(*size));
	*body = take(at, left, *size);
	return *body;
}

static bool is_named(const uint8_t *name, uint8_t size, const char *wanted)
{
	return strlen(wanted) == size && memcmp(name, wanted, size) == 0;
}

int save_open(const void *data, size_t size, const char *wanted, struct save_reader *r,
	      struct error *err)
{
	const uint8_t *at = data, *name, *body;
	uint8_t name_size;
	uint16_t version;
	uint32_t body_size;

	while (size) {
		if (!take_item(&at, &size, true, &name, &name_size, &version, &body, &body_size))
			return error_set(err, EINVAL, "the saved state is damaged");
		if (!is_named(name, name_size, wanted))
			continue;
		*r = (struct save_reader){body, body_size, version};
		/* Walk it once, so that save_get() need not report damage. */
		at = body;
		size = body_size;
		while (size)
			if (!take_item(&at, &size, false, &name, &name_size, NULL, &body,
				       &body_size))
				return error_set(err, EINVAL, "the saved state of %s is damaged",
						 wanted);
		return 0;
	}
	return error_set(err, ENOENT, "the saved state has no %s", wanted);
}

const void *save_get(const struct save_reader *r, const char *wanted, size_t *size)
{
	const uint8_t *at = r->data, *name, *body;
	size_t left = r->size;
	uint8_t name_size;
	uint32_t n;

	while (left && take_item(&at, &left, false, &name, &name_size, NULL, &body, &n)) {
		if (is_named(name, name_size, wanted)) {
			*size = n;
			return body;
		}
	}
	return NULL;
}

void save_fields(struct save_writer *w, const struct save_field *fields, size_t n, const void *from)
{
	for (size_t i = 0; i < n; i++)
		save_put(w, fields[i].name, (const uint8_t *)from + fields[i].offset,
			 (size_t)fields[i].size * fields[i].count);
}

int load_fields(const struct save_reader *r, const struct save_field *fields, size_t n, void *to,
		struct error *err)
{
	for (size_t i = 0; i < n; i++) {
		size_t size;
		const void *data = save_get(r, fields[i].name, &size);

		if (!data)
			continue;
		if (size != (size_t)fields[i].size * fields[i].count)
			return error_set(err, EINVAL, "the saved field %s has %zu bytes, not %u",
					 fields[i].name, size, fields[i].size * fields[i].count);
		memcpy((uint8_t *)to + fields[i].offset, data, size);
	}
	return 0;
}
