/*
 * How an operand is encoded: the codes in the rows of decode_table.inc, which decode.c reads (and
 * generators of test cases). A code is enum operand_where << 8 | enum operand_type; the letters
 * are those of SDM volume 2, A.2.1 and A.2.2, extended where they don't say enough.
 */
#pragma once

#include "engine/soft/decode.h"

enum operand_where {
	WHERE_NONE,
	WHERE_E,    /* ModRM.rm: general register or memory */
	WHERE_G,    /* ModRM.reg: general register */
	WHERE_R,    /* ModRM.rm: general register */
	WHERE_B,    /* VEX.vvvv: general register */
	WHERE_Z,    /* low bits of the opcode: general register */
	WHERE_A,    /* rAX, */
	WHERE_C,    /* rCX, */
	WHERE_D,    /* rDX, whatever the encoding says */
	WHERE_I,    /* immediate, zero-extended */
	WHERE_IS,   /* immediate, sign-extended */
	WHERE_I2,   /* second immediate */
	WHERE_ONE,  /* the constant 1 */
	WHERE_J,    /* displacement of a branch */
	WHERE_AP,   /* far pointer */
	WHERE_O,    /* address in place of ModRM */
	WHERE_M,    /* ModRM.rm: memory */
	WHERE_VM,   /* memory addressed by a vector of indices */
	WHERE_X,    /* seg:rSI */
	WHERE_Y,    /* ES:rDI */
	WHERE_XLAT, /* seg:rBX + AL */
	WHERE_DI,   /* seg:rDI */
	WHERE_MON,  /* seg:rAX */
	WHERE_S,    /* ModRM.reg: segment register */
	WHERE_SNOTCS,
	WHERE_SFIX, /* the segment register in the code's type */
	WHERE_CR,   /* ModRM.reg: control register */
	WHERE_DR,
	WHERE_ST0,
	WHERE_ST1,
	WHERE_STI, /* ModRM.rm: x87 register */
	WHERE_P,   /* ModRM.reg: MMX register */
	WHERE_Q,   /* ModRM.rm: MMX register or memory */
	WHERE_N,   /* ModRM.rm: MMX register */
	WHERE_V,   /* ModRM.reg: vector register */
	WHERE_W,   /* ModRM.rm: vector register or memory */
	WHERE_U,   /* ModRM.rm: vector register */
	WHERE_H,   /* VEX.vvvv: vector register */
	WHERE_L,   /* immediate's high bits: vector register */
	WHERE_XMM0,
	WHERE_KG, /* ModRM.reg: opmask register */
	WHERE_KE, /* ModRM.rm: opmask register or memory */
	WHERE_KH, /* VEX.vvvv: opmask register */
};

enum operand_type {
	TYPE_NONE,  /* no size, or the operation knows it */
	TYPE_B,     /* 1 byte, */
	TYPE_W,     /* 2, */
	TYPE_D,     /* 4, */
	TYPE_Q,     /* 8, */
	TYPE_T,     /* 10, */
	TYPE_DQ,    /* 16, */
	TYPE_QQ,    /* 32, */
	TYPE_OO,    /* 64 */
	TYPE_V,     /* operand size: 2, 4, 8 */
	TYPE_Z,     /* operand size, but 4 for 8 */
	TYPE_Y,     /* 8 with W in 64-bit mode, else 4 */
	TYPE_YD,    /* the same, but the operand size is another operand's: CRC32 */
	TYPE_YY,    /* 8 in 64-bit mode, else 4 */
	TYPE_ADDR,  /* address size */
	TYPE_VW,    /* a register: operand size; memory: 2 */
	TYPE_DW,    /* a register: 4; memory: 2 */
	TYPE_DB,    /* a register: 4; memory: 1 */
	TYPE_P,     /* far pointer: 2 + operand size */
	TYPE_A,     /* two of operand size */
	TYPE_S,     /* pseudo-descriptor: 10 in 64-bit mode, else 6 */
	TYPE_ENV,   /* x87 environment: 14 or 28 */
	TYPE_FSAVE, /* x87 state: 94 or 108 */
	TYPE_FX,    /* 512 */
	TYPE_X,     /* vector length, */
	TYPE_XH,    /* half of it, */
	TYPE_XQ,    /* a quarter, */
	TYPE_XE,    /* an eighth */
	TYPE_DUP,   /* MOVDDUP: 8, 32, 64 */
	N_TYPES
};

#define OPERAND_CODE(where, type) ((where) << 8 | (type))
#define OPERAND_WHERE(code)       ((enum operand_where)((code) >> 8))
#define OPERAND_TYPE(code)        ((code)&0xff)

/* Bits of the key that rows match. */
enum {
	KEY_PP = 3 << 0, /* none, 66, F3, F2 */
	KEY_REP = 2 << 0,
	KEY_W = 1 << 2,
	KEY_L = 3 << 3,
	KEY_REG = 1 << 5, /* ModRM.mod is 3 */
	KEY_DIGIT = 7 << 6,
	KEY_RM = 7 << 9,
	KEY_64 = 1 << 12,
	KEY_B = 1 << 13, /* REX.B */
};

/* The first row of an opcode, 0 where there is none. */
extern const uint16_t opcode_index[N_MAPS][256];
