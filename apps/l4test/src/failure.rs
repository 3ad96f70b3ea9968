//! How a test says why it failed.

use core::fmt::{Debug, Display};
use core::panic::Location;

use l4::{IpcError, SysError};
use l4test::report::Verdict;
use l4test::text::Text;

const TEXT_BYTES: usize = 240;

/// Why a test failed, or why it cannot run here.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    why: Text<TEXT_BYTES>,
    is_skip: bool,
}

/// What a test, or a part of one, comes to.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure of the caller's line.
    #[track_caller]
    pub fn new(why: impl Display) -> Self {
        let at = Location::caller();
        let file = at.file().rsplit('/').next().unwrap_or_default();
        Self { why: Text::format(format_args!("{why} ({file}:{})", at.line())), is_skip: false }
    }

    /// The test cannot run on this machine or with this kernel.
    pub fn skip(why: impl Display) -> Self {
        Self { why: Text::format(format_args!("{why}")), is_skip: true }
    }

    /// How a test ended that came to this.
    pub fn verdict(&self) -> Verdict<'_> {
        match self.is_skip {
            true => Verdict::Skipped(self.why.as_str()),
            false => Verdict::Failed(self.why.as_str()),
        }
    }

    /// The same, in some row, thread or step of the test.
    pub fn within(self, part: impl Display) -> Self {
        match self.is_skip {
            true => self,
            false => Self { why: Text::format(format_args!("{part}: {}", self.why)), ..self },
        }
    }
}

impl From<IpcError> for Failure {
    #[track_caller]
    fn from(error: IpcError) -> Self {
        Self::new(format_args!("IPC fails: {error:?}"))
    }
}

impl From<SysError> for Failure {
    #[track_caller]
    fn from(error: SysError) -> Self {
        Self::new(format_args!("the call fails: {error:?}"))
    }
}

/// Adds the part of the test to a failure.
pub trait Within {
    /// The same outcome; a failure tells the part.
    fn within(self, part: impl Display) -> Self;
}

impl<T> Within for Outcome<T> {
    fn within(self, part: impl Display) -> Self {
        self.map_err(|failure| failure.within(part))
    }
}

/// Fails unless `holds`.
#[track_caller]
pub fn check(holds: bool, what: impl Display) -> Outcome {
    if holds { Ok(()) } else { Err(Failure::new(what)) }
}

/// Fails unless what there is equals what there should be.
#[track_caller]
pub fn equal<T: PartialEq + Debug>(what: impl Display, is: T, should: T) -> Outcome {
    if is == should {
        return Ok(());
    }
    Err(Failure::new(format_args!("{what} is {is:x?} instead of {should:x?}")))
}

/// Fails unless `value` is in the range.
#[track_caller]
pub fn within_range(what: impl Display, value: u64, range: core::ops::RangeInclusive<u64>) -> Outcome {
    if range.contains(&value) {
        return Ok(());
    }
    Err(Failure::new(format_args!("{what} is {value}, not in {}..={}", range.start(), range.end())))
}
