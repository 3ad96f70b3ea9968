//! Rings: written by one processor, read by whoever sees the memory.

use super::{ARGS, Event, RECORDS_PER_PAGE, WORD_BYTES, head, record};

/// Memory to read, by physical address.
pub trait Memory {
    /// The aligned word at `at`; `None`: there is none to be read. Words are read in the order in which they are asked for.
    fn load(&self, at: u64) -> Option<u64>;
}

/// Memory to write. The words of a ring are there.
pub trait Store {
    /// The word at `at`.
    fn get(&self, at: u64) -> u64;
    /// Replaces the word at `at`. Others see words replaced in the order in which that is done.
    fn set(&self, at: u64, word: u64);
}

/// What a record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Record {
    /// The time-stamp counter.
    pub tsc: u64,
    /// The number of the event: of another kernel it need not be one of ours.
    pub event: u16,
    /// The processor.
    pub processor: u16,
    /// The global id of the thread that it is about; 0: no thread.
    pub thread: u64,
    /// Arguments.
    pub args: [u64; ARGS],
}

impl Record {
    /// The event, if it is one of ours.
    pub const fn event(&self) -> Option<Event> {
        Event::new(self.event as usize)
    }
}

/// The ring with its head at this physical address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ring(pub u64);

impl Ring {
    /// Where word `index` of its head is, one of [`head`]; nowhere, if this is no ring.
    pub const fn head_word(self, index: usize) -> u64 {
        self.0.wrapping_add(index as u64 * WORD_BYTES)
    }

    /// Makes the head of a ring of processor `processor` that has these pages, at most [`head::PAGES_MAX`] and at least one; they
    /// and the page of the head are full of zeroes. Nothing is recorded yet.
    pub fn make(self, memory: &impl Store, processor: usize, pages: impl IntoIterator<Item = u64>) {
        let mut count = 0;
        for (index, page) in pages.into_iter().take(head::PAGES_MAX).enumerate() {
            memory.set(self.head_word(head::PAGES + index), page);
            count += 1;
        }
        memory.set(self.head_word(head::PAGES_COUNT), count);
        memory.set(self.head_word(head::PROCESSOR), processor as u64);
        memory.set(self.head_word(head::NEXT), 1);
        memory.set(self.head_word(head::MAGIC), head::MAGIC_WORD);
    }

    /// Adds a record and counts its event. Only the processor whose ring it is does this.
    #[inline]
    pub fn add(self, memory: &impl Store, what: &Record) {
        let next = memory.get(self.head_word(head::NEXT));
        let line = next.wrapping_sub(1);
        let page = (line / RECORDS_PER_PAGE) % memory.get(self.head_word(head::PAGES_COUNT)).max(1);
        let page = memory.get(self.head_word(head::PAGES + page as usize));
        let at = |word: usize| page + ((line % RECORDS_PER_PAGE) * record::WORDS as u64 + word as u64) * WORD_BYTES;
        memory.set(at(record::NUMBER), 0);
        memory.set(at(record::TSC), what.tsc);
        memory.set(at(record::WHAT), u64::from(what.event) | u64::from(what.processor) << 16);
        memory.set(at(record::THREAD), what.thread);
        for (index, arg) in what.args.into_iter().enumerate() {
            memory.set(at(record::FIRST_ARG + index), arg);
        }
        memory.set(at(record::NUMBER), next);
        memory.set(self.head_word(head::NEXT), next + 1);
    }

    /// Counts an event.
    #[inline]
    pub fn count(self, memory: &impl Store, event: Event) {
        let counter = self.head_word(head::COUNTERS + event.number());
        memory.set(counter, memory.get(counter) + 1);
    }

    /// Word `index` of its head, one of [`head`]; `None` if this is no ring.
    pub fn head(self, memory: &impl Memory, index: usize) -> Option<u64> {
        (memory.load(self.head_word(head::MAGIC))? == head::MAGIC_WORD).then_some(())?;
        memory.load(self.head_word(index))
    }

    /// The numbers of the records that can be there, the oldest first; none if this is no ring. While it is written some of
    /// them go.
    pub fn numbers(self, memory: &impl Memory) -> core::ops::Range<u64> {
        let found = || {
            let next = self.head(memory, head::NEXT)?.max(1);
            let pages = self.head(memory, head::PAGES_COUNT)?.min(head::PAGES_MAX as u64);
            Some(next.saturating_sub(pages * RECORDS_PER_PAGE).max(1)..next)
        };
        found().unwrap_or(1..1)
    }

    /// The record with number `number`; `None` if it is not there: overwritten, or about to be.
    pub fn read(self, memory: &impl Memory, number: u64) -> Option<Record> {
        let pages = self.head(memory, head::PAGES_COUNT)?;
        if pages == 0 || pages > head::PAGES_MAX as u64 || number == 0 {
            return None;
        }
        let line = number - 1;
        let page = memory.load(self.head_word(head::PAGES + (line / RECORDS_PER_PAGE % pages) as usize))?;
        let load = |word: usize| {
            memory
                .load(page.checked_add(((line % RECORDS_PER_PAGE) * record::WORDS as u64 + word as u64) * WORD_BYTES)?)
        };
        if load(record::NUMBER)? != number {
            return None;
        }
        let what = load(record::WHAT)?;
        let mut found = Record {
            tsc: load(record::TSC)?,
            event: what as u16,
            processor: (what >> 16) as u16,
            thread: load(record::THREAD)?,
            args: [0; ARGS],
        };
        for (index, arg) in found.args.iter_mut().enumerate() {
            *arg = load(record::FIRST_ARG + index)?;
        }
        (load(record::NUMBER)? == number).then_some(found)
    }

    /// Forgets all records and counters. Nobody else writes meanwhile.
    pub fn clear(self, memory: &(impl Memory + Store)) {
        let Some(pages) = self.head(memory, head::PAGES_COUNT) else { return };
        for index in 0..pages.min(head::PAGES_MAX as u64) as usize {
            let page = memory.get(self.head_word(head::PAGES + index));
            for line in 0..RECORDS_PER_PAGE {
                memory.set(page + line * record::WORDS as u64 * WORD_BYTES, 0);
            }
        }
        memory.set(self.head_word(head::NEXT), 1);
    }

    /// Sets all counters to 0.
    pub fn reset_counters(self, memory: &impl Store) {
        for index in 0..super::EVENTS_MAX {
            memory.set(self.head_word(head::COUNTERS + index), 0);
        }
    }

    /// Replaces a mask: word [`head::RECORDED`] or [`head::STOPS`].
    pub fn set_mask(self, memory: &impl Store, index: usize, mask: u64) {
        memory.set(self.head_word(index), mask);
    }
}
