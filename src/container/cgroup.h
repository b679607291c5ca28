/*
 * A container's control group on cgroup v2, v1 and the hybrid of both, behind one interface. The
 * guest itself always sees cgroup v2, whose tree exists (without controllers) on every host; limits
 * are set from outside, in whatever hierarchy holds the controller. See cgroups(7),
 * Documentation/admin-guide/cgroup-{v1,v2}.
 */
#pragma once

#include "base/error.h"
#include "container/spec.h"

#include <sys/types.h>

struct cgroup;

/*
 * Makes <hierarchy>/lodge/NAME: in v2 always, in a v1 controller's hierarchy only where `limits`
 * asks for it, since joining one there waits for an RCU grace period (up to 15 ms). The v2 group is
 * delegated to `owner`: it may make groups below, not change its own limits.
 * Errors: ENOTSUP where the host has no controller for a limit.
 */
int cgroup_create(const char *name, const struct container_resources *limits, uid_t owner,
		  struct cgroup **cg, struct error *err);

/* The cgroup of a container that somebody else runs. Groups that don't exist are passed over. */
int cgroup_open(const char *name, struct cgroup **cg, struct error *err);

/* The v2 group, for CLONE_INTO_CGROUP; stays the cgroup's. */
int cgroup_v2_fd(const struct cgroup *cg);

/* Moves a process into the v1 groups, and into the v2 group where `v2_too`. */
int cgroup_attach(struct cgroup *cg, pid_t pid, bool v2_too, struct error *err);

/* Its cgroup.events, which becomes readable in the sense of POLLPRI at a change; the caller's. */
int cgroup_open_events(const struct cgroup *cg, struct error *err);

/* Whether a process is alive in it or below. Unknown counts as yes. */
bool cgroup_is_populated(const struct cgroup *cg);

/* Kills every process in it, and waits until they are gone. */
int cgroup_kill(struct cgroup *cg, struct error *err);

/* Removes the groups (with all below); the processes must be gone. Missing ones are fine. */
int cgroup_remove(struct cgroup *cg, struct error *err);

/* Whether the kernel's out-of-memory killer acted in it. */
bool cgroup_oom_killed(const struct cgroup *cg);

void cgroup_free(struct cgroup *cg);

static inline void cleanup_cgroup(struct cgroup **cg)
{
	cgroup_free(*cg);
}

#define autocgroup __attribute__((cleanup(cleanup_cgroup)))
