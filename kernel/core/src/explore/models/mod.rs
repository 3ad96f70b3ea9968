//! What is explored.

mod attention;
mod crew;
mod handovers;
mod meetings;
mod shootdowns;
mod worlds;

use super::mistakes::{self, Mistake};

/// A number from the environment.
pub fn number_from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|number| number.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// What a long run is to say when it has passed, too.
fn tell(what: &str) {
    let prefix = if number_from_environment("KCORE_SCHEDULES").is_some() { "note: " } else { "" };
    println!("{prefix}{what}");
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// Whether an exploration with this mistake fails.
fn finds(mistake: Mistake, exploration: impl Fn()) -> bool {
    let exploration = std::panic::AssertUnwindSafe(exploration);
    mistakes::with(mistake, || std::panic::catch_unwind(|| exploration()).is_err())
}
