/* See fake_board.h. */
#include "fake_board.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct fake_board *of(struct board *board)
{
	return (struct fake_board *)board;
}

static int claim_ports(struct board *board, struct device *dev, uint16_t first, uint16_t n,
		       struct error *err)
{
	(void)dev;
	(void)err;
	assert_true(of(board)->n_ports < 8);
	of(board)->n_at[of(board)->n_ports] = n;
	of(board)->ports[of(board)->n_ports++] = first;
	return 0;
}

static int claim_mmio(struct board *board, struct device *dev, gpa_t first, uint64_t size,
		      struct error *err)
{
	(void)board;
	(void)dev;
	(void)first;
	(void)size;
	(void)err;
	return 0;
}

static void set_line(struct board *board, unsigned int line, bool level)
{
	assert_true(line < 32);
	of(board)->rises[line] += level && !of(board)->lines[line];
	of(board)->lines[line] = level;
}

static void msi(struct board *board, uint64_t address, uint32_t data)
{
	of(board)->msi.address = address;
	of(board)->msi.data = data;
	of(board)->n_msi++;
}

static void set_extint(struct board *board, bool level)
{
	of(board)->extint = level;
}

static uint64_t now_ns(struct board *board)
{
	return of(board)->now_ns;
}

static uint64_t wall_s(struct board *board)
{
	return of(board)->wall_s;
}

static void deadline_changed(struct board *board, struct device *dev)
{
	(void)board;
	(void)dev;
}

static void output(struct board *board, struct device *dev, const void *data, size_t size)
{
	struct fake_board *b = of(board);

	(void)dev;
	assert_true(size < sizeof(b->output) - b->output_size);
	memcpy(b->output + b->output_size, data, size);
	b->output_size += size;
}

static void end(struct board *board, enum board_end why, int status)
{
	of(board)->end = why;
	of(board)->status = status;
}

struct fake_board *fake_board_new(const char *class)
{
	struct fake_board *b = calloc(1, sizeof(*b));
	struct error err = {0};

	assert_non_null(b);
	b->board = (struct board){
		.claim_ports = claim_ports,
		.claim_mmio = claim_mmio,
		.set_line = set_line,
		.msi = msi,
		.set_extint = set_extint,
		.now_ns = now_ns,
		.wall_s = wall_s,
		.deadline_changed = deadline_changed,
		.output = output,
		.end = end,
		.memory_bytes = 512ull << 20,
		.n_vcpus = 2,
	};
	b->now_ns = 1000;
	b->wall_s = 1700000000; /* Tuesday 2023-11-14 22:13:20 */
	assert_int_equal(device_new(class, 0, &b->board, &b->dev, &err), 0);
	return b;
}

void fake_board_free(struct fake_board *b)
{
	device_free(b->dev);
	free(b);
}

uint8_t in8(struct fake_board *b, uint16_t port)
{
	return (uint8_t)b->dev->class->port_read(b->dev, port, 1);
}

void out8(struct fake_board *b, uint16_t port, uint8_t value)
{
	b->dev->class->port_write(b->dev, port, 1, value);
}

void pass_ns(struct fake_board *b, uint64_t ns)
{
	uint64_t until = b->now_ns + ns;

	while (b->dev->deadline_ns && b->dev->deadline_ns <= until) {
		if (b->now_ns < b->dev->deadline_ns)
			b->now_ns = b->dev->deadline_ns;
		b->dev->deadline_ns = 0;
		b->dev->class->timer(b->dev);
	}
	b->now_ns = until;
}

void save_and_load(struct fake_board *b)
{
	struct save_writer w = {0};
	struct error err = {0};

	device_save(b->dev, &w);
	assert_int_equal(save_finish(&w, &err), 0);
	b->dev->class->reset(b->dev);
	assert_int_equal(device_load(b->dev, w.data, w.size, &err), 0);
	save_writer_free(&w);
}
