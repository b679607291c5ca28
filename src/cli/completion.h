/* What the words of a command line so far can be continued with; completion.c prints it. */
#pragma once

#include "cli/verb.h"

#include <stdio.h>

/*
 * words[0 .. n-1] are the words after `lodge`; the last one, maybe empty, is being completed.
 * Prints one line that says what fits (words, files, directories, guests, images, networks,
 * volumes, none), then, for words, each as "WORD<TAB>DESCRIPTION". A word of `--option=` is a
 * value without the `--option=`.
 */
void completion_print(const struct verb *root, int n, char *const *words, FILE *file);
