/* A verb's tables as text for people: what `lodge help` and `--help` print, and man pages. */
#pragma once

#include "cli/verb.h"

#include <stdio.h>

/* What `lodge help` prints: root's verbs by section, its options. */
void help_overview(const struct verb *root, FILE *file);

/* What `lodge VERB --help` prints; `path` is the verb with its parents. */
void help_verb(const struct verb *verb, const char *path, FILE *file);

/* The man page, as man(7) source; for the root verb, whose path is "", lodge.1. */
void help_man(const struct verb *root, const struct verb *verb, const char *path, FILE *file);

/* "SIZE", or the words of a choice: "auto|kvm|soft". Returns buf. */
const char *help_placeholder(const struct verb_option *o, char buf[static 128]);

/* Calls `each` for every verb that is not hidden and has a run function, in the order of help. */
void help_each_leaf(const struct verb *root,
		    void (*each)(const struct verb *leaf, const char *path, void *context),
		    void *context);

/* The heading of a section. */
const char *help_section(enum verb_section section);
