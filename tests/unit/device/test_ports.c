/* The small devices at ports: serial, keyboard controller, power management, fw_cfg, debug-exit. */
#include "fake_board.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void serial_output(void **state)
{
	struct fake_board *b = fake_board_new("ns16550");

	(void)state;
	assert_int_equal(in8(b, 0x3fd), 0x60);
	out8(b, 0x3fb, 0x83); /* the divisor is no output */
	out8(b, 0x3f8, 1);
	out8(b, 0x3f9, 2);
	assert_int_equal(in8(b, 0x3f8), 1);
	assert_int_equal(in8(b, 0x3f9), 2);
	out8(b, 0x3fb, 0x03);
	out8(b, 0x3f8, 'H');
	out8(b, 0x3f8, 'i');
	assert_int_equal(b->output_size, 2);
	assert_memory_equal(b->output, "Hi", 2);
	out8(b, 0x3ff, 0x5a);
	save_and_load(b);
	assert_int_equal(in8(b, 0x3ff), 0x5a);
	assert_int_equal(in8(b, 0x3fb), 0x03);
	fake_board_free(b);
}

static void serial_interrupts(void **state)
{
	struct fake_board *b = fake_board_new("ns16550");

	(void)state;
	assert_int_equal(in8(b, 0x3fa), 0x01);
	out8(b, 0x3fc, 0x08);
	out8(b, 0x3f9, 0x02);
	assert_true(b->lines[4]); /* the transmitter is empty */
	assert_int_equal(in8(b, 0x3fa), 0x02);
	assert_false(b->lines[4]); /* reading told it */
	assert_int_equal(in8(b, 0x3fa), 0x01);
	out8(b, 0x3f8, 'x');
	assert_true(b->lines[4]);
	out8(b, 0x3f9, 0x01);
	assert_false(b->lines[4]);
	assert_int_equal(b->dev->class->input(b->dev, "ab", 2), 2);
	assert_true(b->lines[4]);
	assert_int_equal(in8(b, 0x3fa), 0x04);
	assert_int_equal(in8(b, 0x3fd), 0x61);
	save_and_load(b);
	assert_true(b->lines[4]);
	assert_int_equal(in8(b, 0x3f8), 'a');
	assert_true(b->lines[4]);
	assert_int_equal(in8(b, 0x3f8), 'b');
	assert_false(b->lines[4]);
	out8(b, 0x3fc, 0); /* without OUT2 no interrupt reaches the board */
	b->dev->class->input(b->dev, "c", 1);
	assert_false(b->lines[4]);
	fake_board_free(b);
}

static void serial_queue_is_bounded(void **state)
{
	struct fake_board *b = fake_board_new("ns16550");
	char bytes[1000] = {0};

	(void)state;
	assert_int_equal(b->dev->class->input(b->dev, bytes, sizeof(bytes)), 256);
	assert_int_equal(b->dev->class->input(b->dev, bytes, 1), 0);
	in8(b, 0x3f8);
	assert_int_equal(b->dev->class->input(b->dev, "z", 1), 1);
	for (int i = 0; i < 255; i++)
		assert_int_equal(in8(b, 0x3f8), 0);
	assert_int_equal(in8(b, 0x3f8), 'z');
	assert_int_equal(in8(b, 0x3fd), 0x60);
	fake_board_free(b);
}

/* How Linux finds it. */
static void serial_loop_back(void **state)
{
	struct fake_board *b = fake_board_new("ns16550");

	(void)state;
	assert_int_equal(in8(b, 0x3fe) & 0xf0, 0xb0);
	out8(b, 0x3fc, 0x1a);
	assert_int_equal(in8(b, 0x3fe) & 0xf0, 0x90);
	out8(b, 0x3f8, 'q');
	assert_int_equal(b->output_size, 0);
	assert_int_equal(in8(b, 0x3f8), 'q');
	out8(b, 0x3fa, 0x01);
	assert_int_equal(in8(b, 0x3fa) & 0xc0, 0xc0); /* a 16550A */
	fake_board_free(b);
}

static void keyboard_controller(void **state)
{
	struct fake_board *b = fake_board_new("i8042");

	(void)state;
	assert_int_equal(in8(b, 0x64) & 3, 0);
	out8(b, 0x64, 0xaa);
	assert_int_equal(in8(b, 0x64) & 1, 1);
	assert_int_equal(in8(b, 0x60), 0x55);
	assert_int_equal(in8(b, 0x64) & 1, 0);
	out8(b, 0x64, 0x60);
	save_and_load(b);
	out8(b, 0x60, 0x47);
	out8(b, 0x64, 0x20);
	assert_int_equal(in8(b, 0x60), 0x47);
	assert_int_equal(b->end, BOARD_RUNNING);
	out8(b, 0x64, 0xff);
	assert_int_equal(b->end, BOARD_RUNNING);
	out8(b, 0x64, 0xfe);
	assert_int_equal(b->end, BOARD_RESET);
	fake_board_free(b);
}

static void debug_exit(void **state)
{
	struct fake_board *b = fake_board_new("debug_exit");

	(void)state;
	out8(b, 0xf4, 0x10);
	assert_int_equal(b->end, BOARD_DEBUG_EXIT);
	assert_int_equal(b->status, 0x21);
	fake_board_free(b);
}

static void fw_cfg_items(void **state)
{
	struct fake_board *b = fake_board_new("fw_cfg");
	char signature[5] = "";
	uint64_t size = 0;

	(void)state;
	for (int i = 0; i < 4; i++)
		signature[i] = (char)in8(b, 0x511);
	assert_string_equal(signature, "QEMU");
	assert_int_equal(in8(b, 0x511), 0);
	b->dev->class->port_write(b->dev, 0x510, 2, 3);
	for (int i = 0; i < 8; i++) {
		size |= (uint64_t)in8(b, 0x511) << i * 8;
		if (i == 3)
			save_and_load(b);
	}
	assert_int_equal(size, 512 << 20);
	b->dev->class->port_write(b->dev, 0x510, 2, 0x7777);
	assert_int_equal(in8(b, 0x511), 0);
	fake_board_free(b);
}

static uint32_t pm_read(struct fake_board *b, uint16_t port, unsigned int size)
{
	return b->dev->class->port_read(b->dev, port, size);
}

static void pm_write(struct fake_board *b, uint16_t port, uint16_t value)
{
	b->dev->class->port_write(b->dev, port, 2, value);
}

static void power_off_and_reset(void **state)
{
	struct fake_board *b = fake_board_new("acpi_pm");

	(void)state;
	assert_int_equal(pm_read(b, 0x604, 2), 1);
	pm_write(b, 0x604, 5 << 10);
	pm_write(b, 0x604, 1 << 13 | 3 << 10); /* not S5 */
	assert_int_equal(b->end, BOARD_RUNNING);
	pm_write(b, 0x604, 1 << 13 | 5 << 10);
	assert_int_equal(b->end, BOARD_POWER_OFF);
	b->end = BOARD_RUNNING;
	out8(b, 0xcf9, 2);
	assert_int_equal(b->end, BOARD_RUNNING);
	out8(b, 0xcf9, 6);
	assert_int_equal(b->end, BOARD_RESET);
	fake_board_free(b);
}

static void power_button_and_timer(void **state)
{
	struct fake_board *b = fake_board_new("acpi_pm");
	uint32_t before;

	(void)state;
	b->dev->class->input(b->dev, "", 1);
	assert_false(b->lines[9]);
	pm_write(b, 0x602, 0x100);
	assert_true(b->lines[9]);
	save_and_load(b);
	assert_true(b->lines[9]);
	assert_int_equal(pm_read(b, 0x600, 4), 0x01000100);
	pm_write(b, 0x600, 0x100);
	assert_false(b->lines[9]);
	before = pm_read(b, 0x608, 4);
	b->now_ns += 1000000000;
	assert_in_range((pm_read(b, 0x608, 4) - before) & 0xffffff, 3579544, 3579546);
	fake_board_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(serial_output),
		cmocka_unit_test(serial_interrupts),
		cmocka_unit_test(serial_queue_is_bounded),
		cmocka_unit_test(serial_loop_back),
		cmocka_unit_test(keyboard_controller),
		cmocka_unit_test(debug_exit),
		cmocka_unit_test(fw_cfg_items),
		cmocka_unit_test(power_off_and_reset),
		cmocka_unit_test(power_button_and_timer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
