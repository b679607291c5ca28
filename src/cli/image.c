/* `lodge image ls`, `inspect`, `rm`, and the group itself; what makes images is in image_make.c. */
#include "image/image.h"

#include "base/cleanup.h"
#include "base/json.h"
#include "cli/image.h"
#include "cli/table.h"
#include "cli/verbs.h"

#include <stdio.h>
#include <string.h>

/* "sha256:" and twelve digits tell images apart well enough. */
static const char *short_digest(const json_t *value, char *buf, size_t size)
{
	const char *digest = json_string_value(value) ?: "";
	const char *colon = strchr(digest, ':');

	snprintf(buf, size, "%.12s", colon ? colon + 1 : digest);
	return buf;
}

static json_t *image_row(const struct image *image)
{
	return json_pack("{s:s?, s:s, s:I, s:I, s:O*, s:O*, s:O*}", "name", image->name, "digest",
			 image->digest, "size_bytes", (json_int_t)image->size_bytes, "created_at",
			 (json_int_t)image->created_at, "os",
			 json_object_get(image->manifest, "os"), "architecture",
			 json_object_get(image->manifest, "architecture"), "source",
			 json_object_get(image->manifest, "source"));
}

struct ls_options {
	bool quiet;
	int format;
};

static const struct verb_option ls_options[] = {
	{"quiet", 'q', NULL, option_flag(struct ls_options, quiet),
	 "only names; the digest of an image that has none"},
	TABLE_FORMAT_OPTION(struct ls_options, format),
	{},
};

static int ls_run(struct invocation *inv, struct error *err)
{
	static const struct table_column columns[] = {
		{"NAME", "name"},
		{"DIGEST", "digest", short_digest},
		{"SIZE", "size_bytes", table_size, .right = true},
		{"CREATED", "created_at", table_age},
		{"OS", "os"},
		{},
	};
	const struct ls_options *o = inv->options;
	autostate struct state *state = NULL;
	autoimagelist struct image_list list = {};
	autojson json_t *rows = json_array();
	int rc = state_open(&state, err);

	if (rc == 0)
		rc = image_list(state, &list, err);
	for (size_t i = 0; rc == 0 && i < list.n; i++) {
		if (o->quiet)
			puts(list.v[i]->name ?: list.v[i]->digest);
		else if (json_array_append_new(rows, image_row(list.v[i])) < 0)
			rc = error_oom(err);
	}
	if (rc < 0 || o->quiet)
		return rc;
	return table_print(stdout, rows, columns, (enum table_format)o->format, err);
}

static const struct verb image_ls = {
	.name = "ls",
	.section = VERB_STORE,
	.synopsis = "[OPTIONS]",
	.summary = "list images",
	.description = "Lists the images on this host, a line for each name. An image whose name "
		       "was given "
		       "to another one stays, without a name, as long as a guest uses it.",
	.examples = "The names of all images, for a script:\n\n    lodge image ls -q",
	.options = ls_options,
	.options_size = sizeof(struct ls_options),
	.run = ls_run,
};

static int inspect_run(struct invocation *inv, struct error *err)
{
	autostate struct state *state = NULL;
	autoimage struct image *image = NULL;
	autojson json_t *object = NULL;
	autofree char *rootfs = NULL;
	int rc = state_open(&state, err);

	if (rc == 0)
		rc = image_find(state, inv->operands[0], &image, err);
	if (rc < 0)
		return rc;
	rootfs = image_rootfs_path(state, image->digest);
	object = json_pack("{s:s?, s:s, s:I, s:I, s:s?, s:O}", "name", image->name, "digest",
			   image->digest, "size_bytes", (json_int_t)image->size_bytes, "created_at",
			   (json_int_t)image->created_at, "rootfs_path", rootfs, "manifest",
			   image->manifest);
	if (!object)
		return error_oom(err);
	json_dumpf(object, stdout, JSON_INDENT(2));
	putchar('\n');
	return 0;
}

static const struct verb image_inspect = {
	.name = "inspect",
	.section = VERB_STORE,
	.synopsis = "IMAGE",
	.summary = "print everything known about an image, as JSON",
	.description = "Prints an image's digest, size, the path of its root filesystem (a file in "
		       "EROFS format), and its manifest: how it is to be run, where its kernel is, "
		       "what it was made of.",
	.examples = "What a guest of this image runs by default:\n\n"
		    "    lodge image inspect debian | jq .manifest.config.cmd",
	.min_operands = 1,
	.max_operands = 1,
	.operands = {COMPLETE_IMAGE},
	.run = inspect_run,
};

static int rm_run(struct invocation *inv, struct error *err)
{
	autostate struct state *state = NULL;
	int status = 0, rc = state_open(&state, err);

	if (rc < 0)
		return rc;
	/* One that stays keeps none of the others. */
	for (int i = 0; i < inv->n_operands; i++) {
		struct error failed = {};

		if (image_remove(state, inv->operands[i], &failed) < 0)
			status = lodge_fail(&failed);
	}
	return status;
}

static const struct verb image_rm = {
	.name = "rm",
	.section = VERB_STORE,
	.synopsis = "IMAGE...",
	.summary = "remove images",
	.description =
		"Removes names of images. With its last name the image goes, which is refused "
		"while guests use it.",
	.examples = "Remove two images:\n\n    lodge image rm debian old/web:1",
	.min_operands = 1,
	.max_operands = VERB_ANY_NUMBER,
	.operands = {COMPLETE_IMAGE},
	.run = rm_run,
};

const struct verb verb_image = {
	.name = "image",
	.section = VERB_STORE,
	.summary = "make, list and remove images",
	.description =
		"An image is a root filesystem that guests start from: containers and virtual "
		"machines alike. Any number of guests share one, and none changes it.",
	.verbs = (const struct verb *const[]){&image_build_verb, &image_import_verb,
					      &image_export_verb, &image_ls, &image_inspect,
					      &image_rm, NULL},
};
