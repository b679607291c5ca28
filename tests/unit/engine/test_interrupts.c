/* The local APIC and the ways of interrupts: priorities, shadows, timers, messages, other vCPUs,
 * NMI, HLT and kicks. */
#include "base/cleanup.h"
#include "guest.h"

#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define DONE "mov $1, %al; out %al, $0xf4;"

/* Maps the APIC's page. */
static void load(struct guest *g, const uint8_t *code, size_t size)
{
	uint64_t *pdpt, *pd;

	guest_load(g, code, size, 0);
	pdpt = (uint64_t *)(void *)(g->ram + GUEST_TABLES + 0x1000);
	pd = (uint64_t *)(void *)(g->ram + GUEST_TABLES + 0x5000);
	pdpt[3] = (GUEST_TABLES + 0x5000) | 3;
	pd[0x1f7] = 0xfee00083;
	g->cpu[0]->s.apic_base = 0xfee00900;
	lapic_reset(g->cpu[0]);
}

#define LOAD(g, name) load(g, code_##name, CODE_SIZE(name))

/* Absolute addresses above 2 GiB need a register. */
#define APIC "mov $0xfee00000, %ebx;"

CODE(self, APIC "movl $0x1ff, 0xf0(%rbx); movl $0x40041, 0x300(%rbx); nop; sti; nop; nop;" DONE);

static void test_self_ipi(void **context)
{
	struct guest g;

	guest_new(&g, 1);
	LOAD(&g, self);
	guest_run(&g);
	assert_int_equal(g.vector, 0x41);
	/* Not at STI, but after the instruction behind it. */
	assert_int_equal(g.rip, GUEST_CODE + CODE_SIZE(self) - 4 - 1);
	assert_true(g.rflags & FLAG_IF);
	guest_free(&g);
}

CODE(priority, APIC "movl $0x1ff, 0xf0(%rbx); movl $0x50, 0x80(%rbx);"
		    "movl $0x40041, 0x300(%rbx); movl $0x40062, 0x300(%rbx);"
		    "movl $0x40081, 0x300(%rbx);"
		    "sti; nop; nop; mov 0xa0(%rbx), %ecx; movl $0, 0xb0(%rbx); nop;"
		    "movl $0, 0xb0(%rbx); nop; xor %eax, %eax; mov %rax, %cr8; nop; cli;" DONE);

static void test_priority(void **context)
{
	struct guest g;

	guest_new(&g, 1);
	LOAD(&g, priority);
	g.continue_events = true;
	guest_run(&g);
	assert_true(g.finished);
	/* 0x81, and while it is in service nothing below; then 0x62; 0x41 once TPR is 0. */
	assert_int_equal(g.n_events, 3);
	assert_int_equal(g.vector, 0x41);
	assert_int_equal(g.cpu[0]->s.regs[REG_RCX], 0x80);
	guest_free(&g);
}

CODE(timer, APIC "movl $0x1ff, 0xf0(%rbx); movl $0xb, 0x3e0(%rbx); movl $0x33, 0x320(%rbx);"
		 "movl $2000000, 0x380(%rbx); sti; hlt; cli;" DONE);
CODE(periodic, APIC "movl $0x1ff, 0xf0(%rbx); movl $0xb, 0x3e0(%rbx); movl $0x20033, 0x320(%rbx);"
		    "movl $500000, 0x380(%rbx); mov $5, %edx; 1: sti; hlt; cli;"
		    "movl $0, 0xb0(%rbx); dec %edx; jnz 1b;" DONE);
CODE(deadline, APIC "movl $0x1ff, 0xf0(%rbx); movl $0x40033, 0x320(%rbx); rdtsc;"
		    "add $3000000, %eax; adc $0, %edx; mov $0x6e0, %ecx; wrmsr; sti; hlt; cli;"
		    "rdmsr;" DONE);
CODE(spin, APIC "movl $0x1ff, 0xf0(%rbx); movl $0xb, 0x3e0(%rbx); movl $0x33, 0x320(%rbx);"
		"movl $1000000, 0x380(%rbx); sti; 1: jmp 1b");

static void test_timer(void **context)
{
	uint64_t start, took;
	struct guest g;

	guest_new(&g, 1);
	LOAD(&g, timer);
	g.continue_events = true;
	start = clock_ns();
	guest_run(&g);
	took = clock_ns() - start;
	assert_true(g.finished);
	assert_int_equal(g.vector, 0x33);
	assert_in_range(took, 2000000, 100000000);

	LOAD(&g, periodic);
	g.continue_events = true;
	start = clock_ns();
	guest_run(&g);
	took = clock_ns() - start;
	assert_int_equal(g.n_events, 5);
	assert_in_range(took, 2400000, 100000000);

	LOAD(&g, deadline);
	g.continue_events = true;
	guest_run(&g);
	assert_true(g.finished);
	assert_int_equal(g.n_events, 1);
	assert_int_equal(g.cpu[0]->s.regs[REG_RAX] & ~0xffull, 0); /* disarmed; AL is DONE's */

	/* An interrupt gets through to code that never stops. */
	LOAD(&g, spin);
	guest_run(&g);
	assert_int_equal(g.vector, 0x33);
	guest_free(&g);
}

CODE(wait, APIC "movl $0x1ff, 0xf0(%rbx); sti; 1: hlt; jmp 1b");

static void *later(void *data)
{
	struct guest *g = data;

	nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	engine_soft.vm_msi(g->vm, 0xfee00000, 0x8055);
	return NULL;
}

static void *kick_later(void *data)
{
	struct guest *g = data;

	nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	engine_soft.vcpu_kick(g->cpu[0]);
	return NULL;
}

CODE(level, APIC "movl $0x1ff, 0xf0(%rbx); sti; hlt; movl $0, 0xb0(%rbx);" DONE);
CODE(rep, "mov $0x200000, %edi; mov $-1, %rcx; 1: cld; rep lodsb");
CODE(forever, "1: jmp 1b");
CODE(fault_loop, "mov $0x200000, %edi; mov $0xffffffffff, %rcx; mov $0x200000, %esi; 1: ud2");

static void test_wake_up(void **context)
{
	const struct {
		const uint8_t *code;
		size_t size;
		bool again; /* its handler returns to the fault */
	} loops[] = {{code_rep, CODE_SIZE(rep), true},
		     {code_forever, CODE_SIZE(forever), false},
		     {code_fault_loop, CODE_SIZE(fault_loop), true},
		     {code_wait, CODE_SIZE(wait), false}};
	pthread_t thread;
	struct guest g;

	guest_new(&g, 1);
	LOAD(&g, wait);
	pthread_create(&thread, NULL, later, &g);
	guest_run(&g);
	pthread_join(thread, NULL);
	assert_int_equal(g.vector, 0x55);

	LOAD(&g, level);
	g.continue_events = true;
	pthread_create(&thread, NULL, later, &g);
	guest_run(&g);
	pthread_join(thread, NULL);
	assert_int_equal(g.n_eoi, 1);
	assert_int_equal(g.eoi[0], 0x55);

	/* A kick ends whatever goes on. */
	for (size_t i = 0; i < ARRAY_SIZE(loops); i++) {
		uint64_t start;

		load(&g, loops[i].code, loops[i].size);
		g.continue_events = loops[i].again;
		pthread_create(&thread, NULL, kick_later, &g);
		start = clock_ns();
		assert_int_equal(guest_run(&g), VCPU_EXIT_KICKED);
		assert_in_range(clock_ns() - start, 0, 200000000);
		pthread_join(thread, NULL);
		assert_false(g.finished);
	}
	/* And a kick before running is not lost. */
	LOAD(&g, wait);
	engine_soft.vcpu_kick(g.cpu[0]);
	assert_int_equal(guest_run(&g), VCPU_EXIT_KICKED);
	guest_free(&g);
}

CODE(lint0, APIC "movl $0x10700, 0x350(%rbx); sti; nop; nop; cli;" DONE);

static void test_nmi_and_extint(void **context)
{
	struct guest g;

	guest_new(&g, 1);
	LOAD(&g, forever);
	engine_soft.vcpu_nmi(g.cpu[0]);
	guest_run(&g);
	assert_int_equal(g.vector, 2);
	/* Blocked until the handler's IRET. */
	assert_true(g.cpu[0]->s.nmi_blocked);
	engine_soft.vcpu_nmi(g.cpu[0]);
	guest_run(&g);
	assert_int_equal(g.n_events, 2);
	assert_int_equal(g.rip, GUEST_CODE);

	LOAD(&g, wait);
	g.pic_vector = 0x29;
	engine_soft.vcpu_set_extint(g.cpu[0], true);
	guest_run(&g);
	assert_int_equal(g.vector, 0x29);
	/* Not with LINT0 masked. */
	LOAD(&g, lint0);
	g.pic_vector = 0x29;
	engine_soft.vcpu_set_extint(g.cpu[0], true);
	guest_run(&g);
	assert_true(g.finished);
	assert_int_equal(g.n_events, 0);
	guest_free(&g);
}

/* x2APIC: by MSRs, with 64-bit ICR. */
CODE(x2apic, "mov $0x1b, %ecx; rdmsr; or $0xc00, %eax; wrmsr; mov $0x80f, %ecx; mov $0x1ff, %eax;"
	     "xor %edx, %edx; wrmsr; mov $0x83f, %ecx; mov $0x77, %eax; wrmsr; sti; nop; cli;"
	     "mov $0x80b, %ecx; xor %eax, %eax; wrmsr; mov $0x802, %ecx; rdmsr; mov %eax, %ebp;"
	     "mov $0x80d, %ecx; rdmsr; mov %eax, %esi; mov $0x80e, %ecx; rdmsr");

static void test_x2apic(void **context)
{
	struct guest g;

	guest_new(&g, 1);
	LOAD(&g, x2apic);
	g.continue_events = true;
	g.ram[GUEST_STUBS + 16 * EXC_GP + 4] = GUEST_DONE;
	guest_run(&g);
	assert_int_equal(g.n_events, 1);
	assert_int_equal(g.vector, 0x77);
	assert_true(g.finished); /* DFR is not there: #GP */
	assert_int_equal(g.done, EXC_GP);
	assert_int_equal(g.cpu[0]->s.regs[REG_RBP], 0);
	assert_int_equal(g.cpu[0]->s.regs[REG_RSI], 1);
	guest_free(&g);
}

/* INIT and SIPI to a second vCPU, which answers from real mode. */
CODE(start, APIC "movl $0x1ff, 0xf0(%rbx); movl $0x01000000, 0x310(%rbx);"
		 "movl $0x4500, 0x300(%rbx); movl $0x4607, 0x300(%rbx); movl $0x4607, 0x300(%rbx);"
		 "1: pause; cmpw $0x1234, 0x7ff0; jne 1b;" DONE);
CODE(ap, ".code16; mov %cs, %ax; mov %ax, %ds; movw $0x1234, %ds:0xff0; 1: hlt; jmp 1b; .code64");

static void *run_second(void *data)
{
	struct guest *g = data;
	enum vcpu_exit exit;

	engine_soft.vcpu_run(g->cpu[1], &exit, NULL);
	return NULL;
}

static void test_second_vcpu(void **context)
{
	pthread_t thread;
	struct guest g;

	guest_new(&g, 2);
	LOAD(&g, start);
	memcpy(g.ram + 0x7000, code_ap, CODE_SIZE(ap));
	pthread_create(&thread, NULL, run_second, &g);
	guest_run(&g);
	assert_true(g.finished);
	engine_soft.vcpu_kick(g.cpu[1]);
	pthread_join(thread, NULL);
	assert_int_equal(g.cpu[1]->s.segs[SEG_CS].base, 0x7000);
	assert_int_equal(g.cpu[1]->s.activity, VCPU_HALTED);
	guest_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_self_ipi),       cmocka_unit_test(test_priority),
		cmocka_unit_test(test_timer),          cmocka_unit_test(test_wake_up),
		cmocka_unit_test(test_nmi_and_extint), cmocka_unit_test(test_x2apic),
		cmocka_unit_test(test_second_vcpu),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
