/*
 * Users by a container's /etc/passwd and /etc/group, which the guest may have filled with anything.
 * user_find() looks below "/", so each look-up runs in a child that has changed its root: needs
 * root.
 */
#include "container/internal.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static char dir_path[64];
static int dir_fd = -EBADF;

static int setup(void **context)
{
	snprintf(dir_path, sizeof(dir_path), "/tmp/lodge-user-XXXXXX");
	if (!mkdtemp(dir_path))
		return -1;
	dir_fd = open(dir_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return dir_fd < 0 ? -1 : mkdirat(dir_fd, "etc", 0755);
}

static int teardown(void **context)
{
	fd_close(&dir_fd);
	return dir_remove_all(AT_FDCWD, dir_path, NULL);
}

static void put(const char *path, const char *data, size_t size)
{
	autofd int fd = openat(dir_fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(fd_write_full(fd, data, size, NULL), 0);
}

static void put_text(const char *path, const char *text)
{
	put(path, text, strlen(text));
}

struct answer {
	int rc;
	struct user user;
	struct error err;
};

/* Five seconds for the child: a look-up that waits for the guest is a defect. */
static struct answer find(const char *text)
{
	struct answer a = {.rc = -ECHILD};
	int fds[2], status;
	pid_t pid;

	if (geteuid() != 0)
		skip();
	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		alarm(5);
		if (chroot(dir_path) < 0 || chdir("/") < 0)
			_exit(1);
		a.rc = user_find(text, &a.user, &a.err);
		_exit(write(fds[1], &a, sizeof(a)) == (ssize_t)sizeof(a) ? 0 : 1);
	}
	close(fds[1]);
	fd_read_full(fds[0], &a, sizeof(a), NULL);
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status))
		fail_msg("looking for '%s' was ended by signal %d", text ? text : "nobody",
			 WTERMSIG(status));
	assert_int_equal(status, 0);
	return a;
}

static void assert_user(const char *text, uid_t uid, gid_t gid, const char *home)
{
	struct answer a = find(text);

	if (a.rc < 0)
		fail_msg("'%s': %s", text ? text : "nobody", a.err.message);
	assert_int_equal(a.user.uid, uid);
	assert_int_equal(a.user.gid, gid);
	assert_string_equal(a.user.home, home);
}

static void assert_unknown(const char *text)
{
	assert_int_equal(find(text).rc, -ENOENT);
}

static void test_names_and_numbers(void **context)
{
	put_text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"
			       "www:x:33:34:web:/var/www:/bin/false\n"
			       "last:x:7:8::/last:/bin/sh"); /* no newline at the end */
	put_text("etc/group", "root:x:0:\nstaff:x:50:www\n");
	assert_user(NULL, 0, 0, "/root");
	assert_user("", 0, 0, "/root");
	assert_user("www", 33, 34, "/var/www");
	assert_user("33", 33, 34, "/var/www");
	assert_user("last", 7, 8, "/last");
	assert_user("www:staff", 33, 50, "/var/www");
	assert_user("www:51", 33, 51, "/var/www");
	assert_user("1000", 1000, 0, "/"); /* a number needs no line */
	assert_user("1000:1001", 1000, 1001, "/");
	assert_unknown("www2");
	assert_unknown("ww");
	assert_unknown("www:nogroup");
}

static void test_without_files(void **context)
{
	assert_user(NULL, 0, 0, "/");
	assert_user("5:6", 5, 6, "/");
	assert_unknown("root");
	assert_unknown("0:wheel");
}

static void test_groups(void **context)
{
	struct answer a;

	put_text("etc/passwd", "www:x:33:34:web:/var/www:/bin/false\n");
	put_text("etc/group", "a:x:100:www\n"
			      "b:x:101:other,www,more\n"
			      "c:x:102:wwww,ww\n"
			      "d:x:103:\n"
			      "e:x:104:other,www\n");
	a = find("www");
	assert_int_equal(a.rc, 0);
	assert_int_equal(a.user.n_groups, 3);
	assert_int_equal(a.user.groups[0], 100);
	assert_int_equal(a.user.groups[1], 101);
	assert_int_equal(a.user.groups[2], 104);
	a = find("33"); /* by number it is the same user */
	assert_int_equal(a.user.n_groups, 3);
	a = find("www:d"); /* a named group is the only one */
	assert_int_equal(a.rc, 0);
	assert_int_equal(a.user.gid, 103);
	assert_int_equal(a.user.n_groups, 0);
}

/* Ids past the container's range would be somebody else's or nobody's. */
static void test_ids_out_of_range(void **context)
{
	put_text("etc/passwd", "neg:x:-1:0::/:\n"
			       "big:x:65536:0::/:\n"
			       "wrap:x:4294967296:0::/:\n"
			       "huge:x:99999999999999999999999:0::/:\n"
			       "hex:x:0x10:0::/:\n"
			       "space:x: 1:0::/:\n"
			       "empty:x::0::/:\n"
			       "gid:x:5:65536::/:\n"
			       "tail:x:5x:0::/:\n"
			       "most:x:65535:65535::/most:\n");
	assert_unknown("neg");
	assert_unknown("big");
	assert_unknown("wrap");
	assert_unknown("huge");
	assert_unknown("hex");
	assert_unknown("space");
	assert_unknown("empty");
	assert_unknown("gid");
	assert_unknown("tail");
	assert_user("most", 65535, 65535, "/most");
	assert_unknown("65536");
	assert_unknown("-1");
	assert_unknown("4294967296");
	assert_unknown("0:65536");
	assert_unknown("0:-1");
}

static void test_malformed_lines(void **context)
{
	static const char zeroes[] = "a:x:1:1::/a:\n\0b:x:2:2::/b:\n";

	put_text("etc/passwd", "\n\n:::::::\nnocolons\nshort:x:1\nshort5:x:1:1:\n"
			       ":x:0:0::/nobody:\n"
			       "many:x:9:9:g:/many:/bin/sh:more:and:more\n"
			       "dup:x:1:1::/first:\ndup:x:2:2::/second:\n"
			       "www\r:x:3:3::/cr:\r\n");
	put_text("etc/group", "x\n:\n::\n:::\n");
	assert_unknown("nocolons");
	assert_unknown("short");
	assert_unknown("short5");
	assert_unknown("www");
	assert_user("many", 9, 9, "/many");
	assert_user("dup", 1, 1, "/first");
	/* An empty name is root by default, not who has an empty one in the file. */
	assert_user(":0", 0, 0, "/");

	put("etc/passwd", zeroes, sizeof(zeroes) - 1);
	assert_user("a", 1, 1, "/a");
	assert_unknown("b");
}

static void test_long_lines(void **context)
{
	enum { MEMBERS = 1000, LONG = 1 << 20 };
	autofree char *text = malloc(2 * LONG);
	struct answer a;
	size_t n = 0;

	assert_non_null(text);
	/* Groups past what we hold are left out, and nothing is written past the array. */
	for (int i = 0; i < MEMBERS; i++)
		n += (size_t)sprintf(text + n, "g%d:x:%d:www\n", i, 1000 + i);
	put("etc/group", text, n);
	put_text("etc/passwd", "www:x:33:34::/var/www:\n");
	a = find("www");
	assert_int_equal(a.rc, 0);
	assert_int_equal(a.user.n_groups, ARRAY_SIZE(a.user.groups));
	for (size_t i = 0; i < a.user.n_groups; i++)
		assert_int_equal(a.user.groups[i], 1000 + i);

	memset(text, 'n', LONG);
	n = LONG + (size_t)sprintf(text + LONG, ":x:1:1::/\nafter:x:2:2::/after:\n");
	put("etc/passwd", text, n);
	assert_user("after", 2, 2, "/after");
	text[LONG] = '\0';
	assert_user(text, 1, 1, "/");
	text[LONG - 1] = '\0';
	assert_unknown(text);
}

static void test_giant_file(void **context)
{
	put_text("etc/passwd", "www:x:33:34::/var/www:\n");
	{
		autofd int fd = openat(dir_fd, "etc/passwd", O_WRONLY | O_CLOEXEC);

		assert_int_equal(ftruncate(fd, INT64_C(1) << 40), 0);
	}
	assert_unknown("www");
	assert_user(NULL, 0, 0, "/");
}

/* What would keep us waiting, or is not a file. */
static void test_special_files(void **context)
{
	if (geteuid() != 0)
		skip();
	assert_int_equal(mkfifoat(dir_fd, "etc/passwd", 0644), 0);
	assert_int_equal(mkfifoat(dir_fd, "etc/group", 0644), 0);
	assert_user(NULL, 0, 0, "/");
	assert_unknown("www");
	assert_int_equal(unlinkat(dir_fd, "etc/passwd", 0), 0);
	assert_int_equal(mkdirat(dir_fd, "etc/passwd", 0755), 0);
	assert_unknown("www");
}

static void test_links(void **context)
{
	char outside[128];

	put_text("etc/real", "www:x:33:34::/var/www:\n");
	assert_int_equal(symlinkat("/etc/real", dir_fd, "etc/passwd"), 0);
	assert_user("www", 33, 34, "/var/www");
	assert_int_equal(unlinkat(dir_fd, "etc/passwd", 0), 0);
	assert_int_equal(symlinkat("passwd", dir_fd, "etc/passwd"), 0); /* of itself */
	assert_unknown("www");
	assert_int_equal(unlinkat(dir_fd, "etc/passwd", 0), 0);
	/* Up, and by its name on the host: neither leads out. */
	snprintf(outside, sizeof(outside), "../../../..%s/etc/real", dir_path);
	assert_int_equal(symlinkat(outside, dir_fd, "etc/passwd"), 0);
	assert_unknown("www");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_names_and_numbers), TEST(test_without_files),   TEST(test_groups),
		TEST(test_ids_out_of_range),  TEST(test_malformed_lines), TEST(test_long_lines),
		TEST(test_giant_file),        TEST(test_special_files),   TEST(test_links),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
