/*
 * The stack and control transfers. Each reads and checks all it needs, writes the stack, and only
 * then changes registers, so that a fault finds the processor as it was.
 */
#include "engine/soft/exec.h"

/* The size of the stack accesses of PUSH, CALL...: the operand size. */
static unsigned int stack_size(const struct insn *insn)
{
	return insn->opsize;
}

void branch(struct vcpu *cpu, uint64_t target, unsigned int size)
{
	if (size == 4)
		target = (uint32_t)target;
	else if (size == 2)
		target = (uint16_t)target;
	if (cpu->bits == 64 ? !is_canonical(target) : target > cpu->s.segs[SEG_CS].limit)
		raise_gp(cpu);
	cpu->next_rip = target;
}

static void exec_push(struct vcpu *cpu, const struct insn *insn)
{
	push(cpu, stack_size(insn), operand_read(cpu, 0));
}

static void exec_pop(struct vcpu *cpu, const struct insn *insn)
{
	unsigned int size = stack_size(insn);
	uint64_t sp = stack_pointer(cpu), old = cpu->s.regs[REG_RSP];
	uint64_t value = stack_read(cpu, sp, size);
	struct mem_ref ref;
	uint64_t lin;

	switch (insn->operands[0].kind) {
	case OPERAND_SEG: {
		/* Loading SS changes how the pointer is cut; it moves by its old size. */
		uint8_t stack_bits = cpu->stack_bits;
		uint8_t after;

		segment_load(cpu, insn->operands[0].reg, (uint16_t)value);
		after = cpu->stack_bits;
		cpu->stack_bits = stack_bits;
		set_stack_pointer(cpu, sp + size);
		cpu->stack_bits = after;
		cpu->shadow_next = insn->operands[0].reg == SEG_SS;
		break;
	}
	case OPERAND_MEM:
		/* An address by RSP is that after the pop. */
		set_stack_pointer(cpu, sp + size);
		lin = insn_offset(cpu);
		cpu->s.regs[REG_RSP] = old;
		lin = seg_linear(cpu, insn->seg, lin, size, true);
		mem_open(cpu, lin, size, mmu_data_access(cpu, true), &ref);
		set_stack_pointer(cpu, sp + size);
		ref_store(cpu, &ref, &value);
		break;
	default:
		set_stack_pointer(cpu, sp + size);
		reg_write(cpu, insn->operands[0].reg, size, value);
	}
}

/* Several values at once: the writes happen before the pointer moves. */
static void push_all(struct vcpu *cpu, unsigned int size)
{
	uint64_t sp = stack_pointer(cpu), mask = cpu->stack_bits == 32 ? 0xffffffff : 0xffff;

	for (unsigned int i = 0; i < 8; i++) {
		uint64_t value = cpu->s.regs[i];

		sp = (sp - size) & mask;
		lin_write(cpu, seg_linear(cpu, SEG_SS, sp, size, true), &value, size,
			  mmu_data_access(cpu, true));
	}
	set_stack_pointer(cpu, sp);
}

static void pop_all(struct vcpu *cpu, unsigned int size)
{
	uint64_t sp = stack_pointer(cpu), values[8];

	for (unsigned int i = 0; i < 8; i++)
		values[i] = stack_read(cpu, sp + i * size, size);
	set_stack_pointer(cpu, sp + 8 * size);
	for (unsigned int i = 0; i < 8; i++)
		if (7 - i != REG_RSP)
			reg_write(cpu, 7 - i, size, values[i]);
}

static void push_flags(struct vcpu *cpu, unsigned int size)
{
	if (cpu->v86 && ((cpu->s.rflags >> 12) & 3) < 3)
		raise_gp(cpu);
	push(cpu, size, (cpu->s.rflags | 2) & ~(uint64_t)(FLAG_RF | FLAG_VM));
}

void flags_write(struct vcpu *cpu, uint64_t value, unsigned int size)
{
	uint64_t mask = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT;
	unsigned int iopl = (unsigned int)(cpu->s.rflags >> 12) & 3;

	if (size > 2)
		mask |= FLAG_AC | FLAG_ID | FLAG_RF;
	if (cpu->cpl <= iopl)
		mask |= FLAG_IF;
	if (cpu->cpl == 0)
		mask |= FLAG_IOPL;
	value &= ~(uint64_t)FLAG_RF; /* POPF clears it */
	cpu->s.rflags = (cpu->s.rflags & ~mask) | (value & mask) | 2;
}

static void pop_flags(struct vcpu *cpu, unsigned int size)
{
	uint64_t value;

	if (cpu->v86 && ((cpu->s.rflags >> 12) & 3) < 3)
		raise_gp(cpu);
	value = pop(cpu, size);
	flags_write(cpu, value, size);
}

/* ENTER with its copies of frame pointers (SDM volume 2A, "ENTER"). */
static void enter(struct vcpu *cpu, const struct insn *insn)
{
	unsigned int size = stack_size(insn), level = insn->imm2 & 31;
	uint64_t mask = cpu->stack_bits == 64 ? ~0ull : cpu->stack_bits == 32 ? 0xffffffff : 0xffff;
	uint64_t sp = stack_pointer(cpu), bp = cpu->s.regs[REG_RBP], frame, value = bp;
	enum access access = mmu_data_access(cpu, true);

	sp = (sp - size) & mask;
	lin_write(cpu, seg_linear(cpu, SEG_SS, sp, size, true), &value, size, access);
	frame = sp;
	for (unsigned int i = 1; i < level; i++) {
		bp = bp - size;
		value = stack_read(cpu, bp & mask, size);
		sp = (sp - size) & mask;
		lin_write(cpu, seg_linear(cpu, SEG_SS, sp, size, true), &value, size, access);
	}
	if (level) {
		sp = (sp - size) & mask;
		lin_write(cpu, seg_linear(cpu, SEG_SS, sp, size, true), &frame, size, access);
	}
	sp = (sp - (uint16_t)insn->imm) & mask;
	/* The new top must be writable, too. */
	{
		struct mem_ref ref;

		mem_open(cpu, seg_linear(cpu, SEG_SS, sp, size, true), size, access, &ref);
	}
	reg_write(cpu, REG_RBP, size, frame);
	set_stack_pointer(cpu, sp);
}

static void leave(struct vcpu *cpu, unsigned int size)
{
	uint64_t bp = cpu->s.regs[REG_RBP];
	uint64_t value = stack_read(cpu, bp, size);

	set_stack_pointer(cpu, bp + size);
	reg_write(cpu, REG_RBP, size, value);
}

static void call(struct vcpu *cpu, uint64_t target, unsigned int size)
{
	uint64_t back = cpu->next_rip, old = cpu->s.regs[REG_RSP], sp;

	/* The return address is written even where the target turns out to be none. */
	push(cpu, size, back);
	sp = cpu->s.regs[REG_RSP];
	cpu->s.regs[REG_RSP] = old;
	branch(cpu, target, size);
	cpu->s.regs[REG_RSP] = sp;
}

static void loop(struct vcpu *cpu, const struct insn *insn)
{
	uint64_t count = count_read(cpu, REG_RCX) - 1;
	bool zf = cpu->s.rflags & FLAG_ZF, taken;

	if (insn->addrsize < 8)
		count &= (1ull << 8 * insn->addrsize) - 1;
	taken = count != 0;
	if (insn->op == OP_LOOPE)
		taken = taken && zf;
	else if (insn->op == OP_LOOPNE)
		taken = taken && !zf;
	if (taken)
		branch(cpu, cpu->next_rip + insn->imm, insn->opsize);
	count_write(cpu, REG_RCX, count);
}

/* Far transfers through memory: offset, then selector. */
static void far_transfer(struct vcpu *cpu, const struct insn *insn)
{
	unsigned int size = insn->opsize;
	uint64_t offset;
	uint16_t selector;

	if (insn->has_mem) {
		offset = insn_load(cpu, 0, size);
		selector = (uint16_t)insn_load(cpu, size, 2);
	} else {
		offset = size == 2 ? (uint16_t)insn->imm : insn->imm;
		selector = insn->imm2;
	}
	if (insn->op == OP_JMP_FAR)
		far_jump(cpu, selector, offset, size);
	else
		far_call(cpu, selector, offset, size);
}

static void interrupt(struct vcpu *cpu, enum event_kind kind, unsigned int vector)
{
	uint64_t next = cpu->next_rip;

	event_deliver(cpu, kind, vector, false, 0, next);
	cpu->next_rip = cpu->s.rip;
	cpu->skip_trap = true;
}

void exec_control(struct vcpu *cpu)
{
	const struct insn *insn = cpu->insn;
	unsigned int size = insn->opsize;

	switch (insn->op) {
	case OP_PUSH:
		exec_push(cpu, insn);
		break;
	case OP_POP:
		exec_pop(cpu, insn);
		break;
	case OP_PUSHA:
		push_all(cpu, size);
		break;
	case OP_POPA:
		pop_all(cpu, size);
		break;
	case OP_PUSHF:
		push_flags(cpu, size);
		break;
	case OP_POPF:
		pop_flags(cpu, size);
		break;
	case OP_ENTER:
		enter(cpu, insn);
		break;
	case OP_LEAVE:
		leave(cpu, size);
		break;
	case OP_JMP:
		branch(cpu, cpu->next_rip + insn->imm, size);
		break;
	case OP_JCC:
		if (condition(cpu->s.rflags, insn_condition(insn)))
			branch(cpu, cpu->next_rip + insn->imm, size);
		break;
	case OP_CALL:
		call(cpu, cpu->next_rip + insn->imm, size);
		break;
	case OP_LOOP:
	case OP_LOOPE:
	case OP_LOOPNE:
		loop(cpu, insn);
		break;
	case OP_JRCXZ:
		if (!count_read(cpu, REG_RCX))
			branch(cpu, cpu->next_rip + insn->imm, size);
		break;
	case OP_JMP_IND:
		branch(cpu, operand_read(cpu, 0), size);
		break;
	case OP_CALL_IND:
		call(cpu, operand_read(cpu, 0), size);
		break;
	case OP_RET: {
		uint64_t sp = stack_pointer(cpu), target = stack_read(cpu, sp, size);

		branch(cpu, target, size);
		set_stack_pointer(
			cpu,
			sp + size +
				(insn->operands[0].kind == OPERAND_IMM ? (uint16_t)insn->imm : 0));
		break;
	}
	case OP_JMP_FAR:
	case OP_CALL_FAR:
		far_transfer(cpu, insn);
		break;
	case OP_RET_FAR:
		far_return(cpu, size,
			   insn->operands[0].kind == OPERAND_IMM ? (uint16_t)insn->imm : 0);
		break;
	case OP_IRET:
		interrupt_return(cpu, size);
		cpu->keep_rf = true;
		break;
	case OP_INT:
		if (cpu->v86 && ((cpu->s.rflags >> 12) & 3) < 3)
			raise_gp(cpu);
		interrupt(cpu, EVENT_SOFT_INTERRUPT, (uint8_t)insn->imm);
		break;
	case OP_INT3:
		interrupt(cpu, EVENT_SOFT_EXCEPTION, EXC_BP);
		break;
	case OP_INTO:
		if (cpu->s.rflags & FLAG_OF)
			interrupt(cpu, EVENT_SOFT_EXCEPTION, EXC_OF);
		break;
	case OP_INT1:
		interrupt(cpu, EVENT_ICEBP, EXC_DB);
		break;
	default:
		exec_syscall(cpu);
	}
}
