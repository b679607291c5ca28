/*
 * What the stage mounts (internal.h): the root as an overlay of the guest's writable layer over the
 * image, /dev, the volumes, /proc and /sys. Ids are shifted by the mounts, never in the files.
 */
#include "container/internal.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/*
 * Files that the host makes in the container must belong to its root: takes its ids for file
 * access, and keeps the capabilities that the kernel takes away with file-system id 0
 * (capabilities(7), "Effect of user ID changes").
 */
static int file_ids_set(uint32_t id, struct error *err)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	setfsgid(id);
	setfsuid(id);
	if ((uint32_t)setfsuid((uid_t)-1) != id)
		return error_set(err, EPERM, "take on the container's ids");
	if (syscall(SYS_capget, &header, data) < 0)
		return error_sys(err, errno, "read the capabilities");
	for (int i = 0; i < 2; i++)
		data[i].effective = data[i].permitted;
	if (syscall(SYS_capset, &header, data) < 0)
		return error_sys(err, errno, "set the capabilities");
	return 0;
}

/* Mounts a detached mount over mount_dir, so that it is part of our mount namespace, as overlayfs
 * wants its layers to be; they are named by descriptor, so that one may cover the other. */
static int stack(int mount_fd, const char *mount_dir, struct error *err)
{
	if (move_mount(mount_fd, "", AT_FDCWD, mount_dir, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return error_sys(err, errno, "mount on %s", mount_dir);
	return 0;
}

int rootfs_mount(const struct container_spec *spec, int image_tree, const char *mount_dir,
		 int userns_fd, struct error *err)
{
	char lower_path[64], upper_path[64], work_path[64];
	struct mount_option options[5];
	autofd int upper = -EBADF;
	autofd int root = -EBADF;
	size_t n = 0;
	int rc;

	rc = mount_set(image_tree, 0, userns_fd, false, err);
	if (rc < 0)
		return error_wrap(err, "image");
	rc = stack(image_tree, mount_dir, err);
	if (rc < 0)
		return rc;
	upper = mount_clone(AT_FDCWD, spec->upper_dir, false, err);
	if (upper < 0)
		return upper;
	rc = mount_set(upper, 0, userns_fd, false, err);
	if (rc < 0)
		return error_wrap(err, "%s", spec->upper_dir);
	rc = stack(upper, mount_dir, err);
	if (rc < 0)
		return rc;

	snprintf(lower_path, sizeof(lower_path), "/proc/self/fd/%d", image_tree);
	snprintf(upper_path, sizeof(upper_path), "/proc/self/fd/%d/upper", upper);
	snprintf(work_path, sizeof(work_path), "/proc/self/fd/%d/work", upper);
	options[n++] = (struct mount_option){"source", "lodge"};
	options[n++] = (struct mount_option){"lowerdir", lower_path};
	options[n++] = (struct mount_option){"upperdir", upper_path};
	options[n++] = (struct mount_option){"workdir", work_path};
	if (spec->root_volatile)
		options[n++] = (struct mount_option){"volatile", NULL};
	/* overlayfs works on its layers with the credentials of who mounted it. */
	rc = file_ids_set(spec->id_base, err);
	if (rc < 0)
		return rc;
	root = mount_new("overlay", options, n, MOUNT_ATTR_NODEV, err);
	if (root < 0)
		return root;
	rc = stack(root, mount_dir, err);
	return rc < 0 ? rc : steal_fd(&root);
}

static const struct {
	const char *name;
	unsigned int major, minor;
} nodes[] = {
	{"null", 1, 3}, {"zero", 1, 5},   {"full", 1, 7},
	{"tty", 5, 0},  {"random", 1, 8}, {"urandom", 1, 9},
};

static const struct {
	const char *name, *target;
} links[] = {
	{"fd", "/proc/self/fd"},       {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
	{"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"},
};

int rootfs_mount_dev(const struct container_spec *spec, int root_fd, struct error *err)
{
	static const char *const dirs[] = {"pts", "shm", "mqueue"};
	struct mount_option options[] = {
		{"source", "dev"}, {"mode", "755"}, {"size", "1m"}, {"uid", NULL}, {"gid", NULL},
	};
	autofd int dev = -EBADF;
	autofd int console = -EBADF;
	char id[16];
	mode_t mask;
	int rc = 0;

	snprintf(id, sizeof(id), "%u", spec->id_base);
	options[3].value = options[4].value = id;
	dev = mount_new("tmpfs", options, ARRAY_SIZE(options),
			MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, err);
	if (dev < 0)
		return dev;
	mask = umask(0);
	for (size_t i = 0; !rc && i < ARRAY_SIZE(nodes); i++)
		rc = mknodat(dev, nodes[i].name, S_IFCHR | 0666,
			     makedev(nodes[i].major, nodes[i].minor));
	for (size_t i = 0; !rc && i < ARRAY_SIZE(links); i++)
		rc = symlinkat(links[i].target, dev, links[i].name);
	for (size_t i = 0; !rc && i < ARRAY_SIZE(dirs); i++)
		rc = mkdirat(dev, dirs[i], 0755);
	umask(mask);
	if (rc < 0)
		return error_sys(err, errno, "fill the container's /dev");
	if (spec->terminal) {
		console = openat(dev, "console", O_CREAT | O_CLOEXEC, 0600);
		if (console < 0)
			return error_sys(err, errno, "fill the container's /dev");
	}
	return mount_attach(dev, root_fd, "/dev", MOUNT_ON_OWN, err);
}

/* The path was resolved when the guest was made. Whoever may write above its end since (another guest,
 * say) must not bend it to another directory of the host (CVE-2017-1002101). */
static int open_source(const char *path, struct error *err)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS};
	int fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));

	if (fd < 0 && errno == ELOOP) {
		error_set(err, ELOOP, "a part of the path has become a symbolic link");
		error_hint(err, "create the guest again with the path that is meant");
		return -ELOOP;
	}
	return fd >= 0 ? fd : error_sys(err, errno, "open it");
}

int rootfs_mount_binds(const struct container_spec *spec, int root_fd, int userns_fd,
		       struct error *err)
{
	for (size_t i = 0; i < spec->n_binds; i++) {
		const struct container_bind *bind = &spec->binds[i];
		autofd int source = open_source(bind->source, err);
		autofd int fd = source < 0 ? source : mount_clone(source, "", true, err);
		struct stat st;
		int rc;

		if (fd < 0)
			return error_wrap(err, "volume %s", bind->source);
		if (fstat(fd, &st) < 0)
			return error_sys(err, errno, "volume %s", bind->source);
		rc = mount_set(fd, MOUNT_ATTR_NODEV | (bind->read_only ? MOUNT_ATTR_RDONLY : 0),
			       userns_fd, true, err);
		if (!rc)
			rc = mount_attach(fd, root_fd, bind->destination,
					  S_ISDIR(st.st_mode) ? MOUNT_ON_DIRECTORY : MOUNT_ON_FILE,
					  err);
		if (rc < 0)
			return error_wrap(err, "volume %s", bind->source);
	}
	return 0;
}

/* The defaults of the OCI runtimes. Some exist on some hosts only. */
static const char *const masked[] = {
	"/proc/acpi",        "/proc/asound",   "/proc/interrupts",
	"/proc/kcore",       "/proc/keys",     "/proc/latency_stats",
	"/proc/sched_debug", "/proc/scsi",     "/proc/timer_list",
	"/proc/timer_stats", "/sys/dev/block", "/sys/devices/virtual/powercap",
	"/sys/fs/selinux",
};

/* A directory that every kernel's /sys has. */
static const char masked_always[] = "/sys/firmware";

static const char *const read_only[] = {
	"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger", "/proc/sys",
};

/* Not every kernel has every file. */
static bool is_missing(int code, struct error *err)
{
	if (code != -ENOENT && code != -ENOTDIR)
		return false;
	error_clear(err);
	return true;
}

/* Covers `path`: a directory by an empty one, a file by /dev/null. */
static int mask(int root_fd, int empty, int null, const char *path, struct error *err)
{
	autofd int target = mount_open_own(root_fd, path, err);
	autofd int cover = -EBADF;
	struct stat st;

	if (target < 0)
		return is_missing(target, err) ? 0 : target;
	if (fstat(target, &st) < 0)
		return error_sys(err, errno, "mask %s", path);
	cover = mount_clone(S_ISDIR(st.st_mode) ? empty : null, "", false, err);
	return cover < 0 ? cover : mount_over(cover, target, path, err);
}

static int make_read_only(int root_fd, const char *path, struct error *err)
{
	autofd int target = mount_open_own(root_fd, path, err);
	autofd int cover = -EBADF;
	int rc;

	if (target < 0)
		return is_missing(target, err) ? 0 : target;
	cover = mount_clone(target, "", true, err);
	if (cover < 0)
		return cover;
	rc = mount_set(cover,
		       MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
		       -1, true, err);
	return rc < 0 ? rc : mount_over(cover, target, path, err);
}

/* Each boot of a system has an id of its own, by which its journal tells one from the other; the
 * host's stays the same. The file is on /dev for the moment only. */
static int mount_boot_id(int root_fd, struct error *err)
{
	static const char path[] = "/proc/sys/kernel/random/boot_id";
	autofd int target = mount_open_own(root_fd, path, err);
	autofd int dev = mount_open_own(root_fd, "/dev", err);
	autofree char *id = NULL;
	autofd int file = -EBADF;
	autofd int cover = -EBADF;
	int rc;

	if (target < 0 || dev < 0)
		return target < 0 ? target : dev;
	rc = file_read_at(AT_FDCWD, "/proc/sys/kernel/random/uuid", 64, &id, NULL, err);
	if (rc < 0)
		return rc;
	file = file_open_at(dev, ".boot_id", O_RDWR | O_CREAT | O_EXCL, 0444, err);
	if (file < 0)
		return file;
	rc = fd_write_full(file, id, strlen(id), err);
	if (!rc)
		cover = rc = mount_clone(file, "", false, err);
	if (rc >= 0)
		rc = mount_set(cover, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, -1,
			       false, err);
	if (rc >= 0)
		rc = mount_over(cover, target, path, err);
	unlinkat(dev, ".boot_id", 0);
	return rc < 0 ? rc : 0;
}

int rootfs_mount_proc_sys(const struct container_spec *spec, int root_fd, struct error *err)
{
	static const struct mount_option proc_options[] = {{"source", "proc"}};
	static const struct mount_option sys_options[] = {{"source", "sysfs"}};
	const unsigned int flags = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
	autofd int proc = mount_new("proc", proc_options, 1, flags, err);
	static const struct mount_option empty_options[] = {
		{"source", "masked"},
		{"mode", "755"},
		{"size", "4k"},
		{"nr_inodes", "1"},
	};
	autofd int sys = -EBADF;
	autofd int empty = -EBADF;
	autofd int null = -EBADF;
	struct stat st;
	/* A system may set its own namespaces' sysctls; the host's belong to a root that it is not.
	 */
	size_t n_read_only = ARRAY_SIZE(read_only) - (spec->system ? 1 : 0);
	int rc;

	if (proc < 0)
		return proc;
	rc = mount_attach(proc, root_fd, "/proc", MOUNT_ON_OWN, err);
	if (rc < 0)
		return rc;
	/* Read-only for systems too: systemd then leaves devices to the host (its "container
	 * interface"). */
	sys = mount_new("sysfs", sys_options, 1, flags | MOUNT_ATTR_RDONLY, err);
	if (sys < 0)
		return sys;
	rc = mount_attach(sys, root_fd, "/sys", MOUNT_ON_OWN, err);
	if (rc < 0)
		return rc;
	/* Mounted in the first place that needs it: only what is part of a mount namespace can be
	 * cloned on older kernels. */
	empty = mount_new("tmpfs", empty_options, ARRAY_SIZE(empty_options),
			  flags | MOUNT_ATTR_RDONLY, err);
	if (empty < 0)
		return empty;
	rc = mount_attach(empty, root_fd, masked_always, MOUNT_ON_OWN, err);
	null = mount_open_own(root_fd, "/dev/null", err);
	if (null < 0)
		return null;
	if (fstat(null, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
		return error_set(err, EINVAL, "the container's /dev/null is not one");
	for (size_t i = 0; !rc && i < ARRAY_SIZE(masked); i++)
		rc = mask(root_fd, empty, null, masked[i], err);
	if (!rc && spec->system)
		rc = mount_boot_id(root_fd, err);
	for (size_t i = 0; !rc && i < n_read_only; i++)
		rc = make_read_only(root_fd, read_only[i], err);
	return rc;
}
