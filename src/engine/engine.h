/*
 * The contract between the virtual board (machine/) and what executes a guest's instructions. Two
 * engines fulfil it: kvm/ on hardware virtualization, soft/ by translation without any. The board
 * knows an engine by this header only.
 *
 * What belongs to the engine is what belongs to the silicon of a processor: instructions, paging,
 * exceptions, CPUID, model-specific registers, and the local APIC with its timer. Everything else,
 * the I/O APIC and the 8259 included, is the board's, which raises interrupts as messages (on KVM
 * that is its "split irqchip").
 *
 * Threads: each vCPU is run by one thread, the same for its lifetime. Functions that are marked
 * [any] may be called from every thread at any time; the others on a vCPU only by its own thread or
 * while it does not run, and on a VM only while no vCPU runs.
 *
 * Guest physical addresses are a type of their own that can't be dereferenced; the board reaches
 * guest memory through machine/memory.h.
 */
#pragma once

#include "base/error.h"
#include "engine/vcpu_state.h"

#include <stddef.h>

typedef struct {
	uint64_t v;
} gpa_t;

struct vm;
struct vcpu;

/*
 * What the engine asks of the board; called on the thread of the vCPU that made the access, never
 * with a lock of the engine held. Sizes are in bytes: 1, 2 or 4 for ports, 1 to 8 for memory (an
 * access across a page end arrives in two parts). Accesses to nothing read as all ones.
 */
struct board_ops {
	uint32_t (*port_read)(void *board, uint16_t port, unsigned int size);
	void (*port_write)(void *board, uint16_t port, unsigned int size, uint32_t value);
	uint64_t (*mmio_read)(void *board, gpa_t gpa, unsigned int size);
	void (*mmio_write)(void *board, gpa_t gpa, unsigned int size, uint64_t value);
	/* INTA of the 8259: the vector of the interrupt behind vcpu_set_extint(). */
	uint8_t (*pic_acknowledge)(void *board);
	/* A level-triggered vector was ended in some local APIC (SDM 11.8.5, "EOI broadcast"). */
	void (*apic_eoi)(void *board, uint8_t vector);
};

/* One leaf of CPUID as the guest sees it. */
struct cpuid_leaf {
	uint32_t function, index; /* eax, ecx; index is ignored unless `indexed` */
	bool indexed;
	uint32_t eax, ebx, ecx, edx;
};

struct vm_config {
	const struct board_ops *ops;
	void *board; /* passed to the ops */
	const struct cpuid_leaf *cpuid;
	size_t n_cpuid;
	unsigned int n_vcpus;
};

enum {
	VM_MAP_READ_ONLY = 1 << 0, /* writes go to mmio_write (ROM, flash) */
};

enum vcpu_exit {
	VCPU_EXIT_KICKED,   /* vcpu_kick() */
	VCPU_EXIT_SHUTDOWN, /* triple fault */
	VCPU_EXIT_DEBUG,    /* a break point, a watch point or a single step of vcpu_set_debug() */
};

/* What has happened since the vCPU was made. */
struct vcpu_counters {
	uint64_t instructions; /* 0 where the engine can't tell */
	uint64_t exceptions, interrupts, page_faults, port_accesses, mmio_accesses, halts;
	uint64_t tlb_fills, tlb_flushes;
};

enum { VCPU_DEBUG_POINTS = 16 };

struct vcpu_debug {
	bool single_step;
	struct {
		uint64_t gva;
		uint8_t size; /* 0: unused; 1: also for an instruction; 2, 4, 8 */
		uint8_t kind; /* as in DR7: 0 execute, 1 write, 3 read or write */
	} points[VCPU_DEBUG_POINTS];
};

struct engine {
	const char *name; /* "kvm", "soft" */

	/* Whether it works on this host. Errors: ENODEV, EACCES, ENOTSUP, with a hint. */
	int (*probe)(struct error *err);

	/* All CPUID leaves that the engine can offer on this host: what is native here and
	 * implemented. The board narrows them by the wanted level. The caller frees *leaves. */
	int (*supported_cpuid)(struct cpuid_leaf **leaves, size_t *n, struct error *err);

	int (*vm_new)(const struct vm_config *config, struct vm **vm, struct error *err);
	void (*vm_free)(struct vm *vm); /* frees its vCPUs too */

	/* Makes [gpa, gpa + size) RAM, backed by `fd` (a memfd) from `offset`; both multiples of
	 * 4 KiB. Overlapping an existing range is EEXIST. vm_unmap() takes such a range away. */
	int (*vm_map)(struct vm *vm, gpa_t gpa, uint64_t size, int fd, uint64_t offset,
		      unsigned int flags, struct error *err);
	int (*vm_unmap)(struct vm *vm, gpa_t gpa, uint64_t size, struct error *err);

	/* [any] A message-signalled interrupt: address and data as a device writes them
	 * (SDM 11.11).
	 */
	void (*vm_msi)(struct vm *vm, uint64_t address, uint32_t data);

	/* Dirty tracking of a mapped range. vm_dirty_get() is [any]: sets a bit a 4 KiB page that
	 * was written since the last call, and forgets it. */
	int (*vm_dirty_start)(struct vm *vm, gpa_t gpa, uint64_t size, struct error *err);
	int (*vm_dirty_stop)(struct vm *vm, gpa_t gpa, uint64_t size, struct error *err);
	int (*vm_dirty_get)(struct vm *vm, gpa_t gpa, uint64_t size, uint64_t *bitmap,
			    struct error *err);
	/* [any] Memory was written by the board (a device's DMA): code translated from it is stale.
	 */
	void (*vm_written)(struct vm *vm, gpa_t gpa, uint64_t size);

	/* Made in the state after RESET (SDM 10.1): 0 runs, the others wait for SIPI. */
	int (*vcpu_new)(struct vm *vm, unsigned int index, struct vcpu **vcpu, struct error *err);

	/* Runs until something needs the board's attention; HLT waits inside. Errors: EFAULT where
	 * the host lacks memory for the guest; EIO for what the engine can't continue from, with
	 * words for the user. */
	int (*vcpu_run)(struct vcpu *vcpu, enum vcpu_exit *exit, struct error *err);

	/* [any] Has vcpu_run() return soon, or at once when it is called next. */
	void (*vcpu_kick)(struct vcpu *vcpu);

	int (*vcpu_get_state)(struct vcpu *vcpu, struct vcpu_state *state, struct error *err);
	int (*vcpu_set_state)(struct vcpu *vcpu, const struct vcpu_state *state, struct error *err);

	void (*vcpu_nmi)(struct vcpu *vcpu);                    /* [any] */
	void (*vcpu_set_extint)(struct vcpu *vcpu, bool level); /* [any] the 8259's INTR line */

	int (*vcpu_set_debug)(struct vcpu *vcpu, const struct vcpu_debug *debug, struct error *err);

	/* Virtual to physical by the guest's page tables as they are; no side effects. Errors:
	 * EFAULT: not mapped. */
	int (*vcpu_translate)(struct vcpu *vcpu, uint64_t gva, gpa_t *gpa, struct error *err);

	void (*vcpu_get_counters)(const struct vcpu *vcpu,
				  struct vcpu_counters *counters); /* [any] */
};

extern const struct engine engine_soft;
