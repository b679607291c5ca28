/* Port 0xf4 ends the machine with status (value << 1) | 1, as QEMU's isa-debug-exit: what test
 * kernels use to report. */
#include "device/device.h"

static uint32_t port_read(struct device *dev, uint16_t port, unsigned int size)
{
	(void)dev;
	(void)port;
	(void)size;
	return 0;
}

static void port_write(struct device *dev, uint16_t port, unsigned int size, uint32_t value)
{
	(void)size;
	if (port == 0xf4)
		dev->board->end(dev->board, BOARD_DEBUG_EXIT, (int)(value << 1 | 1));
}

static int init(struct device *dev, struct error *err)
{
	return dev->board->claim_ports(dev->board, dev, 0xf4, 4, err);
}

/* It has no state. */
static void reset(struct device *dev)
{
	(void)dev;
}

static void destroy(struct device *dev)
{
	(void)dev;
}

static void save(struct device *dev, struct save_writer *w)
{
	(void)dev;
	(void)w;
}

static int load(struct device *dev, const struct save_reader *r, struct error *err)
{
	(void)dev;
	(void)r;
	(void)err;
	return 0;
}

static const struct device_class debug_exit = {
	.name = "debug_exit",
	.version = 1,
	.port_size = 4,
	.init = init,
	.reset = reset,
	.destroy = destroy,
	.save = save,
	.load = load,
	.port_read = port_read,
	.port_write = port_write,
};
DEVICE(debug_exit);
