/*
 * A progress line on stderr for what takes over a second, on a terminal only. Nothing is drawn
 * before that second is over, and nothing is left of it at the end, also not after Ctrl-C.
 *
 *	autoprogress struct progress p;
 *
 *	progress_start(&p, "Pulling debian", PROGRESS_BYTES);
 *	while (...)
 *		progress_update(&p, done, total);
 *
 * Modules below cli/ know nothing of this: they take a callback, and the verb hands them one.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* PROGRESS_PARTS: what is counted means nothing to the user, only its share of the whole. */
enum progress_unit { PROGRESS_BYTES, PROGRESS_STEPS, PROGRESS_PARTS };

struct progress {
	char label[64], note[96];
	enum progress_unit unit;
	uint64_t done, total;
	int64_t start_ms, drawn_ms;
	bool wanted, shown;
	unsigned turn; /* of the spinner */
};

/* Begins; draws nothing yet. One at a time in a process. */
void progress_start(struct progress *p, const char *label, enum progress_unit unit);

/* How far it is; total 0: not known, and a spinner turns. Cheap enough to be called often. */
void progress_update(struct progress *p, uint64_t done, uint64_t total);

/* Says what is happening at the moment, after the bar. */
void progress_note(struct progress *p, const char *note);

/* Nothing new, but still alive: to be called some ten times a second while waiting. */
void progress_tick(struct progress *p);

/* Takes the line off the screen. Goes before anything else is printed; may be called twice. */
void progress_finish(struct progress *p);

#define autoprogress __attribute__((cleanup(progress_finish)))
