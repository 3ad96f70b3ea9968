//! The first instructions: from 32-bit protected mode to `kernel_main` in long mode.

use core::arch::global_asm;
use core::cell::UnsafeCell;

use kcore::machine::PhysAddr;
use khal::desc::Selector;

use super::stack::{BOOT_STACK, BOOT_STACK_BYTES, GuardedStack};
use crate::layout::KERNEL_BASE;

/// A page table that the start code fills.
#[repr(C, align(4096))]
struct RoughTable(UnsafeCell<[u64; 512]>);

// SAFETY: only the start code, before there is anything else, and the processor touch it.
unsafe impl Sync for RoughTable {}

impl RoughTable {
    const fn new() -> Self {
        Self(UnsafeCell::new([0; 512]))
    }
}

static ROUGH_ROOT: RoughTable = RoughTable::new();
/// The root of the rough tables, by which a processor gets into long mode.
pub(super) fn rough_root() -> PhysAddr {
    PhysAddr(((&raw const ROUGH_ROOT).addr() - KERNEL_BASE) as u64)
}

static ROUGH_POINTERS: RoughTable = RoughTable::new();
static ROUGH_DIRECTORIES: [RoughTable; 4] = [const { RoughTable::new() }; 4];

/// The segments of the start, until the processor's own table is loaded; the kernel's have the same selectors there.
static ROUGH_GDT: [u64; 3] = [0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF];

const _: () = assert!(Selector::KERNEL_CODE.0 == 8 && Selector::KERNEL_DATA.0 == 16);

/// Bytes of the guard page below a stack.
const GUARD_BYTES: usize = size_of::<GuardedStack<BOOT_STACK_BYTES>>() - BOOT_STACK_BYTES;

// in:   32-bit protected mode, flat segments, interrupts and paging off; .bss is zero; no stack, no arguments
// out:  `kernel_main` in long mode on the boot stack, CR0.WP and, where it exists, EFER.NXE set
// work: ebp CPUID's extended features (edx of 80000001h)
//
// Both halves of the address space lead through the same tables: entries 0 and 511 of the root, 0 and 510 of the next
// level, which also has the next three GiB: there the firmware has its tables.
global_asm!(
    ".pushsection .boot, \"ax\"",
    ".code32",
    ".global _start",
    "_start:",
    "cli",
    "cld",
    "mov esp, offset boot_stack_top + {to_physical}",
    // CPUID exists if its flag can be changed.
    "pushfd",
    "pop eax",
    "mov ecx, eax",
    "xor eax, {cpuid_flag}",
    "push eax",
    "popfd",
    "pushfd",
    "pop eax",
    "cmp eax, ecx",
    "je no_long_mode",
    "mov eax, 0x80000000",
    "cpuid",
    "cmp eax, 0x80000001",
    "jb no_long_mode",
    "mov eax, 0x80000001",
    "cpuid",
    "test edx, {has_long_mode}",
    "jz no_long_mode",
    "mov ebp, edx",
    // The rough tables.
    "mov edi, offset {directory} + {to_physical}",
    "mov eax, {large_page}",
    "2:",
    "mov [edi], eax",
    "add edi, 8",
    "add eax, {large_page_bytes}",
    "jnc 2b",
    "mov eax, offset {directory} + {to_physical} + {link}",
    "mov edi, offset {pointers} + {to_physical}",
    "mov [edi], eax",
    "mov [edi + 510 * 8], eax",
    "add eax, {table_bytes}",
    "mov [edi + 1 * 8], eax",
    "add eax, {table_bytes}",
    "mov [edi + 2 * 8], eax",
    "add eax, {table_bytes}",
    "mov [edi + 3 * 8], eax",
    "lea eax, [edi + {link}]",
    "mov edi, offset {root} + {to_physical}",
    "mov [edi], eax",
    "mov [edi + 511 * 8], eax",
    "mov cr3, edi",
    // Long mode.
    // Five levels of tables are not what these are, whatever the firmware chose.
    "mov eax, cr4",
    "and eax, {not_five_levels}",
    "or eax, {pae}",
    "mov cr4, eax",
    "mov ecx, {efer}",
    "rdmsr",
    "or eax, {lme}",
    "test ebp, {has_nx}",
    "jz 3f",
    "or eax, {nxe}",
    "3:",
    "wrmsr",
    "mov eax, cr0",
    "or eax, {paging_and_write_protection}",
    "mov cr0, eax",
    "lgdt [rough_gdt_physical]",
    "push {kernel_code}",
    "mov eax, offset long_mode",
    "push eax",
    "retf",
    ".code64",
    "long_mode:",
    "mov rsp, offset boot_stack_top",
    "lgdt [rip + rough_gdt_virtual]",
    "mov eax, {kernel_data}",
    "mov ss, eax",
    "xor eax, eax",
    "mov ds, eax",
    "mov es, eax",
    "mov fs, eax",
    "mov gs, eax",
    // A frame pointer of 0 ends backtraces.
    "xor ebp, ebp",
    "mov rax, offset high_start",
    "jmp rax",
    // --- the end for processors that are too old: a line on the first serial port ---
    ".code32",
    "no_long_mode:",
    "mov esi, offset no_long_mode_text",
    "4:",
    "lodsb",
    "test al, al",
    "jz 6f",
    "mov ah, al",
    "mov dx, 0x3FD",
    "5:",
    "in al, dx",
    "test al, 0x20",
    "jz 5b",
    "mov al, ah",
    "mov dx, 0x3F8",
    "out dx, al",
    "jmp 4b",
    "6:",
    "hlt",
    "jmp 6b",
    ".code64",
    "no_long_mode_text: .asciz \"marcona: this processor has no 64-bit mode, which the kernel needs\\r\\n\"",
    ".balign 8",
    "rough_gdt_physical:",
    ".short {gdt_bytes} - 1",
    ".long {gdt} + {to_physical}",
    ".balign 8",
    "rough_gdt_virtual:",
    ".short {gdt_bytes} - 1",
    ".quad {gdt}",
    ".popsection",
    ".pushsection .text.entry, \"ax\"",
    "high_start:",
    "call kernel_main",
    "ud2",
    ".popsection",
    ".global boot_stack_top",
    ".set boot_stack_top, {stack} + {guard_bytes} + {stack_bytes}",
    // Modulo 2^64, as the linker adds.
    to_physical = const KERNEL_BASE.wrapping_neg(),
    stack = sym BOOT_STACK,
    stack_bytes = const BOOT_STACK_BYTES,
    guard_bytes = const GUARD_BYTES,
    root = sym ROUGH_ROOT,
    pointers = sym ROUGH_POINTERS,
    directory = sym ROUGH_DIRECTORIES,
    gdt = sym ROUGH_GDT,
    gdt_bytes = const size_of_val(&ROUGH_GDT),
    // Page-table entries (Intel SDM 3A, 4-Level Paging): present, writable; for pages also large.
    link = const 0b11,
    large_page = const 0b1000_0011,
    large_page_bytes = const 1 << 21,
    table_bytes = const size_of::<RoughTable>(),
    cpuid_flag = const 1 << 21,
    has_long_mode = const 1 << 29,
    has_nx = const 1 << 20,
    pae = const khal::cr::Cr4::PAE.bits(),
    not_five_levels = const !(1i32 << 12),
    efer = const khal::msr::Msr::EFER.0,
    lme = const khal::msr::Efer::LME.bits(),
    nxe = const khal::msr::Efer::NXE.bits(),
    paging_and_write_protection = const khal::cr::Cr0::PG.union(khal::cr::Cr0::WP).bits(),
    kernel_code = const Selector::KERNEL_CODE.0,
    kernel_data = const Selector::KERNEL_DATA.0,
);
