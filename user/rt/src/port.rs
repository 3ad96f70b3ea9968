//! Ports of devices that have no way to memory.

use crate::arch::{in_byte, out_byte};

/// A port of the interval timer, the clock, a serial line or the text screen's controller: whatever is written there, no
/// memory changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HarmlessPort(u16);

impl HarmlessPort {
    /// `None` if `number` is not a port of one of these devices.
    pub const fn new(number: u16) -> Option<Self> {
        match number {
            0x40..=0x43 | 0x70..=0x71 | 0x2F8..=0x2FF | 0x3D4..=0x3D5 | 0x3F8..=0x3FF => Some(Self(number)),
            _ => None,
        }
    }

    /// Reads a byte.
    pub fn read(self) -> u8 {
        in_byte(self.0)
    }

    /// Writes a byte.
    pub fn write(self, value: u8) {
        out_byte(self.0, value);
    }
}
