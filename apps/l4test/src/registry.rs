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
    /// Why its threads run on the first processor, all of them, even if those of other tests are spread.
    pub together: Option<&'static str>,
}

/// The tests of a chapter: `chapter! { ipc: "X.2, Ipc, phases" => [words_arrive, ...], ... }` makes `TESTS` of the
/// functions. A clause that is not in the list does not compile.
///
/// `words_arrive: "it counts instructions"` says why the threads of this test are not spread over the processors.
macro_rules! chapter {
    ($chapter:ident: $($clause:literal => [$($test:ident $(: $together:expr)?),+ $(,)?]),+ $(,)?) => {
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
                together: $crate::registry::reason(&[$($together)?]),
            },
        )+)+];
    };
}
pub(crate) use chapter;

/// The reason, if there is one.
pub const fn reason(given: &[&'static str]) -> Option<&'static str> {
    match given {
        [] => None,
        [reason, ..] => Some(reason),
    }
}

/// All tests, chapter by chapter.
pub fn all() -> impl Iterator<Item = &'static Test> {
    chapters::ALL.iter().copied().flatten()
}
