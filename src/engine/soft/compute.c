/*
 * Instructions that compute, executed by the host's own instruction (native.h): brings the memory
 * operand into a buffer, runs, and writes the buffer back; LOCK works on the guest's memory itself.
 * Also turns what the host's processor raised into the guest's exception.
 */
#include "engine/soft/exec.h"
#include "engine/soft/native.h"

#include <string.h>

enum { XSAVE_LEGACY = 512 };

static bool is_vector(const struct insn *insn)
{
	switch (insn_class(insn)) {
	case INSN_X87:
	case INSN_MMX:
	case INSN_SSE:
	case INSN_AVX:
	case INSN_AVX512:
		return true;
	default:
		return false;
	}
}

/* What the host's processor raised, the guest's would have. */
static _Noreturn void host_fault(struct vcpu *cpu, int trap)
{
	if (trap == EXC_DE || trap == EXC_MF)
		raise_exception(cpu, (unsigned int)trap);
	if (trap == EXC_XM && (cpu->s.cr4 & CR4_OSXMMEXCPT))
		raise_exception(cpu, EXC_XM);
	raise_ud(cpu);
}

/* FSW.ES: an unmasked exception waits. */
static bool x87_exception(const struct vcpu *cpu)
{
	return (cpu->s.xsave[512] & XCR0_X87) && (cpu->s.xsave[2] & 0x80);
}

static uint64_t x87_data_pointer(const struct vcpu *cpu)
{
	uint64_t fdp = 0;

	if (cpu->s.xsave[512] & XCR0_X87)
		memcpy(&fdp, cpu->s.xsave + 16, 8);
	return fdp;
}

/* "The last non-control instruction" and its operand (SDM volume 1, 8.1.8). The host's own
 * pointers must never be seen by the guest; `fdp` is the guest's before the instruction. */
static void x87_pointers(struct vcpu *cpu, uint64_t offset, uint64_t fdp)
{
	const struct insn *insn = cpu->insn;

	switch (insn->op) {
	case OP_FNCLEX:
	case OP_FNINIT:
	case OP_FLDCW:
	case OP_FNSTCW:
	case OP_FNSTSW:
	case OP_FNSTENV:
	case OP_FLDENV:
	case OP_FNSAVE:
	case OP_FRSTOR:
	case OP_FWAIT:
	case OP_FNENI:
	case OP_FNDISI:
	case OP_FNSETPM:
		return;
	}
	memcpy(cpu->s.xsave + 8, &cpu->s.rip, 8);
	if (insn->has_mem && (!cpu->vm->fdp_on_exception || x87_exception(cpu)))
		fdp = offset;
	memcpy(cpu->s.xsave + 16, &fdp, 8);
	if (insn->has_mem && x87_exception(cpu)) {
		/* The host saw the thunk's ModRM. */
		cpu->s.xsave[6] = insn->modrm;
		cpu->s.xsave[7] = insn->opcode & 7;
	}
}

static void run(struct vcpu *cpu, void *memory, bool lock)
{
	int trap = native_run(cpu, memory, lock, is_vector(cpu->insn));

	if (trap != TRAP_NONE)
		host_fault(cpu, trap);
}

/* A locked access that no host instruction can do on guest memory: across pages, on a device. The
 * lock excludes others of its kind; it is not held while the board is called. */
static void run_split(struct vcpu *cpu, const struct mem_ref *ref, void *buffer)
{
	bool lock = ref_is_ram(ref);
	int trap;

	if (lock)
		pthread_mutex_lock(&cpu->vm->split_lock);
	ref_load(cpu, ref, buffer);
	trap = native_run(cpu, NULL, false, false);
	if (trap == TRAP_NONE)
		ref_store(cpu, ref, buffer);
	if (lock)
		pthread_mutex_unlock(&cpu->vm->split_lock);
	if (trap != TRAP_NONE)
		host_fault(cpu, trap);
}

/* FXSAVE-like sizes of instructions whose operand the decoder leaves open. */
static unsigned int memory_size(struct vcpu *cpu, const struct insn *insn)
{
	unsigned int size = insn->mem_size;

	if (size == 0 || size > NATIVE_BUFFER)
		raise_ud(cpu);
	return size;
}

static void exec_memory(struct vcpu *cpu, const struct insn *insn)
{
	void *buffer = native_buffer(cpu->native);
	unsigned int size = memory_size(cpu, insn);
	bool locked = (insn->prefixes & PREFIX_LOCK) || insn->op == OP_XCHG;
	uint64_t offset = insn_offset(cpu), fdp = x87_data_pointer(cpu);
	uint64_t lin;
	struct mem_ref ref;

	/* Before the address itself is checked. */
	if ((insn->desc->attrs & OPC_ALIGNED) &&
	    ((offset + (cpu->bits == 64 && insn->seg < SEG_FS ? 0 : cpu->s.segs[insn->seg].base)) &
	     (size - 1)))
		raise_gp(cpu);
	lin = insn_linear(cpu, size, insn->mem_written);
	if (insn->op == OP_VCVTPS2PH) {
		/* It computes, with exceptions and flags, before it looks at its memory. */
		run(cpu, NULL, false);
		mem_open(cpu, lin, size, mmu_data_access(cpu, true), &ref);
		ref_store(cpu, &ref, buffer);
		return;
	}
	mem_open(cpu, lin, size, mmu_data_access(cpu, insn->mem_written), &ref);
	if (locked) {
		void *host = ref_host(&ref);

		if (host) {
			run(cpu, host, insn->prefixes & PREFIX_LOCK);
			ref_dirty(&ref);
		} else {
			run_split(cpu, &ref, buffer);
		}
		return;
	}
	if (insn->mem_read)
		ref_load(cpu, &ref, buffer);
	run(cpu, NULL, false);
	if (insn->mem_written)
		ref_store(cpu, &ref, buffer);
	if (insn_class(insn) == INSN_X87)
		x87_pointers(cpu, offset, fdp);
}

/*
 * x87 stores: an unmasked exception other than that of precision keeps them from storing, so that
 * not even the address is looked at. Whether something was stored shows when the instruction is run
 * over two different patterns.
 */
static void x87_store(struct vcpu *cpu, const struct insn *insn)
{
	uint8_t *buffer = native_buffer(cpu->native), before[XSAVE_LEGACY], after[XSAVE_LEGACY];
	uint8_t data[16], in_use = cpu->s.xsave[512], now_in_use;
	unsigned int size = insn->mem_size;
	uint64_t offset = insn_offset(cpu), fdp = x87_data_pointer(cpu);
	bool stored = true;

	memcpy(before, cpu->s.xsave, sizeof(before));
	memset(buffer, 0x00, size);
	run(cpu, NULL, false);
	memcpy(after, cpu->s.xsave, sizeof(after));
	now_in_use = cpu->s.xsave[512];
	memcpy(data, buffer, size);
	if (x87_exception(cpu)) {
		memcpy(cpu->s.xsave, before, sizeof(before));
		cpu->s.xsave[512] = in_use;
		memset(buffer, 0xff, size);
		run(cpu, NULL, false);
		stored = !memcmp(data, buffer, size);
	}
	/* Storing may fault, and then nothing has happened. */
	memcpy(cpu->s.xsave, before, sizeof(before));
	cpu->s.xsave[512] = in_use;
	if (stored)
		lin_write(cpu, insn_linear(cpu, size, true), data, size,
			  mmu_data_access(cpu, true));
	memcpy(cpu->s.xsave, after, sizeof(after));
	cpu->s.xsave[512] = now_in_use;
	x87_pointers(cpu, offset, fdp);
}

static bool is_x87_store(const struct insn *insn)
{
	switch (insn->op) {
	case OP_FST:
	case OP_FSTP:
	case OP_FIST:
	case OP_FISTP:
	case OP_FISTTP:
	case OP_FBSTP:
		return insn->has_mem;
	default:
		return false;
	}
}

/* As all MMX instructions leave it: TOP is 0, all registers are valid. The image has the registers
 * relative to TOP. */
static void enter_mmx(struct vcpu *cpu)
{
	unsigned int top = (unsigned int)(cpu->s.xsave[3] >> 3) & 7;
	uint8_t st[128];

	memcpy(st, cpu->s.xsave + 32, 128);
	for (unsigned int i = 0; i < 8; i++)
		memcpy(cpu->s.xsave + 32 + 16 * ((i + top) & 7), st + 16 * i, 16);
	cpu->s.xsave[3] &= (uint8_t)~0x38;
	cpu->s.xsave[4] = 0xff;
	cpu->s.xsave[512] |= XCR0_X87;
}

/* MASKMOVQ, MASKMOVDQU: bytes of the first operand whose mask byte has its top bit set. */
static void maskmov(struct vcpu *cpu, const struct insn *insn)
{
	bool mmx = insn_class(insn) == INSN_MMX;
	unsigned int size = mmx ? 8 : 16;
	enum access access = mmu_data_access(cpu, true);
	uint64_t lin = seg_linear(cpu, insn->seg, insn_offset(cpu), size, true);
	uint8_t data[16] = {0}, mask[16] = {0};

	if (mmx) {
		unsigned int top = (unsigned int)(cpu->s.xsave[3] >> 3) & 7;

		if (cpu->s.xsave[512] & XCR0_X87) {
			memcpy(data, cpu->s.xsave + 32 + 16 * ((insn_reg(insn) - top) & 7), 8);
			memcpy(mask, cpu->s.xsave + 32 + 16 * ((insn_rm(insn) - top) & 7), 8);
		}
	} else if (cpu->s.xsave[512] & XCR0_SSE) {
		memcpy(data, cpu->s.xsave + 160 + 16 * insn_reg(insn), 16);
		memcpy(mask, cpu->s.xsave + 160 + 16 * insn_rm(insn), 16);
	}
	/* Faults are checked by halves of 8 bytes, the upper one first. */
	for (unsigned int half = size; half > 0;) {
		bool wanted = false;
		struct mem_ref ref;

		half -= 8;
		for (unsigned int i = half; i < half + 8; i++)
			wanted |= mask[i] & 0x80;
		if (wanted)
			mem_open(cpu, lin + half, 8, access, &ref);
	}
	for (unsigned int i = 0; i < size; i++)
		if (mask[i] & 0x80)
			lin_write(cpu, lin + i, &data[i], 1, access);
	if (mmx)
		enter_mmx(cpu);
}

/* All of these but the "no-wait" ones look for a pending exception before anything else. */
static void check_pending(struct vcpu *cpu, const struct insn *insn)
{
	switch (insn->op) {
	case OP_FNINIT:
	case OP_FNCLEX:
	case OP_FNSTSW:
	case OP_FNSTCW:
	case OP_FNSTENV:
	case OP_FNSAVE:
	case OP_FNENI:
	case OP_FNDISI:
	case OP_FNSETPM:
		return;
	case OP_CVTPI2PD:
	case OP_CVTPI2PS:
		/* From memory it has nothing to do with MMX. */
		if (insn->has_mem)
			return;
		/* fall through */
	default:
		if (x87_exception(cpu))
			raise_exception(cpu, EXC_MF);
	}
}

void exec_compute(struct vcpu *cpu)
{
	const struct insn *insn = cpu->insn;
	uint64_t fdp = 0;

	if (insn_class(insn) == INSN_X87 || insn_class(insn) == INSN_MMX)
		check_pending(cpu, insn);

	switch (insn->op) {
	case OP_MASKMOVQ:
	case OP_MASKMOVDQU:
	case OP_VMASKMOVDQU:
		maskmov(cpu, insn);
		return;
	case OP_VZEROUPPER:
	case OP_VZEROALL:
		if (cpu->bits != 64) {
			exec_zero_vectors(cpu);
			return;
		}
		break;
	default:
		break;
	}
	if (insn->vsib) {
		exec_gather(cpu);
		return;
	}
	if (insn->has_mem && insn->mem_size &&
	    ((insn->encoding == ENC_EVEX && insn->evex_aaa) || insn->op == OP_VMASKMOVPS ||
	     insn->op == OP_VMASKMOVPD || insn->op == OP_VPMASKMOVD || insn->op == OP_VPMASKMOVQ)) {
		exec_masked(cpu);
		return;
	}
	if (is_x87_store(insn)) {
		x87_store(cpu, insn);
		return;
	}
	if (insn->has_mem && (insn->mem_read || insn->mem_written)) {
		exec_memory(cpu, insn);
		return;
	}
	if (insn_class(insn) == INSN_X87)
		fdp = x87_data_pointer(cpu);
	run(cpu, NULL, false);
	if (insn_class(insn) == INSN_X87)
		x87_pointers(cpu, 0, fdp);
}
