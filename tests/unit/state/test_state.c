/* The database: first use by many at once, versions, constraints, and being killed. */
#include "state/state.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static char top[64];

static int setup(void **context)
{
	char path[96];

	snprintf(top, sizeof(top), "/tmp/lodge-state-XXXXXX");
	if (!mkdtemp(top))
		return -1;
	snprintf(path, sizeof(path), "%s/state", top);
	setenv("LODGE_STATE_DIR", path, 1);
	snprintf(path, sizeof(path), "%s/run", top);
	setenv("LODGE_RUNTIME_DIR", path, 1);
	return 0;
}

static int teardown(void **context)
{
	return dir_remove_all(AT_FDCWD, top, NULL);
}

static struct state *open_state(void)
{
	struct state *s = NULL;
	struct error err = {0};

	if (state_open(&s, &err) < 0)
		fail_msg("%s", err.message);
	return s;
}

static int64_t number(struct state *s, const char *sql)
{
	autostmt sqlite3_stmt *q = NULL;
	struct error err = {0};

	if (state_query(s, &q, &err, sql, "") < 0 || state_row(q, &err) != 1)
		fail_msg("%s: %s", sql, err.message);
	return sqlite3_column_int64(q, 0);
}

static int add_guest(struct state *s, const char *id, const char *name, struct error *err)
{
	return state_exec(s, err,
			  "INSERT INTO guests(id, name, config, state, auto_remove, created_at)"
			  " VALUES(?, ?, '{}', 'created', 0, ?)",
			  "ssi", id, name, state_now());
}

static int add_image(struct state *s, const char *digest, struct error *err)
{
	return state_exec(s, err, "INSERT INTO images VALUES(?, ?, ?, '{}')", "sii", digest,
			  (int64_t)1, (int64_t)1);
}

static void test_first_open_makes_everything(void **context)
{
	mode_t mask = umask(0);
	autostate struct state *s = open_state();
	struct stat st;
	char path[96];

	snprintf(path, sizeof(path), "%s/state", top);
	assert_string_equal(s->dir, path);
	assert_int_equal(umask(mask), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	snprintf(path, sizeof(path), "%s/state/lodge.db", top);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600); /* also under a generous umask */
	snprintf(path, sizeof(path), "%s/run", top);
	assert_string_equal(s->run_dir, path);
	assert_int_equal(fstat(s->run_fd, &st), 0);
	assert_int_equal(number(s, "SELECT count(*) FROM guests"), 0);
	assert_true(number(s, "PRAGMA user_version") >= 1);
	assert_int_equal(number(s, "PRAGMA foreign_keys"), 1);
	assert_int_equal(number(s, "PRAGMA synchronous"), 2);
	assert_int_equal(state_set_durable(s, false, NULL), 0);
	assert_int_equal(number(s, "PRAGMA synchronous"), 1);
}

static void assert_wal(struct state *s)
{
	autostmt sqlite3_stmt *q = NULL;

	assert_int_equal(state_query(s, &q, NULL, "PRAGMA journal_mode", ""), 0);
	assert_int_equal(state_row(q, NULL), 1);
	assert_string_equal(state_text(q, 0), "wal");
}

/* Eight first commands at the same moment; each adds a guest. */
static void test_many_open_at_once(void **context)
{
	for (int round = 0; round < 10; round++) {
		enum { PROCESSES = 8 };
		pid_t pids[PROCESSES];
		struct state *s;
		int go[2];
		char byte;

		assert_int_equal(pipe(go), 0);
		for (int i = 0; i < PROCESSES; i++) {
			pids[i] = fork();
			if (pids[i] == 0) {
				struct error err = {0};
				char name[16];

				snprintf(name, sizeof(name), "guest%d", i);
				close(go[1]);
				if (read(go[0], &byte, 1) != 0)
					_exit(1);
				if (state_open(&s, &err) < 0 ||
				    add_guest(s, name, name, &err) != 1) {
					fprintf(stderr, "# %s\n", err.message);
					_exit(2);
				}
				_exit(0);
			}
		}
		close(go[0]);
		close(go[1]); /* go */
		for (int i = 0; i < PROCESSES; i++) {
			int status;

			assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
			assert_int_equal(status, 0);
		}
		s = open_state();
		assert_int_equal(number(s, "SELECT count(*) FROM guests"), PROCESSES);
		assert_wal(s);
		state_close(s);
		assert_int_equal(teardown(NULL), 0);
		assert_int_equal(setup(NULL), 0);
	}
}

/* The first command was killed after it had made the file and before it had made tables. */
static void test_empty_database_is_completed(void **context)
{
	char path[96];
	struct state *s = open_state();
	int fd;

	state_close(s);
	snprintf(path, sizeof(path), "%s/state/lodge.db", top);
	fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	assert_true(fd >= 0);
	close(fd);
	snprintf(path, sizeof(path), "%s/state/lodge.db-wal", top);
	unlink(path);
	snprintf(path, sizeof(path), "%s/state/lodge.db-shm", top);
	unlink(path);
	s = open_state();
	assert_int_equal(number(s, "SELECT count(*) FROM guests"), 0);
	assert_wal(s);
	state_close(s);
}

static void test_newer_version_is_refused(void **context)
{
	struct state *s = open_state();
	struct error err = {0};

	assert_int_equal(add_guest(s, "1", "one", NULL), 1);
	assert_int_equal(sqlite3_exec(s->db, "PRAGMA user_version=1000", NULL, NULL, NULL), 0);
	state_close(s);
	assert_int_equal(state_open(&s, &err), -ENOTSUP);
	assert_non_null(strstr(err.message, "newer Lodge"));
	assert_non_null(strstr(err.message, top));
	assert_string_not_equal(err.hint, "");
}

static void test_damaged_database_is_told(void **context)
{
	char path[96];
	struct state *s = open_state();
	struct error err = {0};
	int fd;

	state_close(s);
	snprintf(path, sizeof(path), "%s/state/lodge.db", top);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_int_equal(write(fd, "this is no database, is it", 26), 26);
	close(fd);
	/* The log has a good copy of the first page. */
	snprintf(path, sizeof(path), "%s/state/lodge.db-wal", top);
	assert_int_equal(unlink(path), 0);
	assert_true(state_open(&s, &err) < 0);
	assert_non_null(strstr(err.hint, "damaged"));
}

static void test_constraints_have_their_errnos(void **context)
{
	autostate struct state *s = open_state();
	struct error err = {0};

	assert_int_equal(add_guest(s, "1", "web", &err), 1);
	assert_int_equal(add_guest(s, "2", "web", &err), -EEXIST);
	assert_int_equal(add_guest(s, "1", "db", &err), -EEXIST);
	assert_int_equal(err.code, EEXIST);
	assert_int_equal(add_image(s, "sha256:1", &err), 1);
	assert_int_equal(state_exec(s, &err, "INSERT INTO image_names VALUES(?, ?)", "ss", "debian",
				    "sha256:1"),
			 1);
	/* It is referred to, ... */
	assert_int_equal(state_exec(s, &err, "DELETE FROM images WHERE digest=?", "s", "sha256:1"),
			 -EBUSY);
	/* ... and this refers to nothing. */
	assert_int_equal(
		state_exec(s, &err, "INSERT INTO image_names VALUES(?, ?)", "ss", "x", "sha256:2"),
		-EBUSY);
	assert_int_equal(state_exec(s, &err, "DELETE FROM image_names", ""), 1);
	assert_int_equal(state_exec(s, &err, "DELETE FROM images WHERE digest=?", "s", "sha256:1"),
			 1);
	assert_int_equal(state_exec(s, &err, "DELETE FROM images WHERE digest=?", "s", "sha256:1"),
			 0);
	assert_int_equal(state_exec(s, &err, "NO SQL", ""), -EIO);
}

static void test_parameters_and_rows(void **context)
{
	autostate struct state *s = open_state();
	autostmt sqlite3_stmt *q = NULL;

	assert_int_equal(state_query(s, &q, NULL, "SELECT ?, ?, ?, ?", "sisn", "text",
				     (int64_t)1 << 40, (char *)NULL),
			 0);
	assert_int_equal(state_row(q, NULL), 1);
	assert_string_equal(state_text(q, 0), "text");
	assert_int_equal(sqlite3_column_int64(q, 1), (int64_t)1 << 40);
	assert_int_equal(sqlite3_column_type(q, 2), SQLITE_NULL);
	assert_int_equal(sqlite3_column_type(q, 3), SQLITE_NULL);
	assert_string_equal(state_text(q, 2), "");
	assert_int_equal(state_row(q, NULL), 0);
}

static void test_transactions(void **context)
{
	autostate struct state *s = open_state();

	assert_int_equal(state_begin(s, NULL), 0);
	assert_int_equal(add_guest(s, "1", "one", NULL), 1);
	state_rollback(s);
	assert_int_equal(number(s, "SELECT count(*) FROM guests"), 0);
	state_rollback(s); /* of nothing: harmless */
	assert_int_equal(state_begin(s, NULL), 0);
	assert_int_equal(add_guest(s, "1", "one", NULL), 1);
	assert_int_equal(state_commit(s, NULL), 0);
	assert_int_equal(number(s, "SELECT count(*) FROM guests"), 1);
}

/* A writer that is killed in the middle leaves the last commit, and no lock. */
static void test_killed_in_a_transaction(void **context)
{
	autostate struct state *s = NULL;
	int ready[2], status;
	char byte;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		struct state *mine = open_state();

		if (add_guest(mine, "1", "kept", NULL) != 1 || state_begin(mine, NULL) < 0 ||
		    add_guest(mine, "2", "lost", NULL) != 1 || write(ready[1], "x", 1) != 1)
			_exit(1);
		pause();
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	s = open_state();
	assert_int_equal(number(s, "SELECT count(*) FROM guests"), 1);
	assert_int_equal(number(s, "SELECT count(*) FROM guests WHERE name='kept'"), 1);
	assert_int_equal(add_guest(s, "2", "next", NULL), 1);
	close(ready[0]);
	close(ready[1]);
}

/* Readers are not held up by a writer. */
static void test_reading_beside_a_writer(void **context)
{
	autostate struct state *writer = open_state();
	autostate struct state *reader = open_state();

	assert_int_equal(add_guest(writer, "1", "one", NULL), 1);
	assert_int_equal(state_begin(writer, NULL), 0);
	assert_int_equal(add_guest(writer, "2", "two", NULL), 1);
	sqlite3_busy_timeout(reader->db, 0);
	assert_int_equal(number(reader, "SELECT count(*) FROM guests"), 1);
	/* A second writer is, and says so when its patience ends. */
	assert_int_equal(state_begin(reader, NULL), -EAGAIN);
	assert_int_equal(state_commit(writer, NULL), 0);
	assert_int_equal(number(reader, "SELECT count(*) FROM guests"), 2);
}

static void test_closed_database_opens_when_needed(void **context)
{
	autostate struct state *s = open_state();
	pid_t pid;
	int status;

	assert_int_equal(add_guest(s, "1", "one", NULL), 1);
	state_close_db(s); /* a connection does not survive fork() */
	pid = fork();
	if (pid == 0) {
		if (add_guest(s, "2", "two", NULL) != 1)
			_exit(1);
		state_close(s);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
	assert_int_equal(add_guest(s, "3", "three", NULL), 1);
	assert_int_equal(number(s, "SELECT count(*) FROM guests"), 3);
}

/* In a mount namespace of its own; root only. */
static int on_read_only_fs(void)
{
	struct error err = {0};
	struct state *s = NULL;

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount(top, top, NULL, MS_BIND, NULL) < 0)
		return 77;
	state_close(open_state());
	if (mount(NULL, top, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) < 0)
		return 77;
	if (state_open(&s, &err) != 0 && err.code != EROFS) {
		fprintf(stderr, "# %d %s\n", err.code, err.message);
		return 1;
	}
	/* Reading may work; writing must be refused with the reason. */
	if (s && add_guest(s, "1", "one", &err) != -EROFS) {
		fprintf(stderr, "# %d %s\n", err.code, err.message);
		return 2;
	}
	return err.message[0] ? 0 : 3;
}

static void test_read_only_file_system(void **context)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(geteuid() == 0 ? on_read_only_fs() : 77);
	waitpid(pid, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(status, 0);
}

static int as_nobody(void)
{
	struct error err = {0};
	struct state *s;
	char path[96];

	snprintf(path, sizeof(path), "%s/theirs", top);
	if (mkdir(path, 0777) < 0 || chmod(path, 0777) < 0)
		return 1;
	setenv("LODGE_STATE_DIR", path, 1);
	if (setgid(65534) < 0 || setuid(65534) < 0)
		return 77;
	/* Somebody else's directory, even a writable one, is not trusted. */
	if (state_open(&s, &err) != -EACCES || !strstr(err.message, "somebody else"))
		return 2;
	/* A place where nothing can be made: the hint tells what to set. */
	snprintf(path, sizeof(path), "%s/below", top);
	setenv("LODGE_STATE_DIR", path, 1);
	if (state_open(&s, &err) != -EACCES || !strstr(err.hint, "LODGE_STATE_DIR"))
		return 3;
	return 0;
}

static void test_other_peoples_directories(void **context)
{
	pid_t pid;
	int status;

	chmod(top, 0755);
	pid = fork();
	if (pid == 0)
		_exit(geteuid() == 0 ? as_nobody() : 77);
	waitpid(pid, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(status, 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_first_open_makes_everything),
		TEST(test_many_open_at_once),
		TEST(test_empty_database_is_completed),
		TEST(test_newer_version_is_refused),
		TEST(test_damaged_database_is_told),
		TEST(test_constraints_have_their_errnos),
		TEST(test_parameters_and_rows),
		TEST(test_transactions),
		TEST(test_killed_in_a_transaction),
		TEST(test_reading_beside_a_writer),
		TEST(test_closed_database_opens_when_needed),
		TEST(test_read_only_file_system),
		TEST(test_other_peoples_directories),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
