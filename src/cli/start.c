/* `lodge start`, `lodge attach` and `lodge wait`: a guest that exists, and its end. */
#include "base/cleanup.h"
#include "cli/each_guest.h"
#include "cli/relay.h"
#include "guest/control.h"

#include <stdio.h>
#include <time.h>

struct start_options {
	bool attach, interactive;
};

static int start_one(struct state *s, struct guest *g, const void *options, struct error *err)
{
	autofd int client = -EBADF;
	autofd int lock = -EBADF;
	int rc = guest_lock(s, g->id, &lock, err);

	if (rc == -EBUSY)
		return error_set(err, EBUSY, "guest '%s' is running already", g->name);
	if (!rc)
		rc = guest_start(s, g, &lock, false, &client, err);
	return rc < 0 ? rc : relay_wait_started(client, err);
}

static int start_attached(struct invocation *inv, struct error *err)
{
	const struct start_options *o = inv->options;
	autoguest struct guest *g = NULL;
	autostate struct state *s = NULL;
	autofd int client = -EBADF;
	autofd int lock = -EBADF;
	struct relay_options relay = {
		.stdin_too = o->interactive,
		.forward_signals = true,
	};
	bool started;
	int status, rc;

	if (inv->n_operands > 1)
		return error_set(err, EINVAL, "only one guest can be attached to");
	rc = relay_parse_keys(RELAY_DETACH_KEYS, &relay.keys, err);
	if (!rc)
		rc = state_open(&s, err);
	if (rc < 0)
		return rc;
	guest_sweep(s);
	rc = guest_find(s, inv->operands[0], &g, err);
	if (rc < 0)
		return rc;
	relay.state = s;
	relay.guest = g;
	relay.terminal = g->config.terminal;
	relay_block_signals();
	rc = guest_lock(s, g->id, &lock, err);
	if (rc == -EBUSY)
		return error_set(err, EBUSY, "guest '%s' is running already", g->name);
	if (!rc)
		rc = guest_start(s, g, &lock, o->interactive, &client, err);
	if (!rc)
		rc = relay_guest(client, &relay, &status, &started, err);
	if (rc < 0)
		return rc;
	return relay_status(status, g);
}

static int start_run(struct invocation *inv, struct error *err)
{
	const struct start_options *o = inv->options;

	return o->attach || o->interactive ? start_attached(inv, err)
					   : each_guest(inv, start_one, err);
}

static const struct verb_option start_options[] = {
	{"attach", 'a', NULL, option_flag(struct start_options, attach),
	 "show the guest's output, and exit with its status"},
	{"interactive", 'i', NULL, option_flag(struct start_options, interactive),
	 "attach, and give the guest our standard input"},
	{},
};

const struct verb verb_start = {
	.name = "start",
	.section = VERB_GUESTS,
	.synopsis = "[OPTIONS] GUEST...",
	.summary = "start guests that were created or have stopped",
	.description = "Starts guests again as they were: with the same files, name and limits.",
	.examples = "    lodge start web db\n    lodge start --attach job",
	.options = start_options,
	.options_size = sizeof(struct start_options),
	.min_operands = 1,
	.max_operands = VERB_ANY_NUMBER,
	.operands = {COMPLETE_GUEST},
	.run = start_run,
};

struct attach_options {
	bool no_stdin;
	const char *detach_keys;
};

static int attach_run(struct invocation *inv, struct error *err)
{
	const struct attach_options *o = inv->options;
	struct control_attach message = {.stdin_too = !o->no_stdin};
	struct relay_options relay = {.running = true, .stdin_too = !o->no_stdin};
	autoguest struct guest *g = NULL;
	autostate struct state *s = NULL;
	autofd int client = -EBADF;
	bool started;
	int status, rc;

	rc = relay_parse_keys(o->detach_keys, &relay.keys, err);
	if (!rc)
		rc = state_open(&s, err);
	if (!rc)
		rc = guest_find(s, inv->operands[0], &g, err);
	if (!rc)
		rc = guest_connect(s, g, &client, err);
	if (!rc)
		rc = control_send(client, CONTROL_ATTACH, &message, sizeof(message), err);
	if (rc < 0)
		return rc;
	relay.state = s;
	relay.guest = g;
	relay.terminal = g->config.terminal;
	rc = relay_guest(client, &relay, &status, &started, err);
	if (rc < 0)
		return rc;
	return relay_status(status, g);
}

static const struct verb_option attach_options[] = {
	{"no-stdin", 0, NULL, option_flag(struct attach_options, no_stdin), "only watch"},
	{"detach-keys", 0, "KEYS", option_string(struct attach_options, detach_keys),
	 "the keys that leave the guest (ctrl-p,ctrl-q)"},
	{},
};

const struct verb verb_attach = {
	.name = "attach",
	.section = VERB_WATCH,
	.synopsis = "[OPTIONS] GUEST",
	.summary = "watch and type into a running guest's console",
	.description =
		"Shows what the guest writes from now on, and passes on what is typed. Ctrl-P "
		"Ctrl-Q "
		"leaves it running on a terminal; otherwise Ctrl-C ends `lodge attach`, not the "
		"guest. Exits with the guest's status when that ends. A client that can't keep up "
		"with the guest's output is dropped rather than slowing the guest.",
	.examples = "    lodge attach web",
	.options = attach_options,
	.options_size = sizeof(struct attach_options),
	.defaults = &(const struct attach_options){.detach_keys = RELAY_DETACH_KEYS},
	.min_operands = 1,
	.max_operands = 1,
	.operands = {COMPLETE_GUEST},
	.run = attach_run,
};

/* The status of a guest that does not run (any more), by its row. Who killed its monitor may have
 * been heard of before the kernel has given its lock back. */
static int last_status(struct state *s, const struct guest *g, int *status, struct error *err)
{
	for (int tries = 0; tries < 200; tries++) {
		autoguest struct guest *now = NULL;
		int rc;

		guest_sweep(s);
		rc = guest_find(s, g->id, &now, err);
		if (rc < 0)
			return rc;
		*status = now->exit_status;
		if (now->state != GUEST_RUNNING)
			break;
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	}
	return *status >= 0 ? 0
			    : error_set(err, ESRCH, "guest '%s' has never been started", g->name);
}

static int wait_one(struct state *s, struct guest *g, const void *options, struct error *err)
{
	struct control_exit end = {0};
	autofd int fd = -EBADF;
	int status, rc = guest_connect(s, g, &fd, err);

	if (!rc)
		rc = control_wait_exit(fd, &end, err);
	status = end.status;
	if (rc == -ESRCH || rc == -EPIPE)
		rc = last_status(s, g, &status, err);
	if (!rc)
		printf("%d\n", status);
	return rc;
}

static int wait_run(struct invocation *inv, struct error *err)
{
	return each_guest(inv, wait_one, err);
}

const struct verb verb_wait = {
	.name = "wait",
	.section = VERB_WATCH,
	.synopsis = "GUEST...",
	.summary = "wait until guests stop, and print their exit statuses",
	.description =
		"Waits for each guest in turn and prints its exit status, a line each. For a "
		"guest that has stopped already, its last one.",
	.examples = "    status=$(lodge wait job)",
	.min_operands = 1,
	.max_operands = VERB_ANY_NUMBER,
	.operands = {COMPLETE_GUEST},
	.run = wait_run,
};
