/* The ACPI tables of the board: RSDP, XSDT, FADT, MADT, DSDT. */
#pragma once

#include "machine/memory.h"

#define ACPI_TABLES       0xe0000ull /* the RSDP comes first: firmware's area, where systems look */
#define ACPI_TABLES_BYTES 0x10000ull

int acpi_build(struct memory *memory, unsigned int n_vcpus, struct error *err);
