/* Guest memory, buses, ACPI tables and the Linux loader. */
#include "base/cleanup.h"
#include "machine/acpi.h"
#include "machine/boot.h"
#include "machine/bus.h"
#include "machine/memory.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct memory *new_memory(uint64_t size)
{
	struct memory *m = NULL;
	struct error err = {0};

	assert_int_equal(memory_new(size, &m, &err), 0);
	return m;
}

static void memory_is_checked(void **state)
{
	struct memory *m = new_memory((3ull << 30) + 8192);
	struct error err = {0};
	uint64_t value = 0x1122334455667788, back = 0;

	(void)state;
	assert_int_equal(memory_below_4g(m), 3ull << 30);
	assert_int_equal(memory_above_4g(m), 8192);
	assert_int_equal(memory_write(m, (gpa_t){MEMORY_HOLE_START - 8}, &value, 8, &err), 0);
	assert_int_equal(memory_read(m, (gpa_t){MEMORY_HOLE_START - 8}, &back, 8, &err), 0);
	assert_int_equal(back, value);
	/* Into the hole, in it, out of it, and by an overflow. */
	assert_int_equal(memory_write(m, (gpa_t){MEMORY_HOLE_START - 7}, &value, 8, &err), -EFAULT);
	assert_int_equal(memory_write(m, (gpa_t){MEMORY_HOLE_START}, &value, 8, &err), -EFAULT);
	assert_int_equal(memory_write(m, (gpa_t){MEMORY_HOLE_END - 4}, &value, 8, &err), -EFAULT);
	assert_int_equal(memory_read(m, (gpa_t){UINT64_MAX - 3}, &back, 8, &err), -EFAULT);
	assert_int_equal(memory_fill(m, (gpa_t){16}, 0, UINT64_MAX, &err), -EFAULT);
	assert_int_equal(memory_write(m, (gpa_t){MEMORY_HOLE_END + 8184}, &value, 8, &err), 0);
	assert_int_equal(memory_write(m, (gpa_t){MEMORY_HOLE_END + 8185}, &value, 8, &err),
			 -EFAULT);
	/* The two parts don't overlap. */
	assert_int_equal(memory_read(m, (gpa_t){MEMORY_HOLE_START - 8}, &back, 8, &err), 0);
	assert_int_equal(back, value);
	memory_free(m);
	assert_int_equal(memory_new(0, &m, &err), -EINVAL);
}

static uint32_t four_bytes(struct device *dev, uint16_t port, unsigned int size)
{
	(void)dev;
	return size == 1 ? port & 0xff : 0xaabbccdd;
}

static uint32_t written;

static void note_write(struct device *dev, uint16_t port, unsigned int size, uint32_t value)
{
	(void)dev;
	written = written << 16 | (port & 0xff) << 8 | (value & 0xff);
	assert_int_equal(size, 1);
}

static void bus_finds(void **state)
{
	static const struct device_class narrow = {.name = "narrow",
						   .port_size = 1,
						   .port_read = four_bytes,
						   .port_write = note_write};
	static const struct device_class wide = {
		.name = "wide", .port_size = 4, .port_read = four_bytes, .port_write = note_write};
	struct device a = {.class = &narrow}, b = {.class = &wide};
	struct bus bus = {0};
	struct error err = {0};

	(void)state;
	assert_int_equal(bus_claim(&bus, 0x20, 2, &a, &err), 0);
	assert_int_equal(bus_claim(&bus, 0x10, 4, &b, &err), 0);
	assert_int_equal(bus_claim(&bus, 0x21, 1, &b, &err), -EEXIST);
	assert_int_equal(bus_claim(&bus, 0x0f, 0x40, &b, &err), -EEXIST);
	assert_int_equal(bus_claim(&bus, 0x14, 12, &a, &err), 0);
	assert_ptr_equal(bus_find(&bus, 0x13), &b);
	assert_ptr_equal(bus_find(&bus, 0x14), &a);
	assert_null(bus_find(&bus, 0x22));
	assert_int_equal(bus_port_read(&bus, 0x10, 4), 0xaabbccdd);
	assert_int_equal(bus_port_read(&bus, 0x10, 2), 0xccdd);
	/* In pieces where the device is narrow, ends, or there is none. */
	assert_int_equal(bus_port_read(&bus, 0x20, 4), 0xffff2120);
	assert_int_equal(bus_port_read(&bus, 0x30, 2), 0xffff);
	assert_int_equal(bus_port_read(&bus, 0xffff, 4), 0xffffffff);
	bus_port_write(&bus, 0x20, 2, 0x1234);
	assert_int_equal(written, 0x20342112);
	bus_port_write(&bus, 0x100, 4, 1);
	bus_release(&bus);
}

static uint8_t sum(struct memory *m, uint64_t gpa, size_t size)
{
	struct error err = {0};
	uint8_t total = 0, byte;

	for (size_t i = 0; i < size; i++) {
		assert_int_equal(memory_read(m, (gpa_t){gpa + i}, &byte, 1, &err), 0);
		total += byte;
	}
	return total;
}

static uint64_t load(struct memory *m, uint64_t gpa, unsigned int size)
{
	struct error err = {0};
	uint64_t value = 0;

	assert_int_equal(memory_read(m, (gpa_t){gpa}, &value, size, &err), 0);
	return value;
}

static void acpi_tables_are_whole(void **state)
{
	struct memory *m = new_memory(16 << 20);
	struct error err = {0};
	uint64_t xsdt, fadt, madt, at, end;
	unsigned int cpus = 0;

	(void)state;
	assert_int_equal(acpi_build(m, 300, &err), 0);
	assert_int_equal(load(m, ACPI_TABLES, 8), 0x2052545020445352); /* "RSD PTR " */
	assert_int_equal(sum(m, ACPI_TABLES, 20), 0);
	assert_int_equal(sum(m, ACPI_TABLES, 36), 0);
	xsdt = load(m, ACPI_TABLES + 24, 8);
	assert_int_equal(load(m, xsdt, 4), 0x54445358);
	assert_int_equal(sum(m, xsdt, load(m, xsdt + 4, 4)), 0);
	fadt = load(m, xsdt + 36, 8);
	madt = load(m, xsdt + 44, 8);
	assert_int_equal(load(m, fadt, 4), 0x50434146);
	assert_int_equal(sum(m, fadt, load(m, fadt + 4, 4)), 0);
	assert_int_equal(load(m, load(m, fadt + 140, 8), 4), 0x54445344);
	assert_int_equal(sum(m, load(m, fadt + 140, 8), load(m, load(m, fadt + 140, 8) + 4, 4)), 0);
	assert_int_equal(sum(m, madt, load(m, madt + 4, 4)), 0);
	/* Its entries end where it ends. */
	end = madt + load(m, madt + 4, 4);
	for (at = madt + 44; at < end; at += load(m, at + 1, 1)) {
		assert_true(load(m, at + 1, 1) >= 2);
		cpus += load(m, at, 1) == 0 || load(m, at, 1) == 9;
	}
	assert_int_equal(at, end);
	assert_int_equal(cpus, 300);
	assert_int_equal(acpi_build(m, 100000, &err), -EINVAL);
	memory_free(m);
}

/* A file with a bzImage's header and nothing that would run. */
struct image {
	char path[64];
	uint8_t bytes[8192];
};

static void image_write(struct image *i, size_t size)
{
	int fd;

	strcpy(i->path, "/tmp/lodge-test-kernel-XXXXXX");
	fd = mkstemp(i->path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, i->bytes, size), size);
	close(fd);
}

static void image_new(struct image *i)
{
	memset(i, 0, sizeof(*i));
	i->bytes[0x1f1] = 2;
	i->bytes[0x1fe] = 0x55;
	i->bytes[0x1ff] = 0xaa;
	i->bytes[0x201] = 0x6a;
	memcpy(i->bytes + 0x202, "HdrS", 4);
	i->bytes[0x207] = 2;
	i->bytes[0x206] = 15;
	memset(i->bytes + 0x22c, 0xff, 3);
	i->bytes[0x22f] = 0x7f;
	i->bytes[0x232] = 0x20; /* alignment: 2 MiB */
	i->bytes[0x234] = 1;
	i->bytes[0x236] = 1;
	i->bytes[0x239] = 0x08;
	i->bytes[0x25b] = 0x01; /* preferred: 16 MiB */
	i->bytes[0x262] = 0x10; /* needs 1 MiB */
	i->bytes[1536] = 0xc3;
}

static int try_boot(struct image *i, size_t size, uint64_t memory_bytes, const char *initrd,
		    const char *cmdline, struct memory **memory, struct vcpu_state *s,
		    struct error *err)
{
	struct boot_files files = {i->path, initrd, cmdline};
	int r;

	*memory = new_memory(memory_bytes);
	image_write(i, size);
	memset(s, 0, sizeof(*s));
	r = linux_boot(*memory, &files, s, err);
	unlink(i->path);
	return r;
}

static void linux_is_loaded(void **state)
{
	static struct vcpu_state s;
	struct memory *m;
	struct error err = {0};
	struct image kernel, initrd;

	(void)state;
	image_new(&kernel);
	image_new(&initrd);
	image_write(&initrd, 5000);
	assert_int_equal(try_boot(&kernel, 8192, 64 << 20, initrd.path, "quiet", &m, &s, &err), 0);
	unlink(initrd.path);
	assert_int_equal(s.rip, 0x1000200);
	assert_int_equal(s.efer, 0x500);
	assert_int_equal(load(m, 0x1000000, 1), 0xc3);
	assert_int_equal(s.regs[REG_RSI], 0x7000);
	assert_int_equal(load(m, 0x7000 + 0x202, 4), 0x53726448);
	assert_int_equal(load(m, 0x7000 + 0x218, 4), (64 << 20) - 8192);
	assert_int_equal(load(m, 0x7000 + 0x21c, 4), 5000);
	assert_int_equal(load(m, load(m, 0x7000 + 0x228, 4), 6), 0x0000007465697571); /* "quiet" */
	assert_int_equal(load(m, 0x7000 + 0x1e8, 1), 4);
	/* The page tables map one to one: 0x1000000 is the eighth 2 MiB page. */
	assert_int_equal(load(m, (load(m, load(m, s.cr3, 8) & ~0xfffull, 8) & ~0xfffull) + 64, 8),
			 0x1000083);
	memory_free(m);
}

static void bad_kernels_are_refused(void **state)
{
	static struct vcpu_state s;
	static char cmdline[4096];
	struct memory *m;
	struct error err = {0};
	struct image kernel;

	(void)state;
	image_new(&kernel);
	assert_int_equal(try_boot(&kernel, 700, 64 << 20, NULL, NULL, &m, &s, &err), -ENOEXEC);
	memory_free(m);
	assert_int_equal(try_boot(&kernel, 1540, 64 << 20, NULL, NULL, &m, &s, &err), -ENOEXEC);
	memory_free(m);
	assert_int_equal(try_boot(&kernel, 8192, 16 << 20, NULL, NULL, &m, &s, &err), -ENOMEM);
	assert_true(err.hint[0]);
	memory_free(m);
	memset(cmdline, 'x', sizeof(cmdline) - 1);
	assert_int_equal(try_boot(&kernel, 8192, 64 << 20, NULL, cmdline, &m, &s, &err), -E2BIG);
	memory_free(m);
	assert_int_equal(try_boot(&kernel, 8192, 64 << 20, "/none", NULL, &m, &s, &err), -ENOENT);
	memory_free(m);
	kernel.bytes[0x236] = 0;
	assert_int_equal(try_boot(&kernel, 8192, 64 << 20, NULL, NULL, &m, &s, &err), -ENOEXEC);
	memory_free(m);
	kernel.bytes[0x202] = 'h';
	assert_int_equal(try_boot(&kernel, 8192, 64 << 20, NULL, NULL, &m, &s, &err), -ENOEXEC);
	memory_free(m);
}

/* Whatever the header says, nothing is written outside of memory (a sanitizer would tell). */
static void random_headers_do_no_harm(void **state)
{
	static struct vcpu_state s;
	struct image kernel;
	unsigned int seed = 1;

	(void)state;
	for (int round = 0; round < 500; round++) {
		struct memory *m;
		struct error err = {0};

		image_new(&kernel);
		for (int i = 0; i < 12; i++) {
			unsigned int at = 0x206 + (unsigned int)rand_r(&seed) % 0x60;

			kernel.bytes[at] = (uint8_t)rand_r(&seed);
		}
		kernel.bytes[0x1f1] = (uint8_t)rand_r(&seed) & 15;
		try_boot(&kernel, 8192, 32 << 20, NULL, "x", &m, &s, &err);
		memory_free(m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_is_checked),
		cmocka_unit_test(bus_finds),
		cmocka_unit_test(acpi_tables_are_whole),
		cmocka_unit_test(linux_is_loaded),
		cmocka_unit_test(bad_kernels_are_refused),
		cmocka_unit_test(random_headers_do_no_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
