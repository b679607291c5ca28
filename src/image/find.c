/* Looking images up: by name, by digest, all of them. */
#include "base/json.h"
#include "image/internal.h"

#include <ctype.h>
#include <string.h>

#define COLUMNS "i.digest, i.size_bytes, i.created_at, i.manifest"

void image_free(struct image *image)
{
	if (!image)
		return;
	json_decref(image->manifest);
	free(image->digest);
	free(image->name);
	free(image);
}

int image_from_row(sqlite3_stmt *row, struct image **out, struct error *err)
{
	autoimage struct image *image = calloc(1, sizeof(*image));
	const char *name = (const char *)sqlite3_column_text(row, 4);
	int rc;

	if (!image)
		return error_oom(err);
	image->digest = strdup(state_text(row, 0));
	image->name = name ? strdup(name) : NULL;
	if (!image->digest || (name && !image->name))
		return error_oom(err);
	image->size_bytes = (uint64_t)sqlite3_column_int64(row, 1);
	image->created_at = sqlite3_column_int64(row, 2);
	rc = json_parse(state_text(row, 3), "the image's manifest", &image->manifest, err);
	if (rc < 0)
		return rc;
	if (!json_is_object(image->manifest))
		return error_set(err, EINVAL, "the manifest of %s is not an object", image->digest);
	*out = steal_ptr(&image);
	return 0;
}

/* 1: found; 0: none; negative errno, EINVAL where there are several. */
static int find_row(struct state *state, struct image **image, struct error *err, const char *sql,
		    const char *a, const char *b, const char *typed)
{
	autostmt sqlite3_stmt *q = NULL;
	int rc = state_query(state, &q, err, sql, b ? "ss" : "s", a, b);

	if (rc < 0)
		return rc;
	rc = state_row(q, err);
	if (rc <= 0)
		return rc;
	rc = image_from_row(q, image, err);
	if (rc < 0)
		return rc;
	rc = state_row(q, err);
	if (rc == 0)
		return 1;
	image_free(steal_ptr(image));
	if (rc < 0)
		return rc;
	error_set(err, EINVAL, "several images' digests begin with '%s'", typed);
	error_hint(err, "write more of its digits: lodge image ls");
	return -EINVAL;
}

/*
 * A name that the user may have meant: equal but for case, or one begins with the other, or one
 * letter is wrong, missing, too many, or swapped with its neighbour.
 */
static bool is_near(const char *a, const char *b)
{
	size_t la = strlen(a), lb = strlen(b), head = 0, tail = 0;

	if (!strncasecmp(a, b, la < lb ? la : lb) && la && lb)
		return true;
	while (a[head] && tolower(a[head]) == tolower(b[head]))
		head++;
	while (tail < la - head && tail < lb - head &&
	       tolower(a[la - 1 - tail]) == tolower(b[lb - 1 - tail]))
		tail++;
	la -= head + tail;
	lb -= head + tail;
	return (la <= 1 && lb <= 1) ||
	       (la == 2 && lb == 2 && a[head] == b[head + 1] && a[head + 1] == b[head]);
}

static int not_found(struct state *state, const char *name, struct error *err)
{
	autostmt sqlite3_stmt *q = NULL;
	const char *hint = NULL;

	error_set(err, ENOENT, "no image named '%s'", name);
	if (state_query(state, &q, NULL, "SELECT name FROM image_names ORDER BY name", "") < 0)
		return -ENOENT;
	while (state_row(q, NULL) > 0) {
		hint = "see 'lodge image ls'";
		if (is_near(name, state_text(q, 0))) {
			error_hint(err, "did you mean '%s'? See 'lodge image ls'",
				   state_text(q, 0));
			return -ENOENT;
		}
	}
	error_hint(err, "%s; build one with 'lodge image build NAME --debian bookworm'",
		   hint ? hint : "there are no images yet");
	return -ENOENT;
}

int image_find(struct state *state, const char *word, struct image **image, struct error *err)
{
	char low[sizeof(DIGEST_PREFIX) + HEX_LENGTH];
	char high[sizeof(DIGEST_PREFIX) + HEX_LENGTH + 1];
	const char *digits;
	int rc;

	rc = find_row(state, image, err,
		      "SELECT " COLUMNS ", n.name FROM image_names n JOIN images i USING (digest) "
		      "WHERE n.name=?",
		      word, NULL, word);
	if (rc != 0)
		return rc < 0 ? rc : 0;
	digits = digest_digits(word);
	if (!digits)
		return not_found(state, word, err);
	/* 'g' is behind all digits: a range, so that the index serves. */
	snprintf(low, sizeof(low), DIGEST_PREFIX "%.64s", digits);
	snprintf(high, sizeof(high), DIGEST_PREFIX "%.64sg", digits);
	rc = find_row(state, image, err,
		      "SELECT " COLUMNS ", (SELECT min(name) FROM image_names n WHERE "
		      "n.digest=i.digest) FROM images i WHERE i.digest >= ? AND i.digest < ?",
		      low, high, word);
	if (rc != 0)
		return rc < 0 ? rc : 0;
	return not_found(state, word, err);
}

int image_list(struct state *state, struct image_list *list, struct error *err)
{
	autoimagelist struct image_list all = {0};
	autostmt sqlite3_stmt *q = NULL;
	int rc;

	rc = state_query(state, &q, err,
			 "SELECT " COLUMNS ", n.name FROM images i LEFT JOIN image_names n "
			 "USING (digest) ORDER BY n.name IS NULL, n.name, i.created_at",
			 "");
	if (rc < 0)
		return rc;
	while ((rc = state_row(q, err)) > 0) {
		struct image **grown = realloc(all.v, (all.n + 1) * sizeof(struct image *));

		if (!grown)
			return error_oom(err);
		all.v = grown;
		rc = image_from_row(q, &all.v[all.n], err);
		if (rc < 0)
			return rc;
		all.n++;
	}
	if (rc < 0)
		return rc;
	*list = all;
	all = (struct image_list){0};
	return 0;
}

void image_list_free(struct image_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		image_free(list->v[i]);
	free(list->v);
	*list = (struct image_list){0};
}

char *image_rootfs_path(struct state *state, const char *digest)
{
	return str_printf("%s/images/sha256/%s/" ROOTFS_FILE, state->dir,
			  digest + strlen(DIGEST_PREFIX));
}
