//! Feeds a parser of foreign bytes with what libFuzzer makes up: inputs that lead to places which none before led to.
//!
//! The parsers, and what must be true of them, are those of the tests in `tools/damage`; the variable `FEED` names one.
//! `cargo xtask feed` builds this with counters in the code and runs it. With `FEED_SOUND` it writes the sound input of that
//! parser into the file that the variable names, and stops.
#![no_main]

use std::sync::OnceLock;

use damage::targets::{TARGETS, Target, target};
use libfuzzer_sys::fuzz_target;

/// The variable with the name of the parser, and the one with the file for its sound input.
const VARIABLE: &str = "FEED";
const SOUND: &str = "FEED_SOUND";

fn chosen() -> &'static Target {
    static CHOSEN: OnceLock<&Target> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let name = std::env::var(VARIABLE).unwrap_or_default();
        let names = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
        target(&name).unwrap_or_else(|| panic!("{VARIABLE}={name}: there are {}", names()))
    })
}

/// Before the first input.
fn prepare() {
    let Some(file) = std::env::var_os(SOUND) else { return };
    let written = std::fs::write(&file, (chosen().sound)());
    std::process::exit(i32::from(written.is_err()));
}

fuzz_target!(init: prepare(), |bytes: &[u8]| (chosen().parse)(bytes));
