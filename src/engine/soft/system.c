/*
 * System instructions: control and debug registers, descriptor-table registers, ports' permissions,
 * interrupts on and off, time stamps, random numbers. MSRs are in msr.c, CPUID in cpuid.c.
 */
#include "engine/soft/exec.h"

#include <cpuid.h>
#include <string.h>
#include <sys/random.h>
#include <x86intrin.h>

/* ---- Control registers (SDM 2.5) ---- */

static bool needs_pdptes(const struct vcpu *cpu, uint64_t cr0, uint64_t cr4)
{
	return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(cpu->s.efer & EFER_LME);
}

static void write_cr0(struct vcpu *cpu, uint64_t value)
{
	const uint64_t known = CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP |
			       CR0_AM | CR0_NW | CR0_CD | CR0_PG;
	uint64_t old = cpu->s.cr0, changed;

	if (value >> 32)
		raise_gp(cpu);
	value = (value & known) | CR0_ET;
	changed = old ^ value;
	if (((value & CR0_PG) && !(value & CR0_PE)) || ((value & CR0_NW) && !(value & CR0_CD)))
		raise_gp(cpu);
	if (!(value & CR0_PG) && (cpu->s.cr4 & CR4_PCIDE))
		raise_gp(cpu);
	if ((changed & CR0_PG) && (value & CR0_PG) && (cpu->s.efer & EFER_LME)) {
		/* SDM 9.8.5. */
		if (!(cpu->s.cr4 & CR4_PAE) || (cpu->s.segs[SEG_CS].attributes & ATTR_L))
			raise_gp(cpu);
	}
	if ((changed & CR0_PG) && !(value & CR0_PG) && cpu->bits == 64)
		raise_gp(cpu);
	if ((changed & (CR0_PG | CR0_CD | CR0_NW)) && needs_pdptes(cpu, value, cpu->s.cr4) &&
	    !mmu_load_pdptes(cpu, cpu->s.cr3))
		raise_gp(cpu);
	if (changed & CR0_PG) {
		if (value & CR0_PG && cpu->s.efer & EFER_LME)
			cpu->s.efer |= EFER_LMA;
		else
			cpu->s.efer &= ~(uint64_t)EFER_LMA;
	}
	cpu->s.cr0 = value;
	if ((changed & CR0_PE) && (value & CR0_PE))
		cpu->cpl = 0;
	if (changed & (CR0_PG | CR0_WP | CR0_PE))
		tlb_flush_all(cpu);
	vcpu_mode_changed(cpu);
}

static uint64_t cr4_known(struct vcpu *cpu)
{
	uint64_t f = cpu->vm->features;
	uint64_t known = CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE |
			 CR4_OSFXSR | CR4_OSXMMEXCPT;

	if (f & CPU_BIT(CPU_FSGSBASE))
		known |= CR4_FSGSBASE;
	if (f & CPU_BIT(CPU_XSAVE))
		known |= CR4_OSXSAVE;
	if (f & CPU_BIT(CPU_SMAP))
		known |= CR4_SMAP;
	if (f & CPU_BIT(CPU_PKU))
		known |= CR4_PKE;
	if (cpuid_has(cpu, 1, 0, 2, 17))
		known |= CR4_PCIDE;
	if (cpuid_has(cpu, 7, 0, 1, 7))
		known |= CR4_SMEP;
	if (cpuid_has(cpu, 7, 0, 2, 2))
		known |= CR4_UMIP;
	return known;
}

static void write_cr4(struct vcpu *cpu, uint64_t value)
{
	uint64_t changed = cpu->s.cr4 ^ value;

	if (value & ~cr4_known(cpu))
		raise_gp(cpu);
	if (cpu->long_mode && !(value & CR4_PAE))
		raise_gp(cpu);
	if ((changed & CR4_PCIDE) && (value & CR4_PCIDE) &&
	    (!cpu->long_mode || (cpu->s.cr3 & 0xfff)))
		raise_gp(cpu);
	if ((changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP)) &&
	    needs_pdptes(cpu, cpu->s.cr0, value) && !mmu_load_pdptes(cpu, cpu->s.cr3))
		raise_gp(cpu);
	cpu->s.cr4 = value;
	if (changed & (CR4_PAE | CR4_PSE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP | CR4_PKE))
		tlb_flush_all(cpu);
}

static void write_cr3(struct vcpu *cpu, uint64_t value)
{
	bool keep = false;

	if (cpu->long_mode) {
		if (cpu->s.cr4 & CR4_PCIDE) {
			keep = value >> 63;
			value &= ~(1ull << 63);
		}
		if (value >> cpu->vm->phys_bits)
			raise_gp(cpu);
	} else {
		value = (uint32_t)value;
		if (needs_pdptes(cpu, cpu->s.cr0, cpu->s.cr4) && !mmu_load_pdptes(cpu, value))
			raise_gp(cpu);
	}
	cpu->s.cr3 = value;
	if (!keep)
		tlb_flush_pcid(cpu, cpu->s.cr4 & CR4_PCIDE ? value & 0xfff : 0);
}

void cr_write(struct vcpu *cpu, unsigned int cr, uint64_t value)
{
	switch (cr) {
	case 0:
		write_cr0(cpu, value);
		break;
	case 2:
		cpu->s.cr2 = value;
		break;
	case 3:
		write_cr3(cpu, value);
		break;
	case 4:
		write_cr4(cpu, value);
		break;
	case 8:
		if (value & ~15ull)
			raise_gp(cpu);
		lapic_set_cr8(cpu, value);
		break;
	default:
		raise_ud(cpu);
	}
}

static void mov_cr(struct vcpu *cpu, const struct insn *insn)
{
	unsigned int size = cpu->bits == 64 ? 8 : 4, cr;

	if (insn->operands[0].kind == OPERAND_CR) {
		cr_write(cpu, insn->operands[0].reg, reg_read(cpu, insn->operands[1].reg, size));
		return;
	}
	cr = insn->operands[1].reg;
	switch (cr) {
	case 0:
	case 2:
	case 3:
	case 4:
		reg_write(cpu, insn->operands[0].reg, size,
			  cr == 0   ? cpu->s.cr0
			  : cr == 2 ? cpu->s.cr2
			  : cr == 3 ? cpu->s.cr3
				    : cpu->s.cr4);
		break;
	case 8:
		reg_write(cpu, insn->operands[0].reg, size, lapic_cr8(cpu));
		break;
	default:
		raise_ud(cpu);
	}
}

/* ---- Debug registers (SDM 17.2) ---- */

static void mov_dr(struct vcpu *cpu, const struct insn *insn)
{
	bool write = insn->operands[0].kind == OPERAND_DR;
	unsigned int size = cpu->bits == 64 ? 8 : 4;
	unsigned int dr = insn->operands[write ? 0 : 1].reg,
		     reg = insn->operands[write ? 1 : 0].reg;
	uint64_t value = reg_read(cpu, reg, size);

	if (dr > 7)
		raise_ud(cpu);
	if (dr == 4 || dr == 5) {
		if (cpu->s.cr4 & CR4_DE)
			raise_ud(cpu);
		dr += 2;
	}
	if (cpu->s.dr7 & (1u << 13))
		raise_debug(cpu, 1u << 13); /* BD */
	if (!write) {
		reg_write(cpu, reg, size,
			  dr < 4    ? cpu->s.dr[dr]
			  : dr == 6 ? cpu->s.dr6
				    : cpu->s.dr7);
		return;
	}
	if (dr < 4) {
		cpu->s.dr[dr] = value;
		return;
	}
	if (value >> 32)
		raise_gp(cpu);
	if (dr == 6)
		cpu->s.dr6 = (value & 0xe00f) | 0xffff0ff0;
	else
		cpu->s.dr7 = (value & 0xffff2bff) | 0x400;
	vcpu_mode_changed(cpu);
}

/* ---- Ports (SDM volume 1, 18.5) ---- */

bool io_allowed(struct vcpu *cpu, uint16_t port, unsigned int size)
{
	unsigned int iopl = (unsigned int)(cpu->s.rflags >> 12) & 3, map, bits;

	if (!(cpu->s.cr0 & CR0_PE) || (!cpu->v86 && cpu->cpl <= iopl))
		return true;
	/* Only TSSs of 32 and 64 bits have a map. */
	if (!(cpu->s.tr.attributes & ATTR_P) || !(cpu->s.tr.attributes & 8) ||
	    cpu->s.tr.limit < 103)
		return false;
	map = (unsigned int)sys_read(cpu, cpu->s.tr.base + 102, 2);
	if (map + port / 8 + 1 > cpu->s.tr.limit)
		return false;
	bits = (unsigned int)sys_read(cpu, cpu->s.tr.base + map + port / 8, 2);
	return !((bits >> (port & 7)) & ((1u << size) - 1));
}

uint32_t port_in(struct vcpu *cpu, uint16_t port, unsigned int size)
{
	uint32_t value;

	cpu->counters.port_accesses++;
	value = cpu->vm->config.ops->port_read(cpu->vm->config.board, port, size);
	return size == 4 ? value : value & ((1u << 8 * size) - 1);
}

void port_out(struct vcpu *cpu, uint16_t port, unsigned int size, uint32_t value)
{
	cpu->counters.port_accesses++;
	if (size < 4)
		value &= (1u << 8 * size) - 1;
	cpu->vm->config.ops->port_write(cpu->vm->config.board, port, size, value);
}

/* ---- Descriptor-table registers ---- */

static void umip_check(struct vcpu *cpu)
{
	if ((cpu->s.cr4 & CR4_UMIP) && cpu->cpl > 0)
		raise_gp(cpu);
}

static void load_table(struct vcpu *cpu, struct vcpu_table *t)
{
	unsigned int size = cpu->bits == 64 ? 8 : 4;
	uint16_t limit = (uint16_t)insn_load(cpu, 0, 2);
	uint64_t base = insn_load(cpu, 2, size);

	if (cpu->bits == 64 && !is_canonical(base))
		raise_gp(cpu);
	if (cpu->insn->opsize == 2)
		base &= 0xffffff;
	t->limit = limit;
	t->base = base;
}

static void store_table(struct vcpu *cpu, const struct vcpu_table *t)
{
	unsigned int size = cpu->bits == 64 ? 10 : 6;
	uint8_t data[10];
	uint64_t base = t->base;

	umip_check(cpu);
	memcpy(data, &t->limit, 2);
	memcpy(data + 2, &base, 8);
	lin_write(cpu, insn_linear(cpu, size, true), data, size, mmu_data_access(cpu, true));
}

/* SLDT, STR, SMSW: 2 bytes to memory, the operand size to registers. */
static void store_word(struct vcpu *cpu, uint64_t value)
{
	umip_check(cpu);
	if (cpu->insn->operands[0].kind == OPERAND_MEM)
		lin_write(cpu, insn_linear(cpu, 2, true), &value, 2, mmu_data_access(cpu, true));
	else
		reg_write(cpu, cpu->insn->operands[0].reg, cpu->insn->opsize, value);
}

static uint16_t load_word(struct vcpu *cpu, unsigned int operand)
{
	if (cpu->insn->operands[operand].kind == OPERAND_MEM)
		return (uint16_t)insn_load(cpu, 0, 2);
	return (uint16_t)cpu->s.regs[cpu->insn->operands[operand].reg];
}

static void set_zf(struct vcpu *cpu, bool zf)
{
	cpu->s.rflags = (cpu->s.rflags & ~(uint64_t)FLAG_ZF) | (zf ? FLAG_ZF : 0);
}

static void exec_descriptor(struct vcpu *cpu, const struct insn *insn)
{
	uint32_t value = 0;
	uint16_t selector;
	bool ok;

	switch (insn->op) {
	case OP_VERR:
	case OP_VERW:
		set_zf(cpu, segment_verify(cpu, load_word(cpu, 0), insn->op == OP_VERW));
		break;
	case OP_LAR:
	case OP_LSL:
		selector = load_word(cpu, 1);
		ok = insn->op == OP_LAR ? segment_lar(cpu, selector, &value)
					: segment_lsl(cpu, selector, &value);
		set_zf(cpu, ok);
		if (ok)
			reg_write(cpu, insn->operands[0].reg, insn->opsize, value);
		break;
	default: { /* ARPL */
		/* It writes only what it changes. */
		uint64_t to = operand_read(cpu, 0);

		selector = (uint16_t)operand_read(cpu, 1);
		ok = (to & 3) < (selector & 3u);
		if (ok)
			operand_write(cpu, 0, (to & ~3ull) | (selector & 3u));
		set_zf(cpu, ok);
	}
	}
}

/* ---- The rest ---- */

uint64_t guest_tsc(const struct vcpu *cpu)
{
	return __rdtsc() + cpu->s.tsc_offset;
}

static void exec_time(struct vcpu *cpu, bool with_aux)
{
	uint64_t tsc;

	if ((cpu->s.cr4 & CR4_TSD) && cpu->cpl > 0)
		raise_gp(cpu);
	tsc = guest_tsc(cpu);
	cpu->s.regs[REG_RAX] = (uint32_t)tsc;
	cpu->s.regs[REG_RDX] = tsc >> 32;
	if (with_aux)
		cpu->s.regs[REG_RCX] = (uint32_t)cpu->s.tsc_aux;
}

static void exec_random(struct vcpu *cpu, const struct insn *insn)
{
	uint64_t value = 0;
	bool ok = getrandom(&value, 8, GRND_NONBLOCK) == 8;

	reg_write(cpu, insn->operands[0].reg, insn->opsize, ok ? value : 0);
	cpu->s.rflags = (cpu->s.rflags & ~(uint64_t)FLAGS_ARITH) | (ok ? FLAG_CF : 0);
}

static void exec_interrupt_flag(struct vcpu *cpu, bool set)
{
	unsigned int iopl = (unsigned int)(cpu->s.rflags >> 12) & 3;

	if ((cpu->s.cr0 & CR0_PE) && cpu->cpl > iopl)
		raise_gp(cpu);
	if (set && !(cpu->s.rflags & FLAG_IF))
		cpu->shadow_next = true;
	cpu->s.rflags = (cpu->s.rflags & ~(uint64_t)FLAG_IF) | (set ? FLAG_IF : 0);
}

static void exec_invpcid(struct vcpu *cpu, const struct insn *insn)
{
	uint64_t type = reg_read(cpu, insn->operands[0].reg, cpu->bits == 64 ? 8 : 4);
	uint64_t pcid = insn_load(cpu, 0, 8), lin = insn_load(cpu, 8, 8);

	if (type > 3 || (type < 2 && (pcid >> 12 || (pcid && !(cpu->s.cr4 & CR4_PCIDE)))) ||
	    (type == 0 && !is_canonical(lin)))
		raise_gp(cpu);
	switch (type) {
	case 0:
		tlb_flush_page_pcid(cpu, lin, (unsigned int)pcid);
		break;
	case 1:
		tlb_flush_pcid(cpu, (unsigned int)pcid);
		break;
	default:
		/* All but the global ones, or all: more than asked for is allowed. */
		tlb_flush_all(cpu);
	}
}

static void exec_base(struct vcpu *cpu, const struct insn *insn)
{
	bool gs = insn->op == OP_RDGSBASE || insn->op == OP_WRGSBASE;
	uint64_t *base = &cpu->s.segs[gs ? SEG_GS : SEG_FS].base;

	if (!(cpu->s.cr4 & CR4_FSGSBASE))
		raise_ud(cpu);
	if (insn->op == OP_RDFSBASE || insn->op == OP_RDGSBASE) {
		reg_write(cpu, insn->operands[0].reg, insn->opsize, *base);
	} else {
		uint64_t value = reg_read(cpu, insn->operands[0].reg, insn->opsize);

		if (!is_canonical(value))
			raise_gp(cpu);
		*base = value;
	}
}

static void exec_pkru(struct vcpu *cpu, bool write)
{
	uint32_t pkru;

	if (!(cpu->s.cr4 & CR4_PKE))
		raise_ud(cpu);
	if ((uint32_t)cpu->s.regs[REG_RCX] || (write && (uint32_t)cpu->s.regs[REG_RDX]))
		raise_gp(cpu);
	if (write) {
		pkru = (uint32_t)cpu->s.regs[REG_RAX];
		memcpy(cpu->s.xsave + 2688, &pkru, 4);
		tlb_flush_all(cpu);
	} else {
		memcpy(&pkru, cpu->s.xsave + 2688, 4);
		cpu->s.regs[REG_RAX] = pkru;
		cpu->s.regs[REG_RDX] = 0;
	}
}

static int64_t bound_value(uint64_t value, unsigned int size)
{
	return size == 2 ? (int16_t)value : (int32_t)value;
}

/* The upper bound is not even read where the lower one is broken. */
static void exec_bound(struct vcpu *cpu, const struct insn *insn)
{
	unsigned int size = insn->opsize;
	int64_t value = bound_value(reg_read(cpu, insn->operands[0].reg, size), size);

	if (value < bound_value(insn_load(cpu, 0, size), size) ||
	    value > bound_value(insn_load(cpu, size, size), size))
		raise_exception(cpu, EXC_BR);
}

static void exec_msr(struct vcpu *cpu, bool write)
{
	uint32_t msr = (uint32_t)cpu->s.regs[REG_RCX];
	uint64_t value;

	if (write) {
		value = (cpu->s.regs[REG_RDX] << 32) | (uint32_t)cpu->s.regs[REG_RAX];
		if (!msr_write(cpu, msr, value))
			raise_gp(cpu);
	} else {
		if (!msr_read(cpu, msr, &value))
			raise_gp(cpu);
		cpu->s.regs[REG_RAX] = (uint32_t)value;
		cpu->s.regs[REG_RDX] = value >> 32;
	}
}

void exec_system(struct vcpu *cpu)
{
	const struct insn *insn = cpu->insn;

	switch (insn->op) {
	case OP_CLI:
	case OP_STI:
		exec_interrupt_flag(cpu, insn->op == OP_STI);
		break;
	case OP_CLAC:
	case OP_STAC:
		if (cpu->cpl != 0)
			raise_ud(cpu);
		cpu->s.rflags =
			(cpu->s.rflags & ~(uint64_t)FLAG_AC) | (insn->op == OP_STAC ? FLAG_AC : 0);
		break;
	case OP_HLT:
		cpu->s.activity = VCPU_HALTED;
		cpu->counters.halts++;
		break;
	case OP_CLTS:
		cpu->s.cr0 &= ~(uint64_t)CR0_TS;
		break;
	case OP_INVD:
	case OP_WBINVD:
	case OP_WBNOINVD:
		break;
	case OP_INVLPG: {
		uint64_t lin = insn_offset(cpu);

		if (cpu->bits != 64 || insn->seg >= SEG_FS)
			lin += cpu->s.segs[insn->seg].base;
		tlb_flush_page(cpu, cpu->bits == 64 ? lin : (uint32_t)lin);
		break;
	}
	case OP_INVPCID:
		exec_invpcid(cpu, insn);
		break;
	case OP_SWAPGS: {
		uint64_t base = cpu->s.segs[SEG_GS].base;

		if (cpu->bits != 64)
			raise_ud(cpu);
		if (cpu->cpl != 0)
			raise_gp(cpu);
		cpu->s.segs[SEG_GS].base = cpu->s.kernel_gs_base;
		cpu->s.kernel_gs_base = base;
		break;
	}
	case OP_LGDT:
		load_table(cpu, &cpu->s.gdt);
		break;
	case OP_LIDT:
		load_table(cpu, &cpu->s.idt);
		break;
	case OP_SGDT:
		store_table(cpu, &cpu->s.gdt);
		break;
	case OP_SIDT:
		store_table(cpu, &cpu->s.idt);
		break;
	case OP_LLDT:
		segment_load_ldt(cpu, load_word(cpu, 0));
		break;
	case OP_LTR:
		segment_load_tr(cpu, load_word(cpu, 0));
		break;
	case OP_SLDT:
		store_word(cpu, cpu->s.ldt.selector);
		break;
	case OP_STR:
		store_word(cpu, cpu->s.tr.selector);
		break;
	case OP_SMSW:
		store_word(cpu, cpu->s.cr0);
		break;
	case OP_LMSW: {
		/* Sets PE, MP, EM, TS; does not clear PE. */
		uint64_t value = load_word(cpu, 0);

		write_cr0(cpu, (cpu->s.cr0 & ~14ull) | (value & 15));
		break;
	}
	case OP_MOV_CR:
		mov_cr(cpu, insn);
		break;
	case OP_MOV_DR:
		mov_dr(cpu, insn);
		break;
	case OP_VERR:
	case OP_VERW:
	case OP_LAR:
	case OP_LSL:
	case OP_ARPL:
		exec_descriptor(cpu, insn);
		break;
	case OP_BOUND:
		exec_bound(cpu, insn);
		break;
	case OP_CPUID: {
		uint32_t out[4];

		cpuid(cpu, (uint32_t)cpu->s.regs[REG_RAX], (uint32_t)cpu->s.regs[REG_RCX], out);
		cpu->s.regs[REG_RAX] = out[0];
		cpu->s.regs[REG_RBX] = out[1];
		cpu->s.regs[REG_RCX] = out[2];
		cpu->s.regs[REG_RDX] = out[3];
		break;
	}
	case OP_RDTSC:
		exec_time(cpu, false);
		break;
	case OP_RDTSCP:
		exec_time(cpu, true);
		break;
	case OP_RDPMC:
		raise_gp(cpu); /* no counters are offered */
	case OP_RDMSR:
	case OP_WRMSR:
		exec_msr(cpu, insn->op == OP_WRMSR);
		break;
	case OP_RDPID:
		cpu->s.regs[insn->operands[0].reg] = (uint32_t)cpu->s.tsc_aux;
		break;
	case OP_RDRAND:
	case OP_RDSEED:
		exec_random(cpu, insn);
		break;
	case OP_RDPKRU:
	case OP_WRPKRU:
		exec_pkru(cpu, insn->op == OP_WRPKRU);
		break;
	case OP_RDFSBASE:
	case OP_RDGSBASE:
	case OP_WRFSBASE:
	case OP_WRGSBASE:
		exec_base(cpu, insn);
		break;
	default:
		raise_ud(cpu); /* MONITOR, MWAIT: not offered; RSM */
	}
}
