/*
 * killstep: runs a command and kills it at a chosen step, so that a test can show what a power cut
 * or a `kill -9` at that very moment leaves behind.
 *
 *     killstep [-o FILE] [-1] N COMMAND ARG...
 *
 * A step is a system call of the command, or of a process that it forked and that still runs the
 * same program: Lodge's monitors and stages. At the N-th all of them are killed, or, with -1, only
 * the one that makes it; the call itself is not executed any more. N = 0 kills nobody. The number
 * of steps that were taken is written to FILE, and "killed" where it came to that.
 *
 * Left alone are processes that execute another program, and those that are in another pid
 * namespace: a container's init has to notice by itself.
 *
 * Ends with the command's status, when it and all that it forked have ended or rest, or with 137.
 * Uses ptrace(2).
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STATUS_USAGE = 99, MAX_PROCESSES = 64 };

/* No step for so long after the command's end: what is still there only waits. */
#define REST_MS 60

static pid_t traced[MAX_PROCESSES];
static bool in_call[MAX_PROCESSES];
static int n_traced;
static char program[PATH_MAX];

static void fail(const char *what)
{
	fprintf(stderr, "killstep: %s: %s\n", what, strerror(errno));
	exit(STATUS_USAGE);
}

static int find(pid_t pid)
{
	for (int i = 0; i < n_traced; i++) {
		if (traced[i] == pid)
			return i;
	}
	return -1;
}

static int add(pid_t pid)
{
	int i = find(pid);

	if (i >= 0)
		return i;
	if (n_traced == MAX_PROCESSES) {
		errno = E2BIG;
		fail("too many processes");
	}
	traced[n_traced] = pid;
	in_call[n_traced] = false;
	return n_traced++;
}

static void forget(pid_t pid)
{
	int i = find(pid);

	if (i < 0)
		return;
	n_traced--;
	traced[i] = traced[n_traced];
	in_call[i] = in_call[n_traced];
}

/* Whether it is in a pid namespace below ours: NSpid then has more than one number. */
static bool in_other_namespace(pid_t pid)
{
	char path[64], line[256];
	int numbers = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "r");
	if (!f)
		return false;
	while (fgets(line, sizeof(line), f)) {
		if (strncmp(line, "NSpid:", 6) != 0)
			continue;
		for (char *word = strtok(line + 6, " \t\n"); word; word = strtok(NULL, " \t\n"))
			numbers++;
	}
	fclose(f);
	return numbers > 1;
}

static bool runs_another_program(pid_t pid)
{
	char path[64], exe[PATH_MAX];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	n = readlink(path, exe, sizeof(exe) - 1);
	if (n < 0)
		return false;
	exe[n] = '\0';
	return strcmp(exe, program) != 0;
}

static void kill_all(void)
{
	for (int i = 0; i < n_traced; i++)
		kill(traced[i], SIGKILL);
}

static pid_t start(char **argv)
{
	const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
			     PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC;
	pid_t pid;
	int status;

	if (!realpath(argv[0], program))
		fail(argv[0]);
	pid = fork();
	if (pid < 0)
		fail("fork");
	if (pid == 0) {
		raise(SIGSTOP);
		execv(argv[0], argv);
		fail(argv[0]);
	}
	if (waitpid(pid, &status, WUNTRACED) != pid || !WIFSTOPPED(status))
		fail("wait for the command");
	if (ptrace(PTRACE_SEIZE, pid, NULL, options) < 0)
		fail("trace the command");
	kill(pid, SIGCONT);
	return pid;
}

/* The next that happens to one of them; 0: nothing for REST_MS, which is asked for only when
 * `may_rest`. */
static pid_t wait_next(int *status, bool may_rest)
{
	for (int ms = 0;; ms++) {
		pid_t pid = waitpid(-1, status, __WALL | (may_rest ? WNOHANG : 0));

		if (pid != 0)
			return pid;
		if (ms >= REST_MS)
			return 0;
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
}

int main(int argc, char **argv)
{
	const char *report = "/dev/null";
	long target, steps = 0;
	int command_status = -1, status, opt;
	bool killed = false, one = false, started = false;
	pid_t command, pid;
	FILE *out;

	while ((opt = getopt(argc, argv, "+1o:")) != -1) {
		if (opt == 'o')
			report = optarg;
		else if (opt == '1')
			one = true;
		else
			return STATUS_USAGE;
	}
	if (argc - optind < 2) {
		fprintf(stderr, "usage: killstep [-o FILE] [-1] N COMMAND ARG...\n");
		return STATUS_USAGE;
	}
	target = strtol(argv[optind], NULL, 10);
	command = start(argv + optind + 1);
	add(command);

	while ((pid = wait_next(&status, command_status >= 0)) > 0) {
		int i, event = status >> 16, signo = 0;

		if (WIFEXITED(status) || WIFSIGNALED(status)) {
			forget(pid);
			if (pid == command)
				command_status = WIFEXITED(status) ? WEXITSTATUS(status)
								   : 128 + WTERMSIG(status);
			continue;
		}
		i = add(pid);
		if (killed && !one)
			continue; /* it is dying */
		if (event == PTRACE_EVENT_EXEC)
			started = true;
		/* A new one's first stop, or a new program. */
		if ((event == PTRACE_EVENT_STOP || event == PTRACE_EVENT_EXEC) &&
		    ((pid != command && in_other_namespace(pid)) ||
		     (started && runs_another_program(pid)))) {
			ptrace(PTRACE_DETACH, pid, NULL, NULL);
			forget(pid);
			continue;
		}
		if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
			in_call[i] = !in_call[i];
			if (in_call[i] && started && ++steps == target) {
				killed = true;
				if (one)
					kill(pid, SIGKILL);
				else
					kill_all();
				continue;
			}
		} else if (event == PTRACE_EVENT_EXEC) {
			in_call[i] = true; /* the stop at the end of execve() is still to come */
		} else if (event == 0) {
			signo = WSTOPSIG(status);
		} else if (event == PTRACE_EVENT_STOP && WSTOPSIG(status) != SIGTRAP) {
			ptrace(PTRACE_LISTEN, pid, NULL, NULL); /* stopped by a signal */
			continue;
		}
		ptrace(PTRACE_SYSCALL, pid, NULL, (void *)(long)signo);
	}
	/* Whoever rests is let go by our end. */

	out = fopen(report, "w");
	if (!out)
		fail(report);
	fprintf(out, "%ld%s\n", steps, killed ? " killed" : "");
	fclose(out);
	return command_status >= 0 ? command_status : 137;
}
