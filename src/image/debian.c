/*
 * A Debian image by mmdebstrap, which does in seconds what debootstrap does in minutes, and takes
 * packages and their keys from wherever the host's apt does. What comes out boots with systemd as a
 * container.
 */
#include "base/file.h"
#include "base/process.h"
#include "image/internal.h"
#include "image/sources.h"

#include <ctype.h>
#include <fcntl.h>
#include <string.h>

#define TREE "root"

/*
 * Beside what Debian calls required: an init, the bus that systemctl and logind talk over, sessions
 * with their own directories and slices, and what one looks at a machine with.
 */
#define PACKAGES                                                                                   \
	"systemd-sysv,dbus,libpam-systemd,procps,iproute2,iputils-ping,netbase,ca-certificates"

static int check_words(const char *suite, const struct strv *packages, struct error *err)
{
	if (!isalnum((unsigned char)suite[0]) ||
	    strspn(suite, "abcdefghijklmnopqrstuvwxyz0123456789-.") != strlen(suite)) {
		error_set(err, EINVAL, "'%.80s' is not a Debian suite", suite);
		error_hint(err, "suites are named like bookworm, trixie or sid");
		return -EINVAL;
	}
	/* A package may carry a version or a suite: name=1.2-3, name/bookworm-backports, name:i386.
	 * What begins with "?" or "~" would be a pattern, with "-" an option. */
	for (size_t i = 0; packages && i < packages->n; i++) {
		const char *p = packages->v[i];

		if (!isalnum((unsigned char)*p) ||
		    strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
			      "+-.:=/~_") != strlen(p))
			return error_set(err, EINVAL, "'%.80s' is not the name of a package", p);
	}
	return 0;
}

static void keep_fetch_error(struct helper *h, const char *line)
{
	if (str_starts_with(line, "E: Failed to fetch "))
		snprintf(h->why, sizeof(h->why), "%s", line + strlen("E: Failed to fetch "));
	else if (str_starts_with(line, "E: ") && !h->why[0])
		snprintf(h->why, sizeof(h->why), "%s", line + strlen("E: "));
}

/*
 * Whether the mirror has the suite: apt's own downloader asks, with the host's proxies. 1: yes; 0:
 * it answers that it has not; a negative errno: it does not answer.
 */
static int has_suite(struct image_work *work, const struct apt_source *s,
		     const struct image_options *options, struct error *err)
{
	static const char *const files[] = {"InRelease", "Release"};
	autofree char *to = image_work_path(work, "Release");

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		autofree char *url = str_printf("%s/dists/%s/%s", s->uri, s->suite, files[i]);
		struct helper fetch = {
			.argv = (const char *const[]){"/usr/lib/apt/apt-helper", "download-file",
						      url, to, NULL},
			.package = "apt",
			.options = options,
			.stage = "asking the mirror",
			.line = keep_fetch_error,
		};
		int rc;

		if (!url || !to)
			return error_oom(err);
		rc = helper_run(&fetch, work, err);
		unlinkat(work->fd, "Release", 0);
		if (rc == 0)
			return 1;
		if (rc != -ECHILD)
			return rc;
		if (!strstr(fetch.why, "404") && !strstr(fetch.why, "File not found"))
			return error_set(err, EIO, "%s", fetch.why);
	}
	return 0;
}

static int check_mirror(struct image_work *work, const char *suite, struct apt_sources *sources,
			const struct image_options *options, struct error *err)
{
	for (size_t i = 0; i < sources->n;) {
		int rc = has_suite(work, &sources->v[i], options, err);

		if (rc < 0)
			return rc;
		if (rc == 0 && i == 0) {
			error_set(err, EINVAL, "%s has no suite '%s'", sources->v[0].uri, suite);
			error_hint(err, "suites are named like bookworm, trixie or sid");
			return -EINVAL;
		}
		if (rc == 0)
			apt_sources_drop(sources, i); /* it has no updates: too new or too old */
		else
			i++;
	}
	return 0;
}

/* mmdebstrap's apt knows nothing of the host's proxies and the like. */
static int write_apt_options(struct image_work *work, struct error *err)
{
	static const char *const wanted[] = {
		"Acquire::http::",  "Acquire::https::",  "Acquire::Check-",
		"Acquire::Retries", "Acquire::ForceIPv",
	};
	autofd int out = file_open_at(work->fd, "apt-config", O_RDWR | O_CREAT | O_EXCL, 0600, err);
	autofree char *dump = NULL;
	autofree char *options = NULL;
	char *save = NULL;
	size_t size;
	FILE *f;
	int rc;

	if (out < 0)
		return out;
	rc = process_run((const char *const[]){"apt-config", "dump", NULL}, "apt", out, err);
	if (rc == 0)
		rc = file_read_at(work->fd, "apt-config", 4 << 20, &dump, NULL, err);
	if (rc < 0)
		return rc;
	f = open_memstream(&options, &size);
	if (!f)
		return error_oom(err);
	for (char *line = strtok_r(dump, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
			if (str_starts_with(line, wanted[i]) && !strstr(line, " \"\";"))
				fprintf(f, "%s\n", line);
	if (fclose(f) != 0)
		return error_oom(err);
	return file_replace_at(work->fd, "apt-options", options, size, 0600, err);
}

/* Says which step mmdebstrap is at, and keeps the first error: those that follow are about it. */
static void follow_mmdebstrap(struct helper *h, const char *line)
{
	static const struct {
		const char *begins, *stage;
	} stages[] = {
		{"I: running apt-get update", "reading the package lists"},
		{"I: downloading packages", "downloading packages"},
		{"I: extracting archives", "unpacking"},
		{"I: installing essential packages", "installing essential packages"},
		{"I: installing remaining packages", "installing packages"},
		{"I: cleaning package lists", "tidying up"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(stages); i++)
		if (str_starts_with(line, stages[i].begins))
			h->stage = stages[i].stage;
	if (strstr(line, strerror(ENOSPC)))
		snprintf(h->why, sizeof(h->why), "%s", line);
	else if (str_starts_with(line, "E: ") && !h->why[0])
		snprintf(h->why, sizeof(h->why), "%s", line + 3);
}

/* An armored key has to be a file for mmdebstrap. */
static char *keyring_path(struct image_work *work, const struct apt_source *s, size_t i)
{
	char name[32];

	if (s->signed_by[0] == '/')
		return strdup(s->signed_by);
	snprintf(name, sizeof(name), "mirror-%zu.asc", i);
	if (file_replace_at(work->fd, name, s->signed_by, strlen(s->signed_by), 0644, NULL) < 0)
		return NULL;
	return image_work_path(work, name);
}

static int source_line(struct image_work *work, const struct apt_source *s, size_t i,
		       struct strv *args, struct error *err)
{
	autofree char *keyring = s->signed_by ? keyring_path(work, s, i) : NULL;
	autofree char *signed_by = keyring ? str_printf("signed-by=%s ", keyring) : strdup("");
	autofree char *line = NULL;

	if ((s->signed_by && !keyring) || !signed_by)
		return error_oom(err);
	line = str_printf("deb [%s%sarch=amd64] %s %s", signed_by, s->trusted ? "trusted=yes " : "",
			  s->uri, s->suite);
	for (size_t c = 0; line && c < s->components.n; c++) {
		char *longer = str_printf("%s %s", line, s->components.v[c]);

		free(line);
		line = longer;
	}
	return line ? strv_push(args, line, err) : error_oom(err);
}

static int run_mmdebstrap(struct image_work *work, const char *suite, const struct strv *packages,
			  const struct apt_sources *sources, const struct image_options *options,
			  struct error *err)
{
	struct helper h = {
		.package = "mmdebstrap",
		.options = options,
		.stage = "starting mmdebstrap",
		.line = follow_mmdebstrap,
	};
	autofree char *apt_options = image_work_path(work, "apt-options");
	autofree char *tree = image_work_path(work, TREE);
	autostrv struct strv args = {0};
	int rc = 0;

	if (!tree || !apt_options)
		return error_oom(err);
	for (const char *const *a =
		     (const char *const[]){"mmdebstrap", "--mode=root", "--variant=minbase",
					   "--architectures=amd64", "--format=directory",
					   "--include=" PACKAGES, NULL};
	     rc == 0 && *a; a++)
		rc = strv_push(&args, *a, err);
	if (rc == 0)
		rc = strv_pushf(&args, err, "--aptopt=%s", apt_options);
	for (size_t i = 0; rc == 0 && packages && i < packages->n; i++)
		rc = strv_pushf(&args, err, "--include=%s", packages->v[i]);
	if (rc == 0)
		rc = strv_push(&args, suite, err);
	if (rc == 0)
		rc = strv_push(&args, tree, err);
	for (size_t i = 0; rc == 0 && i < sources->n; i++)
		rc = source_line(work, &sources->v[i], i, &args, err);
	if (rc < 0)
		return rc;
	h.argv = (const char *const *)args.v;
	return helper_run(&h, work, err);
}

/* The host's keyring where the image lacks it: apt in the image has to verify the same mirror. */
static int copy_keyring(int root_fd, const struct apt_source *s, size_t i, char **path,
			struct error *err)
{
	autofree char *key = NULL;
	autofree char *to = NULL;
	size_t size;
	int rc;

	*path = NULL;
	if (!s->signed_by)
		return 0;
	if (s->signed_by[0] == '/' && faccessat(root_fd, s->signed_by + 1, R_OK, 0) == 0) {
		*path = strdup(s->signed_by);
		return *path ? 0 : error_oom(err);
	}
	/* Of several keyrings, or of a key in the text, apt knows what to do with the same text. */
	if (s->signed_by[0] != '/') {
		*path = strdup(s->signed_by);
		return *path ? 0 : error_oom(err);
	}
	if (strchr(s->signed_by, ','))
		return 0;
	to = str_printf("etc/apt/keyrings/mirror-%zu.%s", i,
			strstr(s->signed_by, ".asc") ? "asc" : "gpg");
	if (!to)
		return error_oom(err);
	rc = file_read_at(AT_FDCWD, s->signed_by, 4 << 20, &key, &size, err);
	if (rc == 0)
		rc = dir_make(root_fd, "etc/apt/keyrings", 0755, err);
	if (rc == 0)
		rc = file_replace_at(root_fd, to, key, size, 0644, err);
	if (rc < 0)
		return rc;
	*path = str_printf("/%s", to);
	return *path ? 0 : error_oom(err);
}

static int write_sources(int root_fd, const struct apt_sources *sources, struct error *err)
{
	char *keys[8] = {0};
	autofree char *text = NULL;
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < sources->n; i++)
		rc = copy_keyring(root_fd, &sources->v[i], i, &keys[i], err);
	if (rc == 0) {
		text = apt_sources_text(sources, (const char *const *)keys);
		rc = text ? 0 : error_oom(err);
	}
	/* mmdebstrap's own say where the keys are on the host. */
	if (rc == 0)
		rc = dir_remove_all(root_fd, "etc/apt/sources.list.d", err);
	if (rc == 0)
		rc = dir_make(root_fd, "etc/apt/sources.list.d", 0755, err);
	if (rc == 0)
		rc = dir_remove_all(root_fd, "etc/apt/sources.list", err);
	if (rc == 0)
		rc = file_replace_at(root_fd, "etc/apt/sources.list.d/debian.sources", text,
				     strlen(text), 0644, err);
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		free(keys[i]);
	return rc;
}

/*
 * Takes out what is this host's or this build's. An empty machine-id(5) makes systemd invent one
 * at each guest's first boot, without the questions of a "first boot"; without hostname(5) the name
 * that the guest was given stays. resolv.conf is made for each guest.
 */
static int neutralize(int root_fd, struct error *err)
{
	static const char *const gone[] = {
		"etc/hostname",
		"etc/resolv.conf",
		"etc/apt/apt.conf.d/99mmdebstrap",
		"var/lib/dbus/machine-id",
		"var/lib/systemd/random-seed",
		"var/log/bootstrap.log",
		"var/log/alternatives.log",
		"var/log/dpkg.log",
		"var/log/apt",
		"var/cache/ldconfig/aux-cache",
		"var/cache/debconf/templates.dat-old",
		"var/cache/debconf/config.dat-old",
	};
	int rc;

	for (size_t i = 0; i < ARRAY_SIZE(gone); i++) {
		rc = dir_remove_all(root_fd, gone[i], err);
		if (rc < 0)
			return rc;
	}
	rc = dir_make(root_fd, "var/log/apt", 0755, err);
	if (rc < 0)
		return rc;
	return file_replace_at(root_fd, "etc/machine-id", "", 0, 0444, err);
}

static int build(struct image_work *work, const char *suite, const struct strv *packages,
		 const struct image_options *options, json_t **manifest, struct error *err)
{
	autosources struct apt_sources host = {0};
	autosources struct apt_sources sources = {0};
	autofree char *source = str_printf("debian %s", suite);
	autofd int root_fd = -EBADF;
	int rc;

	if (!source)
		return error_oom(err);
	rc = apt_sources_read("/etc/apt", &host, err);
	if (rc == 0)
		rc = apt_sources_choose(&host, suite, &sources, err);
	if (rc == 0)
		rc = check_mirror(work, suite, &sources, options, err);
	if (rc == 0)
		rc = write_apt_options(work, err);
	if (rc == 0)
		rc = run_mmdebstrap(work, suite, packages, &sources, options, err);
	if (rc < 0)
		return rc;
	root_fd = file_open_at(work->fd, TREE, O_RDONLY | O_DIRECTORY, 0, err);
	if (root_fd < 0)
		return root_fd;
	rc = write_sources(root_fd, &sources, err);
	if (rc == 0)
		rc = neutralize(root_fd, err);
	if (rc == 0)
		rc = import_tree(work, TREE, source, NULL, options, manifest, err);
	return rc;
}

/* All but what an image consists of. */
static int tidy(struct image_work *work, struct error *err)
{
	struct dirent **entries = NULL;
	int n = scandirat(work->fd, ".", &entries, NULL, NULL), rc = 0;

	if (n < 0)
		return error_sys(err, errno, "read the working directory");
	for (int i = 0; i < n; i++) {
		const char *name = entries[i]->d_name;

		if (rc == 0 && !str_eq(name, ".") && !str_eq(name, "..") &&
		    !str_eq(name, ROOTFS_FILE))
			rc = dir_remove_all(work->fd, name, err);
		free(entries[i]);
	}
	free(entries);
	return rc;
}

int image_build_debian(struct state *state, const char *name, const char *suite,
		       const struct strv *packages, const struct image_options *options,
		       struct image **image, struct error *err)
{
	autowork struct image_work work = IMAGE_WORK_INIT;
	autojson json_t *manifest = NULL;
	int rc = image_check_name(name, err);

	if (rc == 0)
		rc = check_words(suite, packages, err);
	if (rc < 0)
		return rc;
	if (geteuid() != 0) {
		error_set(err, EPERM, "building an image needs root");
		error_hint(err, "run it by sudo");
		return -EPERM;
	}
	image_sweep(state);
	rc = image_work_begin(state, &work, err);
	if (rc == 0)
		rc = build(&work, suite, packages, options, &manifest, err);
	if (rc == 0)
		rc = tidy(&work, err);
	if (rc == 0)
		rc = image_publish(&work, name, manifest, image, options, err);
	if (rc < 0 && rc != -EINTR)
		error_wrap(err, "build %s", name);
	return image_no_space_hint(state, rc, err);
}
