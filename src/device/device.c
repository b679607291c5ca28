/* See device.h. */
#include "device/device.h"

#include "base/cleanup.h"

#include <stdio.h>
#include <string.h>

/* Made by the linker from what DEVICE() puts there. */
extern const struct device_class *const __start_lodge_devices[];
extern const struct device_class *const __stop_lodge_devices[];

const struct device_class *device_class_find(const char *name)
{
	for (const struct device_class *const *c = __start_lodge_devices; c < __stop_lodge_devices;
	     c++)
		if (strcmp((*c)->name, name) == 0)
			return *c;
	return NULL;
}

int device_new(const char *class, unsigned int instance, struct board *board, struct device **dev,
	       struct error *err)
{
	const struct device_class *c = device_class_find(class);
	struct device *d;
	int r;

	if (!c)
		return error_set(err, ENOENT, "there is no device named %s", class);
	d = calloc(1, sizeof(*d));
	if (!d)
		return error_oom(err);
	d->class = c;
	d->board = board;
	d->instance = instance;
	r = c->init(d, err);
	if (r < 0) {
		error_wrap(err, "device %s", class);
		free(d);
		return r;
	}
	c->reset(d);
	*dev = d;
	return 0;
}

void device_free(struct device *dev)
{
	if (!dev)
		return;
	dev->class->destroy(dev);
	free(dev);
}

static void section_name(const struct device *dev, char name[static 64])
{
	snprintf(name, 64, "%s.%u", dev->class->name, dev->instance);
}

void device_save(struct device *dev, struct save_writer *w)
{
	char name[64];

	section_name(dev, name);
	save_section(w, name, dev->class->version);
	dev->class->save(dev, w);
}

int device_load(struct device *dev, const void *data, size_t size, struct error *err)
{
	struct save_reader reader;
	char name[64];
	int r;

	section_name(dev, name);
	r = save_open(data, size, name, &reader, err);
	if (r < 0)
		return r;
	if (reader.version > dev->class->version || reader.version + 1 < dev->class->version)
		return error_set(err, ENOTSUP, "the state of %s has version %u, not %u", name,
				 reader.version, dev->class->version);
	dev->class->reset(dev);
	r = dev->class->load(dev, &reader, err);
	if (r < 0) {
		error_wrap(err, "state of %s", name);
		dev->class->reset(dev);
	}
	return r;
}

void device_set_deadline(struct device *dev, uint64_t deadline_ns)
{
	if (dev->deadline_ns == deadline_ns)
		return;
	dev->deadline_ns = deadline_ns;
	dev->board->deadline_changed(dev->board, dev);
}
