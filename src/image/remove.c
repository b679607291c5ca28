/* Removing a name, and with the last one the image. */
#include "image/internal.h"

#include <string.h>

static int count_names(struct state *state, const char *digest, struct error *err)
{
	autostmt sqlite3_stmt *q = NULL;
	int rc = state_query(state, &q, err, "SELECT count(*) FROM image_names WHERE digest=?", "s",
			     digest);

	if (rc == 0)
		rc = state_row(q, err);
	return rc < 0 ? rc : sqlite3_column_int(q, 0);
}

/* EBUSY with the guests' names when there are some. */
static int check_unused(struct state *state, const char *word, const char *digest,
			struct error *err)
{
	enum { SHOWN = 5 };
	autostmt sqlite3_stmt *q = NULL;
	char names[300] = "", args[300] = "";
	int n = 0, rc;

	rc = state_query(state, &q, err, "SELECT name FROM guests WHERE image=? ORDER BY name", "s",
			 digest);
	if (rc < 0)
		return rc;
	while ((rc = state_row(q, err)) > 0) {
		size_t at = strlen(names), args_at = strlen(args);

		if (n++ >= SHOWN)
			continue;
		snprintf(names + at, sizeof(names) - at, "%s%s", n > 1 ? ", " : "",
			 state_text(q, 0));
		snprintf(args + args_at, sizeof(args) - args_at, " %s", state_text(q, 0));
	}
	if (rc < 0 || n == 0)
		return rc;
	if (n > SHOWN)
		error_set(err, EBUSY, "image '%s' is used by %s and %d more", word, names,
			  n - SHOWN);
	else
		error_set(err, EBUSY, "image '%s' is used by %s", word, names);
	error_hint(err, "remove them first: lodge rm%s%s", args, n > SHOWN ? " ..." : "");
	return -EBUSY;
}

static int remove_rows(struct state *state, const char *word, struct error *err)
{
	autoimage struct image *image = NULL;
	int names, rc;

	rc = image_find(state, word, &image, err);
	if (rc < 0)
		return rc;
	names = count_names(state, image->digest, err);
	if (names < 0)
		return names;
	if (image->name && !str_eq(image->name, word) && names > 1) {
		error_set(err, EINVAL, "image %.19s has %d names", image->digest, names);
		error_hint(err, "remove its names one by one: lodge image ls");
		return -EINVAL;
	}
	if (names <= 1) {
		rc = check_unused(state, word, image->digest, err);
		if (rc < 0)
			return rc;
	}
	if (image->name) {
		rc = state_exec(state, err, "DELETE FROM image_names WHERE name=?", "s",
				image->name);
		if (rc < 0)
			return rc;
	}
	if (names > 1)
		return 0;
	rc = state_exec(state, err, "DELETE FROM images WHERE digest=?", "s", image->digest);
	return rc < 0 ? rc : 0;
}

int image_remove(struct state *state, const char *word, struct error *err)
{
	int rc = state_begin(state, err);

	if (rc < 0)
		return rc;
	rc = remove_rows(state, word, err);
	if (rc < 0) {
		state_rollback(state);
		return rc;
	}
	rc = state_commit(state, err);
	if (rc == 0)
		image_sweep(state);
	return rc;
}
