/* Saved state: fields come and go, damage is found; and every device keeps what it saves. */
#include "fake_board.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct thing {
	uint8_t byte;
	uint32_t word, words[3];
};

static const struct save_field both[] = {
	SAVE_FIELD(struct thing, byte),
	SAVE_FIELD(struct thing, word),
	SAVE_ARRAY(struct thing, words),
};

static void fields_come_and_go(void **state)
{
	struct thing from = {1, 2, {3, 4, 5}}, to = {9, 9, {9, 9, 9}};
	struct save_writer w = {0};
	struct save_reader r;
	struct error err = {0};

	(void)state;
	save_section(&w, "other", 1);
	save_section(&w, "thing", 7);
	/* An older version without `byte`, with a field that is gone since. */
	save_put(&w, "gone", "x", 1);
	save_fields(&w, both + 1, 2, &from);
	save_section(&w, "more", 1);
	assert_int_equal(save_finish(&w, &err), 0);

	assert_int_equal(save_open(w.data, w.size, "thing", &r, &err), 0);
	assert_int_equal(r.version, 7);
	assert_int_equal(load_fields(&r, both, 3, &to, &err), 0);
	assert_int_equal(to.byte, 9);
	assert_int_equal(to.word, 2);
	assert_memory_equal(to.words, from.words, sizeof(to.words));
	assert_int_equal(save_open(w.data, w.size, "missing", &r, &err), -ENOENT);
	save_writer_free(&w);
}

static void damage_is_found(void **state)
{
	struct thing thing = {1, 2, {3, 4, 5}};
	struct save_writer w = {0};
	struct save_reader r;
	struct error err = {0};

	(void)state;
	save_section(&w, "thing", 1);
	save_fields(&w, both, 3, &thing);
	assert_int_equal(save_finish(&w, &err), 0);
	for (size_t n = 1; n < w.size; n++) {
		/* In memory of just this size, so that a sanitizer sees a step too far. */
		uint8_t *part = malloc(n);

		assert_non_null(part);
		memcpy(part, w.data, n);
		assert_int_equal(save_open(part, n, "thing", &r, &err), -EINVAL);
		free(part);
	}
	for (size_t i = 0; i < w.size; i++) {
		w.data[i] ^= 0xff;
		if (save_open(w.data, w.size, "thing", &r, &err) == 0)
			load_fields(&r, both, 3, &thing, &err);
		w.data[i] ^= 0xff;
	}
	save_writer_free(&w);
}

static void sizes_must_agree(void **state)
{
	struct thing thing = {0};
	struct save_writer w = {0};
	struct save_reader r;
	struct error err = {0};

	(void)state;
	save_section(&w, "thing", 1);
	save_put(&w, "word", "12345", 5);
	assert_int_equal(save_finish(&w, &err), 0);
	assert_int_equal(save_open(w.data, w.size, "thing", &r, &err), 0);
	assert_int_equal(load_fields(&r, both, 3, &thing, &err), -EINVAL);
	save_writer_free(&w);
}

static const char *const classes[] = {"acpi_pm", "debug_exit", "fw_cfg",   "i8042",  "i8254",
				      "i8259",   "ioapic",     "mc146818", "ns16550"};

static void every_device_keeps_its_state(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
		struct fake_board *b = fake_board_new(classes[i]);
		struct save_writer before = {0}, after = {0};
		struct error err = {0};

		/* Stir it a little, by each port that it has. */
		for (unsigned int p = 0; p < b->n_ports; p++)
			if (b->ports[p] != 0xcf9 && b->ports[p] != 0x64 && b->ports[p] != 0x600)
				for (uint16_t o = 0; o < 2 && o < b->n_at[p]; o++)
					out8(b, b->ports[p] + o, 0x15);
		device_save(b->dev, &before);
		assert_int_equal(save_finish(&before, &err), 0);
		b->dev->class->reset(b->dev);
		assert_int_equal(device_load(b->dev, before.data, before.size, &err), 0);
		device_save(b->dev, &after);
		assert_int_equal(save_finish(&after, &err), 0);
		assert_int_equal(before.size, after.size);
		assert_memory_equal(before.data, after.data, after.size);
		save_writer_free(&before);
		save_writer_free(&after);
		fake_board_free(b);
	}
}

static void a_newer_version_is_refused(void **state)
{
	struct fake_board *b = fake_board_new("i8042");
	struct save_writer w = {0};
	struct error err = {0};

	(void)state;
	save_section(&w, "i8042.0", b->dev->class->version + 1u);
	assert_int_equal(save_finish(&w, &err), 0);
	assert_int_equal(device_load(b->dev, w.data, w.size, &err), -ENOTSUP);
	save_writer_free(&w);
	save_section(&w, "i8042.0", b->dev->class->version - 1u);
	assert_int_equal(save_finish(&w, &err), 0);
	assert_int_equal(device_load(b->dev, w.data, w.size, &err), 0);
	save_writer_free(&w);
	fake_board_free(b);
}

static void what_is_out_of_bounds_is_refused(void **state)
{
	struct fake_board *b = fake_board_new("ns16550");
	struct save_writer w = {0};
	struct error err = {0};
	uint16_t head = 5000;

	(void)state;
	save_section(&w, "ns16550.0", b->dev->class->version);
	save_put(&w, "head", &head, 2);
	assert_int_equal(save_finish(&w, &err), 0);
	assert_int_equal(device_load(b->dev, w.data, w.size, &err), -EINVAL);
	assert_int_equal(in8(b, 0x3f8), 0);
	save_writer_free(&w);
	fake_board_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields_come_and_go),
		cmocka_unit_test(damage_is_found),
		cmocka_unit_test(sizes_must_agree),
		cmocka_unit_test(every_device_keeps_its_state),
		cmocka_unit_test(a_newer_version_is_refused),
		cmocka_unit_test(what_is_out_of_bounds_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
