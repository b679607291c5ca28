/* What images may be called, and how paths in tarballs are read. */
#include "image/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_good_names(void **state)
{
	static const char *const names[] = {"a",     "debian", "web-server", "team/web:2.1",
					    "X_1.y", "cafe",   "deadbeef",   "1234"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		assert_int_equal(image_check_name(names[i], NULL), 0);
}

static void test_bad_names(void **state)
{
	static const char *const names[] = {"",
					    "-a",
					    ".a",
					    "/a",
					    "a b",
					    "a\nb",
					    "sha256:abcdef",
					    "\xc3\xa4",
					    "a;b",
					    "a\x7f",
					    "0123456789ab",
					    "deadbeefdeadbeef"};
	char name[130];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct error err = {0};

		assert_int_equal(image_check_name(names[i], &err), -EINVAL);
		assert_non_null(strstr(err.message, "image name"));
	}
	memset(name, 'a', 129);
	name[0] = 'x';
	name[129] = '\0';
	assert_int_equal(image_check_name(name, NULL), -EINVAL);
	name[128] = '\0';
	assert_int_equal(image_check_name(name, NULL), 0);
}

static void test_digests(void **state)
{
	assert_null(digest_digits("abc"));
	assert_null(digest_digits("debian"));
	assert_null(digest_digits("sha256:"));
	assert_null(digest_digits("sha256:xyz1"));
	assert_null(digest_digits("ABCD"));
	assert_string_equal(digest_digits("abcd"), "abcd");
	assert_string_equal(digest_digits("sha256:0123"), "0123");
}

static void clean(const char *path, const char *expected)
{
	char buf[64];

	assert_int_equal(unpack_clean_path(path, buf, sizeof(buf), NULL), 0);
	assert_string_equal(buf, expected);
}

static void test_paths(void **state)
{
	clean("", "");
	clean(".", "");
	clean("./", "");
	clean("/", "");
	clean("///", "");
	clean("usr", "usr");
	clean("/usr/bin/", "usr/bin");
	clean("./usr//bin/./ls", "usr/bin/ls");
	clean("a/...", "a/...");
	clean("..a/b..", "..a/b..");
	clean(".hidden", ".hidden");
}

static void test_hostile_paths(void **state)
{
	static const char *const paths[] = {"..",      "../x",   "a/..",         "a/../b", "/..",
					    "/../etc", "./../x", "a/b/../../..", "..//x"};
	char buf[64], longest[300];

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		assert_int_equal(unpack_clean_path(paths[i], buf, sizeof(buf), NULL), -EINVAL);
	memset(longest, 'a', sizeof(longest));
	longest[299] = '\0';
	assert_int_equal(unpack_clean_path(longest, buf, sizeof(buf), NULL), -ENAMETOOLONG);
	/* One byte less than the buffer has, its end included. */
	longest[63] = '\0';
	assert_int_equal(unpack_clean_path(longest, buf, sizeof(buf), NULL), -ENAMETOOLONG);
	longest[62] = '\0';
	assert_int_equal(unpack_clean_path(longest, buf, sizeof(buf), NULL), 0);
}

static void test_compressions(void **state)
{
	assert_int_equal(image_compression_of("a.tar"), IMAGE_PLAIN);
	assert_int_equal(image_compression_of("a.tar.gz"), IMAGE_GZIP);
	assert_int_equal(image_compression_of("/x/a.tgz"), IMAGE_GZIP);
	assert_int_equal(image_compression_of("a.txz"), IMAGE_XZ);
	assert_int_equal(image_compression_of("a.tar.zst"), IMAGE_ZSTD);
	assert_int_equal(image_compression_of(".gz"), IMAGE_PLAIN);
	assert_int_equal(image_compression_of("gz"), IMAGE_PLAIN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_names),    cmocka_unit_test(test_bad_names),
		cmocka_unit_test(test_digests),       cmocka_unit_test(test_paths),
		cmocka_unit_test(test_hostile_paths), cmocka_unit_test(test_compressions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
