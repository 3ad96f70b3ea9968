//! Output to the first serial line (16550, 115200 8N1) and to the screen in VGA text mode.

use core::fmt;
use core::ptr;

use kickstart::Extent;

use super::port;

/// Memory of VGA adapters.
pub const VGA_WINDOW: Extent = Extent::new(0xA_0000, 0xC_0000);

const TEXT: usize = 0xB_8000;
const COLUMNS: usize = 80;
const ROWS: usize = 25;
const GREY_ON_BLACK: u16 = 0x0700;

const COM1: u16 = 0x3F8;
const LINE_STATUS: u16 = COM1 + 5;
const TRANSMITTER_EMPTY: u8 = 1 << 5;
/// Register and value, in order: divisor 1 for 115200 baud, 8 bits without parity, FIFOs on, DTR and RTS.
const SERIAL_SETUP: [(u16, u8); 7] =
    [(COM1 + 1, 0), (COM1 + 3, 0x80), (COM1, 1), (COM1 + 1, 0), (COM1 + 3, 3), (COM1 + 2, 7), (COM1 + 4, 3)];
/// Looks at the line status before a character is given up: some milliseconds, or no serial line there.
const PATIENCE: u32 = 100_000;

/// Both devices. The screen's lines move up, and output goes to the last one.
pub struct Console {
    column: usize,
}

impl Console {
    /// Sets up the serial line and leaves the screen as it is.
    ///
    /// # Safety
    /// 1. [`VGA_WINDOW`] is mapped one to one and writable from now on.
    /// 2. Nobody else uses these devices as long as this value is in use.
    pub unsafe fn new() -> Self {
        for (register, value) in SERIAL_SETUP {
            // SAFETY: by 2. the serial line is ours, and it has no access to memory.
            unsafe { port::write(register, value) };
        }
        let mut console = Self { column: 0 };
        console.scroll();
        console
    }

    fn put(&mut self, byte: u8) {
        if byte == b'\n' {
            self.put_serial(b'\r');
        }
        self.put_serial(byte);
        if byte == b'\n' || self.column == COLUMNS {
            self.scroll();
        }
        if byte != b'\n' {
            set_cell((ROWS - 1) * COLUMNS + self.column, GREY_ON_BLACK | u16::from(byte));
            self.column += 1;
        }
    }

    fn put_serial(&self, byte: u8) {
        for _ in 0..PATIENCE {
            // SAFETY: reading the line status of a serial line that is ours (`new` 2.) clears error bits nobody reads.
            let status = unsafe { port::read(LINE_STATUS) };
            if status & TRANSMITTER_EMPTY != 0 {
                break;
            }
        }
        // SAFETY: the serial line is ours (`new` 2.) and has no access to memory.
        unsafe { port::write(COM1, byte) };
    }

    fn scroll(&mut self) {
        for index in 0..(ROWS - 1) * COLUMNS {
            set_cell(index, cell(index + COLUMNS));
        }
        for index in (ROWS - 1) * COLUMNS..ROWS * COLUMNS {
            set_cell(index, GREY_ON_BLACK | u16::from(b' '));
        }
        self.column = 0;
    }
}

fn cell_at(index: usize) -> *mut u16 {
    assert!(index < ROWS * COLUMNS, "cells are counted from the top left");
    ptr::with_exposed_provenance_mut::<u16>(TEXT).wrapping_add(index)
}

fn cell(index: usize) -> u16 {
    let cell = cell_at(index);
    // SAFETY: by `Console::new` 1. and the check above it is mapped; any value is a cell.
    unsafe { cell.read_volatile() }
}

fn set_cell(index: usize, value: u16) {
    let cell = cell_at(index);
    // SAFETY: by `Console::new` 1. and the check above it is mapped; by 2. nobody else uses it.
    unsafe { cell.write_volatile(value) }
}

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.put(byte));
        Ok(())
    }
}
