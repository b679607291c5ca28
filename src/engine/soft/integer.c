/*
 * The commonest integer instructions in C: additions, logic, moves, flags. What is rarer is in
 * bits.c, or done by the host's own instruction (compute.c), as is everything with LOCK.
 */
#include "engine/soft/exec.h"

bool condition(uint64_t flags, unsigned int number)
{
	bool sf = flags & FLAG_SF, of = flags & FLAG_OF, result;

	switch (number >> 1) {
	case 0:
		result = of;
		break;
	case 1:
		result = flags & FLAG_CF;
		break;
	case 2:
		result = flags & FLAG_ZF;
		break;
	case 3:
		result = flags & (FLAG_CF | FLAG_ZF);
		break;
	case 4:
		result = sf;
		break;
	case 5:
		result = flags & FLAG_PF;
		break;
	case 6:
		result = sf != of;
		break;
	default:
		result = (flags & FLAG_ZF) || sf != of;
	}
	return result != (number & 1);
}

/* SF, ZF, PF of a result. */
static uint64_t result_flags(uint64_t value, unsigned int size)
{
	uint64_t flags = 0;

	if (size < 8)
		value &= (1ull << 8 * size) - 1;
	if (!value)
		flags |= FLAG_ZF;
	if (value >> (8 * size - 1) & 1)
		flags |= FLAG_SF;
	if (!__builtin_parity((unsigned int)value & 0xff))
		flags |= FLAG_PF;
	return flags;
}

static void set_flags(struct vcpu *cpu, uint64_t mask, uint64_t flags)
{
	cpu->s.rflags = (cpu->s.rflags & ~mask) | flags;
}

static uint64_t add(struct vcpu *cpu, uint64_t a, uint64_t b, bool carry, unsigned int size,
		    uint64_t mask)
{
	uint64_t r = a + b + carry, sign = 1ull << (8 * size - 1), flags;
	/* The carries out of each bit. */
	uint64_t carries = (a & b) | ((a | b) & ~r);

	flags = result_flags(r, size);
	if (carries & sign)
		flags |= FLAG_CF;
	if (carries & 8)
		flags |= FLAG_AF;
	if ((a ^ r) & (b ^ r) & sign)
		flags |= FLAG_OF;
	set_flags(cpu, mask, flags & mask);
	return r;
}

static uint64_t sub(struct vcpu *cpu, uint64_t a, uint64_t b, bool borrow, unsigned int size,
		    uint64_t mask)
{
	uint64_t r = a - b - borrow, sign = 1ull << (8 * size - 1), flags;
	uint64_t borrows = (~a & b) | ((~a | b) & r);

	flags = result_flags(r, size);
	if (borrows & sign)
		flags |= FLAG_CF;
	if (borrows & 8)
		flags |= FLAG_AF;
	if ((a ^ b) & (a ^ r) & sign)
		flags |= FLAG_OF;
	set_flags(cpu, mask, flags & mask);
	return r;
}

/* AF is undefined; processors clear it. */
static uint64_t logic(struct vcpu *cpu, uint64_t r, unsigned int size)
{
	set_flags(cpu, FLAGS_ARITH, result_flags(r, size));
	return r;
}

static void alu2(struct vcpu *cpu, const struct insn *insn)
{
	bool carry = cpu->s.rflags & FLAG_CF;
	unsigned int size = insn_operand_bytes(insn, 0);
	uint64_t a, b = operand_read(cpu, 1), r;
	struct place p;

	if (insn->op == OP_CMP || insn->op == OP_TEST) {
		a = operand_read(cpu, 0);
		if (insn->op == OP_CMP)
			sub(cpu, a, b, false, size, FLAGS_ARITH);
		else
			logic(cpu, a & b, size);
		return;
	}
	place_open(cpu, 0, &p);
	a = place_load(cpu, &p);
	switch (insn->op) {
	case OP_ADD:
		r = add(cpu, a, b, false, size, FLAGS_ARITH);
		break;
	case OP_ADC:
		r = add(cpu, a, b, carry, size, FLAGS_ARITH);
		break;
	case OP_SUB:
		r = sub(cpu, a, b, false, size, FLAGS_ARITH);
		break;
	case OP_SBB:
		r = sub(cpu, a, b, carry, size, FLAGS_ARITH);
		break;
	case OP_AND:
		r = logic(cpu, a & b, size);
		break;
	case OP_OR:
		r = logic(cpu, a | b, size);
		break;
	default:
		r = logic(cpu, a ^ b, size);
	}
	place_store(cpu, &p, r);
}

static void alu1(struct vcpu *cpu, const struct insn *insn)
{
	unsigned int size = insn_operand_bytes(insn, 0);
	struct place p;
	uint64_t a, r;

	place_open(cpu, 0, &p);
	a = place_load(cpu, &p);
	switch (insn->op) {
	case OP_INC:
		r = add(cpu, a, 1, false, size, FLAGS_ARITH & ~FLAG_CF);
		break;
	case OP_DEC:
		r = sub(cpu, a, 1, false, size, FLAGS_ARITH & ~FLAG_CF);
		break;
	case OP_NEG:
		r = sub(cpu, 0, a, false, size, FLAGS_ARITH);
		break;
	default:
		r = ~a;
	}
	place_store(cpu, &p, r);
}

static uint64_t sign_extend(uint64_t value, unsigned int size)
{
	unsigned int shift = 64 - 8 * size;

	return (uint64_t)((int64_t)(value << shift) >> shift);
}

/* SHL, SHR, SAR. AF, and OF of counts above 1, are undefined: AF is cleared as by processors, OF is
 * that of a count of 1. */
static void shift(struct vcpu *cpu, const struct insn *insn)
{
	unsigned int size = insn_operand_bytes(insn, 0), bits = 8 * size;
	unsigned int count = (unsigned int)operand_read(cpu, 1) & (size == 8 ? 63 : 31);
	uint64_t a, r, sign = 1ull << (bits - 1), flags;
	bool carry, overflow;
	struct place p;

	place_open(cpu, 0, &p);
	a = place_load(cpu, &p);
	if (!count) {
		/* A 32-bit register's upper half is cleared nevertheless. */
		place_store(cpu, &p, a);
		return;
	}
	switch (insn->op) {
	case OP_SHL:
		carry = count <= bits && (a >> (bits - count) & 1);
		r = a << count;
		overflow = carry != !!(r & sign);
		break;
	case OP_SHR:
		carry = a >> (count - 1) & 1;
		r = a >> count;
		overflow = a & sign;
		break;
	default: {
		int64_t s = (int64_t)sign_extend(a, size);

		carry = s >> (count - 1) & 1;
		r = (uint64_t)(s >> count);
		overflow = false;
	}
	}
	flags = result_flags(r, size) | (carry ? FLAG_CF : 0) | (overflow ? FLAG_OF : 0);
	place_store(cpu, &p, r);
	set_flags(cpu, FLAGS_ARITH, flags);
}

/* MUL and IMUL of 4 and 8 bytes; SF, ZF, AF, PF are undefined and stay. */
static void multiply(struct vcpu *cpu, const struct insn *insn)
{
	unsigned int size = insn_operand_bytes(insn, 0);
	uint64_t low, high;
	bool overflow;

	if (insn->op == OP_MUL || insn->op == OP_IMUL1) {
		uint64_t a = reg_read(cpu, REG_RAX, size), b = operand_read(cpu, 0);

		if (insn->op == OP_MUL) {
			unsigned __int128 r = (unsigned __int128)a * b;

			low = (uint64_t)r;
			high = size == 8 ? (uint64_t)(r >> 64) : low >> 32;
			overflow = high != 0;
		} else {
			__int128 r = (__int128)(int64_t)sign_extend(a, size) *
				     (int64_t)sign_extend(b, size);

			low = (uint64_t)r;
			high = size == 8 ? (uint64_t)(r >> 64) : low >> 32;
			overflow = r != (int64_t)sign_extend(low, size);
		}
		reg_write(cpu, REG_RAX, size, low);
		reg_write(cpu, REG_RDX, size, high);
	} else {
		unsigned int first = insn->op == OP_IMUL3 ? 1 : 0;
		__int128 r = (__int128)(int64_t)sign_extend(operand_read(cpu, first), size) *
			     (int64_t)sign_extend(operand_read(cpu, first + 1), size);

		low = (uint64_t)r;
		overflow = r != (int64_t)sign_extend(low, size);
		operand_write(cpu, 0, low);
	}
	set_flags(cpu, FLAG_CF | FLAG_OF, overflow ? FLAG_CF | FLAG_OF : 0);
}

/* MOV to and from segment registers; the former of 2 bytes, the latter of the operand size to
 * registers, of 2 bytes to memory. */
static void mov(struct vcpu *cpu, const struct insn *insn)
{
	if (insn->operands[0].kind == OPERAND_SEG) {
		unsigned int seg = insn->operands[0].reg;
		uint16_t selector;

		if (seg == SEG_CS || seg >= N_SEGS)
			raise_ud(cpu);
		if (insn->operands[1].kind == OPERAND_MEM)
			selector = (uint16_t)insn_load(cpu, 0, 2);
		else
			selector = (uint16_t)cpu->s.regs[insn->operands[1].reg];
		segment_load(cpu, seg, selector);
		cpu->shadow_next = seg == SEG_SS;
		return;
	}
	if (insn->operands[1].kind == OPERAND_SEG) {
		uint64_t selector = cpu->s.segs[insn->operands[1].reg].selector;

		if (insn->operands[1].reg >= N_SEGS)
			raise_ud(cpu);
		if (insn->operands[0].kind == OPERAND_MEM)
			lin_write(cpu, insn_linear(cpu, 2, true), &selector, 2,
				  mmu_data_access(cpu, true));
		else
			reg_write(cpu, insn->operands[0].reg, insn->opsize, selector);
		return;
	}
	operand_write(cpu, 0, operand_read(cpu, 1));
}

static void xchg(struct vcpu *cpu)
{
	struct place a, b;
	uint64_t va, vb;

	place_open(cpu, 0, &a);
	place_open(cpu, 1, &b);
	va = place_load(cpu, &a);
	vb = place_load(cpu, &b);
	place_store(cpu, &a, vb);
	place_store(cpu, &b, va);
}

static void flags_op(struct vcpu *cpu, const struct insn *insn)
{
	const uint64_t ah = FLAG_SF | FLAG_ZF | FLAG_AF | FLAG_PF | FLAG_CF;

	switch (insn->op) {
	case OP_CLC:
		set_flags(cpu, FLAG_CF, 0);
		break;
	case OP_STC:
		set_flags(cpu, FLAG_CF, FLAG_CF);
		break;
	case OP_CMC:
		cpu->s.rflags ^= FLAG_CF;
		break;
	case OP_CLD:
		set_flags(cpu, FLAG_DF, 0);
		break;
	case OP_STD:
		set_flags(cpu, FLAG_DF, FLAG_DF);
		break;
	case OP_LAHF:
		cpu->s.regs[REG_RAX] =
			(cpu->s.regs[REG_RAX] & ~0xff00ull) | ((cpu->s.rflags & ah) | 2) << 8;
		break;
	default: /* SAHF */
		set_flags(cpu, ah, cpu->s.regs[REG_RAX] >> 8 & ah);
	}
}

void exec_integer(struct vcpu *cpu)
{
	const struct insn *insn = cpu->insn;

	if (insn_class(insn) == INSN_FLAG) {
		flags_op(cpu, insn);
		return;
	}
	if (insn_class(insn) == INSN_NOP) {
		if (insn->op == OP_CLFLUSH || insn->op == OP_CLFLUSHOPT || insn->op == OP_CLWB)
			insn_load(cpu, 0, 1);
		else if (insn->op == OP_MFENCE || insn->op == OP_SERIALIZE)
			__atomic_thread_fence(__ATOMIC_SEQ_CST);
		return;
	}
	if (insn->prefixes & PREFIX_LOCK) {
		if (insn->op == OP_BTS || insn->op == OP_BTR || insn->op == OP_BTC)
			exec_bits(cpu);
		else
			exec_compute(cpu);
		return;
	}
	switch (insn->op) {
	case OP_ADD:
	case OP_OR:
	case OP_ADC:
	case OP_SBB:
	case OP_AND:
	case OP_SUB:
	case OP_XOR:
	case OP_CMP:
	case OP_TEST:
		alu2(cpu, insn);
		break;
	case OP_INC:
	case OP_DEC:
	case OP_NOT:
	case OP_NEG:
		alu1(cpu, insn);
		break;
	case OP_SHL:
	case OP_SHR:
	case OP_SAR:
		shift(cpu, insn);
		break;
	case OP_MUL:
	case OP_IMUL1:
	case OP_IMUL:
	case OP_IMUL3:
		if (insn_operand_bytes(insn, 0) >= 4)
			multiply(cpu, insn);
		else
			exec_compute(cpu);
		break;
	case OP_MOV:
		mov(cpu, insn);
		break;
	case OP_MOVZX:
		operand_write(cpu, 0, operand_read(cpu, 1));
		break;
	case OP_MOVSX:
	case OP_MOVSXD:
		operand_write(cpu, 0,
			      sign_extend(operand_read(cpu, 1), insn_operand_bytes(insn, 1)));
		break;
	case OP_LEA:
		reg_write(cpu, insn->operands[0].reg, insn->opsize, insn_offset(cpu));
		break;
	case OP_CMOVCC: {
		/* The source is read in any case; a 32-bit destination always has its upper half
		 * cleared. */
		uint64_t value = operand_read(cpu, 1);

		if (!condition(cpu->s.rflags, insn_condition(insn)))
			value = operand_read(cpu, 0);
		operand_write(cpu, 0, value);
		break;
	}
	case OP_SETCC:
		operand_write(cpu, 0, condition(cpu->s.rflags, insn_condition(insn)));
		break;
	case OP_XCHG:
		if (insn->has_mem)
			exec_compute(cpu); /* locked by itself */
		else
			xchg(cpu);
		break;
	case OP_BT:
	case OP_BTS:
	case OP_BTR:
	case OP_BTC:
	case OP_BSWAP:
	case OP_XLAT:
	case OP_LDS:
	case OP_LES:
	case OP_LFS:
	case OP_LGS:
	case OP_LSS:
	case OP_MOVDIR64B:
	case OP_AAA:
	case OP_AAS:
	case OP_DAA:
	case OP_DAS:
	case OP_AAM:
	case OP_AAD:
	case OP_SALC:
		exec_bits(cpu);
		break;
	default:
		exec_compute(cpu);
	}
}
