/* Strings: formatting, lists of strings, and the units that users write. */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/* A formatted string that the caller frees; NULL when out of memory. */
char *str_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

bool str_eq(const char *a, const char *b); /* NULL equals only NULL */
bool str_starts_with(const char *s, const char *prefix);

/* Cuts white space (newlines too) off the end, in place; returns s. */
char *str_chomp(char *s);

/* Replaces control characters, also those of Unicode (U+0080..U+009F), by spaces and question
 * marks, in place: a hostile file name must not write to the user's terminal. Returns s. */
char *str_printable(char *s);

/* A growing, NULL-terminated list of strings that it owns, fit for execve(). */
struct strv {
	char **v; /* NULL while empty */
	size_t n;
};

int strv_push(struct strv *s, const char *str, struct error *err); /* copies str */
int strv_pushf(struct strv *s, struct error *err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void strv_free(struct strv *s);

#define autostrv __attribute__((cleanup(strv_free)))

/*
 * A size in bytes from what a user wrote: digits, optionally with a fraction, and a unit:
 * b, k, m, g, t (powers of 1024, either case), also written as K, KB, KiB. `what` names the
 * option or key in the error. Errors: EINVAL, ERANGE.
 */
int parse_size(const char *text, const char *what, uint64_t *size_bytes, struct error *err);

/* A whole number within [min, max]. Errors: EINVAL, ERANGE. */
int parse_number(const char *text, const char *what, int64_t min, int64_t max, int64_t *value,
		 struct error *err);

/* A number of processors such as `2` or `0.5`, in thousandths. Errors: EINVAL, ERANGE. */
int parse_cpus(const char *text, const char *what, uint64_t *millicpus, struct error *err);

/* 1536 -> "1.5 KiB". Returns buf. */
char *format_size(uint64_t size_bytes, char buf[static 16]);
