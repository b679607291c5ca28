/* Tarballs: unpacking one may fail, but leaves nothing outside of the directory that it is unpacked
 * to, and what it leaves inside can be removed. */
#include "base/cleanup.h"
#include "base/file.h"
#include "image/internal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Instead of image/work.c's, which would bring the whole image store along. */
int image_progress(const struct image_options *options, const char *stage, double fraction,
		   struct error *err)
{
	return 0;
}

static int make_dir(void)
{
	const char *dir = getenv("FUZZ_SCRATCH"); /* from tests/fuzz/run, which removes it */
	int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	if (fd < 0 || (mkdirat(fd, "outside", 0755) < 0 && errno != EEXIST))
		abort();
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct image_options options;
	static int dir_fd = -EBADF;
	struct unpack u = {.options = &options};
	autofd int fd = memfd_create("fuzz", MFD_CLOEXEC);
	autofd int root = -EBADF;
	struct error err = {0};

	if (dir_fd < 0)
		dir_fd = make_dir();
	if (fd < 0 || fd_write_full(fd, data, size, NULL) < 0 || lseek(fd, 0, SEEK_SET) < 0 ||
	    mkdirat(dir_fd, "tree", 0755) < 0)
		abort();
	root = u.root_fd = openat(dir_fd, "tree", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		abort();
	if (unpack_tarball(&u, fd, &err) < 0 && !err.message[0])
		abort();
	free(u.config);
	if (dir_remove_all(dir_fd, "tree", &err) < 0)
		abort();
	/* As it was: there, and empty. */
	if (unlinkat(dir_fd, "outside", AT_REMOVEDIR) < 0 || mkdirat(dir_fd, "outside", 0755) < 0)
		abort();
	return 0;
}
