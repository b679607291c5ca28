/*
 * Guest memory: the ranges of RAM, and accesses of 1 to 64 bytes by linear address. An access
 * translates all of its pages before it touches any, so that a fault leaves no half-done write.
 * What is not RAM goes to the local APIC or to the board, 8 bytes at most at once.
 */
#include "engine/soft/soft.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- Ranges ---- */

struct range *mmu_range(struct vm *vm, uint64_t gpa)
{
	for (unsigned int i = 0; i < vm->n_ranges; i++)
		if (gpa - vm->ranges[i].gpa < vm->ranges[i].size)
			return &vm->ranges[i];
	return NULL;
}

uint8_t *mmu_host(struct vm *vm, uint64_t gpa, uint64_t size)
{
	struct range *r = mmu_range(vm, gpa);

	if (!r || size > r->size - (gpa - r->gpa))
		return NULL;
	return r->host + (gpa - r->gpa);
}

static void flush_all_vcpus(struct vm *vm)
{
	for (unsigned int i = 0; i < vm->config.n_vcpus; i++)
		if (vm->vcpus[i])
			vcpu_request(vm->vcpus[i], REQUEST_FLUSH);
}

int mmu_map(struct vm *vm, gpa_t gpa, uint64_t size, int fd, uint64_t offset, unsigned int flags,
	    struct error *err)
{
	struct range *r;
	void *host;

	if (size == 0 || ((gpa.v | size | offset) & PAGE_MASK) || gpa.v + size < gpa.v)
		return error_set(err, EINVAL, "guest memory at 0x%llx, 0x%llx bytes: not pages",
				 (unsigned long long)gpa.v, (unsigned long long)size);
	for (unsigned int i = 0; i < vm->n_ranges; i++)
		if (gpa.v < vm->ranges[i].gpa + vm->ranges[i].size &&
		    vm->ranges[i].gpa < gpa.v + size)
			return error_set(err, EEXIST, "guest memory at 0x%llx is there already",
					 (unsigned long long)gpa.v);
	if (vm->n_ranges == VM_RANGES)
		return error_set(err, ENOSPC, "more than %d ranges of guest memory", VM_RANGES);
	host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
	if (host == MAP_FAILED)
		return error_sys(err, errno, "map 0x%llx bytes of guest memory",
				 (unsigned long long)size);
	/* Where the host gives huge pages to shared memory; no matter where not. */
	madvise(host, size, MADV_HUGEPAGE);

	pthread_mutex_lock(&vm->ranges_lock);
	r = &vm->ranges[vm->n_ranges++];
	*r = (struct range){.gpa = gpa.v, .size = size, .host = host, .flags = flags};
	pthread_mutex_unlock(&vm->ranges_lock);
	flush_all_vcpus(vm);
	return 0;
}

int mmu_unmap(struct vm *vm, gpa_t gpa, uint64_t size, struct error *err)
{
	for (unsigned int i = 0; i < vm->n_ranges; i++) {
		struct range *r = &vm->ranges[i];

		if (r->gpa != gpa.v || r->size != size)
			continue;
		pthread_mutex_lock(&vm->ranges_lock);
		munmap(r->host, r->size);
		free((void *)r->dirty);
		*r = vm->ranges[--vm->n_ranges];
		pthread_mutex_unlock(&vm->ranges_lock);
		flush_all_vcpus(vm);
		return 0;
	}
	return error_set(err, ENOENT, "no range of guest memory at 0x%llx, 0x%llx bytes",
			 (unsigned long long)gpa.v, (unsigned long long)size);
}

/* ---- Accesses ---- */

void mem_open(struct vcpu *cpu, uint64_t lin, unsigned int size, enum access access,
	      struct mem_ref *ref)
{
	unsigned int first = PAGE_BYTES - (lin & PAGE_MASK);

	/* Addresses wrap at 4 GiB outside of long mode. */
	if (!cpu->long_mode)
		lin = (uint32_t)lin;
	if (first > size)
		first = size;
	ref->part[0].page = *mmu_translate(cpu, lin, access);
	ref->part[0].offset = lin & PAGE_MASK;
	ref->part[0].size = first;
	ref->n = 1;
	if (first < size) {
		uint64_t next = lin + first;

		if (!cpu->long_mode)
			next = (uint32_t)next;
		ref->part[1].page = *mmu_translate(cpu, next, access);
		ref->part[1].offset = 0;
		ref->part[1].size = size - first;
		ref->n = 2;
	}
}

/* The largest power of two that an access of `size` bytes may take at once. */
static unsigned int device_step(uint64_t gpa, unsigned int size)
{
	unsigned int step = 8;

	while (step > size)
		step /= 2;
	/* Odd addresses pass through in one piece, as processors do it within 8 bytes. */
	while (step > 1 && (gpa & 7) + step > 8)
		step /= 2;
	return step;
}

static void device_read(struct vcpu *cpu, uint64_t gpa, uint8_t *data, unsigned int size)
{
	while (size) {
		unsigned int step = device_step(gpa, size);
		uint64_t value;

		if (lapic_owns(cpu, gpa)) {
			value = lapic_mmio_read(cpu, gpa & PAGE_MASK & ~3ull) >> 8 * (gpa & 3);
		} else {
			cpu->counters.mmio_accesses++;
			value = cpu->vm->config.ops->mmio_read(cpu->vm->config.board, (gpa_t){gpa},
							       step);
		}
		memcpy(data, &value, step);
		data += step;
		gpa += step;
		size -= step;
	}
}

static void device_write(struct vcpu *cpu, uint64_t gpa, const uint8_t *data, unsigned int size)
{
	while (size) {
		unsigned int step = device_step(gpa, size);
		uint64_t value = 0;

		memcpy(&value, data, step);
		if (lapic_owns(cpu, gpa)) {
			/* Only aligned 32-bit writes are defined (SDM 11.4.1). */
			if (!(gpa & 3) && step >= 4)
				lapic_mmio_write(cpu, gpa & PAGE_MASK, (uint32_t)value);
		} else {
			cpu->counters.mmio_accesses++;
			cpu->vm->config.ops->mmio_write(cpu->vm->config.board, (gpa_t){gpa}, step,
							value);
		}
		data += step;
		gpa += step;
		size -= step;
	}
}

/* Guest addresses need not be aligned. */
typedef uint16_t __attribute__((aligned(1), may_alias)) any_u16;
typedef uint32_t __attribute__((aligned(1), may_alias)) any_u32;
typedef uint64_t __attribute__((aligned(1), may_alias)) any_u64;

/* Copies in the pieces in which the processor accesses memory, so that an aligned access of up to
 * 8 bytes is atomic (SDM 9.1.1). */
static void copy(void *to, const void *from, unsigned int size)
{
	switch (size) {
	case 1:
		*(volatile uint8_t *)to = *(const volatile uint8_t *)from;
		break;
	case 2:
		*(volatile any_u16 *)to = *(const volatile any_u16 *)from;
		break;
	case 4:
		*(volatile any_u32 *)to = *(const volatile any_u32 *)from;
		break;
	case 8:
		*(volatile any_u64 *)to = *(const volatile any_u64 *)from;
		break;
	default:
		memcpy(to, from, size);
	}
}

void ref_load(struct vcpu *cpu, const struct mem_ref *ref, void *data)
{
	uint8_t *to = data;

	for (unsigned int i = 0; i < ref->n; i++) {
		if (ref->part[i].page.code)
			copy(to, ref->part[i].page.code + ref->part[i].offset, ref->part[i].size);
		else
			device_read(cpu, ref->part[i].page.gpa + ref->part[i].offset, to,
				    ref->part[i].size);
		to += ref->part[i].size;
	}
}

void page_dirty(const struct tlb_entry *page)
{
	if (page->dirty &&
	    !(atomic_load_explicit(page->dirty, memory_order_relaxed) & page->dirty_bit))
		atomic_fetch_or(page->dirty, page->dirty_bit);
}

void ref_dirty(const struct mem_ref *ref)
{
	for (unsigned int i = 0; i < ref->n; i++)
		page_dirty(&ref->part[i].page);
}

void ref_store(struct vcpu *cpu, const struct mem_ref *ref, const void *data)
{
	const uint8_t *from = data;

	for (unsigned int i = 0; i < ref->n; i++) {
		if (ref->part[i].page.host) {
			copy(ref->part[i].page.host + ref->part[i].offset, from, ref->part[i].size);
			page_dirty(&ref->part[i].page);
		} else {
			device_write(cpu, ref->part[i].page.gpa + ref->part[i].offset, from,
				     ref->part[i].size);
		}
		from += ref->part[i].size;
	}
}

bool ref_is_ram(const struct mem_ref *ref)
{
	for (unsigned int i = 0; i < ref->n; i++)
		if (!ref->part[i].page.host)
			return false;
	return true;
}

void *ref_host(const struct mem_ref *ref)
{
	if (ref->n != 1 || !ref->part[0].page.host)
		return NULL;
	return ref->part[0].page.host + ref->part[0].offset;
}

void lin_read(struct vcpu *cpu, uint64_t lin, void *data, unsigned int size, enum access access)
{
	struct mem_ref ref;

	/* The common case, without copying entries. */
	if ((lin & PAGE_MASK) + size <= PAGE_BYTES) {
		const struct tlb_entry *e =
			mmu_translate(cpu, cpu->long_mode ? lin : (uint32_t)lin, access);

		if (e->code) {
			copy(data, e->code + (lin & PAGE_MASK), size);
			return;
		}
	}
	mem_open(cpu, lin, size, access, &ref);
	ref_load(cpu, &ref, data);
}

void lin_write(struct vcpu *cpu, uint64_t lin, const void *data, unsigned int size,
	       enum access access)
{
	struct mem_ref ref;

	if ((lin & PAGE_MASK) + size <= PAGE_BYTES) {
		const struct tlb_entry *e =
			mmu_translate(cpu, cpu->long_mode ? lin : (uint32_t)lin, access);

		if (e->host) {
			copy(e->host + (lin & PAGE_MASK), data, size);
			page_dirty(e);
			return;
		}
	}
	mem_open(cpu, lin, size, access, &ref);
	ref_store(cpu, &ref, data);
}

uint64_t sys_read(struct vcpu *cpu, uint64_t lin, unsigned int size)
{
	uint64_t value = 0;

	lin_read(cpu, lin, &value, size, ACCESS_SUP_READ);
	return value;
}

void sys_write(struct vcpu *cpu, uint64_t lin, unsigned int size, uint64_t value)
{
	lin_write(cpu, lin, &value, size, ACCESS_SUP_WRITE);
}

/* ---- Code ---- */

static enum access fetch_access(const struct vcpu *cpu)
{
	return cpu->cpl == 3 ? ACCESS_USER_EXEC : ACCESS_SUP_EXEC;
}

/* Copies from one page of code; devices can be executed from, too. */
static void fetch_part(struct vcpu *cpu, uint64_t lin, uint8_t *bytes, unsigned int size)
{
	const struct tlb_entry *e = mmu_translate(cpu, lin, fetch_access(cpu));

	if (e->code)
		memcpy(bytes, e->code + (lin & PAGE_MASK), size);
	else
		device_read(cpu, e->gpa + (lin & PAGE_MASK), bytes, size);
}

/* Whether rip + n is within the code segment, and its linear address. */
static bool code_linear(struct vcpu *cpu, unsigned int n, uint64_t *lin)
{
	uint64_t rip = cpu->s.rip + n;

	if (cpu->bits == 64) {
		*lin = rip;
		return is_canonical(rip);
	}
	*lin = (uint32_t)(cpu->s.segs[SEG_CS].base + (uint32_t)rip);
	return rip <= cpu->s.segs[SEG_CS].limit;
}

unsigned int mmu_fetch(struct vcpu *cpu, uint8_t bytes[static 16])
{
	unsigned int want = 15, first;
	uint64_t lin;

	if (!code_linear(cpu, 0, &lin))
		raise_gp(cpu);
	if (cpu->bits != 64 && cpu->s.segs[SEG_CS].limit - (uint32_t)cpu->s.rip < want - 1)
		want = cpu->s.segs[SEG_CS].limit - (uint32_t)cpu->s.rip + 1;
	first = PAGE_BYTES - (lin & PAGE_MASK);
	if (first > want)
		first = want;
	fetch_part(cpu, lin, bytes, first);
	return first;
}

unsigned int mmu_fetch_more(struct vcpu *cpu, uint8_t bytes[static 16], unsigned int n)
{
	unsigned int want = INSN_MAX_BYTES - n;
	uint64_t lin, rip = cpu->s.rip + n;

	if (n >= INSN_MAX_BYTES || !code_linear(cpu, n, &lin))
		raise_gp(cpu);
	if (cpu->bits != 64 && cpu->s.segs[SEG_CS].limit - rip < want - 1)
		want = (unsigned int)(cpu->s.segs[SEG_CS].limit - rip) + 1;
	if (want > PAGE_BYTES - (lin & PAGE_MASK))
		want = PAGE_BYTES - (lin & PAGE_MASK);
	fetch_part(cpu, lin, bytes + n, want);
	return want;
}
