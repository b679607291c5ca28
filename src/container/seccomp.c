/* See seccomp.h. */
#include "container/seccomp.h"

#include "container/seccomp_filters.h"

#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PROGRAM(code)                                                                              \
	{                                                                                          \
		sizeof(code) / sizeof((code)[0]), (struct sock_filter *)(code)                     \
	}

static const struct sock_fprog programs[SECCOMP_PROFILES] = {
	[SECCOMP_APPLICATION] = PROGRAM(seccomp_filter_application),
	[SECCOMP_SYSTEM] = PROGRAM(seccomp_filter_system),
};

int seccomp_install(enum seccomp_profile profile, struct error *err)
{
	/*
	 * SPEC_ALLOW: before Linux 5.16 a filter also switched off speculative store bypass and
	 * indirect branch speculation, at a loss of up to a third of the speed. That protects a
	 * sandbox from code in the same process (a browser's); here the wall is around the process,
	 * the kernel protects that one by itself, and 5.16 made this the default. The flag is of
	 * Linux 4.17, so it needs no fallback.
	 */
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW,
		    &programs[profile]) == 0)
		return 0;
	return error_sys(err, errno, "install the system call filter");
}
