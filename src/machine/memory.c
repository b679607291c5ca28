/* See memory.h. */
#include "machine/memory.h"

#include "base/cleanup.h"

#include <string.h>
#include <sys/mman.h>

struct memory {
	int fd;
	uint8_t *host;
	uint64_t size;
};

int memory_new(uint64_t size_bytes, struct memory **memory, struct error *err)
{
	struct memory *m;

	if (!size_bytes || size_bytes > 1ull << 46)
		return error_set(err, EINVAL, "a machine can't have %llu bytes of memory",
				 (unsigned long long)size_bytes);
	m = calloc(1, sizeof(*m));
	if (!m)
		return error_oom(err);
	m->size = (size_bytes + 4095) & ~4095ull;
	m->fd = memfd_create("guest memory", MFD_CLOEXEC);
	if (m->fd < 0 || ftruncate(m->fd, (off_t)m->size) < 0) {
		int code = errno;

		fd_close(&m->fd);
		free(m);
		return error_sys(err, code, "guest memory");
	}
	m->host = mmap(NULL, m->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, m->fd, 0);
	if (m->host == MAP_FAILED) {
		int code = errno;

		fd_close(&m->fd);
		free(m);
		return error_sys(err, code, "map guest memory");
	}
	*memory = m;
	return 0;
}

void memory_free(struct memory *memory)
{
	if (!memory)
		return;
	munmap(memory->host, memory->size);
	fd_close(&memory->fd);
	free(memory);
}

uint64_t memory_size(const struct memory *memory)
{
	return memory->size;
}

uint64_t memory_below_4g(const struct memory *memory)
{
	return memory->size < MEMORY_HOLE_START ? memory->size : MEMORY_HOLE_START;
}

uint64_t memory_above_4g(const struct memory *memory)
{
	return memory->size - memory_below_4g(memory);
}

int memory_map(const struct memory *memory, const struct engine *engine, struct vm *vm,
	       struct error *err)
{
	uint64_t low = memory_below_4g(memory);
	int r = engine->vm_map(vm, (gpa_t){0}, low, memory->fd, 0, 0, err);

	if (r < 0 || low == memory->size)
		return r;
	return engine->vm_map(vm, (gpa_t){MEMORY_HOLE_END}, memory->size - low, memory->fd, low, 0,
			      err);
}

/* The host's address of [gpa, gpa + size), which may not touch the hole; NULL otherwise. */
static uint8_t *locate(const struct memory *m, gpa_t gpa, uint64_t size)
{
	uint64_t low = memory_below_4g(m), high = memory_above_4g(m);

	if (gpa.v <= low && size <= low - gpa.v)
		return m->host + gpa.v;
	if (gpa.v >= MEMORY_HOLE_END && gpa.v - MEMORY_HOLE_END <= high &&
	    size <= high - (gpa.v - MEMORY_HOLE_END))
		return m->host + low + (gpa.v - MEMORY_HOLE_END);
	return NULL;
}

static int outside(gpa_t gpa, uint64_t size, struct error *err)
{
	return error_set(err, EFAULT, "0x%llx bytes at 0x%llx are not guest memory",
			 (unsigned long long)size, (unsigned long long)gpa.v);
}

int memory_read(const struct memory *memory, gpa_t gpa, void *data, size_t size, struct error *err)
{
	const uint8_t *host = locate(memory, gpa, size);

	if (!host)
		return outside(gpa, size, err);
	memcpy(data, host, size);
	return 0;
}

int memory_write(struct memory *memory, gpa_t gpa, const void *data, size_t size, struct error *err)
{
	uint8_t *host = locate(memory, gpa, size);

	if (!host)
		return outside(gpa, size, err);
	memcpy(host, data, size);
	return 0;
}

int memory_fill(struct memory *memory, gpa_t gpa, uint8_t byte, uint64_t size, struct error *err)
{
	uint8_t *host = locate(memory, gpa, size);

	if (!host)
		return outside(gpa, size, err);
	memset(host, byte, size);
	return 0;
}

int memory_read_file(struct memory *memory, gpa_t gpa, int fd, uint64_t offset, uint64_t size,
		     struct error *err)
{
	uint8_t *host = locate(memory, gpa, size);

	if (!host)
		return outside(gpa, size, err);
	while (size) {
		ssize_t n = pread(fd, host, size, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_sys(err, errno, "read");
		if (n == 0)
			return error_set(err, EIO, "the file is shorter than it says");
		host += n;
		offset += (uint64_t)n;
		size -= (uint64_t)n;
	}
	return 0;
}
