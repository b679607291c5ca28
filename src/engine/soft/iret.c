/*
 * IRET in all modes (SDM volume 2A, "IRET"; volume 3, 6.12.1, 6.14.3), and the stack's primitives.
 */
#include "engine/soft/soft.h"

/* ---- The stack ---- */

uint64_t stack_pointer(const struct vcpu *cpu)
{
	switch (cpu->stack_bits) {
	case 64:
		return cpu->s.regs[REG_RSP];
	case 32:
		return (uint32_t)cpu->s.regs[REG_RSP];
	default:
		return (uint16_t)cpu->s.regs[REG_RSP];
	}
}

void set_stack_pointer(struct vcpu *cpu, uint64_t sp)
{
	switch (cpu->stack_bits) {
	case 64:
		cpu->s.regs[REG_RSP] = sp;
		break;
	case 32:
		cpu->s.regs[REG_RSP] = (uint32_t)sp;
		break;
	default:
		cpu->s.regs[REG_RSP] = (cpu->s.regs[REG_RSP] & ~0xffffull) | (uint16_t)sp;
	}
}

static uint64_t wrap_sp(const struct vcpu *cpu, uint64_t sp)
{
	return cpu->stack_bits == 64 ? sp : cpu->stack_bits == 32 ? (uint32_t)sp : (uint16_t)sp;
}

uint64_t stack_read(struct vcpu *cpu, uint64_t sp, unsigned int size)
{
	uint64_t value = 0;

	lin_read(cpu, seg_linear(cpu, SEG_SS, wrap_sp(cpu, sp), size, false), &value, size,
		 mmu_data_access(cpu, false));
	return value;
}

void push(struct vcpu *cpu, unsigned int size, uint64_t value)
{
	uint64_t sp = wrap_sp(cpu, stack_pointer(cpu) - size);

	lin_write(cpu, seg_linear(cpu, SEG_SS, sp, size, true), &value, size,
		  mmu_data_access(cpu, true));
	set_stack_pointer(cpu, sp);
}

uint64_t pop(struct vcpu *cpu, unsigned int size)
{
	uint64_t sp = stack_pointer(cpu), value = stack_read(cpu, sp, size);

	set_stack_pointer(cpu, sp + size);
	return value;
}

/* ---- Returning from interrupts ---- */

/* The flags that IRET may change at this level, for an operand size. */
static void return_flags(struct vcpu *cpu, uint64_t value, unsigned int size)
{
	uint64_t mask = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT;
	unsigned int iopl = (unsigned int)(cpu->s.rflags >> 12) & 3;

	if (size > 2)
		mask |= FLAG_RF | FLAG_AC | FLAG_ID;
	if (cpu->cpl <= iopl)
		mask |= FLAG_IF;
	if (cpu->cpl == 0) {
		mask |= FLAG_IOPL;
		if (size > 2)
			mask |= FLAG_VIF | FLAG_VIP;
	}
	cpu->s.rflags = (cpu->s.rflags & ~mask) | (value & mask) | 2;
}

static void return_real(struct vcpu *cpu, unsigned int size)
{
	uint64_t sp = stack_pointer(cpu), mask = 0xffff;
	uint64_t rip = stack_read(cpu, sp, size);
	uint64_t cs = stack_read(cpu, sp + size, size);
	uint64_t flags = stack_read(cpu, sp + 2 * size, size);

	if (cpu->v86 && ((cpu->s.rflags >> 12) & 3) < 3)
		raise_gp(cpu);
	if (rip > cpu->s.segs[SEG_CS].limit)
		raise_gp(cpu);
	set_stack_pointer(cpu, sp + 3 * size);
	segment_real(&cpu->s.segs[SEG_CS], (uint16_t)cs);
	cpu->next_rip = rip;
	mask = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_IF;
	if (!cpu->v86)
		mask |= FLAG_IOPL;
	if (size == 4)
		mask |= FLAG_RF | FLAG_AC | FLAG_ID;
	cpu->s.rflags = (cpu->s.rflags & ~mask) | (flags & mask) | 2;
}

/* To virtual-8086 mode, from level 0 (SDM 20.2.5). */
static void return_to_v86(struct vcpu *cpu, uint64_t sp, uint64_t rip, uint64_t cs, uint64_t flags)
{
	static const uint8_t order[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
	uint64_t esp = stack_read(cpu, sp + 12, 4), ss = stack_read(cpu, sp + 16, 4), value[4];

	for (unsigned int i = 0; i < 4; i++)
		value[i] = stack_read(cpu, sp + 20 + 4 * i, 4);
	cpu->s.rflags = (flags & 0x3f7fd7) | 2;
	cpu->cpl = 3;
	cpu->v86 = true;
	cpu->protected_mode = false;
	segment_load(cpu, SEG_CS, (uint16_t)cs);
	segment_load(cpu, SEG_SS, (uint16_t)ss);
	for (unsigned int i = 0; i < 4; i++)
		segment_load(cpu, order[i], (uint16_t)value[i]);
	cpu->s.regs[REG_RSP] = (uint32_t)esp;
	cpu->next_rip = (uint16_t)rip;
}

static void return_protected(struct vcpu *cpu, unsigned int size)
{
	uint64_t sp = stack_pointer(cpu);
	uint64_t rip = stack_read(cpu, sp, size);
	uint64_t cs = stack_read(cpu, sp + size, size) & 0xffff;
	uint64_t flags = stack_read(cpu, sp + 2 * size, size);
	unsigned int level = cs & 3;
	struct descriptor code, stack;
	uint32_t error = cs & ~3u;
	bool outer, to_long;
	uint16_t attr;

	if (size == 4 && (flags & FLAG_VM) && cpu->cpl == 0 && !cpu->long_mode) {
		return_to_v86(cpu, sp, rip, cs, flags);
		return;
	}
	if (!error)
		raise_gp(cpu);
	if (!descriptor_read(cpu, (uint16_t)cs, &code))
		raise_error(cpu, EXC_GP, error);
	attr = descriptor_attributes(&code);
	if (!(attr & ATTR_S) || !(attr & ATTR_CODE) || level < cpu->cpl ||
	    (attr & ATTR_DOWN ? ATTR_DPL(attr) > level : ATTR_DPL(attr) != level))
		raise_error(cpu, EXC_GP, error);
	to_long = cpu->long_mode && (attr & ATTR_L);
	if (to_long && (attr & ATTR_DB))
		raise_error(cpu, EXC_GP, error);
	if (!(attr & ATTR_P))
		raise_error(cpu, EXC_NP, error);

	outer = level > cpu->cpl || cpu->bits == 64;
	if (outer) {
		uint64_t new_sp = stack_read(cpu, sp + 3 * size, size);
		uint16_t ss = (uint16_t)stack_read(cpu, sp + 4 * size, size);
		bool null_ss = !(ss & ~3) && to_long && level < 3 && (ss & 3u) == level;

		if (!null_ss) {
			if (!(ss & ~3))
				raise_gp(cpu);
			stack_segment_check(cpu, ss, level, EXC_GP, &stack);
		}
		if (to_long ? !is_canonical(rip) : rip > descriptor_limit(&code))
			raise_gp(cpu);
		descriptor_set_accessed(cpu, &code);
		return_flags(cpu, flags, size);
		segment_fill(&cpu->s.segs[SEG_CS], (uint16_t)cs, &code);
		if (null_ss)
			segment_null(&cpu->s.segs[SEG_SS], ss);
		else
			segment_fill(&cpu->s.segs[SEG_SS], ss, &stack);
		if (level > cpu->cpl) {
			cpu->cpl = (uint8_t)level;
			segments_check_outer(cpu);
		}
		vcpu_mode_changed(cpu);
		set_stack_pointer(cpu, new_sp);
	} else {
		if (to_long ? !is_canonical(rip) : rip > descriptor_limit(&code))
			raise_gp(cpu);
		descriptor_set_accessed(cpu, &code);
		set_stack_pointer(cpu, sp + 3 * size);
		return_flags(cpu, flags, size);
		segment_fill(&cpu->s.segs[SEG_CS], (uint16_t)cs, &code);
	}
	cpu->next_rip = rip;
}

void interrupt_return(struct vcpu *cpu, unsigned int size)
{
	if (!cpu->protected_mode) {
		return_real(cpu, size);
	} else if (cpu->s.rflags & FLAG_NT) {
		if (cpu->long_mode)
			raise_gp(cpu);
		task_switch(cpu, (uint16_t)sys_read(cpu, cpu->s.tr.base, 2), TASK_IRET, false, 0,
			    cpu->next_rip);
		cpu->next_rip = cpu->s.rip;
	} else {
		return_protected(cpu, size);
	}
	cpu->s.nmi_blocked = false;
	vcpu_mode_changed(cpu);
}
