/*
 * The monitor's ears and mouth: reads what the guest writes, logs it, passes it to attached
 * clients, and gives their input to the guest. The guest and every client may be slow, hang or go
 * at any time; none of them may make the monitor wait.
 */
#include "guest/monitor.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"

#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

/* More than a terminal buffers. */
#define TERMINAL_LEFT_BYTES (1 << 20)

/* Room for a client that is slow for a moment. */
#define SOCKET_BUFFER_BYTES (1 << 20)

static void on_client(void *data, uint32_t events);
static void outputs_hold(struct monitor *m);
static void outputs_go_on(struct monitor *m);
static void outputs_drain(struct monitor *m);

static void client_free(struct client *c)
{
	struct monitor *m = c->m;
	bool was_pending = c->pending;

	for (struct client **p = &m->clients; *p; p = &(*p)->next) {
		if (*p == c) {
			*p = c->next;
			break;
		}
	}
	if (m->stdin_owner == c) {
		m->stdin_owner = NULL;
		if (m->container.console_fd < 0)
			fd_close(&m->stdin_fd);
	}
	watch_free(c->watch);
	close(c->fd);
	free(c->pending);
	free(c);
	if (was_pending)
		outputs_go_on(m);
}

void console_drop_clients(struct monitor *m)
{
	while (m->clients)
		client_free(m->clients);
}

/* A client that gives input has to wait until the guest has taken what came before. */
static bool is_held(const struct client *c)
{
	return c->input && c->m->input;
}

static void client_watch(struct client *c)
{
	uint32_t events = (is_held(c) ? 0 : EPOLLIN) | (c->pending ? (uint32_t)EPOLLOUT : 0);

	if (c->watch)
		watch_set_events(c->watch, events, NULL);
	else if (loop_add_fd(c->m->loop, c->fd, events, on_client, c, &c->watch, NULL) < 0)
		log_error("guest %s: a client is lost", c->m->guest->name);
}

void console_drop_slow_clients(struct monitor *m)
{
	for (struct client *c = m->clients, *next; c; c = next) {
		next = c->next;
		if (c->pending)
			client_free(c);
	}
}

/* ---- from the guest to the clients ---- */

/* Sends to one client; false when the client is gone. */
static bool client_send(struct client *c, enum control_type type, const void *data, size_t size)
{
	int rc = control_send(c->fd, type, data, size, NULL);

	if (rc == 0)
		return true;
	if (rc == -EAGAIN && c->lossless && !c->pending) {
		c->pending = malloc(sizeof(*c->pending));
		if (c->pending) {
			c->pending->type = (uint8_t)type;
			memcpy(c->pending->data, data, size);
			c->pending_size = size;
			client_watch(c);
			outputs_hold(c->m);
			return true;
		}
	}
	client_free(c);
	return false;
}

void console_broadcast(struct monitor *m, enum control_type type, const void *data, size_t size)
{
	for (struct client *c = m->clients, *next; c; c = next) {
		next = c->next;
		if (c->output || (type != CONTROL_STDOUT && type != CONTROL_STDERR))
			client_send(c, type, data, size);
	}
}

static void output_end(struct output *o)
{
	watch_free(steal_ptr(&o->watch));
	if (o->fd != o->m->container.console_fd)
		close(o->fd);
	o->fd = -EBADF;
	monitor_check_end(o->m);
}

static void on_output(void *data, uint32_t events)
{
	static char buf[CONTROL_DATA_MAX];
	struct output *o = data;
	struct monitor *m = o->m;
	struct error err = {0};
	ssize_t n;

	if (m->exited && o->left <= 0) {
		output_end(o);
		return;
	}
	n = read(o->fd, buf, sizeof(buf));

	if (n < 0 && (errno == EINTR || (errno == EAGAIN && !m->exited)))
		return;
	/* EIO: the last one has closed the terminal. EAGAIN: no process of the guest is left,
	 * though somebody else was given its end of the pipe. */
	if (n <= 0) {
		output_end(o);
		return;
	}
	o->left -= (int)n;
	if (!m->log && guest_log_open(m->files_fd, &m->log, &err) < 0)
		log_warn("guest %s: %s", m->guest->name, err.message);
	if (m->log)
		guest_log_write(m->log,
				o->type == CONTROL_STDERR ? GUEST_LOG_STDERR : GUEST_LOG_STDOUT,
				buf, (size_t)n);
	console_broadcast(m, o->type, buf, (size_t)n);
}

static void outputs_hold(struct monitor *m)
{
	for (size_t i = 0; i < ARRAY_SIZE(m->outputs); i++)
		watch_free(steal_ptr(&m->outputs[i].watch));
}

static void outputs_go_on(struct monitor *m)
{
	struct error err = {0};

	for (struct client *c = m->clients; c; c = c->next)
		if (c->pending)
			return;
	for (size_t i = 0; i < ARRAY_SIZE(m->outputs); i++) {
		struct output *o = &m->outputs[i];

		if (o->fd < 0 || o->watch)
			continue;
		if (loop_add_fd(m->loop, o->fd, EPOLLIN, on_output, o, &o->watch, &err) < 0) {
			log_error("guest %s: %s", m->guest->name, err.message);
			output_end(o);
		}
	}
	if (m->exited)
		outputs_drain(m);
	monitor_check_end(m);
}

/* Reads what a guest that is gone has left, as far as the clients take it. */
static void outputs_drain(struct monitor *m)
{
	for (size_t i = 0; i < ARRAY_SIZE(m->outputs); i++)
		while (m->outputs[i].fd >= 0 && m->outputs[i].watch)
			on_output(&m->outputs[i], EPOLLIN);
}

/* ---- from the clients to the guest ---- */

static void clients_watch(struct monitor *m)
{
	for (struct client *c = m->clients; c; c = c->next)
		client_watch(c);
}

static void input_clear(struct monitor *m)
{
	watch_free(steal_ptr(&m->input_watch));
	free(steal_ptr(&m->input));
	m->input_size = 0;
	clients_watch(m);
}

/* Writes what it can; returns how much, or -1 when the guest takes no more input at all. */
static ssize_t write_input(struct monitor *m, const char *data, size_t size)
{
	ssize_t n = write(m->stdin_fd, data, size);

	if (n >= 0)
		return n;
	if (errno == EAGAIN || errno == EINTR)
		return 0;
	if (m->stdin_fd != m->container.console_fd)
		fd_close(&m->stdin_fd);
	return -1;
}

static void on_input_writable(void *data, uint32_t events)
{
	struct monitor *m = data;
	ssize_t n = m->stdin_fd >= 0 ? write_input(m, m->input, m->input_size) : -1;

	if (n >= 0 && (size_t)n < m->input_size) {
		m->input_size -= (size_t)n;
		memmove(m->input, m->input + n, m->input_size);
		return;
	}
	input_clear(m);
}

static void guest_input(struct monitor *m, const char *data, size_t size)
{
	ssize_t n;

	if (m->stdin_fd < 0)
		return;
	n = write_input(m, data, size);
	if (n < 0 || (size_t)n == size)
		return;
	m->input_size = size - (size_t)n;
	m->input = malloc(m->input_size);
	if (!m->input || loop_add_fd(m->loop, m->stdin_fd, EPOLLOUT, on_input_writable, m,
				     &m->input_watch, NULL) < 0) {
		input_clear(m);
		return;
	}
	memcpy(m->input, data + n, m->input_size);
	clients_watch(m);
}

static void resize(struct monitor *m, const struct control_resize *size)
{
	struct winsize ws = {.ws_row = size->rows, .ws_col = size->columns};

	if (m->container.console_fd >= 0)
		ioctl(m->container.console_fd, TIOCSWINSZ, &ws);
}

static void client_message(struct client *c, const struct control_message *message, size_t size)
{
	struct monitor *m = c->m;
	/* Copied out of the message: aligned, and zeroes where an older client sends less. */
	union {
		struct control_attach attach;
		struct control_resize resize;
		struct control_signal signal;
		struct control_stop stop;
	} arg = {0};

	if (message->type == CONTROL_STDIN) {
		if (c->input)
			guest_input(m, message->data, size);
		return;
	}
	memcpy(&arg, message->data, size < sizeof(arg) ? size : sizeof(arg));
	switch (message->type) {
	case CONTROL_ATTACH:
		c->output = true;
		c->input = arg.attach.stdin_too;
		c->lossless = arg.attach.lossless;
		break;
	case CONTROL_STDIN_END:
		if (c->input && m->container.console_fd < 0)
			fd_close(&m->stdin_fd);
		break;
	case CONTROL_RESIZE:
		resize(m, &arg.resize);
		break;
	case CONTROL_SIGNAL:
		monitor_signal(m, arg.signal.signo);
		break;
	case CONTROL_STOP:
		monitor_stop(m, arg.stop.timeout_s);
		break;
	case CONTROL_QUERY: {
		struct control_status status = {
			.init_pid = m->container.pid,
			.started_at = m->guest->started_at,
		};

		/* Small, and asked for: no client that asks has its buffer full of answers. */
		control_send_fd(c->fd, CONTROL_STATUS, &status, sizeof(status), m->container.pidfd,
				NULL);
		break;
	}
	default:
		break;
	}
}

static void on_client(void *data, uint32_t events)
{
	static struct control_message message;
	struct client *c = data;
	ssize_t n;

	if (c->pending && (events & EPOLLOUT)) {
		struct control_message *pending = steal_ptr(&c->pending);

		if (control_send(c->fd, pending->type, pending->data, c->pending_size, NULL) ==
		    -EAGAIN) {
			c->pending = pending;
			return;
		}
		free(pending);
		client_watch(c);
		outputs_go_on(c->m);
		return;
	}
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	if (is_held(c)) {
		/* It hung up, which can't be not asked for. What it sent is read when its turn has
		 * come; until then there is nothing to watch for. */
		watch_free(steal_ptr(&c->watch));
		return;
	}
	n = control_recv(c->fd, &message, NULL, NULL);
	if (n == -EAGAIN)
		return;
	if (n < 0)
		client_free(c);
	else
		client_message(c, &message, (size_t)n);
}

int console_add_client(struct monitor *m, int fd, struct client **out, struct error *err)
{
	struct client *c = calloc(1, sizeof(*c));
	int bytes = SOCKET_BUFFER_BYTES;
	int rc;

	if (!c)
		return error_oom(err);
	*c = (struct client){.m = m, .fd = fd};
	/* The kernel grants what it allows; without the privilege less, which is fine too. */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	rc = loop_add_fd(m->loop, fd, EPOLLIN, on_client, c, &c->watch, err);
	if (rc < 0) {
		free(c);
		return rc;
	}
	c->next = m->clients;
	m->clients = c;
	if (out)
		*out = c;
	return 0;
}

static bool accept_one(struct monitor *m)
{
	int fd = accept4(m->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0 && console_add_client(m, fd, NULL, NULL) < 0)
		close(fd);
	return fd >= 0;
}

static void on_connect(void *data, uint32_t events)
{
	accept_one(data);
}

void console_accept_last(struct monitor *m)
{
	while (m->listen_fd >= 0 && accept_one(m))
		;
}

int console_listen(struct monitor *m, struct error *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	m->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* Through a descriptor: an address has room for 107 characters only. */
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/control",
		 m->lock_fd);
	if (m->listen_fd < 0 ||
	    bind(m->listen_fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(m->listen_fd, 64) < 0)
		return error_sys(err, errno, "make the guest's control socket");
	return loop_add_fd(m->loop, m->listen_fd, EPOLLIN, on_connect, m, NULL, err);
}

/* ---- the guest's side ---- */

/* A pipe whose end `ours` (0: read, 1: write) is non-blocking. The other belongs to the container's
 * root, who may open it again as /dev/stdout and the like. */
static int make_pipe(struct monitor *m, int ours, int *our_fd, int *guest_fd, struct error *err)
{
	uid_t id = (uid_t)m->guest->id_base;
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return error_sys(err, errno, "make a pipe");
	*our_fd = fds[ours];
	*guest_fd = fds[!ours];
	if (fchown(*guest_fd, id, id) < 0 || fcntl(*our_fd, F_SETFL, O_NONBLOCK) < 0)
		return error_sys(err, errno, "set up a pipe");
	return 0;
}

int console_open_stdio(struct monitor *m, int stdio[3], struct error *err)
{
	int rc;

	m->outputs[0] = (struct output){.m = m, .fd = -EBADF, .type = CONTROL_STDOUT};
	m->outputs[1] = (struct output){.m = m, .fd = -EBADF, .type = CONTROL_STDERR};
	if (m->guest->config.terminal)
		return 0; /* the container opens one of its own */
	if (m->guest->config.open_stdin)
		rc = make_pipe(m, 1, &m->stdin_fd, &stdio[0], err);
	else
		rc = stdio[0] = file_open_at(AT_FDCWD, "/dev/null", O_RDONLY, 0, err);
	if (rc >= 0)
		rc = make_pipe(m, 0, &m->outputs[0].fd, &stdio[1], err);
	if (rc >= 0)
		rc = make_pipe(m, 0, &m->outputs[1].fd, &stdio[2], err);
	return rc < 0 ? rc : 0;
}

int console_start(struct monitor *m, struct error *err)
{
	int console = m->container.console_fd;

	if (console >= 0) {
		if (fcntl(console, F_SETFL, O_RDWR | O_NONBLOCK) < 0)
			return error_sys(err, errno, "set up the terminal");
		m->terminal_hold = ioctl(console, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
		m->outputs[0].fd = console;
		m->stdin_fd = console;
	}
	outputs_go_on(m);
	return 0;
}

void console_guest_gone(struct monitor *m)
{
	fd_close(&m->terminal_hold);
	if (m->input)
		input_clear(m);
	/* Its pipes may have been given to somebody who goes on writing. What the kernel still has
	 * of a terminal's can't be asked. */
	for (size_t i = 0; i < ARRAY_SIZE(m->outputs); i++)
		if (m->container.console_fd >= 0 ||
		    ioctl(m->outputs[i].fd, FIONREAD, &m->outputs[i].left) < 0)
			m->outputs[i].left = TERMINAL_LEFT_BYTES;
	outputs_drain(m);
}

/* The last message of all may have found a buffer full; then it is worth a wait. */
void console_flush(struct monitor *m)
{
	const struct timeval patience = {.tv_sec = 5};

	for (struct client *c = m->clients; c; c = c->next) {
		if (!c->pending)
			continue;
		fcntl(c->fd, F_SETFL, 0);
		setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
		control_send(c->fd, c->pending->type, c->pending->data, c->pending_size, NULL);
	}
}

bool console_drained(const struct monitor *m)
{
	for (const struct client *c = m->clients; c; c = c->next)
		if (c->pending)
			return false;
	return m->outputs[0].fd < 0 && m->outputs[1].fd < 0;
}

void console_close(struct monitor *m)
{
	for (size_t i = 0; i < ARRAY_SIZE(m->outputs); i++) {
		struct output *o = &m->outputs[i];

		watch_free(steal_ptr(&o->watch));
		if (o->fd != m->container.console_fd)
			fd_close(&o->fd);
		o->fd = -EBADF;
	}
	if (m->stdin_fd != m->container.console_fd)
		fd_close(&m->stdin_fd);
	m->stdin_fd = -EBADF;
	fd_close(&m->terminal_hold);
}
