/* See boot.h: choosing the loader, and what the loaders share. */
#include "machine/boot.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "machine/acpi.h"

#include <elf.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

unsigned int boot_ranges(const struct memory *memory, struct boot_range ranges[BOOT_RANGES])
{
	uint64_t low = memory_below_4g(memory), high = memory_above_4g(memory);

	ranges[0] = (struct boot_range){0, BOOT_LOW_END, 1};
	ranges[1] = (struct boot_range){BOOT_LOW_END, 0xa0000 - BOOT_LOW_END, 2};
	ranges[2] = (struct boot_range){ACPI_TABLES, BOOT_HIGH_START - ACPI_TABLES, 2};
	ranges[3] = (struct boot_range){BOOT_HIGH_START, low - BOOT_HIGH_START, 1};
	ranges[4] = (struct boot_range){MEMORY_HOLE_END, high, 1};
	return high ? 5 : 4;
}

int boot_open(const char *path, uint64_t *size, struct error *err)
{
	struct stat st;
	int fd = file_open_at(AT_FDCWD, path, O_RDONLY, 0, err);

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		close(fd);
		return error_set(err, EINVAL, "%s is no regular file", path);
	}
	*size = (uint64_t)st.st_size;
	return fd;
}

static int too_large(const char *path, uint64_t end, struct error *err)
{
	error_set(err, ENOMEM, "%s needs %llu MiB of memory", path,
		  (unsigned long long)(end >> 20) + 1);
	error_hint(err, "give the machine more --memory");
	return -ENOMEM;
}

int boot_load_file(struct memory *memory, const char *path, uint64_t gpa, uint64_t *size,
		   struct error *err)
{
	autofd int fd = boot_open(path, size, err);
	uint64_t low = memory_below_4g(memory);
	int r;

	if (fd < 0)
		return fd;
	if (gpa > low || *size > low - gpa)
		return too_large(path, gpa + *size, err);
	r = memory_read_file(memory, (gpa_t){gpa}, fd, 0, *size, err);
	return r < 0 ? error_wrap(err, "%s", path) : 0;
}

/* The PVH entry among an ELF file's notes (Xen public/elfnote.h, XEN_ELFNOTE_PHYS32_ENTRY). */
static void find_pvh(const uint8_t *notes, size_t size, struct boot_elf *elf)
{
	while (size >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr n; /* the same in both classes */
		uint64_t name, desc, entry = 0;

		memcpy(&n, notes, sizeof(n));
		name = sizeof(n);
		desc = name + (((uint64_t)n.n_namesz + 3) & ~3ull);
		if (desc > size || n.n_descsz > size - desc)
			return;
		if (n.n_type == 18 && n.n_namesz == 4 && memcmp(notes + name, "Xen", 4) == 0 &&
		    (n.n_descsz == 4 || n.n_descsz == 8)) {
			memcpy(&entry, notes + desc, n.n_descsz);
			elf->has_pvh = true;
			elf->pvh_entry = entry;
		}
		desc += ((uint64_t)n.n_descsz + 3) & ~3ull;
		if (desc > size)
			return;
		notes += desc;
		size -= desc;
	}
}

static int load_segment(struct memory *memory, int fd, const char *path, const Elf64_Phdr *p,
			struct boot_elf *elf, struct error *err)
{
	uint64_t low = memory_below_4g(memory);
	int r;

	if (p->p_filesz > p->p_memsz)
		return error_set(err, ENOEXEC, "%s is a damaged ELF file", path);
	if (p->p_paddr > low || p->p_memsz > low - p->p_paddr)
		return too_large(path, p->p_paddr + p->p_memsz, err);
	r = memory_read_file(memory, (gpa_t){p->p_paddr}, fd, p->p_offset, p->p_filesz, err);
	if (r == 0)
		r = memory_fill(memory, (gpa_t){p->p_paddr + p->p_filesz}, 0,
				p->p_memsz - p->p_filesz, err);
	if (r < 0)
		return error_wrap(err, "%s", path);
	if (p->p_paddr + p->p_memsz > elf->end)
		elf->end = p->p_paddr + p->p_memsz;
	return 0;
}

/* A program header of either class, in the form of the larger one. */
static bool read_phdr(int fd, uint64_t offset, bool is_64bit, Elf64_Phdr *p)
{
	Elf32_Phdr small;

	if (is_64bit)
		return pread(fd, p, sizeof(*p), (off_t)offset) == sizeof(*p);
	if (pread(fd, &small, sizeof(small), (off_t)offset) != sizeof(small))
		return false;
	*p = (Elf64_Phdr){.p_type = small.p_type,
			  .p_offset = small.p_offset,
			  .p_paddr = small.p_paddr,
			  .p_filesz = small.p_filesz,
			  .p_memsz = small.p_memsz};
	return true;
}

int boot_load_elf(struct memory *memory, const char *path, struct boot_elf *elf, struct error *err)
{
	union {
		Elf64_Ehdr e64;
		Elf32_Ehdr e32;
	} e = {0};
	uint64_t size, at, step;
	autofd int fd = boot_open(path, &size, err);
	unsigned int n;
	bool is_64bit;

	if (fd < 0)
		return fd;
	if (pread(fd, &e, sizeof(e), 0) != sizeof(e) || memcmp(e.e64.e_ident, ELFMAG, SELFMAG) != 0)
		return error_set(err, ENOEXEC, "%s is no ELF file", path);
	is_64bit = e.e64.e_ident[EI_CLASS] == ELFCLASS64;
	if (e.e64.e_machine != (is_64bit ? EM_X86_64 : EM_386))
		return error_set(err, ENOEXEC, "%s is not for x86", path);
	*elf = (struct boot_elf){.is_64bit = is_64bit,
				 .entry = is_64bit ? e.e64.e_entry : e.e32.e_entry};
	at = is_64bit ? e.e64.e_phoff : e.e32.e_phoff;
	n = is_64bit ? e.e64.e_phnum : e.e32.e_phnum;
	step = is_64bit ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
	if (at > size)
		return error_set(err, ENOEXEC, "%s is a damaged ELF file", path);
	for (unsigned int i = 0; i < n; i++) {
		Elf64_Phdr p;

		if (!read_phdr(fd, at + i * step, is_64bit, &p))
			return error_set(err, ENOEXEC, "%s is a damaged ELF file", path);
		if (p.p_type == PT_LOAD && p.p_memsz) {
			int r = load_segment(memory, fd, path, &p, elf, err);

			if (r < 0)
				return r;
		} else if (p.p_type == PT_NOTE && p.p_filesz <= 65536) {
			autofree uint8_t *notes = malloc(p.p_filesz + 1);
			ssize_t got;

			if (!notes)
				return error_oom(err);
			got = pread(fd, notes, p.p_filesz, (off_t)p.p_offset);
			if (got > 0)
				find_pvh(notes, (size_t)got, elf);
		}
	}
	return 0;
}

int boot_flat_state(struct memory *memory, uint64_t entry, struct vcpu_state *s, struct error *err)
{
	static const uint64_t gdt[3] = {0, 0x00cf9b000000ffff, 0x00cf93000000ffff};
	struct vcpu_segment data = {.limit = 0xffffffff, .selector = 0x10, .attributes = 0xc093};

	s->segs[SEG_CS] =
		(struct vcpu_segment){.limit = 0xffffffff, .selector = 0x08, .attributes = 0xc09b};
	s->segs[SEG_DS] = s->segs[SEG_ES] = s->segs[SEG_SS] = data;
	s->segs[SEG_FS] = s->segs[SEG_GS] = data;
	s->tr = (struct vcpu_segment){.limit = 0x67, .attributes = 0x008b};
	s->gdt = (struct vcpu_table){.base = BOOT_GDT, .limit = sizeof(gdt) - 1};
	s->cr0 = 0x31; /* NE, ET, PE */
	s->rflags = 0x02;
	s->rip = entry;
	return memory_write(memory, (gpa_t){BOOT_GDT}, gdt, sizeof(gdt), err);
}

int kernel_boot(struct memory *memory, const struct boot_files *files, struct vcpu_state *state,
		struct error *err)
{
	uint8_t head[8192];
	uint64_t size;
	autofd int fd = boot_open(files->kernel, &size, err);
	ssize_t n;

	if (fd < 0)
		return error_wrap(err, "kernel");
	n = pread(fd, head, sizeof(head), 0);
	if (n < 0)
		return error_sys(err, errno, "kernel %s", files->kernel);
	if (multiboot_find(head, (size_t)n) >= 0)
		return multiboot_boot(memory, files, state, err);
	if (n > 0x206 && memcmp(head + 0x202, "HdrS", 4) == 0)
		return linux_boot(memory, files, state, err);
	if (n > SELFMAG && memcmp(head, ELFMAG, SELFMAG) == 0)
		return pvh_boot(memory, files, state, err);
	error_set(err, ENOEXEC, "%s is no kernel that can be started directly", files->kernel);
	error_hint(err, "a Linux bzImage, an ELF file with a PVH entry, or Multiboot 1");
	return -ENOEXEC;
}
