/* The Multiboot header and the first instructions of the loader, 32-bit; and the last ones. */

    .section .text.start, "ax"
    .balign 4
    .long 0x1BADB002, 0, -0x1BADB002

    .globl _start
_start:
    mov $stack_top, %esp
    push %ebx
    push %eax
    call load
    ud2

/* Jumps to the kernel with nothing that it could lean on: no stack, garbage in all registers, strings downwards. */
    .globl leave_to
leave_to:
    cli
    wbinvd
    mov 4(%esp), %eax
    mov %eax, kernel_entry
    mov $0xAAAAAAAA, %eax
    mov $0xBBBBBBBB, %ebx
    mov $0xCCCCCCCC, %ecx
    mov $0xDDDDDDDD, %edx
    mov $0x51515151, %esi
    mov $0xD1D1D1D1, %edi
    mov $0xB9B9B9B9, %ebp
    xor %esp, %esp
    std
    jmp *kernel_entry

    .bss
    .balign 16
kernel_entry:
    .skip 16
    .skip 16384
stack_top:

    .section .note.GNU-stack, "", @progbits
