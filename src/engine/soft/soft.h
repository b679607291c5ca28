/*
 * What the stages of the software engine share: the virtual machine, the virtual processor, and
 * the functions between the files of this folder. Nothing outside of the folder includes it.
 *
 * How faults travel: an instruction that faults calls raise_exception(), which does not return: it
 * notes the exception and jumps back to the loop of vcpu_run() (run.c). Hence two rules. An
 * instruction changes architectural state only after its last possible fault; and nobody holds a
 * lock, or memory that needs freeing, while calling something that may raise ("[raises]").
 *
 * A vCPU belongs to its thread. What other threads may touch stands in `struct vcpu` under
 * "shared" and is atomic.
 */
#pragma once

#include "base/error.h"
#include "engine/engine.h"
#include "engine/soft/decode.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>

/* ---- Bits (SDM 2.3, 2.5, 3.4.3) ---- */

#define FLAG_RF  (1u << 16)
#define FLAG_VM  (1u << 17)
#define FLAG_AC  (1u << 18)
#define FLAG_VIF (1u << 19)
#define FLAG_VIP (1u << 20)
#define FLAG_ID  (1u << 21)

#define CR0_PE (1u << 0)
#define CR0_MP (1u << 1)
#define CR0_EM (1u << 2)
#define CR0_TS (1u << 3)
#define CR0_ET (1u << 4)
#define CR0_NE (1u << 5)
#define CR0_WP (1u << 16)
#define CR0_AM (1u << 18)
#define CR0_NW (1u << 29)
#define CR0_CD (1u << 30)
#define CR0_PG (1u << 31)

#define CR4_VME        (1u << 0)
#define CR4_PVI        (1u << 1)
#define CR4_TSD        (1u << 2)
#define CR4_DE         (1u << 3)
#define CR4_PSE        (1u << 4)
#define CR4_PAE        (1u << 5)
#define CR4_MCE        (1u << 6)
#define CR4_PGE        (1u << 7)
#define CR4_PCE        (1u << 8)
#define CR4_OSFXSR     (1u << 9)
#define CR4_OSXMMEXCPT (1u << 10)
#define CR4_UMIP       (1u << 11)
#define CR4_FSGSBASE   (1u << 16)
#define CR4_PCIDE      (1u << 17)
#define CR4_OSXSAVE    (1u << 18)
#define CR4_SMEP       (1u << 20)
#define CR4_SMAP       (1u << 21)
#define CR4_PKE        (1u << 22)

#define EFER_SCE (1u << 0)
#define EFER_LME (1u << 8)
#define EFER_LMA (1u << 10)
#define EFER_NXE (1u << 11)

#define XCR0_X87    (1u << 0)
#define XCR0_SSE    (1u << 1)
#define XCR0_AVX    (1u << 2)
#define XCR0_AVX512 (7u << 5)
#define XCR0_PKRU   (1u << 9)

#define APIC_BASE_BSP    (1u << 8)
#define APIC_BASE_X2APIC (1u << 10)
#define APIC_BASE_ENABLE (1u << 11)

/* Attributes of a segment: bits 40..55 of its descriptor. */
#define ATTR_ACCESSED 0x0001u
#define ATTR_WRITABLE 0x0002u /* data; of code: readable */
#define ATTR_DOWN     0x0004u /* data: expands down; of code: conforming */
#define ATTR_CODE     0x0008u
#define ATTR_TYPE     0x000fu
#define ATTR_S        0x0010u
#define ATTR_DPL(a)   (((a) >> 5) & 3)
#define ATTR_P        0x0080u
#define ATTR_L        0x2000u
#define ATTR_DB       0x4000u
#define ATTR_G        0x8000u

enum {
	EXC_DE = 0,
	EXC_DB = 1,
	EXC_NMI = 2,
	EXC_BP = 3,
	EXC_OF = 4,
	EXC_BR = 5,
	EXC_UD = 6,
	EXC_NM = 7,
	EXC_DF = 8,
	EXC_TS = 10,
	EXC_NP = 11,
	EXC_SS = 12,
	EXC_GP = 13,
	EXC_PF = 14,
	EXC_MF = 16,
	EXC_AC = 17,
	EXC_MC = 18,
	EXC_XM = 19,
};

/* Error code of #PF (SDM 4.7). */
enum { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_I = 16, PF_PK = 32 };

/* What an event is, numbered as in VMX's interruption information (SDM 24.8.3). */
enum event_kind {
	EVENT_INTERRUPT = 0,
	EVENT_NMI = 2,
	EVENT_EXCEPTION = 3,
	EVENT_SOFT_INTERRUPT = 4, /* INT n */
	EVENT_ICEBP = 5,          /* INT1 */
	EVENT_SOFT_EXCEPTION = 6, /* INT3, INTO */
};

/* ---- Memory ---- */

static inline bool is_canonical(uint64_t lin)
{
	return (uint64_t)((int64_t)(lin << 16) >> 16) == lin;
}

/*
 * Why memory is accessed; a bit each in tlb_entry.allow. "AC" are the explicit data accesses of a
 * supervisor with EFLAGS.AC set (SDM 4.6.1).
 */
enum access {
	ACCESS_USER_READ,
	ACCESS_USER_WRITE,
	ACCESS_USER_EXEC,
	ACCESS_SUP_READ,
	ACCESS_SUP_WRITE,
	ACCESS_SUP_EXEC,
	ACCESS_AC_READ,
	ACCESS_AC_WRITE,
};

#define PAGE_BYTES 4096u
#define PAGE_MASK  0xfffull

struct range {
	uint64_t gpa, size;
	uint8_t *host;
	unsigned int flags;      /* VM_MAP_* */
	_Atomic uint64_t *dirty; /* a bit a page, or NULL */
};

enum { VM_RANGES = 64 };

struct tlb_entry {
	uint64_t page;           /* linear address of the page, ~0: none */
	uint8_t *host;           /* the page, or NULL: a device, ROM when written, or nothing */
	uint8_t *code;           /* the page for fetches and reads (ROM too), or NULL */
	uint64_t gpa;            /* of the page */
	_Atomic uint64_t *dirty; /* the word of the dirty bitmap, or NULL */
	uint64_t dirty_bit;
	uint16_t pcid;
	uint8_t allow; /* bits of enum access */
	uint8_t shift; /* the guest's page size */
	bool global;
};

enum { TLB_ENTRIES = 1024 };

/* Guest memory that was translated and may be accessed without a fault; up to two pages. */
struct mem_ref {
	struct {
		struct tlb_entry page; /* a copy: the TLB may change meanwhile */
		unsigned int offset, size;
	} part[2];
	unsigned int n;
};

/* ---- The virtual machine ---- */

struct vm {
	struct vm_config config; /* with an own copy of the leaves */
	struct range ranges[VM_RANGES];
	unsigned int n_ranges;
	unsigned int phys_bits;
	uint64_t features;            /* CPU_BIT()s of what CPUID offers */
	bool fdp_on_exception;        /* CPUID: the x87 data pointer changes only with exceptions */
	uint64_t xcr0_mask;           /* the bits of XCR0 that may be set */
	pthread_mutex_t split_lock;   /* held by locked accesses that no host instruction can do */
	pthread_mutex_t ranges_lock;  /* vm_dirty_get() against changes of ranges */
	struct vcpu **vcpus;          /* config.n_vcpus; NULL where none was made yet */
	uint64_t tsc_start, ns_start; /* for the rate of the time stamp counter */
};

/* ---- The virtual processor ---- */

/* Requests of other threads; the word that HLT sleeps on. */
enum {
	REQUEST_KICK = 1 << 0,
	REQUEST_NMI = 1 << 1,
	REQUEST_INIT = 1 << 2,
	REQUEST_SIPI = 1 << 3,
	REQUEST_IRQ = 1 << 4,    /* posted[] has news */
	REQUEST_EXTINT = 1 << 5, /* the 8259's line changed */
	REQUEST_FLUSH = 1 << 6,  /* guest memory was mapped anew */
};

/* Why the loop was jumped back to. */
enum { UNWIND_EXCEPTION = 1, UNWIND_SHUTDOWN, UNWIND_ERROR, UNWIND_STEP, UNWIND_DEBUG };

enum { INSN_CACHE = 4096 };

struct cached_insn {
	struct insn insn;
	uint8_t bytes[16];
	uint8_t bits;  /* 0: empty */
	bool is_plain; /* none of check_common()'s checks can fail */
};

struct vcpu {
	struct vcpu_state s;

	/* Derived from s by vcpu_mode_changed(). */
	uint8_t bits;       /* 16, 32, 64: of the code segment */
	uint8_t stack_bits; /* of the stack pointer */
	uint8_t cpl;
	bool protected_mode; /* PE, and not virtual-8086 */
	bool v86;
	bool long_mode; /* LMA */

	/* The instruction under way. */
	const struct insn *insn;
	const uint8_t *insn_bytes;
	uint64_t next_rip;
	bool shadow_next;      /* it was STI, MOV SS or POP SS */
	bool repeat;           /* a REP instruction that goes on: rip stays */
	bool resumed;          /* the REP instruction went on already at the last step, ... */
	uint64_t repeat_flags; /* ... and these were the flags before it */
	bool skip_trap;        /* it was INT n, which takes no single-step trap */
	bool keep_rf;          /* it loaded RF itself: IRET, a task switch */

	/* The exception under way, for raise_exception(). */
	struct {
		uint8_t vector, kind;
		bool has_error_code;
		uint32_t error_code;
		uint64_t dr6; /* of #DB: bits to set */
	} exception;
	/* The event that is being delivered; its vector decides about double faults. */
	struct {
		bool active;
		uint8_t vector, kind;
	} delivering;
	bool exception_pending; /* raised, and not yet delivered */
	uint32_t pending_db;    /* DR6 bits of traps after this instruction */
	bool external_debug;    /* a point of vcpu_set_debug() was hit */

	struct vm *vm;
	unsigned int index;
	jmp_buf unwind;
	struct error *error; /* of vcpu_run(), for UNWIND_ERROR */

	struct tlb_entry tlb[TLB_ENTRIES];
	bool tlb_large; /* holds parts of large pages */
	uint64_t pdpte[4];

	struct vcpu_debug debug;
	bool debug_points; /* any of debug.points or DR7 is armed */
	bool debug_resume; /* go on from a break point of debug.points */

	struct vcpu_counters counters;

	/* Local APIC (lapic.c). */
	bool irq_ready;               /* an interrupt is above the processor's priority */
	uint64_t timer_ns, timer_tsc; /* deadlines on the host's clocks; 0: none */
	uint64_t timer_start_ns;

	struct native *native; /* native.c */
	struct cached_insn *insn_cache;

	/* Shared. */
	_Alignas(64) _Atomic uint32_t requests;
	_Atomic uint32_t posted[8], posted_level[8]; /* interrupts on their way to IRR, TMR */
	_Atomic uint32_t sipi_vector;
	atomic_bool extint;
	atomic_bool running;
};

/* ---- mmu.c ---- */

int mmu_map(struct vm *vm, gpa_t gpa, uint64_t size, int fd, uint64_t offset, unsigned int flags,
	    struct error *err);
int mmu_unmap(struct vm *vm, gpa_t gpa, uint64_t size, struct error *err);
struct range *mmu_range(struct vm *vm, uint64_t gpa);
/* The host's pointer for [gpa, gpa + size) inside one range of RAM, or NULL. */
uint8_t *mmu_host(struct vm *vm, uint64_t gpa, uint64_t size);

/* Translates; returns the entry, which stays valid until the next call. [raises] #PF */
const struct tlb_entry *mmu_translate(struct vcpu *cpu, uint64_t lin, enum access access);
/* Without side effects; false: not mapped. */
bool mmu_probe(struct vcpu *cpu, uint64_t lin, uint64_t *gpa);

/* The kind of access of the current privilege level. */
enum access mmu_data_access(const struct vcpu *cpu, bool write);

/* Both pages of an access are checked before anything happens. [raises] */
void mem_open(struct vcpu *cpu, uint64_t lin, unsigned int size, enum access access,
	      struct mem_ref *ref);
void ref_load(struct vcpu *cpu, const struct mem_ref *ref, void *data);
void ref_store(struct vcpu *cpu, const struct mem_ref *ref, const void *data);
/* The memory itself where it is RAM inside one page; else NULL. */
void *ref_host(const struct mem_ref *ref);
bool ref_is_ram(const struct mem_ref *ref); /* all of it, and writable */
void ref_dirty(const struct mem_ref *ref);
void page_dirty(const struct tlb_entry *page); /* after writing to its host page */

/* By linear address. [raises] */
void lin_read(struct vcpu *cpu, uint64_t lin, void *data, unsigned int size, enum access access);
void lin_write(struct vcpu *cpu, uint64_t lin, const void *data, unsigned int size,
	       enum access access);
/* Descriptor tables, task state segments: the processor's own accesses. [raises] */
uint64_t sys_read(struct vcpu *cpu, uint64_t lin, unsigned int size);
void sys_write(struct vcpu *cpu, uint64_t lin, unsigned int size, uint64_t value);

/* Fills `bytes` with up to 15 bytes of code at CS:rip, fewer where the segment or the page ends.
 * [raises] */
unsigned int mmu_fetch(struct vcpu *cpu, uint8_t bytes[static 16]);
/* Adds the bytes behind the first `n`, from the next page; returns how many. [raises] */
unsigned int mmu_fetch_more(struct vcpu *cpu, uint8_t bytes[static 16], unsigned int n);

void tlb_flush_all(struct vcpu *cpu);
void tlb_flush_pcid(struct vcpu *cpu, unsigned int pcid); /* not global pages */
void tlb_flush_page(struct vcpu *cpu, uint64_t lin);
void tlb_flush_page_pcid(struct vcpu *cpu, uint64_t lin, unsigned int pcid);
/* Loads the four entries of PAE paging; false: a reserved bit is set. */
bool mmu_load_pdptes(struct vcpu *cpu, uint64_t cr3);

/* ---- exception.c: raising and delivering ---- */

_Noreturn void raise_exception(struct vcpu *cpu, unsigned int vector);
_Noreturn void raise_error(struct vcpu *cpu, unsigned int vector, uint32_t error_code);
_Noreturn void raise_page_fault(struct vcpu *cpu, uint64_t lin, uint32_t error_code);
_Noreturn void raise_debug(struct vcpu *cpu, uint32_t dr6); /* as a fault */
_Noreturn void raise_gp(struct vcpu *cpu);                  /* #GP(0) */
_Noreturn void raise_ud(struct vcpu *cpu);

/* Delivers the exception that was raised, or the double fault that became of it. [raises] */
void exception_deliver(struct vcpu *cpu);
/* Delivers an event through the IVT or IDT; return_rip is what the handler returns to. [raises] */
void event_deliver(struct vcpu *cpu, enum event_kind kind, unsigned int vector, bool has_error_code,
		   uint32_t error_code, uint64_t return_rip);
void interrupt_return(struct vcpu *cpu, unsigned int size); /* IRET; [raises] */

/* ---- segment.c ---- */

/* Logical to linear, with the segment's checks. [raises] */
uint64_t seg_linear(struct vcpu *cpu, unsigned int seg, uint64_t offset, unsigned int size,
		    bool write);
/* A segment descriptor, as read from a table. */
struct descriptor {
	uint64_t raw, high; /* high: of 16-byte ones */
	uint64_t address;   /* where it was read from */
};
/* false: beyond the table's limit. [raises] #PF */
bool descriptor_read(struct vcpu *cpu, uint16_t selector, struct descriptor *d);
uint16_t descriptor_attributes(const struct descriptor *d);
uint32_t descriptor_limit(const struct descriptor *d);
uint64_t descriptor_base(const struct descriptor *d);
void descriptor_set_accessed(struct vcpu *cpu, struct descriptor *d);
void segment_fill(struct vcpu_segment *s, uint16_t selector, const struct descriptor *d);
void segment_real(struct vcpu_segment *s, uint16_t selector);
void segment_null(struct vcpu_segment *s, uint16_t selector);

void segment_load(struct vcpu *cpu, unsigned int seg, uint16_t selector); /* not CS; [raises] */
void segment_load_ldt(struct vcpu *cpu, uint16_t selector);
void segment_load_tr(struct vcpu *cpu, uint16_t selector);
/* Checks and loads CS for a far transfer without gate; `size` of the offset. [raises] */
void far_jump(struct vcpu *cpu, uint16_t selector, uint64_t offset, unsigned int size);
void far_call(struct vcpu *cpu, uint16_t selector, uint64_t offset, unsigned int size);
void far_return(struct vcpu *cpu, unsigned int size, unsigned int pop);
void segments_check_outer(struct vcpu *cpu); /* after a return to an outer level */
bool segment_verify(struct vcpu *cpu, uint16_t selector, bool write);
bool segment_lar(struct vcpu *cpu, uint16_t selector, uint32_t *rights);
bool segment_lsl(struct vcpu *cpu, uint16_t selector, uint32_t *limit);
/* The stack pointer for a level, from the TSS. [raises] */
void tss_stack(struct vcpu *cpu, unsigned int level, uint16_t *ss, uint64_t *sp);
uint64_t tss64_rsp(struct vcpu *cpu, unsigned int slot); /* 0..2: RSPn, 4..10: ISTn */
/* Checks the selector as SS for a privilege level. [raises] `vector` */
void stack_segment_check(struct vcpu *cpu, uint16_t selector, unsigned int level,
			 unsigned int vector, struct descriptor *d);

/* ---- task.c ---- */

enum task_reason { TASK_JUMP, TASK_CALL, TASK_IRET };
void task_switch(struct vcpu *cpu, uint16_t selector, enum task_reason reason, bool has_error_code,
		 uint32_t error_code, uint64_t return_rip);

/* ---- exec.c and the instruction files ---- */

/* Executes one instruction. [raises] */
void insn_step(struct vcpu *cpu);
void vcpu_mode_changed(struct vcpu *cpu);

/* The stack, by its size. push commits rsp after the write. [raises] */
void push(struct vcpu *cpu, unsigned int size, uint64_t value);
uint64_t pop(struct vcpu *cpu, unsigned int size);
uint64_t stack_read(struct vcpu *cpu, uint64_t sp, unsigned int size);
uint64_t stack_pointer(const struct vcpu *cpu);
void set_stack_pointer(struct vcpu *cpu, uint64_t sp);
/* A near branch: checks the target and sets next_rip. [raises] */
void branch(struct vcpu *cpu, uint64_t target, unsigned int size);

uint64_t reg_read(const struct vcpu *cpu, unsigned int reg, unsigned int size);
void reg_write(struct vcpu *cpu, unsigned int reg, unsigned int size, uint64_t value);

/* ---- system.c, msr.c ---- */

bool io_allowed(struct vcpu *cpu, uint16_t port, unsigned int size);
uint32_t port_in(struct vcpu *cpu, uint16_t port, unsigned int size);
void port_out(struct vcpu *cpu, uint16_t port, unsigned int size, uint32_t value);
bool msr_read(struct vcpu *cpu, uint32_t msr, uint64_t *value);
bool msr_write(struct vcpu *cpu, uint32_t msr, uint64_t value);
void cr_write(struct vcpu *cpu, unsigned int cr, uint64_t value); /* [raises] */
void cpuid(struct vcpu *cpu, uint32_t function, uint32_t index, uint32_t out[static 4]);
/* One bit of the guest's CPUID: register 0..3 is eax, ebx, ecx, edx. */
bool cpuid_has(struct vcpu *cpu, uint32_t function, uint32_t index, unsigned int reg,
	       unsigned int bit);
void vm_read_cpuid(struct vm *vm); /* config.cpuid into features, phys_bits, xcr0_mask */
int soft_supported_cpuid(struct cpuid_leaf **leaves, size_t *n, struct error *err);
uint64_t guest_tsc(const struct vcpu *cpu);
void flags_write(struct vcpu *cpu, uint64_t value, unsigned int size); /* POPF's rules */

/* ---- lapic.c ---- */

void lapic_reset(struct vcpu *cpu);
bool lapic_msr_read(struct vcpu *cpu, uint32_t msr, uint64_t *value);
bool lapic_msr_write(struct vcpu *cpu, uint32_t msr, uint64_t value);
bool lapic_base_write(struct vcpu *cpu, uint64_t value);
bool lapic_owns(const struct vcpu *cpu, uint64_t gpa);
uint32_t lapic_mmio_read(struct vcpu *cpu, unsigned int offset);
void lapic_mmio_write(struct vcpu *cpu, unsigned int offset, uint32_t value);
void lapic_sync(struct vcpu *cpu);       /* takes posted interrupts in, computes irq_ready */
int lapic_acknowledge(struct vcpu *cpu); /* the vector to deliver, or -1 */
/* Whether the 8259's INTR line gets through: LINT0 (SDM 11.5.1). */
bool lapic_accepts_extint(const struct vcpu *cpu);
void lapic_timer_check(struct vcpu *cpu);
void lapic_set_cr8(struct vcpu *cpu, uint64_t value);
uint64_t lapic_cr8(const struct vcpu *cpu);
void lapic_set_deadline(struct vcpu *cpu, uint64_t tsc);
void lapic_message(struct vm *vm, uint64_t address, uint32_t data);
void lapic_restart_timer(struct vcpu *cpu); /* after the state was set */
/* Nanoseconds until the timer is due; UINT64_MAX: it is not armed. */
uint64_t lapic_timer_wait_ns(struct vcpu *cpu);
uint64_t clock_ns(void);

/* ---- run.c ---- */

void vcpu_request(struct vcpu *cpu, uint32_t request); /* [any] */
void vcpu_reset(struct vcpu *cpu, bool init);
