/* The mount that guests of an image share. Needs root and mkfs.erofs. */
#include "base/file.h"
#include "image/internal.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/vfs.h>

#include <cmocka.h>

struct host {
	char dir[40];
	struct state *state;
	struct image *image;
};

static int host_new(void **data)
{
	struct host *h = calloc(1, sizeof(*h));
	autofree char *tree = NULL;
	autofree char *state = NULL;
	autofree char *run = NULL;
	autofd int fd = -EBADF;
	struct error err = {0};

	*data = h;
	strcpy(h->dir, "/tmp/lodge-test-XXXXXX");
	if (geteuid() != 0)
		return 0;
	if (!mkdtemp(h->dir))
		return -1;
	tree = str_printf("%s/tree", h->dir);
	fd = dir_make_open(AT_FDCWD, tree, 0755, NULL);
	if (fd < 0 || file_replace_at(fd, "file", "text", 4, 0644, NULL) < 0)
		return -1;
	state = str_printf("%s/state", h->dir);
	run = str_printf("%s/run", h->dir);
	setenv("LODGE_STATE_DIR", state, 1);
	setenv("LODGE_RUNTIME_DIR", run, 1);
	if (state_open(&h->state, &err) < 0 ||
	    image_import(h->state, "tiny", tree, NULL, &h->image, &err) < 0) {
		print_error("%s\n", err.message);
		return -1;
	}
	return 0;
}

static int host_free(void **data)
{
	struct host *h = *data;

	image_free(h->image);
	state_close(h->state);
	dir_remove_all(AT_FDCWD, h->dir, NULL);
	free(h);
	return 0;
}

static struct host *need_root(void **data)
{
	struct host *h = *data;

	if (!h->state)
		skip();
	return h;
}

static void has_file(int tree_fd)
{
	autofree char *text = NULL;
	struct statfs fs;

	assert_int_equal(file_read_at(tree_fd, "file", 100, &text, NULL, NULL), 0);
	assert_string_equal(text, "text");
	assert_int_equal(faccessat(tree_fd, "file", W_OK, 0), -1);
	assert_int_equal(errno, EROFS);
	assert_int_equal(fstatfs(tree_fd, &fs), 0);
	/* nodev, but not nosuid: programs of the image keep their rights in the guest. */
	assert_true(fs.f_flags & 4);
	assert_false(fs.f_flags & 2);
}

static bool is_mounted(struct host *h)
{
	autofree char *path = str_printf("images/%s", h->image->digest + strlen(DIGEST_PREFIX));

	return faccessat(h->state->run_fd, path, F_OK, 0) == 0;
}

static void test_shared(void **data)
{
	struct host *h = need_root(data);
	struct image_mount a = IMAGE_MOUNT_INIT, b = IMAGE_MOUNT_INIT;
	struct stat sa, sb;

	assert_int_equal(image_mount(h->state, h->image->digest, &a, NULL), 0);
	assert_int_equal(image_mount(h->state, h->image->digest, &b, NULL), 0);
	has_file(a.tree_fd);
	assert_int_equal(fstat(a.tree_fd, &sa), 0);
	assert_int_equal(fstat(b.tree_fd, &sb), 0);
	/* One superblock: one page cache. */
	assert_int_equal(sa.st_dev, sb.st_dev);

	image_unmount(h->state, &a);
	assert_true(is_mounted(h));
	has_file(b.tree_fd);
	image_unmount(h->state, &b);
	assert_false(is_mounted(h));
	assert_true(a.tree_fd < 0 && a.lock_fd < 0);
	image_unmount(h->state, &a); /* twice is fine */
}

/* A guest that still has a clone keeps it, whatever happens on the host. */
static void test_clone_outlives_the_mount(void **data)
{
	struct host *h = need_root(data);
	struct image_mount m = IMAGE_MOUNT_INIT;
	autofd int clone = -EBADF;

	assert_int_equal(image_mount(h->state, h->image->digest, &m, NULL), 0);
	clone = steal_fd(&m.tree_fd);
	image_unmount(h->state, &m);
	assert_false(is_mounted(h));
	has_file(clone);
}

/* Whoever was killed dropped its lock and left the mount. */
static void test_stale(void **data)
{
	struct host *h = need_root(data);
	struct image_mount m = IMAGE_MOUNT_INIT;

	assert_int_equal(image_mount(h->state, h->image->digest, &m, NULL), 0);
	fd_close(&m.tree_fd);
	fd_close(&m.lock_fd);
	assert_true(is_mounted(h));
	m = (struct image_mount)IMAGE_MOUNT_INIT;
	assert_int_equal(image_mount(h->state, h->image->digest, &m, NULL), 0);
	has_file(m.tree_fd);
	image_unmount(h->state, &m);
	assert_false(is_mounted(h));
}

static void test_missing(void **data)
{
	struct host *h = need_root(data);
	struct image_mount m = IMAGE_MOUNT_INIT;
	struct error err = {0};
	char digest[] = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

	assert_int_equal(image_mount(h->state, digest, &m, &err), -ENOENT);
	assert_true(m.tree_fd < 0 && m.lock_fd < 0);
	assert_int_equal(image_mount(h->state, "tiny", &m, &err), -EINVAL);
}

/* As on kernels that cannot mount a file. */
static void test_loop_device(void **data)
{
	struct host *h = need_root(data);
	autofree char *path = image_rootfs_path(h->state, h->image->digest);
	struct error err = {0};
	autofd int fd = -EBADF;

	if (access("/dev/loop-control", R_OK | W_OK) < 0)
		skip();
	fd = image_mount_file(path, true, &err);
	if (fd < 0)
		fail_msg("%s", err.message);
	has_file(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shared),      cmocka_unit_test(test_clone_outlives_the_mount),
		cmocka_unit_test(test_stale),       cmocka_unit_test(test_missing),
		cmocka_unit_test(test_loop_device),
	};

	return cmocka_run_group_tests(tests, host_new, host_free);
}
