//! The cursor of a text screen, which the VGA draws.

use kformats::console::HIDE_CURSOR;

use crate::port::Port;

/// Hides it.
pub fn hide() {
    for (port, byte) in HIDE_CURSOR {
        // SAFETY: the register that is chosen says where in a character the cursor begins, and nothing else.
        unsafe { Port::<u8>::new(port) }.write(byte);
    }
}
