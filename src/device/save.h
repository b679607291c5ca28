/*
 * Saved state of devices: named fields inside named, versioned sections; never a struct's bytes.
 *
 *   section: u8 length of name, name, u16 version, u32 size of what follows
 *   field:   u8 length of name, name, u32 size, that many bytes (integers: little-endian)
 *
 * A field that the saved state lacks (an older version wrote it) leaves the variable as it was:
 * load into a device that was just reset. A field that the reader does not know is passed over.
 * So a device adds a field freely and raises its version only when a field's meaning changes.
 */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct save_writer {
	uint8_t *data; /* owned: save_writer_free() */
	size_t size, capacity;
	size_t section; /* where the open section's size stands; 0: none is open */
	bool failed;    /* out of memory; save_finish() says so */
};

/* The fields of one section, in memory that stays the caller's. */
struct save_reader {
	const uint8_t *data;
	size_t size;
	uint16_t version;
};

void save_section(struct save_writer *w, const char *name, unsigned int version);
void save_put(struct save_writer *w, const char *name, const void *data, size_t size);
/* Closes the last section. Errors: ENOMEM. */
int save_finish(struct save_writer *w, struct error *err);
void save_writer_free(struct save_writer *w);

/* Finds a section. Errors: ENOENT where it is missing, EINVAL where the data is damaged. */
int save_open(const void *data, size_t size, const char *name, struct save_reader *r,
	      struct error *err);
/* A field's bytes and size; NULL where it is missing. */
const void *save_get(const struct save_reader *r, const char *name, size_t *size);

/* A table of what a device's struct keeps; one serves both ways. */
struct save_field {
	const char *name;
	uint32_t offset, size, count; /* count integers of `size` bytes */
};

#define SAVE_FIELD(type, member)                                                                   \
	{                                                                                          \
#member, offsetof(type, member), sizeof(((type *)0)->member), 1                    \
	}
#define SAVE_ARRAY(type, member)                                                                   \
	{                                                                                          \
#member, offsetof(type, member), sizeof(((type *)0)->member[0]),                   \
			sizeof(((type *)0)->member) / sizeof(((type *)0)->member[0])               \
	}

void save_fields(struct save_writer *w, const struct save_field *fields, size_t n,
		 const void *from);
/* Fields of another size than the table says are EINVAL; `to` is then partly loaded. */
int load_fields(const struct save_reader *r, const struct save_field *fields, size_t n, void *to,
		struct error *err);
