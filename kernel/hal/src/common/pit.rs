//! The 8254 timer, channel 2: a clock of known frequency to compare others with. It interrupts nobody.

use crate::port::Port;

/// Frequency of the counters.
pub const FREQUENCY_HZ: u64 = 1_193_182;

/// Channel 2 and its gate.
pub struct Pit {
    command: Port<u8>,
    channel2: Port<u8>,
    gate: Port<u8>,
}

impl Pit {
    const GATE_OPEN: u8 = 1 << 0;
    const SPEAKER: u8 = 1 << 1;
    /// Channel 2, low then high byte, mode 0: count down once, then go on through 0xFFFF.
    const COUNT_DOWN: u8 = 0b1011_0000;
    const LATCH: u8 = 0b1000_0000;

    /// The timer of the machine.
    ///
    /// # Safety
    /// Nobody else drives channel 2, the timer's command port and port 0x61 while the value lives.
    pub const unsafe fn new() -> Self {
        // SAFETY: a timer changes no memory; the caller keeps others away.
        let command = unsafe { Port::new(0x43) };
        // SAFETY: as above.
        let channel2 = unsafe { Port::new(0x42) };
        // SAFETY: as above; of port 0x61 only gate and speaker are changed.
        let gate = unsafe { Port::new(0x61) };
        Self { command, channel2, gate }
    }

    /// Starts counting down from 0xFFFF; wraps after 54.9 ms.
    pub fn start(&mut self) {
        let others = self.gate.read() & !(Self::GATE_OPEN | Self::SPEAKER);
        self.gate.write(others | Self::GATE_OPEN);
        self.command.write(Self::COUNT_DOWN);
        self.channel2.write(0xFF);
        self.channel2.write(0xFF);
    }

    /// Stops counting.
    pub fn stop(&mut self) {
        let others = self.gate.read() & !(Self::GATE_OPEN | Self::SPEAKER);
        self.gate.write(others);
    }

    /// The counter at the moment of the call.
    pub fn count(&mut self) -> u16 {
        self.command.write(Self::LATCH);
        let low = self.channel2.read();
        let high = self.channel2.read();
        u16::from_le_bytes([low, high])
    }
}
