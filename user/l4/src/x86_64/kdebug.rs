//! Services of the kernel debugger: a breakpoint, told apart by the compare instruction behind it.

use core::arch::asm;

/// Enters the kernel debugger.
#[doc(alias = "L4_KDB_Enter")]
pub fn enter() {
    // SAFETY: the kernel handles the breakpoint and goes on behind it; the jump says that no service is meant.
    unsafe { asm!("int3", "jmp 2f", "2:") };
}

/// Prints a character on the kernel's console.
#[doc(alias = "L4_KDB_PrintChar")]
pub fn print_char(character: u8) {
    // SAFETY: the kernel handles the breakpoint and goes on behind it.
    unsafe { asm!("int3", "cmp al, 0", in("al") character) };
}

/// Prints text on the kernel's console.
#[doc(alias = "L4_KDB_PrintString")]
pub fn print_string(text: &core::ffi::CStr) {
    // SAFETY: the kernel reads the text up to its end and goes on behind the breakpoint.
    unsafe { asm!("int3", "cmp al, 1", in("rax") text.as_ptr()) };
}

/// The next character from the kernel's console, if there is one.
#[doc(alias = "L4_KDB_ReadChar")]
pub fn read_char() -> Option<u8> {
    let character: i64;
    // SAFETY: the kernel handles the breakpoint and goes on behind it.
    unsafe { asm!("int3", "cmp al, 8", inlateout("rax") 0i64 => character) };
    if character == -1 { None } else { Some(character as u8) }
}

/// Waits for a character from the kernel's console.
#[doc(alias = "L4_KDB_ReadChar_Blocked")]
pub fn read_char_blocked() -> u8 {
    let character: u64;
    // SAFETY: the kernel handles the breakpoint and goes on behind it.
    unsafe { asm!("int3", "cmp al, 0x0D", inlateout("rax") 0u64 => character) };
    character as u8
}
