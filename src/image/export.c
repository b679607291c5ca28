/*
 * A tarball of an image's tree: pax format, with numeric owners, nanoseconds, extended attributes,
 * ACLs and hard links. The configuration travels as an extended attribute of the root directory,
 * CONFIG_XATTR, which other programs ignore.
 */
#include "base/file.h"
#include "image/archive.h"
#include "image/internal.h"

#include <fcntl.h>
#include <limits.h>
#include <search.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

/* The first path of an inode with several links. */
struct link {
	ino_t ino;
	char *path;
};

struct exporter {
	const struct image_options *options;
	struct archive *a;
	struct archive_entry *entry;
	int root_fd;
	struct strv todo; /* directories whose contents are still to be written */
	void *links;      /* struct link by inode number, tsearch(3) */
	uint64_t n_done, n_inodes;
	char *config; /* JSON */
	char *buf;
};

enum { BUF_SIZE = 1 << 20 };

static int write_failed(struct exporter *x, struct error *err)
{
	int code = la.archive_errno(x->a);
	const char *why = la.archive_error_string(x->a);

	if (code == ENOMEM)
		return error_oom(err);
	if (code > 0 && code < 4096)
		return error_sys(err, code, "write the tarball");
	return error_set(err, EIO, "write the tarball: %s", why ? why : "unknown reason");
}

static int by_inode(const void *a, const void *b)
{
	const struct link *x = a, *y = b;

	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

static void link_free(void *p)
{
	struct link *l = p;

	free(l->path);
	free(l);
}

/* The path that the inode was written under before; NULL: this is the first. */
static int find_link(struct exporter *x, ino_t ino, const char *path, const char **first,
		     struct error *err)
{
	struct link *l = calloc(1, sizeof(*l)), **found;

	*first = NULL;
	if (!l)
		return error_oom(err);
	l->ino = ino;
	l->path = strdup(path);
	found = l->path ? tsearch(l, &x->links, by_inode) : NULL;
	if (!found) {
		link_free(l);
		return error_oom(err);
	}
	if (*found != l) {
		*first = (*found)->path;
		link_free(l);
	}
	return 0;
}

static int add_attribute(struct exporter *x, const char *path, const char *name, struct error *err)
{
	ssize_t size = lgetxattr(path, name, x->buf, BUF_SIZE);

	if (size < 0)
		return error_sys(err, errno, "read the attribute %s", name);
	if (str_eq(name, "system.posix_acl_access"))
		return acl_to_entry(x->entry, ARCHIVE_ENTRY_ACL_TYPE_ACCESS, x->buf, (size_t)size,
				    err);
	if (str_eq(name, "system.posix_acl_default"))
		return acl_to_entry(x->entry, ARCHIVE_ENTRY_ACL_TYPE_DEFAULT, x->buf, (size_t)size,
				    err);
	if (!str_eq(name, CONFIG_XATTR))
		la.archive_entry_xattr_add_entry(x->entry, name, x->buf, (size_t)size);
	return 0;
}

static int add_attributes(struct exporter *x, int dir_fd, const char *name, struct error *err)
{
	autofree char *names = NULL;
	char path[NAME_MAX + 40];
	ssize_t size;
	int rc = 0;

	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", dir_fd, name);
	size = llistxattr(path, NULL, 0);
	if (size <= 0)
		return size == 0 || errno == ENOTSUP ? 0
						     : error_sys(err, errno, "list the attributes");
	names = malloc((size_t)size);
	if (!names)
		return error_oom(err);
	size = llistxattr(path, names, (size_t)size);
	if (size < 0)
		return error_sys(err, errno, "list the attributes");
	for (char *p = names; rc == 0 && p < names + size; p += strlen(p) + 1)
		rc = add_attribute(x, path, p, err);
	return rc;
}

static int write_header(struct exporter *x, struct error *err)
{
	int rc = la.archive_write_header(x->a, x->entry);

	return rc == ARCHIVE_OK || rc == ARCHIVE_WARN ? 0 : write_failed(x, err);
}

static int write_file(struct exporter *x, int dir_fd, const char *name, uint64_t size_bytes,
		      struct error *err)
{
	autofd int fd = file_open_at(dir_fd, name, O_RDONLY | O_NOFOLLOW, 0, err);
	int rc;

	if (fd < 0)
		return fd;
	while (size_bytes > 0) {
		ssize_t n = fd_read_full(fd, x->buf, BUF_SIZE, err);

		if (n < 0)
			return (int)n;
		if (n == 0)
			return error_set(err, EIO, "%s is shorter than it was", name);
		for (ssize_t at = 0; at < n;) {
			la_ssize_t w = la.archive_write_data(x->a, x->buf + at, (size_t)(n - at));

			if (w <= 0)
				return write_failed(x, err);
			at += w;
		}
		size_bytes -= (uint64_t)n;
		rc = image_progress(x->options, "exporting",
				    x->n_inodes ? (double)x->n_done / (double)x->n_inodes : -1,
				    err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static void set_stat(struct archive_entry *e, const struct stat *st)
{
	la.archive_entry_set_filetype(e, st->st_mode & S_IFMT);
	la.archive_entry_set_perm(e, st->st_mode & 07777);
	la.archive_entry_set_uid(e, st->st_uid);
	la.archive_entry_set_gid(e, st->st_gid);
	la.archive_entry_set_mtime(e, st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
	la.archive_entry_set_size(e, S_ISREG(st->st_mode) ? st->st_size : 0);
	if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode)) {
		la.archive_entry_set_rdevmajor(e, major(st->st_rdev));
		la.archive_entry_set_rdevminor(e, minor(st->st_rdev));
	}
}

static int write_member(struct exporter *x, int dir_fd, const char *name, const char *path,
			const struct stat *st, struct error *err)
{
	char target[PATH_MAX];
	const char *first = NULL;
	int rc;

	x->n_done++;
	la.archive_entry_clear(x->entry);
	set_stat(x->entry, st);
	la.archive_entry_set_pathname(x->entry, path);
	if (st->st_nlink > 1) {
		rc = find_link(x, st->st_ino, path, &first, err);
		if (rc < 0)
			return rc;
	}
	if (first) {
		la.archive_entry_set_hardlink(x->entry, first);
		la.archive_entry_set_size(x->entry, 0);
		return write_header(x, err);
	}
	if (S_ISLNK(st->st_mode)) {
		ssize_t n = readlinkat(dir_fd, name, target, sizeof(target) - 1);

		if (n < 0)
			return error_sys(err, errno, "read the symbolic link");
		target[n] = '\0';
		la.archive_entry_set_symlink(x->entry, target);
	}
	rc = add_attributes(x, dir_fd, name, err);
	if (rc == 0)
		rc = write_header(x, err);
	if (rc == 0 && S_ISREG(st->st_mode))
		rc = write_file(x, dir_fd, name, (uint64_t)st->st_size, err);
	return rc;
}

static int write_directory_header(struct exporter *x, int fd, const char *path, struct error *err)
{
	struct stat st;
	int rc;

	x->n_done++;
	if (fstat(fd, &st) < 0)
		return error_sys(err, errno, "look at it");
	la.archive_entry_clear(x->entry);
	set_stat(x->entry, &st);
	la.archive_entry_set_pathname(x->entry, *path ? path : "./");
	rc = add_attributes(x, fd, ".", err);
	if (rc == 0 && !*path)
		la.archive_entry_xattr_add_entry(x->entry, CONFIG_XATTR, x->config,
						 strlen(x->config));
	return rc < 0 ? rc : write_header(x, err);
}

static int write_entry(struct exporter *x, int dir_fd, const char *directory, const char *name,
		       struct error *err)
{
	autofree char *path = *directory ? str_printf("%s/%s", directory, name) : strdup(name);
	struct stat st;
	int rc = 0;

	if (!path)
		return error_oom(err);
	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		rc = error_sys(err, errno, "look at it");
	else if (S_ISDIR(st.st_mode))
		rc = strv_push(&x->todo, path, err);
	else if (!S_ISSOCK(st.st_mode))
		rc = write_member(x, dir_fd, name, path, &st, err);
	return rc < 0 ? error_wrap(err, "%.200s", path) : 0;
}

/* Backwards: the directories of a directory are taken from the end of the list. */
static int compare_names(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*b)->d_name, (*a)->d_name);
}

/*
 * A directory and what is in it, but of directories only the names, for later. So each comes right
 * before all that is below it, which tar needs to get its time right, and nothing here recurses:
 * how deep the tree is is the image's affair.
 */
static int write_directory(struct exporter *x, const char *directory, struct error *err)
{
	autofd int fd = file_open_in_root(x->root_fd, *directory ? directory : ".",
					  O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, err);
	struct dirent **entries = NULL;
	int n, rc;

	if (fd < 0)
		return fd;
	rc = write_directory_header(x, fd, directory, err);
	if (rc < 0)
		return error_wrap(err, "%.200s", *directory ? directory : "/");
	n = scandirat(fd, ".", &entries, NULL, compare_names);
	if (n < 0)
		return error_sys(err, errno, "read the directory %s", directory);
	for (int i = 0; i < n; i++) {
		const char *name = entries[i]->d_name;

		if (rc == 0 && !str_eq(name, ".") && !str_eq(name, ".."))
			rc = write_entry(x, fd, directory, name, err);
		free(entries[i]);
	}
	free(entries);
	return rc;
}

static int write_tree(struct exporter *x, struct error *err)
{
	struct statvfs fs;
	int rc = strv_push(&x->todo, "", err);

	if (fstatvfs(x->root_fd, &fs) == 0 && fs.f_files > fs.f_ffree)
		x->n_inodes = fs.f_files - fs.f_ffree;
	while (rc == 0 && x->todo.n > 0) {
		autofree char *directory = x->todo.v[--x->todo.n];

		x->todo.v[x->todo.n] = NULL;
		rc = write_directory(x, directory, err);
	}
	if (rc == 0 && la.archive_write_close(x->a) != ARCHIVE_OK)
		rc = write_failed(x, err);
	return rc;
}

enum image_compression image_compression_of(const char *path)
{
	static const struct {
		const char *suffix;
		enum image_compression compression;
	} suffixes[] = {
		{".gz", IMAGE_GZIP}, {".tgz", IMAGE_GZIP}, {".xz", IMAGE_XZ},
		{".txz", IMAGE_XZ},  {".zst", IMAGE_ZSTD}, {".tzst", IMAGE_ZSTD},
	};
	size_t len = strlen(path);

	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		size_t n = strlen(suffixes[i].suffix);

		if (len > n && str_eq(path + len - n, suffixes[i].suffix))
			return suffixes[i].compression;
	}
	return IMAGE_PLAIN;
}

static int open_archive(struct exporter *x, int fd, enum image_compression compression,
			struct error *err)
{
	static const char *const filters[] = {
		[IMAGE_GZIP] = "gzip", [IMAGE_XZ] = "xz", [IMAGE_ZSTD] = "zstd"};

	x->a = la.archive_write_new();
	x->entry = la.archive_entry_new();
	x->buf = malloc(BUF_SIZE);
	if (!x->a || !x->entry || !x->buf || !x->config)
		return error_oom(err);
	la.archive_write_set_format_pax(x->a);
	/* Not also in libarchive's own way. */
	la.archive_write_set_options(x->a, "pax:xattrheader=SCHILY");
	if (compression != IMAGE_PLAIN &&
	    la.archive_write_add_filter_by_name(x->a, filters[compression]) != ARCHIVE_OK)
		return error_set(err, ENOTSUP, "this libarchive cannot compress by %s",
				 filters[compression]);
	/* The same tree gives the same bytes, and all processors help. Older libraries do not know
	 * all of these, which is no matter. */
	if (compression == IMAGE_GZIP)
		la.archive_write_set_options(x->a, "gzip:!timestamp");
	else if (compression != IMAGE_PLAIN)
		la.archive_write_set_options(x->a, compression == IMAGE_XZ ? "xz:threads=0"
									   : "zstd:threads=0");
	la.archive_clear_error(x->a);
	if (la.archive_write_open_fd(x->a, fd) != ARCHIVE_OK)
		return write_failed(x, err);
	return 0;
}

int image_export(struct state *state, const struct image *image, int fd,
		 enum image_compression compression, const struct image_options *options,
		 struct error *err)
{
	struct image_mount mount = IMAGE_MOUNT_INIT;
	struct exporter x = {.options = options};
	struct archive_locale locale;
	int rc = archive_load(err);

	if (rc == 0)
		rc = image_mount(state, image->digest, &mount, err);
	if (rc < 0)
		goto out;
	x.root_fd = mount.tree_fd;
	x.config = manifest_config_text(image->manifest);
	locale = archive_locale_begin();
	rc = open_archive(&x, fd, compression, err);
	if (rc == 0)
		rc = write_tree(&x, err);
	la.archive_entry_free(x.entry);
	la.archive_write_free(x.a);
	archive_locale_end(&locale);
	tdestroy(x.links, link_free);
	strv_free(&x.todo);
	free(x.config);
	free(x.buf);
out:
	image_unmount(state, &mount);
	return rc < 0 && rc != -EINTR
		       ? error_wrap(err, "export %s", image->name ? image->name : image->digest)
		       : rc;
}
