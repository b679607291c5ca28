/* See cgroup.h. */
#include "container/cgroup.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/host.h"
#include "base/str.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Our groups stand below one of our own, so that an administrator sees whose they are. */
#define PARENT "lodge"

/* A guest can make groups; no walk over them shall need more than this. */
#define MAX_DEPTH 64

/* Linux' default scheduling period; a quota is for one. */
#define CPU_PERIOD_US 100000

enum { LIMIT_MEMORY, LIMIT_CPU, LIMIT_PIDS, N_LIMITS };

static const struct {
	const char *controller, *v2_file, *v1_file;
} limits_table[N_LIMITS] = {
	[LIMIT_MEMORY] = {"memory", "memory.max", "memory.limit_in_bytes"},
	[LIMIT_CPU] = {"cpu", "cpu.max", "cpu.cfs_quota_us"},
	[LIMIT_PIDS] = {"pids", "pids.max", "pids.max"},
};

/* One directory PARENT/name of one hierarchy. */
struct group {
	int hierarchy_fd; /* its root, O_PATH; -EBADF: not used */
	int fd;
};

struct cgroup {
	char *path; /* PARENT/name */
	struct group v2;
	struct group v1[N_LIMITS];
};

static struct cgroup *cgroup_new(const char *name)
{
	struct cgroup *cg = calloc(1, sizeof(*cg));

	if (!cg)
		return NULL;
	cg->v2 = (struct group){-EBADF, -EBADF};
	for (size_t i = 0; i < N_LIMITS; i++)
		cg->v1[i] = (struct group){-EBADF, -EBADF};
	cg->path = str_printf(PARENT "/%s", name);
	if (!cg->path) {
		free(cg);
		return NULL;
	}
	return cg;
}

void cgroup_free(struct cgroup *cg)
{
	if (!cg)
		return;
	fd_close(&cg->v2.fd);
	fd_close(&cg->v2.hierarchy_fd);
	for (size_t i = 0; i < N_LIMITS; i++) {
		fd_close(&cg->v1[i].fd);
		fd_close(&cg->v1[i].hierarchy_fd);
	}
	free(cg->path);
	free(cg);
}

/* The root of the v2 hierarchy. A host that mounts only v1 has it all the same: mounted here, and
 * seen by nobody else. */
static int open_v2(struct error *err)
{
	const char *path = host_cgroup_v2_path();
	autofd int context = -EBADF;
	int fd;

	if (path)
		return file_open_at(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0, err);
	context = fsopen("cgroup2", FSOPEN_CLOEXEC);
	if (context < 0 || fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return error_sys(err, errno, "mount cgroup2");
	fd = fsmount(context, FSMOUNT_CLOEXEC, 0);
	return fd >= 0 ? fd : error_sys(err, errno, "mount cgroup2");
}

/* Only directories can be removed in a cgroup file system, the files go with them. */
static int remove_tree(int parent_fd, const char *name, int depth)
{
	autodir DIR *dir = NULL;
	struct dirent *entry;
	int fd;

	if (unlinkat(parent_fd, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
		return 0;
	if (depth > MAX_DEPTH)
		return -ELOOP;
	fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return -ENOMEM;
	}
	while ((entry = readdir(dir)))
		if (entry->d_type == DT_DIR && !str_eq(entry->d_name, ".") &&
		    !str_eq(entry->d_name, ".."))
			remove_tree(fd, entry->d_name, depth + 1);
	return unlinkat(parent_fd, name, AT_REMOVEDIR) == 0 || errno == ENOENT ? 0 : -errno;
}

/* Another command may remove the empty parent between our two steps; then once more. */
static int group_make(struct group *g, const char *path, struct error *err)
{
	for (int tries = 0; tries < 100; tries++) {
		if (mkdirat(g->hierarchy_fd, path, 0755) == 0)
			break;
		if (errno == EEXIST) {
			/* Left by a monitor that was killed; whoever makes it holds the lock. */
			remove_tree(g->hierarchy_fd, path, 0);
			continue;
		}
		if (errno != ENOENT)
			return error_sys(err, errno, "make control group %s", path);
		if (mkdirat(g->hierarchy_fd, PARENT, 0755) < 0 && errno != EEXIST)
			return error_sys(err, errno, "make control group " PARENT);
	}
	g->fd = file_open_at(g->hierarchy_fd, path, O_RDONLY | O_DIRECTORY, 0, err);
	return g->fd < 0 ? g->fd : 0;
}

static void limit_text(int limit, const struct container_resources *r, bool v2, char text[48])
{
	switch (limit) {
	case LIMIT_MEMORY:
		snprintf(text, 48, "%" PRIu64, r->memory_bytes);
		break;
	case LIMIT_CPU:
		if (v2)
			snprintf(text, 48, "%" PRIu64 " %d", r->cpu_millis * CPU_PERIOD_US / 1000,
				 CPU_PERIOD_US);
		else
			snprintf(text, 48, "%" PRIu64, r->cpu_millis * CPU_PERIOD_US / 1000);
		break;
	case LIMIT_PIDS:
		snprintf(text, 48, "%" PRIu64, r->pids);
		break;
	}
}

static bool limit_wanted(int limit, const struct container_resources *r)
{
	const uint64_t values[N_LIMITS] = {
		[LIMIT_MEMORY] = r->memory_bytes,
		[LIMIT_CPU] = r->cpu_millis,
		[LIMIT_PIDS] = r->pids,
	};

	return values[limit] != 0;
}

/* "+memory" in the root's and in our parent's cgroup.subtree_control. */
static int enable_v2(const struct cgroup *cg, const char *controller, struct error *err)
{
	char text[32];
	int rc;

	snprintf(text, sizeof(text), "+%s", controller);
	rc = file_write_at(cg->v2.hierarchy_fd, "cgroup.subtree_control", text, err);
	if (!rc)
		rc = file_write_at(cg->v2.hierarchy_fd, PARENT "/cgroup.subtree_control", text,
				   err);
	return rc;
}

static int limit_set(struct cgroup *cg, int limit, const struct container_resources *r,
		     struct error *err)
{
	const char *controller = limits_table[limit].controller;
	const char *v1_path = host_cgroup_v1_path(controller);
	char text[48];
	int rc;

	if (host_cgroup_v2_has(controller)) {
		limit_text(limit, r, true, text);
		rc = enable_v2(cg, controller, err);
		if (!rc)
			rc = file_write_at(cg->v2.fd, limits_table[limit].v2_file, text, err);
		return rc;
	}
	if (!v1_path) {
		error_set(err, ENOTSUP, "this host has no control group controller for %s",
			  controller);
		error_hint(err, "'lodge host' shows what it has; run without that limit");
		return -ENOTSUP;
	}
	limit_text(limit, r, false, text);
	cg->v1[limit].hierarchy_fd = file_open_at(AT_FDCWD, v1_path, O_PATH | O_DIRECTORY, 0, err);
	if (cg->v1[limit].hierarchy_fd < 0)
		return cg->v1[limit].hierarchy_fd;
	rc = group_make(&cg->v1[limit], cg->path, err);
	if (!rc)
		rc = file_write_at(cg->v1[limit].fd, limits_table[limit].v1_file, text, err);
	return rc;
}

/* Documentation/admin-guide/cgroup-v2.rst, "Delegation". */
static int delegate(const struct cgroup *cg, uid_t owner, struct error *err)
{
	static const char *const files[] = {"", "cgroup.procs", "cgroup.threads",
					    "cgroup.subtree_control"};

	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		if (fchownat(cg->v2.fd, files[i], owner, owner, AT_EMPTY_PATH) < 0)
			return error_sys(err, errno, "delegate control group %s", cg->path);
	if (file_write_at(cg->v2.fd, "cgroup.max.depth", "32", err) < 0)
		return -err->code;
	return file_write_at(cg->v2.fd, "cgroup.max.descendants", "10000", err);
}

int cgroup_create(const char *name, const struct container_resources *limits, uid_t owner,
		  struct cgroup **out, struct error *err)
{
	autocgroup struct cgroup *cg = cgroup_new(name);
	int rc;

	if (!cg)
		return error_oom(err);
	cg->v2.hierarchy_fd = open_v2(err);
	if (cg->v2.hierarchy_fd < 0)
		return cg->v2.hierarchy_fd;
	rc = group_make(&cg->v2, cg->path, err);
	if (!rc)
		rc = delegate(cg, owner, err);
	for (int i = 0; !rc && i < N_LIMITS; i++)
		if (limit_wanted(i, limits))
			rc = limit_set(cg, i, limits, err);
	if (rc < 0) {
		cgroup_remove(cg, NULL);
		return rc;
	}
	*out = steal_ptr(&cg);
	return 0;
}

int cgroup_open(const char *name, struct cgroup **out, struct error *err)
{
	autocgroup struct cgroup *cg = cgroup_new(name);

	if (!cg)
		return error_oom(err);
	cg->v2.hierarchy_fd = open_v2(NULL);
	if (cg->v2.hierarchy_fd >= 0)
		cg->v2.fd =
			openat(cg->v2.hierarchy_fd, cg->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; i < N_LIMITS; i++) {
		const char *path = host_cgroup_v1_path(limits_table[i].controller);
		struct group *g = &cg->v1[i];

		if (!path)
			continue;
		g->hierarchy_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (g->hierarchy_fd >= 0)
			g->fd = openat(g->hierarchy_fd, cg->path,
				       O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (g->fd < 0)
			fd_close(&g->hierarchy_fd);
	}
	*out = steal_ptr(&cg);
	return 0;
}

int cgroup_v2_fd(const struct cgroup *cg)
{
	return cg->v2.fd;
}

int cgroup_attach(struct cgroup *cg, pid_t pid, bool v2_too, struct error *err)
{
	char text[16];
	int rc = 0;

	snprintf(text, sizeof(text), "%d", pid);
	for (int i = 0; !rc && i < N_LIMITS; i++)
		if (cg->v1[i].fd >= 0)
			rc = file_write_at(cg->v1[i].fd, "cgroup.procs", text, err);
	if (rc || !v2_too || cg->v2.fd < 0)
		return rc;
	rc = file_write_at(cg->v2.fd, "cgroup.procs", text, err);
	if (rc == -EBUSY || rc == -EOPNOTSUPP) {
		/* A group that has handed controllers to groups below it takes no processes itself
		 * (cgroup-v2.rst, "No Internal Process Constraint"): systemd does that. A group of
		 * ours beside its own, then. */
		if (mkdirat(cg->v2.fd, "lodge-exec", 0755) < 0 && errno != EEXIST)
			return error_sys(err, errno, "make control group %s/lodge-exec", cg->path);
		rc = file_write_at(cg->v2.fd, "lodge-exec/cgroup.procs", text, err);
	}
	return rc;
}

static void pause_ms(long ms)
{
	nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

int cgroup_open_events(const struct cgroup *cg, struct error *err)
{
	return file_open_at(cg->v2.fd, "cgroup.events", O_RDONLY, 0, err);
}

bool cgroup_is_populated(const struct cgroup *cg)
{
	autofree char *events = NULL;

	return file_read_at(cg->v2.fd, "cgroup.events", 4096, &events, NULL, NULL) < 0 ||
	       !strstr(events, "populated 0");
}

int cgroup_kill(struct cgroup *cg, struct error *err)
{
	int rc;

	if (cg->v2.fd < 0)
		return 0;
	rc = file_write_at(cg->v2.fd, "cgroup.kill", "1", err);
	if (rc < 0)
		return rc;
	for (int ms = 0; ms < 10000; ms += 2) {
		if (!cgroup_is_populated(cg))
			return 0;
		pause_ms(2);
	}
	return error_set(err, ETIMEDOUT, "processes in control group %s don't end", cg->path);
}

static int group_remove(struct group *g, const char *path, struct error *err)
{
	int rc = 0;

	if (g->hierarchy_fd < 0)
		return 0;
	fd_close(&g->fd);
	/* A process that has been reaped may hold its group a moment longer. */
	for (int tries = 0; tries < 1000; tries++) {
		rc = remove_tree(g->hierarchy_fd, path, 0);
		if (rc != -EBUSY)
			break;
		if (tries > 3)
			pause_ms(tries < 20 ? 1 : 10);
	}
	/* The last one out; fails, as it should, while there are others. */
	unlinkat(g->hierarchy_fd, PARENT, AT_REMOVEDIR);
	fd_close(&g->hierarchy_fd);
	return rc < 0 ? error_sys(err, -rc, "remove control group %s", path) : 0;
}

int cgroup_remove(struct cgroup *cg, struct error *err)
{
	int rc = group_remove(&cg->v2, cg->path, err);

	for (int i = 0; i < N_LIMITS; i++) {
		int rc1 = group_remove(&cg->v1[i], cg->path, rc ? NULL : err);

		rc = rc ? rc : rc1;
	}
	return rc;
}

bool cgroup_oom_killed(const struct cgroup *cg)
{
	static const char key[] = "oom_kill ";
	bool v2 = cg->v1[LIMIT_MEMORY].fd < 0;
	autofree char *text = NULL;
	const char *found;

	if (file_read_at(v2 ? cg->v2.fd : cg->v1[LIMIT_MEMORY].fd,
			 v2 ? "memory.events" : "memory.oom_control", 4096, &text, NULL, NULL) < 0)
		return false;
	found = strstr(text, key);
	return found && strtoul(found + strlen(key), NULL, 10) > 0;
}
