//! I/O ports and the processor's halt.

use core::arch::asm;

/// Writes `value` to `port`.
///
/// # Safety
/// 1. The device at `port` does nothing to memory in use.
pub unsafe fn write(port: u16, value: u8) {
    // SAFETY: by 1. this changes no memory that the compiler knows.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

/// Reads from `port`.
///
/// # Safety
/// 1. Reading the device at `port` changes nothing that matters.
pub unsafe fn read(port: u16) -> u8 {
    let value;
    // SAFETY: by 1. this is harmless.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Sleeps until something wakes the processor, which with interrupts off hardly happens.
pub fn halt() {
    // SAFETY: interrupts are off already, and halting changes no memory.
    unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
}
