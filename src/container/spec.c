/* See spec.h. */
#include "container/spec.h"

#include <stdlib.h>

void container_spec_clear(struct container_spec *spec)
{
	strv_free(&spec->args);
	strv_free(&spec->env);
	free(spec->cwd);
	free(spec->user);
	free(spec->upper_dir);
	free(spec->hostname);
	for (size_t i = 0; i < spec->n_binds; i++) {
		free(spec->binds[i].source);
		free(spec->binds[i].destination);
	}
	free(spec->binds);
	free(spec->cgroup_name);
	*spec = (struct container_spec){0};
}
