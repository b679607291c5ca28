/* Manifests: what a tree says of itself, and how images are found and removed. */
#include "base/file.h"
#include "base/json.h"
#include "image/internal.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

struct tree {
	char path[40];
	int fd;
};

static int tree_new(void **state)
{
	struct tree *t = calloc(1, sizeof(*t));

	strcpy(t->path, "/tmp/lodge-test-XXXXXX");
	if (!mkdtemp(t->path))
		return -1;
	t->fd = open(t->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*state = t;
	return 0;
}

static int tree_free(void **state)
{
	struct tree *t = *state;

	close(t->fd);
	dir_remove_all(AT_FDCWD, t->path, NULL);
	free(t);
	return 0;
}

static void put(struct tree *t, const char *path, const char *text)
{
	autofree char *parent = strdup(path);
	char *slash = strrchr(parent, '/');

	if (slash) {
		*slash = '\0';
		assert_int_equal(dir_make(t->fd, parent, 0755, NULL), 0);
	}
	assert_int_equal(file_replace_at(t->fd, path, text, strlen(text), 0755, NULL), 0);
}

static json_t *manifest_of(struct tree *t, const struct image_options *options)
{
	json_t *manifest = NULL;

	assert_int_equal(manifest_from_tree(t->fd, "a test", options, &manifest, NULL), 0);
	return manifest;
}

static const char *text_at(const json_t *manifest, const char *key)
{
	return json_string_value(json_object_get(manifest, key));
}

static void config_is(const json_t *manifest, const char *expected)
{
	autofree char *text = manifest_config_text(manifest);
	autojson json_t *a = json_loads(text, 0, NULL);
	autojson json_t *b = json_loads(expected, 0, NULL);

	assert_non_null(b);
	if (!json_equal(a, b))
		fail_msg("%s is not %s", text, expected);
}

static void test_empty(void **state)
{
	autojson json_t *m = manifest_of(*state, NULL);

	config_is(m, "{}");
	assert_null(text_at(m, "kernel"));
	assert_null(text_at(m, "os"));
	assert_string_equal(text_at(m, "source"), "a test");
}

static void test_systemd(void **state)
{
	struct tree *t = *state;
	autojson json_t *m = NULL;

	put(t, "usr/lib/systemd/systemd", "");
	put(t, "usr/sbin/other", "");
	assert_int_equal(symlinkat("usr/sbin", t->fd, "sbin"), 0);
	assert_int_equal(symlinkat("/lib/systemd/systemd", t->fd, "usr/sbin/init"), 0);
	assert_int_equal(symlinkat("usr/lib", t->fd, "lib"), 0);
	put(t, "usr/lib/os-release", "NAME=x\nPRETTY_NAME=\"Some \\\"OS\\\" 1\"\nID=y\n");
	assert_int_equal(dir_make(t->fd, "etc", 0755, NULL), 0);
	assert_int_equal(symlinkat("../usr/lib/os-release", t->fd, "etc/os-release"), 0);
	put(t, "boot/vmlinuz-6.1.0-9-amd64", "");
	put(t, "boot/vmlinuz-6.1.0-30-amd64", "");
	put(t, "boot/initrd.img-6.1.0-30-amd64", "");
	m = manifest_of(t, NULL);
	config_is(m, "{\"cmd\": [\"/sbin/init\"], \"stop_signal\": \"SIGRTMIN+3\"}");
	assert_string_equal(text_at(m, "kernel"), "/boot/vmlinuz-6.1.0-30-amd64");
	assert_string_equal(text_at(m, "initrd"), "/boot/initrd.img-6.1.0-30-amd64");
	assert_string_equal(text_at(m, "os"), "Some \"OS\" 1");
}

static void test_links_of_the_distribution(void **state)
{
	struct tree *t = *state;
	autojson json_t *m = NULL;

	put(t, "boot/vmlinuz-1", "");
	put(t, "boot/vmlinuz-2", "");
	put(t, "boot/initrd.img-1", "");
	put(t, "bin/busybox", "");
	assert_int_equal(symlinkat("/boot/vmlinuz-1", t->fd, "vmlinuz"), 0);
	assert_int_equal(symlinkat("busybox", t->fd, "bin/sh"), 0);
	m = manifest_of(t, NULL);
	assert_string_equal(text_at(m, "kernel"), "/boot/vmlinuz-1");
	assert_string_equal(text_at(m, "initrd"), "/boot/initrd.img-1");
	config_is(m, "{\"cmd\": [\"/bin/sh\"]}");
}

/* Nothing that a tree holds can lead us out of it, hold us up, or fail us. */
static void test_hostile(void **state)
{
	struct tree *t = *state;
	autojson json_t *m = NULL;

	assert_int_equal(dir_make(t->fd, "etc", 0755, NULL), 0);
	assert_int_equal(dir_make(t->fd, "sbin", 0755, NULL), 0);
	assert_int_equal(mkfifoat(t->fd, "etc/os-release", 0666), 0);
	assert_int_equal(symlinkat("../../../../../../bin/sh", t->fd, "sbin/init"), 0);
	assert_int_equal(symlinkat("vmlinuz", t->fd, "vmlinuz"), 0);
	m = manifest_of(t, NULL);
	config_is(m, "{}");
	assert_null(text_at(m, "os"));
	assert_null(text_at(m, "kernel"));
}

static void test_options_win(void **state)
{
	struct tree *t = *state;
	char *words[] = {"/bin/true", "x y", NULL}, *vars[] = {"A=1", NULL};
	const struct strv cmd = {words, 2}, env = {vars, 1};
	const struct image_options options = {.cmd = &cmd, .env = &env};
	autojson json_t *m = NULL;

	put(t, "sbin/init", "");
	m = manifest_of(t, &options);
	config_is(m, "{\"cmd\": [\"/bin/true\", \"x y\"], \"env\": [\"A=1\"]}");
	assert_int_equal(manifest_set_config(m, "{\"cmd\": [\"z\"], \"user\": \"u\"}", NULL, NULL),
			 0);
	config_is(m, "{\"cmd\": [\"z\"], \"user\": \"u\"}");
	assert_int_equal(
		manifest_set_config(m, "{\"cmd\": [\"z\"], \"user\": \"u\"}", &options, NULL), 0);
	config_is(m, "{\"cmd\": [\"/bin/true\", \"x y\"], \"env\": [\"A=1\"], \"user\": \"u\"}");
}

static void test_bad_config(void **state)
{
	static const char *const texts[] = {
		"", "[]", "{", "{\"cmd\": \"x\"}", "3", "{\"env\": [1]}", "{\"user\": 5}"};
	autojson json_t *m = manifest_of(*state, NULL);

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct error err = {0};

		assert_int_equal(manifest_set_config(m, texts[i], NULL, &err), -EINVAL);
		assert_non_null(strstr(err.message, CONFIG_XATTR));
	}
	config_is(m, "{}");
}

static void test_os_name(void **state)
{
	static const struct {
		const char *text, *name;
	} cases[] = {
		{"PRETTY_NAME=Plain\n", "Plain"},
		{"A=b\nPRETTY_NAME='One two'", "One two"},
		{"PRETTY_NAME=\"a\\$b\"", "a$b"},
		{"PRETTY_NAME=", ""},
		{"PRETTY_NAME=\"", "\""},
		{"PRETTY_NAME=a\\", "a\\"},
		{"NOT_PRETTY_NAME=x\n#PRETTY_NAME=y\n", NULL},
		{"\n\n", NULL},
		{"", NULL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		autofree char *name = manifest_os_name(cases[i].text);

		if (cases[i].name)
			assert_string_equal(name, cases[i].name);
		else
			assert_null(name);
	}
}

#define TREE_TEST(f) cmocka_unit_test_setup_teardown(f, tree_new, tree_free)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TREE_TEST(test_empty),
		TREE_TEST(test_systemd),
		TREE_TEST(test_links_of_the_distribution),
		TREE_TEST(test_hostile),
		TREE_TEST(test_options_win),
		TREE_TEST(test_bad_config),
		cmocka_unit_test(test_os_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
