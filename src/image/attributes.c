/*
 * Extended attributes, and the ACLs among them, between the kernel and libarchive (archive.h). An
 * ACL as an attribute (linux/posix_acl_xattr.h) is a 32-bit version, 2, and entries of tag (16
 * bit), permissions (16 bit) and id (32 bit), little-endian, sorted by tag and id.
 */
#include "base/cleanup.h"
#include "image/archive.h"
#include "image/internal.h"

#include <endian.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <string.h>
#include <sys/xattr.h>

static const struct {
	int tag, archive_tag;
} tags[] = {
	{ACL_USER_OBJ, ARCHIVE_ENTRY_ACL_USER_OBJ},   {ACL_USER, ARCHIVE_ENTRY_ACL_USER},
	{ACL_GROUP_OBJ, ARCHIVE_ENTRY_ACL_GROUP_OBJ}, {ACL_GROUP, ARCHIVE_ENTRY_ACL_GROUP},
	{ACL_MASK, ARCHIVE_ENTRY_ACL_MASK},           {ACL_OTHER, ARCHIVE_ENTRY_ACL_OTHER},
};

enum { ATTRIBUTE_LIMIT = 64 << 10 /* Linux' XATTR_SIZE_MAX */ };

static bool has_id(unsigned int tag)
{
	return tag == ACL_USER || tag == ACL_GROUP;
}

static int compare(const void *a, const void *b)
{
	const struct posix_acl_xattr_entry *x = a, *y = b;

	if (le16toh(x->e_tag) != le16toh(y->e_tag))
		return le16toh(x->e_tag) < le16toh(y->e_tag) ? -1 : 1;
	return le32toh(x->e_id) < le32toh(y->e_id) ? -1 : le32toh(x->e_id) > le32toh(y->e_id);
}

/* Encodes the entry's ACL of one type. Returns the size, 0 where it has none; *value is the
 * caller's. */
static ssize_t acl_from_entry(struct archive_entry *entry, int type, void **value,
			      struct error *err)
{
	autofree struct posix_acl_xattr_header *acl = NULL;
	struct posix_acl_xattr_entry *entries;
	int entry_type, perm, archive_tag, id;
	size_t n = 0, room;
	const char *name;

	/* The count that reset returns leaves out what the mode bits say. */
	if (la.archive_entry_acl_reset(entry, type) <= 0)
		return 0;
	room = (size_t)la.archive_entry_acl_reset(entry, type) + 8;
	acl = calloc(1, sizeof(*acl) + room * sizeof(*entries));
	if (!acl)
		return error_oom(err);
	acl->a_version = htole32(POSIX_ACL_XATTR_VERSION);
	entries = (struct posix_acl_xattr_entry *)(acl + 1);
	while (la.archive_entry_acl_next(entry, type, &entry_type, &perm, &archive_tag, &id,
					 &name) == ARCHIVE_OK &&
	       n < room) {
		for (size_t i = 0; i < ARRAY_SIZE(tags); i++) {
			if (tags[i].archive_tag != archive_tag)
				continue;
			entries[n].e_tag = htole16((uint16_t)tags[i].tag);
			entries[n].e_perm = htole16((uint16_t)(perm & 7));
			entries[n].e_id =
				htole32((uint32_t)(has_id((unsigned)tags[i].tag) ? id : -1));
			n++;
			break;
		}
	}
	if (n == 0)
		return 0;
	qsort(entries, n, sizeof(*entries), compare);
	*value = steal_ptr(&acl);
	return (ssize_t)(sizeof(*acl) + n * sizeof(*entries));
}

int acl_to_entry(struct archive_entry *entry, int type, const void *value, size_t size,
		 struct error *err)
{
	struct posix_acl_xattr_header header;
	struct posix_acl_xattr_entry e;
	const char *p = value;

	if (size < sizeof(header) || (size - sizeof(header)) % sizeof(e))
		return error_set(err, EINVAL, "an ACL of %zu bytes", size);
	memcpy(&header, p, sizeof(header));
	if (le32toh(header.a_version) != POSIX_ACL_XATTR_VERSION)
		return error_set(err, EINVAL, "an ACL of version %u", le32toh(header.a_version));
	for (size_t at = sizeof(header); at < size; at += sizeof(e)) {
		int tag = 0;

		memcpy(&e, p + at, sizeof(e));
		for (size_t i = 0; i < ARRAY_SIZE(tags); i++)
			if (tags[i].tag == le16toh(e.e_tag))
				tag = tags[i].archive_tag;
		if (!tag)
			return error_set(err, EINVAL, "an ACL with tag %u", le16toh(e.e_tag));
		la.archive_entry_acl_add_entry(entry, type, le16toh(e.e_perm), tag,
					       has_id(le16toh(e.e_tag)) ? (int)le32toh(e.e_id) : -1,
					       NULL);
	}
	return 0;
}

static int set_attribute(const char *path, const char *name, const void *value, size_t size,
			 struct error *err)
{
	if (lsetxattr(path, name, value, size, 0) == 0)
		return 0;
	return error_sys(err, errno, "set the attribute %s", name);
}

static int set_acl(struct archive_entry *entry, const char *path, int type, const char *name,
		   struct error *err)
{
	autofree void *value = NULL;
	ssize_t size = acl_from_entry(entry, type, &value, err);

	return size <= 0 ? (int)size : set_attribute(path, name, value, (size_t)size, err);
}

int attributes_set(struct archive_entry *entry, const char *path, char **config, struct error *err)
{
	const char *name;
	const void *value;
	size_t size;
	int rc = 0;

	la.archive_entry_xattr_reset(entry);
	while (rc == 0 && la.archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK) {
		if (size > ATTRIBUTE_LIMIT)
			return error_set(err, EINVAL, "the attribute %.100s is too large", name);
		if (config && str_eq(name, CONFIG_XATTR)) {
			free(*config);
			*config = strndup(value, size);
			if (!*config)
				return error_oom(err);
			continue;
		}
		/*
		 * trusted.* is the host's own: overlayfs keeps its notes there, and would believe
		 * a tarball's. SELinux labels belong to the policy of where the image runs.
		 */
		if (str_starts_with(name, "trusted.") || str_eq(name, "security.selinux"))
			continue;
		rc = set_attribute(path, name, value, size, err);
	}
	if (rc == 0)
		rc = set_acl(entry, path, ARCHIVE_ENTRY_ACL_TYPE_ACCESS, "system.posix_acl_access",
			     err);
	if (rc == 0)
		rc = set_acl(entry, path, ARCHIVE_ENTRY_ACL_TYPE_DEFAULT,
			     "system.posix_acl_default", err);
	return rc;
}
