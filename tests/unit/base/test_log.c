/* What Lodge says of itself: levels, both formats, and one line a message whatever is in it. */
#include "base/log.h"

#include "base/cleanup.h"
#include "base/json.h"
#include "base/str.h"

#include <regex.h>
#include <string.h>
#include <sys/mman.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static int fd = -EBADF;

static int setup(void **context)
{
	fd = memfd_create("log", MFD_CLOEXEC);
	log_to_fd(fd);
	return fd < 0;
}

static int teardown(void **context)
{
	log_init(LOG_LEVEL_WARN, LOG_FORMAT_TEXT);
	log_to_fd(2);
	fd_close(&fd);
	return 0;
}

static const char *logged(void)
{
	static char buf[8192];
	ssize_t n = pread(fd, buf, sizeof(buf) - 1, 0);

	buf[n > 0 ? n : 0] = '\0';
	return buf;
}

static void assert_matches(const char *text, const char *pattern)
{
	regex_t regex;

	assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
	if (regexec(&regex, text, 0, NULL, 0) != 0)
		fail_msg("%s", text);
	regfree(&regex);
}

static void test_text(void **context)
{
	log_init(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
	errno = 42;
	log_info("guest %s", "web");
	assert_int_equal(errno, 42);
	log_error("bad");
	assert_matches(logged(), "^20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]"
				 "\\.[0-9]{3}Z info  guest web\n[^ ]+ error bad\n$");
}

static void test_levels(void **context)
{
	struct error err = {0};
	enum log_level level = LOG_LEVEL_ERROR;

	log_init(LOG_LEVEL_WARN, LOG_FORMAT_TEXT);
	log_info("no");
	log_debug("no");
	assert_string_equal(logged(), "");
	log_warn("yes");
	assert_non_null(strstr(logged(), "yes"));
	assert_true(log_enabled(LOG_LEVEL_WARN) && !log_enabled(LOG_LEVEL_INFO));
	log_to_fd(-1);
	assert_false(log_enabled(LOG_LEVEL_ERROR));
	assert_int_equal(log_parse_level("debug", &level, &err), 0);
	assert_int_equal(level, LOG_LEVEL_DEBUG);
	assert_int_equal(log_parse_level("loud", &level, &err), -EINVAL);
	assert_non_null(strstr(err.message, "error, warn, info or debug"));
}

static void test_json(void **context)
{
	autojson json_t *j = NULL;

	log_init(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
	log_info("say \"%s\"", "hi");
	j = json_loads(logged(), 0, NULL);
	assert_string_equal(json_string_value(json_object_get(j, "message")), "say \"hi\"");
	assert_string_equal(json_string_value(json_object_get(j, "level")), "info");
}

/* A line stays a line, and JSON stays JSON, with hostile and with long messages. */
static void test_one_line_whatever_it_says(void **context)
{
	char text[5000];

	for (int format = 0; format < 2; format++) {
		for (int kind = 0; kind < 4; kind++) {
			memset(text, "x\"\n\xff"[kind], sizeof(text));
			text[sizeof(text) - 1] = '\0';
			assert_int_equal(ftruncate(fd, 0), 0);
			lseek(fd, 0, SEEK_SET);
			log_init(LOG_LEVEL_INFO, format ? LOG_FORMAT_JSON : LOG_FORMAT_TEXT);
			log_info("begin %s", text);
			assert_non_null(strchr(logged(), '\n'));
			assert_string_equal(strchr(logged(), '\n'), "\n");
			assert_non_null(strstr(logged(), "begin"));
			if (format) {
				autojson json_t *j = json_loads(logged(), 0, NULL);

				assert_non_null(j);
			}
		}
	}
	log_init(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
	log_info("\x1b[2J");
	assert_null(strchr(logged(), '\x1b'));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_text),
		TEST(test_levels),
		TEST(test_json),
		TEST(test_one_line_whatever_it_says),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
