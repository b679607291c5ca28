/* `lodge ls` and `lodge inspect`: what guests there are, and all that is known of one. */
#include "base/cleanup.h"
#include "base/json.h"
#include "cli/table.h"
#include "container/container.h"
#include "guest/control.h"
#include "guest/guest.h"

#include <stdio.h>
#include <string.h>

/* The members that both show. */
static json_t *summary(const struct guest *g)
{
	json_t *j =
		json_pack("{s:s, s:s, s:s, s:s, s:s?, s:I, s:b, s:o}", "name", g->name, "id", g->id,
			  "kind", "container", "state", guest_state_name(g->state), "image",
			  g->image_name, "created_at", (json_int_t)g->created_at, "auto_remove",
			  g->auto_remove, "command", json_from_strv(&g->config.args));

	if (j && g->started_at)
		json_object_set_new(j, "started_at", json_integer(g->started_at));
	if (j && g->state == GUEST_STOPPED) {
		json_object_set_new(j, "finished_at", json_integer(g->finished_at));
		json_object_set_new(j, "exit_status", json_integer(g->exit_status));
		json_object_set_new(j, "exit_reason",
				    g->exit_reason ? json_string(g->exit_reason) : json_null());
	}
	return j;
}

struct ls_options {
	bool all, quiet;
	int format;
};

/* "running", "stopped (1)": a number that matters beside the word that says it. */
static int add_status(json_t *row, const struct guest *g)
{
	if (g->damaged)
		return json_object_set_new(row, "status", json_string("damaged"));
	if (g->state != GUEST_STOPPED)
		return json_object_set_new(row, "status", json_string(guest_state_name(g->state)));
	return json_object_set_new(row, "status", json_sprintf("stopped (%d)", g->exit_status));
}

static const char *format_command(const json_t *value, char *buf, size_t size)
{
	const json_t *word;
	size_t i, len = 0;

	buf[0] = '\0';
	json_array_foreach (value, i, word) {
		len += (size_t)snprintf(buf + len, size - len, "%s%s", i ? " " : "",
					json_string_value(word));
		if (len >= size)
			break;
	}
	return buf;
}

static int ls_run(struct invocation *inv, struct error *err)
{
	static const struct table_column columns[] = {
		{"NAME", "name"},
		{"KIND", "kind"},
		{"STATUS", "status"},
		{"IMAGE", "image"},
		{"CREATED", "created_at", table_age},
		{"COMMAND", "command", format_command},
		{},
	};
	const struct ls_options *o = inv->options;
	autoguestlist struct guest_list list = {0};
	autojson json_t *rows = json_array();
	autostate struct state *s = NULL;
	int rc = state_open(&s, err);

	if (rc < 0)
		return rc;
	guest_sweep(s);
	rc = guest_list(s, &list, err);
	for (size_t i = 0; !rc && i < list.n; i++) {
		json_t *row;

		if (!o->all && list.v[i]->state != GUEST_RUNNING)
			continue;
		row = summary(list.v[i]);
		if (!row || add_status(row, list.v[i]) < 0 || json_array_append_new(rows, row) < 0)
			rc = error_oom(err);
	}
	if (rc < 0)
		return rc;
	if (o->quiet) {
		table_print_member(stdout, rows, "name");
		return 0;
	}
	return table_print(stdout, rows, columns, (enum table_format)o->format, err);
}

static const struct verb_option ls_options[] = {
	{"all", 'a', NULL, option_flag(struct ls_options, all), "also guests that don't run"},
	{"quiet", 'q', NULL, option_flag(struct ls_options, quiet), "only names, one a line"},
	TABLE_FORMAT_OPTION(struct ls_options, format),
	{},
};

const struct verb verb_ls = {
	.name = "ls",
	.section = VERB_WATCH,
	.synopsis = "[OPTIONS]",
	.summary = "list guests",
	.description = "Lists the guests that run, and with `--all` those that don't. A stopped "
		       "guest's exit status stands in parentheses.",
	.examples = "    lodge ls -a\n    lodge rm $(lodge ls -aq)",
	.options = ls_options,
	.options_size = sizeof(struct ls_options),
	.run = ls_run,
};

/* By their names, as --cap-add takes them. */
static json_t *capability_names(uint64_t mask)
{
	json_t *names = json_array();
	const char *name;

	for (unsigned int cap = 0; (name = container_capability_name(cap)); cap++)
		if (mask & (UINT64_C(1) << cap))
			json_array_append_new(names, json_string(name));
	return names;
}

static json_t *details(struct state *s, const struct guest *g)
{
	json_t *j = summary(g);
	json_t *config = guest_config_to_json(&g->config);
	struct control_status status;
	autofd int fd = -EBADF;

	if (!j || !config)
		return NULL;
	json_object_set_new(j, "image_digest", json_string(g->image));
	json_object_set_new(j, "id_base", json_integer(g->id_base));
	json_object_set_new(j, "files", json_sprintf("%s/guests/%s", s->dir, g->id));
	if (guest_connect(s, g, &fd, NULL) == 0 && control_query(fd, &status, NULL, NULL) == 0)
		json_object_set_new(j, "pid", json_integer(status.init_pid));
	json_object_set_new(config, "capabilities", capability_names(g->config.capabilities));
	json_object_set_new(j, "config", config);
	return j;
}

static int inspect_run(struct invocation *inv, struct error *err)
{
	autojson json_t *all = json_array();
	autostate struct state *s = NULL;
	int rc = state_open(&s, err);

	if (rc < 0)
		return rc;
	guest_sweep(s);
	for (int i = 0; i < inv->n_operands; i++) {
		autoguest struct guest *g = NULL;

		rc = guest_find(s, inv->operands[i], &g, err);
		if (rc < 0)
			return rc;
		if (json_array_append_new(all, details(s, g)) < 0)
			return error_oom(err);
	}
	if (json_dumpf(all, stdout, JSON_INDENT(2)) < 0)
		return error_sys(err, EIO, "write the output");
	putchar('\n');
	return 0;
}

const struct verb verb_inspect = {
	.name = "inspect",
	.section = VERB_WATCH,
	.synopsis = "GUEST...",
	.summary = "show all that is known of guests, as JSON",
	.description =
		"Prints an array with an object for each guest: its state, its "
		"configuration, where its files are, and while it runs the process id of its "
		"init on the host. Times are in seconds since 1970.",
	.examples = "    lodge inspect web",
	.min_operands = 1,
	.max_operands = VERB_ANY_NUMBER,
	.operands = {COMPLETE_GUEST},
	.run = inspect_run,
};
