/*
 * The command line's parser: walks from the root verb down to a leaf and fills its options struct
 * from its table. Called by main.c, by `lodge completion` and by tests; it prints nothing, runs
 * nothing, and looks at nothing but the words it was given.
 */
#include "cli/verb.h"

#include "base/cleanup.h"
#include "cli/suggest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* argv being eaten: `next` is the index of the first word not yet taken. */
struct words {
	char **argv;
	int argc, next;
};

const struct verb *verb_find(const struct verb *group, const char *name, size_t len)
{
	for (const struct verb *const *v = group->verbs; v && *v; v++)
		if (strlen((*v)->name) == len && memcmp((*v)->name, name, len) == 0)
			return *v;
	return NULL;
}

const struct verb_option *verb_find_option(const struct verb *verb, const char *name, size_t len)
{
	for (const struct verb_option *o = verb->options; o && o->name; o++)
		if (strlen(o->name) == len && memcmp(o->name, name, len) == 0)
			return o;
	return NULL;
}

const struct verb_option *verb_find_letter(const struct verb *verb, char letter)
{
	for (const struct verb_option *o = verb->options; o && o->name; o++)
		if (o->letter == letter)
			return o;
	return NULL;
}

const char *verb_synopsis(const struct verb *verb)
{
	return verb->synopsis ?: verb->verbs ? "VERB ..." : "";
}

enum complete verb_operand_complete(const struct verb *verb, int index)
{
	enum complete c = COMPLETE_NONE;

	for (int i = 0; i <= index && i < (int)ARRAY_SIZE(verb->operands); i++)
		if (verb->operands[i] != COMPLETE_DEFAULT)
			c = verb->operands[i];
	return c;
}

static const char *help_of(const struct invocation *inv, char buf[static 96])
{
	snprintf(buf, 96, "see 'lodge help%s%s'", inv->path[0] ? " " : "", inv->path);
	return buf;
}

static int usage_error(const struct invocation *inv, const char *what, const char *word,
		       const char *nearest, struct error *err)
{
	char help[96];

	error_set(err, EINVAL, "%s '%s'", what, word);
	if (nearest)
		error_hint(err, "did you mean '%s'? %s", nearest, help_of(inv, help));
	else
		error_hint(err, "%s", help_of(inv, help));
	return -EINVAL;
}

static int unknown_option(const struct invocation *inv, const char *word, struct error *err)
{
	size_t len = strcspn(word, "=");
	struct suggestion s = {};
	char typed[48], nearest[64], help[96];

	/* What went before: `-name` for --name, and letters, which resemble each other too much to
	 * suggest one. */
	if (word[1] != '-') {
		const struct verb_option *o = verb_find_option(inv->verb, word + 1, len - 1);

		if (!o)
			return usage_error(inv, "unknown option", word, NULL, err);
		snprintf(nearest, sizeof(nearest), "--%s", o->name);
		return usage_error(inv, "unknown option", word, nearest, err);
	}
	snprintf(typed, sizeof(typed), "%.*s", (int)(len - 2), word + 2);
	if (inv->verb != inv->root &&
	    (verb_find_option(inv->root, typed, strlen(typed)) || strcmp(typed, "version") == 0)) {
		error_set(err, EINVAL, "option '--%s' goes before the verb", typed);
		error_hint(err, "lodge --%s ... %s; %s", typed, inv->path, help_of(inv, help));
		return -EINVAL;
	}
	s.typed = typed;
	for (const struct verb_option *o = inv->verb->options; o && o->name; o++)
		suggestion_offer(&s, o->name);
	suggestion_offer(&s, "help");
	snprintf(nearest, sizeof(nearest), "--%s", s.nearest ?: "");
	snprintf(typed, sizeof(typed), "%.*s", (int)len, word);
	return usage_error(inv, "unknown option", typed, s.nearest ? nearest : NULL, err);
}

static int unknown_verb(const struct invocation *inv, const char *word, struct error *err)
{
	/* What the same thing is called elsewhere. */
	static const char *const elsewhere[][2] = {
		{"ps", "ls"},
		{"list", "ls"},
		{"images", "image ls"},
		{"rmi", "image rm"},
		{"pull", "image pull"},
		{"build", "image build"},
		{"import", "image import"},
		{"delete", "rm"},
		{"remove", "rm"},
		{"destroy", "rm"},
		{"shell", "exec"},
		{"info", "host"},
		{"update", "set"},
		{"shutdown", "stop"},
	};
	struct suggestion s = {.typed = word};
	const char *gap = inv->path[0] ? " " : "";
	char full[128], nearest[128];

	for (const struct verb *const *v = inv->verb->verbs; *v; v++)
		if (!((*v)->flags & VERB_HIDDEN))
			suggestion_offer(&s, (*v)->name);
	for (size_t i = 0; i < ARRAY_SIZE(elsewhere); i++) {
		const char *name = elsewhere[i][1];

		if (strcmp(word, elsewhere[i][0]) == 0 &&
		    verb_find(inv->verb, name, strcspn(name, " ")))
			s.nearest = name;
	}
	snprintf(full, sizeof(full), "%s%s%s", inv->path, gap, word);
	snprintf(nearest, sizeof(nearest), "%s%s%s", inv->path, gap, s.nearest ?: "");
	return usage_error(inv, "unknown verb", full, s.nearest ? nearest : NULL, err);
}

static int choice_set(const struct verb_option *o, const char *arg, void *field, struct error *err)
{
	char list[256] = "";
	int index = 0;

	for (const char *const *w = o->target.words; *w; w++, index++) {
		size_t used = strlen(list);

		if (strcmp(*w, arg) == 0) {
			memcpy(field, &index, sizeof(index));
			return 0;
		}
		snprintf(list + used, sizeof(list) - used, "%s%s", used ? ", " : "", *w);
	}
	return error_set(err, EINVAL, "--%s: '%s' is not one of %s", o->name, arg, list);
}

/* `arg` is NULL exactly for flags. */
static int option_set(const struct verb_option *o, const char *arg, void *options,
		      struct error *err)
{
	const struct option_target *t = &o->target;
	void *field = (char *)options + t->offset;
	char what[48];
	int64_t number;
	int ret;

	snprintf(what, sizeof(what), "--%s", o->name);
	/* A mistake in a verb's table, not the user's. */
	if (t->kind != OPTION_CALL && (t->kind == OPTION_FLAG) != !arg)
		return error_set(err, EINVAL, "%s: bad option table", what);
	switch (t->kind) {
	case OPTION_FLAG:
		*(bool *)field = true;
		return 0;
	case OPTION_STRING:
		*(const char **)field = arg;
		return 0;
	case OPTION_STRINGS:
		return strv_push(field, arg, err);
	case OPTION_SIZE:
		return parse_size(arg, what, field, err);
	case OPTION_CPUS:
		return parse_cpus(arg, what, field, err);
	case OPTION_NUMBER:
		ret = parse_number(arg, what, t->min, t->max, &number, err);
		if (ret < 0)
			return ret;
		if (t->size == sizeof(int))
			*(int *)field = (int)number;
		else
			*(int64_t *)field = number;
		return 0;
	case OPTION_CHOICE:
		return choice_set(o, arg, field, err);
	case OPTION_CALL:
		ret = t->set(options, arg, err);
		return ret < 0 ? error_wrap(err, "%s", what) : 0;
	}
	return 0;
}

/* Takes the option's argument, from the same word or the next, and stores it. */
static int option_take(struct invocation *inv, const struct verb_option *o, const char *attached,
		       struct words *words, void *options, struct error *err)
{
	const char *arg = attached;
	char help[96];
	int ret;

	if (o->arg && !arg) {
		if (words->next == words->argc) {
			error_set(err, EINVAL, "option '--%s' needs a value: --%s %s", o->name,
				  o->name, o->arg);
			error_hint(err, "%s", help_of(inv, help));
			return -EINVAL;
		}
		arg = words->argv[words->next++];
	}
	ret = option_set(o, arg, options, err);
	if (ret < 0 && err && !err->hint[0])
		error_hint(err, "%s", help_of(inv, help));
	return ret;
}

/* --name, --name=value */
static int long_option(struct invocation *inv, const char *word, struct words *words, void *options,
		       struct error *err)
{
	size_t len = strcspn(word + 2, "=");
	const char *attached = word[2 + len] ? word + 2 + len + 1 : NULL;
	const struct verb_option *o = verb_find_option(inv->verb, word + 2, len);
	char help[96];

	if (!o && strcmp(word, "--help") == 0) {
		inv->help = true;
		return 0;
	}
	if (!o && strcmp(word, "--version") == 0 && inv->verb == inv->root) {
		inv->version = true;
		return 0;
	}
	if (!o)
		return unknown_option(inv, word, err);
	if (!o->arg && attached) {
		error_set(err, EINVAL, "option '--%s' takes no value", o->name);
		error_hint(err, "%s", help_of(inv, help));
		return -EINVAL;
	}
	return option_take(inv, o, attached, words, options, err);
}

/* -a, -abc, -n value, -nvalue */
static int short_options(struct invocation *inv, const char *word, struct words *words,
			 void *options, struct error *err)
{
	for (const char *p = word + 1; *p; p++) {
		const struct verb_option *o = verb_find_letter(inv->verb, *p);
		int ret;

		if (!o && *p == 'h') {
			inv->help = true;
			return 0;
		}
		if (!o)
			return unknown_option(inv, word, err);
		ret = option_take(inv, o, o->arg && p[1] ? p + 1 : NULL, words, options, err);
		if (ret < 0 || o->arg)
			return ret;
	}
	return 0;
}

static bool is_option(const char *word)
{
	return word[0] == '-' && word[1];
}

static int take_option(struct invocation *inv, struct words *words, void *options,
		       struct error *err)
{
	const char *word = words->argv[words->next++];

	return word[1] == '-' ? long_option(inv, word, words, options, err)
			      : short_options(inv, word, words, options, err);
}

/* The leaf's options and operands. */
static int take_arguments(struct invocation *inv, struct words *words, struct error *err)
{
	bool command = inv->verb->flags & VERB_COMMAND, over = false;
	int ret;

	while (words->next < words->argc) {
		char *word = words->argv[words->next];

		if (!over && strcmp(word, "--") == 0) {
			over = true;
			inv->separator = inv->n_operands;
			words->next++;
		} else if (!over && is_option(word) && !(command && inv->n_operands)) {
			ret = take_option(inv, words, inv->options, err);
			if (ret < 0 || inv->help)
				return ret;
		} else {
			/* After the second word of a command a `--` is the command's own. */
			over = over || (command && inv->n_operands);
			inv->operands[inv->n_operands++] = word;
			words->next++;
		}
	}
	return 0;
}

static int check_operands(const struct invocation *inv, struct error *err)
{
	const struct verb *v = inv->verb;
	bool few = inv->n_operands < v->min_operands;
	bool many = v->max_operands >= 0 && inv->n_operands > v->max_operands;
	const char *synopsis = verb_synopsis(v);
	const char *gap = *synopsis ? " " : "";
	char help[96];

	if (!few && !many)
		return 0;
	if (few)
		error_set(err, EINVAL, "too few operands: lodge %s%s%s", inv->path, gap,
			  v->synopsis);
	else
		error_set(err, EINVAL, "unexpected operand '%s': lodge %s%s%s",
			  inv->operands[v->max_operands], inv->path, gap, synopsis);
	error_hint(err, "%s", help_of(inv, help));
	return -EINVAL;
}

static void *options_new(const struct verb *v)
{
	void *options = calloc(1, v->options_size ?: 1);

	if (options && v->defaults)
		memcpy(options, v->defaults, v->options_size);
	return options;
}

/* From the root to the verb that will run; the root's options are taken on the way. */
static int find_verb(struct invocation *inv, struct words *words, struct error *err)
{
	while (inv->verb->verbs) {
		const struct verb *sub;
		const char *word;
		size_t used = strlen(inv->path);
		int ret;

		if (words->next == words->argc) {
			if (inv->verb == inv->root) {
				inv->help = true;
				return 0;
			}
			error_set(err, EINVAL, "a verb is missing after '%s'", inv->path);
			error_hint(err, "see 'lodge help %s'", inv->path);
			return -EINVAL;
		}
		word = words->argv[words->next];
		if (is_option(word)) {
			ret = take_option(inv, words, inv->globals, err);
			if (ret < 0 || inv->help || inv->version)
				return ret;
			continue;
		}
		sub = verb_find(inv->verb, word, strlen(word));
		if (!sub)
			return unknown_verb(inv, word, err);
		words->next++;
		inv->verb = sub;
		snprintf(inv->path + used, sizeof(inv->path) - used, "%s%s", used ? " " : "",
			 sub->name);
	}
	return 0;
}

int verb_parse(const struct verb *root, int argc, char **argv, struct invocation *inv,
	       struct error *err)
{
	struct words words = {.argv = argv, .argc = argc, .next = argc > 0};
	int ret;

	*inv = (struct invocation){.root = root, .verb = root, .separator = -1};
	inv->globals = options_new(root);
	inv->operands = calloc((size_t)argc + 1, sizeof(*inv->operands));
	if (!inv->globals || !inv->operands)
		return error_oom(err);
	ret = find_verb(inv, &words, err);
	if (ret < 0 || inv->help || inv->version)
		return ret;
	inv->options = options_new(inv->verb);
	if (!inv->options)
		return error_oom(err);
	ret = take_arguments(inv, &words, err);
	if (ret < 0 || inv->help)
		return ret;
	return check_operands(inv, err);
}

static void options_free(const struct verb *v, void *options)
{
	for (const struct verb_option *o = v->options; options && o && o->name; o++)
		if (o->target.kind == OPTION_STRINGS)
			strv_free((void *)((char *)options + o->target.offset));
	free(options);
}

void invocation_free(struct invocation *inv)
{
	if (!inv->root)
		return;
	if (inv->options)
		options_free(inv->verb, inv->options);
	options_free(inv->root, inv->globals);
	free(inv->operands);
	*inv = (struct invocation){};
}
