/*
 * Far JMP, CALL and RET: direct, through call gates, to inner and outer levels (SDM volume 3, 5.8),
 * and the stacks of the task state segment.
 */
#include "engine/soft/soft.h"

void tss_stack(struct vcpu *cpu, unsigned int level, uint16_t *ss, uint64_t *sp)
{
	uint32_t error = cpu->s.tr.selector & ~3u;
	bool wide = cpu->s.tr.attributes & 8; /* a 32-bit TSS */
	uint32_t at = wide ? 4 + level * 8 : 2 + level * 4;

	if (at + (wide ? 5 : 3) > cpu->s.tr.limit)
		raise_error(cpu, EXC_TS, error);
	*sp = sys_read(cpu, cpu->s.tr.base + at, wide ? 4 : 2);
	*ss = (uint16_t)sys_read(cpu, cpu->s.tr.base + at + (wide ? 4 : 2), 2);
}

uint64_t tss64_rsp(struct vcpu *cpu, unsigned int slot)
{
	uint32_t at = 4 + slot * 8;

	if (at + 7 > cpu->s.tr.limit)
		raise_error(cpu, EXC_TS, cpu->s.tr.selector & ~3u);
	return sys_read(cpu, cpu->s.tr.base + at, 8);
}

void segments_check_outer(struct vcpu *cpu)
{
	static const uint8_t segs[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};

	for (unsigned int i = 0; i < 4; i++) {
		struct vcpu_segment *s = &cpu->s.segs[segs[i]];
		uint16_t a = s->attributes;

		/* A null selector keeps its base: that is how FS and GS have theirs. */
		if (!(a & ATTR_P) || (a & (ATTR_CODE | ATTR_DOWN)) == (ATTR_CODE | ATTR_DOWN))
			continue;
		if (ATTR_DPL(a) < cpu->cpl)
			segment_null(s, 0);
	}
}

/* A code segment for JMP or CALL without a gate (SDM 5.8.1). */
static void code_check(struct vcpu *cpu, uint16_t selector, const struct descriptor *d)
{
	uint32_t error = selector & ~3u;
	uint16_t attr = descriptor_attributes(d);
	unsigned int dpl = ATTR_DPL(attr);

	if (attr & ATTR_DOWN) {
		if (dpl > cpu->cpl)
			raise_error(cpu, EXC_GP, error);
	} else if ((selector & 3u) > cpu->cpl || dpl != cpu->cpl) {
		raise_error(cpu, EXC_GP, error);
	}
	if (cpu->long_mode && (attr & ATTR_L) && (attr & ATTR_DB))
		raise_error(cpu, EXC_GP, error);
	if (!(attr & ATTR_P))
		raise_error(cpu, EXC_NP, error);
}

static void target_check(struct vcpu *cpu, const struct descriptor *d, uint64_t offset)
{
	if (cpu->long_mode && (descriptor_attributes(d) & ATTR_L)) {
		if (!is_canonical(offset))
			raise_gp(cpu);
	} else if (offset > descriptor_limit(d)) {
		raise_gp(cpu);
	}
}

/* Reads what the selector of a far transfer names. */
static void target_read(struct vcpu *cpu, uint16_t selector, struct descriptor *d)
{
	if (!(selector & ~3))
		raise_gp(cpu);
	if (!descriptor_read(cpu, selector, d))
		raise_error(cpu, EXC_GP, selector & ~3u);
}

struct gate {
	uint16_t selector;
	uint64_t offset;
	unsigned int size, parameters;
	struct descriptor code;
};

/* A call gate and the code segment behind it (SDM 5.8.3, 5.8.4). */
static void gate_read(struct vcpu *cpu, uint16_t selector, const struct descriptor *d,
		      struct gate *g)
{
	uint16_t attr = descriptor_attributes(d);
	uint32_t error = selector & ~3u;
	uint16_t code;

	if (ATTR_DPL(attr) < cpu->cpl || ATTR_DPL(attr) < (selector & 3u))
		raise_error(cpu, EXC_GP, error);
	if (!(attr & ATTR_P))
		raise_error(cpu, EXC_NP, error);
	g->selector = (uint16_t)(d->raw >> 16);
	g->offset = d->raw & 0xffff;
	g->size = (attr & ATTR_TYPE) == 12 ? 4 : 2;
	g->parameters = (unsigned int)(d->raw >> 32) & 31;
	if (g->size == 4)
		g->offset |= d->raw >> 48 << 16;
	if (cpu->long_mode) {
		uint64_t high;

		if ((selector | 7u) + 8 > (selector & 4 ? cpu->s.ldt.limit : cpu->s.gdt.limit))
			raise_error(cpu, EXC_GP, error);
		high = sys_read(cpu, d->address + 8, 8);
		if ((high >> 40) & 0x1f)
			raise_error(cpu, EXC_GP, error);
		g->offset |= high << 32;
		g->size = 8;
		g->parameters = 0;
	}
	target_read(cpu, g->selector, &g->code);
	code = descriptor_attributes(&g->code);
	error = g->selector & ~3u;
	if (!(code & ATTR_S) || !(code & ATTR_CODE) || ATTR_DPL(code) > cpu->cpl)
		raise_error(cpu, EXC_GP, error);
	if (cpu->long_mode && (!(code & ATTR_L) || (code & ATTR_DB)))
		raise_error(cpu, EXC_GP, error);
	if (!(code & ATTR_P))
		raise_error(cpu, EXC_NP, error);
}

/* Whether a system descriptor is something that can be jumped to, and what. */
enum target { TARGET_CODE, TARGET_GATE, TARGET_TASK_GATE, TARGET_TSS };

static enum target target_kind(struct vcpu *cpu, uint16_t selector, const struct descriptor *d)
{
	uint16_t attr = descriptor_attributes(d);

	if (attr & ATTR_S) {
		if (attr & ATTR_CODE)
			return TARGET_CODE;
	} else {
		switch (attr & ATTR_TYPE) {
		case 12:
			return TARGET_GATE;
		case 4:
			if (!cpu->long_mode)
				return TARGET_GATE;
			break;
		case 5:
			if (!cpu->long_mode)
				return TARGET_TASK_GATE;
			break;
		case 1:
		case 9:
			if (!cpu->long_mode)
				return TARGET_TSS;
			break;
		}
	}
	raise_error(cpu, EXC_GP, selector & ~3u);
}

static void far_task(struct vcpu *cpu, uint16_t selector, const struct descriptor *d, bool gate,
		     enum task_reason reason)
{
	uint16_t attr = descriptor_attributes(d);

	if (ATTR_DPL(attr) < cpu->cpl || ATTR_DPL(attr) < (selector & 3u))
		raise_error(cpu, EXC_GP, selector & ~3u);
	if (!(attr & ATTR_P))
		raise_error(cpu, EXC_NP, selector & ~3u);
	task_switch(cpu, gate ? (uint16_t)(d->raw >> 16) : selector, reason, false, 0,
		    cpu->next_rip);
	cpu->next_rip = cpu->s.rip;
}

static void code_commit(struct vcpu *cpu, uint16_t selector, unsigned int level,
			struct descriptor *d, uint64_t offset)
{
	segment_fill(&cpu->s.segs[SEG_CS], (uint16_t)((selector & ~3u) | level), d);
	cpu->cpl = (uint8_t)level;
	cpu->next_rip = offset;
	vcpu_mode_changed(cpu);
}

void far_jump(struct vcpu *cpu, uint16_t selector, uint64_t offset, unsigned int size)
{
	struct descriptor d;
	struct gate g;

	if (!cpu->protected_mode) {
		if (offset > cpu->s.segs[SEG_CS].limit)
			raise_gp(cpu);
		segment_real(&cpu->s.segs[SEG_CS], selector);
		cpu->next_rip = offset;
		return;
	}
	target_read(cpu, selector, &d);
	switch (target_kind(cpu, selector, &d)) {
	case TARGET_CODE:
		code_check(cpu, selector, &d);
		target_check(cpu, &d, offset);
		descriptor_set_accessed(cpu, &d);
		code_commit(cpu, selector, cpu->cpl, &d, offset);
		break;
	case TARGET_GATE:
		gate_read(cpu, selector, &d, &g);
		if (!(descriptor_attributes(&g.code) & ATTR_DOWN) &&
		    ATTR_DPL(descriptor_attributes(&g.code)) != cpu->cpl)
			raise_error(cpu, EXC_GP, g.selector & ~3u);
		target_check(cpu, &g.code, g.offset);
		descriptor_set_accessed(cpu, &g.code);
		code_commit(cpu, g.selector, cpu->cpl, &g.code, g.offset);
		break;
	case TARGET_TASK_GATE:
		far_task(cpu, selector, &d, true, TASK_JUMP);
		break;
	case TARGET_TSS:
		far_task(cpu, selector, &d, false, TASK_JUMP);
		break;
	}
}

/* Through a gate to an inner level: the stack of that level (SDM 5.8.5). */
static void call_inner(struct vcpu *cpu, struct gate *g, unsigned int level)
{
	uint64_t old_sp = stack_pointer(cpu), old_rsp = cpu->s.regs[REG_RSP], sp, words[31];
	struct vcpu_segment old_ss = cpu->s.segs[SEG_SS], new_ss;
	unsigned int size = g->size;
	uint64_t frame[4];
	uint16_t ss = 0;
	uint64_t lin;

	if (cpu->long_mode) {
		sp = tss64_rsp(cpu, level);
		segment_null(&new_ss, (uint16_t)level);
		if (!is_canonical(sp - 32) || !is_canonical(sp))
			raise_error(cpu, EXC_SS, 0);
		lin = sp - 32;
	} else {
		struct descriptor d;
		uint64_t top, bytes = (4 + g->parameters) * size;

		tss_stack(cpu, level, &ss, &sp);
		stack_segment_check(cpu, ss, level, EXC_TS, &d);
		segment_fill(&new_ss, ss, &d);
		top = new_ss.attributes & ATTR_DB ? 0xffffffff : 0xffff;
		for (unsigned int i = 0; i < g->parameters; i++)
			words[i] = stack_read(cpu, old_sp + i * size, size);
		sp &= top;
		if (sp < bytes && sp != 0)
			raise_error(cpu, EXC_SS, ss & ~3u);
		lin = (sp - bytes) & top;
		if (new_ss.attributes & ATTR_DOWN ? lin <= new_ss.limit
						  : lin + bytes - 1 > new_ss.limit)
			raise_error(cpu, EXC_SS, ss & ~3u);
		sp = lin;
		lin = (uint32_t)(lin + new_ss.base);
	}
	frame[0] = cpu->next_rip;
	frame[1] = cpu->s.segs[SEG_CS].selector;
	target_check(cpu, &g->code, g->offset);
	for (unsigned int i = 0; i < 2; i++)
		lin_write(cpu, lin + i * size, &frame[i], size, ACCESS_SUP_WRITE);
	for (unsigned int i = 0; i < g->parameters; i++)
		lin_write(cpu, lin + (2 + i) * size, &words[i], size, ACCESS_SUP_WRITE);
	frame[2] = old_rsp;
	frame[3] = old_ss.selector;
	for (unsigned int i = 0; i < 2; i++)
		lin_write(cpu, lin + (2 + g->parameters + i) * size, &frame[2 + i], size,
			  ACCESS_SUP_WRITE);
	descriptor_set_accessed(cpu, &g->code);
	cpu->s.segs[SEG_SS] = new_ss;
	code_commit(cpu, g->selector, level, &g->code, g->offset);
	set_stack_pointer(cpu, cpu->long_mode ? lin : sp);
}

void far_call(struct vcpu *cpu, uint16_t selector, uint64_t offset, unsigned int size)
{
	uint64_t sp = stack_pointer(cpu);
	struct descriptor d;
	struct gate g;

	if (!cpu->protected_mode) {
		uint16_t cs = cpu->s.segs[SEG_CS].selector;

		if (offset > cpu->s.segs[SEG_CS].limit)
			raise_gp(cpu);
		push(cpu, size, cs);
		/* The first push must not count when the second one faults. */
		{
			uint64_t after = stack_pointer(cpu), rip = cpu->next_rip;
			uint64_t at = cpu->stack_bits == 16 ? (uint16_t)(after - size)
							    : (uint32_t)(after - size);

			set_stack_pointer(cpu, sp);
			lin_write(cpu, seg_linear(cpu, SEG_SS, at, size, true), &rip, size,
				  mmu_data_access(cpu, true));
			set_stack_pointer(cpu, at);
		}
		segment_real(&cpu->s.segs[SEG_CS], selector);
		cpu->next_rip = offset;
		return;
	}
	target_read(cpu, selector, &d);
	switch (target_kind(cpu, selector, &d)) {
	case TARGET_CODE:
		code_check(cpu, selector, &d);
		g = (struct gate){.selector = selector, .offset = offset, .size = size, .code = d};
		break;
	case TARGET_GATE:
		gate_read(cpu, selector, &d, &g);
		if (!(descriptor_attributes(&g.code) & ATTR_DOWN) &&
		    ATTR_DPL(descriptor_attributes(&g.code)) < cpu->cpl) {
			call_inner(cpu, &g, ATTR_DPL(descriptor_attributes(&g.code)));
			return;
		}
		break;
	case TARGET_TASK_GATE:
		far_task(cpu, selector, &d, true, TASK_CALL);
		return;
	case TARGET_TSS:
		far_task(cpu, selector, &d, false, TASK_CALL);
		return;
	}
	/* To the same level: return address on the same stack, as one access. */
	{
		uint64_t frame[2] = {cpu->next_rip, cpu->s.segs[SEG_CS].selector};
		uint64_t at = sp - 2 * g.size;

		if (cpu->stack_bits != 64)
			at &= cpu->stack_bits == 32 ? 0xffffffff : 0xffff;
		target_check(cpu, &g.code, g.offset);
		for (unsigned int i = 2; i-- > 0;)
			lin_write(cpu, seg_linear(cpu, SEG_SS, at + i * g.size, g.size, true),
				  &frame[i], g.size, mmu_data_access(cpu, true));
		descriptor_set_accessed(cpu, &g.code);
		set_stack_pointer(cpu, at);
		code_commit(cpu, g.selector, cpu->cpl, &g.code, g.offset);
	}
}

void far_return(struct vcpu *cpu, unsigned int size, unsigned int release)
{
	uint64_t sp = stack_pointer(cpu);
	uint64_t rip = stack_read(cpu, sp, size);
	uint16_t cs = (uint16_t)stack_read(cpu, sp + size, size);
	unsigned int level = cs & 3;
	struct descriptor code, stack;
	uint16_t attr;

	if (!cpu->protected_mode) {
		if (rip > cpu->s.segs[SEG_CS].limit)
			raise_gp(cpu);
		set_stack_pointer(cpu, sp + 2 * size + release);
		segment_real(&cpu->s.segs[SEG_CS], cs);
		cpu->next_rip = rip;
		return;
	}
	target_read(cpu, cs, &code);
	attr = descriptor_attributes(&code);
	if (!(attr & ATTR_S) || !(attr & ATTR_CODE) || level < cpu->cpl ||
	    (attr & ATTR_DOWN ? ATTR_DPL(attr) > level : ATTR_DPL(attr) != level) ||
	    (cpu->long_mode && (attr & ATTR_L) && (attr & ATTR_DB)))
		raise_error(cpu, EXC_GP, cs & ~3u);
	if (!(attr & ATTR_P))
		raise_error(cpu, EXC_NP, cs & ~3u);
	if (level > cpu->cpl) {
		uint64_t at = sp + 2 * size + release;
		uint64_t new_sp = stack_read(cpu, at, size);
		uint16_t ss = (uint16_t)stack_read(cpu, at + size, size);
		bool null_ss = !(ss & ~3) && cpu->long_mode && (attr & ATTR_L) && level < 3 &&
			       (ss & 3u) == level;

		if (!null_ss) {
			if (!(ss & ~3))
				raise_gp(cpu);
			stack_segment_check(cpu, ss, level, EXC_GP, &stack);
		}
		target_check(cpu, &code, rip);
		descriptor_set_accessed(cpu, &code);
		if (null_ss)
			segment_null(&cpu->s.segs[SEG_SS], ss);
		else
			segment_fill(&cpu->s.segs[SEG_SS], ss, &stack);
		code_commit(cpu, cs, level, &code, rip);
		set_stack_pointer(cpu, new_sp + release);
		segments_check_outer(cpu);
		return;
	}
	target_check(cpu, &code, rip);
	descriptor_set_accessed(cpu, &code);
	set_stack_pointer(cpu, sp + 2 * size + release);
	code_commit(cpu, cs, level, &code, rip);
}
