/*
 * The system call profiles as data. Only the build-time generator (seccomp_gen.c) and the unit test
 * link this table; at run time there is nothing but the filters made from it (seccomp.h).
 */
#pragma once

#include "container/seccomp.h"

#include <stdint.h>

/*
 * A condition on arguments. Only the low 32 bits are compared: the arguments in question are int or
 * unsigned int, the kernel drops the high half, and a comparison of all 64 bits would let
 * socket(0x100000000 | AF_ALG, ...) past a rule against AF_ALG.
 */
struct seccomp_compare {
	uint8_t arg; /* 0..5 */
	uint32_t mask, value;
};

/* When all comparisons hold, `action` it is: 0 allows, else the errno. */
struct seccomp_test {
	int action;
	uint8_t n_compares;
	struct seccomp_compare compare[2];
};

struct seccomp_tests {
	uint8_t n;
	struct seccomp_test test[6]; /* the first that holds decides */
};

struct seccomp_row {
	/* 0 allows, else the errno that the caller sees; with tests: what holds when none does. */
	int action[SECCOMP_PROFILES];
	const char *names; /* separated by spaces */
	const struct seccomp_tests *tests[SECCOMP_PROFILES];
};

/* A name in no row is ENOSYS. The table ends with a row without names. */
extern const struct seccomp_row seccomp_rows[];

/*
 * System calls that the build machine's libseccomp may be too old to know. Since Linux 5.1 a new
 * one gets the same number on all architectures; `only_64` marks the exceptions.
 */
struct seccomp_number {
	const char *name;
	int number;
	bool only_64;
};
extern const struct seccomp_number seccomp_new_numbers[]; /* ends with a NULL name */
