/* The verbs below `lodge image` that image_make.c brings. */
#pragma once

#include "cli/verb.h"

extern const struct verb image_build_verb;
extern const struct verb image_import_verb;
extern const struct verb image_export_verb;
