/* See spec.h. */
#include "container/spec.h"

#include <stdlib.h>

void container_binds_free(struct container_bind *binds, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(binds[i].source);
		free(binds[i].destination);
	}
	free(binds);
}

void container_spec_clear(struct container_spec *spec)
{
	strv_free(&spec->args);
	strv_free(&spec->env);
	free(spec->cwd);
	free(spec->user);
	free(spec->upper_dir);
	free(spec->hostname);
	free(spec->resolv_conf);
	container_binds_free(spec->binds, spec->n_binds);
	free(spec->cgroup_name);
	*spec = (struct container_spec){0};
}
