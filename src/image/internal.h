/* What the files of image/ share. */
#pragma once

#include "base/cleanup.h"
#include "base/json.h"
#include "image/image.h"

#include <sys/stat.h>

#define DIGEST_PREFIX "sha256:"
#define ROOTFS_FILE   "root.erofs"
#define MANIFEST_FILE "manifest.json"

enum { HEX_LENGTH = 64 };

/* Reports progress; the callback's error ends the work. A text that says what was interrupted is
 * the caller's. */
int image_progress(const struct image_options *options, const char *stage, double fraction,
		   struct error *err);

/* The hexadecimal digits of what may be a digest or the beginning of one; else NULL. */
const char *digest_digits(const char *word);

/* Makes an image of a row. Columns: digest, size_bytes, created_at, manifest, name. */
int image_from_row(sqlite3_stmt *row, struct image **image, struct error *err);

/*
 * Work in progress: a directory <state>/tmp/image-RANDOM that nobody else removes as long as its
 * descriptor, or a copy that a helper program inherited, is open: it holds a flock().
 */
struct image_work {
	struct state *state;
	char name[32];
	int tmp_fd; /* <state>/tmp */
	int fd;     /* the directory */
};

#define IMAGE_WORK_INIT                                                                            \
	{                                                                                          \
		.tmp_fd = -EBADF, .fd = -EBADF                                                     \
	}

int image_work_begin(struct state *state, struct image_work *work, struct error *err);

/* Removes the directory where it still is. */
void image_work_end(struct image_work *work);

#define autowork __attribute__((cleanup(image_work_end)))

/* An absolute path of something in it, for helper programs. The caller frees it. */
char *image_work_path(const struct image_work *work, const char *name);

/*
 * Turns root.erofs in the working directory and a manifest, whose "rootfs" is set
 * here, into an image with this name. When it returns 0 the image survives a power cut.
 */
int image_publish(struct image_work *work, const char *name, json_t *manifest, struct image **image,
		  const struct image_options *options, struct error *err);

/*
 * Removes what no row or name refers to and what killed commands left. Failures are logged, not
 * reported: the next command tries again.
 */
void image_sweep(struct state *state);

/* Takes the host's mount of an image away unless a guest holds it; a missing one is fine. */
void image_unmount_stale(struct state *state, const char *hex);

/* A detached mount of an EROFS file; with a loop device where the kernel, or the caller, wants it.
 */
int image_mount_file(const char *path, bool by_loop, struct error *err);

/* Describes the tree below root_fd: default command, kernel, operating system. */
int manifest_from_tree(int root_fd, const char *source, const struct image_options *options,
		       json_t **manifest, struct error *err);

/* PRETTY_NAME of an os-release(5) text, without its quotes; NULL where there is none. */
char *manifest_os_name(const char *os_release);

/* Takes over the configuration that an exported image carries (JSON text). */
int manifest_set_config(json_t *manifest, const char *config_text,
			const struct image_options *options, struct error *err);

/* The "config" of a manifest with kernel etc. left out, as text for an exported tarball. */
char *manifest_config_text(const json_t *manifest);

/* On the root directory in an exported tarball: the manifest's "config". */
#define CONFIG_XATTR "user.lodge.config"

/*
 * Unpacks a tarball from fd into root_fd. *config is what CONFIG_XATTR said, or NULL. size_bytes
 * is the size of the compressed file for the progress (0: unknown).
 */
struct unpack {
	int root_fd;
	uint64_t size_bytes;
	const struct image_options *options;
	char *config;       /* out */
	uint64_t n_members; /* out */
};

int unpack_tarball(struct unpack *unpack, int fd, struct error *err);

/* A member's path without leading and double slashes and "." components; "" is the root. Errors:
 * EINVAL for "..", ENAMETOOLONG. */
int unpack_clean_path(const char *path, char *clean, size_t size, struct error *err);

/*
 * A program that works for us. Every line that it says goes to `line`, which keeps in `why` what
 * could be the reason of a failure (helper_keep_last() keeps just the last) and may change `stage`,
 * which is reported as progress some ten times a second.
 */
struct helper {
	const char *const *argv;
	const char *package; /* that it comes in */
	const struct image_options *options;
	const char *stage;
	void (*line)(struct helper *helper, const char *line);
	char why[512];
};

void helper_keep_last(struct helper *helper, const char *line);

/* Errors: ENOENT (not installed), ECHILD (failed), ENOSPC (failed for that), and what the progress
 * callback returned, in which case the program is gone. */
int helper_run(struct helper *helper, const struct image_work *work, struct error *err);

/* Makes the EROFS file `path` of a directory; what matches one of the patterns (extended regular
 * expressions over paths below the directory) is left out. */
int erofs_make(const struct image_work *work, const char *path, const char *directory,
	       const struct strv *leave_out, const struct image_options *options,
	       struct error *err);

/* From the tree `name` in the working directory to its root.erofs and a manifest; the tree is gone
 * then. `config` may be NULL. */
int import_tree(struct image_work *work, const char *name, const char *source, const char *config,
		const struct image_options *options, json_t **manifest, struct error *err);

/* Adds to the error -ENOSPC what can be done; returns rc. */
int image_no_space_hint(struct state *state, int rc, struct error *err);

/* Patterns for what has to stay out of an image of a directory of the host: what is mounted below
 * it, and Lodge's own state. */
int directory_leave_out(struct state *state, const char *directory, struct strv *patterns,
			struct error *err);
