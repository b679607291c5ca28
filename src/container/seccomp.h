/*
 * The system call filter of a container. The filters are compiled when Lodge is built
 * (seccomp_profile.c is the list to read, seccomp_gen.c the compiler): a container's start only
 * hands one to the kernel. Called by the container's first process right before it executes the
 * guest's program.
 */
#pragma once

#include "base/error.h"

enum seccomp_profile {
	SECCOMP_APPLICATION, /* default capabilities, no CAP_SYS_ADMIN: at least as tight as Docker
			      */
	SECCOMP_SYSTEM,      /* an init system with CAP_SYS_ADMIN in its own user namespace */
	SECCOMP_PROFILES
};

/*
 * Filters this thread's system calls and those of all that it will start, for good. Needs
 * CAP_SYS_ADMIN in the caller's user namespace or prctl(PR_SET_NO_NEW_PRIVS), which is the caller's
 * choice: without the capability and without no_new_privs set-user-ID programs would run filtered.
 * Async-signal-safe. Errors: EACCES (neither of the two), EINVAL (a kernel without seccomp).
 */
int seccomp_install(enum seccomp_profile profile, struct error *err);
