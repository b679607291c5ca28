/*
 * Finds the control group hierarchies; see host.h. The usual places are asked with statfs(2), which
 * costs a microsecond each. /proc/self/mountinfo, which takes milliseconds on a host with thousands
 * of mounts, is read only where the usual places hold nothing.
 */
#include "base/host.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/vfs.h>

#define USUAL_ROOT "/sys/fs/cgroup"

/* All that v1 ever had (include/linux/cgroup_subsys.h), but for debug. */
static const char *const v1_names[] = {
	"cpu",     "cpuacct",  "cpuset",  "memory",     "devices", "freezer", "blkio",
	"net_cls", "net_prio", "hugetlb", "perf_event", "pids",    "rdma",    "misc",
};

static struct {
	bool done;
	struct host_cgroups groups;
	struct host_cgroup_v1 v1[ARRAY_SIZE(v1_names)];
	char *v2_own;
} found;

static unsigned long magic_of(const char *path)
{
	struct statfs st;

	return statfs(path, &st) == 0 ? (unsigned long)st.f_type : 0;
}

static void add_v1(const char *controller, const char *path)
{
	struct host_cgroups *g = &found.groups;
	char *copy;

	for (size_t i = 0; i < g->n_v1; i++)
		if (str_eq(found.v1[i].controller, controller))
			return; /* mounted a second time */
	copy = strdup(path);
	if (copy)
		found.v1[g->n_v1++] = (struct host_cgroup_v1){controller, copy};
}

static void set_v2(const char *path)
{
	if (!found.groups.v2_path)
		found.groups.v2_path = strdup(path);
}

static void look_in_usual_places(void)
{
	unsigned long magic = magic_of(USUAL_ROOT);
	char path[sizeof(USUAL_ROOT) + 32];

	if (magic == CGROUP2_SUPER_MAGIC)
		set_v2(USUAL_ROOT);
	if (magic != TMPFS_MAGIC)
		return;
	/* Controllers mounted together have a symbolic link each: cpu -> cpu,cpuacct. */
	for (size_t i = 0; i < ARRAY_SIZE(v1_names); i++) {
		snprintf(path, sizeof(path), USUAL_ROOT "/%s", v1_names[i]);
		if (magic_of(path) == CGROUP_SUPER_MAGIC)
			add_v1(v1_names[i], path);
	}
	if (magic_of(USUAL_ROOT "/unified") == CGROUP2_SUPER_MAGIC)
		set_v2(USUAL_ROOT "/unified");
}

/* mountinfo writes space, tab, newline and backslash as \ooo; see proc(5). */
static void unescape(char *s)
{
	char *out = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
			*out++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 3;
		} else {
			*out++ = *s;
		}
	}
	*out = '\0';
}

static bool has_option(const char *options, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = options; (p = strstr(p, name)); p += len)
		if ((p == options || p[-1] == ',') && (p[len] == ',' || !p[len]))
			return true;
	return false;
}

/* "36 35 98:0 /root /mount rw,noatime master:1 - cgroup name rw,memory" */
static void take_mount(char *line)
{
	char *fields[5], *tail = strstr(line, " - "), *type, *options;

	if (!tail)
		return;
	*tail = '\0';
	tail += 3;
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		fields[i] = strsep(&line, " ");
		if (!fields[i])
			return;
	}
	type = strsep(&tail, " ");
	strsep(&tail, " ");
	options = strsep(&tail, " ");
	unescape(fields[4]);
	if (str_eq(type, "cgroup2")) {
		set_v2(fields[4]);
	} else if (str_eq(type, "cgroup") && options) {
		for (size_t i = 0; i < ARRAY_SIZE(v1_names); i++)
			if (has_option(options, v1_names[i]))
				add_v1(v1_names[i], fields[4]);
	}
}

static void look_in_mountinfo(void)
{
	autofree char *text = NULL;

	if (file_read_at(AT_FDCWD, "/proc/self/mountinfo", 64 << 20, &text, NULL, NULL) < 0)
		return;
	for (char *rest = text, *line; (line = strsep(&rest, "\n"));)
		take_mount(line);
}

/* " cpu memory " of "cpu memory\n": each name between spaces. */
static char *read_controllers(const char *v2_path)
{
	autofree char *path = v2_path ? str_printf("%s/cgroup.controllers", v2_path) : NULL;
	autofree char *text = NULL;

	if (!path || file_read_at(AT_FDCWD, path, 4096, &text, NULL, NULL) < 0)
		return strdup("");
	return *str_chomp(text) ? str_printf(" %s ", text) : strdup("");
}

const struct host_cgroups *host_cgroups(void)
{
	struct host_cgroups *g = &found.groups;

	if (found.done)
		return g;
	found.done = true;
	g->v1 = found.v1;
	look_in_usual_places();
	if (!g->v2_path && g->n_v1 == 0)
		look_in_mountinfo();
	g->v2_controllers = read_controllers(g->v2_path);
	if (g->n_v1)
		g->layout = g->v2_path ? HOST_CGROUP_HYBRID : HOST_CGROUP_V1;
	else
		g->layout = g->v2_path ? HOST_CGROUP_V2 : HOST_CGROUP_NONE;
	return g;
}

const char *host_cgroup_v2_path(void)
{
	static const char *const usual[] = {USUAL_ROOT, USUAL_ROOT "/unified"};

	for (size_t i = 0; !found.done && i < ARRAY_SIZE(usual); i++)
		if (magic_of(usual[i]) == CGROUP2_SUPER_MAGIC)
			return usual[i];
	return host_cgroups()->v2_path;
}

const char *host_cgroup_v1_path(const char *controller)
{
	const struct host_cgroups *g = host_cgroups();

	for (size_t i = 0; i < g->n_v1; i++)
		if (str_eq(g->v1[i].controller, controller))
			return g->v1[i].path;
	return NULL;
}

bool host_cgroup_v2_has(const char *controller)
{
	const char *all = host_cgroups()->v2_controllers;
	size_t len = strlen(controller);

	for (const char *p = all; p && *controller && (p = strstr(p, controller)); p += len)
		if (p[-1] == ' ' && p[len] == ' ')
			return true;
	return false;
}

const char *host_cgroup_v2_own(void)
{
	const struct host_cgroups *g = host_cgroups();
	autofree char *text = NULL;

	if (found.v2_own || !g->v2_path ||
	    file_read_at(AT_FDCWD, "/proc/self/cgroup", 1 << 16, &text, NULL, NULL) < 0)
		return found.v2_own;
	for (char *rest = text, *line; (line = strsep(&rest, "\n"));)
		if (str_starts_with(line, "0::/"))
			found.v2_own =
				str_printf("%s%s", g->v2_path, line[4] ? line + strlen("0::") : "");
	return found.v2_own;
}
