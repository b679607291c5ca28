/*
 * The decoder: prefixes, opcode, ModRM, then the row of the table that fits, then its operands.
 * Called for each instruction that is interpreted or translated. What processors do where the
 * manual is silent was found out on one, and is marked so.
 *
 * Source: Intel SDM volume 2, chapter 2; the opcode maps are in decode_table.inc.
 */
#include "engine/soft/decode_operands.h"

#include <string.h>

/* What is only known, or only needed, while an instruction is being decoded. */
struct reader {
	const uint8_t *bytes;
	size_t n;   /* of the window */
	size_t pos; /* read so far; never above n or INSN_MAX_BYTES */
	uint8_t pp; /* mandatory prefix as a key: none, 66, F3, F2 */
};

/* Whether k more bytes can be read, or why not. */
static inline enum decode_result need(const struct reader *r, size_t k)
{
	if (r->pos + k > INSN_MAX_BYTES)
		return DECODE_TOO_LONG;
	return r->pos + k > r->n ? DECODE_MORE : DECODE_OK;
}

/* Little-endian; the bytes must be there. */
static inline uint64_t take(struct reader *r, size_t k)
{
	const uint8_t *p = r->bytes + r->pos;
	uint16_t v16;
	uint32_t v32;
	uint64_t v64;

	r->pos += k;
	switch (k) {
	case 1:
		return *p;
	case 2:
		memcpy(&v16, p, 2);
		return v16;
	case 4:
		memcpy(&v32, p, 4);
		return v32;
	default:
		memcpy(&v64, p, 8);
		return v64;
	}
}

static inline int64_t sign_extend(uint64_t value, size_t bytes)
{
	unsigned shift = 64 - 8 * bytes;

	return (int64_t)(value << shift) >> shift;
}

/* -- Prefixes and opcode ---------------------------------------------------------------------- */

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

/* -- Sizes ------------------------------------------------------------------------------------ */

static inline uint8_t operand_size(const struct insn *insn, uint32_t attrs)
{
	bool small = insn->prefixes & PREFIX_OPSIZE;

	/* A mandatory 66 is not an operand size. */
	if ((insn->desc->mask & KEY_PP) == KEY_PP && (insn->desc->value & KEY_PP) == 1)
		small = false;
	if (attrs & OPC_BYTE)
		return 1;
	if (insn->mode == INSN_MODE_64) {
		if (attrs & OPC_F64)
			return 8;
		if (insn->rex & REX_W)
			return attrs & OPC_MAX4 ? 4 : 8;
		if (small)
			return 2;
		return attrs & OPC_D64 ? 8 : 4;
	}
	return (insn->mode == INSN_MODE_32) != small ? 4 : 2;
}

/* Bytes of an operand; `mem`: the operand is in memory, for types that ask. */
static inline unsigned type_size(const struct insn *insn, unsigned type, bool mem)
{
	static const uint8_t fixed[N_TYPES] = {
		[TYPE_B] = 1,  [TYPE_W] = 2,   [TYPE_D] = 4,   [TYPE_Q] = 8,
		[TYPE_T] = 10, [TYPE_DQ] = 16, [TYPE_QQ] = 32, [TYPE_OO] = 64,
	};
	bool long_mode = insn->mode == INSN_MODE_64;

	if (fixed[type])
		return fixed[type];
	switch (type) {
	case TYPE_V:
		return insn->opsize;
	case TYPE_Z:
		return insn->opsize == 2 ? 2 : 4;
	case TYPE_Y:
	case TYPE_YD:
		return long_mode && insn->rex & REX_W ? 8 : 4;
	case TYPE_YY:
		return long_mode ? 8 : 4;
	case TYPE_ADDR:
		return insn->addrsize;
	case TYPE_VW:
		return mem ? 2 : insn->opsize;
	case TYPE_DW:
		return mem ? 2 : 4;
	case TYPE_DB:
		return mem ? 1 : 4;
	case TYPE_P:
		return 2 + insn->opsize;
	case TYPE_A:
		return 2 * insn->opsize;
	case TYPE_S:
		return long_mode ? 10 : 6;
	case TYPE_ENV:
		return insn->opsize == 2 ? 14 : 28;
	case TYPE_FSAVE:
		return insn->opsize == 2 ? 94 : 108;
	case TYPE_FX:
		return 512;
	case TYPE_X:
		return insn_vector_bytes(insn);
	case TYPE_XH:
		return insn_vector_bytes(insn) / 2;
	case TYPE_XQ:
		return insn_vector_bytes(insn) / 4;
	case TYPE_XE:
		return insn_vector_bytes(insn) / 8;
	case TYPE_DUP:
		return insn->vex_l ? insn_vector_bytes(insn) : 8;
	default:
		return 0;
	}
}

static inline unsigned log2_size(unsigned bytes)
{
	return bytes ? 31 - __builtin_clz(bytes) : 0;
}

/* -- Memory ----------------------------------------------------------------------------------- */

/* ModRM with 16-bit addressing (SDM table 2-1). */
static enum decode_result read_memory_16(struct insn *insn, struct reader *r)
{
	static const uint8_t bases[8] = {REG_RBX, REG_RBX, REG_RBP, REG_RBP,
					 REG_RSI, REG_RDI, REG_RBP, REG_RBX};
	static const uint8_t indexes[8] = {REG_RSI,  REG_RDI,  REG_RSI,  REG_RDI,
					   REG_NONE, REG_NONE, REG_NONE, REG_NONE};
	unsigned mod = insn_mod(insn), rm = insn->modrm & 7;

	insn->base = bases[rm];
	insn->index = indexes[rm];
	insn->disp_size = mod;
	if (mod == 0 && rm == 6) {
		insn->base = REG_NONE;
		insn->disp_size = 2;
	}
	return insn->disp_size ? need(r, insn->disp_size) : DECODE_OK;
}

/* ModRM and SIB with 32-bit and 64-bit addressing (SDM tables 2-2 and 2-3). */
static enum decode_result read_memory_32(struct insn *insn, struct reader *r)
{
	unsigned mod = insn_mod(insn), rm = insn->modrm & 7;

	insn->disp_size = mod == 2 ? 4 : mod;
	insn->base = rm | (insn->rex & REX_B) << 3;
	if (rm == 4) {
		enum decode_result result = need(r, 1);
		uint8_t sib;

		if (result != DECODE_OK)
			return result;
		sib = take(r, 1);
		insn->has_sib = 1;
		insn->scale = sib >> 6;
		insn->index = (sib >> 3 & 7) | (insn->rex & REX_X) << 2;
		if (insn->index == REG_RSP && !insn->vsib) {
			insn->index = REG_NONE;
			insn->scale = 0;
		}
		insn->base = (sib & 7) | (insn->rex & REX_B) << 3;
		if (mod == 0 && (sib & 7) == 5) {
			insn->base = REG_NONE;
			insn->disp_size = 4;
		}
	} else if (mod == 0 && rm == 5) {
		insn->base = REG_NONE;
		insn->disp_size = 4;
		insn->rip_relative = insn->mode == INSN_MODE_64;
	}
	return insn->disp_size ? need(r, insn->disp_size) : DECODE_OK;
}

/* The memory operand of ModRM, all but its size. */
static enum decode_result read_memory(struct insn *insn, struct reader *r)
{
	enum decode_result result;

	insn->has_mem = 1;
	if (insn->vsib) {
		/* SIB is needed for the index (SDM 2.3.12). */
		if ((insn->modrm & 7) != 4 || insn->addrsize == 2)
			return DECODE_INVALID;
	}
	result = insn->addrsize == 2 ? read_memory_16(insn, r) : read_memory_32(insn, r);
	if (result != DECODE_OK)
		return result;
	if (insn->vsib && insn->encoding == ENC_EVEX)
		insn->index |= insn->vvvv & 16;
	if (insn->disp_size) {
		insn->disp_at = r->pos;
		insn->disp = sign_extend(take(r, insn->disp_size), insn->disp_size);
	}
	if (!(insn->prefixes >> PREFIX_SEG_SHIFT))
		insn->seg = insn->base == REG_RSP || insn->base == REG_RBP ? SEG_SS : SEG_DS;
	return DECODE_OK;
}

/* A memory operand that is not in ModRM. */
static inline void implied_memory(struct insn *insn, uint8_t base)
{
	insn->has_mem = 1;
	insn->base = base;
	insn->regs_read |= 1 << base;
}

/* -- Operands --------------------------------------------------------------------------------- */

static inline void gpr_operand(struct insn *insn, struct insn_operand *operand, unsigned reg,
			       unsigned type)
{
	unsigned size = type_size(insn, type, false), mask;

	/* Two sizes only, whatever the prefixes: then that is the operand size. */
	if (type == TYPE_Y || type == TYPE_YY)
		insn->opsize = size;
	operand->kind = OPERAND_GPR;
	operand->log2_size = log2_size(size);
	if (size == 1 && reg >= 4 && reg < 8 && !insn->rex) {
		operand->kind = OPERAND_GPR_HIGH;
		reg -= 4;
	}
	operand->reg = reg;
	mask = 1u << reg;
	if (operand->read)
		insn->regs_read |= mask;
	if (operand->written)
		insn->regs_written |= mask;
}

static inline void register_operand(struct insn_operand *operand, enum operand_kind kind,
				    unsigned reg, unsigned size)
{
	operand->kind = kind;
	operand->reg = reg;
	operand->log2_size = log2_size(size);
}

static inline void memory_operand(struct insn *insn, struct insn_operand *operand, unsigned type)
{
	unsigned size = type_size(insn, type, true);
	uint32_t attrs = insn->desc->attrs;

	operand->kind = OPERAND_MEM;
	if (insn->evex_b)
		size = attrs & OPC_B8 ? 8 : attrs & OPC_B4 ? 4 : 2;
	/* EVEX's disp8*N (SDM 2.7.5): N is what is accessed, or one element of it. */
	if (insn->encoding == ENC_EVEX && insn->disp_size == 1)
		insn->disp *= size;
	if (attrs & OPC_ELEMENT)
		size = insn_vector_bytes(insn);
	if (insn->desc->access == ACCESS_N || insn->desc->access == ACCESS_LEA) {
		operand->read = operand->written = 0;
		size = 0;
	}
	insn->mem_size = size;
	insn->mem_read = operand->read;
	insn->mem_written = operand->written;
}

static inline void string_operand(struct insn *insn, struct insn_operand *operand, bool source,
				  unsigned type, bool other)
{
	operand->kind = source ? OPERAND_STR_SRC : OPERAND_STR_DST;
	operand->log2_size = log2_size(type_size(insn, type, true));
	/* Where there are two, insn's memory operand is the source. */
	if (!source && other)
		return;
	insn->mem_size = type_size(insn, type, true);
	insn->mem_read = operand->read;
	insn->mem_written = operand->written;
	implied_memory(insn, source ? REG_RSI : REG_RDI);
	if (!source)
		insn->seg = SEG_ES;
}

static inline enum decode_result read_immediate(struct insn *insn, struct reader *r, unsigned size)
{
	enum decode_result result = need(r, size);

	if (result != DECODE_OK)
		return result;
	if (!insn->imm_size)
		insn->imm_at = r->pos;
	insn->imm_size += size;
	return DECODE_OK;
}

static inline enum decode_result immediate_operand(struct insn *insn, struct reader *r,
						   struct insn_operand *operand, unsigned where,
						   unsigned type)
{
	unsigned size = type_size(insn, type, false);
	enum decode_result result = read_immediate(insn, r, size);
	uint64_t value;

	if (result != DECODE_OK)
		return result;
	operand->kind = where == WHERE_I2 ? OPERAND_IMM2 : OPERAND_IMM;
	operand->log2_size = log2_size(where == WHERE_IS ? insn->opsize : size);
	if (where == WHERE_AP) {
		operand->kind = OPERAND_FAR;
		insn->imm = take(r, insn->opsize);
		insn->imm2 = take(r, 2);
		return DECODE_OK;
	}
	value = take(r, size);
	if (where == WHERE_I2)
		insn->imm2 = value;
	else if (where == WHERE_I)
		insn->imm = value;
	else
		insn->imm = sign_extend(value, size);
	return DECODE_OK;
}

/* moffs: an address of the address size instead of ModRM. */
static inline enum decode_result read_moffs(struct insn *insn, struct reader *r)
{
	enum decode_result result = need(r, insn->addrsize);

	if (result != DECODE_OK)
		return result;
	insn->has_mem = 1;
	insn->disp_at = r->pos;
	insn->disp_size = insn->addrsize;
	insn->disp = take(r, insn->addrsize);
	return DECODE_OK;
}

static enum decode_result read_operand(struct insn *insn, struct reader *r, unsigned code,
				       struct insn_operand *operand, bool other_string)
{
	/* CR0, 2, 3, 4, 8; with what else the register field may hold: #UD. */
	enum { VALID_CR = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 8 };
	unsigned where = OPERAND_WHERE(code), type = OPERAND_TYPE(code), reg;
	unsigned vector = insn_vector_bytes(insn);
	enum decode_result result;

	switch (where) {
	case WHERE_E:
		if (insn->has_mem)
			memory_operand(insn, operand, type);
		else
			gpr_operand(insn, operand, (insn->modrm & 7) | (insn->rex & REX_B) << 3,
				    type);
		break;
	case WHERE_G:
		gpr_operand(insn, operand, insn_reg(insn) & 15, type);
		/* EVEX.R' would be a register above 15. */
		if (insn->rex & REX_R2)
			return DECODE_INVALID;
		break;
	case WHERE_R:
		gpr_operand(insn, operand, (insn->modrm & 7) | (insn->rex & REX_B) << 3, type);
		break;
	case WHERE_B:
		gpr_operand(insn, operand, insn->vvvv, type);
		break;
	case WHERE_Z:
		gpr_operand(insn, operand, (insn->opcode & 7) | (insn->rex & REX_B) << 3, type);
		break;
	case WHERE_A:
		gpr_operand(insn, operand, REG_RAX, type);
		break;
	case WHERE_C:
		gpr_operand(insn, operand, REG_RCX, type);
		break;
	case WHERE_D:
		gpr_operand(insn, operand, REG_RDX, type);
		break;
	case WHERE_I:
	case WHERE_IS:
	case WHERE_I2:
	case WHERE_J:
	case WHERE_AP:
		return immediate_operand(insn, r, operand, where, type);
	case WHERE_ONE:
		operand->kind = OPERAND_IMM;
		insn->imm = 1;
		break;
	case WHERE_O:
		result = read_moffs(insn, r);
		if (result != DECODE_OK)
			return result;
		memory_operand(insn, operand, type);
		break;
	case WHERE_M:
	case WHERE_VM:
		if (!insn->has_mem)
			return DECODE_INVALID;
		memory_operand(insn, operand, type);
		break;
	case WHERE_X:
		string_operand(insn, operand, true, type, false);
		break;
	case WHERE_Y:
		string_operand(insn, operand, false, type, other_string);
		break;
	case WHERE_XLAT:
		implied_memory(insn, REG_RBX);
		memory_operand(insn, operand, type);
		break;
	case WHERE_DI:
		implied_memory(insn, REG_RDI);
		memory_operand(insn, operand, type);
		break;
	case WHERE_MON:
		implied_memory(insn, REG_RAX);
		memory_operand(insn, operand, type);
		break;
	case WHERE_S:
	case WHERE_SNOTCS:
		reg = insn->modrm >> 3 & 7;
		if (reg >= N_SEGS || (where == WHERE_SNOTCS && reg == SEG_CS))
			return DECODE_INVALID;
		register_operand(operand, OPERAND_SEG, reg, 2);
		break;
	case WHERE_SFIX:
		register_operand(operand, OPERAND_SEG, type, 2);
		break;
	case WHERE_CR:
		reg = insn_reg(insn);
		if (!(VALID_CR >> reg & 1))
			return DECODE_INVALID;
		register_operand(operand, OPERAND_CR, reg, type_size(insn, type, false));
		break;
	case WHERE_DR:
		reg = insn_reg(insn);
		if (reg > 7)
			return DECODE_INVALID;
		register_operand(operand, OPERAND_DR, reg, type_size(insn, type, false));
		break;
	case WHERE_ST0:
		register_operand(operand, OPERAND_ST, 0, 16);
		break;
	case WHERE_ST1:
		register_operand(operand, OPERAND_ST, 1, 16);
		break;
	case WHERE_STI:
		register_operand(operand, OPERAND_ST, insn->modrm & 7, 16);
		break;
	case WHERE_P: /* REX.R and REX.B are ignored */
		register_operand(operand, OPERAND_MMX, insn->modrm >> 3 & 7, 8);
		break;
	case WHERE_Q:
	case WHERE_N:
		if (insn->modrm < 0xc0) {
			if (where == WHERE_N)
				return DECODE_INVALID;
			memory_operand(insn, operand, type);
			break;
		}
		register_operand(operand, OPERAND_MMX, insn->modrm & 7, 8);
		break;
	case WHERE_V:
		register_operand(operand, OPERAND_VEC, insn_reg(insn), vector);
		break;
	case WHERE_W:
	case WHERE_U:
		if (insn->modrm < 0xc0) {
			if (where == WHERE_U)
				return DECODE_INVALID;
			memory_operand(insn, operand, type);
			break;
		}
		register_operand(operand, OPERAND_VEC, insn_rm(insn), vector);
		break;
	case WHERE_H:
		register_operand(operand, OPERAND_VEC, insn->vvvv, vector);
		break;
	case WHERE_L:
		result = read_immediate(insn, r, 1);
		if (result != DECODE_OK)
			return result;
		insn->imm = take(r, 1);
		reg = insn->imm >> 4 & (insn->mode == INSN_MODE_64 ? 15 : 7);
		register_operand(operand, OPERAND_VEC, reg, vector);
		break;
	case WHERE_XMM0:
		register_operand(operand, OPERAND_VEC, 0, 16);
		break;
	case WHERE_KG:
		reg = insn_reg(insn);
		if (reg > 7)
			return DECODE_INVALID;
		register_operand(operand, OPERAND_K, reg, 8);
		break;
	case WHERE_KE:
		if (insn->has_mem) {
			memory_operand(insn, operand, type);
			break;
		}
		register_operand(operand, OPERAND_K, insn->modrm & 7, 8); /* X and B ignored */
		break;
	case WHERE_KH:
		if (insn->vvvv > 7)
			return DECODE_INVALID;
		register_operand(operand, OPERAND_K, insn->vvvv, 8);
		break;
	}
	return DECODE_OK;
}

/* What an operation does with its operand at a place. */
static inline void operand_access(struct insn_operand *operand, enum op_access access, unsigned at)
{
	/* Bits at: read; bits 4 + at: written. */
	static const uint8_t accesses[] = {
		[ACCESS_N] = 0x00,   [ACCESS_R] = 0x0f,      [ACCESS_W] = 0x1e,
		[ACCESS_RW] = 0x1f,  [ACCESS_WW] = 0x3c,     [ACCESS_RWRW] = 0x3f,
		[ACCESS_LEA] = 0x1e, [ACCESS_GATHER] = 0x5f,
	};

	operand->read = accesses[access] >> at & 1;
	operand->written = accesses[access] >> (4 + at) & 1;
}

/* -- Rules that remain ------------------------------------------------------------------------ */

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
