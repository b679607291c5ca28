/* enum op: every operation that the decoder knows, from the list in decode_ops.inc. */
#pragma once

enum op {
	OP_INVALID,
#define OP(name, ...)  OP_##name,
#define OPV(name, ...) OP_##name,
#include "engine/soft/decode_ops.inc"
#undef OP
#undef OPV
	N_OPS
};

/* Which explicit operands an operation reads and writes. */
enum op_access {
	ACCESS_N,      /* none: NOP, PREFETCHh, INVLPG */
	ACCESS_R,      /* reads all */
	ACCESS_W,      /* writes the first, reads the others */
	ACCESS_RW,     /* reads and writes the first, reads the others */
	ACCESS_WW,     /* writes the first two */
	ACCESS_RWRW,   /* reads and writes the first two */
	ACCESS_LEA,    /* writes the first, only takes the address of the second */
	ACCESS_GATHER, /* writes the first, reads memory, reads and writes the mask in the third */
};
