/* See trap.h. */
#include "engine/soft/trap.h"

#include "base/cleanup.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <ucontext.h>

static _Thread_local struct trap_window *current;

static const int signals[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS};
static struct sigaction previous[NSIG]; /* written once, under pthread_once() */

static void on_signal(int signo, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	struct trap_window *w = current;
	uintptr_t rip = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];
	const struct sigaction *old = &previous[signo];

	if (w && rip >= (uintptr_t)w->code && rip < (uintptr_t)w->end) {
		w->trap = (int)uc->uc_mcontext.gregs[REG_TRAPNO];
		w->address = (uint64_t)uc->uc_mcontext.gregs[REG_CR2];
		uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)w->end;
		return;
	}
	if (old->sa_flags & SA_SIGINFO) {
		old->sa_sigaction(signo, info, context);
	} else if (old->sa_handler != SIG_DFL && old->sa_handler != SIG_IGN) {
		old->sa_handler(signo);
	} else {
		/* It comes again at the same instruction, and ends the process as it should. */
		signal(signo, SIG_DFL);
	}
}

static void install(void)
{
	struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};

	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i], &sa, &previous[signals[i]]);
}

void trap_install(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, install);
}

void trap_open(struct trap_window *window)
{
	current = window;
	atomic_signal_fence(memory_order_seq_cst);
}
