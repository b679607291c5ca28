/*
 * Which device answers at which port or guest physical address. Accesses to nothing read as all
 * ones and write nowhere, as on a PC.
 */
#pragma once

#include "device/device.h"

struct bus_range {
	uint64_t first, last;
	struct device *dev;
};

/* One for ports, one for memory; all zeros is an empty one. */
struct bus {
	struct bus_range *ranges; /* sorted */
	size_t n;
};

/* Errors: EEXIST where a part is taken, ENOMEM. */
int bus_claim(struct bus *bus, uint64_t first, uint64_t size, struct device *dev,
	      struct error *err);
struct device *bus_find(const struct bus *bus, uint64_t address);
void bus_release(struct bus *bus);

uint32_t bus_port_read(const struct bus *bus, uint16_t port, unsigned int size);
void bus_port_write(const struct bus *bus, uint16_t port, unsigned int size, uint32_t value);
uint64_t bus_mmio_read(const struct bus *bus, gpa_t gpa, unsigned int size);
void bus_mmio_write(const struct bus *bus, gpa_t gpa, unsigned int size, uint64_t value);
