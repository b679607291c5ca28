/*
 * The program that end-to-end tests run inside guests: one static binary, a subject a verb, so
 * that a test image is one file and a test says what it looks at. It prints plain lines, and
 * fails with status 99 when it is called wrongly, which no test expects of a guest.
 *
 * Verbs run in turn, separated by a lone "+": `payload echo hello + exit 3`.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STATUS_USAGE = 99 };

extern char **environ;

/* A system call that a test tries: prints "ok" or the errno's name, so that "refused" can be told
 * from "not there". */
static int result(const char *what, long rc)
{
	printf("%s: %s\n", what, rc < 0 ? strerrorname_np(errno) : "ok");
	return 0;
}

static long number(const char *text)
{
	char *end;
	long value = strtol(text, &end, 0);

	if (!*text || *end) {
		fprintf(stderr, "payload: '%s' is not a number\n", text);
		exit(STATUS_USAGE);
	}
	return value;
}

static void sleep_ms(long ms)
{
	struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
}

/* Copies a descriptor to the standard output. */
static int copy_out(int fd)
{
	char buf[65536];
	ssize_t n;

	fflush(stdout);
	while ((n = read(fd, buf, sizeof(buf))) > 0) {
		for (ssize_t done = 0, w; done < n; done += w) {
			w = write(STDOUT_FILENO, buf + done, n - done);
			if (w < 0)
				return 1;
		}
	}
	return n < 0;
}

static int do_exit(int argc, char **argv)
{
	exit(number(argv[0]));
}

static int do_echo(int argc, char **argv)
{
	for (int i = 0; i < argc; i++)
		printf("%s%s", i ? " " : "", argv[i]);
	putchar('\n');
	return 0;
}

static int do_err(int argc, char **argv)
{
	for (int i = 0; i < argc; i++)
		fprintf(stderr, "%s%s", i ? " " : "", argv[i]);
	fputc('\n', stderr);
	return 0;
}

static int do_cat(int argc, char **argv)
{
	if (!argc)
		return copy_out(STDIN_FILENO);
	for (int i = 0; i < argc; i++) {
		int fd = open(argv[i], O_RDONLY);

		if (fd < 0) {
			result(argv[i], -1);
			return 1;
		}
		copy_out(fd);
		close(fd);
	}
	return 0;
}

/* write FILE TEXT... */
static int do_write(int argc, char **argv)
{
	FILE *f = fopen(argv[0], "w");

	if (!f) {
		result(argv[0], -1);
		return 1;
	}
	for (int i = 1; i < argc; i++)
		fprintf(f, "%s%s", i > 1 ? " " : "", argv[i]);
	fputc('\n', f);
	if (fclose(f) != 0) {
		result(argv[0], -1);
		return 1;
	}
	return 0;
}

/* "TYPE MODE UID GID SIZE NAME" of each file */
static int do_stat(int argc, char **argv)
{
	for (int i = 0; i < argc; i++) {
		struct stat st;

		if (lstat(argv[i], &st) < 0) {
			result(argv[i], -1);
			continue;
		}
		printf("%c %04o %u %u %lld %s\n", "?pc?d?b?-?l?s???"[st.st_mode >> 12],
		       st.st_mode & 07777, st.st_uid, st.st_gid, (long long)st.st_size, argv[i]);
	}
	return 0;
}

static int do_sleep(int argc, char **argv)
{
	fflush(stdout);
	sleep_ms((long)(strtod(argv[0], NULL) * 1000));
	return 0;
}

static int do_forever(int argc, char **argv)
{
	fflush(stdout);
	while (pause() < 0) /* it never returns anything else */
		;
	return 0;
}

/* The numbered lines 1..N, for logs. */
static int do_lines(int argc, char **argv)
{
	for (long i = 1, n = number(argv[0]); i <= n; i++)
		printf("line %ld\n", i);
	return 0;
}

static int do_id(int argc, char **argv)
{
	gid_t groups[256];
	int n = getgroups(256, groups);

	printf("uid=%u gid=%u euid=%u egid=%u groups=", getuid(), getgid(), geteuid(), getegid());
	for (int i = 0; i < n; i++)
		printf("%s%u", i ? "," : "", groups[i]);
	printf(" pid=%d ppid=%d sid=%d\n", getpid(), getppid(), getsid(0));
	return 0;
}

/* A line of /proc/self/status for each name; `status CapEff Seccomp`. */
static int do_status(int argc, char **argv)
{
	FILE *f = fopen("/proc/self/status", "r");
	char line[512];

	if (!f) {
		result("/proc/self/status", -1);
		return 1;
	}
	while (fgets(line, sizeof(line), f)) {
		for (int i = 0; i < argc; i++) {
			size_t n = strlen(argv[i]);

			if (!strncmp(line, argv[i], n) && line[n] == ':')
				fputs(line, stdout);
		}
	}
	fclose(f);
	return 0;
}

static int do_env(int argc, char **argv)
{
	for (char **e = environ; *e; e++)
		puts(*e);
	return 0;
}

static int do_cwd(int argc, char **argv)
{
	char buf[4096];

	puts(getcwd(buf, sizeof(buf)) ? buf : strerrorname_np(errno));
	return 0;
}

static int do_hostname(int argc, char **argv)
{
	char name[256] = "";

	if (argc)
		return result("sethostname", sethostname(argv[0], strlen(argv[0])));
	gethostname(name, sizeof(name) - 1);
	puts(name);
	return 0;
}

static int do_mounts(int argc, char **argv)
{
	return do_cat(1, (char *[]){"/proc/self/mountinfo"});
}

static int do_umask(int argc, char **argv)
{
	printf("%04o\n", umask(0));
	return 0;
}

static int do_rlimit(int argc, char **argv)
{
	struct rlimit files, procs;

	getrlimit(RLIMIT_NOFILE, &files);
	getrlimit(RLIMIT_NPROC, &procs);
	printf("nofile %lld %lld\nnproc %lld %lld\n", (long long)files.rlim_cur,
	       (long long)files.rlim_max, (long long)procs.rlim_cur, (long long)procs.rlim_max);
	return 0;
}

/* Which descriptors are open here: a leaked one of the host's would show. */
static int do_fds(int argc, char **argv)
{
	for (int fd = 0; fd < 1024; fd++) {
		char link[64], target[4096];
		ssize_t n;

		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		n = readlink(link, target, sizeof(target) - 1);
		if (n >= 0)
			printf("%d %.*s\n", fd, (int)n, target);
	}
	return 0;
}

static int do_tty(int argc, char **argv)
{
	for (int fd = 0; fd <= 2; fd++)
		printf("%d %s\n", fd, isatty(fd) ? ttyname(fd) ? ttyname(fd) : "tty" : "no tty");
	return 0;
}

static int do_winsize(int argc, char **argv)
{
	struct winsize ws;

	if (ioctl(STDIN_FILENO, TIOCGWINSZ, &ws) < 0)
		return result("TIOCGWINSZ", -1);
	printf("%u rows %u columns\n", ws.ws_row, ws.ws_col);
	return 0;
}

static volatile sig_atomic_t caught;

static void on_signal(int sig)
{
	caught = sig;
}

/* Waits for a change of the terminal's size and prints the new one. */
static int do_wait_winsize(int argc, char **argv)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGWINCH);
	sigprocmask(SIG_BLOCK, &set, NULL);
	puts("waiting");
	fflush(stdout);
	sigwaitinfo(&set, NULL);
	return do_winsize(0, NULL);
}

/* ignore SIGNAL-NUMBER... */
static int do_ignore(int argc, char **argv)
{
	for (int i = 0; i < argc; i++)
		signal(number(argv[i]), SIG_IGN);
	return 0;
}

/* catch SIGNAL-NUMBER: prints "ready", then "caught N" when it came. */
static int do_catch(int argc, char **argv)
{
	struct sigaction sa = {.sa_handler = on_signal};
	sigset_t set, old;

	sigemptyset(&set);
	sigaddset(&set, number(argv[0]));
	sigprocmask(SIG_BLOCK, &set, &old);
	sigaction(number(argv[0]), &sa, NULL);
	puts("ready");
	fflush(stdout);
	while (!caught)
		sigsuspend(&old);
	printf("caught %d\n", (int)caught);
	return 0;
}

/* raise SIGNAL-NUMBER: dies of it, unless it is process 1. */
static int do_raise(int argc, char **argv)
{
	fflush(stdout);
	raise(number(argv[0]));
	return 0;
}

/* alloc MB: touches every page, then says so. */
static int do_alloc(int argc, char **argv)
{
	for (long i = 0, mb = number(argv[0]); i < mb; i++) {
		char *p = malloc(1 << 20);

		if (!p)
			return result("malloc", -1);
		for (size_t at = 0; at < 1 << 20; at += 4096)
			((volatile char *)p)[at] = 1;
	}
	printf("allocated %s MB\n", argv[0]);
	fflush(stdout);
	return 0;
}

/* fork N: starts N sleeping children, prints how many there were. */
static int do_fork(int argc, char **argv)
{
	long started = 0;

	fflush(stdout);
	for (long n = number(argv[0]); started < n; started++) {
		pid_t pid = fork();

		if (pid == 0) {
			do_forever(0, NULL);
		} else if (pid < 0) {
			result("fork", -1);
			break;
		}
	}
	printf("forked %ld\n", started);
	fflush(stdout);
	return 0;
}

/* orphan MS: leaves a grandchild that outlives its parent; process 1 has to reap it. */
static int do_orphan(int argc, char **argv)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		if (fork() == 0)
			sleep_ms(number(argv[0]));
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	return 0;
}

/* spin MS: burns one processor for so long. */
static int do_spin(int argc, char **argv)
{
	struct timespec now, end;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += number(argv[0]) / 1000;
	end.tv_nsec += number(argv[0]) % 1000 * 1000000;
	do {
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec < end.tv_sec ||
		 (now.tv_sec == end.tv_sec && now.tv_nsec < end.tv_nsec));
	return 0;
}

/* What a guest might try; each prints "NAME: ok" or "NAME: ERRNO". */
static int do_try(int argc, char **argv)
{
	const char *what = argv[0];

	if (!strcmp(what, "mount"))
		return result(what, mount("none", "/tmp", "tmpfs", 0, NULL));
	if (!strcmp(what, "mknod"))
		return result(what, mknod("/tmp/sda", S_IFBLK | 0600, 8 << 8));
	if (!strcmp(what, "chroot"))
		return result(what, chroot("/"));
	if (!strcmp(what, "reboot"))
		return result(what, syscall(SYS_reboot, 0xfee1dead, 0x28121969, 0, NULL));
	if (!strcmp(what, "kexec"))
		return result(what, syscall(SYS_kexec_load, 0, 0, NULL, 0));
	if (!strcmp(what, "init_module"))
		return result(what, syscall(SYS_init_module, NULL, 0, ""));
	if (!strcmp(what, "bpf"))
		return result(what, syscall(SYS_bpf, 0, NULL, 0));
	if (!strcmp(what, "keyctl"))
		return result(what, syscall(SYS_keyctl, 0, -3, 0));
	if (!strcmp(what, "unshare-user"))
		return result(what, unshare(CLONE_NEWUSER));
	if (!strcmp(what, "unshare-mount"))
		return result(what, unshare(CLONE_NEWNS));
	if (!strcmp(what, "settime")) {
		struct timespec now;

		clock_gettime(CLOCK_REALTIME, &now);
		return result(what, clock_settime(CLOCK_REALTIME, &now));
	}
	if (!strcmp(what, "raw-socket"))
		return result(what, socket(AF_INET, SOCK_RAW, 1));
	if (!strcmp(what, "write-sysrq"))
		return result(what, open("/proc/sysrq-trigger", O_WRONLY));
	if (!strcmp(what, "write-root"))
		return result(what, open("/written-by-payload", O_WRONLY | O_CREAT, 0600));
	if (!strcmp(what, "new-privs"))
		return result(what, prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) ? -1 : 0);
	fprintf(stderr, "payload: nothing known about '%s'\n", what);
	return STATUS_USAGE;
}

/* exec PROGRAM ARG...: the rest of the command line. */
static int do_exec(int argc, char **argv)
{
	fflush(stdout);
	execv(argv[0], argv);
	result(argv[0], -1);
	return 127;
}

static const struct verb {
	const char *name;
	int (*run)(int argc, char **argv);
	int min_args;
} verbs[] = {
	{"alloc", do_alloc, 1},       {"cat", do_cat, 0},
	{"catch", do_catch, 1},       {"cwd", do_cwd, 0},
	{"echo", do_echo, 0},         {"env", do_env, 0},
	{"err", do_err, 0},           {"exec", do_exec, 1},
	{"exit", do_exit, 1},         {"fds", do_fds, 0},
	{"forever", do_forever, 0},   {"fork", do_fork, 1},
	{"hostname", do_hostname, 0}, {"id", do_id, 0},
	{"ignore", do_ignore, 1},     {"lines", do_lines, 1},
	{"mounts", do_mounts, 0},     {"orphan", do_orphan, 1},
	{"raise", do_raise, 1},       {"rlimit", do_rlimit, 0},
	{"sleep", do_sleep, 1},       {"spin", do_spin, 1},
	{"stat", do_stat, 1},         {"status", do_status, 1},
	{"try", do_try, 1},           {"tty", do_tty, 0},
	{"umask", do_umask, 0},       {"wait-winsize", do_wait_winsize, 0},
	{"winsize", do_winsize, 0},   {"write", do_write, 2},
};

static const struct verb *verb_find(const char *name)
{
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		if (!strcmp(verbs[i].name, name))
			return &verbs[i];
	}
	return NULL;
}

int main(int argc, char **argv)
{
	int status = 0;

	for (int i = 1, n; i < argc; i += n + 2) {
		const struct verb *verb = verb_find(argv[i]);

		for (n = 0; i + 1 + n < argc && strcmp(argv[i + 1 + n], "+") != 0;)
			n++;
		if (!verb || n < verb->min_args) {
			fprintf(stderr, "payload: what is '%s'?\n", argv[i]);
			return STATUS_USAGE;
		}
		argv[i + 1 + n] = NULL; /* for exec; argv[argc] is NULL anyway */
		status = verb->run(n, argv + i + 1);
		fflush(stdout);
	}
	return status;
}
