/*
 * The instruction decoder: bytes in, `struct insn` out. The interpreter, the block translator and
 * the differential tests share it and the table behind it (decode_table.inc, one row an opcode).
 *
 * It is a pure function: no allocation, no global state, and no byte string makes it misbehave.
 * It knows nothing of the processor's state but the size of the code segment; what depends on
 * more (privilege, CR0.TS, CPUID policy, real mode) is described in the row for the caller to
 * check, in the order in which the manual ranks the exceptions.
 *
 * Source: Intel SDM volume 2: chapter 2 (formats), appendix A (opcode maps), the instruction pages;
 * notation of operands as in SDM A.2.
 */
#pragma once

#include "engine/soft/decode_ops.h"
#include "engine/vcpu_state.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* No instruction is longer (SDM 2.3.11). */
#define INSN_MAX_BYTES 15

/* The code segment: CS.L, or else CS.D. Real and virtual-8086 mode are INSN_MODE_16. */
enum insn_mode { INSN_MODE_16, INSN_MODE_32, INSN_MODE_64 };

enum decode_result {
	DECODE_OK,
	DECODE_MORE,     /* the window ends inside the instruction: fetch on, which may fault */
	DECODE_INVALID,  /* #UD: no such instruction; `length` bytes were looked at */
	DECODE_TOO_LONG, /* #GP(0): more than 15 bytes */
};

/* Opcode maps by the prefix bytes that lead to them. */
enum insn_map {
	MAP_1B, /* one-byte opcodes, x87 among them */
	MAP_0F,
	MAP_0F38,
	MAP_0F3A,
	MAP_VEX_0F, /* C5, C4 */
	MAP_VEX_0F38,
	MAP_VEX_0F3A,
	MAP_EVEX_0F, /* 62 */
	MAP_EVEX_0F38,
	MAP_EVEX_0F3A,
	MAP_EVEX_5, /* AVX512-FP16 */
	MAP_EVEX_6,
	N_MAPS
};

enum insn_class {
	INSN_ALU,        /* integer arithmetic, logic, shifts, bits, SETcc */
	INSN_MOV,        /* MOV, MOVZX, MOVSX, CMOVcc, XCHG, BSWAP, LEA, XLAT, MOV of segments */
	INSN_STACK,      /* PUSH, POP, their A and F forms, ENTER, LEAVE */
	INSN_BRANCH_REL, /* JMP, Jcc, CALL, LOOPcc, JrCXZ with a displacement in `imm` */
	INSN_BRANCH_IND, /* near JMP and CALL through a register or memory */
	INSN_RET,        /* near RET */
	INSN_BRANCH_FAR, /* far JMP, CALL, RET; IRET */
	INSN_INT,        /* INT n, INT3, INTO, INT1; SYSCALL, SYSENTER and their returns */
	INSN_STRING,     /* MOVS, CMPS, STOS, LODS, SCAS */
	INSN_IO,         /* IN, OUT, INS, OUTS */
	INSN_FLAG,       /* CLC, STC, CMC, CLD, STD, LAHF, SAHF */
	INSN_NOP,        /* NOP, PREFETCHh, ENDBR, PAUSE, fences, cache-line hints */
	INSN_SYSTEM, /* control, debug, descriptor-table and MSR accesses, CLI, HLT, CPUID ... */
	INSN_STATE,  /* XSAVE, FXSAVE and their kin, LDMXCSR, STMXCSR, XGETBV */
	INSN_X87,
	INSN_MMX,    /* touches MMX registers, whatever set it belongs to */
	INSN_SSE,    /* legacy-encoded, XMM registers */
	INSN_AVX,    /* VEX-encoded, vector registers */
	INSN_AVX512, /* EVEX-encoded, and the opmask instructions */
	INSN_UD,     /* a known instruction that always raises #UD here: UD2, VMX, SVM, TSX ... */
};

/*
 * What CPUID must offer for the instruction to exist. What every x86-64 processor has (x87, CMOV,
 * MMX, SSE2, FXSAVE, CMPXCHG8B ...) has no entry.
 */
enum cpu_feature {
	CPU_SSE3,
	CPU_SSSE3,
	CPU_SSE41,
	CPU_SSE42,
	CPU_POPCNT,
	CPU_PCLMULQDQ,
	CPU_AES,
	CPU_SHA,
	CPU_GFNI,
	CPU_CX16,
	CPU_LAHF64, /* LAHF, SAHF in 64-bit mode */
	CPU_MOVBE,
	CPU_ADX,
	CPU_BMI1,
	CPU_BMI2,
	CPU_LZCNT, /* never a #UD: without it LZCNT is BSR, without BMI1 TZCNT is BSF */
	CPU_RDRAND,
	CPU_RDSEED,
	CPU_RDPID,
	CPU_RDTSCP,
	CPU_FSGSBASE,
	CPU_INVPCID,
	CPU_SMAP,
	CPU_PKU,
	CPU_SEP, /* SYSENTER, SYSEXIT */
	CPU_MONITOR,
	CPU_XSAVE,
	CPU_XSAVEOPT,
	CPU_XSAVEC,
	CPU_XSAVES,
	CPU_CLFLUSHOPT,
	CPU_CLWB,
	CPU_WBNOINVD,
	CPU_MOVDIRI,
	CPU_MOVDIR64B,
	CPU_SERIALIZE,
	CPU_F16C,
	CPU_FMA,
	CPU_AVX,
	CPU_AVX2,
	CPU_AVX_VNNI,
	CPU_VAES,
	CPU_VPCLMULQDQ,
	CPU_AVX512F,
	CPU_AVX512CD,
	CPU_AVX512BW,
	CPU_AVX512DQ,
	CPU_AVX512VL,
	CPU_AVX512IFMA,
	CPU_AVX512VBMI,
	CPU_AVX512VBMI2,
	CPU_AVX512VNNI,
	CPU_AVX512BITALG,
	CPU_AVX512VPOPCNTDQ,
	CPU_AVX512BF16,
	CPU_AVX512FP16,
	N_CPU_FEATURES /* fits a uint64_t of bits */
};

#define CPU_BIT(feature) (UINT64_C(1) << (feature))

/* Bits of RFLAGS in the masks below, which leave out what lies above bit 15. */
enum {
	FLAG_CF = 1 << 0,
	FLAG_PF = 1 << 2,
	FLAG_AF = 1 << 4,
	FLAG_ZF = 1 << 6,
	FLAG_SF = 1 << 7,
	FLAG_TF = 1 << 8,
	FLAG_IF = 1 << 9,
	FLAG_DF = 1 << 10,
	FLAG_OF = 1 << 11,
	FLAG_IOPL = 3 << 12,
	FLAG_NT = 1 << 14,
	FLAGS_ARITH = FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF,
};

/* What an operand is. */
enum operand_kind {
	OPERAND_NONE,
	OPERAND_GPR,
	OPERAND_GPR_HIGH, /* AH, CH, DH, BH: `reg` 0..3 is the register whose second byte it is */
	OPERAND_MEM, /* insn.base and its neighbours: by ModRM, moffs or implied (XLAT, MASKMOV) */
	OPERAND_STR_SRC, /* seg:rSI, the same as insn.base and insn.seg say */
	OPERAND_STR_DST, /* ES:rDI */
	OPERAND_IMM,     /* insn.imm, extended to 64 bits as the operation wants it */
	OPERAND_IMM2,    /* insn.imm2: ENTER's level */
	OPERAND_FAR,     /* ptr16:16, ptr16:32: insn.imm the offset, insn.imm2 the selector */
	OPERAND_SEG,
	OPERAND_CR,
	OPERAND_DR,
	OPERAND_ST, /* x87, relative to the top of the stack */
	OPERAND_MMX,
	OPERAND_VEC, /* XMM, YMM, ZMM: insn_vector_bytes() */
	OPERAND_K,   /* opmask register as an operand (the write mask is evex_aaa) */
};

struct insn_operand {
	uint16_t kind : 4; /* enum operand_kind */
	uint16_t reg : 5;
	uint16_t log2_size : 4; /* of a register, or an immediate once extended; not of memory */
	uint16_t read : 1;
	uint16_t written : 1;
};

/* Prefixes as they stood in front of the opcode, needed or not. */
enum {
	PREFIX_LOCK = 1 << 0,
	PREFIX_REP = 1 << 1,      /* F3; of F3 and F2 only the last counts */
	PREFIX_REPNE = 1 << 2,    /* F2 */
	PREFIX_OPSIZE = 1 << 3,   /* 66 */
	PREFIX_ADDRSIZE = 1 << 4, /* 67 */
	/* Bits 5..7: the segment override that counts, SEG_ES.. plus one. 64-bit: FS, GS only. */
	PREFIX_SEG_SHIFT = 5,
};

/* REX, or what VEX and EVEX have in its place, as true (not inverted) bits. */
enum {
	REX_B = 1 << 0,
	REX_X = 1 << 1,
	REX_R = 1 << 2,
	REX_W = 1 << 3,
	REX_R2 = 1 << 4,      /* EVEX.R': bit 4 of ModRM.reg */
	REX_PRESENT = 1 << 6, /* a REX prefix that counts: SPL.. instead of AH.. */
};

enum insn_encoding { ENC_LEGACY, ENC_VEX2, ENC_VEX3, ENC_EVEX };

/* No base or index register. */
#define REG_NONE 0xff

struct opcode;

struct insn {
	const struct opcode *desc; /* the row: class, flags, features, attributes */

	/* The memory operand: seg : base + index << scale + disp, cut to addrsize. */
	int64_t disp; /* sign-extended; moffs zero-extended; EVEX's disp8*N multiplied out */
	/*
	 * The first immediate, extended as the operation needs it (so `ADD r64, imm32` is 64 bits
	 * wide here); a relative branch's displacement, sign-extended; a far pointer's offset.
	 */
	uint64_t imm;

	struct insn_operand operands[4]; /* in the order of the manual, OPERAND_NONE at the end */

	uint16_t op;   /* enum op */
	uint16_t imm2; /* ENTER's level, a far pointer's selector */
	/*
	 * Bytes accessed; 0: none, or as many as the operation says (XSAVE). Gather and scatter: of
	 * each element. Compress, expand, masked moves: at most.
	 */
	uint16_t mem_size;
	/*
	 * All GPRs read and written, explicit, for the address, and implied. A register written
	 * with less than 4 bytes keeps the rest, which is not counted as read; what "reads" AH
	 * here reads RAX.
	 */
	uint16_t regs_read, regs_written;

	uint8_t length;   /* bytes */
	uint8_t mode;     /* enum insn_mode */
	uint8_t opcode;   /* the byte within its map; its low four bits are Jcc's condition */
	uint8_t prefixes; /* PREFIX_* */
	uint8_t opsize;   /* effective operand size in bytes: 1, 2, 4, 8 */
	uint8_t addrsize; /* effective address size in bytes: 2, 4, 8 */

	uint8_t seg;   /* effective segment of the memory operand, SEG_* */
	uint8_t base;  /* REG_*, or REG_NONE */
	uint8_t index; /* REG_*, REG_NONE, or with `vsib` a vector register 0..31 */
	uint8_t scale : 2;
	uint8_t vsib : 1;
	uint8_t rip_relative : 1; /* base is the address of the next instruction; `base` REG_NONE */
	uint8_t mem_read : 1, mem_written : 1; /* neither: LEA, INVLPG, PREFETCHh ... */
	uint8_t has_mem : 1;
	uint8_t has_modrm : 1;

	/* Where in the raw bytes things are, if their size is not 0. SIB follows ModRM. */
	uint8_t modrm;
	uint8_t modrm_at, disp_at, imm_at;
	uint8_t disp_size : 4, imm_size : 4; /* imm_size: all immediates together */

	uint8_t rex;          /* REX_* */
	uint8_t vvvv : 5;     /* VEX.vvvv, EVEX.V'vvvv as a register number */
	uint8_t encoding : 2; /* enum insn_encoding */
	uint8_t evex_b : 1;   /* broadcast, or rounding by L'L and no exceptions */
	uint8_t evex_aaa : 3, evex_z : 1;
	uint8_t vex_l : 2; /* VEX.L, EVEX.L'L as encoded */
	uint8_t has_sib : 1;
};

_Static_assert(sizeof(struct insn) <= 64, "a decoded instruction fits a cache line");

/* Attributes of a row. */
enum {
	OPC_LOCK = 1 << 0,         /* LOCK is allowed (with a memory destination): else #UD */
	OPC_CPL0 = 1 << 1,         /* #GP(0) unless CPL is 0 */
	OPC_IOPL = 1 << 2,         /* depends on IOPL: IN, OUT, CLI, STI; in v86 PUSHF, INT ... */
	OPC_PROTECTED = 1 << 3,    /* #UD in real and v86 mode: VEX and EVEX too */
	OPC_ALIGNED = 1 << 4,      /* #GP(0) unless the memory operand is aligned to mem_size, */
	OPC_ALIGN16 = 1 << 5,      /* to 16 bytes: FXSAVE, FXRSTOR (XSAVE..: to 64, unmarked) */
	OPC_FLAGS_MAYBE = 1 << 6,  /* flags may stay as they were: shift by 0, REP with rCX = 0 */
	OPC_MAYBE_WRITES = 1 << 7, /* the destination may stay as it was: CMOVcc, CMPXCHG, BSF */
	OPC_REP = 1 << 8,          /* a string operation: REP (REPE, REPNE) repeats it */
	OPC_STACK = 1 << 9,        /* pushes or pops; insn's memory operand is another one */
	OPC_ENDS_BLOCK = 1 << 10,  /* what follows may be elsewhere, or in another mode */
	OPC_DISTINCT = 1 << 11, /* #UD unless certain vector registers differ (checked already) */
	OPC_SCALAR = 1 << 12,   /* EVEX: vector length ignored, or fixed to 128 */
	OPC_ELEMENT = 1 << 13,  /* compress, expand: disp8*N by elements, mem_size at most */

	/* The rest only tells the decoder how to read the instruction. */
	OPC_BYTE = 1 << 14,     /* operand size 1 */
	OPC_D64 = 1 << 15,      /* 64-bit mode: operand size 8 by default, 2 with 66, never 4 */
	OPC_F64 = 1 << 16,      /* 64-bit mode: operand size 8, whatever the prefixes (Intel) */
	OPC_MAX4 = 1 << 17,     /* operand size 4 instead of 8: INS, IN ... */
	OPC_ANYMOD = 1 << 18,   /* ModRM.mod ignored, taken as 3: MOV to and from CR, DR */
	OPC_COUNT = 1 << 19,    /* a shift whose count may not be 1: OF undefined */
	OPC_READS_DX = 1 << 20, /* MUL, DIV of more than 8 bits */
	OPC_WRITES_DX = 1 << 21,
	OPC_UNALIGNED = 1 << 22, /* an SSE operand that need not be aligned */
	OPC_MASK = 1 << 23,      /* EVEX: aaa may select a mask, */
	OPC_ZERO = 1 << 24,      /* z may be set, */
	OPC_NEED_MASK = 1 << 25, /* aaa must not be 0: gather, scatter */
	OPC_ER = 1 << 26,        /* EVEX.b with registers: rounding control, */
	OPC_SAE = 1 << 27,       /* or suppression of exceptions */
	OPC_B2 = 1 << 28,        /* EVEX.b with memory: broadcast of 2, 4 or 8 bytes */
	OPC_B4 = 1 << 29,
	OPC_B8 = 1 << 30,
};

/* EVEX and VEX: not with 128 bits. */
#define OPC_NOT128 (1u << 31)

/*
 * A row of the table. `operands` are the codes of decode_operands.h: what is encoded where. A row
 * applies when (key & mask) == value, key being what decode.c gathers from prefixes and ModRM.
 */
struct opcode {
	uint64_t features; /* CPU_BIT()s that must all be there; cf. insn_features() */
	uint32_t attrs;    /* OPC_* */
	uint16_t op;       /* enum op */
	uint16_t mask, value;
	uint16_t operands[4];
	uint16_t flags_read, flags_written;       /* FLAG_* */
	uint16_t flags_undefined;                 /* none of those that are written */
	uint16_t implicit_read, implicit_written; /* GPRs that the encoding doesn't name, as bits */
	uint8_t class;                            /* enum insn_class */
	uint8_t access;                           /* enum op_access */
	uint8_t map;                              /* enum insn_map */
	uint8_t opcode, last_opcode;              /* the same row serves opcode..last_opcode */
	bool first;                               /* the first row of its opcode */
	bool modrm; /* has a ModRM byte; the same in all rows of an opcode */
	bool vvvv;  /* an operand is in VEX.vvvv */
};

/* For tests and generators: all rows. Row 0 is the invalid one. */
extern const struct opcode opcode_table[];
extern const size_t opcode_table_size;

/*
 * Decodes one instruction from the n bytes there. n may be less than an instruction: DECODE_MORE
 * is returned only if the bytes that are there leave it open what to do. On DECODE_OK all of *insn
 * is set; else only `length` and `mode`.
 */
enum decode_result decode_insn(struct insn *insn, const uint8_t *bytes, size_t n,
			       enum insn_mode mode);

/* The operation's name, e.g. "ADD", "JCC", "VPADDD". */
const char *op_name(enum op op);

static inline enum insn_class insn_class(const struct insn *insn)
{
	return (enum insn_class)insn->desc->class;
}

static inline uint8_t insn_mod(const struct insn *insn)
{
	return insn->modrm >> 6;
}

/* ModRM.reg with its extensions: 0..15, vector registers 0..31. */
static inline uint8_t insn_reg(const struct insn *insn)
{
	return (insn->modrm >> 3 & 7) | (insn->rex & REX_R) << 1 | (insn->rex & REX_R2);
}

/* ModRM.rm as a register (mod 3), 0..15; EVEX has bit 4 of a vector register in X. */
static inline uint8_t insn_rm(const struct insn *insn)
{
	return (insn->modrm & 7) | (insn->rex & REX_B) << 3 |
	       (insn->encoding == ENC_EVEX ? (insn->rex & REX_X) << 3 : 0);
}

/* Jcc, SETcc, CMOVcc: the condition (SDM B.1.4.7). */
static inline uint8_t insn_condition(const struct insn *insn)
{
	return insn->opcode & 15;
}

/* The segment override that counts, or -1. */
static inline int insn_seg_prefix(const struct insn *insn)
{
	return (insn->prefixes >> PREFIX_SEG_SHIFT) - 1;
}

/* Bytes of a vector register operand: 16, 32, 64. EVEX.b between registers means 64. */
static inline uint8_t insn_vector_bytes(const struct insn *insn)
{
	return insn->encoding == ENC_EVEX && insn->evex_b && !insn->has_mem ? 64
									    : 16 << insn->vex_l;
}

/* Whether a string instruction is repeated. */
static inline bool insn_repeats(const struct insn *insn)
{
	return insn->desc->attrs & OPC_REP && insn->prefixes & (PREFIX_REP | PREFIX_REPNE);
}

/* GPRs that are used though no field of the encoding names them (so can't be renamed). */
static inline uint16_t insn_implicit_read(const struct insn *insn)
{
	return insn->desc->implicit_read | insn_repeats(insn) << REG_RCX;
}

static inline uint16_t insn_implicit_written(const struct insn *insn)
{
	return insn->desc->implicit_written | insn_repeats(insn) << REG_RCX;
}

/* FLAG_*s that it depends on. */
uint16_t insn_flags_read(const struct insn *insn);

/*
 * FLAG_*s that it surely sets, whatever they were: not by a shift by CL, which may be 0, and not
 * those that are undefined after it, which processors often leave alone. For liveness.
 */
uint16_t insn_flags_killed(const struct insn *insn);

/* CPU_BIT()s of all that CPUID must offer for it; else it is #UD. */
static inline uint64_t insn_features(const struct insn *insn)
{
	uint64_t features = insn->desc->features;

	/* EVEX with less than 512 bits is AVX512VL, except for scalars. */
	if (insn->encoding == ENC_EVEX && !(insn->desc->attrs & OPC_SCALAR) &&
	    insn_vector_bytes(insn) < 64)
		features |= CPU_BIT(CPU_AVX512VL);
	return features;
}
