//! Each parser of foreign bytes gets damaged input: it must come back, with an error or with something that can be used, and
//! soon. Half of the inputs follow from a fresh seed, which a failure names.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{SystemTime, UNIX_EPOCH};

use damage::damaged;
use damage::targets::{TARGETS, target};

/// The seed that is the same each time.
const SEED: u64 = 1;

/// Feeds a parser with what is made of sound input.
fn feed(name: &str) {
    let target = target(name).expect("the test is of a parser");
    let sound = (target.sound)();
    (target.parse)(&sound);
    let fresh = SystemTime::now().duration_since(UNIX_EPOCH).map_or(2, |time| time.as_millis() as u64 % 1_000_000_000);
    for seed in [SEED, fresh] {
        for number in 0..target.inputs {
            let input = damaged(&sound, seed, number);
            let done = catch_unwind(AssertUnwindSafe(|| (target.parse)(&input)));
            assert!(
                done.is_ok(),
                "{name}: damaged({seed}, {number}) is its end: {:x?}",
                &input[..input.len().min(256)]
            );
        }
    }
}

/// A test for each parser.
macro_rules! tests {
    ($($name:ident),*) => {
        $(
            #[test]
            fn $name() {
                feed(stringify!($name));
            }
        )*
        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

tests!(
    elf,
    multiboot_1,
    multiboot_2,
    start_information,
    acpi,
    kernel_interface_page,
    boot_information,
    messages_to_sigma0,
    files_of_choices,
    kconfig_files,
    kernel_options,
    seeds_and_counts,
    instructions
);

#[test]
fn no_parser_is_left_out() {
    assert_eq!(TESTED, TARGETS.iter().map(|target| target.name).collect::<Vec<_>>());
}
