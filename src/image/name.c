/* What images may be called, and what of a user's word can be a digest. */
#include "base/str.h"
#include "image/image.h"
#include "image/internal.h"

#include <ctype.h>
#include <string.h>

enum { NAME_MAX_LENGTH = 128, SHORTEST_PREFIX = 4, LOOKS_LIKE_DIGEST = 12 };

static size_t hex_digits(const char *s)
{
	return strspn(s, "0123456789abcdef");
}

int image_check_name(const char *name, struct error *err)
{
	size_t length = strlen(name);
	const char *wrong = NULL;

	if (!length)
		wrong = "is empty";
	else if (length > NAME_MAX_LENGTH)
		wrong = "is longer than 128 characters";
	else if (!isascii(name[0]) || !isalnum((unsigned char)name[0]))
		wrong = "does not begin with a letter or a digit";
	else if (str_starts_with(name, DIGEST_PREFIX) ||
		 (length >= LOOKS_LIKE_DIGEST && hex_digits(name) == length))
		wrong = "could be taken for a digest";
	else if (strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
			      "._-/:") != length)
		wrong = "has a character that is none of letters, digits, and . _ - / :";
	if (!wrong)
		return 0;
	error_set(err, EINVAL, "the image name '%.140s' %s", name, wrong);
	error_hint(err, "names look like debian, web-server or team/web:2.1");
	return -EINVAL;
}

const char *digest_digits(const char *word)
{
	size_t length;

	if (str_starts_with(word, DIGEST_PREFIX))
		word += strlen(DIGEST_PREFIX);
	length = strlen(word);
	if (length < SHORTEST_PREFIX || length > HEX_LENGTH || hex_digits(word) != length)
		return NULL;
	return word;
}
