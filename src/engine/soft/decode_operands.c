/*
 * The decoder's operands: their sizes, memory addresses, registers and immediates, as the codes in
 * a row say. Called by decode.c alone.
 *
 * Source: Intel SDM volume 2, 2.1.5 (addressing), 2.2.1 (REX), 2.3.12 (VSIB), 2.7.5 (disp8*N).
 */
#include "engine/soft/decode_reader.h"

/* -- Sizes ------------------------------------------------------------------------------------- */

uint8_t operand_size(const struct insn *insn, uint32_t attrs)
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

/* -- Memory ------------------------------------------------------------------------------------ */

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
enum decode_result read_memory(struct insn *insn, struct reader *r)
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

/* -- Operands ---------------------------------------------------------------------------------- */

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

enum decode_result read_operand(struct insn *insn, struct reader *r, unsigned code,
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
void operand_access(struct insn_operand *operand, enum op_access access, unsigned at)
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
