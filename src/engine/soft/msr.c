/*
 * Model-specific registers (SDM volume 4): those with a place in vcpu_state, the local APIC's, and
 * the few that kernels read without asking CPUID. All others are #GP.
 */
#include "engine/soft/soft.h"

#include <string.h>

enum {
	MSR_TSC = 0x10,
	MSR_APIC_BASE = 0x1b,
	MSR_FEATURE_CONTROL = 0x3a,
	MSR_TSC_ADJUST = 0x3b,
	MSR_SPEC_CTRL = 0x48,
	MSR_PRED_CMD = 0x49,
	MSR_BIOS_SIGN_ID = 0x8b,
	MSR_MTRR_CAP = 0xfe,
	MSR_ARCH_CAPABILITIES = 0x10a,
	MSR_FLUSH_CMD = 0x10b,
	MSR_SYSENTER_CS = 0x174,
	MSR_SYSENTER_ESP = 0x175,
	MSR_SYSENTER_EIP = 0x176,
	MSR_MCG_CAP = 0x179,
	MSR_MCG_STATUS = 0x17a,
	MSR_MISC_ENABLE = 0x1a0,
	MSR_DEBUGCTL = 0x1d9,
	MSR_MTRR_PHYS = 0x200, /* 16 of them */
	MSR_MTRR_FIX_64K = 0x250,
	MSR_MTRR_FIX_16K = 0x258,
	MSR_MTRR_FIX_4K = 0x268,
	MSR_PAT = 0x277,
	MSR_MTRR_DEF_TYPE = 0x2ff,
	MSR_TSC_DEADLINE = 0x6e0,
	MSR_X2APIC = 0x800, /* to 0x8ff */
	MSR_XSS = 0xda0,
	MSR_EFER = 0xc0000080,
	MSR_STAR = 0xc0000081,
	MSR_LSTAR = 0xc0000082,
	MSR_CSTAR = 0xc0000083,
	MSR_SFMASK = 0xc0000084,
	MSR_FS_BASE = 0xc0000100,
	MSR_GS_BASE = 0xc0000101,
	MSR_KERNEL_GS_BASE = 0xc0000102,
	MSR_TSC_AUX = 0xc0000103,
};

/* Plain storage, with the bits that may be set; NULL: not one of these. */
static uint64_t *stored(struct vcpu *cpu, uint32_t msr, bool *is_address)
{
	struct vcpu_state *s = &cpu->s;

	*is_address = false;
	switch (msr) {
	case MSR_SYSENTER_CS:
		return &s->sysenter_cs;
	case MSR_STAR:
		return &s->star;
	case MSR_MTRR_DEF_TYPE:
		return &s->mtrr_def_type;
	case MSR_SYSENTER_ESP:
		*is_address = true;
		return &s->sysenter_esp;
	case MSR_SYSENTER_EIP:
		*is_address = true;
		return &s->sysenter_eip;
	case MSR_LSTAR:
		*is_address = true;
		return &s->lstar;
	case MSR_CSTAR:
		*is_address = true;
		return &s->cstar;
	case MSR_FS_BASE:
		*is_address = true;
		return &s->segs[SEG_FS].base;
	case MSR_GS_BASE:
		*is_address = true;
		return &s->segs[SEG_GS].base;
	case MSR_KERNEL_GS_BASE:
		*is_address = true;
		return &s->kernel_gs_base;
	case MSR_MTRR_FIX_64K:
		return &s->mtrr_fixed[0];
	case MSR_MTRR_FIX_16K:
	case MSR_MTRR_FIX_16K + 1:
		return &s->mtrr_fixed[1 + msr - MSR_MTRR_FIX_16K];
	}
	if (msr >= MSR_MTRR_FIX_4K && msr < MSR_MTRR_FIX_4K + 8)
		return &s->mtrr_fixed[3 + msr - MSR_MTRR_FIX_4K];
	if (msr >= MSR_MTRR_PHYS && msr < MSR_MTRR_PHYS + 16)
		return &s->mtrr_phys[msr - MSR_MTRR_PHYS];
	return NULL;
}

bool msr_read(struct vcpu *cpu, uint32_t msr, uint64_t *value)
{
	bool is_address;
	uint64_t *place = stored(cpu, msr, &is_address);

	if (place) {
		*value = *place;
		return true;
	}
	if (msr >= MSR_X2APIC && msr < MSR_X2APIC + 0x100)
		return lapic_msr_read(cpu, msr, value);
	*value = 0;
	switch (msr) {
	case MSR_TSC:
		*value = guest_tsc(cpu);
		return true;
	case MSR_TSC_ADJUST:
		if (!cpuid_has(cpu, 7, 0, 1, 1))
			return false;
		*value = cpu->s.tsc_offset;
		return true;
	case MSR_APIC_BASE:
		*value = cpu->s.apic_base;
		return true;
	case MSR_MTRR_CAP:
		*value = 0x508; /* 8 variable ranges, fixed ranges, write-combining */
		return true;
	case MSR_MISC_ENABLE:
		*value = cpu->s.misc_enable;
		return true;
	case MSR_PAT:
		*value = cpu->s.pat;
		return true;
	case MSR_TSC_DEADLINE:
		*value = cpu->s.tsc_deadline;
		return true;
	case MSR_XSS:
		*value = cpu->s.xss;
		return cpu->vm->features & CPU_BIT(CPU_XSAVES);
	case MSR_EFER:
		*value = cpu->s.efer;
		return true;
	case MSR_SFMASK:
		*value = cpu->s.sfmask;
		return true;
	case MSR_TSC_AUX:
		*value = cpu->s.tsc_aux;
		return true;
	case MSR_SPEC_CTRL:
		*value = cpu->s.spec_ctrl;
		return cpuid_has(cpu, 7, 0, 3, 26);
	case MSR_ARCH_CAPABILITIES:
		/* Not vulnerable to Meltdown, L1TF, MDS, TAA ...: the host's business, and the
		 * guest's user code is interpreted. */
		*value = 0x1 | 0x8 | 0x20 | 0x40 | 0x100 | 0xe000 | 1u << 26;
		return cpuid_has(cpu, 7, 0, 3, 29);
	/* What kernels read without asking, and find empty. */
	case 0x17: /* PLATFORM_ID */
	case 0x2a: /* EBL_CR_POWERON */
	case MSR_FEATURE_CONTROL:
	case MSR_BIOS_SIGN_ID:
	case 0xcd:  /* FSB_FREQ */
	case 0xce:  /* PLATFORM_INFO */
	case 0x140: /* MISC_FEATURES_ENABLES */
	case MSR_MCG_CAP:
	case MSR_MCG_STATUS:
	case 0x198: /* PERF_STATUS */
	case 0x19a: /* CLOCK_MODULATION */
	case 0x19b: /* THERM_INTERRUPT */
	case 0x19c: /* THERM_STATUS */
	case MSR_DEBUGCTL:
	case 0x1a2:      /* TEMPERATURE_TARGET */
	case 0x1b0:      /* ENERGY_PERF_BIAS */
	case 0x606:      /* RAPL_POWER_UNIT */
	case 0x611:      /* PKG_ENERGY_STATUS */
	case 0x639:      /* PP0_ENERGY_STATUS */
	case 0x641:      /* PP1_ENERGY_STATUS */
	case 0x619:      /* DRAM_ENERGY_STATUS */
	case 0xc0010015: /* HWCR and others of AMD's */
	case 0xc001001f:
	case 0xc0011022:
	case 0xc0011029:
		return true;
	}
	return false;
}

static bool write_efer(struct vcpu *cpu, uint64_t value)
{
	uint64_t known = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
	uint64_t changed = cpu->s.efer ^ value;

	if (value & ~known)
		return false;
	if ((changed & EFER_LME) && (cpu->s.cr0 & CR0_PG))
		return false;
	/* LMA is read-only; writes to it are ignored. */
	value = (value & ~(uint64_t)EFER_LMA) | (cpu->s.efer & EFER_LMA);
	if (changed & EFER_NXE)
		tlb_flush_all(cpu);
	cpu->s.efer = value;
	return true;
}

static bool valid_pat(uint64_t value)
{
	for (unsigned int i = 0; i < 8; i++) {
		uint8_t type = (uint8_t)(value >> 8 * i);

		if (type > 7 || type == 2 || type == 3)
			return false;
	}
	return true;
}

/* The bytes of fixed ranges, and the type of variable ones (SDM 11.11.2). */
static bool valid_mtrr(uint32_t msr, uint64_t value)
{
	unsigned int n = msr >= MSR_MTRR_FIX_64K && msr < MSR_PAT ? 8 : 1;

	if (msr == MSR_MTRR_DEF_TYPE && (value & ~0xcffull))
		return false;
	if (msr >= MSR_MTRR_PHYS && msr < MSR_MTRR_PHYS + 16 && (msr & 1))
		return true;
	for (unsigned int i = 0; i < n; i++) {
		uint8_t type = (uint8_t)(value >> 8 * i);

		if (type > 6 || type == 2 || type == 3)
			return false;
	}
	return true;
}

bool msr_write(struct vcpu *cpu, uint32_t msr, uint64_t value)
{
	bool is_address;
	uint64_t *place = stored(cpu, msr, &is_address);

	if (place) {
		if (is_address && !is_canonical(value))
			return false;
		if (msr >= MSR_MTRR_PHYS && msr <= MSR_MTRR_DEF_TYPE && !valid_mtrr(msr, value))
			return false;
		*place = value;
		return true;
	}
	if (msr >= MSR_X2APIC && msr < MSR_X2APIC + 0x100)
		return lapic_msr_write(cpu, msr, value);
	switch (msr) {
	case MSR_TSC:
		cpu->s.tsc_offset += value - guest_tsc(cpu);
		lapic_restart_timer(cpu);
		return true;
	case MSR_TSC_ADJUST:
		if (!cpuid_has(cpu, 7, 0, 1, 1))
			return false;
		cpu->s.tsc_offset = value;
		lapic_restart_timer(cpu);
		return true;
	case MSR_APIC_BASE:
		return lapic_base_write(cpu, value);
	case MSR_MISC_ENABLE:
		cpu->s.misc_enable = value;
		return true;
	case MSR_PAT:
		if (!valid_pat(value))
			return false;
		cpu->s.pat = value;
		return true;
	case MSR_TSC_DEADLINE:
		lapic_set_deadline(cpu, value);
		return true;
	case MSR_XSS:
		if (value || !(cpu->vm->features & CPU_BIT(CPU_XSAVES)))
			return false;
		cpu->s.xss = value;
		return true;
	case MSR_EFER:
		return write_efer(cpu, value);
	case MSR_SFMASK:
		cpu->s.sfmask = (uint32_t)value;
		return true;
	case MSR_TSC_AUX:
		if (value >> 32)
			return false;
		cpu->s.tsc_aux = value;
		return true;
	case MSR_SPEC_CTRL:
		if (!cpuid_has(cpu, 7, 0, 3, 26) || (value & ~7ull))
			return false;
		cpu->s.spec_ctrl = value;
		return true;
	case MSR_PRED_CMD:
		return cpuid_has(cpu, 7, 0, 3, 26) && !(value & ~1ull);
	case MSR_FLUSH_CMD:
		return cpuid_has(cpu, 7, 0, 3, 28) && !(value & ~1ull);
	case MSR_BIOS_SIGN_ID:
	case MSR_MCG_STATUS:
	case MSR_DEBUGCTL:
		return !value || msr == MSR_BIOS_SIGN_ID;
	}
	return false;
}
