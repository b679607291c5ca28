/*
 * Task switches by JMP, CALL, interrupts and IRET, over 16-bit and 32-bit task state segments
 * (SDM volume 3, chapter 7). Not in long mode.
 */
#include "engine/soft/soft.h"

/* Where things are in a TSS. */
struct layout {
	unsigned int size, limit, cr3, eip, eflags, regs, segs, n_segs, ldt;
};

static const struct layout tss16 = {2, 43, 0, 14, 16, 18, 34, 4, 42};
static const struct layout tss32 = {4, 103, 28, 32, 36, 40, 72, 6, 96};

/* The order of segments in the TSS is that of the encoding. */
static void save_old(struct vcpu *cpu, const struct layout *l, uint64_t rip, uint64_t flags)
{
	uint64_t base = cpu->s.tr.base;

	sys_write(cpu, base + l->eip, l->size, rip);
	sys_write(cpu, base + l->eflags, l->size, flags);
	for (unsigned int i = 0; i < 8; i++)
		sys_write(cpu, base + l->regs + i * l->size, l->size, cpu->s.regs[i]);
	for (unsigned int i = 0; i < l->n_segs; i++)
		sys_write(cpu, base + l->segs + i * l->size, 2, cpu->s.segs[i].selector);
}

static void set_busy(struct vcpu *cpu, uint16_t selector, bool busy)
{
	struct descriptor d;
	uint8_t type;

	if (!descriptor_read(cpu, selector, &d))
		raise_error(cpu, EXC_TS, selector & ~3u);
	type = (uint8_t)(d.raw >> 40);
	type = busy ? type | 2 : type & (uint8_t)~2;
	sys_write(cpu, d.address + 5, 1, type);
}

/* The new task's segments are loaded in its own context: their faults are the new task's #TS. */
static void load_segment(struct vcpu *cpu, unsigned int seg, uint16_t selector)
{
	struct vcpu_segment *s = &cpu->s.segs[seg];
	uint32_t error = selector & ~3u;
	struct descriptor d;
	uint16_t attr;

	if (cpu->v86) {
		segment_real(s, selector);
		s->limit = 0xffff;
		s->attributes = 0xf3;
		return;
	}
	if (!error) {
		if (seg == SEG_CS || seg == SEG_SS)
			raise_error(cpu, EXC_TS, 0);
		segment_null(s, selector);
		return;
	}
	if (!descriptor_read(cpu, selector, &d))
		raise_error(cpu, EXC_TS, error);
	attr = descriptor_attributes(&d);
	if (!(attr & ATTR_S))
		raise_error(cpu, EXC_TS, error);
	if (seg == SEG_CS) {
		unsigned int dpl = ATTR_DPL(attr), rpl = selector & 3;

		if (!(attr & ATTR_CODE) || (attr & ATTR_DOWN ? dpl > rpl : dpl != rpl))
			raise_error(cpu, EXC_TS, error);
		if (!(attr & ATTR_P))
			raise_error(cpu, EXC_NP, error);
	} else if (seg == SEG_SS) {
		if ((attr & (ATTR_CODE | ATTR_WRITABLE)) != ATTR_WRITABLE ||
		    ATTR_DPL(attr) != cpu->cpl || (selector & 3u) != cpu->cpl)
			raise_error(cpu, EXC_TS, error);
		if (!(attr & ATTR_P))
			raise_error(cpu, EXC_SS, error);
	} else {
		if ((attr & (ATTR_CODE | ATTR_WRITABLE)) == ATTR_CODE)
			raise_error(cpu, EXC_TS, error);
		if ((attr & (ATTR_CODE | ATTR_DOWN)) != (ATTR_CODE | ATTR_DOWN) &&
		    (ATTR_DPL(attr) < cpu->cpl || ATTR_DPL(attr) < (selector & 3u)))
			raise_error(cpu, EXC_TS, error);
		if (!(attr & ATTR_P))
			raise_error(cpu, EXC_NP, error);
	}
	descriptor_set_accessed(cpu, &d);
	segment_fill(s, selector, &d);
}

static void load_ldt(struct vcpu *cpu, uint16_t selector)
{
	struct descriptor d;
	uint16_t attr;

	if (!(selector & ~3)) {
		segment_null(&cpu->s.ldt, selector);
		return;
	}
	if ((selector & 4) || !descriptor_read(cpu, selector, &d))
		raise_error(cpu, EXC_TS, selector & ~3u);
	attr = descriptor_attributes(&d);
	if ((attr & (ATTR_S | ATTR_TYPE)) != 2 || !(attr & ATTR_P))
		raise_error(cpu, EXC_TS, selector & ~3u);
	segment_fill(&cpu->s.ldt, selector, &d);
}

void task_switch(struct vcpu *cpu, uint16_t selector, enum task_reason reason, bool has_error_code,
		 uint32_t error_code, uint64_t return_rip)
{
	unsigned int vector = reason == TASK_IRET ? EXC_TS : EXC_GP;
	const struct layout *from = cpu->s.tr.attributes & 8 ? &tss32 : &tss16, *to;
	uint64_t old_flags = cpu->s.rflags, base, regs[8], flags, rip, cr3 = 0;
	uint16_t segs[6] = {0}, ldt, attr, old = cpu->s.tr.selector;
	uint32_t error = selector & ~3u;
	struct descriptor d;
	struct mem_ref ref;
	bool busy;

	if (!error || (selector & 4) || !descriptor_read(cpu, selector, &d))
		raise_error(cpu, vector, error);
	attr = descriptor_attributes(&d);
	busy = attr & 2;
	if ((attr & ATTR_S) || ((attr & ATTR_TYPE) & ~10u) != 1 || busy != (reason == TASK_IRET))
		raise_error(cpu, vector, error);
	if (!(attr & ATTR_P))
		raise_error(cpu, EXC_NP, error);
	to = attr & 8 ? &tss32 : &tss16;
	if (descriptor_limit(&d) < to->limit)
		raise_error(cpu, EXC_TS, error);
	base = descriptor_base(&d);

	/* All of both segments must be there before anything changes. */
	mem_open(cpu, cpu->s.tr.base, from->limit + 1, ACCESS_SUP_WRITE, &ref);
	mem_open(cpu, base, to->limit + 1, ACCESS_SUP_WRITE, &ref);
	if (to == &tss32)
		cr3 = sys_read(cpu, base + to->cr3, 4);
	rip = sys_read(cpu, base + to->eip, to->size);
	flags = sys_read(cpu, base + to->eflags, to->size);
	for (unsigned int i = 0; i < 8; i++)
		regs[i] = sys_read(cpu, base + to->regs + i * to->size, to->size);
	for (unsigned int i = 0; i < to->n_segs; i++)
		segs[i] = (uint16_t)sys_read(cpu, base + to->segs + i * to->size, 2);
	ldt = (uint16_t)sys_read(cpu, base + to->ldt, 2);

	if (reason != TASK_CALL)
		set_busy(cpu, old, false);
	if (reason == TASK_IRET)
		old_flags &= ~(uint64_t)FLAG_NT;
	save_old(cpu, from, return_rip, old_flags);
	if (reason == TASK_CALL) {
		sys_write(cpu, base, 2, old);
		flags |= FLAG_NT;
	}
	if (reason != TASK_IRET)
		set_busy(cpu, selector, true);

	/* The commit point (SDM 7.3): from here on faults belong to the new task. */
	segment_fill(&cpu->s.tr, selector, &d);
	cpu->s.tr.attributes |= 2;
	cpu->s.cr0 |= CR0_TS;
	cpu->s.dr7 &= ~0x155ull; /* local break points */
	if ((cpu->s.cr0 & CR0_PG) && to == &tss32) {
		cpu->s.cr3 = cr3;
		if (cpu->s.cr4 & CR4_PAE)
			mmu_load_pdptes(cpu, cr3);
		tlb_flush_pcid(cpu, 0);
	}
	for (unsigned int i = 0; i < 8; i++)
		cpu->s.regs[i] = to == &tss16 ? regs[i] | 0xffff0000 : regs[i];
	cpu->s.rip = rip;
	cpu->next_rip = rip;
	cpu->s.rflags = (flags & 0x3f7fd7) | 2;
	cpu->keep_rf = true;
	vcpu_mode_changed(cpu);
	cpu->cpl = cpu->v86 ? 3 : segs[SEG_CS] & 3;
	for (unsigned int i = 0; i < N_SEGS; i++)
		segment_null(&cpu->s.segs[i], segs[i]);
	load_ldt(cpu, ldt);
	load_segment(cpu, SEG_CS, segs[SEG_CS]);
	load_segment(cpu, SEG_SS, segs[SEG_SS]);
	vcpu_mode_changed(cpu);
	load_segment(cpu, SEG_ES, segs[SEG_ES]);
	load_segment(cpu, SEG_DS, segs[SEG_DS]);
	load_segment(cpu, SEG_FS, segs[SEG_FS]);
	load_segment(cpu, SEG_GS, segs[SEG_GS]);
	if (has_error_code)
		push(cpu, to->size, error_code);
	if (cpu->s.rip > cpu->s.segs[SEG_CS].limit)
		raise_gp(cpu);
	if (to == &tss32 && (sys_read(cpu, base + 100, 2) & 1))
		cpu->pending_db |= 1u << 15; /* BT */
}
