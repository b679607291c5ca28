/* The loop of a vCPU, for soft.c. */
#pragma once

#include "engine/soft/soft.h"

int vcpu_run(struct vcpu *cpu, enum vcpu_exit *exit, struct error *err);
