/* See acpi.h. Source: ACPI 6.5, chapter 5. */
#include "machine/acpi.h"

#include "base/cleanup.h"
#include "device/acpi_pm.h"

#include <string.h>

enum { HEADER = 36, FADT_BYTES = 268, FADT_REVISION = 5 };

/*
 * The DSDT as `iasl -tc dsdt.asl` compiles the source beside this file: soft-off (\_S5), the serial
 * port and the clock. iasl is not needed to build.
 */
static const uint8_t dsdt[] = {
	0x44, 0x53, 0x44, 0x54, 0x94, 0x00, 0x00, 0x00, 0x02, 0x03, 0x4C, 0x4F, 0x44, 0x47, 0x45,
	0x20, 0x4C, 0x4F, 0x44, 0x47, 0x45, 0x56, 0x4D, 0x20, 0x01, 0x00, 0x00, 0x00, 0x49, 0x4E,
	0x54, 0x4C, 0x25, 0x09, 0x20, 0x20, 0x08, 0x5F, 0x53, 0x35, 0x5F, 0x12, 0x08, 0x04, 0x0A,
	0x05, 0x0A, 0x05, 0x00, 0x00, 0x10, 0x41, 0x06, 0x5F, 0x53, 0x42, 0x5F, 0x5B, 0x82, 0x32,
	0x43, 0x4F, 0x4D, 0x31, 0x08, 0x5F, 0x48, 0x49, 0x44, 0x0C, 0x41, 0xD0, 0x05, 0x01, 0x08,
	0x5F, 0x55, 0x49, 0x44, 0x01, 0x08, 0x5F, 0x53, 0x54, 0x41, 0x0A, 0x0F, 0x08, 0x5F, 0x43,
	0x52, 0x53, 0x11, 0x10, 0x0A, 0x0D, 0x47, 0x01, 0xF8, 0x03, 0xF8, 0x03, 0x01, 0x08, 0x22,
	0x10, 0x00, 0x79, 0x00, 0x5B, 0x82, 0x25, 0x52, 0x54, 0x43, 0x5F, 0x08, 0x5F, 0x48, 0x49,
	0x44, 0x0C, 0x41, 0xD0, 0x0B, 0x00, 0x08, 0x5F, 0x43, 0x52, 0x53, 0x11, 0x10, 0x0A, 0x0D,
	0x47, 0x01, 0x70, 0x00, 0x70, 0x00, 0x01, 0x02, 0x22, 0x00, 0x01, 0x79, 0x00};

struct tables {
	uint8_t bytes[ACPI_TABLES_BYTES];
	size_t used;
};

static void put(uint8_t *p, uint64_t value, unsigned int size)
{
	memcpy(p, &value, size);
}

static uint8_t checksum(const uint8_t *p, size_t size)
{
	uint8_t sum = 0;

	while (size--)
		sum += *p++;
	return (uint8_t)-sum;
}

/* Room for a table with its header filled; NULL: full. */
static uint8_t *table(struct tables *t, const char *signature, size_t size, uint8_t revision)
{
	size_t at = (t->used + 15) & ~(size_t)15;
	uint8_t *p = t->bytes + at;

	if (at + size > sizeof(t->bytes))
		return NULL;
	t->used = at + size;
	memcpy(p, signature, 4);
	put(p + 4, size, 4);
	p[8] = revision;
	memcpy(p + 10, "LODGE ", 6);
	memcpy(p + 16, "LODGEVM ", 8);
	put(p + 24, 1, 4);
	memcpy(p + 28, "LODG", 4);
	put(p + 32, 1, 4);
	return p;
}

static uint64_t address(const struct tables *t, const uint8_t *p)
{
	return ACPI_TABLES + (uint64_t)(p - t->bytes);
}

static void finish(uint8_t *p, size_t size)
{
	p[9] = 0;
	p[9] = checksum(p, size);
}

/* A generic address structure for ports (ACPI 5.2.3.2). */
static void put_port(uint8_t *p, uint16_t port, uint8_t bits)
{
	p[0] = 1;
	p[1] = bits;
	p[3] = bits == 32 ? 3 : bits == 16 ? 2 : 1;
	put(p + 4, port, 8);
}

static uint8_t *build_fadt(struct tables *t, uint64_t dsdt_gpa)
{
	uint8_t *p = table(t, "FACP", FADT_BYTES, FADT_REVISION);

	if (!p)
		return NULL;
	put(p + 40, dsdt_gpa, 4);
	put(p + 46, ACPI_SCI, 2);
	/* No SMI command: ACPI mode is always on. */
	put(p + 56, ACPI_PM1_EVENT, 4);
	put(p + 64, ACPI_PM1_CONTROL, 4);
	put(p + 76, ACPI_PM_TIMER, 4);
	p[88] = 4;
	p[89] = 2;
	p[91] = 4;
	put(p + 96, 0xffff, 2); /* no C2, no C3 */
	put(p + 98, 0xffff, 2);
	p[108] = 0x32; /* the century's place in CMOS memory */
	/* Devices on the ISA bus, but no keyboard controller worth probing, and no VGA. */
	put(p + 109, 1 << 0 | 1 << 2, 2);
	/* WBINVD works, C1 exists, no sleep button, the reset register works */
	put(p + 112, 1 << 0 | 1 << 2 | 1 << 5 | 1 << 10, 4);
	put_port(p + 116, ACPI_RESET, 8);
	p[128] = ACPI_RESET_VALUE;
	p[131] = 1; /* minor revision */
	put(p + 140, dsdt_gpa, 8);
	put_port(p + 148, ACPI_PM1_EVENT, 32);
	put_port(p + 172, ACPI_PM1_CONTROL, 16);
	put_port(p + 208, ACPI_PM_TIMER, 32);
	finish(p, FADT_BYTES);
	return p;
}

/* An ISA interrupt that is not wired as its number says (ACPI 5.2.12.5). */
static void put_override(uint8_t *p, uint8_t irq, uint8_t pin, uint16_t flags)
{
	p[0] = 2;
	p[1] = 10;
	p[3] = irq;
	put(p + 4, pin, 4);
	put(p + 8, flags, 2);
}

static uint8_t *build_madt(struct tables *t, unsigned int n_vcpus)
{
	size_t size = HEADER + 8 + 12 + 2 * 10;
	uint8_t *p, *e;

	for (unsigned int i = 0; i < n_vcpus; i++)
		size += i < 255 ? 8 : 16;
	size += 6;
	p = table(t, "APIC", size, 4);
	if (!p)
		return NULL;
	put(p + 36, 0xfee00000, 4);
	put(p + 40, 1, 4); /* there are 8259s, too */
	e = p + HEADER + 8;
	for (unsigned int i = 0; i < n_vcpus; i++) {
		if (i < 255) {
			e[0] = 0;
			e[1] = 8;
			e[2] = e[3] = (uint8_t)i;
			put(e + 4, 1, 4);
			e += 8;
		} else { /* x2APIC */
			e[0] = 9;
			e[1] = 16;
			put(e + 4, i, 4);
			put(e + 8, 1, 4);
			put(e + 12, i, 4);
			e += 16;
		}
	}
	e[0] = 1; /* the I/O APIC */
	e[1] = 12;
	put(e + 4, 0xfec00000, 4);
	e += 12;
	put_override(e, 0, 2, 0);
	e += 10;
	put_override(e, ACPI_SCI, ACPI_SCI, 0x000d); /* active high, level */
	e += 10;
	e[0] = 4; /* NMI is LINT1 of all */
	e[1] = 6;
	e[2] = 0xff;
	e[5] = 1;
	finish(p, size);
	return p;
}

int acpi_build(struct memory *memory, unsigned int n_vcpus, struct error *err)
{
	autofree struct tables *t = calloc(1, sizeof(*t));
	uint8_t *rsdp, *d, *fadt, *madt, *xsdt;

	if (!t)
		return error_oom(err);
	rsdp = t->bytes;
	t->used = HEADER;
	d = table(t, "DSDT", sizeof(dsdt), 2);
	if (d)
		memcpy(d, dsdt, sizeof(dsdt));
	fadt = d ? build_fadt(t, address(t, d)) : NULL;
	madt = build_madt(t, n_vcpus);
	xsdt = table(t, "XSDT", HEADER + 2 * 8, 1);
	if (!fadt || !madt || !xsdt)
		return error_set(err, EINVAL, "%u vCPUs are too many for the ACPI tables", n_vcpus);
	put(xsdt + HEADER, address(t, fadt), 8);
	put(xsdt + HEADER + 8, address(t, madt), 8);
	finish(xsdt, HEADER + 2 * 8);

	memcpy(rsdp, "RSD PTR ", 8);
	memcpy(rsdp + 9, "LODGE ", 6);
	rsdp[15] = 2;
	put(rsdp + 20, 36, 4);
	put(rsdp + 24, address(t, xsdt), 8);
	rsdp[8] = checksum(rsdp, 20);
	rsdp[32] = checksum(rsdp, 36);
	return memory_write(memory, (gpa_t){ACPI_TABLES}, t->bytes, t->used, err);
}
