/*
 * A guest's log: what it wrote to its console, or to stdout and stderr, in the format of the
 * Kubernetes Container Runtime Interface, so that log collectors read it as it is:
 *
 *     2026-11-22T08:00:00.123456789Z stdout F a whole line, without its newline
 *     2026-11-22T08:00:00.123456789Z stdout P the beginning of one, or a prompt
 *
 * F stands for the text and a newline, P for the text alone: the bytes can be had back exactly,
 * whatever they are. The files are `log`, and after rotation `log.1`, `log.2` (older) beside it, in
 * the guest's directory.
 *
 * The monitor writes (log_file.c), one write() for what it read from the guest at a time and at
 * once, so that a reader sees a prompt too. Anybody reads (log_read.c), at the same time.
 */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

enum guest_log_stream { GUEST_LOG_STDOUT, GUEST_LOG_STDERR };

/* ---- Writing: one writer at a time ---- */

struct guest_log;

/* Opens or makes the log in the directory `dir_fd` (which is duplicated). What an earlier writer
 * left unfinished when it was killed is cut off. */
int guest_log_open(int dir_fd, struct guest_log **log, struct error *err);

/* When to rotate (default 10 MiB), and how many files there may be in all (default 3, at most 9).
 */
void guest_log_set_limits(struct guest_log *log, uint64_t max_bytes, int max_files);

/*
 * Appends what the guest wrote. Never fails and never waits for space: where the disk is full the
 * data is dropped, and a line in the log says how much as soon as there is room again.
 */
void guest_log_write(struct guest_log *log, enum guest_log_stream stream, const void *data,
		     size_t size);

void guest_log_close(struct guest_log *log); /* NULL is fine */

/* ---- Reading ---- */

struct guest_log_chunk {
	enum guest_log_stream stream;
	const char *data; /* as the guest wrote it, with its newline */
	size_t size;
	bool starts_line; /* the last chunk of this stream ended with a newline */
	char time[32];    /* "2026-11-22T08:00:00.123456789Z" */
};

/* Gets the chunks in the order they were written. Anything but 0 ends guest_log_read(), which
 * returns it. */
typedef int (*guest_log_fn)(void *data, const struct guest_log_chunk *chunk, struct error *err);

struct guest_log_options {
	int64_t tail;     /* only the last lines, counted over both streams; -1: all */
	int64_t since_ns; /* only what is not older than this; nanoseconds since 1970, 0: all */
	bool follow;      /* wait for more, until one of the two below */
	int stop_fd;      /* readable or hung up: the guest has ended. -1: none */
	bool (*ended)(
		void *data); /* asked now and then, where there is no such descriptor; or NULL */
	void *ended_data;
};

#define GUEST_LOG_OPTIONS ((struct guest_log_options){.tail = -1, .stop_fd = -1})

/* Passes the log, oldest first, to `fn`. A log that is not there (yet) is empty. Errors: what `fn`
 * returns, EACCES, EIO... */
int guest_log_read(int dir_fd, const struct guest_log_options *options, guest_log_fn fn, void *data,
		   struct error *err);

/* ---- Between log_file.c and log_read.c ---- */

enum {
	GUEST_LOG_TIME = 30,         /* length of the time */
	GUEST_LOG_PIECE = 16 * 1024, /* longest text of one record, as other runtimes have it */
	GUEST_LOG_MAX_FILES = 9,
};

/* "log", "log.1"... Returns buf. */
const char *guest_log_name(int index, char buf[static 16]);
