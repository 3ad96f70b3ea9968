//! The keyboard of a PC, polled: behind an 8042, or a USB keyboard that the firmware shows as one.

use crate::port::Port;

/// The controller.
pub struct Keyboard {
    data: Port<u8>,
    status: Port<u8>,
}

impl Keyboard {
    const DATA: u16 = 0x60;
    const STATUS: u16 = 0x64;
    const OUTPUT_FULL: u8 = 1 << 0;
    /// What is to be read comes from a mouse.
    const FROM_MOUSE: u8 = 1 << 5;
    /// What a port reads as where no device answers.
    const NOBODY: u8 = 0xFF;

    /// The keyboard as the firmware left it: its keys come in the codes of the first PC.
    ///
    /// # Safety
    /// Nobody else drives the controller, or does not mind that its codes are taken away.
    pub const unsafe fn new() -> Self {
        Self {
            // SAFETY: the controller changes no memory; the caller speaks for its driver.
            data: unsafe { Port::new(Self::DATA) },
            // SAFETY: as above.
            status: unsafe { Port::new(Self::STATUS) },
        }
    }

    /// The next code, if there is one. What a mouse says is passed over.
    pub fn read_code(&mut self) -> Option<u8> {
        let status = self.status.read();
        if status == Self::NOBODY || status & Self::OUTPUT_FULL == 0 {
            return None;
        }
        let code = self.data.read();
        (status & Self::FROM_MOUSE == 0).then_some(code)
    }
}
