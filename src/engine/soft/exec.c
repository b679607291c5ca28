/*
 * The interpreter's step: fetch, decode, check what holds for all instructions, execute, commit.
 * Called by run.c for each instruction. Operands and registers for the files of instructions.
 */
#include "engine/soft/exec.h"

#include <string.h>

/* ---- Registers and operands ---- */

uint64_t reg_read(const struct vcpu *cpu, unsigned int reg, unsigned int size)
{
	uint64_t value = cpu->s.regs[reg];

	return size == 8 ? value : value & ((1ull << 8 * size) - 1);
}

void reg_write(struct vcpu *cpu, unsigned int reg, unsigned int size, uint64_t value)
{
	uint64_t *r = &cpu->s.regs[reg];

	switch (size) {
	case 1:
		*r = (*r & ~0xffull) | (uint8_t)value;
		break;
	case 2:
		*r = (*r & ~0xffffull) | (uint16_t)value;
		break;
	case 4:
		*r = (uint32_t)value;
		break;
	default:
		*r = value;
	}
}

uint64_t count_read(const struct vcpu *cpu, unsigned int reg)
{
	return reg_read(cpu, reg, cpu->insn->addrsize);
}

void count_write(struct vcpu *cpu, unsigned int reg, uint64_t value)
{
	reg_write(cpu, reg, cpu->insn->addrsize, value);
}

uint64_t insn_offset(const struct vcpu *cpu)
{
	const struct insn *insn = cpu->insn;
	uint64_t offset = (uint64_t)insn->disp;

	if (insn->rip_relative)
		offset += cpu->s.rip + insn->length;
	if (insn->base != REG_NONE)
		offset += cpu->s.regs[insn->base];
	if (insn->index != REG_NONE)
		offset += cpu->s.regs[insn->index] << insn->scale;
	switch (insn->addrsize) {
	case 2:
		return (uint16_t)offset;
	case 4:
		return (uint32_t)offset;
	default:
		return offset;
	}
}

/* SDM 6.15, "#AC": by natural alignment, at level 3 only. */
static void alignment_check(struct vcpu *cpu, uint64_t lin, unsigned int size)
{
	if (cpu->cpl == 3 && (cpu->s.rflags & FLAG_AC) && (cpu->s.cr0 & CR0_AM) && size <= 8 &&
	    !(size & (size - 1)) && (lin & (size - 1)))
		raise_error(cpu, EXC_AC, 0);
}

uint64_t insn_linear(struct vcpu *cpu, unsigned int size, bool write)
{
	uint64_t lin = seg_linear(cpu, cpu->insn->seg, insn_offset(cpu), size, write);

	alignment_check(cpu, lin, size);
	return lin;
}

uint64_t insn_load(struct vcpu *cpu, unsigned int at, unsigned int size)
{
	uint64_t value = 0, offset = insn_offset(cpu) + at;

	if (cpu->insn->addrsize == 4)
		offset = (uint32_t)offset;
	else if (cpu->insn->addrsize == 2)
		offset = (uint16_t)offset;
	lin_read(cpu, seg_linear(cpu, cpu->insn->seg, offset, size, false), &value, size,
		 mmu_data_access(cpu, false));
	return value;
}

unsigned int insn_operand_bytes(const struct insn *insn, unsigned int i)
{
	if (insn->operands[i].kind == OPERAND_MEM)
		return insn->mem_size;
	return 1u << insn->operands[i].log2_size;
}

uint64_t operand_read(struct vcpu *cpu, unsigned int i)
{
	const struct insn *insn = cpu->insn;
	const struct insn_operand *o = &insn->operands[i];
	uint64_t value = 0;

	switch (o->kind) {
	case OPERAND_GPR:
		return reg_read(cpu, o->reg, 1u << o->log2_size);
	case OPERAND_GPR_HIGH:
		return (uint8_t)(cpu->s.regs[o->reg] >> 8);
	case OPERAND_IMM:
		return insn->imm;
	case OPERAND_IMM2:
		return insn->imm2;
	case OPERAND_SEG:
		return cpu->s.segs[o->reg].selector;
	case OPERAND_MEM:
		lin_read(cpu, insn_linear(cpu, insn->mem_size, false), &value, insn->mem_size,
			 mmu_data_access(cpu, false));
		return value;
	default:
		raise_ud(cpu);
	}
}

void operand_write(struct vcpu *cpu, unsigned int i, uint64_t value)
{
	const struct insn *insn = cpu->insn;
	const struct insn_operand *o = &insn->operands[i];

	switch (o->kind) {
	case OPERAND_GPR:
		reg_write(cpu, o->reg, 1u << o->log2_size, value);
		break;
	case OPERAND_GPR_HIGH:
		cpu->s.regs[o->reg] = (cpu->s.regs[o->reg] & ~0xff00ull) | (uint64_t)(uint8_t)value
										   << 8;
		break;
	case OPERAND_MEM:
		lin_write(cpu, insn_linear(cpu, insn->mem_size, true), &value, insn->mem_size,
			  mmu_data_access(cpu, true));
		break;
	default:
		raise_ud(cpu);
	}
}

void place_open(struct vcpu *cpu, unsigned int i, struct place *p)
{
	const struct insn_operand *o = &cpu->insn->operands[i];

	p->mem = o->kind == OPERAND_MEM;
	p->high = o->kind == OPERAND_GPR_HIGH;
	p->reg = o->reg;
	p->size = insn_operand_bytes(cpu->insn, i);
	if (p->mem)
		mem_open(cpu, insn_linear(cpu, p->size, true), p->size, mmu_data_access(cpu, true),
			 &p->ref);
}

uint64_t place_load(struct vcpu *cpu, const struct place *p)
{
	uint64_t value = 0;

	if (p->mem)
		ref_load(cpu, &p->ref, &value);
	else if (p->high)
		value = (uint8_t)(cpu->s.regs[p->reg] >> 8);
	else
		value = reg_read(cpu, p->reg, p->size);
	return value;
}

void place_store(struct vcpu *cpu, const struct place *p, uint64_t value)
{
	if (p->mem)
		ref_store(cpu, &p->ref, &value);
	else if (p->high)
		cpu->s.regs[p->reg] = (cpu->s.regs[p->reg] & ~0xff00ull) | (uint64_t)(uint8_t)value
										   << 8;
	else
		reg_write(cpu, p->reg, p->size, value);
}

/* ---- Mode ---- */

void vcpu_mode_changed(struct vcpu *cpu)
{
	bool pe = cpu->s.cr0 & CR0_PE;

	cpu->long_mode = cpu->s.efer & EFER_LMA;
	cpu->v86 = pe && (cpu->s.rflags & FLAG_VM);
	cpu->protected_mode = pe && !cpu->v86;
	if (cpu->v86)
		cpu->cpl = 3;
	else if (!pe)
		cpu->cpl = 0;
	if (cpu->long_mode && (cpu->s.segs[SEG_CS].attributes & ATTR_L))
		cpu->bits = cpu->stack_bits = 64;
	else {
		cpu->bits = cpu->s.segs[SEG_CS].attributes & ATTR_DB ? 32 : 16;
		cpu->stack_bits = cpu->s.segs[SEG_SS].attributes & ATTR_DB ? 32 : 16;
	}
	if (cpu->v86)
		cpu->bits = cpu->stack_bits = 16;
	cpu->debug_points = (cpu->s.dr7 & 0xff) != 0;
	for (unsigned int i = 0; i < VCPU_DEBUG_POINTS; i++)
		if (cpu->debug.points[i].size)
			cpu->debug_points = true;
}

/* ---- Fetch and decode ---- */

/* What the manual ranks before an instruction's own faults. */
static void check_common(struct vcpu *cpu, const struct insn *insn)
{
	uint32_t attrs = insn->desc->attrs;

	if ((insn->prefixes & PREFIX_LOCK) && (!(attrs & OPC_LOCK) || !insn->has_mem))
		raise_ud(cpu);
	if (insn_features(insn) & ~cpu->vm->features)
		raise_ud(cpu);
	if ((attrs & OPC_PROTECTED) && !cpu->protected_mode)
		raise_ud(cpu);
	if ((attrs & OPC_CPL0) && cpu->cpl != 0)
		raise_gp(cpu);
}

/* Neither the processor's mode nor its features can make it fail. */
static bool is_plain(const struct vcpu *cpu, const struct insn *insn)
{
	return !(insn->prefixes & PREFIX_LOCK) &&
	       !(insn->desc->attrs & (OPC_PROTECTED | OPC_CPL0)) &&
	       !(insn_features(insn) & ~cpu->vm->features);
}

/* Decodes across what mmu_fetch() gave, page by page, so that only needed bytes are fetched. */
static const struct cached_insn *decode_slow(struct vcpu *cpu, struct cached_insn *c)
{
	enum insn_mode mode = cpu->bits == 64   ? INSN_MODE_64
			      : cpu->bits == 32 ? INSN_MODE_32
						: INSN_MODE_16;
	unsigned int n;

	c->bits = 0;
	memset(c->bytes, 0, sizeof(c->bytes));
	n = mmu_fetch(cpu, c->bytes);
	for (;;) {
		switch (decode_insn(&c->insn, c->bytes, n, mode)) {
		case DECODE_OK:
			/* The bytes are a key (native.c): nothing behind the instruction. */
			memset(c->bytes + c->insn.length, 0, sizeof(c->bytes) - c->insn.length);
			c->is_plain = is_plain(cpu, &c->insn);
			return c;
		case DECODE_MORE:
			n += mmu_fetch_more(cpu, c->bytes, n);
			break;
		case DECODE_TOO_LONG:
			raise_gp(cpu);
		case DECODE_INVALID:
			raise_ud(cpu);
		}
	}
}

/* Whether the first n of 16 readable bytes are the same; memcmp() takes much longer. */
static bool same_bytes(const uint8_t *a, const uint8_t *b, unsigned int n)
{
	uint64_t x, y;

	memcpy(&x, a, 8);
	memcpy(&y, b, 8);
	if (n <= 8)
		return !((x ^ y) << (64 - 8 * n));
	if (x != y)
		return false;
	memcpy(&x, a + 8, 8);
	memcpy(&y, b + 8, 8);
	return !((x ^ y) << (128 - 8 * n));
}

static const struct cached_insn *decode(struct vcpu *cpu)
{
	uint64_t rip = cpu->s.rip, lin = rip;
	struct cached_insn *c = &cpu->insn_cache[(rip ^ rip >> 12) % INSN_CACHE];
	const struct tlb_entry *e;

	cpu->insn_bytes = c->bytes;
	if (cpu->bits != 64) {
		if (rip + INSN_MAX_BYTES > cpu->s.segs[SEG_CS].limit)
			return decode_slow(cpu, c);
		lin = (uint32_t)(cpu->s.segs[SEG_CS].base + rip);
	}
	if ((lin & PAGE_MASK) > PAGE_BYTES - 16 || !is_canonical(lin))
		return decode_slow(cpu, c);
	e = mmu_translate(cpu, lin, cpu->cpl == 3 ? ACCESS_USER_EXEC : ACCESS_SUP_EXEC);
	if (!e->code)
		return decode_slow(cpu, c);
	if (c->bits == cpu->bits &&
	    same_bytes(c->bytes, e->code + (lin & PAGE_MASK), c->insn.length))
		return c;
	decode_slow(cpu, c);
	c->bits = cpu->bits;
	return c;
}

/* ---- Break points ---- */

static void check_break_points(struct vcpu *cpu)
{
	uint64_t lin = cpu->s.rip + (cpu->bits == 64 ? 0 : cpu->s.segs[SEG_CS].base);
	uint32_t hit = 0;

	for (unsigned int i = 0; i < VCPU_DEBUG_POINTS; i++)
		if (cpu->debug.points[i].size && cpu->debug.points[i].kind == 0 &&
		    cpu->debug.points[i].gva == lin && !cpu->debug_resume)
			longjmp(cpu->unwind, UNWIND_DEBUG);
	if (cpu->s.rflags & FLAG_RF)
		return;
	for (unsigned int i = 0; i < 4; i++)
		if (((cpu->s.dr7 >> (2 * i)) & 3) && !((cpu->s.dr7 >> (16 + 4 * i)) & 3) &&
		    cpu->s.dr[i] == lin)
			hit |= 1u << i;
	if (hit)
		raise_debug(cpu, hit);
}

/* ---- The step ---- */

static void execute(struct vcpu *cpu, const struct insn *insn)
{
	switch (insn_class(insn)) {
	case INSN_ALU:
	case INSN_MOV:
	case INSN_FLAG:
	case INSN_NOP:
		exec_integer(cpu);
		break;
	case INSN_STACK:
	case INSN_BRANCH_REL:
	case INSN_BRANCH_IND:
	case INSN_RET:
	case INSN_BRANCH_FAR:
	case INSN_INT:
		exec_control(cpu);
		break;
	case INSN_STRING:
	case INSN_IO:
		exec_string(cpu);
		break;
	case INSN_SYSTEM:
		exec_system(cpu);
		break;
	case INSN_STATE:
		exec_state(cpu);
		break;
	case INSN_X87:
	case INSN_MMX:
	case INSN_SSE:
	case INSN_AVX:
	case INSN_AVX512:
		vector_check(cpu);
		exec_compute(cpu);
		break;
	default:
		raise_ud(cpu);
	}
}

void insn_step(struct vcpu *cpu)
{
	bool single_step = cpu->s.rflags & FLAG_TF;
	const struct cached_insn *cached;
	const struct insn *insn;

	cpu->pending_db = 0;
	cpu->resumed = cpu->repeat;
	cpu->shadow_next = cpu->repeat = cpu->keep_rf = cpu->skip_trap = false;
	if (cpu->debug_points)
		check_break_points(cpu);
	cached = decode(cpu);
	insn = &cached->insn;
	cpu->insn = insn;
	cpu->next_rip = cpu->s.rip + insn->length;
	if (cpu->bits != 64)
		cpu->next_rip = (uint32_t)cpu->next_rip;
	if (!cached->is_plain)
		check_common(cpu, insn);
	execute(cpu, insn);

	cpu->s.rip = cpu->next_rip;
	cpu->s.interrupt_shadow = cpu->shadow_next;
	if (!cpu->keep_rf)
		cpu->s.rflags &= ~(uint64_t)FLAG_RF;
	if (single_step && !cpu->skip_trap)
		cpu->pending_db |= 1u << 14; /* BS */
	cpu->counters.instructions++;
}
