/*
 * Cleanup attributes: what a variable owns is released when it goes out of scope, unless
 * steal_ptr() or steal_fd() moved it on. File descriptors start as -EBADF, "closed".
 */
#pragma once

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Closes *fd if it is open, keeps errno, leaves -EBADF. */
static inline void fd_close(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -EBADF;
	errno = saved;
}

static inline int steal_fd(int *fd)
{
	int value = *fd;

	*fd = -EBADF;
	return value;
}

static inline void *steal_ptr_impl(void *where)
{
	void *value = *(void **)where;

	*(void **)where = NULL;
	return value;
}

#define steal_ptr(p) ((__typeof__(*(p)))steal_ptr_impl(p))

static inline void cleanup_free(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_file(FILE **f)
{
	if (*f)
		fclose(*f);
}

static inline void cleanup_dir(DIR **d)
{
	if (*d)
		closedir(*d);
}

#define autofree __attribute__((cleanup(cleanup_free)))
#define autofd   __attribute__((cleanup(fd_close)))
#define autofile __attribute__((cleanup(cleanup_file)))
#define autodir  __attribute__((cleanup(cleanup_dir)))

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
