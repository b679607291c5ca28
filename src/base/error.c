/* See error.h. */
#include "base/error.h"

#include "base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void fill(struct error *err, int code, const char *fmt, va_list ap)
	__attribute__((format(printf, 3, 0)));

static void fill(struct error *err, int code, const char *fmt, va_list ap)
{
	err->code = code;
	err->exit_status = 0;
	err->hint[0] = '\0';
	vsnprintf(err->message, sizeof(err->message), fmt, ap);
	str_printable(err->message);
}

int error_set(struct error *err, int code, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return -code;
	va_start(ap, fmt);
	fill(err, code, fmt, ap);
	va_end(ap);
	return -code;
}

int error_sys(struct error *err, int code, const char *fmt, ...)
{
	va_list ap;
	size_t len;

	if (!err)
		return -code;
	va_start(ap, fmt);
	fill(err, code, fmt, ap);
	va_end(ap);
	len = strlen(err->message);
	snprintf(err->message + len, sizeof(err->message) - len, ": %s", strerror(code));
	return -code;
}

int error_wrap(struct error *err, const char *fmt, ...)
{
	char words[sizeof(err->message)];
	char old[sizeof(err->message)];
	va_list ap;

	if (!err)
		return -EIO;
	va_start(ap, fmt);
	vsnprintf(words, sizeof(words), fmt, ap);
	va_end(ap);
	str_printable(words);
	memcpy(old, err->message, sizeof(old));
	if (snprintf(err->message, sizeof(err->message), "%s: %s", words, old) >=
	    (int)sizeof(err->message))
		memcpy(err->message + sizeof(err->message) - 4, "...", 4);
	return err->code ? -err->code : -EIO;
}

void error_hint(struct error *err, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return;
	va_start(ap, fmt);
	vsnprintf(err->hint, sizeof(err->hint), fmt, ap);
	va_end(ap);
	str_printable(err->hint);
}

int error_oom(struct error *err)
{
	return error_set(err, ENOMEM, "out of memory");
}

void error_clear(struct error *err)
{
	if (err)
		*err = (struct error){0};
}
