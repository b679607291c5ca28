/*
 * Loaders: put a kernel into guest memory and say in which state the first vCPU starts it. What
 * they read is not trusted: sizes are checked against the file and the memory.
 */
#pragma once

#include "engine/engine.h"
#include "machine/memory.h"

struct boot_files {
	const char *kernel; /* path */
	const char
		*initrd; /* path, or NULL; for Multiboot: modules, "PATH[ ARGS],PATH[ ARGS]..." */
	const char *cmdline; /* or NULL */
};

/*
 * Finds out of which kind the kernel is, in the order that QEMU's -kernel does: Multiboot 1, Linux
 * bzImage, ELF with a PVH entry. `state` comes in as after reset. Errors: ENOEXEC where it is none
 * of these; ENOMEM where memory does not suffice; those of open(2).
 */
int kernel_boot(struct memory *memory, const struct boot_files *files, struct vcpu_state *state,
		struct error *err);

/* ---- One file a kind ---- */

int linux_boot(struct memory *memory, const struct boot_files *files, struct vcpu_state *state,
	       struct error *err);
int pvh_boot(struct memory *memory, const struct boot_files *files, struct vcpu_state *state,
	     struct error *err);
int multiboot_boot(struct memory *memory, const struct boot_files *files, struct vcpu_state *state,
		   struct error *err);
/* Offset of the Multiboot header in the first `size` bytes of a file, or -1. */
int multiboot_find(const uint8_t *head, size_t size);

/* ---- What they share ---- */

enum {
	BOOT_GDT = 0x6000,
	BOOT_INFO = 0x7000, /* zero page, start info, Multiboot information: 4 KiB */
	BOOT_CMDLINE = 0x20000,
	BOOT_CMDLINE_BYTES = 0x10000,
	BOOT_LOW_END = 0x9fc00,
	BOOT_HIGH_START = 0x100000,
};

/* Memory as the BIOS call E820 would tell it. */
enum { BOOT_RANGES = 5 };

struct boot_range {
	uint64_t start, size;
	uint32_t type; /* 1: RAM, 2: reserved */
};

unsigned int boot_ranges(const struct memory *memory, struct boot_range ranges[BOOT_RANGES]);

/* Opens a regular file; a descriptor or a negative errno. */
int boot_open(const char *path, uint64_t *size, struct error *err);

/* Loads a whole file at `gpa`, which is page-aligned; memory too small is ENOMEM with a hint. */
int boot_load_file(struct memory *memory, const char *path, uint64_t gpa, uint64_t *size,
		   struct error *err);

/* An ELF file's segments at their physical addresses. */
struct boot_elf {
	bool is_64bit;
	uint64_t entry, end; /* end: behind the last byte used */
	bool has_pvh;
	uint64_t pvh_entry;
};

int boot_load_elf(struct memory *memory, const char *path, struct boot_elf *elf, struct error *err);

/* 32-bit protected mode, flat, without paging: how PVH and Multiboot start. */
int boot_flat_state(struct memory *memory, uint64_t entry, struct vcpu_state *state,
		    struct error *err);
