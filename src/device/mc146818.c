/*
 * The real-time clock and its CMOS memory (Motorola MC146818A data sheet), ports 0x70 and 0x71.
 * The time is the board's wall clock plus what the guest set it off by.
 */
#include "device/device.h"

#include "base/cleanup.h"

#include <stdlib.h>
#include <time.h>

enum {
	SECONDS,
	MINUTES = 2,
	HOURS = 4,
	WEEKDAY = 6,
	DAY,
	MONTH,
	YEAR,
	REG_A,
	REG_B,
	REG_C,
	REG_D,
	CENTURY = 0x32,
	BYTES = 128,
	IRQ = 8,

	B_SET = 0x80,
	B_PERIODIC = 0x40,
	B_ALARM = 0x20,
	B_UPDATE = 0x10,
	B_BINARY = 0x04,
	B_24H = 0x02,
	C_IRQF = 0x80,
};

#define NS 1000000000ull

struct mc146818 {
	uint8_t memory[BYTES];
	uint8_t index;
	int64_t offset_s;     /* the guest's time less the wall clock's */
	uint64_t periodic_ns; /* when the last periodic interrupt was due; 0: none runs */
	uint64_t second_ns;   /* when the last second was noticed */
};

static const struct save_field fields[] = {
	SAVE_ARRAY(struct mc146818, memory),    SAVE_FIELD(struct mc146818, index),
	SAVE_FIELD(struct mc146818, offset_s),  SAVE_FIELD(struct mc146818, periodic_ns),
	SAVE_FIELD(struct mc146818, second_ns),
};

static uint8_t encode(const struct mc146818 *s, int value)
{
	return (uint8_t)(s->memory[REG_B] & B_BINARY ? value : value / 10 * 16 + value % 10);
}

static int decode(const struct mc146818 *s, uint8_t value)
{
	return s->memory[REG_B] & B_BINARY ? value : (value >> 4) * 10 + (value & 15);
}

/* Puts the time into the registers. */
static void read_clock(struct device *dev)
{
	struct mc146818 *s = dev->state;
	time_t now = (time_t)((int64_t)dev->board->wall_s(dev->board) + s->offset_s);
	struct tm tm;

	if ((s->memory[REG_B] & B_SET) || !gmtime_r(&now, &tm))
		return;
	s->memory[SECONDS] = encode(s, tm.tm_sec);
	s->memory[MINUTES] = encode(s, tm.tm_min);
	if (s->memory[REG_B] & B_24H)
		s->memory[HOURS] = encode(s, tm.tm_hour);
	else
		s->memory[HOURS] =
			encode(s, (tm.tm_hour + 11) % 12 + 1) | (tm.tm_hour >= 12 ? 0x80 : 0);
	s->memory[WEEKDAY] = encode(s, tm.tm_wday + 1);
	s->memory[DAY] = encode(s, tm.tm_mday);
	s->memory[MONTH] = encode(s, tm.tm_mon + 1);
	s->memory[YEAR] = encode(s, tm.tm_year % 100);
	s->memory[CENTURY] = encode(s, (tm.tm_year + 1900) / 100);
}

/* Takes the time from the registers. */
static void set_clock(struct device *dev)
{
	struct mc146818 *s = dev->state;
	uint8_t hours = s->memory[HOURS];
	struct tm tm = {
		.tm_sec = decode(s, s->memory[SECONDS]),
		.tm_min = decode(s, s->memory[MINUTES]),
		.tm_hour = decode(s, hours & 0x7f),
		.tm_mday = decode(s, s->memory[DAY]),
		.tm_mon = decode(s, s->memory[MONTH]) - 1,
		.tm_year = decode(s, s->memory[YEAR]) + decode(s, s->memory[CENTURY]) * 100 - 1900,
	};

	if (!(s->memory[REG_B] & B_24H))
		tm.tm_hour = tm.tm_hour % 12 + (hours & 0x80 ? 12 : 0);
	s->offset_s = (int64_t)timegm(&tm) - (int64_t)dev->board->wall_s(dev->board);
}

/* The period by register A's rate with the usual 32.768 kHz base; 0: off. */
static uint64_t period_ns(const struct mc146818 *s)
{
	unsigned int rate = s->memory[REG_A] & 15;

	if (!rate || !(s->memory[REG_B] & B_PERIODIC))
		return 0;
	if (rate < 3)
		rate += 7;
	return (NS << (rate - 1)) / 32768;
}

static void set_timer(struct device *dev)
{
	struct mc146818 *s = dev->state;
	uint64_t period = period_ns(s), now = dev->board->now_ns(dev->board), next = 0;

	if (!period)
		s->periodic_ns = 0;
	else if (!s->periodic_ns)
		s->periodic_ns = now;
	if (period)
		next = s->periodic_ns + period;
	if (!(s->memory[REG_B] & (B_ALARM | B_UPDATE)))
		s->second_ns = 0;
	else if (!s->second_ns)
		s->second_ns = now;
	if (s->second_ns && (!next || s->second_ns + NS < next))
		next = s->second_ns + NS;
	device_set_deadline(dev, next);
}

static void raise_irq(struct device *dev, uint8_t bits)
{
	struct mc146818 *s = dev->state;

	s->memory[REG_C] |= bits;
	if (bits & s->memory[REG_B] & 0x70) {
		s->memory[REG_C] |= C_IRQF;
		dev->board->set_line(dev->board, IRQ, true);
	}
}

/* An alarm byte of 0xc0 and above matches everything. */
static bool alarm_matches(const struct mc146818 *s)
{
	for (int i = SECONDS; i <= HOURS; i += 2)
		if (s->memory[i + 1] < 0xc0 && s->memory[i + 1] != s->memory[i])
			return false;
	return true;
}

static void timer(struct device *dev)
{
	struct mc146818 *s = dev->state;
	uint64_t now = dev->board->now_ns(dev->board), period = period_ns(s);

	if (period && s->periodic_ns && now >= s->periodic_ns + period) {
		s->periodic_ns += (now - s->periodic_ns) / period * period;
		raise_irq(dev, B_PERIODIC);
	}
	if (s->second_ns && now >= s->second_ns + NS) {
		s->second_ns += (now - s->second_ns) / NS * NS;
		read_clock(dev);
		raise_irq(dev, B_UPDATE | (alarm_matches(s) ? B_ALARM : 0));
	}
	set_timer(dev);
}

static uint32_t port_read(struct device *dev, uint16_t port, unsigned int size)
{
	struct mc146818 *s = dev->state;
	uint8_t value;

	(void)size;
	if (port == 0x70)
		return 0xff; /* write-only */
	if (s->index <= YEAR || s->index == CENTURY)
		read_clock(dev);
	value = s->memory[s->index];
	if (s->index == REG_C) {
		s->memory[REG_C] = 0;
		dev->board->set_line(dev->board, IRQ, false);
	}
	return value;
}

static void port_write(struct device *dev, uint16_t port, unsigned int size, uint32_t data)
{
	struct mc146818 *s = dev->state;
	uint8_t value = (uint8_t)data, was;

	(void)size;
	if (port == 0x70) {
		s->index = value & 0x7f;
		return;
	}
	switch (s->index) {
	case REG_A:
		s->memory[REG_A] = value & 0x7f;
		set_timer(dev);
		return;
	case REG_B:
		was = s->memory[REG_B];
		if ((value & B_SET) && !(was & B_SET))
			read_clock(dev);
		s->memory[REG_B] = value;
		if (!(value & B_SET) && (was & B_SET))
			set_clock(dev);
		set_timer(dev);
		return;
	case REG_C:
	case REG_D:
		return;
	}
	if (s->index > YEAR && s->index != CENTURY) {
		s->memory[s->index] = value;
		return;
	}
	/* A time register: the others keep their present values. */
	read_clock(dev);
	s->memory[s->index] = value;
	if (!(s->memory[REG_B] & B_SET) &&
	    (s->index == CENTURY || s->index >= WEEKDAY || !(s->index & 1)))
		set_clock(dev);
}

static int init(struct device *dev, struct error *err)
{
	dev->state = calloc(1, sizeof(struct mc146818));
	if (!dev->state)
		return error_oom(err);
	return dev->board->claim_ports(dev->board, dev, 0x70, 2, err);
}

/* RESET clears the interrupt enables only; the memory is held by the battery (here: by us, for
 * what firmware of PCs keeps there about the size of memory). */
static void reset(struct device *dev)
{
	struct mc146818 *s = dev->state;
	uint64_t size = dev->board->memory_bytes, low = size < 0xc0000000 ? size : 0xc0000000;
	uint64_t kib = low >= 64 << 20 ? 0xffff : low > 1 << 20 ? (low - (1 << 20)) >> 10 : 0;
	uint64_t blocks = low > 16 << 20 ? (low - (16 << 20)) >> 16 : 0;

	s->memory[REG_A] = 0x26;
	s->memory[REG_B] = (s->memory[REG_B] & B_BINARY) | B_24H;
	s->memory[REG_C] = 0;
	s->memory[REG_D] = 0x80; /* the battery is good */
	s->memory[0x15] = 640 & 0xff;
	s->memory[0x16] = 640 >> 8;
	s->memory[0x17] = s->memory[0x30] = (uint8_t)kib;
	s->memory[0x18] = s->memory[0x31] = (uint8_t)(kib >> 8);
	s->memory[0x34] = (uint8_t)blocks;
	s->memory[0x35] = (uint8_t)(blocks >> 8);
	if (size > low) {
		blocks = (size - low) >> 16;
		s->memory[0x5b] = (uint8_t)blocks;
		s->memory[0x5c] = (uint8_t)(blocks >> 8);
		s->memory[0x5d] = (uint8_t)(blocks >> 16);
	}
	s->memory[0x5f] = (uint8_t)(dev->board->n_vcpus - 1);
	set_timer(dev);
	dev->board->set_line(dev->board, IRQ, false);
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
	struct mc146818 *s = dev->state;
	int ret = load_fields(r, fields, ARRAY_SIZE(fields), s, err);

	if (ret < 0)
		return ret;
	if (s->index >= BYTES)
		return error_set(err, EINVAL, "the index is out of bounds");
	set_timer(dev);
	return 0;
}

static const struct device_class mc146818 = {
	.name = "mc146818",
	.version = 1,
	.port_size = 1,
	.init = init,
	.reset = reset,
	.destroy = destroy,
	.save = save,
	.load = load,
	.port_read = port_read,
	.port_write = port_write,
	.timer = timer,
};
DEVICE(mc146818);
