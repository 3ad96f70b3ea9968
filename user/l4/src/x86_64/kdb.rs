//! Services of the kernel debugger: a breakpoint, told apart by the instruction behind it (kernel debugger ABI for user
//! code). A kernel without debugger has those of the console too; there a stop is an exception of number 3, if the thread
//! has an exception handler, and else nothing.

use core::arch::asm;

/// Enters the kernel debugger.
#[doc(alias = "L4_KDB_Enter")]
pub fn enter() {
    // SAFETY: the kernel handles the breakpoint and goes on behind it; the jump says that no service is meant.
    unsafe { asm!("int3", "jmp 2f", "2:") };
}

/// Enters the kernel debugger, which prints a text, a literal, first.
///
/// Its address is part of the code: the program is linked below 2 GiB.
#[macro_export]
macro_rules! kdb_enter {
    ($text:literal) => {
        // SAFETY: the kernel handles the breakpoint and goes on behind it. The jump leads over the instruction that holds
        // the address of the text.
        unsafe {
            ::core::arch::asm!(
                ".pushsection .rodata.kdb, \"a\"",
                concat!("2: .asciz \"", $text, "\""),
                ".popsection",
                "int3",
                "jmp 3f",
                // mov rax, the address
                ".byte 0x48, 0xC7, 0xC0",
                ".long 2b",
                "3:",
            )
        }
    };
}
#[doc(inline)]
pub use crate::kdb_enter as enter_with;

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

/// Clears the kernel's console. A kernel that cannot do so treats it as [`enter`].
#[doc(alias = "L4_KDB_ClearPage")]
pub fn clear_page() {
    // SAFETY: the kernel handles the breakpoint and goes on behind it.
    unsafe { asm!("int3", "cmp al, 2") };
}

/// Switches the look-out for keys that stop the system on or off, where there is one.
#[doc(alias = "L4_KDB_ToggleBreakin")]
pub fn toggle_breakin() {
    // SAFETY: the kernel handles the breakpoint and goes on behind it.
    unsafe { asm!("int3", "cmp al, 3") };
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

/// Letters of a name that count.
const NAME_BYTES: usize = 24;

/// The beginning of a name, on the stack: there it is mapped, as the debugger reads no page that is not.
fn beginning(name: &core::ffi::CStr) -> [u8; NAME_BYTES] {
    let mut bytes = [0; NAME_BYTES];
    bytes.iter_mut().zip(name.to_bytes()).for_each(|(place, letter)| *place = *letter);
    bytes
}

/// Gives the calling thread a name for the debugger and for what is made of traces. Up to 24 letters count. A kernel without
/// debugger does nothing; the thread pays with this call alone.
pub fn name_thread(name: &core::ffi::CStr) {
    let name = beginning(name);
    // SAFETY: the kernel reads the text and goes on behind the breakpoint.
    unsafe { asm!("int3", "cmp al, 0x20", in("rax") name.as_ptr()) };
}

/// Gives the space of the calling thread a name, likewise.
pub fn name_space(name: &core::ffi::CStr) {
    let name = beginning(name);
    // SAFETY: as above.
    unsafe { asm!("int3", "cmp al, 0x21", in("rax") name.as_ptr()) };
}
