/* `lodge run` and `lodge create`: a new guest from an image. */
#include "base/cleanup.h"
#include "base/log.h"
#include "cli/guest_options.h"
#include "cli/relay.h"

#include <stdio.h>
#include <unistd.h>

static int create_run(struct invocation *inv, struct error *err)
{
	autoguest struct guest *g = NULL;
	autostate struct state *s = NULL;
	int rc = state_open(&s, err);

	if (rc < 0)
		return rc;
	guest_sweep(s);
	rc = guest_options_apply(inv->options, inv->operands, inv->n_operands, s, &g, err);
	if (!rc)
		rc = guest_create(s, g, NULL, err);
	if (rc < 0)
		return rc;
	puts(g->name);
	return 0;
}

/* The guest is attached to us until it ends, or until the user detaches. */
static int attached(struct state *s, const struct guest *g, const struct guest_options *o,
		    const struct relay_keys *keys, int client_fd, bool *started, struct error *err)
{
	const struct relay_options relay = {
		.state = s,
		.guest = g,
		.stdin_too = o->interactive,
		.terminal = g->config.terminal,
		.forward_signals = true,
		.keys = *keys,
	};
	int status, rc = relay_guest(client_fd, &relay, &status, started, err);

	if (rc < 0)
		return rc;
	return relay_status(status, g);
}

static int run_run(struct invocation *inv, struct error *err)
{
	const struct guest_options *o = inv->options;
	autoguest struct guest *g = NULL;
	autostate struct state *s = NULL;
	autofd int client = -EBADF;
	autofd int lock = -EBADF;
	struct relay_keys keys;
	bool started = false;
	int rc;

	rc = relay_parse_keys(o->detach_keys, &keys, err);
	if (!rc)
		rc = state_open(&s, err);
	if (rc < 0)
		return rc;
	guest_sweep_guests(s);
	rc = guest_options_apply(o, inv->operands, inv->n_operands, s, &g, err);
	if (!rc)
		rc = state_set_durable(s, !g->auto_remove, err);
	if (rc < 0)
		return rc;
	/* From here on there is something that a signal must not leave half made. */
	relay_block_signals();
	g->state = GUEST_RUNNING;
	rc = guest_create(s, g, &lock, err);
	if (!rc) {
		log_debug("created guest %s (%s) of image %s, ids from %lld", g->name, g->id,
			  g->image, (long long)g->id_base);
		rc = guest_start(s, g, &lock, o->interactive && !o->detach, &client, err);
	}
	if (rc < 0)
		return rc;
	guest_sweep_images(s); /* while the monitor is at work */
	if (o->detach)
		rc = relay_wait_started(client, err);
	else
		rc = attached(s, g, o, &keys, client, &started, err);
	if (rc < 0 && rc != -EPIPE && !started && !g->auto_remove)
		guest_remove(s, g, NULL); /* it never ran, and one that can't is of no use */
	if (rc == 0 && o->detach)
		puts(g->name);
	return rc;
}

static const struct guest_options defaults = {.detach_keys = RELAY_DETACH_KEYS};

const struct verb verb_run = {
	.name = "run",
	.section = VERB_GUESTS,
	.synopsis = "[OPTIONS] IMAGE [--] [CMD...]",
	.summary = "create a guest from an image and start it",
	.description =
		"Creates a container from IMAGE and starts it. With CMD that command runs in it, "
		"an "
		"application container; without, the image's own command. Where that is an init "
		"system (`/sbin/init`, systemd) a whole operating system boots: a system "
		"container, "
		"with a console and with more rights within its own user namespace.\n\n"
		"Unless `--detach` is given, the guest's output is passed through unchanged, "
		"signals "
		"that `lodge run` gets go to the guest, and its exit status becomes ours: 128+N "
		"after "
		"signal N, 125 when Lodge itself failed, 126 when the command could not be "
		"executed "
		"and 127 when there is no such command.",
	.examples = "One command, and nothing left afterwards:\n\n"
		    "    lodge run --rm debian cat /etc/os-release\n\n"
		    "A shell:\n\n"
		    "    lodge run --rm -it debian bash\n\n"
		    "A whole Debian in the background, with limits, and a shell in it:\n\n"
		    "    lodge run -d --name web --memory 1G --cpus 2 debian\n"
		    "    lodge exec -it web bash",
	.options = guest_option_table,
	.options_size = sizeof(struct guest_options),
	.defaults = &defaults,
	.min_operands = 1,
	.max_operands = VERB_ANY_NUMBER,
	.operands = {COMPLETE_IMAGE, COMPLETE_NONE},
	.flags = VERB_COMMAND,
	.run = run_run,
};

const struct verb verb_create = {
	.name = "create",
	.section = VERB_GUESTS,
	.synopsis = "[OPTIONS] IMAGE [--] [CMD...]",
	.summary = "create a guest from an image without starting it",
	.description = "Creates a guest as `lodge run` does, and prints its name. `lodge start` "
		       "starts it.",
	.examples = "    lodge create --name db --memory 2G debian\n"
		    "    lodge start db",
	.options = &guest_option_table[GUEST_OPTIONS_RUN_ONLY],
	.options_size = sizeof(struct guest_options),
	.defaults = &defaults,
	.min_operands = 1,
	.max_operands = VERB_ANY_NUMBER,
	.operands = {COMPLETE_IMAGE, COMPLETE_NONE},
	.flags = VERB_COMMAND,
	.run = create_run,
};
