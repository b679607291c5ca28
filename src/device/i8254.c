/*
 * The interval timer (Intel 8254 data sheet) and port 0x61, through which software gates its
 * channel 2 and sees its output. Counts are computed from the clock when they are asked for; only
 * channel 0 has a deadline, for its interrupt.
 */
#include "device/device.h"

#include "base/cleanup.h"

#include <stdlib.h>

#define HZ 1193182ull
#define NS 1000000000ull

enum { CHANNELS = 3, SPEAKER_PORT = 0x61 };

struct i8254 {
	/* An element a channel. */
	uint64_t start_ns[CHANNELS]; /* when the count began; 0: it did not */
	uint32_t count[CHANNELS];    /* 1 to 65536 */
	uint16_t latch[CHANNELS];
	uint8_t mode[CHANNELS], access[CHANNELS]; /* access: 1 low byte, 2 high, 3 both */
	uint8_t latched[CHANNELS];                /* bytes of `latch` still to be read */
	uint8_t status[CHANNELS], status_latched[CHANNELS];
	uint8_t low[CHANNELS]; /* the low byte, while the high one is awaited */
	uint8_t write_high[CHANNELS], read_high[CHANNELS];
	uint8_t speaker; /* bits 0 (gate of channel 2) and 1 of port 0x61 */
};

static const struct save_field fields[] = {
	SAVE_ARRAY(struct i8254, start_ns),  SAVE_ARRAY(struct i8254, count),
	SAVE_ARRAY(struct i8254, latch),     SAVE_ARRAY(struct i8254, mode),
	SAVE_ARRAY(struct i8254, access),    SAVE_ARRAY(struct i8254, latched),
	SAVE_ARRAY(struct i8254, status),    SAVE_ARRAY(struct i8254, status_latched),
	SAVE_ARRAY(struct i8254, low),       SAVE_ARRAY(struct i8254, write_high),
	SAVE_ARRAY(struct i8254, read_high), SAVE_FIELD(struct i8254, speaker),
};

static uint64_t ns_of(uint64_t ticks)
{
	return (uint64_t)((unsigned __int128)ticks * NS / HZ) + 1;
}

static uint64_t elapsed(struct device *dev, int channel)
{
	struct i8254 *s = dev->state;
	uint64_t now = dev->board->now_ns(dev->board);

	if (!s->start_ns[channel] || now < s->start_ns[channel])
		return 0;
	return (uint64_t)((unsigned __int128)(now - s->start_ns[channel]) * HZ / NS);
}

static bool periodic(const struct i8254 *s, int channel)
{
	return s->mode[channel] == 2 || s->mode[channel] == 3;
}

static uint16_t counter(struct device *dev, int channel)
{
	struct i8254 *s = dev->state;
	uint64_t ticks = elapsed(dev, channel), count = s->count[channel];

	if (s->mode[channel] == 2)
		return (uint16_t)(count - ticks % count);
	if (s->mode[channel] == 3) /* counts by two, twice a period */
		return (uint16_t)((count - 2 * ticks % count) & ~1ull);
	return (uint16_t)(count - ticks);
}

static bool output(struct device *dev, int channel)
{
	struct i8254 *s = dev->state;
	uint64_t ticks = elapsed(dev, channel), count = s->count[channel];

	switch (s->mode[channel]) {
	case 0:
	case 1:
		return s->start_ns[channel] && ticks >= count;
	case 2:
		return ticks % count != count - 1;
	case 3:
		return ticks % count < (count + 1) / 2;
	default:
		return !s->start_ns[channel] || ticks != count;
	}
}

/* When channel 0's output rises next. */
static void set_timer(struct device *dev)
{
	struct i8254 *s = dev->state;
	uint64_t ticks, count = s->count[0], next = count;

	if (!s->start_ns[0]) {
		device_set_deadline(dev, 0);
		return;
	}
	ticks = elapsed(dev, 0);
	if (periodic(s, 0))
		next = (ticks / count + 1) * count;
	else if (ticks >= count)
		next = 0;
	device_set_deadline(dev, next ? s->start_ns[0] + ns_of(next) : 0);
}

static void timer(struct device *dev)
{
	/* Low before high: the edge. */
	dev->board->set_line(dev->board, 0, false);
	dev->board->set_line(dev->board, 0, true);
	set_timer(dev);
}

static void start(struct device *dev, int channel)
{
	struct i8254 *s = dev->state;

	s->start_ns[channel] = dev->board->now_ns(dev->board);
	if (channel == 0) {
		if (!periodic(s, 0))
			dev->board->set_line(dev->board, 0, s->mode[0] > 1);
		set_timer(dev);
	}
}

static void load_count(struct device *dev, int channel, unsigned int value)
{
	struct i8254 *s = dev->state;
	bool gate = channel != 2 || (s->speaker & 1);

	s->count[channel] = value ? value : 0x10000;
	/* Modes 1 and 5 wait for their gate to rise; a gate that is low stops the others. */
	if (gate && s->mode[channel] != 1 && s->mode[channel] != 5)
		start(dev, channel);
}

static void write_counter(struct device *dev, int channel, uint8_t value)
{
	struct i8254 *s = dev->state;

	switch (s->access[channel]) {
	case 1:
		load_count(dev, channel, value);
		break;
	case 2:
		load_count(dev, channel, (unsigned int)value << 8);
		break;
	default:
		if (s->write_high[channel])
			load_count(dev, channel, (unsigned int)value << 8 | s->low[channel]);
		else
			s->low[channel] = value;
		s->write_high[channel] ^= 1;
	}
}

static void latch_count(struct device *dev, int channel)
{
	struct i8254 *s = dev->state;

	if (s->latched[channel])
		return;
	s->latch[channel] = counter(dev, channel);
	s->latched[channel] = s->access[channel];
}

static void write_control(struct device *dev, uint8_t value)
{
	struct i8254 *s = dev->state;
	int channel = value >> 6;

	if (channel == 3) { /* read-back */
		for (int i = 0; i < CHANNELS; i++) {
			if (!(value >> (i + 1) & 1))
				continue;
			if (!(value & 0x20))
				latch_count(dev, i);
			if (!(value & 0x10) && !s->status_latched[i]) {
				s->status[i] =
					(uint8_t)(output(dev, i) << 7 | !s->start_ns[i] << 6 |
						  s->access[i] << 4 | s->mode[i] << 1);
				s->status_latched[i] = 1;
			}
		}
		return;
	}
	if (!(value & 0x30)) {
		latch_count(dev, channel);
		return;
	}
	s->access[channel] = value >> 4 & 3;
	s->mode[channel] = value >> 1 & 7;
	if (s->mode[channel] > 5)
		s->mode[channel] -= 4;
	s->write_high[channel] = s->read_high[channel] = 0;
	s->latched[channel] = s->status_latched[channel] = 0;
	s->start_ns[channel] = 0;
	if (channel == 0) {
		dev->board->set_line(dev->board, 0, s->mode[0] != 0);
		set_timer(dev);
	}
}

static uint8_t read_counter(struct device *dev, int channel)
{
	struct i8254 *s = dev->state;
	uint16_t value;

	if (s->status_latched[channel]) {
		s->status_latched[channel] = 0;
		return s->status[channel];
	}
	if (s->latched[channel]) {
		uint8_t *left = &s->latched[channel];

		if (*left == 3) {
			*left = 2;
			return s->latch[channel] & 0xff;
		}
		value = *left == 1 ? s->latch[channel] & 0xff : s->latch[channel] >> 8;
		*left = 0;
		return (uint8_t)value;
	}
	value = counter(dev, channel);
	if (s->access[channel] == 1)
		return value & 0xff;
	if (s->access[channel] == 2)
		return value >> 8;
	s->read_high[channel] ^= 1;
	return s->read_high[channel] ? value & 0xff : value >> 8;
}

static uint32_t port_read(struct device *dev, uint16_t port, unsigned int size)
{
	struct i8254 *s = dev->state;

	(void)size;
	if (port == SPEAKER_PORT) {
		/* Bit 4 toggles with each memory refresh, every 15 us. */
		uint64_t refresh = dev->board->now_ns(dev->board) / 15085;

		return s->speaker | (uint32_t)(refresh & 1) << 4 | (uint32_t)output(dev, 2) << 5;
	}
	return port < 0x43 ? read_counter(dev, port - 0x40) : 0xff;
}

static void port_write(struct device *dev, uint16_t port, unsigned int size, uint32_t value)
{
	struct i8254 *s = dev->state;
	uint8_t was = s->speaker;

	(void)size;
	if (port == SPEAKER_PORT) {
		s->speaker = value & 3;
		/* The gate's rise starts the one-shot modes and restarts the periodic ones. */
		if ((value & 1) && !(was & 1))
			start(dev, 2);
	} else if (port == 0x43) {
		write_control(dev, (uint8_t)value);
	} else {
		write_counter(dev, port - 0x40, (uint8_t)value);
	}
}

static int init(struct device *dev, struct error *err)
{
	int r;

	dev->state = calloc(1, sizeof(struct i8254));
	if (!dev->state)
		return error_oom(err);
	r = dev->board->claim_ports(dev->board, dev, 0x40, 4, err);
	return r < 0 ? r : dev->board->claim_ports(dev->board, dev, SPEAKER_PORT, 1, err);
}

static void reset(struct device *dev)
{
	struct i8254 *s = dev->state;

	*s = (struct i8254){.count = {0x10000, 0x10000, 0x10000}, .access = {3, 3, 3}};
	device_set_deadline(dev, 0);
	dev->board->set_line(dev->board, 0, false);
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
	struct i8254 *s = dev->state;
	int ret = load_fields(r, fields, ARRAY_SIZE(fields), s, err);

	if (ret < 0)
		return ret;
	for (int i = 0; i < CHANNELS; i++)
		if (!s->count[i] || s->count[i] > 0x10000 || s->mode[i] > 5 || s->access[i] > 3 ||
		    s->latched[i] > 3)
			return error_set(err, EINVAL, "channel %d is out of bounds", i);
	set_timer(dev);
	return 0;
}

static const struct device_class i8254 = {
	.name = "i8254",
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
DEVICE(i8254);
