/* Helper programs (mkfs.erofs, mmdebstrap...) and descriptors sent between processes. */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <sys/types.h>

/*
 * Runs argv[0] from PATH and waits for it. Its stdin is /dev/null, its stdout goes to `stdout_fd`
 * (-1: /dev/null). What it wrote last to stderr becomes part of the error when it fails. A missing
 * program is ENOENT with a hint that names `package`, the Debian package that it comes in.
 * Errors: ENOENT, ECHILD (it failed), EINTR (it was interrupted).
 */
int process_run(const char *const argv[], const char *package, int stdout_fd, struct error *err);

/* Closes every descriptor but 0, 1, 2 and the n in `keep` (which it sorts). */
void fds_close_except(int *keep, size_t n);

/* Sends `size` bytes and up to 4 descriptors as one message over a UNIX socket. */
int socket_send_fds(int sock, const void *data, size_t size, const int *fds, size_t n_fds,
		    struct error *err);

/*
 * Receives one message: its size, 0 at the end of the stream. Descriptors come with close-on-exec;
 * *n_fds says how many came (at most `max_fds`, the rest is closed), the caller owns them. A
 * message longer than `size` is EMSGSIZE.
 */
ssize_t socket_recv_fds(int sock, void *data, size_t size, int *fds, size_t max_fds, size_t *n_fds,
			struct error *err);
