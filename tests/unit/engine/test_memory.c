/* Guest memory: ROM, devices, what is not there, pages that were written, translation, state in and
 * out, and what the TLB may keep. */
#include "base/cleanup.h"
#include "guest.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define DONE "mov $1, %al; out %al, $0xf4;"

#define LOAD(g, name, cpl) guest_load(g, code_##name, CODE_SIZE(name), cpl)

CODE(device, "mov 0x200004, %eax; mov 0x200010, %rbx; movw $0x1234, 0x200006;" DONE);
CODE(device_wide, "movups 0x200000, %xmm0; movq %xmm0, %rbx;" DONE);
CODE(device_locked, "lock addl $1, 0x200008;" DONE);

static void test_device(void **context)
{
	struct guest g;

	guest_new(&g, 1);
	LOAD(&g, device, 0);
	*guest_pte(&g, 0) = 0x80000000 | 3; /* nobody's memory */
	guest_run(&g);
	assert_true(g.finished);
	assert_int_equal(g.cpu[0]->s.regs[REG_RBX], 0x1122334455667788);
	assert_int_equal(g.mmio_address, 0x80000006);
	assert_int_equal(g.mmio_size, 2);
	assert_int_equal(g.mmio_value, 0x1234);
	LOAD(&g, device_wide, 0);
	*guest_pte(&g, 0) = 0x80000000 | 3;
	guest_run(&g);
	assert_int_equal(g.cpu[0]->s.regs[REG_RBX], 0x1122334455667788);
	assert_int_equal(g.mmio_address, 0x80000008);
	assert_int_equal(g.mmio_size, 8);
	LOAD(&g, device_locked, 0);
	*guest_pte(&g, 0) = 0x80000000 | 3;
	guest_run(&g);
	assert_int_equal(g.mmio_value, 0x55667789);
	guest_free(&g);
}

CODE(rom, "mov 0x200008, %ebx; movl $7, 0x200008;" DONE);

static void test_rom(void **context)
{
	struct guest g;
	int fd = memfd_create("rom", MFD_CLOEXEC);

	guest_new(&g, 1);
	assert_int_equal(ftruncate(fd, 4096), 0);
	assert_int_equal(pwrite(fd, "abcd", 4, 8), 4);
	assert_int_equal(
		engine_soft.vm_map(g.vm, (gpa_t){0xf0000000}, 4096, fd, 0, VM_MAP_READ_ONLY, NULL),
		0);
	assert_int_equal(engine_soft.vm_map(g.vm, (gpa_t){0xf0000000}, 8192, fd, 0, 0, NULL),
			 -EEXIST);
	LOAD(&g, rom, 0);
	*guest_pte(&g, 0) = 0xf0000000 | 3;
	guest_run(&g);
	assert_memory_equal(&g.cpu[0]->s.regs[REG_RBX], "abcd", 4);
	assert_int_equal(g.mmio_address, 0xf0000008);
	assert_int_equal(g.mmio_value, 7);
	assert_int_equal(engine_soft.vm_unmap(g.vm, (gpa_t){0xf0000000}, 4096, NULL), 0);
	LOAD(&g, rom, 0);
	*guest_pte(&g, 0) = 0xf0000000 | 3;
	guest_run(&g);
	assert_int_equal(g.cpu[0]->s.regs[REG_RBX], 0x55667788);
	close(fd);
	guest_free(&g);
}

CODE(dirty, "movl $1, 0x203000; movl $1, 0x207ffe; mov 0x209000, %eax; lock incl 0x20a000;"
	    "mov $0x20c000, %edi; mov $600, %ecx; rep stosq;" DONE);

static void test_dirty(void **context)
{
	const gpa_t ram = {0}, pages = {GUEST_PAGES};
	uint64_t bitmap[1] = {0};
	struct guest g;

	guest_new(&g, 1);
	LOAD(&g, dirty, 0);
	assert_int_equal(engine_soft.vm_dirty_start(g.vm, ram, GUEST_RAM, NULL), 0);
	guest_run(&g);
	assert_true(g.finished);
	assert_int_equal(engine_soft.vm_dirty_get(g.vm, pages, 64 * 4096, bitmap, NULL), 0);
	assert_int_equal(bitmap[0], 1 << 3 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 12 | 1 << 13);
	/* Forgotten once told; the page tables had accessed and dirty bits set. */
	bitmap[0] = 0;
	engine_soft.vm_dirty_get(g.vm, pages, 64 * 4096, bitmap, NULL);
	assert_int_equal(bitmap[0], 0);
	engine_soft.vm_dirty_get(g.vm, (gpa_t){GUEST_PT}, 4096, bitmap, NULL);
	assert_int_equal(bitmap[0], 1);
	assert_int_equal(engine_soft.vm_dirty_stop(g.vm, ram, GUEST_RAM, NULL), 0);
	assert_true(engine_soft.vm_dirty_get(g.vm, ram, 4096, bitmap, NULL) < 0);
	guest_free(&g);
}

static void test_translate(void **context)
{
	struct guest g;
	gpa_t gpa;

	guest_new(&g, 1);
	LOAD(&g, dirty, 0);
	*guest_pte(&g, 5) = 0x123000 | 1;
	*guest_pte(&g, 6) = 0;
	assert_int_equal(engine_soft.vcpu_translate(g.cpu[0], 0x205678, &gpa, NULL), 0);
	assert_int_equal(gpa.v, 0x123678);
	assert_int_equal(engine_soft.vcpu_translate(g.cpu[0], 0x206678, &gpa, NULL), -EFAULT);
	assert_int_equal(engine_soft.vcpu_translate(g.cpu[0], 1ull << 47, &gpa, NULL), -EFAULT);
	assert_int_equal(*guest_pte(&g, 5) & 0x20, 0); /* no side effects */
	guest_free(&g);
}

/* Translations stay until INVLPG, or a load of CR3 that is not told to keep them; global ones over
 * that, too. */
CODE(tlb, "mov 0x200000, %eax; mov 0x201000, %ecx; movb $0, 0x13000 + 2; movb $0, 0x13008 + 2;"
	  "invlpg 0x200000; mov 0x200000, %r8d; mov 0x201000, %r9d;"
	  "mov %cr3, %rax; mov %rax, %cr3; mov 0x201000, %r10d;" DONE);

static void test_tlb(void **context)
{
	struct guest g;

	guest_new(&g, 1);
	LOAD(&g, tlb, 0);
	memcpy(g.ram + 0x0, "zero", 4);
	memcpy(g.ram + 0x300000, "aaaa", 4);
	memcpy(g.ram + 0x310000, "bbbb", 4);
	*guest_pte(&g, 0) = 0x300000 | 3;
	*guest_pte(&g, 1) = 0x310000 | 3;
	/* The code clears bits 16 to 23 of both entries: then they name page 0. */
	guest_run(&g);
	assert_true(g.finished);
	assert_memory_equal(&g.cpu[0]->s.regs[8], "zero", 4);
	assert_true(!memcmp(&g.cpu[0]->s.regs[9], "bbbb", 4) ||
		    !memcmp(&g.cpu[0]->s.regs[9], "zero", 4));
	assert_memory_equal(&g.cpu[0]->s.regs[10], "zero", 4);
	guest_free(&g);
}

/* A state that was read and set again, in another processor, goes on as if nothing had been. */
CODE(state, "mov $1000000, %ecx; mov $0x11, %eax; movq %rax, %xmm5; fldpi; xor %edx, %edx;"
	    "1: add %rcx, %rdx; paddd %xmm5, %xmm6; dec %ecx; jnz 1b; movq %xmm6, %rbx;" DONE);

static void *kick_soon(void *data)
{
	struct guest *g = data;

	usleep(3000);
	engine_soft.vcpu_kick(g->cpu[0]);
	return NULL;
}

static void test_state(void **context)
{
	struct vcpu_state s;
	pthread_t thread;
	struct guest a, b;

	guest_new(&a, 1);
	guest_new(&b, 1);
	LOAD(&a, state, 0);
	LOAD(&b, state, 0);
	pthread_create(&thread, NULL, kick_soon, &a);
	guest_run(&a);
	pthread_join(thread, NULL);
	assert_false(a.finished);
	assert_int_equal(engine_soft.vcpu_get_state(a.cpu[0], &s, NULL), 0);
	assert_in_range(s.regs[REG_RCX], 1, 999999);
	assert_int_equal(engine_soft.vcpu_set_state(b.cpu[0], &s, NULL), 0);
	memcpy(b.ram, a.ram, GUEST_RAM);
	guest_run(&b);
	assert_true(b.finished);
	assert_int_equal(b.cpu[0]->s.regs[REG_RDX], 500000500000);
	assert_int_equal(b.cpu[0]->s.regs[REG_RBX], 17000000);
	/* What would make the host's XRSTOR fault is refused or taken out. */
	s.xsave[24 + 3] = 0x80;
	assert_int_equal(engine_soft.vcpu_set_state(b.cpu[0], &s, NULL), -EINVAL);
	s.xsave[24 + 3] = 0;
	memset(s.xsave + 512, 0xff, 64);
	LOAD(&b, state, 0);
	s.rip = GUEST_CODE;
	assert_int_equal(engine_soft.vcpu_set_state(b.cpu[0], &s, NULL), 0);
	guest_run(&b);
	assert_true(b.finished);
	guest_free(&a);
	guest_free(&b);
}

/* The x87 pointers are the guest's: never those of the host's code and buffers. */
CODE(pointers, "fninit; fld1; fadds 0x200010; fxsave64 0x200200; movl $0x37e, 0x200020;"
	       "fldcw 0x200020; flds 0x200014; fxsave64 0x200400;" DONE);

static void test_x87_pointers(void **context)
{
	const uint64_t *plain, *faulted;
	struct guest g;

	guest_new(&g, 1);
	LOAD(&g, pointers, 0);
	memcpy(g.ram + GUEST_PAGES + 0x14, "\x01\x00\xa0\x7f", 4); /* a signalling NaN */
	guest_run(&g);
	assert_true(g.finished);
	plain = (const uint64_t *)(const void *)(g.ram + GUEST_PAGES + 0x200);
	faulted = (const uint64_t *)(const void *)(g.ram + GUEST_PAGES + 0x400);
	assert_int_equal(plain[1], GUEST_CODE + 4);
	/* With an unmasked exception every processor has the data pointer. */
	assert_true(plain[2] == 0 || plain[2] == 0x200010);
	assert_int_equal(faulted[2], 0x200014);
	assert_in_range(faulted[1], GUEST_CODE, GUEST_CODE + 0x40);
	guest_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_device),       cmocka_unit_test(test_rom),
		cmocka_unit_test(test_dirty),        cmocka_unit_test(test_translate),
		cmocka_unit_test(test_tlb),          cmocka_unit_test(test_state),
		cmocka_unit_test(test_x87_pointers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
