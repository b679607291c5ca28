/*
 * A process that joins a running container: `lodge exec`. A go-between, forked with memory of its
 * own because the kernel lets nobody who shares memory into a time namespace, joins the cgroup and
 * the namespaces, and forks the process as a child of ours (a pid namespace takes children only).
 */
#include "container/internal.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ALL_NAMESPACES                                                                             \
	(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | \
	 CLONE_NEWCGROUP | CLONE_NEWTIME)

struct join {
	int init_pidfd;
	const char *cgroup_name;
	const struct container_process *process;
	int sock;
};

/* In the container, as the process that shall become the command. */
static int run_process(const struct container_process *p, int sock, struct error *err)
{
	const struct exec_args last = {
		.args = p->args.v,
		.env = p->env.v,
		.cwd = p->cwd,
		.user = p->user,
		.capabilities = p->capabilities,
		.no_new_privileges = p->no_new_privileges,
		.seccomp = p->seccomp,
		.parent_sock = sock,
	};
	int rc;

	rc = keyring_leave(err);
	if (rc < 0)
		return rc;
	rc = become_root(err);
	if (rc < 0)
		return rc;
	/* From here on we end with who started us (process_exec() sets it for good). */
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (p->terminal) {
		autofd int master = terminal_open(err);

		if (master < 0)
			return master;
		rc = handshake_send(sock, HANDSHAKE_CONSOLE, master, 0, err);
		if (rc < 0)
			return rc;
	} else if (setsid() < 0) {
		/* Where our standard input is the host's terminal it must not be the process'
		 * controlling one, in which it could put keystrokes (ioctl_tty(2), TIOCSTI). */
		return error_sys(err, errno, "start a session");
	}
	return process_exec(&last, err);
}

static int join(const struct join *j, struct error *err)
{
	autocgroup struct cgroup *cg = NULL;
	int namespaces = ALL_NAMESPACES;
	int pidfd = -EBADF;
	struct clone_args args = {
		.flags = CLONE_PIDFD | CLONE_PARENT,
		.pidfd = (uint64_t)(uintptr_t)&pidfd,
	};
	long pid;
	int rc;

	rc = cgroup_open(j->cgroup_name, &cg, err);
	if (!rc)
		rc = cgroup_attach(cg, getpid(), true, err);
	if (rc < 0)
		return rc;
	if (access("/proc/self/ns/time", F_OK) < 0)
		namespaces &= ~CLONE_NEWTIME; /* a kernel without them */
	if (setns(j->init_pidfd, namespaces) < 0)
		return error_sys(err, errno, "join the container's namespaces");
	pid = syscall(SYS_clone3, &args, sizeof(args));
	if (pid < 0)
		return error_sys(err, errno, "start a process in the container");
	if (pid == 0) {
		int sock = j->sock;

		rc = j->process->terminal ? 0 : stdio_set(j->process->stdio, err);
		if (!rc)
			rc = descriptors_drop(&sock, err);
		if (!rc)
			run_process(j->process, sock, err);
		handshake_fail(sock, err);
		_exit(err->exit_status ?: 125);
	}
	return handshake_send(j->sock, HANDSHAKE_PROCESS, pidfd, (pid_t)pid, err);
}

int container_exec(int init_pidfd, const char *cgroup_name, const struct container_process *process,
		   pid_t *pid, int *pidfd, int *console_fd, struct error *err)
{
	struct join j = {.init_pidfd = init_pidfd, .cgroup_name = cgroup_name, .process = process};
	struct handshake h = HANDSHAKE_INIT;
	autofd int ours = -EBADF;
	pid_t helper;
	int rc;

	rc = handshake_new(&ours, &j.sock, err);
	if (rc < 0)
		return rc;
	helper = fork();
	if (helper == 0) {
		struct error failure = {0};

		close(ours);
		/* The container must not look into a process of ours (ptrace(2), proc(5)). */
		prctl(PR_SET_DUMPABLE, 0);
		if (join(&j, &failure) < 0)
			handshake_fail(j.sock, &failure);
		_exit(0);
	}
	close(j.sock);
	if (helper < 0)
		return error_sys(err, errno, "start a helper process");
	rc = handshake_receive(ours, &h, err);
	if (rc == 0 && h.pidfd < 0)
		rc = error_set(err, ECHILD, "could not join the container");
	if (rc < 0)
		kill(helper, SIGKILL); /* it may wait for what the guest holds up */
	waitpid(helper, NULL, 0);
	if (rc < 0 && h.pidfd >= 0) {
		syscall(SYS_pidfd_send_signal, h.pidfd, SIGKILL, NULL, 0);
		waitid(P_PIDFD, (id_t)h.pidfd, NULL, WEXITED | __WALL);
		fd_close(&h.pidfd);
		fd_close(&h.console_fd);
	}
	*pid = h.pid;
	*pidfd = h.pidfd;
	*console_fd = h.console_fd;
	return rc;
}
