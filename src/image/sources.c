/* See sources.h. The formats are those of sources.list(5). */
#include "image/sources.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <ctype.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>

static void source_free(struct apt_source *s)
{
	free(s->uri);
	free(s->suite);
	free(s->signed_by);
	strv_free(&s->components);
}

void apt_sources_free(struct apt_sources *sources)
{
	for (size_t i = 0; i < sources->n; i++)
		source_free(&sources->v[i]);
	free(sources->v);
	*sources = (struct apt_sources){0};
}

void apt_sources_drop(struct apt_sources *sources, size_t index)
{
	source_free(&sources->v[index]);
	sources->n--;
	memmove(&sources->v[index], &sources->v[index + 1],
		(sources->n - index) * sizeof(*sources->v));
}

static int add(struct apt_sources *sources, const char *uri, const char *suite,
	       const struct strv *components, const char *signed_by, bool trusted,
	       struct error *err)
{
	struct apt_source *grown = realloc(sources->v, (sources->n + 1) * sizeof(*grown));
	struct apt_source *s;
	int rc = 0;

	if (!grown)
		return error_oom(err);
	sources->v = grown;
	s = &grown[sources->n++];
	*s = (struct apt_source){.trusted = trusted, .uri = strdup(uri), .suite = strdup(suite)};
	/* Fingerprints say which of the host's keys may sign; without them all may. */
	if (signed_by && signed_by[0] != '/' && !str_starts_with(signed_by, "-----BEGIN"))
		signed_by = NULL;
	if (signed_by)
		s->signed_by = strdup(signed_by);
	if (!s->uri || !s->suite || (signed_by && !s->signed_by))
		return error_oom(err);
	/* Lists of paths have blanks between them in the one format, commas in the other. */
	for (char *p = s->signed_by; p && *p && s->signed_by[0] == '/'; p++)
		if (isspace((unsigned char)*p))
			*p = ',';
	/* http://host/debian/ is http://host/debian */
	for (size_t n = strlen(s->uri); n > 0 && s->uri[n - 1] == '/'; n--)
		s->uri[n - 1] = '\0';
	for (size_t i = 0; rc == 0 && i < components->n; i++)
		rc = strv_push(&s->components, components->v[i], err);
	return rc;
}

static int split(const char *text, const char *separators, struct strv *words, struct error *err)
{
	autofree char *copy = strdup(text);
	char *save = NULL;
	int rc = 0;

	if (!copy)
		return error_oom(err);
	for (char *w = strtok_r(copy, separators, &save); w && rc == 0;
	     w = strtok_r(NULL, separators, &save))
		rc = strv_push(words, w, err);
	return rc;
}

static bool has_word(const char *list, const char *separators, const char *word)
{
	size_t len = strlen(word);

	while (*(list += strspn(list, separators))) {
		size_t n = strcspn(list, separators);

		if (n == len && !strncasecmp(list, word, n))
			return true;
		list += n;
	}
	return false;
}

static bool is_yes(const char *s)
{
	return s && (!strcasecmp(s, "yes") || !strcasecmp(s, "true") || str_eq(s, "1"));
}

static bool is_no(const char *s)
{
	return s && (!strcasecmp(s, "no") || !strcasecmp(s, "false") || str_eq(s, "0"));
}

/* deb [option=value ...] uri suite component... */
static int parse_line(char *line, struct apt_sources *sources, struct error *err)
{
	const char *signed_by = NULL;
	bool trusted = false;
	autostrv struct strv words = {0};
	struct strv components;
	int rc;

	line[strcspn(line, "#")] = '\0';
	line += strspn(line, " \t");
	if (strncmp(line, "deb", 3) || !isspace((unsigned char)line[3]))
		return 0;
	line += 3 + strspn(line + 3, " \t");
	if (*line == '[') {
		char *end = strchr(line, ']'), *save = NULL;

		if (!end)
			return 0;
		*end = '\0';
		for (char *o = strtok_r(line + 1, " \t", &save); o;
		     o = strtok_r(NULL, " \t", &save)) {
			if (!strncasecmp(o, "signed-by=", 10))
				signed_by = o + 10;
			else if (!strncasecmp(o, "trusted=", 8))
				trusted = is_yes(o + 8);
			else if (!strncasecmp(o, "arch=", 5) && !has_word(o + 5, ",", "amd64"))
				return 0;
		}
		line = end + 1;
	}
	rc = split(line, " \t\r", &words, err);
	if (rc < 0 || words.n < 2)
		return rc;
	components = (struct strv){.v = words.v + 2, .n = words.n - 2};
	return add(sources, words.v[0], words.v[1], &components, signed_by, trusted, err);
}

int apt_sources_parse_list(const char *text, struct apt_sources *sources, struct error *err)
{
	autofree char *copy = strdup(text);
	char *save = NULL;
	int rc = 0;

	if (!copy)
		return error_oom(err);
	for (char *line = strtok_r(copy, "\n", &save); line && rc == 0;
	     line = strtok_r(NULL, "\n", &save))
		rc = parse_line(line, sources, err);
	return rc;
}

enum { TYPES, URIS, SUITES, COMPONENTS, SIGNED_BY, ENABLED, ARCHITECTURES, TRUSTED, N_FIELDS };

static const char *const field_names[N_FIELDS] = {
	[TYPES] = "Types",
	[URIS] = "URIs",
	[SUITES] = "Suites",
	[COMPONENTS] = "Components",
	[SIGNED_BY] = "Signed-By",
	[ENABLED] = "Enabled",
	[ARCHITECTURES] = "Architectures",
	[TRUSTED] = "Trusted",
};

#define BLANKS " \t\r\n"

static int add_paragraph(char *fields[N_FIELDS], struct apt_sources *sources, struct error *err)
{
	autostrv struct strv uris = {0};
	autostrv struct strv suites = {0};
	autostrv struct strv components = {0};
	int rc;

	if (!fields[TYPES] || !has_word(fields[TYPES], BLANKS, "deb") || !fields[URIS] ||
	    !fields[SUITES] || is_no(fields[ENABLED]) ||
	    (fields[ARCHITECTURES] && !has_word(fields[ARCHITECTURES], BLANKS, "amd64")))
		return 0;
	rc = split(fields[URIS], BLANKS, &uris, err);
	if (rc == 0)
		rc = split(fields[SUITES], BLANKS, &suites, err);
	if (rc == 0 && fields[COMPONENTS])
		rc = split(fields[COMPONENTS], BLANKS, &components, err);
	for (size_t u = 0; u < uris.n; u++)
		for (size_t s = 0; rc == 0 && s < suites.n; s++)
			rc = add(sources, uris.v[u], suites.v[s], &components, fields[SIGNED_BY],
				 is_yes(fields[TRUSTED]), err);
	return rc;
}

static void clear_fields(char *fields[N_FIELDS])
{
	for (int i = 0; i < N_FIELDS; i++) {
		free(fields[i]);
		fields[i] = NULL;
	}
}

/* Appends a continuation line; the " ." of an armored key is an empty line. */
static int append(char **field, const char *line, struct error *err)
{
	char *joined;

	line += strspn(line, " \t");
	joined = str_printf("%s%s%s", *field, **field ? "\n" : "", str_eq(line, ".") ? "" : line);
	if (!joined)
		return error_oom(err);
	free(*field);
	*field = joined;
	return 0;
}

int apt_sources_parse_deb822(const char *text, struct apt_sources *sources, struct error *err)
{
	char *fields[N_FIELDS] = {0};
	char **current = NULL;
	int rc = 0;

	while (*text && rc == 0) {
		size_t len = strcspn(text, "\n");
		autofree char *line = strndup(text, len);

		text += len + (text[len] == '\n');
		if (!line) {
			rc = error_oom(err);
		} else if (*line == '#') {
			continue;
		} else if (!*str_chomp(line)) {
			rc = add_paragraph(fields, sources, err);
			clear_fields(fields);
			current = NULL;
		} else if (isblank((unsigned char)*line)) {
			if (current)
				rc = append(current, line, err);
		} else {
			size_t key = strcspn(line, ":");

			current = NULL;
			for (int i = 0; i < N_FIELDS && line[key]; i++) {
				if (strlen(field_names[i]) != key ||
				    strncasecmp(line, field_names[i], key))
					continue;
				current = &fields[i];
				free(*current);
				*current = strdup(line + key + 1 + strspn(line + key + 1, " \t"));
				if (!*current)
					rc = error_oom(err);
			}
		}
	}
	if (rc == 0)
		rc = add_paragraph(fields, sources, err);
	clear_fields(fields);
	return rc;
}

/* apt reads names that end so and consist of letters, digits, "_", "-" and "." only. */
static bool has_suffix(const char *name, const char *suffix)
{
	size_t n = strlen(name), m = strlen(suffix);

	for (const char *p = name; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr("_-.", *p))
			return false;
	return n > m && str_eq(name + n - m, suffix);
}

int apt_sources_read(const char *etc_apt, struct apt_sources *sources, struct error *err)
{
	enum { LIMIT = 1 << 20 };
	autofd int fd = open(etc_apt, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	autofree char *text = NULL;
	struct dirent **entries = NULL;
	int n, parts, rc = 0;

	if (fd < 0)
		return 0;
	if (file_read_at(fd, "sources.list", LIMIT, &text, NULL, NULL) == 0)
		rc = apt_sources_parse_list(text, sources, err);
	parts = openat(fd, "sources.list.d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (parts < 0)
		return rc;
	n = scandirat(parts, ".", &entries, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		bool list = has_suffix(entries[i]->d_name, ".list");
		autofree char *part = NULL;

		if (rc == 0 && (list || has_suffix(entries[i]->d_name, ".sources")) &&
		    file_read_at(parts, entries[i]->d_name, LIMIT, &part, NULL, NULL) == 0)
			rc = list ? apt_sources_parse_list(part, sources, err)
				  : apt_sources_parse_deb822(part, sources, err);
		free(entries[i]);
	}
	free(entries);
	close(parts);
	return rc;
}

/* Choosing */

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && str_eq(s + n - m, end);
}

static bool is_security(const char *suite)
{
	return ends_with(suite, "-security") || ends_with(suite, "/updates");
}

/* Suites of the Debian archive; others are somebody else's ("nodistro", "bookworm-pgdg"). */
static bool is_debian_suite(const char *suite)
{
	static const char suites[] = "buster bullseye bookworm trixie forky duke sid "
				     "oldoldstable oldstable stable testing unstable experimental";
	autofree char *base = strdup(suite);

	if (!base)
		return false;
	if (is_security(base))
		base[strlen(base) - strlen("-security") + (ends_with(base, "/updates") ? 1 : 0)] =
			'\0';
	else if (ends_with(base, "-updates"))
		base[strlen(base) - strlen("-updates")] = '\0';
	return has_word(suites, " ", base);
}

/* "debian" or "debian-security" as a directory in the URI. */
static bool has_directory(const char *uri, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = uri; (p = strchr(p, '/'));)
		if (!strncmp(++p, name, len) && (p[len] == '/' || !p[len]))
			return true;
	return false;
}

/* How much speaks for a source being the Debian archive; 0: it is not. */
static int score(const struct apt_source *s, const char *wanted)
{
	bool main = false;
	int points = 0;

	for (size_t i = 0; i < s->components.n; i++)
		main |= str_eq(s->components.v[i], "main");
	if (!main || !is_debian_suite(s->suite) || str_starts_with(s->uri, "cdrom:"))
		return 0;
	/* Third parties offer a "bookworm main" too. */
	if (s->signed_by && strstr(s->signed_by, "debian-archive"))
		points += 4;
	if (has_directory(s->uri, "debian") || has_directory(s->uri, "debian-security"))
		points += 2;
	return points ? points + str_eq(s->suite, wanted) : 0;
}

enum kind { KIND_MAIN, KIND_UPDATES, KIND_SECURITY };

static const struct apt_source *best(const struct apt_sources *host, enum kind kind,
				     const char *wanted)
{
	const struct apt_source *found = NULL;
	int most = 0;

	for (size_t i = 0; i < host->n; i++) {
		const struct apt_source *s = &host->v[i];
		enum kind k = is_security(s->suite)             ? KIND_SECURITY
			      : ends_with(s->suite, "-updates") ? KIND_UPDATES
								: KIND_MAIN;
		int points = k == kind ? score(s, wanted) : 0;

		if (points > most) {
			found = s;
			most = points;
		}
	}
	return found;
}

static int choose(const struct apt_sources *host, enum kind kind, const char *suite,
		  struct apt_sources *chosen, struct error *err)
{
	const struct apt_source *s = best(host, kind, suite);

	return s ? add(chosen, s->uri, suite, &s->components, s->signed_by, s->trusted, err) : 0;
}

int apt_sources_choose(const struct apt_sources *host, const char *suite,
		       struct apt_sources *chosen, struct error *err)
{
	char name[80];
	int rc;

	rc = choose(host, KIND_MAIN, suite, chosen, err);
	if (rc < 0)
		return rc;
	if (chosen->n == 0) {
		error_set(err, ENOENT, "this host's apt has no source of the Debian archive");
		error_hint(err, "add a mirror to /etc/apt/sources.list.d, or import an image made "
				"elsewhere: lodge image import");
		return -ENOENT;
	}
	/* These have no updates beside them: they are what is updated. */
	if (has_word("sid unstable experimental", " ", suite))
		return 0;
	snprintf(name, sizeof(name), "%.60s-updates", suite);
	rc = choose(host, KIND_UPDATES, name, chosen, err);
	if (rc < 0)
		return rc;
	/* The name changed with bullseye. */
	snprintf(name, sizeof(name), "%.60s%s", suite,
		 has_word("buster oldoldoldstable", " ", suite) ? "/updates" : "-security");
	return choose(host, KIND_SECURITY, name, chosen, err);
}

static void print_signed_by(FILE *f, const char *signed_by)
{
	if (signed_by[0] == '/') {
		fprintf(f, "Signed-By: ");
		for (; *signed_by; signed_by++)
			fputc(*signed_by == ',' ? ' ' : *signed_by, f);
		fputc('\n', f);
		return;
	}
	fprintf(f, "Signed-By:\n");
	while (*signed_by) {
		size_t n = strcspn(signed_by, "\n");

		fprintf(f, " %.*s\n", n ? (int)n : 1, n ? signed_by : ".");
		signed_by += n + (signed_by[n] == '\n');
	}
}

char *apt_sources_text(const struct apt_sources *sources, const char *const *signed_by)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return NULL;
	for (size_t i = 0; i < sources->n; i++) {
		const struct apt_source *s = &sources->v[i];

		fprintf(f, "%sTypes: deb\nURIs: %s\nSuites: %s\nComponents:", i ? "\n" : "", s->uri,
			s->suite);
		for (size_t c = 0; c < s->components.n; c++)
			fprintf(f, " %s", s->components.v[c]);
		fputc('\n', f);
		if (s->trusted)
			fprintf(f, "Trusted: yes\n");
		if (signed_by[i])
			print_signed_by(f, signed_by[i]);
	}
	if (fclose(f) != 0) {
		free(text);
		return NULL;
	}
	return text;
}
