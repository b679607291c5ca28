/*
 * The decoder against Zydis: one byte string is decoded by both, and what they say is compared
 * field by field. Where they differ on purpose a table in decode_oracle.c says why.
 */
#pragma once

#include "engine/soft/decode.h"

#include <stdio.h>

/* What both decoders tell. */
enum oracle_field {
	FIELD_VALID,
	FIELD_LENGTH,
	FIELD_NAME,
	FIELD_OPSIZE,
	FIELD_ADDRSIZE,
	FIELD_ADDRESS, /* segment, base, index, scale, displacement */
	FIELD_MEM_SIZE,
	FIELD_MEM_ACCESS,
	FIELD_IMMEDIATE,
	FIELD_OFFSETS,  /* where ModRM, displacement and immediate are in the bytes */
	FIELD_OPERANDS, /* kinds and registers of the explicit ones */
	FIELD_REGS_READ,
	FIELD_REGS_WRITTEN,
	FIELD_FLAGS_READ,
	FIELD_FLAGS_WRITTEN,
	FIELD_FLAGS_UNDEFINED,
	FIELD_EVEX,     /* mask, zeroing, broadcast */
	FIELD_FEATURES, /* of AVX-512: for others Zydis's sets are not CPUID's */
	N_FIELDS
};

struct oracle_count {
	unsigned long cases, valid, deliberate, wrong[N_FIELDS];
};

/*
 * Decodes the INSN_MAX_BYTES at `bytes` with both. A difference that nothing explains is counted,
 * and written to `report` (unless NULL) when it is the first of its kind for that operation.
 */
void oracle_compare(const uint8_t *bytes, enum insn_mode mode, struct oracle_count *count,
		    FILE *report);

/* All differences that nothing explains. */
unsigned long oracle_wrong(const struct oracle_count *count);

/* Deliberate differences that no case met, each reported: they explain nothing any more. */
unsigned oracle_stale(FILE *report);

/* Rows of the table that no case of oracle_compare() led to, each reported (unless NULL). */
unsigned oracle_unmet_rows(FILE *report);
