/*
 * The firmware configuration device (QEMU's docs/specs/fw_cfg.rst) with its port interface: a
 * selector at 0x510, the chosen item's bytes at 0x511. Items: the signature, the size of memory,
 * the number of vCPUs and an empty directory of files.
 */
#include "device/device.h"

#include "base/cleanup.h"

#include <stdlib.h>
#include <string.h>

enum { SELECT = 0x510, DATA = 0x511 };
enum { SIGNATURE = 0, ID = 1, RAM_SIZE = 3, NB_CPUS = 5, MAX_CPUS = 0xf, FILE_DIR = 0x19 };

struct fw_cfg {
	uint16_t item;
	uint32_t at;
};

static const struct save_field fields[] = {
	SAVE_FIELD(struct fw_cfg, item),
	SAVE_FIELD(struct fw_cfg, at),
};

/* The item's bytes; returns how many. */
static size_t item_bytes(struct device *dev, uint16_t item, uint8_t bytes[static 8])
{
	uint64_t value;

	switch (item) {
	case SIGNATURE:
		memcpy(bytes, "QEMU", 4);
		return 4;
	case ID:
		memcpy(bytes, "\1\0\0\0", 4); /* the traditional interface, no DMA */
		return 4;
	case RAM_SIZE:
		memcpy(bytes, &dev->board->memory_bytes, 8);
		return 8;
	case NB_CPUS:
	case MAX_CPUS:
		value = dev->board->n_vcpus;
		memcpy(bytes, &value, 2);
		return 2;
	case FILE_DIR:
		memset(bytes, 0, 4);
		return 4;
	}
	return 0;
}

static uint32_t port_read(struct device *dev, uint16_t port, unsigned int size)
{
	struct fw_cfg *s = dev->state;
	uint8_t bytes[8];
	uint32_t value = 0;

	if (port != DATA || size != 1)
		return 0xffff;
	if (s->at < item_bytes(dev, s->item, bytes))
		value = bytes[s->at++];
	return value; /* zeros behind the end */
}

static void port_write(struct device *dev, uint16_t port, unsigned int size, uint32_t value)
{
	struct fw_cfg *s = dev->state;

	if (port != SELECT || size != 2)
		return;
	s->item = (uint16_t)value;
	s->at = 0;
}

static int init(struct device *dev, struct error *err)
{
	dev->state = calloc(1, sizeof(struct fw_cfg));
	if (!dev->state)
		return error_oom(err);
	return dev->board->claim_ports(dev->board, dev, SELECT, 2, err);
}

static void reset(struct device *dev)
{
	*(struct fw_cfg *)dev->state = (struct fw_cfg){0};
}

static void destroy(struct device *dev)
{
	free(dev->state);
}

static void save(struct device *dev, struct save_writer *w)
{
	save_fields(w, fields, ARRAY_SIZE(fields), dev->state);
}

static int load(struct device *dev, const struct save_reader *r, struct error *err)
{
	return load_fields(r, fields, ARRAY_SIZE(fields), dev->state, err);
}

static const struct device_class fw_cfg = {
	.name = "fw_cfg",
	.version = 1,
	.port_size = 2,
	.init = init,
	.reset = reset,
	.destroy = destroy,
	.save = save,
	.load = load,
	.port_read = port_read,
	.port_write = port_write,
};
DEVICE(fw_cfg);
