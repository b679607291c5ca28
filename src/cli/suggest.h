/* "Did you mean": the nearest of a number of words to one that was mistyped. */
#pragma once

struct suggestion {
	const char *typed;
	const char *nearest; /* NULL while nothing is near enough */
	unsigned distance;
};

/* Offers a candidate, which must outlive the suggestion. */
void suggestion_offer(struct suggestion *s, const char *candidate);
