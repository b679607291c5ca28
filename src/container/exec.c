/* The last steps of an init and of a process that joins: become the user, drop, execute. */
#include "container/internal.h"

#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/keyctl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *env_find(char *const *env, const char *name)
{
	size_t len = strlen(name);

	for (; env && *env; env++)
		if (strncmp(*env, name, len) == 0 && (*env)[len] == '=')
			return *env + len + 1;
	return NULL;
}

static int exec_error(const char *command, int code, struct error *err)
{
	if (code == ENOENT || code == ENOTDIR)
		error_set(err, code, "the container has no command '%s'", command);
	else
		error_sys(err, code, "execute '%s' in the container", command);
	if (code == EPERM)
		error_hint(err, "it may want a capability that the guest does not have: --cap-add");
	err->exit_status = code == ENOENT || code == ENOTDIR ? 127 : 126;
	return -code;
}

/* As execvpe() does, but with the container's PATH, and with the reason why it failed. */
static int find_and_execute(char *const *args, char *const *env, struct error *err)
{
	const char *path = env_find(env, "PATH");
	char candidate[PATH_MAX];
	int code = ENOENT;

	if (!args[0][0])
		return exec_error("", ENOENT, err);
	if (strchr(args[0], '/')) {
		execve(args[0], args, env);
		code = errno;
		if (code == ENOENT && access(args[0], F_OK) == 0) {
			error_set(err, code,
				  "'%s' is in the container, but the interpreter or loader that it "
				  "names is not",
				  args[0]);
			err->exit_status = 127;
			return -code;
		}
		return exec_error(args[0], code, err);
	}
	for (const char *p = path ? path : "/usr/sbin:/usr/bin:/sbin:/bin"; p;) {
		const char *end = strchrnul(p, ':');

		if (snprintf(candidate, sizeof(candidate), "%.*s/%s", (int)(end - p), p, args[0]) <
		    (int)sizeof(candidate)) {
			execve(candidate, args, env);
			/* A later directory may have one that works; else the first reason that
			 * is more than "not here" is told. */
			if (errno != ENOENT && errno != ENOTDIR && code == ENOENT)
				code = errno;
		}
		p = *end ? end + 1 : NULL;
	}
	return exec_error(args[0], code, err);
}

int descriptors_drop(int *sock, struct error *err)
{
	const int place = 3;

	if (*sock != place && dup3(*sock, place, O_CLOEXEC) < 0)
		return error_sys(err, errno, "move a descriptor");
	*sock = place;
	if (close_range(place + 1, ~0U, 0) < 0)
		return error_sys(err, errno, "close the host's descriptors");
	return 0;
}

int become_root(struct error *err)
{
	if (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
		return error_sys(err, errno, "become root of the container");
	return 0;
}

int keyring_leave(struct error *err)
{
	if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS)
		return error_sys(err, errno, "make a session keyring");
	return 0;
}

/* To the working directory, which the user, the image or /etc/passwd named. */
static int change_directory(const char *path, struct error *err)
{
	autofd int root = file_open_at(AT_FDCWD, "/", O_PATH | O_DIRECTORY, 0, err);
	autofd int dir = -EBADF;

	if (root < 0)
		return root;
	dir = file_open_in_root(root, path, O_PATH | O_DIRECTORY, 0, err);
	if (dir < 0 || fchdir(dir) < 0)
		return error_sys(err, dir < 0 ? -dir : errno,
				 "change to directory %s in the container", path);
	return 0;
}

static void reset_signals(void)
{
	struct sigaction action = {.sa_handler = SIG_DFL};
	sigset_t none;

	for (int signo = 1; signo < NSIG; signo++)
		sigaction(signo, &action, NULL); /* fails for KILL, STOP and the C library's own */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

int process_exec(const struct exec_args *args, struct error *err)
{
	autostrv struct strv env = {0};
	struct user user;
	int rc;

	rc = user_find(args->user, &user, err);
	for (char *const *e = args->env; !rc && e && *e; e++)
		rc = strv_push(&env, *e, err);
	if (!rc && !env_find(env.v, "HOME"))
		rc = strv_pushf(&env, err, "HOME=%s", user.home);
	if (rc < 0)
		return rc;
	rc = change_directory(args->cwd ?: user.home, err);
	if (rc < 0 && !args->cwd) {
		error_clear(err);
		rc = change_directory("/", err);
	}
	if (rc < 0)
		return rc;

	if (args->no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return error_sys(err, errno, "set no_new_privs");
	rc = capabilities_bound(args->capabilities, err);
	if (rc < 0)
		return rc;
	/* While we may still do so without no_new_privs. The profiles allow what follows. */
	rc = seccomp_install(args->seccomp, err);
	if (rc < 0)
		return rc;
	if (setgroups(user.n_groups, user.groups) < 0 ||
	    setresgid(user.gid, user.gid, user.gid) < 0 ||
	    setresuid(user.uid, user.uid, user.uid) < 0)
		return error_sys(err, errno, "become user %u in the container", user.uid);
	rc = capabilities_set(user.uid == 0 ? args->capabilities : 0, err);
	if (rc < 0)
		return rc;
	/* After the ids: changing them clears it. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		return error_sys(err, errno, "tie the process to who started it");
	if (poll(&(struct pollfd){.fd = args->parent_sock}, 1, 0) > 0)
		return error_set(err, ECHILD, "who started the process has gone");
	umask(022);
	reset_signals();
	close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
	return find_and_execute(args->args, env.v, err);
}
