//! Output to a serial line (16550, 8N1) and to the screen.

use core::fmt;
use core::ptr;

use kformats::console::SerialLine;
use kickstart::{Consoles, Extent};
use screen::{Canvas, Mode, Surface, Terminal};

use super::port;

/// Memory of VGA adapters.
pub const VGA_WINDOW: Extent = Extent::new(0xA_0000, 0xC_0000);
/// The last cell of the text screen.
const LAST_CELL: usize = 0xB_8000 + 2 * (80 * 25 - 1);

const LINE_STATUS: u16 = 5;
const TRANSMITTER_EMPTY: u8 = 1 << 5;
/// Looks at the line status before a character is given up: some milliseconds, or no serial line there.
const PATIENCE: u32 = 100_000;

/// First address that is not mapped.
const LIMIT: u64 = 1 << 32;

/// Both devices, as far as they are there and wanted.
pub struct Console {
    serial: Option<SerialLine>,
    screen: Option<Surface<Window>>,
    terminal: Terminal,
}

impl Console {
    /// Sets up the serial line and clears the screen.
    ///
    /// # Safety
    /// 1. The first 4 GiB are mapped one to one and writable from now on.
    /// 2. Nobody else uses these devices as long as this value is in use, and there is no memory where the screen is.
    pub unsafe fn new(consoles: Consoles) -> Self {
        let Consoles { serial, screen } = consoles;
        serial.iter().for_each(set_up);
        let screen = screen.filter(|mode| mode.address.saturating_add(mode.bytes() as u64) <= LIMIT);
        let screen = screen.map(|mode| Surface::new(mode, Window::of(&mode)));
        let mut console = Self { serial, screen, terminal: Terminal::EMPTY };
        if let Some(surface) = &mut console.screen {
            console.terminal.clear(surface);
        }
        console
    }

    fn put(&mut self, byte: u8) {
        if let Some(line) = self.serial {
            if byte == b'\n' {
                send(line, b'\r');
            }
            send(line, byte);
        }
        if let Some(surface) = &mut self.screen {
            self.terminal.put(surface, byte);
        }
    }
}

fn set_up(line: &SerialLine) {
    let [low, high] = line.divisor.to_le_bytes();
    // Register and value, in order: the divisor, 8 bits without parity, FIFOs on, DTR and RTS.
    for (register, value) in [(1, 0), (3, 0x80), (0, low), (1, high), (3, 3), (2, 7), (4, 3)] {
        // SAFETY: by `Console::new` 2. the serial line is ours, and it has no access to memory.
        unsafe { port::write(line.port + register, value) };
    }
}

fn send(line: SerialLine, byte: u8) {
    for _ in 0..PATIENCE {
        // SAFETY: reading the line status of a serial line that is ours (`Console::new` 2.) clears error bits nobody reads.
        let status = unsafe { port::read(line.port + LINE_STATUS) };
        if status & TRANSMITTER_EMPTY != 0 {
            break;
        }
    }
    // SAFETY: the serial line is ours (`Console::new` 2.) and has no access to memory.
    unsafe { port::write(line.port, byte) };
}

/// The memory of the screen.
struct Window {
    start: usize,
    bytes: usize,
}

impl Window {
    fn of(mode: &Mode) -> Self {
        Self { start: mode.address as usize, bytes: mode.bytes() }
    }

    fn pointer<T>(&self, offset: usize) -> *mut T {
        assert!(offset + size_of::<T>() <= self.bytes, "the screen is drawn on inside");
        ptr::with_exposed_provenance_mut(self.start + offset)
    }
}

impl Canvas for Window {
    fn put_byte(&mut self, offset: usize, byte: u8) {
        // SAFETY: by `Console::new` and the check it is mapped, below 4 GiB, and nobody else's.
        unsafe { self.pointer::<u8>(offset).write_volatile(byte) };
    }

    fn put_word(&mut self, offset: usize, word: u32) {
        // SAFETY: as above; screens begin at multiples of four, and so does the word.
        unsafe { self.pointer::<u32>(offset).write_volatile(word) };
    }
}

/// Whether there is a text screen: its memory keeps what is written. A cell of it becomes a blank.
///
/// # Safety
/// 1. [`VGA_WINDOW`] is mapped one to one and writable.
/// 2. Nobody else uses the screen now.
pub unsafe fn has_text_screen() -> bool {
    const BLANK: u16 = 0x0720;
    let cell = ptr::with_exposed_provenance_mut::<u16>(LAST_CELL);
    let keeps = |value: u16| {
        // SAFETY: by 1. it is mapped; by 2. it is ours.
        unsafe { cell.write_volatile(value) };
        // SAFETY: as above; any value is a cell.
        unsafe { cell.read_volatile() == value }
    };
    keeps(0x0741) && keeps(0x075A) && keeps(BLANK)
}

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.put(byte));
        Ok(())
    }
}
