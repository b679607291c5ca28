/*
 * Users by the container's own /etc/passwd and /etc/group: the host's C library would look in the
 * host's. Both files are the guest's and may hold anything.
 */
#include "container/internal.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define FILE_BYTES (4 << 20)

/* A colon-separated file, read whole; an empty string where there is none. */
static char *read_table(const char *path)
{
	autofd int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	autofd int fd = file_open_in_root(root, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0, NULL);
	struct stat st;
	ssize_t n;
	char *text;

	/* Not a FIFO or a device, which could keep us waiting. */
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > FILE_BYTES)
		return strdup("");
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return NULL;
	n = fd_read_full(fd, text, (size_t)st.st_size, NULL);
	text[n < 0 ? 0 : n] = '\0';
	return text;
}

/* Splits one line at its colons, in place; returns how many fields there were. */
static size_t split(char *line, char **fields, size_t max)
{
	size_t n = 0;

	while (line && n < max) {
		char *next = strchr(line, ':');

		if (next)
			*next++ = '\0';
		fields[n++] = line;
		line = next;
	}
	return n;
}

static bool parse_id(const char *text, uint32_t *id)
{
	unsigned long value;
	char *end;

	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	value = strtoul(text, &end, 10);
	if (*end || errno || value >= CONTAINER_IDS)
		return false;
	*id = (uint32_t)value;
	return true;
}

static int unknown(const char *what, const char *name, struct error *err)
{
	return error_set(err, ENOENT, "the container has no %s '%s'", what, name);
}

/* name:x:uid:gid:gecos:home:shell */
static int find_user(const char *name, struct user *user, char *found_name, size_t size,
		     struct error *err)
{
	autofree char *text = read_table("/etc/passwd");
	uint32_t wanted = 0;
	bool by_id = parse_id(name, &wanted);
	char *save = NULL, *fields[7];

	if (!text)
		return error_oom(err);
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		uint32_t uid, gid;

		if (split(line, fields, ARRAY_SIZE(fields)) < 6 || !parse_id(fields[2], &uid) ||
		    !parse_id(fields[3], &gid))
			continue;
		if (by_id ? uid != wanted : strcmp(fields[0], name) != 0)
			continue;
		user->uid = uid;
		user->gid = gid;
		if (strlen(fields[5]) < sizeof(user->home)) /* else: the root directory */
			strcpy(user->home, fields[5]);
		snprintf(found_name, size, "%s", fields[0]);
		return 0;
	}
	if (!by_id)
		return unknown("user", name, err);
	user->uid = wanted; /* ids without a line are fine, in group 0 as elsewhere */
	return 0;
}

/* name:x:gid:member,member. Finds the group `name` (NULL: none), or collects those of `member`. */
static int scan_groups(const char *name, const char *member, struct user *user, struct error *err)
{
	autofree char *text = read_table("/etc/group");
	char *save = NULL, *fields[4];

	if (!text)
		return error_oom(err);
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *save_member = NULL;
		uint32_t gid;

		if (split(line, fields, ARRAY_SIZE(fields)) < 4 || !parse_id(fields[2], &gid))
			continue;
		if (name && strcmp(fields[0], name) == 0) {
			user->gid = gid;
			return 0;
		}
		for (char *m = strtok_r(fields[3], ",", &save_member); member && m;
		     m = strtok_r(NULL, ",", &save_member))
			if (strcmp(m, member) == 0 && user->n_groups < ARRAY_SIZE(user->groups))
				user->groups[user->n_groups++] = gid;
	}
	return name ? unknown("group", name, err) : 0;
}

int user_find(const char *text, struct user *user, struct error *err)
{
	char found[64] = "root";
	autofree char *copy = NULL;
	char *group;
	int rc;

	*user = (struct user){.home = "/"};
	copy = strdup(text && *text ? text : "0");
	if (!copy)
		return error_oom(err);
	group = strchr(copy, ':');
	if (group)
		*group++ = '\0';
	if (*copy) {
		rc = find_user(copy, user, found, sizeof(found), err);
		if (rc < 0)
			return rc;
	}
	if (group && *group)
		return parse_id(group, &user->gid) ? 0 : scan_groups(group, NULL, user, err);
	/* With a group named, that is the only one; without, those that list the user. */
	return scan_groups(NULL, found, user, err);
}
