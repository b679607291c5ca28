/* apt's sources: both formats are read, and the Debian mirror is found among what else is there. */
#include "image/sources.h"

#include "base/cleanup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define KEYRING "/usr/share/keyrings/debian-archive-keyring.gpg"

static void check(const struct apt_source *s, const char *uri, const char *suite,
		  const char *components, const char *signed_by)
{
	char joined[200] = "";

	assert_string_equal(s->uri, uri);
	assert_string_equal(s->suite, suite);
	for (size_t i = 0; i < s->components.n; i++) {
		strcat(joined, i ? " " : "");
		strcat(joined, s->components.v[i]);
	}
	assert_string_equal(joined, components);
	if (signed_by)
		assert_string_equal(s->signed_by, signed_by);
	else
		assert_null(s->signed_by);
}

static void test_list(void **state)
{
	autosources struct apt_sources s = {0};

	assert_int_equal(apt_sources_parse_list(
				 "# deb http://commented/ out main\n"
				 "deb http://a/debian/ bookworm main contrib # with a comment\n"
				 "  deb\t[ signed-by=" KEYRING
				 " arch=amd64,i386 ]  http://b/debian  trixie  main\n"
				 "deb-src http://c/debian bookworm main\n"
				 "deb [arch=arm64] http://d/debian bookworm main\n"
				 "deb [trusted=yes] file:/srv/repo ./\n"
				 "deb [signed-by=0123456789ABCDEF] http://e/debian sid main\n"
				 "deb [broken http://f/debian bookworm main\n"
				 "deb http://g/\n"
				 "debug http://h/debian bookworm main\n",
				 &s, NULL),
			 0);
	assert_int_equal(s.n, 4);
	check(&s.v[0], "http://a/debian", "bookworm", "main contrib", NULL);
	check(&s.v[1], "http://b/debian", "trixie", "main", KEYRING);
	check(&s.v[2], "file:/srv/repo", "./", "", NULL);
	assert_true(s.v[2].trusted);
	check(&s.v[3], "http://e/debian", "sid", "main", NULL);
	assert_false(s.v[3].trusted);
}

static void test_deb822(void **state)
{
	autosources struct apt_sources s = {0};

	assert_int_equal(
		apt_sources_parse_deb822("# a comment\n"
					 "Types: deb deb-src\n"
					 "# URIs: http://old/\n"
					 "uris: http://a/debian/ http://b/debian\n"
					 "Suites: bookworm\n bookworm-updates\n"
					 "Components: main non-free\n"
					 "X-Unknown: this\n is skipped\n"
					 "Signed-By: " KEYRING " /etc/other.gpg\n"
					 "\n\n"
					 "Types: deb\nURIs: http://off/\nSuites: sid\n"
					 "Components: main\nEnabled: no\n"
					 "\n"
					 "Types: deb-src\nURIs: http://src/\nSuites: sid\n"
					 "Components: main\n"
					 "\n"
					 "Types: deb\nURIs: http://arm/\nSuites: sid\n"
					 "Components: main\nArchitectures: arm64\n"
					 "\n"
					 "Types: deb\nURIs: http://key/debian\nSuites: sid\n"
					 "Components: main\n"
					 "Signed-By:\n"
					 " -----BEGIN PGP PUBLIC KEY BLOCK-----\n"
					 " .\n"
					 " mQINBF\n"
					 " -----END PGP PUBLIC KEY BLOCK-----",
					 &s, NULL),
		0);
	assert_int_equal(s.n, 5);
	check(&s.v[0], "http://a/debian", "bookworm", "main non-free", KEYRING ",/etc/other.gpg");
	check(&s.v[1], "http://a/debian", "bookworm-updates", "main non-free",
	      KEYRING ",/etc/other.gpg");
	check(&s.v[2], "http://b/debian", "bookworm", "main non-free", KEYRING ",/etc/other.gpg");
	check(&s.v[4], "http://key/debian", "sid", "main",
	      "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQINBF\n-----END PGP PUBLIC KEY BLOCK-----");
}

static void choose(const char *list, const char *suite, struct apt_sources *chosen)
{
	autosources struct apt_sources host = {0};

	assert_int_equal(apt_sources_parse_list(list, &host, NULL), 0);
	assert_int_equal(apt_sources_choose(&host, suite, chosen, NULL), 0);
}

static const char debian_host[] =
	"deb http://download.example/linux/debian bookworm stable\n"
	"deb https://deb.example/node nodistro main\n"
	"deb https://packages.example/php bookworm main\n"
	"deb [signed-by=" KEYRING "] http://mirror.example/debian bookworm main non-free-firmware\n"
	"deb [signed-by=" KEYRING "] http://mirror.example/debian bookworm-updates main\n"
	"deb [signed-by=" KEYRING "] http://mirror.example/debian bookworm-backports main\n"
	"deb [signed-by=" KEYRING
	"] http://mirror.example/debian-security bookworm-security main\n";

static void test_same_suite(void **state)
{
	autosources struct apt_sources s = {0};

	choose(debian_host, "bookworm", &s);
	assert_int_equal(s.n, 3);
	check(&s.v[0], "http://mirror.example/debian", "bookworm", "main non-free-firmware",
	      KEYRING);
	check(&s.v[1], "http://mirror.example/debian", "bookworm-updates", "main", KEYRING);
	check(&s.v[2], "http://mirror.example/debian-security", "bookworm-security", "main",
	      KEYRING);
}

static void test_other_suites(void **state)
{
	autosources struct apt_sources trixie = {0};
	autosources struct apt_sources sid = {0};
	autosources struct apt_sources buster = {0};

	choose(debian_host, "trixie", &trixie);
	assert_int_equal(trixie.n, 3);
	assert_string_equal(trixie.v[0].suite, "trixie");
	assert_string_equal(trixie.v[2].suite, "trixie-security");
	choose(debian_host, "sid", &sid);
	assert_int_equal(sid.n, 1);
	choose(debian_host, "buster", &buster);
	assert_string_equal(buster.v[2].suite, "buster/updates");
}

static void test_plain_host(void **state)
{
	autosources struct apt_sources s = {0};

	/* No keyring, no updates: as in many a container. */
	choose("deb http://ftp.example/debian sid main", "bookworm", &s);
	assert_int_equal(s.n, 1);
	check(&s.v[0], "http://ftp.example/debian", "bookworm", "main", NULL);
}

static void test_foreign_host(void **state)
{
	autosources struct apt_sources host = {0};
	autosources struct apt_sources s = {0};
	struct error err = {0};

	assert_int_equal(apt_sources_parse_list("deb http://mirror.example/ubuntu noble main\n"
						"deb cdrom:[Debian]/debian bookworm main\n",
						&host, &err),
			 0);
	assert_int_equal(apt_sources_choose(&host, "bookworm", &s, &err), -ENOENT);
	assert_non_null(strstr(err.hint, "sources.list.d"));
}

static void test_text(void **state)
{
	autosources struct apt_sources s = {0};
	autosources struct apt_sources again = {0};
	autofree char *text = NULL;

	choose(debian_host, "bookworm", &s);
	text = apt_sources_text(&s, (const char *const[]){KEYRING, NULL, "-----BEGIN\n\nx"});
	assert_non_null(text);
	assert_int_equal(apt_sources_parse_deb822(text, &again, NULL), 0);
	assert_int_equal(again.n, 3);
	check(&again.v[0], "http://mirror.example/debian", "bookworm", "main non-free-firmware",
	      KEYRING);
	check(&again.v[1], "http://mirror.example/debian", "bookworm-updates", "main", NULL);
	check(&again.v[2], "http://mirror.example/debian-security", "bookworm-security", "main",
	      "-----BEGIN\n\nx");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_list),       cmocka_unit_test(test_deb822),
		cmocka_unit_test(test_same_suite), cmocka_unit_test(test_other_suites),
		cmocka_unit_test(test_plain_host), cmocka_unit_test(test_foreign_host),
		cmocka_unit_test(test_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
