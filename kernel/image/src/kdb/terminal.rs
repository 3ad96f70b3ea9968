//! The debugger's terminal: the kernel's console.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use kcore::machine::Machine;
use kdb::Terminal;

use crate::machine::HARDWARE;
use crate::{config, console};

/// How long the rest of a key's sequence may take, microseconds: some characters at the lowest usual speed.
const SEQUENCE_US: u64 = 20_000;

const ESCAPE: u8 = 0x1B;

/// The console.
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

/// Keys that came while one was looked for that stops the system: up to eight, the first in the lowest byte. They are for
/// whoever reads next from the kernel's console.
static KEPT: AtomicU64 = AtomicU64::new(0);

/// Keeps a key. One too many is lost, and so is a zero byte, which no key sends.
fn keep(key: u8) {
    let with = |keys: u64| {
        let count = 8 - keys.leading_zeros() / 8;
        (count < 8).then(|| keys | u64::from(key) << (8 * count))
    };
    // Where there is no room it is lost.
    let _ = KEPT.fetch_update(Relaxed, Relaxed, with);
}

/// The first key that was kept.
pub fn take_kept_key() -> Option<u8> {
    let keys = KEPT.fetch_update(Relaxed, Relaxed, |keys| (keys != 0).then_some(keys >> 8));
    keys.ok().map(|keys| keys as u8)
}

/// Whether somebody types what stops the system: Escape, or a break of the line.
pub fn wants_to_break_in() -> bool {
    let is_broken = console::take_break();
    if is_broken && config::KDB_BREAKIN_BREAK {
        return true;
    }
    match console::receive() {
        Some(ESCAPE) if config::KDB_BREAKIN_ESCAPE => return true,
        Some(key) => keep(key),
        None => {}
    }
    false
}
