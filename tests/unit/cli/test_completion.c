/* What may stand at the cursor: the words so far, and what `lodge complete` answers. */
#include "base/cleanup.h"
#include "cli/completion.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

struct options {
	bool detach;
	const char *name, *file;
	int engine;
};

static const char *const engine_words[] = {"auto", "kvm", NULL};

static const struct verb_option table[] = {
	{"detach", 'd', NULL, option_flag(struct options, detach), "in the background"},
	{"name", 'n', "NAME", option_string(struct options, name), "a name"},
	{"file", 'f', "FILE", option_string(struct options, file), "a file", COMPLETE_FILE},
	{"engine", 'e', "E", option_choice(struct options, engine, engine_words), "an engine"},
	{},
};

static const struct verb run = {
	.name = "run",
	.summary = "start",
	.options = table,
	.max_operands = VERB_ANY_NUMBER,
	.operands = {COMPLETE_IMAGE, COMPLETE_NONE},
	.flags = VERB_COMMAND,
};
static const struct verb stop = {
	.name = "stop",
	.summary = "end",
	.options = table,
	.max_operands = 2,
	.operands = {COMPLETE_GUEST},
};
static const struct verb build = {.name = "build", .summary = "make"};
static const struct verb image = {
	.name = "image", .summary = "images", .verbs = (const struct verb *const[]){&build, NULL}};
static const struct verb help = {
	.name = "help",
	.summary = "explain",
	.max_operands = VERB_ANY_NUMBER,
	.operands = {COMPLETE_VERB},
};
static const struct verb secret = {.name = "secret", .summary = "x", .flags = VERB_HIDDEN};
static const struct verb root = {
	.name = "lodge",
	.verbs = (const struct verb *const[]){&run, &stop, &image, &help, &secret, NULL},
};

/* `line` are the words after `lodge`, by single blanks; a blank at its end: a new word. */
static void expect(const char *line, const char *expected)
{
	autofree char *copy = strdup(line), *printed = NULL;
	char *rest = copy, *words[16];
	size_t size;
	FILE *f = open_memstream(&printed, &size);
	int n = 0;

	while (rest)
		words[n++] = strsep(&rest, " ");
	completion_print(&root, n, words, f);
	fclose(f);
	assert_string_equal(printed, expected);
}

#define ALL_VERBS "words\nrun\tstart\nstop\tend\nimage\timages\nhelp\texplain\n"
#define ALL_OPTIONS                                                                                \
	"words\n--detach\tin the background\n--name\ta name\n--file\ta file\n--engine\tan "        \
	"engine\n--help\tdescribe this verb\n"
#define ENGINES "words\nauto\t\nkvm\t\n"

static void test_verbs(void **state)
{
	expect("", ALL_VERBS);
	expect("r", ALL_VERBS); /* the shell picks by what was typed */
	expect("image ", "words\nbuild\tmake\n");
	expect("help ", ALL_VERBS);
	expect("help image ", "words\nbuild\tmake\n");
	expect("help run ", "words\n");
	expect("help nothing ", "words\n");
	expect("nothing ", "none\n");
}

static void test_options(void **state)
{
	expect("run -", ALL_OPTIONS);
	expect("run --na", ALL_OPTIONS);
	expect("stop web --", ALL_OPTIONS);
	expect("run debian -", "none\n"); /* the command's own */
	expect("stop -- -", "guests\n");
}

static void test_values(void **state)
{
	expect("run --engine ", ENGINES);
	expect("run --engine=k", ENGINES);
	expect("run -e ", ENGINES);
	expect("run -de ", ENGINES);
	expect("run -ekvm ", "images\n");
	expect("run --file ", "files\n");
	expect("run --file=/e", "files\n");
	expect("run --name ", "none\n");
	expect("run --name x ", "images\n");
	expect("run --detach ", "images\n");
	expect("run --detach=", "none\n");
}

static void test_operands(void **state)
{
	expect("run ", "images\n");
	expect("run debian ", "none\n");
	expect("stop ", "guests\n");
	expect("stop web ", "guests\n");
	expect("stop web db ", "none\n");
	expect("image build ", "none\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_verbs),
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_operands),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
