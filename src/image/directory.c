/*
 * A directory of the host as an image's source: mkfs.erofs reads it in place, and what is mounted
 * below it (of "/": /proc, /sys, other disks) has to be left out, as has Lodge's own state.
 */
#include "base/file.h"
#include "image/internal.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/syscall.h>

/* "^PATH/." as an extended regular expression: all that is in the directory, which itself stays. */
static int leave_out(const char *relative, struct strv *patterns, struct error *err)
{
	char pattern[2 * PATH_MAX + 4], *to = pattern;

	*to++ = '^';
	for (const char *p = relative; *p && to < pattern + sizeof(pattern) - 5; p++) {
		if (strchr(".[]{}()\\*+?^$|", *p))
			*to++ = '\\';
		*to++ = *p;
	}
	strcpy(to, "/.");
	return strv_push(patterns, pattern, err);
}

/* mountinfo(5) writes space, tab, newline and backslash as octal numbers. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++) {
		unsigned int c;

		if (*s == '\\' && sscanf(s + 1, "%3o", &c) == 1) {
			*to++ = (char)c;
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = '\0';
}

/* Where `path` lies below `directory`, or NULL. */
static const char *below(const char *path, const char *directory)
{
	size_t len = strlen(directory);

	if (len == 1)
		len = 0; /* "/" */
	if (strncmp(path, directory, len) || path[len] != '/' || !path[len + 1])
		return NULL;
	return path + len + 1;
}

int directory_leave_out(struct state *state, const char *directory, struct strv *patterns,
			struct error *err)
{
	autofree char *line = NULL;
	autofile FILE *f = fopen("/proc/self/mountinfo", "re");
	const char *relative = below(state->dir, directory);
	size_t size = 0;
	int rc = 0;

	if (!f)
		return error_sys(err, errno, "open /proc/self/mountinfo");
	if (relative)
		rc = leave_out(relative, patterns, err);
	while (rc == 0 && getline(&line, &size, f) > 0) {
		char *field = line;

		/* ID PARENT MAJOR:MINOR ROOT MOUNT-POINT ... */
		for (int i = 0; field && i < 4; i++) {
			field = strchr(field, ' ');
			field += field != NULL;
		}
		if (!field)
			continue;
		field[strcspn(field, " ")] = '\0';
		unescape(field);
		relative = below(field, directory);
		if (relative)
			rc = leave_out(relative, patterns, err);
	}
	return rc;
}
