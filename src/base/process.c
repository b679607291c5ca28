/* See process.h. */
#include "base/process.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

#define MAX_FDS 4

/* Keeps the last `room` bytes of what a program says. */
static void drain_tail(int fd, char *tail, size_t room)
{
	char chunk[4096];
	size_t have = 0;
	ssize_t n;

	while ((n = read(fd, chunk, sizeof(chunk))) > 0 || (n < 0 && errno == EINTR)) {
		if (n < 0)
			continue;
		for (ssize_t i = 0; i < n; i++) {
			if (have == room - 1) {
				memmove(tail, tail + room / 2, have - room / 2);
				have -= room / 2;
			}
			tail[have++] = chunk[i];
		}
	}
	tail[have] = '\0';
}

/* The last line with something on it: programs say last why they gave up. */
static const char *last_line(char *text)
{
	char *line;

	str_chomp(text);
	line = strrchr(text, '\n');
	return line ? line + 1 : text;
}

int process_run(const char *const argv[], const char *package, int stdout_fd, struct error *err)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	autofd int read_end = -EBADF;
	autofd int write_end = -EBADF;
	const char *reason;
	char tail[2048];
	sigset_t none;
	int pipe_fds[2], status, rc;
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return error_sys(err, errno, "make a pipe");
	read_end = pipe_fds[0];
	write_end = pipe_fds[1];

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	if (stdout_fd >= 0)
		posix_spawn_file_actions_adddup2(&actions, stdout_fd, 1);
	else
		posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, write_end, 2);
	posix_spawnattr_init(&attr);
	sigemptyset(&none);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	rc = posix_spawnp(&pid, argv[0], &actions, &attr, (char *const *)argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	if (rc == ENOENT) {
		error_set(err, ENOENT, "the program %s is not installed", argv[0]);
		error_hint(err, "install the package %s", package);
		return -ENOENT;
	}
	if (rc)
		return error_sys(err, rc, "start %s", argv[0]);

	log_debug("running %s (pid %d)", argv[0], pid);
	fd_close(&write_end);
	drain_tail(read_end, tail, sizeof(tail));
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return error_sys(err, errno, "wait for %s", argv[0]);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (WIFSIGNALED(status))
		return error_set(err, WTERMSIG(status) == SIGINT ? EINTR : ECHILD,
				 "%s was ended by signal %d (%s)", argv[0], WTERMSIG(status),
				 strsignal(WTERMSIG(status)));
	reason = last_line(tail);
	if (*reason)
		return error_set(err, ECHILD, "%s failed: %s", argv[0], reason);
	return error_set(err, ECHILD, "%s failed with status %d", argv[0], WEXITSTATUS(status));
}

static int compare_ints(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

void fds_close_except(int *keep, size_t n)
{
	unsigned int from = 3;

	qsort(keep, n, sizeof(*keep), compare_ints);
	for (size_t i = 0; i < n; i++) {
		if (keep[i] < (int)from)
			continue;
		if ((unsigned int)keep[i] > from)
			close_range(from, (unsigned int)keep[i] - 1, 0);
		from = (unsigned int)keep[i] + 1;
	}
	close_range(from, ~0U, 0);
}

union fd_message {
	char space[CMSG_SPACE(MAX_FDS * sizeof(int))];
	struct cmsghdr align;
};

int socket_send_fds(int sock, const void *data, size_t size, const int *fds, size_t n_fds,
		    struct error *err)
{
	union fd_message control = {0};
	struct iovec iov = {.iov_base = (void *)data, .iov_len = size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (n_fds > MAX_FDS)
		return error_sys(err, EINVAL, "send descriptors");
	if (n_fds > 0) {
		struct cmsghdr *cmsg;

		msg.msg_control = control.space;
		msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, n_fds * sizeof(int));
	}
	while (sendmsg(sock, &msg, MSG_NOSIGNAL) < 0)
		if (errno != EINTR)
			return error_sys(err, errno, "send a message");
	return 0;
}

ssize_t socket_recv_fds(int sock, void *data, size_t size, int *fds, size_t max_fds, size_t *n_fds,
			struct error *err)
{
	union fd_message control;
	struct iovec iov = {.iov_base = data, .iov_len = size};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.space,
		.msg_controllen = sizeof(control.space),
	};
	size_t got = 0;
	ssize_t n;

	while ((n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC)) < 0)
		if (errno != EINTR)
			return error_sys(err, errno, "receive a message");
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		int received[MAX_FDS];
		size_t count;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(received, CMSG_DATA(c), count * sizeof(int));
		for (size_t i = 0; i < count; i++) {
			if (got < max_fds)
				fds[got++] = received[i];
			else
				close(received[i]);
		}
	}
	if (msg.msg_flags & MSG_TRUNC) { /* half a message is not one */
		while (got > 0)
			close(fds[--got]);
		n = error_sys(err, EMSGSIZE, "receive a message");
	}
	if (n_fds)
		*n_fds = got;
	return n;
}
