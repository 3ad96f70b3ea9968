//! The first instructions, and the ports of a PC.

use core::arch::{asm, naked_asm};

/// Size of the first thread's stack.
const STACK_SIZE: usize = 64 * 1024;

static STACK: l4::thread::Stack<STACK_SIZE> = l4::thread::Stack::new();

/// Where the kernel starts the program: nothing is defined but the instruction pointer (amd64 ABI, Thread Start State).
#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn _start() -> ! {
    naked_asm!(
        "lea rsp, [rip + {stack} + {size}]",
        "xor ebp, ebp", // the end of every chain of frames
        "call {begin}",
        "ud2",
        stack = sym STACK,
        size = const STACK_SIZE,
        begin = sym super::begin,
    )
}

/// The port of QEMU's isa-debug-exit, by which the emulator ends with status `2 * n + 1`.
const DEBUG_EXIT: u16 = 0xF4;

/// Ends an emulator with that device; does nothing on a machine without one.
pub fn exit_emulator(status: u8) {
    out_byte(DEBUG_EXIT, status);
}

/// Writes a byte to a port. Devices that reach into memory by themselves are not ours to program: the callers in this
/// crate write to the serial line, the keyboard's controller, the registers that switch the machine off, and to the emulator.
pub fn out_byte(port: u16, value: u8) {
    // SAFETY: the ports of this crate's devices change no memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

/// Writes two bytes to a port, as [`out_byte`].
pub fn out_word(port: u16, value: u16) {
    // SAFETY: the ports of this crate's devices change no memory.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack, preserves_flags)) };
}

/// Reads two bytes from a port.
pub fn in_word(port: u16) -> u16 {
    let value;
    // SAFETY: the ports of this crate's devices change no memory.
    unsafe { asm!("in ax, dx", out("ax") value, in("dx") port, options(nomem, nostack, preserves_flags)) };
    value
}

/// Reads a byte from a port.
pub fn in_byte(port: u16) -> u8 {
    let value;
    // SAFETY: the ports of this crate's devices change no memory.
    unsafe { asm!("in al, dx", out("al") value, in("dx") port, options(nomem, nostack, preserves_flags)) };
    value
}
