/*
 * Files by descriptor. Paths that a guest or an image could have shaped are resolved with
 * openat2() below a directory descriptor, so that no symbolic link leads out of it.
 */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <sys/types.h>

/*
 * Opens `path` as if `root_fd` were "/": symbolic links, also absolute ones, stay inside
 * (openat2(2), RESOLVE_IN_ROOT). O_CLOEXEC is added. Returns a descriptor or a negative errno.
 */
int file_open_in_root(int root_fd, const char *path, int flags, mode_t mode, struct error *err);

/* openat() with O_CLOEXEC added and the error filled. Returns a descriptor or a negative errno. */
int file_open_at(int dir_fd, const char *path, int flags, mode_t mode, struct error *err);

/* Reads the whole file, at most max_bytes (else EFBIG); *data is NUL-terminated and the caller's.
 * size may be NULL. */
int file_read_at(int dir_fd, const char *path, size_t max_bytes, char **data, size_t *size,
		 struct error *err);

/* One write() to an existing file: for /proc, /sys and control groups. */
int file_write_at(int dir_fd, const char *path, const char *text, struct error *err);

/*
 * Replaces or creates a file so that a reader, or the next boot, sees the old content or the
 * new, never a part: temporary file, fsync(), rename(), fsync() of the directory.
 */
int file_replace_at(int dir_fd, const char *path, const void *data, size_t size, mode_t mode,
		    struct error *err);

/* Writes or reads everything, over short counts and EINTR. fd_read_full() returns the bytes read,
 * fewer than size only at the end of the file. */
int fd_write_full(int fd, const void *data, size_t size, struct error *err);
ssize_t fd_read_full(int fd, void *data, size_t size, struct error *err);

/* mkdir -p, relative to dir_fd (AT_FDCWD for ordinary paths); existing directories are fine. */
int dir_make(int dir_fd, const char *path, mode_t mode, struct error *err);

/* Opens a directory (O_RDONLY), making it first where it is missing. */
int dir_make_open(int dir_fd, const char *path, mode_t mode, struct error *err);

/*
 * Removes `name` below dir_fd with all that is in it: never follows a symbolic link, never
 * crosses into a mounted file system (EBUSY), however deep the tree is. A missing name is success.
 */
int dir_remove_all(int dir_fd, const char *name, struct error *err);
