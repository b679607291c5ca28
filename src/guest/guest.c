/* Guests as rows of the database; see guest.h. */
#include "guest/guest.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/*
 * Host ids that containers' ids are shifted to: a range of 65,536 for each guest, 2,237 of them. They
 * lie between what others take for themselves: above the ranges of useradd (/etc/subuid, from
 * 100,000), of systemd's containers (524,288 to 1,879,048,191) and of SSSD (to 2,000,200,000), and
 * below systemd's foreign ids (from 2,147,352,576).
 */
#define FIRST_ID_BASE INT64_C(0x77400000)
#define LAST_ID_BASE  INT64_C(0x7ffc0000)

#define COLUMNS                                                                                    \
	"id, name, image, image_name, id_base, config, state, auto_remove, created_at,"            \
	" started_at, finished_at, exit_status, exit_reason"

static const char *const state_names[] = {"created", "running", "stopped"};

const char *guest_state_name(enum guest_state state)
{
	return state_names[state];
}

void guest_path(const char *id, char path[static GUEST_PATH_MAX])
{
	snprintf(path, GUEST_PATH_MAX, "guests/%s", id);
}

void guest_free(struct guest *g)
{
	if (!g)
		return;
	free(g->name);
	free(g->image);
	free(g->image_name);
	free(g->exit_reason);
	guest_config_clear(&g->config);
	free(g);
}

int guest_check_name(const char *name, struct error *err)
{
	size_t len = strlen(name);
	bool ok = len > 0 && len <= 63 && isalnum((unsigned char)name[0]);

	for (const char *p = name; *p; p++)
		ok = ok && (isalnum((unsigned char)*p) || strchr("_.-", *p));
	if (ok)
		return 0;
	error_set(err, EINVAL, "'%s' can't be a guest's name", name);
	error_hint(err, "letters, digits, '-', '_' and '.', at most 63, beginning with a letter or "
			"digit");
	return -EINVAL;
}

static char *column_dup(sqlite3_stmt *q, int column)
{
	const char *s = (const char *)sqlite3_column_text(q, column);

	return s ? strdup(s) : NULL;
}

static int guest_from_row(sqlite3_stmt *q, struct guest **out, struct error *err)
{
	autoguest struct guest *g = calloc(1, sizeof(*g));
	autojson json_t *config = NULL;
	const char *state;
	int rc;

	if (!g)
		return error_oom(err);
	snprintf(g->id, sizeof(g->id), "%s", state_text(q, 0));
	g->name = column_dup(q, 1);
	g->image = column_dup(q, 2);
	g->image_name = column_dup(q, 3);
	g->id_base = sqlite3_column_int64(q, 4);
	/* One bad row must not hide the others, and has to be removable. */
	rc = json_parse(state_text(q, 5), "the guest's configuration", &config, NULL);
	if (!rc)
		rc = guest_config_from_json(config, &g->config, NULL);
	g->damaged = rc < 0;
	state = state_text(q, 6);
	for (size_t i = 0; i < ARRAY_SIZE(state_names); i++)
		if (str_eq(state, state_names[i]))
			g->state = (enum guest_state)i;
	g->auto_remove = sqlite3_column_int64(q, 7);
	g->created_at = sqlite3_column_int64(q, 8);
	g->started_at = sqlite3_column_int64(q, 9);
	g->finished_at = sqlite3_column_int64(q, 10);
	g->exit_status = sqlite3_column_type(q, 11) == SQLITE_NULL ? -1 : sqlite3_column_int(q, 11);
	g->exit_reason = column_dup(q, 12);
	if (!g->name)
		return error_oom(err);
	*out = steal_ptr(&g);
	return 0;
}

int guest_find(struct state *s, const char *name_or_id, struct guest **guest, struct error *err)
{
	autostmt sqlite3_stmt *q = NULL;
	autofree char *prefix = NULL;
	bool is_hex = strspn(name_or_id, "0123456789abcdef") == strlen(name_or_id);
	int rc;

	/* A name wins over an id, an exact id over a prefix. */
	prefix = str_printf("%s*", is_hex && strlen(name_or_id) >= 3 ? name_or_id : "!");
	if (!prefix)
		return error_oom(err);
	rc = state_query(s, &q, err,
			 "SELECT " COLUMNS " FROM guests WHERE name=?1 OR id GLOB ?2"
			 " ORDER BY name=?1 DESC LIMIT 2",
			 "ss", name_or_id, prefix);
	if (rc < 0)
		return rc;
	rc = state_row(q, err);
	if (rc < 0)
		return rc;
	if (rc == 0) {
		error_set(err, ENOENT, "no guest named '%s'", name_or_id);
		error_hint(err, "'lodge ls -a' lists all guests");
		return -ENOENT;
	}
	rc = guest_from_row(q, guest, err);
	if (rc < 0 || str_eq((*guest)->name, name_or_id))
		return rc;
	rc = state_row(q, err);
	if (rc > 0)
		rc = error_set(err, EINVAL, "several guests' ids begin with '%s'", name_or_id);
	if (rc < 0) {
		guest_free(*guest);
		*guest = NULL;
	}
	return rc;
}

void guest_list_free(struct guest_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		guest_free(list->v[i]);
	free(list->v);
	*list = (struct guest_list){0};
}

int guest_list(struct state *s, struct guest_list *list, struct error *err)
{
	autostmt sqlite3_stmt *q = NULL;
	int rc = state_query(s, &q, err, "SELECT " COLUMNS " FROM guests ORDER BY created_at, name",
			     "");

	if (rc < 0)
		return rc;
	while ((rc = state_row(q, err)) > 0) {
		struct guest **v = realloc(list->v, (list->n + 1) * sizeof(*v));

		if (!v)
			return error_oom(err);
		list->v = v;
		rc = guest_from_row(q, &list->v[list->n], err);
		if (rc < 0)
			return rc;
		list->n++;
	}
	return rc;
}

static int make_id(struct guest *g, struct error *err)
{
	uint64_t random;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return error_sys(err, errno, "get random bytes");
	snprintf(g->id, sizeof(g->id), "%012llx", (unsigned long long)(random >> 16));
	return 0;
}

/* "debian-3f2a": what it is, and enough digits of the id to tell it from its sisters. */
static int make_name(struct guest *g, struct error *err)
{
	const char *image = g->image_name ? g->image_name : "guest";
	const char *slash = strrchr(image, '/');
	size_t len;

	image = slash ? slash + 1 : image;
	len = strcspn(image, ":@");
	g->name = str_printf("%.*s-%.4s", (int)(len < 50 ? len : 50), image, g->id);
	return g->name ? 0 : error_oom(err);
}

/* The range above the highest in use; once the end has been reached, one between. */
static int find_id_base(struct state *s, int64_t *id_base, struct error *err)
{
	autostmt sqlite3_stmt *q = NULL;
	int rc = state_query(s, &q, err, "SELECT max(id_base) FROM guests", "");

	if (rc == 0)
		rc = state_row(q, err);
	if (rc < 0)
		return rc;
	*id_base = sqlite3_column_type(q, 0) == SQLITE_NULL
			   ? FIRST_ID_BASE
			   : sqlite3_column_int64(q, 0) + CONTAINER_IDS;
	if (*id_base <= LAST_ID_BASE)
		return 0;
	/* The end of the range has been reached once: look for a gap. */
	sqlite3_finalize(steal_ptr(&q));
	rc = state_query(
		s, &q, err,
		"SELECT min(a.id_base) - ?1 FROM guests a WHERE a.id_base > ?2 AND NOT EXISTS"
		" (SELECT 1 FROM guests b WHERE b.id_base = a.id_base - ?1)",
		"ii", (int64_t)CONTAINER_IDS, FIRST_ID_BASE);
	if (rc == 0)
		rc = state_row(q, err);
	if (rc < 0)
		return rc;
	if (sqlite3_column_type(q, 0) == SQLITE_NULL)
		return error_set(err, ENOSPC, "all ranges of user ids for guests are in use");
	*id_base = sqlite3_column_int64(q, 0);
	return 0;
}

static int insert(struct state *s, struct guest *g, struct error *err)
{
	autojson json_t *json = guest_config_to_json(&g->config);
	autofree char *config = json ? json_text(json) : NULL;
	int rc;

	if (!config)
		return error_set(err, EINVAL, "the configuration has text that is not UTF-8");
	rc = find_id_base(s, &g->id_base, err);
	if (rc < 0)
		return rc;
	rc = state_exec(s, err,
			"INSERT INTO guests (id, name, image, image_name, id_base, config, state,"
			" auto_remove, created_at, started_at) VALUES (?,?,?,?,?,?,?,?,?,?)",
			"ssssissiii", g->id, g->name, g->image, g->image_name, g->id_base, config,
			state_names[g->state], (int64_t)g->auto_remove, g->created_at,
			g->started_at);
	if (rc == -EEXIST) {
		error_set(err, EEXIST, "a guest named '%s' exists already", g->name);
		error_hint(err, "choose another --name, or remove it: lodge rm %s", g->name);
	} else if (rc == -EBUSY) {
		error_set(err, ENOENT, "the image '%s' has just been removed", g->image_name);
		return -ENOENT;
	}
	return rc < 0 ? rc : 0;
}

int guest_create(struct state *s, struct guest *g, int *lock_fd, struct error *err)
{
	int rc = 0;

	if (geteuid() != 0) {
		error_set(err, EPERM, "containers need root in this version of Lodge");
		error_hint(err, "run it with sudo");
		return -EPERM;
	}
	if (g->name)
		rc = guest_check_name(g->name, err);
	if (!rc)
		rc = state_check_space(s, err);
	if (!rc)
		rc = make_id(g, err);
	if (!rc && !g->name)
		rc = make_name(g, err);
	if (!rc && !g->config.hostname && !(g->config.hostname = strdup(g->name)))
		rc = error_oom(err);
	if (rc < 0)
		return rc;
	g->created_at = state_now();
	if (lock_fd) {
		rc = guest_lock(s, g->id, lock_fd, err);
		if (rc < 0)
			return rc;
		g->started_at = g->created_at;
	}
	rc = state_begin(s, err);
	if (!rc) {
		rc = insert(s, g, err);
		if (rc < 0)
			state_rollback(s);
		else
			rc = state_commit(s, err);
	}
	if (rc < 0 && lock_fd)
		guest_unlock(s, g->id, lock_fd);
	return rc;
}

int guest_record_exit(struct state *s, const struct guest *g, int exit_status, const char *reason,
		      struct error *err)
{
	int rc;

	if (g->auto_remove)
		rc = state_exec(s, err, "DELETE FROM guests WHERE id=?", "s", g->id);
	else
		rc = state_exec(s, err,
				"UPDATE guests SET state='stopped', finished_at=?, exit_status=?,"
				" exit_reason=? WHERE id=?",
				"iiss", state_now(), (int64_t)exit_status, reason, g->id);
	return rc < 0 ? rc : 0;
}
