/*
 * The native side of the differential harness: a child that loads a state by returning from a
 * signal, and reads it back in the handler of the signal that ends the case (INT3 or a fault).
 */
#include "diff.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

static struct diff_shared *shared;
static struct {
	pid_t pid;
	int to, from;
} child = {-1, -1, -1};

/* In the child: */
static struct diff_case *current, *last_seen;
static ucontext_t host;
static uint8_t host_fpu[16384];
static uint8_t *code, *data;
static _Atomic uint32_t *progress;

static const int reg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
			       REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
			       REG_R12, REG_R13, REG_R14, REG_R15};

static uint32_t frame_size(const uint8_t *fpu)
{
	uint32_t magic, size;

	memcpy(&magic, fpu + 464, 4);
	memcpy(&size, fpu + 464 + 16, 4);
	return magic == FP_XSTATE_MAGIC1 && size < sizeof(host_fpu) ? size : 512;
}

static void load(ucontext_t *uc, const struct diff_state *s)
{
	uint8_t *fpu = (uint8_t *)uc->uc_mcontext.fpregs;
	uint32_t size = frame_size(fpu);
	uint64_t bits;

	for (int i = 0; i < 16; i++)
		uc->uc_mcontext.gregs[reg_of[i]] = (greg_t)s->regs[i];
	uc->uc_mcontext.gregs[REG_RIP] = (greg_t)s->rip;
	uc->uc_mcontext.gregs[REG_EFL] = (greg_t)s->rflags;
	memcpy(fpu, s->xsave, 28);
	memcpy(fpu + 32, s->xsave + 32, 384);
	if (size > 576) {
		memcpy(&bits, fpu + 464 + 8, 8); /* what the kernel saves */
		bits &= 0xe7;
		memcpy(fpu + 512, &bits, 8);
		memcpy(fpu + 576, s->xsave + 576,
		       (size < DIFF_XSAVE_BYTES ? size : DIFF_XSAVE_BYTES) - 576);
	}
}

static void save(const ucontext_t *uc, struct diff_state *s)
{
	const uint8_t *fpu = (const uint8_t *)uc->uc_mcontext.fpregs;
	uint32_t size = frame_size(fpu);

	for (int i = 0; i < 16; i++)
		s->regs[i] = (uint64_t)uc->uc_mcontext.gregs[reg_of[i]];
	s->rip = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];
	s->rflags = (uint64_t)uc->uc_mcontext.gregs[REG_EFL];
	memset(s->xsave, 0, sizeof(s->xsave));
	memcpy(s->xsave, fpu, size < DIFF_XSAVE_BYTES ? size : DIFF_XSAVE_BYTES);
}

static void on_start(int signo, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)signo;
	(void)info;
	memcpy(&host, uc, sizeof(host));
	memcpy(host_fpu, uc->uc_mcontext.fpregs, frame_size((uint8_t *)uc->uc_mcontext.fpregs) + 4);
	load(uc, &current->in);
	/* CS, GS, FS, SS by 16 bits each. */
	uc->uc_mcontext.gregs[REG_CSGSFS] &= ~0xffffll;
	uc->uc_mcontext.gregs[REG_CSGSFS] |= current->compatibility ? 0x23 : 0x33;
}

static void on_end(int signo, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	uint64_t rip = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];

	(void)info;
	if (!current) {
		if (signo == SIGVTALRM)
			return;
		_exit(100 + signo);
	}
	if (signo == SIGVTALRM) {
		/* The same case at two ticks: it loops. */
		if (current != last_seen) {
			last_seen = current;
			return;
		}
	}
	save(uc, &current->out);
	if (signo == SIGVTALRM)
		current->vector = DIFF_TIMEOUT;
	else
		current->vector = (uint64_t)uc->uc_mcontext.gregs[REG_TRAPNO];
	current->error_code = (uint64_t)uc->uc_mcontext.gregs[REG_ERR];
	current->address = current->vector == 14 ? (uint64_t)uc->uc_mcontext.gregs[REG_CR2] : 0;
	if (current->vector == 3)
		current->out.rip = rip - 1;
	current = NULL;
	memcpy(uc->uc_mcontext.gregs, host.uc_mcontext.gregs, sizeof(gregset_t));
	memcpy(uc->uc_mcontext.fpregs, host_fpu, frame_size(host_fpu) + 4);
}

static void run_case(struct diff_case *c)
{
	memset(code, 0xcc, 4096);
	memcpy(code + c->code_offset, c->code, c->code_size);
	memcpy(data, shared->pattern, sizeof(shared->pattern));
	current = c;
	raise(SIGUSR1);
	memcpy(c->data, data, sizeof(c->data));
}

static void *map_at(int fd, uint64_t at, size_t size, size_t offset, int prot)
{
	return mmap((void *)at, size, prot, MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, fd,
		    (off_t)offset);
}

static _Noreturn void child_main(int in, int out)
{
	static const int ends[] = {SIGTRAP, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGVTALRM};
	const struct itimerval tick = {.it_interval.tv_usec = 5000, .it_value.tv_usec = 5000};
	size_t size = 4096 + DIFF_DATA_PAGES * 4096;
	int fd = memfd_create("diff", 0);
	struct sigaction sa = {.sa_flags = SA_SIGINFO | SA_ONSTACK};
	stack_t alt = {.ss_sp = malloc(65536), .ss_size = 65536};
	char byte;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (ftruncate(fd, (off_t)size) < 0)
		_exit(1);
	code = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	data = code + 4096;
	memset(code, 0xcc, size);
	if (map_at(fd, DIFF_CODE, 4096, 0, PROT_READ | PROT_EXEC) == MAP_FAILED)
		_exit(2);
	for (size_t i = 0; i < DIFF_DATA_PAGES; i++)
		if (i != DIFF_ABSENT &&
		    map_at(fd, DIFF_DATA + i * 4096, 4096, 4096 + i * 4096,
			   PROT_READ | (i == DIFF_READ_ONLY ? 0 : PROT_WRITE)) == MAP_FAILED)
			_exit(2);
	/* What 32-bit code reads and writes by; 64-bit code doesn't care. */
	__asm__ volatile("mov %0, %%ds; mov %0, %%es" : : "r"(0x2b));
	sigaltstack(&alt, NULL);
	sa.sa_sigaction = on_start;
	sigaction(SIGUSR1, &sa, NULL);
	sa.sa_sigaction = on_end;
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		sigaction(ends[i], &sa, NULL);
	setitimer(ITIMER_VIRTUAL, &tick, NULL);
	while (read(in, &byte, 1) == 1) {
		last_seen = NULL;
		for (uint32_t i = 0; i < shared->n; i++) {
			*progress = i;
			run_case(&shared->cases[i]);
		}
		if (write(out, &byte, 1) != 1)
			break;
	}
	_exit(0);
}

static bool start_child(void)
{
	int a[2], b[2];

	if (pipe2(a, O_CLOEXEC) < 0 || pipe2(b, O_CLOEXEC) < 0)
		return false;
	child.pid = fork();
	if (child.pid == 0)
		child_main(a[0], b[1]);
	close(a[0]);
	close(b[1]);
	child.to = a[1];
	child.from = b[0];
	return child.pid > 0;
}

struct diff_shared *diff_native_start(void)
{
	shared = mmap(NULL, sizeof(*shared) + 4096, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return NULL;
	progress = (_Atomic uint32_t *)(void *)(shared + 1);
	signal(SIGPIPE, SIG_IGN);
	return start_child() ? shared : NULL;
}

bool diff_native_run(uint32_t *at)
{
	char byte = 0;

	if (write(child.to, &byte, 1) == 1 && read(child.from, &byte, 1) == 1)
		return true;
	*at = *progress;
	diff_native_stop();
	start_child();
	return false;
}

void diff_native_stop(void)
{
	close(child.to);
	close(child.from);
	kill(child.pid, SIGKILL);
	waitpid(child.pid, NULL, 0);
}
