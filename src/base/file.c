/* See file.h. */
#include "base/file.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int file_open_in_root(int root_fd, const char *path, int flags, mode_t mode, struct error *err)
{
	struct open_how how = {
		.flags = (uint64_t)(flags | O_CLOEXEC),
		.mode = flags & (O_CREAT | __O_TMPFILE) ? mode : 0,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};
	int fd;

	/* EAGAIN: the kernel saw a rename race with ".." and could not be sure (openat2(2)). */
	for (int tries = 0; tries < 64; tries++) {
		fd = (int)syscall(SYS_openat2, root_fd, path, &how, sizeof(how));
		if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
			break;
	}
	return fd >= 0 ? fd : error_sys(err, errno, "open %s", path);
}

int file_open_at(int dir_fd, const char *path, int flags, mode_t mode, struct error *err)
{
	int fd = openat(dir_fd, path, flags | O_CLOEXEC, mode);

	return fd >= 0 ? fd : error_sys(err, errno, "open %s", path);
}

int file_read_at(int dir_fd, const char *path, size_t max_bytes, char **data, size_t *size,
		 struct error *err)
{
	autofree char *buf = NULL;
	autofd int fd = -EBADF;
	size_t have = 0, room = 4096;
	ssize_t n;

	fd = file_open_at(dir_fd, path, O_RDONLY, 0, err);
	if (fd < 0)
		return fd;
	for (;;) {
		char *grown = realloc(buf, room + 1);

		if (!grown)
			return error_oom(err);
		buf = grown;
		n = read(fd, buf + have, room - have);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_sys(err, errno, "read %s", path);
		if (n == 0)
			break;
		have += (size_t)n;
		if (have > max_bytes)
			return error_sys(err, EFBIG, "read %s", path);
		if (have == room)
			room *= 2;
	}
	buf[have] = '\0';
	if (size)
		*size = have;
	*data = steal_ptr(&buf);
	return 0;
}

int file_write_at(int dir_fd, const char *path, const char *text, struct error *err)
{
	autofd int fd = file_open_at(dir_fd, path, O_WRONLY, 0, err);
	size_t len = strlen(text);
	ssize_t n;

	if (fd < 0)
		return fd;
	n = write(fd, text, len);
	if (n < 0)
		return error_sys(err, errno, "write '%s' to %s", text, path);
	if ((size_t)n != len)
		return error_sys(err, EIO, "write '%s' to %s", text, path);
	return 0;
}

int file_replace_at(int dir_fd, const char *path, const void *data, size_t size, mode_t mode,
		    struct error *err)
{
	autofree char *tmp = NULL;
	autofree char *parent = NULL;
	autofd int fd = -EBADF;
	autofd int parent_fd = -EBADF;
	uint64_t salt = 0;
	char *slash;
	int rc;

	if (getrandom(&salt, sizeof(salt), 0) != sizeof(salt))
		return error_sys(err, errno, "get random bytes");
	tmp = str_printf("%s.%016llx.tmp", path, (unsigned long long)salt);
	parent = strdup(path);
	if (!tmp || !parent)
		return error_oom(err);
	fd = file_open_at(dir_fd, tmp, O_WRONLY | O_CREAT | O_EXCL, mode, err);
	if (fd < 0)
		return fd;
	rc = fd_write_full(fd, data, size, err);
	if (!rc && fsync(fd) < 0)
		rc = error_sys(err, errno, "flush to disk");
	if (!rc && renameat(dir_fd, tmp, dir_fd, path) < 0)
		rc = error_sys(err, errno, "rename");
	if (rc < 0) {
		unlinkat(dir_fd, tmp, 0);
		return error_wrap(err, "write %s", path);
	}
	slash = strrchr(parent, '/');
	if (slash)
		*slash = '\0';
	parent_fd = openat(dir_fd, slash ? (*parent ? parent : "/") : ".",
			   O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (parent_fd < 0 || fsync(parent_fd) < 0)
		return error_sys(err, errno, "flush the directory of %s to disk", path);
	return 0;
}

int fd_write_full(int fd, const void *data, size_t size, struct error *err)
{
	const char *p = data;

	while (size > 0) {
		ssize_t n = write(fd, p, size);

		if (n < 0 && errno == EINTR)
			continue;
		/* Our output may be shared with a program that made it non-blocking. */
		if (n < 0 && errno == EAGAIN) {
			poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1);
			continue;
		}
		if (n < 0)
			return error_sys(err, errno, "write");
		p += n;
		size -= (size_t)n;
	}
	return 0;
}

ssize_t fd_read_full(int fd, void *data, size_t size, struct error *err)
{
	size_t have = 0;

	while (have < size) {
		ssize_t n = read(fd, (char *)data + have, size - have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_sys(err, errno, "read");
		if (n == 0)
			break;
		have += (size_t)n;
	}
	return (ssize_t)have;
}

int dir_make(int dir_fd, const char *path, mode_t mode, struct error *err)
{
	autofree char *copy = NULL;

	if (mkdirat(dir_fd, path, mode) == 0)
		return 0;
	if (errno == EEXIST) {
		struct stat st;

		if (fstatat(dir_fd, path, &st, 0) == 0 && S_ISDIR(st.st_mode))
			return 0;
		return error_sys(err, ENOTDIR, "make directory %s", path);
	}
	if (errno != ENOENT)
		return error_sys(err, errno, "make directory %s", path);

	copy = strdup(path);
	if (!copy)
		return error_oom(err);
	for (char *p = strchr(copy + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		if (mkdirat(dir_fd, copy, mode) < 0 && errno != EEXIST)
			return error_sys(err, errno, "make directory %s", copy);
		*p = '/';
	}
	if (mkdirat(dir_fd, path, mode) < 0 && errno != EEXIST)
		return error_sys(err, errno, "make directory %s", path);
	return 0;
}

int dir_make_open(int dir_fd, const char *path, mode_t mode, struct error *err)
{
	int fd = openat(dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc;

	if (fd >= 0)
		return fd;
	rc = dir_make(dir_fd, path, mode, err);
	if (rc < 0)
		return rc;
	return file_open_at(dir_fd, path, O_RDONLY | O_DIRECTORY, 0, err);
}

/* Not by st_dev, which a bind mount of the same file system shares. When in doubt it is one. */
static bool is_mount_point(int fd)
{
	struct statx st;

	return statx(fd, "", AT_EMPTY_PATH, STATX_TYPE, &st) < 0 ||
	       st.stx_attributes & STATX_ATTR_MOUNT_ROOT;
}

/* Moves a directory into the one above, under a name that is free. */
static int move_up(int from_fd, const char *name, int to_fd)
{
	static unsigned int serial;
	bool opened_up = false;
	char up[64];

	for (;;) {
		snprintf(up, sizeof(up), ".lodge-rm-%d-%u", getpid(), serial++);
		if (renameat(from_fd, name, to_fd, up) == 0 || errno == ENOENT)
			return 0;
		/* The name is taken: a guest may have made it, to be in the way. */
		if (errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR)
			continue;
		/* Moving a directory writes to it, to its "..". */
		if (errno != EACCES || opened_up || fchmodat(from_fd, name, 0700, 0) < 0)
			return -errno;
		opened_up = true;
	}
}

/* Opens a directory to remove what is in it; without root we may have to allow ourselves first. */
static int open_to_empty(int dir_fd, const char *name)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	int fd = openat(dir_fd, name, flags);
	struct stat st;

	if (fd < 0 && errno == EACCES && fchmodat(dir_fd, name, 0700, 0) == 0)
		fd = openat(dir_fd, name, flags);
	if (fd >= 0 && geteuid() != 0 && fstat(fd, &st) == 0 && (st.st_mode & 0700) != 0700)
		fchmod(fd, 0700);
	return fd;
}

/*
 * Depth is not recursion: a guest can nest directories until our stack or descriptors end. A
 * directory that holds directories has them moved up into the one that is being emptied, so the
 * walk is never more than two levels deep.
 */
static int empty_dir(int fd, struct error *err)
{
	for (bool again = true; again;) {
		autodir DIR *dir = NULL;
		struct dirent *entry;
		int copy;

		again = false;
		copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (copy < 0)
			return error_sys(err, errno, "open directory");
		dir = fdopendir(copy);
		if (!dir) {
			close(copy);
			return error_oom(err);
		}
		while ((errno = 0, entry = readdir(dir))) {
			const char *name = entry->d_name;
			autodir DIR *sub = NULL;
			struct dirent *child;
			int sub_fd;

			if (str_eq(name, ".") || str_eq(name, ".."))
				continue;
			if (entry->d_type != DT_DIR) {
				if (unlinkat(fd, name, 0) == 0 || errno == ENOENT)
					continue;
				if (errno != EISDIR)
					return error_sys(err, errno, "remove %s", name);
			}
			if (unlinkat(fd, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
				continue;
			if (errno != ENOTEMPTY && errno != EEXIST)
				return error_sys(err, errno, "remove directory %s", name);
			sub_fd = open_to_empty(fd, name);
			if (sub_fd < 0)
				return error_sys(err, errno, "open directory %s", name);
			if (is_mount_point(sub_fd)) {
				close(sub_fd);
				return error_sys(err, EBUSY, "%s is a mount point", name);
			}
			sub = fdopendir(sub_fd);
			if (!sub) {
				close(sub_fd);
				return error_oom(err);
			}
			while ((errno = 0, child = readdir(sub))) {
				int rc;

				if (str_eq(child->d_name, ".") || str_eq(child->d_name, ".."))
					continue;
				if (unlinkat(sub_fd, child->d_name, 0) == 0)
					continue;
				if (unlinkat(sub_fd, child->d_name, AT_REMOVEDIR) == 0)
					continue;
				rc = move_up(sub_fd, child->d_name, fd);
				if (rc < 0)
					return error_sys(err, -rc, "remove %s/%s", name,
							 child->d_name);
			}
			if (unlinkat(fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT &&
			    errno != ENOTEMPTY)
				return error_sys(err, errno, "remove directory %s", name);
			again = true; /* for what was moved up */
		}
		if (errno)
			return error_sys(err, errno, "read directory");
	}
	return 0;
}

int dir_remove_all(int dir_fd, const char *name, struct error *err)
{
	autofd int fd = -EBADF;

	if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return error_sys(err, errno, "remove %s", name);
	if (unlinkat(dir_fd, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
		return 0;
	if (errno != ENOTEMPTY && errno != EEXIST)
		return error_sys(err, errno, "remove directory %s", name);
	fd = open_to_empty(dir_fd, name);
	if (fd < 0)
		return errno == ENOENT ? 0 : error_sys(err, errno, "open directory %s", name);
	if (is_mount_point(fd))
		return error_sys(err, EBUSY, "%s is a mount point", name);
	if (empty_dir(fd, err) < 0)
		return error_wrap(err, "remove %s", name);
	if (unlinkat(dir_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		return error_sys(err, errno, "remove directory %s", name);
	return 0;
}
