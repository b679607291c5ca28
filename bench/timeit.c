/*
 * Times commands against each other: runs each once a round, so that whatever else the machine does
 * at the time falls on all of them, in another order each round, so that none is always the one
 * that comes after a certain other. Prints a line for each run:
 *
 *   NAME RETURNED_NS SETTLED_NS
 *
 * RETURNED is from the command's execve() until it has exited. SETTLED is until all processes that
 * it has left behind have exited too: a command that leaves its tidying up to a process in the
 * background has not become faster by that. Neither has the cost of making the process, of which a
 * large shell or Python would have more than a small one. stdin and stdout are /dev/null.
 *
 * Usage: timeit ROUNDS WARM_UP PAUSE_MS NAME COMMAND [ARGUMENT...] [';' NAME COMMAND...]...
 *
 * The first WARM_UP rounds aren't printed. After each run comes a pause, so that the kernel's own
 * tidying (of network namespaces, say) doesn't fall on the next. A command's first word may be
 * `@FILE`, a mount namespace (/proc/PID/ns/mnt) to enter first. A command that fails ends it all.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_COMMANDS 32

struct command {
	const char *name;
	int mount_namespace; /* -1: ours */
	char **args;
};

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "timeit: %s: %s\n", what, strerror(errno));
	exit(1);
}

static long long now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void run(const struct command *c, long long *returned, long long *settled)
{
	/* The child shares our memory, and writes it. */
	volatile long long start = 0;
	long long end;
	int status;
	pid_t pid = vfork();

	if (pid < 0)
		fail("vfork");
	if (pid == 0) {
		if (c->mount_namespace >= 0 && setns(c->mount_namespace, CLONE_NEWNS) < 0)
			_exit(126);
		start = now_ns();
		execv(c->args[0], c->args);
		_exit(127);
	}
	if (waitpid(pid, &status, 0) != pid)
		fail("waitpid");
	end = now_ns();
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		fprintf(stderr, "timeit: %s: %s %d\n", c->name,
			WIFEXITED(status) ? "exit status" : "killed by signal",
			WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
		exit(1);
	}
	*returned = end - start;
	/* Orphans have become our children. */
	while (waitpid(-1, NULL, 0) > 0)
		end = now_ns();
	*settled = end - start;
}

static size_t parse(char **words, struct command *commands)
{
	size_t n = 0;

	while (*words) {
		struct command *c = &commands[n++];

		if (n > MAX_COMMANDS || !words[1])
			return 0;
		c->name = *words++;
		c->mount_namespace = -1;
		if (**words == '@') {
			c->mount_namespace = open(*words + 1, O_RDONLY | O_CLOEXEC);
			if (c->mount_namespace < 0)
				fail(*words + 1);
			words++;
		}
		c->args = words;
		while (*words && strcmp(*words, ";") != 0)
			words++;
		if (*words)
			*words++ = NULL;
		if (!c->args[0])
			return 0;
	}
	return n;
}

/* Fisher and Yates' shuffle, the same in each run of this program. */
static void shuffle(size_t *order, size_t n)
{
	for (size_t i = n; i > 1; i--) {
		size_t other = (size_t)random() % i, moved = order[i - 1];

		order[i - 1] = order[other];
		order[other] = moved;
	}
}

int main(int argc, char **argv)
{
	struct command commands[MAX_COMMANDS];
	size_t order[MAX_COMMANDS];
	struct timespec pause = {0};
	int rounds, warm_up, null, out;
	size_t n;

	n = argc > 5 ? parse(argv + 4, commands) : 0;
	if (n == 0) {
		fprintf(stderr, "Usage: timeit ROUNDS WARM_UP PAUSE_MS NAME COMMAND [ARGUMENT...] "
				"[';' NAME COMMAND...]...\n");
		return 2;
	}
	rounds = atoi(argv[1]);
	warm_up = atoi(argv[2]);
	pause.tv_nsec = atol(argv[3]) * 1000000;
	if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
		fail("prctl");
	out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (out < 0 || null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0)
		fail("/dev/null");

	for (size_t i = 0; i < n; i++)
		order[i] = i;
	for (int round = -warm_up; round < rounds; round++) {
		shuffle(order, n);
		for (size_t i = 0; i < n; i++) {
			const struct command *c = &commands[order[i]];
			long long returned, settled;

			run(c, &returned, &settled);
			if (round >= 0)
				dprintf(out, "%s %lld %lld\n", c->name, returned, settled);
			nanosleep(&pause, NULL);
		}
	}
	return 0;
}
