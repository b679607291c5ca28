/*
 * What is around an OCI runtime at the least to do what `lodge run` does: gives a bundle its root
 * file system, an overlay of a new writable layer over an image, runs the runtime, unmounts, and
 * throws the layer away. Podman and containerd do this, among much else, before they call one.
 *
 * Usage: layer IMAGE DIRECTORY ROOT USERNS COMMAND [ARGUMENT...]. DIRECTORY is where the writable
 * layer is made, ROOT the bundle's root, USERNS a file of a user namespace with the bundle's ids,
 * which is spared the making. The paths are absolute.
 */
#include "root.h"

#include <stdlib.h>
#include <sys/wait.h>

int main(int argc, char **argv)
{
	int image, root, dir, status;
	char name[32];
	pid_t pid;

	if (argc < 6) {
		fprintf(stderr, "Usage: layer IMAGE DIRECTORY ROOT USERNS COMMAND [ARGUMENT...]\n");
		return 2;
	}
	snprintf(name, sizeof(name), "layer-%d", getpid());
	image = open_image(argv[1]);
	CHECK(chdir(argv[2]));
	dir = CHECK(open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	CHECK(mkdir(name, 0700));
	CHECK(chdir(name));
	CHECK(mkdir("upper", 0755));
	CHECK(mkdir("work", 0700));
	CHECK(fchdir(dir));
	root = mount_root(image, name, CHECK(open(argv[4], O_RDONLY | O_CLOEXEC)));
	attach(root, AT_FDCWD, argv[3]);
	close(root);

	pid = CHECK(vfork());
	if (pid == 0) {
		execv(argv[5], argv + 5);
		_exit(127);
	}
	CHECK(waitpid(pid, &status, 0));

	setfsuid(0);
	setfsgid(0);
	CHECK(umount2(argv[3], MNT_DETACH));
	CHECK(umount2(name, MNT_DETACH)); /* the layer, which covers the image */
	CHECK(umount2(name, MNT_DETACH));
	remove_tree(dir, name);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
