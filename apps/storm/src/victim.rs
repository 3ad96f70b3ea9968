//! Threads that are deleted, halted and moved while they take part.

use crate::messages::Me;
use crate::progress;

/// The life of a native, citizen or hermit.
pub extern "C" fn run() -> ! {
    let mut me = Me::new();
    progress::wait_for_beginning();
    while !progress::is_over() {
        me.take_part();
        progress::count();
    }
    me.wait_for_roll()
}
