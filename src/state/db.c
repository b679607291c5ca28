/*
 * The database of the state: opening, schema, queries and transactions; see state.h. SQLite is
 * spoken here only.
 */
#include "state/state.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"

#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

/* PRAGMA user_version: one more for every step in migrations[]. */
static const char *const migrations[] = {
	"CREATE TABLE images ("
	" digest TEXT PRIMARY KEY,"     /* sha256:HEX of the manifest */
	" size_bytes INTEGER NOT NULL," /* of the EROFS file */
	" created_at INTEGER NOT NULL,"
	" manifest TEXT NOT NULL" /* JSON; the file beside the image is the same */
	") STRICT;"
	"CREATE TABLE image_names ("
	" name TEXT PRIMARY KEY,"
	" digest TEXT NOT NULL REFERENCES images(digest)"
	") STRICT;"
	"CREATE INDEX image_names_digest ON image_names(digest);"
	/* Two trees for a new guest to change, this and the names': every page that a command
	 * writes is one more for the next command to read from the log. */
	"CREATE TABLE guests ("
	" id TEXT PRIMARY KEY,"
	" name TEXT NOT NULL UNIQUE,"
	" image TEXT REFERENCES images(digest),"
	" image_name TEXT,"              /* as the user wrote it */
	" id_base INTEGER,"              /* first host id of its 65,536; NULL: no user namespace */
	" config TEXT NOT NULL,"         /* JSON, guest/config.h */
	" state TEXT NOT NULL,"          /* created, running, stopped */
	" auto_remove INTEGER NOT NULL," /* --rm */
	" created_at INTEGER NOT NULL,"
	" started_at INTEGER,"
	" finished_at INTEGER,"
	" exit_status INTEGER,"
	" exit_reason TEXT" /* a sentence, where a status alone would not explain */
	") STRICT, WITHOUT ROWID;",
};

/* A command that finds no other at work reads the whole log (about 1 us a page). */
#define LOG_PAGES_TO_FOLD 48
#define LOG_PAGES_AT_MOST 200

/* How long to wait for another command's transaction. */
#define BUSY_TIMEOUT_MS 30000

static int db_error(sqlite3 *db, struct error *err, const char *what)
{
	int primary = sqlite3_errcode(db) & 0xff; /* without the extension */
	int code = EIO;

	switch (primary) {
	case SQLITE_FULL:
		code = ENOSPC;
		break;
	case SQLITE_READONLY:
	case SQLITE_CANTOPEN:
		code = EROFS;
		break;
	case SQLITE_BUSY:
		code = EAGAIN;
		break;
	case SQLITE_NOMEM:
		code = ENOMEM;
		break;
	case SQLITE_CONSTRAINT:
		code = sqlite3_extended_errcode(db) == SQLITE_CONSTRAINT_FOREIGNKEY ? EBUSY
										    : EEXIST;
		break;
	default:
		if (sqlite3_system_errno(db) == ENOSPC)
			code = ENOSPC;
		break;
	}
	if (code == ENOSPC)
		return state_no_space(err, what);
	error_set(err, code, "%s: %s", what, sqlite3_errmsg(db));
	if (primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB)
		error_hint(err, "the database is damaged: restore it from a backup, or try sqlite3 "
				"lodge.db .recover");
	return -code;
}

static int read_version(struct state *s, int64_t *version, struct error *err)
{
	autostmt sqlite3_stmt *q = NULL;
	int rc = state_query(s, &q, err, "PRAGMA user_version", "");

	if (rc < 0)
		return rc;
	rc = state_row(q, err);
	if (rc > 0)
		*version = sqlite3_column_int64(q, 0);
	return rc < 0 ? rc : 0;
}

/* The caller holds the lock on the state's directory. */
static int migrate_locked(struct state *s, struct error *err)
{
	const int64_t newest = ARRAY_SIZE(migrations);
	int64_t version = 0;
	int rc = read_version(s, &version, err);

	if (rc < 0 || version == newest)
		return rc;
	/* A property of the file, and not possible within a transaction. */
	if (sqlite3_exec(s->db, "PRAGMA journal_mode=WAL", NULL, NULL, NULL) != SQLITE_OK)
		return db_error(s->db, err, "set up the database");
	rc = state_begin(s, err);
	for (; rc == 0 && version < newest; version++) {
		if (sqlite3_exec(s->db, migrations[version], NULL, NULL, NULL) != SQLITE_OK)
			rc = db_error(s->db, err, "set up the database");
	}
	if (rc == 0) {
		char sql[40];

		snprintf(sql, sizeof(sql), "PRAGMA user_version=%d", (int)newest);
		if (sqlite3_exec(s->db, sql, NULL, NULL, NULL) != SQLITE_OK)
			rc = db_error(s->db, err, "set up the database");
	}
	if (rc == 0)
		return state_commit(s, err);
	state_rollback(s);
	return rc;
}

static int migrate(struct state *s, struct error *err)
{
	const int64_t newest = ARRAY_SIZE(migrations);
	int64_t version = 0;
	int rc = read_version(s, &version, err);

	if (rc < 0 || version == newest)
		return rc;
	if (version > newest) {
		error_set(err, ENOTSUP, "%s/lodge.db was written by a newer Lodge", s->dir);
		error_hint(err, "use that version, or set LODGE_STATE_DIR to another directory");
		return -ENOTSUP;
	}
	/*
	 * Of several first commands one migrates; the others wait here and find it done. A lock of
	 * our own: SQLite lets nobody wait whom it sees in a deadlock, which two that change the
	 * journal mode are.
	 */
	while (flock(s->fd, LOCK_EX) < 0)
		if (errno != EINTR)
			return error_sys(err, errno, "lock %s", s->dir);
	rc = migrate_locked(s, err);
	flock(s->fd, LOCK_UN);
	return rc;
}

/* SQLite's own doing at this point would be to fold in a long log; done by us, it still is, should
 * nobody ever call state_tidy(). */
static int on_commit(void *data, sqlite3 *db, const char *name, int pages)
{
	struct state *s = data;

	s->log_pages = pages;
	if (pages >= LOG_PAGES_AT_MOST)
		sqlite3_wal_checkpoint_v2(db, name, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
	return SQLITE_OK;
}

void state_tidy(struct state *s)
{
	if (!s->db || s->log_pages < LOG_PAGES_TO_FOLD)
		return;
	/* Truncated, since the next command, alone again, would not know what has been folded in.
	 * If somebody else is at work, another time. */
	sqlite3_busy_timeout(s->db, 0);
	sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
	sqlite3_busy_timeout(s->db, BUSY_TIMEOUT_MS);
}

int state_open_db(struct state *s, struct error *err)
{
	autofree char *path = str_printf("%s/lodge.db", s->dir);
	mode_t mask;
	int rc;

	if (s->db)
		return 0;
	if (!path)
		return error_oom(err);
	mask = umask(077); /* guests' environments stand in it */
	rc = sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
	umask(mask);
	if (rc != SQLITE_OK) {
		rc = db_error(s->db, err, path);
		goto fail;
	}
	sqlite3_extended_result_codes(s->db, 1);
	sqlite3_busy_timeout(s->db, BUSY_TIMEOUT_MS);
	/* Folding the log into the database costs fsync()s, so not at the end of each command:
	 * state_tidy() does it where nobody waits. */
	sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	sqlite3_wal_hook(s->db, on_commit, s);
	if (sqlite3_exec(s->db, "PRAGMA foreign_keys=ON; PRAGMA synchronous=FULL", NULL, NULL,
			 NULL) != SQLITE_OK) {
		rc = db_error(s->db, err, path);
		goto fail;
	}
	rc = migrate(s, err);
	if (rc == 0)
		return 0;
fail:
	sqlite3_close(s->db);
	s->db = NULL;
	return rc;
}

void state_close_db(struct state *s)
{
	sqlite3_close(s->db);
	s->db = NULL;
}

static int query(struct state *s, sqlite3_stmt **stmt, struct error *err, const char *sql,
		 const char *types, va_list ap)
{
	int opened = state_open_db(s, err);

	if (opened < 0)
		return opened;
	if (sqlite3_prepare_v2(s->db, sql, -1, stmt, NULL) != SQLITE_OK)
		return db_error(s->db, err, "database");
	for (int i = 1; *types; types++, i++) {
		int rc = SQLITE_OK;

		if (*types == 's')
			rc = sqlite3_bind_text(*stmt, i, va_arg(ap, const char *), -1,
					       SQLITE_STATIC);
		else if (*types == 'i')
			rc = sqlite3_bind_int64(*stmt, i, va_arg(ap, int64_t));
		if (rc != SQLITE_OK)
			return db_error(s->db, err, "database");
	}
	return 0;
}

int state_query(struct state *s, sqlite3_stmt **stmt, struct error *err, const char *sql,
		const char *types, ...)
{
	va_list ap;
	int rc;

	va_start(ap, types);
	rc = query(s, stmt, err, sql, types, ap);
	va_end(ap);
	return rc;
}

int state_row(sqlite3_stmt *stmt, struct error *err)
{
	switch (sqlite3_step(stmt)) {
	case SQLITE_ROW:
		return 1;
	case SQLITE_DONE:
		return 0;
	default:
		return db_error(sqlite3_db_handle(stmt), err, "database");
	}
}

int state_exec(struct state *s, struct error *err, const char *sql, const char *types, ...)
{
	autostmt sqlite3_stmt *stmt = NULL;
	va_list ap;
	int rc;

	va_start(ap, types);
	rc = query(s, &stmt, err, sql, types, ap);
	va_end(ap);
	if (rc < 0)
		return rc;
	rc = state_row(stmt, err);
	return rc < 0 ? rc : sqlite3_changes(s->db);
}

int state_begin(struct state *s, struct error *err)
{
	int rc = state_open_db(s, err);

	if (rc < 0)
		return rc;
	if (sqlite3_exec(s->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK)
		return db_error(s->db, err, "start a database transaction");
	return 0;
}

int state_commit(struct state *s, struct error *err)
{
	int rc = 0;

	if (sqlite3_exec(s->db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK) {
		rc = db_error(s->db, err, "commit to the database");
		state_rollback(s);
	}
	return rc;
}

void state_rollback(struct state *s)
{
	sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
}

int state_set_durable(struct state *s, bool durable, struct error *err)
{
	const char *sql = durable ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL";
	int rc = state_open_db(s, err);

	if (rc < 0)
		return rc;
	if (sqlite3_exec(s->db, sql, NULL, NULL, NULL) != SQLITE_OK)
		return db_error(s->db, err, "database");
	return 0;
}
