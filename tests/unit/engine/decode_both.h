/* One byte string, decoded by us and by Zydis: between decode_oracle.c and decode_differences.c. */
#pragma once

#include "decode_oracle.h"

#include <Zydis/Zydis.h>

struct both {
	const uint8_t *bytes;
	enum insn_mode mode;
	struct insn ours;
	enum decode_result result;
	ZydisDecodedInstruction theirs;
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
	bool valid; /* theirs */
};

/* Whether the field may differ for a reason that is written down. */
bool difference_deliberate(const struct both *b, enum oracle_field field);
