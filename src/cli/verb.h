/*
 * What a verb of the command line is: a `struct verb` in a file of its own, with one table row
 * per option. Parsing, `--help`, the man pages and shell completion all read the same tables,
 * so that a verb's file holds its words and its work and nothing else.
 *
 *	struct stop_options {
 *		int64_t timeout_s;
 *		bool force;
 *	};
 *
 *	static int stop_run(struct invocation *inv, struct error *err)
 *	{
 *		const struct stop_options *o = inv->options;
 *		...	inv->operands[0 .. inv->n_operands - 1] are the guests
 *	}
 *
 *	static const struct verb_option stop_options[] = {
 *		{"timeout", 't', "SECONDS", option_number(struct stop_options, timeout_s, 0, 86400),
 *		 "how long the guest may take before it is killed (10)"},
 *		{"force", 'f', NULL, option_flag(struct stop_options, force), "don't ask, kill"},
 *		{},
 *	};
 *
 *	const struct verb verb_stop = {
 *		.name = "stop",
 *		.section = VERB_GUESTS,
 *		.synopsis = "[OPTIONS] GUEST...",
 *		.summary = "shut guests down",
 *		.description = "Asks each guest to shut down ...\n\nA second paragraph.",
 *		.examples = "Stop two guests:\n\n    lodge stop web db",
 *		.options = stop_options,
 *		.defaults = &(const struct stop_options){.timeout_s = 10},
 *		.options_size = sizeof(struct stop_options),
 *		.min_operands = 1,
 *		.max_operands = VERB_ANY_NUMBER,
 *		.operands = {COMPLETE_GUEST},
 *		.run = stop_run,
 *	};
 *
 * and a line in the list in cli/verbs.c, at the place where `lodge help` shall show it.
 */
#pragma once

#include "base/error.h"
#include "base/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What an argument completes to in a shell. */
enum complete {
	COMPLETE_DEFAULT = 0, /* an option: nothing; an operand: the same as the one before it */
	COMPLETE_NONE,
	COMPLETE_FILE,
	COMPLETE_DIRECTORY,
	COMPLETE_GUEST,   /* a name from `lodge ls -aq` */
	COMPLETE_IMAGE,   /* ... `lodge image ls -q` */
	COMPLETE_NETWORK, /* ... `lodge network ls -q` */
	COMPLETE_VOLUME,  /* ... `lodge volume ls -q` */
	COMPLETE_VERB,    /* a verb; the next operand its subverb */
	COMPLETE_WORDS,   /* an operand: one of the verb's operand_words */
};

enum option_kind {
	OPTION_FLAG,    /* bool, set to true */
	OPTION_STRING,  /* const char *, points into argv; NULL when not given */
	OPTION_STRINGS, /* struct strv, one entry each time it is given; the framework frees it */
	OPTION_SIZE,    /* uint64_t, bytes */
	OPTION_NUMBER,  /* int or int64_t, within [min, max] */
	OPTION_CPUS,    /* uint64_t, thousandths of a processor */
	OPTION_CHOICE,  /* int or an enum, the index of the word */
	OPTION_CALL,    /* the verb's own parser */
};

/* Where an option's value goes and how it is read; made by the option_...() macros below, which
 * check the field's type. */
struct option_target {
	enum option_kind kind;
	uint16_t offset, size;
	int64_t min, max;
	const char *const *words; /* OPTION_CHOICE: ends with NULL */
	int (*set)(void *options, const char *arg, struct error *err);
};

#define OPTION_FIELD(k, t, f, ok)                                                                  \
	.kind = (k), .offset = offsetof(t, f),                                                     \
	.size = sizeof(((t *)0)->f) +                                                              \
		0 * sizeof(struct {                                                                \
			_Static_assert(ok, "the field's type is not this kind's");                 \
			int x;                                                                     \
		})
#define OPTION_HAS_TYPE(t, f, type) __builtin_types_compatible_p(__typeof__(((t *)0)->f), type)

/* clang-format off */
#define option_flag(t, f)    {OPTION_FIELD(OPTION_FLAG, t, f, OPTION_HAS_TYPE(t, f, bool))}
#define option_string(t, f)  {OPTION_FIELD(OPTION_STRING, t, f, OPTION_HAS_TYPE(t, f, const char *))}
#define option_strings(t, f) {OPTION_FIELD(OPTION_STRINGS, t, f, OPTION_HAS_TYPE(t, f, struct strv))}
#define option_size(t, f)    {OPTION_FIELD(OPTION_SIZE, t, f, OPTION_HAS_TYPE(t, f, uint64_t))}
#define option_cpus(t, f)    {OPTION_FIELD(OPTION_CPUS, t, f, OPTION_HAS_TYPE(t, f, uint64_t))}
#define option_number(t, f, lowest, highest)                                                       \
	{OPTION_FIELD(OPTION_NUMBER, t, f,                                                         \
		      OPTION_HAS_TYPE(t, f, int) || OPTION_HAS_TYPE(t, f, int64_t)),               \
	 .min = (lowest), .max = (highest)}
#define option_choice(t, f, word_list)                                                             \
	{OPTION_FIELD(OPTION_CHOICE, t, f, sizeof(((t *)0)->f) == sizeof(int)),                    \
	 .words = (word_list)}
/* int function(void *options, const char *arg, struct error *err); arg is NULL for a flag.
 * Its error gets "--name: " put before it. */
#define option_call(function) {.kind = OPTION_CALL, .set = (function)}
/* clang-format on */

struct verb_option {
	const char *name; /* long name without the dashes; the table ends with a NULL name */
	char letter;      /* 0: none. -h is --help unless a verb takes it for something else */
	const char *arg;  /* placeholder of the argument in help; NULL: a flag */
	struct option_target target;
	const char *help;       /* lower case, no period at its end; may be several sentences */
	enum complete complete; /* what the argument completes to; choices complete by themselves */
};

/* The headings of `lodge help`. */
enum verb_section {
	VERB_GUESTS, /* make, start, stop, change */
	VERB_WATCH,  /* look at and into guests */
	VERB_MOVE,   /* snapshots, copies, migration */
	VERB_STORE,  /* images, volumes, networks */
	VERB_HOST,
	VERB_SECTIONS
};

enum {
	/* max_operands: no limit */
	VERB_ANY_NUMBER = -1,
};

enum verb_flag {
	/* What follows the first operand is a command's, options too: run, create, exec. One `--`
	 * before the first operand or right after it is dropped (see invocation.separator). */
	VERB_COMMAND = 1 << 0,
	/* For scripts of Lodge's own: not in help, man pages and completion. */
	VERB_HIDDEN = 1 << 1,
};

struct invocation {
	const struct verb *root; /* `lodge` itself; its subverbs are all verbs */
	const struct verb *verb;
	char path[64];   /* the verb with its parents: "image build" */
	void *globals;   /* the options before the verb: the root verb's struct */
	void *options;   /* the verb's own options struct */
	char **operands; /* ends with NULL; the strings are argv's */
	int n_operands;
	int separator;      /* how many operands stood before `--`; -1: there was none */
	bool help, version; /* --help, --version (before the verb): run nothing else */
};

/*
 * Text in `description`, `examples` and `details`: paragraphs separated by blank lines, filled to
 * the reader's width. Lines that begin with a space or a tab are kept as they are. Lines that
 * begin with "- `TERM` " are items of a list of terms. `Words in back quotes` are literal (bold on
 * terminals and in man pages).
 */
struct verb {
	const char *name;
	enum verb_section section;
	const char *synopsis; /* what follows the name: "[OPTIONS] GUEST..." */
	const char *summary;  /* one line, lower case, no period at its end */
	const char *description;
	const char *examples; /* NULL: none */
	const char *details;  /* what only the man page says; lines "# TITLE" begin sections */

	const struct verb_option *options; /* NULL: none */
	size_t options_size;
	const void *defaults; /* the options struct before parsing, lists empty; NULL: zeroes */

	int min_operands, max_operands;
	enum complete operands[3];        /* the last one given repeats */
	const char *const *operand_words; /* for COMPLETE_WORDS */
	unsigned flags;

	/* Either subverbs, ended by NULL (such a group takes --help but no options of its own;
	 * only the root has some), ... */
	const struct verb *const *verbs;
	/* ... or this: returns the exit status, or a negative errno with err filled, which
	 * `lodge` prints as one line (exit status err->exit_status, by default 125). */
	int (*run)(struct invocation *inv, struct error *err);
};

/* What `lodge` exits with when it, not the guest, failed. */
enum { EXIT_LODGE = 125 };

/*
 * Reads a command line: argv[0] is skipped, the options before the verb go to root's options
 * struct, then verb, options, operands. With --help anywhere (before a guest's command) the rest
 * may be incomplete. Errors: EINVAL, ERANGE, ENOMEM, and what option_call() functions return; the
 * hint says which help to read. The invocation is valid until invocation_free(), also on failure.
 */
int verb_parse(const struct verb *root, int argc, char **argv, struct invocation *inv,
	       struct error *err);
void invocation_free(struct invocation *inv);

#define autoinvocation __attribute__((cleanup(invocation_free)))

/* The subverb called name[0..len-1], or NULL. */
const struct verb *verb_find(const struct verb *group, const char *name, size_t len);

/* The option with this long name or letter, or NULL. */
const struct verb_option *verb_find_option(const struct verb *verb, const char *name, size_t len);
const struct verb_option *verb_find_letter(const struct verb *verb, char letter);

/* What follows the verb's path on its synopsis line; "" where nothing does. */
const char *verb_synopsis(const struct verb *verb);

/* What operand number `index` (from 0) completes to. */
enum complete verb_operand_complete(const struct verb *verb, int index);

/* All of Lodge's verbs (cli/verbs.c). */
extern const struct verb verb_lodge;
