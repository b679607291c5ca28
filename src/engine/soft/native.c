/* See native.h. Called by compute.c. */
#include "engine/soft/native.h"

#include "base/cleanup.h"

#include <cpuid.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* What the assembly below works on; offsets are known to it. */
struct native_frame {
	uint64_t regs[16];   /* 0 */
	uint64_t flags;      /* 128 */
	uint8_t *code;       /* 136 */
	uint8_t *xsave;      /* 144: NULL: the vector state is not needed */
	uint64_t components; /* 152 */
	uint8_t *initial;    /* 160: an XSAVE area that means the initial state */
	struct trap_window window;
};

_Static_assert(offsetof(struct native_frame, flags) == 128, "known to native_enter");
_Static_assert(offsetof(struct native_frame, code) == 136, "known to native_enter");
_Static_assert(offsetof(struct native_frame, xsave) == 144, "known to native_enter");
_Static_assert(offsetof(struct native_frame, components) == 152, "known to native_enter");
_Static_assert(offsetof(struct native_frame, initial) == 160, "known to native_enter");

enum { THUNKS = 4096, THUNK_BYTES = 32 };

/* What a thunk was made from. */
struct thunk_key {
	uint8_t bytes[INSN_MAX_BYTES];
	uint8_t kind; /* 1 + mode + 4 * lock; 0: empty */
};

struct thunk_info {
	struct thunk_key key;
	uint8_t length;
	uint8_t base;  /* register that holds the memory's address, or REG_NONE */
	uint8_t stack; /* register that stands for RSP, or REG_NONE */
};

struct native {
	_Alignas(64) uint8_t buffer[NATIVE_BUFFER];
	_Alignas(64) uint8_t initial[VCPU_XSAVE_BYTES];
	struct native_frame frame;
	uint8_t *writable, *executable; /* the same pages twice: W^X */
	uint8_t *guard;
	struct thunk_info info[THUNKS];
};

/*
 * All registers but RSP are the guest's between the loads and the stores; the stack is the host's
 * throughout, so that a signal always finds a good one. `xchg` with memory keeps the flags.
 */
void native_enter(struct native_frame *frame);
__asm__(".text\n"
	".type native_enter, @function\n"
	"native_enter:\n"
	"	push %rbx\n	push %rbp\n	push %r12\n"
	"	push %r13\n	push %r14\n	push %r15\n"
	"	push %rdi\n"
	"	mov 144(%rdi), %rcx\n"
	"	test %rcx, %rcx\n"
	"	jz 1f\n"
	"	mov 152(%rdi), %eax\n"
	"	xor %edx, %edx\n"
	"	xrstor64 (%rcx)\n"
	"1:	pushq 136(%rdi)\n"
	"	pushq 128(%rdi)\n"
	"	popfq\n"
	"	mov 0(%rdi), %rax\n	mov 8(%rdi), %rcx\n"
	"	mov 16(%rdi), %rdx\n	mov 24(%rdi), %rbx\n"
	"	mov 40(%rdi), %rbp\n	mov 48(%rdi), %rsi\n"
	"	mov 64(%rdi), %r8\n	mov 72(%rdi), %r9\n"
	"	mov 80(%rdi), %r10\n	mov 88(%rdi), %r11\n"
	"	mov 96(%rdi), %r12\n	mov 104(%rdi), %r13\n"
	"	mov 112(%rdi), %r14\n	mov 120(%rdi), %r15\n"
	"	mov 56(%rdi), %rdi\n"
	"	call *(%rsp)\n"
	"	xchg %rdi, 8(%rsp)\n"
	"	mov %rax, 0(%rdi)\n	mov %rcx, 8(%rdi)\n"
	"	mov %rdx, 16(%rdi)\n	mov %rbx, 24(%rdi)\n"
	"	mov %rbp, 40(%rdi)\n	mov %rsi, 48(%rdi)\n"
	"	mov %r8, 64(%rdi)\n	mov %r9, 72(%rdi)\n"
	"	mov %r10, 80(%rdi)\n	mov %r11, 88(%rdi)\n"
	"	mov %r12, 96(%rdi)\n	mov %r13, 104(%rdi)\n"
	"	mov %r14, 112(%rdi)\n	mov %r15, 120(%rdi)\n"
	"	pushfq\n"
	"	popq 128(%rdi)\n"
	"	cld\n"
	"	pop %rax\n"
	"	pop %rax\n"
	"	mov %rax, 56(%rdi)\n"
	"	mov 144(%rdi), %rcx\n"
	"	test %rcx, %rcx\n"
	"	jz 2f\n"
	"	mov 152(%rdi), %eax\n"
	"	xor %edx, %edx\n"
	"	xsave64 (%rcx)\n"
	"	mov 160(%rdi), %rcx\n"
	"	xrstor64 (%rcx)\n"
	"2:	pop %r15\n	pop %r14\n	pop %r13\n"
	"	pop %r12\n	pop %rbp\n	pop %rbx\n"
	"	ret\n"
	".size native_enter, . - native_enter\n");

/* ---- Thunks ---- */

uint64_t native_components(void)
{
	unsigned int eax, edx, ecx, ebx;

	__cpuid(1, eax, ebx, ecx, edx);
	if (!(ecx & bit_OSXSAVE))
		return 3;
	__asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
	return eax & 0xe7;
}

static uint32_t hash(const struct thunk_key *key)
{
	uint64_t a, b;

	memcpy(&a, key, 8);
	memcpy(&b, (const uint8_t *)key + 8, 8);
	a = (a ^ (b * 0x9e3779b97f4a7c15ull)) * 0xff51afd7ed558ccdull;
	return (uint32_t)(a >> 40) % THUNKS;
}

static bool is_prefix(uint8_t b)
{
	switch (b) {
	case 0x26:
	case 0x2e:
	case 0x36:
	case 0x3e:
	case 0x64:
	case 0x65:
	case 0x66:
	case 0x67:
	case 0xf0:
	case 0xf2:
	case 0xf3:
		return true;
	}
	return false;
}

/* Whether the thunk needs 66: as it stood, or to have the same operand size in 64-bit mode. */
static bool wants_66(const struct insn *insn)
{
	enum insn_class class = insn_class(insn);

	if (insn->mode == INSN_MODE_64 || insn->op == OP_ADCX ||
	    (class != INSN_ALU && class != INSN_MOV))
		return insn->prefixes & PREFIX_OPSIZE;
	return insn->opsize == 2;
}

/* Bits of insn that a thunk's prefixes have: with a memory operand X and B are those of its new
 * base register. */
static unsigned int thunk_rex(const struct insn *insn)
{
	unsigned int rex = insn->rex;

	if (insn->has_mem && insn->has_modrm)
		rex &= ~(unsigned int)(REX_X | REX_B);
	return rex;
}

/* Copies prefixes and opcode; returns the bytes written. */
static unsigned int emit_opcode(const struct insn *insn, const uint8_t *raw, bool lock,
				uint8_t *out)
{
	unsigned int rex = thunk_rex(insn), at = 0, n = 0;
	unsigned int end = insn->modrm_at   ? insn->modrm_at
			   : insn->imm_size ? insn->imm_at
					    : insn->length;

	while (is_prefix(raw[at]))
		at++;
	switch (insn->encoding) {
	case ENC_LEGACY:
		if (insn->mode == INSN_MODE_64)
			while (is_prefix(raw[at]) || (raw[at] & 0xf0) == 0x40)
				at++;
		if (lock)
			out[n++] = 0xf0;
		if (wants_66(insn))
			out[n++] = 0x66;
		if (insn->prefixes & PREFIX_REP)
			out[n++] = 0xf3;
		if (insn->prefixes & PREFIX_REPNE)
			out[n++] = 0xf2;
		if (insn->mode == INSN_MODE_64 && (insn->rex & REX_PRESENT))
			out[n++] = (uint8_t)(0x40 | (rex & 15));
		while (at < end)
			out[n++] = raw[at++];
		return n;
	case ENC_VEX2:
	case ENC_VEX3: {
		uint8_t last = insn->encoding == ENC_VEX2 ? raw[at + 1] : raw[at + 2];
		uint8_t map = (uint8_t)(insn->desc->map - MAP_VEX_0F + 1);

		out[0] = 0xc4;
		out[1] = (uint8_t)(map | (rex & REX_R ? 0 : 0x80) | (rex & REX_X ? 0 : 0x40) |
				   (rex & REX_B ? 0 : 0x20));
		out[2] = (uint8_t)((last & 3) | (insn->vex_l & 1) << 2 | (~insn->vvvv & 15) << 3 |
				   (rex & REX_W ? 0x80 : 0));
		out[3] = insn->opcode;
		return 4;
	}
	default: /* EVEX */
		memcpy(out, raw + at, 5);
		out[1] = (uint8_t)((out[1] & 0x0f) | (rex & REX_R ? 0 : 0x80) |
				   (rex & REX_X ? 0 : 0x40) | (rex & REX_B ? 0 : 0x20) |
				   (insn->rex & REX_R2 ? 0 : 0x10));
		if (insn->mode != INSN_MODE_64) {
			out[2] |= 0x40; /* vvvv's high bits are ignored there */
			out[3] |= 0x08;
		} else {
			/* Keep. */
			out[1] = (uint8_t)((out[1] & ~0x10) | (raw[at + 1] & 0x10));
		}
		out[4] = raw[at + 4];
		return 5;
	}
}

/* Explicit and implied registers, without those of the address. */
static uint16_t used_registers(const struct insn *insn)
{
	uint16_t used = insn_implicit_read(insn) | insn_implicit_written(insn);

	for (unsigned int i = 0; i < 4; i++)
		if (insn->operands[i].kind == OPERAND_GPR ||
		    insn->operands[i].kind == OPERAND_GPR_HIGH)
			used |= (uint16_t)(1u << insn->operands[i].reg);
	return used;
}

static unsigned int count_gpr(const struct insn *insn, unsigned int reg)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < 4; i++)
		n += insn->operands[i].kind == OPERAND_GPR && insn->operands[i].reg == reg;
	return n;
}

/*
 * Gives RSP's role as an operand to another register. Which of the fields with the number 4 name
 * RSP, and not XMM4 or AH, the decoder says: a changed field must have changed a register operand.
 */
static bool rename_stack(uint8_t *thunk, unsigned int length, unsigned int modrm_at,
			 enum insn_encoding encoding, unsigned int to)
{
	struct insn insn;
	unsigned int before;
	uint8_t *field[3];
	uint8_t mask[3], value[3];
	unsigned int n = 0;

	if (decode_insn(&insn, thunk, length, INSN_MODE_64) != DECODE_OK)
		return false;
	/* EVEX has bits for registers above 15, which general registers have no use for. */
	if ((insn_reg(&insn) & 15) == REG_RSP) {
		field[n] = &thunk[modrm_at];
		mask[n] = 0x38;
		value[n++] = (uint8_t)(to << 3);
	}
	if (insn_mod(&insn) == 3 && (insn_rm(&insn) & 15) == REG_RSP) {
		field[n] = &thunk[modrm_at];
		mask[n] = 7;
		value[n++] = (uint8_t)to;
	}
	if (encoding != ENC_LEGACY && (insn.vvvv & 15) == REG_RSP) {
		field[n] = &thunk[2];
		mask[n] = 0x78;
		value[n++] = (uint8_t)((~to & 15) << 3);
	}
	before = count_gpr(&insn, to);
	for (unsigned int i = 0; i < n; i++) {
		uint8_t old = *field[i];

		*field[i] = (uint8_t)((old & ~mask[i]) | value[i]);
		if (decode_insn(&insn, thunk, length, INSN_MODE_64) == DECODE_OK &&
		    count_gpr(&insn, to) > before)
			before++;
		else
			*field[i] = old;
	}
	return decode_insn(&insn, thunk, length, INSN_MODE_64) == DECODE_OK &&
	       count_gpr(&insn, REG_RSP) == 0;
}

/* Whether the thunk accesses as much of registers and memory as the original: outside of 64-bit mode
 * VEX.W and EVEX.W are ignored where they would mean a general register of 64 bits. */
static bool same_sizes(const struct insn *insn, const uint8_t *thunk, unsigned int length)
{
	struct insn other;

	if (decode_insn(&other, thunk, length, INSN_MODE_64) != DECODE_OK)
		return false;
	for (unsigned int i = 0; i < 4; i++)
		if (insn->operands[i].kind == OPERAND_GPR &&
		    insn->operands[i].log2_size != other.operands[i].log2_size)
			return false;
	return insn->mem_size == other.mem_size;
}

static bool make_thunk(const struct insn *insn, const uint8_t *raw, bool lock, uint8_t *out,
		       struct thunk_info *info)
{
	static const uint8_t bases[] = {REG_RBX, REG_RSI, REG_RDI};
	static const uint8_t stands_in[] = {REG_RBX, REG_RBP, REG_RSI, REG_RDI};
	uint16_t used = used_registers(insn);
	unsigned int n = emit_opcode(insn, raw, lock, out), modrm_at = n;

	info->base = info->stack = REG_NONE;
	if (insn->has_modrm) {
		if (insn->has_mem) {
			for (unsigned int i = 0; i < 3; i++)
				if (!(used >> bases[i] & 1))
					info->base = bases[i];
			if (info->base == REG_NONE)
				return false;
			used |= (uint16_t)(1u << info->base);
			out[n++] = (uint8_t)((insn->modrm & 0x38) | info->base);
		} else {
			out[n++] = insn->modrm;
		}
	}
	memcpy(out + n, raw + insn->imm_at, insn->imm_size);
	n += insn->imm_size;
	/* The register in an immediate has three bits there: VBLENDVPS and its kin. */
	if (insn->mode != INSN_MODE_64 && insn->desc->map == MAP_VEX_0F3A && insn->opcode >= 0x4a &&
	    insn->opcode <= 0x4c)
		out[n - 1] &= 0x7f;
	if (insn->mode != INSN_MODE_64 && insn->encoding != ENC_LEGACY && (out[2] & 0x80) &&
	    !same_sizes(insn, out, n))
		out[2] &= 0x7f;
	if (count_gpr(insn, REG_RSP)) {
		for (unsigned int i = 0; i < 4; i++)
			if (!(used >> stands_in[i] & 1))
				info->stack = stands_in[i];
		if (info->stack == REG_NONE || !insn->has_modrm ||
		    !rename_stack(out, n, modrm_at, insn->encoding, info->stack))
			return false;
	}
	info->length = (uint8_t)n;
	out[n++] = 0xc3;
	return n <= THUNK_BYTES;
}

/* Code that this thread wrote through another address is only sure to be seen by a serialized
 * processor (SDM 9.1.3). */
static void serialize(void)
{
	unsigned int eax, ebx, ecx, edx;

	__cpuid(0, eax, ebx, ecx, edx);
	(void)eax, (void)ebx, (void)ecx, (void)edx;
}

static bool same_key(const struct thunk_key *a, const struct thunk_key *b)
{
	uint64_t x[2], y[2];

	memcpy(x, a, 16);
	memcpy(y, b, 16);
	return x[0] == y[0] && x[1] == y[1];
}

static const struct thunk_info *find_thunk(struct vcpu *cpu, bool lock, unsigned int *slot)
{
	const struct insn *insn = cpu->insn;
	struct native *native = cpu->native;
	const uint8_t *raw = cpu->insn_bytes;
	uint8_t code[THUNK_BYTES + INSN_MAX_BYTES + 1];
	struct thunk_info info = {0};
	struct thunk_key key;

	/* Zeros fill the bytes behind the instruction. */
	memcpy(key.bytes, raw, sizeof(key.bytes));
	key.kind = (uint8_t)(1 + insn->mode + 4 * lock);
	*slot = hash(&key);
	if (same_key(&native->info[*slot].key, &key))
		return &native->info[*slot];
	info.key = key;
	if (!make_thunk(insn, raw, lock, code, &info))
		return NULL;
	native->info[*slot] = info;
	memcpy(native->writable + *slot * THUNK_BYTES, code, info.length + 1u);
	serialize();
	return &native->info[*slot];
}

uint64_t native_fault_address(const struct native *native)
{
	return native->frame.window.address;
}

void *native_guard(struct native *native)
{
	return native->guard;
}

void *native_buffer(struct native *native)
{
	return native->buffer;
}

int native_run(struct vcpu *cpu, void *memory, bool lock, bool vector)
{
	struct native *native = cpu->native;
	struct native_frame *f = &native->frame;
	const struct thunk_info *t;
	unsigned int slot;

	t = find_thunk(cpu, lock, &slot);
	if (!t)
		return EXC_UD;
	memcpy(f->regs, cpu->s.regs, sizeof(f->regs));
	if (t->base != REG_NONE)
		f->regs[t->base] = (uintptr_t)(memory ? memory : native->buffer);
	if (t->stack != REG_NONE)
		f->regs[t->stack] = cpu->s.regs[REG_RSP];
	f->flags = (cpu->s.rflags & FLAGS_ARITH) | 2;
	f->code = native->executable + slot * THUNK_BYTES;
	f->xsave = vector ? cpu->s.xsave : NULL;
	f->window.code = f->code;
	f->window.end = f->code + t->length;
	f->window.trap = TRAP_NONE;
	trap_open(&f->window);
	native_enter(f);
	trap_open(NULL);
	if (f->window.trap != TRAP_NONE)
		return f->window.trap;
	for (unsigned int i = 0; i < 16; i++)
		if (i != t->base && i != t->stack && i != REG_RSP)
			cpu->s.regs[i] = f->regs[i];
	if (t->stack != REG_NONE)
		cpu->s.regs[REG_RSP] = f->regs[t->stack];
	cpu->s.rflags = (cpu->s.rflags & ~(uint64_t)FLAGS_ARITH) | (f->flags & FLAGS_ARITH);
	return TRAP_NONE;
}

/* ---- Life ---- */

int native_new(struct native **out, struct error *err)
{
	size_t size = THUNKS * THUNK_BYTES;
	autofd int fd = -EBADF;
	struct native *n;
	uint32_t mxcsr = 0x1f80;

	trap_install();
	n = aligned_alloc(64, (sizeof(*n) + 63) & ~63ul);
	if (!n)
		return error_oom(err);
	memset(n, 0, sizeof(*n));
	n->writable = n->executable = n->guard = MAP_FAILED;
	memcpy(n->initial + 24, &mxcsr, 4);
	n->frame.initial = n->initial;
	n->frame.components = native_components();
	fd = memfd_create("lodge-thunks", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)size) < 0) {
		int code = errno;

		native_free(n);
		return error_sys(err, code, "make room for translated instructions");
	}
	n->writable = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	n->executable = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	n->guard = mmap(NULL, 4 * PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (n->writable == MAP_FAILED || n->executable == MAP_FAILED || n->guard == MAP_FAILED ||
	    mprotect(n->guard + PAGE_BYTES, PAGE_BYTES, PROT_READ | PROT_WRITE) < 0) {
		int code = errno;

		native_free(n);
		error_sys(err, code, "map translated instructions");
		error_hint(err, "the host must allow executable mappings of memory files");
		return -code;
	}
	*out = n;
	return 0;
}

void native_free(struct native *native)
{
	size_t size = THUNKS * THUNK_BYTES;

	if (!native)
		return;
	if (native->writable != MAP_FAILED)
		munmap(native->writable, size);
	if (native->executable != MAP_FAILED)
		munmap(native->executable, size);
	if (native->guard != MAP_FAILED)
		munmap(native->guard, 4 * PAGE_BYTES);
	free(native);
}
