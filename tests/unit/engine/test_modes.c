/* From RESET through all modes: real, protected by 16 and 32 bits, PAE, long and compatibility
 * mode; virtual-8086 mode and task switches. */
#include "guest.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* At 0x8000, and at the reset vector a jump to it. */
#define AT(label) "(" #label " - code_boot + 0x8000)"

CODE(reset, ".code16; ljmp $0, $0x8000; .code64");
CODE(boot,
     ".code16\n"
     "mov $'R', %al; out %al, $0xe9\n"
     "xor %ax, %ax; mov %ax, %ds; mov %ax, %ss; mov $0x7000, %sp\n"
     /* An interrupt by the vector table of real mode. */
     "movw $" AT(
	     real_handler) ", 0x84; movw $0, 0x86; int $0x21\n"
			   "lgdtl %cs:" AT(
				   gdt_pointer) "\n"
						"mov %cr0, %eax; or $1, %al; mov %eax, %cr0\n"
						"ljmpl $0x08, $" AT(
							protected) "\n"
								   "real_handler: mov $'I', "
								   "%al; out %al, $0xe9; iret\n"
								   ".code32\n"
								   "protected: mov $0x10, %eax; "
								   "mov %eax, %ds; mov %eax, "
								   "%ss; mov %eax, %es\n"
								   "mov $0x70000, %esp; mov "
								   "$'P', %al; out %al, $0xe9\n"
								   /* 32-bit paging with one page of 4 MiB, */
								   "movl $0x83, 0x20000; mov "
								   "$0x20000, %eax; mov %eax, "
								   "%cr3\n"
								   "mov %cr4, %eax; or $0x10, "
								   "%eax; mov %eax, %cr4\n"
								   "mov %cr0, %eax; or "
								   "$0x80000000, %eax; mov "
								   "%eax, %cr0\n"
								   "mov $'4', %al; out %al, "
								   "$0xe9\n"
								   "testl $0x20, 0x20000; jz "
								   "bad\n" /* accessed */
								   "mov %cr0, %eax; and "
								   "$0x7fffffff, %eax; mov "
								   "%eax, %cr0\n"
								   /* PAE, */
								   "movl $0x22001, 0x21000; "
								   "movl $0, 0x21004; movl "
								   "$0x83, 0x22000; movl $0, "
								   "0x22004\n"
								   "movl $0, 0x21008; movl $0, "
								   "0x2100c; movl $0, 0x21010; "
								   "movl $0, 0x21014\n"
								   "movl $0, 0x21018; movl $0, "
								   "0x2101c\n"
								   "mov $0x21000, %eax; mov "
								   "%eax, %cr3; mov %cr4, %eax; "
								   "or $0x20, %eax; mov %eax, "
								   "%cr4\n"
								   "mov %cr0, %eax; or "
								   "$0x80000000, %eax; mov "
								   "%eax, %cr0\n"
								   "mov $'A', %al; out %al, "
								   "$0xe9\n"
								   "mov %cr0, %eax; and "
								   "$0x7fffffff, %eax; mov "
								   "%eax, %cr0\n"
								   /* and long mode. */
								   "movl $0x24003, 0x23000; "
								   "movl $0x25003, 0x24000; "
								   "movl $0x83, 0x25000\n"
								   "mov $0x23000, %eax; mov "
								   "%eax, %cr3\n"
								   "mov $0xc0000080, %ecx; "
								   "rdmsr; or $0x100, %eax; "
								   "wrmsr\n"
								   "mov %cr0, %eax; or "
								   "$0x80000000, %eax; mov "
								   "%eax, %cr0\n"
								   "mov $'C', %al; out %al, "
								   "$0xe9\n"
								   "ljmp $0x18, $" AT(
									   long_mode) "\n"
										      "bad: mov "
										      "$'X', "
										      "%al; out "
										      "%al, "
										      "$0xe9; "
										      "hlt\n"
										      ".code64\n"
										      "long_"
										      "mode: "
										      "mov "
										      "$0x123456"
										      "789abcdef"
										      ", %r15; "
										      "mov "
										      "$'L', "
										      "%al; out "
										      "%al, "
										      "$0xe9\n"
										      "mov $1, "
										      "%al; out "
										      "%al, "
										      "$0xf4\n"
										      "gdt: "
										      ".quad 0, "
										      "0x00cf9b0"
										      "00000ffff"
										      ", "
										      "0x00cf930"
										      "00000ffff"
										      ", "
										      "0x00af9b0"
										      "00000ffff"
										      "\n"
										      "gdt_"
										      "pointer: "
										      ".word "
										      "31; "
										      ".long"
										      " " AT(gdt) "\n");

static void test_boot(void **context)
{
	struct guest g;
	int fd;

	guest_new(&g, 1);
	/* The last 64 KiB below 4 GiB: the reset vector's. */
	fd = memfd_create("rom", MFD_CLOEXEC);
	assert_int_equal(ftruncate(fd, 65536), 0);
	assert_int_equal(pwrite(fd, code_reset, CODE_SIZE(reset), 0xfff0), CODE_SIZE(reset));
	assert_int_equal(
		engine_soft.vm_map(g.vm, (gpa_t){0xffff0000}, 65536, fd, 0, VM_MAP_READ_ONLY, NULL),
		0);
	close(fd);
	memcpy(g.ram + 0x8000, code_boot, CODE_SIZE(boot));
	assert_int_equal(guest_run(&g), VCPU_EXIT_KICKED);
	assert_string_equal(g.log, "RIP4ACL");
	assert_true(g.finished);
	assert_int_equal(g.cpu[0]->s.regs[15], 0x123456789abcdef);
	guest_free(&g);
}

/* ---- Protected mode with tasks and virtual-8086 mode ---- */

#define T(label) "(" #label " - code_tasks + 0x8000)"

CODE(tasks, ".code32\n"
	    "movl $0, 0x3000 + 0\n"
	    "mov $0x28, %eax; ltr %ax\n"
	    "mov $'0', %al; out %al, $0xe9\n"
	    "lcall $0x30, $0\n" /* to the second task, which comes back by IRET */
	    "mov $'2', %al; out %al, $0xe9\n"
	    /* To virtual-8086 mode: GS, FS, DS, ES, SS, ESP, EFLAGS, CS, EIP. */
	    "pushl $0; pushl $0; pushl $0x900; pushl $0; pushl $0; pushl $0x6ff0\n"
	    "pushl $0x20202; pushl $0x800; pushl $"
	    "(v86 - code_tasks)"
	    "; iret\n"
	    "second: mov $'1', %al; out %al, $0xe9; iret\n"
	    ".code16\n"
	    "v86: mov %ds:0, %ax; mov $'V', %al; out %al, $0xe9; cli; hlt\n" /* IOPL 0: #GP */
	    ".code32\n"
	    "general: mov $'G', %al; out %al, $0xe9; testl $0x20000, 12(%esp); jz 1f\n"
	    "mov $'8', %al; out %al, $0xe9\n"
	    "1: mov $1, %al; out %al, $0xf4; hlt\n"
	    ".code64\n");

static void put32(struct guest *g, uint64_t at, uint32_t value)
{
	memcpy(g->ram + at, &value, 4);
}

extern const uint8_t label_second[] __asm__("second"), label_general[] __asm__("general");

static void test_tasks(void **context)
{
	/* GDT: code, data, a TSS at 0x3000, one at 0x3100. */
	static const uint64_t gdt[] = {0, 0x00cf9b000000ffff,        0x00cf93000000ffff,       0,
				       0, 0x0000890030000067ull | 0, 0x0000890031000067ull | 0};
	uint32_t general = (uint32_t)(label_general - code_tasks) + 0x8000;
	uint32_t second = (uint32_t)(label_second - code_tasks) + 0x8000;
	struct vcpu_state s;
	struct guest g;

	guest_new(&g, 1);
	memcpy(g.ram + 0x8000, code_tasks, CODE_SIZE(tasks));
	memcpy(g.ram + 0x1000, gdt, sizeof(gdt));
	/* #GP by a 32-bit interrupt gate. */
	put32(&g, 0x2000 + 13 * 8, (general & 0xffff) | 0x08 << 16);
	put32(&g, 0x2000 + 13 * 8 + 4, 0x8e00 | (general & 0xffff0000));
	put32(&g, 0x3000 + 4, 0x60000); /* ESP0, SS0 */
	put32(&g, 0x3000 + 8, 0x10);
	put32(&g, 0x3000 + 100, 0x68 << 16); /* map: beyond the limit, but for v86 see below */
	put32(&g, 0x3100 + 32, second);
	put32(&g, 0x3100 + 36, 2);
	put32(&g, 0x3100 + 40 + 4 * REG_RSP, 0x50000);
	for (unsigned int i = 0; i < N_SEGS; i++)
		put32(&g, 0x3100 + 72 + 4 * i, i == SEG_CS ? 0x08 : 0x10);

	engine_soft.vcpu_get_state(g.cpu[0], &s, NULL);
	s.cr0 = CR0_PE | CR0_ET | CR0_NE;
	s.rip = 0x8000;
	s.regs[REG_RSP] = 0x70000;
	s.gdt = (struct vcpu_table){0x1000, sizeof(gdt) - 1};
	s.idt = (struct vcpu_table){0x2000, 0x7ff};
	for (unsigned int i = 0; i < N_SEGS; i++)
		s.segs[i] = (struct vcpu_segment){.limit = 0xffffffff,
						  .selector = i == SEG_CS ? 0x08 : 0x10,
						  .attributes = i == SEG_CS ? 0xc09b : 0xc093};
	engine_soft.vcpu_set_state(g.cpu[0], &s, NULL);
	assert_int_equal(guest_run(&g), VCPU_EXIT_KICKED);
	/* In virtual-8086 mode OUT asks the permission map, which is not there: #GP at once. */
	assert_string_equal(g.log, "012G8");
	assert_true(g.finished);
	assert_int_equal(g.cpu[0]->s.cr0 & CR0_TS, CR0_TS);
	guest_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_boot),
					   cmocka_unit_test(test_tasks)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
