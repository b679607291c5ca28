/*
 * The container's init before it is one: runs in the new namespaces, as their root, and never
 * returns to the host. Everything in the root file system is the image's, so nothing here trusts
 * what it finds there. See internal.h for what happened before.
 */
#include "container/internal.h"

#include "base/host.h"

#include <fcntl.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/*
 * Its boot-time and monotonic clocks start when it does (time_namespaces(7)), so that uptime is its
 * own, and goes on from there after a migration. We enter by execve() (Linux 6.3).
 */
static int set_clocks(uint64_t start_ns, struct error *err)
{
	struct timespec monotonic, boot;
	int64_t since;
	char text[160];

	if (clock_gettime(CLOCK_MONOTONIC, &monotonic) < 0 ||
	    clock_gettime(CLOCK_BOOTTIME, &boot) < 0)
		return error_sys(err, errno, "read the clock");
	/* Both clocks read `since` now; -x is split into whole seconds rounded down, and the rest.
	 */
	since = (int64_t)boot.tv_sec * 1000000000 + boot.tv_nsec - (int64_t)start_ns;
	if (since < 0)
		since = 0;
	for (int i = 0; i < 2; i++) {
		struct timespec *t = i ? &boot : &monotonic;
		int64_t offset = since - ((int64_t)t->tv_sec * 1000000000 + t->tv_nsec);

		t->tv_sec = offset / 1000000000;
		t->tv_nsec = offset % 1000000000;
		if (t->tv_nsec < 0) {
			t->tv_sec--;
			t->tv_nsec += 1000000000;
		}
	}
	snprintf(text, sizeof(text), "monotonic %lld %ld\nboottime %lld %ld\n",
		 (long long)monotonic.tv_sec, monotonic.tv_nsec, (long long)boot.tv_sec,
		 boot.tv_nsec);
	return file_write_at(AT_FDCWD, "/proc/self/timens_offsets", text, err);
}

/* What a container mounts for itself: instances that belong to its own namespaces. */
static int mount_own(const struct container_spec *spec, struct error *err)
{
	static const struct mount_option devpts[] = {
		{"source", "devpts"}, {"newinstance", NULL}, {"ptmxmode", "0666"},
		{"mode", "0620"},     {"gid", "5"},
	};
	static const struct mount_option shm[] = {{"source", "shm"}, {"mode", "1777"}};
	static const struct mount_option mqueue[] = {{"source", "mqueue"}};
	static const struct mount_option cgroup[] = {{"source", "cgroup2"}};
	const unsigned int safe = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
	const struct {
		const char *type, *path;
		const struct mount_option *options;
		size_t n;
		unsigned int flags;
	} mounts[] = {
		{"devpts", "/dev/pts", devpts, ARRAY_SIZE(devpts), safe},
		{"tmpfs", "/dev/shm", shm, ARRAY_SIZE(shm), safe | MOUNT_ATTR_NODEV},
		{"mqueue", "/dev/mqueue", mqueue, 1, safe | MOUNT_ATTR_NODEV},
		{"cgroup2", "/sys/fs/cgroup", cgroup, 1,
		 safe | MOUNT_ATTR_NODEV | (spec->system ? 0 : MOUNT_ATTR_RDONLY)},
	};
	autofd int root = file_open_at(AT_FDCWD, "/", O_PATH | O_DIRECTORY, 0, err);

	if (root < 0)
		return root;
	for (size_t i = 0; i < ARRAY_SIZE(mounts); i++) {
		autofd int fd = mount_new(mounts[i].type, mounts[i].options, mounts[i].n,
					  mounts[i].flags, err);
		int rc;

		if (fd < 0)
			return fd;
		rc = mount_attach(fd, root, mounts[i].path, MOUNT_ON_OWN, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int loopback_up(struct error *err)
{
	struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	autofd int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (sock < 0 || ioctl(sock, SIOCSIFFLAGS, &ifr) < 0)
		return error_sys(err, errno, "bring the loopback interface up");
	return 0;
}

/* The terminal, also as /dev/console, and its master side to the monitor. */
static int open_console(int sock, struct error *err)
{
	autofd int master = terminal_open(err);
	autofd int slave = -EBADF;
	autofd int root = -EBADF;
	int rc;

	if (master < 0)
		return master;
	slave = mount_clone(STDIN_FILENO, "", false, err);
	if (slave < 0)
		return slave;
	root = file_open_at(AT_FDCWD, "/", O_PATH | O_DIRECTORY, 0, err);
	if (root < 0)
		return root;
	rc = mount_attach(slave, root, "/dev/console", MOUNT_ON_OWN, err);
	if (rc < 0)
		return rc;
	return handshake_send(sock, HANDSHAKE_CONSOLE, master, 0, err);
}

static int send_mount_ns(int sock, struct error *err)
{
	autofd int ns = file_open_at(AT_FDCWD, "/proc/self/ns/mnt", O_RDONLY, 0, err);

	return ns < 0 ? ns : handshake_send(sock, HANDSHAKE_MOUNT_NS, ns, 0, err);
}

int init_run(const struct container_spec *spec, int sock, struct error *err)
{
	const struct exec_args last = {
		.args = spec->args.v,
		.env = spec->env.v,
		.cwd = spec->cwd,
		.user = spec->user,
		.capabilities = spec->capabilities,
		.no_new_privileges = spec->no_new_privileges,
		.seccomp = spec->seccomp,
		.parent_sock = sock,
	};
	char go;
	int rc;

	/* Cleared when the ids change, and set again before execve(). */
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	/* What needs neither mounts nor ids is done while the stage mounts. */
	rc = keyring_leave(err);
	if (!rc && spec->hostname && sethostname(spec->hostname, strlen(spec->hostname)) < 0)
		rc = error_sys(err, errno, "set the host name '%s'", spec->hostname);
	if (!rc && !spec->host_network)
		rc = loopback_up(err);
	/* Without a time namespace it sees the host's uptime. As long as our user id is the
	 * host's: changing it makes our files in /proc somebody else's (proc(5), "dumpable"). */
	if (!rc && host_has(HOST_TIME_NAMESPACES) && unshare(CLONE_NEWTIME) == 0)
		rc = set_clocks(spec->boot_time_ns, err);
	if (rc < 0)
		return rc;

	if (recv(sock, &go, 1, 0) != 1)
		_exit(1); /* the stage failed and has said why */
	if (unshare(CLONE_NEWNS | CLONE_NEWCGROUP) < 0)
		return error_sys(err, errno, "enter the container's namespaces");
	rc = become_root(err);
	if (!rc)
		rc = mount_own(spec, err);
	if (!rc && spec->first_start && spec->hostname)
		identity_write(spec);
	if (!rc)
		rc = send_mount_ns(sock, err);
	if (rc < 0)
		return rc;
	if (spec->terminal) {
		rc = open_console(sock, err);
	} else if (setsid() < 0) {
		rc = error_sys(err, errno, "start a session");
	}
	return rc < 0 ? rc : process_exec(&last, err);
}
