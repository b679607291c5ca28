/*
 * The compiled system call filters: that they say what the table says, for every number on both
 * architectures; that the table is as tight as Docker's; and that the kernel enforces them.
 */
#include "base/cleanup.h"
#include "base/str.h"
#include "container/seccomp_filters.h"
#include "container/seccomp_profile.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct {
	const struct sock_filter *code;
	size_t n;
} filters[SECCOMP_PROFILES] = {
	{seccomp_filter_application, ARRAY_SIZE(seccomp_filter_application)},
	{seccomp_filter_system, ARRAY_SIZE(seccomp_filter_system)},
};

/* What the kernel would do, for the instructions that the generator emits. */
static uint32_t interpret(enum seccomp_profile profile, const struct seccomp_data *data)
{
	uint32_t a = 0;

	for (size_t pc = 0; pc < filters[profile].n; pc++) {
		const struct sock_filter *i = &filters[profile].code[pc];

		switch (i->code) {
		case BPF_LD | BPF_W | BPF_ABS:
			assert_true(i->k + 4 <= sizeof(*data));
			memcpy(&a, (const char *)data + i->k, 4);
			break;
		case BPF_ALU | BPF_AND | BPF_K:
			a &= i->k;
			break;
		case BPF_JMP | BPF_JA:
			pc += i->k;
			break;
		case BPF_JMP | BPF_JEQ | BPF_K:
			pc += a == i->k ? i->jt : i->jf;
			break;
		case BPF_JMP | BPF_JGE | BPF_K:
			pc += a >= i->k ? i->jt : i->jf;
			break;
		case BPF_RET | BPF_K:
			return i->k;
		default:
			fail_msg("instruction %#x", i->code);
		}
	}
	fail_msg("ran off the end");
	return 0;
}

static bool in_words(const char *words, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = words; (p = strstr(p, name)); p += len)
		if ((p == words || p[-1] == ' ') && (p[len] == ' ' || !p[len]))
			return true;
	return false;
}

/* What the table says, found by name: shares no code with the generator. */
static uint32_t expected(enum seccomp_profile profile, const char *name,
			 const struct seccomp_data *data)
{
	int action = ENOSYS;

	for (const struct seccomp_row *row = seccomp_rows; row->names; row++) {
		const struct seccomp_tests *tests = row->tests[profile];

		if (!name || !in_words(row->names, name))
			continue;
		action = row->action[profile];
		for (int i = tests ? tests->n - 1 : -1; i >= 0; i--) {
			const struct seccomp_test *t = &tests->test[i];
			bool holds = true;

			for (int c = 0; c < t->n_compares; c++)
				if (((uint32_t)data->args[t->compare[c].arg] &
				     t->compare[c].mask) != t->compare[c].value)
					holds = false;
			if (holds)
				action = t->action;
		}
		break;
	}
	return action ? SECCOMP_RET_ERRNO | (uint32_t)action : SECCOMP_RET_ALLOW;
}

static const char *new_name(int nr, bool is_64)
{
	for (const struct seccomp_number *n = seccomp_new_numbers; n->name; n++)
		if (n->number == nr && (is_64 || !n->only_64))
			return n->name;
	return NULL;
}

static void test_filters_say_what_the_table_says(void **context)
{
	static const uint64_t values[] = {
		0,
		1,
		2,
		8,
		9,
		16,
		38,
		39,
		40,
		0x20000,
		0x20008,
		0x40000,
		0xffffffff,
		0x10000000,
		0x1200011,
		0x3d0f00,
		0x2000000,
		0x100000026,
		0xffffffff00000000,
	};
	size_t checked = 0;

	for (int nr = -1; nr < 1200; nr++)
		for (int which = 0; which < 2 * SECCOMP_PROFILES; which++) {
			bool is_64 = which & 1;
			enum seccomp_profile profile = (enum seccomp_profile)(which / 2);
			autofree char *known =
				nr < 0 ? NULL
				       : seccomp_syscall_resolve_num_arch(
						 is_64 ? SCMP_ARCH_X86_64 : SCMP_ARCH_X86, nr);
			const char *name = known ? known : new_name(nr, is_64);

			for (size_t i = 0; i < ARRAY_SIZE(values) * ARRAY_SIZE(values); i++) {
				struct seccomp_data data = {
					.nr = nr,
					.arch = is_64 ? AUDIT_ARCH_X86_64 : AUDIT_ARCH_I386,
					.args = {values[i % ARRAY_SIZE(values)], 3,
						 values[i / ARRAY_SIZE(values)]},
				};
				uint32_t got = interpret(profile, &data);

				if (got != expected(profile, name, &data))
					fail_msg("%s (%d, %s) arguments %#llx %#llx: %#x",
						 name ? name : "?", nr, is_64 ? "64" : "32",
						 (unsigned long long)data.args[0],
						 (unsigned long long)data.args[2], got);
				checked++;
			}
		}
	assert_true(checked > 1000000);
}

static void test_foreign_architectures(void **context)
{
	struct seccomp_data arm = {.nr = 0, .arch = AUDIT_ARCH_AARCH64};
	struct seccomp_data x32 = {.nr = 0x40000000 | SYS_getpid, .arch = AUDIT_ARCH_X86_64};

	for (int p = 0; p < SECCOMP_PROFILES; p++) {
		assert_int_equal(interpret((enum seccomp_profile)p, &arm),
				 SECCOMP_RET_KILL_PROCESS);
		assert_int_equal(interpret((enum seccomp_profile)p, &x32),
				 SECCOMP_RET_ERRNO | ENOSYS);
	}
}

/*
 * What Docker's default refuses a container with default capabilities: all of x86 that
 * moby/profiles' default.json (2025) does not name without a condition that fails, with AF_ALG of
 * moby/moby#52494. Kept apart from our table on purpose.
 */
static const char docker_refuses[] =
	"acct bpf clock_settime clock_settime64 clone3 create_module delete_module fanotify_init "
	"finit_module fsconfig fsmount fsopen fspick get_kernel_syms get_mempolicy init_module "
	"ioperm "
	"iopl io_uring_enter io_uring_register io_uring_setup kcmp kexec_file_load kexec_load "
	"lookup_dcookie lsm_get_self_attr lsm_list_modules lsm_set_self_attr mbind migrate_pages "
	"mount "
	"mount_setattr move_mount move_pages nfsservctl nice open_by_handle_at open_tree "
	"open_tree_attr perf_event_open pidfd_getfd pivot_root process_madvise query_module "
	"quotactl "
	"quotactl_fd reboot setdomainname sethostname set_mempolicy set_mempolicy_home_node setns "
	"settimeofday stime swapoff swapon _sysctl sysfs syslog umount umount2 unshare uselib "
	"userfaultfd ustat vhangup vm86 vm86old afs_syscall getpmsg putpmsg security tuxcall "
	"vserver "
	"bdflush oldfstat oldlstat oldolduname oldstat olduname sgetmask ssetmask";

/* Podman refuses these in addition; keyrings are Docker's choice until 2025. */
static const char podman_refuses[] = "vmsplice add_key request_key";

static void assert_refused(enum seccomp_profile profile, const char *list)
{
	autofree char *words = strdup(list);
	size_t n = 0;

	for (char *rest = words, *name; (name = strsep(&rest, " ")); n++) {
		for (int is_64 = 0; is_64 < 2; is_64++) {
			struct seccomp_data data = {
				.arch = is_64 ? AUDIT_ARCH_X86_64 : AUDIT_ARCH_I386,
			};
			autofree char *known = NULL;

			for (data.nr = 0; data.nr < 600; data.nr++) {
				free(steal_ptr(&known));
				known = seccomp_syscall_resolve_num_arch(
					is_64 ? SCMP_ARCH_X86_64 : SCMP_ARCH_X86, data.nr);
				if (str_eq(known ? known : new_name(data.nr, is_64), name))
					break;
			}
			if (data.nr < 600 && interpret(profile, &data) == SECCOMP_RET_ALLOW)
				fail_msg("%s is allowed", name);
		}
	}
	assert_true(n > 0);
}

static void test_as_tight_as_docker_and_podman(void **context)
{
	assert_refused(SECCOMP_APPLICATION, docker_refuses);
	assert_refused(SECCOMP_APPLICATION, podman_refuses);
	/* What no container gets. */
	assert_refused(SECCOMP_SYSTEM,
		       "acct bpf delete_module finit_module init_module ioperm iopl io_uring_setup "
		       "kexec_file_load kexec_load open_by_handle_at perf_event_open request_key "
		       "settimeofday clock_settime swapon swapoff syslog userfaultfd");
}

static void test_clone_makes_no_namespace(void **context)
{
	static const uint64_t flags[] = {
		CLONE_NEWNS,   CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC,
		CLONE_NEWUSER, CLONE_NEWPID,    CLONE_NEWNET,
	};
	struct seccomp_data data = {.nr = SYS_clone, .arch = AUDIT_ARCH_X86_64};

	/* A thread, as glibc makes it. */
	data.args[0] = 0x3d0f00;
	assert_int_equal(interpret(SECCOMP_APPLICATION, &data), SECCOMP_RET_ALLOW);
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		data.args[0] = 0x3d0f00 | flags[i];
		assert_int_equal(interpret(SECCOMP_APPLICATION, &data), SECCOMP_RET_ERRNO | EPERM);
		assert_int_equal(interpret(SECCOMP_SYSTEM, &data), SECCOMP_RET_ALLOW);
	}
}

/* errno of the call, 0 when it succeeded. */
static int try(long result)
{
	return result < 0 ? errno : 0;
}

static int int80(int nr, long a, long b, long c)
{
	long result;

	__asm__ volatile("int $0x80"
			 : "=a"(result)
			 : "a"(nr), "b"(a), "c"(b), "d"(c)
			 : "memory", "r8", "r9", "r10", "r11");
	return result < 0 ? (int)-result : 0;
}

/* A kernel without 32-bit programs kills the child that tries. */
static bool have_ia32(void)
{
	pid_t pid = fork();
	int status = 0;

	if (pid == 0)
		_exit(int80(20 /* getpid */, 0, 0, 0) == 0 ? 0 : 1);
	return waitpid(pid, &status, 0) == pid && status == 0;
}

static bool ia32;

/* Runs `body` in a child under the filter; it returns 0, or the line of what went wrong. */
static void under_filter(enum seccomp_profile profile, int body(void))
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		struct error err = {0};

		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
		    seccomp_install(profile, &err) < 0)
			_exit(255);
		_exit(body());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status))
		fail_msg("check %d of the child failed", WEXITSTATUS(status));
}

/* The number of the first check that does not hold. */
#define CHECK(number, condition)                                                                   \
	do {                                                                                       \
		if (!(condition))                                                                  \
			return (number);                                                           \
	} while (0)

static int common_checks(void)
{
	char name[] = "/proc/self/status";
	int fd = open(name, O_RDONLY);

	CHECK(1, fd >= 0 && close(fd) == 0);
	CHECK(2, syscall(SYS_getppid) > 0);
	/* Without the filter: EFAULT, or EPERM for another reason, never these. */
	CHECK(3, try(syscall(SYS_bpf, -1, 0, 0)) == EPERM);
	CHECK(4, try(syscall(SYS_kexec_load, 0, 0, 0, 0)) == EPERM);
	CHECK(5, try(syscall(SYS_open_by_handle_at, -1, 0, 0)) == EPERM);
	CHECK(6, try(syscall(SYS_userfaultfd, -1)) == EPERM);
	CHECK(7, try(syscall(SYS_syslog, 10, 0, 0)) == EPERM);
	CHECK(8, try(syscall(SYS_io_uring_setup, 1, 0)) == ENOSYS);
	CHECK(9, try(syscall(599, 0)) == ENOSYS);
	CHECK(10, try(syscall(0x40000000 | SYS_getpid)) == ENOSYS);
	CHECK(11, try(socket(AF_VSOCK, SOCK_STREAM, 0)) == EAFNOSUPPORT);
	CHECK(12, try(syscall(SYS_socket, 38, SOCK_SEQPACKET, 0)) == EAFNOSUPPORT);
	CHECK(13, try(syscall(SYS_socket, 0x100000026, SOCK_SEQPACKET, 0)) == EAFNOSUPPORT);
	CHECK(14, try(socket(AF_NETLINK, SOCK_RAW, 9)) == EAFNOSUPPORT);
	CHECK(15, try(socket(AF_NETLINK, SOCK_RAW, 0)) == 0);
	CHECK(16, try(socket(AF_UNIX, SOCK_STREAM, 0)) == 0);
	CHECK(17, personality(0xffffffff) >= 0);
	CHECK(18, try(personality(ADDR_NO_RANDOMIZE)) == EPERM);
	CHECK(19, personality(PER_LINUX32) >= 0);
	/* 32-bit entry: mount is 21, kexec_load 283, getppid 64. */
	CHECK(20, !ia32 || int80(283, 0, 0, 0) == EPERM);
	return 0;
}

static int application_checks(void)
{
	int rc = common_checks();
	pid_t pid;

	CHECK(rc, rc == 0);
	CHECK(30, try(mount("none", "/nonexistent", "tmpfs", 0, NULL)) == EPERM);
	CHECK(31, try(unshare(CLONE_NEWUSER)) == EPERM);
	CHECK(32, try(syscall(SYS_clone3, 0, 0)) == ENOSYS);
	CHECK(33, try(syscall(SYS_clone, CLONE_NEWNET | SIGCHLD, 0, 0, 0, 0)) == EPERM);
	CHECK(34, try(syscall(SYS_clone, 0x100000000 | CLONE_NEWNS, 0, 0, 0, 0)) == EPERM);
	CHECK(35, try(syscall(SYS_keyctl, 0, 0)) == ENOSYS);
	CHECK(36, try(syscall(SYS_setns, -1, 0)) == EPERM);
	CHECK(37, try(syscall(SYS_fsopen, "nonexistent", 0)) == EPERM);
	CHECK(38, !ia32 || int80(21, 0, 0, 0) == EPERM);
	/* Threads and processes: glibc takes clone() after clone3(). */
	pid = fork();
	if (pid == 0)
		_exit(7);
	CHECK(40, pid > 0 && waitpid(pid, &rc, 0) == pid && WEXITSTATUS(rc) == 7);
	return 0;
}

static int system_checks(void)
{
	int rc = common_checks();

	CHECK(rc, rc == 0);
	/* Through to the kernel, which finds other faults. */
	CHECK(50, try(mount("none", "/nonexistent", "tmpfs", 0, NULL)) == ENOENT);
	CHECK(51, try(syscall(SYS_clone3, 0, 0)) == EINVAL);
	CHECK(52, try(syscall(SYS_setns, -1, 0)) == EBADF);
	CHECK(53, try(syscall(SYS_umount2, "/nonexistent", 0)) == ENOENT);
	CHECK(54, try(syscall(SYS_reboot, 0, 0, 0, 0)) == EINVAL);
	CHECK(55, try(unshare(CLONE_NEWUTS)) == 0);
	CHECK(56, try(sethostname("guest", 5)) == 0);
	CHECK(57, try(syscall(SYS_keyctl, 0xffff, 0)) != ENOSYS);
	CHECK(58, !ia32 || int80(21, 0, 0, 0) != EPERM);
	return 0;
}

static void test_kernel_enforces_application(void **context)
{
	under_filter(SECCOMP_APPLICATION, application_checks);
}

static void test_kernel_enforces_system(void **context)
{
	if (geteuid() != 0)
		skip();
	under_filter(SECCOMP_SYSTEM, system_checks);
}

static void test_needs_no_new_privs_or_capability(void **context)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		struct error err = {0};

		if (geteuid() == 0 && (setgid(65534) < 0 || setuid(65534) < 0))
			_exit(2);
		_exit(seccomp_install(SECCOMP_APPLICATION, &err) == -EACCES && err.message[0] ? 0
											      : 1);
	}
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_filters_say_what_the_table_says),
		cmocka_unit_test(test_foreign_architectures),
		cmocka_unit_test(test_as_tight_as_docker_and_podman),
		cmocka_unit_test(test_clone_makes_no_namespace),
		cmocka_unit_test(test_kernel_enforces_application),
		cmocka_unit_test(test_kernel_enforces_system),
		cmocka_unit_test(test_needs_no_new_privs_or_capability),
	};

	ia32 = have_ia32();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
