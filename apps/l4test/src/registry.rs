//! The list of all tests.

use crate::chapters;
use crate::failure::Outcome;

/// A test.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// `chapter::what_the_user_sees`.
    pub name: &'static str,
    /// What of the specification it is about: a clause of `docs/clauses.txt`.
    pub clause: &'static str,
    /// Runs it, in a thread of its own.
    pub run: fn() -> Outcome,
}

/// The tests of a chapter: `chapter! { ipc: "X.2, Ipc, phases" => [words_arrive, ...], ... }` makes `TESTS` of the
/// functions. A clause that is not in the list does not compile.
macro_rules! chapter {
    ($chapter:ident: $($clause:literal => [$($test:ident),+ $(,)?]),+ $(,)?) => {
        pub const TESTS: &[$crate::registry::Test] = &[$($(
            $crate::registry::Test {
                name: concat!(stringify!($chapter), "::", stringify!($test)),
                clause: {
                    const {
                        assert!(
                            l4test::clauses::contains($clause),
                            "the clause is not in the list: mend its name, or enter it in docs/clauses.txt and docs/spec.md"
                        );
                    }
                    $clause
                },
                run: $test,
            },
        )+)+];
    };
}
pub(crate) use chapter;

/// All tests, chapter by chapter.
pub fn all() -> impl Iterator<Item = &'static Test> {
    chapters::ALL.iter().copied().flatten()
}
