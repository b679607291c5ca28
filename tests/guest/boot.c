/*
 * For developers: boots a Linux kernel on the software engine, with the serial console on stdin and
 * stdout. `boot [-m MIB] [-c VCPUS] KERNEL [INITRD] [APPEND]`; INITRD may be "-". SIGINT ends it.
 */
/* <signal.h> would bring register names that vcpu_state.h has, too. */
#undef _GNU_SOURCE
#define _DEFAULT_SOURCE
#define _XOPEN_SOURCE 700

#include "base/cleanup.h"
#include "machine/machine.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *const ends[] = {"running",        "powered off", "reset",  "debug exit",
				   "a triple fault", "stopped",     "failure"};

static void output(void *data, const void *bytes, size_t size)
{
	(void)data;
	while (size) {
		ssize_t n = write(STDOUT_FILENO, bytes, size);

		if (n <= 0)
			return;
		bytes = (const char *)bytes + n;
		size -= (size_t)n;
	}
}

static void *read_input(void *data)
{
	struct machine *m = data;
	char bytes[64];
	ssize_t n;

	while ((n = read(STDIN_FILENO, bytes, sizeof(bytes))) > 0) {
		for (ssize_t done = 0; done < n;) {
			done += (ssize_t)machine_input(m, bytes + done, (size_t)(n - done));
			if (done < n)
				poll(NULL, 0, 10);
		}
	}
	return NULL;
}

static void *wait_signal(void *data)
{
	sigset_t set;
	int signo;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigwait(&set, &signo);
	machine_stop(data);
	return NULL;
}

static void print_state(const struct vcpu_state *s)
{
	for (int i = 0; i < N_REGS; i++)
		fprintf(stderr, "r%-2d %016llx%s", i, (unsigned long long)s->regs[i],
			i % 4 == 3 ? "\n" : " ");
	fprintf(stderr, "rip %016llx rflags %llx cr0 %llx cr2 %llx cr3 %llx cr4 %llx efer %llx\n",
		(unsigned long long)s->rip, (unsigned long long)s->rflags,
		(unsigned long long)s->cr0, (unsigned long long)s->cr2, (unsigned long long)s->cr3,
		(unsigned long long)s->cr4, (unsigned long long)s->efer);
}

int main(int argc, char **argv)
{
	struct machine_config config = {
		.engine = &engine_soft,
		.memory_bytes = 512ull << 20,
		.n_vcpus = 1,
		.cmdline = "console=ttyS0 earlyprintk=serial,ttyS0,115200",
		.debug_exit = true,
		.output = output,
	};
	struct machine *m = NULL;
	struct error err = {0};
	struct timespec from, to;
	enum board_end end = BOARD_FAILED;
	pthread_t thread;
	sigset_t set;
	double seconds;
	int opt, status = 0;

	while ((opt = getopt(argc, argv, "m:c:")) != -1) {
		if (opt == 'm')
			config.memory_bytes = strtoull(optarg, NULL, 10) << 20;
		else if (opt == 'c')
			config.n_vcpus = (unsigned int)strtoul(optarg, NULL, 10);
		else
			return 2;
	}
	if (optind >= argc) {
		fprintf(stderr, "usage: %s [-m MIB] [-c VCPUS] KERNEL [INITRD|-] [APPEND]\n",
			argv[0]);
		return 2;
	}
	config.kernel = argv[optind];
	if (optind + 1 < argc && strcmp(argv[optind + 1], "-") != 0)
		config.initrd = argv[optind + 1];
	if (optind + 2 < argc)
		config.cmdline = argv[optind + 2];

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (machine_new(&config, &m, &err) < 0) {
		fprintf(stderr, "boot: %s\n", err.message);
		return 1;
	}
	pthread_create(&thread, NULL, read_input, m);
	pthread_create(&thread, NULL, wait_signal, m);
	clock_gettime(CLOCK_MONOTONIC, &from);
	if (machine_run(m, &end, &status, &err) < 0)
		fprintf(stderr, "boot: %s\n", err.message);
	clock_gettime(CLOCK_MONOTONIC, &to);
	seconds = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
	fprintf(stderr, "\nended by %s, status %d, after %.1f s\n", ends[end], status, seconds);
	for (unsigned int i = 0; i < config.n_vcpus; i++) {
		struct vcpu_counters c;
		struct vcpu_state *s = aligned_alloc(64, sizeof(*s));

		machine_counters(m, i, &c);
		fprintf(stderr,
			"vCPU %u: %llu instructions (%.1f MIPS), %llu exceptions (%llu page "
			"faults), "
			"%llu interrupts, %llu port and %llu memory accesses, %llu halts\n",
			i, (unsigned long long)c.instructions,
			(double)c.instructions / seconds / 1e6, (unsigned long long)c.exceptions,
			(unsigned long long)c.page_faults, (unsigned long long)c.interrupts,
			(unsigned long long)c.port_accesses, (unsigned long long)c.mmio_accesses,
			(unsigned long long)c.halts);
		if (s && (end == BOARD_SHUTDOWN || end == BOARD_STOPPED || end == BOARD_FAILED) &&
		    machine_vcpu_state(m, i, s, &err) == 0)
			print_state(s);
		free(s);
	}
	/* The two threads still use the machine. */
	_exit(end == BOARD_POWER_OFF ? 0 : end == BOARD_DEBUG_EXIT ? status & 0xff : 1);
}
