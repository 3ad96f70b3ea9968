//! The keyboard as a part of the console, in a kernel that was built with it: polled when somebody reads from the console.
//!
//! What is kept between two looks stands in atomics: who reads may be stopped in the middle by the debugger on another
//! processor, which reads, too. Then a key may be lost, and no more.

use core::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};

use kcore::machine::TcbRef;
use kcore::thread::Status;
use keys::Keyboard;
use khal::keyboard;

use crate::{KERNEL, config, kdb};

/// The line of its interrupt.
const LINE: u32 = 1;
/// Codes that are taken in one look: of a key without meaning there may be some before one with.
const CODES: usize = 16;

/// Which keys are down.
static DOWN: AtomicU16 = AtomicU16::new(0);
/// What the last key still sends, the first byte lowest.
static REST: AtomicU64 = AtomicU64::new(0);

/// The next character that was typed, if the keyboard is the kernel's: in the debugger, and while no program handles its
/// interrupt.
pub fn receive() -> Option<u8> {
    if !config::KDB_CONS_KBD || !(kdb::is_staying() || is_free()) {
        return None;
    }
    let rest = REST.load(Relaxed);
    if rest == 0 {
        return read();
    }
    REST.store(rest >> 8, Relaxed);
    Some(rest as u8)
}

/// Whether nobody handles the interrupt of the keyboard.
fn is_free() -> bool {
    let line = KERNEL.try_get().and_then(|kernel| kernel.tcb_at(TcbRef::new(LINE)));
    line.is_none_or(|tcb| tcb.status() == Status::Inactive)
}

/// The first character of the next key.
fn read() -> Option<u8> {
    // SAFETY: nobody drives it while its interrupt is nobody's; in the debugger all programs stand still, and one that
    // drives it finds nothing to read.
    let mut controller = unsafe { keyboard::Keyboard::new() };
    for _ in 0..CODES {
        let mut keyboard = Keyboard::from_bits(DOWN.load(Relaxed));
        let key = keyboard.take(controller.read_code()?);
        DOWN.store(keyboard.bits(), Relaxed);
        let Some(key) = key else { continue };
        if let [first, rest @ ..] = key.sequence() {
            REST.store(rest.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte)), Relaxed);
            return Some(*first);
        }
    }
    None
}
