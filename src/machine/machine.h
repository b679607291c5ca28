/*
 * A virtual machine: the board with its devices, guest memory, and vCPUs on an engine.
 *
 * Locks: one lock guards all devices; it is taken around every access of a guest, the timers, and
 * the host's input, and held while a device raises an interrupt. The engine never calls with a lock
 * of its own held, so there is no order to get wrong.
 */
#pragma once

#include "device/device.h"
#include "engine/engine.h"

struct machine;

struct machine_config {
	const struct engine *engine;
	uint64_t memory_bytes;
	unsigned int n_vcpus;
	const char *kernel, *initrd, *cmdline; /* initrd, cmdline: or NULL */
	bool debug_exit;                       /* port 0xf4 */
	/* What the guest writes to its first serial port; on a vCPU's thread, with the board
	 * locked: it may not call back. */
	void (*output)(void *data, const void *bytes, size_t size);
	void *output_data;
};

int machine_new(const struct machine_config *config, struct machine **machine, struct error *err);
void machine_free(struct machine *machine);

/* Runs until the guest or machine_stop() ends it. `status`: of debug-exit. An engine's failure is
 * BOARD_FAILED with a negative return. */
int machine_run(struct machine *machine, enum board_end *end, int *status, struct error *err);

/* [any] */
void machine_stop(struct machine *machine);
/* [any] To the first serial port; returns the bytes that it had room for. */
size_t machine_input(struct machine *machine, const void *bytes, size_t size);
/* [any] Presses the power button. */
void machine_power_button(struct machine *machine);

/* All devices' state; while no vCPU runs. */
int machine_save_devices(struct machine *machine, struct save_writer *w, struct error *err);
int machine_load_devices(struct machine *machine, const void *data, size_t size, struct error *err);

/* [any] What the first vCPU has done. */
void machine_counters(struct machine *machine, unsigned int vcpu, struct vcpu_counters *counters);
/* For debugging, while it does not run. */
int machine_vcpu_state(struct machine *machine, unsigned int vcpu, struct vcpu_state *state,
		       struct error *err);
