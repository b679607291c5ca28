/*
 * Prints Lodge's system call filter for applications as the "seccomp" object of an OCI runtime's
 * config.json, so that the runtimes we measure against set up a filter of the same calls as Lodge.
 * Simpler in one respect: calls that Lodge allows or refuses by their arguments are allowed.
 */
#include "container/seccomp_profile.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
	const char *separator = "";

	/* Unknown calls end in ENOSYS, as in Lodge; those in EPERM have a list of their own. */
	printf("{\"defaultAction\": \"SCMP_ACT_ERRNO\", \"defaultErrnoRet\": %d,\n"
	       "\"architectures\": [\"SCMP_ARCH_X86_64\", \"SCMP_ARCH_X86\"],\n\"syscalls\": [",
	       ENOSYS);
	for (const struct seccomp_row *row = seccomp_rows; row->names; row++) {
		const struct seccomp_tests *tests = row->tests[SECCOMP_APPLICATION];
		int action = tests ? 0 : row->action[SECCOMP_APPLICATION];

		if (action == ENOSYS)
			continue;
		printf("%s\n{\"names\": [\"", separator);
		for (const char *c = row->names; *c; c++)
			fputs(*c == ' ' ? "\", \"" : (char[]){*c, '\0'}, stdout);
		if (action)
			printf("\"], \"action\": \"SCMP_ACT_ERRNO\", \"errnoRet\": %d}", action);
		else
			printf("\"], \"action\": \"SCMP_ACT_ALLOW\"}");
		separator = ",";
	}
	printf("]}\n");
	return ferror(stdout) || fflush(stdout) ? 1 : 0;
}
