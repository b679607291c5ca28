/* `lodge stop`, `lodge kill` and `lodge rm`: a guest's end, asked for, forced, and final. */
#include "base/cleanup.h"
#include "cli/each_guest.h"
#include "cli/verbs.h"
#include "guest/control.h"

#include <signal.h>
#include <stdio.h>

/* Asks the monitor, and waits until the guest has ended. One that does not run is fine. */
static int stop_guest(struct state *s, struct guest *g, int timeout_s, struct error *err)
{
	struct control_stop message = {.timeout_s = timeout_s};
	struct control_exit end;

	for (;;) {
		autofd int fd = -EBADF;
		int rc = guest_connect(s, g, &fd, err);

		if (rc == -ESRCH) {
			error_clear(err);
			return 0;
		}
		if (!rc)
			rc = control_send(fd, CONTROL_STOP, &message, sizeof(message), err);
		if (!rc)
			rc = control_wait_exit(fd, &end, err);
		if (rc != -EPIPE)
			return rc;
		/* It ended as we came, or its monitor was killed; or we were dropped. */
		error_clear(err);
		guest_sweep(s);
	}
}

struct stop_options {
	int64_t timeout_s;
};

static int stop_one(struct state *s, struct guest *g, const void *options, struct error *err)
{
	const struct stop_options *o = options;

	return stop_guest(s, g, (int)o->timeout_s, err);
}

static int stop_run(struct invocation *inv, struct error *err)
{
	return each_guest(inv, stop_one, err);
}

static const struct verb_option stop_options[] = {
	{"timeout", 't', "SECONDS", option_number(struct stop_options, timeout_s, 0, 86400),
	 "how long a guest may take before it is killed (10)"},
	{},
};

const struct verb verb_stop = {
	.name = "stop",
	.section = VERB_GUESTS,
	.synopsis = "[OPTIONS] GUEST...",
	.summary = "shut guests down",
	.description =
		"Asks each guest to shut down: a system's init by the signal that it knows for "
		"that "
		"(systemd: SIGRTMIN+3), a command by SIGTERM, or by what `--stop-signal` or its "
		"image "
		"says. One that has not ended after the timeout is killed. Returns when the guests "
		"have stopped; a guest that does not run is no error.",
	.examples = "    lodge stop web db\n    lodge stop --timeout 60 db",
	.options = stop_options,
	.options_size = sizeof(struct stop_options),
	.defaults = &(const struct stop_options){.timeout_s = GUEST_STOP_TIMEOUT_S},
	.min_operands = 1,
	.max_operands = VERB_ANY_NUMBER,
	.operands = {COMPLETE_GUEST},
	.run = stop_run,
};

struct kill_options {
	const char *signal;
};

static int kill_one(struct state *s, struct guest *g, const void *options, struct error *err)
{
	const struct kill_options *o = options;
	struct control_signal message;
	struct control_exit end;
	autofd int fd = -EBADF;
	int signo, rc;

	rc = guest_parse_signal(o->signal, &signo, err);
	if (!rc)
		rc = guest_connect(s, g, &fd, err);
	if (rc < 0)
		return rc;
	message.signo = signo;
	rc = control_send(fd, CONTROL_SIGNAL, &message, sizeof(message), err);
	if (rc < 0 || signo != SIGKILL)
		return rc;
	/* There is no doubt about what it does, so that the next command may count on it. */
	rc = control_wait_exit(fd, &end, err);
	if (rc == -EPIPE) {
		error_clear(err);
		rc = 0;
	}
	return rc;
}

static int kill_run(struct invocation *inv, struct error *err)
{
	return each_guest(inv, kill_one, err);
}

static const struct verb_option kill_options[] = {
	{"signal", 's', "SIGNAL", option_string(struct kill_options, signal),
	 "which signal: a name or a number (KILL)"},
	{},
};

const struct verb verb_kill = {
	.name = "kill",
	.section = VERB_GUESTS,
	.synopsis = "[OPTIONS] GUEST...",
	.summary = "send a signal to guests, KILL by default",
	.description =
		"Sends a signal to each guest's first process. The kernel keeps signals from such "
		"a "
		"process that it has no handler for; for a command (not for a system's init) Lodge "
		"makes up for that, so that `lodge kill -s TERM` ends what TERM would end "
		"elsewhere. With KILL it returns when the guests have ended.",
	.examples = "    lodge kill web\n    lodge kill -s HUP web",
	.options = kill_options,
	.options_size = sizeof(struct kill_options),
	.defaults = &(const struct kill_options){.signal = "KILL"},
	.min_operands = 1,
	.max_operands = VERB_ANY_NUMBER,
	.operands = {COMPLETE_GUEST},
	.run = kill_run,
};

struct rm_options {
	bool force;
};

static int rm_one(struct state *s, struct guest *g, const void *options, struct error *err)
{
	const struct rm_options *o = options;
	int rc = o->force ? stop_guest(s, g, 0, err) : 0;

	if (!rc)
		rc = guest_remove(s, g, err);
	if (rc == -ENOENT && o->force && g->auto_remove) { /* its end removed it */
		error_clear(err);
		rc = 0;
	}
	return rc;
}

static int rm_run(struct invocation *inv, struct error *err)
{
	return each_guest(inv, rm_one, err);
}

static const struct verb_option rm_options[] = {
	{"force", 'f', NULL, option_flag(struct rm_options, force), "kill guests that run"},
	{},
};

const struct verb verb_rm = {
	.name = "rm",
	.section = VERB_GUESTS,
	.synopsis = "[OPTIONS] GUEST...",
	.summary = "remove guests, with all that they wrote",
	.description =
		"Removes guests that don't run, their writable layers and their logs. Images "
		"and volumes stay.",
	.examples = "    lodge rm web\n    lodge rm --force web",
	.options = rm_options,
	.options_size = sizeof(struct rm_options),
	.min_operands = 1,
	.max_operands = VERB_ANY_NUMBER,
	.operands = {COMPLETE_GUEST},
	.run = rm_run,
};
