/* See decode_oracle.h. */
#include "decode_both.h"

#include <string.h>
#include <strings.h>

static const char *const field_names[N_FIELDS] = {
	"valid",           "length",    "name",         "operand size", "address size",
	"address",         "mem size",  "mem access",   "imm",          "offsets",
	"operands",        "regs read", "regs written", "flags read",   "flags written",
	"flags undefined", "evex",      "features",
};

/* -- Names ------------------------------------------------------------------------------------ */

static const char *const conditions[16] = {"o", "no", "b", "nb", "z", "nz", "be", "nbe",
					   "s", "ns", "p", "np", "l", "nl", "le", "nle"};

/* Our operations are wider than mnemonics: the name as Zydis writes it. */
static void zydis_name(const struct insn *insn, char *name, size_t n)
{
	static const struct {
		enum op op;
		const char *by_size[4]; /* operand size 1, 2, 4, 8 */
	} sized[] = {
		{OP_CBW, {"", "cbw", "cwde", "cdqe"}},
		{OP_CWD, {"", "cwd", "cdq", "cqo"}},
		{OP_MOVS, {"movsb", "movsw", "movsd", "movsq"}},
		{OP_CMPS, {"cmpsb", "cmpsw", "cmpsd", "cmpsq"}},
		{OP_STOS, {"stosb", "stosw", "stosd", "stosq"}},
		{OP_LODS, {"lodsb", "lodsw", "lodsd", "lodsq"}},
		{OP_SCAS, {"scasb", "scasw", "scasd", "scasq"}},
		{OP_INS, {"insb", "insw", "insd", ""}},
		{OP_OUTS, {"outsb", "outsw", "outsd", ""}},
		{OP_PUSHF, {"", "pushf", "pushfd", "pushfq"}},
		{OP_POPF, {"", "popf", "popfd", "popfq"}},
		{OP_PUSHA, {"", "pusha", "pushad", ""}},
		{OP_POPA, {"", "popa", "popad", ""}},
		{OP_IRET, {"", "iret", "iretd", "iretq"}},
	};
	static const struct {
		enum op op;
		const char *name, *wide; /* wide: with W in 64-bit mode */
	} aliases[] = {
		{OP_IMUL1, "imul", NULL},
		{OP_IMUL3, "imul", NULL},
		{OP_JMP_IND, "jmp", NULL},
		{OP_JMP_FAR, "jmp", NULL},
		{OP_CALL_IND, "call", NULL},
		{OP_CALL_FAR, "call", NULL},
		{OP_RET_FAR, "ret", NULL},
		{OP_MOV_CR, "mov", NULL},
		{OP_MOV_DR, "mov", NULL},
		{OP_XSAVE, "xsave", "xsave64"},
		{OP_XSAVEOPT, "xsaveopt", "xsaveopt64"},
		{OP_XSAVEC, "xsavec", "xsavec64"},
		{OP_XSAVES, "xsaves", "xsaves64"},
		{OP_XRSTOR, "xrstor", "xrstor64"},
		{OP_XRSTORS, "xrstors", "xrstors64"},
		{OP_FNENI, "feni8087_nop", NULL},
		{OP_FNDISI, "fdisi8087_nop", NULL},
		{OP_FNSETPM, "fsetpm287_nop", NULL},
		{OP_FXSAVE, "fxsave", "fxsave64"},
		{OP_FXRSTOR, "fxrstor", "fxrstor64"},
		{OP_MOVD, "movd", "movq"},
		{OP_VMOVD, "vmovd", "vmovq"},
		{OP_PEXTRD, "pextrd", "pextrq"},
		{OP_PINSRD, "pinsrd", "pinsrq"},
		{OP_VPEXTRD, "vpextrd", "vpextrq"},
		{OP_VPINSRD, "vpinsrd", "vpinsrq"},
	};

	for (size_t i = 0; i < sizeof(sized) / sizeof(*sized); i++) {
		if (sized[i].op == insn->op) {
			snprintf(name, n, "%s", sized[i].by_size[__builtin_ctz(insn->opsize)]);
			return;
		}
	}
	for (size_t i = 0; i < sizeof(aliases) / sizeof(*aliases); i++) {
		if (aliases[i].op == insn->op) {
			bool wide =
				aliases[i].wide && insn->mode == INSN_MODE_64 && insn->rex & REX_W;

			snprintf(name, n, "%s", wide ? aliases[i].wide : aliases[i].name);
			return;
		}
	}
	switch (insn->op) {
	case OP_JCC:
		snprintf(name, n, "j%s", conditions[insn_condition(insn)]);
		return;
	case OP_SETCC:
		snprintf(name, n, "set%s", conditions[insn_condition(insn)]);
		return;
	case OP_CMOVCC:
		snprintf(name, n, "cmov%s", conditions[insn_condition(insn)]);
		return;
	case OP_JRCXZ:
		snprintf(name, n, "%s",
			 insn->addrsize == 8   ? "jrcxz"
			 : insn->addrsize == 4 ? "jecxz"
					       : "jcxz");
		return;
	default:
		snprintf(name, n, "%s", op_name(insn->op));
		for (char *c = name; *c; c++)
			*c |= *c >= 'A' && *c <= 'Z' ? 0x20 : 0;
	}
}

/* -- Fields ----------------------------------------------------------------------------------- */

/* A general register as its number, also the parts of it; REG_NONE for others. */
static unsigned gpr(ZydisRegister reg)
{
	ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);

	if (whole < ZYDIS_REGISTER_RAX || whole > ZYDIS_REGISTER_R15)
		return REG_NONE;
	return whole - ZYDIS_REGISTER_RAX;
}

/* The operand that insn's memory fields describe. */
static const ZydisDecodedOperand *memory(const struct both *b)
{
	const ZydisDecodedOperand *found = NULL;

	for (unsigned i = 0; i < b->theirs.operand_count; i++) {
		const ZydisDecodedOperand *o = &b->operands[i];

		if (o->type != ZYDIS_OPERAND_TYPE_MEMORY)
			continue;
		/* The stack is not meant; of two strings the source is. */
		if (o->visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT &&
		    b->ours.desc->attrs & OPC_STACK)
			continue;
		if (found && gpr(o->mem.base) != REG_RSI)
			continue;
		found = o;
	}
	return found;
}

static bool same_address(const struct both *b, const ZydisDecodedOperand *o)
{
	const struct insn *insn = &b->ours;
	unsigned scale = o->mem.scale ? o->mem.scale : 1, index = REG_NONE;
	uint64_t address_mask = ~UINT64_C(0) >> (64 - 8 * insn->addrsize);
	bool rip = o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP;

	if (insn->vsib)
		index = ZydisRegisterGetId(o->mem.index);
	else if (insn->op != OP_XLAT)
		index = gpr(o->mem.index);
	return insn->seg == (unsigned)ZydisRegisterGetId(o->mem.segment) &&
	       insn->rip_relative == rip && (rip || insn->base == gpr(o->mem.base)) &&
	       insn->index == index && 1u << insn->scale == scale &&
	       !((insn->disp ^ o->mem.disp.value) & address_mask);
}

static bool same_memory(const struct both *b, enum oracle_field field)
{
	const struct insn *insn = &b->ours;
	const ZydisDecodedOperand *o = memory(b);
	bool read, written;

	if (!o || !insn->has_mem)
		return !o == !insn->has_mem || field != FIELD_ADDRESS;
	switch (field) {
	case FIELD_ADDRESS:
		return same_address(b, o);
	case FIELD_MEM_SIZE:
		return insn->mem_size == o->size / 8;
	default:
		read = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
		written = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
		if (o->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
			read = written = false;
		return insn->mem_read == read && insn->mem_written == written;
	}
}

static bool same_immediate(const struct both *b)
{
	unsigned n = 0;

	for (unsigned i = 0; i < b->theirs.operand_count_visible; i++) {
		const ZydisDecodedOperand *o = &b->operands[i];

		if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
			uint64_t value = n++ ? b->ours.imm2 : b->ours.imm;
			/* Above the operand size the operation cuts it off. */
			unsigned bits = o->imm.is_signed ? 8 * b->ours.opsize : o->size;
			uint64_t mask = ~UINT64_C(0) >> (64 - (bits ? bits : 64));

			if ((value & mask) != (o->imm.value.u & mask))
				return false;
		}
		if (o->type == ZYDIS_OPERAND_TYPE_POINTER &&
		    (b->ours.imm != o->ptr.offset || b->ours.imm2 != o->ptr.segment))
			return false;
	}
	return true;
}

static bool same_offsets(const struct both *b)
{
	const ZydisDecodedInstructionRaw *raw = &b->theirs.raw;
	const struct insn *insn = &b->ours;
	unsigned imm_size = (raw->imm[0].size + raw->imm[1].size) / 8;

	if (b->theirs.attributes & ZYDIS_ATTRIB_HAS_MODRM &&
	    (!insn->has_modrm || insn->modrm_at != raw->modrm.offset))
		return false;
	if (insn->has_modrm && !(b->theirs.attributes & ZYDIS_ATTRIB_HAS_MODRM))
		return false;
	if (insn->disp_size != raw->disp.size / 8 ||
	    (insn->disp_size && insn->disp_at != raw->disp.offset))
		return false;
	return insn->imm_size == imm_size && (!imm_size || insn->imm_at == raw->imm[0].offset);
}

static bool same_operand(const struct insn_operand *ours, const ZydisDecodedOperand *o,
			 const struct insn *insn)
{
	if (o->type == ZYDIS_OPERAND_TYPE_MEMORY)
		return ours->kind == OPERAND_MEM || ours->kind == OPERAND_STR_SRC ||
		       ours->kind == OPERAND_STR_DST;
	if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		return ours->kind == OPERAND_IMM || ours->kind == OPERAND_IMM2;
	if (o->type == ZYDIS_OPERAND_TYPE_POINTER)
		return ours->kind == OPERAND_FAR;

	unsigned id = ZydisRegisterGetId(o->reg.value);
	unsigned bytes = o->size / 8;
	enum operand_kind kind = OPERAND_NONE;

	switch (ZydisRegisterGetClass(o->reg.value)) {
	case ZYDIS_REGCLASS_GPR8:
		id = gpr(o->reg.value);
		kind = o->reg.value >= ZYDIS_REGISTER_AH && o->reg.value <= ZYDIS_REGISTER_BH
			       ? OPERAND_GPR_HIGH
			       : OPERAND_GPR;
		break;
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		bytes = ZydisRegisterGetWidth(ZYDIS_MACHINE_MODE_LONG_64, o->reg.value) / 8;
		kind = OPERAND_GPR;
		break;
	case ZYDIS_REGCLASS_SEGMENT:
		kind = OPERAND_SEG;
		break;
	case ZYDIS_REGCLASS_CONTROL:
		kind = OPERAND_CR;
		break;
	case ZYDIS_REGCLASS_DEBUG:
		kind = OPERAND_DR;
		break;
	case ZYDIS_REGCLASS_X87:
		kind = OPERAND_ST;
		bytes = 16;
		break;
	case ZYDIS_REGCLASS_MMX:
		kind = OPERAND_MMX;
		bytes = 8;
		break;
	case ZYDIS_REGCLASS_XMM:
	case ZYDIS_REGCLASS_YMM:
	case ZYDIS_REGCLASS_ZMM:
		kind = OPERAND_VEC;
		bytes = insn_vector_bytes(insn);
		break;
	case ZYDIS_REGCLASS_MASK:
		kind = OPERAND_K;
		bytes = 8;
		break;
	default:
		return false;
	}
	return ours->kind == kind && ours->reg == id && 1u << ours->log2_size == bytes;
}

static bool same_operands(const struct both *b)
{
	unsigned n = 0;

	for (unsigned i = 0; i < b->theirs.operand_count_visible; i++) {
		const ZydisDecodedOperand *o = &b->operands[i];

		/* The write mask is in evex_aaa. */
		if (o->encoding == ZYDIS_OPERAND_ENCODING_MASK)
			continue;
		/* x87: Zydis does not show an ST(0) that is implied. */
		while (n < 4 && insn_class(&b->ours) == INSN_X87 &&
		       b->ours.operands[n].kind == OPERAND_ST && b->ours.operands[n].reg < 2 &&
		       !same_operand(&b->ours.operands[n], o, &b->ours))
			n++;
		if (n == 4 || !same_operand(&b->ours.operands[n++], o, &b->ours))
			return false;
	}
	return true;
}

static void registers(const struct both *b, uint16_t *read, uint16_t *written)
{
	*read = *written = 0;
	for (unsigned i = 0; i < b->theirs.operand_count; i++) {
		const ZydisDecodedOperand *o = &b->operands[i];

		if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
			if (gpr(o->mem.base) != REG_NONE)
				*read |= 1 << gpr(o->mem.base);
			if (gpr(o->mem.index) != REG_NONE)
				*read |= 1 << gpr(o->mem.index);
		} else if (o->type == ZYDIS_OPERAND_TYPE_REGISTER &&
			   gpr(o->reg.value) != REG_NONE) {
			if (o->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
				*read |= 1 << gpr(o->reg.value);
			if (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
				*written |= 1 << gpr(o->reg.value);
		}
	}
}

static bool same_evex(const struct both *b)
{
	const ZydisDecodedInstructionAvx *avx = &b->theirs.avx;
	const struct insn *insn = &b->ours;

	if (insn->encoding != ENC_EVEX)
		return b->theirs.encoding != ZYDIS_INSTRUCTION_ENCODING_EVEX;
	if (insn->evex_aaa != ZydisRegisterGetId(avx->mask.reg))
		return false;
	if (insn->evex_z != b->theirs.raw.evex.z || insn->evex_b != b->theirs.raw.evex.b)
		return false;
	return insn_vector_bytes(insn) == avx->vector_length / 8 || insn->desc->attrs & OPC_SCALAR;
}

/* Zydis's sets are named for their feature and vector length: AVX512BW_128. */
static bool same_features(const struct both *b)
{
	static const struct {
		const char *name;
		uint64_t features;
	} sets[] = {
#define SET(name) {#name, CPU_BIT(CPU_##name)}
#define SUB(name)                                                                                  \
	{                                                                                          \
		"AVX512_" #name, CPU_BIT(CPU_AVX512##name)                                         \
	}
		SET(AVX512BW),
		SET(AVX512CD),
		SET(AVX512DQ),
		SET(AVX512F),
		SUB(BF16),
		SUB(BITALG),
		SUB(FP16),
		SUB(IFMA),
		SUB(VBMI),
		SUB(VBMI2),
		SUB(VNNI),
		SUB(VPOPCNTDQ),
		{"AVX512_GFNI", CPU_BIT(CPU_GFNI) | CPU_BIT(CPU_AVX512F)},
		{"AVX512_VAES", CPU_BIT(CPU_VAES) | CPU_BIT(CPU_AVX512F)},
		{"AVX512_VPCLMULQDQ", CPU_BIT(CPU_VPCLMULQDQ) | CPU_BIT(CPU_AVX512F)},
#undef SET
#undef SUB
	};
	const char *name = ZydisISASetGetString(b->theirs.meta.isa_set);
	const char *length = strrchr(name, '_');
	uint64_t expected = 0;

	if (strncmp(name, "AVX512", 6))
		return insn_class(&b->ours) != INSN_AVX512;
	for (size_t i = 0; i < sizeof(sets) / sizeof(*sets); i++) {
		if (!strncmp(name, sets[i].name, length - name) && !sets[i].name[length - name])
			expected = sets[i].features;
	}
	if (!strcmp(length, "_128") || !strcmp(length, "_256"))
		expected |= CPU_BIT(CPU_AVX512VL);
	return insn_features(&b->ours) == expected;
}

static bool same(const struct both *b, enum oracle_field field)
{
	const struct insn *insn = &b->ours;
	const ZydisAccessedFlags *flags = b->theirs.cpu_flags;
	uint32_t mask = FLAGS_ARITH | FLAG_DF;
	uint16_t read, written;
	char name[32];

	switch (field) {
	case FIELD_VALID:
		return (b->result == DECODE_OK) == b->valid;
	case FIELD_LENGTH:
		return insn->length == b->theirs.length;
	case FIELD_NAME:
		zydis_name(insn, name, sizeof(name));
		return !strcasecmp(name, ZydisMnemonicGetString(b->theirs.mnemonic));
	case FIELD_OPSIZE:
		switch (insn_class(insn)) {
		case INSN_X87: /* has no meaning for them */
		case INSN_MMX:
		case INSN_SSE:
		case INSN_AVX:
		case INSN_AVX512:
			return true;
		default:
			return insn->opsize == b->theirs.operand_width / 8;
		}
	case FIELD_ADDRSIZE:
		return insn->addrsize == b->theirs.address_width / 8;
	case FIELD_ADDRESS:
	case FIELD_MEM_SIZE:
	case FIELD_MEM_ACCESS:
		return same_memory(b, field);
	case FIELD_IMMEDIATE:
		return same_immediate(b);
	case FIELD_OFFSETS:
		return same_offsets(b);
	case FIELD_OPERANDS:
		return same_operands(b);
	case FIELD_REGS_READ:
		registers(b, &read, &written);
		return read == insn->regs_read;
	case FIELD_REGS_WRITTEN:
		registers(b, &read, &written);
		return written == insn->regs_written;
	case FIELD_FLAGS_READ:
		return !((insn_flags_read(insn) ^ (flags ? flags->tested : 0)) & mask);
	case FIELD_FLAGS_WRITTEN:
		return !((insn->desc->flags_written ^
			  (flags ? flags->modified | flags->set_0 | flags->set_1 : 0)) &
			 mask);
	case FIELD_FLAGS_UNDEFINED:
		return !((insn->desc->flags_undefined ^ (flags ? flags->undefined : 0)) & mask);
	case FIELD_EVEX:
		return same_evex(b);
	default:
		return same_features(b);
	}
}

/* -- Comparing -------------------------------------------------------------------------------- */

static bool theirs(struct both *b)
{
	static const struct {
		ZydisMachineMode mode;
		ZydisStackWidth stack;
	} modes[] = {
		[INSN_MODE_16] = {ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16},
		[INSN_MODE_32] = {ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
		[INSN_MODE_64] = {ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64},
	};
	static ZydisDecoder decoders[3];
	static bool ready;

	for (int i = 0; !ready && i < 3; i++) {
		ZydisDecoderInit(&decoders[i], modes[i].mode, modes[i].stack);
		/* No guest is offered these. */
		ZydisDecoderEnableMode(&decoders[i], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
	}
	ready = true;
	return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoders[b->mode], b->bytes, INSN_MAX_BYTES,
						   &b->theirs, b->operands));
}

/* One report for each field and operation. */
static bool reported(enum oracle_field field, unsigned which)
{
	static uint8_t seen[N_FIELDS][8192];
	bool before = seen[field][which % 8192];

	seen[field][which % 8192] = 1;
	return before;
}

static void describe(const struct both *b, enum oracle_field field, FILE *report)
{
	static const char *const modes[] = {"16", "32", "64"};
	const struct insn *insn = &b->ours;
	uint16_t read, written;
	char text[128] = "-";

	fprintf(report, "%-15s %s:", field_names[field], modes[b->mode]);
	for (unsigned i = 0; i < INSN_MAX_BYTES; i++)
		fprintf(report, "%s%02x", i == b->ours.length ? "|" : " ", b->bytes[i]);
	if (b->valid) {
		ZydisFormatter formatter;

		ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
		ZydisFormatterFormatInstruction(&formatter, &b->theirs, b->operands,
						b->theirs.operand_count_visible, text, sizeof(text),
						ZYDIS_RUNTIME_ADDRESS_NONE, NULL);
	}
	registers(b, &read, &written);
	fprintf(report, "  theirs %s", text);
	if (b->result != DECODE_OK) {
		fprintf(report, ", ours %s\n", b->result == DECODE_INVALID ? "#UD" : "other");
		return;
	}
	fprintf(report, ", ours %s", op_name(insn->op));
	if (b->valid) {
		const ZydisDecodedOperand *o = memory(b);
		const ZydisAccessedFlags *f = b->theirs.cpu_flags;

		fprintf(report,
			" len %u/%u opsize %u/%u regs r %x/%x w %x/%x flags r %x/%x w %x/%x u "
			"%x/%x",
			insn->length, b->theirs.length, insn->opsize, b->theirs.operand_width / 8,
			insn->regs_read, read, insn->regs_written, written, insn_flags_read(insn),
			f ? f->tested : 0, insn->desc->flags_written,
			f ? f->modified | f->set_0 | f->set_1 : 0, insn->desc->flags_undefined,
			f ? f->undefined : 0);
		if (o)
			fprintf(report, " mem %u/%u %d%d/%x seg %u/%d disp %lx/%lx", insn->mem_size,
				o->size / 8, insn->mem_read, insn->mem_written, o->actions,
				insn->seg, ZydisRegisterGetId(o->mem.segment), insn->disp,
				o->mem.disp.value);
		fprintf(report, " imm %lx/%lx", insn->imm, b->theirs.raw.imm[0].value.u);
	}
	fputc('\n', report);
}

/* Which rows of the table were needed. */
static uint8_t met_rows[4096];

void oracle_compare(const uint8_t *bytes, enum insn_mode mode, struct oracle_count *count,
		    FILE *report)
{
	struct both b = {.bytes = bytes, .mode = mode};

	b.result = decode_insn(&b.ours, bytes, INSN_MAX_BYTES, mode);
	b.valid = theirs(&b);
	count->cases++;
	count->valid += b.valid && b.result == DECODE_OK;
	if (b.result == DECODE_OK)
		met_rows[b.ours.desc - opcode_table] = 1;
	for (enum oracle_field field = 0; field < N_FIELDS; field++) {
		if (!same(&b, field)) {
			unsigned which = b.valid ? (unsigned)b.theirs.mnemonic : 4096u + b.ours.op;

			if (difference_deliberate(&b, field)) {
				count->deliberate++;
			} else {
				count->wrong[field]++;
				if (report && !reported(field, which))
					describe(&b, field, report);
			}
		}
		/* The rest can't be compared. */
		if (field == FIELD_VALID && (!b.valid || b.result != DECODE_OK))
			return;
	}
}

unsigned long oracle_wrong(const struct oracle_count *count)
{
	unsigned long sum = 0;

	for (int i = 0; i < N_FIELDS; i++)
		sum += count->wrong[i];
	return sum;
}

unsigned oracle_unmet_rows(FILE *report)
{
	unsigned n = 0;

	for (size_t i = 1; i < opcode_table_size; i++) {
		const struct opcode *row = &opcode_table[i];

		if (met_rows[i])
			continue;
		n++;
		if (report)
			fprintf(report, "never met: map %u %02x %s, mask %x value %x\n", row->map,
				row->opcode, op_name(row->op), row->mask, row->value);
	}
	return n;
}
