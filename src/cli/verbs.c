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
	.summary = "run guests: systems and commands in containers",
	.description =
		"Lodge hosts guests on this machine. A guest is a container: an operating system "
		"with its own init, or a single command, with its own files, processes, users, "
		"network and limits on the host's kernel. Guests are made from images, which they "
		"share. There is no daemon to start. Running guests needs root.",
	.examples = "Make an image, run a command in a new guest, and leave nothing behind:\n\n"
		    "    lodge image build debian --debian bookworm\n"
		    "    lodge run --rm debian cat /etc/os-release\n\n"
		    "Start a whole system in the background, look at it, stop it:\n\n"
		    "    lodge run -d --name web debian\n"
		    "    lodge ls\n"
		    "    lodge exec -it web bash\n"
		    "    lodge stop web",
	.details =
		"# EXIT STATUS\n"
		"Verbs that run something in a guest and wait for it (`run`, `exec`, `attach`, "
		"`start --attach`) exit with its status; the others with 0 or 125.\n"
		"- `0` Success.\n"
		"- `125` Lodge failed, or the command line was wrong; one line on stderr says what "
		"and why.\n"
		"- `126` The guest's command was found but could not be executed.\n"
		"- `127` The guest's command was not found.\n"
		"- `128+n` The guest's command was ended by signal n.\n"
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
