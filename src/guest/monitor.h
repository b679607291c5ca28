/*
 * Between the files of the monitor process only (monitor.c, console.c): what it knows of its guest
 * and of who is attached.
 */
#pragma once

#include "base/loop.h"
#include "container/container.h"
#include "guest/control.h"
#include "guest/guest.h"
#include "guest/log_file.h"
#include "image/image.h"

struct monitor;

/* A command that is connected to us. */
struct client {
	struct monitor *m;
	struct client *next;
	int fd; /* non-blocking */
	struct watch *watch;
	bool output, input, lossless;
	/* What it could not take yet; only a lossless client's is kept. */
	struct control_message *pending;
	size_t pending_size;
};

/* A stream that the guest writes: standard output or error, or the terminal. */
struct output {
	struct monitor *m;
	int fd; /* -EBADF: it ended */
	enum control_type type;
	struct watch *watch; /* NULL while a lossless client holds it up */
	int left;            /* of what a guest that is gone has written, at most */
};

struct monitor {
	struct state *state;
	struct guest *guest;
	int lock_fd;   /* the guest's lock: <run>/guests/ID */
	int files_fd;  /* <state>/guests/ID */
	int listen_fd; /* control socket */
	struct loop *loop;
	struct guest_log *log;

	struct container container;
	struct image_mount image;
	struct watch *child;
	bool exited;
	int wait_status; /* of the init, as waitpid() gives it */
	struct watch *kill_timer, *stop_timer;
	struct watch *cgroup_watch, *overdue_timer, *settle_timer;
	int cgroup_events_fd;
	int diary_fd;         /* where our log goes once the guest has settled */
	int64_t started_ms;   /* when it was started last, by the monotonic clock */
	unsigned int hurried; /* reboots in a row that came too soon after the one before */
	bool first_start;     /* its root has never been written */
	bool stopping;        /* asked to stop */
	bool timed_out;       /* and killed since it did not */
	int killed_for;       /* the signal without a handler that SIGKILL was sent in place of */

	struct client *clients;
	struct output outputs[2];
	int stdin_fd;      /* -EBADF: none, or ended */
	int terminal_hold; /* the terminal's other side, so that it lives while nobody has it open
			    */
	struct client *stdin_owner; /* whose leaving ends standard input */
	/* Input that the guest has not taken yet; as long as there is some, no client is read. */
	char *input;
	size_t input_size;
	struct watch *input_watch;
};

/* console.c */

/* Makes the descriptors that the container gets as stdio[3], and the streams for our sides. */
int console_open_stdio(struct monitor *m, int stdio[3], struct error *err);
/* Begins to read them, after the container has started; takes its terminal over. */
int console_start(struct monitor *m, struct error *err);
/* No process of the guest is left: once everything it wrote has been passed on,
 * console_drained(). */
void console_guest_gone(struct monitor *m);
bool console_drained(const struct monitor *m);
void console_close(struct monitor *m);

int console_listen(struct monitor *m, struct error *err);
/* Once nobody can connect any more: takes those in who have and were not seen yet. */
void console_accept_last(struct monitor *m);
int console_add_client(struct monitor *m, int fd, struct client **client, struct error *err);
void console_broadcast(struct monitor *m, enum control_type type, const void *data, size_t size);
void console_flush(struct monitor *m);
void console_drop_clients(struct monitor *m);
/* Those that the guest's output waits for. */
void console_drop_slow_clients(struct monitor *m);

/* monitor.c: what clients ask for. */
void monitor_signal(struct monitor *m, int signo);
void monitor_stop(struct monitor *m, int timeout_s);
/* Something may be finished now: the guest's end, the passing on of its output. */
void monitor_check_end(struct monitor *m);
