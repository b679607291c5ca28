/*
 * From linear to physical addresses: the page walks of all paging modes (SDM volume 3, chapter 4)
 * and the TLB that remembers them. Called for each access of an instruction by memory.c; changes
 * nothing of the guest but the accessed and dirty bits of its tables.
 */
#include "engine/soft/soft.h"

#include <string.h>

#define PTE_P     (1ull << 0)
#define PTE_W     (1ull << 1)
#define PTE_U     (1ull << 2)
#define PTE_A     (1ull << 5)
#define PTE_D     (1ull << 6)
#define PTE_PS    (1ull << 7)
#define PTE_G     (1ull << 8)
#define PTE_NX    (1ull << 63)
#define PTE_PK(e) (((e) >> 59) & 15)

enum { WALK_RETRY = -2, WALK_FAULT = -1, WALK_DONE = 0 };

/* What a walk found. */
struct walk {
	uint64_t gpa; /* of the 4 KiB page */
	unsigned int shift;
	bool user, write, nx, global, dirty;
	unsigned int key;
	uint32_t error; /* P, RSVD, PK of the error code */
};

/* An entry of a paging structure; what is not RAM reads as all ones. */
static uint64_t entry_read(struct vcpu *cpu, uint64_t gpa, unsigned int size, void **where)
{
	uint8_t *host = mmu_host(cpu->vm, gpa, size);

	*where = host;
	if (!host)
		return size == 8 ? ~0ull : ~0u;
	if (size == 8)
		return __atomic_load_n((uint64_t *)host, __ATOMIC_ACQUIRE);
	return __atomic_load_n((uint32_t *)host, __ATOMIC_ACQUIRE);
}

/* Sets bits in an entry that must still be what was read; false: it changed, walk again. */
static bool entry_set(struct vcpu *cpu, void *where, uint64_t gpa, unsigned int size,
		      uint64_t *value, uint64_t bits)
{
	struct range *r = mmu_range(cpu->vm, gpa);
	bool ok;

	if ((*value & bits) == bits || !where || !r || (r->flags & VM_MAP_READ_ONLY))
		return true;
	if (size == 8) {
		uint64_t old = *value;

		ok = __atomic_compare_exchange_n((uint64_t *)where, &old, old | bits, false,
						 __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	} else {
		uint32_t old = (uint32_t)*value;

		ok = __atomic_compare_exchange_n((uint32_t *)where, &old, old | (uint32_t)bits,
						 false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	}
	if (ok) {
		uint64_t page = (gpa - r->gpa) / PAGE_BYTES;
		_Atomic uint64_t *dirty = r->dirty;

		*value |= bits;
		if (dirty)
			atomic_fetch_or(&dirty[page / 64], 1ull << (page % 64));
	}
	return ok;
}

/* The access rights as bits of enum access (SDM 4.6), without regard to the dirty bit. */
static uint8_t walk_rights(const struct vcpu *cpu, const struct walk *w, bool *by_key)
{
	bool wp = cpu->s.cr0 & CR0_WP, smep = cpu->s.cr4 & CR4_SMEP, smap = cpu->s.cr4 & CR4_SMAP;
	uint8_t allow = 0, keyed = 0xff;

	if (w->user) {
		allow |= 1 << ACCESS_USER_READ | 1 << ACCESS_AC_READ;
		if (w->write)
			allow |= 1 << ACCESS_USER_WRITE;
		if (w->write || !wp)
			allow |= 1 << ACCESS_AC_WRITE;
		if (!w->nx)
			allow |= 1 << ACCESS_USER_EXEC;
		if (!w->nx && !smep)
			allow |= 1 << ACCESS_SUP_EXEC;
		if (!smap)
			allow |= 1 << ACCESS_SUP_READ;
		if (!smap && (w->write || !wp))
			allow |= 1 << ACCESS_SUP_WRITE;
		if ((cpu->s.cr4 & CR4_PKE) && cpu->long_mode) {
			uint32_t pkru;

			memcpy(&pkru, cpu->s.xsave + 2688, 4);
			pkru >>= 2 * w->key;
			if (pkru & 1)
				keyed = 1 << ACCESS_USER_EXEC | 1 << ACCESS_SUP_EXEC;
			else if (pkru & 2)
				keyed &= (uint8_t) ~(
					1 << ACCESS_USER_WRITE |
					(wp ? 1 << ACCESS_AC_WRITE | 1 << ACCESS_SUP_WRITE : 0));
		}
	} else {
		allow |= 1 << ACCESS_SUP_READ | 1 << ACCESS_AC_READ;
		if (w->write || !wp)
			allow |= 1 << ACCESS_SUP_WRITE | 1 << ACCESS_AC_WRITE;
		if (!w->nx)
			allow |= 1 << ACCESS_SUP_EXEC;
	}
	*by_key = keyed != 0xff;
	return allow & keyed;
}

static bool is_write(enum access access)
{
	return access == ACCESS_USER_WRITE || access == ACCESS_SUP_WRITE ||
	       access == ACCESS_AC_WRITE;
}

/* The last level was reached: checks the rights, sets the dirty bit. */
static int walk_leaf(struct vcpu *cpu, struct walk *w, void *where, uint64_t gpa, unsigned int size,
		     uint64_t entry, enum access access, bool touch, uint8_t *allow)
{
	bool by_key;

	*allow = walk_rights(cpu, w, &by_key);
	if (touch && !(*allow & (1 << access))) {
		w->error = PF_P;
		if (by_key && access != ACCESS_USER_EXEC && access != ACCESS_SUP_EXEC)
			w->error |= PF_PK;
		return WALK_FAULT;
	}
	if (touch &&
	    !entry_set(cpu, where, gpa, size, &entry, PTE_A | (is_write(access) ? PTE_D : 0)))
		return WALK_RETRY;
	w->dirty = entry & PTE_D;
	return WALK_DONE;
}

static int walk_32(struct vcpu *cpu, uint64_t lin, enum access access, bool touch, struct walk *w,
		   uint8_t *allow)
{
	uint64_t table = cpu->s.cr3 & 0xfffff000;
	uint64_t gpa = table + ((lin >> 22) & 0x3ff) * 4, entry;
	void *where;

	entry = entry_read(cpu, gpa, 4, &where);
	if (!(entry & PTE_P))
		return WALK_FAULT;
	w->user = entry & PTE_U;
	w->write = entry & PTE_W;
	if ((entry & PTE_PS) && (cpu->s.cr4 & CR4_PSE)) {
		if (entry & (1u << 21) ||
		    ((entry >> 13) & 0xff) >>
			    (cpu->vm->phys_bits > 32
				     ? (cpu->vm->phys_bits > 40 ? 8 : cpu->vm->phys_bits - 32)
				     : 0)) {
			w->error = PF_P | PF_RSVD;
			return WALK_FAULT;
		}
		w->shift = 22;
		w->global = entry & PTE_G;
		w->gpa = (entry & 0xffc00000) | ((entry >> 13) & 0xff) << 32 | (lin & 0x3ff000);
		return walk_leaf(cpu, w, where, gpa, 4, entry, access, touch, allow);
	}
	if (touch && !entry_set(cpu, where, gpa, 4, &entry, PTE_A))
		return WALK_RETRY;
	gpa = (entry & 0xfffff000) + ((lin >> 12) & 0x3ff) * 4;
	entry = entry_read(cpu, gpa, 4, &where);
	if (!(entry & PTE_P))
		return WALK_FAULT;
	w->user &= !!(entry & PTE_U);
	w->write &= !!(entry & PTE_W);
	w->global = entry & PTE_G;
	w->shift = 12;
	w->gpa = entry & 0xfffff000;
	return walk_leaf(cpu, w, where, gpa, 4, entry, access, touch, allow);
}

/* PAE and four-level paging: the same entries, three or four levels of them (SDM 4.4, 4.5). */
static int walk_64(struct vcpu *cpu, uint64_t lin, enum access access, bool touch, struct walk *w,
		   uint8_t *allow)
{
	uint64_t address = ((1ull << cpu->vm->phys_bits) - 1) & ~PAGE_MASK;
	uint64_t reserved = ((1ull << 52) - 1) & ~((1ull << cpu->vm->phys_bits) - 1);
	bool pae = !cpu->long_mode;
	uint64_t table;
	int level;

	w->user = w->write = true;
	if (pae) {
		table = cpu->pdpte[(lin >> 30) & 3];
		if (!(table & PTE_P))
			return WALK_FAULT;
		table &= address;
		level = 1;
		reserved |= 0x7ffull << 52;
	} else {
		table = cpu->s.cr3 & address;
		level = 3;
	}
	if (!(cpu->s.efer & EFER_NXE))
		reserved |= PTE_NX;

	for (;; level--) {
		unsigned int shift = 12 + 9 * (unsigned int)level;
		uint64_t gpa = table + ((lin >> shift) & 0x1ff) * 8, bad = reserved, entry;
		bool leaf = level == 0;
		void *where;

		entry = entry_read(cpu, gpa, 8, &where);
		if (!(entry & PTE_P))
			return WALK_FAULT;
		if (level == 3)
			bad |= PTE_PS;
		if ((level == 1 || level == 2) && (entry & PTE_PS)) {
			leaf = true;
			/* Bit 12 is PAT. */
			bad |= ((1ull << shift) - 1) & ~0x1fffull;
		}
		if (entry & bad) {
			w->error = PF_P | PF_RSVD;
			return WALK_FAULT;
		}
		w->user &= !!(entry & PTE_U);
		w->write &= !!(entry & PTE_W);
		w->nx |= !!(entry & PTE_NX);
		if (leaf) {
			w->global = entry & PTE_G;
			w->shift = shift;
			w->key = pae ? 0 : PTE_PK(entry);
			w->gpa = (entry & address & ~((1ull << shift) - 1)) |
				 (lin & ((1ull << shift) - 1) & ~PAGE_MASK);
			return walk_leaf(cpu, w, where, gpa, 8, entry, access, touch, allow);
		}
		if (touch && !entry_set(cpu, where, gpa, 8, &entry, PTE_A))
			return WALK_RETRY;
		table = entry & address;
	}
}

static int walk(struct vcpu *cpu, uint64_t lin, enum access access, bool touch, struct walk *w,
		uint8_t *allow)
{
	int result;

	do {
		memset(w, 0, sizeof(*w));
		if (!(cpu->s.cr0 & CR0_PG)) {
			w->gpa = lin & ~PAGE_MASK;
			w->shift = 12;
			w->user = w->write = w->dirty = true;
			*allow = 0xff;
			return WALK_DONE;
		}
		if (cpu->s.cr4 & CR4_PAE)
			result = walk_64(cpu, lin, access, touch, w, allow);
		else
			result = walk_32(cpu, lin, access, touch, w, allow);
		/* Another vCPU or the guest's own page tables as data could make this go on for
		 * ever only by changing the entry each time; then it is our turn sometime. */
	} while (result == WALK_RETRY);
	return result;
}

static unsigned int current_pcid(const struct vcpu *cpu)
{
	return cpu->s.cr4 & CR4_PCIDE ? cpu->s.cr3 & 0xfff : 0;
}

static struct tlb_entry *tlb_slot(struct vcpu *cpu, uint64_t lin)
{
	return &cpu->tlb[(lin >> 12) % TLB_ENTRIES];
}

/* What the TLB has not, or has without the right to do it. [raises] */
static __attribute__((noinline)) const struct tlb_entry *
tlb_fill(struct vcpu *cpu, struct tlb_entry *e, uint64_t lin, enum access access, unsigned int pcid)
{
	const struct range *r;
	uint8_t allow;
	struct walk w;

	if (walk(cpu, lin, access, true, &w, &allow) == WALK_FAULT) {
		bool nx = (cpu->s.cr4 & CR4_SMEP) ||
			  ((cpu->s.efer & EFER_NXE) && (cpu->s.cr4 & CR4_PAE));

		/* A fault drops what the TLB had for the address (SDM 4.10.4.1). */
		if (e->page == (lin & ~PAGE_MASK))
			e->page = ~0ull;
		if (is_write(access))
			w.error |= PF_W;
		if (access <= ACCESS_USER_EXEC)
			w.error |= PF_U;
		if (nx && (access == ACCESS_USER_EXEC || access == ACCESS_SUP_EXEC))
			w.error |= PF_I;
		raise_page_fault(cpu, lin, w.error);
	}

	cpu->counters.tlb_fills++;
	e->page = lin & ~PAGE_MASK;
	e->gpa = w.gpa;
	e->pcid = (uint16_t)pcid;
	e->global = w.global && (cpu->s.cr4 & CR4_PGE);
	e->shift = (uint8_t)w.shift;
	e->allow = allow;
	e->dirty = NULL;
	e->host = e->code = NULL;
	if (!w.dirty)
		e->allow &= (uint8_t) ~(1 << ACCESS_USER_WRITE | 1 << ACCESS_SUP_WRITE |
					1 << ACCESS_AC_WRITE);
	if (w.shift > 12)
		cpu->tlb_large = true;
	r = mmu_range(cpu->vm, w.gpa);
	if (r && !lapic_owns(cpu, w.gpa)) {
		uint64_t index = (w.gpa - r->gpa) / PAGE_BYTES;

		e->code = r->host + (w.gpa - r->gpa);
		if (!(r->flags & VM_MAP_READ_ONLY))
			e->host = e->code;
		if (r->dirty) {
			e->dirty = &r->dirty[index / 64];
			e->dirty_bit = 1ull << (index % 64);
		}
	}
	return e;
}

const struct tlb_entry *mmu_translate(struct vcpu *cpu, uint64_t lin, enum access access)
{
	struct tlb_entry *e = tlb_slot(cpu, lin);
	unsigned int pcid = current_pcid(cpu);

	if (e->page == (lin & ~PAGE_MASK) && (e->global || e->pcid == pcid) &&
	    (e->allow & (1 << access)))
		return e;
	return tlb_fill(cpu, e, lin, access, pcid);
}

bool mmu_probe(struct vcpu *cpu, uint64_t lin, uint64_t *gpa)
{
	uint8_t allow;
	struct walk w;

	if (cpu->long_mode && !is_canonical(lin))
		return false;
	if (walk(cpu, lin, ACCESS_SUP_READ, false, &w, &allow) != WALK_DONE)
		return false;
	*gpa = w.gpa | (lin & PAGE_MASK);
	return true;
}

enum access mmu_data_access(const struct vcpu *cpu, bool write)
{
	if (cpu->cpl == 3)
		return write ? ACCESS_USER_WRITE : ACCESS_USER_READ;
	if (cpu->s.rflags & FLAG_AC)
		return write ? ACCESS_AC_WRITE : ACCESS_AC_READ;
	return write ? ACCESS_SUP_WRITE : ACCESS_SUP_READ;
}

bool mmu_load_pdptes(struct vcpu *cpu, uint64_t cr3)
{
	uint64_t bad = ~((1ull << cpu->vm->phys_bits) - 1) | 0x1e6, entries[4];
	void *where;

	for (unsigned int i = 0; i < 4; i++) {
		entries[i] = entry_read(cpu, (cr3 & 0xffffffe0) + 8 * i, 8, &where);
		if ((entries[i] & PTE_P) && (entries[i] & bad))
			return false;
	}
	memcpy(cpu->pdpte, entries, sizeof(entries));
	return true;
}

/* ---- The TLB (SDM 4.10) ---- */

void tlb_flush_all(struct vcpu *cpu)
{
	cpu->counters.tlb_flushes++;
	for (unsigned int i = 0; i < TLB_ENTRIES; i++)
		cpu->tlb[i].page = ~0ull;
	cpu->tlb_large = false;
}

void tlb_flush_pcid(struct vcpu *cpu, unsigned int pcid)
{
	cpu->counters.tlb_flushes++;
	for (unsigned int i = 0; i < TLB_ENTRIES; i++)
		if (cpu->tlb[i].pcid == pcid && !cpu->tlb[i].global)
			cpu->tlb[i].page = ~0ull;
}

/* A part of a large page stands for all of it, so that all of them must go. */
static void flush_page(struct vcpu *cpu, uint64_t lin, bool any, unsigned int pcid)
{
	for (unsigned int i = 0; i < TLB_ENTRIES; i++) {
		struct tlb_entry *e = &cpu->tlb[i];

		if (e->page != ~0ull && (e->page >> e->shift) == (lin >> e->shift) &&
		    (e->pcid == pcid || (any && e->global)))
			e->page = ~0ull;
	}
}

void tlb_flush_page(struct vcpu *cpu, uint64_t lin)
{
	struct tlb_entry *e = tlb_slot(cpu, lin);

	if (cpu->tlb_large)
		flush_page(cpu, lin, true, current_pcid(cpu));
	else if (e->page == (lin & ~PAGE_MASK))
		e->page = ~0ull;
}

void tlb_flush_page_pcid(struct vcpu *cpu, uint64_t lin, unsigned int pcid)
{
	flush_page(cpu, lin, false, pcid);
}
