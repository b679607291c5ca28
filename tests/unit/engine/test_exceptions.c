/* Exceptions in long mode: vectors, error codes, addresses, what is saved; double and triple
 * faults; debug exceptions. */
#include "base/cleanup.h"
#include "guest.h"

#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

CODE(ud2, "nop; ud2");
CODE(div0, "xor %ecx, %ecx; div %ecx");
CODE(int3, "int3; nop");
CODE(int80, "int $0x80; nop");
CODE(int81, "int $0x81; nop");
CODE(hlt, "hlt");
CODE(noncanonical, "mov $0x800000000000, %rax; mov (%rax), %rbx");
CODE(noncanonical_stack, "mov $0x800000000100, %rsp; push %rax");
CODE(read, "mov 0x200123, %eax");
CODE(write, "mov %eax, 0x200ffe");
CODE(cross, "mov %rax, 0x200ffc");
CODE(execute, "mov $0x200010, %eax; jmp *%rax");
CODE(supervisor, "mov 0x5000, %eax");
CODE(null_ds, "xor %eax, %eax; mov %eax, %ss");
CODE(bad_ds, "mov $0xfff8, %eax; mov %eax, %ds");
CODE(far, "lretq");
CODE(unaligned, "movaps 0x200008, %xmm0");
CODE(fxsave, "fxsave 0x200008");
CODE(xm, "movl $0x1f00, 0x200000; ldmxcsr 0x200000; xorps %xmm0, %xmm0; xorps %xmm1, %xmm1;"
	 "divss %xmm1, %xmm0");
CODE(mf, "fninit; movw $0x37b, 0x200000; fldcw 0x200000; fldz; fld1; fdivp; nop; fwait");
CODE(ts, "mov %cr0, %rax; or $8, %rax; mov %rax, %cr0; movaps %xmm0, %xmm1");
CODE(lock, ".byte 0xf0; nop");
CODE(wrmsr, "mov $0x12345, %ecx; wrmsr");
CODE(ac, "pushfq; orq $0x40000, (%rsp); popfq; mov 0x200001, %eax");
CODE(iret, "push $0x10; push $0; pushfq; push $0xfff8; push $0; iretq");

static const struct {
	const char *name;
	const uint8_t *code, *end;
	unsigned int cpl, vector;
	uint64_t error_code, cr2;
	unsigned int length; /* of the code before the saved RIP */
	uint64_t pte;        /* of the page at GUEST_PAGES; 0: as it is */
	uint64_t cr4, cr0;   /* to be set */
	uint64_t rflags;
} cases[] = {
#define CASE(n, ...)                                                                               \
	{                                                                                          \
#n, code_##n, code_##n##_end, __VA_ARGS__                                          \
	}
	CASE(ud2, 0, EXC_UD, 0, 0, 1),
	CASE(ud2, 3, EXC_UD, 0, 0, 1),
	CASE(div0, 3, EXC_DE, 0, 0, 2),
	CASE(int3, 3, EXC_BP, 0, 0, 1),
	CASE(int80, 3, 0x80, 0, 0, 2),
	CASE(int80, 0, 0x80, 0, 0, 2),
	CASE(int81, 0, 0x81, 0, 0, 2),
	CASE(int81, 3, EXC_GP, 0x81 * 8 + 2, 0, 0),
	CASE(hlt, 3, EXC_GP, 0, 0, 0),
	CASE(noncanonical, 3, EXC_GP, 0, 0, 10),
	CASE(noncanonical_stack, 3, EXC_SS, 0, 0, 10),
	CASE(read, 0, EXC_PF, 0, 0x200123, 0, 0x200006),
	CASE(read, 3, EXC_PF, PF_U, 0x200123, 0, 0x200006),
	CASE(read, 3, EXC_PF, PF_U | PF_P, 0x200123, 0, 0x200003),
	CASE(read, 0, EXC_PF, PF_P | PF_RSVD, 0x200123, 0, 0x200007 | 1ull << 51),
	CASE(read, 0, EXC_PF, PF_P, 0x200123, 0, 0x200007, CR4_SMAP),
	CASE(write, 0, EXC_PF, PF_W, 0x200ffe, 0, 0x200006),
	CASE(write, 3, EXC_PF, PF_W | PF_U | PF_P, 0x200ffe, 0, 0x200005),
	CASE(write, 0, EXC_PF, PF_W | PF_P, 0x200ffe, 0, 0x200005),
	CASE(cross, 3, EXC_PF, PF_W | PF_U | PF_P, 0x200ffc, 0, 0x200005),
	CASE(execute, 3, EXC_PF, PF_I | PF_U | PF_P, 0x200010, 0xfffff, 0x200007 | 1ull << 63),
	CASE(execute, 0, EXC_PF, PF_I | PF_P, 0x200010, 0xfffff, 0x200007, CR4_SMEP),
	CASE(supervisor, 3, EXC_PF, PF_U | PF_P, 0x5000, 0),
	CASE(null_ds, 3, EXC_GP, 0, 0, 2),
	CASE(bad_ds, 3, EXC_GP, 0xfff8, 0, 5),
	CASE(far, 3, EXC_GP, 0, 0, 0),
	CASE(unaligned, 3, EXC_GP, 0, 0, 0),
	CASE(fxsave, 3, EXC_GP, 0, 0, 0),
	CASE(xm, 3, EXC_XM, 0, 0, 0x19),
	CASE(mf, 3, EXC_MF, 0, 0, 0x1a),
	CASE(ts, 0, EXC_NM, 0, 0, 10),
	CASE(lock, 3, EXC_UD, 0, 0, 0),
	CASE(wrmsr, 0, EXC_GP, 0, 0, 5),
	CASE(wrmsr, 3, EXC_GP, 0, 0, 5),
	CASE(ac, 3, EXC_AC, 0, 0, 10, 0, 0, CR0_AM),
	CASE(iret, 0, EXC_GP, 0xfff8, 0, 0xfffff),
};

static void test_table(void **context)
{
	struct guest g;

	guest_new(&g, 1);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t rip = GUEST_CODE + cases[i].length;

		guest_load(&g, cases[i].code, (size_t)(cases[i].end - cases[i].code), cases[i].cpl);
		if (cases[i].pte)
			*guest_pte(&g, 0) = cases[i].pte;
		g.cpu[0]->s.cr4 |= cases[i].cr4;
		g.cpu[0]->s.cr0 |= cases[i].cr0;
		assert_int_equal(guest_run(&g), VCPU_EXIT_KICKED);
		if (cases[i].vector == EXC_PF && (cases[i].error_code & PF_I))
			rip = 0x200010;
		if (g.n_events != 1 || g.vector != cases[i].vector ||
		    g.error_code != cases[i].error_code ||
		    (cases[i].vector == EXC_PF && g.cr2 != cases[i].cr2) ||
		    (cases[i].length != 0xfffff && g.rip != rip) || (g.cs & 3) != cases[i].cpl)
			fail_msg("%s at level %u: vector %u error 0x%llx cr2 0x%llx rip 0x%llx",
				 cases[i].name, cases[i].cpl, g.vector,
				 (unsigned long long)g.error_code, (unsigned long long)g.cr2,
				 (unsigned long long)g.rip);
		/* From level 3 it comes on RSP0, from level 0 on the same stack. */
		assert_true(cases[i].cpl == 0 || g.ss == GUEST_DS3);
		assert_int_equal(g.cpu[0]->cpl, 0);
	}
	guest_free(&g);
}

/* Accessed and dirty bits, in every level. */
CODE(touch, "mov 0x200000, %eax; mov %eax, 0x201000; mov $1, %eax; out %al, $0xf4");

static void test_accessed_dirty(void **context)
{
	struct guest g;

	guest_new(&g, 1);
	guest_load(&g, code_touch, CODE_SIZE(touch), 0);
	guest_run(&g);
	assert_true(g.finished);
	assert_int_equal(*guest_pte(&g, 0) & 0x60, 0x20);
	assert_int_equal(*guest_pte(&g, 1) & 0x60, 0x60);
	assert_int_equal(*guest_pte(&g, 2) & 0x60, 0);
	assert_int_equal(g.ram[GUEST_TABLES] & 0x20, 0x20);
	guest_free(&g);
}

CODE(double, "lidt 0x200000; ud2");
CODE(double_pf, "mov $0x200008, %rsp; movl $0, 0x5000000");

static void test_double_fault(void **context)
{
	struct guest g;

	guest_new(&g, 1);
	/* #UD is there, its gate isn't present: #NP is contributory, but #UD is not: no #DF. */
	guest_load(&g, code_ud2, CODE_SIZE(ud2), 0);
	g.ram[GUEST_IDT + 16 * EXC_UD + 5] = 0x0e;
	guest_run(&g);
	assert_int_equal(g.vector, EXC_NP);
	assert_int_equal(g.error_code, EXC_UD * 8 + 2 + 1);
	/* #GP with a gate that isn't there: double fault, on its own stack. */
	guest_load(&g, code_hlt, CODE_SIZE(hlt), 3);
	g.ram[GUEST_IDT + 16 * EXC_GP + 5] = 0x0e;
	guest_run(&g);
	assert_int_equal(g.vector, EXC_DF);
	assert_int_equal(g.error_code, 0);
	assert_in_range(g.cpu[0]->s.regs[REG_RSP], GUEST_IST_STACK - 0x100, GUEST_IST_STACK);
	/* A page fault whose stack faults, too. */
	guest_load(&g, code_double_pf, CODE_SIZE(double_pf), 0);
	*guest_pte(&g, 0) = 0;
	g.ram[GUEST_TABLES + 0x4000 + 8 * 511] = 0;
	guest_run(&g);
	assert_int_equal(g.vector, EXC_DF);
	/* And without a usable IDT: shutdown. */
	guest_load(&g, code_double, CODE_SIZE(double), 0);
	memset(g.ram + GUEST_PAGES, 0, 16);
	assert_int_equal(guest_run(&g), VCPU_EXIT_SHUTDOWN);
	guest_free(&g);
}

CODE(step, "pushfq; orq $0x100, (%rsp); popfq; nop; nop");
CODE(step_syscall, "nop; nop; mov %eax, 0x200010; nop");

static void test_debug(void **context)
{
	struct guest g;

	guest_new(&g, 1);
	/* TF traps after the instruction behind POPF. */
	guest_load(&g, code_step, CODE_SIZE(step), 3);
	guest_run(&g);
	assert_int_equal(g.vector, EXC_DB);
	assert_int_equal(g.rip, GUEST_CODE + 11);
	assert_int_equal(g.dr6 & 0x4000, 0x4000);
	/* An instruction break point is a fault, */
	guest_load(&g, code_step_syscall, CODE_SIZE(step_syscall), 3);
	g.cpu[0]->s.dr[1] = GUEST_CODE + 1;
	g.cpu[0]->s.dr7 = 0x400 | 4;
	vcpu_mode_changed(g.cpu[0]);
	guest_run(&g);
	assert_int_equal(g.vector, EXC_DB);
	assert_int_equal(g.rip, GUEST_CODE + 1);
	assert_int_equal(g.dr6 & 0xf, 2);
	/* a watch point a trap. */
	guest_load(&g, code_step_syscall, CODE_SIZE(step_syscall), 3);
	g.cpu[0]->s.dr[0] = 0x200010;
	g.cpu[0]->s.dr7 = 0x400 | 1 | 1 << 16 | 3 << 18;
	vcpu_mode_changed(g.cpu[0]);
	guest_run(&g);
	assert_int_equal(g.vector, EXC_DB);
	assert_int_equal(g.rip, GUEST_CODE + 9);
	assert_int_equal(g.dr6 & 0xf, 1);
	/* The debugger's own points don't reach the guest. */
	guest_load(&g, code_step_syscall, CODE_SIZE(step_syscall), 3);
	{
		struct vcpu_debug debug = {.points = {{GUEST_CODE + 2, 1, 0}}};

		engine_soft.vcpu_set_debug(g.cpu[0], &debug, NULL);
		assert_int_equal(guest_run(&g), VCPU_EXIT_DEBUG);
		assert_int_equal(g.cpu[0]->s.rip, GUEST_CODE + 2);
		debug = (struct vcpu_debug){.single_step = true};
		engine_soft.vcpu_set_debug(g.cpu[0], &debug, NULL);
		assert_int_equal(guest_run(&g), VCPU_EXIT_DEBUG);
		assert_int_equal(g.cpu[0]->s.rip, GUEST_CODE + 9);
		assert_int_equal(g.n_events, 0);
	}
	guest_free(&g);
}

/* From the handler back to level 3, with all that IRETQ loads. */
CODE(iretq, "mov $7, %ecx; int $0x80; mov %ss, %eax; cmp $0x1b, %eax; jne 1f; ud2; 1: hlt");

static void test_return(void **context)
{
	struct guest g;

	guest_new(&g, 1);
	guest_load(&g, code_iretq, CODE_SIZE(iretq), 3);
	g.continue_events = true;
	g.ram[GUEST_STUBS + 16 * EXC_UD + 4] = GUEST_DONE;
	g.ram[GUEST_STUBS + 16 * EXC_GP + 4] = GUEST_DONE;
	guest_run(&g);
	assert_true(g.finished);
	assert_int_equal(g.done, EXC_UD);
	assert_int_equal(g.n_events, 1);
	guest_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),        cmocka_unit_test(test_accessed_dirty),
		cmocka_unit_test(test_double_fault), cmocka_unit_test(test_debug),
		cmocka_unit_test(test_return),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
