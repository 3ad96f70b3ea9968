//! Ports of the two devices, which change no memory.

use core::arch::asm;

/// Writes to the port of one of the two devices.
pub fn write(port: u16, value: u8) {
    // SAFETY: neither device changes memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}
