/*
 * The floor: how fast could a container be at all? Starts one as Lodge does, waits for it, and
 * leaves nothing behind: the same kernel work by the shortest way from one system call to the next,
 * with the image, the writable layer's place and the command given.
 *
 * What it does, and so what stays of a container's cost when the container manager costs nothing:
 *   - all eight namespaces: user (65,536 ids mapped), mount, pid, network with its loopback up,
 *     IPC, UTS, control group, time with clocks that start at zero
 *   - a control group of its own (v2, no limits), into which the init is born
 *   - the root: an overlay (volatile) of a new writable layer over an image, which is an EROFS
 *     file that is mounted for this container, or a directory; both id-mapped
 *   - /dev with its nodes, links, pts, shm and mqueue; /proc and /sys with Lodge's masks and
 *     read-only paths; /sys/fs/cgroup
 *   - a copy of the mount namespace for the container's user namespace, which locks the mounts
 *   - capabilities dropped, no_new_privs, Lodge's own system call filter, execve()
 *   - the wait for the exit, and the removal of the control group and of the writable layer
 * What it does not: find out anything about the host, read a configuration or an image's manifest,
 * keep a record (no database, no log, no lock), pass output on, limit resources, look users up,
 * hand the control group over to the container's root, have an error path, survive anything.
 *
 * Usage: floor IMAGE DIRECTORY COMMAND [ARGUMENT...]. DIRECTORY is where the writable layer is
 * made, so it should be on the disk on which Lodge has its own.
 */
#include "container/seccomp_filters.h"
#include "root.h"

#include <grp.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>

static void mount_dev(int root)
{
	static const struct {
		const char *name;
		unsigned int major, minor;
	} nodes[] = {
		{"null", 1, 3}, {"zero", 1, 5},   {"full", 1, 7},
		{"tty", 5, 0},  {"random", 1, 8}, {"urandom", 1, 9},
	};
	static const char *const links[][2] = {
		{"fd", "/proc/self/fd"},       {"stdin", "/proc/self/fd/0"},
		{"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"},
		{"ptmx", "pts/ptmx"},
	};
	static const char *const dirs[] = {"pts", "shm", "mqueue"};
	char id[16];
	int dev;

	snprintf(id, sizeof(id), "%d", ID_BASE);
	dev = mount_new("tmpfs", SAFE,
			OPTIONS({"source", "dev"}, {"mode", "755"}, {"size", "1m"}, {"uid", id},
				{"gid", id}));
	umask(0);
	for (size_t i = 0; i < N(nodes); i++)
		CHECK(mknodat(dev, nodes[i].name, S_IFCHR | 0666,
			      makedev(nodes[i].major, nodes[i].minor)));
	for (size_t i = 0; i < N(links); i++)
		CHECK(symlinkat(links[i][1], dev, links[i][0]));
	for (size_t i = 0; i < N(dirs); i++)
		CHECK(mkdirat(dev, dirs[i], 0755));
	umask(022);
	attach(dev, root, "dev");
	close(dev);
}

/* The lists are those of Lodge (src/container/rootfs.c). */
static void mount_proc_sys(int root)
{
	static const char *const masked[] = {
		"proc/acpi",        "proc/asound",    "proc/interrupts",
		"proc/kcore",       "proc/keys",      "proc/latency_stats",
		"proc/sched_debug", "proc/scsi",      "proc/timer_list",
		"proc/timer_stats", "sys/dev/block",  "sys/devices/virtual/powercap",
		"sys/firmware",     "sys/fs/selinux",
	};
	static const char *const read_only[] = {
		"proc/bus", "proc/fs", "proc/irq", "proc/sysrq-trigger", "proc/sys",
	};
	struct mount_attr attr = {.attr_set = SAFEST | MOUNT_ATTR_RDONLY};
	struct stat st;
	int fd;

	fd = mount_new("proc", SAFEST, OPTIONS({"source", "proc"}));
	attach(fd, root, "proc");
	close(fd);
	fd = mount_new("sysfs", SAFEST | MOUNT_ATTR_RDONLY, OPTIONS({"source", "sysfs"}));
	attach(fd, root, "sys");
	close(fd);
	for (size_t i = 0; i < N(masked); i++) {
		if (fstatat(root, masked[i], &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (S_ISDIR(st.st_mode))
			fd = mount_new("tmpfs", SAFEST | MOUNT_ATTR_RDONLY,
				       OPTIONS({"source", "masked"}, {"mode", "755"},
					       {"size", "4k"}, {"nr_inodes", "1"}));
		else
			fd = CHECK(clone_mount(root, "dev/null"));
		attach(fd, root, masked[i]);
		close(fd);
	}
	for (size_t i = 0; i < N(read_only); i++) {
		fd = clone_mount(root, read_only[i]);
		if (fd < 0)
			continue;
		CHECK(mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)));
		attach(fd, root, read_only[i]);
		close(fd);
	}
}

/* proc is mounted for the pid namespace of who mounts it, so that is a process in it. */
static void mount_proc_sys_there(int pidfd, int root)
{
	pid_t pid;

	CHECK(setns(pidfd, CLONE_NEWPID));
	pid = CHECK(vfork());
	if (pid == 0) {
		CHECK(setns(pidfd, CLONE_NEWNET));
		mount_proc_sys(root);
		_exit(0);
	}
	CHECK(waitpid(pid, NULL, 0));
}

static void set_clocks(void)
{
	struct timespec boot;
	char text[96];

	/* An offset of the monotonic clock may not make it negative: it is not ahead of this one.
	 */
	CHECK(clock_gettime(CLOCK_MONOTONIC, &boot));
	snprintf(text, sizeof(text), "monotonic -%ld 0\nboottime -%ld 0\n", (long)boot.tv_sec,
		 (long)boot.tv_sec);
	write_file("/proc/self/timens_offsets", text);
}

static void loopback_up(void)
{
	struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	int fd = CHECK(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));

	CHECK(ioctl(fd, SIOCSIFFLAGS, &ifr));
	close(fd);
}

static void mount_own(void)
{
	int fd;

	fd = mount_new("devpts", SAFE,
		       OPTIONS({"source", "devpts"}, {"newinstance", NULL}, {"ptmxmode", "0666"},
			       {"mode", "0620"}, {"gid", "5"}));
	attach(fd, AT_FDCWD, "/dev/pts");
	fd = mount_new("tmpfs", SAFEST, OPTIONS({"source", "shm"}, {"mode", "1777"}));
	attach(fd, AT_FDCWD, "/dev/shm");
	fd = mount_new("mqueue", SAFEST, OPTIONS({"source", "mqueue"}));
	attach(fd, AT_FDCWD, "/dev/mqueue");
	fd = mount_new("cgroup2", SAFEST | MOUNT_ATTR_RDONLY, OPTIONS({"source", "cgroup2"}));
	attach(fd, AT_FDCWD, "/sys/fs/cgroup");
}

/* The set that Lodge leaves to an application (src/container/capabilities.c). */
static void drop_capabilities(void)
{
#define BIT(name) (UINT64_C(1) << CAP_##name)
	static const uint64_t keep = BIT(CHOWN) | BIT(DAC_OVERRIDE) | BIT(FOWNER) | BIT(FSETID) |
				     BIT(KILL) | BIT(NET_BIND_SERVICE) | BIT(SETFCAP) |
				     BIT(SETGID) | BIT(SETPCAP) | BIT(SETUID) | BIT(SYS_CHROOT);
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {
		{.effective = (uint32_t)keep, .permitted = (uint32_t)keep},
	};

	for (int cap = 0; cap < 64; cap++)
		if (!(keep & UINT64_C(1) << cap) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			break; /* past the last one */
	CHECK(syscall(SYS_capset, &header, data));
}

static _Noreturn void init(int go, char **command)
{
	static char *const env[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL};
	struct sock_fprog filter = {
		.len = N(seccomp_filter_application),
		.filter = (struct sock_filter *)seccomp_filter_application,
	};
	char byte;

	/* Until the mounts are made; what needs none of them is done meanwhile. */
	CHECK(unshare(CLONE_NEWTIME));
	set_clocks();
	loopback_up();
	CHECK(sethostname("floor", 5));
	CHECK(setsid());
	if (read(go, &byte, 1) != 1)
		_exit(125);
	CHECK(unshare(CLONE_NEWNS | CLONE_NEWCGROUP));
	CHECK(setgroups(0, NULL));
	CHECK(setresgid(0, 0, 0));
	CHECK(setresuid(0, 0, 0));
	mount_own();
	CHECK(chdir("/"));
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW,
		      &filter));
	drop_capabilities();
	CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0));
	CHECK(close_range(3, ~0U, CLOSE_RANGE_CLOEXEC));
	CHECK(execve(command[0], command, env));
	_exit(127);
}

/* In a mount namespace of its own, in which the init waits; both leave it. */
static void make_root(int image, const char *layer, pid_t pid, int pidfd)
{
	char map[32], path[64];
	int userns, root;

	snprintf(map, sizeof(map), "0 %d 65536", ID_BASE);
	snprintf(path, sizeof(path), "/proc/%d/uid_map", pid);
	write_file(path, map);
	snprintf(path, sizeof(path), "/proc/%d/gid_map", pid);
	write_file(path, map);
	snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
	userns = CHECK(open(path, O_RDONLY | O_CLOEXEC));
	root = mount_root(image, layer, userns);
	attach(root, AT_FDCWD, layer);
	mount_dev(root);
	mount_proc_sys_there(pidfd, root);
	CHECK(fchdir(root));
	CHECK(syscall(SYS_pivot_root, ".", "."));
	CHECK(umount2(".", MNT_DETACH));
	close(root);
	close(userns);
}

int main(int argc, char **argv)
{
	const char *hierarchy = access("/sys/fs/cgroup/cgroup.procs", F_OK) == 0
					? "/sys/fs/cgroup"
					: "/sys/fs/cgroup/unified";
	int image, pidfd, go[2], status, host, cgroups, dir;
	struct clone_args args = {
		.flags = CLONE_PIDFD | CLONE_INTO_CGROUP | CLONE_NEWUSER | CLONE_NEWPID |
			 CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS,
		.exit_signal = SIGCHLD,
		.pidfd = (uint64_t)(uintptr_t)&pidfd,
	};
	char name[32];
	pid_t pid;

	if (argc < 4) {
		fprintf(stderr, "Usage: floor IMAGE DIRECTORY COMMAND [ARGUMENT...]\n");
		return 2;
	}
	snprintf(name, sizeof(name), "floor-%d", getpid());
	cgroups = CHECK(open(hierarchy, O_PATH | O_DIRECTORY | O_CLOEXEC));
	CHECK(mkdirat(cgroups, name, 0755));
	args.cgroup = (uint64_t)CHECK(openat(cgroups, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	image = open_image(argv[1]);
	CHECK(chdir(argv[2]));
	dir = CHECK(open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	CHECK(mkdir(name, 0700));
	CHECK(chdir(name));
	CHECK(mkdir("upper", 0755));
	CHECK(mkdir("work", 0700));
	host = CHECK(open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC));
	CHECK(pipe2(go, O_CLOEXEC));

	CHECK(unshare(CLONE_NEWNS));
	CHECK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	pid = (pid_t)CHECK(syscall(SYS_clone3, &args, sizeof(args)));
	if (pid == 0) {
		close(go[1]);
		init(go[0], argv + 3);
	}
	make_root(image, ".", pid, pidfd);
	CHECK(write(go[1], "g", 1));
	CHECK(setns(host, CLONE_NEWNS));

	CHECK(waitpid(pid, &status, __WALL));
	CHECK(unlinkat(cgroups, name, AT_REMOVEDIR));
	remove_tree(dir, name);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
