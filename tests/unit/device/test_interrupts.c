/* The interrupt controllers: 8259 pair and I/O APIC. */
#include "fake_board.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct fake_board *new_pic(void)
{
	static const uint8_t words[][2] = {{0x20, 0x11}, {0x21, 0x30}, {0x21, 4}, {0x21, 1},
					   {0xa0, 0x11}, {0xa1, 0x38}, {0xa1, 2}, {0xa1, 1},
					   {0x21, 0},    {0xa1, 0}};
	struct fake_board *b = fake_board_new("i8259");

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		out8(b, words[i][0], words[i][1]);
	return b;
}

static void line(struct fake_board *b, unsigned int n, bool level)
{
	b->dev->class->set_input(b->dev, n, level);
}

static int ack(struct fake_board *b)
{
	return b->dev->class->acknowledge(b->dev);
}

static void pic_priorities(void **state)
{
	struct fake_board *b = new_pic();

	(void)state;
	assert_false(b->extint);
	line(b, 4, true);
	assert_true(b->extint);
	assert_int_equal(ack(b), 0x34);
	assert_false(b->extint);
	/* Lower priority waits, higher one comes through. */
	line(b, 5, true);
	assert_false(b->extint);
	line(b, 1, true);
	assert_true(b->extint);
	assert_int_equal(ack(b), 0x31);
	out8(b, 0x20, 0x20);
	assert_false(b->extint);
	out8(b, 0x20, 0x20);
	assert_true(b->extint);
	assert_int_equal(ack(b), 0x35);
	/* An edge is taken once. */
	out8(b, 0x20, 0x20);
	assert_false(b->extint);
	fake_board_free(b);
}

static void pic_cascade(void **state)
{
	struct fake_board *b = new_pic();

	(void)state;
	line(b, 12, true);
	line(b, 8, true);
	assert_int_equal(ack(b), 0x38);
	save_and_load(b);
	assert_false(b->extint);
	out8(b, 0xa0, 0x20);
	out8(b, 0x20, 0x20);
	assert_true(b->extint);
	assert_int_equal(ack(b), 0x3c);
	out8(b, 0xa0, 0x0b);
	assert_int_equal(in8(b, 0xa0), 0x10);
	out8(b, 0x20, 0x0b);
	assert_int_equal(in8(b, 0x20), 0x04);
	fake_board_free(b);
}

static void pic_mask_level_spurious(void **state)
{
	struct fake_board *b = new_pic();

	(void)state;
	out8(b, 0x21, 0x20);
	line(b, 5, true);
	assert_false(b->extint);
	assert_int_equal(in8(b, 0x21), 0x20);
	out8(b, 0x21, 0);
	assert_true(b->extint);
	line(b, 5, false); /* goes away before it is acknowledged */
	assert_int_equal(ack(b), 0x37);
	out8(b, 0x20, 0x0b);
	assert_int_equal(in8(b, 0x20), 0);

	out8(b, 0x4d1, 0x02); /* 9 is level-triggered */
	line(b, 9, true);
	assert_int_equal(ack(b), 0x39);
	out8(b, 0xa0, 0x20);
	out8(b, 0x20, 0x20);
	assert_true(b->extint); /* still asserted: again */
	line(b, 9, false);
	assert_false(b->extint);
	fake_board_free(b);
}

static void pic_rotation(void **state)
{
	struct fake_board *b = new_pic();

	(void)state;
	out8(b, 0x20, 0xc3); /* 3 is lowest: 4 is highest */
	line(b, 3, true);
	line(b, 4, true);
	line(b, 0, true);
	assert_int_equal(ack(b), 0x34);
	out8(b, 0x20, 0x64); /* specific end of 4 */
	assert_int_equal(ack(b), 0x30);
	out8(b, 0x20, 0x60);
	assert_int_equal(ack(b), 0x33);
	fake_board_free(b);
}

static void reg(struct fake_board *b, uint8_t index, uint32_t value)
{
	b->dev->class->mmio_write(b->dev, (gpa_t){0xfec00000}, 4, index);
	b->dev->class->mmio_write(b->dev, (gpa_t){0xfec00010}, 4, value);
}

static uint32_t reg_read(struct fake_board *b, uint8_t index)
{
	b->dev->class->mmio_write(b->dev, (gpa_t){0xfec00000}, 4, index);
	return (uint32_t)b->dev->class->mmio_read(b->dev, (gpa_t){0xfec00010}, 4);
}

static void ioapic_edge(void **state)
{
	struct fake_board *b = fake_board_new("ioapic");

	(void)state;
	assert_int_equal(reg_read(b, 1), 0x00170020);
	assert_int_equal(reg_read(b, 0x18), 0x10000);
	line(b, 4, true);
	line(b, 4, false);
	assert_int_equal(b->n_msi, 0);
	reg(b, 0x19, 0x03000000);
	reg(b, 0x18, 0x0841); /* logical, fixed */
	line(b, 4, true);
	line(b, 4, true);
	assert_int_equal(b->n_msi, 1);
	assert_int_equal(b->msi.address, 0xfee03004);
	assert_int_equal(b->msi.data, 0x0041 | 0x0000);
	fake_board_free(b);
}

static void ioapic_timer_is_pin_2(void **state)
{
	struct fake_board *b = fake_board_new("ioapic");

	(void)state;
	reg(b, 0x14, 0x30);
	line(b, 0, true);
	assert_int_equal(b->n_msi, 1);
	assert_int_equal(b->msi.data, 0x30);
	fake_board_free(b);
}

static void ioapic_level(void **state)
{
	struct fake_board *b = fake_board_new("ioapic");

	(void)state;
	reg(b, 0x22, 0x18050); /* pin 9, masked */
	line(b, 9, true);
	assert_int_equal(b->n_msi, 0);
	reg(b, 0x22, 0x08050);
	assert_int_equal(b->n_msi, 1);
	assert_int_equal(b->msi.data, 0xc050);
	assert_int_equal(reg_read(b, 0x22), 0xc050); /* with remote IRR */
	line(b, 9, false);
	line(b, 9, true);
	assert_int_equal(b->n_msi, 1); /* not before its end */
	save_and_load(b);
	b->dev->class->eoi(b->dev, 0x51);
	assert_int_equal(b->n_msi, 1);
	b->dev->class->eoi(b->dev, 0x50);
	assert_int_equal(b->n_msi, 2);
	line(b, 9, false);
	b->dev->class->eoi(b->dev, 0x50);
	assert_int_equal(b->n_msi, 2);
	assert_int_equal(reg_read(b, 0x22), 0x8050);
	fake_board_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pic_priorities),
		cmocka_unit_test(pic_cascade),
		cmocka_unit_test(pic_mask_level_spurious),
		cmocka_unit_test(pic_rotation),
		cmocka_unit_test(ioapic_edge),
		cmocka_unit_test(ioapic_timer_is_pin_2),
		cmocka_unit_test(ioapic_level),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
