/* The interval timer and the clock. */
#include "fake_board.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MS 1000000ull

static void pit_set(struct fake_board *b, uint8_t control, uint16_t count)
{
	out8(b, 0x43, control);
	out8(b, 0x40 + (control >> 6), (uint8_t)count);
	out8(b, 0x40 + (control >> 6), (uint8_t)(count >> 8));
}

static unsigned int pit_latched(struct fake_board *b, int channel)
{
	unsigned int low;

	out8(b, 0x43, (uint8_t)(channel << 6));
	b->now_ns += 50 * MS; /* a latched count stands still */
	low = in8(b, (uint16_t)(0x40 + channel));
	b->now_ns -= 50 * MS;
	return low | (unsigned int)in8(b, (uint16_t)(0x40 + channel)) << 8;
}

static void pit_interrupts(void **state)
{
	struct fake_board *b = fake_board_new("i8254");

	(void)state;
	pit_set(b, 0x34, 11932); /* mode 2, 100 Hz */
	b->rises[0] = 0;
	pass_ns(b, 1000 * MS);
	assert_in_range(b->rises[0], 99, 100);
	save_and_load(b);
	b->rises[0] = 0;
	pass_ns(b, 500 * MS);
	assert_in_range(b->rises[0], 49, 51);

	pit_set(b, 0x30, 1193); /* mode 0: once, a millisecond */
	assert_false(b->lines[0]);
	b->rises[0] = 0;
	pass_ns(b, MS / 2);
	assert_int_equal(b->rises[0], 0);
	pass_ns(b, 10 * MS);
	assert_int_equal(b->rises[0], 1);
	fake_board_free(b);
}

static void pit_counts(void **state)
{
	struct fake_board *b = fake_board_new("i8254");
	unsigned int count;

	(void)state;
	pit_set(b, 0x34, 0); /* 65536 */
	pass_ns(b, 10 * MS);
	count = pit_latched(b, 0);
	assert_in_range(count, 65536 - 11933, 65536 - 11930);
	out8(b, 0x43, 0xe2); /* read back the status of channel 0 */
	assert_int_equal(in8(b, 0x40), 0x80 | 0x30 | 2 << 1);
	fake_board_free(b);
}

/* How Linux measures the time stamp counter. */
static void pit_gate_and_speaker(void **state)
{
	struct fake_board *b = fake_board_new("i8254");

	(void)state;
	out8(b, 0x61, 0);
	pit_set(b, 0xb0, 11931); /* channel 2, mode 0, 10 ms, but its gate is low */
	pass_ns(b, 20 * MS);
	assert_int_equal(in8(b, 0x61) & 0x20, 0);
	out8(b, 0x61, 1);
	pass_ns(b, 9 * MS);
	assert_int_equal(in8(b, 0x61) & 0x21, 0x01);
	pass_ns(b, 2 * MS);
	assert_int_equal(in8(b, 0x61) & 0x21, 0x21);
	assert_int_equal(b->rises[0], 0);
	fake_board_free(b);
}

static uint8_t cmos(struct fake_board *b, uint8_t index)
{
	out8(b, 0x70, index);
	return in8(b, 0x71);
}

static void cmos_write(struct fake_board *b, uint8_t index, uint8_t value)
{
	out8(b, 0x70, index);
	out8(b, 0x71, value);
}

static void rtc_tells_the_time(void **state)
{
	static const uint8_t wanted[] = {0x20, 0, 0x13, 0, 0x22, 0, 0x03, 0x14, 0x11, 0x23};
	struct fake_board *b = fake_board_new("mc146818");

	(void)state;
	for (uint8_t i = 0; i < sizeof(wanted); i++)
		if (i != 1 && i != 3 && i != 5)
			assert_int_equal(cmos(b, i), wanted[i]);
	assert_int_equal(cmos(b, 0x32), 0x20);
	cmos_write(b, 0x0b, 0x04); /* binary, 12 hours */
	assert_int_equal(cmos(b, 4), 0x80 | 10);
	assert_int_equal(cmos(b, 9), 23);
	assert_int_equal(cmos(b, 0x0d), 0x80);
	fake_board_free(b);
}

static void rtc_can_be_set(void **state)
{
	struct fake_board *b = fake_board_new("mc146818");

	(void)state;
	cmos_write(b, 0x0b, 0x82);
	cmos_write(b, 9, 0x31);
	cmos_write(b, 8, 0x02);
	cmos_write(b, 7, 0x28);
	cmos_write(b, 4, 0x23);
	cmos_write(b, 2, 0x59);
	cmos_write(b, 0, 0x58);
	b->wall_s += 100; /* set: it stands still */
	assert_int_equal(cmos(b, 0), 0x58);
	cmos_write(b, 0x0b, 0x02);
	save_and_load(b);
	b->wall_s += 3;
	assert_int_equal(cmos(b, 0), 0x01);
	assert_int_equal(cmos(b, 4), 0x00);
	assert_int_equal(cmos(b, 7), 0x01);
	assert_int_equal(cmos(b, 8), 0x03);
	assert_int_equal(cmos(b, 9), 0x31);
	fake_board_free(b);
}

static void rtc_interrupts(void **state)
{
	struct fake_board *b = fake_board_new("mc146818");

	(void)state;
	cmos_write(b, 0x0a, 0x26); /* 1024 Hz */
	cmos_write(b, 0x0b, 0x42);
	b->rises[8] = 0;
	for (int i = 0; i < 100; i++) {
		pass_ns(b, 976563);
		assert_true(b->lines[8]);
		assert_int_equal(cmos(b, 0x0c), 0xc0);
		assert_false(b->lines[8]);
	}
	assert_int_equal(b->rises[8], 100);
	cmos_write(b, 0x0b, 0x22); /* the alarm: at 22:13:21 */
	cmos_write(b, 1, 0x21);
	cmos_write(b, 3, 0x13);
	cmos_write(b, 5, 0xff);
	pass_ns(b, 1100 * MS);
	assert_false(b->lines[8]);
	b->wall_s++;
	pass_ns(b, 1000 * MS);
	assert_true(b->lines[8]);
	assert_int_equal(cmos(b, 0x0c) & 0xa0, 0xa0);
	fake_board_free(b);
}

static void rtc_keeps_memory(void **state)
{
	struct fake_board *b = fake_board_new("mc146818");

	(void)state;
	assert_int_equal(cmos(b, 0x34) | cmos(b, 0x35) << 8, (512 - 16) * 16);
	assert_int_equal(cmos(b, 0x5f), 1);
	cmos_write(b, 0x0f, 0x0a);
	b->dev->class->reset(b->dev);
	assert_int_equal(cmos(b, 0x0f), 0x0a);
	fake_board_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pit_interrupts),       cmocka_unit_test(pit_counts),
		cmocka_unit_test(pit_gate_and_speaker), cmocka_unit_test(rtc_tells_the_time),
		cmocka_unit_test(rtc_can_be_set),       cmocka_unit_test(rtc_interrupts),
		cmocka_unit_test(rtc_keeps_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
