/* A terminal's or a pipe's way to a guest and back: what run, start, attach and exec do while they
 * wait. */
#pragma once

#include "guest/guest.h"

#include <signal.h>

/* What a relay ended with besides an exit status. */
enum { RELAY_DETACHED = -2 };

/* Keys that are typed one after the other. */
struct relay_keys {
	char v[8];
	size_t n;
};

/* "ctrl-p,ctrl-q". Errors: EINVAL. */
int relay_parse_keys(const char *text, struct relay_keys *keys, struct error *err);

#define RELAY_DETACH_KEYS "ctrl-p,ctrl-q"

struct relay_options {
	/* whose guest it is; for relay_guest() */
	struct state *state;
	const struct guest *guest;
	bool running;           /* it does already; else its monitor will say when */
	bool stdin_too;         /* pass our standard input on */
	bool terminal;          /* the guest has one: ours becomes raw while we relay */
	bool forward_signals;   /* those that we get go to the guest */
	struct relay_keys keys; /* leave the guest running; none: no way to */
};

/*
 * Passes data between us and a guest's monitor until the guest ends: *status is its exit status, or
 * RELAY_DETACHED where the user typed the detach keys. Errors: the guest's failure to start (with
 * its exit_status), EPIPE where the monitor was killed. *started says whether it ever ran.
 */
int relay_guest(int client_fd, const struct relay_options *options, int *status, bool *started,
		struct error *err);

/* The status to exit with after relay_guest(); says so where the user has detached. */
int relay_status(int status, const struct guest *guest);

/* Waits until a guest that was started without being attached runs. */
int relay_wait_started(int client_fd, struct error *err);

/* The same for a process that joined (container_exec()), our child, with those of its streams that
 * are not ours. */
struct relay_streams {
	int in;       /* its terminal's master side or a pipe; -EBADF: it reads ours */
	int out, err; /* likewise; -EBADF: it writes ours */
};
int relay_process(int pidfd, const struct relay_streams *streams,
		  const struct relay_options *options, int *status, struct error *err);

/* Holds back what the user may send (Ctrl-C...) until a relay takes it: from before anything is
 * made that the signal would have to be passed on to. */
void relay_block_signals(void);
