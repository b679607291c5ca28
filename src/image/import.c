/* An image from a tarball or from a directory. */
#include "base/file.h"
#include "image/internal.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>

/* Unpacked trees lie here in a working directory. */
#define TREE "root"

static bool is_empty(int dir_fd)
{
	autodir DIR *dir = NULL;
	struct dirent *entry;
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0)
		dir = fdopendir(fd);
	while (dir && (entry = readdir(dir)))
		if (!str_eq(entry->d_name, ".") && !str_eq(entry->d_name, ".."))
			return false;
	return dir != NULL;
}

static int import_directory(struct image_work *work, const char *path, int fd,
			    const struct image_options *options, json_t **manifest,
			    struct error *err)
{
	autofree char *rootfs = image_work_path(work, ROOTFS_FILE);
	autofree char *directory = realpath(path, NULL);
	autofree char *source = NULL;
	autostrv struct strv leave_out = {0};
	int rc;

	if (!directory)
		return error_sys(err, errno, "resolve the path");
	if (is_empty(fd))
		return error_set(err, EINVAL, "there is nothing in it");
	source = str_printf("directory %s", directory);
	if (!rootfs || !source)
		return error_oom(err);
	rc = directory_leave_out(work->state, directory, &leave_out, err);
	if (rc == 0)
		rc = manifest_from_tree(fd, source, options, manifest, err);
	if (rc == 0)
		rc = erofs_make(work, rootfs, directory, &leave_out, options, err);
	return rc;
}

int import_tree(struct image_work *work, const char *name, const char *source, const char *config,
		const struct image_options *options, json_t **manifest, struct error *err)
{
	autofree char *rootfs = image_work_path(work, ROOTFS_FILE);
	autofree char *tree = image_work_path(work, name);
	autofd int fd = file_open_at(work->fd, name, O_RDONLY | O_DIRECTORY, 0, err);
	int rc;

	if (fd < 0)
		return fd;
	if (!rootfs || !tree)
		return error_oom(err);
	rc = manifest_from_tree(fd, source, options, manifest, err);
	if (rc == 0 && config)
		rc = manifest_set_config(*manifest, config, options, err);
	if (rc == 0)
		rc = erofs_make(work, rootfs, tree, NULL, options, err);
	/* Only the EROFS file and the manifest may be there when it becomes an image. */
	return rc < 0 ? rc : dir_remove_all(work->fd, name, err);
}

static int import_tarball(struct image_work *work, const char *path, int fd, const struct stat *st,
			  const struct image_options *options, json_t **manifest, struct error *err)
{
	struct unpack u = {
		.size_bytes = S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0,
		.options = options,
	};
	const char *base = strrchr(path, '/');
	autofree char *source = str_printf("tarball %s", base ? base + 1 : path);
	autofd int root_fd = -EBADF;
	int rc;

	if (!source)
		return error_oom(err);
	if (mkdirat(work->fd, TREE, 0700) < 0 || fchmodat(work->fd, TREE, 0755, 0) < 0)
		return error_sys(err, errno, "make a directory to unpack to");
	root_fd = file_open_at(work->fd, TREE, O_RDONLY | O_DIRECTORY, 0, err);
	if (root_fd < 0)
		return root_fd;
	u.root_fd = root_fd;
	rc = unpack_tarball(&u, fd, err);
	if (rc == 0)
		rc = import_tree(work, TREE, source, u.config, options, manifest, err);
	free(u.config);
	return rc;
}

static int import_any(struct image_work *work, const char *path,
		      const struct image_options *options, json_t **manifest, struct error *err)
{
	bool from_stdin = str_eq(path, "-");
	autofd int opened = -EBADF;
	struct stat st;
	int fd = STDIN_FILENO;

	if (!from_stdin) {
		opened = fd = file_open_at(AT_FDCWD, path, O_RDONLY, 0, err);
		if (fd < 0)
			return fd;
	}
	if (fstat(fd, &st) < 0)
		return error_sys(err, errno, "look at it");
	if (S_ISDIR(st.st_mode))
		return import_directory(work, path, fd, options, manifest, err);
	return import_tarball(work, from_stdin ? "stdin" : path, fd, &st, options, manifest, err);
}

int image_no_space_hint(struct state *state, int rc, struct error *err)
{
	if (rc == -ENOSPC)
		error_hint(err, "free some space in %s; nothing was left there", state->dir);
	return rc;
}

int image_import(struct state *state, const char *name, const char *path,
		 const struct image_options *options, struct image **image, struct error *err)
{
	autowork struct image_work work = IMAGE_WORK_INIT;
	autojson json_t *manifest = NULL;
	int rc = image_check_name(name, err);

	if (rc < 0)
		return rc;
	image_sweep(state);
	rc = image_work_begin(state, &work, err);
	if (rc == 0)
		rc = import_any(&work, path, options, &manifest, err);
	if (rc == 0)
		rc = image_publish(&work, name, manifest, image, options, err);
	if (rc < 0 && rc != -EINTR)
		error_wrap(err, "import %s", str_eq(path, "-") ? "from stdin" : path);
	return image_no_space_hint(state, rc, err);
}
