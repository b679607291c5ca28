/* Probes of system calls, namespaces and security; see host_probe.h. */
#include "base/host_probe.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <linux/landlock.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

static void kernel_version(int *major, int *minor, struct utsname *uts)
{
	*major = *minor = 0;
	if (uname(uts) == 0 && sscanf(uts->release, "%d.%d", major, minor) != 2)
		*major = 0;
}

bool host_kernel_is(int major, int minor)
{
	struct utsname uts;
	int have_major, have_minor;

	kernel_version(&have_major, &have_minor, &uts);
	return have_major > major || (have_major == major && have_minor >= minor);
}

void probe_kernel(struct host_answer *a)
{
	struct utsname uts;
	int major, minor;

	kernel_version(&major, &minor, &uts);
	a->number = major * 1000 + minor;
	if (host_kernel_is(5, 15))
		host_yes(a, "%s", uts.release);
	else
		host_partly(a, "%s, older than 5.15", uts.release);
}

static const char *const capability_names[] = {
	"chown",
	"dac_override",
	"dac_read_search",
	"fowner",
	"fsetid",
	"kill",
	"setgid",
	"setuid",
	"setpcap",
	"linux_immutable",
	"net_bind",
	"net_broadcast",
	"net_admin",
	"net_raw",
	"ipc_lock",
	"ipc_owner",
	"sys_module",
	"sys_rawio",
	"sys_chroot",
	"sys_ptrace",
	"sys_pacct",
	"sys_admin",
	"sys_boot",
	"sys_nice",
	"sys_resource",
	"sys_time",
	"sys_tty_config",
	"mknod",
	"lease",
	"audit_write",
	"audit_control",
	"setfcap",
	"mac_override",
	"mac_admin",
	"syslog",
	"wake_alarm",
	"block_suspend",
	"audit_read",
	"perfmon",
	"bpf",
	"checkpoint_restore",
};

void probe_capabilities(struct host_answer *a)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {0};
	uint64_t have;
	size_t used = 0;

	if (syscall(SYS_capget, &header, data) < 0) {
		host_no(a, "%s", host_why(errno));
		return;
	}
	have = data[0].effective | (uint64_t)data[1].effective << 32;
	if (geteuid() != 0 && have == 0) {
		host_partly(a, "none: user %d", (int)geteuid());
		return;
	}
	host_yes(a, "all of root's");
	for (size_t i = 0; i < ARRAY_SIZE(capability_names); i++) {
		if (have & (uint64_t)1 << i)
			continue;
		if (a->verdict == HOST_YES)
			host_partly(a, "root's, without");
		used = strlen(a->text);
		snprintf(a->text + used, sizeof(a->text) - used, " %s", capability_names[i]);
	}
}

/* A directory that is no cgroup: EBADF says that the kernel looked at it. */
void probe_clone_into_cgroup(struct host_answer *a)
{
	autofd int dir = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct clone_args args = {
		.flags = CLONE_INTO_CGROUP,
		.exit_signal = SIGCHLD,
		.cgroup = (uint64_t)dir,
	};
	long pid = syscall(SYS_clone3, &args, sizeof(args));

	if (pid == 0)
		_exit(0); /* can't be: "/" is no cgroup */
	if (pid < 0 && errno == EBADF)
		host_yes(a, "clone3() with CLONE_INTO_CGROUP");
	else
		host_no(a, "%s", host_why(errno == EINVAL ? ENOSYS : errno));
}

/* Some systems allow the namespace and take its privileges away (AppArmor on Ubuntu 24.04). */
static int use_user_namespace(void)
{
	if (unshare(CLONE_NEWUSER) < 0)
		return errno;
	return unshare(CLONE_NEWNS) < 0 ? 255 : 0;
}

void probe_user_namespaces(struct host_answer *a)
{
	int code = host_in_child(use_user_namespace);

	if (code == 0)
		host_yes(a, "available%s", geteuid() == 0 ? "" : ", also to this user");
	else if (code == 255)
		host_no(a, "made, but without privileges in them");
	else if (code == ENOSPC || code == EUSERS)
		host_no(a, "the limit user.max_user_namespaces is reached");
	else
		host_no(a, "%s", code < 0 ? "unknown" : host_why(code == EINVAL ? ENOSYS : code));
}

/* Sums the counts of "name:first:count" and "uid:first:count" lines: subuid(5). */
static uint64_t count_ids(const char *path, const char *name, unsigned uid)
{
	autofile FILE *f = fopen(path, "re");
	autofree char *line = NULL;
	size_t room = 0;
	uint64_t sum = 0;
	char number[16];

	snprintf(number, sizeof(number), "%u", uid);
	while (f && getline(&line, &room, f) > 0) {
		char *rest = line, *who = strsep(&rest, ":"), *count;

		if (!rest || !strsep(&rest, ":") || !rest)
			continue;
		count = rest;
		if (str_eq(who, name) || str_eq(who, number))
			sum += strtoull(count, NULL, 10);
	}
	return sum;
}

static bool in_path(const char *program)
{
	const char *path = getenv("PATH");
	autofree char *copy = strdup(path ? path : "/usr/bin:/bin");

	for (char *rest = copy, *dir; (dir = strsep(&rest, ":"));) {
		autofree char *full = str_printf("%s/%s", dir, program);

		if (full && access(full, X_OK) == 0)
			return true;
	}
	return false;
}

void probe_id_ranges(struct host_answer *a)
{
	const struct passwd *pw;
	uint64_t uids, gids;

	if (geteuid() == 0) {
		char map[64];

		/* In a user namespace of somebody else's root has only what it was given. */
		host_read_line("/proc/self/uid_map", map, sizeof(map));
		if (strstr(map, "4294967295"))
			host_yes(a, "all");
		else
			host_partly(a, "those of this user namespace:%s", map);
		return;
	}
	pw = getpwuid(geteuid());
	uids = count_ids("/etc/subuid", pw ? pw->pw_name : NULL, geteuid());
	gids = count_ids("/etc/subgid", pw ? pw->pw_name : NULL, geteuid());
	a->number = (int64_t)(uids < gids ? uids : gids);
	if (!in_path("newuidmap") || !in_path("newgidmap"))
		host_no(a, "newuidmap and newgidmap are not installed");
	else if (a->number == 0)
		host_no(a, "none for this user in /etc/subuid and /etc/subgid");
	else
		host_yes(a, "%lld", (long long)a->number);
}

void probe_time_namespaces(struct host_answer *a)
{
	if (access("/proc/self/ns/time", F_OK) < 0)
		host_no(a, "not in this kernel");
	else if (!host_kernel_is(6, 3))
		host_no(a, "this kernel's can't be entered by execve()");
	else
		host_yes(a, "available");
}

void probe_pidfd(struct host_answer *a)
{
	autofd int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);

	if (fd >= 0)
		host_yes(a, "available");
	else
		host_no(a, "%s", host_why(errno));
}

void probe_seccomp(struct host_answer *a)
{
	uint32_t action = SECCOMP_RET_KILL_PROCESS;

	if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0)
		host_yes(a, "available");
	else
		host_no(a, "%s", host_why(errno == EINVAL ? ENOSYS : errno));
}

void probe_landlock(struct host_answer *a)
{
	long version =
		syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	a->number = version > 0 ? version : 0;
	if (version > 0)
		host_yes(a, "interface version %ld", version);
	else if (errno == EOPNOTSUPP)
		host_no(a, "in the kernel, but not switched on");
	else
		host_no(a, "%s", host_why(errno));
}

void probe_openat2(struct host_answer *a)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};
	autofd int fd = (int)syscall(SYS_openat2, AT_FDCWD, "/", &how, sizeof(how));

	if (fd >= 0)
		host_yes(a, "openat2()");
	else
		host_no(a, "%s", host_why(errno));
}

void probe_apparmor(struct host_answer *a)
{
	char line[256];

	if (*host_read_line("/sys/module/apparmor/parameters/enabled", line, sizeof(line)) != 'Y') {
		host_no(a, "not active");
		return;
	}
	host_read_line("/proc/self/attr/apparmor/current", line, sizeof(line));
	host_yes(a, "active; Lodge itself is %.100s", *line ? line : "unconfined");
}

void probe_selinux(struct host_answer *a)
{
	char line[16];

	if (*host_read_line("/sys/fs/selinux/enforce", line, sizeof(line)) == '1')
		host_yes(a, "enforcing");
	else if (*line == '0')
		host_partly(a, "permissive");
	else
		host_no(a, "not active");
}

void probe_userfaultfd(struct host_answer *a)
{
	autofd int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	autofd int device = -EBADF;
	int code = errno;

	if (fd >= 0) {
		host_yes(a, "available");
		return;
	}
	device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (device >= 0) {
		host_yes(a, "by /dev/userfaultfd");
		return;
	}
	fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	if (fd >= 0)
		host_partly(a, "for faults in user mode only");
	else
		host_no(a, "%s", host_why(code));
}

/* include/uapi/linux/fs.h of Linux 6.7; Debian 12's headers are older. */
struct pm_scan_argument {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted,
		category_mask, category_anyof_mask, return_mask;
};
#define PM_SCAN _IOWR('f', 16, struct pm_scan_argument)

void probe_pagemap_scan(struct host_answer *a)
{
	autofd int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *memory = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct pm_scan_argument arg = {
		.size = sizeof(arg),
		.start = (uintptr_t)memory,
		.end = (uintptr_t)memory + page,
		.category_anyof_mask = 1 << 3, /* PAGE_IS_PRESENT */
		.return_mask = 1 << 3,
	};
	struct {
		uint64_t start, end, categories;
	} region;

	if (memory == MAP_FAILED)
		return;
	arg.vec = (uintptr_t)&region;
	arg.vec_len = 1;
	if (fd >= 0 && ioctl(fd, PM_SCAN, &arg) >= 0)
		host_yes(a, "PAGEMAP_SCAN");
	else
		host_no(a, "%s", host_why(errno));
	munmap(memory, page);
}

void probe_io_uring(struct host_answer *a)
{
	struct io_uring_params params = {0};
	autofd int fd = (int)syscall(SYS_io_uring_setup, 1, &params);
	char line[8];

	if (fd >= 0)
		host_yes(a, "available");
	else if (*host_read_line("/proc/sys/kernel/io_uring_disabled", line, sizeof(line)) > '0')
		host_no(a, "switched off by kernel.io_uring_disabled=%s", line);
	else
		host_no(a, "%s", host_why(errno));
}
