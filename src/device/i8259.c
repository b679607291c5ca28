/*
 * The pair of 8259A interrupt controllers of a PC (Intel 8259A data sheet), the second one behind
 * input 2 of the first, with the edge/level registers of the EISA chip sets.
 */
#include "device/device.h"

#include "base/cleanup.h"

#include <stdlib.h>

enum { MASTER, SLAVE, CASCADE = 2 };

struct i8259 {
	/* An element a chip. */
	uint8_t irr[2], isr[2], imr[2], lines[2], elcr[2];
	uint8_t vector[2]; /* of input 0 */
	uint8_t lowest[2]; /* the input of lowest priority */
	uint8_t icw[2];    /* the initialization word that comes next; 0: none */
	uint8_t icw4[2];   /* wants ICW4 */
	uint8_t auto_eoi[2], rotate_auto[2], read_isr[2], poll[2], special_mask[2], nested[2];
};

static const struct save_field fields[] = {
	SAVE_ARRAY(struct i8259, irr),         SAVE_ARRAY(struct i8259, isr),
	SAVE_ARRAY(struct i8259, imr),         SAVE_ARRAY(struct i8259, lines),
	SAVE_ARRAY(struct i8259, elcr),        SAVE_ARRAY(struct i8259, vector),
	SAVE_ARRAY(struct i8259, lowest),      SAVE_ARRAY(struct i8259, icw),
	SAVE_ARRAY(struct i8259, icw4),        SAVE_ARRAY(struct i8259, auto_eoi),
	SAVE_ARRAY(struct i8259, rotate_auto), SAVE_ARRAY(struct i8259, read_isr),
	SAVE_ARRAY(struct i8259, poll),        SAVE_ARRAY(struct i8259, special_mask),
	SAVE_ARRAY(struct i8259, nested),
};

/* The input with the highest priority among `bits`, or -1. `rank` gets its priority, 0 highest. */
static int highest(const struct i8259 *s, int chip, uint8_t bits, int *rank)
{
	for (int i = 0; i < 8; i++) {
		int input = (s->lowest[chip] + 1 + i) & 7;

		if (bits >> input & 1) {
			*rank = i;
			return input;
		}
	}
	*rank = 8;
	return -1;
}

/* The input that asks for service, or -1. */
static int pending(const struct i8259 *s, int chip)
{
	int rank, busy_rank, input = highest(s, chip, s->irr[chip] & ~s->imr[chip], &rank);
	uint8_t busy = s->isr[chip];

	if (s->special_mask[chip])
		busy &= ~s->imr[chip];
	/* In special fully nested mode the second chip may interrupt itself (data sheet, "Special
	 * fully nested mode"). */
	if (chip == MASTER && s->nested[chip])
		busy &= ~(1 << CASCADE);
	highest(s, chip, busy, &busy_rank);
	return rank < busy_rank ? input : -1;
}

static void set_chip_input(struct i8259 *s, int chip, int input, bool level)
{
	uint8_t bit = (uint8_t)(1 << input);

	if (s->elcr[chip] & bit) {
		s->irr[chip] = level ? s->irr[chip] | bit : s->irr[chip] & ~bit;
	} else if (!level) {
		s->irr[chip] &= ~bit;
	} else if (!(s->lines[chip] & bit)) {
		s->irr[chip] |= bit;
	}
	s->lines[chip] = level ? s->lines[chip] | bit : s->lines[chip] & ~bit;
}

static void update(struct device *dev)
{
	struct i8259 *s = dev->state;
	bool slave = pending(s, SLAVE) >= 0;

	/* Each new request of the second chip is an edge for the first. */
	set_chip_input(s, MASTER, CASCADE, slave);
	dev->board->set_extint(dev->board, pending(s, MASTER) >= 0);
}

static void take(struct i8259 *s, int chip, int input)
{
	uint8_t bit = (uint8_t)(1 << input);

	if (!(s->elcr[chip] & bit))
		s->irr[chip] &= ~bit;
	if (!s->auto_eoi[chip])
		s->isr[chip] |= bit;
	else if (s->rotate_auto[chip])
		s->lowest[chip] = (uint8_t)input;
}

static uint8_t acknowledge(struct device *dev)
{
	struct i8259 *s = dev->state;
	int chip = MASTER, input = pending(s, MASTER);

	if (input == CASCADE) {
		take(s, MASTER, CASCADE);
		/* Let the next request of the second chip be an edge. */
		set_chip_input(s, MASTER, CASCADE, false);
		chip = SLAVE;
		input = pending(s, SLAVE);
	}
	/* A request that went away meanwhile reads as input 7, which is not in service. */
	if (input >= 0)
		take(s, chip, input);
	else
		input = 7;
	update(dev);
	return (uint8_t)(s->vector[chip] + input);
}

static void set_input(struct device *dev, unsigned int line, bool level)
{
	if (line >= 16 || line == CASCADE)
		return;
	set_chip_input(dev->state, line / 8, line % 8, level);
	update(dev);
}

static void end_of_interrupt(struct i8259 *s, int chip, uint8_t ocw2)
{
	int input = ocw2 & 7, rank;

	switch (ocw2 >> 5) {
	case 0:
	case 4:
		s->rotate_auto[chip] = ocw2 >> 7;
		break;
	case 1: /* end of the one with the highest priority */
	case 5:
		input = highest(s, chip, s->isr[chip], &rank);
		if (input < 0)
			break;
		s->isr[chip] &= ~(1 << input);
		if (ocw2 & 0x80)
			s->lowest[chip] = (uint8_t)input;
		break;
	case 3:
	case 7:
		s->isr[chip] &= ~(1 << input);
		if (ocw2 & 0x80)
			s->lowest[chip] = (uint8_t)input;
		break;
	case 6:
		s->lowest[chip] = (uint8_t)input;
		break;
	}
}

static void write_command(struct i8259 *s, int chip, uint8_t value)
{
	if (value & 0x10) { /* ICW1 */
		s->icw[chip] = 2;
		s->icw4[chip] = value & 1;
		s->irr[chip] &= s->elcr[chip];
		s->isr[chip] = s->imr[chip] = 0;
		s->lowest[chip] = 7;
		s->auto_eoi[chip] = s->rotate_auto[chip] = s->read_isr[chip] = 0;
		s->special_mask[chip] = s->poll[chip] = s->nested[chip] = 0;
	} else if (value & 0x08) { /* OCW3 */
		if (value & 0x40)
			s->special_mask[chip] = value >> 5 & 1;
		s->poll[chip] = value >> 2 & 1;
		if (value & 0x02)
			s->read_isr[chip] = value & 1;
	} else {
		end_of_interrupt(s, chip, value);
	}
}

static void write_data(struct i8259 *s, int chip, uint8_t value)
{
	switch (s->icw[chip]) {
	case 0:
		s->imr[chip] = value;
		return;
	case 2:
		s->vector[chip] = value & 0xf8;
		s->icw[chip] = 3;
		return;
	case 3: /* the cascade is wired */
		s->icw[chip] = s->icw4[chip] ? 4 : 0;
		return;
	default:
		s->auto_eoi[chip] = value >> 1 & 1;
		s->nested[chip] = value >> 4 & 1;
		s->icw[chip] = 0;
	}
}

static void port_write(struct device *dev, uint16_t port, unsigned int size, uint32_t value)
{
	struct i8259 *s = dev->state;

	(void)size;
	switch (port) {
	case 0x20:
	case 0xa0:
		write_command(s, port >> 7, (uint8_t)value);
		break;
	case 0x21:
	case 0xa1:
		write_data(s, port >> 7, (uint8_t)value);
		break;
	case 0x4d0: /* timer, keyboard and cascade are always edges */
		s->elcr[MASTER] = value & 0xf8;
		break;
	case 0x4d1: /* so are RTC and coprocessor */
		s->elcr[SLAVE] = value & 0xde;
		break;
	}
	update(dev);
}

static uint32_t port_read(struct device *dev, uint16_t port, unsigned int size)
{
	struct i8259 *s = dev->state;
	int chip = port >> 7 & 1;

	(void)size;
	if (port >= 0x4d0)
		return s->elcr[port - 0x4d0];
	if (s->poll[chip]) {
		int input = pending(s, chip);

		s->poll[chip] = 0;
		if (input < 0)
			return 7;
		take(s, chip, input);
		update(dev);
		return 0x80u | (unsigned int)input;
	}
	if (port & 1)
		return s->imr[chip];
	return s->read_isr[chip] ? s->isr[chip] : s->irr[chip];
}

static int init(struct device *dev, struct error *err)
{
	static const uint16_t ports[] = {0x20, 0xa0, 0x4d0};

	dev->state = calloc(1, sizeof(struct i8259));
	if (!dev->state)
		return error_oom(err);
	for (size_t i = 0; i < ARRAY_SIZE(ports); i++) {
		int r = dev->board->claim_ports(dev->board, dev, ports[i], 2, err);

		if (r < 0)
			return r;
	}
	return 0;
}

static void reset(struct device *dev)
{
	struct i8259 *s = dev->state;

	*s = (struct i8259){.lowest = {7, 7}, .imr = {0xff, 0xff}};
	update(dev);
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
	int ret = load_fields(r, fields, ARRAY_SIZE(fields), dev->state, err);

	if (ret < 0)
		return ret;
	update(dev);
	return 0;
}

static const struct device_class i8259 = {
	.name = "i8259",
	.version = 1,
	.port_size = 1,
	.init = init,
	.reset = reset,
	.destroy = destroy,
	.save = save,
	.load = load,
	.port_read = port_read,
	.port_write = port_write,
	.set_input = set_input,
	.acknowledge = acknowledge,
};
DEVICE(i8259);
