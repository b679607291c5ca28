/*
 * Where mount_attach() mounts, and what it makes to do so, in a tree full of symbolic links that
 * lead out of it. Each case runs in a child with a mount namespace of its own: needs root.
 */
#include "container/internal.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* The container's root is `root` in it; what lies beside it is the host's. */
static char dir_path[64];
static int dir_fd = -EBADF, root_fd = -EBADF;

static int setup(void **context)
{
	snprintf(dir_path, sizeof(dir_path), "/tmp/lodge-mount-XXXXXX");
	if (!mkdtemp(dir_path))
		return -1;
	dir_fd = open(dir_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0 || mkdirat(dir_fd, "root", 0755) < 0 || mkdirat(dir_fd, "host", 0755) < 0)
		return -1;
	root_fd = openat(dir_fd, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return root_fd < 0 ? -1 : 0;
}

static int teardown(void **context)
{
	fd_close(&root_fd);
	fd_close(&dir_fd);
	return dir_remove_all(AT_FDCWD, dir_path, NULL);
}

/* Exit statuses of the child. */
enum { ATTACHED, REFUSED, NO_NAMESPACE, BROKEN };

static bool is_mounted(int at, const char *path)
{
	struct statfs fs;
	autofd int fd = openat(at, path, O_PATH | O_CLOEXEC);

	return fd >= 0 && fstatfs(fd, &fs) == 0 && fs.f_type == PROC_SUPER_MAGIC;
}

struct mounting {
	const char *path;
	enum mount_target target;
	/* Where, below dir_path, the mount must be found afterwards; NULL: it must be refused. */
	const char *expected;
	int code;       /* then with this errno; 0: any */
	bool over_proc; /* the container's /proc is mounted already */
};

/* proc serves as what is mounted: it can't be confused with the directory's own file system. */
static int attach(const struct mounting *m)
{
	static const struct mount_option options[] = {{"source", "test"}};
	struct error err = {0};
	autofd int mount_fd = -EBADF;
	int rc;

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return NO_NAMESPACE;
	/* The same directories, in this namespace. */
	dup3(openat(AT_FDCWD, dir_path, O_RDONLY | O_DIRECTORY), dir_fd, O_CLOEXEC);
	dup3(openat(dir_fd, "root", O_RDONLY | O_DIRECTORY), root_fd, O_CLOEXEC);
	mount_fd = mount_new("proc", options, 1, MOUNT_ATTR_NOSUID, &err);
	if (mount_fd < 0)
		return NO_NAMESPACE;
	if (m->target == MOUNT_ON_FILE) {
		/* A file for a file. */
		autofd int context = mount_fd;

		mount_fd = -EBADF;
		if (mkdirat(dir_fd, "proc", 0755) < 0 && errno != EEXIST)
			return BROKEN;
		if (move_mount(context, "", dir_fd, "proc", MOVE_MOUNT_F_EMPTY_PATH) < 0)
			return BROKEN;
		mount_fd = mount_clone(dir_fd, "proc/version", false, &err);
		if (mount_fd < 0)
			return BROKEN;
	}
	if (m->over_proc) {
		autofd int proc = mount_new("proc", options, 1, 0, &err);

		if (mount_attach(proc, root_fd, "/proc", MOUNT_ON_OWN, &err) < 0)
			return BROKEN;
	}
	rc = mount_attach(mount_fd, root_fd, m->path, m->target, &err);
	if (rc < 0) {
		if (!err.message[0] || err.code != -rc)
			return BROKEN;
		if (m->code && rc != -m->code) {
			print_error("%s: %s\n", m->path, err.message);
			return BROKEN;
		}
		return REFUSED;
	}
	if (!m->expected || !is_mounted(dir_fd, m->expected)) {
		print_error("%s: mounted elsewhere\n", m->path);
		return BROKEN;
	}
	return ATTACHED;
}

static void check_mounting(const struct mounting *m)
{
	int status;
	pid_t pid;

	if (geteuid() != 0)
		skip();
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int result = attach(m);

		fflush(NULL);
		_exit(result);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == NO_NAMESPACE)
		skip();
	if (WEXITSTATUS(status) != (m->expected ? ATTACHED : REFUSED))
		fail_msg("mount on %s: outcome %d", m->path, WEXITSTATUS(status));
}

static void check(const char *path, enum mount_target target, const char *expected, int code)
{
	check_mounting(&(struct mounting){path, target, expected, code, false});
}

/* Nothing was made among the host's files. */
static void assert_host_untouched(void)
{
	assert_int_equal(unlinkat(dir_fd, "host", AT_REMOVEDIR), 0);
	assert_int_equal(mkdirat(dir_fd, "host", 0755), 0);
}

static void link_to(const char *target, const char *name)
{
	assert_int_equal(symlinkat(target, root_fd, name), 0);
}

/* A link to host/ by its absolute name, and one by "..", that both leave the root. */
static void make_links_out(void)
{
	char target[96];

	snprintf(target, sizeof(target), "%s/host", dir_path);
	link_to(target, "absolute");
	link_to("../../../../../../../../../../../../tmp", "up");
	link_to("../host", "beside");
}

static void test_existing(void **context)
{
	assert_int_equal(mkdirat(root_fd, "dev", 0755), 0);
	check("/dev", MOUNT_ON_OWN, "root/dev", 0);
	check("/dev", MOUNT_ON_DIRECTORY, "root/dev", 0);
	check("dev", MOUNT_ON_DIRECTORY, "root/dev", 0);
	check("//dev//", MOUNT_ON_DIRECTORY, "root/dev", 0);
}

static void test_missing_are_made(void **context)
{
	struct stat st;

	check("/a/b/c", MOUNT_ON_DIRECTORY, "root/a/b/c", 0);
	assert_int_equal(fstatat(root_fd, "a/b", &st, AT_SYMLINK_NOFOLLOW), 0);
	assert_true(S_ISDIR(st.st_mode));
	check("/proc", MOUNT_ON_OWN, "root/proc", 0);
	check("/etc/conf.d/file", MOUNT_ON_FILE, "root/etc/conf.d/file", 0);
	assert_int_equal(fstatat(root_fd, "etc/conf.d/file", &st, AT_SYMLINK_NOFOLLOW), 0);
	assert_true(S_ISREG(st.st_mode));
}

/* As within a chroot: a volume's place may be behind a link of the image's, but inside. */
static void test_links_inside(void **context)
{
	assert_int_equal(mkdirat(root_fd, "run", 0755), 0);
	assert_int_equal(mkdirat(root_fd, "var", 0755), 0);
	link_to("/run", "var/run");
	check("/var/run", MOUNT_ON_DIRECTORY, "root/run", 0);
	check("/var/run/lock", MOUNT_ON_DIRECTORY, "root/run/lock", 0);
}

static void test_links_out(void **context)
{
	make_links_out();
	/* "/tmp/lodge-mount-X/host" is not there in the container, and not the host's. */
	check("/absolute", MOUNT_ON_DIRECTORY, NULL, 0);
	check("/absolute/x", MOUNT_ON_DIRECTORY, NULL, 0);
	check("/absolute/x", MOUNT_ON_FILE, NULL, 0);
	check("/beside/x", MOUNT_ON_DIRECTORY, NULL, 0);
	assert_host_untouched();
	/* With the directory there, it is the container's that is meant. */
	assert_int_equal(mkdirat(root_fd, "tmp", 0755), 0);
	check("/up", MOUNT_ON_DIRECTORY, "root/tmp", 0);
	check("/up/x", MOUNT_ON_DIRECTORY, "root/tmp/x", 0);
	assert_int_equal(mkdirat(root_fd, "host", 0755), 0);
	check("/beside", MOUNT_ON_DIRECTORY, "root/host", 0);
	check("/beside/new", MOUNT_ON_FILE, "root/host/new", 0);
	assert_host_untouched();
}

static void test_dots(void **context)
{
	assert_int_equal(mkdirat(root_fd, "tmp", 0755), 0);
	check("/../../../../tmp", MOUNT_ON_DIRECTORY, "root/tmp", 0);
	check("/tmp/../../host", MOUNT_ON_DIRECTORY, "root/host", 0);
	assert_host_untouched();
}

/* /proc/self/fd/N is any open descriptor of ours, this one the host's (CVE-2024-21626). */
static void test_magic_links(void **context)
{
	static const enum mount_target targets[] = {MOUNT_ON_OWN, MOUNT_ON_DIRECTORY,
						    MOUNT_ON_FILE};
	char direct[40], below[64];

	snprintf(direct, sizeof(direct), "/proc/self/fd/%d", dir_fd);
	snprintf(below, sizeof(below), "%s/host", direct);
	link_to(below, "link");
	for (size_t i = 0; i < ARRAY_SIZE(targets); i++) {
		check_mounting(&(struct mounting){direct, targets[i], NULL, 0, true});
		check_mounting(&(struct mounting){below, targets[i], NULL, 0, true});
		check_mounting(&(struct mounting){"/link", targets[i], NULL, 0, true});
		check_mounting(&(struct mounting){"/link/new", targets[i], NULL, 0, true});
		check_mounting(&(struct mounting){"/proc/self/cwd", targets[i], NULL, 0, true});
		check_mounting(&(struct mounting){"/proc/self/root", targets[i], NULL, 0, true});
	}
	assert_host_untouched();
}

static void test_dangling(void **context)
{
	link_to("nowhere", "dangling");
	link_to("loop", "loop");
	check("/dangling", MOUNT_ON_DIRECTORY, NULL, 0);
	check("/loop", MOUNT_ON_DIRECTORY, NULL, 0);
	check("/loop/x", MOUNT_ON_FILE, NULL, 0);
}

/* The runtime's own places are never behind a link, whole or in part. */
static void test_own_places(void **context)
{
	make_links_out();
	assert_int_equal(mkdirat(root_fd, "real", 0755), 0);
	assert_int_equal(mkdirat(root_fd, "real/pts", 0755), 0);
	link_to("real", "dev");
	link_to("absolute", "sys");
	check("/dev", MOUNT_ON_OWN, NULL, ELOOP);
	check("/dev/pts", MOUNT_ON_OWN, NULL, ELOOP);
	check("/sys", MOUNT_ON_OWN, NULL, ELOOP);
	check("/sys/fs/cgroup", MOUNT_ON_OWN, NULL, ELOOP);
	assert_host_untouched();
}

static void test_open_own(void **context)
{
	struct error err = {0};
	autofd int fd = -EBADF;

	assert_int_equal(mkdirat(root_fd, "dev", 0755), 0);
	link_to("/etc/passwd", "dev/null");
	assert_int_equal(mount_open_own(root_fd, "/dev/null", &err), -ELOOP);
	assert_non_null(strstr(err.message, "symbolic link"));
	assert_int_equal(mount_open_own(root_fd, "/dev/zero", &err), -ENOENT);
	fd = mount_open_own(root_fd, "/dev", &err);
	assert_true(fd >= 0);
}

static void test_wrong_kind(void **context)
{
	autofd int file = openat(root_fd, "file", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	assert_true(file >= 0);
	check("/file", MOUNT_ON_DIRECTORY, NULL, 0); /* a directory on a file */
	check("/file/x", MOUNT_ON_DIRECTORY, NULL, ENOTDIR);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_existing),     TEST(test_missing_are_made),
		TEST(test_links_inside), TEST(test_links_out),
		TEST(test_dots),         TEST(test_magic_links),
		TEST(test_dangling),     TEST(test_own_places),
		TEST(test_open_own),     TEST(test_wrong_kind),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
