/* Helper programs, and descriptors sent between processes. */
#include "base/process.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

static int sh(const char *script, struct error *err)
{
	const char *const argv[] = {"sh", "-c", script, NULL};

	return process_run(argv, "dash", -1, err);
}

static void test_success_and_failure(void **context)
{
	struct error err = {0};

	assert_int_equal(sh("exit 0", &err), 0);
	assert_int_equal(sh("exit 3", &err), -ECHILD);
	assert_string_equal(err.message, "sh failed with status 3");
	/* Programs say last why they gave up. */
	assert_int_equal(sh("echo first >&2; echo 'the reason' >&2; echo >&2; exit 1", &err),
			 -ECHILD);
	assert_string_equal(err.message, "sh failed: the reason");
	assert_int_equal(sh("echo warning >&2; exit 0", &err), 0);
	/* Nothing but white space is no reason. */
	assert_int_equal(sh("echo >&2; exit 4", &err), -ECHILD);
	assert_string_equal(err.message, "sh failed with status 4");
	/* What is on stdout is not an error. */
	assert_int_equal(sh("echo output; exit 5", &err), -ECHILD);
	assert_string_equal(err.message, "sh failed with status 5");
	assert_int_equal(sh("printf 'bad \\033[2Jthing' >&2; exit 1", &err), -ECHILD);
	assert_string_equal(err.message, "sh failed: bad ?[2Jthing");
}

static void test_much_on_stderr(void **context)
{
	struct error err = {0};
	const char *p;
	int first;

	assert_int_equal(sh("i=0; while [ $i -lt 20000 ]; do echo line $i >&2; i=$((i+1)); done; "
			    "exit 1",
			    &err),
			 -ECHILD);
	assert_string_equal(err.message, "sh failed: line 19999");
	/* Of one endless line a piece from near its end. */
	assert_int_equal(sh("seq -f %07g 1 9000 | tr '\\n' ' ' >&2; exit 1", &err), -ECHILD);
	p = err.message + strlen("sh failed: ");
	p += strcspn(p, " ") + 1; /* the first one may be cut */
	first = atoi(p);
	assert_in_range(first, 9000 - 2048 / 8, 9000 - 50);
	for (int i = first; i < first + 50; i++, p += 8)
		assert_int_equal(atoi(p), i);
}

static void test_signals(void **context)
{
	struct error err = {0};

	assert_int_equal(sh("kill -KILL $$", &err), -ECHILD);
	assert_non_null(strstr(err.message, "signal 9"));
	assert_int_equal(sh("kill -INT $$", &err), -EINTR);
}

static void test_missing_program_names_the_package(void **context)
{
	static const char *const argv[] = {"lodge-no-such-program", NULL};
	struct error err = {0};

	assert_int_equal(process_run(argv, "some-package", -1, &err), -ENOENT);
	assert_non_null(strstr(err.message, "lodge-no-such-program"));
	assert_non_null(strstr(err.hint, "some-package"));
}

static void test_surroundings_of_the_program(void **context)
{
	autofd int out = memfd_create("out", MFD_CLOEXEC);
	autofd int ours = fcntl(out, F_DUPFD_CLOEXEC, 50);
	autofree char *script = str_printf("readlink /proc/self/fd/0;"
					   "[ -e /proc/self/fd/%d ] || echo closed; echo x >&2",
					   ours);
	char text[256] = "";
	sigset_t set, old;

	/* Blocked signals of ours are not the program's (asked without a shell, which would unblock
	 * them), nor are our descriptors. */
	sigfillset(&set);
	sigprocmask(SIG_BLOCK, &set, &old);
	assert_int_equal(
		process_run((const char *const[]){"grep", "SigBlk", "/proc/self/status", NULL},
			    "grep", out, NULL),
		0);
	assert_int_equal(
		process_run((const char *const[]){"sh", "-c", script, NULL}, "dash", out, NULL), 0);
	sigprocmask(SIG_SETMASK, &old, NULL);
	assert_true(pread(out, text, sizeof(text) - 1, 0) > 0);
	assert_string_equal(text, "SigBlk:\t0000000000000000\n/dev/null\nclosed\n");
}

/* ---- descriptors ---- */

static int pair[2];

static int setup(void **context)
{
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
}

static int teardown(void **context)
{
	close(pair[0]);
	close(pair[1]);
	return 0;
}

static int count_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void test_fds_arrive(void **context)
{
	int sent[4], got[4];
	char data[16];
	size_t n = 99;

	for (int i = 0; i < 4; i++)
		sent[i] = memfd_create("x", 0);
	assert_int_equal(socket_send_fds(pair[0], "hello", 5, sent, 4, NULL), 0);
	assert_int_equal(socket_recv_fds(pair[1], data, sizeof(data), got, 4, &n, NULL), 5);
	assert_memory_equal(data, "hello", 5);
	assert_int_equal(n, 4);
	for (int i = 0; i < 4; i++) {
		struct stat a, b;

		assert_int_equal(fstat(sent[i], &a), 0);
		assert_int_equal(fstat(got[i], &b), 0);
		assert_int_equal(a.st_ino, b.st_ino);
		assert_int_equal(fcntl(got[i], F_GETFD), FD_CLOEXEC);
		close(sent[i]);
		close(got[i]);
	}
	/* Without any. */
	assert_int_equal(socket_send_fds(pair[0], "x", 1, NULL, 0, NULL), 0);
	assert_int_equal(socket_recv_fds(pair[1], data, sizeof(data), got, 4, &n, NULL), 1);
	assert_int_equal(n, 0);
	/* The end. */
	shutdown(pair[0], SHUT_WR);
	assert_int_equal(socket_recv_fds(pair[1], data, sizeof(data), got, 4, &n, NULL), 0);
}

/* Sends more than socket_send_fds() would. */
static void send_raw(size_t n)
{
	union {
		char space[CMSG_SPACE(16 * sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {.iov_base = "x", .iov_len = 1};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.space,
		.msg_controllen = CMSG_SPACE(n * sizeof(int)),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(n * sizeof(int));
	memset(CMSG_DATA(cmsg), 0, n * sizeof(int)); /* descriptor 0, n times */
	assert_int_equal(sendmsg(pair[0], &msg, 0), 1);
}

/* What nobody asked for must not fill up the receiver. */
static void test_more_fds_than_asked(void **context)
{
	static const size_t counts[] = {1, 2, 3, 4, 5, 8, 16};

	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		int before = count_fds(), got[4];
		size_t n = 99;
		char byte;

		send_raw(counts[i]);
		assert_int_equal(socket_recv_fds(pair[1], &byte, 1, got, 1, &n, NULL), 1);
		assert_int_equal(n, 1);
		assert_int_equal(count_fds(), before + 1);
		close(got[0]);
		send_raw(counts[i]);
		assert_int_equal(socket_recv_fds(pair[1], &byte, 1, NULL, 0, NULL, NULL), 1);
		assert_int_equal(count_fds(), before);
	}
}

/* Half a message is not one. */
static void test_too_long_messages_are_refused(void **context)
{
	int before = count_fds(), zero = 0, got;
	struct error err = {0};
	char data[4];
	size_t n;

	assert_int_equal(socket_send_fds(pair[0], "hello", 5, &zero, 1, NULL), 0);
	assert_int_equal(socket_recv_fds(pair[1], data, sizeof(data), &got, 1, &n, &err),
			 -EMSGSIZE);
	assert_int_equal(count_fds(), before);
	assert_int_equal(socket_send_fds(pair[0], "four", 4, NULL, 0, NULL), 0);
	assert_int_equal(socket_recv_fds(pair[1], data, sizeof(data), &got, 1, &n, &err), 4);
}

static void test_errors(void **context)
{
	int fds[5] = {0}, stream[2];
	char byte;

	assert_int_equal(socket_send_fds(pair[0], "x", 1, fds, 5, NULL), -EINVAL);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream), 0);
	close(stream[1]);
	/* Never a SIGPIPE, which our parent may have had ignored. */
	signal(SIGPIPE, SIG_DFL);
	assert_int_equal(socket_send_fds(stream[0], "x", 1, NULL, 0, NULL), -EPIPE);
	close(stream[0]);
	assert_int_equal(socket_recv_fds(-1, &byte, 1, NULL, 0, NULL, NULL), -EBADF);
}

static void test_would_block(void **context)
{
	char byte;

	fcntl(pair[0], F_SETFL, O_NONBLOCK);
	assert_int_equal(socket_recv_fds(pair[0], &byte, 1, NULL, 0, NULL, NULL), -EAGAIN);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_success_and_failure),
		cmocka_unit_test(test_much_on_stderr),
		cmocka_unit_test(test_signals),
		cmocka_unit_test(test_missing_program_names_the_package),
		cmocka_unit_test(test_surroundings_of_the_program),
		TEST(test_fds_arrive),
		TEST(test_more_fds_than_asked),
		TEST(test_too_long_messages_are_refused),
		TEST(test_errors),
		TEST(test_would_block),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
