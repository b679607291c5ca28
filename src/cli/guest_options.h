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

/* Their table; the first rows are for `run` only. struct guest_options is the options struct. */
enum { GUEST_OPTIONS_RUN_ONLY = 2 };
extern const struct verb_option guest_option_table[];

/* Makes the guest that options and operands (IMAGE [CMD...]) describe, not yet in the database. */
int guest_options_apply(const struct guest_options *options, char **operands, int n_operands,
			struct state *state, struct guest **guest, struct error *err);

/* "NAME=VALUE" or "NAME" with our own value, replacing a value that is there. */
int env_add(struct strv *env, const char *text, struct error *err);
