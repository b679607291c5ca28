/* `lodge version`. */
#include "cli/verbs.h"

#include <stdio.h>

static int version_run(struct invocation *inv, struct error *err)
{
	puts("lodge " LODGE_VERSION);
	return 0;
}

const struct verb verb_version = {
	.name = "version",
	.section = VERB_HOST,
	.summary = "print Lodge's version",
	.description = "Prints the name and version of this program, as `lodge --version` does. "
		       "What the host it runs on can do is told by `lodge host`.",
	.run = version_run,
};
