/*
 * Instructions that compute, executed by the host's own instruction (native.h): brings the memory
 * operand into a buffer, runs, and writes the buffer back; LOCK works on the guest's memory itself.
 * Also turns what the host's processor raised into the guest's exception.
 */
#include "engine/soft/exec.h"
#include "engine/soft/native.h"

#include <string.h>

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

/* "The last non-control instruction" and its operand (SDM volume 1, 8.1.8). The host's own
 * pointers must never be seen by the guest. */
static void x87_pointers(struct vcpu *cpu, uint64_t lin_offset)
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
		return;
	}
	memcpy(cpu->s.xsave + 8, &cpu->s.rip, 8);
	if (insn->has_mem)
		memcpy(cpu->s.xsave + 16, &lin_offset, 8);
}

static void run(struct vcpu *cpu, void *memory, bool lock)
{
	int trap = native_run(cpu, memory, lock, is_vector(cpu->insn));

	if (trap != TRAP_NONE)
		host_fault(cpu, trap);
}

/* A locked access that no host instruction can do on guest memory: across pages, on a device. */
static void run_split(struct vcpu *cpu, const struct mem_ref *ref, void *buffer)
{
	int trap;

	pthread_mutex_lock(&cpu->vm->split_lock);
	ref_load(cpu, ref, buffer);
	trap = native_run(cpu, NULL, false, false);
	if (trap == TRAP_NONE)
		ref_store(cpu, ref, buffer);
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
	uint64_t offset = insn_offset(cpu);
	uint64_t lin = seg_linear(cpu, insn->seg, offset, size, insn->mem_written);
	struct mem_ref ref;

	if ((insn->desc->attrs & OPC_ALIGNED) && (lin & (size - 1)))
		raise_gp(cpu);
	insn_linear(cpu, size, insn->mem_written);
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
		x87_pointers(cpu, offset);
}

/* MASKMOVQ, MASKMOVDQU: bytes of the first operand whose mask byte has its top bit set. */
static void maskmov(struct vcpu *cpu, const struct insn *insn)
{
	bool mmx = insn_class(insn) == INSN_MMX;
	unsigned int size = mmx ? 8 : 16, top = (unsigned int)(cpu->s.xsave[3] >> 3) & 7;
	uint64_t offset = insn_offset(cpu);
	uint8_t data[16], mask[16];

	if (mmx) {
		/* MMX registers are the x87 registers by their physical number. */
		for (unsigned int i = 0; i < 2; i++) {
			unsigned int reg = i ? insn_rm(insn) & 7 : insn_reg(insn) & 7;
			unsigned int st = (reg - top) & 7;

			memcpy(i ? mask : data, cpu->s.xsave + 32 + 16 * st, 8);
		}
	} else {
		bool used = cpu->s.xsave[512] & XCR0_SSE;

		memset(data, 0, sizeof(data));
		memset(mask, 0, sizeof(mask));
		if (used) {
			memcpy(data, cpu->s.xsave + 160 + 16 * insn_reg(insn), 16);
			memcpy(mask, cpu->s.xsave + 160 + 16 * insn_rm(insn), 16);
		}
	}
	for (unsigned int i = 0; i < size; i++) {
		uint64_t at = offset + i;

		if (!(mask[i] & 0x80))
			continue;
		if (insn->addrsize < 8)
			at &= (1ull << 8 * insn->addrsize) - 1;
		lin_write(cpu, seg_linear(cpu, insn->seg, at, 1, true), &data[i], 1,
			  mmu_data_access(cpu, true));
	}
}

void exec_compute(struct vcpu *cpu)
{
	const struct insn *insn = cpu->insn;

	switch (insn->op) {
	case OP_MASKMOVQ:
	case OP_MASKMOVDQU:
	case OP_VMASKMOVDQU:
		maskmov(cpu, insn);
		return;
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
	if (insn->has_mem && (insn->mem_read || insn->mem_written)) {
		exec_memory(cpu, insn);
		return;
	}
	run(cpu, NULL, false);
	if (insn_class(insn) == INSN_X87)
		x87_pointers(cpu, 0);
}
