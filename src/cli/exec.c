/* `lodge exec`: one more process in a running guest. */
#include "base/cleanup.h"
#include "cli/guest_options.h"
#include "cli/relay.h"
#include "container/container.h"
#include "guest/control.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct exec_options {
	bool interactive, terminal;
	const char *user, *workdir;
	struct strv env;
};

static int make_process(const struct guest *g, const struct exec_options *o, char **words, int n,
			struct container_process *p, struct error *err)
{
	const char *term = getenv("TERM");
	int rc = 0;

	*p = (struct container_process){
		.cwd = o->workdir,
		.user = o->user ?: g->config.user,
		.terminal = o->terminal,
		.capabilities = g->config.capabilities,
		.no_new_privileges = !g->config.system,
		.seccomp = g->config.system ? SECCOMP_SYSTEM : SECCOMP_APPLICATION,
	};
	if (!p->cwd && !g->config.system)
		p->cwd = g->config.cwd;
	for (int i = 0; !rc && i < n; i++)
		rc = strv_push(&p->args, words[i], err);
	for (size_t i = 0; !rc && i < g->config.env.n; i++)
		rc = strv_push(&p->env, g->config.env.v[i], err);
	if (!rc)
		rc = strv_pushf(&p->env, err, "HOSTNAME=%s", g->config.hostname);
	if (!rc)
		rc = strv_push(&p->env, "container=lodge", err);
	if (!rc && o->terminal)
		rc = strv_pushf(&p->env, err, "TERM=%s", term ?: "xterm");
	for (size_t i = 0; !rc && i < o->env.n; i++)
		rc = env_add(&p->env, o->env.v[i], err);
	return rc;
}

/* A terminal of ours is not for the guest to have: what stays behind of the command would go on
 * reading and setting it. It gets a pipe then, whose other end is *ours. Other things are passed on
 * as they are, but for directories, which lead to all of the host. */
static int guard_stream(int fd, uint32_t id_base, int *ours, int *theirs, struct error *err)
{
	bool input = fd == STDIN_FILENO;
	struct stat st;
	int fds[2];

	*theirs = fd;
	if (fstat(fd, &st) < 0)
		return error_sys(err, errno, "look at descriptor %d", fd);
	if (S_ISDIR(st.st_mode) || fcntl(fd, F_GETFL) & O_PATH)
		return error_set(err, EISDIR, "descriptor %d is a directory", fd);
	if (!isatty(fd))
		return 0;
	if (pipe2(fds, O_CLOEXEC) < 0 || fchown(fds[input ? 0 : 1], id_base, id_base) < 0)
		return error_sys(err, errno, "make a pipe");
	*ours = fds[input ? 1 : 0];
	*theirs = fds[input ? 0 : 1];
	return 0;
}

static int start_process(const struct guest *g, const struct exec_options *o, int init_pidfd,
			 struct container_process *p, int *status, struct error *err)
{
	struct relay_streams streams = {-EBADF, -EBADF, -EBADF};
	int *ours[] = {&streams.in, &streams.out, &streams.err};
	struct relay_options relay = {
		.terminal = o->terminal,
		.forward_signals = true,
	};
	autofd int pidfd = -EBADF;
	autofd int console = -EBADF;
	int stdio[3] = {0, 1, 2};
	pid_t pid;
	int rc;

	for (int i = 0; i < 3; i++) {
		if (o->terminal)
			break;
		rc = guard_stream(i, (uint32_t)g->id_base, ours[i], &stdio[i], err);
		if (rc < 0)
			return rc;
	}
	p->stdio = stdio;
	/* What comes before the command runs is kept for it. */
	relay_block_signals();
	rc = container_exec(init_pidfd, g->id, p, &pid, &pidfd, &console, err);
	for (int i = 0; i < 3; i++)
		if (stdio[i] > 2)
			close(stdio[i]);
	if (rc < 0)
		return rc;
	if (o->terminal)
		streams.in = streams.out = console;
	relay.stdin_too = o->terminal ? o->interactive : streams.in >= 0;
	return relay_process(pidfd, &streams, &relay, status, err);
}

static int exec_run(struct invocation *inv, struct error *err)
{
	const struct exec_options *o = inv->options;
	struct container_process p = {0};
	struct control_status status;
	autoguest struct guest *g = NULL;
	autostate struct state *s = NULL;
	autofd int init_pidfd = -EBADF;
	autofd int client = -EBADF;
	int exit_status, rc;

	rc = state_open(&s, err);
	if (!rc)
		rc = guest_find(s, inv->operands[0], &g, err);
	if (!rc)
		rc = guest_connect(s, g, &client, err);
	if (!rc)
		rc = control_query(client, &status, &init_pidfd, err);
	if (!rc)
		rc = make_process(g, o, inv->operands + 1, inv->n_operands - 1, &p, err);
	if (!rc)
		rc = start_process(g, o, init_pidfd, &p, &exit_status, err);
	strv_free(&p.args);
	strv_free(&p.env);
	return rc < 0 ? rc : exit_status;
}

static const struct verb_option exec_options[] = {
	{"interactive", 'i', NULL, option_flag(struct exec_options, interactive),
	 "with `--tty`: pass what is typed on (without `--tty` the command always has our standard "
	 "input)"},
	{"tty", 't', NULL, option_flag(struct exec_options, terminal),
	 "give the command a terminal of the guest's"},
	{"user", 'u', "USER[:GROUP]", option_string(struct exec_options, user),
	 "who runs it (as the guest's own command, else root)"},
	{"workdir", 'w', "DIRECTORY", option_string(struct exec_options, workdir),
	 "where it starts (the user's home)"},
	{"env", 'e', "NAME=VALUE", option_strings(struct exec_options, env),
	 "set a variable in its environment; without `=VALUE` take our own"},
	{},
};

const struct verb verb_exec = {
	.name = "exec",
	.section = VERB_WATCH,
	.synopsis = "[OPTIONS] GUEST [--] CMD...",
	.summary = "run a command in a running guest",
	.description =
		"Runs a command in all of the guest's namespaces and within its limits and "
		"system call filter, with our own standard input and output, and exits with "
		"its status: 126 when it could not be executed, 127 when there is none, 125 "
		"when Lodge failed. The command ends with `lodge exec`; what it has put into the "
		"background stays.",
	.examples = "    lodge exec web systemctl status nginx\n    lodge exec -it web bash",
	.options = exec_options,
	.options_size = sizeof(struct exec_options),
	.min_operands = 2,
	.max_operands = VERB_ANY_NUMBER,
	.operands = {COMPLETE_GUEST, COMPLETE_NONE},
	.flags = VERB_COMMAND,
	.run = exec_run,
};
