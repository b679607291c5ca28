/*
 * What this host can do: that answers are whole, agree with what the kernel shows elsewhere, and
 * that asking leaves nothing behind. The cgroup layouts are made up in mount namespaces.
 */
#include "base/host.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void test_every_row_is_whole(void **context)
{
	for (int i = 0; i < HOST_FEATURES; i++) {
		const struct host_row *row = &host_rows[i];

		assert_non_null(row->key);
		assert_non_null(row->section);
		assert_non_null(row->title);
		assert_non_null(row->purpose);
		assert_non_null(row->probe);
		for (int j = 0; j < i; j++)
			assert_string_not_equal(row->key, host_rows[j].key);
		/* Neighbours share a section: no heading twice. */
		for (int j = 0; j + 1 < i; j++)
			if (str_eq(host_rows[j].section, row->section))
				assert_string_equal(host_rows[i - 1].section, row->section);
	}
}

static int count_fds(void)
{
	autodir DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(dir))
		n++;
	return n;
}

static char *mounts(void)
{
	char *text = NULL;

	assert_int_equal(file_read_at(AT_FDCWD, "/proc/self/mountinfo", 1 << 24, &text, NULL, NULL),
			 0);
	return text;
}

static void test_asking_leaves_nothing_behind(void **context)
{
	/* Others mount things meanwhile: only mounts of our own can be compared. */
	bool alone =
		unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
	autofree char *before = mounts();
	autofree char *after = NULL;
	int fds = count_fds();

	for (int i = 0; i < HOST_FEATURES; i++) {
		const struct host_answer *a = host_ask((enum host_feature)i);

		if (!a->text[0] || str_eq(a->text, "unknown"))
			fail_msg("%s: no answer", host_rows[i].key);
		assert_ptr_equal(a, host_ask((enum host_feature)i));
		assert_int_equal(host_has((enum host_feature)i), a->verdict != HOST_NO);
	}
	assert_int_equal(count_fds(), fds);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child */
	after = mounts();
	if (alone)
		assert_string_equal(before, after);
}

static bool on_ext4(const char *path)
{
	struct statfs st;

	return statfs(path, &st) == 0 && st.f_type == EXT4_SUPER_MAGIC;
}

/* Root that may mount. */
static bool really_root(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(geteuid() != 0 || unshare(CLONE_NEWNS) < 0);
	return waitpid(pid, &status, 0) == pid && status == 0;
}

static void test_answers_agree_with_the_kernel(void **context)
{
	struct utsname uts;
	int major, minor;

	uname(&uts);
	assert_int_equal(sscanf(uts.release, "%d.%d", &major, &minor), 2);
	assert_int_equal(host_ask(HOST_KERNEL)->number, major * 1000 + minor);
	assert_string_equal(host_ask(HOST_KERNEL)->text, uts.release);
	assert_int_equal(host_ask(HOST_MEMORY)->number / (64 << 20),
			 sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE) / (64 << 20));
	assert_in_range(host_ask(HOST_CPU)->number, 1, sysconf(_SC_NPROCESSORS_CONF));
	assert_in_range(host_ask(HOST_CPU_LEVEL)->number, 1, 4);
	assert_int_equal(host_has(HOST_TIME_NAMESPACES), access("/proc/self/ns/time", F_OK) == 0);
	assert_int_equal(host_has(HOST_KVM) && access("/dev/kvm", F_OK) < 0, false);
	if (really_root() && on_ext4("/var/lib"))
		assert_true(host_has(HOST_IDMAPPED_MOUNTS));
	/* One without the other can't be. */
	assert_false(host_has(HOST_OVERLAY_IDMAPPED) && !host_has(HOST_IDMAPPED_MOUNTS));
	assert_false(host_has(HOST_EROFS_FILE) && !host_has(HOST_EROFS));
}

static void test_cgroups_are_cgroups(void **context)
{
	const struct host_cgroups *g = host_cgroups();
	autofree char *path = NULL;

	if (g->layout == HOST_CGROUP_NONE)
		skip();
	assert_int_equal(g->v2_path != NULL,
			 g->layout == HOST_CGROUP_V2 || g->layout == HOST_CGROUP_HYBRID);
	assert_int_equal(g->n_v1 > 0,
			 g->layout == HOST_CGROUP_V1 || g->layout == HOST_CGROUP_HYBRID);
	for (size_t i = 0; i < g->n_v1; i++) {
		autofree char *procs = str_printf("%s/cgroup.procs", g->v1[i].path);

		assert_int_equal(access(procs, F_OK), 0);
		assert_string_equal(host_cgroup_v1_path(g->v1[i].controller), g->v1[i].path);
		/* A controller is in one of the two. */
		assert_false(host_cgroup_v2_has(g->v1[i].controller));
	}
	if (access("/sys/fs/cgroup/memory/memory.limit_in_bytes", F_OK) == 0)
		assert_string_equal(host_cgroup_v1_path("memory"), "/sys/fs/cgroup/memory");
	assert_null(host_cgroup_v1_path("nonsense"));
	assert_false(host_cgroup_v2_has("nonsense"));
	assert_false(host_cgroup_v2_has(""));
	if (!g->v2_path)
		skip();
	path = str_printf("%s/cgroup.procs", host_cgroup_v2_own());
	assert_int_equal(access(path, F_OK), 0);
	assert_true(str_starts_with(host_cgroup_v2_own(), g->v2_path));
}

/* ---- layouts, each in a child with its own mounts; 77: can't be made here ---- */

#define CHECK(number, condition)                                                                   \
	do {                                                                                       \
		if (!(condition))                                                                  \
			return (number);                                                           \
	} while (0)

static char scratch[64];

static int no_cgroups(void)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return 77;
	while (umount2("/sys/fs/cgroup", MNT_DETACH) == 0)
		;
	return mount("none", scratch, "tmpfs", 0, NULL) < 0 ? 77 : 0;
}

static int layout_none(void)
{
	int rc = no_cgroups();
	const struct host_cgroups *g;

	CHECK(rc, rc == 0);
	g = host_cgroups();
	CHECK(1, g->layout == HOST_CGROUP_NONE && !g->v2_path && g->n_v1 == 0);
	CHECK(2, !host_cgroup_v2_has("memory") && !host_cgroup_v1_path("memory"));
	CHECK(3, !host_cgroup_v2_own());
	CHECK(4, !host_has(HOST_CGROUP) && !host_has(HOST_CGROUP_MEMORY));
	return 0;
}

/* The place of a host that has nothing but version 2. */
static int layout_v2(void)
{
	int rc = no_cgroups();
	const struct host_cgroups *g;

	CHECK(rc, rc == 0);
	CHECK(77, mount("none", "/sys/fs/cgroup", "cgroup2", 0, NULL) == 0);
	g = host_cgroups();
	CHECK(1, g->layout == HOST_CGROUP_V2 && g->n_v1 == 0);
	CHECK(2, str_eq(g->v2_path, "/sys/fs/cgroup"));
	CHECK(3, str_starts_with(host_cgroup_v2_own(), "/sys/fs/cgroup"));
	CHECK(4, host_has(HOST_CGROUP));
	return 0;
}

/* Mounted where nobody expects it, with a space in the name. */
static int layout_elsewhere(void)
{
	int rc = no_cgroups();
	const struct host_cgroups *g;
	char path[96];

	CHECK(rc, rc == 0);
	snprintf(path, sizeof(path), "%s/my \\groups", scratch);
	CHECK(77, mkdir(path, 0755) == 0 && mount("none", path, "cgroup2", 0, NULL) == 0);
	g = host_cgroups();
	CHECK(1, g->layout == HOST_CGROUP_V2);
	CHECK(2, str_eq(g->v2_path, path));
	return 0;
}

/* Two controllers in one hierarchy, with the links that distributions make. The host may hold them
 * apart already; then it can't be made. */
static int layout_v1_together(void)
{
	int rc = no_cgroups();
	const struct host_cgroups *g;

	CHECK(rc, rc == 0);
	CHECK(77, mount("none", "/sys/fs/cgroup", "tmpfs", 0, NULL) == 0);
	CHECK(77, mkdir("/sys/fs/cgroup/net_cls,net_prio", 0755) == 0);
	if (mount("none", "/sys/fs/cgroup/net_cls,net_prio", "cgroup", 0, "net_cls,net_prio") < 0) {
		/* One controller that the host has by itself will do for the links. */
		CHECK(77,
		      mount("none", "/sys/fs/cgroup/net_cls,net_prio", "cgroup", 0, "pids") == 0);
		CHECK(77, symlink("net_cls,net_prio", "/sys/fs/cgroup/pids") == 0);
		g = host_cgroups();
		CHECK(1, g->layout == HOST_CGROUP_V1 && g->n_v1 == 1);
		CHECK(2, str_eq(host_cgroup_v1_path("pids"), "/sys/fs/cgroup/pids"));
		CHECK(3, !host_cgroup_v1_path("memory"));
		return 0;
	}
	CHECK(77, symlink("net_cls,net_prio", "/sys/fs/cgroup/net_cls") == 0);
	CHECK(77, symlink("net_cls,net_prio", "/sys/fs/cgroup/net_prio") == 0);
	g = host_cgroups();
	CHECK(4, g->layout == HOST_CGROUP_V1 && g->n_v1 == 2);
	return 0;
}

/* Version 1 by the mount table. */
static int layout_v1_elsewhere(void)
{
	int rc = no_cgroups();
	const struct host_cgroups *g;
	char path[96];

	CHECK(rc, rc == 0);
	snprintf(path, sizeof(path), "%s/a", scratch);
	CHECK(77, mkdir(path, 0755) == 0 && mount("none", path, "cgroup", 0, "pids") == 0);
	g = host_cgroups();
	CHECK(1, g->layout == HOST_CGROUP_V1);
	CHECK(2, str_eq(host_cgroup_v1_path("pids"), path));
	CHECK(3, g->n_v1 == 1);
	return 0;
}

static void in_layout(int body(void))
{
	pid_t pid;
	int status;

	if (geteuid() != 0)
		skip();
	snprintf(scratch, sizeof(scratch), "/tmp/lodge-host-XXXXXX");
	assert_non_null(mkdtemp(scratch));
	/* A new process, so that nothing is remembered. */
	pid = fork();
	if (pid == 0)
		_exit(body());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	rmdir(scratch);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	if (status)
		fail_msg("check %d of the child failed (%#x)", WEXITSTATUS(status), status);
}

static void test_layout_none(void **context)
{
	in_layout(layout_none);
}

static void test_layout_v2(void **context)
{
	in_layout(layout_v2);
}

static void test_layout_elsewhere(void **context)
{
	in_layout(layout_elsewhere);
}

static void test_layout_v1_together(void **context)
{
	in_layout(layout_v1_together);
}

static void test_layout_v1_elsewhere(void **context)
{
	in_layout(layout_v1_elsewhere);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		/* First those that need a process which has asked nothing yet. */
		cmocka_unit_test(test_layout_none),
		cmocka_unit_test(test_layout_v2),
		cmocka_unit_test(test_layout_elsewhere),
		cmocka_unit_test(test_layout_v1_together),
		cmocka_unit_test(test_layout_v1_elsewhere),
		cmocka_unit_test(test_every_row_is_whole),
		cmocka_unit_test(test_asking_leaves_nothing_behind),
		cmocka_unit_test(test_answers_agree_with_the_kernel),
		cmocka_unit_test(test_cgroups_are_cgroups),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
