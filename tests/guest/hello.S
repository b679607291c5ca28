/*
 * The smallest kernel: says how it was started on the first serial port, prints its command line,
 * and ends by debug-exit: with status 33 when started by Multiboot, 35 by PVH, 37 otherwise.
 * One 32-bit ELF file for
 * both; another one without the Multiboot header, as that goes first.
 */
	.set MAGIC, 0x1badb002

#ifdef MULTIBOOT
	.text
	.align 4
	.long MAGIC, 0, -MAGIC
#endif

	.section .note.Xen, "a", @note
	.align 4
	.long 4, 4, 18 /* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long pvh_start

	.text
	.code32
	.globl start
start:
	movl $stack, %esp
	cmpl $0x2badb002, %eax
	jne unknown
	movl $multiboot_text, %esi
	call print
	movl 16(%ebx), %esi
	call print
	movl $16, %eax
	jmp finish

pvh_start:
	movl $stack, %esp
	cmpl $0x336ec578, (%ebx)
	jne unknown
	movl $pvh_text, %esi
	call print
	movl 24(%ebx), %esi
	call print
	movl $17, %eax
	jmp finish

unknown:
	movl $18, %eax
finish:
	outl %eax, $0xf4
	cli
	hlt

print:
	lodsb
	testb %al, %al
	jz 1f
	movw $0x3f8, %dx
	outb %al, %dx
	jmp print
1:	ret

multiboot_text:	.asciz "multiboot: "
pvh_text:	.asciz "pvh: "

	.bss
	.align 16
	.skip 4096
stack:
	.section .note.GNU-stack, "", @progbits
