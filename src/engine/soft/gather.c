/*
 * Vector memory accesses that don't touch all of their operand: under a mask (EVEX, VMASKMOV,
 * VPMASKMOV), where elements that are masked off don't fault, and gathers and scatters, whose
 * elements lie anywhere and which restart where they faulted (SDM volume 1, 15.6; volume 2,
 * "VPGATHERDD").
 */
#include "engine/soft/exec.h"
#include "engine/soft/native.h"

#include <string.h>

static bool component_used(const struct vcpu *cpu, unsigned int bit)
{
	return cpu->s.xsave[512] >> bit & 1;
}

/* 64 bytes of a vector register; what is not in use is zero. */
static void vector_get(const struct vcpu *cpu, unsigned int reg, uint8_t value[static 64])
{
	memset(value, 0, 64);
	if (reg >= 16) {
		if (component_used(cpu, 7))
			memcpy(value, cpu->s.xsave + 1664 + 64 * (reg - 16), 64);
		return;
	}
	if (component_used(cpu, 1))
		memcpy(value, cpu->s.xsave + 160 + 16 * reg, 16);
	if (component_used(cpu, 2))
		memcpy(value + 16, cpu->s.xsave + 576 + 16 * reg, 16);
	if (component_used(cpu, 6))
		memcpy(value + 32, cpu->s.xsave + 1152 + 32 * reg, 32);
}

/* Makes a component's bytes valid before a part of it is written. */
static void component_use(struct vcpu *cpu, unsigned int bit, unsigned int at, unsigned int size)
{
	if (component_used(cpu, bit))
		return;
	memset(cpu->s.xsave + at, 0, size);
	cpu->s.xsave[512] |= (uint8_t)(1u << bit);
}

static void vector_set(struct vcpu *cpu, unsigned int reg, const uint8_t value[static 64])
{
	bool wide = cpu->vm->xcr0_mask & XCR0_AVX512;

	if (reg >= 16) {
		component_use(cpu, 7, 1664, 1024);
		memcpy(cpu->s.xsave + 1664 + 64 * (reg - 16), value, 64);
		return;
	}
	component_use(cpu, 1, 160, 256);
	memcpy(cpu->s.xsave + 160 + 16 * reg, value, 16);
	component_use(cpu, 2, 576, 256);
	memcpy(cpu->s.xsave + 576 + 16 * reg, value + 16, 16);
	if (wide) {
		component_use(cpu, 6, 1152, 512);
		memcpy(cpu->s.xsave + 1152 + 32 * reg, value + 32, 32);
	}
}

static uint64_t mask_get(const struct vcpu *cpu, unsigned int k)
{
	uint64_t value = 0;

	if (component_used(cpu, 5))
		memcpy(&value, cpu->s.xsave + 1088 + 8 * k, 8);
	return value;
}

static void mask_set(struct vcpu *cpu, unsigned int k, uint64_t value)
{
	component_use(cpu, 5, 1088, 64);
	memcpy(cpu->s.xsave + 1088 + 8 * k, &value, 8);
}

/* ---- Accesses under a mask ---- */

/* Whether a page may be accessed; nothing is raised. */
static bool can_access(struct vcpu *cpu, uint64_t lin, enum access access)
{
	uint64_t cr2 = cpu->s.cr2, faults = cpu->counters.page_faults;
	volatile bool ok = false;
	jmp_buf outer;

	memcpy(&outer, &cpu->unwind, sizeof(outer));
	if (setjmp(cpu->unwind) == 0) {
		mmu_translate(cpu, lin, access);
		ok = true;
	}
	memcpy(&cpu->unwind, &outer, sizeof(outer));
	cpu->s.cr2 = cr2;
	cpu->counters.page_faults = faults;
	return ok;
}

/* The linear address of the operand; `ok`: canonical, within the segment. Nothing is raised. */
static uint64_t masked_linear(struct vcpu *cpu, const struct insn *insn, unsigned int size,
			      bool *ok)
{
	uint64_t lin = insn_offset(cpu);

	*ok = true;
	if (cpu->bits != 64)
		return seg_linear(cpu, insn->seg, lin, size, insn->mem_written);
	if (insn->seg >= SEG_FS)
		lin += cpu->s.segs[insn->seg].base;
	*ok = is_canonical(lin) && is_canonical(lin + size - 1);
	return lin;
}

static _Noreturn void masked_trap(struct vcpu *cpu, int trap)
{
	if (trap == EXC_XM && (cpu->s.cr4 & CR4_OSXMMEXCPT))
		raise_exception(cpu, EXC_XM);
	if (trap == EXC_GP)
		raise_gp(cpu); /* alignment */
	raise_ud(cpu);
}

/*
 * A load that is masked off in part: which bytes it needs, the host's own instruction says. Where a
 * page of the guest's can't be read, the instruction runs over a page of ours that can't be
 * either; if it faults, so does the guest. The operand is aligned as the guest's.
 */
static void masked_load(struct vcpu *cpu, const struct insn *insn, unsigned int size)
{
	bool canonical, ok[2] = {false, false};
	uint64_t lin = masked_linear(cpu, insn, size, &canonical);
	unsigned int first = PAGE_BYTES - (lin & PAGE_MASK), at = lin & PAGE_MASK;
	enum access access = mmu_data_access(cpu, false);
	uint8_t *guard = native_guard(cpu->native), *operand;
	int trap;

	if (first > size)
		first = size;
	if (canonical) {
		ok[0] = can_access(cpu, lin, access);
		ok[1] = first == size ? ok[0] : can_access(cpu, lin + first, access);
	}
	/* Pages of the guard: none, readable, none, none. */
	if (ok[0] && ok[1] && first < size) {
		operand = (uint8_t *)native_buffer(cpu->native) + (lin & 63);
		lin_read(cpu, lin, operand, size, access);
	} else if (ok[0]) {
		operand = guard + PAGE_BYTES + at;
		lin_read(cpu, lin, operand, first, access);
	} else if (ok[1]) {
		operand = guard + at;
		lin_read(cpu, lin + first, operand + first, size - first, access);
	} else {
		operand = guard + 2 * PAGE_BYTES + at; /* with the page behind it */
	}
	trap = native_run(cpu, operand, false, true);
	if (trap == EXC_PF) {
		uint64_t byte = native_fault_address(cpu->native) - (uintptr_t)operand;

		if (!canonical)
			seg_linear(cpu, insn->seg, insn_offset(cpu), size, false);
		/* The address is that of the first element that was wanted. */
		if (byte >= size)
			byte = ok[0] ? first : 0;
		mmu_translate(cpu, lin + byte, access);
		/* Another processor has just mapped it: once more. */
		cpu->next_rip = cpu->s.rip;
		return;
	}
	if (trap != TRAP_NONE)
		masked_trap(cpu, trap);
}

/* Raises what a store would that can't be done as a whole. */
static void check_store(struct vcpu *cpu, const struct insn *insn, uint64_t lin, unsigned int size,
			bool canonical)
{
	unsigned int at = lin & PAGE_MASK, first = PAGE_BYTES - at;
	enum access access = mmu_data_access(cpu, true);
	uint8_t *guard = native_guard(cpu->native), *operand;
	bool ok[2] = {false, false};
	uint64_t byte;

	if (first > size)
		first = size;
	if (canonical) {
		ok[0] = can_access(cpu, lin, access);
		ok[1] = first == size ? ok[0] : can_access(cpu, lin + first, access);
	}
	if (ok[0] && ok[1])
		return;
	operand = guard + (ok[0] ? PAGE_BYTES : ok[1] ? 0 : 2 * PAGE_BYTES) + at;
	if (native_run(cpu, operand, false, true) != EXC_PF)
		return;
	if (!canonical)
		seg_linear(cpu, insn->seg, insn_offset(cpu), size, true);
	byte = native_fault_address(cpu->native) - (uintptr_t)operand;
	if (byte >= size)
		byte = ok[0] ? first : 0;
	mmu_translate(cpu, lin + byte, access);
}

/* A store that is masked off in part: run over two different patterns, it leaves equal what it
 * writes. Only those bytes are written, and can fault. */
static void masked_store(struct vcpu *cpu, const struct insn *insn, unsigned int size)
{
	bool canonical;
	uint64_t lin = masked_linear(cpu, insn, size, &canonical);
	uint8_t *buffer = (uint8_t *)native_buffer(cpu->native) + (lin & 63), once[64];
	int trap;

	/* Not every instruction suppresses faults: the host's own shows it on pages of ours. */
	check_store(cpu, insn, lin, size, canonical);
	for (unsigned int i = 0; i < 2; i++) {
		if (i == 1)
			memcpy(once, buffer, 64);
		memset(buffer, i ? 0xff : 0x00, 64);
		trap = native_run(cpu, buffer, false, true);
		if (trap != TRAP_NONE)
			masked_trap(cpu, trap);
	}
	for (unsigned int pass = 0; pass < 2; pass++) {
		for (unsigned int i = 0; i < size;) {
			unsigned int n = 0;
			struct mem_ref ref;

			while (i + n < size && once[i + n] == buffer[i + n])
				n++;
			if (n && !canonical)
				seg_linear(cpu, insn->seg, insn_offset(cpu), size, true);
			if (n) {
				mem_open(cpu, lin + i, n, mmu_data_access(cpu, true), &ref);
				if (pass == 1)
					ref_store(cpu, &ref, once + i);
			}
			i += n ? n : 1;
		}
	}
}

void exec_masked(struct vcpu *cpu)
{
	const struct insn *insn = cpu->insn;
	unsigned int size = insn->mem_size;

	if (size == 0 || size > 64)
		raise_ud(cpu);
	if (insn->mem_written)
		masked_store(cpu, insn, size);
	else
		masked_load(cpu, insn, size);
}

/* ---- Gathers and scatters ---- */

static int64_t signed_at(const uint8_t *p, unsigned int size)
{
	int64_t wide;
	int32_t narrow;

	if (size == 8) {
		memcpy(&wide, p, 8);
		return wide;
	}
	memcpy(&narrow, p, 4);
	return narrow;
}

void exec_gather(struct vcpu *cpu)
{
	const struct insn *insn = cpu->insn;
	/* The low bits of the opcode say it: 90, A0 have indices of 4 bytes, 91, A1 of 8; W is the
	 * element. */
	unsigned int index_size = insn->opcode & 1 ? 8 : 4;
	unsigned int element = insn->rex & REX_W ? 8 : 4, wider, n;
	bool evex = insn->encoding == ENC_EVEX, scatter = insn->mem_written;
	uint8_t data[64], indices[64], vex_mask[64];
	unsigned int reg = insn_reg(insn);
	unsigned int bytes = insn_vector_bytes(insn);
	uint64_t mask = 0;

	wider = index_size > element ? index_size : element;
	n = bytes / wider;
	vector_get(cpu, reg, data);
	vector_get(cpu, insn->index, indices);
	if (evex) {
		mask = mask_get(cpu, insn->evex_aaa);
	} else {
		vector_get(cpu, insn->vvvv, vex_mask);
		/* Its elements are made of zeros or ones before the first access, also those that
		 * have no index, and what lies above is cleared. */
		for (unsigned int i = 0; i < bytes / element; i++) {
			bool on = vex_mask[(i + 1) * element - 1] & 0x80;

			mask |= (uint64_t)on << i;
			memset(vex_mask + i * element, on ? 0xff : 0, element);
		}
		memset(vex_mask + bytes, 0, 64 - bytes);
		vector_set(cpu, insn->vvvv, vex_mask);
	}
	for (unsigned int i = 0; i < n; i++) {
		uint64_t at = (uint64_t)insn->disp;

		if (insn->base != REG_NONE)
			at += cpu->s.regs[insn->base];
		at += (uint64_t)signed_at(indices + i * index_size, index_size) << insn->scale;
		if (insn->addrsize < 8)
			at = (uint32_t)at;
		if (!(mask >> i & 1))
			continue;
		if (scatter)
			lin_write(cpu, seg_linear(cpu, insn->seg, at, element, true),
				  data + i * element, element, mmu_data_access(cpu, true));
		else
			lin_read(cpu, seg_linear(cpu, insn->seg, at, element, false),
				 data + i * element, element, mmu_data_access(cpu, false));
		/* Each element is done for good, should the next one fault. */
		if (!scatter) {
			memset(data + bytes, 0, 64 - bytes);
			vector_set(cpu, reg, data);
		}
		if (evex) {
			mask_set(cpu, insn->evex_aaa, mask & ~((2ull << i) - 1));
		} else {
			memset(vex_mask + i * element, 0, element);
			vector_set(cpu, insn->vvvv, vex_mask);
		}
	}
	/* Complete: the mask is empty, and what lies beyond the elements is cleared. */
	if (!scatter) {
		memset(data + n * element, 0, 64 - n * element);
		vector_set(cpu, reg, data);
	}
	if (evex) {
		mask_set(cpu, insn->evex_aaa, 0);
	} else {
		memset(vex_mask, 0, 64);
		vector_set(cpu, insn->vvvv, vex_mask);
	}
}

/* VZEROUPPER and VZEROALL outside of 64-bit mode leave registers 8 to 15 alone (SDM volume 2C). */
void exec_zero_vectors(struct vcpu *cpu)
{
	uint8_t kept[8][64];
	int trap;

	for (unsigned int i = 0; i < 8; i++)
		vector_get(cpu, 8 + i, kept[i]);
	trap = native_run(cpu, NULL, false, true);
	if (trap != TRAP_NONE)
		raise_ud(cpu);
	for (unsigned int i = 0; i < 8; i++)
		vector_set(cpu, 8 + i, kept[i]);
}
