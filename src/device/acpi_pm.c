/*
 * ACPI's fixed hardware (ACPI 6.5, 4.8.3): the PM1 event and control registers with the power
 * button and soft-off, the 3.579545 MHz timer, and the reset register at port 0xcf9.
 */
#include "device/acpi_pm.h"

#include "base/cleanup.h"
#include "device/device.h"

#include <stdlib.h>

#define HZ 3579545ull
#define NS 1000000000ull

enum { CONTROL_SCI_EN = 1, SLP_EN = 1 << 13, POWER_BUTTON = 1 << 8, GLOBAL = 1 << 5 };

struct acpi_pm {
	uint16_t status, enable, control;
	uint8_t reset_control;
};

static const struct save_field fields[] = {
	SAVE_FIELD(struct acpi_pm, status),
	SAVE_FIELD(struct acpi_pm, enable),
	SAVE_FIELD(struct acpi_pm, control),
	SAVE_FIELD(struct acpi_pm, reset_control),
};

static void update(struct device *dev)
{
	struct acpi_pm *s = dev->state;

	dev->board->set_line(dev->board, ACPI_SCI, s->status & s->enable & (POWER_BUTTON | GLOBAL));
}

static uint32_t port_read(struct device *dev, uint16_t port, unsigned int size)
{
	struct acpi_pm *s = dev->state;
	uint64_t now;

	(void)size;
	switch (port) {
	case ACPI_PM1_EVENT:
		return s->status | (uint32_t)s->enable << 16;
	case ACPI_PM1_EVENT + 2:
		return s->enable;
	case ACPI_PM1_CONTROL:
		return s->control | CONTROL_SCI_EN;
	case ACPI_PM_TIMER:
		now = dev->board->now_ns(dev->board);
		return (uint32_t)((unsigned __int128)now * HZ / NS) & 0xffffff;
	case ACPI_RESET:
		return s->reset_control;
	}
	return 0;
}

static void port_write(struct device *dev, uint16_t port, unsigned int size, uint32_t value)
{
	struct acpi_pm *s = dev->state;

	switch (port) {
	case ACPI_PM1_EVENT: /* writing ones clears */
		s->status &= ~value;
		if (size == 4)
			s->enable = value >> 16;
		break;
	case ACPI_PM1_EVENT + 2:
		s->enable = (uint16_t)value;
		break;
	case ACPI_PM1_CONTROL:
		s->control = value & 0x1c06;
		if ((value & SLP_EN) && (value >> 10 & 7) == ACPI_S5_TYPE)
			dev->board->end(dev->board, BOARD_POWER_OFF, 0);
		break;
	case ACPI_RESET: /* bit 2, rising, resets; bit 1 chooses how much */
		if ((value & 4) && !(s->reset_control & 4))
			dev->board->end(dev->board, BOARD_RESET, 0);
		s->reset_control = value & 0x0e;
		break;
	}
	update(dev);
}

/* The host's side: any input is the power button being pressed. */
static size_t input(struct device *dev, const void *data, size_t size)
{
	struct acpi_pm *s = dev->state;

	(void)data;
	s->status |= POWER_BUTTON;
	update(dev);
	return size;
}

static int init(struct device *dev, struct error *err)
{
	int r;

	dev->state = calloc(1, sizeof(struct acpi_pm));
	if (!dev->state)
		return error_oom(err);
	r = dev->board->claim_ports(dev->board, dev, ACPI_PM1_EVENT, 12, err);
	return r < 0 ? r : dev->board->claim_ports(dev->board, dev, ACPI_RESET, 1, err);
}

static void reset(struct device *dev)
{
	*(struct acpi_pm *)dev->state = (struct acpi_pm){0};
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

static const struct device_class acpi_pm = {
	.name = "acpi_pm",
	.version = 1,
	.port_size = 4,
	.init = init,
	.reset = reset,
	.destroy = destroy,
	.save = save,
	.load = load,
	.port_read = port_read,
	.port_write = port_write,
	.input = input,
};
DEVICE(acpi_pm);
