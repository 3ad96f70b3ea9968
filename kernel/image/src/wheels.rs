//! Activity on the text screen: characters in its upper right corner that turn when something happens.
//!
//! A processor has a column, from the right, with a wheel in each of the first lines. Only a kernel that was built so shows
//! any; the page of the screen is mapped in no other.

use core::ptr;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use kcore::machine::PhysAddr;

use crate::config::{MAX_CPUS, SPIN_WHEELS};
use crate::{area, layout};

/// Where the text screen is.
pub const SCREEN: PhysAddr = PhysAddr(0xB8000);

const COLUMNS: usize = 80;
/// Yellow on blue, above the character.
const COLOURS: u16 = 0x1E00;
const SHAPES: [u8; 4] = *b"|/-\\";

/// What turns a wheel, by line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Wheel {
    /// An interrupt of the timer.
    Timer,
    /// A system call by the general path.
    Call,
    /// The processor goes to sleep.
    Idle,
}

const WHEELS: usize = 3;

/// How often each wheel was turned. A processor writes its own alone.
static TURNS: [[AtomicU8; WHEELS]; MAX_CPUS] = [const { [const { AtomicU8::new(0) }; WHEELS] }; MAX_CPUS];

/// Turns a wheel of this processor.
#[inline(always)]
pub fn turn(wheel: Wheel) {
    if SPIN_WHEELS {
        show(wheel, area::cpu().index());
    }
}

#[inline(never)]
fn show(wheel: Wheel, cpu: usize) {
    let (line, turns) = (wheel as usize, &TURNS[cpu][wheel as usize]);
    let turned = turns.load(Relaxed).wrapping_add(1);
    turns.store(turned, Relaxed);
    let column = COLUMNS - 1 - cpu % COLUMNS;
    let cell = layout::SCREEN_PAGE + (line * COLUMNS + column) * size_of::<u16>();
    let shape = SHAPES[usize::from(turned) % SHAPES.len()];
    // SAFETY: with wheels the kernel's tables map the screen there; whoever else draws on it sees a character change.
    unsafe { ptr::with_exposed_provenance_mut::<u16>(cell).write_volatile(COLOURS | u16::from(shape)) };
}
