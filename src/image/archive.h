/*
 * libarchive, loaded at its first use: it drags in libxml2 and ICU, which would cost each
 * `lodge` command 1.3 ms of dynamic linking. Functions are called through the table:
 * `la.archive_read_new()`.
 */
#pragma once

#include "base/error.h"

#include <archive.h>
#include <archive_entry.h>
#include <locale.h>

#define ARCHIVE_FUNCTIONS(X)                                                                       \
	X(archive_clear_error)                                                                     \
	X(archive_entry_acl_add_entry)                                                             \
	X(archive_entry_acl_next)                                                                  \
	X(archive_entry_acl_reset)                                                                 \
	X(archive_entry_clear)                                                                     \
	X(archive_entry_filetype)                                                                  \
	X(archive_entry_free)                                                                      \
	X(archive_entry_gid)                                                                       \
	X(archive_entry_hardlink)                                                                  \
	X(archive_entry_mtime)                                                                     \
	X(archive_entry_mtime_is_set)                                                              \
	X(archive_entry_mtime_nsec)                                                                \
	X(archive_entry_new)                                                                       \
	X(archive_entry_pathname)                                                                  \
	X(archive_entry_perm)                                                                      \
	X(archive_entry_rdevmajor)                                                                 \
	X(archive_entry_rdevminor)                                                                 \
	X(archive_entry_set_filetype)                                                              \
	X(archive_entry_set_gid)                                                                   \
	X(archive_entry_set_hardlink)                                                              \
	X(archive_entry_set_mtime)                                                                 \
	X(archive_entry_set_pathname)                                                              \
	X(archive_entry_set_perm)                                                                  \
	X(archive_entry_set_rdevmajor)                                                             \
	X(archive_entry_set_rdevminor)                                                             \
	X(archive_entry_set_size)                                                                  \
	X(archive_entry_set_symlink)                                                               \
	X(archive_entry_set_uid)                                                                   \
	X(archive_entry_size)                                                                      \
	X(archive_entry_symlink)                                                                   \
	X(archive_entry_uid)                                                                       \
	X(archive_entry_xattr_add_entry)                                                           \
	X(archive_entry_xattr_next)                                                                \
	X(archive_entry_xattr_reset)                                                               \
	X(archive_errno)                                                                           \
	X(archive_error_string)                                                                    \
	X(archive_read_data_block)                                                                 \
	X(archive_read_free)                                                                       \
	X(archive_read_new)                                                                        \
	X(archive_read_next_header)                                                                \
	X(archive_read_open)                                                                       \
	X(archive_read_support_filter_bzip2)                                                       \
	X(archive_read_support_filter_xz)                                                          \
	X(archive_read_support_filter_zstd)                                                        \
	X(archive_read_support_format_tar)                                                         \
	X(archive_set_error)                                                                       \
	X(archive_write_add_filter_by_name)                                                        \
	X(archive_write_close)                                                                     \
	X(archive_write_data)                                                                      \
	X(archive_write_free)                                                                      \
	X(archive_write_header)                                                                    \
	X(archive_write_new)                                                                       \
	X(archive_write_open_fd)                                                                   \
	X(archive_write_set_format_pax)                                                            \
	X(archive_write_set_options)

struct archive_api {
#define X(name) __typeof__(name) *name;
	ARCHIVE_FUNCTIONS(X)
#undef X
};

extern struct archive_api la;

/* Fills the table. Errors: ENOENT with a hint when the library is not installed. */
int archive_load(struct error *err);

/*
 * Names in a tarball are UTF-8 or bytes, whatever the user's locale is, and libarchive converts to
 * the locale: this thread takes C.UTF-8 until archive_locale_end(). No other thread sees it.
 */
struct archive_locale {
	locale_t mine, before;
};

struct archive_locale archive_locale_begin(void);
void archive_locale_end(struct archive_locale *locale);

/*
 * Sets the entry's extended attributes and ACLs on the file `path`, whose last component is not
 * followed. With `config` (for the root directory) CONFIG_XATTR goes there, as the caller's text.
 */
int attributes_set(struct archive_entry *entry, const char *path, char **config, struct error *err);

/* Adds the value of system.posix_acl_access or ..._default (ARCHIVE_ENTRY_ACL_TYPE_ACCESS or
 * ..._DEFAULT) to the entry. Errors: EINVAL where the value is none. */
int acl_to_entry(struct archive_entry *entry, int type, const void *value, size_t size,
		 struct error *err);
