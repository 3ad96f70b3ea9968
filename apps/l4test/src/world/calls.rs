//! System calls that take everything.

use l4::{Fpage, Rights, space};

/// Flushes all of the calling thread's space. In another space than the program's own: there the image comes back by
/// page faults.
///
/// # Panics
/// In the program's own space.
pub fn flush_complete_space() {
    let supervisor = super::threads::supervisor();
    assert!(l4::thread::inspect(supervisor).is_err(), "the program's own space keeps its memory");
    let mut fpages = [Fpage::COMPLETE.with_rights(Rights::ALL)];
    // SAFETY: what is in the image stays in the program's space, and is mapped again as this thread touches it.
    unsafe { space::flush(&mut fpages) };
}
