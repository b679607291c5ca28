/* See machine.h. */
#include "machine/machine.h"

#include "base/cleanup.h"
#include "machine/acpi.h"
#include "machine/boot.h"
#include "machine/bus.h"
#include "machine/memory.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

enum { DEVICES = 32 };

struct runner {
	struct machine *machine;
	struct vcpu *vcpu;
	pthread_t thread;
	bool started;
};

struct machine {
	struct board board; /* first: devices get a pointer to it */
	struct machine_config config;
	struct memory *memory;
	struct vm *vm;
	struct runner *runners; /* n_vcpus */

	pthread_mutex_t lock; /* all below */
	pthread_cond_t changed;
	struct bus ports, mmio;
	struct device *devices[DEVICES];
	size_t n_devices;
	struct device *serial, *power;
	uint64_t clock_start_ns;
	enum board_end end;
	int status;
	struct error error;
};

static uint64_t monotonic_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* ---- What devices ask of the board; the lock is held ---- */

static struct machine *machine_of(struct board *board)
{
	return (struct machine *)board;
}

static int claim_ports(struct board *board, struct device *dev, uint16_t first, uint16_t n,
		       struct error *err)
{
	return bus_claim(&machine_of(board)->ports, first, n, dev, err);
}

static int claim_mmio(struct board *board, struct device *dev, gpa_t first, uint64_t size,
		      struct error *err)
{
	return bus_claim(&machine_of(board)->mmio, first.v, size, dev, err);
}

static void set_line(struct board *board, unsigned int line, bool level)
{
	struct machine *m = machine_of(board);

	for (size_t i = 0; i < m->n_devices; i++)
		if (m->devices[i]->class->set_input)
			m->devices[i]->class->set_input(m->devices[i], line, level);
}

static void send_msi(struct board *board, uint64_t address, uint32_t data)
{
	struct machine *m = machine_of(board);

	m->config.engine->vm_msi(m->vm, address, data);
}

static void set_extint(struct board *board, bool level)
{
	struct machine *m = machine_of(board);

	if (m->runners[0].vcpu)
		m->config.engine->vcpu_set_extint(m->runners[0].vcpu, level);
}

static uint64_t now_ns(struct board *board)
{
	return monotonic_ns() - machine_of(board)->clock_start_ns;
}

static uint64_t wall_s(struct board *board)
{
	(void)board;
	return (uint64_t)time(NULL);
}

static void deadline_changed(struct board *board, struct device *dev)
{
	(void)dev;
	pthread_cond_broadcast(&machine_of(board)->changed);
}

static void output(struct board *board, struct device *dev, const void *data, size_t size)
{
	struct machine *m = machine_of(board);

	if (dev == m->serial && m->config.output)
		m->config.output(m->config.output_data, data, size);
}

static void board_end(struct board *board, enum board_end why, int status)
{
	struct machine *m = machine_of(board);

	if (m->end != BOARD_RUNNING)
		return;
	m->end = why;
	m->status = status;
	pthread_cond_broadcast(&m->changed);
	for (unsigned int i = 0; i < m->config.n_vcpus; i++)
		if (m->runners[i].vcpu)
			m->config.engine->vcpu_kick(m->runners[i].vcpu);
}

/* ---- What the engine asks of the board ---- */

static uint32_t port_read(void *board, uint16_t port, unsigned int size)
{
	struct machine *m = board;
	uint32_t value;

	pthread_mutex_lock(&m->lock);
	value = bus_port_read(&m->ports, port, size);
	pthread_mutex_unlock(&m->lock);
	return value;
}

static void port_write(void *board, uint16_t port, unsigned int size, uint32_t value)
{
	struct machine *m = board;

	pthread_mutex_lock(&m->lock);
	bus_port_write(&m->ports, port, size, value);
	pthread_mutex_unlock(&m->lock);
}

static uint64_t mmio_read(void *board, gpa_t gpa, unsigned int size)
{
	struct machine *m = board;
	uint64_t value;

	pthread_mutex_lock(&m->lock);
	value = bus_mmio_read(&m->mmio, gpa, size);
	pthread_mutex_unlock(&m->lock);
	return value;
}

static void mmio_write(void *board, gpa_t gpa, unsigned int size, uint64_t value)
{
	struct machine *m = board;

	pthread_mutex_lock(&m->lock);
	bus_mmio_write(&m->mmio, gpa, size, value);
	pthread_mutex_unlock(&m->lock);
}

static uint8_t pic_acknowledge(void *board)
{
	struct machine *m = board;
	uint8_t vector = 0xff;

	pthread_mutex_lock(&m->lock);
	for (size_t i = 0; i < m->n_devices; i++)
		if (m->devices[i]->class->acknowledge)
			vector = m->devices[i]->class->acknowledge(m->devices[i]);
	pthread_mutex_unlock(&m->lock);
	return vector;
}

static void apic_eoi(void *board, uint8_t vector)
{
	struct machine *m = board;

	pthread_mutex_lock(&m->lock);
	for (size_t i = 0; i < m->n_devices; i++)
		if (m->devices[i]->class->eoi)
			m->devices[i]->class->eoi(m->devices[i], vector);
	pthread_mutex_unlock(&m->lock);
}

static const struct board_ops ops = {
	.port_read = port_read,
	.port_write = port_write,
	.mmio_read = mmio_read,
	.mmio_write = mmio_write,
	.pic_acknowledge = pic_acknowledge,
	.apic_eoi = apic_eoi,
};

/* ---- Making one ---- */

static int add_device(struct machine *m, const char *class, unsigned int instance,
		      struct device **dev, struct error *err)
{
	struct device *made;
	int r;

	if (m->n_devices == DEVICES)
		return error_set(err, ENOSPC, "no room for device %s", class);
	r = device_new(class, instance, &m->board, &made, err);
	if (r < 0)
		return r;
	m->devices[m->n_devices++] = made;
	if (dev)
		*dev = made;
	return 0;
}

static int add_devices(struct machine *m, struct error *err)
{
	static const char *const always[] = {"i8259",    "ioapic", "i8254",
					     "mc146818", "i8042",  "fw_cfg"};
	int r = 0;

	/* The interrupt controllers come first: the others set their lines when they are reset. */
	for (size_t i = 0; i < ARRAY_SIZE(always) && r == 0; i++)
		r = add_device(m, always[i], 0, NULL, err);
	if (r == 0)
		r = add_device(m, "acpi_pm", 0, &m->power, err);
	if (r == 0)
		r = add_device(m, "ns16550", 0, &m->serial, err);
	if (r == 0 && m->config.debug_exit)
		r = add_device(m, "debug_exit", 0, NULL, err);
	return r;
}

static int make_vm(struct machine *m, struct error *err)
{
	const struct engine *engine = m->config.engine;
	autofree struct cpuid_leaf *leaves = NULL;
	struct vm_config config = {.ops = &ops, .board = m, .n_vcpus = m->config.n_vcpus};
	int r = engine->supported_cpuid(&leaves, &config.n_cpuid, err);

	if (r < 0)
		return r;
	config.cpuid = leaves;
	r = engine->vm_new(&config, &m->vm, err);
	if (r == 0)
		r = memory_map(m->memory, engine, m->vm, err);
	for (unsigned int i = 0; i < m->config.n_vcpus && r == 0; i++) {
		m->runners[i].machine = m;
		r = engine->vcpu_new(m->vm, i, &m->runners[i].vcpu, err);
	}
	return r;
}

static int load_kernel(struct machine *m, struct error *err)
{
	const struct engine *engine = m->config.engine;
	struct boot_files files = {m->config.kernel, m->config.initrd, m->config.cmdline};
	autofree struct vcpu_state *state = aligned_alloc(64, sizeof(*state));
	int r;

	if (!state)
		return error_oom(err);
	r = engine->vcpu_get_state(m->runners[0].vcpu, state, err);
	if (r == 0)
		r = acpi_build(m->memory, m->config.n_vcpus, err);
	if (r == 0)
		r = kernel_boot(m->memory, &files, state, err);
	if (r == 0)
		r = engine->vcpu_set_state(m->runners[0].vcpu, state, err);
	return r;
}

int machine_new(const struct machine_config *config, struct machine **machine, struct error *err)
{
	struct machine *m;
	pthread_condattr_t attributes;
	int r;

	if (!config->n_vcpus)
		return error_set(err, EINVAL, "a machine needs at least one vCPU");
	m = calloc(1, sizeof(*m));
	if (!m)
		return error_oom(err);
	m->config = *config;
	m->board = (struct board){
		.claim_ports = claim_ports,
		.claim_mmio = claim_mmio,
		.set_line = set_line,
		.msi = send_msi,
		.set_extint = set_extint,
		.now_ns = now_ns,
		.wall_s = wall_s,
		.deadline_changed = deadline_changed,
		.output = output,
		.end = board_end,
		.memory_bytes = config->memory_bytes,
		.n_vcpus = config->n_vcpus,
	};
	m->clock_start_ns = monotonic_ns() - 1;
	pthread_mutex_init(&m->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&m->changed, &attributes);
	pthread_condattr_destroy(&attributes);

	m->runners = calloc(config->n_vcpus, sizeof(*m->runners));
	r = m->runners ? memory_new(config->memory_bytes, &m->memory, err) : error_oom(err);
	if (r == 0)
		r = make_vm(m, err);
	if (r == 0)
		r = add_devices(m, err);
	if (r == 0 && config->kernel)
		r = load_kernel(m, err);
	if (r < 0) {
		machine_free(m);
		return r;
	}
	*machine = m;
	return 0;
}

void machine_free(struct machine *m)
{
	if (!m)
		return;
	while (m->n_devices)
		device_free(m->devices[--m->n_devices]);
	if (m->vm)
		m->config.engine->vm_free(m->vm);
	memory_free(m->memory);
	bus_release(&m->ports);
	bus_release(&m->mmio);
	pthread_cond_destroy(&m->changed);
	pthread_mutex_destroy(&m->lock);
	free(m->runners);
	free(m);
}

/* ---- Running ---- */

static void *run_vcpu(void *data)
{
	struct runner *runner = data;
	struct machine *m = runner->machine;
	struct error err = {0};

	for (;;) {
		enum vcpu_exit exit;
		int r = m->config.engine->vcpu_run(runner->vcpu, &exit, &err);

		pthread_mutex_lock(&m->lock);
		if (r < 0 && m->end == BOARD_RUNNING) {
			m->error = err;
			board_end(&m->board, BOARD_FAILED, r);
		} else if (r == 0 && exit == VCPU_EXIT_SHUTDOWN) {
			board_end(&m->board, BOARD_SHUTDOWN, 0);
		}
		r = m->end != BOARD_RUNNING;
		pthread_mutex_unlock(&m->lock);
		if (r)
			return NULL;
	}
}

/* Calls the devices whose time has come; returns when the next one is due, 0: none is. */
static uint64_t run_timers(struct machine *m)
{
	uint64_t now = now_ns(&m->board), next = 0;

	for (size_t i = 0; i < m->n_devices; i++) {
		struct device *dev = m->devices[i];

		if (dev->deadline_ns && dev->deadline_ns <= now) {
			dev->deadline_ns = 0;
			dev->class->timer(dev);
		}
	}
	for (size_t i = 0; i < m->n_devices; i++) {
		uint64_t deadline = m->devices[i]->deadline_ns;

		if (deadline && (!next || deadline < next))
			next = deadline;
	}
	return next;
}

int machine_run(struct machine *m, enum board_end *end, int *status, struct error *err)
{
	int r = 0;

	for (unsigned int i = 0; i < m->config.n_vcpus; i++) {
		r = pthread_create(&m->runners[i].thread, NULL, run_vcpu, &m->runners[i]);
		if (r) {
			pthread_mutex_lock(&m->lock);
			error_sys(&m->error, r, "start vCPU %u", i);
			board_end(&m->board, BOARD_FAILED, -r);
			pthread_mutex_unlock(&m->lock);
			break;
		}
		m->runners[i].started = true;
	}

	pthread_mutex_lock(&m->lock);
	while (m->end == BOARD_RUNNING) {
		uint64_t next = run_timers(m);
		struct timespec ts;

		if (m->end != BOARD_RUNNING)
			break;
		if (!next) {
			pthread_cond_wait(&m->changed, &m->lock);
			continue;
		}
		next += m->clock_start_ns;
		ts = (struct timespec){(time_t)(next / 1000000000), (long)(next % 1000000000)};
		pthread_cond_timedwait(&m->changed, &m->lock, &ts);
	}
	pthread_mutex_unlock(&m->lock);

	for (unsigned int i = 0; i < m->config.n_vcpus; i++)
		if (m->runners[i].started)
			pthread_join(m->runners[i].thread, NULL);
	*end = m->end;
	*status = m->status;
	if (m->end != BOARD_FAILED)
		return 0;
	if (err)
		*err = m->error;
	return m->status;
}

void machine_stop(struct machine *m)
{
	pthread_mutex_lock(&m->lock);
	board_end(&m->board, BOARD_STOPPED, 0);
	pthread_mutex_unlock(&m->lock);
}

static size_t device_input(struct machine *m, struct device *dev, const void *bytes, size_t size)
{
	size_t n;

	pthread_mutex_lock(&m->lock);
	n = dev->class->input(dev, bytes, size);
	pthread_mutex_unlock(&m->lock);
	return n;
}

size_t machine_input(struct machine *m, const void *bytes, size_t size)
{
	return device_input(m, m->serial, bytes, size);
}

void machine_power_button(struct machine *m)
{
	device_input(m, m->power, "", 1);
}

int machine_save_devices(struct machine *m, struct save_writer *w, struct error *err)
{
	pthread_mutex_lock(&m->lock);
	for (size_t i = 0; i < m->n_devices; i++)
		device_save(m->devices[i], w);
	pthread_mutex_unlock(&m->lock);
	return save_finish(w, err);
}

int machine_load_devices(struct machine *m, const void *data, size_t size, struct error *err)
{
	int r = 0;

	pthread_mutex_lock(&m->lock);
	for (size_t i = 0; i < m->n_devices && r == 0; i++)
		r = device_load(m->devices[i], data, size, err);
	pthread_mutex_unlock(&m->lock);
	return r;
}

void machine_counters(struct machine *m, unsigned int vcpu, struct vcpu_counters *counters)
{
	m->config.engine->vcpu_get_counters(m->runners[vcpu].vcpu, counters);
}

int machine_vcpu_state(struct machine *m, unsigned int vcpu, struct vcpu_state *state,
		       struct error *err)
{
	return m->config.engine->vcpu_get_state(m->runners[vcpu].vcpu, state, err);
}
