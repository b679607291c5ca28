/*
 * What the host's processor raises inside of a thunk: the signal is turned into a number, and the
 * thunk is left as if it had ended. Does not include soft.h: the names of registers in
 * <ucontext.h> are those of vcpu_state.h.
 */
#pragma once

#include <stdint.h>

enum { TRAP_NONE = -1 };

struct trap_window {
	const uint8_t *code, *end; /* a fault in [code, end) goes on at end */
	volatile int trap;         /* the exception's number, or TRAP_NONE */
	volatile uint64_t address; /* of a page fault */
};

/* Installs the handlers of this process, once; they pass on what is not ours. */
void trap_install(void);

/* The window of this thread; NULL closes it. */
void trap_open(struct trap_window *window);
