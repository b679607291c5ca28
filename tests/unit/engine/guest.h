/*
 * A small machine for tests of the engine: RAM, a board that logs, and an environment in long mode
 * whose exception handlers report to the test. Code is written in assembly with CODE().
 */
#pragma once

#include "engine/soft/soft.h"

/* Assembles code into the test's own constants: code_NAME to code_NAME_end. */
#define CODE(name, text)                                                                           \
	__asm__(".pushsection .rodata\ncode_" #name ":\n" text "\ncode_" #name                     \
		"_end:\n.popsection\n");                                                           \
	extern const uint8_t code_##name[] __asm__("code_" #name);                                 \
	extern const uint8_t code_##name##_end[] __asm__("code_" #name "_end")
#define CODE_SIZE(name) ((size_t)(code_##name##_end - code_##name))

/* Physical addresses, mapped to the same linear ones. */
enum {
	GUEST_RAM = 16 << 20,
	GUEST_GDT = 0x1000,
	GUEST_IDT = 0x2000,
	GUEST_TSS = 0x3000,
	GUEST_STUBS = 0x4000, /* 256 handlers of 16 bytes */
	GUEST_TABLES = 0x10000,
	GUEST_CODE = 0x100000,     /* user pages from here to 2 MiB */
	GUEST_STACK = 0x180000,    /* the code's */
	GUEST_INT_STACK = 0x80000, /* RSP0 */
	GUEST_IST_STACK = 0x90000, /* IST1 */
	GUEST_PAGES = 0x200000,    /* 512 pages by 4 KiB, table at GUEST_PT */
	GUEST_PT = GUEST_TABLES + 0x3000,
	GUEST_DONE = 0xf4,  /* port: ends guest_run() */
	GUEST_EVENT = 0xf5, /* port of the handlers */
	GUEST_LOG = 0xe9,
	/* Selectors. */
	GUEST_CS0 = 0x08,
	GUEST_DS0 = 0x10,
	GUEST_DS3 = 0x1b,
	GUEST_CS3 = 0x23,
	GUEST_TR = 0x28, /* two entries */
};

struct guest {
	struct vm *vm;
	struct vcpu *cpu[2];
	uint8_t *ram;
	int fd;
	/* Of the last event that a handler reported, read from its stack. */
	unsigned int vector;
	uint64_t error_code, rip, cs, rflags, rsp, ss, cr2, dr6;
	unsigned int n_events;
	bool continue_events; /* handlers return with IRETQ instead of ending the run */
	/* What was written to GUEST_LOG, and to GUEST_DONE. */
	char log[256];
	unsigned int n_log;
	uint32_t done;
	bool finished;
	uint8_t eoi[8];
	unsigned int n_eoi;
	uint8_t pic_vector;
	uint64_t mmio_address, mmio_value;
	unsigned int mmio_size;
};

void guest_new(struct guest *g, unsigned int n_vcpus);
void guest_free(struct guest *g);
/* Loads code at GUEST_CODE and the state of long mode at level 0 or 3, interrupts off. */
void guest_load(struct guest *g, const uint8_t *code, size_t size, unsigned int cpl);
/* Runs vCPU 0 until GUEST_DONE, an event, or an exit of the engine. */
enum vcpu_exit guest_run(struct guest *g);
/* One of the 512 small pages. */
uint64_t *guest_pte(struct guest *g, unsigned int page);
