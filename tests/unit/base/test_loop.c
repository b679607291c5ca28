/* The event loop: each kind of watch, and callbacks that pull the rug from under it. */
#include "base/loop.h"

#include "base/cleanup.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct loop *loop;
static int order[16], n_order;

static int setup(void **context)
{
	n_order = 0;
	alarm(30); /* a loop that never ends fails */
	return loop_new(&loop, NULL);
}

static int teardown(void **context)
{
	alarm(0);
	loop_free(loop);
	return 0;
}

static void run(void)
{
	assert_int_equal(loop_run(loop, NULL), 0);
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void quit(void *data)
{
	loop_quit(loop);
}

static void note(void *data)
{
	order[n_order++] = (int)(intptr_t)data;
}

static void test_timers_fire_in_order_and_once(void **context)
{
	int64_t start = now_ms();
	struct watch *freed;

	assert_int_equal(loop_add_timer(loop, 30, note, (void *)3, NULL, NULL), 0);
	assert_int_equal(loop_add_timer(loop, 0, note, (void *)1, NULL, NULL), 0);
	assert_int_equal(loop_add_timer(loop, 15, note, (void *)2, NULL, NULL), 0);
	assert_int_equal(loop_add_timer(loop, 10, note, (void *)9, &freed, NULL), 0);
	assert_int_equal(loop_add_timer(loop, 60, quit, NULL, NULL, NULL), 0);
	watch_free(freed);
	run();
	assert_in_range(now_ms() - start, 60, 1000);
	assert_int_equal(n_order, 3);
	for (int i = 0; i < 3; i++)
		assert_int_equal(order[i], i + 1);
}

static struct watch *own;

static void free_own(void *data)
{
	note((void *)1);
	watch_free(own);
	watch_free(own); /* twice within a turn is harmless */
	own = NULL;
	loop_quit(loop);
}

static void test_timer_frees_itself(void **context)
{
	assert_int_equal(loop_add_timer(loop, 0, free_own, NULL, &own, NULL), 0);
	run();
	assert_int_equal(n_order, 1);
	watch_free(NULL);
}

/* ---- descriptors ---- */

struct end {
	int fd;
	uint32_t events;
	int calls;
	char text[16];
};

static void on_readable(void *data, uint32_t events)
{
	struct end *e = data;
	ssize_t n = read(e->fd, e->text, sizeof(e->text) - 1);

	e->events = events;
	e->calls++;
	e->text[n > 0 ? n : 0] = '\0';
	if (n <= 0)
		loop_quit(loop);
}

static void test_reading_and_hang_up(void **context)
{
	struct end e = {0};
	int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	e.fd = fds[0];
	assert_int_equal(loop_add_fd(loop, fds[0], EPOLLIN, on_readable, &e, NULL, NULL), 0);
	assert_int_equal(loop_add_timer(loop, 20, quit, NULL, NULL, NULL), 0);
	assert_int_equal(write(fds[1], "hello", 5), 5);
	run();
	assert_string_equal(e.text, "hello");
	assert_int_equal(e.calls, 1);
	assert_int_equal(e.events, EPOLLIN);
	close(fds[1]);
	run();
	assert_int_equal(e.calls, 2);
	assert_true(e.events & EPOLLHUP);
	loop_free(loop);
	assert_int_equal(loop_new(&loop, NULL), 0);
	assert_int_equal(close(fds[0]), 0); /* was left open */
}

static void on_any(void *data, uint32_t events)
{
	struct end *e = data;

	e->events |= events;
	e->calls++;
	loop_quit(loop);
}

static void test_no_events_is_hang_up_only(void **context)
{
	struct end e = {0};
	struct watch *w;
	int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	assert_int_equal(loop_add_fd(loop, fds[0], 0, on_any, &e, &w, NULL), 0);
	assert_int_equal(loop_add_timer(loop, 20, quit, NULL, NULL, NULL), 0);
	assert_int_equal(write(fds[1], "x", 1), 1);
	run();
	assert_int_equal(e.calls, 0);
	assert_int_equal(watch_set_events(w, EPOLLIN, NULL), 0);
	run();
	assert_int_equal(e.events, EPOLLIN);
	assert_int_equal(watch_set_events(w, 0, NULL), 0);
	close(fds[1]);
	run();
	assert_true(e.events & EPOLLHUP);
	watch_free(w);
	close(fds[0]);
}

/* Of two watches that are ready in the same turn, the first called frees the other and takes a new
 * one in its place. */
static struct watch *pair[2];
static int pair_fds[2], pair_calls;

static void free_the_other(void *data, uint32_t events)
{
	int other = !(intptr_t)data;

	pair_calls++;
	watch_free(pair[other]);
	pair[other] = NULL;
	assert_int_equal(loop_add_timer(loop, 20, quit, NULL, NULL, NULL), 0);
	watch_free(pair[!other]);
	pair[!other] = NULL;
}

static void test_watch_freed_in_the_same_turn(void **context)
{
	int fds[2];

	pair_calls = 0;
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	pair_fds[0] = fds[0];
	pair_fds[1] = fcntl(fds[0], F_DUPFD_CLOEXEC, 3);
	for (intptr_t i = 0; i < 2; i++)
		assert_int_equal(loop_add_fd(loop, pair_fds[i], EPOLLIN, free_the_other, (void *)i,
					     &pair[i], NULL),
				 0);
	assert_int_equal(write(fds[1], "x", 1), 1);
	run();
	assert_int_equal(pair_calls, 1);
	close(fds[0]);
	close(fds[1]);
	close(pair_fds[1]);
}

static void test_regular_files_are_refused(void **context)
{
	autofd int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct error err = {0};
	struct end e = {0};

	assert_int_equal(loop_add_fd(loop, fd, EPOLLIN, on_any, &e, NULL, &err), -EPERM);
	assert_true(err.message[0]);
}

/* ---- signals ---- */

static int signals_seen;

static void on_signal(void *data, int signo)
{
	assert_int_equal(signo, SIGUSR1);
	signals_seen++;
	loop_quit(loop);
}

static void test_signals(void **context)
{
	struct watch *w;
	sigset_t set;

	signals_seen = 0;
	assert_int_equal(loop_add_signal(loop, SIGUSR1, on_signal, NULL, &w, NULL), 0);
	sigprocmask(SIG_SETMASK, NULL, &set);
	assert_true(sigismember(&set, SIGUSR1));
	kill(getpid(), SIGUSR1);
	run();
	assert_int_equal(signals_seen, 1);
	watch_free(w);
}

static struct watch *signal_watch;
static int reused_fd;

static void on_signal_free_own(void *data, int signo)
{
	signals_seen++;
	watch_free(signal_watch);
	/* Takes the watch's number: nothing may be read from it. */
	reused_fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	assert_in_range(signals_seen, 1, 1);
	loop_quit(loop);
}

/* Two real-time signals are queued; the watch goes with the first. */
static void test_signal_watch_frees_itself(void **context)
{
	signals_seen = 0;
	assert_int_equal(
		loop_add_signal(loop, SIGRTMIN, on_signal_free_own, NULL, &signal_watch, NULL), 0);
	kill(getpid(), SIGRTMIN);
	kill(getpid(), SIGRTMIN);
	run();
	assert_int_equal(signals_seen, 1);
	assert_int_equal(
		sigtimedwait(&(sigset_t){{1UL << (SIGRTMIN - 1)}}, NULL, &(struct timespec){0}),
		SIGRTMIN);
	close(reused_fd);
}

/* ---- children ---- */

static int child_status, child_calls;

static void on_child(void *data, int status)
{
	child_status = status;
	child_calls++;
	if (data)
		watch_free(*(struct watch **)data);
	loop_quit(loop);
}

static int wait_for(void child(void))
{
	struct watch *w = NULL;
	pid_t pid = fork();
	int pidfd;

	if (pid == 0) {
		child();
		_exit(0);
	}
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	child_calls = 0;
	assert_int_equal(loop_add_child(loop, pidfd, on_child, &w, &w, NULL), 0);
	run();
	assert_int_equal(child_calls, 1);
	/* Reaped, and its descriptor still ours. */
	assert_int_equal(waitpid(pid, NULL, WNOHANG), -1);
	assert_int_equal(close(pidfd), 0);
	return child_status;
}

static void exit_42(void)
{
	_exit(42);
}

static void die(void)
{
	usleep(10000);
	kill(getpid(), SIGKILL);
	pause();
}

static void test_children(void **context)
{
	int status = wait_for(exit_42);

	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 42);
	status = wait_for(die);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void test_somebody_elses_child(void **context)
{
	int pidfd = (int)syscall(SYS_pidfd_open, getppid(), 0);

	/* Nothing to wait for: the loop must neither call back nor spin. */
	child_calls = 0;
	assert_int_equal(loop_add_child(loop, pidfd, on_child, NULL, NULL, NULL), 0);
	assert_int_equal(loop_add_timer(loop, 20, quit, NULL, NULL, NULL), 0);
	run();
	assert_int_equal(child_calls, 0);
	close(pidfd);
}

/* ---- the loop itself ---- */

static void add_another(void *data)
{
	note(data);
	if ((intptr_t)data < 10)
		assert_int_equal(loop_add_timer(loop, 0, add_another, (char *)data + 1, NULL, NULL),
				 0);
	else
		loop_quit(loop);
}

static void test_callbacks_add_watches(void **context)
{
	assert_int_equal(loop_add_timer(loop, 0, add_another, (void *)1, NULL, NULL), 0);
	run();
	assert_int_equal(n_order, 10);
}

/* More than one epoll_wait() returns at a time, half of them freed by the others. */
static struct watch *many[64];
static int many_calls;

static void free_next(void *data, uint32_t events)
{
	intptr_t i = (intptr_t)data;

	many_calls++;
	watch_free(many[i]);
	many[i] = NULL;
	for (int j = 0; j < 64; j++)
		if (many[j]) {
			watch_free(many[j]);
			many[j] = NULL;
			break;
		}
	for (int j = 0; j < 64; j++)
		if (many[j])
			return;
	loop_quit(loop);
}

static void test_many_at_once(void **context)
{
	int fds[2], dups[64];

	many_calls = 0;
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	for (intptr_t i = 0; i < 64; i++) {
		dups[i] = fcntl(fds[0], F_DUPFD_CLOEXEC, 3);
		assert_int_equal(
			loop_add_fd(loop, dups[i], EPOLLIN, free_next, (void *)i, &many[i], NULL),
			0);
	}
	assert_int_equal(write(fds[1], "x", 1), 1);
	run();
	assert_int_equal(many_calls, 32);
	for (int i = 0; i < 64; i++)
		close(dups[i]);
	close(fds[0]);
	close(fds[1]);
}

static int count_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void test_free_releases_what_is_left(void **context)
{
	int before = count_fds();
	struct loop *other;

	assert_int_equal(loop_new(&other, NULL), 0);
	assert_int_equal(loop_add_timer(other, 1000, quit, NULL, NULL, NULL), 0);
	assert_int_equal(loop_add_signal(other, SIGUSR2, on_signal, NULL, NULL, NULL), 0);
	assert_int_equal(count_fds(), before + 3);
	loop_free(other);
	loop_free(NULL);
	assert_int_equal(count_fds(), before);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_timers_fire_in_order_and_once),
		TEST(test_timer_frees_itself),
		TEST(test_reading_and_hang_up),
		TEST(test_no_events_is_hang_up_only),
		TEST(test_watch_freed_in_the_same_turn),
		TEST(test_regular_files_are_refused),
		TEST(test_signals),
		TEST(test_signal_watch_frees_itself),
		TEST(test_children),
		TEST(test_somebody_elses_child),
		TEST(test_callbacks_add_watches),
		TEST(test_many_at_once),
		TEST(test_free_releases_what_is_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
