/*
 * The local APIC (SDM volume 3, chapter 11): registers by memory or MSR, priorities, inter-processor
 * interrupts, the timer. Its registers live in vcpu_state.lapic and belong to the vCPU's thread;
 * what other threads send is posted in atomic words and taken in by lapic_sync().
 */
#include "engine/soft/lapic.h"

#include <string.h>

static bool x2apic(const struct vcpu *cpu)
{
	return cpu->s.apic_base & APIC_BASE_X2APIC;
}

static bool enabled(const struct vcpu *cpu)
{
	return (cpu->s.apic_base & APIC_BASE_ENABLE) && (lapic_reg(cpu, APIC_SVR) & SVR_ENABLED);
}

/* ---- Priorities (SDM 11.8.3) ---- */

/* The highest vector of a 256-bit register, or -1. */
static int highest(const struct vcpu *cpu, unsigned int base)
{
	for (int i = 7; i >= 0; i--) {
		uint32_t word = lapic_reg(cpu, base + 16 * (unsigned int)i);

		if (word)
			return 32 * i + 31 - __builtin_clz(word);
	}
	return -1;
}

static void set_vector(struct vcpu *cpu, unsigned int base, unsigned int vector, bool on)
{
	unsigned int at = base + vector / 32 * 16;
	uint32_t bit = 1u << (vector % 32);

	lapic_set_reg(cpu, at, on ? lapic_reg(cpu, at) | bit : lapic_reg(cpu, at) & ~bit);
}

static void update(struct vcpu *cpu)
{
	int irr = highest(cpu, APIC_IRR), isr = highest(cpu, APIC_ISR);
	uint32_t tpr = lapic_reg(cpu, APIC_TPR), ppr = tpr;

	if (isr >= 0 && (uint32_t)(isr & 0xf0) > (tpr & 0xf0))
		ppr = (uint32_t)(isr & 0xf0);
	lapic_set_reg(cpu, APIC_PPR, ppr);
	cpu->irq_ready = enabled(cpu) && irr >= 0 && (uint32_t)(irr & 0xf0) > (ppr & 0xf0);
}

void lapic_sync(struct vcpu *cpu)
{
	for (unsigned int i = 0; i < 8; i++) {
		uint32_t level, irr;

		if (!atomic_load_explicit(&cpu->posted[i], memory_order_relaxed))
			continue;
		level = atomic_exchange(&cpu->posted_level[i], 0);
		irr = atomic_exchange(&cpu->posted[i], 0);
		lapic_set_reg(cpu, APIC_IRR + 16 * i, lapic_reg(cpu, APIC_IRR + 16 * i) | irr);
		lapic_set_reg(cpu, APIC_TMR + 16 * i,
			      (lapic_reg(cpu, APIC_TMR + 16 * i) & ~irr) | (level & irr));
	}
	update(cpu);
}

int lapic_acknowledge(struct vcpu *cpu)
{
	int vector;

	if (!cpu->irq_ready)
		return -1;
	vector = highest(cpu, APIC_IRR);
	set_vector(cpu, APIC_IRR, (unsigned int)vector, false);
	set_vector(cpu, APIC_ISR, (unsigned int)vector, true);
	update(cpu);
	return vector;
}

bool lapic_accepts_extint(const struct vcpu *cpu)
{
	uint32_t lint0 = lapic_reg(cpu, APIC_LVT_LINT0);

	if (!(cpu->s.apic_base & APIC_BASE_ENABLE))
		return true;
	return !(lint0 & LVT_MASKED) && (lint0 >> 8 & 7) == MODE_EXTINT;
}

static void end_of_interrupt(struct vcpu *cpu)
{
	int vector = highest(cpu, APIC_ISR);
	bool level;

	if (vector < 0)
		return;
	level = lapic_reg(cpu, APIC_TMR + (unsigned int)vector / 32 * 16) >> (vector % 32) & 1;
	set_vector(cpu, APIC_ISR, (unsigned int)vector, false);
	update(cpu);
	if (level && !(lapic_reg(cpu, APIC_SVR) & SVR_NO_EOI))
		cpu->vm->config.ops->apic_eoi(cpu->vm->config.board, (uint8_t)vector);
}

uint64_t lapic_cr8(const struct vcpu *cpu)
{
	return lapic_reg(cpu, APIC_TPR) >> 4;
}

void lapic_set_cr8(struct vcpu *cpu, uint64_t value)
{
	lapic_set_reg(cpu, APIC_TPR, (uint32_t)value << 4);
	update(cpu);
}

/* ---- Receiving ---- */

/* [any] */
void lapic_post(struct vcpu *cpu, unsigned int vector, bool level)
{
	uint32_t bit = 1u << (vector % 32);

	if (vector < 16 || !enabled(cpu))
		return;
	if (level)
		atomic_fetch_or(&cpu->posted_level[vector / 32], bit);
	atomic_fetch_or(&cpu->posted[vector / 32], bit);
	vcpu_request(cpu, REQUEST_IRQ);
}

/* [any] */
static void deliver(struct vcpu *cpu, unsigned int mode, unsigned int vector, bool level)
{
	switch (mode) {
	case MODE_FIXED:
	case MODE_LOWEST:
		lapic_post(cpu, vector, level);
		break;
	case MODE_NMI:
		vcpu_request(cpu, REQUEST_NMI);
		break;
	case MODE_INIT:
		vcpu_request(cpu, REQUEST_INIT);
		break;
	case MODE_SIPI:
		atomic_store(&cpu->sipi_vector, vector);
		vcpu_request(cpu, REQUEST_SIPI);
		break;
	}
}

/* [any] Whether a message is for this processor (SDM 11.6.2). */
static bool is_destination(const struct vcpu *cpu, uint32_t destination, bool logical, bool wide)
{
	bool x2 = x2apic(cpu);
	uint32_t ldr = lapic_reg(cpu, APIC_LDR);

	if (!wide && destination == 0xff)
		return true;
	if (wide && destination == 0xffffffff)
		return true;
	if (!logical)
		return x2 ? destination == cpu->index
			  : destination == lapic_reg(cpu, APIC_ID) >> 24;
	if (x2)
		return (destination >> 16) == (ldr >> 16) && (destination & ldr & 0xffff);
	ldr >>= 24;
	destination &= 0xff;
	if (lapic_reg(cpu, APIC_DFR) >> 28 == 15)
		return destination & ldr;
	return (destination & 0xf0) == (ldr & 0xf0) && (destination & ldr & 0x0f);
}

/* [any] */
static void send(struct vm *vm, uint32_t destination, bool logical, bool wide, unsigned int mode,
		 unsigned int vector, bool level)
{
	struct vcpu *lowest = NULL;

	for (unsigned int i = 0; i < vm->config.n_vcpus; i++) {
		struct vcpu *cpu = __atomic_load_n(&vm->vcpus[i], __ATOMIC_ACQUIRE);

		if (!cpu || !is_destination(cpu, destination, logical, wide))
			continue;
		if (mode == MODE_LOWEST) {
			if (enabled(cpu) &&
			    (!lowest || lapic_reg(cpu, APIC_PPR) < lapic_reg(lowest, APIC_PPR)))
				lowest = cpu;
			continue;
		}
		deliver(cpu, mode, vector, level);
	}
	if (lowest)
		deliver(lowest, MODE_FIXED, vector, level);
}

/* SDM 11.11: bits 12..19 of the address are the destination, 2 its mode; bits 5..11 the rest of a
 * destination of 15 bits, as hypervisors use it. */
void lapic_message(struct vm *vm, uint64_t address, uint32_t data)
{
	uint32_t destination = (uint32_t)(address >> 12 & 0xff) | (uint32_t)(address >> 5 & 0x7f)
									  << 8;

	if ((address & 0xfff00000) != 0xfee00000)
		return;
	send(vm, destination, address & 4, false, data >> 8 & 7, data & 0xff, data & ICR_LEVEL);
}

/* ---- Sending (SDM 11.6.1) ---- */

static void send_ipi(struct vcpu *cpu, uint32_t icr, uint32_t destination)
{
	unsigned int mode = icr >> 8 & 7, vector = icr & 0xff, shorthand = icr >> 18 & 3;
	bool level = icr & ICR_LEVEL;

	/* INIT level de-assert does nothing on processors of this kind. */
	if (mode == MODE_INIT && level && !(icr & ICR_ASSERT))
		return;
	if ((mode == MODE_FIXED || mode == MODE_LOWEST) && vector < 16) {
		lapic_set_reg(cpu, APIC_ESR, lapic_reg(cpu, APIC_ESR) | ESR_BAD_SEND);
		return;
	}
	if (mode == MODE_FIXED || mode == MODE_LOWEST)
		level = false;
	if (shorthand == 0) {
		send(cpu->vm, destination, icr & ICR_LOGICAL, x2apic(cpu), mode, vector, level);
		return;
	}
	if (shorthand == 1) {
		deliver(cpu, mode, vector, level);
		return;
	}
	for (unsigned int i = 0; i < cpu->vm->config.n_vcpus; i++) {
		struct vcpu *to = __atomic_load_n(&cpu->vm->vcpus[i], __ATOMIC_ACQUIRE);

		if (to && (to != cpu || shorthand == 2))
			deliver(to, mode, vector, level);
	}
}

/* ---- Registers ---- */

static uint32_t read_register(struct vcpu *cpu, unsigned int at)
{
	switch (at) {
	case APIC_TIMER_CURRENT:
		return lapic_timer_current(cpu);
	case APIC_PPR:
		update(cpu);
		return lapic_reg(cpu, at);
	case APIC_ID:
		return x2apic(cpu) ? cpu->index : lapic_reg(cpu, at);
	}
	return lapic_reg(cpu, at);
}

static bool is_lvt(unsigned int at)
{
	return at == APIC_LVT_CMCI || (at >= APIC_LVT_TIMER && at <= APIC_LVT_ERROR);
}

static void write_register(struct vcpu *cpu, unsigned int at, uint32_t value)
{
	switch (at) {
	case APIC_ID:
		lapic_set_reg(cpu, at, value & 0xff000000);
		break;
	case APIC_TPR:
		lapic_set_reg(cpu, at, value & 0xff);
		update(cpu);
		break;
	case APIC_EOI:
		end_of_interrupt(cpu);
		break;
	case APIC_LDR:
		lapic_set_reg(cpu, at, value & 0xff000000);
		break;
	case APIC_DFR:
		lapic_set_reg(cpu, at, value | 0x0fffffff);
		break;
	case APIC_SVR:
		lapic_set_reg(cpu, at, value & 0x13ff);
		if (!(value & SVR_ENABLED)) {
			/* SDM 11.4.7.2: the LVTs are masked while it is off. */
			for (unsigned int lvt = APIC_LVT_TIMER; lvt <= APIC_LVT_ERROR; lvt += 16)
				lapic_set_reg(cpu, lvt, lapic_reg(cpu, lvt) | LVT_MASKED);
		}
		update(cpu);
		break;
	case APIC_ESR:
		lapic_set_reg(cpu, at, 0);
		break;
	case APIC_ICR:
		lapic_set_reg(cpu, at, value & ~(1u << 12));
		send_ipi(cpu, value, lapic_reg(cpu, APIC_ICR2) >> 24);
		break;
	case APIC_ICR2:
		lapic_set_reg(cpu, at, value & 0xff000000);
		break;
	case APIC_TIMER_INITIAL:
		if (lapic_timer_mode(cpu) == TIMER_DEADLINE)
			break;
		lapic_set_reg(cpu, at, value);
		lapic_timer_start(cpu);
		break;
	case APIC_TIMER_DIVIDE:
		lapic_set_reg(cpu, at, value & 0xb);
		break;
	default:
		if (is_lvt(at)) {
			uint32_t old = lapic_reg(cpu, at);

			if (!(lapic_reg(cpu, APIC_SVR) & SVR_ENABLED))
				value |= LVT_MASKED;
			lapic_set_reg(cpu, at,
				      value & 0x7f7ff & (at == APIC_LVT_TIMER ? 0x700ff : ~0u));
			/* Changing to or from TSC-deadline mode disarms (SDM 11.5.4.1). */
			if (at == APIC_LVT_TIMER && ((old ^ value) >> 17 & 3) &&
			    ((old | value) >> 18 & 1)) {
				cpu->timer_ns = cpu->timer_tsc = 0;
				cpu->s.tsc_deadline = 0;
				lapic_set_reg(cpu, APIC_TIMER_INITIAL, 0);
			}
		} else {
			lapic_set_reg(cpu, APIC_ESR, lapic_reg(cpu, APIC_ESR) | ESR_ILLEGAL);
		}
	}
}

bool lapic_owns(const struct vcpu *cpu, uint64_t gpa)
{
	return (cpu->s.apic_base & (APIC_BASE_ENABLE | APIC_BASE_X2APIC)) == APIC_BASE_ENABLE &&
	       (gpa & ~PAGE_MASK) == (cpu->s.apic_base & ~PAGE_MASK);
}

uint32_t lapic_mmio_read(struct vcpu *cpu, unsigned int offset)
{
	if ((offset & 15) || offset >= 0x400)
		return 0;
	return read_register(cpu, offset);
}

void lapic_mmio_write(struct vcpu *cpu, unsigned int offset, uint32_t value)
{
	if (!(offset & 15) && offset < 0x3f0)
		write_register(cpu, offset, value);
}

static bool is_register(unsigned int at)
{
	if (at >= APIC_ISR && at < APIC_ESR)
		return true;
	switch (at) {
	case APIC_ID:
	case APIC_VERSION:
	case APIC_TPR:
	case APIC_PPR:
	case APIC_LDR:
	case APIC_SVR:
	case APIC_ESR:
	case APIC_ICR:
	case APIC_TIMER_INITIAL:
	case APIC_TIMER_CURRENT:
	case APIC_TIMER_DIVIDE:
		return true;
	}
	return is_lvt(at);
}

bool lapic_msr_read(struct vcpu *cpu, uint32_t msr, uint64_t *value)
{
	unsigned int at = (msr & 0xff) << 4;

	if (!x2apic(cpu) || at >= 0x400 || !is_register(at) || at == APIC_LVT_CMCI)
		return false;
	*value = read_register(cpu, at);
	if (at == APIC_ICR)
		*value |= (uint64_t)lapic_reg(cpu, APIC_ICR2) << 32;
	return true;
}

bool lapic_msr_write(struct vcpu *cpu, uint32_t msr, uint64_t value)
{
	unsigned int at = (msr & 0xff) << 4;

	if (!x2apic(cpu) || at >= 0x400)
		return false;
	switch (at) {
	case APIC_ICR:
		lapic_set_reg(cpu, APIC_ICR, (uint32_t)value & ~(1u << 12));
		lapic_set_reg(cpu, APIC_ICR2, (uint32_t)(value >> 32));
		send_ipi(cpu, (uint32_t)value, (uint32_t)(value >> 32));
		return true;
	case APIC_SELF_IPI:
		if (value >> 8)
			return false;
		send_ipi(cpu, (uint32_t)value | 1u << 18, 0);
		return true;
	case APIC_EOI:
	case APIC_ESR:
		if (value)
			return false;
		break;
	case APIC_TPR:
		if (value >> 8)
			return false;
		break;
	case APIC_SVR:
	case APIC_TIMER_INITIAL:
	case APIC_TIMER_DIVIDE:
		if (value >> 32)
			return false;
		break;
	default:
		if (!is_lvt(at) || at == APIC_LVT_CMCI || value >> 32)
			return false;
	}
	write_register(cpu, at, (uint32_t)value);
	return true;
}

/* SDM 11.12.5: which ways lead between disabled, xAPIC and x2APIC. */
bool lapic_base_write(struct vcpu *cpu, uint64_t value)
{
	uint64_t address = ((1ull << cpu->vm->phys_bits) - 1) & ~PAGE_MASK;
	uint64_t old = cpu->s.apic_base & (APIC_BASE_ENABLE | APIC_BASE_X2APIC);
	uint64_t mode = value & (APIC_BASE_ENABLE | APIC_BASE_X2APIC);

	if (value & ~(address | APIC_BASE_BSP | APIC_BASE_ENABLE | APIC_BASE_X2APIC))
		return false;
	if (mode == APIC_BASE_X2APIC ||
	    (mode && !cpuid_has(cpu, 1, 0, 2, 21) && (mode & APIC_BASE_X2APIC)))
		return false;
	if (old == (APIC_BASE_ENABLE | APIC_BASE_X2APIC) && mode == APIC_BASE_ENABLE)
		return false;
	if (!old && mode == (APIC_BASE_ENABLE | APIC_BASE_X2APIC))
		return false;
	if (!mode && old) {
		lapic_reset(cpu);
	}
	cpu->s.apic_base = value;
	if (mode & APIC_BASE_X2APIC && old != mode)
		lapic_set_reg(cpu, APIC_LDR, (cpu->index >> 4) << 16 | 1u << (cpu->index & 15));
	tlb_flush_all(cpu);
	update(cpu);
	return true;
}

void lapic_reset(struct vcpu *cpu)
{
	memset(cpu->s.lapic, 0, sizeof(cpu->s.lapic));
	lapic_set_reg(cpu, APIC_ID, cpu->index << 24);
	lapic_set_reg(cpu, APIC_VERSION, 0x01060015); /* 7 LVTs, EOI-broadcast suppression */
	lapic_set_reg(cpu, APIC_DFR, 0xffffffff);
	lapic_set_reg(cpu, APIC_SVR, 0xff);
	lapic_set_reg(cpu, APIC_LVT_CMCI, LVT_MASKED);
	for (unsigned int at = APIC_LVT_TIMER; at <= APIC_LVT_ERROR; at += 16)
		lapic_set_reg(cpu, at, LVT_MASKED);
	/* Firmware wires the 8259 through to the boot processor ("virtual wire"); guests that are
	 * started without any expect to find it so, as on other hypervisors. */
	if (cpu->index == 0)
		lapic_set_reg(cpu, APIC_LVT_LINT0, MODE_EXTINT << 8);
	cpu->timer_ns = cpu->timer_tsc = 0;
	cpu->s.tsc_deadline = 0;
	for (unsigned int i = 0; i < 8; i++) {
		atomic_store(&cpu->posted[i], 0);
		atomic_store(&cpu->posted_level[i], 0);
	}
	if (x2apic(cpu))
		lapic_set_reg(cpu, APIC_LDR, (cpu->index >> 4) << 16 | 1u << (cpu->index & 15));
	cpu->irq_ready = false;
}
