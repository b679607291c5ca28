/*
 * Guests: their rows in the database, who may touch them when, and what starts, stops and removes
 * them. Every verb of the command line (and later the API) goes through here.
 *
 * A guest's life, and what holds the truth at each step:
 *
 *   row in the database    it exists. Created and removed by one transaction.
 *   <state>/guests/ID/     its writable layer (rw/upper, rw/work) and log. Made at the first start;
 *                          without a row it is garbage.
 *   <run>/guests/ID/       made to start it. Whoever holds the flock() on this directory may start,
 *                          remove or clean it up; its monitor holds it as long as the guest runs. A
 *                          lock that is free under a row that says "running" means that the
 *                          monitor was killed: guest_sweep() tidies that up.
 */
#pragma once

#include "guest/config.h"
#include "state/state.h"

#include <sys/types.h>

enum guest_state {
	GUEST_CREATED, /* never started */
	GUEST_RUNNING,
	GUEST_STOPPED,
};

struct guest {
	char id[16]; /* 12 hexadecimal digits */
	char *name;
	char *image;      /* digest */
	char *image_name; /* as the user wrote it */
	int64_t id_base;  /* first host id of its user namespace */
	struct guest_config config;
	bool damaged; /* its configuration can't be read: it can only be removed */
	enum guest_state state;
	bool auto_remove;
	int64_t created_at, started_at, finished_at; /* seconds since 1970; 0: never */
	int exit_status;                             /* -1: none yet */
	char *exit_reason;                           /* NULL: the status says it all */
};

void guest_free(struct guest *guest);

static inline void cleanup_guest(struct guest **guest)
{
	guest_free(*guest);
}

#define autoguest __attribute__((cleanup(cleanup_guest)))

/* "created", "running", "stopped". */
const char *guest_state_name(enum guest_state state);

/* Letters, digits and "_.-", begins with a letter or digit, at most 63: a host name's label. */
int guest_check_name(const char *name, struct error *err);

/* By name, or by id or its first digits (3 or more). Errors: ENOENT. */
int guest_find(struct state *state, const char *name_or_id, struct guest **guest,
	       struct error *err);

struct guest_list {
	struct guest **v;
	size_t n;
};

/* All of them, oldest first. */
int guest_list(struct state *state, struct guest_list *list, struct error *err);
void guest_list_free(struct guest_list *list);

#define autoguestlist __attribute__((cleanup(guest_list_free)))

/*
 * Adds the row of a new guest. The caller has filled config, image, image_name, auto_remove, state
 * and name (NULL: one is made up); id, id_base and created_at are filled here. Where `lock_fd` is
 * not NULL, it gets the guest's lock, taken before anybody else could see the guest.
 * Errors: EEXIST for the name, EINVAL, ENOENT where the image has been removed meanwhile.
 */
int guest_create(struct state *state, struct guest *guest, int *lock_fd, struct error *err);

/* Takes the guest's lock. Errors: EBUSY: it runs (or is being started for a long time). */
int guest_lock(struct state *state, const char *id, int *lock_fd, struct error *err);

/* Removes <run>/guests/ID, which gives the lock back. */
void guest_unlock(struct state *state, const char *id, int *lock_fd);

/*
 * Starts a guest whose lock the caller holds (and hands over, also on failure): forks its monitor.
 * `*client_fd` is a control connection to it (control.h) that is attached to the guest's output,
 * and where `stdin_too`, input; the first message on it says whether the guest started.
 */
int guest_start(struct state *state, struct guest *guest, int *lock_fd, bool stdin_too,
		int *client_fd, struct error *err);

/* Removes a guest that does not run. Errors: EBUSY where it does. */
int guest_remove(struct state *state, struct guest *guest, struct error *err);

/* Connects to the monitor. Errors: ESRCH where the guest does not run. */
int guest_connect(struct state *state, const struct guest *guest, int *fd, struct error *err);

/*
 * Cleans up what killed commands and monitors left: guests that are said to run and don't, control
 * groups, directories without a row. Cheap when there is nothing. Never fails: what can't be
 * cleaned now is left to the next call, with a warning in the log.
 */
void guest_sweep(struct state *state);

/* Its two halves: what could be in the way of a new guest, and what can wait until that runs. */
void guest_sweep_guests(struct state *state);
void guest_sweep_images(struct state *state);

/* Marks the end in the database: the row is updated or, with auto_remove, deleted. */
int guest_record_exit(struct state *state, const struct guest *guest, int exit_status,
		      const char *reason, struct error *err);

/* Removes <state>/guests/ID of a guest that has no row any more; failures go to the log. */
void guest_remove_files(struct state *state, const char *id);

/* guests/ID below the state or the run directory. */
#define GUEST_PATH_MAX 32
void guest_path(const char *id, char path[static GUEST_PATH_MAX]);
