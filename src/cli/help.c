/* `lodge help`: the overview, a verb's text, its man page, and the list of verbs for scripts. */
#include "cli/help_text.h"
#include "cli/verbs.h"

#include "cli/suggest.h"

#include <stdio.h>
#include <string.h>

struct help_options {
	bool list, man;
};

static void print_path(const struct verb *leaf, const char *path, void *context)
{
	puts(path);
}

/* The verb that the operands name, and its path. */
static int find_named(const struct invocation *inv, const struct verb **found, char path[static 64],
		      struct error *err)
{
	const struct verb *v = inv->root;

	path[0] = '\0';
	for (int i = 0; i < inv->n_operands; i++) {
		const char *word = inv->operands[i];
		struct suggestion s = {.typed = word};
		size_t used = strlen(path);
		const struct verb *sub = verb_find(v, word, strlen(word));

		if (!sub) {
			error_set(err, EINVAL, "there is no verb '%s%s%s'", path, used ? " " : "",
				  word);
			for (const struct verb *const *c = v->verbs; c && *c; c++)
				suggestion_offer(&s, (*c)->name);
			if (s.nearest)
				error_hint(err, "did you mean '%s%s%s'?", path, used ? " " : "",
					   s.nearest);
			else
				error_hint(err, "'lodge help' lists them");
			return -EINVAL;
		}
		snprintf(path + used, 64 - used, "%s%s", used ? " " : "", sub->name);
		v = sub;
	}
	*found = v;
	return 0;
}

static int help_run(struct invocation *inv, struct error *err)
{
	const struct help_options *o = inv->options;
	const struct verb *verb;
	char path[64];
	int ret;

	ret = find_named(inv, &verb, path, err);
	if (ret < 0)
		return ret;
	if (o->list)
		help_each_leaf(inv->root, print_path, NULL);
	else if (o->man)
		help_man(inv->root, verb, path, stdout);
	else if (verb == inv->root)
		help_overview(inv->root, stdout);
	else
		help_verb(verb, path, stdout);
	return 0;
}

static const struct verb_option help_options[] = {
	{"man", 0, NULL, option_flag(struct help_options, man),
	 "print the man page's source instead, without a VERB that of lodge(1)"},
	{"list", 0, NULL, option_flag(struct help_options, list),
	 "print every verb, with its parents, one a line"},
	{},
};

const struct verb verb_help = {
	.name = "help",
	.section = VERB_HOST,
	.synopsis = "[OPTIONS] [VERB...]",
	.summary = "describe Lodge or a verb",
	.description =
		"Prints what there is, or what a verb does, its options and examples. The same "
		"text "
		"comes from `--help` after any verb.\n\n"
		"On a terminal the text is as wide as the terminal, at most 100 columns; into a "
		"pipe or a file it is plain and 80 columns wide.",
	.examples = "    lodge help run\n"
		    "    lodge help image build\n\n"
		    "Read a verb's man page where none is installed:\n\n"
		    "    lodge help --man run | man -l -",
	.options = help_options,
	.options_size = sizeof(struct help_options),
	.max_operands = VERB_ANY_NUMBER,
	.operands = {COMPLETE_VERB},
	.run = help_run,
};
