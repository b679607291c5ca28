/*
 * String instructions and ports: MOVS, CMPS, STOS, LODS, SCAS, INS, OUTS, IN, OUT. Each iteration
 * of a REP is committed by itself, and other work is let in between; so it can be interrupted,
 * faults and restarts exactly.
 */
#include "engine/soft/exec.h"

#include <string.h>

/* How many iterations may pass before run.c looks at interrupts again. */
enum { BATCH = 256 };

static uint64_t wrap(const struct insn *insn, uint64_t address)
{
	return insn->addrsize == 8   ? address
	       : insn->addrsize == 4 ? (uint32_t)address
				     : (uint16_t)address;
}

static void advance(struct vcpu *cpu, unsigned int reg, unsigned int size)
{
	uint64_t step = cpu->s.rflags & FLAG_DF ? -(uint64_t)size : size;

	count_write(cpu, reg, wrap(cpu->insn, count_read(cpu, reg) + step));
}

static uint64_t load(struct vcpu *cpu, unsigned int seg, unsigned int reg, unsigned int size)
{
	uint64_t value = 0;

	lin_read(cpu, seg_linear(cpu, seg, count_read(cpu, reg), size, false), &value, size,
		 mmu_data_access(cpu, false));
	return value;
}

static void store(struct vcpu *cpu, uint64_t value, unsigned int size)
{
	lin_write(cpu, seg_linear(cpu, SEG_ES, count_read(cpu, REG_RDI), size, true), &value, size,
		  mmu_data_access(cpu, true));
}

static void compare(struct vcpu *cpu, uint64_t a, uint64_t b, unsigned int size)
{
	uint64_t mask = size == 8 ? ~0ull : (1ull << 8 * size) - 1, sign = 1ull << (8 * size - 1);
	uint64_t r = (a - b) & mask, flags = 0;

	if (a < b)
		flags |= FLAG_CF;
	if (!r)
		flags |= FLAG_ZF;
	if (r & sign)
		flags |= FLAG_SF;
	if ((a ^ b) & (a ^ r) & sign)
		flags |= FLAG_OF;
	if ((a ^ b ^ r) & 16)
		flags |= FLAG_AF;
	if (!__builtin_parity((unsigned int)r & 0xff))
		flags |= FLAG_PF;
	cpu->s.rflags = (cpu->s.rflags & ~(uint64_t)FLAGS_ARITH) | flags;
}

/* One iteration. */
static void iterate(struct vcpu *cpu, const struct insn *insn, unsigned int size)
{
	uint16_t port = (uint16_t)cpu->s.regs[REG_RDX];
	uint64_t a;

	switch (insn->op) {
	case OP_MOVS:
		store(cpu, load(cpu, insn->seg, REG_RSI, size), size);
		advance(cpu, REG_RSI, size);
		advance(cpu, REG_RDI, size);
		break;
	case OP_STOS:
		store(cpu, cpu->s.regs[REG_RAX], size);
		advance(cpu, REG_RDI, size);
		break;
	case OP_LODS:
		reg_write(cpu, REG_RAX, size, load(cpu, insn->seg, REG_RSI, size));
		advance(cpu, REG_RSI, size);
		break;
	case OP_CMPS:
		/* Which one faults first is how processors do it. */
		a = load(cpu, SEG_ES, REG_RDI, size);
		compare(cpu, load(cpu, insn->seg, REG_RSI, size), a, size);
		advance(cpu, REG_RSI, size);
		advance(cpu, REG_RDI, size);
		break;
	case OP_SCAS:
		compare(cpu, reg_read(cpu, REG_RAX, size), load(cpu, SEG_ES, REG_RDI, size), size);
		advance(cpu, REG_RDI, size);
		break;
	case OP_INS: {
		struct mem_ref ref;
		uint64_t lin = seg_linear(cpu, SEG_ES, count_read(cpu, REG_RDI), size, true);
		uint32_t value;

		/* Reading a port has effects: the memory must be known to be writable before. */
		mem_open(cpu, lin, size, mmu_data_access(cpu, true), &ref);
		value = port_in(cpu, port, size);
		ref_store(cpu, &ref, &value);
		advance(cpu, REG_RDI, size);
		break;
	}
	default: /* OUTS */
		port_out(cpu, port, size, (uint32_t)load(cpu, insn->seg, REG_RSI, size));
		advance(cpu, REG_RSI, size);
	}
}

static bool ends_repeat(struct vcpu *cpu, const struct insn *insn)
{
	bool zf = cpu->s.rflags & FLAG_ZF;

	if (insn->op != OP_CMPS && insn->op != OP_SCAS)
		return false;
	return insn->prefixes & PREFIX_REP ? !zf : zf;
}

/* How many elements of `size` bytes a page holds from an address on. */
static uint64_t in_page(uint64_t lin, unsigned int size)
{
	return (PAGE_BYTES - (lin & PAGE_MASK)) / size;
}

/*
 * Many iterations of REP MOVS or REP STOS at once: forward, inside of one page of RAM each.
 * Returns how many were done; 0: they are to be done one by one. [raises]
 */
static uint64_t bulk(struct vcpu *cpu, const struct insn *insn, unsigned int size, uint64_t count)
{
	uint64_t from = 0, to, n = count;
	const struct tlb_entry *e;
	const uint8_t *source = NULL;
	uint8_t *target;

	if ((insn->op != OP_MOVS && insn->op != OP_STOS) || cpu->bits != 64 || cpu->debug_points ||
	    (cpu->s.rflags & (FLAG_DF | FLAG_TF | FLAG_AC)) || count < 8)
		return 0;
	if (insn->op == OP_MOVS) {
		from = seg_linear(cpu, insn->seg, count_read(cpu, REG_RSI), size, false);
		if (in_page(from, size) < n)
			n = in_page(from, size);
	}
	to = seg_linear(cpu, SEG_ES, count_read(cpu, REG_RDI), size, true);
	if (in_page(to, size) < n)
		n = in_page(to, size);
	if (n < 2)
		return 0;
	if (insn->op == OP_MOVS) {
		e = mmu_translate(cpu, from, mmu_data_access(cpu, false));
		if (!e->code)
			return 0;
		source = e->code + (from & PAGE_MASK);
	}
	e = mmu_translate(cpu, to, mmu_data_access(cpu, true));
	if (!e->host)
		return 0;
	target = e->host + (to & PAGE_MASK);
	if (source) {
		/* Overlapping upwards is how patterns are made: element by element. */
		if (target > source && target < source + n * size)
			return 0;
		memmove(target, source, n * size);
	} else {
		uint64_t value = cpu->s.regs[REG_RAX];

		for (uint64_t i = 0; i < n; i++)
			memcpy(target + i * size, &value, size);
	}
	page_dirty(e);
	if (source)
		count_write(cpu, REG_RSI, wrap(insn, count_read(cpu, REG_RSI) + n * size));
	count_write(cpu, REG_RDI, wrap(insn, count_read(cpu, REG_RDI) + n * size));
	return n;
}

static void string(struct vcpu *cpu, const struct insn *insn, unsigned int size)
{
	uint64_t flags = cpu->resumed ? cpu->repeat_flags : cpu->s.rflags;

	if (!insn_repeats(insn)) {
		iterate(cpu, insn, size);
		return;
	}
	/* 32-bit addresses lose their upper halves even where the first access faults; those that
	 * compare keep them till then. */
	if (cpu->bits == 64 && insn->op != OP_CMPS && insn->op != OP_SCAS && insn->addrsize == 4 &&
	    count_read(cpu, REG_RCX)) {
		if (insn->desc->implicit_read & (1u << REG_RSI))
			count_write(cpu, REG_RSI, count_read(cpu, REG_RSI));
		if (insn->desc->implicit_read & (1u << REG_RDI))
			count_write(cpu, REG_RDI, count_read(cpu, REG_RDI));
	}
	/* A fault leaves the flags as they were before (SDM volume 2B, "REP"). */
	for (unsigned int n = 0;; n++) {
		uint64_t count = count_read(cpu, REG_RCX);

		if (!count)
			return;
		if (n == BATCH || cpu->pending_db ||
		    (n && ((cpu->s.rflags & FLAG_TF) || atomic_load(&cpu->requests)))) {
			cpu->next_rip = cpu->s.rip;
			cpu->repeat = true;
			cpu->repeat_flags = flags;
			return;
		}
		{
			uint64_t done = bulk(cpu, insn, size, count);

			if (done) {
				count_write(cpu, REG_RCX, count - done);
				continue;
			}
		}
		cpu->s.rflags = flags;
		iterate(cpu, insn, size);
		count_write(cpu, REG_RCX, count - 1);
		if (ends_repeat(cpu, insn))
			return;
	}
}

void exec_string(struct vcpu *cpu)
{
	const struct insn *insn = cpu->insn;
	unsigned int size = insn->opsize;
	uint16_t port;

	switch (insn->op) {
	case OP_IN:
		size = insn_operand_bytes(insn, 0);
		port = insn->operands[1].kind == OPERAND_IMM ? (uint8_t)insn->imm
							     : (uint16_t)cpu->s.regs[REG_RDX];
		if (!io_allowed(cpu, port, size))
			raise_gp(cpu);
		reg_write(cpu, REG_RAX, size, port_in(cpu, port, size));
		return;
	case OP_OUT:
		size = insn_operand_bytes(insn, 1);
		port = insn->operands[0].kind == OPERAND_IMM ? (uint8_t)insn->imm
							     : (uint16_t)cpu->s.regs[REG_RDX];
		if (!io_allowed(cpu, port, size))
			raise_gp(cpu);
		port_out(cpu, port, size, (uint32_t)reg_read(cpu, REG_RAX, size));
		return;
	case OP_INS:
	case OP_OUTS:
		size = size > 4 ? 4 : size;
		if (!io_allowed(cpu, (uint16_t)cpu->s.regs[REG_RDX], size))
			raise_gp(cpu);
		break;
	}
	string(cpu, insn, size);
}
