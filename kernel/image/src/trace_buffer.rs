//! The trace buffer for programs (X.2, trace buffer): pages of kernel memory that all programs can write to, at one address in all
//! spaces. What stands in them is believed by nobody: the kernel keeps within them by its own numbers.
//!
//! The kernel writes the events there that it records ([`crate::trace`]), if it has tracepoints, too. In a kernel that was built
//! without the buffer nothing of this is called.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use kcore::machine::{PhysAddr, PhysMem};
use kformats::trace::Record;
use l4_abi::Word;
use l4_abi::trace_buffer::{MAGIC, header, record};

use crate::config::{SMP, TRACEBUFFER};
use crate::layout::{TRACE_BUFFER, TRACE_BUFFER_BYTES};
use crate::machine::DirectMap;

const PAGE_BYTES: usize = 4096;
const PAGE_WORDS: usize = PAGE_BYTES / size_of::<Word>();
const PAGES_MAX: usize = if TRACEBUFFER { TRACE_BUFFER_BYTES / PAGE_BYTES } else { 0 };
/// The part of kernel memory that the buffer takes at most.
const PART_OF_MEMORY: usize = 4;

/// The frames of its pages; there are [`PAGES`].
static FRAMES: [AtomicU64; PAGES_MAX] = [const { AtomicU64::new(0) }; PAGES_MAX];
static PAGES: AtomicUsize = AtomicUsize::new(0);

const MEMORY: DirectMap = DirectMap { locality: 0 };

/// Takes frames for the buffer, of which `free` are left, and makes its header. Their number is 0 in a kernel without it.
pub fn take(free: usize, mut frame: impl FnMut() -> Option<PhysAddr>) {
    if !TRACEBUFFER {
        return;
    }
    let mut fill = |slot: &AtomicU64| {
        slot.store(frame()?.0, Relaxed);
        Some(())
    };
    let taken = FRAMES.iter().take(free / PART_OF_MEMORY).map_while(&mut fill).count();
    PAGES.store(taken, Relaxed);
    if taken > 0 {
        set(header::MAGIC, MAGIC);
        set(header::MASK, Word::MAX);
        set(header::MAX, capacity() as Word);
        set(header::CONFIG, SMP.into());
    }
}

/// Its pages: where they are to be, and their frames.
pub fn pages() -> impl Iterator<Item = (usize, PhysAddr)> {
    let frames = FRAMES.iter().take(PAGES.load(Relaxed)).map(|frame| PhysAddr(frame.load(Relaxed)));
    (TRACE_BUFFER..).step_by(PAGE_BYTES).zip(frames)
}

/// Its first address and its last; `None` if there is none.
pub fn range() -> Option<(Word, Word)> {
    let pages = PAGES.load(Relaxed);
    (pages > 0).then(|| (TRACE_BUFFER as Word, (TRACE_BUFFER + pages * PAGE_BYTES - 1) as Word))
}

/// Records that there is room for.
fn capacity() -> usize {
    (PAGES.load(Relaxed) * PAGE_WORDS).saturating_sub(header::WORDS) / record::WORDS
}

/// Where a word is, if it is in the buffer.
fn place(index: usize) -> Option<PhysAddr> {
    let frame = FRAMES.get(index / PAGE_WORDS).filter(|_| index / PAGE_WORDS < PAGES.load(Relaxed))?;
    Some(PhysAddr(frame.load(Relaxed) + (index % PAGE_WORDS * size_of::<Word>()) as u64))
}

/// A word of the buffer.
pub fn word(index: usize) -> Option<Word> {
    place(index).map(|at| MEMORY.read(at) as Word)
}

fn set(index: usize, value: Word) {
    if let Some(at) = place(index) {
        MEMORY.write(at, value as usize);
    }
}

/// Writes an event of the kernel's behind the record that was written last, if its group is recorded: a bit for each.
pub fn write(what: &Record) {
    let Some(event) = what.event() else { return };
    let (kind, room) = (1 << event.point().group as u8, capacity());
    if room == 0 || word(header::MASK).is_none_or(|mask| mask & kind == 0) {
        return;
    }
    let current = word(header::CURRENT).map_or(0, |current| current as usize);
    let next = if current < room - 1 { current + 1 } else { 0 };
    // A record lies in one page.
    let Some(PhysAddr(start)) = place(header::WORDS + next * record::WORDS) else { return };
    let put = |index: usize, value: Word| {
        MEMORY.write(PhysAddr(start + (index * size_of::<Word>()) as u64), value as usize);
    };
    put(record::TYPE, kind << 16);
    put(record::WHERE, Word::from(what.processor) | Word::from(what.event) << 16);
    put(record::TSC, what.tsc as Word);
    put(record::THREAD, what.thread as Word);
    (record::COUNTERS..record::ARGS).for_each(|index| put(index, 0));
    for index in 0..record::ARGS_MAX {
        put(record::ARGS + index, what.args.get(index).map_or(0, |arg| *arg as Word));
    }
    set(header::CURRENT, next as Word);
}

const _: () = assert!(PAGE_WORDS.is_multiple_of(record::WORDS) && header::WORDS.is_multiple_of(record::WORDS));
