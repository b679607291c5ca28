/*
 * What Lodge says of itself: to stderr as text, or as a JSON object a line on request. Errors of a
 * command do not come this way (struct error does that); this is for a monitor's diary and for
 * `--log-level debug`. Safe to call from any thread.
 */
#pragma once

#include "base/error.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

/* Before the first call the level is WARN, the format TEXT, the descriptor 2. */
void log_init(enum log_level level, enum log_format format);

/* Sends what follows to `fd`, which stays the caller's; -1 silences. */
void log_to_fd(int fd);

bool log_enabled(enum log_level level);
bool log_is_json(void);

/* "error", "warn", "info", "debug". Errors: EINVAL. */
int log_parse_level(const char *name, enum log_level *level, struct error *err);

void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)                                                                             \
	do {                                                                                       \
		if (log_enabled(LOG_LEVEL_DEBUG))                                                  \
			log_write(LOG_LEVEL_DEBUG, __VA_ARGS__);                                   \
	} while (0)
