/*
 * Who may touch a guest when, removing one, and tidying up after killed processes; see guest.h for
 * the rules. Starting one is in monitor.c.
 */
#include "guest/guest.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "container/cgroup.h"
#include "guest/control.h"
#include "image/image.h"

#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int try_lock(struct state *s, const char *id, int *lock_fd, struct error *err)
{
	char path[GUEST_PATH_MAX];

	guest_path(id, path);
	for (;;) {
		autofd int fd = dir_make_open(s->run_fd, path, 0700, err);
		struct stat ours, there;

		if (fd == -ENOENT)
			continue; /* somebody's sweep took it between making and opening */
		if (fd < 0)
			return fd;
		if (flock(fd, LOCK_EX | LOCK_NB) < 0)
			return error_sys(err, errno == EWOULDBLOCK ? EBUSY : errno, "lock guest %s",
					 id);
		/* The one before us may have removed the directory between our two steps. */
		if (fstat(fd, &ours) == 0 && fstatat(s->run_fd, path, &there, 0) == 0 &&
		    ours.st_ino == there.st_ino) {
			*lock_fd = steal_fd(&fd);
			return 0;
		}
	}
}

/* To the monitor of the guest with that id. Errors: ESRCH: there is none. */
static int connect_control(struct state *s, const char *id, int *out)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	autofd int sock = -EBADF;
	autofd int dir = -EBADF;
	char path[GUEST_PATH_MAX];

	guest_path(id, path);
	dir = openat(s->run_fd, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	/* Through our own descriptor: a socket's address has room for 107 characters only. */
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/control", dir);
	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return -errno;
	if (connect(sock, (struct sockaddr *)&address, sizeof(address)) < 0)
		return errno == ENOENT || errno == ECONNREFUSED ? -ESRCH : -errno;
	*out = steal_fd(&sock);
	return 0;
}

int guest_lock(struct state *s, const char *id, int *lock_fd, struct error *err)
{
	int rc;

	/* Whoever holds it and does not answer is not running the guest but starting it, ending, or
	 * tidying up, and soon done. */
	for (int tries = 0; tries < 400; tries++) {
		autofd int monitor = -EBADF;

		rc = try_lock(s, id, lock_fd, err);
		if (rc != -EBUSY || connect_control(s, id, &monitor) == 0)
			break;
		nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	}
	return rc;
}

void guest_unlock(struct state *s, const char *id, int *lock_fd)
{
	char path[GUEST_PATH_MAX];
	struct error err = {0};

	guest_path(id, path);
	if (dir_remove_all(s->run_fd, path, &err) < 0)
		log_info("%s/%s: %s", s->run_dir, path, err.message);
	fd_close(lock_fd);
}

int guest_connect(struct state *s, const struct guest *g, int *out, struct error *err)
{
	int rc = connect_control(s, g->id, out);

	if (rc == -ESRCH) {
		error_set(err, ESRCH, "guest '%s' is not running", g->name);
		error_hint(err, "lodge start %s", g->name);
	} else if (rc < 0) {
		error_sys(err, -rc, "connect to the monitor of guest '%s'", g->name);
	}
	return rc;
}

void guest_remove_files(struct state *s, const char *id)
{
	char path[GUEST_PATH_MAX];
	struct error err = {0};
	autofd int fd = -EBADF;

	guest_path(id, path);
	fd = openat(s->fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* Of two that find the same garbage one removes it. */
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
		return;
	if (dir_remove_all(s->fd, path, &err) < 0)
		log_info("%s/%s: %s", s->dir, path, err.message);
}

/* Processes and groups of a guest whose monitor is gone; the caller holds the lock. */
static int clean_cgroup(const char *id)
{
	autocgroup struct cgroup *cg = NULL;
	struct error err = {0};
	int rc = cgroup_open(id, &cg, &err);

	if (!rc)
		rc = cgroup_kill(cg, &err);
	if (!rc)
		rc = cgroup_remove(cg, &err);
	if (rc < 0)
		log_info("guest %s: %s", id, err.message);
	return rc;
}

int guest_remove(struct state *s, struct guest *g, struct error *err)
{
	autofd int lock = -EBADF;
	int rc = guest_lock(s, g->id, &lock, err);

	if (rc == -EBUSY) {
		error_set(err, EBUSY, "guest '%s' is running", g->name);
		error_hint(err, "lodge stop %s, or lodge rm --force %s", g->name, g->name);
		return rc;
	}
	if (rc < 0)
		return rc;
	clean_cgroup(g->id); /* should its monitor have failed to */
	rc = state_exec(s, err, "DELETE FROM guests WHERE id=?", "s", g->id);
	if (rc == 0) /* somebody was quicker */
		rc = error_set(err, ENOENT, "no guest named '%s'", g->name);
	guest_unlock(s, g->id, &lock);
	if (rc < 0)
		return rc;
	guest_remove_files(s, g->id);
	return 0;
}

static bool has_row(struct state *s, const char *id, const char *condition)
{
	autostmt sqlite3_stmt *q = NULL;
	char sql[96];

	snprintf(sql, sizeof(sql), "SELECT 1 FROM guests WHERE id=? %s", condition);
	/* When in doubt, nothing is removed. */
	return state_query(s, &q, NULL, sql, "s", id) < 0 || state_row(q, NULL) != 0;
}

/* A row says that it runs: if its lock is free, its monitor was killed. */
static void sweep_row(struct state *s, const struct guest *g)
{
	struct error err = {0};
	int lock;

	if (try_lock(s, g->id, &lock, &err) < 0)
		return;
	/* Still so, now that nobody else can change it? */
	if (has_row(s, g->id, "AND state='running'") && clean_cgroup(g->id) == 0 &&
	    guest_record_exit(s, g, 137, "its monitor was killed", &err) < 0)
		log_info("guest %s: %s", g->name, err.message);
	guest_unlock(s, g->id, &lock);
}

/* Not running by its row, or without one: a start or a removal that was killed, or one that is
 * under way and holds the lock. */
static void sweep_run_dir(struct state *s, const char *id)
{
	struct error err = {0};
	int lock;

	if (has_row(s, id, "AND state='running'") || try_lock(s, id, &lock, &err) < 0)
		return;
	if (!has_row(s, id, "AND state='running'"))
		clean_cgroup(id);
	guest_unlock(s, id, &lock);
}

static void sweep_state_dir(struct state *s, const char *id)
{
	if (!has_row(s, id, ""))
		guest_remove_files(s, id);
}

/* Calls fn for the name of each directory in `guests` below fd. */
static void each_guest_dir(struct state *s, int fd, void (*fn)(struct state *s, const char *id))
{
	autodir DIR *dir = NULL;
	struct dirent *entry;
	int dir_fd = openat(fd, "guests", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir_fd < 0)
		return;
	dir = fdopendir(dir_fd);
	if (!dir) {
		close(dir_fd);
		return;
	}
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.' && strlen(entry->d_name) < sizeof((struct guest){0}.id))
			fn(s, entry->d_name);
}

void guest_sweep_guests(struct state *s)
{
	autoguestlist struct guest_list list = {0};

	if (guest_list(s, &list, NULL) < 0)
		return; /* the command itself will meet that */
	for (size_t i = 0; i < list.n; i++)
		if (list.v[i]->state == GUEST_RUNNING)
			sweep_row(s, list.v[i]);
	each_guest_dir(s, s->run_fd, sweep_run_dir);
	each_guest_dir(s, s->fd, sweep_state_dir);
}

void guest_sweep_images(struct state *s)
{
	image_unmount_unused(s);
	image_sweep_work(s);
}

void guest_sweep(struct state *s)
{
	guest_sweep_guests(s);
	guest_sweep_images(s);
}
