/* The state's directories, and room on their disk; see state.h. The database is in db.c. */
#include "state/state.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>

/* The first that is set: the override, as root the system's place, the user's by XDG. */
static char *choose_dir(const char *override, const char *system, const char *xdg,
			const char *xdg_fallback)
{
	const char *value = getenv(override);
	const char *home = getenv("HOME");

	if (value && *value)
		return value[0] == '/' ? strdup(value) : realpath(value, NULL);
	if (geteuid() == 0)
		return strdup(system);
	value = getenv(xdg);
	if (value && value[0] == '/')
		return str_printf("%s/lodge", value);
	if (xdg_fallback)
		return str_printf("%s/%s/lodge", home ? home : "", xdg_fallback);
	return str_printf("/tmp/lodge-%d", (int)geteuid());
}

static int open_private_dir(char *path, const char *variable, int *fd, struct error *err)
{
	struct stat st;

	if (!path)
		return error_sys(err, errno ? errno : ENOMEM, "the directory in %s", variable);
	*fd = dir_make_open(AT_FDCWD, path, 0700, err);
	if (*fd < 0) {
		error_hint(err, "set %s to a directory that you can write to", variable);
		return *fd;
	}
	/* In /tmp somebody else may have made it first. */
	if (fstat(*fd, &st) < 0 || st.st_uid != geteuid())
		return error_set(err, EACCES, "%s belongs to somebody else", path);
	return 0;
}

/*
 * On a full disk even removing something needs room, for the database's log. A file keeps that
 * room: it is given up when hardly any other is left, and made again when there is.
 */
#define RESERVE_BYTES     (1 << 20)
#define LOW_BYTES         (512 << 10)
#define COMFORTABLE_BYTES (4 << 20)

static uint64_t free_bytes(const struct state *s)
{
	struct statfs fs;

	if (fstatfs(s->fd, &fs) < 0)
		return UINT64_MAX;
	return (uint64_t)fs.f_bsize * (geteuid() == 0 ? fs.f_bfree : fs.f_bavail);
}

static void keep_reserve(struct state *s)
{
	uint64_t room = free_bytes(s);
	autofd int fd = -EBADF;

	if (room < LOW_BYTES) {
		unlinkat(s->fd, "reserve", 0);
		return;
	}
	if (room < COMFORTABLE_BYTES || faccessat(s->fd, "reserve", F_OK, 0) == 0)
		return;
	fd = openat(s->fd, "reserve", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd >= 0 && fallocate(fd, 0, 0, RESERVE_BYTES) < 0)
		unlinkat(s->fd, "reserve", 0); /* this file system can't; then without */
}

int state_no_space(struct error *err, const char *what)
{
	error_sys(err, ENOSPC, "%s", what);
	error_hint(err, "lodge rm and lodge image rm make room");
	return -ENOSPC;
}

int state_check_space(const struct state *s, struct error *err)
{
	return free_bytes(s) < RESERVE_BYTES + LOW_BYTES ? state_no_space(err, s->dir) : 0;
}

int state_open(struct state **out, struct error *err)
{
	autostate struct state *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return error_oom(err);
	s->fd = s->run_fd = -EBADF;
	s->dir = choose_dir("LODGE_STATE_DIR", "/var/lib/lodge", "XDG_DATA_HOME", ".local/share");
	rc = open_private_dir(s->dir, "LODGE_STATE_DIR", &s->fd, err);
	if (rc < 0)
		return rc;
	s->run_dir = choose_dir("LODGE_RUNTIME_DIR", "/run/lodge", "XDG_RUNTIME_DIR", NULL);
	rc = open_private_dir(s->run_dir, "LODGE_RUNTIME_DIR", &s->run_fd, err);
	if (rc < 0)
		return rc;
	keep_reserve(s);
	rc = state_open_db(s, err);
	if (rc < 0)
		return rc;
	*out = steal_ptr(&s);
	return 0;
}

void state_close(struct state *s)
{
	if (!s)
		return;
	state_close_db(s);
	fd_close(&s->fd);
	fd_close(&s->run_fd);
	free(s->dir);
	free(s->run_dir);
	free(s);
}

int64_t state_now(void)
{
	return time(NULL);
}
