/* Every verb, and what `lodge` takes before the verb. A new verb: its line here and in verbs.c. */
#pragma once

#include "base/log.h"
#include "cli/verb.h"

/* The root verb's options: what goes before the verb. */
struct lodge_options {
	int log_level;  /* enum log_level; -1: not given */
	int log_format; /* enum log_format */
};

/* Prints the error as `lodge` does, one line, and returns its exit status. */
int lodge_fail(const struct error *err);

/* The same binary under the name lodge-oci. */
int oci_main(int argc, char **argv);

extern const struct verb verb_attach;
extern const struct verb verb_complete;
extern const struct verb verb_completion;
extern const struct verb verb_create;
extern const struct verb verb_exec;
extern const struct verb verb_help;
extern const struct verb verb_host;
extern const struct verb verb_image;
extern const struct verb verb_inspect;
extern const struct verb verb_kill;
extern const struct verb verb_logs;
extern const struct verb verb_ls;
extern const struct verb verb_rm;
extern const struct verb verb_run;
extern const struct verb verb_start;
extern const struct verb verb_stop;
extern const struct verb verb_version;
extern const struct verb verb_wait;
