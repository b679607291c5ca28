/*
 * A virtual device and what it needs of the board it sits on. Each device is one file that ends
 * with DEVICE(class): the linker gathers the classes into a table, and the board makes devices by
 * their class's name (machine/machine.c).
 *
 * The board calls a device with its lock held, from whatever thread made the access: a device has
 * no threads and no locks of its own. What a guest writes never makes a device fail; it does what
 * the chip would, or ignores it.
 */
#pragma once

#include "base/error.h"
#include "device/save.h"
#include "engine/engine.h"

#include <stdbool.h>
#include <stdint.h>

struct device;

/* Why a board stopped. */
enum board_end {
	BOARD_RUNNING,
	BOARD_POWER_OFF,
	BOARD_RESET,      /* the guest asked for a restart */
	BOARD_DEBUG_EXIT, /* debug_exit.c; with a status */
	BOARD_SHUTDOWN,   /* triple fault */
	BOARD_STOPPED,    /* by the host */
	BOARD_FAILED,     /* the engine could not go on */
};

/* What a board does for its devices. Unit tests bring their own. */
struct board {
	int (*claim_ports)(struct board *board, struct device *dev, uint16_t first, uint16_t n,
			   struct error *err);
	int (*claim_mmio)(struct board *board, struct device *dev, gpa_t first, uint64_t size,
			  struct error *err);
	/* Drives an ISA interrupt line, or a pin of the I/O APIC from 16 up. */
	void (*set_line)(struct board *board, unsigned int line, bool level);
	void (*msi)(struct board *board, uint64_t address, uint32_t data);
	void (*set_extint)(struct board *board, bool level);
	/* Nanoseconds on the guest's clock, which stands still while it is paused. */
	uint64_t (*now_ns)(struct board *board);
	uint64_t (*wall_s)(struct board *board); /* seconds since 1970 */
	/* dev->deadline_ns has changed: class->timer is to be called then (0: never). */
	void (*deadline_changed)(struct board *board, struct device *dev);
	void (*output)(struct board *board, struct device *dev, const void *data, size_t size);
	void (*end)(struct board *board, enum board_end why, int status);

	uint64_t memory_bytes;
	unsigned int n_vcpus;
};

struct device_class {
	const char *name;
	uint16_t version;  /* of the saved state; that and the one before can be loaded */
	uint8_t port_size; /* the widest port access it takes; wider ones come in pieces */

	/* Mandatory. init claims ports and memory; reset does what the RESET pin does; load is
	 * called on a device that was just reset. */
	int (*init)(struct device *dev, struct error *err);
	void (*reset)(struct device *dev);
	void (*destroy)(struct device *dev);
	void (*save)(struct device *dev, struct save_writer *w);
	int (*load)(struct device *dev, const struct save_reader *r, struct error *err);

	/* Where it has ports or memory. `offset` counts from the start of the claimed range that
	 * begins at `base`. */
	uint32_t (*port_read)(struct device *dev, uint16_t port, unsigned int size);
	void (*port_write)(struct device *dev, uint16_t port, unsigned int size, uint32_t value);
	uint64_t (*mmio_read)(struct device *dev, gpa_t gpa, unsigned int size);
	void (*mmio_write)(struct device *dev, gpa_t gpa, unsigned int size, uint64_t value);

	/* Optional. */
	void (*timer)(struct device *dev);
	size_t (*input)(struct device *dev, const void *data, size_t size); /* bytes taken */
	/* Interrupt controllers. */
	void (*set_input)(struct device *dev, unsigned int line, bool level);
	uint8_t (*acknowledge)(struct device *dev);
	void (*eoi)(struct device *dev, uint8_t vector);
};

struct device {
	const struct device_class *class;
	struct board *board;
	unsigned int instance; /* of several of one class: COM1 is 0 */
	void *state;           /* the class's own */
	uint64_t deadline_ns;
};

#define DEVICE(class)                                                                              \
	static const struct device_class *const class##_entry                                      \
		__attribute__((used, section("lodge_devices"))) = &class

/* NULL: no such class. */
const struct device_class *device_class_find(const char *name);

/* Makes and resets a device. */
int device_new(const char *class, unsigned int instance, struct board *board, struct device **dev,
	       struct error *err);
void device_free(struct device *dev);

/* The section is named for class and instance. */
void device_save(struct device *dev, struct save_writer *w);
int device_load(struct device *dev, const void *data, size_t size, struct error *err);

void device_set_deadline(struct device *dev, uint64_t deadline_ns);
