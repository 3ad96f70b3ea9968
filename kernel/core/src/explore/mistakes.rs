//! Mistakes that are planted on purpose, to see that explorations find them.

use core::sync::atomic::Ordering;
use std::cell::Cell;
use std::panic::Location;

use crate::sync::Look;

/// A mistake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mistake {
    /// Accesses and fences of this order in the file whose path ends so have no order.
    Weak(&'static str, Ordering),
    /// Something that is looked at again is not.
    NoSecondLook(Look),
}

thread_local! {
    static PLANTED: Cell<Option<Mistake>> = const { Cell::new(None) };
}

/// Does `exploration` with a mistake in the core.
pub fn with<T>(mistake: Mistake, exploration: impl FnOnce() -> T) -> T {
    struct Mend;
    impl Drop for Mend {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }
    PLANTED.set(Some(mistake));
    let _mend = Mend;
    exploration()
}

/// The order that an access at `place` really has.
pub fn weaken(order: Ordering, place: &Location<'_>) -> Ordering {
    match PLANTED.get() {
        Some(Mistake::Weak(file, weak)) if weak == order && place.file().ends_with(file) => Ordering::Relaxed,
        _ => order,
    }
}

/// Whether the core looks again.
pub fn looks_again(look: Look) -> bool {
    PLANTED.get() != Some(Mistake::NoSecondLook(look))
}
