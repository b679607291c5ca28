/*
 * `lodge complete`, which the shells' completion scripts call (completion.c): finds, in the same
 * tables that the parser reads, what may stand where the cursor is. It never fails on what was
 * typed, and asks neither guests nor images: the script does that, only where their names fit.
 */
#include "cli/completion.h"
#include "cli/verbs.h"

#include <string.h>

/* Where the cursor is. */
struct place {
	const struct verb *verb;
	const struct verb *named;         /* by the operands of `lodge help` */
	const struct verb_option *option; /* its value is being typed */
	int operands;
	bool options_over, lost;
};

/* The option of this word that takes the next word as its value; NULL: none. */
static const struct verb_option *option_waiting(const struct verb *verb, const char *word)
{
	const struct verb_option *o;

	if (word[1] == '-') {
		o = verb_find_option(verb, word + 2, strlen(word + 2));
		return o && o->arg ? o : NULL;
	}
	for (const char *p = word + 1; *p; p++) {
		o = verb_find_letter(verb, *p);
		if (o && o->arg)
			return p[1] ? NULL : o;
	}
	return NULL;
}

static void step(struct place *at, const char *word)
{
	const struct verb *sub;

	if (at->option) {
		at->option = NULL;
	} else if (!at->options_over && strcmp(word, "--") == 0) {
		at->options_over = true;
	} else if (!at->options_over && word[0] == '-' && word[1]) {
		at->option = option_waiting(at->verb, word);
	} else if (at->verb->verbs) {
		sub = verb_find(at->verb, word, strlen(word));
		at->lost = at->lost || !sub;
		at->verb = sub ?: at->verb;
	} else {
		at->operands++;
		at->options_over = at->options_over || (at->verb->flags & VERB_COMMAND);
		if (at->named)
			at->named = verb_find(at->named, word, strlen(word));
	}
}

static void print_word(const char *word, const char *description, FILE *file)
{
	fprintf(file, "%s\t%s\n", word, description);
}

static void print_words(const char *const *words, FILE *file)
{
	fputs("words\n", file);
	for (; words && *words; words++)
		print_word(*words, "", file);
}

static void print_verbs(const struct verb *group, FILE *file)
{
	fputs("words\n", file);
	for (const struct verb *const *v = group ? group->verbs : NULL; v && *v; v++)
		if (!((*v)->flags & VERB_HIDDEN))
			print_word((*v)->name, (*v)->summary, file);
}

static void print_options(const struct verb *verb, bool root, FILE *file)
{
	char word[64];

	fputs("words\n", file);
	for (const struct verb_option *o = verb->options; o && o->name; o++) {
		snprintf(word, sizeof(word), "--%s", o->name);
		print_word(word, o->help, file);
	}
	print_word("--help", "describe this verb", file);
	if (root)
		print_word("--version", "print Lodge's version", file);
}

static void print_kind(enum complete kind, const struct place *at, FILE *file)
{
	static const char *const names[] = {
		[COMPLETE_DEFAULT] = "none",     [COMPLETE_NONE] = "none",
		[COMPLETE_FILE] = "files",       [COMPLETE_DIRECTORY] = "directories",
		[COMPLETE_GUEST] = "guests",     [COMPLETE_IMAGE] = "images",
		[COMPLETE_NETWORK] = "networks", [COMPLETE_VOLUME] = "volumes",
	};

	if (kind == COMPLETE_VERB)
		print_verbs(at->named, file);
	else if (kind == COMPLETE_WORDS)
		print_words(at->verb->operand_words, file);
	else
		fprintf(file, "%s\n", names[kind]);
}

static void print_value(const struct verb_option *o, const struct place *at, FILE *file)
{
	if (o->target.kind == OPTION_CHOICE)
		print_words(o->target.words, file);
	else
		print_kind(o->complete, at, file);
}

void completion_print(const struct verb *root, int n, char *const *words, FILE *file)
{
	struct place at = {.verb = root, .named = root};
	const char *current = n > 0 ? words[n - 1] : "";
	const char *equals = strchr(current, '=');
	const struct verb_option *o;
	int max;

	for (int i = 0; i < n - 1; i++)
		step(&at, words[i]);
	max = at.verb->max_operands;
	if (at.lost) {
		fputs("none\n", file);
	} else if (at.option) {
		print_value(at.option, &at, file);
	} else if (!at.options_over && current[0] == '-') {
		if (!equals || current[1] != '-') {
			print_options(at.verb, at.verb == root, file);
			return;
		}
		o = verb_find_option(at.verb, current + 2, (size_t)(equals - current - 2));
		if (o && o->arg)
			print_value(o, &at, file);
		else
			fputs("none\n", file);
	} else if (at.verb->verbs) {
		print_verbs(at.verb, file);
	} else if (max >= 0 && at.operands >= max) {
		fputs("none\n", file);
	} else {
		print_kind(verb_operand_complete(at.verb, at.operands), &at, file);
	}
}

static int complete_run(struct invocation *inv, struct error *err)
{
	completion_print(inv->root, inv->n_operands, inv->operands, stdout);
	return 0;
}

const struct verb verb_complete = {
	.name = "complete",
	.section = VERB_HOST,
	.synopsis = "-- WORD...",
	.summary = "print what the last word can be continued with",
	.description = "The scripts of `lodge completion` call this verb. The first line says what "
		       "fits at the place of the last word, the others are the words that do.",
	.max_operands = VERB_ANY_NUMBER,
	.flags = VERB_COMMAND | VERB_HIDDEN,
	.run = complete_run,
};
