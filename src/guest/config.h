/*
 * A guest's configuration: what the user asked for, merged with what the image says, when the
 * guest was created. Kept as JSON in the database, so that a later version of Lodge, or another
 * host, starts the same guest.
 */
#pragma once

#include "base/json.h"
#include "base/str.h"
#include "container/spec.h"

#define GUEST_STOP_TIMEOUT_S 10

struct guest_config {
	struct strv args; /* command with its arguments; entrypoint already put before it */
	struct strv env;
	char *cwd;  /* NULL: the user's home */
	char *user; /* NULL: root */
	char *hostname;
	char *stop_signal; /* "SIGTERM", "SIGRTMIN+3", "15"; NULL: by what its init is */
	bool system;       /* a whole operating system: its own init, more capabilities */
	bool terminal;
	bool open_stdin;
	bool read_only;
	bool host_network;
	uint64_t capabilities;
	struct container_bind *binds;
	size_t n_binds;
	struct container_resources resources;
};

void guest_config_clear(struct guest_config *config);

/* The caller's reference; NULL when out of memory. */
json_t *guest_config_to_json(const struct guest_config *config);

/* Fills a zeroed config; unknown keys are passed over, so that an older Lodge reads a newer's. */
int guest_config_from_json(const json_t *json, struct guest_config *config, struct error *err);

/* "/srv/www:/var/www:ro". Errors: EINVAL, ENOENT for a source that isn't there. */
int guest_config_add_volume(struct guest_config *config, const char *text, struct error *err);

/* Whether a command is an init system (by its name, as Podman decides it). */
bool guest_command_is_init(const char *command);

/* "TERM", "SIGTERM", "RTMIN+3", "15" to a number. Errors: EINVAL. */
int guest_parse_signal(const char *text, int *signo, struct error *err);
