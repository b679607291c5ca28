/*
 * The state of the x87 and vector units in the guest's memory: FXSAVE, XSAVE and their kin in both
 * formats (SDM volume 1, chapter 13), MXCSR, and the checks before any instruction of theirs.
 *
 * vcpu_state.xsave is the image that native.c loads and saves: standard format, XSTATE_BV says
 * which components are in use. PKRU is always valid in it, its bit in XSTATE_BV is never set,
 * because hosts without protection keys refuse to load it.
 */
#include "engine/soft/exec.h"

#include <string.h>

enum { AREA_HEADER = 512, AREA_EXTENDED = 576, MXCSR_AT = 24, XSTATE_BV_AT = 512, PKRU_AT = 2688 };
#define MXCSR_MASK 0xffffu

/* Extended components in the standard format. */
static const struct {
	uint16_t offset, size;
} components[10] = {[2] = {576, 256},
		    [5] = {1088, 64},
		    [6] = {1152, 512},
		    [7] = {1664, 1024},
		    [9] = {PKRU_AT, 8}};

void vector_check(struct vcpu *cpu)
{
	const struct insn *insn = cpu->insn;
	uint64_t need = XCR0_SSE | XCR0_AVX;

	switch (insn_class(insn)) {
	case INSN_X87:
		if (insn->op == OP_FWAIT ? (cpu->s.cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS)
					 : cpu->s.cr0 & (CR0_EM | CR0_TS))
			raise_exception(cpu, EXC_NM);
		return;
	case INSN_MMX:
		if (cpu->s.cr0 & CR0_EM)
			raise_ud(cpu);
		break;
	case INSN_SSE:
		if ((cpu->s.cr0 & CR0_EM) || !(cpu->s.cr4 & CR4_OSFXSR))
			raise_ud(cpu);
		break;
	case INSN_AVX512:
		need |= XCR0_AVX512;
		/* fall through */
	default:
		if (!cpu->protected_mode || !(cpu->s.cr4 & CR4_OSXSAVE) ||
		    (cpu->s.xcr0 & need) != need)
			raise_ud(cpu);
	}
	if (cpu->s.cr0 & CR0_TS)
		raise_exception(cpu, EXC_NM);
}

static uint64_t in_use(const struct vcpu *cpu)
{
	uint64_t bits;
	uint32_t pkru, mxcsr;

	memcpy(&bits, cpu->s.xsave + XSTATE_BV_AT, 8);
	memcpy(&pkru, cpu->s.xsave + PKRU_AT, 4);
	memcpy(&mxcsr, cpu->s.xsave + MXCSR_AT, 4);
	if (pkru)
		bits |= XCR0_PKRU;
	if (mxcsr != 0x1f80)
		bits |= XCR0_SSE;
	return bits & (0x2e7 | 3);
}

static void set_in_use(struct vcpu *cpu, uint64_t bits)
{
	bits &= 0xe7;
	memcpy(cpu->s.xsave + XSTATE_BV_AT, &bits, 8);
}

/* A copy of the image in which components that are not in use have their initial values. */
static void image_copy(const struct vcpu *cpu, uint8_t *image)
{
	uint64_t bits;

	memcpy(&bits, cpu->s.xsave + XSTATE_BV_AT, 8);
	memcpy(image, cpu->s.xsave, VCPU_XSAVE_BYTES);
	if (!(bits & XCR0_X87)) {
		memset(image, 0, 24);
		memset(image + 32, 0, 128);
		image[0] = 0x7f;
		image[1] = 0x03;
	}
	if (!(bits & XCR0_SSE))
		memset(image + 160, 0, 256);
	for (unsigned int i = 2; i < 9; i++)
		if (components[i].size && !(bits >> i & 1))
			memset(image + components[i].offset, 0, components[i].size);
}

/* Parts of an area wrap at 4 GiB outside of 64-bit mode. */
static uint64_t area_wrap(const struct vcpu *cpu, uint64_t lin)
{
	return cpu->bits == 64 ? lin : (uint32_t)lin;
}

static void write_at(struct vcpu *cpu, uint64_t lin, const void *data, unsigned int size)
{
	lin_write(cpu, area_wrap(cpu, lin), data, size, mmu_data_access(cpu, true));
}

static void read_at(struct vcpu *cpu, uint64_t lin, void *data, unsigned int size)
{
	lin_read(cpu, area_wrap(cpu, lin), data, size, mmu_data_access(cpu, false));
}

static void check_all(struct vcpu *cpu, uint64_t lin, unsigned int size, bool write)
{
	struct mem_ref ref;

	mem_open(cpu, area_wrap(cpu, lin), size, mmu_data_access(cpu, write), &ref);
}

/* The pointers of the 32-bit form have no upper halves (CPUID deprecates FCS and FDS). */
static void narrow_pointers(uint8_t *image)
{
	memset(image + 12, 0, 4);
	memset(image + 20, 0, 4);
}

/* ---- FXSAVE ---- */

static unsigned int xmm_bytes(const struct vcpu *cpu)
{
	return cpu->bits == 64 ? 256 : 128;
}

static void fxsave(struct vcpu *cpu, bool restore)
{
	uint64_t lin = seg_linear(cpu, cpu->insn->seg, insn_offset(cpu), 512, !restore);
	unsigned int xmm = xmm_bytes(cpu);
	uint8_t image[VCPU_XSAVE_BYTES], area[512];
	uint32_t mxcsr, mask = MXCSR_MASK;

	if (cpu->s.cr0 & (CR0_EM | CR0_TS))
		raise_exception(cpu, EXC_NM);
	if (lin & 15)
		raise_gp(cpu);
	check_all(cpu, lin, 512, !restore);
	image_copy(cpu, image);
	if (!restore) {
		if (!(cpu->insn->rex & REX_W))
			narrow_pointers(image);
		memcpy(image + 28, &mask, 4);
		write_at(cpu, lin, image, 160 + xmm);
		return;
	}
	read_at(cpu, lin, area, 512);
	memcpy(&mxcsr, area + MXCSR_AT, 4);
	if (mxcsr & ~MXCSR_MASK)
		raise_gp(cpu);
	if (!(cpu->insn->rex & REX_W))
		narrow_pointers(area);
	memcpy(cpu->s.xsave, image, 512);
	memcpy(cpu->s.xsave, area, 160 + xmm);
	{
		uint64_t bits;

		memcpy(&bits, cpu->s.xsave + XSTATE_BV_AT, 8);
		set_in_use(cpu, bits | XCR0_X87 | XCR0_SSE);
	}
}

/* ---- XSAVE ---- */

static uint64_t requested(const struct vcpu *cpu)
{
	return ((cpu->s.regs[REG_RDX] << 32) | (uint32_t)cpu->s.regs[REG_RAX]) & cpu->s.xcr0;
}

/* Where a component is in an area with these components; compact: SDM volume 1, 13.4.3. */
static unsigned int component_at(unsigned int i, uint64_t compact)
{
	unsigned int at = AREA_EXTENDED;

	if (!compact)
		return components[i].offset;
	for (unsigned int j = 2; j < i; j++)
		if (compact >> j & 1)
			at += components[j].size;
	return at;
}

/* How much of it is accessed: outside of 64-bit mode only registers 0 to 7. */
static unsigned int component_bytes(const struct vcpu *cpu, unsigned int i)
{
	if (cpu->bits == 64 || i == 5 || i == 9)
		return components[i].size;
	return i == 7 ? 0 : components[i].size / 2;
}

/* The bytes of an area with these components. */
static unsigned int area_size(uint64_t bits, uint64_t compact)
{
	unsigned int size = AREA_EXTENDED;

	for (unsigned int i = 2; i < 10; i++)
		if ((bits >> i & 1) && components[i].size &&
		    component_at(i, compact) + components[i].size > size)
			size = component_at(i, compact) + components[i].size;
	return size;
}

static uint64_t area_linear(struct vcpu *cpu, bool write)
{
	uint64_t lin;

	if (!(cpu->s.cr4 & CR4_OSXSAVE))
		raise_ud(cpu);
	if (cpu->s.cr0 & CR0_TS)
		raise_exception(cpu, EXC_NM);
	lin = seg_linear(cpu, cpu->insn->seg, insn_offset(cpu), AREA_EXTENDED, write);
	if (lin & 63)
		raise_gp(cpu);
	return lin;
}

/* A part of the area that is written; first all parts are only checked. */
static void put(struct vcpu *cpu, bool check, uint64_t lin, const void *data, unsigned int size)
{
	if (check)
		check_all(cpu, lin, size, true);
	else
		write_at(cpu, lin, data, size);
}

static void xsave(struct vcpu *cpu, bool compacted, bool optimized)
{
	uint64_t lin = area_linear(cpu, true), want = requested(cpu), used = in_use(cpu) & want;
	uint64_t compact = compacted ? want | 1ull << 63 : 0, header[2], saved;
	uint8_t image[VCPU_XSAVE_BYTES];
	uint32_t mask = MXCSR_MASK;

	/* ZMM16 to 31 are 64-bit mode's (SDM volume 1, 13.5.5). */
	if (cpu->bits != 64)
		used &= ~(1ull << 7);
	saved = compacted || optimized ? used : want;
	if (cpu->bits != 64)
		saved &= ~(1ull << 7);
	image_copy(cpu, image);
	memcpy(image + 28, &mask, 4);
	if (!(cpu->insn->rex & REX_W))
		narrow_pointers(image);
	header[0] = used;
	header[1] = compact;
	if (!compacted) {
		uint64_t old;

		read_at(cpu, lin + XSTATE_BV_AT, &old, 8);
		header[0] |= old & ~want;
	}
	/* Processors look at the end of the area, and else only at what they write. */
	check_all(cpu, lin + area_size(want, compact) - 1, 1, true);
	for (unsigned int pass = 0; pass < 2; pass++) {
		bool check = pass == 0;

		put(cpu, check, lin + AREA_HEADER, header, compacted ? 16 : 8);
		if (saved & XCR0_X87) {
			put(cpu, check, lin, image, 24);
			put(cpu, check, lin + 32, image + 32, 128);
		}
		if (compacted ? saved & XCR0_SSE : want & (XCR0_SSE | XCR0_AVX))
			put(cpu, check, lin + MXCSR_AT, image + MXCSR_AT, 8);
		if (saved & XCR0_SSE)
			put(cpu, check, lin + 160, image + 160, xmm_bytes(cpu));
		for (unsigned int i = 2; i < 10; i++)
			if ((saved >> i & 1) && components[i].size)
				put(cpu, check, lin + component_at(i, compact),
				    image + components[i].offset, component_bytes(cpu, i));
	}
}

static void xrstor(struct vcpu *cpu, bool supervisor)
{
	uint64_t lin = area_linear(cpu, false), want = requested(cpu), header[8], bits, load;
	uint8_t image[VCPU_XSAVE_BYTES];
	uint64_t compact;
	uint32_t mxcsr = 0x1f80;
	bool with_mxcsr;

	read_at(cpu, lin + AREA_HEADER, header, 64);
	compact = header[1];
	if (compact >> 63) {
		if (((compact & ~(1ull << 63)) & ~cpu->s.xcr0) || (header[0] & ~compact))
			raise_gp(cpu);
	} else {
		if (supervisor || compact || (header[0] & ~cpu->s.xcr0))
			raise_gp(cpu);
		compact = 0;
	}
	for (unsigned int i = compact ? 2 : 1; i < (compact ? 8 : 3); i++)
		if (header[i])
			raise_gp(cpu);
	if (cpu->bits != 64)
		want &= ~(1ull << 7);
	load = want & header[0];
	image_copy(cpu, image);
	with_mxcsr = compact ? want & XCR0_SSE : want & (XCR0_SSE | XCR0_AVX);
	if (with_mxcsr && (!compact || (load & XCR0_SSE)))
		read_at(cpu, lin + MXCSR_AT, &mxcsr, 4);
	if (mxcsr & ~MXCSR_MASK)
		raise_gp(cpu);
	if (load & XCR0_X87) {
		read_at(cpu, lin, image, 24);
		read_at(cpu, lin + 32, image + 32, 128);
		if (!(cpu->insn->rex & REX_W))
			narrow_pointers(image);
	}
	if (load & XCR0_SSE)
		read_at(cpu, lin + 160, image + 160, xmm_bytes(cpu));
	for (unsigned int i = 2; i < 10; i++)
		if ((load >> i & 1) && components[i].size)
			read_at(cpu, lin + component_at(i, compact), image + components[i].offset,
				component_bytes(cpu, i));

	/* From here on nothing faults. */
	memcpy(&bits, cpu->s.xsave + XSTATE_BV_AT, 8);
	if (with_mxcsr)
		memcpy(image + MXCSR_AT, &mxcsr, 4);
	if ((want & ~load) & XCR0_PKRU)
		memset(image + PKRU_AT, 0, 8);
	if ((want & XCR0_PKRU) && memcmp(image + PKRU_AT, cpu->s.xsave + PKRU_AT, 4))
		tlb_flush_all(cpu);
	if (cpu->bits != 64) {
		/* The other half of the registers stays, also where these are initialized. */
		uint64_t clear = want & ~load & bits & 0x46;

		if (clear & XCR0_SSE)
			memset(image + 160, 0, 128);
		if (clear & XCR0_AVX)
			memset(image + 576, 0, 128);
		if (clear & 1u << 6)
			memset(image + 1152, 0, 256);
		load |= clear;
	}
	memcpy(cpu->s.xsave, image, VCPU_XSAVE_BYTES);
	set_in_use(cpu, (bits & ~want) | load);
}

static void load_mxcsr(struct vcpu *cpu)
{
	uint32_t value = (uint32_t)operand_read(cpu, 0);

	if (value & ~MXCSR_MASK)
		raise_gp(cpu);
	memcpy(cpu->s.xsave + MXCSR_AT, &value, 4);
}

void exec_state(struct vcpu *cpu)
{
	const struct insn *insn = cpu->insn;
	uint32_t value;

	switch (insn->op) {
	case OP_FXSAVE:
		fxsave(cpu, false);
		break;
	case OP_FXRSTOR:
		fxsave(cpu, true);
		break;
	case OP_XSAVE:
		xsave(cpu, false, false);
		break;
	case OP_XSAVEOPT:
		xsave(cpu, false, true);
		break;
	case OP_XSAVEC:
	case OP_XSAVES:
		xsave(cpu, true, true);
		break;
	case OP_XRSTOR:
		xrstor(cpu, false);
		break;
	case OP_XRSTORS:
		xrstor(cpu, true);
		break;
	case OP_VLDMXCSR:
	case OP_VSTMXCSR:
	case OP_LDMXCSR:
	case OP_STMXCSR:
		if (insn->encoding != ENC_LEGACY) {
			if (!cpu->protected_mode || !(cpu->s.cr4 & CR4_OSXSAVE) ||
			    (cpu->s.xcr0 & 6) != 6)
				raise_ud(cpu);
		} else if ((cpu->s.cr0 & CR0_EM) || !(cpu->s.cr4 & CR4_OSFXSR)) {
			raise_ud(cpu);
		}
		if (cpu->s.cr0 & CR0_TS)
			raise_exception(cpu, EXC_NM);
		if (insn->op == OP_LDMXCSR || insn->op == OP_VLDMXCSR) {
			load_mxcsr(cpu);
		} else {
			memcpy(&value, cpu->s.xsave + MXCSR_AT, 4);
			operand_write(cpu, 0, value);
		}
		break;
	case OP_XGETBV: {
		uint64_t bits = cpu->s.xcr0;

		if (!(cpu->s.cr4 & CR4_OSXSAVE))
			raise_ud(cpu);
		if ((uint32_t)cpu->s.regs[REG_RCX] == 1)
			bits &= in_use(cpu);
		else if ((uint32_t)cpu->s.regs[REG_RCX])
			raise_gp(cpu);
		cpu->s.regs[REG_RAX] = (uint32_t)bits;
		cpu->s.regs[REG_RDX] = bits >> 32;
		break;
	}
	case OP_XSETBV: {
		uint64_t bits = (cpu->s.regs[REG_RDX] << 32) | (uint32_t)cpu->s.regs[REG_RAX];
		uint64_t wide = bits & XCR0_AVX512;

		if (!(cpu->s.cr4 & CR4_OSXSAVE))
			raise_ud(cpu);
		if (cpu->cpl != 0 || (uint32_t)cpu->s.regs[REG_RCX])
			raise_gp(cpu);
		if (!(bits & XCR0_X87) || (bits & ~cpu->vm->xcr0_mask) ||
		    ((bits & XCR0_AVX) && !(bits & XCR0_SSE)) ||
		    (wide && (wide != XCR0_AVX512 || !(bits & XCR0_AVX))))
			raise_gp(cpu);
		cpu->s.xcr0 = bits;
		break;
	}
	default:
		raise_ud(cpu);
	}
}
