/*
 * Starts a container: the monitor's and the stage's part (internal.h has the whole story).
 *
 * The init waits on its handshake's socket for one byte, "go".
 */
#include "container/internal.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct stage {
	const struct container_spec *spec;
	int image_tree;
	const char *mount_dir;
	const int *stdio;
	int init_sock;
	struct container *c;
	struct error *err;
	int root_fd;
	pid_t monitor;
};

/* In the init: nothing of ours may run on after an error. */
static _Noreturn void become_init(struct stage *s)
{
	struct error err = {0};
	int sock = s->init_sock, rc = 0;

	if (!s->spec->terminal)
		rc = stdio_set(s->stdio, &err);
	if (!rc)
		rc = descriptors_drop(&sock, &err);
	if (!rc)
		init_run(s->spec, sock, &err);
	handshake_fail(sock, &err);
	_exit(err.exit_status ? err.exit_status : 125);
}

static int clone_init(struct stage *s, struct error *err)
{
	const struct container_spec *spec = s->spec;
	int cgroup_fd = cgroup_v2_fd(s->c->cgroup);
	struct clone_args args = {
		.flags = CLONE_PIDFD | CLONE_PARENT | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWIPC |
			 CLONE_NEWUTS,
		.pidfd = (uint64_t)(uintptr_t)&s->c->pidfd,
	};
	long pid;

	if (!spec->host_network)
		args.flags |= CLONE_NEWNET;
	if (cgroup_fd >= 0) {
		/* Born there, no process has to be moved: moving one stops all forks on the host
		 * for an RCU grace period. */
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)cgroup_fd;
	}
	pid = syscall(SYS_clone3, &args, sizeof(args));
	if (pid == 0)
		become_init(s);
	if (pid < 0) {
		error_sys(err, errno, "create the container's namespaces");
		if (errno == ENOSPC)
			error_hint(err, "raise user.max_user_namespaces or its siblings by sysctl");
		return -err->code;
	}
	s->c->pid = (pid_t)pid;
	return 0;
}

static int map_ids(struct stage *s, struct error *err)
{
	static const char *const files[] = {"uid_map", "gid_map"};
	char map[64], path[64];

	snprintf(map, sizeof(map), "0 %u %u", s->spec->id_base, CONTAINER_IDS);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		int rc;

		snprintf(path, sizeof(path), "/proc/%d/%s", s->c->pid, files[i]);
		rc = file_write_at(AT_FDCWD, path, map, err);
		if (rc < 0)
			return error_wrap(err, "map the container's ids");
	}
	return 0;
}

/* A process in the container's pid and network namespaces, in the stage's mount namespace. */
static int mount_proc_sys(void *data)
{
	struct stage *s = data;

	if (!s->spec->host_network && setns(s->c->pidfd, CLONE_NEWNET) < 0)
		return error_sys(s->err, errno, "join the container's network namespace");
	return rootfs_mount_proc_sys(s->spec, s->root_fd, s->err);
}

/* So that nothing half made stays; also if it was killed before we could ask for that. */
static int die_with_monitor(const struct stage *s, struct error *err)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	return getppid() == s->monitor ? 0 : error_set(err, ECHILD, "the monitor has gone");
}

static int stage_run(void *data)
{
	struct stage *s = data;
	struct error *err = s->err;
	autofd int userns = -EBADF;
	autofd int root = -EBADF;
	char path[64];
	int rc;

	rc = die_with_monitor(s, err);
	if (rc < 0)
		return rc;
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return error_sys(err, errno, "make a mount namespace");
	s->c->stage_ns = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
	rc = clone_init(s, err);
	if (rc < 0)
		return rc;
	rc = map_ids(s, err);
	/* Before it runs anything of the guest's, which the limits must hold for. */
	if (!rc)
		rc = cgroup_attach(s->c->cgroup, s->c->pid, cgroup_v2_fd(s->c->cgroup) < 0, err);
	if (rc < 0)
		return rc;
	snprintf(path, sizeof(path), "/proc/%d/ns/user", s->c->pid);
	userns = file_open_at(AT_FDCWD, path, O_RDONLY, 0, err);
	if (userns < 0)
		return userns;

	root = s->root_fd = rootfs_mount(s->spec, s->image_tree, s->mount_dir, userns, err);
	if (root < 0)
		return root;
	/* Once more: taking on the container's ids has cleared it (prctl(2)). */
	rc = die_with_monitor(s, err);
	if (!rc)
		rc = rootfs_mount_dev(s->spec, root, err);
	if (!rc && setns(s->c->pidfd, CLONE_NEWPID) < 0)
		rc = error_sys(err, errno, "join the container's pid namespace");
	if (!rc)
		rc = vfork_call(mount_proc_sys, s, err);
	if (!rc)
		rc = rootfs_mount_binds(s->spec, root, userns, err);
	/* Only now, that every mount point is there. */
	if (!rc && s->spec->root_read_only)
		rc = mount_set(root, MOUNT_ATTR_RDONLY, -1, false, err);
	if (rc < 0)
		return rc;

	/* The old root is stacked under the new one and taken off (pivot_root(2), "."). The kernel
	 * moves the waiting init's root along: it is in this namespace too. */
	if (fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 ||
	    umount2(".", MNT_DETACH) < 0)
		return error_sys(err, errno, "change to the container's root");
	if (send(s->c->start_sock, "g", 1, MSG_NOSIGNAL) != 1)
		return error_sys(err, errno, "let the container's init go");
	return 0;
}

/* Of a container that could not be started nothing shall stay. */
static void abandon(struct container *c)
{
	if (c->pidfd >= 0) {
		syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0);
		while (waitid(P_PIDFD, (id_t)c->pidfd, NULL, WEXITED | __WALL) < 0 &&
		       errno == EINTR)
			;
	}
	container_destroy(c, NULL);
	container_release(c);
	*c = CONTAINER_NONE;
}

int container_start(const struct container_spec *spec, int image_tree, const char *mount_dir,
		    const int stdio[3], struct container *c, struct error *err)
{
	struct stage s = {
		.spec = spec,
		.image_tree = image_tree,
		.mount_dir = mount_dir,
		.stdio = stdio,
		.c = c,
		.err = err,
		.monitor = getpid(),
	};
	autofd int init_sock = -EBADF;
	int rc;

	*c = CONTAINER_NONE;
	rc = cgroup_create(spec->cgroup_name, &spec->resources, spec->id_base, &c->cgroup, err);
	if (!rc)
		rc = handshake_new(&c->start_sock, &init_sock, err);
	s.init_sock = init_sock;
	if (!rc)
		rc = vfork_call(stage_run, &s, err);
	if (rc < 0)
		abandon(c);
	return rc;
}

int container_wait_started(struct container *c, struct error *err)
{
	struct handshake h = HANDSHAKE_INIT;
	int rc = handshake_receive(c->start_sock, &h, err);

	c->console_fd = h.console_fd;
	c->mount_ns = h.mount_ns;
	fd_close(&c->start_sock);
	if (rc < 0)
		abandon(c);
	return rc;
}

int container_destroy(struct container *c, struct error *err)
{
	int rc = 0;

	fd_close(&c->pidfd);
	fd_close(&c->console_fd);
	fd_close(&c->start_sock);
	if (c->cgroup) {
		rc = cgroup_remove(c->cgroup, err);
		cgroup_free(steal_ptr(&c->cgroup));
	}
	return rc;
}

void container_release(struct container *c)
{
	fd_close(&c->mount_ns);
	fd_close(&c->stage_ns);
}
