//! The first serial line (COM1): polled, 115200 baud, 8 bits, no parity, one stop bit.
//!
//! It works from every thread of every space that may use the ports. Lines of two threads can mix.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::arch::{in_byte, out_byte};

const BASE: u16 = 0x3F8;
const DATA: u16 = BASE;
const INTERRUPT_ENABLE: u16 = BASE + 1;
const FIFO_CONTROL: u16 = BASE + 2;
const LINE_CONTROL: u16 = BASE + 3;
const MODEM_CONTROL: u16 = BASE + 4;
const LINE_STATUS: u16 = BASE + 5;

const DIVISOR_ACCESS: u8 = 0x80;
const EIGHT_BITS: u8 = 0x03;
const FIFO_ENABLE_AND_CLEAR: u8 = 0x07;
const DTR_RTS_OUT2: u8 = 0x0B;

const RECEIVED: u8 = 0x01;
const HOLDING_EMPTY: u8 = 0x20;
const ALL_SENT: u8 = 0x40;

static IS_SET_UP: AtomicBool = AtomicBool::new(false);

/// Sets the line up at its first use. No interrupt is enabled: nobody would take it.
fn set_up() {
    if IS_SET_UP.swap(true, Relaxed) {
        return;
    }
    let settings = [
        (INTERRUPT_ENABLE, 0),
        (LINE_CONTROL, DIVISOR_ACCESS),
        // The divisor 1, low and high byte: 115200 baud.
        (DATA, 1),
        (INTERRUPT_ENABLE, 0),
        (LINE_CONTROL, EIGHT_BITS),
        (FIFO_CONTROL, FIFO_ENABLE_AND_CLEAR),
        (MODEM_CONTROL, DTR_RTS_OUT2),
    ];
    for (port, value) in settings {
        out_byte(port, value);
    }
}

/// Writes a byte as it is.
pub fn write_byte(byte: u8) {
    set_up();
    while in_byte(LINE_STATUS) & HOLDING_EMPTY == 0 {}
    out_byte(DATA, byte);
}

/// Waits until all is on the line.
pub fn flush() {
    while in_byte(LINE_STATUS) & ALL_SENT == 0 {}
}

/// The next byte that was received, if there is one.
pub fn read_byte() -> Option<u8> {
    set_up();
    if in_byte(LINE_STATUS) & RECEIVED == 0 { None } else { Some(in_byte(DATA)) }
}

/// Waits for a byte; gives the processor away between two looks.
pub fn read_byte_blocking() -> u8 {
    loop {
        if let Some(byte) = read_byte() {
            return byte;
        }
        l4::schedule::yield_now();
    }
}

/// The line as a place to write text; ends lines as terminals want it.
struct Line;

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                write_byte(b'\r');
            }
            write_byte(byte);
        }
        Ok(())
    }
}

/// Prints formatted text: see [`crate::println`].
pub fn print(text: fmt::Arguments<'_>) {
    // The line itself never fails; a value that cannot be formatted is left out.
    let _ = Line.write_fmt(text);
}
