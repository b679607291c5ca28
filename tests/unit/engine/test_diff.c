/*
 * Random instructions natively and in the interpreter: registers, defined flags, vector state,
 * memory, faults and fault addresses must be the same. A fixed sample; LODGE_TEST_SLOW=1 runs
 * LODGE_TEST_CASES (a million) from a random seed, LODGE_TEST_SEED repeats one.
 */
#include "base/cleanup.h"
#include "diff.h"
#include "engine/soft/soft.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { RAM_BYTES = 4 << 20, CODE_AT = 0x100000, DATA_AT = 0x101000, TABLES_AT = 0x200000 };

struct machine {
	struct vm *vm;
	struct vcpu *cpu;
	uint8_t *ram;
};

static uint32_t no_port(void *board, uint16_t port, unsigned int size)
{
	return 0xffffffff;
}

static uint64_t no_mmio(void *board, gpa_t gpa, unsigned int size)
{
	return ~0ull;
}

static void no_port_write(void *board, uint16_t port, unsigned int size, uint32_t value)
{
}

static void no_mmio_write(void *board, gpa_t gpa, unsigned int size, uint64_t value)
{
}

static const struct board_ops ops = {.port_read = no_port,
				     .port_write = no_port_write,
				     .mmio_read = no_mmio,
				     .mmio_write = no_mmio_write};

/* The code and data pages at the harness's addresses, as a process has them. */
static void make_tables(uint8_t *ram)
{
	uint64_t *pml4 = (uint64_t *)(void *)(ram + TABLES_AT), *pdpt = pml4 + 512,
		 *pd = pml4 + 1024, *pt = pml4 + 1536;
	uint64_t at = TABLES_AT;

	pml4[0] = (at + 0x1000) | 7;
	pdpt[0] = (at + 0x2000) | 7;
	pd[DIFF_CODE >> 21] = (at + 0x3000) | 7;
	pt[(DIFF_CODE >> 12) & 511] = CODE_AT | 5;
	for (unsigned int i = 0; i < DIFF_DATA_PAGES; i++)
		if (i != DIFF_ABSENT)
			pt[((DIFF_DATA >> 12) & 511) + i] =
				(DATA_AT + i * 4096) | (i == DIFF_READ_ONLY ? 5 : 7) | 1ull << 63;
}

static void flat(struct vcpu_segment *s, uint16_t selector, uint16_t attributes)
{
	*s = (struct vcpu_segment){
		.selector = selector, .limit = 0xffffffff, .attributes = attributes};
}

static void machine_start(struct machine *m)
{
	struct cpuid_leaf *leaves;
	struct vm_config config = {.ops = &ops, .n_vcpus = 1};
	struct vcpu_state *s;
	autofd int fd = memfd_create("ram", MFD_CLOEXEC);

	assert_int_equal(ftruncate(fd, RAM_BYTES), 0);
	m->ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_int_equal(engine_soft.supported_cpuid(&leaves, &config.n_cpuid, NULL), 0);
	config.cpuid = leaves;
	assert_int_equal(engine_soft.vm_new(&config, &m->vm, NULL), 0);
	free(leaves);
	assert_int_equal(engine_soft.vm_map(m->vm, (gpa_t){0}, RAM_BYTES, fd, 0, 0, NULL), 0);
	assert_int_equal(engine_soft.vcpu_new(m->vm, 0, &m->cpu, NULL), 0);
	make_tables(m->ram);
	s = &m->cpu->s;
	s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
	s->cr3 = TABLES_AT;
	s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_SMEP | CR4_UMIP;
	s->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
	s->xcr0 = m->vm->xcr0_mask & ~(uint64_t)XCR0_PKRU;
	flat(&s->segs[SEG_CS], 0x33, 0xa0fb);
	for (unsigned int i = 0; i < N_SEGS; i++)
		if (i != SEG_CS)
			flat(&s->segs[i], 0x2b, 0xc0f3);
	/* No ports, no segments but those that are loaded. */
	s->tr.attributes = s->ldt.attributes = 0;
	s->gdt.limit = s->idt.limit = 0;
	m->cpu->cpl = 3;
	vcpu_mode_changed(m->cpu);
}

/* Runs a case from its input state up to INT3 or a fault. */
static void interpret(struct machine *m, const struct diff_shared *shared,
		      const struct diff_case *c, struct diff_case *out)
{
	struct vcpu *cpu = m->cpu;

	memset(m->ram + CODE_AT, 0xcc, 4096);
	memcpy(m->ram + CODE_AT + c->code_offset, c->code, c->code_size);
	memcpy(m->ram + DATA_AT, shared->pattern, sizeof(shared->pattern));
	memcpy(cpu->s.regs, c->in.regs, sizeof(c->in.regs));
	memcpy(cpu->s.xsave, c->in.xsave, DIFF_XSAVE_BYTES);
	cpu->s.xsave[512] &= (uint8_t)cpu->s.xcr0;
	flat(&cpu->s.segs[SEG_CS], c->compatibility ? 0x23 : 0x33,
	     c->compatibility ? 0xc0fb : 0xa0fb);
	vcpu_mode_changed(cpu);
	cpu->s.rip = c->in.rip;
	cpu->s.rflags = c->in.rflags;
	out->vector = 3;
	out->error_code = out->address = 0;
	if (setjmp(cpu->unwind) == 0) {
		for (unsigned int steps = 0;; steps++) {
			uint64_t at = cpu->s.rip - DIFF_CODE;

			if (steps == 2000) {
				out->vector = DIFF_TIMEOUT;
				break;
			}

			if (at < 4096 && m->ram[CODE_AT + at] == 0xcc)
				break;
			insn_step(cpu);
		}
	} else {
		out->vector = cpu->exception.vector;
		out->error_code = cpu->exception.has_error_code ? cpu->exception.error_code : 0;
		out->address = out->vector == EXC_PF ? cpu->s.cr2 : 0;
	}
	memcpy(out->out.regs, cpu->s.regs, sizeof(out->out.regs));
	memcpy(out->out.xsave, cpu->s.xsave, DIFF_XSAVE_BYTES);
	out->out.rip = cpu->s.rip;
	out->out.rflags = cpu->s.rflags;
}

/* ---- Comparing ---- */

/* Components that are not in use have their initial values. */
static void normalize(uint8_t *x)
{
	uint8_t bits = x[512];
	static const struct {
		uint16_t bit, at, size;
	} parts[] = {{1, 160, 256}, {2, 576, 256}, {5, 1088, 64}, {6, 1152, 512}, {7, 1664, 1024}};

	if (!(bits & 1)) {
		memset(x, 0, 24);
		memset(x + 32, 0, 128);
		x[0] = 0x7f;
		x[1] = 3;
	}
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		if (!(bits >> parts[i].bit & 1))
			memset(x + parts[i].at, 0, parts[i].size);
	for (unsigned int i = 0; i < 8; i++)
		memset(x + 32 + 16 * i + 10, 0, 6);
	memset(x + 6, 0, 18); /* FOP, FIP, FDP: see test_x87_pointers */
	memset(x + 28, 0, 4); /* MXCSR_MASK */
	memset(x + 416, 0, 160);
}

static enum insn_mode mode_of(const struct diff_case *c)
{
	return c->compatibility ? INSN_MODE_32 : INSN_MODE_64;
}

/* Whether the outcome is open: an instruction reads a flag that one before left undefined. */
static bool is_undefined(const struct diff_case *c)
{
	uint16_t undefined = 0;
	struct insn insn;

	for (uint32_t at = 0; at < c->code_size; at += insn.length) {
		if (decode_insn(&insn, c->code + at, c->code_size - at, mode_of(c)) != DECODE_OK)
			break;
		if (insn_flags_read(&insn) & undefined)
			return true;
		/* Back into the middle of something that nobody has looked at. */
		if (insn_class(&insn) == INSN_BRANCH_REL && (int64_t)insn.imm < 0)
			return true;
		if (!(insn.desc->attrs & OPC_FLAGS_MAYBE))
			undefined &= (uint16_t)~insn.desc->flags_written;
		undefined |= insn.desc->flags_undefined;
	}
	return false;
}

/* Flags that any of the instructions leaves undefined. */
static uint64_t undefined_flags(const struct diff_case *c)
{
	uint64_t flags = 0;
	struct insn insn;

	for (uint32_t at = 0; at < c->code_size; at += insn.length) {
		if (decode_insn(&insn, c->code + at, c->code_size - at, mode_of(c)) != DECODE_OK)
			break;
		flags |= insn.desc->flags_undefined;
	}
	return flags;
}

static bool accesses_much(const struct diff_case *c)
{
	struct insn insn;
	bool found = false;

	for (uint32_t at = 0; at < c->code_size; at += insn.length) {
		if (decode_insn(&insn, c->code + at, c->code_size - at, mode_of(c)) != DECODE_OK)
			break;
		found |= insn.op == OP_FLDENV || insn.op == OP_FNSTENV || insn.op == OP_FRSTOR ||
			 insn.op == OP_FNSAVE || insn.op == OP_FXSAVE || insn.op == OP_FXRSTOR ||
			 insn_class(&insn) == INSN_STATE || insn.op == OP_MASKMOVQ ||
			 insn.op == OP_MASKMOVDQU || insn.op == OP_VMASKMOVDQU ||
			 (insn_class(&insn) == INSN_X87 && insn.mem_size == 10) ||
			 insn.op == OP_VMASKMOVPS || insn.op == OP_VMASKMOVPD ||
			 insn.op == OP_VPMASKMOVD || insn.op == OP_VPMASKMOVQ || insn.evex_aaa;
	}
	return found;
}

/* What the processor may have done before the fault: stored 8 of 10 bytes, set flags of MXCSR, popped
 * some of the registers. */
static bool is_loose_fault(const struct diff_case *c)
{
	struct insn insn;
	uint64_t at = c->out.rip - DIFF_CODE - c->code_offset;

	return c->vector == EXC_PF && at < c->code_size &&
	       decode_insn(&insn, c->code + at, c->code_size - at, mode_of(c)) == DECODE_OK &&
	       (insn.op == OP_POPA ||
		(insn.mem_written && (insn_class(&insn) == INSN_X87 || insn.op == OP_VCVTPS2PH)));
}

/* A fault in the memory operand of an MMX instruction finds the registers in MMX's state or not:
 * processors differ. */
static bool is_mmx_fault(const struct diff_case *c)
{
	struct insn insn;
	uint64_t at = c->out.rip - DIFF_CODE - c->code_offset;

	return c->vector != EXC_BP && at < c->code_size &&
	       decode_insn(&insn, c->code + at, c->code_size - at, mode_of(c)) == DECODE_OK &&
	       insn_class(&insn) == INSN_MMX;
}

static const char *difference(struct diff_case *c, struct diff_case *o, const uint8_t *data)
{
	static char text[200];
	uint64_t ignored = 0x10202 | undefined_flags(c); /* IF, RF */

	/* Linux hides whether pages of its own half are mapped. */
	if (c->vector == EXC_PF && c->address >> 63)
		c->error_code = o->error_code;
	/* Instructions that access much in several steps may begin with any of them. */
	if (accesses_much(c) && c->vector == o->vector) {
		c->error_code = o->error_code;
		if ((c->address ^ o->address) < 4096 || c->address - o->address < 4096)
			c->address = o->address;
	}
	if (c->vector != o->vector || c->error_code != o->error_code || c->address != o->address) {
		snprintf(text, sizeof(text), "vector %llu/%llu error %llx/%llx address %llx/%llx",
			 (unsigned long long)c->vector, (unsigned long long)o->vector,
			 (unsigned long long)c->error_code, (unsigned long long)o->error_code,
			 (unsigned long long)c->address, (unsigned long long)o->address);
		return text;
	}
	if (c->out.rip != o->out.rip) {
		snprintf(text, sizeof(text), "rip %llx/%llx", (unsigned long long)c->out.rip,
			 (unsigned long long)o->out.rip);
		return text;
	}
	for (unsigned int i = 0; i < 16; i++) {
		if (c->out.regs[i] == o->out.regs[i] || is_loose_fault(c))
			continue;
		snprintf(text, sizeof(text), "register %u: %llx/%llx", i,
			 (unsigned long long)c->out.regs[i], (unsigned long long)o->out.regs[i]);
		return text;
	}
	if ((c->out.rflags ^ o->out.rflags) & ~ignored) {
		snprintf(text, sizeof(text), "flags %llx/%llx", (unsigned long long)c->out.rflags,
			 (unsigned long long)o->out.rflags);
		return text;
	}
	if (is_loose_fault(c)) {
		memcpy(c->out.xsave + 24, o->out.xsave + 24, 4);
		memcpy(c->data, data, sizeof(c->data));
	}
	for (unsigned int i = 0; i < sizeof(c->data); i++) {
		if (((uint8_t *)c->data)[i] == data[i])
			continue;
		if (i / 4096 == DIFF_ABSENT)
			continue;
		snprintf(text, sizeof(text), "data at %x: %02x/%02x", DIFF_DATA + i,
			 ((uint8_t *)c->data)[i], data[i]);
		return text;
	}
	normalize(c->out.xsave);
	normalize(o->out.xsave);
	if (is_mmx_fault(c)) {
		memcpy(c->out.xsave + 2, o->out.xsave + 2, 4);
		memcpy(c->out.xsave + 32, o->out.xsave + 32, 128);
	}
	for (unsigned int i = 0; i < DIFF_XSAVE_BYTES; i++) {
		if (c->out.xsave[i] == o->out.xsave[i])
			continue;
		snprintf(text, sizeof(text), "xsave at %u: %02x/%02x", i, c->out.xsave[i],
			 o->out.xsave[i]);
		return text;
	}
	return NULL;
}

/* With a mask of zero MASKMOVQ may fault or not (SDM volume 2B, "MASKMOVQ"). */
static bool is_idle_maskmov(const struct diff_case *c, const struct diff_case *o)
{
	struct insn insn;
	uint64_t at = c->out.rip - DIFF_CODE - c->code_offset;

	return c->vector == EXC_PF && c->out.rip != o->out.rip && at < c->code_size &&
	       decode_insn(&insn, c->code + at, c->code_size - at, mode_of(c)) == DECODE_OK &&
	       (insn.op == OP_MASKMOVQ || insn.op == OP_MASKMOVDQU || insn.op == OP_VMASKMOVDQU);
}

/* Notes the operations of a case that ran to its end. */
static void note_operations(const struct diff_case *c, uint32_t *ran)
{
	struct insn insn;

	for (uint32_t at = 0; c->vector == EXC_BP && at < c->code_size; at += insn.length) {
		if (decode_insn(&insn, c->code + at, c->code_size - at, mode_of(c)) != DECODE_OK)
			break;
		ran[insn.op]++;
	}
}

static void print_case(const struct diff_case *c, const char *why, uint64_t seed)
{
	struct insn insn;

	print_error("seed 0x%llx, %u bits: native/interpreter %s\n ", (unsigned long long)seed,
		    c->compatibility ? 32 : 64, why);
	for (uint32_t at = 0; at < c->code_size; at += insn.length) {
		if (decode_insn(&insn, c->code + at, c->code_size - at, mode_of(c)) != DECODE_OK)
			break;
		print_error(" %s:", op_name((enum op)insn.op));
		for (unsigned int i = 0; i < insn.length; i++)
			print_error(" %02x", c->code[at + i]);
	}
	print_error("\n ");
	for (unsigned int i = 0; i < 16; i++)
		print_error(" r%u=%llx", i, (unsigned long long)c->in.regs[i]);
	print_error(" flags=%llx mxcsr=%x fcw=%x\n", (unsigned long long)c->in.rflags,
		    *(const uint32_t *)(const void *)(c->in.xsave + 24),
		    *(const uint16_t *)(const void *)c->in.xsave);
}

static void test_random(void **context)
{
#ifdef __SANITIZE_ADDRESS__
	skip(); /* its shadow is where random addresses should find nothing */
#endif
	const char *slow = getenv("LODGE_TEST_SLOW"), *cases = getenv("LODGE_TEST_CASES"),
		   *chosen = getenv("LODGE_TEST_SEED");
	uint64_t seed = chosen ? strtoull(chosen, NULL, 0) : slow ? (uint64_t)time(NULL) : 1;
	uint64_t total = cases ? strtoull(cases, NULL, 0) : slow ? 1000000 : 60000;
	uint64_t seeds[DIFF_BATCH], done = 0, bad = 0;
	struct diff_shared *shared = diff_native_start();
	struct diff_case *out = calloc(1, sizeof(*out));
	static uint32_t ran[N_OPS];
	unsigned int n_ran = 0;
	struct machine m;

	assert_non_null(shared);
	machine_start(&m);
	for (unsigned int i = 0; i < sizeof(shared->pattern); i += 8) {
		uint64_t value = diff_random(&seed);

		/* Some addresses of code, for returns and indirect jumps. */
		if (value % 8 == 0)
			value = DIFF_CODE + (value >> 8) % 4096;
		memcpy((uint8_t *)shared->pattern + i, &value, 8);
	}
	while (done < total && bad < 20) {
		uint32_t at;

		shared->n = DIFF_BATCH;
		for (unsigned int i = 0; i < DIFF_BATCH; i++) {
			seeds[i] = seed;
			diff_generate(&shared->cases[i], &seed, diff_random(&seed) % 4 ? 1 : 3,
				      diff_random(&seed) % 4 == 0);
		}
		if (!diff_native_run(&at)) {
			print_case(&shared->cases[at], "the child died", seeds[at]);
			bad++;
			continue;
		}
		for (unsigned int i = 0; i < DIFF_BATCH && bad < 20; i++) {
			struct diff_case *c = &shared->cases[i];
			const char *why;

			if (c->vector == 17 || c->vector == 1)
				continue; /* the host's split-lock detection */
			if (c->vector == DIFF_TIMEOUT || is_undefined(c))
				continue;
			interpret(&m, shared, c, out);
			if (out->vector == DIFF_TIMEOUT)
				continue;
			note_operations(c, ran);
			why = difference(c, out, m.ram + DATA_AT);
			if (why && !is_idle_maskmov(c, out)) {
				print_case(c, why, seeds[i]);
				bad++;
			}
		}
		done += DIFF_BATCH;
	}
	diff_native_stop();
	engine_soft.vm_free(m.vm);
	munmap(m.ram, RAM_BYTES);
	free(out);
	for (unsigned int i = 0; i < N_OPS; i++) {
		n_ran += ran[i] != 0;
		if (getenv("LODGE_TEST_VERBOSE") && !ran[i])
			print_message(" %s", op_name((enum op)i));
	}
	print_message("%u of %u operations ran to their end\n", n_ran, N_OPS);
	assert_int_equal(bad, 0);
	/* What this host has not, and what the harness leaves out, is less than this. */
	assert_in_range(n_ran, N_OPS / 4, N_OPS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_random)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
