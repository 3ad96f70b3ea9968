//! The serial line: a 16550, 8 data bits, no parity, polled.

use core::fmt;

use crate::port::Port;

/// A serial port.
pub struct Uart {
    data: Port<u8>,
    interrupt_enable: Port<u8>,
    fifo_control: Port<u8>,
    line_control: Port<u8>,
    modem_control: Port<u8>,
    line_status: Port<u8>,
}

impl Uart {
    const DATA_READY: u8 = 1 << 0;
    const CAN_TRANSMIT: u8 = 1 << 5;
    /// What a port reads as where no device answers.
    const NOBODY: u8 = 0xFF;
    /// Upper bound of polls for one byte, longer than any line needs: a dead line must not stop the kernel.
    const PATIENCE_POLLS: u32 = 1_000_000;

    /// The serial port whose registers begin at port `base`; call [`Uart::start`] before the first byte.
    ///
    /// # Safety
    /// If there is a device at the eight ports from `base`, it is a 16550, and nobody else drives it.
    pub const unsafe fn new(base: u16) -> Self {
        Self {
            // SAFETY: a serial port changes no memory; the caller keeps others away. So for the other five.
            data: unsafe { Port::new(base) },
            // SAFETY: as above.
            interrupt_enable: unsafe { Port::new(base + 1) },
            // SAFETY: as above.
            fifo_control: unsafe { Port::new(base + 2) },
            // SAFETY: as above.
            line_control: unsafe { Port::new(base + 3) },
            // SAFETY: as above.
            modem_control: unsafe { Port::new(base + 4) },
            // SAFETY: as above.
            line_status: unsafe { Port::new(base + 5) },
        }
    }

    /// Sets speed, by what the base rate is divided by, and format, without interrupts.
    pub fn start(&mut self, divisor: u16) {
        const DIVISOR_LATCH: u8 = 1 << 7;
        const EIGHT_BITS: u8 = 0b11;
        const FIFO_ON_AND_EMPTY: u8 = 0b111;
        const DTR_RTS: u8 = 0b11;
        self.interrupt_enable.write(0);
        self.line_control.write(DIVISOR_LATCH | EIGHT_BITS);
        let [low, high] = divisor.to_le_bytes();
        self.data.write(low);
        self.interrupt_enable.write(high);
        self.line_control.write(EIGHT_BITS);
        self.fifo_control.write(FIFO_ON_AND_EMPTY);
        self.modem_control.write(DTR_RTS);
    }

    /// Sends one byte if there is room for it; `false` if there is none now.
    pub fn try_send(&mut self, byte: u8) -> bool {
        let has_room = self.line_status.read() & Self::CAN_TRANSMIT != 0;
        if has_room {
            self.data.write(byte);
        }
        has_room
    }

    /// Sends one byte; waits for room, and drops the byte if there is none for very long.
    pub fn send(&mut self, byte: u8) {
        for _ in 0..Self::PATIENCE_POLLS {
            if self.try_send(byte) {
                return;
            }
            core::hint::spin_loop();
        }
    }

    /// Whether the line was broken since this was last asked. The zero byte that stands for the break is gone then.
    pub fn take_break(&mut self) -> bool {
        const BREAK: u8 = 1 << 4;
        let status = self.line_status.read();
        let is_broken = status != Self::NOBODY && status & BREAK != 0;
        if is_broken && status & Self::DATA_READY != 0 {
            self.data.read();
        }
        is_broken
    }

    /// The next received byte, if one has arrived.
    pub fn receive(&mut self) -> Option<u8> {
        let status = self.line_status.read();
        (status != Self::NOBODY && status & Self::DATA_READY != 0).then(|| self.data.read())
    }
}

impl fmt::Write for Uart {
    /// Sends the text; a line feed goes out as carriage return and line feed, as terminals want it.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.send(b'\r');
            }
            self.send(byte);
        }
        Ok(())
    }
}
