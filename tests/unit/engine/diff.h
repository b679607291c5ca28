/*
 * The differential harness: a few of the guest's instructions, run natively in a child process and
 * in the interpreter, at the same addresses, from the same state. Shared by diff_native.c (which
 * includes <ucontext.h> and so can't include the engine's headers), diff_gen.c and test_diff.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The same linear addresses on both sides. */
enum {
	DIFF_CODE = 0x10000000, /* one page, readable and executable */
	DIFF_DATA = 0x10010000, /* writable, writable, read-only, absent, writable */
	DIFF_DATA_PAGES = 5,
	DIFF_READ_ONLY = 2,
	DIFF_ABSENT = 3,
	DIFF_XSAVE_BYTES = 2688,
	DIFF_BATCH = 64,
	DIFF_TIMEOUT = 255, /* diff_case.vector: it went on and on */
};

struct diff_state {
	uint64_t regs[16], rip, rflags;
	_Alignas(64) uint8_t xsave[DIFF_XSAVE_BYTES];
};

struct diff_case {
	struct diff_state in;
	uint8_t code[64]; /* at DIFF_CODE + offset, INT3 around it */
	uint32_t code_size, code_offset;
	bool compatibility; /* 32-bit code */
	/* Of the native run: */
	struct diff_state out;
	uint64_t vector, error_code, address;
	uint8_t data[DIFF_DATA_PAGES][4096];
};

struct diff_shared {
	uint8_t pattern[DIFF_DATA_PAGES][4096]; /* what the data is before each case */
	uint32_t n;
	struct diff_case cases[DIFF_BATCH];
};

/* Starts the child; NULL on failure. The memory is shared with it. */
struct diff_shared *diff_native_start(void);
/* Runs the first shared->n cases. false: the child died, at case *at. */
bool diff_native_run(uint32_t *at);
void diff_native_stop(void);

/* Random cases (diff_gen.c): `count` instructions, single ones also of kinds that sequences leave
 * out. The state is random but for what addresses memory. */
void diff_generate(struct diff_case *c, uint64_t *seed, unsigned int count, bool compatibility);
uint64_t diff_random(uint64_t *seed);
