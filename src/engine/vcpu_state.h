/*
 * The whole state of a virtual processor in an engine-neutral form: what an engine takes and gives
 * (engine.h), what a snapshot keeps and a migration carries. Nothing in it knows which engine made
 * it. Values are as the processor's instructions would show them.
 *
 * Source: Intel SDM volume 3 (chapters named below), AMD APM volume 2.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* General registers by their number in an instruction's encoding. */
enum {
	REG_RAX,
	REG_RCX,
	REG_RDX,
	REG_RBX,
	REG_RSP,
	REG_RBP,
	REG_RSI,
	REG_RDI,
	REG_R8,
	REG_R15 = 15,
	N_REGS
};

/* Segment registers, likewise. */
enum { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, N_SEGS };

/* A segment register with its hidden part (SDM 3.4.3). */
struct vcpu_segment {
	uint64_t base;
	uint32_t limit; /* in bytes, granularity already applied */
	uint16_t selector;
	uint16_t attributes; /* descriptor bits 40..55: type, S, DPL, P, AVL, L, D/B, G */
};

struct vcpu_table {
	uint64_t base;
	uint16_t limit;
};

/* Why a processor does not execute instructions (SDM 8.4, 9.4; ACPI-like wait for SIPI). */
enum vcpu_activity { VCPU_RUNNING, VCPU_HALTED, VCPU_SHUTDOWN, VCPU_WAIT_FOR_SIPI };

/* Room for the XSAVE area in its standard format, all components up to AVX-512 and PKRU. */
#define VCPU_XSAVE_BYTES 2696

struct vcpu_state {
	uint64_t regs[N_REGS];
	uint64_t rip, rflags;
	struct vcpu_segment segs[N_SEGS], ldt, tr;
	struct vcpu_table gdt, idt;
	uint64_t cr0, cr2, cr3, cr4, cr8, xcr0;
	uint64_t dr[4], dr6, dr7;

	/* Model-specific registers that have a place of their own; the rest are `msrs`. */
	uint64_t efer, star, lstar, cstar, sfmask, kernel_gs_base;
	uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t pat, apic_base, tsc_aux, tsc_offset, tsc_deadline, misc_enable, xss;
	uint64_t mtrr_def_type, mtrr_fixed[11], mtrr_phys[16];
	uint64_t spec_ctrl;

	enum vcpu_activity activity;
	/* Interrupts are held off for one instruction after STI and MOV SS (SDM 6.8). */
	bool interrupt_shadow, nmi_blocked, nmi_pending;
	/* An exception or interrupt whose delivery was under way (SDM 6.15). */
	struct {
		bool valid, has_error_code;
		uint8_t vector, kind; /* enum event_kind of the engine contract */
		uint32_t error_code;
	} event;

	/* The local APIC's registers, 16 bytes apart as in its page (SDM 11.4.1). */
	uint8_t lapic[1024];

	_Alignas(64) uint8_t xsave[VCPU_XSAVE_BYTES];
};
