/* See progress.h. */
#include "cli/progress.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_MS = 1000, REDRAW_MS = 100, BAR_COLUMNS = 24 };

#define ERASE "\r\033[K"

/* Signals that end us while the line is on the screen: it is taken off first. */
static const int ending[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
static struct sigaction before[ARRAY_SIZE(ending)];

static void erase_and_die(int signal)
{
	(void)!write(STDERR_FILENO, ERASE, sizeof(ERASE) - 1);
	raise(signal); /* SA_RESETHAND made it the default again */
}

static void watch_signals(bool on)
{
	struct sigaction action = {.sa_handler = erase_and_die, .sa_flags = (int)SA_RESETHAND};

	for (size_t i = 0; i < ARRAY_SIZE(ending); i++) {
		if (on)
			sigaction(ending[i], NULL, &before[i]);
		/* Only in the default's place: someone else's handler does not end us. */
		if (before[i].sa_handler == SIG_DFL)
			sigaction(ending[i], on ? &action : &before[i], NULL);
	}
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void progress_start(struct progress *p, const char *label, enum progress_unit unit)
{
	const char *term = getenv("TERM");

	*p = (struct progress){.unit = unit, .start_ms = now_ms()};
	snprintf(p->label, sizeof(p->label), "%s", label);
	p->wanted = isatty(STDERR_FILENO) && term && !str_eq(term, "dumb");
}

/* "12 MiB of 27 MiB", "3 of 12" */
static void format_amount(const struct progress *p, char *buf, size_t size)
{
	char done[24], total[24];

	if (p->unit == PROGRESS_PARTS) {
		*buf = '\0';
		return;
	}
	if (p->unit == PROGRESS_BYTES) {
		format_size(p->done, done);
		format_size(p->total, total);
	} else {
		snprintf(done, sizeof(done), "%llu", (unsigned long long)p->done);
		snprintf(total, sizeof(total), "%llu", (unsigned long long)p->total);
	}
	if (p->total)
		snprintf(buf, size, "%s of %s", done, total);
	else
		snprintf(buf, size, "%s", p->done ? done : "");
}

static void draw(struct progress *p)
{
	static const char spinner[] = "|/-\\";
	char line[512], amount[64], bar[BAR_COLUMNS + 1];
	struct winsize size;
	int columns = 80, filled;

	format_amount(p, amount, sizeof(amount));
	if (p->total) {
		double part = p->done >= p->total ? 1 : (double)p->done / (double)p->total;

		filled = (int)(part * BAR_COLUMNS);
		memset(bar, '#', (size_t)filled);
		memset(bar + filled, '.', (size_t)(BAR_COLUMNS - filled));
		bar[BAR_COLUMNS] = '\0';
		snprintf(line, sizeof(line), "%s [%s] %3d%%  %s  %s", p->label, bar,
			 (int)(part * 100), amount, p->note);
	} else {
		snprintf(line, sizeof(line), "%s %c  %s%s%s", p->label, spinner[p->turn++ % 4],
			 amount, *amount ? "  " : "", p->note);
	}
	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col)
		columns = size.ws_col;
	/* A line that wraps could not be erased; the last column stays free for the same reason. */
	if ((size_t)columns <= sizeof(line))
		line[columns - 1] = '\0';
	if (!p->shown)
		watch_signals(true);
	p->shown = true;
	fprintf(stderr, ERASE "%s", str_chomp(line));
	fflush(stderr);
}

void progress_tick(struct progress *p)
{
	int64_t now;

	if (!p->wanted)
		return;
	now = now_ms();
	if (now - p->start_ms < PATIENCE_MS || (p->shown && now - p->drawn_ms < REDRAW_MS))
		return;
	p->drawn_ms = now;
	draw(p);
}

void progress_update(struct progress *p, uint64_t done, uint64_t total)
{
	p->done = done;
	p->total = total;
	progress_tick(p);
}

void progress_note(struct progress *p, const char *note)
{
	snprintf(p->note, sizeof(p->note), "%s", note);
	for (char *c = p->note; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = ' ';
	progress_tick(p);
}

void progress_finish(struct progress *p)
{
	if (p->shown) {
		fputs(ERASE, stderr);
		fflush(stderr);
		watch_signals(false);
	}
	p->wanted = p->shown = false;
}
