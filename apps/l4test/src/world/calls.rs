//! System calls that take everything.

use l4::{Fpage, MR_COUNT, Rights, UnmapControl, Word, space, utcb};

use super::image;
use crate::arch::{self, Registers};

/// Fails in the program's own space, which keeps its memory.
#[track_caller]
fn check_other_space() {
    let supervisor = super::threads::supervisor();
    assert!(l4::thread::inspect(supervisor).is_err(), "the program's own space keeps its memory");
}

/// Flushes all of the calling thread's space. In another space than the program's own: there the image comes back by
/// page faults.
///
/// # Panics
/// In the program's own space.
pub fn flush_complete_space() {
    check_other_space();
    let mut fpages = [Fpage::COMPLETE.with_rights(Rights::ALL)];
    // SAFETY: what is in the image stays in the program's space, and is mapped again as this thread touches it.
    unsafe { space::flush(&mut fpages) };
}

/// Flushes memory outside the image, such as areas of the kernel's, where it must come to nothing.
///
/// # Panics
/// If a part of the image is in an fpage.
pub fn flush_outside_the_image(fpages: &mut [Fpage]) {
    assert!(!fpages.iter().any(image::overlaps), "the program's own space keeps its memory");
    // SAFETY: no object of this program is there.
    unsafe { space::flush(fpages) };
}

/// What [`unmap_words`] has in the message registers that it does not use.
pub const MARK: Word = 0x3A3A_0000;

/// Unmap with any words: a control word that does not flush, and fpages from MR0 on. All message registers afterwards;
/// before, the others hold [`MARK`] and their number.
///
/// # Panics
/// If the control word says flush.
pub fn unmap_words(control: Word, fpages: &[Word]) -> [Word; MR_COUNT] {
    let control = UnmapControl::from_raw(control);
    assert!(!control.is_flush(), "own mappings stay");
    for index in 0..MR_COUNT {
        utcb().set_mr(index, fpages.get(index).copied().unwrap_or(MARK | index as Word));
    }
    // SAFETY: own mappings stay.
    unsafe { l4::arch::unmap(control) };
    core::array::from_fn(|index| utcb().mr(index))
}

/// Calls a stub of the kernel interface page with any registers. In another space than the program's own: what it does
/// to its memory there comes back by page faults, and it can harm no thread but itself.
///
/// # Panics
/// In the program's own space.
pub fn wild(stub: Word, mut registers: Registers) -> Registers {
    check_other_space();
    // SAFETY: the stub is the kernel's, and returns; memory of this space is mapped again as this thread touches it.
    unsafe { arch::call_stub(stub, &mut registers) };
    registers
}
