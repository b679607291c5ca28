/*
 * A child that shares our memory. Entering namespaces needs a process of its own, but not a copy of
 * this one: sharing saves the copying of page tables, and lets the child report through pointers.
 * The child may not touch locks that another thread of ours could hold; there is none.
 */
#include "container/internal.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define STACK_BYTES (256 * 1024)

struct call {
	int (*fn)(void *arg);
	void *arg;
	int result;
};

static int run(void *data)
{
	struct call *call = data;

	call->result = call->fn(call->arg);
	return 0;
}

int vfork_call(int (*fn)(void *arg), void *arg, struct error *err)
{
	struct call call = {.fn = fn, .arg = arg, .result = -ECHILD};
	char *stack;
	pid_t pid;
	int status;

	stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
	if (stack == MAP_FAILED)
		return error_oom(err);
	pid = clone(run, stack + STACK_BYTES, CLONE_VM | CLONE_VFORK | CLONE_FILES | SIGCHLD,
		    &call);
	if (pid < 0) {
		int code = errno;

		munmap(stack, STACK_BYTES);
		return error_sys(err, code, "start a helper process");
	}
	while (waitpid(pid, &status, __WALL) < 0 && errno == EINTR)
		;
	munmap(stack, STACK_BYTES);
	if (!WIFEXITED(status))
		return error_set(err, ECHILD, "a helper process was ended by signal %d",
				 WTERMSIG(status));
	return call.result;
}
