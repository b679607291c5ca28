/* See control.h. */
#include "guest/control.h"

#include "base/cleanup.h"
#include "base/process.h"

#include <string.h>

int control_send_fd(int fd, enum control_type type, const void *data, size_t size, int passed_fd,
		    struct error *err)
{
	struct control_message message;
	int rc;

	message.type = (uint8_t)type;
	if (size)
		memcpy(message.data, data, size);
	rc = socket_send_fds(fd, &message, 1 + size, &passed_fd, passed_fd >= 0 ? 1 : 0, err);
	return rc < 0 && rc != -EAGAIN ? error_wrap(err, "guest's monitor") : rc;
}

int control_send(int fd, enum control_type type, const void *data, size_t size, struct error *err)
{
	return control_send_fd(fd, type, data, size, -EBADF, err);
}

ssize_t control_recv(int fd, struct control_message *message, int *passed_fd, struct error *err)
{
	int received = -EBADF;
	size_t n_fds = 0;
	ssize_t n = socket_recv_fds(fd, message, sizeof(*message), &received, 1, &n_fds, err);

	/* The other side has gone without having read all that we sent. That is told before what it
	 * said last, but only once. */
	if (n == -ECONNRESET)
		n = socket_recv_fds(fd, message, sizeof(*message), &received, 1, &n_fds, err);
	if (passed_fd)
		*passed_fd = received;
	else
		fd_close(&received);
	if (n == 0 || n == -ECONNRESET)
		return error_set(err, EPIPE, "the guest's monitor has gone");
	return n < 0 ? n : n - 1;
}

int control_query(int fd, struct control_status *status, int *init_pidfd, struct error *err)
{
	struct control_message message;
	int rc = control_send(fd, CONTROL_QUERY, NULL, 0, err);

	if (rc < 0)
		return rc;
	for (;;) {
		autofd int passed = -EBADF;
		ssize_t n = control_recv(fd, &message, &passed, err);

		if (n < 0)
			return (int)n;
		if (message.type == CONTROL_EXIT || message.type == CONTROL_FAILED)
			return error_set(err, ESRCH, "the guest has just stopped");
		if (message.type != CONTROL_STATUS || (size_t)n < sizeof(*status))
			continue;
		memcpy(status, message.data, sizeof(*status));
		if (passed < 0)
			return error_set(err, ESRCH, "the guest is just restarting");
		if (init_pidfd)
			*init_pidfd = steal_fd(&passed);
		return 0;
	}
}

int control_wait_exit(int fd, struct control_exit *end, struct error *err)
{
	struct control_message message;

	for (;;) {
		ssize_t n = control_recv(fd, &message, NULL, err);

		if (n < 0)
			return (int)n;
		if (message.type == CONTROL_EXIT && (size_t)n >= sizeof(*end)) {
			memcpy(end, message.data, sizeof(*end));
			return 0;
		}
	}
}
