/*
 * The software engine's instruction decoder. Most of it is checked against Zydis (decode_oracle.h)
 * over all opcodes, ModRM bytes, prefixes and modes: a sample here, all with LODGE_TEST_SLOW=1.
 */
#include "base/cleanup.h"
#include "decode_oracle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */

static bool slow(void)
{
	const char *value = getenv("LODGE_TEST_SLOW");

	return value && *value && strcmp(value, "0");
}

/* -- Against Zydis ---------------------------------------------------------------------------- */

static void finish(const char *what, const struct oracle_count *count)
{
	printf("%s: %lu cases, %lu valid, %lu differ on purpose, %lu wrong\n", what, count->cases,
	       count->valid, count->deliberate, oracle_wrong(count));
	assert_true(count->valid > count->cases / 1000);
	assert_int_equal(oracle_wrong(count), 0);
}

/* What follows ModRM: a SIB byte, a displacement, an immediate; two of them take turns. */
static void fill_tail(uint8_t *p, unsigned which)
{
	static const uint8_t tails[4][10] = {
		{0x24, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99},
		{0x8d, 0xf1, 0xe2, 0xd3, 0xc4, 0xb5, 0xa6, 0x97, 0x88, 0x79},
		{0xe5, 0x80, 0xff, 0x7f, 0x00, 0x01, 0x80, 0xfe, 0x12, 0x34},
		{0x60, 0x7f, 0x00, 0x00, 0x80, 0xff, 0xff, 0xff, 0xff, 0xff},
	};

	memcpy(p, tails[which & 3], sizeof(tails[0]));
}

static void test_legacy(void **state)
{
	static const char *const prefixes[] = {
		"",         "\x66",     "\xf3",     "\xf2",     "\x67",     "\xf0",
		"\x64",     "\x2e",     "\x3e",     "\x48",     "\x41",     "\x47",
		"\x66\x4f", "\xf3\x48", "\xf3\x41", "\x66\xf3", "\xf2\x66", "\x64\x2e",
	};
	unsigned step = slow() ? 1 : 3;
	struct oracle_count count = {0};

	for (enum insn_mode mode = INSN_MODE_16; mode <= INSN_MODE_64; mode++) {
		for (unsigned prefix = 0; prefix < ARRAY_SIZE(prefixes); prefix++) {
			for (unsigned i = (prefix + mode) % step; i < 4 * 65536; i += step) {
				unsigned map = i >> 16, opcode = i >> 8 & 255, modrm = i & 255;
				uint8_t bytes[32] = {0};
				size_t n = strlen(prefixes[prefix]);

				memcpy(bytes, prefixes[prefix], n);
				if (map)
					bytes[n++] = 0x0f;
				if (map > 1)
					bytes[n++] = map == 2 ? 0x38 : 0x3a;
				bytes[n++] = opcode;
				bytes[n++] = modrm;
				fill_tail(bytes + n, modrm + opcode);
				oracle_compare(bytes, mode, &count, stdout);
			}
		}
	}
	finish("legacy", &count);
}

static void test_vex(void **state)
{
	unsigned step = slow() ? 1 : 17;
	struct oracle_count count = {0};

	for (enum insn_mode mode = INSN_MODE_16; mode <= INSN_MODE_64; mode++) {
		/* Map, W, vvvv unused or not, L, pp, opcode, ModRM. */
		for (unsigned i = mode; i < 3u << 21; i += step) {
			unsigned modrm = i & 255, opcode = i >> 8 & 255, lpp = i >> 16 & 7;
			uint8_t bytes[32] = {0xc4};

			bytes[1] = 0xe0 | ((i >> 21) + 1);
			/* R, X and B. */
			if (mode == INSN_MODE_64)
				bytes[1] ^= (opcode * 7 + modrm * 13) & 0xe0;
			bytes[2] = (i >> 19 & 1) << 7 | (i >> 20 & 1 ? 0x78 : 0x28) | lpp;
			bytes[3] = opcode;
			bytes[4] = modrm;
			fill_tail(bytes + 5, modrm + opcode);
			oracle_compare(bytes, mode, &count, stdout);
			if ((bytes[1] & 0x7f) == 0x61 && !(bytes[2] & 0x80)) {
				/* The short form. */
				bytes[0] = 0xc5;
				bytes[1] = (bytes[1] & 0x80) | bytes[2];
				memmove(bytes + 2, bytes + 3, 13);
				oracle_compare(bytes, mode, &count, stdout);
			}
		}
	}
	finish("VEX", &count);
}

static void test_evex(void **state)
{
	static const uint8_t maps[] = {1, 2, 3, 5, 6, 0, 4, 7};
	/* z and aaa */
	static const uint8_t masks[] = {0x00, 0x01, 0x81, 0x80};
	unsigned step = slow() ? 37 : 401;
	struct oracle_count count = {0};

	for (enum insn_mode mode = INSN_MODE_16; mode <= INSN_MODE_64; mode++) {
		/* Map, W, vvvv, V', z and aaa, pp, L'L, b, opcode, ModRM. */
		for (unsigned i = mode; i < 8u << 26; i += step) {
			unsigned modrm = i & 255, opcode = i >> 8 & 255;
			uint8_t bytes[32] = {0x62};

			bytes[1] = 0xf0 | maps[i >> 26];
			/* R, X, B and R'. */
			if (mode == INSN_MODE_64)
				bytes[1] ^= (opcode * 7 + modrm * 13) & 0xf0;
			bytes[2] = (i >> 25 & 1) << 7 | (i >> 24 & 1 ? 0x78 : 0x28) | 4 |
				   (i >> 19 & 3);
			bytes[3] = (i >> 23 & 1) << 3 | masks[i >> 21 & 3] | (i >> 16 & 7) << 4;
			bytes[4] = opcode;
			bytes[5] = modrm;
			fill_tail(bytes + 6, modrm + opcode);
			oracle_compare(bytes, mode, &count, stdout);
		}
	}
	finish("EVEX", &count);
}

/* xorshift64: the same sequence on every machine. */
static uint64_t next_random(void)
{
	static uint64_t x = UINT64_C(0x9e3779b97f4a7c15);

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

static void random_bytes(uint8_t bytes[static 16])
{
	uint64_t a = next_random(), b = next_random();

	memcpy(bytes, &a, 8);
	memcpy(bytes + 8, &b, 8);
}

static void test_random(void **state)
{
	/* First bytes that random strings rarely have in this order. */
	static const char *const starts[] = {"",         "\x0f",     "\x66\x0f", "\xc4", "\x62",
					     "\x0f\x38", "\xf3\x0f", "\x66\x67", "\x8f"};
	unsigned n = slow() ? 6000000 : 300000;
	struct oracle_count count = {0};

	for (unsigned i = 0; i < n; i++) {
		const char *start = starts[i / 3 % ARRAY_SIZE(starts)];
		uint8_t bytes[16];

		random_bytes(bytes);
		memcpy(bytes, start, strlen(start));
		oracle_compare(bytes, i % 3, &count, stdout);
	}
	finish("random", &count);
}

/* The reasons in decode_differences.c must still explain something. */
static void test_differences_are_met(void **state)
{
	if (!slow())
		skip();
	assert_int_equal(oracle_stale(stdout), 0);
}

/* -- The table -------------------------------------------------------------------------------- */

static void test_table(void **state)
{
	bool has_row[N_OPS] = {false};

	for (size_t i = 1; i < opcode_table_size; i++) {
		const struct opcode *row = &opcode_table[i], *before = row - 1;

		has_row[row->op] = true;
		if (row->first)
			continue;
		/* A row out of its opcode's place would never be found. */
		assert_int_equal(row->map, before->map);
		assert_true(row->opcode == before->opcode);
		assert_int_equal(row->modrm, before->modrm);
	}
	for (enum op op = OP_INVALID + 1; op < N_OPS; op++) {
		if (!has_row[op])
			print_error("%s is in no row\n", op_name(op));
		assert_true(has_row[op]);
	}
	assert_true(opcode_table[opcode_table_size].first);
}

/* Each row is the first that fits for some bytes; else it is dead. */
static void test_rows_are_reached(void **state)
{
	unsigned unmet = oracle_unmet_rows(slow() ? stdout : NULL);

	if (!slow())
		skip();
	assert_int_equal(unmet, 0);
}

/* -- The window ------------------------------------------------------------------------------- */

/* An instruction is asked for byte by byte, and never more than it has. */
static void test_window(void **state)
{
	unsigned n = slow() ? 1000000 : 60000, tried = 0;

	for (unsigned i = 0; i < n; i++) {
		struct insn insn, part;
		uint8_t bytes[16];

		random_bytes(bytes);
		if (i & 1)
			bytes[0] = "\x0f\x66\xc4\x62\x48\xf3\xc5\x67"[i >> 1 & 7];
		if (decode_insn(&insn, bytes, INSN_MAX_BYTES, i % 3) != DECODE_OK)
			continue;
		tried++;
		/* On the heap, so that a sanitizer sees an access beyond the window. */
		for (size_t k = 0; k <= insn.length; k++) {
			autofree uint8_t *window = malloc(k ? k : 1);
			enum decode_result result;

			assert_non_null(window);
			memcpy(window, bytes, k);
			result = decode_insn(&part, window, k, i % 3);
			assert_int_equal(result, k < insn.length ? DECODE_MORE : DECODE_OK);
		}
		assert_memory_equal(&part, &insn, sizeof(insn));
	}
	assert_true(tried > n / 4);
}

static enum decode_result decode_text(struct insn *insn, const char *hex, enum insn_mode mode)
{
	uint8_t bytes[INSN_MAX_BYTES + 1];
	size_t n = 0;

	for (; *hex; hex += *hex == ' ' ? 1 : 2) {
		if (*hex == ' ')
			continue;
		assert_true(n < sizeof(bytes));
		bytes[n++] = strtoul((char[]){hex[0], hex[1], 0}, NULL, 16);
	}
	return decode_insn(insn, bytes, n, mode);
}

static void test_length_limit(void **state)
{
	struct insn insn;

	/* 15 bytes are the most, prefixes or not. */
	assert_int_equal(decode_text(&insn, "2e2e2e2e2e2e2e2e2e2e2e2e2e2e 90", INSN_MODE_64),
			 DECODE_OK);
	assert_int_equal(insn.length, 15);
	assert_int_equal(decode_text(&insn, "2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e 90", INSN_MODE_64),
			 DECODE_TOO_LONG);
	/* Known as soon as ModRM tells that four bytes follow; the page behind is not asked for. */
	assert_int_equal(decode_text(&insn, "2e2e2e2e2e2e2e2e2e2e 8105", INSN_MODE_64),
			 DECODE_TOO_LONG);
	assert_int_equal(decode_text(&insn, "2e2e2e2e2e 8105", INSN_MODE_64), DECODE_MORE);
	/* No byte after UD2, nor after what is no opcode, is needed. */
	assert_int_equal(decode_text(&insn, "0f0b", INSN_MODE_64), DECODE_OK);
	assert_int_equal(decode_text(&insn, "0f04", INSN_MODE_64), DECODE_INVALID);
	assert_int_equal(decode_text(&insn, "06", INSN_MODE_64), DECODE_INVALID);
	assert_int_equal(decode_text(&insn, "", INSN_MODE_64), DECODE_MORE);
}

/* -- What Zydis doesn't tell, or tells otherwise ---------------------------------------------- */

static void test_examples(void **state)
{
	struct insn insn;

	/* add qword gs:[rax+rcx*4+0x10], 0x12 */
	assert_int_equal(decode_text(&insn, "f0 65 48 83 44 88 10 92", INSN_MODE_64), DECODE_OK);
	assert_int_equal(insn.op, OP_ADD);
	assert_int_equal(insn_class(&insn), INSN_ALU);
	assert_int_equal(insn.seg, SEG_GS);
	assert_int_equal(insn_seg_prefix(&insn), SEG_GS);
	assert_int_equal(insn.prefixes & PREFIX_LOCK, PREFIX_LOCK);
	assert_int_equal(insn.base, REG_RAX);
	assert_int_equal(insn.index, REG_RCX);
	assert_int_equal(insn.scale, 2);
	assert_int_equal(insn.disp, 0x10);
	assert_true(insn.imm == (uint64_t)-0x6e);
	assert_int_equal(insn.modrm_at, 4);
	assert_int_equal(insn.disp_at, 6);
	assert_int_equal(insn.imm_at, 7);
	assert_int_equal(insn.regs_read, 1 << REG_RAX | 1 << REG_RCX);
	assert_int_equal(insn.mem_size, 8);
	assert_true(insn.mem_read && insn.mem_written);
	assert_int_equal(insn_implicit_read(&insn), 0);

	/* mul ebx: rAX and rDX have no field */
	assert_int_equal(decode_text(&insn, "f7 e3", INSN_MODE_64), DECODE_OK);
	assert_int_equal(insn_implicit_read(&insn), 1 << REG_RAX);
	assert_int_equal(insn_implicit_written(&insn), 1 << REG_RAX | 1 << REG_RDX);

	/* rep movsd: the source is the memory operand */
	assert_int_equal(decode_text(&insn, "f3 a5", INSN_MODE_32), DECODE_OK);
	assert_true(insn_repeats(&insn));
	assert_int_equal(insn.operands[0].kind, OPERAND_STR_DST);
	assert_int_equal(insn.operands[1].kind, OPERAND_STR_SRC);
	assert_int_equal(insn.base, REG_RSI);
	assert_int_equal(insn.regs_written, 1 << REG_RSI | 1 << REG_RDI | 1 << REG_RCX);

	/* An ES prefix does not undo FS in 64-bit mode, and counts elsewhere. */
	assert_int_equal(decode_text(&insn, "64 26 8b 00", INSN_MODE_64), DECODE_OK);
	assert_int_equal(insn.seg, SEG_FS);
	assert_int_equal(decode_text(&insn, "64 26 8b 00", INSN_MODE_32), DECODE_OK);
	assert_int_equal(insn.seg, SEG_ES);

	/* REX counts only right before the opcode. */
	assert_int_equal(decode_text(&insn, "48 66 01 c0", INSN_MODE_64), DECODE_OK);
	assert_int_equal(insn.opsize, 2);
	assert_int_equal(insn.rex, 0);

	/* AH without REX, SPL with it. */
	assert_int_equal(decode_text(&insn, "88 e0", INSN_MODE_64), DECODE_OK);
	assert_int_equal(insn.operands[1].kind, OPERAND_GPR_HIGH);
	assert_int_equal(insn.regs_read, 1 << REG_RAX);
	assert_int_equal(decode_text(&insn, "40 88 e0", INSN_MODE_64), DECODE_OK);
	assert_int_equal(insn.operands[1].kind, OPERAND_GPR);
	assert_int_equal(insn.regs_read, 1 << REG_RSP);

	/* Near branches: 66 is ignored in 64-bit mode, as Intel's processors do. */
	assert_int_equal(decode_text(&insn, "66 e8 00 01 00 00", INSN_MODE_64), DECODE_OK);
	assert_int_equal(insn.opsize, 8);
	assert_int_equal(insn.imm, 0x100);

	/* disp8*N: 64 bytes, and 4 under broadcast. */
	assert_int_equal(decode_text(&insn, "62 f1 7c 48 58 40 01", INSN_MODE_64), DECODE_OK);
	assert_int_equal(insn.disp, 64);
	assert_int_equal(insn_vector_bytes(&insn), 64);
	assert_int_equal(decode_text(&insn, "62 f1 7c 58 58 40 01", INSN_MODE_64), DECODE_OK);
	assert_int_equal(insn.disp, 4);
	assert_int_equal(insn.mem_size, 4);

	/* SSE wants its 16 bytes aligned, but not MOVUPS, nor AVX. */
	assert_int_equal(decode_text(&insn, "0f 58 00", INSN_MODE_64), DECODE_OK);
	assert_true(insn.desc->attrs & OPC_ALIGNED);
	assert_int_equal(decode_text(&insn, "0f 10 00", INSN_MODE_64), DECODE_OK);
	assert_false(insn.desc->attrs & OPC_ALIGNED);
	assert_int_equal(decode_text(&insn, "c5 f8 58 00", INSN_MODE_64), DECODE_OK);
	assert_false(insn.desc->attrs & OPC_ALIGNED);
}

static void test_classes(void **state)
{
	static const struct {
		const char *bytes;
		enum insn_class class;
		uint32_t attrs;
	} cases[] = {
		{"0f 0b", INSN_UD, OPC_ENDS_BLOCK},
		{"0f 01 c1", INSN_UD, 0},          /* VMCALL */
		{"0f 01 d8", INSN_UD, 0},          /* VMRUN */
		{"c7 f8 00 00 00 00", INSN_UD, 0}, /* XBEGIN */
		{"fa", INSN_SYSTEM, OPC_IOPL},
		{"ee", INSN_IO, OPC_IOPL},
		{"0f 22 d8", INSN_SYSTEM, OPC_CPL0},
		{"0f 00 d8", INSN_SYSTEM, OPC_CPL0 | OPC_PROTECTED},
		{"0f 58 c1", INSN_SSE, 0},
		{"0f fc c1", INSN_MMX, 0},
		{"0f 2c c1", INSN_MMX, 0}, /* CVTTPS2PI */
		{"c5 f8 58 c1", INSN_AVX, 0},
		{"c4 e1 f4 41 c2", INSN_AVX512, 0}, /* KANDQ */
		{"c4 e2 68 f2 c2", INSN_ALU, 0},    /* ANDN */
		{"d8 c1", INSN_X87, 0},
		{"f3 0f 1e fa", INSN_NOP, 0},
		{"e8 00 00 00 00", INSN_BRANCH_REL, OPC_STACK | OPC_ENDS_BLOCK},
		{"c3", INSN_RET, OPC_STACK | OPC_ENDS_BLOCK},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct insn insn;

		assert_int_equal(decode_text(&insn, cases[i].bytes, INSN_MODE_64), DECODE_OK);
		assert_int_equal(insn_class(&insn), cases[i].class);
		assert_int_equal(insn.desc->attrs & cases[i].attrs, cases[i].attrs);
	}
}

static void test_features(void **state)
{
	static const struct {
		const char *bytes;
		uint64_t features;
	} cases[] = {
		{"0f 58 c1", 0},
		{"66 0f 38 00 c1", CPU_BIT(CPU_SSSE3)},
		{"c5 f5 fe c2", CPU_BIT(CPU_AVX) | CPU_BIT(CPU_AVX2)},
		{"c5 f1 fe c2", CPU_BIT(CPU_AVX)},
		{"c4 e2 75 dc c2", CPU_BIT(CPU_AVX) | CPU_BIT(CPU_VAES)},
		{"62 f1 75 28 fe c2", CPU_BIT(CPU_AVX512F) | CPU_BIT(CPU_AVX512VL)},
		{"62 f1 75 48 fe c2", CPU_BIT(CPU_AVX512F)},
		{"62 f1 76 08 58 c2", CPU_BIT(CPU_AVX512F)}, /* VADDSS */
		{"f3 0f bd c0", 0},                          /* LZCNT: BSR, not #UD */
		{"0f ae 20", CPU_BIT(CPU_XSAVE)},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct insn insn;

		assert_int_equal(decode_text(&insn, cases[i].bytes, INSN_MODE_64), DECODE_OK);
		assert_int_equal(insn_features(&insn), cases[i].features);
	}
}

static void test_flags_killed(void **state)
{
	static const struct {
		const char *bytes;
		uint16_t killed;
	} cases[] = {
		{"01 c0", FLAGS_ARITH},
		{"ff c0", FLAGS_ARITH & ~FLAG_CF}, /* inc */
		{"f7 d0", 0},                      /* not */
		{"21 c0", FLAGS_ARITH & ~FLAG_AF}, /* and */
		{"d3 e0", 0},                      /* shl eax, cl */
		{"d1 e0", FLAGS_ARITH & ~FLAG_AF}, /* shl eax, 1 */
		{"c1 e0 01", FLAGS_ARITH & ~FLAG_AF},
		{"c1 e0 02", FLAG_CF | FLAG_PF | FLAG_ZF | FLAG_SF},
		{"c1 e0 20", 0}, /* by 32: by 0 */
		{"48 c1 e0 20", FLAG_CF | FLAG_PF | FLAG_ZF | FLAG_SF},
		{"c0 d0 09", 0},       /* rcl al, 9 */
		{"c1 d0 09", FLAG_CF}, /* rcl eax, 9 */
		{"0f a4 c0 00", 0},    /* shld */
		{"a6", FLAGS_ARITH},   /* cmpsb */
		{"f3 a6", 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct insn insn;

		assert_int_equal(decode_text(&insn, cases[i].bytes, INSN_MODE_64), DECODE_OK);
		assert_int_equal(insn_flags_killed(&insn), cases[i].killed);
	}
}

static void test_lock(void **state)
{
	struct insn insn;

	assert_int_equal(decode_text(&insn, "f0 01 00", INSN_MODE_64), DECODE_OK);
	assert_int_equal(decode_text(&insn, "f0 01 c0", INSN_MODE_64), DECODE_INVALID);
	assert_int_equal(decode_text(&insn, "f0 03 00", INSN_MODE_64), DECODE_INVALID);
	assert_int_equal(decode_text(&insn, "f0 38 00", INSN_MODE_64), DECODE_INVALID);
	assert_int_equal(decode_text(&insn, "f0 87 00", INSN_MODE_64), DECODE_OK);
	assert_int_equal(decode_text(&insn, "f0 0f c7 08", INSN_MODE_64), DECODE_OK);
	assert_int_equal(decode_text(&insn, "f0 90", INSN_MODE_64), DECODE_INVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_examples),
		cmocka_unit_test(test_classes),
		cmocka_unit_test(test_features),
		cmocka_unit_test(test_flags_killed),
		cmocka_unit_test(test_lock),
		cmocka_unit_test(test_length_limit),
		cmocka_unit_test(test_window),
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_legacy),
		cmocka_unit_test(test_vex),
		cmocka_unit_test(test_evex),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_differences_are_met),
		cmocka_unit_test(test_rows_are_reached),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
