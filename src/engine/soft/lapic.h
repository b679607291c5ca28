/* What lapic.c and lapic_timer.c share: the registers of the local APIC (SDM table 11-1). */
#pragma once

#include "engine/soft/soft.h"

enum {
	APIC_ID = 0x20,
	APIC_VERSION = 0x30,
	APIC_TPR = 0x80,
	APIC_APR = 0x90,
	APIC_PPR = 0xa0,
	APIC_EOI = 0xb0,
	APIC_RRR = 0xc0,
	APIC_LDR = 0xd0,
	APIC_DFR = 0xe0,
	APIC_SVR = 0xf0,
	APIC_ISR = 0x100,
	APIC_TMR = 0x180,
	APIC_IRR = 0x200,
	APIC_ESR = 0x280,
	APIC_LVT_CMCI = 0x2f0,
	APIC_ICR = 0x300,
	APIC_ICR2 = 0x310,
	APIC_LVT_TIMER = 0x320,
	APIC_LVT_THERMAL = 0x330,
	APIC_LVT_PERF = 0x340,
	APIC_LVT_LINT0 = 0x350,
	APIC_LVT_LINT1 = 0x360,
	APIC_LVT_ERROR = 0x370,
	APIC_TIMER_INITIAL = 0x380,
	APIC_TIMER_CURRENT = 0x390,
	APIC_TIMER_DIVIDE = 0x3e0,
	APIC_SELF_IPI = 0x3f0,
};

#define LVT_MASKED   (1u << 16)
#define SVR_ENABLED  (1u << 8)
#define SVR_NO_EOI   (1u << 12)
#define ESR_ILLEGAL  (1u << 7) /* register */
#define ESR_BAD_SEND (1u << 5) /* vector */
#define ICR_LEVEL    (1u << 15)
#define ICR_ASSERT   (1u << 14)
#define ICR_LOGICAL  (1u << 11)

enum { MODE_FIXED, MODE_LOWEST, MODE_SMI, MODE_NMI = 4, MODE_INIT, MODE_SIPI, MODE_EXTINT };
enum { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_DEADLINE };

static inline uint32_t lapic_reg(const struct vcpu *cpu, unsigned int at)
{
	return __atomic_load_n((const uint32_t *)(const void *)(cpu->s.lapic + at),
			       __ATOMIC_RELAXED);
}

static inline void lapic_set_reg(struct vcpu *cpu, unsigned int at, uint32_t value)
{
	__atomic_store_n((uint32_t *)(void *)(cpu->s.lapic + at), value, __ATOMIC_RELAXED);
}

/* [any] An interrupt for a vCPU. */
void lapic_post(struct vcpu *cpu, unsigned int vector, bool level);

/* Starts the timer by its registers, one-shot or periodic. */
void lapic_timer_start(struct vcpu *cpu);
uint32_t lapic_timer_current(const struct vcpu *cpu);
unsigned int lapic_timer_mode(const struct vcpu *cpu);
