/*
 * What floor.c and layer.c share: mounting a container's root file system, and throwing its
 * writable layer away. Whatever fails ends the program: there is nothing to be tidy for.
 */
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The host's id of the container's root. */
#define ID_BASE 1000000000

#define CHECK(call)                                                                                \
	({                                                                                         \
		__typeof__(call) result_ = (call);                                                 \
		if (result_ < 0) {                                                                 \
			perror(#call);                                                             \
			_exit(125);                                                                \
		}                                                                                  \
		result_;                                                                           \
	})

#define N(array) (sizeof(array) / sizeof((array)[0]))

/* MOUNT_ATTR_... */
#define SAFE   (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)
#define SAFEST (SAFE | MOUNT_ATTR_NODEV)

/* Options are pairs of a key and a value; a flag has the value NULL, a key NULL ends them. */
#define OPTIONS(...) ((const char *const[][2]){__VA_ARGS__, {NULL, NULL}})

static inline int mount_new(const char *type, unsigned int attributes,
			    const char *const (*options)[2])
{
	int context = CHECK(fsopen(type, FSOPEN_CLOEXEC));
	int fd;

	for (; (*options)[0]; options++)
		CHECK(fsconfig(context, (*options)[1] ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG,
			       (*options)[0], (*options)[1], 0));
	CHECK(fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
	fd = CHECK(fsmount(context, FSMOUNT_CLOEXEC, attributes));
	close(context);
	return fd;
}

static inline void attach(int mount_fd, int dir_fd, const char *path)
{
	CHECK(move_mount(mount_fd, "", dir_fd, path, MOVE_MOUNT_F_EMPTY_PATH));
}

static inline int clone_mount(int dir_fd, const char *path)
{
	return open_tree(dir_fd, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
}

static inline void write_file(const char *path, const char *text)
{
	int fd = CHECK(open(path, O_WRONLY | O_CLOEXEC));

	CHECK(write(fd, text, strlen(text)));
	close(fd);
}

static inline int open_image(const char *path)
{
	struct stat st;

	CHECK(stat(path, &st));
	if (S_ISDIR(st.st_mode))
		return CHECK(clone_mount(AT_FDCWD, path));
	return mount_new("erofs", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV,
			 OPTIONS({"source", path}, {"ro", NULL}));
}

/* What overlayfs and tmpfs make now belongs to the container's root; capabilities(7) has why the
 * capabilities must be raised again. */
static inline void take_ids(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	setfsgid(ID_BASE);
	setfsuid(ID_BASE);
	CHECK(syscall(SYS_capget, &header, data));
	for (int i = 0; i < 2; i++)
		data[i].effective = data[i].permitted;
	CHECK(syscall(SYS_capset, &header, data));
}

/* Returns the container's root, detached: an overlay of `layer`, which has upper/ and work/, over
 * the image. Both are mounted on `layer`, since overlayfs wants them to be in the mount namespace.
 */
static inline int mount_root(int image, const char *layer, int userns)
{
	struct mount_attr ids = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)userns};
	int upper = CHECK(clone_mount(AT_FDCWD, layer));
	char lower_path[64], upper_path[64], work_path[64];
	int root;

	CHECK(mount_setattr(image, "", AT_EMPTY_PATH, &ids, sizeof(ids)));
	CHECK(mount_setattr(upper, "", AT_EMPTY_PATH, &ids, sizeof(ids)));
	attach(image, AT_FDCWD, layer);
	attach(upper, AT_FDCWD, layer);
	snprintf(lower_path, sizeof(lower_path), "/proc/self/fd/%d", image);
	snprintf(upper_path, sizeof(upper_path), "/proc/self/fd/%d/upper", upper);
	snprintf(work_path, sizeof(work_path), "/proc/self/fd/%d/work", upper);
	take_ids();
	root = mount_new("overlay", MOUNT_ATTR_NODEV,
			 OPTIONS({"source", "floor"}, {"lowerdir", lower_path},
				 {"upperdir", upper_path}, {"workdir", work_path},
				 {"volatile", NULL}));
	close(image);
	close(upper);
	return root;
}

/* Empty directories, as most are here, go without being looked into. */
static inline void remove_tree(int parent, const char *name)
{
	struct dirent *e;
	DIR *dir;
	int fd;

	if (unlinkat(parent, name, AT_REMOVEDIR) == 0)
		return;
	fd = CHECK(openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
	dir = fdopendir(fd);
	while (dir && (e = readdir(dir))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (e->d_type == DT_DIR)
			remove_tree(fd, e->d_name);
		else
			CHECK(unlinkat(fd, e->d_name, 0));
	}
	closedir(dir);
	CHECK(unlinkat(parent, name, AT_REMOVEDIR));
}
