/*
 * What this host's kernel and set-up offer. Everything is asked of the kernel at the first question
 * and remembered in the process; probing changes nothing and leaves nothing behind. Not
 * thread-safe at the first question: ask before there are threads.
 *
 * Two parts: the control groups, which a container's start asks for (host_cgroup.c, some ten
 * microseconds), and a table of features (host.c), which `lodge host` prints and which code asks by
 * key where the way to go differs.
 */
#pragma once

#include "base/error.h"

#include <stddef.h>

/* ---- Control groups: cgroups(7) ---- */

enum host_cgroup_layout {
	HOST_CGROUP_NONE,   /* nothing is mounted */
	HOST_CGROUP_V2,     /* "unified": all controllers in one cgroup2 tree */
	HOST_CGROUP_V1,     /* "legacy": a hierarchy a controller, no cgroup2 mount */
	HOST_CGROUP_HYBRID, /* v1 hierarchies, and a cgroup2 tree with few or no controllers */
};

struct host_cgroup_v1 {
	const char *controller; /* "memory", "cpu"... */
	char *path;             /* the mount point; controllers mounted together share one */
};

struct host_cgroups {
	enum host_cgroup_layout layout;
	char *v2_path;        /* mount point of cgroup2, or NULL */
	char *v2_controllers; /* " cpu memory pids ": those of the v2 root; "" without any */
	struct host_cgroup_v1 *v1;
	size_t n_v1;
};

/* Never NULL; the process' own, not to be freed. Out of memory shows as HOST_CGROUP_NONE. */
const struct host_cgroups *host_cgroups(void);

/* The mount point of a v1 controller's hierarchy, or NULL where v1 does not have it. */
const char *host_cgroup_v1_path(const char *controller);

/* Whether cgroup2 has the controller at its root, so that it can be enabled below. */
bool host_cgroup_v2_has(const char *controller);

/* The directory of our own cgroup in cgroup2 (a user's limits must go below it), or NULL where
 * there is no cgroup2 mount. Not to be freed. */
const char *host_cgroup_v2_own(void);
