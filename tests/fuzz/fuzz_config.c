/* A guest's configuration as an edited database, or another host, may hold it: what is taken must
 * come out again as it was. Beside it what users write for signals and volumes. */
#include "guest/config.h"

#include "base/cleanup.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_round_trip(const struct guest_config *c)
{
	autojson json_t *first = guest_config_to_json(c);
	autojson json_t *second = NULL;
	struct guest_config back = {0};

	/* Every text in it came from JSON, so it is UTF-8. */
	if (!first || guest_config_from_json(first, &back, NULL) < 0)
		abort();
	second = guest_config_to_json(&back);
	if (!json_equal(first, second))
		abort();
	guest_config_clear(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	autofree char *text = strndup((const char *)data, size);
	autojson json_t *j = NULL;
	struct guest_config c = {0};
	struct error err = {0};
	int signo;

	guest_parse_signal(text, &signo, &err);
	guest_config_add_volume(&c, text, &err);
	guest_config_clear(&c);
	if (json_parse(text, "fuzz", &j, &err) < 0)
		return 0;
	if (guest_config_from_json(j, &c, &err) == 0)
		check_round_trip(&c);
	guest_config_clear(&c);
	return 0;
}
