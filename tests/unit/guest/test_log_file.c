/* A guest's log: the bytes come back exactly, through rotation, kills and a full disk. */
#include "guest/log_file.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"

#include <fcntl.h>
#include <regex.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static char dir_path[64];
static int dir_fd = -EBADF;

static int setup(void **context)
{
	snprintf(dir_path, sizeof(dir_path), "/tmp/lodge-log-XXXXXX");
	if (!mkdtemp(dir_path))
		return -1;
	dir_fd = open(dir_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return dir_fd < 0 ? -1 : 0;
}

static int teardown(void **context)
{
	fd_close(&dir_fd);
	return dir_remove_all(AT_FDCWD, dir_path, NULL);
}

static struct guest_log *open_log(void)
{
	struct guest_log *log = NULL;
	struct error err = {0};

	if (guest_log_open(dir_fd, &log, &err) < 0)
		fail_msg("%s", err.message);
	return log;
}

/* What came back, by stream. */
struct sink {
	char *data[2];
	size_t size[2], chunks, starts;
	char last_time[32];
};

static int sink_take(void *data, const struct guest_log_chunk *chunk, struct error *err)
{
	struct sink *s = data;
	size_t *size = &s->size[chunk->stream];

	s->data[chunk->stream] = realloc(s->data[chunk->stream], *size + chunk->size + 1);
	memcpy(s->data[chunk->stream] + *size, chunk->data, chunk->size);
	*size += chunk->size;
	s->data[chunk->stream][*size] = '\0';
	s->chunks++;
	s->starts += chunk->starts_line;
	memcpy(s->last_time, chunk->time, sizeof(s->last_time));
	return 0;
}

static void sink_free(struct sink *s)
{
	free(s->data[0]);
	free(s->data[1]);
}

#define autosink __attribute__((cleanup(sink_free)))

static void read_log(const struct guest_log_options *options, struct sink *s)
{
	struct error err = {0};

	if (guest_log_read(dir_fd, options, sink_take, s, &err) < 0)
		fail_msg("%s", err.message);
}

static void assert_output(const struct guest_log_options *options, const char *expected)
{
	autosink struct sink s = {0};

	read_log(options, &s);
	assert_string_equal(s.data[0] ? s.data[0] : "", expected);
}

static void write_str(struct guest_log *log, const char *text)
{
	guest_log_write(log, GUEST_LOG_STDOUT, text, strlen(text));
}

static void test_format_is_cri(void **context)
{
	static const char pattern[] =
		"^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\\.[0-9]{9}Z "
		"stdout F hello\n[^ ]{30} stderr P login: \n[^ ]{30} stderr F \n$";
	struct guest_log *log = open_log();
	autofree char *text = NULL;
	regex_t regex;

	write_str(log, "hello\n");
	guest_log_write(log, GUEST_LOG_STDERR, "login: ", 7);
	guest_log_write(log, GUEST_LOG_STDERR, "\n", 1);
	guest_log_close(log);
	assert_int_equal(file_read_at(dir_fd, "log", 4096, &text, NULL, NULL), 0);
	assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
	if (regexec(&regex, text, 0, NULL, 0) != 0)
		fail_msg("%s", text);
	regfree(&regex);
}

static void test_time_is_now(void **context)
{
	struct guest_log *log = open_log();
	autosink struct sink s = {0};
	time_t before = time(NULL), logged;
	struct tm tm = {0};

	write_str(log, "x\n");
	guest_log_close(log);
	read_log(&GUEST_LOG_OPTIONS, &s);
	assert_non_null(strptime(s.last_time, "%Y-%m-%dT%H:%M:%S", &tm));
	logged = timegm(&tm);
	assert_true(logged >= before && logged <= time(NULL));
}

/* Random bytes, also zeroes and newlines, in pieces of all sizes, over many rotations. */
static void test_bytes_come_back(void **context)
{
	struct guest_log *log = open_log();
	autosink struct sink s = {0};
	static char sent[2][1 << 20];
	size_t size[2] = {0};
	unsigned int seed = 7;
	struct stat st;

	guest_log_set_limits(log, 300 * 1024, GUEST_LOG_MAX_FILES);
	while (size[0] + size[1] < 1000 * 1000) {
		int stream = rand_r(&seed) & 1;
		size_t n = (size_t)rand_r(&seed) % (rand_r(&seed) % 8 ? 300 : 40000);
		char *p = sent[stream] + size[stream];

		for (size_t i = 0; i < n; i++)
			p[i] = (char)(rand_r(&seed) % 50 ? rand_r(&seed) : '\n');
		guest_log_write(log, (enum guest_log_stream)stream, p, n);
		size[stream] += n;
		assert_true(size[stream] < sizeof(sent[0]) - 40000);
	}
	guest_log_close(log);
	assert_int_equal(fstatat(dir_fd, "log.3", &st, 0), 0); /* it did rotate */
	assert_true(st.st_size <= 300 * 1024);
	read_log(&GUEST_LOG_OPTIONS, &s);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(s.size[i], size[i]);
		assert_memory_equal(s.data[i], sent[i], size[i]);
	}
}

static void test_line_of_a_mebibyte(void **context)
{
	struct guest_log *log = open_log();
	autosink struct sink s = {0};
	autofree char *line = malloc(1 << 20);

	memset(line, 'a', 1 << 20);
	line[(1 << 20) - 1] = '\n';
	guest_log_write(log, GUEST_LOG_STDOUT, line, 1 << 20);
	write_str(log, "next\n");
	guest_log_close(log);
	read_log(&GUEST_LOG_OPTIONS, &s);
	assert_int_equal(s.size[0], (1 << 20) + 5);
	assert_memory_equal(s.data[0], line, 1 << 20);
	assert_string_equal(s.data[0] + (1 << 20), "next\n");
	assert_int_equal(s.starts, 2);
	assert_int_equal(s.chunks, 65);
}

static void test_rotation_keeps_the_newest(void **context)
{
	struct guest_log *log = open_log();
	autosink struct sink s = {0};
	struct stat st;
	char line[32];

	guest_log_set_limits(log, 4096, 3);
	for (int i = 0; i < 1000; i++) {
		snprintf(line, sizeof(line), "line %d\n", i);
		write_str(log, line);
	}
	guest_log_close(log);
	assert_int_equal(fstatat(dir_fd, "log.2", &st, 0), 0);
	assert_int_equal(fstatat(dir_fd, "log.3", &st, 0), -1);
	read_log(&GUEST_LOG_OPTIONS, &s);
	/* Two full files and what is in the third. */
	assert_true(s.starts > 2 * 4096 / 60 && s.starts < 3 * 4096 / 40);
	assert_string_equal(s.data[0] + s.size[0] - 9, "line 999\n");
	snprintf(line, sizeof(line), "line %d\n", (int)(1000 - s.starts));
	assert_true(str_starts_with(s.data[0], line));
}

static void test_tail(void **context)
{
	struct guest_log *log = open_log();
	struct guest_log_options o = GUEST_LOG_OPTIONS;

	o.tail = 2;
	assert_output(&o, "");
	guest_log_set_limits(log, 100, GUEST_LOG_MAX_FILES); /* two records a file */
	write_str(log, "one\ntwo\n");
	write_str(log, "th");
	write_str(log, "ree\n");
	write_str(log, "four");
	assert_output(&o, "three\nfour");
	o.tail = 1;
	assert_output(&o, "four");
	o.tail = 0;
	assert_output(&o, "");
	o.tail = 3;
	assert_output(&o, "two\nthree\nfour");
	o.tail = 100;
	assert_output(&o, "one\ntwo\nthree\nfour");
	/* Counted over both streams; a line that began before the cut is left out as a whole. */
	guest_log_write(log, GUEST_LOG_STDERR, "E1\n", 3);
	write_str(log, " more\nfive\n");
	o.tail = 2;
	assert_output(&o, "five\n");
	guest_log_close(log);
}

static void test_since(void **context)
{
	struct guest_log *log = open_log();
	struct guest_log_options o = GUEST_LOG_OPTIONS;
	struct timespec now;

	write_str(log, "old\n");
	usleep(2000);
	clock_gettime(CLOCK_REALTIME, &now);
	o.since_ns = now.tv_sec * 1000000000 + now.tv_nsec;
	usleep(2000);
	write_str(log, "new\n");
	guest_log_close(log);
	assert_output(&o, "new\n");
}

static void append_raw(const char *text)
{
	autofd int fd = openat(dir_fd, "log", O_WRONLY | O_APPEND | O_CLOEXEC);

	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static void test_torn_record_is_skipped_and_cut_off(void **context)
{
	struct guest_log *log = open_log();

	write_str(log, "whole\n");
	guest_log_close(log);
	append_raw("2026-11-22T08:00:00.123456789Z stdout F tor");
	assert_output(&GUEST_LOG_OPTIONS, "whole\n");
	log = open_log();
	write_str(log, "next\n");
	guest_log_close(log);
	assert_output(&GUEST_LOG_OPTIONS, "whole\nnext\n");
	/* Nothing but a torn record, and other things that are no records. */
	assert_int_equal(unlinkat(dir_fd, "log", 0), 0);
	log = open_log();
	guest_log_close(log);
	append_raw("torn");
	log = open_log();
	write_str(log, "a\n");
	append_raw("\n \nnonsense\n2026-11-22T08:00:00.123456789Z stdxxx F no\n"
		   "2026-11-22T08:00:00.12345678xZ stdout F no\n"
		   "2026-11-22T08:00:00.123456789Z stdout X no\n"
		   "2026-11-22T08:00:00.123456789Z stdout F yes\n");
	guest_log_close(log);
	assert_output(&GUEST_LOG_OPTIONS, "a\nyes\n");
}

/* A file size limit stands for the full disk: both end in short writes and errors. */
static void fill_disk(size_t line_size, size_t write_size, rlim_t room)
{
	static char text[60000];
	const size_t size = sizeof(text);
	autosink struct sink s = {0};
	pid_t pid = fork();
	size_t kept, missing;
	int status;

	for (size_t i = 0; i < size; i++)
		text[i] = i % line_size == line_size - 1 ? '\n' : (char)('a' + i % 26);
	if (pid == 0) {
		struct rlimit limit = {room, RLIM_INFINITY};
		struct guest_log *log = open_log();
		struct stat st;

		signal(SIGXFSZ, SIG_IGN);
		setrlimit(RLIMIT_FSIZE, &limit);
		guest_log_write(log, GUEST_LOG_STDERR, "part", 4);
		for (size_t i = 0; i < size; i += write_size)
			guest_log_write(log, GUEST_LOG_STDOUT, text + i,
					size - i < write_size ? size - i : write_size);
		guest_log_write(log, GUEST_LOG_STDERR, "lost", 4);
		if (fstatat(dir_fd, "log", &st, 0) < 0 || (rlim_t)st.st_size > room)
			_exit(1);
		limit.rlim_cur = RLIM_INFINITY;
		setrlimit(RLIMIT_FSIZE, &limit);
		write_str(log, "back\n");
		write_str(log, "again\n");
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	read_log(&GUEST_LOG_OPTIONS, &s);
	kept = s.size[0] - strlen("back\nagain\n");
	assert_in_range(kept, room / 3, room);
	assert_memory_equal(s.data[0], text, kept);
	assert_string_equal(s.data[0] + kept, "back\nagain\n");
	assert_true(str_starts_with(s.data[1], "part\nlodge: "));
	assert_int_equal(sscanf(s.data[1], "part\nlodge: %zu bytes", &missing), 1);
	assert_int_equal(missing, size + 4 - kept);
	assert_non_null(strstr(s.data[1], "File too large\n"));
}

static void test_full_disk_drops_and_says_so(void **context)
{
	fill_disk(50, 1000, 8000);
}

static void test_full_disk_in_long_lines(void **context)
{
	fill_disk(1 << 20, 60000, 32950);
}

/* ---- following ---- */

struct follower {
	volatile int *seen; /* shared with the writer */
	int next;
	bool in_order;
};

/* Lines are "line N"; a line may come in two chunks. */
static int follow_take(void *data, const struct guest_log_chunk *chunk, struct error *err)
{
	static char line[64];
	static size_t used;
	struct follower *f = data;
	int n;

	memcpy(line + used, chunk->data, chunk->size);
	used += chunk->size;
	line[used] = '\0';
	if (line[used - 1] != '\n')
		return 0;
	used = 0;
	if (sscanf(line, "line %d\n", &n) != 1 || n != f->next)
		f->in_order = false;
	f->next = n + 1;
	*f->seen = f->next;
	return 0;
}

static void test_follow_through_rotation(void **context)
{
	enum { LINES = 5000 };
	volatile int *seen =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct guest_log_options o = GUEST_LOG_OPTIONS;
	struct follower f = {.seen = seen, .in_order = true};
	struct error err = {0};
	int ended[2];
	pid_t pid;

	assert_int_equal(pipe2(ended, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		struct guest_log *log;
		char line[32];

		close(ended[0]);
		usleep(20000); /* the reader is there before the log is */
		log = open_log();
		guest_log_set_limits(log, 4096, 3);
		for (int i = 0; i < LINES; i++) {
			/* Two files may be gone round before a reader has to be lost. */
			for (int waited = 0; *seen < i - 80 && waited < 5000; waited++)
				usleep(1000);
			snprintf(line, sizeof(line), "line %d\n", i);
			if (i % 10 == 0) {
				guest_log_write(log, GUEST_LOG_STDOUT, line, 3);
				guest_log_write(log, GUEST_LOG_STDOUT, line + 3, strlen(line) - 3);
			} else {
				write_str(log, line);
			}
		}
		_exit(0); /* closes the pipe */
	}
	close(ended[1]);
	o.follow = true;
	o.stop_fd = ended[0];
	alarm(60);
	assert_int_equal(guest_log_read(dir_fd, &o, follow_take, &f, &err), 0);
	alarm(0);
	assert_true(f.in_order);
	assert_int_equal(f.next, LINES);
	close(ended[0]);
	waitpid(pid, NULL, 0);
	munmap((void *)seen, 4096);
}

/* A prompt is seen before its line ends, long before a poll would have seen it. */
static int take_prompt(void *data, const struct guest_log_chunk *chunk, struct error *err)
{
	struct timespec *when = data;

	clock_gettime(CLOCK_MONOTONIC, when);
	return chunk->size == 7 ? -ECANCELED : 0;
}

static void test_follow_is_prompt(void **context)
{
	struct timespec *written =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct guest_log_options o = GUEST_LOG_OPTIONS;
	struct timespec seen;
	pid_t pid = fork();

	if (pid == 0) {
		struct guest_log *log = open_log();

		usleep(50000);
		clock_gettime(CLOCK_MONOTONIC, written);
		write_str(log, "login: ");
		_exit(0);
	}
	o.follow = true;
	alarm(60);
	assert_int_equal(guest_log_read(dir_fd, &o, take_prompt, &seen, NULL), -ECANCELED);
	alarm(0);
	waitpid(pid, NULL, 0);
	assert_true((seen.tv_sec - written->tv_sec) * 1000 +
			    (seen.tv_nsec - written->tv_nsec) / 1000000 <
		    150);
	munmap(written, 4096);
}

struct ending {
	struct guest_log *log;
	int asked;
};

static bool ended_at_third_time(void *data)
{
	struct ending *e = data;

	if (++e->asked < 3)
		return false;
	write_str(e->log, "last words\n");
	return true;
}

static void test_follow_ends_when_told(void **context)
{
	struct guest_log_options o = GUEST_LOG_OPTIONS;
	struct ending e = {.log = open_log()};
	autosink struct sink s = {0};

	write_str(e.log, "all\n");
	o.follow = true;
	o.ended = ended_at_third_time;
	o.ended_data = &e;
	alarm(60);
	read_log(&o, &s);
	alarm(0);
	assert_int_equal(e.asked, 3);
	assert_string_equal(s.data[0], "all\nlast words\n");
	guest_log_close(e.log);
}

/* Writers that are killed at any moment leave a log that the next one goes on with. */
static void test_killed_writers(void **context)
{
	autosink struct sink s = {0};
	char *p;

	for (int round = 0; round < 20; round++) {
		pid_t pid = fork();

		if (pid == 0) {
			struct guest_log *log = open_log();
			char line[256];

			memset(line, 'x', sizeof(line));
			line[255] = '\n';
			guest_log_set_limits(log, 100 * 1000, 3);
			for (;;)
				guest_log_write(log, GUEST_LOG_STDOUT, line, sizeof(line));
		}
		usleep(3000);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	read_log(&GUEST_LOG_OPTIONS, &s);
	assert_true(s.size[0] > 256);
	assert_int_equal(s.size[0] % 256, 0);
	for (p = s.data[0]; p < s.data[0] + s.size[0]; p += 256)
		assert_true(p[0] == 'x' && p[255] == '\n' && !memchr(p, '\n', 255));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_format_is_cri),
		TEST(test_time_is_now),
		TEST(test_bytes_come_back),
		TEST(test_line_of_a_mebibyte),
		TEST(test_rotation_keeps_the_newest),
		TEST(test_tail),
		TEST(test_since),
		TEST(test_torn_record_is_skipped_and_cut_off),
		TEST(test_full_disk_drops_and_says_so),
		TEST(test_full_disk_in_long_lines),
		TEST(test_follow_through_rotation),
		TEST(test_follow_is_prompt),
		TEST(test_follow_ends_when_told),
		TEST(test_killed_writers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
