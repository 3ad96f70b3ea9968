//! The cursor of a text screen, which the VGA draws.

use crate::port::Port;

/// Hides it, until somebody sets the mode of the screen anew.
pub fn hide() {
    const INDEX: u16 = 0x3D4;
    const VALUE: u16 = 0x3D5;
    const CURSOR_START: u8 = 0x0A;
    const OFF: u8 = 1 << 5;
    // SAFETY: the register that is chosen says where in a character the cursor begins, and nothing else.
    unsafe { Port::<u8>::new(INDEX) }.write(CURSOR_START);
    // SAFETY: as above.
    unsafe { Port::<u8>::new(VALUE) }.write(OFF);
}
