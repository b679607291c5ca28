/* A guest's configuration: nothing is lost on its way to the database and back, and what users write
 * for volumes and signals. */
#include "guest/config.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static char dir_path[64];

static int setup(void **context)
{
	snprintf(dir_path, sizeof(dir_path), "/tmp/lodge-config-XXXXXX");
	return mkdtemp(dir_path) ? 0 : -1;
}

static int teardown(void **context)
{
	return dir_remove_all(AT_FDCWD, dir_path, NULL);
}

static void add_bind(struct guest_config *c, const char *source, const char *destination,
		     bool read_only)
{
	c->binds = realloc(c->binds, (c->n_binds + 1) * sizeof(*c->binds));
	assert_non_null(c->binds);
	c->binds[c->n_binds++] =
		(struct container_bind){strdup(source), strdup(destination), read_only};
}

static void assert_strv(const struct strv *a, const struct strv *b)
{
	assert_int_equal(a->n, b->n);
	for (size_t i = 0; i < a->n; i++)
		assert_string_equal(a->v[i], b->v[i]);
}

static void assert_str(const char *a, const char *b)
{
	if (!str_eq(a, b))
		fail_msg("'%s' became '%s'", a ? a : "NULL", b ? b : "NULL");
}

/* By way of the text, as the database holds it. */
static void round_trip(const struct guest_config *c, struct guest_config *back)
{
	autojson json_t *j = guest_config_to_json(c);
	autojson json_t *parsed = NULL;
	autofree char *text = NULL;
	struct error err = {0};

	assert_non_null(j);
	text = json_text(j);
	assert_non_null(text);
	assert_int_equal(json_parse(text, "test", &parsed, &err), 0);
	if (guest_config_from_json(parsed, back, &err) < 0)
		fail_msg("%s", err.message);
}

static void assert_same(const struct guest_config *a, const struct guest_config *b)
{
	assert_strv(&a->args, &b->args);
	assert_strv(&a->env, &b->env);
	assert_str(a->cwd, b->cwd);
	assert_str(a->user, b->user);
	assert_str(a->hostname, b->hostname);
	assert_str(a->stop_signal, b->stop_signal);
	assert_int_equal(a->system, b->system);
	assert_int_equal(a->terminal, b->terminal);
	assert_int_equal(a->open_stdin, b->open_stdin);
	assert_int_equal(a->read_only, b->read_only);
	assert_int_equal(a->host_network, b->host_network);
	assert_int_equal(a->capabilities, b->capabilities);
	assert_int_equal(a->resources.memory_bytes, b->resources.memory_bytes);
	assert_int_equal(a->resources.cpu_millis, b->resources.cpu_millis);
	assert_int_equal(a->resources.pids, b->resources.pids);
	assert_int_equal(a->n_binds, b->n_binds);
	for (size_t i = 0; i < a->n_binds; i++) {
		assert_str(a->binds[i].source, b->binds[i].source);
		assert_str(a->binds[i].destination, b->binds[i].destination);
		assert_int_equal(a->binds[i].read_only, b->binds[i].read_only);
	}
}

static void test_empty(void **context)
{
	struct guest_config c = {0}, back = {0};

	round_trip(&c, &back);
	assert_same(&c, &back);
	guest_config_clear(&back);
}

static void test_every_field(void **context)
{
	struct guest_config c = {0}, back = {0};

	assert_int_equal(strv_push(&c.args, "/bin/sh", NULL), 0);
	assert_int_equal(strv_push(&c.args, "-c", NULL), 0);
	assert_int_equal(strv_push(&c.args, "echo \"a\\b\"\n\t\x01 \xc3\xa9", NULL), 0);
	assert_int_equal(strv_push(&c.args, "", NULL), 0);
	assert_int_equal(strv_push(&c.env, "PATH=/bin", NULL), 0);
	assert_int_equal(strv_push(&c.env, "EMPTY=", NULL), 0);
	c.cwd = strdup("/srv");
	c.user = strdup("www:staff");
	c.hostname = strdup("web");
	c.stop_signal = strdup("RTMIN+3");
	c.system = c.terminal = c.open_stdin = c.read_only = c.host_network = true;
	c.capabilities = UINT64_C(1) << 40 | 1;
	c.resources = (struct container_resources){
		.memory_bytes = INT64_MAX, .cpu_millis = 1500, .pids = 4194304};
	add_bind(&c, "/srv/a b", "/data", false);
	add_bind(&c, "/srv/c", "/etc/c.conf", true);
	round_trip(&c, &back);
	assert_same(&c, &back);
	guest_config_clear(&back);
	guest_config_clear(&c);
}

/* Each alone, so that two flags that were confused could not hide behind each other. */
static void test_flags_alone(void **context)
{
	static const size_t flags[] = {
		offsetof(struct guest_config, system),
		offsetof(struct guest_config, terminal),
		offsetof(struct guest_config, open_stdin),
		offsetof(struct guest_config, read_only),
		offsetof(struct guest_config, host_network),
	};
	static const size_t numbers[] = {
		offsetof(struct guest_config, capabilities),
		offsetof(struct guest_config, resources.memory_bytes),
		offsetof(struct guest_config, resources.cpu_millis),
		offsetof(struct guest_config, resources.pids),
	};

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		struct guest_config c = {0}, back = {0};

		*(bool *)((char *)&c + flags[i]) = true;
		round_trip(&c, &back);
		assert_same(&c, &back);
		guest_config_clear(&back);
	}
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		struct guest_config c = {0}, back = {0};

		*(uint64_t *)((char *)&c + numbers[i]) = 1000 + i;
		round_trip(&c, &back);
		assert_same(&c, &back);
		guest_config_clear(&back);
	}
}

static void test_text_that_is_not_utf8(void **context)
{
	struct guest_config c = {0};
	autojson json_t *j = NULL;

	assert_int_equal(strv_push(&c.args, "\xff\xfe", NULL), 0);
	j = guest_config_to_json(&c);
	assert_null(j);
	guest_config_clear(&c);
}

static int from_text(const char *text, struct guest_config *c, struct error *err)
{
	autojson json_t *j = NULL;

	assert_int_equal(json_parse(text, "test", &j, err), 0);
	return guest_config_from_json(j, c, err);
}

/* From a newer Lodge, an older one, and a database that somebody has edited. */
static void test_other_json(void **context)
{
	static const char *const wrong[] = {
		"{\"args\": \"sh\"}",
		"{\"args\": [1]}",
		"{\"args\": [null]}",
		"{\"env\": {}}",
		"{\"cwd\": 1}",
		"{\"system\": 1}",
		"{\"system\": \"true\"}",
		"{\"memory_bytes\": 1.5}",
		"{\"memory_bytes\": \"1G\"}",
		"{\"volumes\": {}}",
		"{\"volumes\": [{\"source\": 1}]}",
		"{\"volumes\": [{\"source\": \"/a\", \"destination\": [], \"read_only\": true}]}",
		"{\"volumes\": [{\"source\": \"/a\", \"destination\": \"/b\", \"read_only\": 1}]}",
	};
	struct guest_config c = {0};
	struct error err = {0};

	assert_int_equal(
		from_text("{\"from_the_future\": [1], \"user\": null, \"cwd\": \"/x\"}", &c, &err),
		0);
	assert_null(c.user);
	assert_string_equal(c.cwd, "/x");
	guest_config_clear(&c);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		err = (struct error){0};
		if (from_text(wrong[i], &c, &err) != -EINVAL)
			fail_msg("%s was taken", wrong[i]);
		assert_non_null(strstr(err.message, "configuration"));
		guest_config_clear(&c);
	}
}

static void test_volumes(void **context)
{
	struct guest_config c = {0};
	struct error err = {0};
	char text[256], real[128], link[128];

	snprintf(real, sizeof(real), "%s/real", dir_path);
	snprintf(link, sizeof(link), "%s/link", dir_path);
	assert_int_equal(mkdir(real, 0755), 0);
	assert_int_equal(symlink("real", link), 0);

	snprintf(text, sizeof(text), "%s:/data", real);
	assert_int_equal(guest_config_add_volume(&c, text, &err), 0);
	snprintf(text, sizeof(text), "%s:/data2:ro", link);
	assert_int_equal(guest_config_add_volume(&c, text, &err), 0);
	snprintf(text, sizeof(text), "%s/../real/.:/data3:rw", real);
	assert_int_equal(guest_config_add_volume(&c, text, &err), 0);
	assert_int_equal(c.n_binds, 3);
	for (size_t i = 0; i < c.n_binds; i++) /* as it is now, not as a link may lead later */
		assert_string_equal(c.binds[i].source, real);
	assert_string_equal(c.binds[0].destination, "/data");
	assert_false(c.binds[0].read_only);
	assert_string_equal(c.binds[1].destination, "/data2");
	assert_true(c.binds[1].read_only);
	assert_string_equal(c.binds[2].destination, "/data3");
	assert_false(c.binds[2].read_only);
	guest_config_clear(&c);
}

static void test_wrong_volumes(void **context)
{
	static const char *const wrong[] = {
		"",        ":",          "/tmp",      "/tmp:",      "/tmp:data",     "/tmp:/",
		"/tmp::",  "/tmp:/a:",   "/tmp:/a:x", "/tmp:/a:RO", "/tmp:/a:ro,rw", "/tmp:/a:ro:",
		"/tmp:ro", "/tmp:/a:/b",
	};
	struct guest_config c = {0};
	struct error err = {0};

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		err = (struct error){0};
		if (guest_config_add_volume(&c, wrong[i], &err) != -EINVAL)
			fail_msg("'%s' was taken", wrong[i]);
		assert_true(err.hint[0]);
	}
	assert_int_equal(guest_config_add_volume(&c, "/nowhere/at/all:/data", &err), -ENOENT);
	assert_non_null(strstr(err.message, "/nowhere/at/all"));
	assert_int_equal(c.n_binds, 0);
}

static void assert_signal(const char *text, int expected)
{
	struct error err = {0};
	int signo = -1;

	if (guest_parse_signal(text, &signo, &err) < 0)
		fail_msg("%s", err.message);
	assert_int_equal(signo, expected);
}

static void test_signals(void **context)
{
	static const char *const wrong[] = {
		"",         "SIG",      "SIGSIG",
		"NOSUCH",   "0",        "-1",
		"65",       "9 ",       "9x",
		"1e1",      " 9",       "99999999999999999999",
		"RTMIN+",   "RTMIN+99", "RTMAX9999999999999999999",
		"RTMAX+1",  "RTMIN-1",  "RTMIN3",
		"RTMIN+3x", "RTMAX99",  "RTMIN++3",
		"SIGTERMx", "EXIT",
	};
	struct error err = {0};
	int signo;

	assert_signal("TERM", SIGTERM);
	assert_signal("SIGTERM", SIGTERM);
	assert_signal("sigterm", SIGTERM);
	assert_signal("Kill", SIGKILL);
	assert_signal("15", 15);
	assert_signal("1", 1);
	assert_signal("64", 64);
	assert_signal("RTMIN", SIGRTMIN);
	assert_signal("SIGRTMIN+3", SIGRTMIN + 3);
	assert_signal("rtmax-1", SIGRTMAX - 1);
	assert_signal("RTMAX", SIGRTMAX);
	assert_signal("PWR", SIGPWR);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		if (guest_parse_signal(wrong[i], &signo, &err) != -EINVAL)
			fail_msg("'%s' was taken", wrong[i]);
}

static void test_init_commands(void **context)
{
	assert_true(guest_command_is_init("/sbin/init"));
	assert_true(guest_command_is_init("/lib/systemd/systemd"));
	assert_false(guest_command_is_init("init"));
	assert_false(guest_command_is_init("/bin/sh"));
	assert_false(guest_command_is_init("/sbin/init2"));
	assert_false(guest_command_is_init(""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_every_field),
		cmocka_unit_test(test_flags_alone),
		cmocka_unit_test(test_text_that_is_not_utf8),
		cmocka_unit_test(test_other_json),
		cmocka_unit_test_setup_teardown(test_volumes, setup, teardown),
		cmocka_unit_test(test_wrong_volumes),
		cmocka_unit_test(test_signals),
		cmocka_unit_test(test_init_commands),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
