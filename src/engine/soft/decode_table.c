/*
 * The decoder's table: turns the rows of decode_*.inc into arrays. What the columns of a row may
 * hold is listed here.
 */
#include "engine/soft/decode_operands.h"

/* -- Operations: what decode_ops.inc says of each, as constants -------------------------------- */

enum { INSN_VEC = 0xff }; /* MMX, SSE, AVX or AVX-512: the row decides */

/* clang-format off */
#define AX    (1 << REG_RAX)
#define CX    (1 << REG_RCX)
#define DX    (1 << REG_RDX)
#define BX    (1 << REG_RBX)
#define SP    (1 << REG_RSP)
#define BP    (1 << REG_RBP)
#define SI    (1 << REG_RSI)
#define DI    (1 << REG_RDI)
#define R11   (1 << 11)

#define O      FLAG_OF
#define S      FLAG_SF
#define Z      FLAG_ZF
#define A      FLAG_AF
#define P      FLAG_PF
#define C      FLAG_CF
#define D      FLAG_DF
#define I      FLAG_IF
#define N      FLAG_NT
#define IT     (FLAG_IF | FLAG_TF)
#define AC     (A | C)
#define AP     (A | P)
#define OC     (O | C)
#define ZC     (Z | C)
#define OZC    (O | Z | C)
#define OAC    (O | A | C)
#define SAP    (S | A | P)
#define SZP    (S | Z | P)
#define OSAP   (O | S | A | P)
#define OSZC   (O | S | Z | C)
#define OSZP   (O | S | Z | P)
#define SZAP   (S | Z | A | P)
#define OSAPC  (O | S | A | P | C)
#define OSZAP  (O | S | Z | A | P)
#define OSZPC  (O | S | Z | P | C)
#define SZAPC  (S | Z | A | P | C)
#define OSZAPC FLAGS_ARITH
#define ALL    (OSZAPC | D | I | FLAG_TF | N | FLAG_IOPL)
/* clang-format on */

#define OP(name, class, access, read, written, undefined, gprs_read, gprs_written)                 \
	CLASS_##name = INSN_##class, ACCESS_OF_##name = ACCESS_##access, FR_##name = (read),       \
	FW_##name = (written), FU_##name = (undefined), GR_##name = (gprs_read),                   \
	GW_##name = (gprs_written),
#define OPV(name, class, access)                                                                   \
	CLASS_##name = INSN_##class, ACCESS_OF_##name = ACCESS_##access, FR_##name = 0,            \
	FW_##name = 0, FU_##name = 0, GR_##name = 0, GW_##name = 0,
enum {
#include "engine/soft/decode_ops.inc"
};
#undef OP
#undef OPV
#undef AX
#undef CX
#undef DX
#undef BX
#undef SP
#undef BP
#undef SI
#undef DI
#undef R11
#undef O
#undef S
#undef Z
#undef A
#undef P
#undef C
#undef D
#undef I
#undef N
#undef IT
#undef AC
#undef AP
#undef OC
#undef ALL

/* -- Columns ----------------------------------------------------------------------------------- */

/* clang-format off */

enum {
	_ = 0, /* nothing to say */
	M_1B = MAP_1B, M_0F = MAP_0F, M_38 = MAP_0F38, M_3A = MAP_0F3A,
	M_V1 = MAP_VEX_0F, M_V2 = MAP_VEX_0F38, M_V3 = MAP_VEX_0F3A,
	M_E1 = MAP_EVEX_0F, M_E2 = MAP_EVEX_0F38, M_E3 = MAP_EVEX_0F3A,
	M_E5 = MAP_EVEX_5, M_E6 = MAP_EVEX_6,
};

/* When a row applies: mask << 16 | value. */
#define WHEN(mask, value) ((mask) << 16 | (value))
enum {
	NP = WHEN(KEY_PP, 0), P66 = WHEN(KEY_PP, 1), PF3 = WHEN(KEY_PP, 2), PF2 = WHEN(KEY_PP, 3),
	NOREP = WHEN(KEY_REP, 0), /* neither F3 nor F2; 66 is the operand size */
	W0 = WHEN(KEY_W, 0), W1 = WHEN(KEY_W, KEY_W),
	L0 = WHEN(KEY_L, 0), L1 = WHEN(KEY_L, 1 << 3), L2 = WHEN(KEY_L, 2 << 3),
	MEM = WHEN(KEY_REG, 0), REG = WHEN(KEY_REG, KEY_REG),
	M64 = WHEN(KEY_64, KEY_64), M32 = WHEN(KEY_64, 0), /* only in, only outside 64-bit mode */
	NOB = WHEN(KEY_B, 0),
	/* ModRM.reg, the manual's /digit, and ModRM.rm */
	_0 = WHEN(KEY_DIGIT, 0 << 6), _1 = WHEN(KEY_DIGIT, 1 << 6),
	_2 = WHEN(KEY_DIGIT, 2 << 6), _3 = WHEN(KEY_DIGIT, 3 << 6),
	_4 = WHEN(KEY_DIGIT, 4 << 6), _5 = WHEN(KEY_DIGIT, 5 << 6),
	_6 = WHEN(KEY_DIGIT, 6 << 6), _7 = WHEN(KEY_DIGIT, 7 << 6),
	rm0 = WHEN(KEY_RM, 0 << 9), rm1 = WHEN(KEY_RM, 1 << 9),
	rm2 = WHEN(KEY_RM, 2 << 9), rm3 = WHEN(KEY_RM, 3 << 9),
	rm4 = WHEN(KEY_RM, 4 << 9), rm5 = WHEN(KEY_RM, 5 << 9),
	rm6 = WHEN(KEY_RM, 6 << 9), rm7 = WHEN(KEY_RM, 7 << 9),
};

/* Attributes; said of each in decode.h. */
enum {
	LOCK = OPC_LOCK, CPL0 = OPC_CPL0, IOPL = OPC_IOPL, PROT = OPC_PROTECTED,
	ALIGNED = OPC_ALIGNED, ALIGN16 = OPC_ALIGN16, UNALIGNED = OPC_UNALIGNED,
	MAYBE = OPC_FLAGS_MAYBE, MAYBE_DST = OPC_MAYBE_WRITES, COUNT = OPC_COUNT,
	REP = OPC_REP, STACK = OPC_STACK, END = OPC_ENDS_BLOCK,
	D64 = OPC_D64, F64 = OPC_F64, MAX4 = OPC_MAX4, BYTE = OPC_BYTE, ANYMOD = OPC_ANYMOD,
	WRITES_DX = OPC_WRITES_DX, READS_DX = OPC_READS_DX,
	K = OPC_MASK, KZ = OPC_MASK | OPC_ZERO, NEED_MASK = OPC_NEED_MASK,
	B2 = OPC_B2, B4 = OPC_B4, B8 = OPC_B8, ER = OPC_ER, SAE = OPC_SAE,
	SCALAR = OPC_SCALAR, ELEMENT = OPC_ELEMENT, DISTINCT = OPC_DISTINCT,
};

#define NOT128	   OPC_NOT128
#define F(feature) CPU_BIT(CPU_##feature)

/* Operands. */
#define CODE(where, type) OPERAND_CODE(WHERE_##where, TYPE_##type)
enum {
	Eb = CODE(E, B), Ew = CODE(E, W), Ed = CODE(E, D), Eq = CODE(E, Q), Ev = CODE(E, V),
	Ey = CODE(E, Y), Ez = CODE(E, Z), Evw = CODE(E, VW), Edw = CODE(E, DW), Edb = CODE(E, DB),
	Evn = CODE(E, V), /* not accessed, but there is a register that a size belongs to */
	Gb = CODE(G, B), Gw = CODE(G, W), Gd = CODE(G, D), Gq = CODE(G, Q), Gv = CODE(G, V),
	Gy = CODE(G, Y), Gyd = CODE(G, YD), Gyy = CODE(G, YY), Ga = CODE(G, ADDR),
	Ry = CODE(R, Y), Ryy = CODE(R, YY), By = CODE(B, Y), Zb = CODE(Z, B), Zv = CODE(Z, V),
	AL = CODE(A, B), AX = CODE(A, W), rAX = CODE(A, V), CL = CODE(C, B), DX = CODE(D, W),
	Ib = CODE(I, B), Iw = CODE(I, W), Ibs = CODE(IS, B), Iz = CODE(IS, Z), Iv = CODE(I, V),
	I2b = CODE(I2, B), One = CODE(ONE, B), Jb = CODE(J, B), Jz = CODE(J, Z), Ap = CODE(AP, P),
	Ob = CODE(O, B), Ov = CODE(O, V),
	M = CODE(M, NONE), Mn = CODE(M, NONE), Mb = CODE(M, B), Mw = CODE(M, W), Md = CODE(M, D),
	Mq = CODE(M, Q), Mt = CODE(M, T), Mdq = CODE(M, DQ), Mqq = CODE(M, QQ), Moo = CODE(M, OO),
	Mv = CODE(M, V), My = CODE(M, Y), Mp = CODE(M, P), Ma = CODE(M, A), Ms = CODE(M, S),
	Menv = CODE(M, ENV), Mfsave = CODE(M, FSAVE), Mfx = CODE(M, FX), Mx = CODE(M, X),
	/* index vector of full or half length, elements of 4 or 8 bytes */
	VMxd = CODE(VM, D), VMxq = CODE(VM, Q), VMhq = CODE(VM, Q),
	Xb = CODE(X, B), Xv = CODE(X, V), Yb = CODE(Y, B), Yv = CODE(Y, V),
	MXlat = CODE(XLAT, B), MDIq = CODE(DI, Q), MDIx = CODE(DI, X), MMon = CODE(MON, NONE),
	Sw = CODE(S, W), Swr = CODE(SNOTCS, W),
	sES = WHERE_SFIX << 8 | SEG_ES, sCS = WHERE_SFIX << 8 | SEG_CS,
	sSS = WHERE_SFIX << 8 | SEG_SS, sDS = WHERE_SFIX << 8 | SEG_DS,
	sFS = WHERE_SFIX << 8 | SEG_FS, sGS = WHERE_SFIX << 8 | SEG_GS,
	Cy = CODE(CR, YY), Dy = CODE(DR, YY),
	ST0 = CODE(ST0, T), ST1 = CODE(ST1, T), STi = CODE(STI, T),
	Pq = CODE(P, Q), Qd = CODE(Q, D), Qq = CODE(Q, Q), Nq = CODE(N, Q),
	Vx = CODE(V, X), Hx = CODE(H, X), Ux = CODE(U, X), Lx = CODE(L, X), XMM0 = CODE(XMM0, DQ),
	Wb = CODE(W, B), Ww = CODE(W, W), Wd = CODE(W, D), Wq = CODE(W, Q), Wdq = CODE(W, DQ),
	Wqq = CODE(W, QQ), Wx = CODE(W, X), Wxh = CODE(W, XH), Wxq = CODE(W, XQ),
	Wxe = CODE(W, XE), Wdup = CODE(W, DUP),
	KG = CODE(KG, NONE), KH = CODE(KH, NONE), KE = CODE(KE, NONE),
	KEb = CODE(KE, B), KEw = CODE(KE, W), KEd = CODE(KE, D), KEq = CODE(KE, Q),
};
/* clang-format on */

/* -- What follows from a row's columns --------------------------------------------------------- */

#define WH(code)              ((code) >> 8)
#define IN(code, first, last) (WH(code) >= WHERE_##first && WH(code) <= WHERE_##last)
#define ANY(test, a, b, c, d) (test(a) || test(b) || test(c) || test(d))

#define IS_MODRM(code)                                                                             \
	(WH(code) == WHERE_E || WH(code) == WHERE_G || WH(code) == WHERE_R || IN(code, M, VM) ||   \
	 IN(code, S, SNOTCS) || IN(code, CR, DR) || WH(code) == WHERE_STI || IN(code, P, U) ||     \
	 IN(code, KG, KE))
#define IS_MMX(code)  IN(code, P, N)
#define IS_K(code)    IN(code, KG, KH)
#define IS_VVVV(code) (WH(code) == WHERE_B || WH(code) == WHERE_H || WH(code) == WHERE_KH)
/* 16 bytes of memory, which SSE wants aligned. */
#define IS_SSE16(code)                                                                             \
	((WH(code) == WHERE_W || WH(code) == WHERE_M) && OPERAND_TYPE(code) == TYPE_X)
/* The operand that says that the operation is on bytes. */
#define IS_BYTE(code)                                                                              \
	(OPERAND_TYPE(code) == TYPE_B && (IN(code, E, C) || IN(code, O, M) || IN(code, X, Y)))

#define ATTRS(map, attrs, a, b, c, d)                                                              \
	((attrs) | ((int)(map) >= MAP_VEX_0F ? OPC_PROTECTED : 0) | (IS_BYTE(a) ? OPC_BYTE : 0) |  \
	 ((int)(map) < MAP_VEX_0F && !((attrs)&OPC_UNALIGNED) && ANY(IS_SSE16, a, b, c, d)         \
		  ? OPC_ALIGNED                                                                    \
		  : 0))

#define CLASS(map, class, a, b, c, d)                                                              \
	((int)(class) != INSN_VEC                             ? (int)(class)                       \
	 : ANY(IS_MMX, a, b, c, d)                            ? INSN_MMX                           \
	 : (int)(map) < MAP_VEX_0F                            ? INSN_SSE                           \
	 : (int)(map) >= MAP_EVEX_0F || ANY(IS_K, a, b, c, d) ? INSN_AVX512                        \
							      : INSN_AVX)

/* Whether an access reads or writes the operand at a place; rAX, rCX, rDX are then implied. */
#define READS(access, at)                                                                          \
	((int)(access) == ACCESS_N || ((int)(access) == ACCESS_LEA) ? 0                            \
	 : (int)(access) == ACCESS_W                                ? (at) > 0                     \
	 : (int)(access) == ACCESS_WW                               ? (at) > 1                     \
								    : 1)
#define WRITES(access, at)                                                                         \
	((int)(access) == ACCESS_N || (int)(access) == ACCESS_R       ? 0                          \
	 : (int)(access) == ACCESS_WW || (int)(access) == ACCESS_RWRW ? (at) < 2                   \
								      : (at) < 1)
#define FIXED(code)                                                                                \
	(WH(code) == WHERE_A   ? 1 << REG_RAX                                                      \
	 : WH(code) == WHERE_C ? 1 << REG_RCX                                                      \
	 : WH(code) == WHERE_D ? 1 << REG_RDX                                                      \
			       : 0)
#define ALL_FIXED(how, access, a, b, c, d)                                                         \
	((how(access, 0) ? FIXED(a) : 0) | (how(access, 1) ? FIXED(b) : 0) |                       \
	 (how(access, 2) ? FIXED(c) : 0) | (how(access, 3) ? FIXED(d) : 0))
#define ADDRESSED(code)                                                                            \
	(WH(code) == WHERE_XLAT  ? 1 << REG_RBX | 1 << REG_RAX                                     \
	 : WH(code) == WHERE_DI  ? 1 << REG_RDI                                                    \
	 : WH(code) == WHERE_MON ? 1 << REG_RAX                                                    \
				 : 0)

/* -- The arrays -------------------------------------------------------------------------------- */

#define PASTE2(a, b) a##b
#define PASTE(a, b)  PASTE2(a, b)

/* Number the rows; the first of an opcode by a name. */
#define ROW(map, opcode, ...)       FIRST_##map##_##opcode,
#define RNG(map, opcode, last, ...) FIRST_##map##_##opcode,
#define ALT(...)                    PASTE(ALT_, __COUNTER__),
enum {
	ROW_INVALID,
#include "engine/soft/decode_table.inc"
	N_ROWS
};
#undef ROW
#undef RNG
#undef ALT

#define ROW(map, opcode, ...)       [M_##map][0x##opcode] = FIRST_##map##_##opcode,
#define RNG(map, opcode, last, ...) [M_##map][0x##opcode... 0x##last] = FIRST_##map##_##opcode,
#define ALT(...)
const uint16_t opcode_index[N_MAPS][256] = {
#include "engine/soft/decode_table.inc"
};
#undef ROW
#undef RNG
#undef ALT

#define ENTRY(map_, opcode_, last_, first_, when, op_, attrs_, features_, a, b, c, d, ...)         \
	{                                                                                          \
		.features = features_,                                                             \
		.attrs = ATTRS(map_, attrs_, a, b, c, d),                                          \
		.op = OP_##op_,                                                                    \
		.mask = (when) >> 16,                                                              \
		.value = (when)&0xffff,                                                            \
		.operands = {a, b, c, d},                                                          \
		.flags_read = FR_##op_,                                                            \
		.flags_written = FW_##op_ & ~((attrs_)&OPC_COUNT ? FLAG_OF : 0),                   \
		.flags_undefined = FU_##op_ | ((attrs_)&OPC_COUNT ? FLAG_OF : 0),                  \
		.implicit_read = GR_##op_ | ADDRESSED(a) |                                         \
				 ALL_FIXED(READS, ACCESS_OF_##op_, a, b, c, d) |                   \
				 ((attrs_)&OPC_READS_DX ? 1 << REG_RDX : 0),                       \
		.implicit_written = GW_##op_ | ALL_FIXED(WRITES, ACCESS_OF_##op_, a, b, c, d) |    \
				    ((attrs_)&OPC_WRITES_DX ? 1 << REG_RDX : 0),                   \
		.class = CLASS(map_, CLASS_##op_, a, b, c, d),                                     \
		.access = ACCESS_OF_##op_,                                                         \
		.map = map_,                                                                       \
		.opcode = opcode_,                                                                 \
		.last_opcode = last_,                                                              \
		.first = first_,                                                                   \
		.modrm = ANY(IS_MODRM, a, b, c, d) ||                                              \
			 ((when) >> 16 & (KEY_REG | KEY_DIGIT | KEY_RM)) != 0,                     \
		.vvvv = ANY(IS_VVVV, a, b, c, d),                                                  \
	},
#define ROW(map, opcode, when, op, attrs, ...)                                                     \
	ENTRY(M_##map, 0x##opcode, 0x##opcode, true, when, op, attrs, __VA_ARGS__, 0, 0, 0, 0, )
#define RNG(map, opcode, last, when, op, attrs, ...)                                               \
	ENTRY(M_##map, 0x##opcode, 0x##last, true, when, op, attrs, __VA_ARGS__, 0, 0, 0, 0, )
#define ALT(map, opcode, when, op, attrs, ...)                                                     \
	ENTRY(M_##map, 0x##opcode, 0x##opcode, false, when, op, attrs, __VA_ARGS__, 0, 0, 0, 0, )
const struct opcode opcode_table[] = {
	{.first = true}, /* none: the mask is empty, but nothing leads here */
#include "engine/soft/decode_table.inc"
	{.first = true}, /* the end of the last opcode's rows */
};
#undef ROW
#undef RNG
#undef ALT

const size_t opcode_table_size = N_ROWS;

#define OP(name, ...)  [OP_##name] = #name,
#define OPV(name, ...) [OP_##name] = #name,
static const char *const op_names[N_OPS] = {
	[OP_INVALID] = "INVALID",
#include "engine/soft/decode_ops.inc"
};
#undef OP
#undef OPV

const char *op_name(enum op op)
{
	return op < N_OPS ? op_names[op] : op_names[OP_INVALID];
}
