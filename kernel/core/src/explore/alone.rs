//! What an execution has left, for whoever looks at it when all processors have come to their ends.

use std::cell::RefCell;

use super::Change;
use super::overlay::Overlay;

thread_local! {
    static VALUES: RefCell<Overlay> = RefCell::new(Overlay::new());
}

/// The execution is over, with this `left`.
pub fn begin(left: impl FnOnce(&mut Overlay)) {
    VALUES.with_borrow_mut(left);
}

pub fn load(address: usize, base: u64) -> u64 {
    VALUES.with_borrow_mut(|values| *values.value(address, base))
}

pub fn change(address: usize, base: u64, change: Change) -> Result<u64, u64> {
    VALUES.with_borrow_mut(|values| {
        let word = values.value(address, base);
        let old = *word;
        *word = change.apply(old).ok_or(old)?;
        Ok(old)
    })
}
