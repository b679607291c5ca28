/*
 * The keyboard controller, without keyboard or mouse: what systems use of it is the line that
 * resets the processor (command 0xfe), the A20 gate, and the self-test that finds it.
 */
#include "device/device.h"

#include "base/cleanup.h"

#include <stdlib.h>

enum { DATA = 0x60, COMMAND = 0x64, STATUS_FULL = 1, STATUS_SYSTEM = 4, STATUS_COMMAND = 8 };

struct i8042 {
	uint8_t status, data, config, outputs, awaits; /* awaits: the command whose byte follows */
};

static const struct save_field fields[] = {
	SAVE_FIELD(struct i8042, status), SAVE_FIELD(struct i8042, data),
	SAVE_FIELD(struct i8042, config), SAVE_FIELD(struct i8042, outputs),
	SAVE_FIELD(struct i8042, awaits),
};

static void reply(struct i8042 *s, uint8_t value)
{
	s->data = value;
	s->status |= STATUS_FULL;
}

static uint32_t port_read(struct device *dev, uint16_t port, unsigned int size)
{
	struct i8042 *s = dev->state;

	(void)size;
	if (port == COMMAND)
		return s->status;
	s->status &= ~STATUS_FULL;
	return s->data;
}

static void command(struct device *dev, uint8_t value)
{
	struct i8042 *s = dev->state;

	s->awaits = 0;
	switch (value) {
	case 0x20:
		reply(s, s->config);
		break;
	case 0x60:
	case 0xd1:
	case 0xd2:
	case 0xd3:
	case 0xd4:
		s->awaits = value;
		break;
	case 0xa7: /* the ports' clocks */
		s->config |= 0x20;
		break;
	case 0xa8:
		s->config &= ~0x20;
		break;
	case 0xad:
		s->config |= 0x10;
		break;
	case 0xae:
		s->config &= ~0x10;
		break;
	case 0xa9: /* interface tests: passed */
	case 0xab:
		reply(s, 0);
		break;
	case 0xaa: /* self-test: passed */
		s->status |= STATUS_SYSTEM;
		reply(s, 0x55);
		break;
	case 0xd0:
		reply(s, s->outputs);
		break;
	}
	/* 0xf0..0xff pulse the output lines whose bit is zero; line 0 is the reset. */
	if (value >= 0xf0 && !(value & 1))
		dev->board->end(dev->board, BOARD_RESET, 0);
}

static void port_write(struct device *dev, uint16_t port, unsigned int size, uint32_t value)
{
	struct i8042 *s = dev->state;

	(void)size;
	if (port == COMMAND) {
		s->status |= STATUS_COMMAND;
		command(dev, (uint8_t)value);
		return;
	}
	s->status &= ~STATUS_COMMAND;
	switch (s->awaits) {
	case 0x60:
		s->config = (uint8_t)value;
		break;
	case 0xd1:
		s->outputs = (uint8_t)value;
		if (!(value & 1))
			dev->board->end(dev->board, BOARD_RESET, 0);
		break;
	case 0xd2:
	case 0xd3:
		reply(s, (uint8_t)value);
		break;
	}
	s->awaits = 0;
}

static int init(struct device *dev, struct error *err)
{
	int r;

	dev->state = calloc(1, sizeof(struct i8042));
	if (!dev->state)
		return error_oom(err);
	r = dev->board->claim_ports(dev->board, dev, DATA, 1, err);
	return r < 0 ? r : dev->board->claim_ports(dev->board, dev, COMMAND, 1, err);
}

static void reset(struct device *dev)
{
	*(struct i8042 *)dev->state =
		(struct i8042){.status = STATUS_SYSTEM | 0x10, .config = 0x30, .outputs = 0x03};
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

static const struct device_class i8042 = {
	.name = "i8042",
	.version = 1,
	.port_size = 1,
	.init = init,
	.reset = reset,
	.destroy = destroy,
	.save = save,
	.load = load,
	.port_read = port_read,
	.port_write = port_write,
};
DEVICE(i8042);
