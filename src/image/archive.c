/* See archive.h. */
#include "image/archive.h"

#include <dlfcn.h>

struct archive_api la;

int archive_load(struct error *err)
{
	static void *library;

	if (library)
		return 0;
	/* The number is the library's ABI: the table's types come from its headers. */
	library = dlopen("libarchive.so.13", RTLD_NOW | RTLD_LOCAL);
	if (!library) {
		error_set(err, ENOENT, "the library libarchive.so.13 is not installed");
		error_hint(err,
			   "install the package libarchive13 (libarchive13t64 on newer Debian)");
		return -ENOENT;
	}
#define X(name)                                                                                    \
	la.name = (__typeof__(la.name))dlsym(library, #name);                                      \
	if (!la.name) {                                                                            \
		dlclose(library);                                                                  \
		library = NULL;                                                                    \
		return error_set(err, ENOSYS, "libarchive.so.13 has no " #name "()");              \
	}
	ARCHIVE_FUNCTIONS(X)
#undef X
	return 0;
}

struct archive_locale archive_locale_begin(void)
{
	struct archive_locale l;

	l.mine = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
	l.before = l.mine ? uselocale(l.mine) : (locale_t)0;
	return l;
}

void archive_locale_end(struct archive_locale *l)
{
	if (!l->mine)
		return;
	uselocale(l->before);
	freelocale(l->mine);
	l->mine = (locale_t)0;
}
