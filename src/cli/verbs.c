/*
 * The root of the command line: the list of verbs in the order in which `lodge help` shows them,
 * and the options before the verb. Read by main.c and by everything that renders the tables.
 */
#include "cli/verbs.h"

static const char *const level_words[] = {"error", "warn", "info", "debug", NULL};
static const char *const format_words[] = {"text", "json", NULL};

static const struct verb *const verbs[] = {
	&verb_run,        &verb_create,  &verb_start,    &verb_stop, &verb_kill,
	&verb_rm,         &verb_ls,      &verb_inspect,  &verb_logs, &verb_attach,
	&verb_exec,       &verb_wait,    &verb_image,    &verb_host, &verb_help,
	&verb_completion, &verb_version, &verb_complete, NULL,
};

static const struct verb_option options[] = {
	{"log-level", 0, "LEVEL", option_choice(struct lodge_options, log_level, level_words),
	 "how much Lodge says on stderr of what it does; `LODGE_LOG_LEVEL` in the environment sets "
	 "the same (warn)"},
	{"log-format", 0, "FORMAT", option_choice(struct lodge_options, log_format, format_words),
	 "lines for people, or a JSON object a line (text)"},
	{},
};

const struct verb verb_lodge = {
	.name = "lodge",
	.synopsis = "[OPTIONS] VERB [ARGUMENTS]",
	.summary = "run virtual machines and containers",
	.description =
		"Lodge hosts guests on this machine: containers, which share its kernel and run at "
		"native speed, and virtual machines, which have a kernel and hardware of their "
		"own. "
		"Both are made from the same images and handled with the same verbs; `--vm` is the "
		"difference. There is no daemon to start, and most verbs work without root.",
	.examples = "Run a command in a new container, then in a new virtual machine, and leave "
		    "nothing behind:\n\n"
		    "    lodge run --rm debian cat /etc/os-release\n"
		    "    lodge run --rm --vm debian cat /etc/os-release\n\n"
		    "Start a guest in the background, look at it, stop it:\n\n"
		    "    lodge run -d --name web --publish 8080:80 nginx\n"
		    "    lodge ls\n"
		    "    lodge logs web\n"
		    "    lodge stop web",
	.details =
		"# EXIT STATUS\n"
		"Verbs that run something in a guest and wait for it (`run`, `exec`, `start` with "
		"the console attached, `wait`) exit with its status; the others with 0 or 125.\n"
		"- `0` Success.\n"
		"- `125` Lodge failed, or the command line was wrong; one line on stderr says what "
		"and why.\n"
		"- `126` The guest's command was found but could not be executed.\n"
		"- `127` The guest's command was not found.\n"
		"- `128+n` The guest's command was killed by signal n; a virtual machine that "
		"crashed gives a status that is not zero, with the reason on stderr.\n"
		"- `other` The status of the guest's command, whatever it was.\n"
		"# ENVIRONMENT\n"
		"- `LODGE_STATE_DIR` Where guests and images are kept.\n"
		"- `LODGE_RUNTIME_DIR` Where sockets and locks of running guests are.\n"
		"- `LODGE_LOG_LEVEL` `error`, `warn`, `info` or `debug`; `--log-level` goes before "
		"it.\n"
		"# FILES\n"
		"- `/var/lib/lodge` Guests and images. Without root: lodge in "
		"`$XDG_DATA_HOME`, by default `~/.local/share`.\n"
		"- `/run/lodge` Sockets and locks of running guests. Without root: lodge in "
		"`$XDG_RUNTIME_DIR`.",
	.options = options,
	.options_size = sizeof(struct lodge_options),
	.defaults = &(const struct lodge_options){.log_level = -1},
	.verbs = verbs,
};
