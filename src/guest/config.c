/* See config.h. */
#include "guest/config.h"

#include "base/cleanup.h"
#include "container/container.h"

#include <ctype.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void guest_config_clear(struct guest_config *c)
{
	strv_free(&c->args);
	strv_free(&c->env);
	free(c->cwd);
	free(c->user);
	free(c->hostname);
	free(c->stop_signal);
	container_binds_free(c->binds, c->n_binds);
	*c = (struct guest_config){0};
}

/* The members that are one plain value, so that writing and reading can't grow apart. */
enum field_type { FIELD_STR, FIELD_BOOL, FIELD_U64, FIELD_STRV };

static const struct field {
	const char *key;
	enum field_type type;
	size_t offset;
} fields[] = {
	{"args", FIELD_STRV, offsetof(struct guest_config, args)},
	{"env", FIELD_STRV, offsetof(struct guest_config, env)},
	{"cwd", FIELD_STR, offsetof(struct guest_config, cwd)},
	{"user", FIELD_STR, offsetof(struct guest_config, user)},
	{"hostname", FIELD_STR, offsetof(struct guest_config, hostname)},
	{"stop_signal", FIELD_STR, offsetof(struct guest_config, stop_signal)},
	{"system", FIELD_BOOL, offsetof(struct guest_config, system)},
	{"terminal", FIELD_BOOL, offsetof(struct guest_config, terminal)},
	{"open_stdin", FIELD_BOOL, offsetof(struct guest_config, open_stdin)},
	{"read_only", FIELD_BOOL, offsetof(struct guest_config, read_only)},
	{"host_network", FIELD_BOOL, offsetof(struct guest_config, host_network)},
	{"capabilities", FIELD_U64, offsetof(struct guest_config, capabilities)},
	{"memory_bytes", FIELD_U64, offsetof(struct guest_config, resources.memory_bytes)},
	{"cpu_millis", FIELD_U64, offsetof(struct guest_config, resources.cpu_millis)},
	{"pids", FIELD_U64, offsetof(struct guest_config, resources.pids)},
};

static json_t *field_to_json(const struct guest_config *c, const struct field *f)
{
	const void *at = (const char *)c + f->offset;

	switch (f->type) {
	case FIELD_STRV:
		return json_from_strv(at);
	case FIELD_STR: {
		const char *s = *(char *const *)at;

		return s ? json_string(s) : json_null();
	}
	case FIELD_BOOL:
		return json_boolean(*(const bool *)at);
	case FIELD_U64:
		return json_integer((json_int_t)(*(const uint64_t *)at));
	}
	return NULL;
}

json_t *guest_config_to_json(const struct guest_config *c)
{
	json_t *j = json_object();
	json_t *volumes = json_array();
	int rc = !j || !volumes ? -1 : 0;

	for (size_t i = 0; !rc && i < ARRAY_SIZE(fields); i++)
		rc = json_object_set_new(j, fields[i].key, field_to_json(c, &fields[i]));
	for (size_t i = 0; !rc && i < c->n_binds; i++)
		rc = json_array_append_new(volumes, json_pack("{s:s, s:s, s:b}", "source",
							      c->binds[i].source, "destination",
							      c->binds[i].destination, "read_only",
							      c->binds[i].read_only));
	if (rc == 0 && json_object_set(j, "volumes", volumes) == 0) {
		json_decref(volumes);
		return j;
	}
	json_decref(volumes);
	json_decref(j);
	return NULL;
}

static int field_from_json(const json_t *j, const struct field *f, struct guest_config *c,
			   struct error *err)
{
	void *at = (char *)c + f->offset;
	const char *text = NULL;
	int64_t number = 0;
	int rc = 0;

	switch (f->type) {
	case FIELD_STRV:
		return json_get_strv(j, f->key, at, err);
	case FIELD_STR:
		rc = json_get_str(j, f->key, &text, err);
		if (!rc && text && !(*(char **)at = strdup(text)))
			return error_oom(err);
		return rc;
	case FIELD_BOOL:
		return json_get_bool(j, f->key, at, err);
	case FIELD_U64:
		rc = json_get_int(j, f->key, &number, err);
		*(uint64_t *)at = (uint64_t)number;
		return rc;
	}
	return rc;
}

static int add_bind(struct guest_config *c, const char *source, const char *destination,
		    bool read_only, struct error *err)
{
	struct container_bind *grown;
	struct container_bind bind = {strdup(source), strdup(destination), read_only};

	grown = realloc(c->binds, (c->n_binds + 1) * sizeof(*grown));
	if (grown)
		c->binds = grown;
	if (!grown || !bind.source || !bind.destination) {
		free(bind.source);
		free(bind.destination);
		return error_oom(err);
	}
	c->binds[c->n_binds++] = bind;
	return 0;
}

int guest_config_from_json(const json_t *j, struct guest_config *c, struct error *err)
{
	json_t *volumes = NULL, *item;
	size_t i;
	int rc = 0;

	for (i = 0; !rc && i < ARRAY_SIZE(fields); i++)
		rc = field_from_json(j, &fields[i], c, err);
	if (!rc)
		rc = json_get_array(j, "volumes", &volumes, err);
	json_array_foreach (volumes, i, item) {
		const char *source = "", *destination = "";
		bool read_only = false;

		rc = rc ?: json_get_str(item, "source", &source, err);
		rc = rc ?: json_get_str(item, "destination", &destination, err);
		rc = rc ?: json_get_bool(item, "read_only", &read_only, err);
		rc = rc ?: add_bind(c, source, destination, read_only, err);
	}
	return rc < 0 ? error_wrap(err, "the guest's configuration") : 0;
}

/* A place that is made by name can't go up. */
static bool has_dot_dot(const char *path)
{
	for (const char *p = path; (p = strstr(p, "..")); p += 2)
		if ((p == path || p[-1] == '/') && (!p[2] || p[2] == '/'))
			return true;
	return false;
}

int guest_config_add_volume(struct guest_config *c, const char *text, struct error *err)
{
	autofree char *source = NULL;
	autofree char *copy = strdup(text);
	char *destination, *option;

	if (!copy)
		return error_oom(err);
	destination = strchr(copy, ':');
	if (destination)
		*destination++ = '\0';
	option = destination ? strchr(destination, ':') : NULL;
	if (option)
		*option++ = '\0';
	if (!copy[0] || !destination || has_dot_dot(destination) || destination[0] != '/' ||
	    !destination[1] || (option && !str_eq(option, "ro") && !str_eq(option, "rw"))) {
		error_set(err, EINVAL, "'%s' is not a volume", text);
		error_hint(err, "write it like /srv/www:/var/www or /srv/www:/var/www:ro");
		return -EINVAL;
	}
	source = realpath(copy, NULL);
	if (!source)
		return error_sys(err, errno, "%s", copy);
	return add_bind(c, source, destination, str_eq(option, "ro"), err);
}

bool guest_command_is_init(const char *command)
{
	static const char *const inits[] = {
		"/sbin/init",           "/usr/sbin/init",       "/bin/init",
		"/usr/local/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd",
		"/bin/systemd"};

	for (size_t i = 0; i < ARRAY_SIZE(inits); i++)
		if (str_eq(command, inits[i]))
			return true;
	return false;
}

int guest_parse_signal(const char *text, int *signo, struct error *err)
{
	const char *name = strncasecmp(text, "SIG", 3) == 0 ? text + 3 : text;
	char *end;
	long n;

	if (isdigit((unsigned char)*text)) {
		n = strtol(text, &end, 10);
		if (!*end && n > 0 && n <= SIGRTMAX) {
			*signo = (int)n;
			return 0;
		}
	} else if (strncasecmp(name, "RTMIN", 5) == 0 || strncasecmp(name, "RTMAX", 5) == 0) {
		bool from_max = strncasecmp(name, "RTMAX", 5) == 0;

		n = name[5] ? strtol(name + 5, &end, 10) : 0;
		if (n < -NSIG || n > NSIG)
			n = NSIG;
		n += from_max ? SIGRTMAX : SIGRTMIN;
		if ((!name[5] || (strchr("+-", name[5]) && !*end)) && n >= SIGRTMIN &&
		    n <= SIGRTMAX) {
			*signo = (int)n;
			return 0;
		}
	} else {
		for (int i = 1; i < SIGRTMIN; i++) {
			const char *abbreviation = sigabbrev_np(i);

			if (abbreviation && strcasecmp(name, abbreviation) == 0) {
				*signo = i;
				return 0;
			}
		}
	}
	error_set(err, EINVAL, "'%s' is not a signal", text);
	error_hint(err, "write it like TERM, SIGKILL, RTMIN+3 or 15");
	return -EINVAL;
}
