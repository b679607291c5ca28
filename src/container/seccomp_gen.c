/*
 * Compiles the profiles (seccomp_profile.c) into BPF when Lodge is built: prints a header with one
 * array of `struct sock_filter` a profile, which seccomp.c includes. Runs on the build machine
 * only; libseccomp serves as the table of system call numbers.
 *
 * The code is a binary tree over ranges of numbers with the same answer. That is a third of what
 * libseccomp's own tree over single numbers takes, and the kernel's work when a container starts
 * (checking, compiling, and running the filter once for each number to fill its cache of calls that
 * are always allowed) grows with it. Because of that cache (Linux 5.11) the order of the calls
 * makes no difference later.
 */
#include "base/cleanup.h"
#include "container/seccomp_profile.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NUMBER = 600, MAX_CODE = 4096 };

/* What becomes of a number; unknown ones are ENOSYS. x32 calls (bit 30) are past MAX_NUMBER. */
struct verdict {
	int action;
	const struct seccomp_tests *tests;
};

struct range {
	int first;
	struct verdict verdict;
};

struct code {
	struct sock_filter insn[MAX_CODE];
	size_t n;
};

_Noreturn static void fail(const char *what, const char *name)
{
	fprintf(stderr, "seccomp_gen: %s%s\n", what, name);
	exit(1);
}

static void emit(struct code *c, struct sock_filter insn)
{
	if (c->n == MAX_CODE)
		fail("filter too long", "");
	c->insn[c->n++] = insn;
}

static void emit_load(struct code *c, size_t offset)
{
	emit(c, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset));
}

static void emit_return(struct code *c, int action)
{
	uint32_t value = action ? SECCOMP_RET_ERRNO | (uint32_t)action : SECCOMP_RET_ALLOW;

	emit(c, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, value));
}

static void emit_test(struct code *c, const struct seccomp_test *t)
{
	size_t exits[2];

	for (int i = 0; i < t->n_compares; i++) {
		const struct seccomp_compare *cmp = &t->compare[i];

		/* The low half: x86 is little-endian. */
		emit_load(c, offsetof(struct seccomp_data, args) + cmp->arg * sizeof(uint64_t));
		if (cmp->mask != ~0U)
			emit(c, (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, cmp->mask));
		exits[i] = c->n;
		emit(c, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, cmp->value, 0, 0));
	}
	emit_return(c, t->action);
	for (int i = 0; i < t->n_compares; i++)
		c->insn[exits[i]].jf = (uint8_t)(c->n - exits[i] - 1);
}

static void emit_verdict(struct code *c, const struct verdict *v)
{
	for (int i = 0; v->tests && i < v->tests->n; i++)
		emit_test(c, &v->tests->test[i]);
	emit_return(c, v->action);
}

/* The number is in the accumulator. */
static void emit_tree(struct code *c, const struct range *ranges, size_t n)
{
	size_t half = n / 2, jump, distance;
	struct code *low;

	if (n == 1) {
		emit_verdict(c, &ranges[0].verdict);
		return;
	}
	low = calloc(1, sizeof(*low));
	if (!low)
		fail("out of memory", "");
	emit_tree(low, ranges, half);
	/* Conditional jumps reach 255 instructions, BPF_JA any distance. */
	distance = low->n;
	jump = distance > 255 ? 1 : distance;
	emit(c, (struct sock_filter)BPF_JUMP(
			BPF_JMP | BPF_JGE | BPF_K, (uint32_t)ranges[half].first,
			(uint8_t)(distance > 255 ? 0 : jump), (uint8_t)(distance > 255 ? 1 : 0)));
	if (distance > 255)
		emit(c, (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, (uint32_t)distance));
	for (size_t i = 0; i < low->n; i++)
		emit(c, low->insn[i]);
	free(low);
	emit_tree(c, ranges + half, n - half);
}

/* libseccomp knows some x86 calls by two numbers; asking by number gives the kernel's. */
static int number_of(uint32_t arch, const char *name)
{
	for (int nr = 0; nr < MAX_NUMBER; nr++) {
		autofree char *known = seccomp_syscall_resolve_num_arch(arch, nr);

		if (known && strcmp(known, name) == 0)
			return nr;
	}
	for (const struct seccomp_number *n = seccomp_new_numbers; n->name; n++)
		if (strcmp(n->name, name) == 0 && (arch == SCMP_ARCH_X86_64 || !n->only_64))
			return n->number;
	return -1;
}

static void fill(struct verdict *verdicts, uint32_t arch, enum seccomp_profile profile)
{
	for (int nr = 0; nr < MAX_NUMBER; nr++)
		verdicts[nr] = (struct verdict){.action = ENOSYS};
	for (const struct seccomp_row *row = seccomp_rows; row->names; row++) {
		autofree char *names = strdup(row->names);

		for (char *rest = names, *name; (name = strsep(&rest, " "));) {
			int nr = number_of(arch, name);

			if (nr < 0) /* another architecture's, or a misspelt name: */
				if (number_of(SCMP_ARCH_X86_64, name) < 0 &&
				    number_of(SCMP_ARCH_X86, name) < 0 &&
				    seccomp_syscall_resolve_name(name) == __NR_SCMP_ERROR)
					fail("no such system call: ", name);
			if (nr < 0)
				continue;
			if (verdicts[nr].action != ENOSYS || verdicts[nr].tests)
				fail("listed twice: ", name);
			verdicts[nr].action = row->action[profile];
			verdicts[nr].tests = row->tests[profile];
		}
	}
}

static void emit_arch(struct code *c, uint32_t arch, enum seccomp_profile profile)
{
	struct verdict verdicts[MAX_NUMBER];
	struct range ranges[MAX_NUMBER];
	size_t n = 0;

	fill(verdicts, arch, profile);
	for (int nr = 0; nr < MAX_NUMBER; nr++) {
		if (n && verdicts[nr].action == ranges[n - 1].verdict.action &&
		    verdicts[nr].tests == ranges[n - 1].verdict.tests)
			continue;
		ranges[n++] = (struct range){nr, verdicts[nr]};
	}
	emit_load(c, offsetof(struct seccomp_data, nr));
	emit_tree(c, ranges, n);
}

static void print_profile(const char *name, enum seccomp_profile profile)
{
	static struct code program, native;

	program.n = native.n = 0;
	emit_arch(&native, SCMP_ARCH_X86_64, profile);
	emit_load(&program, offsetof(struct seccomp_data, arch));
	emit(&program,
	     (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 3, 0));
	emit(&program,
	     (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_I386, 1, 0));
	emit(&program, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
	emit(&program, (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, (uint32_t)native.n));
	for (size_t i = 0; i < native.n; i++)
		emit(&program, native.insn[i]);
	emit_arch(&program, SCMP_ARCH_X86, profile);

	printf("static const struct sock_filter %s[%zu] = {\n", name, program.n);
	for (size_t i = 0; i < program.n; i++)
		printf("\t{0x%02x, %u, %u, 0x%08x},\n", program.insn[i].code, program.insn[i].jt,
		       program.insn[i].jf, program.insn[i].k);
	printf("};\n");
}

int main(void)
{
	printf("/* Made by seccomp_gen.c from seccomp_profile.c. */\n"
	       "#include <linux/filter.h>\n\n");
	print_profile("seccomp_filter_application", SECCOMP_APPLICATION);
	print_profile("seccomp_filter_system", SECCOMP_SYSTEM);
	return ferror(stdout) || fflush(stdout) ? 1 : 0;
}
