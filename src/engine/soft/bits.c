/*
 * Integer instructions that can't run as they are on the host in 64-bit mode, or whose memory
 * operand is not where ModRM says: bit strings, decimal arithmetic, far pointers, XLAT.
 */
#include "engine/soft/exec.h"

/* BT, BTS, BTR, BTC: with a register as bit offset the operand is a bit string in memory. */
static void bit_test(struct vcpu *cpu, const struct insn *insn)
{
	unsigned int size = insn_operand_bytes(insn, 0), bit;
	bool write = insn->op != OP_BT, in_register = insn->operands[0].kind != OPERAND_MEM;
	uint64_t offset = operand_read(cpu, 1), value = 0, mask;

	if (in_register) {
		bit = offset & (8 * size - 1);
		mask = 1ull << bit;
		value = operand_read(cpu, 0);
	} else {
		uint64_t at = insn_offset(cpu), lin;
		struct mem_ref ref;
		uint8_t *byte;

		if (insn->operands[1].kind == OPERAND_GPR) {
			int64_t s = size == 8   ? (int64_t)offset
				    : size == 4 ? (int32_t)offset
						: (int16_t)offset;

			at += (uint64_t)((s >> (size == 8   ? 6
						: size == 4 ? 5
							    : 4)) *
					 (int64_t)size);
			if (insn->addrsize == 4)
				at = (uint32_t)at;
			else if (insn->addrsize == 2)
				at = (uint16_t)at;
		}
		bit = offset & (8 * size - 1);
		mask = 1ull << bit;
		lin = seg_linear(cpu, insn->seg, at, size, write);
		mem_open(cpu, lin, size, mmu_data_access(cpu, write), &ref);
		byte = write ? ref_host(&ref) : NULL;
		if (byte && (insn->prefixes & PREFIX_LOCK)) {
			uint8_t one = (uint8_t)(1u << (bit & 7)), old;

			/* One byte is all that changes. */
			byte += bit >> 3;
			if (insn->op == OP_BTS)
				old = __atomic_fetch_or(byte, one, __ATOMIC_SEQ_CST);
			else if (insn->op == OP_BTR)
				old = __atomic_fetch_and(byte, (uint8_t)~one, __ATOMIC_SEQ_CST);
			else
				old = __atomic_fetch_xor(byte, one, __ATOMIC_SEQ_CST);
			ref_dirty(&ref);
			value = old & one ? mask : 0;
		} else {
			bool lock = (insn->prefixes & PREFIX_LOCK) && ref_is_ram(&ref);
			uint64_t changed;

			if (lock)
				pthread_mutex_lock(&cpu->vm->split_lock);
			ref_load(cpu, &ref, &value);
			changed = insn->op == OP_BTS   ? value | mask
				  : insn->op == OP_BTR ? value & ~mask
						       : value ^ mask;
			if (write)
				ref_store(cpu, &ref, &changed);
			if (lock)
				pthread_mutex_unlock(&cpu->vm->split_lock);
		}
		write = false;
	}
	if (write)
		operand_write(cpu, 0,
			      insn->op == OP_BTS   ? value | mask
			      : insn->op == OP_BTR ? value & ~mask
						   : value ^ mask);
	cpu->s.rflags &= ~(uint64_t)FLAG_CF;
	if (value & mask)
		cpu->s.rflags |= FLAG_CF;
}

/* ---- Decimal arithmetic (SDM volume 2A, the instructions' pages) ---- */

static void set_al_flags(struct vcpu *cpu, uint8_t al, uint64_t more)
{
	uint64_t flags = more;

	if (!al)
		flags |= FLAG_ZF;
	if (al & 0x80)
		flags |= FLAG_SF;
	if (!__builtin_parity(al))
		flags |= FLAG_PF;
	cpu->s.rflags = (cpu->s.rflags & ~(uint64_t)FLAGS_ARITH) | flags;
}

static void decimal(struct vcpu *cpu, const struct insn *insn)
{
	uint16_t ax = (uint16_t)cpu->s.regs[REG_RAX];
	uint8_t al = (uint8_t)ax, ah = (uint8_t)(ax >> 8), old = al;
	bool cf = cpu->s.rflags & FLAG_CF, af = cpu->s.rflags & FLAG_AF;
	bool low = (al & 15) > 9 || af, high = al > 0x99 || cf;

	switch (insn->op) {
	case OP_AAA:
		if (low)
			ax = (uint16_t)(ax + 0x106);
		ax &= 0xff0f;
		set_al_flags(cpu, (uint8_t)ax, low ? FLAG_AF | FLAG_CF : 0);
		break;
	case OP_AAS:
		if (low)
			ax = (uint16_t)(ax - 0x106);
		ax &= 0xff0f;
		set_al_flags(cpu, (uint8_t)ax, low ? FLAG_AF | FLAG_CF : 0);
		break;
	case OP_DAA:
		if (low)
			al = (uint8_t)(al + 6);
		if (high)
			al = (uint8_t)(al + 0x60);
		set_al_flags(cpu, al, (low ? FLAG_AF : 0) | (high ? FLAG_CF : 0));
		ax = (uint16_t)(ah << 8 | al);
		break;
	case OP_DAS: {
		bool carry = cf;

		if (low) {
			carry = cf || old < 6;
			al = (uint8_t)(al - 6);
		}
		if (high) {
			al = (uint8_t)(al - 0x60);
			carry = true;
		}
		set_al_flags(cpu, al, (low ? FLAG_AF : 0) | (carry ? FLAG_CF : 0));
		ax = (uint16_t)(ah << 8 | al);
		break;
	}
	case OP_AAM:
		if (!(uint8_t)insn->imm)
			raise_exception(cpu, EXC_DE);
		ah = al / (uint8_t)insn->imm;
		al = al % (uint8_t)insn->imm;
		set_al_flags(cpu, al, 0);
		ax = (uint16_t)(ah << 8 | al);
		break;
	case OP_AAD:
		al = (uint8_t)(al + ah * (uint8_t)insn->imm);
		set_al_flags(cpu, al, 0);
		ax = al;
		break;
	default: /* SALC */
		ax = (uint16_t)(ah << 8 | (cf ? 0xff : 0));
	}
	reg_write(cpu, REG_RAX, 2, ax);
}

static void load_far(struct vcpu *cpu, const struct insn *insn, unsigned int seg)
{
	unsigned int size = insn->opsize;
	uint64_t offset = insn_load(cpu, 0, size);
	uint16_t selector = (uint16_t)insn_load(cpu, size, 2);

	segment_load(cpu, seg, selector);
	reg_write(cpu, insn->operands[0].reg, size, offset);
}

/* 64 bytes from the memory operand to ES:operand 0, which must be aligned. */
static void movdir64b(struct vcpu *cpu, const struct insn *insn)
{
	uint64_t to = reg_read(cpu, insn->operands[0].reg, insn->addrsize);
	uint8_t data[64];

	lin_read(cpu, seg_linear(cpu, insn->seg, insn_offset(cpu), 64, false), data, 64,
		 mmu_data_access(cpu, false));
	to = seg_linear(cpu, SEG_ES, to, 64, true);
	if (to & 63)
		raise_gp(cpu);
	lin_write(cpu, to, data, 64, mmu_data_access(cpu, true));
}

void exec_bits(struct vcpu *cpu)
{
	const struct insn *insn = cpu->insn;

	switch (insn->op) {
	case OP_BT:
	case OP_BTS:
	case OP_BTR:
	case OP_BTC:
		bit_test(cpu, insn);
		break;
	case OP_BSWAP: {
		unsigned int reg = insn->operands[0].reg;

		/* Of 16 bits it is undefined; processors give zero. */
		if (insn->opsize == 8)
			cpu->s.regs[reg] = __builtin_bswap64(cpu->s.regs[reg]);
		else if (insn->opsize == 4)
			cpu->s.regs[reg] = __builtin_bswap32((uint32_t)cpu->s.regs[reg]);
		else
			reg_write(cpu, reg, 2, 0);
		break;
	}
	case OP_XLAT: {
		uint64_t at =
			reg_read(cpu, REG_RBX, insn->addrsize) + (uint8_t)cpu->s.regs[REG_RAX];
		uint8_t value;

		if (insn->addrsize == 4)
			at = (uint32_t)at;
		else if (insn->addrsize == 2)
			at = (uint16_t)at;
		lin_read(cpu, seg_linear(cpu, insn->seg, at, 1, false), &value, 1,
			 mmu_data_access(cpu, false));
		reg_write(cpu, REG_RAX, 1, value);
		break;
	}
	case OP_LDS:
		load_far(cpu, insn, SEG_DS);
		break;
	case OP_LES:
		load_far(cpu, insn, SEG_ES);
		break;
	case OP_LFS:
		load_far(cpu, insn, SEG_FS);
		break;
	case OP_LGS:
		load_far(cpu, insn, SEG_GS);
		break;
	case OP_LSS:
		load_far(cpu, insn, SEG_SS);
		break;
	case OP_MOVDIR64B:
		movdir64b(cpu, insn);
		break;
	default:
		decimal(cpu, insn);
	}
}
