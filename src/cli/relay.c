/* See relay.h. */
#include "cli/relay.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/loop.h"
#include "guest/control.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

/* What a user or a parent process sends us to have the guest get it. */
static const int forwarded[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};

struct relay {
	const struct relay_options *options;
	struct loop *loop;
	int client_fd;                /* to a monitor, or -EBADF */
	struct relay_streams streams; /* of a process of ours; else -EBADF */
	int pidfd;
	struct watch *sink_watch; /* of what input goes to */
	struct watch *stdin_watch, *out_watch, *err_watch;
	bool stdin_is_file; /* never waits, which epoll can't express */
	bool stdin_ended;
	/* Input that the guest's side has not taken yet: stdin is not read meanwhile. */
	char input[CONTROL_DATA_MAX];
	size_t input_from, input_to;
	bool started;   /* the guest runs: its monitor answers */
	uint64_t early; /* signals that came before: a bit each */
	bool deaf;      /* our stdout is gone: output is thrown away */
	struct termios saved;
	bool raw;
	size_t keys_typed; /* how many of the detach keys */
	int status;        /* exit status */
	int rc;
	struct error *err;
};

/* As by nohup, or for what a script has put into the background: then it is no business of the
 * guest's either. */
static bool is_ignored(int signo)
{
	struct sigaction action;

	return sigaction(signo, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

void relay_block_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(forwarded); i++)
		if (!is_ignored(forwarded[i]))
			sigaddset(&set, forwarded[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

int relay_parse_keys(const char *text, struct relay_keys *keys, struct error *err)
{
	const char *p = text;

	for (keys->n = 0; keys->n < sizeof(keys->v) && *p; p += *p == ',') {
		if (strncmp(p, "ctrl-", 5) == 0 && p[5] >= 'a' && p[5] <= 'z') {
			keys->v[keys->n++] = (char)(p[5] - 'a' + 1);
			p += 6;
		} else {
			keys->v[keys->n++] = *p++;
		}
		if (*p && *p != ',')
			break;
	}
	if (!*p && keys->n > 0)
		return 0;
	error_set(err, EINVAL, "'%s' are not detach keys", text);
	error_hint(err, "write them like " RELAY_DETACH_KEYS);
	return -EINVAL;
}

static void stop(struct relay *r, int rc)
{
	r->rc = rc;
	loop_quit(r->loop);
}

/* ---- our terminal ---- */

static void terminal_raw(struct relay *r)
{
	struct termios raw;

	if (!r->options->terminal || !r->options->stdin_too ||
	    tcgetattr(STDIN_FILENO, &r->saved) < 0)
		return;
	raw = r->saved;
	cfmakeraw(&raw);
	r->raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
}

static void terminal_restore(struct relay *r)
{
	if (r->raw)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &r->saved);
	r->raw = false;
}

/* By a connection of its own: input that the guest does not read may stand in the other one. */
static void send_request(struct relay *r, enum control_type type, const void *data, size_t size)
{
	autofd int fd = -EBADF;

	if (guest_connect(r->options->state, r->options->guest, &fd, NULL) == 0)
		control_send(fd, type, data, size, NULL);
}

static void send_size(struct relay *r)
{
	struct winsize ws;

	if (!r->options->terminal || ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) < 0)
		return;
	if (r->streams.in >= 0)
		ioctl(r->streams.in, TIOCSWINSZ, &ws);
	else
		send_request(r, CONTROL_RESIZE,
			     &(struct control_resize){.rows = ws.ws_row, .columns = ws.ws_col},
			     sizeof(struct control_resize));
}

static void on_signal(void *data, int signo)
{
	struct relay *r = data;

	if (signo == SIGWINCH)
		send_size(r);
	else if (r->client_fd >= 0 && !r->started)
		r->early |= UINT64_C(1) << signo;
	else if (r->client_fd >= 0)
		send_request(r, CONTROL_SIGNAL, &(struct control_signal){.signo = signo},
			     sizeof(struct control_signal));
	else
		syscall(SYS_pidfd_send_signal, r->pidfd, signo, NULL, 0);
}

/* ---- from us to the guest ---- */

static void on_stdin(void *data, uint32_t events);

/* Hands on what was read; false: the guest's side takes no more now. */
static bool flush_input(struct relay *r)
{
	while (r->input_from < r->input_to) {
		const char *data = r->input + r->input_from;
		size_t size = r->input_to - r->input_from;
		ssize_t n;

		if (r->client_fd >= 0) {
			int rc = control_send(r->client_fd, CONTROL_STDIN, data, size, NULL);

			n = rc == 0 ? (ssize_t)size : rc;
		} else {
			n = write(r->streams.in, data, size);
			n = n < 0 ? -errno : n;
		}
		if (n == -EAGAIN)
			return false;
		/* Another error is the end of that side, which its watch will tell. */
		r->input_from += n < 0 ? size : (size_t)n;
	}
	return true;
}

static void end_input(struct relay *r)
{
	r->stdin_ended = true;
	watch_free(steal_ptr(&r->stdin_watch));
	if (r->client_fd >= 0) {
		control_send(r->client_fd, CONTROL_STDIN_END, NULL, 0, NULL);
	} else if (!r->options->terminal) {
		watch_free(steal_ptr(&r->sink_watch));
		fd_close(&r->streams.in);
	}
}

/* Takes the detach keys out of the input. Those typed so far are held back, and passed on when the
 * next one is another. Returns true when all were typed. */
static bool take_keys(struct relay *r, const char *data, size_t size)
{
	const struct relay_keys *keys = &r->options->keys;

	for (size_t i = 0; i < size; i++) {
		if (keys->n && data[i] == keys->v[r->keys_typed]) {
			if (++r->keys_typed == keys->n)
				return true;
			continue;
		}
		memcpy(r->input + r->input_to, keys->v, r->keys_typed);
		r->input_to += r->keys_typed;
		r->keys_typed = 0;
		r->input[r->input_to++] = data[i];
	}
	return false;
}

static void read_input(struct relay *r)
{
	char buf[CONTROL_DATA_MAX - sizeof(r->options->keys.v)];
	ssize_t n = read(STDIN_FILENO, buf, sizeof(buf));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		end_input(r);
		return;
	}
	r->input_from = r->input_to = 0;
	if (!r->raw) {
		memcpy(r->input, buf, (size_t)n);
		r->input_to = (size_t)n;
	} else if (take_keys(r, buf, (size_t)n)) {
		r->status = RELAY_DETACHED;
		stop(r, 0);
	}
}

/* Moves input until one side has to wait, and then watches for that side. */
static void pump_input(struct relay *r)
{
	bool blocked = !flush_input(r);

	/* A file: one piece a turn, so that output gets its turns too. */
	if (!blocked && r->stdin_is_file && !r->stdin_ended) {
		read_input(r);
		flush_input(r);
		blocked = !r->stdin_ended;
	}
	if (r->sink_watch)
		watch_set_events(r->sink_watch, EPOLLIN | (blocked ? (uint32_t)EPOLLOUT : 0), NULL);
	if (r->stdin_watch)
		watch_set_events(r->stdin_watch, blocked ? 0 : EPOLLIN, NULL);
}

static void on_stdin(void *data, uint32_t events)
{
	struct relay *r = data;

	/* A hang-up is told even while nobody asks for input. */
	if (r->input_from < r->input_to) {
		watch_free(steal_ptr(&r->stdin_watch));
		r->stdin_is_file = true;
		return;
	}
	read_input(r);
	pump_input(r);
}

/* ---- from the guest to us ---- */

static void put(struct relay *r, int fd, const char *data, size_t size)
{
	struct error err = {0};

	if (r->deaf || fd_write_full(fd, data, size, &err) == 0)
		return;
	/* Our reader has gone, as `head` does, or the disk is full. A program in the guest's place
	 * would get this signal, or an error, and end. */
	r->deaf = true;
	if (err.code != EPIPE)
		r->rc = error_sys(r->err, err.code, "write the guest's output");
	if (r->options->forward_signals)
		on_signal(r, SIGPIPE);
	else
		stop(r, r->rc);
}

static void on_started(struct relay *r)
{
	r->started = true;
	send_size(r);
	for (int signo = 1; signo < 64; signo++)
		if (r->early & (UINT64_C(1) << signo))
			on_signal(r, signo);
}

static void on_message(struct relay *r, const struct control_message *m, size_t size)
{
	struct control_exit end = {0};

	switch (m->type) {
	case CONTROL_STARTED:
		on_started(r);
		break;
	case CONTROL_STDOUT:
		put(r, STDOUT_FILENO, m->data, size);
		break;
	case CONTROL_STDERR:
		put(r, STDERR_FILENO, m->data, size);
		break;
	case CONTROL_FAILED:
		memcpy(r->err, m->data, size < sizeof(*r->err) ? size : sizeof(*r->err));
		stop(r, r->err->code ? -r->err->code : -EIO);
		break;
	case CONTROL_EXIT:
		memcpy(&end, m->data, size < sizeof(end) ? size : sizeof(end));
		r->status = end.status;
		if (end.reason[0]) {
			terminal_restore(r);
			dprintf(STDERR_FILENO, "lodge: the guest was %.*s\n",
				(int)sizeof(end.reason), end.reason);
		}
		stop(r, r->rc);
		break;
	default:
		break;
	}
}

static void on_monitor(void *data, uint32_t events)
{
	static struct control_message message;
	struct relay *r = data;
	ssize_t n;

	if (events & EPOLLOUT)
		pump_input(r);
	if (!(events & ~(uint32_t)EPOLLOUT))
		return;
	n = control_recv(r->client_fd, &message, NULL, r->err);
	if (n >= 0)
		on_message(r, &message, (size_t)n);
	else if (n != -EAGAIN)
		stop(r, (int)n);
}

/* Passes on what there is; false when there will be no more. */
static bool pass_on(struct relay *r, int from, int to)
{
	static char buf[CONTROL_DATA_MAX];
	ssize_t n = read(from, buf, sizeof(buf));

	if (n > 0)
		put(r, to, buf, (size_t)n);
	return n > 0 || (n < 0 && errno == EINTR);
}

static void on_out(void *data, uint32_t events)
{
	struct relay *r = data;

	/* A terminal is one descriptor for both ways. */
	if (events & EPOLLOUT)
		pump_input(r);
	if (!(events & ~(uint32_t)EPOLLOUT) || pass_on(r, r->streams.out, STDOUT_FILENO) ||
	    errno == EAGAIN)
		return;
	if (r->sink_watch == r->out_watch)
		r->sink_watch = NULL;
	watch_free(steal_ptr(&r->out_watch));
}

static void on_err(void *data, uint32_t events)
{
	struct relay *r = data;

	if (!pass_on(r, r->streams.err, STDERR_FILENO) && errno != EAGAIN)
		watch_free(steal_ptr(&r->err_watch));
}

static void on_in(void *data, uint32_t events)
{
	struct relay *r = data;

	if (events & EPOLLOUT)
		pump_input(r);
	else
		end_input(r); /* nobody reads it any more */
}

/* What it left behind may still hold its streams; it does not count. */
static void on_process_end(void *data, uint32_t events)
{
	struct relay *r = data;

	while (r->streams.out >= 0 && pass_on(r, r->streams.out, STDOUT_FILENO))
		;
	while (r->streams.err >= 0 && pass_on(r, r->streams.err, STDERR_FILENO))
		;
	stop(r, r->rc);
}

/* ---- the whole ---- */

static int watch_ours(struct relay *r, struct error *err)
{
	int rc = 0;

	if (r->options->terminal)
		rc = loop_add_signal(r->loop, SIGWINCH, on_signal, r, NULL, err);
	for (size_t i = 0; !rc && r->options->forward_signals && i < ARRAY_SIZE(forwarded); i++)
		if (!is_ignored(forwarded[i]))
			rc = loop_add_signal(r->loop, forwarded[i], on_signal, r, NULL, err);
	if (rc < 0 || !r->options->stdin_too)
		return rc;
	rc = loop_add_fd(r->loop, STDIN_FILENO, EPOLLIN, on_stdin, r, &r->stdin_watch, err);
	if (rc == -EPERM) { /* a regular file */
		error_clear(err);
		r->stdin_is_file = true;
		rc = 0;
		pump_input(r);
	}
	return rc;
}

static int run(struct relay *r)
{
	int rc = watch_ours(r, r->err);

	if (!rc) {
		terminal_raw(r);
		if (r->started)
			send_size(r);
		rc = loop_run(r->loop, r->err);
		terminal_restore(r);
	}
	return rc ?: r->rc;
}

static void ignore_sigpipe(void)
{
	signal(SIGPIPE, SIG_IGN);
}

static int set_nonblocking(int fd, struct error *err)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return error_sys(err, errno, "set up a connection");
	return 0;
}

int relay_guest(int client_fd, const struct relay_options *options, int *status, bool *started,
		struct error *err)
{
	struct relay r = {.options = options,
			  .client_fd = client_fd,
			  .streams = {-EBADF, -EBADF, -EBADF},
			  .started = options->running,
			  .err = err};
	int rc = loop_new(&r.loop, err);

	ignore_sigpipe();
	if (!rc)
		rc = set_nonblocking(client_fd, err);
	if (!rc)
		rc = loop_add_fd(r.loop, client_fd, EPOLLIN, on_monitor, &r, &r.sink_watch, err);
	if (!rc)
		rc = run(&r);
	loop_free(r.loop);
	*status = r.status;
	*started = r.started;
	if (rc == -EPIPE)
		error_hint(err, "it was killed, and the guest with it; 'lodge ls -a' tidies up");
	return rc;
}

int relay_status(int status, const struct guest *guest)
{
	if (status != RELAY_DETACHED)
		return status;
	fprintf(stderr, "\nlodge: detached from '%s', which goes on\n", guest->name);
	return 0;
}

int relay_wait_started(int client_fd, struct error *err)
{
	struct control_message message;

	for (;;) {
		ssize_t n = control_recv(client_fd, &message, NULL, err);

		if (n < 0)
			return (int)n;
		if (message.type == CONTROL_STARTED || message.type == CONTROL_EXIT)
			return 0;
		if (message.type == CONTROL_FAILED && (size_t)n == sizeof(*err)) {
			memcpy(err, message.data, sizeof(*err));
			return err->code ? -err->code : -EIO;
		}
	}
}

/* Watches those streams of a process that are not ours. */
static int watch_streams(struct relay *r, struct error *err)
{
	const struct relay_streams *streams = &r->streams;
	int rc = 0;

	if (streams->out >= 0)
		rc = set_nonblocking(streams->out, err)
			     ?: loop_add_fd(r->loop, streams->out, EPOLLIN, on_out, r,
					    &r->out_watch, err);
	if (!rc && streams->err >= 0)
		rc = set_nonblocking(streams->err, err)
			     ?: loop_add_fd(r->loop, streams->err, EPOLLIN, on_err, r,
					    &r->err_watch, err);
	if (rc < 0 || streams->in < 0)
		return rc;
	if (streams->in == streams->out) {
		r->sink_watch = r->out_watch;
		return 0;
	}
	return set_nonblocking(streams->in, err)
		       ?: loop_add_fd(r->loop, streams->in, 0, on_in, r, &r->sink_watch, err);
}

int relay_process(int pidfd, const struct relay_streams *streams,
		  const struct relay_options *options, int *status, struct error *err)
{
	struct relay r = {
		.options = options,
		.client_fd = -EBADF,
		.streams = *streams,
		.pidfd = pidfd,
		.started = true,
		.err = err,
	};
	siginfo_t info = {0};
	int rc = loop_new(&r.loop, err);

	ignore_sigpipe();
	/* A pidfd becomes readable when its process ends. */
	if (!rc)
		rc = loop_add_fd(r.loop, pidfd, EPOLLIN, on_process_end, &r, NULL, err);
	if (!rc)
		rc = watch_streams(&r, err);
	if (!rc)
		rc = run(&r);
	loop_free(r.loop);
	if (rc < 0)
		return rc;
	if (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | __WALL) < 0)
		return error_sys(err, errno, "wait for the command");
	*status = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
	return 0;
}
