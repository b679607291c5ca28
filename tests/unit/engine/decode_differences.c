/* Where our decoder and Zydis 4.0 are to differ, and why. */
#include "decode_both.h"
#include "engine/soft/decode_operands.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* -- Instructions that Zydis knows and we refuse ---------------------------------------------- */

#define ISA(set) ZYDIS_ISA_SET_##set

static const struct refused {
	ZydisISASet first, last;
	const char *why;
} refused[] = {
	{ISA(AMD3DNOW), ISA(AMD3DNOW), "3DNow!: no 64-bit processor of the last decade has it"},
	{ISA(SSE4A), ISA(SSE4A), "AMD's alone, and not offered"},
	{ISA(XOP), ISA(XOP), "AMD's, and gone"},
	{ISA(FMA4), ISA(FMA4), "AMD's, and gone"},
	{ISA(TBM), ISA(TBM), "AMD's, and gone"},
	{ISA(LWP), ISA(LWP), "AMD's, and gone"},
	{ISA(AMD_INVLPGB), ISA(AMD_INVLPGB), "not offered"},
	{ISA(SNP), ISA(SNP), "encrypted guests"},
	{ISA(CLZERO), ISA(CLZERO), "AMD's alone, and not offered"},
	{ISA(MONITORX), ISA(MONITORX), "AMD's alone, and not offered"},
	{ISA(MCOMMIT), ISA(MCOMMIT), "AMD's alone, and not offered"},
	{ISA(RDPRU), ISA(RDPRU), "AMD's alone, and not offered"},
	{ISA(PADLOCK_ACE), ISA(PADLOCK_RNG), "VIA's"},
	{ISA(KNCE), ISA(KNC_PF_HINT), "Xeon Phi's first, not even AVX-512"},
	{ISA(AVX512ER_512), ISA(AVX512ER_SCALAR), "Xeon Phi's"},
	{ISA(AVX512PF_512), ISA(AVX512PF_512), "Xeon Phi's"},
	{ISA(AVX512_4FMAPS_512), ISA(AVX512_4VNNIW_512), "Xeon Phi's"},
	{ISA(AVX512_VP2INTERSECT_128), ISA(AVX512_VP2INTERSECT_512), "not offered"},
	{ISA(AMX_BF16), ISA(AMX_TILE), "not offered: 8 KiB of state"},
	{ISA(CET), ISA(CET), "shadow stacks are not offered"},
	{ISA(KEYLOCKER), ISA(KEYLOCKER_WIDE), "not offered"},
	{ISA(UINTR), ISA(UINTR), "not offered"},
	{ISA(ENQCMD), ISA(ENQCMD), "not offered"},
	{ISA(WAITPKG), ISA(WAITPKG), "not offered"},
	{ISA(HRESET), ISA(HRESET), "not offered"},
	{ISA(PT), ISA(PT), "PTWRITE: not offered"},
	{ISA(TSX_LDTRK), ISA(TSX_LDTRK), "transactions are not offered"},
	{ISA(TDX), ISA(TDX), "not offered"},
};

/* -- Fields that may differ ------------------------------------------------------------------- */

static bool is_cet(const struct both *b)
{
	return b->theirs.meta.isa_set == ZYDIS_ISA_SET_CET;
}

static bool repeats(const struct both *b)
{
	return insn_repeats(&b->ours);
}

static bool may_stay(const struct both *b)
{
	return b->ours.desc->attrs & OPC_MAYBE_WRITES;
}

static bool by_one(const struct both *b)
{
	return b->ours.opcode == 0xd0 || b->ours.opcode == 0xd1;
}

static bool outside_64(const struct both *b)
{
	return b->mode != INSN_MODE_64 && b->ours.encoding == ENC_EVEX && b->ours.rex & REX_W;
}

/* An operand of 8 bytes with W, else of 4. */
static bool two_sizes(const struct both *b)
{
	for (int i = 0; i < 4; i++) {
		unsigned type = OPERAND_TYPE(b->ours.desc->operands[i]);

		if (type == TYPE_Y || type == TYPE_YY)
			return true;
	}
	return false;
}

static bool sib_without_base(const struct both *b)
{
	return insn_mod(&b->ours) == 0 && b->ours.has_sib && b->ours.base == REG_NONE &&
	       b->ours.rex & REX_B;
}

static bool notrack(const struct both *b)
{
	return insn_seg_prefix(&b->ours) == SEG_DS;
}

static bool word(const struct both *b)
{
	return b->ours.opsize == 2;
}

#define F(field) (1u << FIELD_##field)
enum { ANY_CLASS = -1 };

static const struct difference {
	uint32_t fields;
	int class;
	enum op ops[12]; /* none: all */
	bool (*when)(const struct both *b);
	const char *why;
} differences[] = {
	{~F(LENGTH), INSN_UD, {}, NULL, "#UD whatever the operands: they aren't described"},

	/* Instructions that access nothing. */
	{F(NAME) | F(REGS_WRITTEN) | F(OPERANDS),
	 INSN_NOP,
	 {},
	 is_cet,
	 "RDSSP is a NOP without shadow stacks"},
	{F(MEM_SIZE) | F(MEM_ACCESS) | F(OPERANDS) | F(REGS_READ) | F(OPSIZE),
	 INSN_NOP,
	 {},
	 NULL,
	 "hints access nothing; Zydis gives them sizes, and a second operand; "
	 "CLFLUSH and its kin are checked as a read of one byte"},
	{F(ADDRESS) | F(MEM_SIZE), ANY_CLASS, {OP_LEA}, NULL, "no segment, no access"},
	{F(MEM_SIZE) | F(MEM_ACCESS) | F(OPSIZE), ANY_CLASS, {OP_INVLPG}, NULL, "no access"},

	/* Registers. */
	{F(REGS_WRITTEN), INSN_STRING, {}, NULL, "rSI and rDI move, rCX counts: Zydis is silent"},
	{F(REGS_WRITTEN), ANY_CLASS, {OP_INS, OP_OUTS}, NULL, "the same"},
	{F(REGS_READ) | F(REGS_WRITTEN),
	 ANY_CLASS,
	 {OP_INT, OP_INT1, OP_INT3, OP_INTO},
	 NULL,
	 "the frame may be pushed on the guest's own stack"},
	{F(REGS_READ), ANY_CLASS, {}, may_stay, "the destination may keep its value: it is read"},
	{F(REGS_READ), ANY_CLASS, {OP_XLAT}, NULL, "AL is the index"},

	/* Flags. */
	{F(FLAGS_READ),
	 ANY_CLASS,
	 {OP_CMPS, OP_SCAS},
	 repeats,
	 "REPE tests the ZF of its own making"},
	{F(FLAGS_READ) | F(FLAGS_WRITTEN),
	 ANY_CLASS,
	 {OP_SYSCALL, OP_SYSRET, OP_IRET, OP_RSM},
	 NULL,
	 "all flags move, from or to R11, the stack, SMRAM"},
	{F(FLAGS_WRITTEN) | F(FLAGS_UNDEFINED),
	 ANY_CLASS,
	 {OP_SBB},
	 NULL,
	 "Zydis has AF undefined; the manual has it set"},
	{F(FLAGS_WRITTEN) | F(FLAGS_UNDEFINED),
	 ANY_CLASS,
	 {OP_ROL, OP_ROR, OP_RCL, OP_RCR, OP_SHL, OP_SHR, OP_SAR},
	 by_one,
	 "OF is undefined for other counts than 1 only"},
	{F(FLAGS_WRITTEN) | F(FLAGS_UNDEFINED),
	 ANY_CLASS,
	 {OP_BEXTR},
	 NULL,
	 "the manual defines ZF, CF and OF"},
	{F(FLAGS_WRITTEN),
	 ANY_CLASS,
	 {OP_VPTEST, OP_VTESTPS, OP_VTESTPD},
	 NULL,
	 "Zydis leaves out the flags that are cleared"},

	/* Memory. */
	{F(MEM_SIZE),
	 ANY_CLASS,
	 {OP_XSAVE, OP_XSAVEOPT, OP_XSAVEC, OP_XSAVES, OP_XRSTOR, OP_XRSTORS},
	 NULL,
	 "the size depends on XCR0"},
	{F(ADDRESS) | F(MEM_ACCESS),
	 ANY_CLASS,
	 {OP_MOVDIR64B},
	 NULL,
	 "our memory operand is the source; the destination is ES:operand 0"},
	{F(ADDRESS) | F(OPERANDS), ANY_CLASS, {OP_MONITOR}, NULL, "Zydis has no operand"},
	{F(MEM_SIZE), ANY_CLASS, {OP_MOVSXD}, word, "found on a processor: 2 bytes are read"},
	{F(OPERANDS),
	 ANY_CLASS,
	 {OP_MASKMOVQ, OP_MASKMOVDQU, OP_VMASKMOVDQU},
	 NULL,
	 "our first operand is the memory at rDI, Zydis hides it"},

	{F(ADDRESS),
	 ANY_CLASS,
	 {OP_JMP_IND, OP_CALL_IND},
	 notrack,
	 "3E is NOTRACK to Zydis; without CET it is DS"},
	{F(NAME), ANY_CLASS, {OP_WBNOINVD}, NULL, "WBINVD to Zydis, although told otherwise"},

	{F(ADDRESS) | F(REGS_READ),
	 ANY_CLASS,
	 {},
	 sib_without_base,
	 "found on a processor: REX.B does not make R13 of a base that isn't there"},

	/* Sizes that mean nothing. */
	{F(OPERANDS),
	 ANY_CLASS,
	 {OP_MOVMSKPS, OP_MOVMSKPD, OP_PMOVMSKB, OP_PEXTRW},
	 NULL,
	 "REX.W has no effect, and is not treated alike"},
	{F(OPSIZE), ANY_CLASS, {}, two_sizes, "it is that of the operands, 66 has no effect"},
	{F(OPERANDS), ANY_CLASS, {OP_LAR, OP_LSL}, NULL, "of the selector, of which 16 bits count"},
	{F(OPSIZE),
	 ANY_CLASS,
	 {OP_INS, OP_OUTS, OP_IN, OP_OUT},
	 NULL,
	 "REX.W does not make 8 bytes"},
	{F(OPSIZE),
	 ANY_CLASS,
	 {OP_CMPXCHG8B, OP_RDPID, OP_SYSCALL, OP_MONITOR, OP_LGDT, OP_LIDT, OP_SGDT, OP_SIDT},
	 NULL,
	 "the operation's size is fixed"},

	/* What processors take though Zydis doesn't. */
	{F(VALID),
	 ANY_CLASS,
	 {},
	 outside_64,
	 "found on a processor: W of conversions to and from general registers is ignored"},
};

static uint8_t used[ARRAY_SIZE(differences)], refusal_used[ARRAY_SIZE(refused)];

static bool has_op(const struct difference *d, enum op op)
{
	for (size_t i = 0; i < ARRAY_SIZE(d->ops) && d->ops[i]; i++) {
		if (d->ops[i] == op)
			return true;
	}
	return !d->ops[0];
}

bool difference_deliberate(const struct both *b, enum oracle_field field)
{
	if (field == FIELD_VALID && b->result == DECODE_INVALID) {
		ZydisISASet set = b->theirs.meta.isa_set;

		for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
			if (set >= refused[i].first && set <= refused[i].last) {
				refusal_used[i] = 1;
				return true;
			}
		}
	}
	if (b->result != DECODE_OK)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(differences); i++) {
		const struct difference *d = &differences[i];

		if (d->fields >> field & 1 &&
		    (d->class == ANY_CLASS || d->class == (int)insn_class(&b->ours)) &&
		    has_op(d, b->ours.op) && (!d->when || d->when(b))) {
			used[i] = 1;
			return true;
		}
	}
	return false;
}

unsigned oracle_stale(FILE *report)
{
	unsigned n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(differences); i++) {
		if (!used[i])
			fprintf(report, "never met: %s\n", differences[i].why);
		n += !used[i];
	}
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		if (!refusal_used[i])
			fprintf(report, "never met: %s (%s)\n",
				ZydisISASetGetString(refused[i].first), refused[i].why);
		n += !refusal_used[i];
	}
	return n;
}
