/* See guest.h. */
#include "guest.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static uint32_t port_read(void *board, uint16_t port, unsigned int size)
{
	return 0xffffffff;
}

static bool has_error_code(unsigned int vector)
{
	return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
}

/* A handler's OUT: its stack has the frame. */
static void report(struct guest *g, unsigned int vector)
{
	struct vcpu *cpu = g->cpu[0];
	uint64_t words[7], *frame = words, at = cpu->s.regs[REG_RSP];

	if (at > GUEST_RAM - sizeof(words))
		return;
	memcpy(words, g->ram + at, sizeof(words));
	/* The stub has pushed RAX. */
	frame++;
	g->vector = vector;
	g->error_code = has_error_code(vector) ? *frame++ : 0;
	g->rip = frame[0];
	g->cs = frame[1];
	g->rflags = frame[2];
	g->rsp = frame[3];
	g->ss = frame[4];
	g->cr2 = cpu->s.cr2;
	g->dr6 = cpu->s.dr6;
	g->n_events++;
}

static void port_write(void *board, uint16_t port, unsigned int size, uint32_t value)
{
	struct guest *g = board;

	switch (port) {
	case GUEST_LOG:
		if (g->n_log < sizeof(g->log) - 1)
			g->log[g->n_log++] = (char)value;
		break;
	case GUEST_EVENT:
		report(g, value);
		if (!g->continue_events)
			engine_soft.vcpu_kick(g->cpu[0]);
		break;
	case GUEST_DONE:
		g->done = value;
		g->finished = true;
		engine_soft.vcpu_kick(g->cpu[0]);
		break;
	}
}

static uint64_t mmio_read(void *board, gpa_t gpa, unsigned int size)
{
	struct guest *g = board;

	g->mmio_address = gpa.v;
	g->mmio_size = size;
	return 0x1122334455667788;
}

static void mmio_write(void *board, gpa_t gpa, unsigned int size, uint64_t value)
{
	struct guest *g = board;

	g->mmio_address = gpa.v;
	g->mmio_size = size;
	g->mmio_value = value;
}

static uint8_t pic_acknowledge(void *board)
{
	struct guest *g = board;

	engine_soft.vcpu_set_extint(g->cpu[0], false);
	return g->pic_vector;
}

static void apic_eoi(void *board, uint8_t vector)
{
	struct guest *g = board;

	if (g->n_eoi < sizeof(g->eoi))
		g->eoi[g->n_eoi++] = vector;
}

static const struct board_ops ops = {port_read,  port_write,      mmio_read,
				     mmio_write, pic_acknowledge, apic_eoi};

void guest_new(struct guest *g, unsigned int n_vcpus)
{
	struct vm_config config = {.ops = &ops, .board = g, .n_vcpus = n_vcpus};
	struct cpuid_leaf *leaves;

	memset(g, 0, sizeof(*g));
	g->fd = memfd_create("ram", MFD_CLOEXEC);
	assert_int_equal(ftruncate(g->fd, GUEST_RAM), 0);
	g->ram = mmap(NULL, GUEST_RAM, PROT_READ | PROT_WRITE, MAP_SHARED, g->fd, 0);
	assert_int_equal(engine_soft.supported_cpuid(&leaves, &config.n_cpuid, NULL), 0);
	config.cpuid = leaves;
	assert_int_equal(engine_soft.vm_new(&config, &g->vm, NULL), 0);
	free(leaves);
	assert_int_equal(engine_soft.vm_map(g->vm, (gpa_t){0}, GUEST_RAM, g->fd, 0, 0, NULL), 0);
	for (unsigned int i = 0; i < n_vcpus; i++)
		assert_int_equal(engine_soft.vcpu_new(g->vm, i, &g->cpu[i], NULL), 0);
}

void guest_free(struct guest *g)
{
	engine_soft.vm_free(g->vm);
	munmap(g->ram, GUEST_RAM);
	close(g->fd);
}

uint64_t *guest_pte(struct guest *g, unsigned int page)
{
	return (uint64_t *)(void *)(g->ram + GUEST_PT) + page;
}

static void put64(struct guest *g, uint64_t at, uint64_t value)
{
	memcpy(g->ram + at, &value, 8);
}

/* 2 MiB of the system's, the user's from GUEST_CODE on at level 3; then pages by 4 KiB, all
 * the user's. */
static void make_tables(struct guest *g, unsigned int cpl)
{
	uint64_t t = GUEST_TABLES;

	memset(g->ram + t, 0, 0x6000);
	put64(g, t, (t + 0x1000) | 7);
	put64(g, t + 0x1000, (t + 0x2000) | 7);
	put64(g, t + 0x2000, (t + 0x4000) | 7); /* the first 2 MiB */
	put64(g, t + 0x2008, GUEST_PT | 7);
	for (uint64_t i = 2; i < 8; i++)
		put64(g, t + 0x2000 + 8 * i, i << 21 | 0x87);
	for (uint64_t i = 0; i < 512; i++) {
		put64(g, t + 0x4000 + 8 * i, i << 12 | (cpl == 3 && i << 12 >= GUEST_CODE ? 7 : 3));
		put64(g, GUEST_PT + 8 * i, (GUEST_PAGES + (i << 12)) | 7);
	}
}

static void make_gate(struct guest *g, unsigned int vector, unsigned int type, unsigned int ist)
{
	uint64_t at = GUEST_IDT + 16 * vector, target = GUEST_STUBS + 16 * vector;

	put64(g, at,
	      (target & 0xffff) | GUEST_CS0 << 16 | (uint64_t)ist << 32 | (uint64_t)type << 40 |
		      (target >> 16 & 0xffff) << 48);
	put64(g, at + 8, 0);
}

static void make_stub(struct guest *g, unsigned int vector)
{
	/* push %rax; mov $vector, %al; out %al, $0xf5; pop %rax; [add $8, %rsp]; iretq */
	uint8_t code[] = {
		0x50, 0xb0, (uint8_t)vector, 0xe6, GUEST_EVENT, 0x58, 0x48, 0x83, 0xc4, 0x08,
		0x48, 0xcf};
	uint8_t *at = g->ram + GUEST_STUBS + 16 * vector;

	memcpy(at, code, sizeof(code));
	if (!has_error_code(vector))
		memcpy(at + 6, code + 10, 2);
}

static void flat(struct vcpu_segment *s, uint16_t selector, uint16_t attributes)
{
	*s = (struct vcpu_segment){
		.selector = selector, .limit = 0xffffffff, .attributes = attributes};
}

void guest_load(struct guest *g, const uint8_t *code, size_t size, unsigned int cpl)
{
	static const uint64_t gdt[] = {0,
				       0x00af9b000000ffff,
				       0x00cf93000000ffff,
				       0x00cff3000000ffff,
				       0x00affb000000ffff,
				       0x0000890000000067 | (uint64_t)GUEST_TSS << 16,
				       0};
	struct vcpu_state s;

	memset(g->ram + GUEST_TSS, 0, 0x1000);
	memset(g->ram + GUEST_CODE, 0xcc, 0x1000);
	memcpy(g->ram + GUEST_GDT, gdt, sizeof(gdt));
	memcpy(g->ram + GUEST_CODE, code, size);
	put64(g, GUEST_TSS + 4, GUEST_INT_STACK);
	put64(g, GUEST_TSS + 36, GUEST_IST_STACK);
	make_tables(g, cpl);
	for (unsigned int i = 0; i < 256; i++) {
		make_gate(g, i, i == 3 || i == 4 || i == 0x80 ? 0xee : 0x8e, i == 8);
		make_stub(g, i);
	}
	g->n_events = 0;
	g->vector = 999;
	g->finished = false;
	g->continue_events = false;
	g->n_log = 0;
	memset(g->log, 0, sizeof(g->log));

	assert_int_equal(engine_soft.vcpu_get_state(g->cpu[0], &s, NULL), 0);
	memset(s.regs, 0, sizeof(s.regs));
	s.regs[REG_RSP] = GUEST_STACK;
	s.rip = GUEST_CODE;
	s.rflags = 2;
	s.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
	s.cr3 = GUEST_TABLES;
	s.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
	s.efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
	s.xcr0 = 7;
	s.dr6 = 0xffff0ff0;
	s.dr7 = 0x400;
	s.activity = VCPU_RUNNING;
	s.interrupt_shadow = s.nmi_blocked = s.nmi_pending = false;
	s.gdt = (struct vcpu_table){GUEST_GDT, sizeof(gdt) - 1};
	s.idt = (struct vcpu_table){GUEST_IDT, 0xfff};
	flat(&s.segs[SEG_CS], cpl ? GUEST_CS3 : GUEST_CS0, cpl ? 0xa0fb : 0xa09b);
	for (unsigned int i = 0; i < N_SEGS; i++)
		if (i != SEG_CS)
			flat(&s.segs[i], cpl ? GUEST_DS3 : GUEST_DS0, cpl ? 0xc0f3 : 0xc093);
	s.tr = (struct vcpu_segment){
		.base = GUEST_TSS, .limit = 0x67, .selector = GUEST_TR, .attributes = 0x8b};
	assert_int_equal(engine_soft.vcpu_set_state(g->cpu[0], &s, NULL), 0);
}

enum vcpu_exit guest_run(struct guest *g)
{
	enum vcpu_exit exit = VCPU_EXIT_KICKED;
	struct error err = {0};

	assert_int_equal(engine_soft.vcpu_run(g->cpu[0], &exit, &err), 0);
	return exit;
}
