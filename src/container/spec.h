/*
 * What a container is made of, in the shape and words of the OCI runtime specification's config.md
 * and config-linux.md, so that an OCI bundle and a Lodge guest go through one core. The guest layer
 * fills it from a guest's configuration; the core reads it and keeps nothing of it.
 */
#pragma once

#include "base/str.h"
#include "container/seccomp.h"

#include <stdint.h>

/* How many ids a container's user namespace has. */
#define CONTAINER_IDS 65536

/* Paging, processor and process limits; 0 means no limit. config-linux.md, "Control groups". */
struct container_resources {
	uint64_t memory_bytes;
	uint64_t cpu_millis; /* thousandths of a processor */
	uint64_t pids;
};

/* A directory or file of the host shown in the container (a "volume"). */
struct container_bind {
	char *source;      /* host path */
	char *destination; /* absolute path in the container */
	bool read_only;
};

struct container_spec {
	/* process */
	struct strv args;
	struct strv env; /* "NAME=value" */
	char *cwd;       /* NULL: the user's home, else "/" */
	char *user;      /* "name", "uid", "name:group"...; NULL: root */
	bool terminal;
	uint64_t capabilities; /* a bit a CAP_...: bounding, permitted, effective, inheritable */
	bool no_new_privileges;
	enum seccomp_profile seccomp;

	/* root: an overlay of `upper_dir` (which has upper/ and work/) over the image's tree */
	char *upper_dir;
	bool root_read_only;
	/* The writable layer is thrown away afterwards: no need to write it to the disk
	 * (overlayfs, "volatile"). */
	bool root_volatile;

	char *hostname;
	bool first_start;  /* the root has never been written: it gets the files that name it */
	char *resolv_conf; /* text of the host's, where the container is on the host's network */
	struct container_bind *binds;
	size_t n_binds;

	/* linux */
	uint32_t id_base;  /* host id of the container's root */
	bool host_network; /* no network namespace of its own */
	bool system;       /* its init manages cgroups and /proc/sys: both writable for it */
	char *cgroup_name; /* its cgroup is <hierarchy>/lodge/NAME */
	struct container_resources resources;
	uint64_t boot_time_ns; /* CLOCK_BOOTTIME at which the container's own clock starts */
};

void container_binds_free(struct container_bind *binds, size_t n);
void container_spec_clear(struct container_spec *spec);
