/* A board for tests: remembers what its devices do, and has a clock that the test turns. */
#pragma once

#include "device/device.h"

struct fake_board {
	struct board board;
	struct device *dev;
	bool lines[32];
	unsigned int rises[32]; /* how often a line rose */
	bool extint;
	uint64_t now_ns, wall_s;
	struct {
		uint64_t address;
		uint32_t data;
	} msi;
	unsigned int n_msi;
	char output[256];
	size_t output_size;
	enum board_end end;
	int status;
	uint16_t ports[8], n_at[8]; /* ports claimed: first, how many */
	unsigned int n_ports;
};

/* Makes a board with one device; the test ends it by fake_board_free(). */
struct fake_board *fake_board_new(const char *class);
void fake_board_free(struct fake_board *b);

uint8_t in8(struct fake_board *b, uint16_t port);
void out8(struct fake_board *b, uint16_t port, uint8_t value);
/* Advances the clock and runs the device's timer each time it is due. */
void pass_ns(struct fake_board *b, uint64_t ns);
/* Saves the device, resets it, and loads what was saved. */
void save_and_load(struct fake_board *b);
