/*
 * The `lodge` command: finds the verb, runs it, and turns its error into one line and an exit
 * status. Everything here is on the path of every command, so nothing is looked up, read or
 * allocated that the verb does not need.
 */
#include "base/cleanup.h"
#include "base/log.h"
#include "cli/help_text.h"
#include "cli/verbs.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int lodge_fail(const struct error *err)
{
	fflush(stdout); /* what was said before stands before */
	if (log_is_json()) {
		log_error("%s%s%s%s", err->message[0] ? err->message : strerror(err->code),
			  err->hint[0] ? " (" : "", err->hint, err->hint[0] ? ")" : "");
		return err->exit_status ?: EXIT_LODGE;
	}
	fprintf(stderr, "lodge: %s", err->message[0] ? err->message : strerror(err->code));
	if (err->hint[0])
		fprintf(stderr, " (%s)", err->hint);
	fputc('\n', stderr);
	return err->exit_status ?: EXIT_LODGE;
}

static int start_log(const struct lodge_options *o, struct error *err)
{
	const char *name = getenv("LODGE_LOG_LEVEL");
	enum log_level level = LOG_LEVEL_WARN;

	if (o->log_level >= 0)
		level = (enum log_level)o->log_level;
	else if (name && *name && log_parse_level(name, &level, err) < 0)
		return error_wrap(err, "LODGE_LOG_LEVEL");
	log_init(level, (enum log_format)o->log_format);
	return 0;
}

static int run(struct invocation *inv, int argc, char **argv, struct error *err)
{
	int ret;

	ret = verb_parse(&verb_lodge, argc, argv, inv, err);
	if (ret < 0)
		return ret;
	if (inv->version) {
		puts("lodge " LODGE_VERSION);
		return 0;
	}
	if (inv->help) {
		if (inv->verb == inv->root)
			help_overview(inv->root, stdout);
		else
			help_verb(inv->verb, inv->path, stdout);
		return 0;
	}
	ret = start_log(inv->globals, err);
	if (ret < 0)
		return ret;
	return inv->verb->run(inv, err);
}

/* Descriptors that we open must not become somebody's standard input or output. */
static void open_standard_descriptors(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			open("/dev/null", O_RDWR); /* the lowest free number: fd */
}

int main(int argc, char **argv)
{
	autoinvocation struct invocation inv = {};
	struct error err = {};
	const char *slash;
	int status;

	open_standard_descriptors();
	if (argc > 0) {
		slash = strrchr(argv[0], '/');
		if (str_eq(slash ? slash + 1 : argv[0], "lodge-oci"))
			return oci_main(argc, argv);
	}
	status = run(&inv, argc, argv, &err);
	/* A listing that could not be written, on a full disk say, is a failed listing. */
	if (status >= 0 && (fflush(stdout) != 0 || ferror(stdout)))
		status = error_sys(&err, errno, "cannot write the output");
	return status < 0 ? lodge_fail(&err) : status;
}
