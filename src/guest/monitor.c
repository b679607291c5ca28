/*
 * The monitor: one process a guest, forked by the command that starts it. It is the parent of the
 * guest's init, holds the guest's lock, console and log, and answers on its control socket. It
 * lives as long as the guest runs, over reboots from inside, and records how it ended.
 */
#include "guest/monitor.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/process.h"

#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* What a shell would see of a guest that could not be started. */
#define EXIT_NOT_STARTED 125

/* When a guest has run so long, it is not one that is over at once. */
#define SETTLE_MS 1000

/* A reboot sooner than this after a start is not somebody's wish. */
#define HURRIED_MS 10000

/* ---- starting the guest ---- */

/* The root directory shows what the upper layer's says: the same as the image's. */
static int make_upper(struct monitor *m, struct error *err)
{
	struct stat root;

	m->first_start = mkdirat(m->files_fd, "rw/upper", 0755) == 0;
	if (!m->first_start) {
		if (errno == EEXIST)
			return 0;
		return error_sys(err, errno, "make directory rw/upper");
	}
	if (fstat(m->image.tree_fd, &root) < 0 ||
	    fchownat(m->files_fd, "rw/upper", root.st_uid, root.st_gid, 0) < 0 ||
	    fchmodat(m->files_fd, "rw/upper", root.st_mode & 07777, 0) < 0)
		return error_sys(err, errno, "set up directory rw/upper");
	return 0;
}

/* <state>/guests/ID with the writable layer; made at the first start. Only root may go into it: the
 * files in it, set-user-ID ones too, have the guest's ids as they are. */
static int open_files(struct monitor *m, struct error *err)
{
	char path[GUEST_PATH_MAX];
	int rc = 0;

	guest_path(m->guest->id, path);
	m->files_fd = dir_make_open(m->state->fd, path, 0700, err);
	if (m->files_fd < 0)
		return m->files_fd;
	if (fchmod(m->files_fd, 0700) < 0)
		return error_sys(err, errno, "protect %s/%s", m->state->dir, path);
	/* A volatile overlay leaves a mark that forbids to mount it again, since a power cut could
	 * have torn it; there was none. */
	if (m->guest->auto_remove)
		rc = dir_remove_all(m->files_fd, "rw/work", err);
	if (!rc)
		rc = dir_make(m->files_fd, "rw/work", 0700, err);
	if (!rc)
		rc = make_upper(m, err);
	return rc < 0 ? error_wrap(err, "guest %s", m->guest->name) : 0;
}

static int make_spec(struct monitor *m, struct container_spec *spec, struct error *err)
{
	const struct guest_config *config = &m->guest->config;
	struct timespec now;
	int rc = 0;

	clock_gettime(CLOCK_BOOTTIME, &now);
	*spec = (struct container_spec){
		.terminal = config->terminal,
		.capabilities = config->capabilities,
		.no_new_privileges = !config->system,
		.seccomp = config->system ? SECCOMP_SYSTEM : SECCOMP_APPLICATION,
		.root_read_only = config->read_only,
		.root_volatile = m->guest->auto_remove,
		.id_base = (uint32_t)m->guest->id_base,
		.host_network = config->host_network,
		.system = config->system,
		.resources = config->resources,
		.boot_time_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec,
		.cwd = config->cwd,
		.user = config->user,
		.hostname = config->hostname,
		.first_start = m->first_start,
		.args = config->args,
		.binds = config->binds,
		.n_binds = config->n_binds,
		.cgroup_name = m->guest->id,
	};
	for (size_t i = 0; !rc && i < config->env.n; i++)
		rc = strv_push(&spec->env, config->env.v[i], err);
	if (!rc)
		rc = strv_pushf(&spec->env, err, "HOSTNAME=%s", config->hostname);
	/* By this systemd, and others after it, know where they are. */
	if (!rc)
		rc = strv_push(&spec->env, "container=lodge", err);
	if (!rc && config->terminal)
		rc = strv_push(&spec->env, "TERM=xterm-256color", err);
	/* A host without one has no resolver to share. */
	if (!rc && config->host_network && m->first_start)
		file_read_at(AT_FDCWD, "/etc/resolv.conf", 64 << 10, &spec->resolv_conf, NULL,
			     NULL);
	spec->upper_dir = str_printf("%s/guests/%s/rw", m->state->dir, m->guest->id);
	if (!rc && !spec->upper_dir)
		rc = error_oom(err);
	return rc;
}

/* What the spec owns itself; the rest is the configuration's. */
static void spec_clear(struct container_spec *spec)
{
	strv_free(&spec->env);
	free(spec->upper_dir);
	free(spec->resolv_conf);
}

static void on_child(void *data, int status);
static void on_settled(void *data);

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int start_container(struct monitor *m, struct error *err)
{
	int stdio[3] = {-EBADF, -EBADF, -EBADF};
	autofree char *mount_dir = NULL;
	struct container_spec spec = {0};
	struct error ignored = {0};
	int rc;

	m->started_ms = now_ms();
	rc = image_mount(m->state, m->guest->image, &m->image, err);
	if (!rc)
		rc = open_files(m, err);
	if (!rc)
		rc = console_open_stdio(m, stdio, err);
	if (!rc)
		rc = make_spec(m, &spec, err);
	mount_dir = str_printf("%s/guests/%s", m->state->run_dir, m->guest->id);
	if (!rc && !mount_dir)
		rc = error_oom(err);
	if (!rc)
		rc = container_start(&spec, m->image.tree_fd, mount_dir, stdio, &m->container, err);
	for (int i = 0; i < 3; i++)
		fd_close(&stdio[i]);
	fd_close(&m->image.tree_fd);
	spec_clear(&spec);
	if (!rc) {
		/* While the init is at it: its end will need the database. */
		if (state_open_db(m->state, &ignored) < 0)
			log_warn("guest %s: %s", m->guest->name, ignored.message);
		rc = container_wait_started(&m->container, err);
	}
	if (!rc)
		rc = loop_add_child(m->loop, m->container.pidfd, on_child, m, &m->child, err);
	if (!rc)
		rc = loop_add_timer(m->loop, SETTLE_MS, on_settled, m, &m->settle_timer, err);
	if (!rc)
		rc = console_start(m, err);
	return rc;
}

/* Takes down what start_container() set up; the init has been reaped. */
static void stop_container(struct monitor *m)
{
	struct error err = {0};

	watch_free(steal_ptr(&m->child));
	watch_free(steal_ptr(&m->kill_timer));
	watch_free(steal_ptr(&m->stop_timer));
	watch_free(steal_ptr(&m->settle_timer));
	watch_free(steal_ptr(&m->overdue_timer));
	watch_free(steal_ptr(&m->cgroup_watch));
	fd_close(&m->cgroup_events_fd);
	console_close(m);
	if (container_destroy(&m->container, &err) < 0)
		log_warn("guest %s: %s", m->guest->name, err.message);
	fd_close(&m->files_fd);
}

/* The rest of it, which nobody needs to wait for. */
static void release_container(struct monitor *m)
{
	container_release(&m->container);
	image_unmount(m->state, &m->image);
}

/* ---- its end ---- */

/* reboot(2) in a pid namespace: the kernel ends its init by SIGHUP for a restart and by SIGINT for
 * a halt; a signal from outside can't, since an init ignores these from its parents too. */
static bool wants_reboot(const struct monitor *m)
{
	return m->guest->config.system && WIFSIGNALED(m->wait_status) &&
	       WTERMSIG(m->wait_status) == SIGHUP;
}

static int exit_status(const struct monitor *m)
{
	int signo;

	if (WIFEXITED(m->wait_status))
		return WEXITSTATUS(m->wait_status);
	signo = WTERMSIG(m->wait_status);
	if (m->guest->config.system && signo == SIGINT)
		return 0;
	return 128 + (signo == SIGKILL && m->killed_for ? m->killed_for : signo);
}

static const char *exit_reason(const struct monitor *m)
{
	if (!WIFSIGNALED(m->wait_status) || WTERMSIG(m->wait_status) != SIGKILL)
		return NULL;
	if (m->container.cgroup && cgroup_oom_killed(m->container.cgroup))
		return "killed by the kernel: it used more than its memory limit";
	if (m->timed_out)
		return "killed: it did not stop in time";
	return m->killed_for ? NULL : "killed";
}

static void on_child(void *data, int status)
{
	struct monitor *m = data;

	m->exited = true;
	m->wait_status = status;
	console_guest_gone(m);
	monitor_check_end(m);
}

/* The status of a process that is dying: field 52 of /proc/PID/stat (proc(5)). */
static int dying_status(pid_t pid)
{
	autofree char *stat = NULL;
	char path[32];
	const char *field;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (file_read_at(AT_FDCWD, path, 65536, &stat, NULL, NULL) < 0 ||
	    !(field = strrchr(str_chomp(stat), ' ')))
		return SIGKILL;
	return atoi(field + 1);
}

/*
 * The kernel does not report the end of a namespace's init before every process in the namespace has
 * been reaped; but one that came by `lodge exec` is reaped by its parent outside, which may be
 * stopped, or gone to a pid 1 that does not care. When nothing in the control group lives any more,
 * the guest has ended all the same. Our own end leaves the init to pid 1.
 */
static void check_overdue(struct monitor *m)
{
	if (m->exited || m->container.pidfd < 0 || cgroup_is_populated(m->container.cgroup))
		return;
	watch_free(steal_ptr(&m->child));
	on_child(m, dying_status(m->container.pid));
}

static void on_overdue(void *data)
{
	struct monitor *m = data;

	watch_free(steal_ptr(&m->overdue_timer));
	check_overdue(m);
}

static void on_cgroup_event(void *data, uint32_t events)
{
	struct monitor *m = data;
	char text[64];

	/* Reading is what takes the event away. */
	if (pread(m->cgroup_events_fd, text, sizeof(text), 0) < 0 || m->overdue_timer)
		return;
	if (!cgroup_is_populated(m->container.cgroup))
		loop_add_timer(m->loop, 1000, on_overdue, m, &m->overdue_timer, NULL);
}

/* It is not one of those that are over at once: let go of what its end will need, but not soon; begin
 * a diary for what nobody waits to hear; and watch for an end that the kernel does not report. */
static void on_settled(void *data)
{
	struct monitor *m = data;
	int diary;

	watch_free(steal_ptr(&m->settle_timer));
	state_close_db(m->state);
	malloc_trim(0);
	diary = openat(m->files_fd, "monitor.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (diary >= 0) {
		log_to_fd(diary);
		fd_close(&m->diary_fd);
		m->diary_fd = diary;
	}
	m->cgroup_events_fd = cgroup_open_events(m->container.cgroup, NULL);
	if (m->cgroup_events_fd >= 0)
		loop_add_fd(m->loop, m->cgroup_events_fd, EPOLLPRI, on_cgroup_event, m,
			    &m->cgroup_watch, NULL);
}

void monitor_check_end(struct monitor *m)
{
	if (m->exited && console_drained(m))
		loop_quit(m->loop);
}

/* ---- what clients ask for ---- */

/* Whether the process has made up its mind about the signal: handles it, ignores it, or blocks it
 * to read it later. Else the kernel drops it for a namespace's init (pid_namespaces(7)), SIGKILL
 * and SIGSTOP apart. */
static bool is_expected(pid_t pid, int signo)
{
	static const char *const masks[] = {"\nSigBlk:", "\nSigIgn:", "\nSigCgt:"};
	autofree char *status = NULL;
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	if (file_read_at(AT_FDCWD, path, 65536, &status, NULL, NULL) < 0)
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(masks); i++) {
		const char *mask = strstr(status, masks[i]);

		if (mask && (strtoull(mask + strlen(masks[i]), NULL, 16) >> (signo - 1)) & 1)
			return true;
	}
	return false;
}

/* Signals that by default end a process (signal(7)), so that without a handler they mean: end. */
static bool ends_by_default(int signo)
{
	return signo != SIGCHLD && signo != SIGCONT && signo != SIGURG && signo != SIGWINCH &&
	       signo != SIGTSTP && signo != SIGTTIN && signo != SIGTTOU && signo != SIGSTOP;
}

static void send_signal(struct monitor *m, int signo)
{
	if (m->container.pidfd >= 0)
		syscall(SYS_pidfd_send_signal, m->container.pidfd, signo, NULL, 0);
}

void monitor_signal(struct monitor *m, int signo)
{
	if (m->exited || m->container.pidfd < 0 || signo < 1 || signo > SIGRTMAX)
		return;
	/* An application is not written to be an init: what would end it elsewhere does so here. */
	if (!m->guest->config.system && ends_by_default(signo) &&
	    !is_expected(m->container.pid, signo)) {
		m->killed_for = signo;
		signo = SIGKILL;
	}
	send_signal(m, signo);
}

/* The signal by which this init shuts its system down. */
static int shutdown_signal(const struct monitor *m)
{
	char path[32];
	autofree char *comm = NULL;
	int signo = SIGTERM;

	if (m->guest->config.stop_signal &&
	    guest_parse_signal(m->guest->config.stop_signal, &signo, NULL) == 0)
		return signo;
	if (!m->guest->config.system)
		return SIGTERM;
	snprintf(path, sizeof(path), "/proc/%d/comm", m->container.pid);
	if (file_read_at(AT_FDCWD, path, 64, &comm, NULL, NULL) == 0 &&
	    str_eq(str_chomp(comm), "systemd"))
		return SIGRTMIN + 3; /* systemd(1), "SIGRTMIN+3": halt */
	return SIGPWR;               /* sysvinit and its kin: power is failing */
}

/* After a kill nobody may hold the end up by not reading what the guest wrote. */
static void on_drop_timer(void *data)
{
	struct monitor *m = data;

	watch_free(steal_ptr(&m->kill_timer));
	check_overdue(m);
	if (!m->exited)
		loop_add_timer(m->loop, 200, on_drop_timer, m, &m->kill_timer, NULL);
	console_drop_slow_clients(m);
	monitor_check_end(m);
}

static void kill_guest(struct monitor *m)
{
	send_signal(m, SIGKILL);
	watch_free(steal_ptr(&m->stop_timer));
	watch_free(steal_ptr(&m->kill_timer));
	loop_add_timer(m->loop, 1000, on_drop_timer, m, &m->kill_timer, NULL);
}

static void on_kill_timer(void *data)
{
	struct monitor *m = data;

	m->timed_out = true;
	kill_guest(m);
}

/* A system that has only begun to boot does not listen yet, nor is it known yet what its init is:
 * asked again, until it does. */
static void ask_to_stop(void *data)
{
	struct monitor *m = data;
	int signo = shutdown_signal(m);

	watch_free(steal_ptr(&m->stop_timer));
	if (m->exited)
		return;
	if (m->guest->config.system && !is_expected(m->container.pid, signo))
		loop_add_timer(m->loop, 50, ask_to_stop, m, &m->stop_timer, NULL);
	else
		monitor_signal(m, signo);
}

void monitor_stop(struct monitor *m, int timeout_s)
{
	if (m->exited && m->container.pidfd >= 0) {
		/* Only a client that does not read keeps us. */
		console_drop_slow_clients(m);
		monitor_check_end(m);
		return;
	}
	m->stopping = true;
	if (m->container.pidfd < 0) { /* between two starts */
		loop_quit(m->loop);
		return;
	}
	watch_free(steal_ptr(&m->kill_timer));
	if (timeout_s <= 0 || loop_add_timer(m->loop, (uint64_t)timeout_s * 1000, on_kill_timer, m,
					     &m->kill_timer, NULL) < 0)
		kill_guest(m);
	else
		ask_to_stop(m);
}

/* The host shuts down, or an administrator ends us: the guest is asked to stop. */
static void on_terminate(void *data, int signo)
{
	monitor_stop(data, GUEST_STOP_TIMEOUT_S);
}

/* ---- the process ---- */

/* Those of the user who happened to start it are not the guest's; the system's are. Raising one may
 * be forbidden to us; then it stays. */
static void reset_limits(void)
{
	struct rlimit limit;

	for (int i = 0; i < RLIM_NLIMITS; i++)
		if (prlimit(1, i, NULL, &limit) == 0)
			prlimit(0, i, &limit, NULL);
	file_write_at(AT_FDCWD, "/proc/self/oom_score_adj", "0", NULL);
}

/* Leaves the terminal and the directory of the command that forked us. */
static int leave_command(struct error *err)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN};
	int null = file_open_at(AT_FDCWD, "/dev/null", O_RDWR, 0, err);

	if (null < 0)
		return null;
	if (setsid() < 0 || chdir("/") < 0)
		return error_sys(err, errno, "become a monitor");
	for (int i = 0; i < 3; i++)
		if (dup2(null, i) < 0)
			return error_sys(err, errno, "become a monitor");
	if (null > 2)
		close(null);
	umask(022);
	sigaction(SIGPIPE, &ignore, NULL);
	sigaction(SIGHUP, &ignore, NULL);
	sigaction(SIGINT, &ignore, NULL);
	sigaction(SIGQUIT, &ignore, NULL);
	/* What the command had blocked stays blocked: the loop reads SIGTERM, the rest is ignored.
	 */
	prctl(PR_SET_NAME, "lodge-monitor");
	reset_limits();
	return 0;
}

static void on_restart(void *data)
{
	struct monitor *m = data;

	loop_quit(m->loop);
}

/* Starting is work that no limit of the guest's counts: one that does nothing but reboot waits
 * longer and longer. */
static int pause_before_restart(struct monitor *m, struct error *err)
{
	struct watch *timer;
	int rc;

	if (now_ms() - m->started_ms >= HURRIED_MS) {
		m->hurried = 0;
		return 0;
	}
	if (m->hurried < 6)
		m->hurried++;
	rc = loop_add_timer(m->loop, UINT64_C(1000) << (m->hurried - 1), on_restart, m, &timer,
			    err);
	if (!rc)
		rc = loop_run(m->loop, err);
	if (!rc)
		watch_free(timer);
	return rc;
}

static int run_guest(struct monitor *m, struct error *err)
{
	int rc;

	for (bool first = true;; first = false) {
		m->exited = false;
		m->killed_for = 0;
		rc = start_container(m, err);
		if (rc < 0)
			return rc;
		if (first) {
			console_broadcast(m, CONTROL_STARTED, NULL, 0);
		}
		rc = loop_run(m->loop, err);
		if (rc < 0 || !wants_reboot(m) || m->stopping)
			return rc;
		stop_container(m);
		release_container(m);
		rc = pause_before_restart(m, err);
		if (rc < 0 || m->stopping) {
			m->wait_status = 0;
			return rc;
		}
	}
}

/* Everything that a reader of the database or of the run directory could see is done before the
 * clients hear of the end; what is only work comes after. */
static void finish(struct monitor *m)
{
	struct control_exit message = {.status = exit_status(m)};
	const char *reason = exit_reason(m);
	struct error err = {0};
	int rc = 0;

	if (reason)
		snprintf(message.reason, sizeof(message.reason), "%s", reason);
	stop_container(m);
	if (m->guest->auto_remove)
		rc = state_set_durable(m->state, false, &err);
	if (!rc)
		rc = guest_record_exit(m->state, m->guest, message.status, reason, &err);
	if (rc < 0)
		log_error("guest %s: record its end: %s", m->guest->name, err.message);
	guest_unlock(m->state, m->guest->id, &m->lock_fd);
	console_accept_last(m);
	console_broadcast(m, CONTROL_EXIT, &message, sizeof(message));
	console_flush(m);
}

/* It could not be started: as if it had not been tried. */
static void give_up(struct monitor *m, const struct error *why)
{
	struct error err = {0};

	if (m->container.pidfd >= 0) {
		send_signal(m, SIGKILL);
		waitid(P_PIDFD, (id_t)m->container.pidfd, NULL, WEXITED | __WALL);
	}
	stop_container(m);
	if (guest_record_exit(m->state, m->guest, why->exit_status ?: EXIT_NOT_STARTED,
			      why->message, &err) < 0)
		log_error("guest %s: %s", m->guest->name, err.message);
	guest_unlock(m->state, m->guest->id, &m->lock_fd);
	console_accept_last(m);
	console_broadcast(m, CONTROL_FAILED, why, sizeof(*why));
}

static _Noreturn void monitor_main(struct state *state, struct guest *guest, int lock_fd,
				   int client_fd, bool stdin_too)
{
	struct monitor m = {
		.state = state,
		.guest = guest,
		.lock_fd = lock_fd,
		.files_fd = -EBADF,
		.listen_fd = -EBADF,
		.container = CONTAINER_NONE,
		.image = IMAGE_MOUNT_INIT,
		.outputs = {{.fd = -EBADF}, {.fd = -EBADF}},
		.stdin_fd = -EBADF,
		.terminal_hold = -EBADF,
		.cgroup_events_fd = -EBADF,
		.diary_fd = -EBADF,
	};
	struct client *client = NULL;
	struct error err = {0};
	int rc;

	fds_close_except((int[]){lock_fd, client_fd, state->fd, state->run_fd}, 4);
	rc = leave_command(&err);
	if (!rc)
		rc = loop_new(&m.loop, &err);
	if (!rc)
		rc = loop_add_signal(m.loop, SIGTERM, on_terminate, &m, NULL, &err);
	if (!rc)
		rc = console_add_client(&m, client_fd, &client, &err);
	if (!rc) {
		client->output = client->lossless = true;
		client->input = stdin_too;
		m.stdin_owner = stdin_too ? client : NULL;
		rc = console_listen(&m, &err);
	}
	if (!rc)
		rc = run_guest(&m, &err);
	if (rc < 0)
		give_up(&m, &err);
	else
		finish(&m);
	console_drop_clients(&m);
	/* From here on nobody waits for us. */
	guest_log_close(m.log);
	release_container(&m);
	if (guest->auto_remove)
		guest_remove_files(state, guest->id);
	state_tidy(state);
	_exit(0);
}

static int mark_running(struct state *s, struct guest *g, struct error *err)
{
	int rc;

	g->started_at = state_now();
	rc = state_exec(s, err, "UPDATE guests SET state='running', started_at=? WHERE id=?", "is",
			g->started_at, g->id);
	if (rc == 0)
		rc = error_set(err, ENOENT, "guest '%s' has just been removed", g->name);
	return rc < 0 ? rc : 0;
}

int guest_start(struct state *s, struct guest *g, int *lock_fd, bool stdin_too, int *client_fd,
		struct error *err)
{
	autofd int ours = -EBADF;
	int socks[2], rc = 0;
	pid_t pid;

	if (g->damaged) {
		rc = error_set(err, EINVAL, "the configuration of guest '%s' is damaged", g->name);
		error_hint(err, "it can only be removed: lodge rm %s", g->name);
	}
	if (!rc)
		rc = state_check_space(s, err);
	if (!rc && g->state != GUEST_RUNNING)
		rc = mark_running(s, g, err);
	if (!rc && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks) < 0)
		rc = error_sys(err, errno, "make a socket pair");
	if (rc < 0) {
		guest_unlock(s, g->id, lock_fd);
		return rc;
	}
	ours = socks[0];
	state_close_db(s);
	pid = fork();
	if (pid == 0) {
		close(socks[0]);
		fcntl(socks[1], F_SETFL, O_NONBLOCK);
		monitor_main(s, g, *lock_fd, socks[1], stdin_too);
	}
	close(socks[1]);
	if (pid < 0) {
		rc = error_sys(err, errno, "start the guest's monitor");
		guest_record_exit(s, g, EXIT_NOT_STARTED, err->message, NULL);
		guest_unlock(s, g->id, lock_fd);
		return rc;
	}
	log_debug("guest %s: its monitor is process %d", g->name, pid);
	fd_close(lock_fd); /* the monitor has it */
	*client_fd = steal_fd(&ours);
	return 0;
}
