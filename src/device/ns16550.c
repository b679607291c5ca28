/*
 * The serial port: a 16550A (National Semiconductor PC16550D data sheet). Bytes go out at once, so
 * the transmitter is always empty; a receive FIFO of ours is as deep as the host needs.
 */
#include "device/device.h"

#include "base/cleanup.h"

#include <string.h>

enum { RBR, IER, IIR, LCR, MCR, LSR, MSR, SCR };

enum {
	IER_RX = 1,
	IER_TX = 2,
	IER_LINE = 4,
	IER_MODEM = 8,
	LCR_DLAB = 0x80,
	MCR_DTR = 1,
	MCR_RTS = 2,
	MCR_OUT1 = 4,
	MCR_OUT2 = 8, /* gates the interrupt line on a PC */
	MCR_LOOP = 16,
	LSR_READY = 1,
	LSR_EMPTY = 0x60, /* THRE and TEMT */
	QUEUE = 256,
};

struct ns16550 {
	uint8_t ier, fcr, lcr, mcr, msr, scr;
	uint16_t divisor;
	uint8_t tx_pending; /* the transmitter-empty interrupt was not yet taken */
	uint8_t queue[QUEUE];
	uint16_t head, queued;
};

static const struct save_field fields[] = {
	SAVE_FIELD(struct ns16550, ier),     SAVE_FIELD(struct ns16550, fcr),
	SAVE_FIELD(struct ns16550, lcr),     SAVE_FIELD(struct ns16550, mcr),
	SAVE_FIELD(struct ns16550, msr),     SAVE_FIELD(struct ns16550, scr),
	SAVE_FIELD(struct ns16550, divisor), SAVE_FIELD(struct ns16550, tx_pending),
	SAVE_ARRAY(struct ns16550, queue),   SAVE_FIELD(struct ns16550, head),
	SAVE_FIELD(struct ns16550, queued),
};

static const struct {
	uint16_t port;
	uint8_t irq;
} places[] = {{0x3f8, 4}, {0x2f8, 3}, {0x3e8, 4}, {0x2e8, 3}};

/* The identification of the most urgent interrupt; 1: none. */
static uint8_t interrupt(const struct ns16550 *s)
{
	if ((s->ier & IER_RX) && s->queued)
		return 4;
	if ((s->ier & IER_TX) && s->tx_pending)
		return 2;
	if ((s->ier & IER_MODEM) && (s->msr & 0x0f))
		return 0;
	return 1;
}

static void update(struct device *dev)
{
	struct ns16550 *s = dev->state;

	dev->board->set_line(dev->board, places[dev->instance].irq,
			     interrupt(s) != 1 && (s->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2);
}

static void enqueue(struct ns16550 *s, uint8_t byte)
{
	if (s->queued < QUEUE)
		s->queue[(s->head + s->queued++) % QUEUE] = byte;
}

/* The modem lines as the other side, or in loop-back our own outputs, drive them. */
static uint8_t modem_lines(const struct ns16550 *s)
{
	if (!(s->mcr & MCR_LOOP))
		return 0xb0; /* DCD, DSR, CTS */
	return (s->mcr & MCR_RTS ? 0x10 : 0) | (s->mcr & MCR_DTR ? 0x20 : 0) |
	       (s->mcr & MCR_OUT1 ? 0x40 : 0) | (s->mcr & MCR_OUT2 ? 0x80 : 0);
}

static void modem_update(struct ns16550 *s)
{
	uint8_t lines = modem_lines(s), changed = (s->msr ^ lines) & 0xf0;

	/* The ring indicator counts only when it falls. */
	if (!(s->msr & 0x40))
		changed &= ~0x40;
	s->msr = lines | (s->msr & 0x0f) | changed >> 4;
}

static uint32_t port_read(struct device *dev, uint16_t port, unsigned int size)
{
	struct ns16550 *s = dev->state;
	uint8_t value = 0;

	(void)size;
	switch (port - places[dev->instance].port) {
	case RBR:
		if (s->lcr & LCR_DLAB)
			return s->divisor & 0xff;
		if (s->queued) {
			value = s->queue[s->head];
			s->head = (s->head + 1) % QUEUE;
			s->queued--;
		}
		break;
	case IER:
		return s->lcr & LCR_DLAB ? s->divisor >> 8 : s->ier;
	case IIR:
		value = interrupt(s);
		if (value == 2)
			s->tx_pending = 0;
		/* A receive FIFO with less than its trigger level says "time-out": both mean data. */
		value |= s->fcr & 1 ? 0xc0 : 0;
		break;
	case LCR:
		return s->lcr;
	case MCR:
		return s->mcr;
	case LSR:
		return LSR_EMPTY | (s->queued ? LSR_READY : 0);
	case MSR:
		value = s->msr;
		s->msr &= 0xf0;
		break;
	case SCR:
		return s->scr;
	}
	update(dev);
	return value;
}

static void port_write(struct device *dev, uint16_t port, unsigned int size, uint32_t data)
{
	struct ns16550 *s = dev->state;
	uint8_t value = (uint8_t)data;

	(void)size;
	switch (port - places[dev->instance].port) {
	case RBR:
		if (s->lcr & LCR_DLAB) {
			s->divisor = (s->divisor & 0xff00) | value;
			return;
		}
		if (s->mcr & MCR_LOOP)
			enqueue(s, value);
		else
			dev->board->output(dev->board, dev, &value, 1);
		s->tx_pending = 1;
		break;
	case IER:
		if (s->lcr & LCR_DLAB) {
			s->divisor = (uint16_t)((s->divisor & 0xff) | value << 8);
			return;
		}
		/* Enabling it while the transmitter is empty raises it (data sheet 8.6.5). */
		if ((value & IER_TX) && !(s->ier & IER_TX))
			s->tx_pending = 1;
		s->ier = value & 0x0f;
		break;
	case IIR: /* FCR */
		if ((value & 2) || ((value ^ s->fcr) & 1))
			s->queued = 0;
		s->fcr = value & 0xc9;
		break;
	case LCR:
		s->lcr = value;
		return;
	case MCR:
		s->mcr = value & 0x1f;
		modem_update(s);
		break;
	case SCR:
		s->scr = value;
		return;
	}
	update(dev);
}

static size_t input(struct device *dev, const void *data, size_t size)
{
	struct ns16550 *s = dev->state;
	size_t n;

	if (s->mcr & MCR_LOOP)
		return 0;
	for (n = 0; n < size && s->queued < QUEUE; n++)
		enqueue(s, ((const uint8_t *)data)[n]);
	update(dev);
	return n;
}

static int init(struct device *dev, struct error *err)
{
	if (dev->instance >= ARRAY_SIZE(places))
		return error_set(err, EINVAL, "there is no serial port %u", dev->instance);
	dev->state = calloc(1, sizeof(struct ns16550));
	if (!dev->state)
		return error_oom(err);
	return dev->board->claim_ports(dev->board, dev, places[dev->instance].port, 8, err);
}

static void reset(struct device *dev)
{
	struct ns16550 *s = dev->state;

	*s = (struct ns16550){.divisor = 12, .msr = 0xb0};
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
	struct ns16550 *s = dev->state;
	int ret = load_fields(r, fields, ARRAY_SIZE(fields), s, err);

	if (ret < 0)
		return ret;
	if (s->head >= QUEUE || s->queued > QUEUE)
		return error_set(err, EINVAL, "the input queue is out of bounds");
	update(dev);
	return 0;
}

static const struct device_class ns16550 = {
	.name = "ns16550",
	.version = 1,
	.port_size = 1,
	.init = init,
	.reset = reset,
	.destroy = destroy,
	.save = save,
	.load = load,
	.port_read = port_read,
	.port_write = port_write,
	.input = input,
};
DEVICE(ns16550);
