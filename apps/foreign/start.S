/* The first instructions of a program: a stack, constructors, main. rsp is undefined before. */

    .section .text.start, "ax"
    .globl _start
_start:
    lea start_stack_top(%rip), %rsp
    xor %ebp, %ebp
    call start_program
    ud2

    .bss
    .balign 16
    .skip 16384
start_stack_top:

    .section .note.GNU-stack, "", @progbits
