/* See str.h. */
#include "base/str.h"

#include "base/cleanup.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *str_printf(const char *fmt, ...)
{
	va_list ap;
	char *s;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	return n < 0 ? NULL : s;
}

bool str_eq(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

bool str_starts_with(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

char *str_chomp(char *s)
{
	size_t n = strlen(s);

	while (n && isspace((unsigned char)s[n - 1]))
		s[--n] = '\0';
	return s;
}

char *str_printable(char *s)
{
	for (unsigned char *p = (unsigned char *)s; *p; p++) {
		if (*p < 0x20 || *p == 0x7f)
			*p = *p == '\n' || *p == '\t' ? ' ' : '?';
		else if (p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0)
			p[0] = p[1] = '?';
	}
	return s;
}

/* Takes over `str`, also on failure. */
static int push_owned(struct strv *s, char *str, struct error *err)
{
	char **v;

	if (!str)
		return error_oom(err);
	/* Grow at powers of two: one realloc() for each doubling. */
	if (s->n == 0 || ((s->n + 1) & s->n) == 0) {
		v = realloc(s->v, 2 * (s->n + 1) * sizeof(*v));
		if (!v) {
			free(str);
			return error_oom(err);
		}
		s->v = v;
	}
	s->v[s->n++] = str;
	s->v[s->n] = NULL;
	return 0;
}

int strv_push(struct strv *s, const char *str, struct error *err)
{
	return push_owned(s, strdup(str), err);
}

int strv_pushf(struct strv *s, struct error *err, const char *fmt, ...)
{
	va_list ap;
	char *str;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&str, fmt, ap);
	va_end(ap);
	return push_owned(s, n < 0 ? NULL : str, err);
}

void strv_free(struct strv *s)
{
	for (size_t i = 0; i < s->n; i++)
		free(s->v[i]);
	free(s->v);
	*s = (struct strv){0};
}

/* Digits with at most one decimal point: what users mean, unlike strtod()'s hex, inf and nan. */
static const char *parse_decimal(const char *text, long double *value)
{
	const char *p = text;
	char *end;

	while (isdigit((unsigned char)*p))
		p++;
	if (*p == '.' && p > text && isdigit((unsigned char)p[1]))
		for (p++; isdigit((unsigned char)*p); p++)
			;
	if (p == text || p - text > 40)
		return NULL;
	*value = strtold(text, &end);
	return p;
}

int parse_size(const char *text, const char *what, uint64_t *size_bytes, struct error *err)
{
	static const char units[] = "bkmgtp";
	const char *rest, *unit = units;
	long double value;

	rest = parse_decimal(text, &value);
	if (!rest)
		goto invalid;
	if (*rest) {
		unit = strchr(units, tolower((unsigned char)*rest));
		if (!unit)
			goto invalid;
		rest++;
		if (unit > units && *rest == 'i' && tolower((unsigned char)rest[1]) == 'b')
			rest += 2;
		else if (unit > units && tolower((unsigned char)*rest) == 'b')
			rest++;
		if (*rest)
			goto invalid;
	}
	value = ldexpl(value, 10 * (int)(unit - units));
	if (value >= ldexpl(1, 63))
		return error_set(err, ERANGE, "%s: '%s' is too large", what, text);
	*size_bytes = (uint64_t)value;
	return 0;
invalid:
	error_set(err, EINVAL, "%s: '%s' is not a size", what, text);
	error_hint(err, "write it like 512M or 1.5G (units: K, M, G, T)");
	return -EINVAL;
}

int parse_number(const char *text, const char *what, int64_t min, int64_t max, int64_t *value,
		 struct error *err)
{
	long long n;
	char *end;

	errno = 0;
	n = strtoll(text, &end, 10);
	if (end == text || *end || isspace((unsigned char)*text))
		return error_set(err, EINVAL, "%s: '%s' is not a number", what, text);
	if (errno == ERANGE || n < min || n > max)
		return error_set(err, ERANGE, "%s: %s is outside %" PRId64 "..%" PRId64, what, text,
				 min, max);
	*value = n;
	return 0;
}

int parse_cpus(const char *text, const char *what, uint64_t *millicpus, struct error *err)
{
	long double value;
	const char *rest = parse_decimal(text, &value);

	if (!rest || *rest) {
		error_set(err, EINVAL, "%s: '%s' is not a number of processors", what, text);
		error_hint(err, "write it like 2 or 0.5");
		return -EINVAL;
	}
	if (value < 0.01L || value > 65536)
		return error_set(err, ERANGE, "%s: %s is outside 0.01..65536", what, text);
	*millicpus = (uint64_t)(value * 1000 + 0.5L);
	return 0;
}

char *format_size(uint64_t size_bytes, char buf[static 16])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)size_bytes;
	size_t unit = 0;

	/* The bounds are what would be rounded up to 1024, and to 10.0. */
	while (value >= 1023.5 && unit + 1 < ARRAY_SIZE(units)) {
		value /= 1024;
		unit++;
	}
	snprintf(buf, 16, unit && value < 9.95 ? "%.1f %s" : "%.0f %s", value, units[unit]);
	return buf;
}
