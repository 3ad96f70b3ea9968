//! The serial line: a 16550, 8 data bits, no parity, polled.

use core::fmt;

use crate::port::Port;

/// Where a PC has its serial ports.
pub const USUAL_PORTS: [u16; 4] = [Uart::COM1, 0x2F8, 0x3E8, 0x2E8];

/// What the base rate is divided by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Divisor(u16);

impl Divisor {
    /// The rate without division.
    const BASE_BAUD: u32 = 115_200;

    /// For this rate.
    ///
    /// # Panics
    /// If no divisor gives that.
    pub const fn of_baud(baud: u32) -> Self {
        assert!(baud != 0 && Self::BASE_BAUD.is_multiple_of(baud), "the base rate is no multiple of this");
        let divisor = Self::BASE_BAUD / baud;
        assert!(divisor <= u16::MAX as u32, "the rate is too low");
        Self(divisor as u16)
    }

    /// Low and high byte.
    const fn bytes(self) -> [u8; 2] {
        self.0.to_le_bytes()
    }
}

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
    /// Base of the first serial port of a PC.
    pub const COM1: u16 = 0x3F8;

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

    /// Sets speed and format, without interrupts.
    pub fn start(&mut self, divisor: Divisor) {
        const DIVISOR_LATCH: u8 = 1 << 7;
        const EIGHT_BITS: u8 = 0b11;
        const FIFO_ON_AND_EMPTY: u8 = 0b111;
        const DTR_RTS: u8 = 0b11;
        self.interrupt_enable.write(0);
        self.line_control.write(DIVISOR_LATCH | EIGHT_BITS);
        let [low, high] = divisor.bytes();
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

#[cfg(test)]
mod tests {
    use super::Divisor;

    #[test]
    fn rates_are_parts_of_the_base_rate() {
        let rows = [(115_200, [1, 0]), (57_600, [2, 0]), (38_400, [3, 0]), (9_600, [12, 0]), (300, [0x80, 1])];
        for (baud, bytes) in rows {
            assert_eq!(Divisor::of_baud(baud).bytes(), bytes, "{baud}");
        }
    }

    #[test]
    #[should_panic(expected = "no multiple")]
    fn other_rates_there_are_not() {
        Divisor::of_baud(100_000);
    }
}
