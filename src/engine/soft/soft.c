/*
 * The software engine as engine.h asks for it: machines and processors made, freed, read and set.
 * The work is in the other files of this folder.
 */
#include "engine/soft/native.h"
#include "engine/soft/run.h"

#include "base/cleanup.h"

#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

static int soft_probe(struct error *err)
{
	struct native *native;
	int r;

	__builtin_cpu_init();
	/* Thunks load and save the vector state with XSAVE. */
	if (native_components() == 3 && !__builtin_cpu_supports("avx"))
		return error_set(err, ENOTSUP, "the processor has no XSAVE");
	r = native_new(&native, err);
	if (r < 0)
		return error_wrap(err, "the software engine can't run here");
	native_free(native);
	return 0;
}

static void vcpu_free(struct vcpu *cpu)
{
	if (!cpu)
		return;
	native_free(cpu->native);
	free(cpu->insn_cache);
	free(cpu);
}

static void soft_vm_free(struct vm *vm)
{
	if (!vm)
		return;
	for (unsigned int i = 0; vm->vcpus && i < vm->config.n_vcpus; i++) {
		vcpu_free(vm->vcpus[i]);
		vm->vcpus[i] = NULL;
	}
	while (vm->n_ranges)
		mmu_unmap(vm, (gpa_t){vm->ranges[0].gpa}, vm->ranges[0].size, NULL);
	free(vm->vcpus);
	free((void *)vm->config.cpuid);
	pthread_mutex_destroy(&vm->split_lock);
	pthread_mutex_destroy(&vm->ranges_lock);
	free(vm);
}

static int soft_vm_new(const struct vm_config *config, struct vm **out, struct error *err)
{
	struct vm *vm = calloc(1, sizeof(*vm));
	struct cpuid_leaf *leaves;

	if (!vm)
		return error_oom(err);
	vm->config = *config;
	vm->vcpus = calloc(config->n_vcpus ? config->n_vcpus : 1, sizeof(struct vcpu *));
	leaves = calloc(config->n_cpuid ? config->n_cpuid : 1, sizeof(*leaves));
	vm->config.cpuid = leaves;
	pthread_mutex_init(&vm->split_lock, NULL);
	pthread_mutex_init(&vm->ranges_lock, NULL);
	if (!vm->vcpus || !leaves) {
		soft_vm_free(vm);
		return error_oom(err);
	}
	memcpy(leaves, config->cpuid, config->n_cpuid * sizeof(*leaves));
	vm->tsc_start = __rdtsc();
	vm->ns_start = clock_ns();
	vm_read_cpuid(vm);
	*out = vm;
	return 0;
}

static int soft_vcpu_new(struct vm *vm, unsigned int index, struct vcpu **out, struct error *err)
{
	struct vcpu *cpu;
	int r;

	if (index >= vm->config.n_vcpus)
		return error_set(err, EINVAL, "vCPU %u of %u", index, vm->config.n_vcpus);
	if (vm->vcpus[index])
		return error_set(err, EEXIST, "vCPU %u is there already", index);
	cpu = aligned_alloc(64, (sizeof(*cpu) + 63) & ~63ul);
	if (!cpu)
		return error_oom(err);
	memset(cpu, 0, sizeof(*cpu));
	cpu->vm = vm;
	cpu->index = index;
	cpu->insn_cache = calloc(INSN_CACHE, sizeof(*cpu->insn_cache));
	if (!cpu->insn_cache) {
		vcpu_free(cpu);
		return error_oom(err);
	}
	r = native_new(&cpu->native, err);
	if (r < 0) {
		vcpu_free(cpu);
		return r;
	}
	vcpu_reset(cpu, false);
	__atomic_store_n(&vm->vcpus[index], cpu, __ATOMIC_RELEASE);
	*out = cpu;
	return 0;
}

static void soft_vcpu_kick(struct vcpu *cpu)
{
	vcpu_request(cpu, REQUEST_KICK);
}

static void soft_vcpu_nmi(struct vcpu *cpu)
{
	vcpu_request(cpu, REQUEST_NMI);
}

static void soft_vcpu_set_extint(struct vcpu *cpu, bool level)
{
	atomic_store(&cpu->extint, level);
	if (level)
		vcpu_request(cpu, REQUEST_EXTINT);
}

static int soft_get_state(struct vcpu *cpu, struct vcpu_state *state, struct error *err)
{
	uint32_t pkru;

	(void)err;
	lapic_sync(cpu);
	*state = cpu->s;
	state->cr8 = lapic_cr8(cpu);
	memcpy(&pkru, state->xsave + 2688, 4);
	if (pkru)
		state->xsave[513] |= XCR0_PKRU >> 8;
	if (atomic_load(&cpu->requests) & REQUEST_NMI)
		state->nmi_pending = true;
	return 0;
}

static int soft_set_state(struct vcpu *cpu, const struct vcpu_state *state, struct error *err)
{
	uint32_t mxcsr;
	uint64_t bits;

	memcpy(&mxcsr, state->xsave + 24, 4);
	memcpy(&bits, state->xsave + 512, 8);
	/* The host's processor loads this image: what it would refuse must not get in. */
	if (mxcsr & ~0xffffu)
		return error_set(err, EINVAL, "the state has an impossible MXCSR, 0x%x", mxcsr);
	cpu->s = *state;
	if (!(bits & XCR0_PKRU))
		memset(cpu->s.xsave + 2688, 0, 8);
	bits &= native_components();
	memcpy(cpu->s.xsave + 512, &bits, 8);
	memset(cpu->s.xsave + 520, 0, 56);
	cpu->cpl = (cpu->s.cr0 & CR0_PE) ? ATTR_DPL(cpu->s.segs[SEG_SS].attributes) : 0;
	cpu->pending_db = 0;
	cpu->exception_pending = false;
	cpu->delivering.active = false;
	tlb_flush_all(cpu);
	vcpu_mode_changed(cpu);
	if ((cpu->s.cr0 & CR0_PG) && (cpu->s.cr4 & CR4_PAE) && !cpu->long_mode)
		mmu_load_pdptes(cpu, cpu->s.cr3);
	lapic_restart_timer(cpu);
	return 0;
}

static int soft_set_debug(struct vcpu *cpu, const struct vcpu_debug *debug, struct error *err)
{
	(void)err;
	cpu->debug = *debug;
	vcpu_mode_changed(cpu);
	return 0;
}

static int soft_translate(struct vcpu *cpu, uint64_t gva, gpa_t *gpa, struct error *err)
{
	if (!mmu_probe(cpu, gva, &gpa->v))
		return error_set(err, EFAULT, "0x%llx is not mapped", (unsigned long long)gva);
	return 0;
}

static void soft_get_counters(const struct vcpu *cpu, struct vcpu_counters *counters)
{
	*counters = cpu->counters;
}

/* Nothing is kept of the guest's code that could be stale: cached instructions are compared with
 * memory each time. */
static void soft_vm_written(struct vm *vm, gpa_t gpa, uint64_t size)
{
	(void)vm;
	(void)gpa;
	(void)size;
}

/* ---- Dirty pages ---- */

static struct range *find_range(struct vm *vm, gpa_t gpa, uint64_t size, struct error *err)
{
	struct range *r = mmu_range(vm, gpa.v);

	if (!r || (gpa.v & PAGE_MASK) || (size & PAGE_MASK) || size > r->size - (gpa.v - r->gpa)) {
		error_set(err, ENOENT, "no guest memory at 0x%llx, 0x%llx bytes",
			  (unsigned long long)gpa.v, (unsigned long long)size);
		return NULL;
	}
	return r;
}

static void flush_all(struct vm *vm)
{
	for (unsigned int i = 0; i < vm->config.n_vcpus; i++)
		if (vm->vcpus[i])
			vcpu_request(vm->vcpus[i], REQUEST_FLUSH);
}

static int soft_dirty_start(struct vm *vm, gpa_t gpa, uint64_t size, struct error *err)
{
	struct range *r = find_range(vm, gpa, size, err);
	_Atomic uint64_t *dirty;

	if (!r)
		return -ENOENT;
	dirty = calloc((r->size / PAGE_BYTES + 63) / 64, sizeof(*dirty));
	if (!dirty)
		return error_oom(err);
	pthread_mutex_lock(&vm->ranges_lock);
	free((void *)r->dirty);
	r->dirty = dirty;
	pthread_mutex_unlock(&vm->ranges_lock);
	flush_all(vm);
	return 0;
}

static int soft_dirty_stop(struct vm *vm, gpa_t gpa, uint64_t size, struct error *err)
{
	struct range *r = find_range(vm, gpa, size, err);

	if (!r)
		return -ENOENT;
	pthread_mutex_lock(&vm->ranges_lock);
	free((void *)r->dirty);
	r->dirty = NULL;
	pthread_mutex_unlock(&vm->ranges_lock);
	flush_all(vm);
	return 0;
}

static int soft_dirty_get(struct vm *vm, gpa_t gpa, uint64_t size, uint64_t *bitmap,
			  struct error *err)
{
	struct range *r;

	pthread_mutex_lock(&vm->ranges_lock);
	r = find_range(vm, gpa, size, err);
	if (!r || !r->dirty) {
		pthread_mutex_unlock(&vm->ranges_lock);
		return r ? error_set(err, EINVAL, "dirty pages are not tracked") : -ENOENT;
	}
	for (uint64_t i = 0; i < size / PAGE_BYTES; i++) {
		uint64_t page = (gpa.v - r->gpa) / PAGE_BYTES + i, bit = 1ull << (page % 64);

		if ((atomic_load(&r->dirty[page / 64]) & bit) &&
		    (atomic_fetch_and(&r->dirty[page / 64], ~bit) & bit))
			bitmap[i / 64] |= 1ull << (i % 64);
	}
	pthread_mutex_unlock(&vm->ranges_lock);
	return 0;
}

const struct engine engine_soft = {
	.name = "soft",
	.probe = soft_probe,
	.supported_cpuid = soft_supported_cpuid,
	.vm_new = soft_vm_new,
	.vm_free = soft_vm_free,
	.vm_map = mmu_map,
	.vm_unmap = mmu_unmap,
	.vm_msi = lapic_message,
	.vm_dirty_start = soft_dirty_start,
	.vm_dirty_stop = soft_dirty_stop,
	.vm_dirty_get = soft_dirty_get,
	.vm_written = soft_vm_written,
	.vcpu_new = soft_vcpu_new,
	.vcpu_run = vcpu_run,
	.vcpu_kick = soft_vcpu_kick,
	.vcpu_get_state = soft_get_state,
	.vcpu_set_state = soft_set_state,
	.vcpu_nmi = soft_vcpu_nmi,
	.vcpu_set_extint = soft_vcpu_set_extint,
	.vcpu_set_debug = soft_set_debug,
	.vcpu_translate = soft_translate,
	.vcpu_get_counters = soft_get_counters,
};
