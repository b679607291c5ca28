/* The command line's parser: every way to write an option, every way to be wrong. */
#include "cli/verb.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct run_options {
	bool detach, interactive, tty;
	const char *name;
	struct strv env;
	uint64_t memory_bytes, millicpus;
	int64_t timeout_s;
	int retries, engine;
	char publish[16];
};

struct root_options {
	int level;
};

static int publish_set(void *options, const char *arg, struct error *err)
{
	struct run_options *o = options;

	if (!strchr(arg, ':'))
		return error_set(err, EINVAL, "'%s' has no colon", arg);
	snprintf(o->publish, sizeof(o->publish), "%s", arg);
	return 0;
}

static int nothing_run(struct invocation *inv, struct error *err)
{
	return 0;
}

static const char *const engine_words[] = {"auto", "kvm", "soft", NULL};

static const struct verb_option run_table[] = {
	{"detach", 'd', NULL, option_flag(struct run_options, detach), "h"},
	{"interactive", 'i', NULL, option_flag(struct run_options, interactive), "h"},
	{"tty", 't', NULL, option_flag(struct run_options, tty), "h"},
	{"name", 'n', "NAME", option_string(struct run_options, name), "h"},
	{"env", 'e', "K=V", option_strings(struct run_options, env), "h"},
	{"memory", 'm', "SIZE", option_size(struct run_options, memory_bytes), "h"},
	{"cpus", 0, "N", option_cpus(struct run_options, millicpus), "h"},
	{"timeout", 0, "SECONDS", option_number(struct run_options, timeout_s, 0, 5000000000), "h"},
	{"retries", 0, "N", option_number(struct run_options, retries, -1, 10), "h"},
	{"engine", 0, "ENGINE", option_choice(struct run_options, engine, engine_words), "h"},
	{"publish", 'p', "HOST:GUEST", option_call(publish_set), "h"},
	{},
};

#define RUN_OPTIONS                                                                                \
	.options = run_table, .options_size = sizeof(struct run_options),                          \
	.defaults = &(const struct run_options){.timeout_s = 10, .engine = 1}, .run = nothing_run

static const struct verb run = {
	.name = "run",
	.synopsis = "[OPTIONS] IMAGE [--] [CMD...]",
	.min_operands = 1,
	.max_operands = VERB_ANY_NUMBER,
	.flags = VERB_COMMAND,
	RUN_OPTIONS,
};
static const struct verb stop = {
	.name = "stop",
	.synopsis = "[OPTIONS] GUEST [GUEST]",
	.min_operands = 1,
	.max_operands = 2,
	.operands = {COMPLETE_GUEST},
	RUN_OPTIONS,
};
static const struct verb build = {
	.name = "build",
	.synopsis = "NAME",
	.min_operands = 1,
	.max_operands = 1,
	.run = nothing_run,
};
static const struct verb image = {.name = "image",
				  .verbs = (const struct verb *const[]){&build, NULL}};

static const struct verb_option root_table[] = {
	{"level", 'l', "LEVEL", option_number(struct root_options, level, 0, 9), "h"},
	{},
};
static const struct verb root = {
	.name = "lodge",
	.verbs = (const struct verb *const[]){&run, &stop, &image, NULL},
	.options = root_table,
	.options_size = sizeof(struct root_options),
};

/* A parsed command line; the words are separated by single blanks. */
struct parsed {
	struct invocation inv;
	struct error err;
	int ret;
	char words[256];
	char *argv[32];
};

static void parsed_free(struct parsed *p)
{
	invocation_free(&p->inv);
}

#define autoparsed __attribute__((cleanup(parsed_free)))

static void parse(struct parsed *p, const char *line)
{
	int argc = 0;

	*p = (struct parsed){};
	snprintf(p->words, sizeof(p->words), "%s", line);
	for (char *word = p->words; word;)
		p->argv[argc++] = strsep(&word, " ");
	p->ret = verb_parse(&root, argc, p->argv, &p->inv, &p->err);
}

static struct run_options *good(struct parsed *p, const char *line)
{
	parse(p, line);
	assert_string_equal(p->err.message, "");
	assert_int_equal(p->ret, 0);
	return p->inv.options;
}

static void bad(const char *line, const char *message, const char *hint)
{
	autoparsed struct parsed p;

	parse(&p, line);
	assert_true(p.ret < 0);
	assert_int_equal(p.err.code, -p.ret);
	assert_string_equal(p.err.message, message);
	assert_string_equal(p.err.hint, hint);
}

static void test_defaults(void **state)
{
	autoparsed struct parsed p;
	struct run_options *o = good(&p, "lodge stop web");

	assert_ptr_equal(p.inv.verb, &stop);
	assert_string_equal(p.inv.path, "stop");
	assert_int_equal(o->timeout_s, 10);
	assert_int_equal(o->engine, 1);
	assert_null(o->name);
	assert_false(o->detach);
	assert_int_equal(p.inv.n_operands, 1);
	assert_string_equal(p.inv.operands[0], "web");
	assert_null(p.inv.operands[1]);
	assert_int_equal(p.inv.separator, -1);
}

static void test_styles(void **state)
{
	static const char *const lines[] = {
		"lodge stop --name a --memory 1.5G web", "lodge stop --name=a --memory=1536M web",
		"lodge stop -n a -m 1536m web",          "lodge stop -na -m1536m web",
		"lodge stop web -m 1536M -na",           "lodge stop -n b -n a web -m1536M",
		"lodge stop -n a -m 1536M -- web",
	};

	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
		autoparsed struct parsed p;
		struct run_options *o = good(&p, lines[i]);

		assert_string_equal(o->name, "a");
		assert_true(o->memory_bytes == 1536ULL << 20);
		assert_int_equal(p.inv.n_operands, 1);
		assert_string_equal(p.inv.operands[0], "web");
	}
}

static void test_combined_letters(void **state)
{
	autoparsed struct parsed p;
	struct run_options *o = good(&p, "lodge stop -itn a web -d");

	assert_true(o->interactive && o->tty && o->detach);
	assert_string_equal(o->name, "a");
}

static void test_kinds(void **state)
{
	autoparsed struct parsed p;
	struct run_options *o =
		good(&p, "lodge stop --cpus 0.5 --timeout 4294967297 --retries -1 --engine soft "
			 "-e A=1 --env=B= -e C=x=y -p 80:90 --name= web");

	assert_int_equal(o->millicpus, 500);
	assert_true(o->timeout_s == 4294967297);
	assert_int_equal(o->retries, -1);
	assert_int_equal(o->engine, 2);
	assert_int_equal(o->env.n, 3);
	assert_string_equal(o->env.v[0], "A=1");
	assert_string_equal(o->env.v[1], "B=");
	assert_string_equal(o->env.v[2], "C=x=y");
	assert_string_equal(o->publish, "80:90");
	assert_string_equal(o->name, "");
}

static void test_separator(void **state)
{
	autoparsed struct parsed p;

	good(&p, "lodge stop -- -d --name");
	assert_int_equal(p.inv.n_operands, 2);
	assert_string_equal(p.inv.operands[0], "-d");
	assert_string_equal(p.inv.operands[1], "--name");
	assert_int_equal(p.inv.separator, 0);
}

static void expect_operands(const char *line, const char *operands, int separator)
{
	autoparsed struct parsed p;
	char joined[128] = "";

	good(&p, line);
	for (int i = 0; i < p.inv.n_operands; i++) {
		if (i)
			strcat(joined, " ");
		strcat(joined, p.inv.operands[i]);
	}
	assert_string_equal(joined, operands);
	assert_int_equal(p.inv.separator, separator);
}

/* Options of the guest's command are not Lodge's. */
static void test_command(void **state)
{
	autoparsed struct parsed p;
	struct run_options *o = good(&p, "lodge run -d debian ls -i --name x --help");

	assert_true(o->detach && !o->interactive && !o->name && !p.inv.help);
	expect_operands("lodge run debian ls -l", "debian ls -l", -1);
	expect_operands("lodge run debian -l", "debian -l", -1);
	expect_operands("lodge run debian -- ls -l", "debian ls -l", 1);
	expect_operands("lodge run debian ls -- -l", "debian ls -- -l", -1);
	expect_operands("lodge run -- debian -- ls", "debian -- ls", 0);
	expect_operands("lodge run debian -- -- ls", "debian -- ls", 1);
	expect_operands("lodge run - -", "- -", -1);
}

static void test_groups_and_globals(void **state)
{
	autoparsed struct parsed p;

	good(&p, "lodge --level 3 image build x");
	assert_ptr_equal(p.inv.verb, &build);
	assert_string_equal(p.inv.path, "image build");
	assert_int_equal(((struct root_options *)p.inv.globals)->level, 3);
}

static void test_help_and_version(void **state)
{
	static const struct {
		const char *line;
		const struct verb *verb;
	} lines[] = {
		{"lodge", &root},
		{"lodge --help", &root},
		{"lodge -h", &root},
		{"lodge run --help", &run},
		{"lodge stop -dh", &stop},
		{"lodge image --help", &image},
		{"lodge stop a b c --help", &stop},
		{"lodge image build -h", &build},
	};

	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
		autoparsed struct parsed p;

		good(&p, lines[i].line);
		assert_true(p.inv.help);
		assert_ptr_equal(p.inv.verb, lines[i].verb);
	}
	{
		autoparsed struct parsed p;

		good(&p, "lodge --version");
		assert_true(p.inv.version && !p.inv.help);
	}
}

static void test_unknown(void **state)
{
	bad("lodge rnu x", "unknown verb 'rnu'", "did you mean 'run'? see 'lodge help'");
	bad("lodge frobnicate", "unknown verb 'frobnicate'", "see 'lodge help'");
	bad("lodge pull x", "unknown verb 'pull'", "did you mean 'image pull'? see 'lodge help'");
	bad("lodge shutdown x", "unknown verb 'shutdown'", "did you mean 'stop'? see 'lodge help'");
	bad("lodge image biuld", "unknown verb 'image biuld'",
	    "did you mean 'image build'? see 'lodge help image'");
	bad("lodge image", "a verb is missing after 'image'", "see 'lodge help image'");
	bad("lodge run --memroy 1G x", "unknown option '--memroy'",
	    "did you mean '--memory'? see 'lodge help run'");
	bad("lodge run --mem=1G x", "unknown option '--mem'",
	    "did you mean '--memory'? see 'lodge help run'");
	bad("lodge run --frobnicate x", "unknown option '--frobnicate'", "see 'lodge help run'");
	bad("lodge run -cpus 2 x", "unknown option '-cpus'",
	    "did you mean '--cpus'? see 'lodge help run'");
	bad("lodge run -itx y", "unknown option '-itx'", "see 'lodge help run'");
	bad("lodge --naem x run", "unknown option '--naem'", "see 'lodge help'");
	bad("lodge stop --level 3 web", "option '--level' goes before the verb",
	    "lodge --level ... stop; see 'lodge help stop'");
}

static void test_bad_values(void **state)
{
	bad("lodge run --memory", "option '--memory' needs a value: --memory SIZE",
	    "see 'lodge help run'");
	bad("lodge run -im", "option '--memory' needs a value: --memory SIZE",
	    "see 'lodge help run'");
	bad("lodge run --detach=yes x", "option '--detach' takes no value", "see 'lodge help run'");
	bad("lodge run --memory lots x", "--memory: 'lots' is not a size",
	    "write it like 512M or 1.5G (units: K, M, G, T)");
	bad("lodge run --retries 11 x", "--retries: 11 is outside -1..10", "see 'lodge help run'");
	bad("lodge run --engine=kvmm x", "--engine: 'kvmm' is not one of auto, kvm, soft",
	    "see 'lodge help run'");
	bad("lodge run -p 80 x", "--publish: '80' has no colon", "see 'lodge help run'");
}

static void test_operand_count(void **state)
{
	bad("lodge run", "too few operands: lodge run [OPTIONS] IMAGE [--] [CMD...]",
	    "see 'lodge help run'");
	bad("lodge stop a b c", "unexpected operand 'c': lodge stop [OPTIONS] GUEST [GUEST]",
	    "see 'lodge help stop'");
	bad("lodge image build", "too few operands: lodge image build NAME",
	    "see 'lodge help image build'");
}

static void test_operand_completion(void **state)
{
	static const struct verb set = {.operands = {COMPLETE_GUEST, COMPLETE_NONE}};
	static const struct verb none = {};

	assert_int_equal(verb_operand_complete(&stop, 0), COMPLETE_GUEST);
	assert_int_equal(verb_operand_complete(&stop, 7), COMPLETE_GUEST);
	assert_int_equal(verb_operand_complete(&set, 0), COMPLETE_GUEST);
	assert_int_equal(verb_operand_complete(&set, 1), COMPLETE_NONE);
	assert_int_equal(verb_operand_complete(&set, 9), COMPLETE_NONE);
	assert_int_equal(verb_operand_complete(&none, 0), COMPLETE_NONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_styles),
		cmocka_unit_test(test_combined_letters),
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_separator),
		cmocka_unit_test(test_command),
		cmocka_unit_test(test_groups_and_globals),
		cmocka_unit_test(test_help_and_version),
		cmocka_unit_test(test_unknown),
		cmocka_unit_test(test_bad_values),
		cmocka_unit_test(test_operand_count),
		cmocka_unit_test(test_operand_completion),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
