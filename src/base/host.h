/*
 * What this host's kernel and set-up offer. Everything is asked of the kernel at the first question
 * and remembered in the process; probing changes nothing and leaves nothing behind. Not
 * thread-safe at the first question: ask before there are threads.
 *
 * Two parts: the control groups, which a container's start asks for (host_cgroup.c, under 100
 * microseconds), and a table of features (host.c), which `lodge host` prints and which code asks by
 * key where the way to go differs.
 */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

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

/* The mount point of cgroup2, or NULL: a container's start without limits needs no more, and asks
 * for it without looking for all the rest. */
const char *host_cgroup_v2_path(void);

/* The mount point of a v1 controller's hierarchy, or NULL where v1 does not have it. */
const char *host_cgroup_v1_path(const char *controller);

/* Whether cgroup2 has the controller at its root, so that it can be enabled below. */
bool host_cgroup_v2_has(const char *controller);

/* The directory of our own cgroup in cgroup2 (a user's limits must go below it), or NULL where
 * there is no cgroup2 mount. Not to be freed. */
const char *host_cgroup_v2_own(void);

/* ---- Features ---- */

enum host_feature {
	HOST_KERNEL,    /* number: 1000 * major + minor */
	HOST_CPU,       /* number: processors that we may use */
	HOST_CPU_LEVEL, /* number: 1..4, of x86-64-v1..v4 */
	HOST_MEMORY,    /* number: bytes in all */
	HOST_CAPABILITIES,

	HOST_CGROUP,
	HOST_CGROUP_WRITE,
	HOST_CGROUP_MEMORY,
	HOST_CGROUP_CPU,
	HOST_CGROUP_PIDS,
	HOST_CGROUP_IO,
	HOST_CGROUP_CPUSET,
	HOST_CGROUP_KILL,
	HOST_CLONE_INTO_CGROUP,

	HOST_USER_NAMESPACES,
	HOST_ID_RANGES,
	HOST_TIME_NAMESPACES,
	HOST_PIDFD,
	HOST_SECCOMP,
	HOST_LANDLOCK, /* number: version of the interface */
	HOST_OPENAT2,
	HOST_APPARMOR,
	HOST_SELINUX,

	HOST_MOUNT_API,
	HOST_IDMAPPED_MOUNTS,
	HOST_OVERLAY,
	HOST_OVERLAY_IDMAPPED, /* layers that are idmapped mounts */
	HOST_OVERLAY_FDS,      /* layers given as descriptors */
	HOST_EROFS,
	HOST_EROFS_FILE, /* mounted from a file, without a loop device */
	HOST_LOOP,
	HOST_FUSE,

	HOST_VIRTUALIZATION,
	HOST_KVM,
	HOST_USERFAULTFD,
	HOST_PAGEMAP_SCAN,
	HOST_IO_URING,

	HOST_TUN,
	HOST_VHOST_NET,
	HOST_NFTABLES,

	HOST_FEATURES
};

enum host_verdict {
	HOST_NO,
	HOST_PARTLY, /* there, with a restriction that the text names */
	HOST_YES,
};

struct host_answer {
	enum host_verdict verdict;
	int64_t number; /* see the feature; else 0 */
	char text[160]; /* what was found, or why not */
};

struct host_row {
	const char *key;     /* for programs: "overlay_idmapped" */
	const char *section; /* a heading, the same for neighbours */
	const char *title;
	const char *purpose; /* what Lodge does with it, and what it does without */
	const char *needs; /* what to change on the host where it is missing; NULL: nothing to do */
	void (*probe)(struct host_answer *answer);
};

/* Asks the kernel once, then remembers. Never fails: what can't be found out is HOST_NO, with the
 * reason. */
const struct host_answer *host_ask(enum host_feature feature);

/* Whether the answer is HOST_YES or HOST_PARTLY. */
bool host_has(enum host_feature feature);

/* host_rows[HOST_KERNEL]...: for printing. */
extern const struct host_row host_rows[HOST_FEATURES];
