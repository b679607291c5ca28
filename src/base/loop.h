/*
 * An event loop on epoll: descriptors, timers (timerfd), signals (signalfd) and children (pidfd).
 * One thread, one loop. Callbacks may add and free watches, also their own.
 */
#pragma once

#include "base/error.h"

#include <stdint.h>
#include <sys/epoll.h>
#include <sys/types.h>

struct loop;
struct watch;

int loop_new(struct loop **loop, struct error *err);

/* Frees the loop and all watches that are left. Descriptors given to loop_add_fd() stay open. */
void loop_free(struct loop *loop);

/* Runs callbacks until loop_quit(). Returns 0 or a negative errno of epoll_wait(). */
int loop_run(struct loop *loop, struct error *err);
void loop_quit(struct loop *loop);

/* `events` are EPOLLIN, EPOLLOUT...; the callback gets those that came, and EPOLLHUP, EPOLLERR.
 * The descriptor stays the caller's and must outlive the watch. 0 events: only hang-ups. */
typedef void (*watch_fd_fn)(void *data, uint32_t events);
int loop_add_fd(struct loop *loop, int fd, uint32_t events, watch_fd_fn fn, void *data,
		struct watch **watch, struct error *err);
int watch_set_events(struct watch *watch, uint32_t events, struct error *err);

/* Calls back once after delay_ms (0: at the next turn), unless freed before. CLOCK_MONOTONIC. */
typedef void (*watch_timer_fn)(void *data);
int loop_add_timer(struct loop *loop, uint64_t delay_ms, watch_timer_fn fn, void *data,
		   struct watch **watch, struct error *err);

/* Blocks `signo` in this thread and calls back for it. */
typedef void (*watch_signal_fn)(void *data, int signo);
int loop_add_signal(struct loop *loop, int signo, watch_signal_fn fn, void *data,
		    struct watch **watch, struct error *err);

/* Reaps the child behind `pidfd` (which stays the caller's) when it ends; `status` is as waitpid()
 * gives it. Called once. */
typedef void (*watch_child_fn)(void *data, int status);
int loop_add_child(struct loop *loop, int pidfd, watch_child_fn fn, void *data,
		   struct watch **watch, struct error *err);

/* Ends a watch; NULL is fine. */
void watch_free(struct watch *watch);
