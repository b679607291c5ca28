/*
 * What the files of the interpreter's instructions share: operands, and one function a group of
 * instructions. All of them may raise (soft.h).
 */
#pragma once

#include "engine/soft/soft.h"

/* The memory operand: its offset in the segment, and its linear address after all checks that
 * are not paging's. */
uint64_t insn_offset(const struct vcpu *cpu);
uint64_t insn_linear(struct vcpu *cpu, unsigned int size, bool write);
/* Reads `size` bytes of the memory operand, `at` bytes behind its start. */
uint64_t insn_load(struct vcpu *cpu, unsigned int at, unsigned int size);

/* An operand that is read and then perhaps written; opening it makes all of its faults happen. */
struct place {
	struct mem_ref ref;
	unsigned int reg, size;
	bool mem, high;
};

uint64_t operand_read(struct vcpu *cpu, unsigned int i);
void operand_write(struct vcpu *cpu, unsigned int i, uint64_t value);
unsigned int insn_operand_bytes(const struct insn *insn, unsigned int i);
void place_open(struct vcpu *cpu, unsigned int i, struct place *p);
uint64_t place_load(struct vcpu *cpu, const struct place *p);
void place_store(struct vcpu *cpu, const struct place *p, uint64_t value);

/* Jcc, SETcc, CMOVcc. */
bool condition(uint64_t flags, unsigned int number);

/* A register in the address size of the instruction. */
uint64_t count_read(const struct vcpu *cpu, unsigned int reg);
void count_write(struct vcpu *cpu, unsigned int reg, uint64_t value);

void exec_integer(struct vcpu *cpu);      /* integer.c: ALU, MOV, FLAG, NOP */
void exec_bits(struct vcpu *cpu);         /* bits.c: BT*, BCD, and other rare ones */
void exec_compute(struct vcpu *cpu);      /* compute.c: by the host's own instruction */
void exec_gather(struct vcpu *cpu);       /* gather.c: element by element */
void exec_masked(struct vcpu *cpu);       /* gather.c: accesses under a mask */
void exec_zero_vectors(struct vcpu *cpu); /* gather.c: VZEROUPPER, VZEROALL */
void exec_control(struct vcpu *cpu);      /* control.c: stack and control transfers */
void exec_string(struct vcpu *cpu);       /* string.c: strings and ports */
void exec_system(struct vcpu *cpu);       /* system.c */
void exec_state(struct vcpu *cpu);        /* xstate.c: XSAVE and its kin */
void exec_syscall(struct vcpu *cpu);      /* syscall.c: SYSCALL, SYSENTER and back */

/* xstate.c: whether the unit that the instruction needs is there and switched on. */
void vector_check(struct vcpu *cpu);
