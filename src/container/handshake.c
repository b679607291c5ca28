/* What a process on its way into a container tells who started it; see internal.h. */
#include "container/internal.h"

#include "base/process.h"

#include <sys/socket.h>

/* How long a process may take until it has executed its command. It takes a millisecond, unless a
 * file system of the guest's hangs. */
#define PATIENCE_S 60

struct message {
	char tag;
	pid_t pid;
};

int handshake_new(int *ours, int *theirs, struct error *err)
{
	const struct timeval patience = {.tv_sec = PATIENCE_S};
	int socks[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks) < 0)
		return error_sys(err, errno, "make a socket pair");
	setsockopt(socks[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	*ours = socks[0];
	*theirs = socks[1];
	return 0;
}

int handshake_send(int sock, enum handshake_tag tag, int fd, pid_t pid, struct error *err)
{
	struct message message = {.tag = (char)tag, .pid = pid};

	return socket_send_fds(sock, &message, sizeof(message), &fd, 1, err);
}

void handshake_fail(int sock, const struct error *why)
{
	socket_send_fds(sock, why, sizeof(*why), NULL, 0, NULL);
}

int handshake_receive(int sock, struct handshake *h, struct error *err)
{
	union {
		struct message message;
		struct error err;
	} u;

	for (;;) {
		size_t n_fds = 0;
		autofd int fd = -EBADF;
		ssize_t n = socket_recv_fds(sock, &u, sizeof(u), &fd, 1, &n_fds, err);
		int *where;

		if (n == -EAGAIN)
			return error_set(err, ETIMEDOUT, "the command does not start");
		if (n <= 0)
			return (int)n;
		if (n == (ssize_t)sizeof(u.err) && u.err.code > 0) {
			*err = u.err;
			return -err->code;
		}
		if (n != (ssize_t)sizeof(u.message) || fd < 0)
			return error_sys(err, EPROTO, "start the command");
		if (u.message.tag == HANDSHAKE_PROCESS)
			h->pid = u.message.pid;
		where = u.message.tag == HANDSHAKE_PROCESS   ? &h->pidfd
			: u.message.tag == HANDSHAKE_CONSOLE ? &h->console_fd
							     : &h->mount_ns;
		fd_close(where);
		*where = steal_fd(&fd);
	}
}
