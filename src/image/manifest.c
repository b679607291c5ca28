/* The manifest: made from what a tree holds, read back as struct image_config. */
#include "base/file.h"
#include "base/json.h"
#include "image/internal.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>

/* What a symbolic link below root leads to, as a path within the root; NULL: nothing there. The
 * kernel's name of the descriptor is the resolved path, behind the root's own. */
static char *resolve(int root_fd, const char *path, mode_t *type)
{
	char link[40], root[PATH_MAX], full[PATH_MAX];
	autofd int fd = file_open_in_root(root_fd, path, O_PATH, 0, NULL);
	ssize_t root_len, len;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return NULL;
	*type = st.st_mode & S_IFMT;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", root_fd);
	root_len = readlink(link, root, sizeof(root) - 1);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = readlink(link, full, sizeof(full) - 1);
	if (root_len < 0 || len < 0)
		return NULL;
	root[root_len] = full[len] = '\0';
	if (str_eq(root, "/"))
		root_len = 0;
	if (strncmp(full, root, (size_t)root_len) || full[root_len] != '/')
		return NULL;
	return strdup(full + root_len);
}

/* A regular file's text, at most 64 KiB. A FIFO in its place must not stop us. */
static char *read_small(int root_fd, const char *path)
{
	enum { LIMIT = 64 << 10 };
	autofd int fd = file_open_in_root(root_fd, path, O_RDONLY | O_NONBLOCK, 0, NULL);
	autofree char *text = NULL;
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > LIMIT)
		return NULL;
	text = malloc(LIMIT + 1);
	n = text ? fd_read_full(fd, text, LIMIT, NULL) : -1;
	if (n < 0)
		return NULL;
	text[n] = '\0';
	return steal_ptr(&text);
}

/* PRETTY_NAME of os-release(5), without its quotes; NULL where there is none. */
char *manifest_os_name(const char *os_release)
{
	static const char key[] = "PRETTY_NAME=";

	for (const char *line = os_release; line; line = strchr(line, '\n')) {
		size_t len;
		char *name, *to;

		line += *line == '\n';
		if (strncmp(line, key, strlen(key))) {
			if (!*line)
				break;
			continue;
		}
		line += strlen(key);
		len = strcspn(line, "\n");
		if (len >= 2 && (*line == '"' || *line == '\'') && line[len - 1] == *line) {
			line++;
			len -= 2;
		}
		name = to = malloc(len + 1);
		for (size_t i = 0; name && i < len; i++) {
			if (line[i] == '\\' && i + 1 < len)
				i++;
			*to++ = line[i];
		}
		if (name)
			*to = '\0';
		return name;
	}
	return NULL;
}

/* The kernel with the highest version in /boot, by the names that distributions give them. */
static char *newest_kernel(int root_fd)
{
	static const char prefix[] = "vmlinuz-";
	autofree char *best = NULL;
	autodir DIR *dir = NULL;
	struct dirent *entry;
	int fd = file_open_in_root(root_fd, "boot", O_RDONLY | O_DIRECTORY, 0, NULL);

	if (fd < 0)
		return NULL;
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return NULL;
	}
	while ((entry = readdir(dir))) {
		if (!str_starts_with(entry->d_name, prefix))
			continue;
		if (best && strverscmp(entry->d_name, best) < 0)
			continue;
		free(best);
		best = strdup(entry->d_name);
	}
	return best ? str_printf("/boot/%s", best) : NULL;
}

static char *find_first(int root_fd, const char *const *paths)
{
	for (; *paths; paths++) {
		mode_t type;
		autofree char *found = resolve(root_fd, *paths, &type);

		if (found && type == S_IFREG)
			return steal_ptr(&found);
	}
	return NULL;
}

static int set_kernel(int root_fd, json_t *manifest, struct error *err)
{
	autofree char *kernel = find_first(
		root_fd, (const char *const[]){"vmlinuz", "boot/vmlinuz", "boot/vmlinuz-lts",
					       "boot/vmlinuz-virt", NULL});
	autofree char *newest = kernel ? NULL : newest_kernel(root_fd);
	autofree char *initrd = NULL;
	autofree char *debian = NULL;
	autofree char *fedora = NULL;
	autofree char *alpine = NULL;
	const char *version;

	if (!kernel && newest)
		kernel = find_first(root_fd, (const char *const[]){newest, NULL});
	if (!kernel)
		return 0;
	version = strstr(kernel, "vmlinuz-");
	version = version ? version + strlen("vmlinuz-") : "";
	debian = str_printf("boot/initrd.img-%s", version);
	fedora = str_printf("boot/initramfs-%s.img", version);
	alpine = str_printf("boot/initramfs-%s", version);
	if (!debian || !fedora || !alpine)
		return error_oom(err);
	initrd = find_first(root_fd, (const char *const[]){debian, fedora, alpine, "initrd.img",
							   "boot/initrd.img", NULL});
	if (json_object_set_new(manifest, "kernel", json_string(kernel)) < 0)
		return 0; /* a name that is not UTF-8 */
	if (initrd)
		json_object_set_new(manifest, "initrd", json_string(initrd));
	return 0;
}

/*
 * What runs when nobody says: the tree's init, with the signal that shuts it down cleanly
 * (systemd(1) SIGNALS; BusyBox's init halts on SIGUSR2), else a shell.
 */
static int guess_config(int root_fd, json_t *config, struct error *err)
{
	mode_t type = 0;
	autofree char *init = resolve(root_fd, "sbin/init", &type);
	autofree char *shell = NULL;
	const char *cmd = NULL, *name, *stop_signal = NULL;

	if (init && type == S_IFREG) {
		cmd = "/sbin/init";
		name = strrchr(init, '/') + 1;
		if (str_eq(name, "systemd"))
			stop_signal = "SIGRTMIN+3";
		else if (str_starts_with(name, "busybox"))
			stop_signal = "SIGUSR2";
	} else {
		shell = resolve(root_fd, "bin/sh", &type);
		if (shell && type == S_IFREG)
			cmd = "/bin/sh";
	}
	if (cmd && json_object_set_new(config, "cmd", json_pack("[s]", cmd)) < 0)
		return error_oom(err);
	if (stop_signal && json_object_set_new(config, "stop_signal", json_string(stop_signal)) < 0)
		return error_oom(err);
	return 0;
}

static int set_list(json_t *config, const char *key, const struct strv *list, struct error *err)
{
	json_t *array = json_from_strv(list);

	if (!array || json_object_set_new(config, key, array) < 0)
		return error_set(err, EINVAL, "%s: not UTF-8", key);
	return 0;
}

/* What the user asked for wins. */
static int apply_options(json_t *config, const struct image_options *options, struct error *err)
{
	int rc = 0;

	if (options && options->cmd) {
		rc = set_list(config, "cmd", options->cmd, err);
		/* The guessed signal was the guessed command's. */
		json_object_del(config, "stop_signal");
	}
	if (rc == 0 && options && options->env)
		rc = set_list(config, "env", options->env, err);
	return rc;
}

int manifest_from_tree(int root_fd, const char *source, const struct image_options *options,
		       json_t **out, struct error *err)
{
	autojson json_t *manifest = json_object();
	autofree char *os_release = read_small(root_fd, "etc/os-release");
	autofree char *os = NULL;
	json_t *config = json_object();
	int rc;

	if (!manifest || json_object_set_new(manifest, "config", config) < 0)
		return error_oom(err);
	if (!os_release)
		os_release = read_small(root_fd, "usr/lib/os-release");
	os = os_release ? manifest_os_name(os_release) : NULL;
	/* Bytes that are no UTF-8 give no string, and then the key is left out. */
	if (os)
		json_object_set_new(manifest, "os", json_string(os));
	json_object_set_new(manifest, "source", json_string(source));
	rc = guess_config(root_fd, config, err);
	if (rc == 0)
		rc = set_kernel(root_fd, manifest, err);
	if (rc == 0)
		rc = apply_options(config, options, err);
	if (rc < 0)
		return rc;
	*out = steal_ptr(&manifest);
	return 0;
}

static int copy_str(const json_t *object, const char *key, char **to, struct error *err)
{
	const char *value = NULL;
	int rc = json_get_str(object, key, &value, err);

	if (rc == 0 && value) {
		*to = strdup(value);
		if (!*to)
			return error_oom(err);
	}
	return rc;
}

static int config_from_json(const json_t *object, struct image_config *c, struct error *err)
{
	int rc = json_get_strv(object, "entrypoint", &c->entrypoint, err);

	if (rc == 0)
		rc = json_get_strv(object, "cmd", &c->cmd, err);
	if (rc == 0)
		rc = json_get_strv(object, "env", &c->env, err);
	if (rc == 0)
		rc = copy_str(object, "workdir", &c->workdir, err);
	if (rc == 0)
		rc = copy_str(object, "user", &c->user, err);
	if (rc == 0)
		rc = copy_str(object, "stop_signal", &c->stop_signal, err);
	return rc;
}

int manifest_set_config(json_t *manifest, const char *text, const struct image_options *options,
			struct error *err)
{
	autoimageconfig struct image_config checked = {0};
	json_t *config = NULL;
	int rc = json_parse(text, "the tarball's " CONFIG_XATTR, &config, err);

	if (rc < 0)
		return rc;
	if (!json_is_object(config)) {
		json_decref(config);
		return error_set(err, EINVAL, "the tarball's " CONFIG_XATTR " is not an object");
	}
	rc = config_from_json(config, &checked, err);
	if (rc < 0) {
		json_decref(config);
		return error_wrap(err, "the tarball's " CONFIG_XATTR);
	}
	if (json_object_set_new(manifest, "config", config) < 0)
		return error_oom(err);
	return apply_options(config, options, err);
}

char *manifest_config_text(const json_t *manifest)
{
	const json_t *config = json_object_get(manifest, "config");

	return json_is_object(config) ? json_text(config) : strdup("{}");
}

int image_get_config(const struct image *image, struct image_config *out, struct error *err)
{
	autoimageconfig struct image_config c = {0};
	json_t *object = NULL;
	int rc = json_get_object(image->manifest, "config", &object, err);

	if (rc == 0 && object)
		rc = config_from_json(object, &c, err);
	if (rc == 0)
		rc = copy_str(image->manifest, "kernel", &c.kernel, err);
	if (rc == 0)
		rc = copy_str(image->manifest, "initrd", &c.initrd, err);
	if (rc < 0)
		return error_wrap(err, "the manifest of image %s",
				  image->name ? image->name : image->digest);
	*out = c;
	c = (struct image_config){0};
	return 0;
}

void image_config_free(struct image_config *c)
{
	strv_free(&c->entrypoint);
	strv_free(&c->cmd);
	strv_free(&c->env);
	free(c->workdir);
	free(c->user);
	free(c->stop_signal);
	free(c->kernel);
	free(c->initrd);
	*c = (struct image_config){0};
}
