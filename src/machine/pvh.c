/*
 * Starts an ELF kernel by its PVH entry (Xen docs/misc/pvh.pandoc, public/arch-x86/hvm/start_info.h):
 * 32-bit protected mode with the address of a start info in EBX.
 */
#include "machine/acpi.h"
#include "machine/boot.h"

#include <string.h>

struct start_info {
	uint32_t magic, version, flags, n_modules;
	uint64_t modules, cmdline, rsdp, memory_map;
	uint32_t n_ranges, reserved;
};

struct module {
	uint64_t address, size, cmdline, reserved;
};

struct map_entry {
	uint64_t start, size;
	uint32_t type, reserved;
};

/* What lies at BOOT_INFO. */
struct info_page {
	struct start_info start;
	struct module initrd;
	struct map_entry map[BOOT_RANGES];
};

int pvh_boot(struct memory *memory, const struct boot_files *files, struct vcpu_state *state,
	     struct error *err)
{
	const char *cmdline = files->cmdline ? files->cmdline : "";
	struct boot_range ranges[BOOT_RANGES];
	struct boot_elf elf;
	struct info_page page = {
		.start = {.magic = 0x336ec578,
			  .version = 1,
			  .cmdline = BOOT_CMDLINE,
			  .rsdp = ACPI_TABLES,
			  .memory_map = BOOT_INFO + offsetof(struct info_page, map)},
	};
	int r = boot_load_elf(memory, files->kernel, &elf, err);

	if (r < 0)
		return error_wrap(err, "kernel");
	if (!elf.has_pvh)
		return error_set(err, ENOEXEC, "%s has no PVH entry", files->kernel);
	if (strlen(cmdline) >= BOOT_CMDLINE_BYTES)
		return error_set(err, E2BIG, "the kernel's command line is too long");
	page.start.n_ranges = boot_ranges(memory, ranges);
	for (unsigned int i = 0; i < page.start.n_ranges; i++)
		page.map[i] =
			(struct map_entry){ranges[i].start, ranges[i].size, ranges[i].type, 0};
	if (files->initrd) {
		page.start.n_modules = 1;
		page.start.modules = BOOT_INFO + offsetof(struct info_page, initrd);
		page.initrd.address = (elf.end + 4095) & ~4095ull;
		r = boot_load_file(memory, files->initrd, page.initrd.address, &page.initrd.size,
				   err);
		if (r < 0)
			return error_wrap(err, "initrd");
	}
	r = memory_write(memory, (gpa_t){BOOT_INFO}, &page, sizeof(page), err);
	if (r == 0)
		r = memory_write(memory, (gpa_t){BOOT_CMDLINE}, cmdline, strlen(cmdline) + 1, err);
	if (r == 0)
		r = boot_flat_state(memory, elf.pvh_entry, state, err);
	state->regs[REG_RBX] = BOOT_INFO;
	return r;
}
