/*
 * `lodge host`: what base/host.h finds out, for people and for programs. Asks everything, changes
 * nothing.
 */
#include "base/host.h"

#include "base/cleanup.h"
#include "base/json.h"
#include "base/str.h"
#include "cli/table.h"
#include "cli/text.h"
#include "cli/verbs.h"

#include <string.h>

static const char *const verdict_words[] = {
	[HOST_NO] = "no",
	[HOST_PARTLY] = "partly",
	[HOST_YES] = "yes",
};

struct host_options {
	int format;
};

static int print_json(struct error *err)
{
	autojson json_t *rows = json_array();

	for (int i = 0; i < HOST_FEATURES; i++) {
		const struct host_row *row = &host_rows[i];
		const struct host_answer *a = host_ask((enum host_feature)i);
		json_t *j =
			json_pack("{s:s, s:s, s:s, s:b, s:s, s:s, s:s, s:s?}", "key", row->key,
				  "section", row->section, "title", row->title, "available",
				  a->verdict != HOST_NO, "verdict", verdict_words[a->verdict],
				  "found", a->text, "purpose", row->purpose, "needs", row->needs);

		if (j && a->number)
			json_object_set_new(j, "number", json_integer(a->number));
		if (json_array_append_new(rows, j) < 0)
			return error_oom(err);
	}
	return table_print(stdout, rows, NULL, TABLE_JSON, err);
}

static int print_row(const struct text_out *out, const struct host_row *row,
		     const struct host_answer *a, struct error *err)
{
	enum { COLUMN = 24 };
	bool explain = a->verdict != HOST_YES && row->needs;
	autofree char *found = a->verdict == HOST_YES
				       ? strdup(a->text)
				       : str_printf("%s: %s", verdict_words[a->verdict], a->text);
	autofree char *purpose = str_printf("What for: %s.", row->purpose);
	autofree char *needs = str_printf("Takes: %s.", row->needs ? row->needs : "");

	if (!found || !purpose || !needs)
		return error_oom(err);
	text_row(out, row->title, found, COLUMN);
	if (explain) {
		text_row(out, "", purpose, COLUMN + 2);
		text_row(out, "", needs, COLUMN + 2);
	}
	return 0;
}

static int host_run(struct invocation *inv, struct error *err)
{
	const struct host_options *o = inv->options;
	struct text_out out = text_out_for(stdout);
	const char *section = NULL;
	int rc = 0;

	if (o->format == TABLE_JSON)
		return print_json(err);
	for (int i = 0; rc == 0 && i < HOST_FEATURES; i++) {
		if (!str_eq(section, host_rows[i].section)) {
			section = host_rows[i].section;
			text_title(&out, section);
		}
		rc = print_row(&out, &host_rows[i], host_ask((enum host_feature)i), err);
	}
	return rc;
}

static const struct verb_option options[] = {
	TABLE_FORMAT_OPTION(struct host_options, format),
	{},
};

const struct verb verb_host = {
	.name = "host",
	.section = VERB_HOST,
	.synopsis = "[OPTIONS]",
	.summary = "tell what this host can do",
	.description =
		"Asks the kernel for everything that Lodge makes use of and prints what it found: "
		"the machine, control groups, isolation, file systems, virtualization and "
		"network. Where something is missing, it says what that is for, what Lodge does "
		"without it, and what would bring it. Nothing is changed.\n\n"
		"The answers are this user's: root is told of more.",
	.examples =
		"Everything, for people:\n\n    lodge host\n\n"
		"Whether a script may count on KVM:\n\n"
		"    lodge host --format json | jq -e '.[] | select(.key == \"kvm\").available'",
	.options = options,
	.options_size = sizeof(struct host_options),
	.run = host_run,
};
