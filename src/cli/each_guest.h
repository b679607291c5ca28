/* Verbs that take several guests: each is tried, each failure told, and the first one counts. */
#pragma once

#include "cli/verb.h"
#include "guest/guest.h"

typedef int (*each_guest_fn)(struct state *state, struct guest *guest, const void *options,
			     struct error *err);

/* Opens the state, tidies up, and calls fn for each operand. Returns 0 or the first error. */
int each_guest(struct invocation *inv, each_guest_fn fn, struct error *err);
