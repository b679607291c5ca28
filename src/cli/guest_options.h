/* What `run` and `create` have in common: the options that describe a new guest. */
#pragma once

#include "cli/verb.h"
#include "guest/guest.h"

struct guest_options {
	const char *name, *user, *workdir, *hostname, *stop_signal, *network;
	struct strv env, volumes, cap_add, cap_drop;
	uint64_t memory_bytes, cpu_millis;
	int64_t pids;
	bool auto_remove, interactive, terminal, read_only;
	/* run only */
	bool detach;
	const char *detach_keys;
};

/* The rows of the options table that both share; struct guest_options has to be the verb's options
 * struct. */
#define GUEST_OPTIONS                                                                              \
	{"name", 'n', "NAME", option_string(struct guest_options, name),                           \
	 "what to call the guest (made up from the image's name)"},                                \
		{"env", 'e', "NAME=VALUE", option_strings(struct guest_options, env),              \
		 "set a variable in the guest's environment; without `=VALUE` take our own"},      \
		{"volume",                                                                         \
		 'v',                                                                              \
		 "HOST:GUEST[:ro]",                                                                \
		 option_strings(struct guest_options, volumes),                                    \
		 "show a file or directory of the host in the guest, `:ro` read-only; its owners " \
		 "are "                                                                            \
		 "shown as they are on the host",                                                  \
		 COMPLETE_FILE},                                                                   \
		{"memory", 'm', "SIZE", option_size(struct guest_options, memory_bytes),           \
		 "memory limit, such as 512M (none)"},                                             \
		{"cpus", 0, "NUMBER", option_cpus(struct guest_options, cpu_millis),               \
		 "processor limit, such as 1.5 (none)"},                                           \
		{"pids", 0, "NUMBER", option_number(struct guest_options, pids, 1, 4194304),       \
		 "how many processes and threads at most (no limit)"},                             \
		{"network", 0, "none|host", option_string(struct guest_options, network),          \
		 "a network of its own with nothing but a loopback interface, or the host's "      \
		 "(none)"},                                                                        \
		{"hostname", 0, "NAME", option_string(struct guest_options, hostname),             \
		 "the guest's host name (its name)"},                                              \
		{"user", 'u', "USER[:GROUP]", option_string(struct guest_options, user),           \
		 "who runs the command: a name or an id of the guest (what the image says, else "  \
		 "root)"},                                                                         \
		{"workdir", 'w', "DIRECTORY", option_string(struct guest_options, workdir),        \
		 "where the command starts (what the image says, else the user's home)"},          \
		{"stop-signal", 0, "SIGNAL", option_string(struct guest_options, stop_signal),     \
		 "the signal that asks the guest to stop (by its init; TERM for a command)"},      \
		{"cap-add", 0, "CAPABILITY", option_strings(struct guest_options, cap_add),        \
		 "give the guest a capability within its user namespace, such as NET_ADMIN"},      \
		{"cap-drop", 0, "CAPABILITY", option_strings(struct guest_options, cap_drop),      \
		 "take a capability away; ALL for all"},                                           \
		{"read-only", 0, NULL, option_flag(struct guest_options, read_only),               \
		 "forbid writing to the root file system"},                                        \
		{"rm", 0, NULL, option_flag(struct guest_options, auto_remove),                    \
		 "remove the guest when it stops, and what it wrote with it"},                     \
		{"interactive", 'i', NULL, option_flag(struct guest_options, interactive),         \
		 "give the guest our standard input"},                                             \
	{                                                                                          \
		"tty", 't', NULL, option_flag(struct guest_options, terminal),                     \
			"give the guest a terminal"                                                \
	}

/* Makes the guest that options and operands (IMAGE [CMD...]) describe, not yet in the database. */
int guest_options_apply(const struct guest_options *options, char **operands, int n_operands,
			struct state *state, struct guest **guest, struct error *err);

/* "NAME=VALUE" or "NAME" with our own value, replacing a value that is there. */
int env_add(struct strv *env, const char *text, struct error *err);
