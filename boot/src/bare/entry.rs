//! The way into 64-bit mode, and from there back to the kernel's entry.
//!
//! A Multiboot loader enters `kickstart_entry` in 32-bit protected mode with flat segments and paging off; so does one that
//! starts virtual machines without firmware (PVH), which finds `pvh_entry` by a note and defines nothing for eax. The first
//! 4 GiB get mapped one to one with 2 MiB pages, and [`start`](super::start) runs in 64-bit mode. What it returns is
//! jumped to in the first mode again: interrupts off, flat 32-bit segments, paging off, caches written back.

use core::arch::global_asm;

const MULTIBOOT1_MAGIC: u32 = 0x1BAD_B002;
/// Modules at page boundaries, sizes of memory, and the address fields are valid.
const MULTIBOOT1_FLAGS: u32 = 1 << 0 | 1 << 1 | 1 << 16;

const MULTIBOOT2_MAGIC: u32 = 0xE852_50D6;
const MULTIBOOT2_HEADER_BYTES: u32 = 64;

/// Room for the console, which knows what stands on the screen.
const STACK_BYTES: usize = 192 << 10;

global_asm!(
    // The headers come first in the file; both are found by their magic at multiples of 8.
    ".pushsection .multiboot, \"a\"",
    ".balign 8",
    "multiboot1_header:",
    ".long {m1_magic}, {m1_flags}, {m1_checksum}",
    ".long multiboot1_header, image_start, image_load_end, image_end, kickstart_entry",
    ".balign 8",
    "multiboot2_header:",
    ".long {m2_magic}, 0, {m2_bytes}, {m2_checksum}",
    // Tag 1, not optional: modules and memory map must be in the information.
    ".short 1, 0",
    ".long 16, 3, 6",
    // Tag 5, optional: a screen of pixels is welcome, of whatever size. There is no other where there is UEFI.
    ".short 5, 1",
    ".long 20, 0, 0, 0, 0",
    // The end tag. GRUB takes entry point and places from the ELF headers.
    ".short 0, 0",
    ".long 8",
    ".popsection",
    m1_magic = const MULTIBOOT1_MAGIC,
    m1_flags = const MULTIBOOT1_FLAGS,
    m1_checksum = const (MULTIBOOT1_MAGIC + MULTIBOOT1_FLAGS).wrapping_neg(),
    m2_magic = const MULTIBOOT2_MAGIC,
    m2_bytes = const MULTIBOOT2_HEADER_BYTES,
    m2_checksum = const (MULTIBOOT2_MAGIC + MULTIBOOT2_HEADER_BYTES).wrapping_neg(),
);

global_asm!(
    // The note (Xen, x86/HVM direct boot ABI): sizes of name and value, type XEN_ELFNOTE_PHYS32_ENTRY, name, value.
    ".pushsection .note.pvh, \"a\", @note",
    ".balign 4",
    ".long 4, 8, 18",
    ".asciz \"Xen\"",
    ".quad pvh_entry",
    ".popsection",
);

global_asm!(
    // in:   ebx start information; 32-bit, flat, no paging
    ".pushsection .text.pvh_entry, \"ax\"",
    ".code32",
    "pvh_entry:",
    "mov eax, {magic}",
    "jmp kickstart_entry",
    ".code64",
    ".popsection",
    magic = const kformats::multiboot::pvh::MAGIC,
);

global_asm!(
    // in:   eax magic, ebx boot information; 32-bit, flat, no paging
    // keep: ebp magic, esi boot information
    ".pushsection .text.kickstart_entry, \"ax\"",
    ".code32",
    ".globl kickstart_entry",
    "kickstart_entry:",
    "cli",
    "cld",
    "mov ebp, eax",
    "mov esi, ebx",
    // No loader is trusted to clear what is not in the file.
    "xor eax, eax",
    "mov edi, offset image_load_end",
    "mov ecx, offset image_end",
    "sub ecx, edi",
    "rep stosb",
    "mov esp, offset stack_end",
    // 64-bit mode exists: CPUID 8000_0001h, edx bit 29.
    "mov eax, 0x80000000",
    "cpuid",
    "cmp eax, 0x80000001",
    "jb .Lno_long_mode",
    "mov eax, 0x80000001",
    "cpuid",
    "bt edx, 29",
    "jnc .Lno_long_mode",
    // Top table, one table of four directories, four directories of 512 large pages (present, writable, large).
    "mov eax, offset page_directories + 3",
    "mov edi, offset page_pointers",
    "mov ecx, 4",
    "1:",
    "mov [edi], eax",
    "add eax, 4096",
    "add edi, 8",
    "loop 1b",
    "mov eax, 0x83",
    "mov edi, offset page_directories",
    "mov ecx, 2048",
    "2:",
    "mov [edi], eax",
    "add eax, 0x200000",
    "add edi, 8",
    "loop 2b",
    "mov dword ptr [page_top], offset page_pointers + 3",
    // CR4.PAE, EFER.LME, CR0.PG: 64-bit mode from the far jump on.
    // Firmware may have left five levels of tables chosen, which paging would then have.
    "mov eax, cr4",
    "and eax, {not_five_levels}",
    "or eax, 0x20",
    "mov cr4, eax",
    "mov eax, offset page_top",
    "mov cr3, eax",
    "mov ecx, 0xC0000080",
    "rdmsr",
    "or eax, 0x100",
    "wrmsr",
    "mov eax, cr0",
    "or eax, 0x80000001",
    "mov cr0, eax",
    "lgdt [gdt_pointer]",
    "push 0x18",
    "mov eax, offset .Lin_long_mode",
    "push eax",
    "retf",
    ".code64",
    ".Lin_long_mode:",
    "mov eax, 0x10",
    "mov ds, eax",
    "mov es, eax",
    "mov ss, eax",
    // The upper half of rsp is undefined until it is written here.
    "mov esp, offset stack_end",
    "mov edi, ebp",
    "call {start}",
    // Back: eax is the kernel's entry. Through compatibility mode, where paging may be turned off.
    "mov ebx, eax",
    "push 0x08",
    "lea rax, [rip + .Lin_compatibility_mode]",
    "push rax",
    "retfq",
    ".code32",
    ".Lin_compatibility_mode:",
    "mov eax, 0x10",
    "mov ds, eax",
    "mov es, eax",
    "mov fs, eax",
    "mov gs, eax",
    "mov ss, eax",
    "mov eax, cr0",
    "and eax, 0x7FFFFFFF",
    "mov cr0, eax",
    "mov ecx, 0xC0000080",
    "rdmsr",
    "and eax, 0xFFFFFEFF",
    "wrmsr",
    "mov eax, cr4",
    "and eax, 0xFFFFFFDF",
    "mov cr4, eax",
    "wbinvd",
    "jmp ebx",
    // The same ending as for any failure, with the means of 32-bit mode: no stack, one line, then stop.
    ".Lno_long_mode:",
    "mov al, {failed}",
    "out 0x80, al",
    "mov esi, offset no_long_mode_text",
    "mov edi, 0xB8000",
    "mov ah, 0x07",
    "3:",
    "lodsb",
    "test al, al",
    "jz 5f",
    "stosw",
    "mov bl, al",
    "mov dx, 0x3FD",
    "mov ecx, 100000",
    "4:",
    "in al, dx",
    "test al, 0x20",
    "loopz 4b",
    "mov al, bl",
    "mov dx, 0x3F8",
    "out dx, al",
    "jmp 3b",
    "5:",
    "mov al, {failed}",
    "out {exit_port}, al",
    "6:",
    "hlt",
    "jmp 6b",
    ".code64",
    ".popsection",
    start = sym super::start,
    failed = const super::FAILED,
    not_five_levels = const !(1i32 << 12),
    exit_port = const super::DEBUG_EXIT_PORT,
);

global_asm!(
    ".pushsection .rodata.kickstart_entry, \"a\"",
    ".balign 8",
    // Null, 32-bit code (08h), data (10h), 64-bit code (18h); all flat, and accessed, so that nothing is written here.
    "gdt:",
    ".quad 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00AF9B000000FFFF",
    "gdt_pointer:",
    ".short gdt_pointer - gdt - 1",
    ".long gdt, 0",
    "no_long_mode_text:",
    ".asciz \"kickstart: processor: has no 64-bit mode\\r\\n\"",
    ".popsection",
    ".pushsection .bss.kickstart_entry, \"aw\", @nobits",
    ".balign 4096",
    "page_top: .skip 4096",
    "page_pointers: .skip 4096",
    "page_directories: .skip 4 * 4096",
    "stack: .skip {stack_bytes}",
    "stack_end:",
    ".popsection",
    stack_bytes = const STACK_BYTES,
);
