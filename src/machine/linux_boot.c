/*
 * Starts a Linux bzImage by its 64-bit entry (Linux Documentation/arch/x86/boot.rst, "64-bit Boot
 * Protocol"; zero-page.rst). Below 1 MiB lie what the kernel needs until it has its own: GDT, page
 * tables, zero page, command line.
 */
#include "base/cleanup.h"
#include "machine/acpi.h"
#include "machine/boot.h"

#include <string.h>

enum {
	ZERO_PAGE = BOOT_INFO,
	PAGE_TABLES = 0x9000, /* six pages: PML4, PDPT, four directories */
	STACK = 0x8ff0,

	/* Offsets in the zero page, of the setup header too. */
	ACPI_RSDP_ADDR = 0x070,
	EXT_RAMDISK_IMAGE = 0x0c0,
	EXT_RAMDISK_SIZE = 0x0c4,
	EXT_CMD_LINE_PTR = 0x0c8,
	E820_ENTRIES = 0x1e8,
	SETUP_SECTS = 0x1f1,
	BOOT_FLAG = 0x1fe,
	HEADER_JUMP = 0x201,
	HEADER_MAGIC = 0x202,
	VERSION = 0x206,
	TYPE_OF_LOADER = 0x210,
	LOADFLAGS = 0x211,
	RAMDISK_IMAGE = 0x218,
	RAMDISK_SIZE = 0x21c,
	CMD_LINE_PTR = 0x228,
	INITRD_ADDR_MAX = 0x22c,
	KERNEL_ALIGNMENT = 0x230,
	RELOCATABLE = 0x234,
	XLOADFLAGS = 0x236,
	CMDLINE_SIZE = 0x238,
	PREF_ADDRESS = 0x258,
	INIT_SIZE = 0x260,
	HEADER_END = 0x290,
	E820_TABLE = 0x2d0,

	XLF_KERNEL_64 = 1,
	XLF_CAN_BE_LOADED_ABOVE_4G = 2,
	CAN_USE_HEAP = 0x80,
};

struct e820_entry {
	uint64_t start, size;
	uint32_t type; /* 1: RAM, 2: reserved */
} __attribute__((packed));

static uint64_t get(const uint8_t *p, unsigned int offset, unsigned int size)
{
	uint64_t value = 0;

	memcpy(&value, p + offset, size);
	return value;
}

static void put(uint8_t *p, unsigned int offset, unsigned int size, uint64_t value)
{
	memcpy(p + offset, &value, size);
}

static void put_e820(const struct memory *memory, uint8_t *zero_page)
{
	struct boot_range ranges[BOOT_RANGES];
	unsigned int n = boot_ranges(memory, ranges);

	zero_page[E820_ENTRIES] = (uint8_t)n;
	for (unsigned int i = 0; i < n; i++) {
		struct e820_entry e = {ranges[i].start, ranges[i].size, ranges[i].type};

		memcpy(zero_page + E820_TABLE + i * sizeof(e), &e, sizeof(e));
	}
}

static int put_cmdline(struct memory *memory, const char *cmdline, uint8_t *zero_page,
		       struct error *err)
{
	size_t size = strlen(cmdline) + 1, limit = get(zero_page, CMDLINE_SIZE, 4) + 1;

	if (limit > BOOT_CMDLINE_BYTES)
		limit = BOOT_CMDLINE_BYTES;
	if (size > limit)
		return error_set(err, E2BIG,
				 "the kernel's command line has %zu bytes, it takes %zu", size - 1,
				 limit - 1);
	put(zero_page, CMD_LINE_PTR, 4, BOOT_CMDLINE);
	return memory_write(memory, (gpa_t){BOOT_CMDLINE}, cmdline, size, err);
}

/* As high as the kernel allows, below 4 GiB, and above [.., kernel_end). */
static int put_initrd(struct memory *memory, const char *path, uint64_t kernel_end,
		      uint8_t *zero_page, struct error *err)
{
	uint64_t size, top = memory_below_4g(memory),
		       limit = get(zero_page, INITRD_ADDR_MAX, 4) + 1;
	autofd int fd = boot_open(path, &size, err);
	uint64_t start;
	int r;

	if (fd < 0)
		return error_wrap(err, "initrd");
	if (top > limit)
		top = limit;
	if (size > top || ((top - size) & ~4095ull) < kernel_end) {
		error_set(err, ENOMEM,
			  "initrd %s (%llu MiB) does not fit into memory beside the kernel", path,
			  (unsigned long long)size >> 20);
		error_hint(err, "give the machine more --memory");
		return -ENOMEM;
	}
	start = (top - size) & ~4095ull;
	r = memory_read_file(memory, (gpa_t){start}, fd, 0, size, err);
	if (r < 0)
		return error_wrap(err, "initrd %s", path);
	put(zero_page, RAMDISK_IMAGE, 4, start);
	put(zero_page, RAMDISK_SIZE, 4, size);
	return 0;
}

/* The first 4 GiB, mapped one to one by 2 MiB pages. */
static int put_page_tables(struct memory *memory, struct error *err)
{
	uint64_t tables[6][512] = {0};

	tables[0][0] = (PAGE_TABLES + 0x1000) | 3;
	for (uint64_t i = 0; i < 4; i++)
		tables[1][i] = (PAGE_TABLES + 0x2000 + i * 0x1000) | 3;
	for (uint64_t i = 0; i < 4 * 512ull; i++)
		tables[2 + i / 512][i % 512] = i << 21 | 0x83;
	return memory_write(memory, (gpa_t){PAGE_TABLES}, tables, sizeof(tables), err);
}

static void set_entry_state(struct vcpu_state *s, uint64_t entry)
{
	struct vcpu_segment data = {.limit = 0xffffffff, .selector = 0x18, .attributes = 0xc093};

	s->segs[SEG_CS] =
		(struct vcpu_segment){.limit = 0xffffffff, .selector = 0x10, .attributes = 0xa09b};
	s->segs[SEG_DS] = s->segs[SEG_ES] = s->segs[SEG_SS] = data;
	s->segs[SEG_FS] = s->segs[SEG_GS] = data;
	s->tr = (struct vcpu_segment){.limit = 0x67, .attributes = 0x008b};
	s->gdt = (struct vcpu_table){.base = BOOT_GDT, .limit = 4 * 8 - 1};
	s->idt = (struct vcpu_table){0};
	s->cr0 = 0x80000031; /* PG, NE, ET, PE */
	s->cr3 = PAGE_TABLES;
	s->cr4 = 0x20;    /* PAE */
	s->efer = 0x500;  /* LMA, LME */
	s->rflags = 0x02; /* interrupts off */
	s->rip = entry;
	s->regs[REG_RSI] = ZERO_PAGE;
	s->regs[REG_RSP] = STACK;
}

int linux_boot(struct memory *memory, const struct boot_files *files, struct vcpu_state *state,
	       struct error *err)
{
	static const uint64_t gdt[4] = {0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff};
	uint8_t head[1024], zero_page[4096] = {0};
	uint64_t size, setup, load, init_size, align;
	autofd int fd = boot_open(files->kernel, &size, err);
	ssize_t n;
	int r;

	if (fd < 0)
		return error_wrap(err, "kernel");
	n = pread(fd, head, sizeof(head), 0);
	if (n < (ssize_t)sizeof(head) || get(head, BOOT_FLAG, 2) != 0xaa55 ||
	    memcmp(head + HEADER_MAGIC, "HdrS", 4) != 0)
		return error_set(err, ENOEXEC, "%s is no Linux kernel (bzImage)", files->kernel);
	if (get(head, VERSION, 2) < 0x20c || !(get(head, XLOADFLAGS, 2) & XLF_KERNEL_64))
		return error_set(err, ENOEXEC, "%s is a Linux kernel without a 64-bit entry",
				 files->kernel);
	setup = (head[SETUP_SECTS] ? head[SETUP_SECTS] : 4u) * 512u + 512;
	if (setup + 0x300 > size)
		return error_set(err, ENOEXEC, "%s is cut off", files->kernel);

	/* A relocatable kernel runs anywhere, but wants its preferred place. */
	load = get(head, PREF_ADDRESS, 8);
	init_size = get(head, INIT_SIZE, 4);
	align = get(head, KERNEL_ALIGNMENT, 4);
	if (init_size < size - setup)
		init_size = size - setup;
	if (load < BOOT_HIGH_START || (head[RELOCATABLE] && align && load % align))
		load = 0x1000000;
	if (load > memory_below_4g(memory) || init_size > memory_below_4g(memory) - load) {
		error_set(err, ENOMEM, "kernel %s needs %llu MiB of memory", files->kernel,
			  (unsigned long long)(load + init_size) >> 20);
		error_hint(err, "give the machine more --memory");
		return -ENOMEM;
	}
	r = memory_read_file(memory, (gpa_t){load}, fd, setup, size - setup, err);
	if (r < 0)
		return error_wrap(err, "kernel %s", files->kernel);

	/* The header ends where the byte of its jump says (boot.rst, "jump"). */
	n = HEADER_MAGIC + head[HEADER_JUMP];
	if (n > HEADER_END)
		n = HEADER_END;
	memcpy(zero_page + SETUP_SECTS, head + SETUP_SECTS, (size_t)n - SETUP_SECTS);
	zero_page[TYPE_OF_LOADER] = 0xff;
	zero_page[LOADFLAGS] &= ~CAN_USE_HEAP;
	put(zero_page, ACPI_RSDP_ADDR, 8, ACPI_TABLES);
	put_e820(memory, zero_page);
	r = put_cmdline(memory, files->cmdline ? files->cmdline : "", zero_page, err);
	if (r == 0 && files->initrd)
		r = put_initrd(memory, files->initrd, load + init_size, zero_page, err);
	if (r == 0)
		r = memory_write(memory, (gpa_t){ZERO_PAGE}, zero_page, sizeof(zero_page), err);
	if (r == 0)
		r = memory_write(memory, (gpa_t){BOOT_GDT}, gdt, sizeof(gdt), err);
	if (r == 0)
		r = put_page_tables(memory, err);
	if (r == 0)
		set_entry_state(state, load + 0x200);
	return r;
}
