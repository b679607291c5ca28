/*
 * Probes of mounts and file systems; see host_probe.h. All mounts made here are detached: they have
 * no path and go with their descriptor.
 */
#include "base/host_probe.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

static int new_fs(const char *type)
{
	return (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC);
}

void probe_mount_api(struct host_answer *a)
{
	/* Nonsense arguments: only a kernel without the call says ENOSYS. */
	if ((syscall(SYS_fsopen, NULL, ~0U) < 0 && errno == ENOSYS) ||
	    (syscall(SYS_open_tree, -1, "", ~0U) < 0 && errno == ENOSYS) ||
	    (syscall(SYS_mount_setattr, -1, "", ~0U, NULL, 0) < 0 && errno == ENOSYS))
		host_no(a, "not in this kernel");
	else
		host_yes(a, "fsopen(), open_tree(), mount_setattr()");
}

/* A user namespace with a mapping, which some child has to be in to exist. */
static int mapped_user_namespace(void)
{
	int ready[2], fd = -1;
	char path[64], byte = 0;
	pid_t pid;

	if (pipe2(ready, O_CLOEXEC) < 0)
		return -1;
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(ready[0]);
		if (unshare(CLONE_NEWUSER) < 0 || write(ready[1], &byte, 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	if (pid > 0 && read(ready[0], &byte, 1) == 1) {
		snprintf(path, sizeof(path), "/proc/%d/uid_map", (int)pid);
		file_write_at(AT_FDCWD, path, "0 65536 65536", NULL);
		snprintf(path, sizeof(path), "/proc/%d/gid_map", (int)pid);
		file_write_at(AT_FDCWD, path, "0 65536 65536", NULL);
		snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)pid);
		fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	close(ready[0]);
	if (pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	return fd;
}

/* The file system that guests will be on; "/" where Lodge was never used. */
static const char *storage_path(void)
{
	static const char *const places[] = {"/var/lib/lodge", "/var/lib", "/"};

	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		if (access(places[i], X_OK) == 0)
			return places[i];
	return "/";
}

void probe_idmapped_mounts(struct host_answer *a)
{
	const char *path = storage_path();
	autofd int ns = -EBADF;
	autofd int tree =
		(int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP};

	if (tree < 0) {
		host_no(a, "%s", host_why(errno));
		return;
	}
	ns = mapped_user_namespace();
	if (ns < 0) {
		host_no(a, "no user namespace to map to");
		return;
	}
	attr.userns_fd = (uint64_t)ns;
	if (syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attr, sizeof(attr)) == 0)
		host_yes(a, "on the file system of %s", path);
	else if (errno == EINVAL)
		host_no(a, "not on the file system of %s", path);
	else
		host_no(a, "%s", host_why(errno));
}

/* Needs no privilege, but does not see a module that is not loaded yet. */
static bool is_listed(const char *type)
{
	autofree char *text = NULL;
	autofree char *line = str_printf("\t%s\n", type);

	return line &&
	       file_read_at(AT_FDCWD, "/proc/filesystems", 1 << 16, &text, NULL, NULL) == 0 &&
	       strstr(text, line);
}

/* Whether the kernel has a file system type, loading its module where it can be. */
static bool have_type(const char *type, struct host_answer *a)
{
	autofd int fs = new_fs(type);

	if (fs >= 0 || is_listed(type))
		return true;
	host_no(a, "%s", errno == EPERM ? "not loaded, or not in this kernel" : host_why(errno));
	return false;
}

void probe_overlay(struct host_answer *a)
{
	if (have_type("overlay", a))
		host_yes(a, "available");
}

void probe_overlay_idmapped(struct host_answer *a)
{
	if (!host_has(HOST_OVERLAY))
		host_no(a, "no overlay");
	else if (!host_kernel_is(5, 19)) /* no switch: every kernel from 5.19 on has it */
		host_no(a, "older kernel");
	else if (!host_has(HOST_IDMAPPED_MOUNTS))
		host_no(a, "no idmapped mounts");
	else
		host_yes(a, "available");
}

void probe_overlay_fds(struct host_answer *a)
{
	autofd int fs = new_fs("overlay");
	autofd int dir = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fs < 0)
		host_no(a, "%s", host_why(errno));
	else if (syscall(SYS_fsconfig, fs, FSCONFIG_SET_FD, "lowerdir+", NULL, dir) == 0)
		host_yes(a, "available");
	else
		host_no(a, "%s", errno == EINVAL ? "older kernel" : host_why(errno));
}

void probe_erofs(struct host_answer *a)
{
	if (!have_type("erofs", a))
		return;
	if (host_has(HOST_EROFS_FILE))
		host_yes(a, "from a file");
	else if (host_has(HOST_LOOP))
		host_yes(a, "by a loop device");
	else
		host_no(a, "in the kernel, but there is nothing to mount from");
}

static void put_le32(unsigned char *p, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		p[i] = (unsigned char)(value >> 8 * i);
}

/* The smallest EROFS: an empty root directory. fs/erofs/erofs_fs.h. An invalid image would tell as
 * much, and leave a complaint in the kernel's log each time. */
static void make_erofs(unsigned char image[static 4096])
{
	unsigned char *super = image + 1024, *inode = image + 2048;

	memset(image, 0, 4096);
	put_le32(super, 0xe0f5e1e2);           /* magic */
	super[12] = 12;                        /* blocks of 4 KiB */
	super[14] = 64;                        /* root: inode slot 64, of 32 bytes each */
	super[16] = 1;                         /* inodes */
	put_le32(super + 36, 1);               /* blocks */
	put_le32(inode + 4, 2 << 16 | 040755); /* links, mode */
}

/* A file without a name, on a file system that can back a mount (tmpfs can't). */
static int unnamed_file(void)
{
	static const char *const places[] = {"/var/lib/lodge", "/var/tmp", "/root", "/"};

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		autofd int fd = open(places[i], O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
		struct statfs st;

		if (fd >= 0 && fstatfs(fd, &st) == 0 && st.f_type != TMPFS_MAGIC)
			return steal_fd(&fd);
	}
	return -1;
}

void probe_erofs_file(struct host_answer *a)
{
	autofd int fs = new_fs("erofs");
	autofd int file = -EBADF;
	unsigned char image[4096];
	char source[32];

	if (fs < 0) {
		host_no(a, "%s", host_why(errno));
		return;
	}
	file = unnamed_file();
	make_erofs(image);
	if (file < 0 || fd_write_full(file, image, sizeof(image), NULL) < 0) {
		host_no(a, "unknown: no place for a test file");
		return;
	}
	snprintf(source, sizeof(source), "/proc/self/fd/%d", file);
	if (syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "source", source, 0) == 0 &&
	    syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
		host_yes(a, "available");
	else
		host_no(a, "%s", errno == ENOTBLK ? "not in this kernel" : host_why(errno));
}

static void ask_device(struct host_answer *a, const char *path)
{
	autofd int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		host_yes(a, "%s", path);
	else
		host_no(a, "%s: %s", path, host_why(errno));
}

void probe_loop(struct host_answer *a)
{
	ask_device(a, "/dev/loop-control");
}

void probe_fuse(struct host_answer *a)
{
	ask_device(a, "/dev/fuse");
}

void probe_tun(struct host_answer *a)
{
	ask_device(a, "/dev/net/tun");
}

void probe_vhost_net(struct host_answer *a)
{
	ask_device(a, "/dev/vhost-net");
}
