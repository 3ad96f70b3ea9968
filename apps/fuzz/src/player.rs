//! Players: they make system calls until they cannot any more.

use core::hint::spin_loop;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::call::Caller;

static SEED: AtomicU64 = AtomicU64::new(0);

/// The seed of the run.
pub fn seed() -> u64 {
    SEED.load(Relaxed)
}

/// Sets the seed of the run.
pub fn set_seed(seed: u64) {
    SEED.store(seed, Relaxed);
}

/// The life of a player.
pub extern "C" fn play() -> ! {
    // A wild thread that was sent here has nothing to do.
    let Some(mut caller) = Caller::new(seed()) else { l4::time::sleep_forever() };
    loop {
        caller.step();
        // An emulator that counts instructions goes on with another processor here. Without a word it may forget one for ever.
        spin_loop();
    }
}
