/* The progress line: on a terminal after a second, gone at the end; elsewhere silent. */
#include "base/cleanup.h"
#include "cli/progress.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include <cmocka.h>

/* Runs `work` in a child whose stderr is a terminal of 60 columns, or a pipe; returns what it
 * wrote there, and how it ended in *status. */
static char *seen_on_stderr(bool terminal, void (*work)(void), int *status)
{
	static char text[8192];
	autofd int ours = -EBADF, theirs = -EBADF;
	struct winsize size = {.ws_col = 60, .ws_row = 24};
	size_t used = 0;
	ssize_t n;
	pid_t pid;
	int ends[2];

	if (terminal) {
		ours = posix_openpt(O_RDWR | O_NOCTTY);
		assert_true(ours >= 0 && grantpt(ours) == 0 && unlockpt(ours) == 0);
		theirs = open(ptsname(ours), O_RDWR | O_NOCTTY);
		assert_int_equal(ioctl(ours, TIOCSWINSZ, &size), 0);
	} else {
		assert_int_equal(pipe(ends), 0);
		ours = ends[0];
		theirs = ends[1];
	}
	assert_true(theirs >= 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		dup2(theirs, STDERR_FILENO);
		setenv("TERM", "xterm", 1);
		work();
		_exit(0);
	}
	fd_close(&theirs);
	/* EIO is how a terminal says that its other side is closed. */
	while ((n = read(ours, text + used, sizeof(text) - 1 - used)) > 0)
		used += (size_t)n;
	text[used] = '\0';
	assert_int_equal(waitpid(pid, status, 0), pid);
	return text;
}

static void quick(void)
{
	struct progress p;

	progress_start(&p, "Quick", PROGRESS_STEPS);
	progress_update(&p, 1, 2);
	progress_note(&p, "note");
	progress_finish(&p);
}

static void slow(void)
{
	struct progress p;

	progress_start(&p, "Pulling debian", PROGRESS_BYTES);
	p.start_ms -= 2000; /* as if it had been at it for two seconds */
	progress_update(&p, 512 << 10, 1 << 20);
	p.drawn_ms -= 2000;
	progress_note(&p, "a note that is much longer than what is left of this short line");
	progress_update(&p, 600 << 10, 1 << 20); /* too soon to be drawn again */
	progress_finish(&p);
	progress_finish(&p);
}

static void interrupted(void)
{
	struct progress p;

	progress_start(&p, "Waiting", PROGRESS_STEPS);
	p.start_ms -= 2000;
	progress_tick(&p);
	raise(SIGINT);
}

static void test_quick_is_silent(void **state)
{
	int status;

	assert_string_equal(seen_on_stderr(true, quick, &status), "");
}

static void test_pipe_is_silent(void **state)
{
	int status;

	assert_string_equal(seen_on_stderr(false, slow, &status), "");
}

static void test_slow_is_drawn_and_erased(void **state)
{
	int status;

	assert_string_equal(seen_on_stderr(true, slow, &status),
			    "\r\033[KPulling debian [############............]  50%  512 KiB of"
			    "\r\033[KPulling debian [############............]  50%  512 KiB of"
			    "\r\033[K");
	assert_int_equal(status, 0);
}

static void test_interrupt_erases(void **state)
{
	int status;

	assert_string_equal(seen_on_stderr(true, interrupted, &status),
			    "\r\033[KWaiting |\r\033[K");
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGINT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_quick_is_silent),
		cmocka_unit_test(test_pipe_is_silent),
		cmocka_unit_test(test_slow_is_drawn_and_erased),
		cmocka_unit_test(test_interrupt_erases),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
