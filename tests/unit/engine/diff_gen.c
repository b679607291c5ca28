/*
 * Random cases for the differential harness, from the decoder's own table: every row with random
 * prefixes, ModRM, SIB, displacements and immediates; registers are then chosen so that memory
 * operands fall into the data pages, often across their ends.
 */
#include "diff.h"
#include "engine/soft/decode.h"

#include <string.h>

uint64_t diff_random(uint64_t *seed)
{
	uint64_t z = *seed += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static uint64_t below(uint64_t *seed, uint64_t n)
{
	return diff_random(seed) % n;
}

static bool chance(uint64_t *seed, unsigned int percent)
{
	return below(seed, 100) < percent;
}

static uint64_t random_value(uint64_t *seed)
{
	static const uint64_t special[] = {0,
					   1,
					   2,
					   0x7f,
					   0x80,
					   0xff,
					   0x7fff,
					   0x8000,
					   0xffff,
					   0x7fffffff,
					   0x80000000,
					   0xffffffff,
					   0x7fffffffffffffff,
					   0x8000000000000000,
					   ~0ull,
					   ~1ull};

	switch (below(seed, 4)) {
	case 0:
		return special[below(seed, 16)];
	case 1:
		return below(seed, 256);
	default:
		return diff_random(seed);
	}
}

/* An address in the data pages for an access of `size` bytes. */
static uint64_t random_address(uint64_t *seed, unsigned int size)
{
	uint64_t at = DIFF_DATA + below(seed, 2) * 4096;

	if (chance(seed, 30)) /* around the end of any page */
		at = DIFF_DATA + (1 + below(seed, DIFF_DATA_PAGES - 1)) * 4096 -
		     below(seed, size + 2);
	else if (chance(seed, 15))
		at = DIFF_DATA + below(seed, DIFF_DATA_PAGES * 4096 - 128);
	else
		at += below(seed, 4096 - 128) + (chance(seed, 20) ? 0 : 0);
	if (chance(seed, 50))
		at &= size >= 64 ? ~63ull : size >= 32 ? ~31ull : ~15ull;
	return at;
}

/* ---- Encodings ---- */

static void emit_vex(const struct opcode *row, uint64_t *seed, uint8_t *b, unsigned int *n,
		     bool evex, bool compatibility)
{
	uint8_t random = (uint8_t)diff_random(seed), pp = (uint8_t)below(seed, 4);

	if (evex) {
		uint8_t map = (uint8_t)(row->map <= MAP_EVEX_0F3A ? row->map - MAP_EVEX_0F + 1
								  : row->map - MAP_EVEX_5 + 5);

		if (compatibility)
			random |= 0xc0; /* else it is BOUND */
		b[(*n)++] = 0x62;
		b[(*n)++] = (uint8_t)(map | (random & 0xf0));
		random = (uint8_t)diff_random(seed);
		b[(*n)++] = (uint8_t)((random & 0xf8) | 4 | pp);
		random = (uint8_t)diff_random(seed);
		if (chance(seed, 50))
			random &= 0x68; /* no mask, no broadcast */
		b[(*n)++] = random;
	} else {
		if (compatibility)
			random |= 0xc0; /* else it is LES */
		b[(*n)++] = 0xc4;
		b[(*n)++] = (uint8_t)((random & 0xe0) | (row->map - MAP_VEX_0F + 1));
		random = (uint8_t)diff_random(seed);
		b[(*n)++] = (uint8_t)((random & 0xfc) | pp);
	}
}

static void emit_legacy(const struct opcode *row, uint64_t *seed, uint8_t *b, unsigned int *n,
			bool compatibility)
{
	if (chance(seed, 25))
		b[(*n)++] = 0x66;
	if (chance(seed, 20))
		b[(*n)++] = chance(seed, 50) ? 0xf2 : 0xf3;
	if (chance(seed, 5))
		b[(*n)++] = 0x67;
	if ((row->attrs & OPC_LOCK) ? chance(seed, 20) : chance(seed, 1))
		b[(*n)++] = 0xf0;
	if (!compatibility && chance(seed, 50))
		b[(*n)++] = (uint8_t)(0x40 | below(seed, 16));
	if (row->map != MAP_1B)
		b[(*n)++] = 0x0f;
	if (row->map == MAP_0F38)
		b[(*n)++] = 0x38;
	if (row->map == MAP_0F3A)
		b[(*n)++] = 0x3a;
}

/* What can't be compared, or would hurt the child. */
static bool excluded(const struct insn *insn)
{
	/* LOCK with the second name of 80, which the decoder refuses. */
	if (insn->desc->map == MAP_1B && insn->opcode == 0x82 && (insn->prefixes & PREFIX_LOCK))
		return true;
	if (insn->op == OP_BOUND || insn->op == OP_ARPL)
		return false;
	switch (insn_class(insn)) {
	case INSN_SYSTEM:
	case INSN_IO:
	case INSN_INT:
	case INSN_BRANCH_FAR:
		return true;
	default:
		break;
	}
	switch (insn->op) {
	case OP_POPF:  /* TF */
	case OP_PUSHF: /* IF, ID are the host's */
	case OP_TSX:
	case OP_VMX:
	case OP_SVM:
	case OP_XGETBV:
	case OP_XSETBV:
	case OP_XSAVEOPT:
	case OP_XSAVES:
	case OP_XRSTOR:
	case OP_XRSTORS:
	case OP_LFS:
	case OP_LGS:
	case OP_LSS:
	case OP_LDS:
	case OP_LES:
		return true;
	default:
		break;
	}
	for (unsigned int i = 0; i < 4; i++)
		if (insn->operands[i].kind == OPERAND_SEG)
			return true;
	/* The child's FS is its own. */
	return insn->has_mem && insn->seg >= SEG_FS;
}

/* One random instruction that decodes. */
static unsigned int random_instruction(uint64_t *seed, uint8_t *bytes, struct insn *insn,
				       bool compatibility)
{
	for (;;) {
		const struct opcode *row = &opcode_table[1 + below(seed, opcode_table_size - 1)];
		uint8_t b[32] = {0};
		unsigned int n = 0;

		if (row->map >= MAP_EVEX_0F)
			emit_vex(row, seed, b, &n, true, compatibility);
		else if (row->map >= MAP_VEX_0F)
			emit_vex(row, seed, b, &n, false, compatibility);
		else
			emit_legacy(row, seed, b, &n, compatibility);
		b[n++] = (uint8_t)(row->opcode +
				   below(seed, (uint64_t)(row->last_opcode - row->opcode) + 1));
		for (unsigned int i = n; i < 15; i++)
			b[i] = (uint8_t)diff_random(seed);
		if (decode_insn(insn, b, 15, compatibility ? INSN_MODE_32 : INSN_MODE_64) !=
			    DECODE_OK ||
		    excluded(insn))
			continue;
		memcpy(bytes, b, insn->length);
		return insn->length;
	}
}

/* ---- States ---- */

static void random_float(uint64_t *seed, uint8_t *p, unsigned int size)
{
	static const uint32_t singles[] = {0,          0x80000000, 0x3f800000, 0xbf800000,
					   0x7f800000, 0xff800000, 0x7fc00000, 0x7fa00000,
					   0x00000001, 0x7f7fffff, 0x4f000000, 0x40490fdb};

	for (unsigned int i = 0; i < size; i += 4) {
		uint32_t v =
			chance(seed, 50) ? singles[below(seed, 12)] : (uint32_t)diff_random(seed);

		memcpy(p + i, &v, 4);
	}
	if (chance(seed, 40)) {
		for (unsigned int i = 0; i + 8 <= size; i += 8) {
			double d = (double)(int64_t)diff_random(seed) / 65536.0 / 65536.0;

			memcpy(p + i, &d, 8);
		}
	}
}

static void random_vector(uint64_t *seed, uint8_t *xsave)
{
	uint32_t mxcsr = 0x1f80;
	uint16_t fcw = 0x37f;
	uint64_t bits = 0xe7;

	memset(xsave, 0, DIFF_XSAVE_BYTES);
	if (chance(seed, 50))
		mxcsr = (uint32_t)(0x1f80 | (diff_random(seed) & 0xe07f));
	if (chance(seed, 10))
		mxcsr &= (uint32_t)(~0x1f80 | diff_random(seed));
	mxcsr &= 0xffff;
	if (chance(seed, 50))
		fcw = (uint16_t)(0x7f | (diff_random(seed) & 0xf00));
	if (chance(seed, 5))
		fcw &= (uint16_t)(0xffc0 | diff_random(seed));
	memcpy(xsave, &fcw, 2);
	memcpy(xsave + 24, &mxcsr, 4);
	xsave[3] = (uint8_t)(diff_random(seed) & 0x7f); /* TOP, condition codes */
	xsave[4] = (uint8_t)diff_random(seed);          /* tags */
	for (unsigned int i = 0; i < 8; i++) {
		uint8_t *st = xsave + 32 + 16 * i;
		uint64_t mantissa = diff_random(seed);
		uint16_t exponent = (uint16_t)diff_random(seed);

		if (chance(seed, 70)) {
			mantissa |= 1ull << 63;
			exponent = (uint16_t)(0x3fff - 32 + below(seed, 64)) |
				   (uint16_t)(below(seed, 2) << 15);
		}
		memcpy(st, &mantissa, 8);
		memcpy(st + 8, &exponent, 2);
	}
	random_float(seed, xsave + 160, 256);
	random_float(seed, xsave + 576, 256);
	random_float(seed, xsave + 1088, 64);
	random_float(seed, xsave + 1152, 512);
	random_float(seed, xsave + 1664, 1024);
	memcpy(xsave + 512, &bits, 8);
}

static void vector_lane(uint8_t *xsave, unsigned int reg, unsigned int lane, uint32_t value)
{
	unsigned int at = lane * 4;

	if (reg >= 16)
		memcpy(xsave + 1664 + 64 * (reg - 16) + at, &value, 4);
	else if (at < 16)
		memcpy(xsave + 160 + 16 * reg + at, &value, 4);
	else if (at < 32)
		memcpy(xsave + 576 + 16 * reg + at - 16, &value, 4);
	else
		memcpy(xsave + 1152 + 32 * reg + at - 32, &value, 4);
}

/* Makes the memory operand point at `target`, by its base register or its displacement. */
static void aim(struct diff_case *c, uint64_t *seed, const struct insn *insn, uint8_t *bytes,
		uint64_t rip)
{
	unsigned int size = insn->mem_size ? insn->mem_size : 8;
	uint64_t target = random_address(seed, size), index = 0, disp = (uint64_t)insn->disp;
	uint64_t *regs = c->in.regs;

	if (insn->vsib) {
		bool wide = insn->opcode & 1;

		for (unsigned int i = 0; i < 16; i++)
			vector_lane(c->in.xsave, insn->index, i,
				    wide && (i & 1) ? 0 : (uint32_t)below(seed, 256));
	} else if (insn->index != REG_NONE) {
		if (insn->index != insn->base)
			regs[insn->index] = below(seed, 64);
		index = regs[insn->index] << insn->scale;
	}
	if (insn->base != REG_NONE && insn->base != insn->index) {
		if (insn->operands[0].kind == OPERAND_NONE || insn->op != OP_XLAT)
			regs[insn->base] = target - disp - index;
		else
			regs[insn->base] = target;
		if (insn->op == OP_BT || insn->op == OP_BTS || insn->op == OP_BTR ||
		    insn->op == OP_BTC)
			for (unsigned int i = 0; i < 16; i++)
				if (insn->operands[1].kind == OPERAND_GPR &&
				    insn->operands[1].reg == i && i != insn->base &&
				    i != insn->index)
					regs[i] = (uint64_t)((int64_t)diff_random(seed) >> 50);
	} else if (insn->base != REG_NONE) {
		/* base and index are the same register: (1 << scale) + 1 times it */
		regs[insn->base] = (target - disp) / ((1u << insn->scale) + 1);
	} else if (insn->disp_size == 4) {
		uint64_t d = target - index - (insn->rip_relative ? rip + insn->length : 0);
		int32_t d32 = (int32_t)d;

		memcpy(bytes + insn->disp_at, &d32, 4);
	} else if (insn->disp_size == 8) {
		memcpy(bytes + insn->disp_at, &target, 8);
	}
}

/* XSAVE or XSAVEC, something in between, XRSTOR, all of them to the same place. */
static void state_sequence(struct diff_case *c, uint64_t *seed)
{
	static const uint8_t saves[][4] = {{0x0f, 0xae, 0x27},
					   {0x48, 0x0f, 0xae, 0x27},
					   {0x0f, 0xc7, 0x27},
					   {0x0f, 0xae, 0x07}};
	static const uint8_t restore[][3] = {{0x0f, 0xae, 0x2f}, {0x0f, 0xae, 0x0f}};
	unsigned int kind = (unsigned int)below(seed, 4), length = kind == 1 ? 4 : 3;
	struct insn insn;

	memcpy(c->code, saves[kind], length);
	c->code_size = length;
	do
		length = random_instruction(seed, c->code + c->code_size, &insn, false);
	while (insn.has_mem || insn_class(&insn) < INSN_X87 || (insn.desc->attrs & OPC_ENDS_BLOCK));
	c->code_size += length;
	memcpy(c->code + c->code_size, restore[kind == 3], 3);
	c->code_size += 3;
	c->in.regs[REG_RDI] = random_address(seed, 2688) & ~63ull;
	c->in.regs[REG_RAX] &= 0xe7;
	c->in.regs[REG_RDX] = 0;
}

void diff_generate(struct diff_case *c, uint64_t *seed, unsigned int count, bool compatibility)
{
	static const uint32_t flags[] = {1, 4, 16, 64, 128, 0x800};
	uint64_t rip;

	c->code_size = 0;
	c->compatibility = compatibility;
	c->code_offset = (uint32_t)(64 + below(seed, 3000));
	rip = DIFF_CODE + c->code_offset;
	for (unsigned int i = 0; i < 16; i++)
		c->in.regs[i] = random_value(seed);
	/* What strings and the stack use by themselves. */
	c->in.regs[REG_RSP] = random_address(seed, 16);
	c->in.regs[REG_RBP] = random_address(seed, 16);
	c->in.regs[REG_RSI] = random_address(seed, 16);
	c->in.regs[REG_RDI] = random_address(seed, 16);
	if (chance(seed, 50))
		c->in.regs[REG_RCX] = below(seed, chance(seed, 80) ? 20 : 700);
	c->in.rip = rip;
	c->in.rflags = 0x202;
	for (unsigned int i = 0; i < 6; i++)
		if (chance(seed, 50))
			c->in.rflags |= flags[i];
	if (chance(seed, 10))
		c->in.rflags |= 0x400;
	random_vector(seed, c->in.xsave);
	if (count > 1 && !compatibility && chance(seed, 4)) {
		state_sequence(c, seed);
		return;
	}
	for (unsigned int i = 0; i < count; i++) {
		uint8_t *bytes = c->code + c->code_size;
		struct insn insn;

		do
			random_instruction(seed, bytes, &insn, compatibility);
		while ((count > 1 && (insn.desc->attrs & OPC_ENDS_BLOCK) && i + 1 < count) ||
		       (i > 0 && insn_class(&insn) == INSN_STATE));
		/* Branches to somewhere in the page, mostly. */
		if (insn_class(&insn) == INSN_BRANCH_REL && insn.imm_size == 4 &&
		    chance(seed, 90)) {
			uint32_t near = (uint32_t)below(seed, 512);

			memcpy(bytes + insn.imm_at, &near, 4);
		}
		if (insn_class(&insn) == INSN_BRANCH_IND && !insn.has_mem)
			c->in.regs[insn.operands[0].reg] = DIFF_CODE + below(seed, 4096);
		if (insn.has_mem)
			aim(c, seed, &insn, bytes, rip);
		if (insn_repeats(&insn) && c->in.regs[REG_RCX] > 700)
			c->in.regs[REG_RCX] &= 15;
		c->code_size += insn.length;
		rip += insn.length;
		if (insn.op == OP_XSAVE || insn.op == OP_XSAVEC) {
			c->in.regs[REG_RAX] &= 0xe7; /* the kernel may have more */
			c->in.regs[REG_RDX] = 0;
			break;
		}
	}
	if (compatibility)
		for (unsigned int i = 0; i < 16; i++)
			c->in.regs[i] = i < 8 ? (uint32_t)c->in.regs[i] : 0;
}
