/*
 * The one way to fail. A fallible function takes `struct error *err` last, returns 0 or a
 * negative errno, and fills err on failure. Each layer adds its words with error_wrap(), so
 * that the user reads one line: what was attempted, on what, why it failed, what to do.
 *
 * The struct holds its text by value: it needs no freeing, can be filled by a vfork()ed child
 * that shares our memory, and can be sent through a pipe as it is.
 */
#pragma once

#include <errno.h>
#include <stdbool.h>

struct error {
	int code;          /* positive errno; 0: no error */
	int exit_status;   /* what `lodge` exits with for it; 0: the default, 125 */
	char message[768]; /* one line, no newline at its end */
	char hint[256];    /* what the user can do; may be empty */
};

/* Fills err (which may be NULL) with a message. Returns -code, so that `return error_set(...)`. */
int error_set(struct error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* The same, followed by ": " and the system's words for the errno `code`. */
int error_sys(struct error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Puts "fmt: " before the message that is there. Returns -err->code (-EIO where err is NULL). */
int error_wrap(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Says what the user can do about it; the last hint wins. */
void error_hint(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* "out of memory"; returns -ENOMEM. */
int error_oom(struct error *err);

/* Forgets an error that was dealt with. */
void error_clear(struct error *err);
