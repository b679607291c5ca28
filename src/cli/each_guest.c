/* See each_guest.h. */
#include "cli/each_guest.h"

#include "base/cleanup.h"
#include "cli/verbs.h"

int each_guest(struct invocation *inv, each_guest_fn fn, struct error *err)
{
	autostate struct state *s = NULL;
	int result = state_open(&s, err);

	if (result < 0)
		return result;
	guest_sweep(s);
	for (int i = 0; i < inv->n_operands; i++) {
		autoguest struct guest *g = NULL;
		struct error failure = {0};
		int rc = guest_find(s, inv->operands[i], &g, &failure);

		if (!rc)
			rc = fn(s, g, inv->options, &failure);
		if (rc == 0)
			continue;
		/* The first failure is what we return; main() prints it, so it comes last. */
		if (result < 0) {
			lodge_fail(&failure);
			continue;
		}
		result = rc;
		*err = failure;
	}
	return result;
}
