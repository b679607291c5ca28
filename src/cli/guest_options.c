/* See guest_options.h. */
#include "cli/guest_options.h"

#include "base/cleanup.h"
#include "container/container.h"
#include "image/image.h"

#include <stdlib.h>
#include <string.h>

/* With less the kernel kills the guest before it has begun. */
#define MEMORY_AT_LEAST (4 << 20)

static const char default_path[] =
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#define OPTION(kind, field, ...)                                                                   \
	option_##kind(struct guest_options, field __VA_OPT__(, ) __VA_ARGS__)

const struct verb_option guest_option_table[] = {
	{"detach", 'd', NULL, OPTION(flag, detach),
	 "return when the guest runs, and print its name"},
	{"detach-keys", 0, "KEYS", OPTION(string, detach_keys),
	 "the keys that leave a guest running in the background (ctrl-p,ctrl-q)"},
	{"name", 'n', "NAME", OPTION(string, name),
	 "what to call the guest (made up from the image's name)"},
	{"env", 'e', "NAME=VALUE", OPTION(strings, env),
	 "set a variable in the guest's environment; without `=VALUE` take our own"},
	{"volume", 'v', "HOST:GUEST[:ro]", OPTION(strings, volumes),
	 "show a file or directory of the host in the guest, `:ro` read-only. Its files keep their "
	 "owners: the guest's root can make files of the host's root in it, so keep it below a "
	 "directory that other users of the host can't enter",
	 COMPLETE_FILE},
	{"memory", 'm', "SIZE", OPTION(size, memory_bytes), "memory limit, such as 512M (none)"},
	{"cpus", 0, "NUMBER", OPTION(cpus, cpu_millis), "processor limit, such as 1.5 (none)"},
	{"pids", 0, "NUMBER", OPTION(number, pids, 1, 4194304),
	 "how many processes and threads at most (no limit)"},
	{"network", 0, "none|host", OPTION(string, network),
	 "a network of its own with nothing but a loopback interface, or the host's (none)"},
	{"hostname", 0, "NAME", OPTION(string, hostname), "the guest's host name (its name)"},
	{"user", 'u', "USER[:GROUP]", OPTION(string, user),
	 "who runs the command: a name or an id of the guest (what the image says, else root)"},
	{"workdir", 'w', "DIRECTORY", OPTION(string, workdir),
	 "where the command starts (what the image says, else the user's home)"},
	{"stop-signal", 0, "SIGNAL", OPTION(string, stop_signal),
	 "the signal that asks the guest to stop (by its init; TERM for a command)"},
	{"cap-add", 0, "CAPABILITY", OPTION(strings, cap_add),
	 "give the guest a capability within its user namespace, such as NET_ADMIN"},
	{"cap-drop", 0, "CAPABILITY", OPTION(strings, cap_drop),
	 "take a capability away; ALL for all"},
	{"read-only", 0, NULL, OPTION(flag, read_only), "forbid writing to the root file system"},
	{"rm", 0, NULL, OPTION(flag, auto_remove),
	 "remove the guest when it stops, and what it wrote with it"},
	{"interactive", 'i', NULL, OPTION(flag, interactive), "give the guest our standard input"},
	{"tty", 't', NULL, OPTION(flag, terminal), "give the guest a terminal"},
	{},
};

int env_add(struct strv *env, const char *text, struct error *err)
{
	const char *equals = strchr(text, '=');
	size_t name_len = equals ? (size_t)(equals - text) : strlen(text);
	autofree char *own = NULL;

	if (name_len == 0) {
		error_set(err, EINVAL, "'%s' is not an environment variable", text);
		error_hint(err, "write it like NAME=VALUE");
		return -EINVAL;
	}
	if (!equals) {
		const char *value = getenv(text);

		if (!value)
			return 0;
		own = str_printf("%s=%s", text, value);
		if (!own)
			return error_oom(err);
		text = own;
	}
	for (size_t i = 0; i < env->n; i++) {
		if (strncmp(env->v[i], text, name_len) == 0 && env->v[i][name_len] == '=') {
			char *copy = strdup(text);

			if (!copy)
				return error_oom(err);
			free(env->v[i]);
			env->v[i] = copy;
			return 0;
		}
	}
	return strv_push(env, text, err);
}

static int set_str(char **field, const char *option, char **from_image, struct error *err)
{
	if (option) {
		*field = strdup(option);
		return *field ? 0 : error_oom(err);
	}
	if (from_image && *from_image && **from_image)
		*field = steal_ptr(from_image);
	return 0;
}

static int append(struct strv *list, char **v, size_t n, struct error *err)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < n; i++)
		rc = strv_push(list, v[i], err);
	return rc;
}

/* The command is the image's entrypoint and then the user's words, or else the image's. A command
 * that is an init makes the guest a system. */
static int set_command(struct guest_config *c, struct image_config *image, char **words, int n,
		       const char *image_name, struct error *err)
{
	int rc = append(&c->args, image->entrypoint.v, image->entrypoint.n, err);

	if (!rc && n > 0)
		rc = append(&c->args, words, (size_t)n, err);
	else if (!rc)
		rc = append(&c->args, image->cmd.v, image->cmd.n, err);
	if (rc < 0)
		return rc;
	if (c->args.n == 0) {
		error_set(err, EINVAL, "the image '%s' does not say what to run", image_name);
		error_hint(err, "name a command: lodge run %s COMMAND", image_name);
		return -EINVAL;
	}
	c->system = guest_command_is_init(c->args.v[0]);
	return 0;
}

static int set_capabilities(struct guest_config *c, const struct guest_options *o,
			    struct error *err)
{
	uint64_t mask;
	int rc = 0;

	c->capabilities = c->system ? container_caps_system : container_caps_application;
	for (size_t i = 0; !rc && i < o->cap_drop.n; i++) {
		rc = container_parse_capability(o->cap_drop.v[i], &mask, err);
		if (!rc)
			c->capabilities &= ~mask;
	}
	for (size_t i = 0; !rc && i < o->cap_add.n; i++) {
		rc = container_parse_capability(o->cap_add.v[i], &mask, err);
		if (!rc)
			c->capabilities |= mask;
	}
	return rc;
}

static int set_network(struct guest_config *c, const char *network, struct error *err)
{
	if (!network || str_eq(network, "none"))
		return 0;
	if (str_eq(network, "host")) {
		c->host_network = true;
		return 0;
	}
	return error_set(err, EINVAL, "--network: '%s' is not a network: none or host", network);
}

static int set_config(struct guest_config *c, const struct guest_options *o,
		      struct image_config *image, char **operands, int n_operands,
		      struct error *err)
{
	int signo, rc;

	rc = set_command(c, image, operands + 1, n_operands - 1, operands[0], err);
	if (!rc)
		rc = strv_push(&c->env, default_path, err);
	for (size_t i = 0; !rc && i < image->env.n; i++)
		rc = env_add(&c->env, image->env.v[i], err);
	for (size_t i = 0; !rc && i < o->env.n; i++)
		rc = env_add(&c->env, o->env.v[i], err);
	for (size_t i = 0; !rc && i < o->volumes.n; i++) {
		rc = guest_config_add_volume(c, o->volumes.v[i], err);
		if (rc < 0)
			error_wrap(err, "--volume");
	}
	if (!rc && o->stop_signal)
		rc = guest_parse_signal(o->stop_signal, &signo, err);
	if (!rc && o->hostname && guest_check_name(o->hostname, err) < 0) {
		rc = error_set(err, EINVAL, "--hostname: '%s' is not a host name", o->hostname);
		error_hint(err, "letters, digits, '-' and '.', beginning with a letter or digit");
	}
	if (!rc && o->memory_bytes && o->memory_bytes < MEMORY_AT_LEAST)
		rc = error_set(err, ERANGE, "--memory: less than 4 MiB is too little to start in");
	if (!rc)
		rc = set_str(&c->cwd, o->workdir, &image->workdir, err);
	if (!rc && c->cwd && c->cwd[0] != '/')
		rc = error_set(err, EINVAL, "--workdir: '%s' does not begin with a slash", c->cwd);
	if (!rc)
		rc = set_str(&c->user, o->user, &image->user, err);
	if (!rc)
		rc = set_str(&c->hostname, o->hostname, NULL, err);
	if (!rc)
		/* The image speaks of its own command. */
		rc = set_str(&c->stop_signal, o->stop_signal,
			     n_operands == 1 ? &image->stop_signal : NULL, err);
	if (!rc)
		rc = set_network(c, o->network, err);
	if (!rc)
		rc = set_capabilities(c, o, err);
	/* A system has a console as a machine has. */
	c->terminal = o->terminal || c->system;
	c->open_stdin = o->interactive;
	c->read_only = o->read_only;
	c->resources = (struct container_resources){
		.memory_bytes = o->memory_bytes,
		.cpu_millis = o->cpu_millis,
		.pids = (uint64_t)o->pids,
	};
	return rc;
}

int guest_options_apply(const struct guest_options *o, char **operands, int n_operands,
			struct state *state, struct guest **out, struct error *err)
{
	autoguest struct guest *g = calloc(1, sizeof(*g));
	autoimage struct image *image = NULL;
	autoimageconfig struct image_config config = {0};
	int rc;

	if (!g)
		return error_oom(err);
	rc = image_find(state, operands[0], &image, err);
	if (!rc)
		rc = image_get_config(image, &config, err);
	if (!rc)
		rc = set_config(&g->config, o, &config, operands, n_operands, err);
	if (rc < 0)
		return rc;
	g->image = strdup(image->digest);
	g->image_name = strdup(operands[0]);
	if (o->name)
		g->name = strdup(o->name);
	if (!g->image || !g->image_name || (o->name && !g->name))
		return error_oom(err);
	g->auto_remove = o->auto_remove;
	g->exit_status = -1;
	*out = steal_ptr(&g);
	return 0;
}
