//! A serial line, the first one unless another is chosen: polled, 115200 baud, 8 bits, no parity, one stop bit.
//!
//! It works from every thread of every space that may use the ports. Lines of two threads can mix.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU16, Ordering::Relaxed};

use crate::arch::{in_byte, out_byte};

/// The first port of the line.
static BASE: AtomicU16 = AtomicU16::new(0x3F8);
/// What 115200 baud are divided by.
static DIVISOR: AtomicU16 = AtomicU16::new(1);

const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
const FIFO_CONTROL: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;

const DIVISOR_ACCESS: u8 = 0x80;
const EIGHT_BITS: u8 = 0x03;
const FIFO_ENABLE_AND_CLEAR: u8 = 0x07;
const DTR_RTS_OUT2: u8 = 0x0B;

const RECEIVED: u8 = 0x01;
const HOLDING_EMPTY: u8 = 0x20;
const ALL_SENT: u8 = 0x40;

/// What a port reads as where no device answers.
const NOBODY: u8 = 0xFF;
/// Looks at the status before a byte is given up: longer than any line needs for it.
const PATIENCE: u32 = 10_000_000;

static IS_SET_UP: AtomicBool = AtomicBool::new(false);

/// Takes the line at this port from now on, with this divisor of its rate.
pub fn choose(port: u16, divisor: u16) {
    BASE.store(port, Relaxed);
    DIVISOR.store(divisor, Relaxed);
    IS_SET_UP.store(false, Relaxed);
}

fn write_register(register: u16, value: u8) {
    out_byte(BASE.load(Relaxed).wrapping_add(register), value);
}

fn read_register(register: u16) -> u8 {
    in_byte(BASE.load(Relaxed).wrapping_add(register))
}

/// Waits until one of these bits of the status is set.
fn await_status(bits: u8) {
    for _ in 0..PATIENCE {
        if read_register(LINE_STATUS) & bits != 0 {
            return;
        }
    }
}

/// Sets the line up at its first use. No interrupt is enabled: nobody would take it.
fn set_up() {
    if IS_SET_UP.swap(true, Relaxed) {
        return;
    }
    let [low, high] = DIVISOR.load(Relaxed).to_le_bytes();
    let settings = [
        (INTERRUPT_ENABLE, 0),
        (LINE_CONTROL, DIVISOR_ACCESS),
        // The divisor, low and high byte.
        (DATA, low),
        (INTERRUPT_ENABLE, high),
        (LINE_CONTROL, EIGHT_BITS),
        (FIFO_CONTROL, FIFO_ENABLE_AND_CLEAR),
        (MODEM_CONTROL, DTR_RTS_OUT2),
    ];
    for (register, value) in settings {
        write_register(register, value);
    }
}

/// Writes a byte as it is.
pub fn write_byte(byte: u8) {
    set_up();
    await_status(HOLDING_EMPTY);
    write_register(DATA, byte);
}

/// Writes text; ends lines as terminals want it.
pub fn write_bytes(text: &[u8]) {
    for &byte in text {
        if byte == b'\n' {
            write_byte(b'\r');
        }
        write_byte(byte);
    }
}

/// Waits until all is on the line.
pub fn flush() {
    await_status(ALL_SENT);
}

/// The next byte that was received, if there is one.
pub fn read_byte() -> Option<u8> {
    set_up();
    let status = read_register(LINE_STATUS);
    if status == NOBODY || status & RECEIVED == 0 { None } else { Some(read_register(DATA)) }
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

/// The line as a place to write text.
pub struct Line;

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write_bytes(text.as_bytes());
        Ok(())
    }
}
