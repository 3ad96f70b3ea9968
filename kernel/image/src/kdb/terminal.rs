//! The debugger's terminal: the serial line.

use core::fmt;

use kcore::machine::Machine;
use kdb::Terminal;

use crate::console;
use crate::machine::HARDWARE;

/// How long the rest of a key's sequence may take, microseconds: some characters at the lowest usual speed.
const SEQUENCE_US: u64 = 20_000;

const ESCAPE: u8 = 0x1B;

/// The serial line.
pub struct Line;

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        console::write(text);
        Ok(())
    }
}

impl Terminal for Line {
    fn key(&mut self) -> Option<u8> {
        loop {
            if let Some(key) = console::read() {
                return Some(key);
            }
            core::hint::spin_loop();
        }
    }

    fn key_at_once(&mut self) -> Option<u8> {
        let hardware = HARDWARE.try_get()?;
        let end = hardware.now_us() + SEQUENCE_US;
        while hardware.now_us() < end {
            if let Some(key) = console::read() {
                return Some(key);
            }
            core::hint::spin_loop();
        }
        None
    }

    fn print(&mut self, text: &str) {
        console::write(text);
    }
}

/// Whether somebody types what stops the system: Escape, or a break of the line. Any other key is lost.
pub fn wants_to_break_in() -> bool {
    let is_broken = console::take_break();
    (is_broken && crate::config::KDB_BREAKIN_BREAK)
        || (crate::config::KDB_BREAKIN_ESCAPE && console::read() == Some(ESCAPE))
}
