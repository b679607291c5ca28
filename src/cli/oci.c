/*
 * The same binary under the name lodge-oci: the place of the OCI runtime command line (what runc
 * and crun take). This version answers only for itself; called by main.c before anything else.
 */
#include "cli/verbs.h"

#include <stdio.h>
#include <string.h>

static const char usage[] =
	"lodge-oci " LODGE_VERSION " - Lodge's OCI runtime command line\n"
	"\n"
	"  lodge-oci --version | --help\n"
	"\n"
	"The runtime commands (create, start, state, kill, delete) aren't part of\n"
	"this version. Containers run with 'lodge run'; see 'lodge help run'.\n";

int oci_main(int argc, char **argv)
{
	struct error err = {};

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--version") == 0 || strcmp(argv[i], "-v") == 0) {
			puts("lodge-oci " LODGE_VERSION);
			return 0;
		}
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			fputs(usage, stdout);
			return 0;
		}
	}
	error_set(&err, ENOSYS, "the OCI runtime command line isn't part of this version");
	error_hint(&err, "containers run with 'lodge run'");
	return lodge_fail(&err);
}
