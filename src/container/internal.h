/*
 * Between the files of the container core only. How a container starts:
 *
 *   monitor   the caller of container_start(), in the host's namespaces
 *     |  vfork, memory shared: an error is simply written to the caller's struct
 *   stage     start.c: in a mount namespace of its own that belongs to the host's user namespace.
 *     |       Clones the init, maps its ids, mounts root file system, /dev and volumes, makes
 *     |       that its root, and lets the init go.
 *   init      init.c: a child of the monitor in all the new namespaces. Copies the mount
 *             namespace into its own: because the copy belongs to another user namespace, the
 *             kernel locks every mount and flag in it (mount_namespaces(7)), so that not even the
 *             container's root can take a volume's read-only flag or a mask over /proc away. Then
 *             it mounts what is its own, drops what it may not keep, and calls execve().
 */
#pragma once

#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"
#include "container/container.h"

#include <sched.h>
#include <sys/stat.h>

/* vfork.c: runs fn in a child that shares our memory and descriptors while we wait. The child has
 * its own namespaces, root and working directory. Returns what fn returned, or a negative errno. */
int vfork_call(int (*fn)(void *arg), void *arg, struct error *err);

/*
 * handshake.c: a SOCK_SEQPACKET pair between who starts a process in a container and that process,
 * until it has executed its command: then the kernel closes its side, and that says so. Before, it
 * sends descriptors, or why it failed.
 */
enum handshake_tag {
	HANDSHAKE_PROCESS = 'P',  /* a pidfd, with the pid */
	HANDSHAKE_CONSOLE = 'C',  /* its terminal's master side */
	HANDSHAKE_MOUNT_NS = 'N', /* its mount namespace */
};
struct handshake {
	pid_t pid;
	int pidfd, console_fd, mount_ns; /* the receiver's; -EBADF: has not come */
};
#define HANDSHAKE_INIT                                                                             \
	{                                                                                          \
		.pidfd = -EBADF, .console_fd = -EBADF, .mount_ns = -EBADF                          \
	}

int handshake_new(int *ours, int *theirs, struct error *err);
int handshake_send(int sock, enum handshake_tag tag, int fd, pid_t pid, struct error *err);
void handshake_fail(int sock, const struct error *why);
/* Returns 0 when the other side is closed. Errors: what it sent; ETIMEDOUT. What had come by then is
 * in *h also on failure. */
int handshake_receive(int sock, struct handshake *h, struct error *err);

/* mount.c: thin, error-filling covers of the mount system calls (fsopen(2) and friends). */
struct mount_option {
	const char *key;
	const char *value; /* NULL: a flag */
};

/* A detached mount of a new file system instance; `attributes` are MOUNT_ATTR_... */
int mount_new(const char *type, const struct mount_option *options, size_t n_options,
	      unsigned int attributes, struct error *err);

/* A detached copy of what is mounted at fd (and, if `recursive`, below it). */
int mount_clone(int fd, const char *path, bool recursive, struct error *err);

/* Changes flags, and maps ids where userns_fd >= 0. */
int mount_set(int mount_fd, uint64_t attributes, int userns_fd, bool recursive, struct error *err);

/*
 * Attaches a detached mount at a path inside the tree at root_fd. No symbolic link leads out of the
 * tree, and where the place is one of the runtime's own (/dev, /proc...) none is followed at all:
 * an image could have Lodge cover something else than it thinks (CVE-2023-28642, CVE-2025-31133).
 * What is missing is made, owned by the file-system ids in force.
 */
enum mount_target { MOUNT_ON_OWN, MOUNT_ON_DIRECTORY, MOUNT_ON_FILE };
int mount_attach(int mount_fd, int root_fd, const char *path, enum mount_target target,
		 struct error *err);

/* Opens one of the runtime's own places without following any symbolic link; O_PATH. */
int mount_open_own(int root_fd, const char *path, struct error *err);

/* The same where the target is open already; `path` is for the error. */
int mount_over(int mount_fd, int target_fd, const char *path, struct error *err);

/* rootfs.c: what the stage mounts. All paths are inside the tree at root_fd. */
/* Returns a descriptor of the root; image_tree is used up. */
int rootfs_mount(const struct container_spec *spec, int image_tree, const char *mount_dir,
		 int userns_fd, struct error *err);
int rootfs_mount_dev(const struct container_spec *spec, int root_fd, struct error *err);
int rootfs_mount_binds(const struct container_spec *spec, int root_fd, int userns_fd,
		       struct error *err);
/* /proc and /sys with their masks; called in the container's pid and network namespaces. */
int rootfs_mount_proc_sys(const struct container_spec *spec, int root_fd, struct error *err);

/* init.c: the rest, in the container; returns only on failure. */
int init_run(const struct container_spec *spec, int sock, struct error *err);

/*
 * exec.c: closes all descriptors but 0, 1, 2 and *sock, which gets another number. To be called
 * before anything of the guest's is looked at: by /proc/self/fd/N every open descriptor is a way
 * out for a path that the guest shaped (CVE-2024-21626), and close-on-exec comes too late.
 */
int descriptors_drop(int *sock, struct error *err);

/* exec.c: root of the user namespace that we are in, with its ids mapped. */
int become_root(struct error *err);

/* exec.c: a session keyring of its own. Keys know no namespaces: it would have the host's. */
int keyring_leave(struct error *err);

/* identity.c: /etc/hostname, /etc/hosts, /etc/resolv.conf in our root, as far as it lets us. */
void identity_write(const struct container_spec *spec);

/* What init and a joining process do in the same way, last: become the user, drop everything, and
 * execute. Returns only on failure, with err->exit_status set. */
struct exec_args {
	char *const *args;
	char *const *env;
	const char *cwd;
	const char *user;
	uint64_t capabilities;
	bool no_new_privileges;
	enum seccomp_profile seccomp;
	int parent_sock; /* to who started us, and with whom we die */
};
int process_exec(const struct exec_args *args, struct error *err);

/* terminal.c: opens a new terminal of the devpts at /dev/pts, makes it our stdin, stdout, stderr
 * and controlling terminal, and returns its master side. */
int terminal_open(struct error *err);

/* Makes fds[0..2] our stdin, stdout and stderr. */
int stdio_set(const int fds[3], struct error *err);

/* user.c: looks a user up in /etc/passwd and /etc/group of our root. */
struct user {
	uid_t uid;
	gid_t gid;
	gid_t groups[64];
	size_t n_groups;
	char home[256];
};
int user_find(const char *text, struct user *user, struct error *err);

/* capabilities.c */
int capabilities_bound(uint64_t mask, struct error *err);
int capabilities_set(uint64_t mask, struct error *err);
