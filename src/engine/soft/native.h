/*
 * Executing one of the guest's own instructions on the host processor: its bytes are copied into a
 * thunk in which the memory operand names a buffer and RSP another register. This is how the
 * interpreter has the host's arithmetic, flags, rounding and exceptions, bit by bit. Only
 * instructions that compute go this way: no branches, no system instructions, no stack.
 */
#pragma once

#include "engine/soft/soft.h"
#include "engine/soft/trap.h"

enum { NATIVE_BUFFER = 512 };

int native_new(struct native **native, struct error *err);
void native_free(struct native *native);

/* Parts of XCR0 that are saved and loaded around vector instructions: what the host has. */
uint64_t native_components(void);

/*
 * Runs cpu->insn with its memory operand at `memory` (NULL: it has none, or native_buffer()).
 * `lock` keeps a LOCK prefix. Returns TRAP_NONE, or the number of the exception that the host
 * raised; then no register has changed, except that the vector state has its exception flags.
 */
int native_run(struct vcpu *cpu, void *memory, bool lock, bool vector);

/* 64-byte aligned; NATIVE_BUFFER bytes. */
void *native_buffer(struct native *native);

/* Four pages of which only the second is accessible. */
void *native_guard(struct native *native);

/* Where the page fault was that native_run() returned. */
uint64_t native_fault_address(const struct native *native);
