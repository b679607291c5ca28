/*
 * The I/O APIC (Intel 82093AA data sheet; version 0x20 with its EOI register): turns 24 interrupt
 * lines into messages to the local APICs.
 */
#include "device/device.h"

#include "base/cleanup.h"

#include <stdlib.h>

enum { PINS = 24, BASE = 0xfec00000u, REMOTE_IRR = 1 << 14, LEVEL = 1 << 15, MASKED = 1 << 16 };

struct ioapic {
	uint64_t redirection[PINS];
	uint32_t lines; /* as the board drives them */
	uint8_t select, id;
};

static const struct save_field fields[] = {
	SAVE_ARRAY(struct ioapic, redirection),
	SAVE_FIELD(struct ioapic, lines),
	SAVE_FIELD(struct ioapic, select),
	SAVE_FIELD(struct ioapic, id),
};

/* The entry as a message (SDM 11.11). */
static void send(struct device *dev, unsigned int pin)
{
	struct ioapic *s = dev->state;
	uint64_t e = s->redirection[pin];
	uint64_t address = 0xfee00000u | (e >> 56) << 12 | (e >> 11 & 1) << 2;
	uint32_t data = (e & 0x7ff) | (e & LEVEL ? 0xc000 : 0);

	/* ExtINT is wired to the local APIC's pin, by the 8259. */
	if ((e >> 8 & 7) == 7)
		return;
	if (e & LEVEL)
		s->redirection[pin] |= REMOTE_IRR;
	dev->board->msi(dev->board, address, data);
}

/* Sends a level-triggered interrupt whose line is up and that is not being served. */
static void service_level(struct device *dev, unsigned int pin)
{
	struct ioapic *s = dev->state;
	uint64_t e = s->redirection[pin];

	if ((e & LEVEL) && !(e & (MASKED | REMOTE_IRR)) && (s->lines >> pin & 1))
		send(dev, pin);
}

static void set_input(struct device *dev, unsigned int line, bool level)
{
	struct ioapic *s = dev->state;
	unsigned int pin = line == 0 ? 2 : line; /* the timer, as the MADT says */
	bool was;

	if (line == 2 || pin >= PINS)
		return;
	was = s->lines >> pin & 1;
	s->lines = level ? s->lines | 1u << pin : s->lines & ~(1u << pin);
	if (s->redirection[pin] & LEVEL)
		service_level(dev, pin);
	else if (level && !was && !(s->redirection[pin] & MASKED))
		send(dev, pin);
}

static void eoi(struct device *dev, uint8_t vector)
{
	struct ioapic *s = dev->state;

	for (unsigned int pin = 0; pin < PINS; pin++) {
		uint64_t e = s->redirection[pin];

		if (!(e & LEVEL) || !(e & REMOTE_IRR) || (e & 0xff) != vector)
			continue;
		s->redirection[pin] &= ~(uint64_t)REMOTE_IRR;
		service_level(dev, pin);
	}
}

static uint32_t read_register(const struct ioapic *s)
{
	switch (s->select) {
	case 0:
	case 2:
		return (uint32_t)s->id << 24;
	case 1:
		return (PINS - 1) << 16 | 0x20;
	}
	if (s->select >= 0x10 && s->select < 0x10 + 2 * PINS)
		return (uint32_t)(s->redirection[(s->select - 0x10) / 2] >>
				  (s->select & 1 ? 32 : 0));
	return 0;
}

static void write_register(struct device *dev, uint32_t value)
{
	struct ioapic *s = dev->state;
	unsigned int pin;
	uint64_t *e;

	if (s->select == 0)
		s->id = value >> 24 & 0x0f;
	if (s->select < 0x10 || s->select >= 0x10 + 2 * PINS)
		return;
	pin = (s->select - 0x10) / 2;
	e = &s->redirection[pin];
	if (s->select & 1) {
		*e = (*e & 0xffffffff) | (uint64_t)value << 32;
		return;
	}
	/* Delivery status and remote IRR are read-only; an edge-triggered pin has no remote IRR
	 * (Linux clears a stuck one by switching there and back). */
	*e = (*e & ~0xffffffffull) | (value & 0x1afff) | (*e & REMOTE_IRR);
	if (!(*e & LEVEL))
		*e &= ~(uint64_t)REMOTE_IRR;
	service_level(dev, pin);
}

static uint64_t mmio_read(struct device *dev, gpa_t gpa, unsigned int size)
{
	struct ioapic *s = dev->state;

	(void)size;
	switch (gpa.v - BASE) {
	case 0:
		return s->select;
	case 0x10:
		return read_register(s);
	}
	return 0;
}

static void mmio_write(struct device *dev, gpa_t gpa, unsigned int size, uint64_t value)
{
	struct ioapic *s = dev->state;

	(void)size;
	switch (gpa.v - BASE) {
	case 0:
		s->select = (uint8_t)value;
		break;
	case 0x10:
		write_register(dev, (uint32_t)value);
		break;
	case 0x40:
		eoi(dev, (uint8_t)value);
		break;
	}
}

static int init(struct device *dev, struct error *err)
{
	dev->state = calloc(1, sizeof(struct ioapic));
	if (!dev->state)
		return error_oom(err);
	return dev->board->claim_mmio(dev->board, dev, (gpa_t){BASE}, 0x1000, err);
}

static void reset(struct device *dev)
{
	struct ioapic *s = dev->state;

	*s = (struct ioapic){0};
	for (unsigned int i = 0; i < PINS; i++)
		s->redirection[i] = MASKED;
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

static const struct device_class ioapic = {
	.name = "ioapic",
	.version = 1,
	.init = init,
	.reset = reset,
	.destroy = destroy,
	.save = save,
	.load = load,
	.mmio_read = mmio_read,
	.mmio_write = mmio_write,
	.set_input = set_input,
	.eoi = eoi,
};
DEVICE(ioapic);
