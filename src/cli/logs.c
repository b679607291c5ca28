/* `lodge logs`: what a guest has written. */
#include "base/cleanup.h"
#include "base/file.h"
#include "cli/verbs.h"
#include "guest/guest.h"
#include "guest/log_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <time.h>

struct logs_options {
	bool follow, timestamps;
	int64_t tail;
	const char *since;
};

static int print(void *data, const struct guest_log_chunk *chunk, struct error *err)
{
	const struct logs_options *o = data;
	FILE *to = chunk->stream == GUEST_LOG_STDERR ? stderr : stdout;

	if (o->timestamps && chunk->starts_line)
		fprintf(to, "%s ", chunk->time);
	if (fwrite(chunk->data, 1, chunk->size, to) != chunk->size || fflush(to) != 0)
		return error_sys(err, errno, "write the log");
	return 0;
}

/* "10m", "2h", "3d", "45s": so long ago. "2026-11-22T08:00:00": UTC. */
static int parse_since(const char *text, int64_t *since_ns, struct error *err)
{
	static const struct {
		char unit;
		int seconds;
	} units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
	char unit, end;
	struct tm tm = {0};
	const char *rest;
	double n;

	if (sscanf(text, "%lf%c%c", &n, &unit, &end) == 2 && n >= 0)
		for (size_t i = 0; i < ARRAY_SIZE(units); i++)
			if (units[i].unit == unit) {
				*since_ns = (state_now() - (int64_t)(n * units[i].seconds)) *
					    1000000000;
				return 0;
			}
	rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	if (!rest)
		rest = strptime(text, "%Y-%m-%d", &tm);
	if (rest && (!*rest || str_eq(rest, "Z"))) {
		*since_ns = (int64_t)timegm(&tm) * 1000000000;
		return 0;
	}
	error_set(err, EINVAL, "--since: '%s' is not a time", text);
	error_hint(err, "write it like 10m, 2h or 2026-11-22T08:00:00 (UTC)");
	return -EINVAL;
}

static int logs_run(struct invocation *inv, struct error *err)
{
	struct guest_log_options options = GUEST_LOG_OPTIONS;
	struct logs_options *o = inv->options;
	char path[GUEST_PATH_MAX];
	autoguest struct guest *g = NULL;
	autostate struct state *s = NULL;
	autofd int client = -EBADF;
	autofd int dir = -EBADF;
	int rc = state_open(&s, err);

	if (!rc)
		rc = guest_find(s, inv->operands[0], &g, err);
	if (!rc && o->since)
		rc = parse_since(o->since, &options.since_ns, err);
	if (rc < 0)
		return rc;
	options.tail = o->tail;
	/* The monitor hangs up when the guest has ended. */
	options.follow = o->follow && guest_connect(s, g, &client, NULL) == 0;
	options.stop_fd = client;
	guest_path(g->id, path);
	dir = openat(s->fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return errno == ENOENT ? 0 : error_sys(err, errno, "open %s/%s", s->dir, path);
	return guest_log_read(dir, &options, print, o, err);
}

static const struct verb_option logs_options[] = {
	{"follow", 'f', NULL, option_flag(struct logs_options, follow),
	 "go on with what the guest writes until it ends"},
	{"tail", 'n', "LINES", option_number(struct logs_options, tail, 0, INT32_MAX),
	 "only so many lines from the end (all)"},
	{"since", 0, "TIME", option_string(struct logs_options, since),
	 "only what is not older: 10m, 2h, or a time such as 2026-11-22T08:00:00 (UTC)"},
	{"timestamps", 't', NULL, option_flag(struct logs_options, timestamps),
	 "put the time before each line"},
	{},
};

const struct verb verb_logs = {
	.name = "logs",
	.section = VERB_WATCH,
	.synopsis = "[OPTIONS] GUEST",
	.summary = "show what a guest has written",
	.description =
		"Prints what the guest wrote to its standard output and error, or to its console, "
		"over all its starts. The log outlives the guest's run and goes with `lodge rm`. "
		"It "
		"is kept in the guest's directory in the CRI format, at most 30 MiB of it.",
	.examples = "    lodge logs --tail 20 --follow web",
	.options = logs_options,
	.options_size = sizeof(struct logs_options),
	.defaults = &(const struct logs_options){.tail = -1},
	.min_operands = 1,
	.max_operands = 1,
	.operands = {COMPLETE_GUEST},
	.run = logs_run,
};
