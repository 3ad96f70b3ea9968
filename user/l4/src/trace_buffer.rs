//! The trace buffer: records that programs and the kernel write to memory of theirs together, and that any program and the
//! kernel debugger read. It is there in kernels with the feature `tracebuffer`.
//!
//! To write a record is a few stores, no system call. All programs can write to all of the buffer, so what is read there may be
//! anything.

use core::sync::atomic::Ordering::{Acquire, Relaxed};

pub use l4_abi::trace_buffer as abi;
use l4_abi::trace_buffer::{FEATURE, MAGIC, accepts, header, record};
use l4_abi::{MemoryType, Word};

use crate::{arch, kip, thread};

#[cfg(target_pointer_width = "64")]
type Cell = core::sync::atomic::AtomicU64;
#[cfg(target_pointer_width = "32")]
type Cell = core::sync::atomic::AtomicU32;

/// The buffer.
#[derive(Clone, Copy, Debug)]
pub struct TraceBuffer {
    words: &'static [Cell],
}

/// A record as it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// Its words, by the indices of [`record`].
    pub words: [Word; record::WORDS],
}

impl Record {
    /// The type that a program chose; 0: it is the kernel's.
    pub const fn kind(&self) -> u16 {
        self.words[record::TYPE] as u16
    }

    /// Which event.
    pub const fn id(&self) -> u16 {
        (self.words[record::WHERE] >> 16) as u16
    }

    /// The processor.
    pub const fn processor(&self) -> u16 {
        self.words[record::WHERE] as u16
    }

    /// An argument.
    pub fn arg(&self, index: usize) -> Option<Word> {
        (index < record::ARGS_MAX).then(|| self.words[record::ARGS + index])
    }
}

/// The buffer, if the kernel has one (KIP, memory descriptor: reserved, virtual).
#[doc(alias = "L4_GetTraceBuffer")]
pub fn get() -> Option<TraceBuffer> {
    if !kip::has_feature(FEATURE) {
        return None;
    }
    let is_buffer = |d: &&l4_abi::MemoryDescriptor| d.kind() == MemoryType::Reserved && d.is_virtual();
    let descriptor = kip::memory_descriptors().iter().rfind(is_buffer)?;
    let (low, high) = (descriptor.low() as usize, descriptor.high() as usize);
    let count = high.checked_sub(low)?.checked_add(1)? / size_of::<Cell>();
    let start: *const Cell = core::ptr::with_exposed_provenance(low);
    // SAFETY: the kernel has this memory in all spaces for ever, for programs to read and write, and says so by the feature and the
    // descriptor; others write to it at any time, so it is made of atomics.
    TraceBuffer::over(unsafe { core::slice::from_raw_parts(start, count) })
}

impl TraceBuffer {
    /// A buffer in these words; `None` if they are none.
    fn over(words: &'static [Cell]) -> Option<Self> {
        let is_one = words.len() >= header::WORDS + record::WORDS && words[header::MAGIC].load(Relaxed) == MAGIC;
        is_one.then_some(Self { words })
    }

    /// A word of the header, by the indices of [`header`]; 0 beyond it.
    pub fn header(&self, index: usize) -> Word {
        self.words[..header::WORDS].get(index).map_or(0, |word| word.load(Relaxed))
    }

    /// Replaces one, for all programs.
    pub fn set_header(&self, index: usize, value: Word) {
        if let Some(word) = self.words[..header::WORDS].get(index) {
            word.store(value, Relaxed);
        }
    }

    /// How many records there is room for, at least one, whatever stands in the header.
    pub fn capacity(&self) -> usize {
        let room = (self.words.len() - header::WORDS) / record::WORDS;
        (self.words[header::MAX].load(Relaxed) as usize).clamp(1, room)
    }

    /// The index of the record that was written last.
    pub fn current(&self) -> usize {
        (self.words[header::CURRENT].load(Acquire) as usize).min(self.capacity() - 1)
    }

    /// Which types are recorded ([`accepts`]).
    pub fn mask(&self) -> Word {
        self.header(header::MASK)
    }

    /// Chooses them, for all programs.
    pub fn set_mask(&self, mask: Word) {
        self.set_header(header::MASK, mask);
    }

    /// The index of the next record, which is the caller's to fill: [`TraceBuffer::store_record`].
    #[doc(alias = "L4_Tbuf_NextRecord")]
    pub fn next_record(&self) -> usize {
        let capacity = self.capacity() as Word;
        let after = |current: Word| if current >= capacity - 1 { 0 } else { current + 1 };
        let current = &self.words[header::CURRENT];
        let mut old = current.load(Relaxed);
        while let Err(now) = current.compare_exchange_weak(old, after(old), Acquire, Relaxed) {
            old = now;
        }
        after(old) as usize
    }

    /// Fills record `index`: of this thread, now, with up to nine arguments; more are left out. `text` is the address of a text
    /// that says what it is, or 0. Nothing happens beyond the last record.
    #[doc(alias = "L4_Tbuf_StoreRecord")]
    pub fn store_record(&self, index: usize, kind: u16, id: u16, text: Word, args: &[Word]) {
        let Some(words) = self.record_words(index) else { return };
        let processor = crate::utcb().processor_no() & 0xFFFF;
        let tsc = arch::timestamp() as Word;
        let first = [kind.into(), processor | Word::from(id) << 16, tsc, thread::my_global_id().raw(), 0, 0, text];
        let args = args.iter().copied().chain(core::iter::repeat(0));
        let values = first.into_iter().chain(args);
        words.iter().zip(values).for_each(|(word, value)| word.store(value, Relaxed));
    }

    /// Records an event of type `kind`, not 0, with up to nine arguments, if such are recorded: its index then.
    #[doc(alias = "L4_Tbuf_RecordEvent")]
    #[doc(alias = "L4_Tbuf_RecordEvent_t0")]
    #[doc(alias = "L4_Tbuf_RecordEvent_t1")]
    #[doc(alias = "L4_Tbuf_RecordEvent_t2")]
    #[doc(alias = "L4_Tbuf_RecordEvent_t3")]
    #[doc(alias = "L4_Tbuf_RecordEvent_t4")]
    pub fn record_event(&self, kind: u16, id: u16, text: Word, args: &[Word]) -> Option<usize> {
        if !accepts(self.mask(), kind.into()) {
            return None;
        }
        let index = self.next_record();
        self.store_record(index, kind, id, text, args);
        Some(index)
    }

    /// Counter `index`, one more; 0 beyond the last of them.
    #[doc(alias = "L4_Tbuf_IncCounter")]
    pub fn increment_counter(&self, index: usize) -> Word {
        self.counter_word(index).map_or(0, |counter| counter.fetch_add(1, Relaxed).wrapping_add(1))
    }

    /// Counter `index`; 0 beyond the last of them.
    pub fn counter(&self, index: usize) -> Word {
        self.counter_word(index).map_or(0, |counter| counter.load(Relaxed))
    }

    /// Record `index`; `None` beyond the last.
    pub fn read(&self, index: usize) -> Option<Record> {
        let words = self.record_words(index)?;
        Some(Record { words: core::array::from_fn(|word| words[word].load(Relaxed)) })
    }

    fn counter_word(&self, index: usize) -> Option<&'static Cell> {
        (index < header::COUNTERS_MAX).then(|| &self.words[header::COUNTERS + index])
    }

    fn record_words(&self, index: usize) -> Option<&'static [Cell]> {
        let start = header::WORDS.checked_add(index.checked_mul(record::WORDS)?)?;
        self.words.get(start..start.checked_add(record::WORDS)?)
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn buffer(records: usize, max: Word) -> TraceBuffer {
        let words: Vec<Cell> = (0..header::WORDS + records * record::WORDS).map(|_| Cell::new(0)).collect();
        words[header::MAGIC].store(MAGIC, Relaxed);
        words[header::MAX].store(max, Relaxed);
        words[header::MASK].store(Word::MAX, Relaxed);
        TraceBuffer::over(words.leak()).expect("that is one")
    }

    #[test]
    fn records_go_round_and_the_header_is_not_believed() {
        let four = buffer(4, 4);
        let indices: Vec<usize> = (0..6).map(|_| four.next_record()).collect();
        assert_eq!(indices, [1, 2, 3, 0, 1, 2]);
        for max in [0, 9, Word::MAX] {
            let four = buffer(4, max);
            four.words[header::CURRENT].store(Word::MAX, Relaxed);
            assert!((1..=4).contains(&four.capacity()) && four.current() < four.capacity());
            assert_eq!(four.next_record(), 0);
            assert!(four.read(four.current()).is_some() && four.read(4).is_none() && four.read(usize::MAX).is_none());
        }
        assert!(TraceBuffer::over(Vec::new().leak()).is_none());
    }

    #[test]
    fn counters_and_masks() {
        let one = buffer(1, 1);
        assert_eq!((one.increment_counter(7), one.increment_counter(7), one.counter(7)), (1, 2, 2));
        assert_eq!((one.increment_counter(8), one.counter(8), one.counter(0)), (0, 0, 0));
        one.set_mask(0);
        assert_eq!(one.record_event(1, 100, 0, &[]), None);
        one.set_mask(2 << 16);
        assert!(!accepts(one.mask(), 1) && accepts(one.mask(), 2) && accepts(one.mask(), 3));
    }
}
