/*
 * SYSCALL, SYSRET, SYSENTER, SYSEXIT (SDM volume 3, 5.8.7 and 5.8.8). Their segments are fixed:
 * nothing is read from descriptor tables.
 */
#include "engine/soft/exec.h"

/* Present, accessed, S; code or data, flat. */
static void flat_code(struct vcpu_segment *s, uint16_t selector, unsigned int dpl, bool wide)
{
	s->selector = selector;
	s->base = 0;
	s->limit = 0xffffffff;
	s->attributes =
		(uint16_t)(ATTR_P | ATTR_S | 11 | dpl << 5 | ATTR_G | (wide ? ATTR_L : ATTR_DB));
}

static void flat_stack(struct vcpu_segment *s, uint16_t selector, unsigned int dpl)
{
	s->selector = selector;
	s->base = 0;
	s->limit = 0xffffffff;
	s->attributes = (uint16_t)(ATTR_P | ATTR_S | 3 | dpl << 5 | ATTR_G | ATTR_DB);
}

static void syscall_enter(struct vcpu *cpu)
{
	uint16_t selector = (uint16_t)(cpu->s.star >> 32) & 0xfffc;

	/* Only 64-bit mode has it on Intel's processors; compatibility mode on AMD's. */
	if (!cpu->long_mode || !(cpu->s.efer & EFER_SCE) || cpu->bits != 64)
		raise_ud(cpu);
	cpu->s.regs[REG_RCX] = cpu->next_rip;
	cpu->s.regs[11] = cpu->s.rflags & ~(uint64_t)FLAG_RF;
	cpu->next_rip = cpu->s.lstar;
	cpu->s.rflags = (cpu->s.rflags & ~cpu->s.sfmask & ~(uint64_t)FLAG_RF) | 2;
	flat_code(&cpu->s.segs[SEG_CS], selector, 0, true);
	flat_stack(&cpu->s.segs[SEG_SS], (uint16_t)(selector + 8), 0);
	cpu->cpl = 0;
	vcpu_mode_changed(cpu);
}

static void syscall_return(struct vcpu *cpu, bool wide)
{
	uint16_t selector = (uint16_t)(cpu->s.star >> 48);
	uint64_t target = cpu->s.regs[REG_RCX];

	if (!(cpu->s.efer & EFER_SCE) || cpu->bits != 64)
		raise_ud(cpu);
	if (cpu->cpl != 0)
		raise_gp(cpu);
	if (wide && !is_canonical(target))
		raise_gp(cpu);
	flat_code(&cpu->s.segs[SEG_CS], (uint16_t)((wide ? selector + 16 : selector) | 3), 3, wide);
	flat_stack(&cpu->s.segs[SEG_SS], (uint16_t)((selector + 8) | 3), 3);
	cpu->next_rip = wide ? target : (uint32_t)target;
	cpu->s.rflags = (cpu->s.regs[11] & 0x3c7fd7) | 2;
	cpu->cpl = 3;
	vcpu_mode_changed(cpu);
}

static void sysenter(struct vcpu *cpu)
{
	uint16_t selector = (uint16_t)cpu->s.sysenter_cs & 0xfffc;

	if (!(cpu->s.cr0 & CR0_PE) || !selector)
		raise_gp(cpu);
	cpu->s.rflags &= ~(uint64_t)(FLAG_VM | FLAG_IF | FLAG_RF);
	cpu->s.regs[REG_RSP] = cpu->long_mode ? cpu->s.sysenter_esp : (uint32_t)cpu->s.sysenter_esp;
	cpu->next_rip = cpu->long_mode ? cpu->s.sysenter_eip : (uint32_t)cpu->s.sysenter_eip;
	flat_code(&cpu->s.segs[SEG_CS], selector, 0, cpu->long_mode);
	flat_stack(&cpu->s.segs[SEG_SS], (uint16_t)(selector + 8), 0);
	cpu->cpl = 0;
	vcpu_mode_changed(cpu);
}

static void sysexit(struct vcpu *cpu, bool wide)
{
	uint16_t selector = (uint16_t)cpu->s.sysenter_cs & 0xfffc;
	uint64_t rip = cpu->s.regs[REG_RDX], rsp = cpu->s.regs[REG_RCX];

	if (!cpu->protected_mode || !selector || cpu->cpl != 0)
		raise_gp(cpu);
	if (wide && (!is_canonical(rip) || !is_canonical(rsp)))
		raise_gp(cpu);
	flat_code(&cpu->s.segs[SEG_CS], (uint16_t)((selector + (wide ? 32 : 16)) | 3), 3, wide);
	flat_stack(&cpu->s.segs[SEG_SS], (uint16_t)((selector + (wide ? 40 : 24)) | 3), 3);
	cpu->next_rip = wide ? rip : (uint32_t)rip;
	cpu->s.regs[REG_RSP] = wide ? rsp : (uint32_t)rsp;
	cpu->cpl = 3;
	vcpu_mode_changed(cpu);
}

void exec_syscall(struct vcpu *cpu)
{
	const struct insn *insn = cpu->insn;

	switch (insn->op) {
	case OP_SYSCALL:
		syscall_enter(cpu);
		break;
	case OP_SYSRET:
		syscall_return(cpu, insn->opsize == 8);
		break;
	case OP_SYSENTER:
		sysenter(cpu);
		break;
	case OP_SYSEXIT:
		sysexit(cpu, insn->opsize == 8);
		break;
	default:
		raise_ud(cpu);
	}
}
