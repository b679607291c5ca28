/*
 * Guest memory: one memfd, mapped once into this process, that lies in guest physical addresses
 * from 0 up with a hole below 4 GiB for devices. Everything but an engine reaches it through the
 * accessors here, which check the whole length and copy. [any] thread may call them; a guest that
 * writes the same bytes meanwhile sees what two processors would.
 */
#pragma once

#include "base/error.h"
#include "engine/engine.h"

#include <stddef.h>

#define MEMORY_HOLE_START 0xc0000000ull
#define MEMORY_HOLE_END   0x100000000ull

struct memory;

/* size_bytes is rounded up to whole pages. Errors: EINVAL (0), ENOMEM. */
int memory_new(uint64_t size_bytes, struct memory **memory, struct error *err);
void memory_free(struct memory *memory);

uint64_t memory_size(const struct memory *memory);
uint64_t memory_below_4g(const struct memory *memory); /* bytes from 0 up */
uint64_t memory_above_4g(const struct memory *memory); /* bytes from 4 GiB up */

/* Gives all of it to a virtual machine. */
int memory_map(const struct memory *memory, const struct engine *engine, struct vm *vm,
	       struct error *err);

/* Errors: EFAULT where a byte of it is no RAM; nothing is copied then. */
int memory_read(const struct memory *memory, gpa_t gpa, void *data, size_t size, struct error *err);
int memory_write(struct memory *memory, gpa_t gpa, const void *data, size_t size,
		 struct error *err);
int memory_fill(struct memory *memory, gpa_t gpa, uint8_t byte, uint64_t size, struct error *err);
/* Reads `size` bytes of a file at `offset` into memory. Errors: as pread(2), EIO where it ends. */
int memory_read_file(struct memory *memory, gpa_t gpa, int fd, uint64_t offset, uint64_t size,
		     struct error *err);
