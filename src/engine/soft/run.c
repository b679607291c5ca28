/*
 * A vCPU's life: its state after RESET and INIT, the loop of vcpu_run(), what happens between
 * instructions (SDM table 6-2), and how other threads get its attention.
 */
#include "engine/soft/run.h"
#include "engine/soft/exec.h"

#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Instructions between looks at the timer. */
enum { TIMER_INTERVAL = 64 };

/* ---- Attention ---- */

void vcpu_request(struct vcpu *cpu, uint32_t request)
{
	/* HLT sleeps only while the word is 0, which the kernel checks under its lock. */
	if (atomic_fetch_or(&cpu->requests, request) == 0)
		syscall(SYS_futex, &cpu->requests, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void wait_for_request(struct vcpu *cpu, uint64_t ns)
{
	struct timespec t = {.tv_sec = (time_t)(ns / 1000000000),
			     .tv_nsec = (long)(ns % 1000000000)};

	syscall(SYS_futex, &cpu->requests, FUTEX_WAIT_PRIVATE, 0, ns == UINT64_MAX ? NULL : &t,
		NULL, 0);
}

/* ---- RESET and INIT (SDM table 10-1) ---- */

void vcpu_reset(struct vcpu *cpu, bool init)
{
	struct vcpu_state *s = &cpu->s;
	uint64_t apic_base = s->apic_base, tsc_offset = s->tsc_offset, cr0 = s->cr0;
	uint8_t xsave[VCPU_XSAVE_BYTES];
	struct vcpu_state kept = *s;
	uint32_t eax[4];

	memcpy(xsave, s->xsave, sizeof(xsave));
	memset(s, 0, sizeof(*s));
	s->rflags = 2;
	s->rip = 0xfff0;
	for (unsigned int i = 0; i < N_SEGS; i++)
		s->segs[i] = (struct vcpu_segment){.limit = 0xffff, .attributes = 0x93};
	s->segs[SEG_CS] = (struct vcpu_segment){
		.base = 0xffff0000, .limit = 0xffff, .selector = 0xf000, .attributes = 0x9b};
	s->ldt = (struct vcpu_segment){.limit = 0xffff, .attributes = 0x82};
	s->tr = (struct vcpu_segment){.limit = 0xffff, .attributes = 0x8b};
	s->gdt.limit = s->idt.limit = 0xffff;
	s->cr0 = 0x60000010;
	s->dr6 = 0xffff0ff0;
	s->dr7 = 0x400;
	s->xcr0 = 1;
	cpuid(cpu, 1, 0, eax);
	s->regs[REG_RDX] = eax[0];
	if (init) {
		/* INIT leaves caches, the vector state, MTRRs and most MSRs alone. */
		memcpy(s->xsave, xsave, sizeof(xsave));
		s->cr0 |= cr0 & (CR0_CD | CR0_NW);
		s->xcr0 = kept.xcr0;
		s->tsc_offset = tsc_offset;
		s->tsc_aux = kept.tsc_aux;
		s->pat = kept.pat;
		s->misc_enable = kept.misc_enable;
		s->mtrr_def_type = kept.mtrr_def_type;
		memcpy(s->mtrr_fixed, kept.mtrr_fixed, sizeof(s->mtrr_fixed));
		memcpy(s->mtrr_phys, kept.mtrr_phys, sizeof(s->mtrr_phys));
		s->star = kept.star;
		s->lstar = kept.lstar;
		s->cstar = kept.cstar;
		s->sfmask = kept.sfmask;
		s->kernel_gs_base = kept.kernel_gs_base;
		s->sysenter_cs = kept.sysenter_cs;
		s->sysenter_esp = kept.sysenter_esp;
		s->sysenter_eip = kept.sysenter_eip;
		s->apic_base = apic_base;
	} else {
		uint32_t mxcsr = 0x1f80;

		memcpy(s->xsave + 24, &mxcsr, 4);
		s->pat = 0x0007040600070406;
		s->misc_enable = 1; /* fast strings */
		s->apic_base =
			0xfee00000 | APIC_BASE_ENABLE | (cpu->index == 0 ? APIC_BASE_BSP : 0);
	}
	s->activity = cpu->index == 0 ? VCPU_RUNNING : VCPU_WAIT_FOR_SIPI;
	cpu->cpl = 0;
	cpu->pending_db = 0;
	cpu->delivering.active = false;
	lapic_reset(cpu);
	tlb_flush_all(cpu);
	vcpu_mode_changed(cpu);
}

static void start_up(struct vcpu *cpu)
{
	uint32_t vector = atomic_load(&cpu->sipi_vector) & 0xff;

	if (cpu->s.activity != VCPU_WAIT_FOR_SIPI)
		return;
	cpu->s.segs[SEG_CS].selector = (uint16_t)(vector << 8);
	cpu->s.segs[SEG_CS].base = vector << 12;
	cpu->s.rip = 0;
	cpu->s.activity = VCPU_RUNNING;
}

/* ---- Between instructions ---- */

static void take_requests(struct vcpu *cpu, uint32_t requests)
{
	if (requests & REQUEST_FLUSH)
		tlb_flush_all(cpu);
	if (requests & REQUEST_INIT) {
		vcpu_reset(cpu, true);
		/* The boot processor starts over, the others wait (SDM 9.4.3). */
	}
	if (requests & REQUEST_SIPI)
		start_up(cpu);
	if (requests & REQUEST_NMI)
		cpu->s.nmi_pending = true;
	if (requests & REQUEST_IRQ)
		lapic_sync(cpu);
}

static bool can_interrupt(const struct vcpu *cpu)
{
	return (cpu->s.rflags & FLAG_IF) && !cpu->s.interrupt_shadow;
}

static bool extint_pending(const struct vcpu *cpu)
{
	return atomic_load_explicit(&cpu->extint, memory_order_relaxed) &&
	       lapic_accepts_extint(cpu);
}

static bool has_event(struct vcpu *cpu)
{
	if (cpu->s.nmi_pending && !cpu->s.nmi_blocked)
		return true;
	return (cpu->s.rflags & FLAG_IF) && (cpu->irq_ready || extint_pending(cpu));
}

/* Delivers what is pending, in the order of its priority. [raises] */
static void deliver_events(struct vcpu *cpu)
{
	if (cpu->pending_db) {
		uint32_t bits = cpu->pending_db;

		cpu->pending_db = 0;
		raise_debug(cpu, bits);
	}
	if (cpu->s.nmi_pending && !cpu->s.nmi_blocked && !cpu->s.interrupt_shadow) {
		cpu->s.nmi_pending = false;
		cpu->s.activity = VCPU_RUNNING;
		event_deliver(cpu, EVENT_NMI, EXC_NMI, false, 0, cpu->s.rip);
		return;
	}
	if (!can_interrupt(cpu))
		return;
	if (cpu->irq_ready) {
		int vector = lapic_acknowledge(cpu);

		cpu->s.activity = VCPU_RUNNING;
		cpu->counters.interrupts++;
		event_deliver(cpu, EVENT_INTERRUPT, (unsigned int)vector, false, 0, cpu->s.rip);
	} else if (extint_pending(cpu)) {
		uint8_t vector = cpu->vm->config.ops->pic_acknowledge(cpu->vm->config.board);

		cpu->s.activity = VCPU_RUNNING;
		cpu->counters.interrupts++;
		event_deliver(cpu, EVENT_INTERRUPT, vector, false, 0, cpu->s.rip);
	}
}

/* An event whose delivery another engine, or a snapshot, left to us. */
static void resume_event(struct vcpu *cpu)
{
	enum event_kind kind = (enum event_kind)cpu->s.event.kind;
	unsigned int vector = cpu->s.event.vector;

	cpu->s.event.valid = false;
	event_deliver(cpu, kind, vector, cpu->s.event.has_error_code, cpu->s.event.error_code,
		      cpu->s.rip);
}

/* Sleeps until there is something to do. false: vcpu_run() is to return. */
static bool wait_halted(struct vcpu *cpu)
{
	uint64_t ns;

	lapic_timer_check(cpu);
	if (atomic_load(&cpu->requests))
		return true;
	if (cpu->s.activity == VCPU_HALTED && has_event(cpu)) {
		cpu->s.activity = VCPU_RUNNING;
		return true;
	}
	ns = cpu->s.activity == VCPU_HALTED ? lapic_timer_wait_ns(cpu) : UINT64_MAX;
	if (ns)
		wait_for_request(cpu, ns);
	return true;
}

static void step(struct vcpu *cpu, const struct vcpu_debug *debug)
{
	insn_step(cpu);
	cpu->debug_resume = false;
	if (cpu->external_debug) {
		cpu->external_debug = false;
		longjmp(cpu->unwind, UNWIND_DEBUG);
	}
	if (debug->single_step)
		longjmp(cpu->unwind, UNWIND_DEBUG);
}

/* The loop proper; leaves by a kick or by jumping. */
static enum vcpu_exit loop(struct vcpu *cpu)
{
	unsigned int countdown = 0;

	for (;;) {
		uint32_t requests = atomic_load_explicit(&cpu->requests, memory_order_relaxed);

		if (requests) {
			requests = atomic_exchange(&cpu->requests, 0);
			take_requests(cpu, requests);
			if (requests & REQUEST_KICK)
				return VCPU_EXIT_KICKED;
		}
		if (cpu->s.activity != VCPU_RUNNING) {
			if (cpu->s.activity == VCPU_SHUTDOWN)
				return VCPU_EXIT_SHUTDOWN;
			wait_halted(cpu);
			continue;
		}
		if (countdown-- == 0) {
			countdown = TIMER_INTERVAL;
			if (cpu->timer_ns || cpu->timer_tsc)
				lapic_timer_check(cpu);
		}
		if (cpu->s.event.valid)
			resume_event(cpu);
		if (cpu->pending_db || has_event(cpu))
			deliver_events(cpu);
		step(cpu, &cpu->debug);
	}
}

int vcpu_run(struct vcpu *cpu, enum vcpu_exit *exit, struct error *err)
{
	/* What an instruction or a delivery raises comes back here; locals don't survive that. */
	switch (setjmp(cpu->unwind)) {
	case 0:
		cpu->debug_resume = true;
		break;
	case UNWIND_EXCEPTION:
		/* Delivered at the top of the loop below: it can raise again. */
		cpu->exception_pending = true;
		break;
	case UNWIND_SHUTDOWN:
		cpu->s.activity = VCPU_SHUTDOWN;
		cpu->delivering.active = false;
		*exit = VCPU_EXIT_SHUTDOWN;
		return 0;
	case UNWIND_DEBUG:
		*exit = VCPU_EXIT_DEBUG;
		return 0;
	case UNWIND_ERROR:
		return error_set(err, EIO, "vCPU %u can't go on at 0x%llx", cpu->index,
				 (unsigned long long)cpu->s.rip);
	}
	if (cpu->exception_pending) {
		cpu->exception_pending = false;
		/* INT n has set nothing yet; STI's and MOV SS's shadows end with a fault. */
		exception_deliver(cpu);
		cpu->s.interrupt_shadow = false;
		if (cpu->debug.single_step) {
			*exit = VCPU_EXIT_DEBUG;
			return 0;
		}
	}
	*exit = loop(cpu);
	return 0;
}
