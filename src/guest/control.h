/*
 * How commands talk to a guest's monitor: messages over a SOCK_SEQPACKET UNIX socket at
 * <run>/guests/ID/control. A message is one byte that says what it is, and its data.
 *
 * The protocol is Lodge's own, between one version's processes or two neighbouring ones': new
 * messages may come, known ones keep their meaning, unknown ones are passed over.
 * All data is in the host's byte order.
 */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Data in one message at most. */
#define CONTROL_DATA_MAX 32768

enum control_type {
	/* to the monitor */
	CONTROL_ATTACH = 'A',    /* send me output; data: struct control_attach */
	CONTROL_STDIN = 'I',     /* data for the guest's standard input */
	CONTROL_STDIN_END = 'Z', /* its end */
	CONTROL_RESIZE = 'W',    /* struct control_resize */
	CONTROL_SIGNAL = 'K',    /* struct control_signal */
	CONTROL_STOP = 'S',      /* struct control_stop */
	CONTROL_QUERY = 'Q',     /* answered with CONTROL_STATUS */

	/* from the monitor */
	CONTROL_STARTED = 'B', /* the guest runs */
	CONTROL_FAILED = 'F',  /* it could not be started; struct error. The last message */
	CONTROL_STDOUT = 'O',
	CONTROL_STDERR = 'E',
	CONTROL_STATUS = 'T', /* struct control_status */
	CONTROL_EXIT = 'X',   /* struct control_exit. The last message; everybody gets it */
};

struct control_attach {
	uint8_t stdin_too;
	/* The guest waits for this client rather than dropping it when it is slow. */
	uint8_t lossless;
};

struct control_resize {
	uint16_t rows, columns;
};

struct control_signal {
	int32_t signo;
};

struct control_stop {
	int32_t timeout_s; /* before it is killed */
};

/* Comes with a pidfd of the guest's init. */
struct control_status {
	int64_t started_at;
	int32_t init_pid; /* in the host's pid namespace */
};

struct control_exit {
	int32_t status;   /* as a shell would report it */
	char reason[120]; /* empty where the status says it all */
};

struct control_message {
	uint8_t type;
	char data[CONTROL_DATA_MAX];
};

/* Sends one message; waits where the socket is blocking. Errors: EPIPE, EAGAIN, ... */
int control_send(int fd, enum control_type type, const void *data, size_t size, struct error *err);
/* The same, with a descriptor that stays the caller's. */
int control_send_fd(int fd, enum control_type type, const void *data, size_t size, int passed_fd,
		    struct error *err);

/*
 * Receives one message; returns the size of its data, -EPIPE at the end of the connection, -EAGAIN
 * where the socket is non-blocking and nothing is there. `passed_fd` (may be NULL: closed then)
 * gets the descriptor that came along, which is the caller's, or -EBADF.
 */
ssize_t control_recv(int fd, struct control_message *message, int *passed_fd, struct error *err);

/* Asks for the guest's status; *init_pidfd (may be NULL) is the caller's. */
int control_query(int fd, struct control_status *status, int *init_pidfd, struct error *err);

/* Waits for the guest's end. Errors: EPIPE: the monitor is gone without having said. */
int control_wait_exit(int fd, struct control_exit *exit, struct error *err);
