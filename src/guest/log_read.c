/*
 * The reading side of a guest's log; see log_file.h. The monitor may write and rotate meanwhile, so
 * what is half written is read again later, and a file is left only when its end was seen after it
 * had been renamed.
 */
#include "guest/log_file.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* The log's files that were there at one moment, oldest first. */
struct files {
	int fd[GUEST_LOG_MAX_FILES];
	struct stat st[GUEST_LOG_MAX_FILES];
	int n;
};

struct reader {
	const struct guest_log_options *options;
	guest_log_fn fn;
	void *data;
	bool in_line[2];  /* by stream: the last record was a P */
	bool skipping[2]; /* by stream: until the next line starts */
	bool counting;
	uint64_t lines; /* line starts seen */
	uint64_t skip_lines;
	char buf[64 * 1024];
};

static void close_files(struct files *f)
{
	for (int i = 0; i < f->n; i++)
		fd_close(&f->fd[i]);
	f->n = 0;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static int open_one(int dir_fd, int index, int *fd, struct stat *st, struct error *err)
{
	char name[16];

	*fd = openat(dir_fd, guest_log_name(index, name),
		     O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (*fd < 0)
		return errno == ENOENT ? 0 : error_sys(err, errno, "open %s", name);
	if (fstat(*fd, st) < 0)
		return error_sys(err, errno, "stat %s", name);
	return 0;
}

/* Opens newest first: what a rotation moves meanwhile then turns up twice, but is never missed. */
static int try_open_all(int dir_fd, struct files *f, bool *consistent, struct error *err)
{
	struct stat again;
	char name[16];

	*consistent = true;
	f->n = 0;
	for (int i = 0; i < GUEST_LOG_MAX_FILES; i++) {
		int fd = -EBADF;
		int rc = open_one(dir_fd, i, &fd, &f->st[f->n], err);

		if (fd >= 0)
			f->fd[f->n++] = fd;
		if (rc < 0)
			return rc;
		if (fd < 0 && i > 0)
			break;
	}
	for (int i = 0; i < f->n; i++)
		for (int j = 0; j < i; j++)
			if (same_file(&f->st[i], &f->st[j]))
				*consistent = false;
	if (f->n && (fstatat(dir_fd, guest_log_name(0, name), &again, AT_SYMLINK_NOFOLLOW) < 0 ||
		     !same_file(&again, &f->st[0])))
		*consistent = false;
	/* Oldest first. */
	for (int i = 0; i < f->n / 2; i++) {
		int fd = f->fd[i], other = f->n - 1 - i;
		struct stat st = f->st[i];

		f->fd[i] = f->fd[other];
		f->st[i] = f->st[other];
		f->fd[other] = fd;
		f->st[other] = st;
	}
	return 0;
}

static int open_all(int dir_fd, struct files *f, struct error *err)
{
	for (int tries = 0; tries < 100; tries++) {
		bool consistent;
		int rc = try_open_all(dir_fd, f, &consistent, err);

		if (rc == 0 && consistent)
			return 0;
		/* Between the two renames of a rotation there is no `log`: take what there is. */
		if (rc == 0 && tries == 99)
			return 0;
		close_files(f);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int64_t time_ns(const char *text)
{
	struct tm tm = {0};
	int64_t ns = 0;

	if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d.", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
		   &tm.tm_hour, &tm.tm_min, &tm.tm_sec) != 6)
		return 0;
	tm.tm_year -= 1900;
	tm.tm_mon--;
	for (int i = 20; i < 29; i++)
		ns = ns * 10 + (text[i] - '0');
	return timegm(&tm) * 1000000000 + ns;
}

/* Reads "<time> stdout F text\n"; false for what is no record. */
static bool parse(char *line, size_t size, struct guest_log_chunk *chunk, bool *full)
{
	static const char shape[] = "0000-00-00T00:00:00.000000000Z std";

	if (size < sizeof(shape) + 6)
		return false;
	for (size_t i = 0; i < sizeof(shape) - 1; i++)
		if (shape[i] == '0' ? line[i] < '0' || line[i] > '9' : line[i] != shape[i])
			return false;
	memcpy(chunk->time, line, GUEST_LOG_TIME);
	chunk->time[GUEST_LOG_TIME] = '\0';
	line += GUEST_LOG_TIME + 1;
	if (strncmp(line, "stdout ", 7) == 0)
		chunk->stream = GUEST_LOG_STDOUT;
	else if (strncmp(line, "stderr ", 7) == 0)
		chunk->stream = GUEST_LOG_STDERR;
	else
		return false;
	if ((line[7] != 'F' && line[7] != 'P') || line[8] != ' ')
		return false;
	*full = line[7] == 'F';
	chunk->data = line + 9;
	/* The newline of the record is the guest's, or only the record's. */
	chunk->size = size - GUEST_LOG_TIME - 1 - 9 - (*full ? 0 : 1);
	return true;
}

static int take(struct reader *r, char *line, size_t size, struct error *err)
{
	struct guest_log_chunk chunk = {0};
	bool full;

	if (!parse(line, size, &chunk, &full))
		return 0;
	chunk.starts_line = !r->in_line[chunk.stream];
	r->in_line[chunk.stream] = !full;
	if (chunk.starts_line) {
		r->skipping[chunk.stream] = r->lines++ < r->skip_lines;
		if (r->options->since_ns && !r->skipping[chunk.stream])
			r->skipping[chunk.stream] = time_ns(chunk.time) < r->options->since_ns;
	}
	if (r->counting || r->skipping[chunk.stream])
		return 0;
	return r->fn(r->data, &chunk, err);
}

/*
 * Takes all whole records from *offset on. An end without a newline is left: it is being written,
 * or was left by a writer that was killed.
 */
static int read_records(struct reader *r, int fd, uint64_t *offset, struct error *err)
{
	bool overlong = false;

	for (;;) {
		ssize_t n = pread(fd, r->buf, sizeof(r->buf), (off_t)*offset);
		char *p = r->buf, *end, *newline;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_sys(err, errno, "read the log");
		end = r->buf + n;
		while ((newline = memchr(p, '\n', (size_t)(end - p)))) {
			int rc = overlong ? 0 : take(r, p, (size_t)(newline + 1 - p), err);

			overlong = false;
			*offset += (uint64_t)(newline + 1 - p);
			p = newline + 1;
			if (rc)
				return rc;
		}
		if (n < (ssize_t)sizeof(r->buf))
			return 0;
		if (p == r->buf) { /* longer than any record of ours: passed over */
			overlong = true;
			*offset += (uint64_t)n;
		}
	}
}

static int read_files(struct reader *r, const struct files *f, int first, uint64_t *offset,
		      struct error *err)
{
	int rc = 0;

	for (int i = first; rc == 0 && i < f->n; i++) {
		*offset = 0;
		rc = read_records(r, f->fd[i], offset, err);
	}
	return rc;
}

/* Whether the guest has ended: everything it wrote is in the log then. */
static bool has_ended(const struct guest_log_options *o)
{
	struct pollfd p = {.fd = o->stop_fd, .events = POLLIN};

	if (o->stop_fd >= 0 && poll(&p, 1, 0) > 0)
		return true;
	return o->ended && o->ended(o->ended_data);
}

static void wait_for_change(int watch_fd, const struct guest_log_options *o)
{
	struct pollfd p[] = {
		{.fd = watch_fd, .events = POLLIN},
		{.fd = o->stop_fd, .events = POLLIN},
	};
	char events[4096];

	/* Without inotify (its instances can be used up) and with ended() we have to look. */
	poll(p, ARRAY_SIZE(p), watch_fd < 0 ? 200 : o->ended ? 500 : -1);
	while (watch_fd >= 0 && read(watch_fd, events, sizeof(events)) > 0)
		;
}

/*
 * Goes on in the files that are newer than the last of `f`. Of a file that has been renamed the
 * rest is read first: nobody writes to it any more.
 */
static int go_on(struct reader *r, int dir_fd, struct files *f, uint64_t *offset, struct error *err)
{
	struct files now;
	int rc, first = 0;

	rc = f->n ? read_records(r, f->fd[f->n - 1], offset, err) : 0;
	if (rc)
		return rc;
	rc = open_all(dir_fd, &now, err);
	if (rc < 0)
		return rc;
	for (int i = 0; f->n && i < now.n; i++)
		if (same_file(&now.st[i], &f->st[f->n - 1]))
			first = i + 1;
	if (first < now.n) {
		if (f->n)
			rc = read_records(r, f->fd[f->n - 1], offset, err);
		if (rc == 0)
			rc = read_files(r, &now, first, offset, err);
		close_files(f);
		*f = now;
	} else {
		close_files(&now);
	}
	return rc;
}

static int follow(struct reader *r, int dir_fd, int watch_fd, struct files *f, uint64_t *offset,
		  struct error *err)
{
	int rc = 0;

	while (rc == 0) {
		/* Asked before reading: what was written until the end is still seen. */
		bool last = has_ended(r->options);

		rc = go_on(r, dir_fd, f, offset, err);
		if (last)
			break;
		if (rc == 0)
			wait_for_change(watch_fd, r->options);
	}
	return rc;
}

int guest_log_read(int dir_fd, const struct guest_log_options *options, guest_log_fn fn, void *data,
		   struct error *err)
{
	autofree struct reader *r = calloc(1, sizeof(*r));
	autofd int watch_fd = -EBADF;
	struct files f;
	uint64_t offset = 0;
	int rc;

	if (!r)
		return error_oom(err);
	r->options = options;
	r->fn = fn;
	r->data = data;
	/* Before the first look, so that no change goes unnoticed. */
	if (options->follow) {
		char path[40];

		snprintf(path, sizeof(path), "/proc/self/fd/%d", dir_fd);
		watch_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
		if (watch_fd >= 0 &&
		    inotify_add_watch(watch_fd, path, IN_MODIFY | IN_CREATE | IN_MOVED_TO) < 0)
			fd_close(&watch_fd);
	}
	rc = open_all(dir_fd, &f, err);
	if (rc < 0)
		return rc;
	if (options->tail >= 0) {
		r->counting = true;
		rc = read_files(r, &f, 0, &offset, err);
		if (r->lines > (uint64_t)options->tail)
			r->skip_lines = r->lines - (uint64_t)options->tail;
		r->counting = false;
		r->lines = 0;
		memset(r->in_line, 0, sizeof(r->in_line));
	}
	if (rc == 0)
		rc = read_files(r, &f, 0, &offset, err);
	if (rc == 0 && options->follow)
		rc = follow(r, dir_fd, watch_fd, &f, &offset, err);
	close_files(&f);
	return rc;
}
