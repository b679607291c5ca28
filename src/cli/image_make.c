/* `lodge image build`, `import` and `export`: what takes its time, shows it, and can be ended. */
#include "image/image.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/image.h"
#include "cli/progress.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* The first signal ends the work in order, so that nothing is left; a second one ends us. */
static volatile sig_atomic_t interrupted;

static void interrupt(int signo)
{
	interrupted = signo;
}

static void watch_signals(void)
{
	const int signals[] = {SIGINT, SIGTERM, SIGHUP};
	struct sigaction action = {.sa_handler = interrupt, .sa_flags = (int)SA_RESETHAND};

	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i], &action, NULL);
}

static int show(void *data, const char *stage, double fraction)
{
	enum { PARTS = 1000 };
	struct progress *p = data;

	if (interrupted)
		return -EINTR;
	progress_note(p, stage);
	progress_update(p, fraction > 0 ? (uint64_t)(fraction * PARTS) : 0,
			fraction >= 0 ? PARTS : 0);
	return 0;
}

static void start(struct progress *p, const char *what, const char *name,
		  struct image_options *options)
{
	autofree char *label = str_printf("%s %.40s", what, name);

	progress_start(p, label ?: what, PROGRESS_PARTS);
	options->progress = show;
	options->progress_data = p;
	watch_signals();
}

/* A shell's way to say what ended a command. */
static int finish(struct progress *p, int rc, struct error *err)
{
	progress_finish(p);
	if (rc == -EINTR && interrupted)
		err->exit_status = 128 + interrupted;
	return rc;
}

/* `--cmd`: a JSON array, or words with spaces between them. */
static int parse_cmd(const char *text, struct strv *cmd, struct error *err)
{
	if (text[0] == '[') {
		autojson json_t *object = NULL;
		autofree char *wrapped = str_printf("{\"cmd\": %s}", text);
		int rc = wrapped ? json_parse(wrapped, "--cmd", &object, err) : error_oom(err);

		return rc < 0 ? rc : json_get_strv(object, "cmd", cmd, err);
	}
	while (*(text += strspn(text, " "))) {
		size_t n = strcspn(text, " ");
		int rc = strv_pushf(cmd, err, "%.*s", (int)n, text);

		if (rc < 0)
			return rc;
		text += n;
	}
	if (cmd->n == 0)
		return error_set(err, EINVAL, "--cmd: there is no command in it");
	return 0;
}

static int check_env(const struct strv *env, struct error *err)
{
	for (size_t i = 0; i < env->n; i++) {
		const char *equals = strchr(env->v[i], '=');

		if (!equals || equals == env->v[i])
			return error_set(err, EINVAL, "--env: '%.80s' is not NAME=VALUE",
					 env->v[i]);
	}
	return 0;
}

struct make_options {
	const char *debian;
	struct strv include;
	const char *cmd;
	struct strv env;
};

#define CONFIG_OPTIONS                                                                             \
	{"cmd", 0, "COMMAND", option_string(struct make_options, cmd),                             \
	 "what guests run when nothing else is said: words, or a JSON array of strings"},          \
	{                                                                                          \
		"env", 'e', "NAME=VALUE", option_strings(struct make_options, env),                \
			"an environment variable of what runs in guests"                           \
	}

static const struct verb_option build_options[] = {
	{"debian", 0, "SUITE", option_string(struct make_options, debian),
	 "a Debian system of this suite, such as bookworm, trixie or sid"},
	{"include", 0, "PACKAGE,...", option_strings(struct make_options, include),
	 "install these packages too; may be given several times"},
	CONFIG_OPTIONS,
	{},
};

static int split_packages(const struct strv *given, struct strv *packages, struct error *err)
{
	int rc = 0;

	for (size_t i = 0; i < given->n; i++) {
		for (const char *p = given->v[i]; rc == 0 && *(p += strspn(p, ", "));) {
			size_t n = strcspn(p, ", ");

			rc = strv_pushf(packages, err, "%.*s", (int)n, p);
			p += n;
		}
	}
	return rc;
}

/* `make` does the work between here and there. */
static int make(struct invocation *inv, const char *what,
		int (*work)(struct state *state, struct invocation *inv,
			    const struct image_options *options, struct image **image,
			    struct error *err),
		struct error *err)
{
	const struct make_options *o = inv->options;
	struct image_options options = {.env = o->env.n ? &o->env : NULL};
	autostate struct state *state = NULL;
	autoimage struct image *image = NULL;
	autostrv struct strv cmd = {};
	autoprogress struct progress p = {};
	int rc = check_env(&o->env, err);

	if (rc == 0 && o->cmd) {
		rc = parse_cmd(o->cmd, &cmd, err);
		options.cmd = &cmd;
	}
	if (rc == 0)
		rc = image_check_name(inv->operands[0], err);
	if (rc == 0)
		rc = state_open(&state, err);
	if (rc < 0)
		return rc;
	start(&p, what, inv->operands[0], &options);
	rc = finish(&p, work(state, inv, &options, &image, err), err);
	if (rc == 0)
		puts(image->digest);
	return rc;
}

static int build(struct state *state, struct invocation *inv, const struct image_options *options,
		 struct image **image, struct error *err)
{
	const struct make_options *o = inv->options;
	autostrv struct strv packages = {};
	int rc = split_packages(&o->include, &packages, err);

	if (rc < 0)
		return rc;
	return image_build_debian(state, inv->operands[0], o->debian, &packages, options, image,
				  err);
}

static int build_run(struct invocation *inv, struct error *err)
{
	const struct make_options *o = inv->options;

	if (!o->debian) {
		error_set(err, EINVAL, "what to build is not said");
		error_hint(err, "add --debian SUITE, for instance --debian bookworm");
		return -EINVAL;
	}
	return make(inv, "Building", build, err);
}

const struct verb image_build_verb = {
	.name = "build",
	.section = VERB_STORE,
	.synopsis = "--debian SUITE [OPTIONS] NAME",
	.summary = "make an image from a distribution's packages",
	.description =
		"Makes a small Debian system that boots with systemd, and gives it the name. "
		"Packages come from the mirror that this host's apt uses, verified with the same "
		"keys. The new image's apt is set up in the same way.\n\n"
		"When the name is another image's already, it becomes the new image's. The image's "
		"digest is printed. Needs root and mmdebstrap.",
	.examples = "A Debian 12 with a web server:\n\n"
		    "    lodge image build web --debian bookworm --include nginx,curl",
	.options = build_options,
	.options_size = sizeof(struct make_options),
	.min_operands = 1,
	.max_operands = 1,
	.operands = {COMPLETE_NONE},
	.run = build_run,
};

static const struct verb_option import_options[] = {CONFIG_OPTIONS, {}};

static int import(struct state *state, struct invocation *inv, const struct image_options *options,
		  struct image **image, struct error *err)
{
	return image_import(state, inv->operands[0], inv->operands[1], options, image, err);
}

static int import_run(struct invocation *inv, struct error *err)
{
	return make(inv, "Importing", import, err);
}

const struct verb image_import_verb = {
	.name = "import",
	.section = VERB_STORE,
	.synopsis = "[OPTIONS] NAME TARBALL|DIRECTORY",
	.summary = "make an image from a tarball or a directory",
	.description =
		"Makes an image from a root filesystem and gives it the name. A tarball may be "
		"plain or "
		"compressed by gzip, bzip2, xz or zstd; `-` reads it from standard input. Owners, "
		"modes, "
		"times, extended attributes, hard links and device nodes are kept. Of a directory, "
		"what "
		"other file systems are mounted on is left out, so that `/` gives an image of this "
		"host.\n\n"
		"Without `--cmd`, a guest of the image runs `/sbin/init` where it has one, else "
		"`/bin/sh`; a tarball that `lodge image export` wrote says so itself. When the "
		"name is "
		"another image's already, it becomes the new image's. The image's digest is "
		"printed.",
	.examples = "A distribution's tarball:\n\n"
		    "    lodge image import alpine alpine-minirootfs.tar.gz\n\n"
		    "From another host:\n\n"
		    "    ssh other lodge image export web - | lodge image import web -",
	.options = import_options,
	.options_size = sizeof(struct make_options),
	.min_operands = 2,
	.max_operands = 2,
	.operands = {COMPLETE_NONE, COMPLETE_FILE},
	.run = import_run,
};

/* A file appears whole or not at all; what is no regular file is written to as it is. */
static int open_output(const char *path, char **temporary, struct error *err)
{
	autofree char *name = NULL;
	struct stat st;
	mode_t mask;
	int fd;

	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
		return file_open_at(AT_FDCWD, path, O_WRONLY, 0, err);
	name = str_printf("%s.XXXXXX", path);
	if (!name)
		return error_oom(err);
	fd = mkostemp(name, O_CLOEXEC);
	if (fd < 0)
		return error_sys(err, errno, "create %s", path);
	mask = umask(0);
	umask(mask);
	fchmod(fd, 0666 & ~mask);
	*temporary = steal_ptr(&name);
	return fd;
}

static int export_run(struct invocation *inv, struct error *err)
{
	const char *path = inv->operands[1];
	bool to_stdout = str_eq(path, "-");
	autostate struct state *state = NULL;
	autoimage struct image *image = NULL;
	autoprogress struct progress p = {};
	struct image_options options = {};
	autofree char *temporary = NULL;
	autofd int opened = -EBADF;
	int rc = state_open(&state, err);

	if (rc == 0)
		rc = image_find(state, inv->operands[0], &image, err);
	if (rc < 0)
		return rc;
	if (to_stdout && isatty(STDOUT_FILENO)) {
		error_set(err, EINVAL, "a tarball is not written to a terminal");
		error_hint(err, "name a file, or redirect the output");
		return -EINVAL;
	}
	if (!to_stdout) {
		opened = open_output(path, &temporary, err);
		if (opened < 0)
			return opened;
	}
	start(&p, "Exporting", inv->operands[0], &options);
	rc = finish(&p,
		    image_export(state, image, to_stdout ? STDOUT_FILENO : opened,
				 to_stdout ? IMAGE_PLAIN : image_compression_of(path), &options,
				 err),
		    err);
	if (rc == 0 && temporary && (fsync(opened) < 0 || rename(temporary, path) < 0))
		rc = error_sys(err, errno, "write %s", path);
	if (rc < 0 && temporary)
		unlink(temporary);
	return rc;
}

const struct verb image_export_verb = {
	.name = "export",
	.section = VERB_STORE,
	.synopsis = "IMAGE FILE",
	.summary = "write an image's tree as a tarball",
	.description = "Writes an image as a tarball that other programs can read too; `lodge "
		       "image import` "
		       "makes the same tree of it again, its default command included. A file "
		       "name that ends "
		       "in .gz, .xz or .zst is compressed so. `-` writes to standard output, "
		       "uncompressed. The "
		       "file appears when it is complete.",
	.examples = "For another host:\n\n    lodge image export web web.tar.zst",
	.min_operands = 2,
	.max_operands = 2,
	.operands = {COMPLETE_IMAGE, COMPLETE_FILE},
	.run = export_run,
};
