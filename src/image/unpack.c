/*
 * Unpacks a tarball that nobody vouches for. Every member is reached by descriptors below the
 * staging root (openat2(2) with RESOLVE_IN_ROOT: a symbolic link, also an absolute one, is resolved
 * as it would be with this root, and never leads out of it); the last component is never followed.
 * Names with ".." are refused: no honest program writes them.
 */
#include "base/file.h"
#include "image/archive.h"
#include "image/internal.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <zlib.h>

enum {
	PROGRESS_BYTES = 4 << 20, /* between two looks at the clock and the free space */
	INPUT_BLOCK = 256 << 10,
	RESERVE_BYTES = 16 << 20, /* of the disk stay free, for the database and others */
};

/* Directories get their times last: each member that is put into them changes these. */
struct dir_time {
	char *path;
	struct timespec mtime;
};

struct unpacker {
	struct unpack *u;
	struct archive *a;
	gzFile input;
	char *block; /* of INPUT_BLOCK bytes */
	struct dir_time *dirs;
	size_t n_dirs, room_dirs;
	char parent[PATH_MAX];    /* the path behind parent_fd */
	int parent_fd;            /* members mostly follow their neighbours */
	uint64_t unchecked_bytes; /* written since the last look at the free space */
	uint64_t room_bytes;      /* what all files together may have, with their holes */
};

int unpack_clean_path(const char *path, char *clean, size_t size, struct error *err)
{
	size_t at = 0;

	for (const char *p = path; *p;) {
		size_t len = strcspn(p, "/");

		if (len == 2 && !strncmp(p, "..", 2))
			return error_set(err, EINVAL, "'%.200s' leads out of the tree", path);
		if (len > NAME_MAX || at + len + 2 > size)
			return error_sys(err, ENAMETOOLONG, "'%.100s...'", path);
		if (len > 0 && !(len == 1 && *p == '.')) {
			if (at)
				clean[at++] = '/';
			memcpy(clean + at, p, len);
			at += len;
		}
		p += len;
		p += *p == '/';
	}
	clean[at] = '\0';
	return 0;
}

static int archive_failed(struct archive *a, struct error *err)
{
	const char *why = la.archive_error_string(a);
	int code = la.archive_errno(a);

	if (code == ENOMEM)
		return error_oom(err);
	return error_set(err, EINVAL, "the tarball is damaged or cut short (%s)",
			 why ? why : "unknown reason");
}

/* What a full disk would do to others is worse than what it does to us. */
static int check_space(struct unpacker *x, uint64_t more, struct error *err)
{
	const struct unpack *u = x->u;
	struct statvfs fs;
	int rc;

	x->unchecked_bytes += more;
	if (x->unchecked_bytes < PROGRESS_BYTES)
		return 0;
	if (fstatvfs(u->root_fd, &fs) < 0)
		return error_sys(err, errno, "look for free space");
	if ((uint64_t)fs.f_bavail * fs.f_frsize < x->unchecked_bytes + RESERVE_BYTES)
		return error_sys(err, ENOSPC, "unpack");
	x->unchecked_bytes = 0;
	rc = image_progress(u->options, "unpacking",
			    u->size_bytes ? (double)gzoffset(x->input) / (double)u->size_bytes : -1,
			    err);
	return rc;
}

static int ensure_dir(int root_fd, char *path, struct error *err)
{
	autofd int fd = file_open_in_root(root_fd, path, O_PATH | O_DIRECTORY, 0, NULL);
	autofd int parent = -EBADF;
	char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;

	if (fd >= 0)
		return 0;
	if (fd != -ENOENT)
		return error_sys(err, -fd, "enter %s", path);
	if (slash)
		*slash = '\0';
	parent = file_open_in_root(root_fd, slash ? path : ".", O_PATH | O_DIRECTORY, 0, err);
	if (slash)
		*slash = '/';
	if (parent < 0)
		return parent;
	/* EEXIST: a symbolic link to nowhere. */
	if (mkdirat(parent, name, 0755) < 0 || fchmodat(parent, name, 0755, 0) < 0)
		return error_sys(err, errno, "make the directory %s", path);
	return 0;
}

/* The directory `path` below root, made where it is missing. A descriptor for the caller. */
static int open_dir(int root_fd, char *path, struct error *err)
{
	int fd = file_open_in_root(root_fd, *path ? path : ".", O_RDONLY | O_DIRECTORY, 0, err);

	if (fd != -ENOENT)
		return fd;
	for (char *end = path;; *end++ = '/') {
		bool last;
		int rc;

		end += strcspn(end, "/");
		last = !*end;
		*end = '\0';
		rc = ensure_dir(root_fd, path, err);
		if (rc < 0)
			return rc;
		if (last)
			return file_open_in_root(root_fd, path, O_RDONLY | O_DIRECTORY, 0, err);
	}
}

/* Splits off the last component and opens its parent; the descriptor stays the unpacker's. */
static int enter_parent(struct unpacker *x, char *path, char **name, struct error *err)
{
	char *slash = strrchr(path, '/');
	const char *parent = slash ? path : "";

	*name = slash ? slash + 1 : path;
	if (slash)
		*slash = '\0';
	if (x->parent_fd < 0 || !str_eq(parent, x->parent)) {
		char copy[PATH_MAX];

		snprintf(copy, sizeof(copy), "%s", parent);
		fd_close(&x->parent_fd);
		x->parent_fd = open_dir(x->u->root_fd, copy, err);
		snprintf(x->parent, sizeof(x->parent), "%s", parent);
	}
	if (slash)
		*slash = '/';
	return x->parent_fd;
}

/* Makes room for a member: like tar, a later one replaces an earlier one of the same name, but no
 * directory that has something in it. */
static int clear_way(struct unpacker *x, int parent, const char *name, bool is_dir, bool *have_dir,
		     struct error *err)
{
	struct stat st;

	*have_dir = false;
	if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : error_sys(err, errno, "look at %s", name);
	if (S_ISDIR(st.st_mode) && is_dir) {
		*have_dir = true;
		return 0;
	}
	/* The remembered parent could have been reached through what goes now. */
	if (S_ISDIR(st.st_mode) || S_ISLNK(st.st_mode))
		x->parent[0] = '/';
	if (unlinkat(parent, name, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) < 0)
		return error_sys(err, errno, "replace %s", name);
	return 0;
}

static int write_data(struct unpacker *x, struct archive_entry *entry, int fd, struct error *err)
{
	int64_t size = la.archive_entry_size(entry);
	const void *block;
	la_int64_t offset;
	size_t len;
	int rc;

	/* Holes count too: the EROFS file has none, and a tarball of a kilobyte could keep us busy
	 * for hours. */
	if (size < 0 || (uint64_t)size > x->room_bytes) {
		char text[16];

		error_set(err, ENOSPC, "not enough space for a file of %s",
			  format_size((uint64_t)size, text));
		return -ENOSPC;
	}
	x->room_bytes -= (uint64_t)size;
	while ((rc = la.archive_read_data_block(x->a, &block, &len, &offset)) == ARCHIVE_OK) {
		const char *p = block;

		rc = check_space(x, len, err);
		if (rc < 0)
			return rc;
		while (len > 0) {
			ssize_t n = pwrite(fd, p, len, offset);

			if (n < 0 && errno == EINTR)
				continue;
			if (n < 0)
				return error_sys(err, errno, "write");
			p += n;
			offset += n;
			len -= (size_t)n;
		}
	}
	if (rc != ARCHIVE_EOF)
		return archive_failed(x->a, err);
	if (ftruncate(fd, size) < 0)
		return error_sys(err, errno, "set the size to %lld", (long long)size);
	return 0;
}

static int remember_time(struct unpacker *x, const char *path, struct timespec mtime,
			 struct error *err)
{
	if (x->n_dirs == x->room_dirs) {
		size_t room = x->room_dirs ? 2 * x->room_dirs : 256;
		struct dir_time *grown = realloc(x->dirs, room * sizeof(*grown));

		if (!grown)
			return error_oom(err);
		x->dirs = grown;
		x->room_dirs = room;
	}
	x->dirs[x->n_dirs].mtime = mtime;
	x->dirs[x->n_dirs].path = strdup(path);
	return x->dirs[x->n_dirs++].path ? 0 : error_oom(err);
}

/* Owner before mode (chown() takes set-user-ID away) and before capabilities (also those). `path`
 * leads through /proc/self/fd to the parent that was opened, so nothing on the way can be swapped.
 */
static int set_metadata(struct unpacker *x, struct archive_entry *entry, int parent,
			const char *name, const char *whole_path, struct error *err)
{
	mode_t type = la.archive_entry_filetype(entry);
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};
	char path[NAME_MAX + 40];
	int rc;

	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", parent, name);
	if (fchownat(parent, name, (uid_t)la.archive_entry_uid(entry),
		     (gid_t)la.archive_entry_gid(entry), AT_SYMLINK_NOFOLLOW) < 0) {
		rc = error_sys(err, errno, "set the owner");
		if (rc == -EPERM)
			error_hint(err, "importing a tarball needs root");
		return rc;
	}
	if (type != AE_IFLNK && fchmodat(parent, name, la.archive_entry_perm(entry) & 07777, 0) < 0)
		return error_sys(err, errno, "set the mode");
	rc = attributes_set(entry, path, *whole_path ? NULL : &x->u->config, err);
	if (rc < 0 || !la.archive_entry_mtime_is_set(entry))
		return rc;
	times[1].tv_sec = la.archive_entry_mtime(entry);
	times[1].tv_nsec = la.archive_entry_mtime_nsec(entry);
	if (type == AE_IFDIR)
		return remember_time(x, whole_path, times[1], err);
	if (utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW) < 0)
		return error_sys(err, errno, "set the time");
	return 0;
}

static int make_hard_link(struct unpacker *x, int parent, const char *name, const char *target,
			  struct error *err)
{
	char clean[PATH_MAX], fd_path[40];
	autofd int dir = -EBADF;
	autofd int fd = -EBADF;
	struct stat st;
	char *slash;
	int rc;

	rc = unpack_clean_path(target, clean, sizeof(clean), err);
	if (rc < 0)
		return error_wrap(err, "a hard link");
	slash = strrchr(clean, '/');
	if (slash)
		*slash = '\0';
	dir = file_open_in_root(x->u->root_fd, slash ? clean : ".", O_PATH | O_DIRECTORY, 0, err);
	if (dir < 0)
		return error_wrap(err, "a hard link");
	fd = openat(dir, slash ? slash + 1 : clean, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_sys(err, errno, "a hard link to '%.200s'", target);
	if (S_ISDIR(st.st_mode))
		return error_sys(err, EISDIR, "a hard link to '%.200s'", target);
	snprintf(fd_path, sizeof(fd_path), "/proc/self/fd/%d", fd);
	if (linkat(AT_FDCWD, fd_path, parent, name, AT_SYMLINK_FOLLOW) < 0)
		return error_sys(err, errno, "a hard link to '%.200s'", target);
	return 0;
}

static int make_file(struct unpacker *x, struct archive_entry *entry, int parent, const char *name,
		     struct error *err)
{
	autofd int fd =
		openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	return fd < 0 ? error_sys(err, errno, "create it") : write_data(x, entry, fd, err);
}

/* Returns 1 where there is nothing to set owner, mode and so on of. */
static int make_member(struct unpacker *x, struct archive_entry *entry, int parent,
		       const char *name, bool have_dir, struct error *err)
{
	const char *hard_link = la.archive_entry_hardlink(entry);
	mode_t type = la.archive_entry_filetype(entry);
	const char *target;
	int rc;

	if (hard_link) {
		rc = make_hard_link(x, parent, name, hard_link, err);
		return rc < 0 ? rc : 1;
	}
	switch (type) {
	case AE_IFREG:
		return make_file(x, entry, parent, name, err);
	case AE_IFDIR:
		if (!have_dir && mkdirat(parent, name, 0700) < 0)
			return error_sys(err, errno, "make the directory");
		return 0;
	case AE_IFLNK:
		target = la.archive_entry_symlink(entry);
		if (!target || symlinkat(target, parent, name) < 0)
			return error_sys(err, target ? errno : EINVAL, "make the symbolic link");
		return 0;
	case AE_IFCHR:
	case AE_IFBLK:
	case AE_IFIFO:
		if (mknodat(parent, name, type | 0600,
			    makedev(la.archive_entry_rdevmajor(entry),
				    la.archive_entry_rdevminor(entry))) < 0)
			return error_sys(err, errno, "make the device node");
		return 0;
	case AE_IFSOCK: /* means nothing without the process that listens */
		return 1;
	default:
		return error_set(err, EINVAL, "it is of an unknown kind");
	}
}

static int unpack_member(struct unpacker *x, struct archive_entry *entry, struct error *err)
{
	const char *raw = la.archive_entry_pathname(entry);
	char path[PATH_MAX], *name;
	bool have_dir, is_dir = la.archive_entry_filetype(entry) == AE_IFDIR;
	int parent, rc;

	if (!raw)
		return error_set(err, EINVAL, "a member's name is not UTF-8");
	rc = unpack_clean_path(raw, path, sizeof(path), err);
	if (rc < 0)
		return rc;
	if (!*path) {
		if (!is_dir)
			return error_set(err, EINVAL, "the root is not a directory");
		return set_metadata(x, entry, x->u->root_fd, ".", "", err);
	}
	parent = enter_parent(x, path, &name, err);
	if (parent < 0)
		return parent;
	/* A hard link to itself, which tar writes for a file that is named twice. */
	if (la.archive_entry_hardlink(entry) && str_eq(la.archive_entry_hardlink(entry), raw))
		return 0;
	x->u->n_members++;
	rc = clear_way(x, parent, name, is_dir, &have_dir, err);
	if (rc == 0)
		rc = make_member(x, entry, parent, name, have_dir, err);
	if (rc == 0)
		rc = set_metadata(x, entry, parent, name, path, err);
	if (rc < 0)
		return error_wrap(err, "'%.200s'", path);
	/* An inode is space too. */
	return check_space(x, 4096, err);
}

static int set_dir_times(struct unpacker *x, struct error *err)
{
	while (x->n_dirs > 0) {
		struct dir_time *dir = &x->dirs[--x->n_dirs];
		struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, dir->mtime};
		autofd int fd = file_open_in_root(x->u->root_fd, *dir->path ? dir->path : ".",
						  O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, NULL);
		int rc = fd >= 0 ? futimens(fd, times) : 0; /* replaced since */

		free(dir->path);
		if (rc < 0)
			return error_sys(err, errno, "set a directory's time");
	}
	return 0;
}

static int unpack_all(struct unpacker *x, struct error *err)
{
	struct archive_entry *entry;
	int rc;

	for (;;) {
		rc = la.archive_read_next_header(x->a, &entry);
		if (rc == ARCHIVE_EOF)
			break;
		/* A warning is about one that we check ourselves: a name that is not UTF-8. */
		if (rc != ARCHIVE_OK && rc != ARCHIVE_WARN)
			return archive_failed(x->a, err);
		rc = unpack_member(x, entry, err);
		if (rc < 0)
			return rc;
	}
	if (x->u->n_members == 0)
		return error_set(err, EINVAL, "there is nothing in it");
	return set_dir_times(x, err);
}

/*
 * gzip is undone here, by zlib, because libarchive does not look at the checksum that it ends with.
 * What is not gzip comes through gzread() as it is.
 */
static la_ssize_t read_input(struct archive *a, void *data, const void **block)
{
	struct unpacker *x = data;
	int n = gzread(x->input, x->block, INPUT_BLOCK), code = Z_OK;
	const char *why;

	*block = x->block;
	/* A stream that is cut short is an error, but not one of gzread()'s return values. */
	why = gzerror(x->input, &code);
	if (n > 0 || (n == 0 && code == Z_OK))
		return n;
	la.archive_set_error(a, EINVAL, "%s", code == Z_ERRNO ? strerror(errno) : why);
	return -1;
}

static int open_input(struct unpacker *x, int fd, struct error *err)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	if (copy < 0)
		return error_sys(err, errno, "read it");
	x->block = malloc(INPUT_BLOCK);
	x->input = gzdopen(copy, "rb");
	if (!x->input)
		close(copy);
	if (!x->block || !x->input)
		return error_oom(err);
	gzbuffer(x->input, INPUT_BLOCK);
	la.archive_read_support_filter_bzip2(x->a);
	la.archive_read_support_filter_xz(x->a);
	la.archive_read_support_filter_zstd(x->a);
	la.archive_read_support_format_tar(x->a);
	if (la.archive_read_open(x->a, x, NULL, read_input, NULL) == ARCHIVE_OK)
		return 0;
	return archive_failed(x->a, err);
}

int unpack_tarball(struct unpack *u, int fd, struct error *err)
{
	struct unpacker x = {.u = u, .parent_fd = -EBADF};
	struct archive_locale locale;
	struct statvfs fs;
	int rc = archive_load(err);

	if (rc < 0)
		return rc;
	if (fstatvfs(u->root_fd, &fs) < 0)
		return error_sys(err, errno, "look for free space");
	x.room_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	x.a = la.archive_read_new();
	if (!x.a)
		return error_oom(err);
	locale = archive_locale_begin();
	rc = open_input(&x, fd, err);
	if (rc == 0)
		rc = unpack_all(&x, err);
	la.archive_read_free(x.a);
	archive_locale_end(&locale);
	if (x.input)
		gzclose_r(x.input);
	free(x.block);
	while (x.n_dirs > 0)
		free(x.dirs[--x.n_dirs].path);
	free(x.dirs);
	fd_close(&x.parent_fd);
	return rc;
}
