/*
 * /etc/passwd and /etc/group as a guest may have written them. The input is the one, the other, and
 * the user to look up, with a zero byte between them. Needs root, for chroot(2).
 */
#include "container/internal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* At the first input, when libFuzzer has read its corpus: the root changes. */
static int open_etc(void)
{
	const char *dir = getenv("FUZZ_SCRATCH"); /* from tests/fuzz/run, which removes it */
	int fd;

	if (!dir || chdir(dir) < 0 || (mkdir("etc", 0755) < 0 && errno != EEXIST))
		abort();
	fd = open("etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* The working directory stays outside, so that relative names still lead to the corpus. */
	if (fd < 0 || chdir(getenv("FUZZ_DIRECTORY")) < 0 || chroot(dir) < 0)
		abort();
	return fd;
}

/* Writes up to the next zero byte; returns what follows. */
static const uint8_t *put(int etc_fd, const char *name, const uint8_t *data, const uint8_t *end)
{
	const uint8_t *zero = data < end ? memchr(data, 0, (size_t)(end - data)) : NULL;
	autofd int fd = openat(etc_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd < 0 || fd_write_full(fd, data, (size_t)((zero ? zero : end) - data), NULL) < 0)
		abort();
	return zero ? zero + 1 : end;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int etc_fd = -EBADF;
	const uint8_t *end = data + size;
	autofree char *name = NULL;
	struct user user;
	struct error err = {0};

	if (etc_fd < 0)
		etc_fd = open_etc();
	data = put(etc_fd, "passwd", data, end);
	data = put(etc_fd, "group", data, end);
	name = strndup((const char *)data, (size_t)(end - data));
	if (user_find(name, &user, &err) < 0) {
		if (!err.message[0])
			abort();
		return 0;
	}
	if (user.uid >= CONTAINER_IDS || user.gid >= CONTAINER_IDS ||
	    user.n_groups > ARRAY_SIZE(user.groups) || !memchr(user.home, 0, sizeof(user.home)))
		abort();
	for (size_t i = 0; i < user.n_groups; i++)
		if (user.groups[i] >= CONTAINER_IDS)
			abort();
	return 0;
}
