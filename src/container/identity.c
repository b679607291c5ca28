/*
 * The files by which a system knows itself: its host name, its own address, and on the host's network
 * the host's resolver. Written by the container's root before it is anything else's, in a root that
 * is the guest's: no path is followed out of it, and what can't be written is left as it is. An
 * image without /etc, one program say, gets none.
 */
#include "container/internal.h"

#include <ctype.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define HOSTS_BYTES (64 << 10)

static void replace(int root, const char *path, const char *text)
{
	autofd int fd = file_open_in_root(root, path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK,
					  0644, NULL);

	if (fd >= 0)
		fd_write_full(fd, text, strlen(text), NULL);
}

static bool exists(int root, const char *path)
{
	autofd int fd = file_open_in_root(root, path, O_PATH, 0, NULL);

	return fd >= 0;
}

static bool has_word(const char *text, const char *word)
{
	size_t len = strlen(word);

	for (const char *p = text; (p = strstr(p, word)); p += len)
		if ((p == text || isspace((unsigned char)p[-1])) &&
		    (!p[len] || isspace((unsigned char)p[len])))
			return true;
	return false;
}

/* As Debian's installer does: the name has an address of its own on the loopback device. */
static void add_to_hosts(int root, const char *name)
{
	autofd int fd = file_open_in_root(root, "/etc/hosts",
					  O_RDWR | O_CREAT | O_APPEND | O_NONBLOCK, 0644, NULL);
	char text[HOSTS_BYTES], line[320];
	ssize_t n = fd < 0 ? -1 : fd_read_full(fd, text, sizeof(text) - 1, NULL);

	if (n < 0)
		return;
	text[n] = '\0';
	if (n == 0)
		snprintf(line, sizeof(line),
			 "127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\t%s\n", name);
	else
		snprintf(line, sizeof(line), "%s127.0.1.1\t%s\n", text[n - 1] == '\n' ? "" : "\n",
			 name);
	if (!has_word(text, name))
		fd_write_full(fd, line, strlen(line), NULL);
}

void identity_write(const struct container_spec *spec)
{
	autofd int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	char line[300];

	if (root < 0 || spec->root_read_only || !exists(root, "/etc"))
		return;
	snprintf(line, sizeof(line), "%s\n", spec->hostname);
	replace(root, "/etc/hostname", line);
	add_to_hosts(root, spec->hostname);
	if (spec->resolv_conf && !exists(root, "/etc/resolv.conf"))
		replace(root, "/etc/resolv.conf", spec->resolv_conf);
}
