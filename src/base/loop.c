/* See loop.h. */
#include "base/loop.h"

#include "base/cleanup.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

/* glibc 2.36 has it in <sys/wait.h>, older ones do not. */
#ifndef P_PIDFD
#define P_PIDFD 3
#endif

enum watch_kind { WATCH_FD, WATCH_TIMER, WATCH_SIGNAL, WATCH_CHILD };

struct watch {
	struct loop *loop;
	struct watch *prev, *next;
	enum watch_kind kind;
	int fd; /* ours for timers and signals */
	bool dead;
	void *data;
	union {
		watch_fd_fn on_fd;
		watch_timer_fn on_timer;
		watch_signal_fn on_signal;
		watch_child_fn on_child;
	};
};

struct loop {
	int epoll_fd;
	bool quit;
	struct watch *live;
	/* Freed during a turn: an event of the same turn may still point at them. */
	struct watch *dead;
};

int loop_new(struct loop **out, struct error *err)
{
	struct loop *loop = calloc(1, sizeof(*loop));

	if (!loop)
		return error_oom(err);
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0) {
		int code = errno;

		free(loop);
		return error_sys(err, code, "create an event loop");
	}
	*out = loop;
	return 0;
}

static void free_dead(struct loop *loop)
{
	while (loop->dead) {
		struct watch *next = loop->dead->next;

		free(loop->dead);
		loop->dead = next;
	}
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	while (loop->live)
		watch_free(loop->live);
	free_dead(loop);
	close(loop->epoll_fd);
	free(loop);
}

void loop_quit(struct loop *loop)
{
	loop->quit = true;
}

static int add(struct loop *loop, struct watch proto, uint32_t events, struct watch **out,
	       struct error *err)
{
	struct watch *w = malloc(sizeof(*w));
	struct epoll_event event = {.events = events, .data.ptr = w};

	if (!w)
		return error_oom(err);
	*w = proto;
	w->loop = loop;
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, w->fd, &event) < 0) {
		int code = errno;

		free(w);
		return error_sys(err, code, "watch a descriptor");
	}
	w->next = loop->live;
	if (loop->live)
		loop->live->prev = w;
	loop->live = w;
	if (out)
		*out = w;
	return 0;
}

int loop_add_fd(struct loop *loop, int fd, uint32_t events, watch_fd_fn fn, void *data,
		struct watch **watch, struct error *err)
{
	struct watch w = {.kind = WATCH_FD, .fd = fd, .data = data, .on_fd = fn};

	return add(loop, w, events, watch, err);
}

int watch_set_events(struct watch *watch, uint32_t events, struct error *err)
{
	struct epoll_event event = {.events = events, .data.ptr = watch};

	if (epoll_ctl(watch->loop->epoll_fd, EPOLL_CTL_MOD, watch->fd, &event) < 0)
		return error_sys(err, errno, "watch a descriptor");
	return 0;
}

int loop_add_timer(struct loop *loop, uint64_t delay_ms, watch_timer_fn fn, void *data,
		   struct watch **watch, struct error *err)
{
	struct watch w = {.kind = WATCH_TIMER, .data = data, .on_timer = fn};
	struct itimerspec when = {
		.it_value.tv_sec = (time_t)(delay_ms / 1000),
		.it_value.tv_nsec = (long)(delay_ms % 1000) * 1000000,
	};
	int rc;

	if (delay_ms == 0)
		when.it_value.tv_nsec = 1; /* zero would disarm it */
	w.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (w.fd < 0 || timerfd_settime(w.fd, 0, &when, NULL) < 0) {
		rc = error_sys(err, errno, "set a timer");
		fd_close(&w.fd);
		return rc;
	}
	rc = add(loop, w, EPOLLIN, watch, err);
	if (rc < 0)
		close(w.fd);
	return rc;
}

int loop_add_signal(struct loop *loop, int signo, watch_signal_fn fn, void *data,
		    struct watch **watch, struct error *err)
{
	struct watch w = {.kind = WATCH_SIGNAL, .data = data, .on_signal = fn};
	sigset_t set;
	int rc;

	sigemptyset(&set);
	sigaddset(&set, signo);
	sigprocmask(SIG_BLOCK, &set, NULL);
	w.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (w.fd < 0)
		return error_sys(err, errno, "watch signal %d", signo);
	rc = add(loop, w, EPOLLIN, watch, err);
	if (rc < 0)
		close(w.fd);
	return rc;
}

int loop_add_child(struct loop *loop, int pidfd, watch_child_fn fn, void *data,
		   struct watch **watch, struct error *err)
{
	struct watch w = {.kind = WATCH_CHILD, .fd = pidfd, .data = data, .on_child = fn};

	return add(loop, w, EPOLLIN, watch, err);
}

void watch_free(struct watch *w)
{
	struct loop *loop;

	if (!w || w->dead)
		return;
	loop = w->loop;
	epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
	if (w->kind == WATCH_TIMER || w->kind == WATCH_SIGNAL)
		close(w->fd);
	if (w->prev)
		w->prev->next = w->next;
	else
		loop->live = w->next;
	if (w->next)
		w->next->prev = w->prev;
	w->dead = true;
	w->next = loop->dead;
	loop->dead = w;
}

static int reap(int pidfd)
{
	siginfo_t info = {0};

	if (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | __WALL) < 0)
		return 255 << 8;
	if (info.si_code == CLD_EXITED)
		return W_EXITCODE(info.si_status, 0);
	return W_EXITCODE(0, info.si_status) | (info.si_code == CLD_DUMPED ? WCOREFLAG : 0);
}

static void dispatch(struct watch *w, uint32_t events)
{
	/* The callback may free the watch; what it needs is read first. */
	void *data = w->data;

	switch (w->kind) {
	case WATCH_FD:
		w->on_fd(data, events);
		break;
	case WATCH_TIMER: {
		watch_timer_fn fn = w->on_timer;

		/* Out of epoll, so that it does not fire again; the owner frees it. */
		epoll_ctl(w->loop->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
		fn(data);
		break;
	}
	case WATCH_SIGNAL: {
		struct signalfd_siginfo info;

		while (!w->dead && read(w->fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
			w->on_signal(data, (int)info.ssi_signo);
		break;
	}
	case WATCH_CHILD: {
		watch_child_fn fn = w->on_child;
		int status = reap(w->fd);

		epoll_ctl(w->loop->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
		fn(data, status);
		break;
	}
	}
}

int loop_run(struct loop *loop, struct error *err)
{
	struct epoll_event events[16];

	loop->quit = false;
	while (!loop->quit) {
		int n = epoll_wait(loop->epoll_fd, events, ARRAY_SIZE(events), -1);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_sys(err, errno, "wait for events");
		for (int i = 0; i < n && !loop->quit; i++) {
			struct watch *w = events[i].data.ptr;

			if (!w->dead)
				dispatch(w, events[i].events);
		}
		free_dead(loop);
	}
	return 0;
}
