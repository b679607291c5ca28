/*
 * The image store. An image is a root filesystem in one read-only EROFS file and a manifest that
 * says how it is to be run; both lie in <state>/images/sha256/HEX/ as root.erofs and
 * manifest.json, where HEX is the SHA-256 of the manifest's text, and the manifest holds the
 * SHA-256 of the EROFS file.
 *
 * An image lives as long as a name or a guest refers to it. Import and build give the name to the
 * new image when it was another's; the old one goes when no guest uses it any more.
 *
 * Everything here may run at the same time in several processes and may be killed at any moment:
 * work happens in <state>/tmp/image-RANDOM/, locked by flock(), and becomes an image by one rename
 * and one database transaction. What a killed command left is swept by the next that changes the
 * store.
 *
 * The manifest (all but the first three keys may be missing):
 *
 *     { "schema": 1, "architecture": "amd64",
 *       "rootfs": {"sha256": HEX, "size": BYTES},
 *       "config": {"cmd": [...], "entrypoint": [...], "env": ["K=V"...], "workdir": "/",
 *                  "user": "0:0", "stop_signal": "SIGRTMIN+3"},
 *       "kernel": "/boot/vmlinuz-6.1.0-30-amd64", "initrd": "/boot/initrd.img-6.1.0-30-amd64",
 *       "os": "Debian GNU/Linux 12 (bookworm)", "source": "debian bookworm" }
 */
#pragma once

#include "base/error.h"
#include "base/str.h"
#include "state/state.h"

#include <jansson.h>
#include <stdint.h>

struct image {
	char *digest;        /* sha256:HEX */
	char *name;          /* the one it was found by, else any of its names; NULL: it has none */
	uint64_t size_bytes; /* of the EROFS file */
	int64_t created_at;
	json_t *manifest;
};

void image_free(struct image *image);

static inline void cleanup_image(struct image **image)
{
	image_free(*image);
}

#define autoimage __attribute__((cleanup(cleanup_image)))

/*
 * What a user may call an image: letters, digits and "._-/:", begins with a letter or a digit, at
 * most 128 characters, and nothing that could be taken for a digest ("sha256:...", or 12 and more
 * hexadecimal digits). Errors: EINVAL.
 */
int image_check_name(const char *name, struct error *err);

/* By name, by digest, or by the first digits (4 or more) of a digest. Errors: ENOENT; EINVAL where
 * several digests begin so. */
int image_find(struct state *state, const char *name_or_digest, struct image **image,
	       struct error *err);

/* All images, one entry for each name, sorted by name; those without a name last. */
struct image_list {
	struct image **v;
	size_t n;
};

int image_list(struct state *state, struct image_list *list, struct error *err);
void image_list_free(struct image_list *list);

#define autoimagelist __attribute__((cleanup(image_list_free)))

/* <state>/images/sha256/HEX/root.erofs; the caller frees it; NULL when out of memory. */
char *image_rootfs_path(struct state *state, const char *digest);

/* How the image wants to be run. Empty and NULL: it does not say. Strings are owned. */
struct image_config {
	struct strv entrypoint, cmd, env;
	char *workdir, *user, *stop_signal;
	char *kernel, *initrd; /* paths within the image, symbolic links resolved */
};

int image_get_config(const struct image *image, struct image_config *config, struct error *err);
void image_config_free(struct image_config *config);

#define autoimageconfig __attribute__((cleanup(image_config_free)))

/* What import and build take; zeroes are the defaults. */
struct image_options {
	/* Default command and environment instead of what the source says or the tree suggests
	 * (/sbin/init, else /bin/sh). NULL: not given. */
	const struct strv *cmd, *env;
	/*
	 * Called with what is being done and how much of it is (0 to 1; below 0: unknown), some
	 * times a second at most. A negative errno ends the work, which then fails with it.
	 */
	int (*progress)(void *data, const char *stage, double fraction);
	void *progress_data;
};

/*
 * Makes an image from a tarball (plain or compressed by gzip, bzip2, xz or zstd; "-" is stdin) or
 * from a directory. Owners, modes, times, extended attributes with capabilities and ACLs, hard
 * links, device nodes and FIFOs are kept. Nothing in a tarball can reach out of the tree that it
 * unpacks to. `image` may be NULL. Errors: EINVAL (not a tarball, damaged, hostile), ENOSPC,
 * EPERM (needs root), ...; nothing is left behind.
 */
int image_import(struct state *state, const char *name, const char *path,
		 const struct image_options *options, struct image **image, struct error *err);

/*
 * Makes a Debian image that boots with systemd, by mmdebstrap, from the mirrors and with the keys
 * that the host's apt uses. `packages` are installed too. Errors: EINVAL (unknown suite, or no
 * usable mirror), ECHILD (the tool's words), ...
 */
int image_build_debian(struct state *state, const char *name, const char *suite,
		       const struct strv *packages, const struct image_options *options,
		       struct image **image, struct error *err);

enum image_compression { IMAGE_PLAIN, IMAGE_GZIP, IMAGE_XZ, IMAGE_ZSTD };

/* By a file name's end (.gz, .tgz, .xz, .txz, .zst, .tzst). */
enum image_compression image_compression_of(const char *path);

/* Writes the tree as a tarball; image_import() of it makes the same tree with the same
 * configuration. The descriptor stays the caller's. */
int image_export(struct state *state, const struct image *image, int fd,
		 enum image_compression compression, const struct image_options *options,
		 struct error *err);

/*
 * Removes a name (or, by digest, an image without one); the image goes with its last name. Errors:
 * ENOENT; EBUSY with the names of the guests that use it; EINVAL where a digest was given of an
 * image that has several names.
 */
int image_remove(struct state *state, const char *name_or_digest, struct error *err);

/*
 * An image's file system, mounted once on the host (at <run>/images/HEX) for all guests, so that
 * they share one copy in the page cache.
 */
struct image_mount {
	char hex[65];
	int tree_fd; /* a detached clone of the mount: read-only, nodev; idmap it, lay an overlay
		      * over it, or move it somewhere. The caller closes it when it has done so. */
	int lock_fd; /* keeps the mount alive; open as long as the guest may mount it again */
};

#define IMAGE_MOUNT_INIT                                                                           \
	{                                                                                          \
		.tree_fd = -EBADF, .lock_fd = -EBADF                                               \
	}

/* Errors: ENOENT (the image is gone), EPERM (needs CAP_SYS_ADMIN), ENODEV (no EROFS). */
int image_mount(struct state *state, const char *digest, struct image_mount *mount,
		struct error *err);

/*
 * Gives the lock back and takes the host's mount away when no other guest holds it. Guests that
 * still have a clone keep it. Closes both descriptors; a mount of zeroes and closed descriptors is
 * fine. Nobody has to call it: the next image_mount() takes over what a killed process left.
 */
void image_unmount(struct state *state, struct image_mount *mount);

/* Removes what killed imports and builds left. */
void image_sweep_work(struct state *state);

/* Takes away the mounts that no guest holds: after monitors were killed. */
void image_unmount_unused(struct state *state);
