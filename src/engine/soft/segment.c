/*
 * Segments: from logical to linear addresses, descriptors, and loading segment registers with the
 * checks of SDM volume 3, 5.2 to 5.7. Far transfers are in far.c, task switches in task.c.
 */
#include "engine/soft/soft.h"

/* ---- Addresses ---- */

/* A watch point of DR7 or the debugger is a trap after the instruction (SDM 17.2.4). */
static void watch(struct vcpu *cpu, uint64_t lin, unsigned int size, bool write)
{
	for (unsigned int i = 0; i < 4; i++) {
		unsigned int control = (unsigned int)(cpu->s.dr7 >> (16 + 4 * i)) & 15;
		static const uint8_t lengths[] = {1, 2, 8, 4};
		unsigned int length = lengths[control >> 2];
		uint64_t at = cpu->s.dr[i] & ~(uint64_t)(length - 1);

		if (!((cpu->s.dr7 >> (2 * i)) & 3) || !(control & 1))
			continue;
		if ((control & 3) == 1 && !write)
			continue;
		if (lin < at + length && at < lin + size)
			cpu->pending_db |= 1u << i;
	}
	for (unsigned int i = 0; i < VCPU_DEBUG_POINTS; i++) {
		uint64_t at = cpu->debug.points[i].gva;

		if (!cpu->debug.points[i].size || !(cpu->debug.points[i].kind & 1))
			continue;
		if (cpu->debug.points[i].kind == 1 && !write)
			continue;
		if (lin < at + cpu->debug.points[i].size && at < lin + size)
			cpu->external_debug = true;
	}
}

static _Noreturn void bad_address(struct vcpu *cpu, unsigned int seg)
{
	raise_error(cpu, seg == SEG_SS ? EXC_SS : EXC_GP, 0);
}

/* SDM 5.3, 5.5: limit, type and presence of a segment outside of 64-bit mode. */
static void legacy_check(struct vcpu *cpu, unsigned int seg, uint32_t offset, unsigned int size,
			 bool write)
{
	const struct vcpu_segment *s = &cpu->s.segs[seg];
	uint32_t last = offset + size - 1;

	if (cpu->protected_mode) {
		if (!(s->attributes & ATTR_P))
			bad_address(cpu, seg);
		if (s->attributes & ATTR_CODE) {
			if (write || !(s->attributes & ATTR_WRITABLE))
				bad_address(cpu, seg);
		} else if (write && !(s->attributes & ATTR_WRITABLE)) {
			bad_address(cpu, seg);
		}
	}
	if ((s->attributes & (ATTR_CODE | ATTR_DOWN)) == ATTR_DOWN) {
		uint32_t top = s->attributes & ATTR_DB ? 0xffffffff : 0xffff;

		if (offset <= s->limit || last > top || last < offset)
			bad_address(cpu, seg);
	} else if (last > s->limit || last < offset) {
		/* A flat segment has no end to run over. */
		if (!(s->limit == 0xffffffff && last < offset))
			bad_address(cpu, seg);
	}
}

uint64_t seg_linear(struct vcpu *cpu, unsigned int seg, uint64_t offset, unsigned int size,
		    bool write)
{
	uint64_t lin;

	if (cpu->bits == 64) {
		lin = offset;
		if (seg >= SEG_FS)
			lin += cpu->s.segs[seg].base;
		if (!is_canonical(lin) || !is_canonical(lin + size - 1))
			bad_address(cpu, seg);
	} else {
		legacy_check(cpu, seg, (uint32_t)offset, size, write);
		lin = (uint32_t)(cpu->s.segs[seg].base + offset);
	}
	if (cpu->debug_points)
		watch(cpu, lin, size, write);
	return lin;
}

/* ---- Descriptors ---- */

uint16_t descriptor_attributes(const struct descriptor *d)
{
	return (uint16_t)(d->raw >> 40);
}

uint32_t descriptor_limit(const struct descriptor *d)
{
	uint32_t limit = (uint32_t)((d->raw & 0xffff) | (d->raw >> 32 & 0xf0000));

	if (d->raw >> 55 & 1)
		limit = limit << 12 | 0xfff;
	return limit;
}

uint64_t descriptor_base(const struct descriptor *d)
{
	return (d->raw >> 16 & 0xffffff) | (d->raw >> 56) << 24;
}

bool descriptor_read(struct vcpu *cpu, uint16_t selector, struct descriptor *d)
{
	uint64_t base = selector & 4 ? cpu->s.ldt.base : cpu->s.gdt.base;
	uint32_t limit = selector & 4 ? cpu->s.ldt.limit : cpu->s.gdt.limit;

	if ((selector & 4) && !(cpu->s.ldt.attributes & ATTR_P))
		return false;
	if ((selector | 7u) > limit)
		return false;
	d->address = base + (selector & ~7u);
	d->raw = sys_read(cpu, d->address, 8);
	d->high = 0;
	return true;
}

void descriptor_set_accessed(struct vcpu *cpu, struct descriptor *d)
{
	uint8_t type;

	if (d->raw & (1ull << 40))
		return;
	d->raw |= 1ull << 40;
	type = (uint8_t)(d->raw >> 40);
	sys_write(cpu, d->address + 5, 1, type);
}

void segment_fill(struct vcpu_segment *s, uint16_t selector, const struct descriptor *d)
{
	s->selector = selector;
	s->base = descriptor_base(d);
	s->limit = descriptor_limit(d);
	s->attributes = descriptor_attributes(d) & 0xf0ff;
}

/* Real and virtual-8086 mode: only selector and base change with the former. */
void segment_real(struct vcpu_segment *s, uint16_t selector)
{
	s->selector = selector;
	s->base = (uint32_t)selector << 4;
}

void segment_null(struct vcpu_segment *s, uint16_t selector)
{
	s->selector = selector;
	s->base = 0;
	s->limit = 0;
	s->attributes = (uint16_t)(selector & 3) << 5;
}

/* ---- Loading ---- */

void stack_segment_check(struct vcpu *cpu, uint16_t selector, unsigned int level,
			 unsigned int vector, struct descriptor *d)
{
	uint32_t error = selector & ~3u;
	uint16_t attr;

	if (!error)
		raise_error(cpu, vector, 0);
	if (!descriptor_read(cpu, selector, d))
		raise_error(cpu, vector, error);
	attr = descriptor_attributes(d);
	if ((selector & 3u) != level || ATTR_DPL(attr) != level ||
	    (attr & (ATTR_S | ATTR_CODE | ATTR_WRITABLE)) != (ATTR_S | ATTR_WRITABLE))
		raise_error(cpu, vector, error);
	if (!(attr & ATTR_P))
		raise_error(cpu, EXC_SS, error);
	descriptor_set_accessed(cpu, d);
}

void segment_load(struct vcpu *cpu, unsigned int seg, uint16_t selector)
{
	struct vcpu_segment *s = &cpu->s.segs[seg];
	uint32_t error = selector & ~3u;
	struct descriptor d;
	uint16_t attr;

	if (!cpu->protected_mode) {
		segment_real(s, selector);
		if (cpu->v86) {
			s->limit = 0xffff;
			s->attributes = 0xf3;
		}
		return;
	}
	if (seg == SEG_SS) {
		/* 64-bit mode knows a null stack segment, except for level 3 (SDM 5.4.1.1). */
		if (!error && cpu->bits == 64 && cpu->cpl < 3 && (selector & 3) == cpu->cpl) {
			segment_null(s, selector);
		} else {
			if (!error)
				raise_gp(cpu);
			stack_segment_check(cpu, selector, cpu->cpl, EXC_GP, &d);
			segment_fill(s, selector, &d);
		}
		vcpu_mode_changed(cpu);
		return;
	}
	if (!error) {
		segment_null(s, selector);
		return;
	}
	if (!descriptor_read(cpu, selector, &d))
		raise_error(cpu, EXC_GP, error);
	attr = descriptor_attributes(&d);
	if (!(attr & ATTR_S) || (attr & (ATTR_CODE | ATTR_WRITABLE)) == ATTR_CODE)
		raise_error(cpu, EXC_GP, error);
	if ((attr & (ATTR_CODE | ATTR_DOWN)) != (ATTR_CODE | ATTR_DOWN)) {
		unsigned int dpl = ATTR_DPL(attr);

		if (dpl < cpu->cpl || dpl < (selector & 3u))
			raise_error(cpu, EXC_GP, error);
	}
	if (!(attr & ATTR_P))
		raise_error(cpu, EXC_NP, error);
	descriptor_set_accessed(cpu, &d);
	segment_fill(s, selector, &d);
}

/* LDT and TSS descriptors have 16 bytes in long mode (SDM 7.2.3). */
static void system_high(struct vcpu *cpu, uint16_t selector, struct descriptor *d)
{
	if (!cpu->long_mode)
		return;
	if ((selector | 15u) > cpu->s.gdt.limit)
		raise_error(cpu, EXC_GP, selector & ~3u);
	d->high = sys_read(cpu, d->address + 8, 8);
	if ((d->high >> 40) & 0x1f)
		raise_error(cpu, EXC_GP, selector & ~3u);
	if (!is_canonical(descriptor_base(d) | d->high << 32))
		raise_error(cpu, EXC_GP, selector & ~3u);
}

void segment_load_ldt(struct vcpu *cpu, uint16_t selector)
{
	uint32_t error = selector & ~3u;
	struct descriptor d;
	uint16_t attr;

	if (!error) {
		segment_null(&cpu->s.ldt, selector);
		return;
	}
	if ((selector & 4) || !descriptor_read(cpu, selector, &d))
		raise_error(cpu, EXC_GP, error);
	attr = descriptor_attributes(&d);
	if ((attr & (ATTR_S | ATTR_TYPE)) != 2)
		raise_error(cpu, EXC_GP, error);
	if (!(attr & ATTR_P))
		raise_error(cpu, EXC_NP, error);
	system_high(cpu, selector, &d);
	segment_fill(&cpu->s.ldt, selector, &d);
	cpu->s.ldt.base |= d.high << 32;
}

void segment_load_tr(struct vcpu *cpu, uint16_t selector)
{
	uint32_t error = selector & ~3u;
	struct descriptor d;
	uint16_t attr;

	if (!error)
		raise_gp(cpu);
	if ((selector & 4) || !descriptor_read(cpu, selector, &d))
		raise_error(cpu, EXC_GP, error);
	attr = descriptor_attributes(&d);
	if ((attr & (ATTR_S | ATTR_TYPE)) != 9 &&
	    (cpu->long_mode || (attr & (ATTR_S | ATTR_TYPE)) != 1))
		raise_error(cpu, EXC_GP, error);
	if (!(attr & ATTR_P))
		raise_error(cpu, EXC_NP, error);
	system_high(cpu, selector, &d);
	d.raw |= 2ull << 40; /* busy */
	sys_write(cpu, d.address + 5, 1, (d.raw >> 40) & 0xff);
	segment_fill(&cpu->s.tr, selector, &d);
	cpu->s.tr.base |= d.high << 32;
}

/* ---- Asking about descriptors ---- */

/* Reads a descriptor that may be asked about at this privilege level. */
static bool visible(struct vcpu *cpu, uint16_t selector, struct descriptor *d)
{
	uint16_t attr;
	unsigned int dpl;

	if (!(selector & ~3) || !descriptor_read(cpu, selector, d))
		return false;
	attr = descriptor_attributes(d);
	dpl = ATTR_DPL(attr);
	if ((attr & ATTR_S) && (attr & (ATTR_CODE | ATTR_DOWN)) == (ATTR_CODE | ATTR_DOWN))
		return true;
	return dpl >= cpu->cpl && dpl >= (selector & 3u);
}

bool segment_verify(struct vcpu *cpu, uint16_t selector, bool write)
{
	struct descriptor d;
	uint16_t attr;

	if (!visible(cpu, selector, &d))
		return false;
	attr = descriptor_attributes(&d);
	if (!(attr & ATTR_S))
		return false;
	if (attr & ATTR_CODE)
		return !write && (attr & ATTR_WRITABLE);
	return !write || (attr & ATTR_WRITABLE);
}

bool segment_lar(struct vcpu *cpu, uint16_t selector, uint32_t *rights)
{
	/* Types of system descriptors that LAR knows (SDM 2A, "LAR"). */
	const uint16_t legacy =
		1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 9 | 1 << 11 | 1 << 12;
	const uint16_t wide = 1 << 2 | 1 << 9 | 1 << 11 | 1 << 12;
	struct descriptor d;
	uint16_t attr;

	if (!visible(cpu, selector, &d))
		return false;
	attr = descriptor_attributes(&d);
	if (!(attr & ATTR_S) && !((cpu->long_mode ? wide : legacy) >> (attr & ATTR_TYPE) & 1))
		return false;
	*rights = (uint32_t)(d.raw >> 32) & 0x00ffff00;
	return true;
}

bool segment_lsl(struct vcpu *cpu, uint16_t selector, uint32_t *limit)
{
	const uint16_t legacy = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 9 | 1 << 11;
	const uint16_t wide = 1 << 2 | 1 << 9 | 1 << 11;
	struct descriptor d;
	uint16_t attr;

	if (!visible(cpu, selector, &d))
		return false;
	attr = descriptor_attributes(&d);
	if (!(attr & ATTR_S) && !((cpu->long_mode ? wide : legacy) >> (attr & ATTR_TYPE) & 1))
		return false;
	*limit = descriptor_limit(&d);
	return true;
}
