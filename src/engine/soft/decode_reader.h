/* What decode.c and decode_operands.c share: the bytes as they are read. */
#pragma once

#include "engine/soft/decode_operands.h"

#include <string.h>

/* What is only known, or only needed, while an instruction is being decoded. */
struct reader {
	const uint8_t *bytes;
	size_t n;   /* of the window */
	size_t pos; /* read so far; never above n or INSN_MAX_BYTES */
	uint8_t pp; /* mandatory prefix as a key: none, 66, F3, F2 */
};

/* Whether k more bytes can be read, or why not. */
static inline enum decode_result need(const struct reader *r, size_t k)
{
	if (r->pos + k > INSN_MAX_BYTES)
		return DECODE_TOO_LONG;
	return r->pos + k > r->n ? DECODE_MORE : DECODE_OK;
}

/* Little-endian; the bytes must be there. */
static inline uint64_t take(struct reader *r, size_t k)
{
	const uint8_t *p = r->bytes + r->pos;
	uint16_t v16;
	uint32_t v32;
	uint64_t v64;

	r->pos += k;
	switch (k) {
	case 1:
		return *p;
	case 2:
		memcpy(&v16, p, 2);
		return v16;
	case 4:
		memcpy(&v32, p, 4);
		return v32;
	default:
		memcpy(&v64, p, 8);
		return v64;
	}
}

static inline int64_t sign_extend(uint64_t value, size_t bytes)
{
	unsigned shift = 64 - 8 * bytes;

	return (int64_t)(value << shift) >> shift;
}

/* The operand size that prefixes and mode make of a row's (insn->desc). */
uint8_t operand_size(const struct insn *insn, uint32_t attrs);

/* The memory operand that ModRM has, with its SIB byte and displacement, all but its size. */
enum decode_result read_memory(struct insn *insn, struct reader *r);

/* What an operation does with its operand at a place, 0 to 3. */
void operand_access(struct insn_operand *operand, enum op_access access, unsigned at);

/* The operand of a code. other_string: there is a string source besides. */
enum decode_result read_operand(struct insn *insn, struct reader *r, unsigned code,
				struct insn_operand *operand, bool other_string);
