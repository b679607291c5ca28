/* See log.h. */
#include "base/log.h"

#include "base/cleanup.h"
#include "base/json.h"
#include "base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const level_names[] = {"error", "warn", "info", "debug"};

static struct {
	enum log_level level;
	enum log_format format;
	int fd;
} sink = {LOG_LEVEL_WARN, LOG_FORMAT_TEXT, STDERR_FILENO};

void log_init(enum log_level level, enum log_format format)
{
	sink.level = level;
	sink.format = format;
}

void log_to_fd(int fd)
{
	sink.fd = fd;
}

bool log_is_json(void)
{
	return sink.format == LOG_FORMAT_JSON;
}

bool log_enabled(enum log_level level)
{
	return sink.fd >= 0 && level <= sink.level;
}

int log_parse_level(const char *name, enum log_level *level, struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(level_names); i++) {
		if (str_eq(name, level_names[i])) {
			*level = (enum log_level)i;
			return 0;
		}
	}
	return error_set(err, EINVAL, "'%s' is not a log level: error, warn, info or debug", name);
}

/* 2026-11-22T08:00:00.123Z */
static void format_time(char *buf, size_t size)
{
	struct timespec now;
	struct tm tm;
	size_t n;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	n = strftime(buf, size, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(buf + n, size - n, ".%03ldZ", now.tv_nsec / 1000000);
}

/* A message that is not UTF-8, say for a file's name, comes without what is not ASCII. */
static json_t *to_json(const char *when, const char *level, char *message)
{
	static const char form[] = "{s:s, s:s, s:s}";
	json_t *j = json_pack(form, "time", when, "level", level, "message", message);

	if (j)
		return j;
	for (char *p = message; *p; p++)
		if (*p & 0x80)
			*p = '?';
	return json_pack(form, "time", when, "level", level, "message", message);
}

void log_write(enum log_level level, const char *fmt, ...)
{
	autofree char *line = NULL;
	char message[1024], when[40];
	int saved = errno;
	va_list ap;

	if (!log_enabled(level))
		return;
	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	str_printable(message);
	format_time(when, sizeof(when));
	if (sink.format == LOG_FORMAT_JSON) {
		autojson json_t *j = to_json(when, level_names[level], message);
		autofree char *text = j ? json_text(j) : NULL;

		line = str_printf("%s\n", text ? text : "{}");
	} else {
		line = str_printf("%s %-5s %s\n", when, level_names[level], message);
	}
	/* One write a line, so that the lines of several processes don't mix. */
	if (line && write(sink.fd, line, strlen(line)) < 0)
		errno = saved;
	errno = saved;
}
