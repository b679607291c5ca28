/* The writing side of a guest's log; see log_file.h. Used by the monitor only. */
#include "guest/log_file.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* "<time> stdout F " */
#define HEADER_BYTES (GUEST_LOG_TIME + sizeof(" stdout F ") - 1)

struct guest_log {
	int dir_fd;
	int fd; /* `log`, O_APPEND; -EBADF while it can't be made */
	uint64_t size;
	uint64_t max_bytes;
	int max_files;
	/* Lost since the last success, and why. */
	uint64_t dropped_bytes;
	int dropped_code;
	bool in_line[2]; /* by stream: its last record was a P */
	/* The second that is formatted. */
	time_t second;
	char second_text[24];
	size_t used;
	char buf[64 * 1024];
};

const char *guest_log_name(int index, char buf[static 16])
{
	if (index == 0)
		return strcpy(buf, "log");
	snprintf(buf, 16, "log.%d", index);
	return buf;
}

/* The position after the last newline: a writer that was killed may have left half a record. */
static int find_end(int fd, uint64_t size, uint64_t *end)
{
	char tail[4096];

	for (*end = size; *end > 0;) {
		size_t want = *end < sizeof(tail) ? *end : sizeof(tail);
		ssize_t n = pread(fd, tail, want, (off_t)(*end - want));
		const char *newline;

		if (n != (ssize_t)want)
			return n < 0 ? -errno : -EIO;
		newline = memrchr(tail, '\n', want);
		if (newline) {
			*end -= want - (size_t)(newline + 1 - tail);
			return 0;
		}
		*end -= want;
	}
	return 0;
}

static int open_file(struct guest_log *log, struct error *err)
{
	autofd int fd =
		file_open_at(log->dir_fd, "log",
			     O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0600, err);
	struct stat st;
	uint64_t end;
	int rc;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return error_sys(err, errno, "stat the log");
	rc = find_end(fd, (uint64_t)st.st_size, &end);
	if (rc < 0)
		return error_sys(err, -rc, "read the log");
	if (end != (uint64_t)st.st_size && ftruncate(fd, (off_t)end) < 0)
		return error_sys(err, errno, "truncate the log");
	log->size = end;
	log->fd = steal_fd(&fd);
	return 0;
}

int guest_log_open(int dir_fd, struct guest_log **out, struct error *err)
{
	struct guest_log *log = calloc(1, sizeof(*log));
	int rc;

	if (!log)
		return error_oom(err);
	log->fd = -EBADF;
	log->max_bytes = 10 << 20;
	log->max_files = 3;
	log->second = -1;
	log->dir_fd = fcntl(dir_fd, F_DUPFD_CLOEXEC, 3);
	rc = log->dir_fd < 0 ? error_sys(err, errno, "open the log") : open_file(log, err);
	if (rc < 0) {
		guest_log_close(log);
		return rc;
	}
	*out = log;
	return 0;
}

void guest_log_set_limits(struct guest_log *log, uint64_t max_bytes, int max_files)
{
	log->max_bytes = max_bytes;
	log->max_files = max_files < 1                     ? 1
			 : max_files > GUEST_LOG_MAX_FILES ? GUEST_LOG_MAX_FILES
							   : max_files;
}

void guest_log_close(struct guest_log *log)
{
	if (!log)
		return;
	fd_close(&log->fd);
	fd_close(&log->dir_fd);
	free(log);
}

/*
 * log.1 becomes log.2, log becomes log.1. A rename that fails leaves a file in its place, where the
 * next one replaces it: something is lost, nothing grows. Where not even `log` can be renamed, it
 * goes on growing rather than losing what it has.
 */
static void rotate(struct guest_log *log)
{
	char from[16], to[16];

	if (log->max_files == 1) {
		unlinkat(log->dir_fd, "log", 0);
	} else {
		for (int i = log->max_files - 1; i > 0; i--)
			if (renameat(log->dir_fd, guest_log_name(i - 1, from), log->dir_fd,
				     guest_log_name(i, to)) < 0 &&
			    i == 1)
				return;
	}
	fd_close(&log->fd);
	/* Failing, it is tried again before the next write. */
	open_file(log, NULL);
}

/*
 * Writes out the buffer. Of a write that the disk had not enough room for, the whole records stay:
 * a reader may have seen them. Returns how many bytes of the buffer are in the file.
 */
static size_t flush(struct guest_log *log)
{
	size_t done = 0, kept;
	ssize_t n = 0;
	int rc;

	if (log->size && log->size + log->used > log->max_bytes)
		rotate(log);
	rc = log->fd < 0 ? open_file(log, NULL) : 0;
	if (rc < 0) {
		log->dropped_code = -rc;
		return 0;
	}
	while (done < log->used) {
		n = write(log->fd, log->buf + done, log->used - done);
		if (n > 0)
			done += (size_t)n;
		else if (n == 0 || errno != EINTR)
			break;
	}
	kept = done;
	if (done < log->used) {
		const char *newline = memrchr(log->buf, '\n', done);

		log->dropped_code = n < 0 ? errno : ENOSPC;
		kept = newline ? (size_t)(newline + 1 - log->buf) : 0;
		/* Where this fails, opening the file again does it. */
		if (kept != done && ftruncate(log->fd, (off_t)(log->size + kept)) < 0)
			fd_close(&log->fd);
	}
	log->size += kept;
	return kept;
}

/* Puts a header in the buffer. */
static void put_header(struct guest_log *log, const struct timespec *now,
		       enum guest_log_stream stream, bool full)
{
	char *p = log->buf + log->used;
	long ns = now->tv_nsec;

	if (now->tv_sec != log->second) {
		struct tm tm;

		log->second = now->tv_sec;
		gmtime_r(&now->tv_sec, &tm);
		strftime(log->second_text, sizeof(log->second_text), "%Y-%m-%dT%H:%M:%S.", &tm);
	}
	memcpy(p, log->second_text, 20);
	for (int i = 28; i >= 20; i--, ns /= 10)
		p[i] = (char)('0' + ns % 10);
	memcpy(p + 29, stream == GUEST_LOG_STDERR ? "Z stderr " : "Z stdout ", 9);
	p[38] = full ? 'F' : 'P';
	p[39] = ' ';
	log->used += HEADER_BYTES;
}

static void put_record(struct guest_log *log, const struct timespec *now,
		       enum guest_log_stream stream, bool full, const char *text, size_t size)
{
	put_header(log, now, stream, full);
	memcpy(log->buf + log->used, text, size);
	log->used += size;
	log->buf[log->used++] = '\n';
}

/* How many of the guest's bytes are in the first `size` bytes of the buffer. */
static size_t count_text(const struct guest_log *log, size_t size)
{
	size_t count = 0;

	for (const char *p = log->buf, *end = log->buf + size, *newline; p < end; p = newline + 1) {
		newline = memchr(p, '\n', (size_t)(end - p));
		count += (size_t)(newline - p) - HEADER_BYTES + (p[HEADER_BYTES - 2] == 'F');
	}
	return count;
}

/* Says what is missing, once there is room to say it. */
static bool note_dropped(struct guest_log *log, const struct timespec *now)
{
	size_t kept;
	char text[160];
	int n = snprintf(text, sizeof(text),
			 "lodge: %llu bytes of the guest's output are missing here: %s",
			 (unsigned long long)log->dropped_bytes, strerror(log->dropped_code));

	if (log->in_line[GUEST_LOG_STDERR]) /* the note gets a line of its own */
		put_record(log, now, GUEST_LOG_STDERR, true, "", 0);
	put_record(log, now, GUEST_LOG_STDERR, true, text, (size_t)n);
	kept = flush(log);
	if (kept)
		log->in_line[GUEST_LOG_STDERR] = false;
	if (kept == log->used)
		log->dropped_bytes = 0;
	log->used = 0;
	return log->dropped_bytes == 0;
}

void guest_log_write(struct guest_log *log, enum guest_log_stream stream, const void *data,
		     size_t size)
{
	const char *p = data, *end = p + size;
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (log->dropped_bytes && !note_dropped(log, &now)) {
		log->dropped_bytes += size;
		return;
	}
	while (p < end) {
		size_t written;

		/* A buffer full of records, written at once. */
		const char *batch = p;

		while (p < end) {
			size_t left = (size_t)(end - p);
			size_t window = left < GUEST_LOG_PIECE ? left : GUEST_LOG_PIECE;
			const char *newline = memchr(p, '\n', window);
			size_t text = newline ? (size_t)(newline - p) : window;

			if (log->used + HEADER_BYTES + text + 1 > sizeof(log->buf))
				break;
			put_record(log, &now, stream, newline != NULL, p, text);
			p += text + (newline ? 1 : 0);
		}
		written = flush(log);
		if (written != log->used) {
			log->dropped_bytes += (size_t)(end - batch) - count_text(log, written);
			p = end;
		} else {
			log->in_line[stream] = p[-1] != '\n';
		}
		log->used = 0;
	}
}
