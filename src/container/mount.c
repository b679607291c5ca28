/* The mount system calls of Linux 5.12 with errors filled; see internal.h. */
#include "container/internal.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The kernel explains a refused mount on the context's descriptor: "e overlay: ..." */
static int context_error(int context, const char *type, int code, struct error *err)
{
	char why[256];
	ssize_t n = read(context, why, sizeof(why) - 1);

	if (n > 2) {
		why[n] = '\0';
		return error_sys(err, code, "mount %s: %s", type, str_chomp(why + 2));
	}
	return error_sys(err, code, "mount %s", type);
}

int mount_new(const char *type, const struct mount_option *options, size_t n_options,
	      unsigned int attributes, struct error *err)
{
	autofd int context = fsopen(type, FSOPEN_CLOEXEC);
	int fd;

	if (context < 0)
		return error_sys(err, errno, "mount %s", type);
	for (size_t i = 0; i < n_options; i++) {
		const struct mount_option *o = &options[i];

		if (fsconfig(context, o->value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, o->key,
			     o->value, 0) < 0)
			return context_error(context, type, errno, err);
	}
	if (fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return context_error(context, type, errno, err);
	fd = fsmount(context, FSMOUNT_CLOEXEC, attributes);
	return fd >= 0 ? fd : context_error(context, type, errno, err);
}

int mount_clone(int fd, const char *path, bool recursive, struct error *err)
{
	unsigned int flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH;
	int tree = open_tree(fd, path, flags | (recursive ? AT_RECURSIVE : 0));

	return tree >= 0 ? tree : error_sys(err, errno, "bind %s", *path ? path : "a mount");
}

int mount_set(int mount_fd, uint64_t attributes, int userns_fd, bool recursive, struct error *err)
{
	struct mount_attr attr = {
		.attr_set = attributes | (userns_fd >= 0 ? MOUNT_ATTR_IDMAP : 0),
		.userns_fd = (uint64_t)(userns_fd >= 0 ? userns_fd : 0),
	};

	if (mount_setattr(mount_fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &attr,
			  sizeof(attr)) == 0)
		return 0;
	if (userns_fd >= 0 && errno == EINVAL) {
		error_set(err, EINVAL, "this file system cannot map ids for a container");
		error_hint(err, "ext4, xfs and btrfs can, and tmpfs from Linux 6.3");
		return -EINVAL;
	}
	return error_sys(err, errno, "set mount flags");
}

/*
 * Makes `path` inside root_fd as a directory, or as an empty file, with its missing parents. What
 * is there is resolved below root_fd; what is made is made by name in its opened parent, so no
 * symbolic link is followed out of the tree.
 */
static int make_target(int root_fd, const char *path, bool is_file, struct error *err)
{
	autofree char *copy = strdup(path);
	autofd int parent = dup(root_fd);
	char *end;

	if (!copy || parent < 0)
		return error_oom(err);
	for (char *name = copy + strspn(copy, "/"); *name; name = end + strspn(end, "/")) {
		char saved;
		bool file;
		int fd;

		end = name + strcspn(name, "/");
		file = is_file && end[strspn(end, "/")] == '\0';
		saved = *end;
		*end = '\0';
		fd = file_open_in_root(root_fd, copy, O_PATH, 0, NULL);
		if (fd < 0) {
			if (file)
				fd = openat(parent, name, O_CREAT | O_EXCL | O_CLOEXEC, 0644);
			else if (mkdirat(parent, name, 0755) == 0)
				fd = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
			if (fd < 0)
				return error_sys(err, errno, "make %s in the container", path);
		}
		*end = saved;
		fd_close(&parent);
		parent = fd;
	}
	return 0;
}

int mount_over(int mount_fd, int target_fd, const char *path, struct error *err)
{
	if (move_mount(mount_fd, "", target_fd, "",
		       MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
		return error_sys(err, errno, "mount on %s in the container", path);
	return 0;
}

int mount_open_own(int root_fd, const char *path, struct error *err)
{
	struct open_how how = {
		.flags = O_PATH | O_CLOEXEC,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS,
	};
	int fd = (int)syscall(SYS_openat2, root_fd, path, &how, sizeof(how));

	if (fd < 0 && errno == ELOOP) {
		error_set(err, ELOOP, "%s is a symbolic link in the container", path);
		error_hint(err, "the image must have a directory there, or nothing");
		return -ELOOP;
	}
	return fd >= 0 ? fd : error_sys(err, errno, "open %s in the container", path);
}

static int open_target(int root_fd, const char *path, enum mount_target target, struct error *err)
{
	return target == MOUNT_ON_OWN ? mount_open_own(root_fd, path, err)
				      : file_open_in_root(root_fd, path, O_PATH, 0, err);
}

int mount_attach(int mount_fd, int root_fd, const char *path, enum mount_target target,
		 struct error *err)
{
	autofd int fd = open_target(root_fd, path, target, err);
	int rc;

	if (fd == -ENOENT) {
		error_clear(err);
		rc = make_target(root_fd, path, target == MOUNT_ON_FILE, err);
		if (rc < 0)
			return rc;
		fd = open_target(root_fd, path, target, err);
	}
	return fd < 0 ? fd : mount_over(mount_fd, fd, path, err);
}
