/*
 * Runs mkfs.erofs and mmdebstrap: like process_run(), but the caller hears of progress while it
 * waits and can end it. The program runs in a process group of its own, so that Ctrl-C reaches us
 * and we take it and its children down in order; and it inherits the working directory's lock, so
 * that nobody sweeps what it still writes when we are killed.
 */
#include "base/file.h"
#include "base/log.h"
#include "image/internal.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

extern char **environ;

enum { TICK_MS = 100, PATIENCE_MS = 10000 };

/* Ours, but messages in English, which we read, and a locale that every system has: the user's may
 * be missing where the program works. */
static int make_environment(struct strv *env, struct error *err)
{
	int rc = strv_push(env, "LC_ALL=C.UTF-8", err);

	for (char **e = environ; rc == 0 && *e; e++)
		if (!str_starts_with(*e, "LC_ALL="))
			rc = strv_push(env, *e, err);
	return rc;
}

/* The child's part. It ends with us: what works on for a command that was killed keeps its lock, so
 * that nobody could clean up. Returns only when the program could not be executed. */
static int become(const struct helper *h, int lock_fd, int write_end, char **env, pid_t parent)
{
	struct sigaction action = {.sa_handler = SIG_DFL};
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	sigset_t none;

	for (int signo = 1; signo < NSIG; signo++)
		sigaction(signo, &action, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (null < 0 || dup2(null, 0) < 0 || dup2(write_end, 1) < 0 || dup2(write_end, 2) < 0 ||
	    dup2(lock_fd, 3) < 0 || setpgid(0, 0) < 0 ||
	    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		return errno;
	if (getppid() != parent)
		return ECHILD;
	execvpe(h->argv[0], (char *const *)h->argv, env);
	return errno;
}

/* Both of the program's outputs are one pipe. Descriptor 3 is the lock. Returns 0 or an errno. */
static int spawn(const struct helper *h, int lock_fd, int write_end, char **env, pid_t *pid)
{
	autofd int failure_read = -EBADF;
	autofd int failure_write = -EBADF;
	pid_t parent = getpid();
	int fds[2], code = 0;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return errno;
	failure_read = fds[0];
	/* Out of the way of 0 to 3. */
	failure_write = fcntl(fds[1], F_DUPFD_CLOEXEC, 10);
	close(fds[1]);
	if (failure_write < 0)
		return errno;
	*pid = fork();
	if (*pid < 0)
		return errno;
	if (*pid == 0) {
		code = become(h, lock_fd, write_end, env, parent);
		_exit(write(failure_write, &code, sizeof(code)) < 0 ? 126 : 127);
	}
	fd_close(&failure_write);
	if (fd_read_full(failure_read, &code, sizeof(code), NULL) == (ssize_t)sizeof(code)) {
		waitpid(*pid, NULL, 0);
		return code;
	}
	return 0;
}

struct lines {
	char text[1024];
	size_t n;
};

static void take_output(struct helper *h, struct lines *l, const char *chunk, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (chunk[i] == '\n' || chunk[i] == '\r') {
			l->text[l->n] = '\0';
			if (l->n > 0)
				h->line(h, l->text);
			l->n = 0;
		} else if (l->n < sizeof(l->text) - 1) {
			l->text[l->n++] = chunk[i];
		}
	}
}

void helper_keep_last(struct helper *h, const char *line)
{
	snprintf(h->why, sizeof(h->why), "%s", line);
}

/* Until the program, and whoever inherited its output, has closed it; or we are to stop. */
static int listen(struct helper *h, int fd, struct error *err)
{
	struct lines lines = {.n = 0};
	char chunk[4096];

	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int rc = poll(&p, 1, TICK_MS);
		ssize_t n;

		if (rc < 0 && errno != EINTR)
			return error_sys(err, errno, "wait for %s", h->argv[0]);
		if (rc > 0) {
			n = read(fd, chunk, sizeof(chunk));
			if (n == 0)
				break;
			if (n > 0)
				take_output(h, &lines, chunk, (size_t)n);
		}
		rc = image_progress(h->options, h->stage, -1, err);
		if (rc < 0)
			return rc;
	}
	take_output(h, &lines, "\n", 1);
	return 0;
}

/* First politely: mmdebstrap has things to tidy up. */
static void end_group(pid_t pid)
{
	int status;

	kill(-pid, SIGTERM);
	for (int ms = 0; ms < PATIENCE_MS; ms += TICK_MS) {
		if (waitpid(pid, &status, WNOHANG) == pid) {
			kill(-pid, SIGKILL); /* what it left */
			return;
		}
		poll(NULL, 0, TICK_MS);
	}
	kill(-pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
}

int helper_run(struct helper *h, const struct image_work *work, struct error *err)
{
	autofd int read_end = -EBADF;
	autofd int write_end = -EBADF;
	int pipe_fds[2], status, rc;
	autostrv struct strv env = {0};
	pid_t pid = -1;

	rc = make_environment(&env, err);
	if (rc < 0)
		return rc;
	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return error_sys(err, errno, "make a pipe");
	read_end = pipe_fds[0];
	write_end = pipe_fds[1];
	rc = spawn(h, work->fd, write_end, env.v, &pid);
	if (rc == ENOENT) {
		error_set(err, ENOENT, "the program %s is not installed", h->argv[0]);
		error_hint(err, "install the package %s", h->package);
		return -ENOENT;
	}
	if (rc)
		return error_sys(err, rc, "start %s", h->argv[0]);
	log_debug("running %s (pid %d)", h->argv[0], pid);
	fd_close(&write_end);
	rc = listen(h, read_end, err);
	if (rc < 0) {
		end_group(pid);
		return rc;
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return error_sys(err, errno, "wait for %s", h->argv[0]);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (WIFSIGNALED(status))
		return error_set(err, ECHILD, "%s was ended by signal %d (%s)", h->argv[0],
				 WTERMSIG(status), strsignal(WTERMSIG(status)));
	if (strstr(h->why, strerror(ENOSPC)))
		return error_sys(err, ENOSPC, "%s", h->argv[0]);
	if (h->why[0])
		return error_set(err, ECHILD, "%s failed: %s", h->argv[0], h->why);
	return error_set(err, ECHILD, "%s failed with status %d", h->argv[0], WEXITSTATUS(status));
}
