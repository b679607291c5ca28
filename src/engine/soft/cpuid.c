/*
 * CPUID (SDM volume 2A): what the guest sees of the board's table, what of it is the processor's
 * own, and what this engine can offer on this host.
 */
#include "engine/soft/native.h"

#include <cpuid.h>
#include <stdlib.h>
#include <string.h>

enum { EAX, EBX, ECX, EDX };

/* The decoder's features and their bits. */
static const struct {
	uint32_t function, index;
	uint8_t reg, bit, feature;
} features[] = {
	{1, 0, ECX, 0, CPU_SSE3},
	{1, 0, ECX, 1, CPU_PCLMULQDQ},
	{1, 0, ECX, 9, CPU_SSSE3},
	{1, 0, ECX, 12, CPU_FMA},
	{1, 0, ECX, 13, CPU_CX16},
	{1, 0, ECX, 19, CPU_SSE41},
	{1, 0, ECX, 20, CPU_SSE42},
	{1, 0, ECX, 22, CPU_MOVBE},
	{1, 0, ECX, 23, CPU_POPCNT},
	{1, 0, ECX, 25, CPU_AES},
	{1, 0, ECX, 26, CPU_XSAVE},
	{1, 0, ECX, 28, CPU_AVX},
	{1, 0, ECX, 29, CPU_F16C},
	{1, 0, ECX, 30, CPU_RDRAND},
	{1, 0, EDX, 11, CPU_SEP},
	{7, 0, EBX, 0, CPU_FSGSBASE},
	{7, 0, EBX, 3, CPU_BMI1},
	{7, 0, EBX, 5, CPU_AVX2},
	{7, 0, EBX, 8, CPU_BMI2},
	{7, 0, EBX, 10, CPU_INVPCID},
	{7, 0, EBX, 16, CPU_AVX512F},
	{7, 0, EBX, 17, CPU_AVX512DQ},
	{7, 0, EBX, 18, CPU_RDSEED},
	{7, 0, EBX, 19, CPU_ADX},
	{7, 0, EBX, 20, CPU_SMAP},
	{7, 0, EBX, 21, CPU_AVX512IFMA},
	{7, 0, EBX, 23, CPU_CLFLUSHOPT},
	{7, 0, EBX, 24, CPU_CLWB},
	{7, 0, EBX, 28, CPU_AVX512CD},
	{7, 0, EBX, 29, CPU_SHA},
	{7, 0, EBX, 30, CPU_AVX512BW},
	{7, 0, EBX, 31, CPU_AVX512VL},
	{7, 0, ECX, 1, CPU_AVX512VBMI},
	{7, 0, ECX, 3, CPU_PKU},
	{7, 0, ECX, 6, CPU_AVX512VBMI2},
	{7, 0, ECX, 8, CPU_GFNI},
	{7, 0, ECX, 9, CPU_VAES},
	{7, 0, ECX, 10, CPU_VPCLMULQDQ},
	{7, 0, ECX, 11, CPU_AVX512VNNI},
	{7, 0, ECX, 12, CPU_AVX512BITALG},
	{7, 0, ECX, 14, CPU_AVX512VPOPCNTDQ},
	{7, 0, ECX, 22, CPU_RDPID},
	{7, 0, ECX, 27, CPU_MOVDIRI},
	{7, 0, ECX, 28, CPU_MOVDIR64B},
	{7, 0, EDX, 14, CPU_SERIALIZE},
	{7, 0, EDX, 23, CPU_AVX512FP16},
	{7, 1, EAX, 4, CPU_AVX_VNNI},
	{7, 1, EAX, 5, CPU_AVX512BF16},
	{0xd, 1, EAX, 0, CPU_XSAVEOPT},
	{0xd, 1, EAX, 1, CPU_XSAVEC},
	{0xd, 1, EAX, 3, CPU_XSAVES},
	{0x80000001, 0, ECX, 0, CPU_LAHF64},
	{0x80000001, 0, ECX, 5, CPU_LZCNT},
	{0x80000001, 0, EDX, 27, CPU_RDTSCP},
	{0x80000008, 0, EBX, 9, CPU_WBNOINVD},
};

/* Features of the vector units go to the guest only where the host has them; the rest this engine
 * does itself. */
static bool is_own(uint8_t feature)
{
	switch (feature) {
	case CPU_CX16:
	case CPU_LAHF64:
	case CPU_RDRAND:
	case CPU_RDSEED:
	case CPU_RDPID:
	case CPU_RDTSCP:
	case CPU_FSGSBASE:
	case CPU_INVPCID:
	case CPU_SMAP:
	case CPU_PKU:
	case CPU_SEP:
	case CPU_XSAVEOPT:
	case CPU_XSAVEC:
	case CPU_XSAVES:
	case CPU_CLFLUSHOPT:
	case CPU_CLWB:
	case CPU_MOVDIR64B:
	case CPU_SERIALIZE:
		return true;
	}
	return false;
}

/* ---- What the guest sees ---- */

static const struct cpuid_leaf *find(const struct vm *vm, uint32_t function, uint32_t index)
{
	for (size_t i = 0; i < vm->config.n_cpuid; i++) {
		const struct cpuid_leaf *l = &vm->config.cpuid[i];

		if (l->function == function && (!l->indexed || l->index == index))
			return l;
	}
	return NULL;
}

bool cpuid_has(struct vcpu *cpu, uint32_t function, uint32_t index, unsigned int reg,
	       unsigned int bit)
{
	const struct cpuid_leaf *l = find(cpu->vm, function, index);
	const uint32_t *r[] = {l ? &l->eax : NULL, l ? &l->ebx : NULL, l ? &l->ecx : NULL,
			       l ? &l->edx : NULL};

	return l && (*r[reg] >> bit & 1);
}

/* Bytes of the XSAVE area for these components. */
static uint32_t xsave_bytes(uint64_t bits)
{
	return bits & XCR0_PKRU   ? 2696
	       : bits & (1u << 7) ? 2688
	       : bits & (1u << 6) ? 1664
	       : bits & (1u << 5) ? 1152
	       : bits & XCR0_AVX  ? 832
				  : 576;
}

static uint32_t compact_bytes(uint64_t bits)
{
	return 576 + (bits & XCR0_AVX ? 256 : 0) + (bits & 1 << 5 ? 64 : 0) +
	       (bits & 1 << 6 ? 512 : 0) + (bits & 1 << 7 ? 1024 : 0) + (bits & XCR0_PKRU ? 8 : 0);
}

void cpuid(struct vcpu *cpu, uint32_t function, uint32_t index, uint32_t out[static 4])
{
	const struct cpuid_leaf *l = find(cpu->vm, function, index);

	memset(out, 0, 4 * sizeof(out[0]));
	if (!l) {
		/* Beyond the last leaf Intel's processors answer as for the last basic one; an
		 * unknown index of a known leaf is all zeros. */
		return;
	}
	out[EAX] = l->eax;
	out[EBX] = l->ebx;
	out[ECX] = l->ecx;
	out[EDX] = l->edx;
	switch (function) {
	case 1:
		out[EBX] = (out[EBX] & 0x00ffffff) | cpu->index << 24;
		if (!(cpu->s.apic_base & APIC_BASE_ENABLE))
			out[EDX] &= ~(1u << 9);
		out[ECX] &= ~(1u << 27);
		if (cpu->s.cr4 & CR4_OSXSAVE)
			out[ECX] |= 1u << 27;
		break;
	case 7:
		if (index == 0) {
			out[ECX] &= ~(1u << 4);
			if (cpu->s.cr4 & CR4_PKE)
				out[ECX] |= 1u << 4;
		}
		break;
	case 0xb:
	case 0x1f:
		out[EDX] = cpu->index;
		break;
	case 0xd:
		if (index == 0)
			out[EBX] = xsave_bytes(cpu->s.xcr0);
		else if (index == 1)
			out[EBX] = compact_bytes(cpu->s.xcr0 | cpu->s.xss);
		break;
	}
}

/* What the table means for instructions, control registers and addresses. */
void vm_read_cpuid(struct vm *vm)
{
	const struct cpuid_leaf *l;

	vm->features = 0;
	for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
		l = find(vm, features[i].function, features[i].index);
		if (!l)
			continue;
		if ((features[i].reg == EAX   ? l->eax
		     : features[i].reg == EBX ? l->ebx
		     : features[i].reg == ECX ? l->ecx
					      : l->edx) >>
			    features[i].bit &
		    1)
			vm->features |= CPU_BIT(features[i].feature);
	}
	l = find(vm, 0x80000008, 0);
	vm->phys_bits = l ? l->eax & 0xff : 36;
	if (vm->phys_bits < 32 || vm->phys_bits > 52)
		vm->phys_bits = 36;
	l = find(vm, 7, 0);
	vm->fdp_on_exception = l && (l->ebx >> 6 & 1);
	l = find(vm, 0xd, 0);
	vm->xcr0_mask = l ? l->eax & 0x2e7 : 3;
}

/* ---- What can be offered ---- */

struct table {
	struct cpuid_leaf *leaves;
	size_t n;
};

static struct cpuid_leaf *add(struct table *t, uint32_t function, uint32_t index, bool indexed)
{
	struct cpuid_leaf *l = &t->leaves[t->n++];

	*l = (struct cpuid_leaf){.function = function, .index = index, .indexed = indexed};
	return l;
}

static void host(uint32_t function, uint32_t index, uint32_t out[static 4])
{
	memset(out, 0, 4 * sizeof(out[0]));
	__get_cpuid_count(function, index, &out[EAX], &out[EBX], &out[ECX], &out[EDX]);
}

static uint32_t feature_bits(uint32_t function, uint32_t index, unsigned int reg, uint64_t xcr0)
{
	uint32_t h[4], bits = 0;

	host(function, index, h);
	for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
		uint8_t f = features[i].feature;
		bool there;

		if (features[i].function != function || features[i].index != index ||
		    features[i].reg != reg)
			continue;
		there = is_own(f) || (h[reg] >> features[i].bit & 1);
		if (f >= CPU_F16C && f <= CPU_VPCLMULQDQ && !(xcr0 & XCR0_AVX))
			there = false;
		if (f >= CPU_AVX512F && (xcr0 & XCR0_AVX512) != XCR0_AVX512)
			there = false;
		if (there)
			bits |= 1u << features[i].bit;
	}
	return bits;
}

int soft_supported_cpuid(struct cpuid_leaf **leaves, size_t *n, struct error *err)
{
	static const uint16_t at[] = {[2] = 576, [5] = 1088, [6] = 1152, [7] = 1664, [9] = 2688};
	static const uint16_t size[] = {[2] = 256, [5] = 64, [6] = 512, [7] = 1024, [9] = 8};
	uint64_t xcr0 = native_components();
	struct table t = {.leaves = calloc(64, sizeof(struct cpuid_leaf))};
	struct cpuid_leaf *l;
	uint32_t h[4];

	if (!t.leaves)
		return error_oom(err);
	host(0, 0, h);
	l = add(&t, 0, 0, false);
	*l = (struct cpuid_leaf){0, 0, false, 0x16, h[EBX], h[ECX], h[EDX]};

	host(1, 0, h);
	l = add(&t, 1, 0, false);
	l->eax = h[EAX];
	l->ebx = 8 << 8; /* CLFLUSH lines */
	l->ecx = feature_bits(1, 0, ECX, xcr0) | 1u << 17 /* PCID */ | 1u << 21 /* x2APIC */ |
		 1u << 24 /* TSC deadline */ | 1u << 31 /* hypervisor */;
	/* FPU, DE, PSE, TSC, MSR, PAE, MCE, CX8, APIC, SEP, MTRR, PGE, MCA, CMOV, PAT, PSE36,
	 * CLFLUSH, MMX, FXSR, SSE, SSE2, self-snoop */
	l->edx = 0x0f8bfbfd;

	/* Deterministic cache parameters, as the host's, for one thread. */
	for (uint32_t i = 0; i < 5; i++) {
		host(4, i, h);
		l = add(&t, 4, i, true);
		l->eax = h[EAX] & 0x3ff;
		l->ebx = h[EBX];
		l->ecx = h[ECX];
		l->edx = h[EDX];
		if (!(h[EAX] & 0x1f))
			break;
	}
	l = add(&t, 6, 0, false);
	l->eax = 1u << 2; /* ARAT: the timer runs always */

	l = add(&t, 7, 0, true);
	l->eax = 1;
	l->ebx = feature_bits(7, 0, EBX, xcr0) | 1u << 1 /* TSC_ADJUST */ | 1u << 7 /* SMEP */ |
		 1u << 9 /* ERMS */ | 1u << 13 /* no FCS, FDS */;
	host(7, 0, h);
	l->ebx |= h[EBX] & (1u << 6); /* FDP only on exceptions */
	l->ecx = feature_bits(7, 0, ECX, xcr0) | 1u << 2 /* UMIP */;
	l->edx = feature_bits(7, 0, EDX, xcr0) | 1u << 4 /* FSRM */ | 1u << 26 /* SPEC_CTRL */ |
		 1u << 29 /* ARCH_CAPABILITIES */;
	l = add(&t, 7, 1, true);
	l->eax = feature_bits(7, 1, EAX, xcr0);

	/* One level of one thread each; the board may say more. */
	l = add(&t, 0xb, 0, true);
	l->ebx = 1;
	l->ecx = 0x100;
	l = add(&t, 0xb, 1, true);
	l->eax = 8;
	l->ebx = 256;
	l->ecx = 0x201;
	l = add(&t, 0xb, 2, true);
	l->ecx = 2;

	l = add(&t, 0xd, 0, true);
	l->eax = (uint32_t)(xcr0 | XCR0_PKRU);
	l->ecx = xsave_bytes(xcr0 | XCR0_PKRU);
	l->ebx = l->ecx;
	l = add(&t, 0xd, 1, true);
	l->eax = feature_bits(0xd, 1, EAX, xcr0) | 4 /* XGETBV(1) */;
	for (uint32_t i = 2; i < 10; i++) {
		if (!size[i] || !((xcr0 | XCR0_PKRU) >> i & 1))
			continue;
		l = add(&t, 0xd, i, true);
		l->eax = size[i];
		l->ebx = at[i];
	}
	if (__get_cpuid(0x15, &h[EAX], &h[EBX], &h[ECX], &h[EDX]) && h[EAX] && h[ECX]) {
		l = add(&t, 0x15, 0, false);
		l->eax = h[EAX];
		l->ebx = h[EBX];
		l->ecx = h[ECX];
	}
	if (__get_cpuid(0x16, &h[EAX], &h[EBX], &h[ECX], &h[EDX])) {
		l = add(&t, 0x16, 0, false);
		l->eax = h[EAX];
		l->ebx = h[EBX];
		l->ecx = h[ECX];
	}

	l = add(&t, 0x80000000, 0, false);
	l->eax = 0x80000008;
	host(0x80000001, 0, h);
	l = add(&t, 0x80000001, 0, false);
	l->ecx = feature_bits(0x80000001, 0, ECX, xcr0) | (h[ECX] & (1u << 8)); /* PREFETCHW */
	/* SYSCALL, NX, 1 GiB pages, RDTSCP, long mode */
	l->edx = 1u << 11 | 1u << 20 | 1u << 26 | 1u << 27 | 1u << 29;
	for (uint32_t i = 0x80000002; i < 0x80000005; i++) {
		host(i, 0, h);
		l = add(&t, i, 0, false);
		*l = (struct cpuid_leaf){i, 0, false, h[EAX], h[EBX], h[ECX], h[EDX]};
	}
	host(0x80000006, 0, h);
	l = add(&t, 0x80000006, 0, false);
	l->ecx = h[ECX];
	l = add(&t, 0x80000007, 0, false);
	l->edx = 1u << 8; /* invariant TSC */
	host(0x80000008, 0, h);
	l = add(&t, 0x80000008, 0, false);
	l->eax = (h[EAX] & 0xff) | 48 << 8;
	*leaves = t.leaves;
	*n = t.n;
	return 0;
}
