/* The Multiboot header and the first instructions of the liar, 32-bit; and the last ones, which start the loader that it lies to. */

    .section .text.start, "ax"
    .balign 4
    .long 0x1BADB002, 0, -0x1BADB002

    .globl _start
_start:
    mov $stack_top, %esp
    push %ebx
    call lie
    mov %eax, %ecx
    mov $0x2BADB002, %eax
    jmp *%ecx

    .bss
    .balign 16
    .skip 16384
stack_top:

    .section .note.GNU-stack, "", @progbits
