/*
 * Random bytes as a guest, in every mode, with random descriptors and page tables: whatever it
 * does, the host's process lives, and a kick is heard. LODGE_TEST_SLOW=1 goes on for a minute.
 */
#include "base/cleanup.h"
#include "guest.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static uint64_t random64(uint64_t *seed)
{
	uint64_t z = *seed += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static atomic_bool stop;

static void *kicker(void *data)
{
	struct guest *g = data;

	while (!atomic_load(&stop)) {
		nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
		engine_soft.vcpu_kick(g->cpu[0]);
	}
	return NULL;
}

/* Bytes with more of what does something: prefixes, system instructions. */
static void random_code(uint8_t *p, size_t size, uint64_t *seed)
{
	static const uint8_t starts[] = {0x0f, 0x0f, 0x66, 0xf3, 0xf2, 0x67, 0xf0, 0x48,
					 0xc4, 0x62, 0x8e, 0xcf, 0xcd, 0xea, 0x9a, 0xff};

	for (size_t i = 0; i < size; i++) {
		uint64_t r = random64(seed);

		p[i] = r % 4 ? (uint8_t)(r >> 8) : starts[r >> 8 & 15];
	}
}

static uint64_t random_descriptor(uint64_t *seed)
{
	uint64_t r = random64(seed);

	/* Half of them flat and present, with any type. */
	return r & 1 ? r : (r & 0x0000ff0000000000) | 0x00cf80000000ffff | (r & 0x0060000000000000);
}

static void random_segment(struct vcpu_segment *s, uint64_t *seed)
{
	uint64_t r = random64(seed);

	s->selector = (uint16_t)(r & 0xff);
	s->attributes = (uint16_t)(0x80 | (r >> 16 & 0xf07f));
	s->limit = r & 0x100 ? 0xffffffff : (uint32_t)(r >> 32);
	s->base = r & 0x200 ? 0 : (uint32_t)random64(seed) & 0xffffff;
}

static void random_guest(struct guest *g, uint64_t *seed)
{
	static const uint32_t modes[] = {
		0, CR0_PE, CR0_PE, CR0_PE | CR0_PG, CR0_PE | CR0_PG | CR0_WP,
	};
	unsigned int kind = (unsigned int)(random64(seed) % 8);
	struct vcpu_state s;

	guest_load(g, (const uint8_t *)"\x90", 1, random64(seed) & 1 ? 3 : 0);
	random_code(g->ram + GUEST_CODE, 0x10000, seed);
	random_code(g->ram + GUEST_PAGES, 0x10000, seed);
	for (unsigned int i = 16; i < 32; i++) {
		uint64_t d = random_descriptor(seed);

		memcpy(g->ram + GUEST_GDT + 8 * i, &d, 8);
	}
	/* Now and then the tables are random, too. */
	if (random64(seed) % 4 == 0) {
		for (unsigned int i = 0; i < 16; i++) {
			uint64_t at = GUEST_TABLES + (random64(seed) % 0x5000 & ~7ull);
			uint64_t value = random64(seed) | 1;

			memcpy(g->ram + at, &value, 8);
		}
	}
	engine_soft.vcpu_get_state(g->cpu[0], &s, NULL);
	for (unsigned int i = 0; i < N_REGS; i++)
		s.regs[i] = random64(seed) & (random64(seed) & 1 ? 0x3fffff : ~0ull);
	s.gdt.limit = 255;
	s.rip = GUEST_CODE + random64(seed) % 0x8000;
	s.rflags = 2 | (random64(seed) & 0x77fd5);
	if (kind < 4)
		s.rflags &= ~(uint64_t)FLAG_VM;
	s.cr4 |= random64(seed) & (CR4_SMEP | CR4_SMAP | CR4_PKE | CR4_PGE | CR4_FSGSBASE);
	s.dr7 = random64(seed) % 8 ? 0x400 : random64(seed) & 0xffff27ff;
	for (unsigned int i = 0; i < 4; i++)
		s.dr[i] = GUEST_CODE + random64(seed) % 0x8000;
	if (kind >= 4) {
		/* Legacy modes, in any combination. */
		s.efer = 0;
		s.cr0 = modes[random64(seed) % ARRAY_SIZE(modes)] | CR0_ET;
		if (!(s.cr0 & CR0_PG) || random64(seed) & 1)
			s.cr4 &= ~(uint64_t)CR4_PAE;
		if (!(s.cr0 & CR0_PE))
			s.rflags &= ~(uint64_t)FLAG_VM;
		for (unsigned int i = 0; i < N_SEGS; i++)
			random_segment(&s.segs[i], seed);
		s.segs[SEG_CS].limit = 0xffffffff;
		s.segs[SEG_CS].base = s.cr0 & CR0_PE ? 0 : GUEST_CODE;
		s.segs[SEG_CS].attributes |= 0x1b;
		if (!(s.cr0 & CR0_PE))
			s.rip &= 0xffff;
		s.idt.limit = 0x7ff;
	}
	engine_soft.vcpu_set_state(g->cpu[0], &s, NULL);
	g->continue_events = random64(seed) & 1;
}

static void test_random_code(void **context)
{
	const char *slow = getenv("LODGE_TEST_SLOW"), *chosen = getenv("LODGE_TEST_SEED");
	uint64_t seed = chosen ? strtoull(chosen, NULL, 0) : slow ? (uint64_t)time(NULL) : 7;
	uint64_t end = clock_ns() + (slow ? 60 : 2) * 1000000000ull;
	uint64_t cases = 0, shutdowns = 0, longest = 0;
	pthread_t thread;
	struct guest g;

	guest_new(&g, 1);
	pthread_create(&thread, NULL, kicker, &g);
	while (clock_ns() < end) {
		enum vcpu_exit exit;
		uint64_t start;

		random_guest(&g, &seed);
		start = clock_ns();
		do
			exit = guest_run(&g);
		while (exit == VCPU_EXIT_KICKED && clock_ns() - start < 200000);
		if (clock_ns() - start > longest)
			longest = clock_ns() - start;
		shutdowns += exit == VCPU_EXIT_SHUTDOWN;
		cases++;
	}
	atomic_store(&stop, true);
	pthread_join(thread, NULL);
	print_message("%llu guests, %llu shut down, %llu instructions, the longest run %llu us\n",
		      (unsigned long long)cases, (unsigned long long)shutdowns,
		      (unsigned long long)g.cpu[0]->counters.instructions,
		      (unsigned long long)longest / 1000);
	assert_in_range(cases, 100, UINT64_MAX);
	/* Whatever the machine does besides. */
	assert_in_range(longest, 0, 500000000);
	guest_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_code)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
