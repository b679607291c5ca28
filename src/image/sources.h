/* The package sources that the host's apt is configured with (sources.list(5)). */
#pragma once

#include "base/error.h"
#include "base/str.h"

struct apt_source {
	char *uri;
	char *suite;
	struct strv components;
	char *signed_by; /* paths of keyrings separated by commas, or an armored key; NULL: none */
	bool trusted;    /* not verified at all */
};

struct apt_sources {
	struct apt_source *v;
	size_t n;
};

void apt_sources_free(struct apt_sources *sources);

/* Takes one out. */
void apt_sources_drop(struct apt_sources *sources, size_t index);

#define autosources __attribute__((cleanup(apt_sources_free)))

/* Add what a file in one-line format (*.list) or in deb822 format (*.sources) says of binary
 * packages for amd64. Lines that make no sense are skipped: apt is who complains of them. */
int apt_sources_parse_list(const char *text, struct apt_sources *sources, struct error *err);
int apt_sources_parse_deb822(const char *text, struct apt_sources *sources, struct error *err);

/* All files below `etc_apt` (normally /etc/apt). */
int apt_sources_read(const char *etc_apt, struct apt_sources *sources, struct error *err);

/*
 * What to install the Debian suite from: the host's mirror of the Debian archive, whatever suite
 * the host itself takes from there, and the suite's -updates and -security where the host has such
 * sources. The first is the suite itself. Errors: ENOENT where the host's apt knows no mirror.
 */
int apt_sources_choose(const struct apt_sources *host, const char *suite,
		       struct apt_sources *chosen, struct error *err);

/* The sources as a deb822 text for an image; signed_by[i] replaces that of sources->v[i]. */
char *apt_sources_text(const struct apt_sources *sources, const char *const *signed_by);
