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

struct state_writer {
	uint8_t *data; /* owned: state_writer_free() */
	size_t size, capacity;
	size_t section; /* where the open section's size stands; 0: none is open */
	bool failed;    /* out of memory; state_finish() says so */
};

/* The fields of one section, in memory that stays the caller's. */
struct state_reader {
	const uint8_t *data;
	size_t size;
	uint16_t version;
};

void state_section(struct state_writer *w, const char *name, unsigned int version);
void state_put(struct state_writer *w, const char *name, const void *data, size_t size);
/* Closes the last section. Errors: ENOMEM. */
int state_finish(struct state_writer *w, struct error *err);
void state_writer_free(struct state_writer *w);

/* Finds a section. Errors: ENOENT where it is missing, EINVAL where the data is damaged. */
int state_open(const void *data, size_t size, const char *name, struct state_reader *r,
	       struct error *err);
/* A field's bytes and size; NULL where it is missing. */
const void *state_get(const struct state_reader *r, const char *name, size_t *size);

/* A table of what a device's struct keeps; one serves both ways. */
struct state_field {
	const char *name;
	uint32_t offset, size, count; /* count integers of `size` bytes */
};

#define STATE_FIELD(type, member)                                                                  \
	{                                                                                          \
#member, offsetof(type, member), sizeof(((type *)0)->member), 1                    \
	}
#define STATE_ARRAY(type, member)                                                                  \
	{                                                                                          \
#member, offsetof(type, member), sizeof(((type *)0)->member[0]),                   \
			sizeof(((type *)0)->member) / sizeof(((type *)0)->member[0])               \
	}

void state_save_fields(struct state_writer *w, const struct state_field *fields, size_t n,
		       const void *from);
/* Fields of another size than the table says are EINVAL; `to` is then partly loaded. */
int state_load_fields(const struct state_reader *r, const struct state_field *fields, size_t n,
		      void *to, struct error *err);
