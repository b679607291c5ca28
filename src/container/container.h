/*
 * The container core: makes an isolated environment from a container_spec, starts its init, joins
 * processes to it, and takes it down. Called by the monitor (start, stop) and by `lodge exec`
 * (join); it never prints, and it keeps nothing on disk.
 *
 * Sources: namespaces(7), user_namespaces(7), mount_setattr(2), cgroups(7), Documentation/
 * filesystems/{overlayfs,idmappings}.rst of Linux, and the OCI runtime specification 1.2.
 */
#pragma once

#include "container/cgroup.h"
#include "container/spec.h"

#include <signal.h>
#include <sys/types.h>

struct container {
	pid_t pid;      /* of its init, in our pid namespace */
	int pidfd;      /* the same; the caller reaps it */
	int console_fd; /* the terminal's master side, non-blocking; -EBADF without a terminal */
	struct cgroup *cgroup;
	int start_sock; /* to the init until it has executed the command */
	/* Its mount namespace, and the one that it was made in: kept, so that not the container's
	 * last process takes down all that is mounted there, while somebody waits for its end, but
	 * container_release(). */
	int mount_ns, stage_ns;
};

#define CONTAINER_NONE                                                                             \
	((struct container){.pidfd = -EBADF,                                                       \
			    .console_fd = -EBADF,                                                  \
			    .start_sock = -EBADF,                                                  \
			    .mount_ns = -EBADF,                                                    \
			    .stage_ns = -EBADF})

/*
 * Makes the container and lets its init go. container_wait_started() then waits until that has
 * executed the command, or tells why it could not; there is a moment for something else in between.
 *
 *   image_tree  a detached mount of the image's root (image_mount()), used up
 *   mount_dir   an empty directory that the core may mount on, in a mount namespace of its own
 *   stdio       three descriptors for the init where there is no terminal; they stay the caller's
 *
 * The caller must be single-threaded, have the capabilities of root, and is the parent of the init,
 * which the kernel kills should the caller die, unless the init opts out of that (prctl(2),
 * PR_SET_PDEATHSIG): whoever finds a caller gone has to kill the control group. When either fails
 * nothing is left, and the container is CONTAINER_NONE. err->exit_status is 127 where the command
 * is missing and 126 where it can't be executed.
 */
int container_start(const struct container_spec *spec, int image_tree, const char *mount_dir,
		    const int stdio[3], struct container *c, struct error *err);
int container_wait_started(struct container *c, struct error *err);

/* After its init has been reaped: removes its cgroup. */
int container_destroy(struct container *c, struct error *err);

/* After that: unmounts its file systems, which takes longer. */
void container_release(struct container *c);

/* What joins a running container. */
struct container_process {
	struct strv args;
	struct strv env;
	const char *cwd;  /* NULL: the user's home, else "/" */
	const char *user; /* NULL: root */
	bool terminal;
	const int *stdio; /* three descriptors, where it has no terminal */
	uint64_t capabilities;
	bool no_new_privileges;
	enum seccomp_profile seccomp;
};

/*
 * Starts a process in all namespaces and limits of the container whose init is `pidfd`. With a new
 * terminal of the container, its master side is *console_fd. The process is our
 * child: *pid_out, *pidfd_out (the caller's). Errors as for container_start().
 */
int container_exec(int init_pidfd, const char *cgroup_name, const struct container_process *process,
		   pid_t *pid_out, int *pidfd_out, int *console_fd, struct error *err);

/* Capability sets by name; see capabilities.c. */
extern const uint64_t container_caps_application;
extern const uint64_t container_caps_system;

/* "NET_ADMIN" by its number; NULL past the last one. */
const char *container_capability_name(unsigned int cap);

/* CAP_NET_ADMIN, NET_ADMIN, net_admin... or ALL. Errors: EINVAL. */
int container_parse_capability(const char *name, uint64_t *mask, struct error *err);
