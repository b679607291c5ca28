/*
 * Where Lodge keeps what it knows. One SQLite database for what is queried (images, guests), and
 * directories for what is large. Every command opens the state, works, and closes it; commands run
 * at the same time and may be killed at any moment. Two rules make that safe:
 *
 *   - A row in the database is the truth. A directory without its row is garbage, which
 *     state users sweep away; a row whose directory is missing gets a new one.
 *   - Whoever runs or removes a guest holds the lock on its run directory (guest/). The kernel
 *     drops it with the process, so a stale "running" can always be told from a real one.
 *
 *   <state>/lodge.db            as root /var/lib/lodge, else $XDG_DATA_HOME/lodge;
 *                               the environment variable LODGE_STATE_DIR overrides
 *   <state>/images/sha256/HEX/  an image: root.erofs and manifest.json     (image/)
 *   <state>/guests/ID/          a guest: writable layer, logs              (guest/)
 *   <state>/reserve             room for the database's log when the disk is full
 *   <state>/tmp/                work in progress; flock()ed directories
 *   <run>/guests/ID/            as root /run/lodge, else $XDG_RUNTIME_DIR/lodge;
 *                               LODGE_RUNTIME_DIR overrides. Lock, control socket, mounts.
 */
#pragma once

#include "base/error.h"

#include <sqlite3.h>
#include <stdint.h>

struct state {
	char *dir;     /* <state>, absolute */
	char *run_dir; /* <run>, absolute */
	int fd;        /* <state>, O_RDONLY */
	int run_fd;    /* <run>, O_RDONLY */
	sqlite3 *db;
	int log_pages; /* in the database's write-ahead log after our last commit */
};

/* Opens the state, making what is missing. Errors: EACCES, EROFS, ENOSPC, and ENOTSUP where a newer
 * Lodge wrote the database. */
int state_open(struct state **state, struct error *err);
void state_close(struct state *state);

static inline void cleanup_state(struct state **state)
{
	state_close(*state);
}

#define autostate __attribute__((cleanup(cleanup_state)))

/* Whether there is room to begin something new; removing works with less. Errors: ENOSPC. */
int state_check_space(const struct state *state, struct error *err);

/* "WHAT: No space left on device", with what to do. Returns -ENOSPC. */
int state_no_space(struct error *err, const char *what);

/*
 * Closes the database; whatever needs it next opens it again. To be called before fork(): SQLite's
 * connections don't survive one, and the child could not even close their files, since that would
 * drop the locks of its own connection (fcntl(2), "advisory record locking").
 */
void state_close_db(struct state *state);

/* Opens the database where it is closed, ahead of need. */
int state_open_db(struct state *state, struct error *err);

/* Folds the database's log in when it has grown. Takes some milliseconds then: for when nobody
 * waits. */
void state_tidy(struct state *state);

/*
 * A prepared statement with its parameters bound. `types` has a letter a parameter: s text (NULL
 * binds NULL), i int64_t (not int!), n NULL. The texts must live until state_end().
 *
 *     autostmt sqlite3_stmt *q = NULL;
 *     rc = state_query(state, &q, err, "SELECT id FROM guests WHERE name=?", "s", name);
 *     while ((rc = state_row(q, err)) > 0) ... sqlite3_column_text(q, 0) ...
 */
int state_query(struct state *state, sqlite3_stmt **stmt, struct error *err, const char *sql,
		const char *types, ...);

/* 1: a row is there; 0: no more; negative errno. */
int state_row(sqlite3_stmt *stmt, struct error *err);

/* Runs a statement without rows; returns how many rows it changed, or a negative errno. EEXIST: a
 * UNIQUE constraint. EBUSY: a FOREIGN KEY constraint (something refers to it). */
int state_exec(struct state *state, struct error *err, const char *sql, const char *types, ...);

/* A write transaction (BEGIN IMMEDIATE); ends by commit, or by rollback, which never fails. */
int state_begin(struct state *state, struct error *err);
int state_commit(struct state *state, struct error *err);
void state_rollback(struct state *state);

/*
 * Whether a committed change must be on the medium before the call returns (the default), or may
 * be lost, never torn, by a power cut: right for a guest that is removed when it stops.
 */
int state_set_durable(struct state *state, bool durable, struct error *err);

static inline void cleanup_stmt(sqlite3_stmt **stmt)
{
	sqlite3_finalize(*stmt);
}

#define autostmt __attribute__((cleanup(cleanup_stmt)))

/* A column's text, or "" for NULL; valid until the next state_row(). */
static inline const char *state_text(sqlite3_stmt *stmt, int column)
{
	const char *s = (const char *)sqlite3_column_text(stmt, column);

	return s ? s : "";
}

/* Seconds since 1970 as Lodge stores times. */
int64_t state_now(void);
