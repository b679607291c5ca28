/*
 * Loaders: put a kernel into guest memory and say in which state the first vCPU starts it. What
 * they read is not trusted: sizes are checked against the file and the memory.
 */
#pragma once

#include "engine/engine.h"
#include "machine/memory.h"

struct boot_files {
	const char *kernel;  /* path */
	const char *initrd;  /* path, or NULL */
	const char *cmdline; /* or NULL */
};

/* A Linux bzImage by its 64-bit entry. `state` comes in as after reset. Errors: ENOEXEC where the
 * kernel is none of this kind; ENOMEM where memory does not suffice; those of open(2). */
int linux_boot(struct memory *memory, const struct boot_files *files, struct vcpu_state *state,
	       struct error *err);
