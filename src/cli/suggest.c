/*
 * See suggest.h. The distance is the number of letters to insert, delete, replace or swap with
 * their neighbour ("optimal string alignment"); what counts as near grows with the word.
 */
#include "cli/suggest.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

enum { LONGEST = 31 };

static unsigned least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

static unsigned word_distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
	unsigned rows[3][LONGEST + 1]; /* row i is rows[i % 3] */

	for (size_t j = 0; j <= b_len; j++)
		rows[0][j] = (unsigned)j;
	for (size_t i = 1; i <= a_len; i++) {
		unsigned *row = rows[i % 3], *above = rows[(i - 1) % 3];

		row[0] = (unsigned)i;
		for (size_t j = 1; j <= b_len; j++) {
			int ca = tolower((unsigned char)a[i - 1]);
			int cb = tolower((unsigned char)b[j - 1]);

			row[j] = least(above[j], row[j - 1]) + 1;
			row[j] = least(row[j], above[j - 1] + (ca != cb));
			if (i > 1 && j > 1 && ca == tolower((unsigned char)b[j - 2]) &&
			    cb == tolower((unsigned char)a[i - 2]))
				row[j] = least(row[j], rows[(i - 2) % 3][j - 2] + 1);
		}
	}
	return rows[a_len % 3][b_len];
}

void suggestion_offer(struct suggestion *s, const char *candidate)
{
	size_t a = strlen(s->typed), b = strlen(candidate);
	unsigned near = a <= 3 ? 1 : a <= 7 ? 2 : 3;
	unsigned distance;

	if (a < 2 || a > LONGEST || b > LONGEST)
		return;
	/* The beginning of a word is as good as one wrong letter: --mem is --memory. */
	if (strncasecmp(s->typed, candidate, a) == 0)
		distance = 1;
	else
		distance = word_distance(s->typed, a, candidate, b);
	if (distance > near || distance >= b || (s->nearest && distance >= s->distance))
		return;
	s->nearest = candidate;
	s->distance = distance;
}
