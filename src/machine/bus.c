/* See bus.h. */
#include "machine/bus.h"

#include <stdlib.h>
#include <string.h>

int bus_claim(struct bus *bus, uint64_t first, uint64_t size, struct device *dev, struct error *err)
{
	uint64_t last = first + size - 1;
	struct bus_range *grown;
	size_t at = 0;

	if (!size || last < first)
		return error_set(err, EINVAL, "an empty range at 0x%llx",
				 (unsigned long long)first);
	while (at < bus->n && bus->ranges[at].last < first)
		at++;
	if (at < bus->n && bus->ranges[at].first <= last)
		return error_set(err, EEXIST, "0x%llx is taken by %s", (unsigned long long)first,
				 bus->ranges[at].dev->class->name);
	grown = reallocarray(bus->ranges, bus->n + 1, sizeof(*grown));
	if (!grown)
		return error_oom(err);
	bus->ranges = grown;
	memmove(&grown[at + 1], &grown[at], (bus->n - at) * sizeof(*grown));
	grown[at] = (struct bus_range){first, last, dev};
	bus->n++;
	return 0;
}

struct device *bus_find(const struct bus *bus, uint64_t address)
{
	size_t low = 0, high = bus->n;

	while (low < high) {
		size_t middle = (low + high) / 2;
		const struct bus_range *r = &bus->ranges[middle];

		if (address < r->first)
			high = middle;
		else if (address > r->last)
			low = middle + 1;
		else
			return r->dev;
	}
	return NULL;
}

void bus_release(struct bus *bus)
{
	free(bus->ranges);
	*bus = (struct bus){0};
}

/* The whole access is one device's, and not wider than it takes. */
static bool whole(const struct bus *bus, const struct device *dev, uint16_t port, unsigned int size)
{
	return dev && size <= dev->class->port_size && port + size <= 0x10000u &&
	       bus_find(bus, port + size - 1) == dev;
}

uint32_t bus_port_read(const struct bus *bus, uint16_t port, unsigned int size)
{
	struct device *dev = bus_find(bus, port);
	unsigned int half = size / 2;

	if (whole(bus, dev, port, size)) {
		uint32_t value = dev->class->port_read(dev, port, size);

		return size == 4 ? value : value & ((1u << size * 8) - 1);
	}
	if (size == 1)
		return 0xff;
	return bus_port_read(bus, port, half) | bus_port_read(bus, (uint16_t)(port + half), half)
							<< half * 8;
}

void bus_port_write(const struct bus *bus, uint16_t port, unsigned int size, uint32_t value)
{
	struct device *dev = bus_find(bus, port);
	unsigned int half = size / 2;

	if (whole(bus, dev, port, size)) {
		dev->class->port_write(dev, port, size, value);
	} else if (size > 1) {
		bus_port_write(bus, port, half, value & ((1u << half * 8) - 1));
		bus_port_write(bus, (uint16_t)(port + half), half, value >> half * 8);
	}
}

uint64_t bus_mmio_read(const struct bus *bus, gpa_t gpa, unsigned int size)
{
	struct device *dev = bus_find(bus, gpa.v);
	uint64_t value = dev ? dev->class->mmio_read(dev, gpa, size) : ~0ull;

	return size >= 8 ? value : value & ((1ull << size * 8) - 1);
}

void bus_mmio_write(const struct bus *bus, gpa_t gpa, unsigned int size, uint64_t value)
{
	struct device *dev = bus_find(bus, gpa.v);

	if (dev)
		dev->class->mmio_write(dev, gpa, size, value);
}
