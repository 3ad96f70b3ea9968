//! The timer of ACPI: a clock of known frequency to compare others with (ACPI, Power Management Timer). It interrupts nobody.

use crate::port::Port;

/// Its frequency.
pub const FREQUENCY_HZ: u64 = 3_579_545;

/// The timer, which counts up from the start of the machine on, in 24 bits at least.
pub struct PmTimer(Port<u32>);

impl PmTimer {
    /// The timer at this port, which the firmware's tables name.
    ///
    /// # Safety
    /// Reading the port changes nothing.
    pub const unsafe fn new(port: u16) -> Self {
        // SAFETY: it is only read, which changes nothing by contract.
        Self(unsafe { Port::new(port) })
    }

    /// The lower bits of the counter at the moment of the call.
    pub fn count(&mut self) -> u16 {
        self.0.read() as u16
    }
}
