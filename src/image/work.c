/*
 * Work in progress and how it becomes an image. The order of things is what makes a killed command
 * harmless: everything is written and flushed in <state>/tmp/image-RANDOM/, then, under one lock
 * (<state>/images.lock), the directory is renamed to images/sha256/HEX and its row inserted. A
 * directory without a row is garbage only to somebody who holds that lock.
 */
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "image/internal.h"

#include <fcntl.h>
#include <sha2.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>

/* Images that neither a name nor a guest refers to. */
#define DELETE_UNUSED                                                                              \
	"DELETE FROM images WHERE digest NOT IN (SELECT digest FROM image_names) AND "             \
	"digest NOT IN (SELECT image FROM guests WHERE image IS NOT NULL)"

#define WORK_PREFIX "image-"

int image_progress(const struct image_options *options, const char *stage, double fraction,
		   struct error *err)
{
	int rc = 0;

	if (options && options->progress)
		rc = options->progress(options->progress_data, stage, fraction);
	if (rc == -EINTR)
		return error_set(err, EINTR, "interrupted");
	return rc < 0 ? error_sys(err, -rc, "%s", stage) : 0;
}

static int lock_store(struct state *state, struct error *err)
{
	autofd int fd =
		file_open_at(state->fd, "images.lock", O_RDWR | O_CREAT | O_NOFOLLOW, 0600, err);

	if (fd < 0)
		return fd;
	while (flock(fd, LOCK_EX) < 0)
		if (errno != EINTR)
			return error_sys(err, errno, "lock the image store");
	return steal_fd(&fd);
}

/* These directories hold set-user-ID programs that are not the host's: nobody may enter. */
static int open_tmp(struct state *state, struct error *err)
{
	return dir_make_open(state->fd, "tmp", 0700, err);
}

static int open_images(struct state *state, struct error *err)
{
	int rc = dir_make(state->fd, "images", 0700, err);

	return rc < 0 ? rc : dir_make_open(state->fd, "images/sha256", 0700, err);
}

/* Whether `name` in dir_fd is still what fd is. */
static bool is_still(int dir_fd, const char *name, int fd)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && fstatat(dir_fd, name, &b, AT_SYMLINK_NOFOLLOW) == 0 &&
	       a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

int image_work_begin(struct state *state, struct image_work *work, struct error *err)
{
	work->state = state;
	work->tmp_fd = open_tmp(state, err);
	if (work->tmp_fd < 0)
		return work->tmp_fd;
	for (;;) {
		uint64_t salt;

		if (getrandom(&salt, sizeof(salt), 0) != sizeof(salt))
			return error_sys(err, errno, "get random bytes");
		snprintf(work->name, sizeof(work->name), WORK_PREFIX "%016llx",
			 (unsigned long long)salt);
		if (mkdirat(work->tmp_fd, work->name, 0700) < 0)
			return error_sys(err, errno, "make %s/tmp/%s", state->dir, work->name);
		work->fd = file_open_at(work->tmp_fd, work->name, O_RDONLY | O_DIRECTORY, 0, err);
		/* A sweeper can be faster than the lock; then there is a next time. */
		if (work->fd >= 0 && flock(work->fd, LOCK_EX | LOCK_NB) == 0 &&
		    is_still(work->tmp_fd, work->name, work->fd))
			return 0;
		if (work->fd < 0 && work->fd != -ENOENT)
			return work->fd;
		fd_close(&work->fd);
	}
}

void image_work_end(struct image_work *work)
{
	struct error err = {0};

	if (work->fd >= 0 && is_still(work->tmp_fd, work->name, work->fd) &&
	    dir_remove_all(work->tmp_fd, work->name, &err) < 0)
		log_warn("%s/tmp: %s", work->state->dir, err.message);
	fd_close(&work->fd);
	fd_close(&work->tmp_fd);
}

char *image_work_path(const struct image_work *work, const char *name)
{
	return str_printf("%s/tmp/%s/%s", work->state->dir, work->name, name);
}

/* Sweeping */

void image_sweep_work(struct state *state)
{
	struct error err = {0};
	autodir DIR *dir = NULL;
	struct dirent *entry;
	autofd int tmp_fd = open_tmp(state, &err);
	int copy = tmp_fd < 0 ? -1 : openat(tmp_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (copy < 0)
		return;
	dir = fdopendir(copy);
	while (dir && (entry = readdir(dir))) {
		autofd int fd = -EBADF;

		if (!str_starts_with(entry->d_name, WORK_PREFIX))
			continue;
		fd = openat(tmp_fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 ||
		    !is_still(tmp_fd, entry->d_name, fd))
			continue;
		log_info("removing %s/tmp/%s, which a killed command left", state->dir,
			 entry->d_name);
		if (dir_remove_all(tmp_fd, entry->d_name, &err) < 0)
			log_warn("%s/tmp: %s", state->dir, err.message);
	}
}

static bool has_row(struct state *state, const char *digest)
{
	autostmt sqlite3_stmt *q = NULL;

	/* When in doubt it is not garbage. */
	return state_query(state, &q, NULL, "SELECT 1 FROM images WHERE digest=?", "s", digest) <
		       0 ||
	       state_row(q, NULL) != 0;
}

static void sweep_images(struct state *state, const struct image_work *trash)
{
	struct error err = {0};
	autodir DIR *dir = NULL;
	struct dirent *entry;
	autofd int lock_fd = lock_store(state, &err);
	autofd int images_fd = lock_fd < 0 ? -1 : open_images(state, &err);
	int copy = images_fd < 0 ? -1 : openat(images_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (copy < 0)
		return;
	if (state_exec(state, &err, DELETE_UNUSED, "") < 0)
		log_warn("image store: %s", err.message);
	dir = fdopendir(copy);
	while (dir && (entry = readdir(dir))) {
		char digest[sizeof(DIGEST_PREFIX) + HEX_LENGTH];

		if (strlen(entry->d_name) != HEX_LENGTH)
			continue;
		snprintf(digest, sizeof(digest), DIGEST_PREFIX "%.64s", entry->d_name);
		if (has_row(state, digest))
			continue;
		image_unmount_stale(state, entry->d_name);
		/* Removing takes time; moved away, it needs no lock. */
		if (renameat(images_fd, entry->d_name, trash->fd, entry->d_name) < 0)
			log_warn("%s/images/sha256/%s: %s", state->dir, entry->d_name,
				 strerror(errno));
	}
}

void image_sweep(struct state *state)
{
	autowork struct image_work trash = IMAGE_WORK_INIT;
	struct error err = {0};

	image_sweep_work(state);
	if (image_work_begin(state, &trash, &err) == 0)
		sweep_images(state, &trash);
	else
		log_warn("image store: %s", err.message);
}

/* Publishing */

static void to_hex(const uint8_t *bytes, size_t n, char *hex)
{
	for (size_t i = 0; i < n; i++)
		snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
}

static int hash_file(int fd, uint64_t size_bytes, const struct image_options *options,
		     char hex[static HEX_LENGTH + 1], struct error *err)
{
	enum { CHUNK = 1 << 20 };
	autofree char *buf = malloc(CHUNK);
	uint8_t digest[SHA256_DIGEST_LENGTH];
	uint64_t done = 0;
	SHA2_CTX ctx;
	ssize_t n;
	int rc;

	if (!buf)
		return error_oom(err);
	SHA256Init(&ctx);
	while ((n = fd_read_full(fd, buf, CHUNK, err)) > 0) {
		SHA256Update(&ctx, (const uint8_t *)buf, (size_t)n);
		done += (uint64_t)n;
		rc = image_progress(options, "finishing", (double)done / (double)size_bytes, err);
		if (rc < 0)
			return rc;
	}
	if (n < 0)
		return (int)n;
	SHA256Final(digest, &ctx);
	to_hex(digest, sizeof(digest), hex);
	return 0;
}

/* Hashes the EROFS file, completes the manifest and writes it; all of it is on the medium then. */
static int complete(struct image_work *work, json_t *manifest, char **text, uint64_t *size_bytes,
		    int64_t *created_at, const struct image_options *options, struct error *err)
{
	autofd int fd = file_open_at(work->fd, ROOTFS_FILE, O_RDONLY, 0, err);
	char hex[HEX_LENGTH + 1];
	struct stat st;
	int rc;

	if (fd < 0)
		return fd;
	/* Flushing begins while the file is hashed. */
	sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
	if (fchmod(fd, 0600) < 0 || fstat(fd, &st) < 0)
		return error_sys(err, errno, "stat %s", ROOTFS_FILE);
	rc = hash_file(fd, (uint64_t)st.st_size, options, hex, err);
	if (rc < 0)
		return rc;
	if (fsync(fd) < 0)
		return error_sys(err, errno, "flush %s to disk", ROOTFS_FILE);
	*size_bytes = (uint64_t)st.st_size;
	*created_at = state_now();
	if (json_object_set_new(manifest, "schema", json_integer(1)) < 0 ||
	    json_object_set_new(manifest, "architecture", json_string("amd64")) < 0 ||
	    json_object_set_new(
		    manifest, "rootfs",
		    json_pack("{s:s, s:I}", "sha256", hex, "size", (json_int_t)st.st_size)) < 0)
		return error_oom(err);
	*text = json_dumps(manifest, JSON_INDENT(2) | JSON_SORT_KEYS);
	if (!*text)
		return error_oom(err);
	return file_replace_at(work->fd, MANIFEST_FILE, *text, strlen(*text), 0600, err);
}

/* Under the store's lock and in a transaction: either the image is there already (the same tree from
 * the same source), or ours moves to its place. */
static int move_in(struct image_work *work, const char *digest, bool known, struct error *err)
{
	struct state *state = work->state;
	autofd int images_fd = open_images(state, err);
	const char *hex = digest + strlen(DIGEST_PREFIX);
	int rc;

	if (images_fd < 0)
		return images_fd;
	if (faccessat(images_fd, hex, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
		if (known)
			return 0;
		/* A command was killed between its rename and its row. */
		image_unmount_stale(state, hex);
		rc = dir_remove_all(images_fd, hex, err);
		if (rc < 0)
			return rc;
	}
	if (renameat(work->tmp_fd, work->name, images_fd, hex) < 0)
		return error_sys(err, errno, "move the image to %s/images/sha256/%s", state->dir,
				 hex);
	if (fsync(images_fd) < 0)
		return error_sys(err, errno, "flush %s/images/sha256 to disk", state->dir);
	return 0;
}

static int insert(struct image_work *work, const char *name, const char *digest, const char *text,
		  uint64_t size_bytes, int64_t created_at, struct error *err)
{
	struct state *state = work->state;
	bool known = has_row(state, digest);
	int rc = move_in(work, digest, known, err);

	if (rc == 0 && !known)
		rc = state_exec(state, err,
				"INSERT INTO images (digest, size_bytes, created_at, manifest) "
				"VALUES (?, ?, ?, ?)",
				"siis", digest, (int64_t)size_bytes, created_at, text);
	if (rc >= 0)
		rc = state_exec(state, err,
				"INSERT INTO image_names (name, digest) VALUES (?, ?) "
				"ON CONFLICT (name) DO UPDATE SET digest=excluded.digest",
				"ss", name, digest);
	/* The name may have been another image's until now. */
	if (rc >= 0)
		rc = state_exec(state, err, DELETE_UNUSED, "");
	return rc < 0 ? rc : 0;
}

int image_publish(struct image_work *work, const char *name, json_t *manifest, struct image **image,
		  const struct image_options *options, struct error *err)
{
	char digest[sizeof(DIGEST_PREFIX) + HEX_LENGTH] = DIGEST_PREFIX;
	struct state *state = work->state;
	uint8_t hash[SHA256_DIGEST_LENGTH];
	autofree char *text = NULL;
	autofd int lock_fd = -EBADF;
	uint64_t size_bytes = 0;
	int64_t created_at = 0;
	SHA2_CTX ctx;
	int rc;

	rc = complete(work, manifest, &text, &size_bytes, &created_at, options, err);
	if (rc < 0)
		return rc;
	SHA256Init(&ctx);
	SHA256Update(&ctx, (const uint8_t *)text, strlen(text));
	SHA256Final(hash, &ctx);
	to_hex(hash, sizeof(hash), digest + strlen(DIGEST_PREFIX));

	lock_fd = lock_store(state, err);
	if (lock_fd < 0)
		return lock_fd;
	rc = state_begin(state, err);
	if (rc < 0)
		return rc;
	rc = insert(work, name, digest, text, size_bytes, created_at, err);
	if (rc < 0)
		state_rollback(state);
	else
		rc = state_commit(state, err);
	fd_close(&lock_fd);
	image_sweep(state);
	return rc < 0 || !image ? rc : image_find(state, name, image, err);
}
