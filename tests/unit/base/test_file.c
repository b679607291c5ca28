/* Files: confinement, atomic replacement, and removal of whatever a guest left. */
#include "base/file.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

static char top[64];
static int top_fd = -EBADF;

static int setup(void **context)
{
	snprintf(top, sizeof(top), "/tmp/lodge-file-XXXXXX");
	if (!mkdtemp(top))
		return -1;
	top_fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return top_fd < 0;
}

static int teardown(void **context)
{
	fd_close(&top_fd);
	return dir_remove_all(AT_FDCWD, top, NULL);
}

static void put(const char *path, const char *text)
{
	struct error err = {0};

	if (file_replace_at(top_fd, path, text, strlen(text), 0644, &err) < 0)
		fail_msg("%s", err.message);
}

static void assert_content(const char *path, const char *expected)
{
	autofree char *text = NULL;
	struct error err = {0};

	if (file_read_at(top_fd, path, 1 << 20, &text, NULL, &err) < 0)
		fail_msg("%s", err.message);
	assert_string_equal(text, expected);
}

static void make(const char *path)
{
	assert_int_equal(dir_make(top_fd, path, 0755, NULL), 0);
}

static bool exists(const char *path)
{
	struct stat st;

	return fstatat(top_fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* ---- opening below a root ---- */

static void test_links_stay_in_the_root(void **context)
{
	autofd int root = -EBADF;
	static const char *const inside[] = {"etc/passwd",       "/etc/passwd", "abs",  "up",
					     "../../etc/passwd", "dir/abs",     "chain"};
	static const char *const missing[] = {"to-host", "up-to-host"};
	char host[96];

	make("root/etc");
	make("root/dir");
	put("root/etc/passwd", "guest");
	put("host", "host");
	root = openat(top_fd, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
	snprintf(host, sizeof(host), "%s/host", top);
	assert_int_equal(symlinkat("/etc/passwd", root, "abs"), 0);
	assert_int_equal(symlinkat("../../../../etc/passwd", root, "up"), 0);
	assert_int_equal(symlinkat("/abs", root, "dir/abs"), 0);
	assert_int_equal(symlinkat("dir/abs", root, "chain"), 0);
	assert_int_equal(symlinkat(host, root, "to-host"), 0);
	assert_int_equal(symlinkat("../host", root, "up-to-host"), 0);
	assert_int_equal(symlinkat("loop", root, "loop"), 0);
	for (size_t i = 0; i < ARRAY_SIZE(inside); i++) {
		autofd int fd = file_open_in_root(root, inside[i], O_RDONLY, 0, NULL);
		char text[16] = "";

		assert_true(fd >= 0);
		assert_int_equal(fd_read_full(fd, text, sizeof(text), NULL), 5);
		assert_string_equal(text, "guest");
		assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	}
	for (size_t i = 0; i < ARRAY_SIZE(missing); i++)
		assert_int_equal(file_open_in_root(root, missing[i], O_RDONLY, 0, NULL), -ENOENT);
	assert_int_equal(file_open_in_root(root, "loop", O_RDONLY, 0, NULL), -ELOOP);
	/* What is made stays inside, too. */
	fd_close(&(int){file_open_in_root(root, "../../made", O_WRONLY | O_CREAT, 0600, NULL)});
	assert_true(exists("root/made"));
	assert_false(exists("made"));
}

static void test_magic_links_are_refused(void **context)
{
	autofd int proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct error err = {0};

	assert_int_equal(file_open_in_root(proc, "self/fd/0", O_RDONLY, 0, &err), -ELOOP);
	assert_non_null(strstr(err.message, "self/fd/0"));
}

/* ---- reading and writing ---- */

static void test_read_sizes(void **context)
{
	static const size_t sizes[] = {0, 1, 4095, 4096, 4097, 8192, 100000};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		autofree char *text = calloc(1, sizes[i] + 1);
		autofree char *back = NULL;
		struct error err = {0};
		size_t size = 1;

		memset(text, 'x', sizes[i]);
		put("f", text);
		assert_int_equal(file_read_at(top_fd, "f", sizes[i], &back, &size, NULL), 0);
		assert_int_equal(size, sizes[i]);
		assert_string_equal(back, text);
		if (sizes[i])
			assert_int_equal(
				file_read_at(top_fd, "f", sizes[i] - 1, &back, &size, &err),
				-EFBIG);
	}
	assert_int_equal(file_read_at(top_fd, "none", 10, &(char *){NULL}, NULL, NULL), -ENOENT);
	assert_int_equal(file_read_at(top_fd, ".", 10, &(char *){NULL}, NULL, NULL), -EISDIR);
}

static void test_write_existing_only(void **context)
{
	struct error err = {0};

	assert_int_equal(file_write_at(top_fd, "none", "x", &err), -ENOENT);
	assert_false(exists("none"));
	put("f", "old");
	assert_int_equal(file_write_at(top_fd, "f", "new", &err), 0);
	assert_content("f", "new");
	/* The kernel's answer, with what was asked. */
	assert_int_equal(file_write_at(AT_FDCWD, "/proc/self/oom_score_adj", "5000", &err),
			 -EINVAL);
	assert_non_null(strstr(err.message, "'5000'"));
	assert_non_null(strstr(err.message, "oom_score_adj"));
}

static void test_replace_is_all_or_nothing(void **context)
{
	enum { SIZE = 100000, ROUNDS = 300 };
	static char text[SIZE + 1];
	pid_t pid;
	int status;

	memset(text, 'a', SIZE);
	put("f", text);
	pid = fork();
	if (pid == 0) {
		for (int i = 0; i < ROUNDS; i++) {
			memset(text, 'a' + i % 26, SIZE);
			if (file_replace_at(top_fd, "f", text, SIZE, 0644, NULL) < 0)
				_exit(1);
		}
		_exit(0);
	}
	/* A reader never sees a part, and the file is never missing. */
	while (waitpid(pid, &status, WNOHANG) == 0) {
		autofree char *back = NULL;
		size_t size;

		assert_int_equal(file_read_at(top_fd, "f", 1 << 20, &back, &size, NULL), 0);
		assert_int_equal(size, SIZE);
		assert_true(strspn(back, (char[]){back[0], '\0'}) == SIZE);
	}
	assert_int_equal(status, 0);
}

static void test_replace_leaves_nothing_behind(void **context)
{
	struct error err = {0};

	make("d");
	put("d/f", "kept");
	/* A directory can't be replaced by a file: the temporary file goes. */
	assert_int_equal(file_replace_at(top_fd, "d", "x", 1, 0644, &err), -EISDIR);
	assert_non_null(strstr(err.message, "write d"));
	assert_int_equal(file_replace_at(top_fd, "none/f", "x", 1, 0644, &err), -ENOENT);
	assert_content("d/f", "kept");
	assert_int_equal(unlinkat(top_fd, "d/f", 0), 0);
	assert_int_equal(unlinkat(top_fd, "d", AT_REMOVEDIR), 0);
	assert_int_equal(rmdir(top), 0); /* nothing else was there */
	assert_int_equal(mkdir(top, 0700), 0);
}

static void test_replace_by_absolute_path_and_mode(void **context)
{
	char path[96];
	struct stat st;

	snprintf(path, sizeof(path), "%s/f", top);
	assert_int_equal(file_replace_at(AT_FDCWD, path, "x", 1, 0600, NULL), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
}

static void test_full_reads_and_writes(void **context)
{
	enum { SIZE = 300000 };
	static char text[SIZE], back[SIZE + 10];
	int fds[2];
	pid_t pid;

	for (int i = 0; i < SIZE; i++)
		text[i] = (char)(i * 7);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) /* more than a pipe holds */
		_exit(fd_write_full(fds[1], text, SIZE, NULL) < 0);
	close(fds[1]);
	assert_int_equal(fd_read_full(fds[0], back, SIZE + 10, NULL), SIZE);
	assert_memory_equal(text, back, SIZE);
	waitpid(pid, NULL, 0);
	close(fds[0]);
	assert_int_equal(fd_write_full(-1, text, 1, NULL), -EBADF);
	assert_int_equal(fd_read_full(-1, back, 1, NULL), -EBADF);
}

/* ---- directories ---- */

static void test_dir_make(void **context)
{
	struct error err = {0};
	int fd;

	assert_int_equal(dir_make(top_fd, "a/b/c", 0755, &err), 0);
	assert_true(exists("a/b/c"));
	assert_int_equal(dir_make(top_fd, "a/b/c", 0755, &err), 0);
	assert_int_equal(dir_make(top_fd, "a/b/d/", 0755, &err), 0);
	put("a/file", "");
	assert_int_equal(dir_make(top_fd, "a/file", 0755, &err), -ENOTDIR);
	assert_int_equal(dir_make(top_fd, "a/file/x", 0755, &err), -ENOTDIR);
	fd = dir_make_open(top_fd, "x/y", 0755, &err);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(dir_make_open(top_fd, "a/file", 0755, &err), -ENOTDIR);
}

static void test_remove_everything(void **context)
{
	make("t/a/b/c");
	make("t/empty");
	put("t/a/b/file", "x");
	put("kept", "x");
	make("outside");
	put("outside/file", "x");
	assert_int_equal(symlinkat("../../outside", top_fd, "t/a/link"), 0);
	assert_int_equal(symlinkat("/", top_fd, "t/root"), 0);
	assert_int_equal(mkfifoat(top_fd, "t/fifo", 0600), 0);
	assert_int_equal(dir_remove_all(top_fd, "t", NULL), 0);
	assert_false(exists("t"));
	assert_true(exists("outside/file"));
	assert_int_equal(dir_remove_all(top_fd, "t", NULL), 0);    /* missing: success */
	assert_int_equal(dir_remove_all(top_fd, "kept", NULL), 0); /* a file */
	assert_false(exists("kept"));
	assert_int_equal(symlinkat("outside", top_fd, "link"), 0);
	assert_int_equal(dir_remove_all(top_fd, "link", NULL), 0);
	assert_true(exists("outside/file"));
}

/* Deeper than a path can be long, and than a process may have descriptors. */
static void test_remove_deep_tree(void **context)
{
	enum { DEPTH = 10000 };
	int fd;

	make("t");
	fd = openat(top_fd, "t", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; i < DEPTH; i++) {
		int next;

		assert_int_equal(mkdirat(fd, "some-longer-name", 0755), 0);
		if (i % 1000 == 0) {
			assert_int_equal(mkdirat(fd, "side", 0755), 0);
			close(openat(fd, "file", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
		}
		next = openat(fd, "some-longer-name", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		assert_true(next >= 0);
		close(fd);
		fd = next;
	}
	close(fd);
	assert_int_equal(dir_remove_all(top_fd, "t", NULL), 0);
	assert_false(exists("t"));
}

/* A guest that knows how the removal works has put something in its way. */
static void test_remove_despite_taken_names(void **context)
{
	struct error err = {0};
	char name[64];

	for (int i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "t/.lodge-rm-%d-%d/x/y", (int)getpid(), i);
		make(name);
	}
	make("t/a/b/c/d");
	if (dir_remove_all(top_fd, "t", &err) < 0)
		fail_msg("%s", err.message);
	assert_false(exists("t"));
}

static int remove_as_nobody(void)
{
	struct error err = {0};

	if (setgid(65534) < 0 || setuid(65534) < 0)
		return 77;
	if (mkdirat(top_fd, "t", 0755) < 0 || mkdirat(top_fd, "t/a", 0755) < 0 ||
	    mkdirat(top_fd, "t/a/b", 0755) < 0 || mkdirat(top_fd, "t/a/b/c", 0755) < 0)
		return 1;
	close(openat(top_fd, "t/a/b/c/file", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	/* Images have directories that not even their owner may write to or read. */
	if (fchmodat(top_fd, "t/a/b/c", 0000, 0) < 0 || fchmodat(top_fd, "t/a/b", 0555, 0) < 0 ||
	    fchmodat(top_fd, "t/a", 0111, 0) < 0 || fchmodat(top_fd, "t", 0555, 0) < 0)
		return 2;
	if (dir_remove_all(top_fd, "t", &err) < 0) {
		fprintf(stderr, "# %s\n", err.message);
		return 3;
	}
	return 0;
}

static void test_remove_read_only_directories_without_root(void **context)
{
	pid_t pid;
	int status;

	assert_int_equal(chmod(top, 0777), 0);
	pid = fork();
	if (pid == 0)
		_exit(geteuid() == 0 ? remove_as_nobody() : 77);
	waitpid(pid, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(status, 0);
	assert_false(exists("t"));
}

/* What is mounted inside survives, and the error names it. In a mount namespace of its own. */
static int remove_around(const char *mount_point, bool bind)
{
	struct error err = {0};
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", top, mount_point);
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    (bind ? mount(top, path, NULL, MS_BIND, NULL) : mount("none", path, "tmpfs", 0, NULL)) <
		    0)
		return 77;
	/* By descriptor: the directories on the way to it may be moved. */
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	close(openat(fd, "precious", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	if (dir_remove_all(top_fd, "t", &err) != -EBUSY) {
		fprintf(stderr, "# %d %s\n", err.code, err.message);
		return 1;
	}
	if (faccessat(fd, "precious", F_OK, 0) < 0)
		return 2;
	return strstr(err.message, "remove t: ") ? 0 : 3;
}

static void test_mounts_are_not_entered(void **context)
{
	static const char *const places[] = {"t/m", "t/a/m", "t/a/b/c/m"};

	for (size_t i = 0; i < 2 * ARRAY_SIZE(places); i++) {
		pid_t pid;
		int status;

		make(places[i / 2]);
		pid = fork();
		if (pid == 0)
			_exit(geteuid() == 0 ? remove_around(places[i / 2], i & 1) : 77);
		waitpid(pid, &status, 0);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
			skip();
		if (status)
			fail_msg("%s: status %#x", places[i / 2], status);
		assert_int_equal(dir_remove_all(top_fd, "t", NULL), 0);
	}
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_remove_despite_taken_names), /* first: it knows the names from number 0 */
		TEST(test_links_stay_in_the_root),
		TEST(test_magic_links_are_refused),
		TEST(test_read_sizes),
		TEST(test_write_existing_only),
		TEST(test_replace_is_all_or_nothing),
		TEST(test_replace_leaves_nothing_behind),
		TEST(test_replace_by_absolute_path_and_mode),
		TEST(test_full_reads_and_writes),
		TEST(test_dir_make),
		TEST(test_remove_everything),
		TEST(test_remove_deep_tree),
		TEST(test_remove_read_only_directories_without_root),
		TEST(test_mounts_are_not_entered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
