/*
 * Starts a Multiboot 1 kernel (Multiboot Specification 0.6.96) as QEMU's -kernel does: an ELF file,
 * or any file whose header gives its addresses; modules by the initrd option.
 */
#include "base/cleanup.h"
#include "machine/boot.h"

#include <string.h>

enum {
	HEADER_MAGIC = 0x1badb002,
	LOADER_MAGIC = 0x2badb002,
	SEARCH_BYTES = 8192,
	HEADER_ADDRESSES = 1 << 16,
	MODULES = 32,

	INFO_MEMORY = 1 << 0,
	INFO_CMDLINE = 1 << 2,
	INFO_MODULES = 1 << 3,
	INFO_MAP = 1 << 6,
	INFO_LOADER = 1 << 9,
};

struct information {
	uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, n_modules, modules;
	uint32_t symbols[4], map_bytes, map, drives[2], config_table, loader_name;
};

struct module {
	uint32_t start, end, cmdline, reserved;
};

struct map_entry {
	uint32_t size; /* of what follows */
	uint64_t start, length;
	uint32_t type;
} __attribute__((packed));

/* What lies at BOOT_INFO. */
struct info_page {
	struct information info;
	char loader_name[16];
	struct map_entry map[BOOT_RANGES];
	struct module modules[MODULES];
};

/* The strings at BOOT_CMDLINE: the kernel's command line, then the modules'. */
struct strings {
	char bytes[BOOT_CMDLINE_BYTES];
	size_t used;
};

static uint32_t get(const uint8_t *p)
{
	uint32_t value;

	memcpy(&value, p, sizeof(value));
	return value;
}

int multiboot_find(const uint8_t *head, size_t size)
{
	if (size > SEARCH_BYTES)
		size = SEARCH_BYTES;
	for (size_t i = 0; i + 12 <= size; i += 4)
		if (get(head + i) == HEADER_MAGIC &&
		    get(head + i) + get(head + i + 4) + get(head + i + 8) == 0)
			return (int)i;
	return -1;
}

static int add_string(struct strings *s, const char *text, size_t size, uint32_t *address,
		      struct error *err)
{
	if (size >= sizeof(s->bytes) - s->used)
		return error_set(err, E2BIG, "the kernel's command line is too long");
	*address = (uint32_t)(BOOT_CMDLINE + s->used);
	memcpy(s->bytes + s->used, text, size);
	s->bytes[s->used + size] = '\0';
	s->used += size + 1;
	return 0;
}

/* A file without ELF header, by the addresses in its Multiboot header (3.1.3). */
static int load_by_header(struct memory *memory, const char *path, const uint8_t *header,
			  size_t offset, uint64_t *entry, uint64_t *end, struct error *err)
{
	uint64_t at = get(header + 12), load = get(header + 16), load_end = get(header + 20);
	uint64_t bss_end = get(header + 24), size, start, n;
	autofd int fd = boot_open(path, &size, err);
	int r;

	if (fd < 0)
		return fd;
	if (load > at || at - load > offset || (load_end && load_end < load))
		return error_set(err, ENOEXEC, "%s has a damaged Multiboot header", path);
	start = offset - (at - load);
	n = load_end ? load_end - load : size - start;
	r = memory_read_file(memory, (gpa_t){load}, fd, start, n, err);
	*end = load + n;
	if (r == 0 && bss_end > *end) {
		r = memory_fill(memory, (gpa_t){*end}, 0, bss_end - *end, err);
		*end = bss_end;
	}
	*entry = get(header + 28);
	return r < 0 ? error_wrap(err, "%s", path) : 0;
}

/* "PATH[ ARGS],PATH[ ARGS]...", each behind the one before. */
static int load_modules(struct memory *memory, const char *list, uint64_t at,
			struct info_page *page, struct strings *strings, struct error *err)
{
	while (list && *list) {
		size_t size = strcspn(list, ",");
		struct module *m = &page->modules[page->info.n_modules];
		autofree char *path = strndup(list, strcspn(list, " ,"));
		uint64_t bytes;
		int r;

		if (!path)
			return error_oom(err);
		if (page->info.n_modules == MODULES)
			return error_set(err, E2BIG, "more than %d modules", MODULES);
		at = (at + 4095) & ~4095ull;
		r = boot_load_file(memory, path, at, &bytes, err);
		if (r == 0)
			r = add_string(strings, list, size, &m->cmdline, err);
		if (r < 0)
			return error_wrap(err, "module");
		m->start = (uint32_t)at;
		m->end = (uint32_t)(at + bytes);
		at += bytes;
		page->info.n_modules++;
		list += size + (list[size] == ',');
	}
	return 0;
}

/* The information of section 3.3. */
static void fill(const struct memory *memory, struct info_page *page)
{
	struct boot_range ranges[BOOT_RANGES];
	unsigned int n = boot_ranges(memory, ranges);

	page->info.flags = INFO_MEMORY | INFO_CMDLINE | INFO_MODULES | INFO_MAP | INFO_LOADER;
	page->info.mem_lower = 640;
	page->info.mem_upper = (uint32_t)((memory_below_4g(memory) >> 10) - 1024);
	page->info.boot_device = 0x8000ffff;
	page->info.modules = BOOT_INFO + offsetof(struct info_page, modules);
	page->info.map = BOOT_INFO + offsetof(struct info_page, map);
	page->info.map_bytes = n * (uint32_t)sizeof(page->map[0]);
	page->info.loader_name = BOOT_INFO + offsetof(struct info_page, loader_name);
	strcpy(page->loader_name, "lodge");
	for (unsigned int i = 0; i < n; i++)
		page->map[i] = (struct map_entry){sizeof(page->map[0]) - 4, ranges[i].start,
						  ranges[i].size, ranges[i].type};
}

static int build(struct memory *memory, const struct boot_files *files, struct strings *strings,
		 struct vcpu_state *state, struct error *err)
{
	uint8_t head[SEARCH_BYTES + 32] = {0};
	struct info_page page = {0};
	const char *append = files->cmdline ? files->cmdline : "";
	uint64_t size, entry = 0, end = 0;
	autofd int fd = boot_open(files->kernel, &size, err);
	uint32_t unused;
	int offset, r;

	if (fd < 0)
		return fd;
	offset = multiboot_find(head, (size_t)pread(fd, head, SEARCH_BYTES, 0) & 0xffff);
	if (offset < 0)
		return error_set(err, ENOEXEC, "%s is no Multiboot kernel", files->kernel);
	if (get(head + offset + 4) & HEADER_ADDRESSES) {
		r = load_by_header(memory, files->kernel, head + offset, (size_t)offset, &entry,
				   &end, err);
	} else {
		struct boot_elf elf = {0};

		r = boot_load_elf(memory, files->kernel, &elf, err);
		if (r == 0 && elf.is_64bit)
			r = error_set(err, ENOEXEC,
				      "%s is a 64-bit ELF file; Multiboot starts 32-bit ones",
				      files->kernel);
		entry = elf.entry;
		end = elf.end;
	}
	if (r < 0)
		return r;

	/* QEMU puts the kernel's path before the command line. */
	fill(memory, &page);
	r = add_string(strings, files->kernel, strlen(files->kernel), &page.info.cmdline, err);
	if (r == 0 && *append) {
		strings->bytes[strings->used - 1] = ' ';
		r = add_string(strings, append, strlen(append), &unused, err);
	}
	if (r == 0)
		r = load_modules(memory, files->initrd, end, &page, strings, err);
	if (r == 0)
		r = memory_write(memory, (gpa_t){BOOT_INFO}, &page, sizeof(page), err);
	if (r == 0)
		r = memory_write(memory, (gpa_t){BOOT_CMDLINE}, strings->bytes, strings->used, err);
	if (r == 0)
		r = boot_flat_state(memory, entry, state, err);
	state->regs[REG_RAX] = LOADER_MAGIC;
	state->regs[REG_RBX] = BOOT_INFO;
	return r;
}

int multiboot_boot(struct memory *memory, const struct boot_files *files, struct vcpu_state *state,
		   struct error *err)
{
	autofree struct strings *strings = calloc(1, sizeof(*strings));
	int r;

	if (!strings)
		return error_oom(err);
	r = build(memory, files, strings, state, err);
	return r < 0 ? error_wrap(err, "kernel") : 0;
}
