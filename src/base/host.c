/*
 * The table of host features, one row each, and the memory of the answers; see host.h. The probes
 * themselves are in host_kernel.c, host_fs.c and host_machine.c, those of control groups here.
 */
#include "base/host.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/host_probe.h"
#include "base/str.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const layout_words[] = {
	[HOST_CGROUP_NONE] = "none mounted",
	[HOST_CGROUP_V2] = "version 2",
	[HOST_CGROUP_V1] = "version 1",
	[HOST_CGROUP_HYBRID] = "version 1, and version 2 beside it (hybrid)",
};

static void probe_cgroup(struct host_answer *a)
{
	const struct host_cgroups *g = host_cgroups();

	if (g->layout == HOST_CGROUP_NONE)
		host_no(a, "none mounted");
	else
		host_yes(a, "%s%s%s", layout_words[g->layout], g->v2_path ? "; version 2 at " : "",
			 g->v2_path ? g->v2_path : "");
}

static void probe_cgroup_write(struct host_answer *a)
{
	const struct host_cgroups *g = host_cgroups();
	const char *own = host_cgroup_v2_own();
	const char *first = own ? own : g->n_v1 ? g->v1[0].path : NULL;

	if (!first)
		host_no(a, "none mounted");
	else if (access(first, W_OK) < 0)
		host_no(a, "%s: %s", first, host_why(errno));
	else
		host_yes(a, "%s", first);
}

static void ask_controller(struct host_answer *a, const char *v2_name, const char *v1_name)
{
	const char *v1_path = host_cgroup_v1_path(v1_name);

	if (host_cgroup_v2_has(v2_name))
		host_yes(a, "controller '%s' of version 2", v2_name);
	else if (v1_path)
		host_yes(a, "version 1, at %s", v1_path);
	else
		host_no(a, "no controller '%s'", v2_name);
}

static void probe_cgroup_memory(struct host_answer *a)
{
	ask_controller(a, "memory", "memory");
}

static void probe_cgroup_cpu(struct host_answer *a)
{
	ask_controller(a, "cpu", "cpu");
}

static void probe_cgroup_pids(struct host_answer *a)
{
	ask_controller(a, "pids", "pids");
}

static void probe_cgroup_io(struct host_answer *a)
{
	ask_controller(a, "io", "blkio");
}

static void probe_cgroup_cpuset(struct host_answer *a)
{
	ask_controller(a, "cpuset", "cpuset");
}

/* The file exists in every cgroup but the root, where we may be: the version tells. */
static void probe_cgroup_kill(struct host_answer *a)
{
	if (!host_cgroups()->v2_path)
		host_no(a, "no version 2 mounted");
	else if (host_kernel_is(5, 14))
		host_yes(a, "since Linux 5.14");
	else
		host_no(a, "older kernel");
}

/* clang-format off */
const struct host_row host_rows[HOST_FEATURES] = {
	[HOST_KERNEL] = {"kernel", "Machine", "Linux",
		"Lodge is made for and tested with 5.15 and later",
		"a newer kernel", probe_kernel},
	[HOST_CPU] = {"cpu", "Machine", "processor", "what guests run on", NULL, probe_cpu},
	[HOST_CPU_LEVEL] = {"cpu_level", "Machine", "instruction set",
		"programs built for a higher level than this do not run", NULL, probe_cpu_level},
	[HOST_MEMORY] = {"memory", "Machine", "memory", "what guests share", NULL, probe_memory},
	[HOST_CAPABILITIES] = {"capabilities", "Machine", "privileges",
		"root's capabilities make limits, networks and mounts possible; without them guests "
		"run as the user's own",
		"run as root, outside of a restricted container", probe_capabilities},

	[HOST_CGROUP] = {"cgroup", "Control groups", "layout",
		"limits, statistics and ending of guests", "mount -t cgroup2 none /sys/fs/cgroup",
		probe_cgroup},
	[HOST_CGROUP_WRITE] = {"cgroup_write", "Control groups", "writable",
		"limits of guests; without it they are refused",
		"root, or a cgroup that systemd delegates to the user (Delegate=yes)",
		probe_cgroup_write},
	[HOST_CGROUP_MEMORY] = {"cgroup_memory", "Control groups", "memory limit",
		"`--memory` of containers", "CONFIG_MEMCG, and no cgroup_disable=memory",
		probe_cgroup_memory},
	[HOST_CGROUP_CPU] = {"cgroup_cpu", "Control groups", "processor limit",
		"`--cpus` of containers", "CONFIG_CFS_BANDWIDTH", probe_cgroup_cpu},
	[HOST_CGROUP_PIDS] = {"cgroup_pids", "Control groups", "process limit",
		"a guest can't use up the host's process table", "CONFIG_CGROUP_PIDS",
		probe_cgroup_pids},
	[HOST_CGROUP_IO] = {"cgroup_io", "Control groups", "disk limit",
		"limits on disk throughput", "CONFIG_BLK_CGROUP", probe_cgroup_io},
	[HOST_CGROUP_CPUSET] = {"cgroup_cpuset", "Control groups", "processor choice",
		"guests bound to certain processors", "CONFIG_CPUSETS", probe_cgroup_cpuset},
	[HOST_CGROUP_KILL] = {"cgroup_kill", "Control groups", "kill at once",
		"a guest with all its processes ends at once; without it they are killed one by one",
		"Linux 5.14 and cgroup version 2", probe_cgroup_kill},
	[HOST_CLONE_INTO_CGROUP] = {"clone_into_cgroup", "Control groups", "start inside",
		"a guest starts within its limits; without it it is moved there first",
		"Linux 5.7", probe_clone_into_cgroup},

	[HOST_USER_NAMESPACES] = {"user_namespaces", "Isolation", "user namespaces",
		"root in a guest is nobody on the host; guests without root",
		"sysctl user.max_user_namespaces above 0, and kernel.unprivileged_userns_clone=1 or "
		"kernel.apparmor_restrict_unprivileged_userns=0 where the system has them",
		probe_user_namespaces},
	[HOST_ID_RANGES] = {"id_ranges", "Isolation", "user ids for guests",
		"guests with more than one user; without them a guest has its root only",
		"entries in /etc/subuid and /etc/subgid, and the package uidmap", probe_id_ranges},
	[HOST_TIME_NAMESPACES] = {"time_namespaces", "Isolation", "time namespaces",
		"a container's own uptime, and clocks that go on after a move", "Linux 6.3, CONFIG_TIME_NS",
		probe_time_namespaces},
	[HOST_PIDFD] = {"pidfd", "Isolation", "process descriptors",
		"signals reach the right process even when ids are used again", "Linux 5.3",
		probe_pidfd},
	[HOST_SECCOMP] = {"seccomp", "Isolation", "system call filters",
		"guests are kept from dangerous system calls", "CONFIG_SECCOMP_FILTER",
		probe_seccomp},
	[HOST_LANDLOCK] = {"landlock", "Isolation", "Landlock",
		"a virtual machine's process can open nothing, also without root",
		"CONFIG_SECURITY_LANDLOCK, and landlock in the kernel option lsm=", probe_landlock},
	[HOST_OPENAT2] = {"openat2", "Isolation", "confined paths",
		"a guest's symbolic links do not lead out of it", "Linux 5.6", probe_openat2},
	[HOST_APPARMOR] = {"apparmor", "Isolation", "AppArmor",
		"one more wall around guests, where the system has a profile for it", NULL,
		probe_apparmor},
	[HOST_SELINUX] = {"selinux", "Isolation", "SELinux",
		"one more wall around guests, where the system has a policy for it", NULL,
		probe_selinux},

	[HOST_MOUNT_API] = {"mount_api", "File systems", "mount descriptors",
		"a guest's tree is made without ever being visible on the host", "Linux 5.12",
		probe_mount_api},
	[HOST_IDMAPPED_MOUNTS] = {"idmapped_mounts", "File systems", "idmapped mounts",
		"one copy of an image serves guests with different user ids",
		"Linux 5.12, a file system that supports it (ext4, XFS, Btrfs), and root",
		probe_idmapped_mounts},
	[HOST_OVERLAY] = {"overlay", "File systems", "overlay",
		"guests share an image and keep their changes apart", "CONFIG_OVERLAY_FS",
		probe_overlay},
	[HOST_OVERLAY_IDMAPPED] = {"overlay_idmapped", "File systems", "idmapped layers",
		"both of the above together; without it each guest's user ids need a copy of the image",
		"Linux 5.19", probe_overlay_idmapped},
	[HOST_OVERLAY_FDS] = {"overlay_fds", "File systems", "layers by descriptor",
		"layers that have no path; without it they are mounted on a private path first",
		"Linux 6.13", probe_overlay_fds},
	[HOST_EROFS] = {"erofs", "File systems", "EROFS",
		"images are mounted; without it they are unpacked",
		"CONFIG_EROFS_FS (modprobe erofs), and root", probe_erofs},
	[HOST_EROFS_FILE] = {"erofs_file", "File systems", "EROFS from a file",
		"images are mounted without a loop device",
		"Linux 6.12 and CONFIG_EROFS_FS_BACKED_BY_FILE, and root", probe_erofs_file},
	[HOST_LOOP] = {"loop", "File systems", "loop devices",
		"images are mounted where EROFS can't read a file by itself",
		"modprobe loop, and root", probe_loop},
	[HOST_FUSE] = {"fuse", "File systems", "FUSE",
		"images are mounted without root", "modprobe fuse", probe_fuse},

	[HOST_VIRTUALIZATION] = {"virtualization", "Virtual machines", "in the processor",
		"the kernel's KVM needs it", "switch on VT-x or AMD-V in the firmware, or nested "
		"virtualization on the host of this machine", probe_virtualization},
	[HOST_KVM] = {"kvm", "Virtual machines", "KVM",
		"virtual machines at the processor's speed; without it they run on Lodge's own engine",
		"modprobe kvm_intel or kvm_amd, and membership in the group kvm", probe_kvm},
	[HOST_USERFAULTFD] = {"userfaultfd", "Virtual machines", "userfaultfd",
		"a machine that is being moved or restored runs before all its memory is there",
		"root, or sysctl vm.unprivileged_userfaultfd=1, or access to /dev/userfaultfd",
		probe_userfaultfd},
	[HOST_PAGEMAP_SCAN] = {"pagemap_scan", "Virtual machines", "quick page scan",
		"finds changed memory fast; without it each page is looked at", "Linux 6.7",
		probe_pagemap_scan},
	[HOST_IO_URING] = {"io_uring", "Virtual machines", "io_uring",
		"disk requests without a thread each; without it threads do them",
		"sysctl kernel.io_uring_disabled=0", probe_io_uring},

	[HOST_TUN] = {"tun", "Network", "TUN and TAP",
		"network cards of guests; without it only guests without a network",
		"modprobe tun, and access to /dev/net/tun", probe_tun},
	[HOST_VHOST_NET] = {"vhost_net", "Network", "vhost-net",
		"faster network cards of virtual machines on KVM", "modprobe vhost_net, and root",
		probe_vhost_net},
	[HOST_NFTABLES] = {"nftables", "Network", "nftables",
		"address translation and published ports; without it the user-mode network does them",
		"CONFIG_NF_TABLES (modprobe nf_tables), and root", probe_nftables},
};
/* clang-format on */

static struct {
	bool done;
	struct host_answer answer;
} answers[HOST_FEATURES];

const struct host_answer *host_ask(enum host_feature feature)
{
	if (!answers[feature].done) {
		int saved = errno;

		host_no(&answers[feature].answer, "unknown");
		host_rows[feature].probe(&answers[feature].answer);
		answers[feature].done = true;
		errno = saved;
	}
	return &answers[feature].answer;
}

bool host_has(enum host_feature feature)
{
	return host_ask(feature)->verdict != HOST_NO;
}

#define FILL(value)                                                                                \
	do {                                                                                       \
		va_list ap;                                                                        \
		va_start(ap, fmt);                                                                 \
		vsnprintf(a->text, sizeof(a->text), fmt, ap);                                      \
		va_end(ap);                                                                        \
		a->verdict = (value);                                                              \
	} while (0)

void host_yes(struct host_answer *a, const char *fmt, ...)
{
	FILL(HOST_YES);
}

void host_partly(struct host_answer *a, const char *fmt, ...)
{
	FILL(HOST_PARTLY);
}

void host_no(struct host_answer *a, const char *fmt, ...)
{
	FILL(HOST_NO);
}

const char *host_why(int code)
{
	switch (code) {
	case ENOSYS:
	case ENODEV:
	case ENOTTY:
	case EAFNOSUPPORT:
	case EPROTONOSUPPORT:
		return "not in this kernel";
	case EPERM:
	case EACCES:
		return "not permitted";
	case ENOENT:
		return "missing";
	default:
		return strerror(code);
	}
}

const char *host_read_line(const char *path, char *buf, size_t size)
{
	autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);

	buf[n > 0 ? n : 0] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return buf;
}

int host_in_child(int fn(void))
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(fn());
	}
	if (pid < 0)
		return -1;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
