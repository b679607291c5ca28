/*
 * The decoder: prefixes, opcode, ModRM, then the row of the table that fits, then its operands.
 * Called for each instruction that is interpreted or translated. What processors do where the
 * manual is silent was found out on one, and is marked so.
 *
 * Source: Intel SDM volume 2, chapter 2; the opcode maps are in decode_table.inc.
 */
#include "engine/soft/decode_reader.h"

/* -- Prefixes and opcode ----------------------------------------------------------------------- */

/* Legacy prefixes and REX (SDM 2.1.1, 2.2.1), up to the byte that is none. */
static enum decode_result read_prefixes(struct insn *insn, struct reader *r)
{
	int seg = -1;

	for (;; r->pos++) {
		enum decode_result result = need(r, 1);

		if (result != DECODE_OK)
			return result;

		uint8_t byte = r->bytes[r->pos];

		if ((byte & 0xf0) == 0x40 && insn->mode == INSN_MODE_64) {
			insn->rex = (byte & 15) | REX_PRESENT;
			continue;
		}
		switch (byte) {
		case 0x26: /* ES, CS, SS, DS: ignored in 64-bit mode, not even undoing FS or GS */
		case 0x2e:
		case 0x36:
		case 0x3e:
			if (insn->mode != INSN_MODE_64)
				seg = byte >> 3 & 3;
			break;
		case 0x64:
		case 0x65:
			seg = SEG_FS + (byte & 1);
			break;
		case 0x66:
			insn->prefixes |= PREFIX_OPSIZE;
			break;
		case 0x67:
			insn->prefixes |= PREFIX_ADDRSIZE;
			break;
		case 0xf0:
			insn->prefixes |= PREFIX_LOCK;
			break;
		case 0xf2:
			insn->prefixes = (insn->prefixes & ~PREFIX_REP) | PREFIX_REPNE;
			break;
		case 0xf3:
			insn->prefixes = (insn->prefixes & ~PREFIX_REPNE) | PREFIX_REP;
			break;
		default:
			insn->prefixes |= (seg + 1) << PREFIX_SEG_SHIFT;
			return DECODE_OK;
		}
		insn->rex = 0; /* only right before the opcode does it count */
	}
}

/* VEX and EVEX take the place of these. */
static inline bool has_simd_prefix(const struct insn *insn)
{
	return insn->prefixes & (PREFIX_LOCK | PREFIX_REP | PREFIX_REPNE | PREFIX_OPSIZE) ||
	       insn->rex;
}

/* C4 or C5, already read (SDM 2.3). */
static enum decode_result read_vex(struct insn *insn, struct reader *r, bool three,
				   enum insn_map *map)
{
	enum decode_result result = need(r, three ? 3 : 2);
	bool long_mode = insn->mode == INSN_MODE_64;
	uint8_t b0, b1;

	if (result != DECODE_OK)
		return result;
	if (has_simd_prefix(insn))
		return DECODE_INVALID;
	b0 = take(r, 1);
	b1 = three ? take(r, 1) : b0;
	if (three) {
		if ((b0 & 31) < 1 || (b0 & 31) > 3)
			return DECODE_INVALID;
		*map = MAP_VEX_0F + (b0 & 31) - 1;
		insn->rex = (b1 & 0x80 ? REX_W : 0);
		if (long_mode)
			insn->rex |= (b0 & 0x20 ? 0 : REX_B) | (b0 & 0x40 ? 0 : REX_X);
	} else {
		*map = MAP_VEX_0F;
	}
	if (long_mode && !(b0 & 0x80))
		insn->rex |= REX_R;
	insn->encoding = three ? ENC_VEX3 : ENC_VEX2;
	insn->vvvv = ~b1 >> 3 & 15;
	insn->vex_l = b1 >> 2 & 1;
	r->pp = b1 & 3;
	insn->opcode = take(r, 1);
	return DECODE_OK;
}

/* 62, already read (SDM 2.7.1). */
static enum decode_result read_evex(struct insn *insn, struct reader *r, enum insn_map *map)
{
	static const uint8_t maps[8] = {0, MAP_EVEX_0F, MAP_EVEX_0F38, MAP_EVEX_0F3A,
					0, MAP_EVEX_5,  MAP_EVEX_6,    0};
	enum decode_result result = need(r, 4);
	bool long_mode = insn->mode == INSN_MODE_64;
	uint8_t p0, p1, p2;

	if (result != DECODE_OK)
		return result;
	if (has_simd_prefix(insn))
		return DECODE_INVALID;
	p0 = take(r, 1);
	p1 = take(r, 1);
	p2 = take(r, 1);
	*map = maps[p0 & 7];
	if (!*map || p0 & 0x08 || !(p1 & 0x04))
		return DECODE_INVALID;
	insn->encoding = ENC_EVEX;
	insn->rex = p1 & 0x80 ? REX_W : 0;
	insn->vvvv = ~p1 >> 3 & 15;
	if (long_mode) {
		insn->rex |= (p0 & 0x80 ? 0 : REX_R) | (p0 & 0x40 ? 0 : REX_X) |
			     (p0 & 0x20 ? 0 : REX_B) | (p0 & 0x10 ? 0 : REX_R2);
		insn->vvvv |= p2 & 0x08 ? 0 : 16;
	} else {
		if (!(p2 & 0x08))
			return DECODE_INVALID;
	}
	r->pp = p1 & 3;
	insn->evex_z = p2 >> 7;
	insn->vex_l = p2 >> 5 & 3;
	insn->evex_b = p2 >> 4 & 1;
	insn->evex_aaa = p2 & 7;
	insn->opcode = take(r, 1);
	return DECODE_OK;
}

/* The opcode with what leads to its map. */
static enum decode_result read_opcode(struct insn *insn, struct reader *r, enum insn_map *map)
{
	uint8_t byte = r->bytes[r->pos++];
	enum decode_result result;

	*map = MAP_1B;
	insn->opcode = byte;
	if (byte == 0x0f) {
		result = need(r, 1);
		if (result != DECODE_OK)
			return result;
		insn->opcode = byte = take(r, 1);
		*map = MAP_0F;
		if (byte == 0x38 || byte == 0x3a) {
			result = need(r, 1);
			if (result != DECODE_OK)
				return result;
			insn->opcode = take(r, 1);
			*map = byte == 0x38 ? MAP_0F38 : MAP_0F3A;
		}
	} else if (byte == 0xc4 || byte == 0xc5 || byte == 0x62) {
		/* Outside 64-bit mode it is LES, LDS or BOUND when their ModRM is not mod 3. */
		if (insn->mode != INSN_MODE_64) {
			result = need(r, 1);
			if (result != DECODE_OK)
				return result;
			if (r->bytes[r->pos] < 0xc0)
				return DECODE_OK;
		}
		return byte == 0x62 ? read_evex(insn, r, map)
				    : read_vex(insn, r, byte == 0xc4, map);
	}
	r->pp = insn->prefixes & PREFIX_REP      ? 2
		: insn->prefixes & PREFIX_REPNE  ? 3
		: insn->prefixes & PREFIX_OPSIZE ? 1
						 : 0;
	return DECODE_OK;
}

/* The row for what has been read, ModRM included; NULL: there is none. */
static inline const struct opcode *find_row(const struct insn *insn, const struct reader *r,
					    const struct opcode *row)
{
	unsigned l = insn->vex_l, modrm = insn->modrm, key;

	if (insn->encoding == ENC_EVEX && insn->evex_b && modrm >= 0xc0)
		l = 2; /* L'L is a rounding mode; the length is 512 */
	key = r->pp | (insn->rex & REX_W ? KEY_W : 0) | l << 3 | (modrm >= 0xc0 ? KEY_REG : 0) |
	      (modrm >> 3 & 7) << 6 | (modrm & 7) << 9 | (insn->mode == INSN_MODE_64 ? KEY_64 : 0) |
	      (insn->rex & REX_B ? KEY_B : 0);
	do {
		if ((key & row->mask) == row->value)
			return row;
	} while (!(++row)->first);
	return NULL;
}

/* -- Rules that remain ------------------------------------------------------------------------- */

/* LOCK needs an instruction that allows it, with its destination in memory (SDM, LOCK). */
static inline bool lock_allowed(const struct insn *insn)
{
	return insn->desc->attrs & OPC_LOCK && insn->operands[0].kind == OPERAND_MEM;
}

/* Registers of gathers, and of complex FP16 multiplication, that must not be the same. */
static bool registers_distinct(const struct insn *insn)
{
	unsigned dst = insn->operands[0].reg;

	if (insn->vsib) {
		if (dst == insn->index)
			return false;
		return insn->encoding == ENC_EVEX ||
		       (insn->vvvv != dst && insn->vvvv != insn->index);
	}
	return dst != insn->operands[1].reg &&
	       (insn->operands[2].kind != OPERAND_VEC || dst != insn->operands[2].reg);
}

/* What VEX and EVEX forbid (SDM 2.3.5 to 2.3.10, 2.7.11). */
static bool vector_prefix_valid(const struct insn *insn)
{
	uint32_t attrs = insn->desc->attrs;

	if (attrs & OPC_NOT128 && insn_vector_bytes(insn) == 16)
		return false;
	if (insn->encoding != ENC_EVEX) {
		if (!insn->desc->vvvv && insn->vvvv)
			return false;
		return !(attrs & OPC_DISTINCT) || registers_distinct(insn);
	}
	if (!insn->desc->vvvv && (insn->vsib ? insn->vvvv & 15 : insn->vvvv))
		return false;
	if (insn->evex_b) {
		if (!(attrs & (insn->has_mem ? OPC_B2 | OPC_B4 | OPC_B8 : OPC_ER | OPC_SAE)))
			return false;
	}
	if (insn->vex_l == 3 && (insn->has_mem || !insn->evex_b))
		return false;
	if (insn->evex_aaa ? !(attrs & OPC_MASK) : attrs & OPC_NEED_MASK)
		return false;
	/* Zeroing needs a mask, and a register to be zeroed. */
	if (insn->evex_z &&
	    (!(attrs & OPC_ZERO) || !insn->evex_aaa || insn->operands[0].kind == OPERAND_MEM))
		return false;
	return !(attrs & OPC_DISTINCT) || registers_distinct(insn);
}

/* ---------------------------------------------------------------------------------------------- */

static enum decode_result decode(struct insn *insn, struct reader *r)
{
	enum decode_result result = read_prefixes(insn, r);
	const struct opcode *row;
	enum insn_map map;

	if (result != DECODE_OK)
		return result;
	result = read_opcode(insn, r, &map);
	if (result != DECODE_OK)
		return result;
	if (!opcode_index[map][insn->opcode])
		return DECODE_INVALID;
	row = &opcode_table[opcode_index[map][insn->opcode]];
	if (row->modrm) {
		result = need(r, 1);
		if (result != DECODE_OK)
			return result;
		insn->has_modrm = 1;
		insn->modrm_at = r->pos;
		insn->modrm = take(r, 1);
	}
	row = find_row(insn, r, row);
	if (!row)
		return DECODE_INVALID;

	insn->desc = row;
	insn->op = row->op;
	/* There are 8 registers outside 64-bit mode; but where none is named, all bits count. */
	if (row->vvvv && insn->mode != INSN_MODE_64)
		insn->vvvv &= 7;
	insn->opsize = operand_size(insn, row->attrs);
	insn->addrsize = (insn->mode == INSN_MODE_64 ? 8 : insn->mode == INSN_MODE_32 ? 4 : 2);
	if (insn->prefixes & PREFIX_ADDRSIZE)
		insn->addrsize = insn->addrsize == 4 ? 2 : 4;
	if (insn->mode == INSN_MODE_64 && insn->prefixes & PREFIX_ADDRSIZE)
		insn->addrsize = 4;
	insn->base = insn->index = REG_NONE;
	insn->seg = SEG_DS;
	if (insn->prefixes >> PREFIX_SEG_SHIFT)
		insn->seg = insn_seg_prefix(insn);
	insn->regs_read = insn_implicit_read(insn);
	insn->regs_written = insn_implicit_written(insn);

	if (insn->has_modrm && insn->modrm < 0xc0 && !(row->attrs & OPC_ANYMOD)) {
		/* A gather's or scatter's memory operand is one of the first two. */
		insn->vsib = OPERAND_WHERE(row->operands[0]) == WHERE_VM ||
			     OPERAND_WHERE(row->operands[1]) == WHERE_VM;
		result = read_memory(insn, r);
		if (result != DECODE_OK)
			return result;
		if (insn->base != REG_NONE)
			insn->regs_read |= 1 << insn->base;
		if (insn->index != REG_NONE && !insn->vsib)
			insn->regs_read |= 1 << insn->index;
	}
	for (unsigned i = 0; i < 4 && row->operands[i]; i++) {
		operand_access(&insn->operands[i], row->access, i);
		result = read_operand(insn, r, row->operands[i], &insn->operands[i],
				      OPERAND_WHERE(row->operands[!i]) == WHERE_X);
		if (result != DECODE_OK)
			return result;
	}
	if (insn->prefixes & PREFIX_LOCK && !lock_allowed(insn))
		return DECODE_INVALID;
	if (insn->encoding != ENC_LEGACY && !vector_prefix_valid(insn))
		return DECODE_INVALID;
	return DECODE_OK;
}

enum decode_result decode_insn(struct insn *insn, const uint8_t *bytes, size_t n,
			       enum insn_mode mode)
{
	struct reader r = {.bytes = bytes, .n = n};
	enum decode_result result;

	memset(insn, 0, sizeof(*insn));
	insn->mode = mode;
	result = decode(insn, &r);
	insn->length = r.pos;
	return result;
}

uint16_t insn_flags_read(const struct insn *insn)
{
	static const uint16_t conditions[8] = {
		FLAG_OF, FLAG_CF, FLAG_ZF,           FLAG_CF | FLAG_ZF,
		FLAG_SF, FLAG_PF, FLAG_SF | FLAG_OF, FLAG_ZF | FLAG_SF | FLAG_OF,
	};

	switch (insn->op) {
	case OP_JCC:
	case OP_SETCC:
	case OP_CMOVCC:
		return conditions[insn_condition(insn) >> 1];
	default:
		return insn->desc->flags_read;
	}
}

uint16_t insn_flags_killed(const struct insn *insn)
{
	const struct opcode *row = insn->desc;
	unsigned count;

	if (!(row->attrs & OPC_FLAGS_MAYBE))
		return row->flags_written;
	if (row->attrs & OPC_REP)
		return insn_repeats(insn) ? 0 : row->flags_written;
	if (!insn->imm_size) /* a shift by CL */
		return 0;
	count = insn->imm & (insn->opsize == 8 ? 63 : 31);
	/* Rotations through CF are by count modulo 9 or 17, which may be 0. */
	if (count > 8 && insn->opsize < 4 && (insn->op == OP_RCL || insn->op == OP_RCR))
		return 0;
	if (count == 1)
		return row->flags_written | FLAG_OF;
	return count ? row->flags_written : 0;
}
