/*
 * The timer of the local APIC: one-shot and periodic on a bus of 1 GHz, and TSC-deadline (SDM volume
 * 3, 11.5.4). It has no thread and no signal: run.c asks between instructions, and HLT sleeps until
 * the deadline.
 */
#include "engine/soft/lapic.h"

#include <time.h>
#include <x86intrin.h>

uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

unsigned int lapic_timer_mode(const struct vcpu *cpu)
{
	return lapic_reg(cpu, APIC_LVT_TIMER) >> 17 & 3;
}

static unsigned int divisor(const struct vcpu *cpu)
{
	uint32_t d = lapic_reg(cpu, APIC_TIMER_DIVIDE);
	unsigned int shift = ((d & 3) | (d >> 1 & 4)) + 1;

	return 1u << (shift & 7);
}

static uint64_t period_ns(const struct vcpu *cpu)
{
	uint64_t ns = (uint64_t)lapic_reg(cpu, APIC_TIMER_INITIAL) * divisor(cpu);

	/* A period that nobody could serve would only keep the loop busy. */
	return lapic_timer_mode(cpu) == TIMER_PERIODIC && ns && ns < 20000 ? 20000 : ns;
}

void lapic_timer_start(struct vcpu *cpu)
{
	cpu->timer_tsc = cpu->timer_ns = 0;
	if (lapic_timer_mode(cpu) == TIMER_DEADLINE || !lapic_reg(cpu, APIC_TIMER_INITIAL))
		return;
	cpu->timer_start_ns = clock_ns();
	cpu->timer_ns = cpu->timer_start_ns + period_ns(cpu);
}

uint32_t lapic_timer_current(const struct vcpu *cpu)
{
	uint64_t now = clock_ns();

	if (!cpu->timer_ns || lapic_timer_mode(cpu) == TIMER_DEADLINE || now >= cpu->timer_ns)
		return 0;
	return (uint32_t)((cpu->timer_ns - now) / divisor(cpu));
}

void lapic_set_deadline(struct vcpu *cpu, uint64_t tsc)
{
	if (lapic_timer_mode(cpu) != TIMER_DEADLINE)
		return;
	cpu->s.tsc_deadline = tsc;
	cpu->timer_ns = 0;
	/* 0 means disarmed on both clocks. */
	cpu->timer_tsc = tsc ? tsc - cpu->s.tsc_offset : 0;
	if (tsc && !cpu->timer_tsc)
		cpu->timer_tsc = 1;
}

void lapic_restart_timer(struct vcpu *cpu)
{
	if (lapic_timer_mode(cpu) == TIMER_DEADLINE)
		lapic_set_deadline(cpu, cpu->s.tsc_deadline);
	else if (!cpu->timer_ns)
		lapic_timer_start(cpu);
	lapic_sync(cpu);
}

void lapic_timer_check(struct vcpu *cpu)
{
	uint32_t lvt = lapic_reg(cpu, APIC_LVT_TIMER);

	if (cpu->timer_tsc) {
		if ((int64_t)(__rdtsc() - cpu->timer_tsc) < 0)
			return;
		cpu->timer_tsc = 0;
		cpu->s.tsc_deadline = 0;
	} else if (cpu->timer_ns) {
		uint64_t now = clock_ns();

		if (now < cpu->timer_ns)
			return;
		if (lapic_timer_mode(cpu) == TIMER_PERIODIC && period_ns(cpu)) {
			cpu->timer_ns += period_ns(cpu);
			/* Ticks that were missed are not made up for. */
			if (cpu->timer_ns < now)
				cpu->timer_ns = now + period_ns(cpu);
		} else {
			cpu->timer_ns = 0;
		}
	} else {
		return;
	}
	if (!(lvt & LVT_MASKED))
		lapic_post(cpu, lvt & 0xff, false);
}

uint64_t lapic_timer_wait_ns(struct vcpu *cpu)
{
	if (cpu->timer_tsc) {
		int64_t left = (int64_t)(cpu->timer_tsc - __rdtsc());
		uint64_t ns = clock_ns() - cpu->vm->ns_start, tsc = __rdtsc() - cpu->vm->tsc_start;

		if (left <= 0)
			return 0;
		/* The rate is known better the longer the machine runs; until then wait shortly. */
		if (ns < 1000000 || !tsc)
			return 50000;
		return (uint64_t)((unsigned __int128)(uint64_t)left * ns / tsc);
	}
	if (cpu->timer_ns) {
		uint64_t now = clock_ns();

		return now >= cpu->timer_ns ? 0 : cpu->timer_ns - now;
	}
	return UINT64_MAX;
}
