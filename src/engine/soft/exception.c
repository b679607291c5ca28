/*
 * Exceptions and interrupts: how they are raised inside an instruction, what becomes of one that
 * is raised while another is delivered, and the way through the interrupt vector table of real
 * mode, and through 16-, 32- and 64-bit gates (SDM volume 3, chapter 6; 20.1.4, 20.3).
 * Returning from them is in iret.c.
 */
#include "engine/soft/soft.h"

/* ---- Raising ---- */

static _Noreturn void raise_any(struct vcpu *cpu, unsigned int vector, bool has_error_code,
				uint32_t error_code)
{
	cpu->exception.vector = (uint8_t)vector;
	cpu->exception.kind = EVENT_EXCEPTION;
	cpu->exception.has_error_code = has_error_code;
	cpu->exception.error_code = error_code;
	longjmp(cpu->unwind, UNWIND_EXCEPTION);
}

_Noreturn void raise_exception(struct vcpu *cpu, unsigned int vector)
{
	raise_any(cpu, vector, false, 0);
}

_Noreturn void raise_error(struct vcpu *cpu, unsigned int vector, uint32_t error_code)
{
	raise_any(cpu, vector, true, error_code);
}

_Noreturn void raise_page_fault(struct vcpu *cpu, uint64_t lin, uint32_t error_code)
{
	cpu->s.cr2 = lin;
	cpu->counters.page_faults++;
	raise_any(cpu, EXC_PF, true, error_code);
}

_Noreturn void raise_debug(struct vcpu *cpu, uint32_t dr6)
{
	cpu->exception.dr6 = dr6;
	raise_any(cpu, EXC_DB, false, 0);
}

_Noreturn void raise_gp(struct vcpu *cpu)
{
	raise_any(cpu, EXC_GP, true, 0);
}

_Noreturn void raise_ud(struct vcpu *cpu)
{
	raise_any(cpu, EXC_UD, false, 0);
}

/* ---- A second exception while one is delivered (SDM table 6-5) ---- */

static bool is_contributory(unsigned int vector)
{
	return vector == EXC_DE || (vector >= EXC_TS && vector <= EXC_GP);
}

void exception_deliver(struct vcpu *cpu)
{
	unsigned int vector = cpu->exception.vector;
	bool has_error_code = cpu->exception.has_error_code;
	uint32_t error_code = cpu->exception.error_code;

	if (cpu->delivering.active && cpu->delivering.kind == EVENT_EXCEPTION) {
		unsigned int first = cpu->delivering.vector;
		bool second_bad = is_contributory(vector) || vector == EXC_PF;

		if (first == EXC_DF && second_bad)
			longjmp(cpu->unwind, UNWIND_SHUTDOWN);
		if ((is_contributory(first) && is_contributory(vector)) ||
		    (first == EXC_PF && second_bad)) {
			vector = EXC_DF;
			has_error_code = true;
			error_code = 0;
		}
	}
	if (vector == EXC_DB) {
		cpu->s.dr6 = (cpu->s.dr6 & ~0xfull) | cpu->exception.dr6;
		cpu->s.dr7 &= ~(1ull << 13); /* GD */
	}
	cpu->counters.exceptions++;
	event_deliver(cpu, EVENT_EXCEPTION, vector, has_error_code, error_code, cpu->s.rip);
}

/* ---- Delivery ---- */

struct event {
	enum event_kind kind;
	unsigned int vector;
	bool has_error_code;
	uint32_t error_code;
	uint64_t return_rip, saved_flags;
	unsigned int ext; /* EXT bit of error codes */
};

/* A stack that is being built before it becomes the processor's. */
struct stack {
	struct vcpu_segment ss;
	uint64_t sp;
	unsigned int cpl;
	bool wide; /* 64-bit */
	bool big;  /* SS.B */
	uint32_t error_code;
};

static void stack_push(struct vcpu *cpu, struct stack *st, unsigned int size, uint64_t value)
{
	enum access access = st->cpl == 3              ? ACCESS_USER_WRITE
			     : cpu->s.rflags & FLAG_AC ? ACCESS_AC_WRITE
						       : ACCESS_SUP_WRITE;
	uint64_t lin;

	st->sp -= size;
	if (st->wide) {
		lin = st->sp;
		if (!is_canonical(lin) || !is_canonical(lin + size - 1))
			raise_error(cpu, EXC_SS, st->error_code);
	} else {
		uint32_t low, high, top = st->big ? 0xffffffff : 0xffff;

		st->sp = (st->sp & top);
		low = (uint32_t)st->sp;
		high = low + size - 1;
		if (st->ss.attributes & ATTR_DOWN && !(st->ss.attributes & ATTR_CODE)) {
			if (low <= st->ss.limit || high > top || high < low)
				raise_error(cpu, EXC_SS, st->error_code);
		} else if (high > st->ss.limit || high < low) {
			raise_error(cpu, EXC_SS, st->error_code);
		}
		lin = (uint32_t)(st->ss.base + low);
	}
	lin_write(cpu, lin, &value, size, access);
}

static void deliver_real(struct vcpu *cpu, struct event *e)
{
	uint32_t entry = (uint32_t)cpu->s.idt.base + e->vector * 4;
	uint64_t sp = stack_pointer(cpu);
	struct stack st = {.ss = cpu->s.segs[SEG_SS], .sp = sp, .big = cpu->stack_bits == 32};
	uint32_t target;

	if (e->vector * 4 + 3 > cpu->s.idt.limit)
		raise_gp(cpu);
	target = (uint32_t)sys_read(cpu, entry, 4);
	stack_push(cpu, &st, 2, e->saved_flags);
	stack_push(cpu, &st, 2, cpu->s.segs[SEG_CS].selector);
	stack_push(cpu, &st, 2, e->return_rip);

	set_stack_pointer(cpu, st.sp);
	segment_real(&cpu->s.segs[SEG_CS], (uint16_t)(target >> 16));
	cpu->s.rip = target & 0xffff;
	cpu->s.rflags &= ~(uint64_t)(FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF);
}

/* The code segment behind a gate; returns the level that the handler runs at. */
static unsigned int gate_code(struct vcpu *cpu, const struct event *e, uint16_t selector,
			      struct descriptor *d)
{
	uint16_t attr;

	if (!(selector & ~3))
		raise_error(cpu, EXC_GP, e->ext);
	if (!descriptor_read(cpu, selector, d))
		raise_error(cpu, EXC_GP, (selector & ~3u) | e->ext);
	attr = descriptor_attributes(d);
	if (!(attr & ATTR_S) || !(attr & ATTR_CODE) || ATTR_DPL(attr) > cpu->cpl)
		raise_error(cpu, EXC_GP, (selector & ~3u) | e->ext);
	if (cpu->long_mode && (!(attr & ATTR_L) || (attr & ATTR_DB)))
		raise_error(cpu, EXC_GP, (selector & ~3u) | e->ext);
	if (!(attr & ATTR_P))
		raise_error(cpu, EXC_NP, (selector & ~3u) | e->ext);
	if (attr & ATTR_DOWN) { /* conforming */
		if (cpu->v86)
			raise_error(cpu, EXC_GP, (selector & ~3u) | e->ext);
		return cpu->cpl;
	}
	if (cpu->v86 && ATTR_DPL(attr) != 0)
		raise_error(cpu, EXC_GP, (selector & ~3u) | e->ext);
	return ATTR_DPL(attr);
}

static void deliver_long(struct vcpu *cpu, struct event *e)
{
	uint32_t gate_error = e->vector * 8 + 2 + e->ext;
	uint64_t gate = cpu->s.idt.base + e->vector * 16, low, high, target;
	unsigned int type, level, ist;
	struct descriptor d;
	struct stack st;

	if (e->vector * 16 + 15 > cpu->s.idt.limit)
		raise_error(cpu, EXC_GP, gate_error);
	low = sys_read(cpu, gate, 8);
	high = sys_read(cpu, gate + 8, 8);
	type = (low >> 40) & 0x1f;
	if ((type & ~1u) != 14 || ((high >> 40) & 0x1f))
		raise_error(cpu, EXC_GP, gate_error);
	if ((e->kind == EVENT_SOFT_INTERRUPT || e->kind == EVENT_SOFT_EXCEPTION) &&
	    ((low >> 45) & 3) < cpu->cpl)
		raise_error(cpu, EXC_GP, gate_error);
	if (!(low >> 47 & 1))
		raise_error(cpu, EXC_NP, gate_error);
	level = gate_code(cpu, e, (uint16_t)(low >> 16), &d);
	ist = (low >> 32) & 7;
	target = (low & 0xffff) | ((low >> 48) << 16) | high << 32;
	if (!is_canonical(target))
		raise_error(cpu, EXC_GP, e->ext);

	st = (struct stack){.wide = true, .cpl = level, .error_code = e->ext};
	if (ist || level < cpu->cpl) {
		st.sp = tss64_rsp(cpu, ist ? 3 + ist : level);
		if (!is_canonical(st.sp))
			raise_error(cpu, EXC_SS, e->ext);
	} else {
		st.sp = cpu->s.regs[REG_RSP];
	}
	st.sp &= ~15ull;
	stack_push(cpu, &st, 8, cpu->s.segs[SEG_SS].selector);
	stack_push(cpu, &st, 8, cpu->s.regs[REG_RSP]);
	stack_push(cpu, &st, 8, e->saved_flags);
	stack_push(cpu, &st, 8, cpu->s.segs[SEG_CS].selector);
	stack_push(cpu, &st, 8, e->return_rip);
	if (e->has_error_code)
		stack_push(cpu, &st, 8, e->error_code);
	descriptor_set_accessed(cpu, &d);

	if (level < cpu->cpl)
		segment_null(&cpu->s.segs[SEG_SS], (uint16_t)level);
	cpu->s.regs[REG_RSP] = st.sp;
	segment_fill(&cpu->s.segs[SEG_CS], (uint16_t)(((low >> 16) & 0xfffc) | level), &d);
	cpu->s.rip = target;
	cpu->cpl = (uint8_t)level;
	cpu->s.rflags &= ~(uint64_t)(FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM);
	if (type == 14)
		cpu->s.rflags &= ~(uint64_t)FLAG_IF;
}

static void deliver_legacy(struct vcpu *cpu, struct event *e)
{
	static const uint8_t saved[] = {SEG_GS, SEG_FS, SEG_DS, SEG_ES};
	uint32_t gate_error = e->vector * 8 + 2 + e->ext;
	uint64_t raw, target;
	unsigned int type, level, size;
	struct descriptor d;
	struct stack st;
	uint16_t new_ss = 0;

	if (e->vector * 8 + 7 > cpu->s.idt.limit)
		raise_error(cpu, EXC_GP, gate_error);
	raw = sys_read(cpu, cpu->s.idt.base + e->vector * 8, 8);
	type = (raw >> 40) & 0x1f;
	if (type != 5 && type != 6 && type != 7 && type != 14 && type != 15)
		raise_error(cpu, EXC_GP, gate_error);
	if ((e->kind == EVENT_SOFT_INTERRUPT || e->kind == EVENT_SOFT_EXCEPTION) &&
	    ((raw >> 45) & 3) < cpu->cpl)
		raise_error(cpu, EXC_GP, gate_error);
	if (!(raw >> 47 & 1))
		raise_error(cpu, EXC_NP, gate_error);
	if (type == 5) {
		task_switch(cpu, (uint16_t)(raw >> 16), TASK_CALL, e->has_error_code, e->error_code,
			    e->return_rip);
		return;
	}
	level = gate_code(cpu, e, (uint16_t)(raw >> 16), &d);
	size = type & 8 ? 4 : 2;
	target = raw & 0xffff;
	if (size == 4)
		target |= raw >> 48 << 16;

	st = (struct stack){.cpl = level, .error_code = e->ext};
	if (level < cpu->cpl) {
		struct descriptor ss;

		tss_stack(cpu, level, &new_ss, &st.sp);
		stack_segment_check(cpu, new_ss, level, EXC_TS, &ss);
		segment_fill(&st.ss, new_ss, &ss);
		st.big = st.ss.attributes & ATTR_DB;
		st.error_code = (new_ss & ~3u) | e->ext;
		if (cpu->v86)
			for (unsigned int i = 0; i < 4; i++)
				stack_push(cpu, &st, size, cpu->s.segs[saved[i]].selector);
		stack_push(cpu, &st, size, cpu->s.segs[SEG_SS].selector);
		stack_push(cpu, &st, size, cpu->s.regs[REG_RSP]);
	} else {
		st.ss = cpu->s.segs[SEG_SS];
		st.sp = stack_pointer(cpu);
		st.big = cpu->stack_bits == 32;
	}
	stack_push(cpu, &st, size, e->saved_flags);
	stack_push(cpu, &st, size, cpu->s.segs[SEG_CS].selector);
	stack_push(cpu, &st, size, e->return_rip);
	if (e->has_error_code)
		stack_push(cpu, &st, size, e->error_code);
	if (target > descriptor_limit(&d))
		raise_error(cpu, EXC_GP, e->ext);
	descriptor_set_accessed(cpu, &d);

	if (level < cpu->cpl) {
		bool v86 = cpu->v86;

		cpu->s.segs[SEG_SS] = st.ss;
		cpu->stack_bits = st.big ? 32 : 16;
		if (v86)
			for (unsigned int i = 0; i < 4; i++)
				segment_null(&cpu->s.segs[saved[i]], 0);
	}
	set_stack_pointer(cpu, st.sp);
	segment_fill(&cpu->s.segs[SEG_CS], (uint16_t)(((raw >> 16) & 0xfffc) | level), &d);
	cpu->s.rip = target;
	cpu->cpl = (uint8_t)level;
	cpu->s.rflags &= ~(uint64_t)(FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM);
	if (!(type & 1))
		cpu->s.rflags &= ~(uint64_t)FLAG_IF;
}

void event_deliver(struct vcpu *cpu, enum event_kind kind, unsigned int vector, bool has_error_code,
		   uint32_t error_code, uint64_t return_rip)
{
	struct event e = {
		.kind = kind,
		.vector = vector,
		.has_error_code = has_error_code && (cpu->s.cr0 & CR0_PE),
		.error_code = error_code,
		.return_rip = return_rip,
		.saved_flags = cpu->s.rflags,
		.ext = kind != EVENT_SOFT_INTERRUPT && kind != EVENT_SOFT_EXCEPTION,
	};

	/* Faults come back to their instruction with RF set, so that its break points don't hit
	 * again (SDM 17.3.1.1); an interrupt within a REP instruction too. */
	if (kind == EVENT_EXCEPTION && vector != EXC_DB && vector != EXC_DF)
		e.saved_flags |= FLAG_RF;
	if (kind == EVENT_INTERRUPT && cpu->repeat)
		e.saved_flags |= FLAG_RF;

	/* A fault inside of INT n is the instruction's, not a nested one. */
	cpu->delivering.active = true;
	cpu->delivering.kind = (uint8_t)kind;
	cpu->delivering.vector = (uint8_t)vector;
	if (!(cpu->s.cr0 & CR0_PE))
		deliver_real(cpu, &e);
	else if (cpu->long_mode)
		deliver_long(cpu, &e);
	else
		deliver_legacy(cpu, &e);
	cpu->delivering.active = false;
	cpu->repeat = false;
	if (kind == EVENT_NMI)
		cpu->s.nmi_blocked = true;
	vcpu_mode_changed(cpu);
}
