//! The kernel's trace: where it lies in memory, and what an event says. The kernel writes it, the debugger reads it, and so do
//! tools that see the memory of a machine from outside, running or dead.
//!
//! Everything is made of little-endian words of 64 bits, at physical addresses.
//!
//! - The *root* is the symbol `kernel_trace`, [`root`] says what its words are. It is there only in kernels with
//!   tracepoints, and names the ring of each processor.
//! - A *ring* is a page with a head, see [`head`], that names pages with records. One processor writes it, and
//!   overwrites the oldest.
//! - A *record* is a line of 64 bytes, see [`record`]. Its first word is the number of the event in this ring, from 1 on;
//!   it is 0 while the rest of the line is being written. So who finds the same number before and after the rest has it
//!   whole.
//!
//! [`Event`] are the tracepoints, and [`POINTS`] says for each what its arguments are.

mod merge;
mod points;
mod ring;
#[cfg(test)]
mod tests;
mod text;

pub use merge::{Merged, Place};
pub use points::{Event, Group, Kind, POINTS, Point};
pub use ring::{Memory, Record, Ring, Store};
pub use text::{Names, Shown, numbers};

/// Words of a page.
pub const PAGE_WORDS: usize = 512;
/// Bytes of a word.
pub const WORD_BYTES: u64 = 8;
/// Arguments of a record.
pub const ARGS: usize = 4;
/// Events that a mask can name: a bit for each, by number.
pub const EVENTS_MAX: usize = 64;

/// Words of the root, `kernel_trace`.
pub mod root {
    /// [`MAGIC_WORD`].
    pub const MAGIC: usize = 0;
    /// The format, [`super::layout`]: who has another one cannot read the trace.
    pub const LAYOUT: usize = 1;
    /// What the time-stamp counters count in a millisecond. They agree on all processors, and the kernel's clock is
    /// `ticks * 1000 / kHz` microseconds.
    pub const TSC_KHZ: usize = 2;
    /// Entries from [`RINGS`] on.
    pub const RINGS_COUNT: usize = 3;
    /// Interrupt lines of which alone events are recorded: a bit for each, in [`LINES_WORDS`] words; all of them if there is none.
    pub const LINES: usize = 5;
    /// See [`LINES`]. Lines beyond are always recorded.
    pub const LINES_WORDS: usize = 3;
    /// Threads of which alone events are recorded, how many there are from [`CHOSEN`] on; 0: of all threads.
    pub const CHOSEN_COUNT: usize = 4;
    /// Their ids.
    pub const CHOSEN: usize = 8;
    /// How many there can be.
    pub const CHOSEN_MAX: usize = 8;
    /// For each processor the physical address of its ring's head; 0: it has none.
    pub const RINGS: usize = 16;
    /// What stands in the first word.
    pub const MAGIC_WORD: u64 = u64::from_le_bytes(*b"McTrace\x01");
}

/// Words of a ring's head, a page. The words behind those named are 0.
pub mod head {
    /// [`MAGIC_WORD`].
    pub const MAGIC: usize = 0;
    /// The processor's number.
    pub const PROCESSOR: usize = 1;
    /// The number of the record that comes next: one more than records were written so far.
    pub const NEXT: usize = 2;
    /// Pages of records: from [`PAGES`] on.
    pub const PAGES_COUNT: usize = 3;
    /// Events that this processor records: a bit for each.
    pub const RECORDED: usize = 4;
    /// Events at which this processor enters the debugger: a bit for each.
    pub const STOPS: usize = 5;
    /// The thread that ran last, by its global id; 0: none, or the processor had nothing to do.
    pub const RAN: usize = 6;
    /// How often each event came while it was recorded or stopped at, by its number.
    pub const COUNTERS: usize = 8;
    /// Physical addresses of the pages.
    pub const PAGES: usize = COUNTERS + super::EVENTS_MAX;
    /// How many there can be.
    pub const PAGES_MAX: usize = 256;
    /// What stands in the first word.
    pub const MAGIC_WORD: u64 = u64::from_le_bytes(*b"McRing\x00\x01");

    const _: () = assert!(PAGES + PAGES_MAX <= super::PAGE_WORDS);
}

/// Words of a record.
pub mod record {
    /// The number of the event in its ring, from 1 on; 0: there is none, or it is being written. Record `n` is in line
    /// `(n - 1) % lines` of the ring, which are counted through its pages.
    pub const NUMBER: usize = 0;
    /// The time-stamp counter.
    pub const TSC: usize = 1;
    /// Bits 0 to 15 the event, 16 to 31 the processor; the others are 0.
    pub const WHAT: usize = 2;
    /// The global id of the thread that the event is about: the running one, unless the event says otherwise. 0: no thread.
    pub const THREAD: usize = 3;
    /// Arguments; those that the event does not have are 0.
    pub const FIRST_ARG: usize = 4;
    /// Words of a record.
    pub const WORDS: usize = FIRST_ARG + super::ARGS;
}

/// Records in a page.
pub const RECORDS_PER_PAGE: u64 = (PAGE_WORDS / record::WORDS) as u64;

/// A number that stands for the format: it changes when a word moves, or an event gets another name, number or argument.
pub const fn layout() -> u64 {
    let words = [
        root::TSC_KHZ,
        root::RINGS_COUNT,
        root::CHOSEN_COUNT,
        root::LINES,
        root::LINES_WORDS,
        root::CHOSEN,
        root::CHOSEN_MAX,
        root::RINGS,
        head::PROCESSOR,
        head::NEXT,
        head::PAGES_COUNT,
        head::RECORDED,
        head::STOPS,
        head::RAN,
        head::COUNTERS,
        head::PAGES,
        head::PAGES_MAX,
        record::NUMBER,
        record::TSC,
        record::WHAT,
        record::THREAD,
        record::FIRST_ARG,
        record::WORDS,
    ];
    let mut hash = points::hash();
    let mut index = 0;
    while index < words.len() {
        hash = points::mix(hash, words[index] as u8);
        hash = points::mix(hash, (words[index] >> 8) as u8);
        index += 1;
    }
    hash
}
