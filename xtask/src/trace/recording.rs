//! What is taken from the rings of a kernel: from the memory of a machine that runs, again and again, so that nothing is
//! lost as long as that is quicker than the kernel; or once, from what is left of a dead one.
//!
//! The kernel knows nothing of it: nobody waits for a reader. A ring's head says how many records were written; those that may
//! have been overwritten while they were read are thrown away, and what is missing between two readings is counted.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Result, bail};
use kformats::trace::{ARGS, Memory as _, RECORDS_PER_PAGE, Record, Ring, WORD_BYTES, head, layout, record, root};

use crate::dump::memory::Memory;

/// Bytes of a record.
const LINE: usize = record::WORDS * WORD_BYTES as usize;
/// Records of a processor that are kept: the newest. They make a file of 80 MB; viewers are slow with much more.
const KEPT: u64 = 1 << 18;
/// Records that are read back at a time.
const BLOCK: u64 = 1 << 10;

/// Takes records as they come.
pub struct Reader {
    memory: Memory,
    /// The physical address of `kernel_trace`.
    root: u64,
    kept: u64,
    lanes: Vec<Lane>,
}

/// What one processor has recorded.
struct Lane {
    ring: Ring,
    pages: Vec<u64>,
    /// The number of the record to be taken next.
    next: u64,
    /// Records taken so far; those that are kept are in `spool`, at their place among the taken ones modulo `kept`.
    taken: u64,
    /// Records that were overwritten before they were taken.
    lost: u64,
    spool: File,
}

impl Reader {
    /// A reader of the trace whose root is at this physical address.
    pub fn new(memory: Memory, root: u64) -> Self {
        Self { memory, root, kept: KEPT, lanes: Vec::new() }
    }

    fn root_word(&self, index: usize) -> u64 {
        self.memory.load(self.root + index as u64 * WORD_BYTES).unwrap_or(0)
    }

    /// Takes what is there. A kernel that has not begun to record has nothing.
    ///
    /// # Errors
    /// The trace has another format, or there is no room on the disk.
    pub fn take(&mut self) -> Result<()> {
        if self.root_word(root::MAGIC) != root::MAGIC_WORD {
            return Ok(());
        }
        if self.root_word(root::LAYOUT) != layout() {
            bail!("the kernel's trace has another format than this tool knows: build the tool of that time");
        }
        self.find_rings()?;
        let kept = self.kept;
        self.lanes.iter_mut().try_for_each(|lane| lane.take(&self.memory, kept))
    }

    /// Adds the rings of processors that have come.
    fn find_rings(&mut self) -> Result<()> {
        let count = self.root_word(root::RINGS_COUNT).min(u64::from(u16::MAX)) as usize;
        let known = self.lanes.len();
        for index in 0..if known < count { count } else { 0 } {
            let ring = Ring(self.root_word(root::RINGS + index));
            if ring.0 != 0 && self.lanes.iter().all(|lane| lane.ring != ring) {
                self.lanes.extend(Lane::new(&self.memory, ring)?);
            }
        }
        Ok(())
    }

    /// All that was taken, and the memory.
    pub fn finish(self) -> (Recording, Memory) {
        let khz = self.root_word(root::TSC_KHZ);
        let kept = self.kept;
        let lanes = self.lanes.into_iter().map(|lane| Kept::new(lane, kept)).collect();
        (Recording { khz, lanes }, self.memory)
    }
}

impl Lane {
    /// `None`: this is no ring.
    fn new(memory: &Memory, ring: Ring) -> Result<Option<Self>> {
        let Some(count @ 1..) = ring.head(memory, head::PAGES_COUNT) else { return Ok(None) };
        let pages = (0..count.min(head::PAGES_MAX as u64) as usize)
            .map_while(|index| ring.head(memory, head::PAGES + index))
            .collect();
        Ok(Some(Self { ring, pages, next: 1, taken: 0, lost: 0, spool: tempfile::tempfile()? }))
    }

    fn lines(&self) -> u64 {
        self.pages.len() as u64 * RECORDS_PER_PAGE
    }

    fn take(&mut self, memory: &Memory, kept: u64) -> Result<()> {
        let Some(end) = self.ring.head(memory, head::NEXT) else { return Ok(()) };
        if end < self.next {
            // Somebody has emptied the ring.
            self.next = 1;
        }
        let begin = self.next.max(end.saturating_sub(self.lines()));
        let mut lines = vec![0; (end - begin) as usize * LINE];
        let mut there = 0;
        while there < end - begin {
            let (page, first) = self.place(begin + there);
            let count = (RECORDS_PER_PAGE - first).min(end - begin - there);
            let part = &mut lines[there as usize * LINE..(there + count) as usize * LINE];
            if memory.read(page + first * LINE as u64, part) < part.len() {
                bail!("a ring of the trace is not in memory");
            }
            there += count;
        }
        // The kernel writes its records in order, and may be about to write this one over the oldest.
        let now = self.ring.head(memory, head::NEXT).unwrap_or(end);
        let whole = begin.max((now + 1).saturating_sub(self.lines())).min(end);
        self.lost += whole - self.next;
        self.next = end;
        self.keep(&lines[(whole - begin) as usize * LINE..], kept)
    }

    /// The page and the line of record `number`.
    fn place(&self, number: u64) -> (u64, u64) {
        let line = (number - 1) % self.lines();
        (self.pages[(line / RECORDS_PER_PAGE) as usize], line % RECORDS_PER_PAGE)
    }

    fn keep(&mut self, mut lines: &[u8], kept: u64) -> Result<()> {
        while !lines.is_empty() {
            let at = self.taken % kept;
            let (now, later) = lines.split_at(lines.len().min((kept - at) as usize * LINE));
            self.spool.write_all_at(now, at * LINE as u64)?;
            self.taken += (now.len() / LINE) as u64;
            lines = later;
        }
        Ok(())
    }
}

/// What was taken of one processor's records.
struct Kept {
    spool: File,
    kept: u64,
    /// Where the next one is among those that were taken.
    next: u64,
    taken: u64,
    lost: u64,
    left_out: u64,
    block: VecDeque<Record>,
}

impl Kept {
    fn new(lane: Lane, kept: u64) -> Self {
        let left_out = lane.taken.saturating_sub(kept);
        Self {
            spool: lane.spool,
            kept,
            next: left_out,
            taken: lane.taken,
            lost: lane.lost,
            left_out,
            block: VecDeque::new(),
        }
    }

    /// Makes the next record the first one in `block`, if there is one.
    fn fill(&mut self) -> Result<()> {
        if !self.block.is_empty() || self.next == self.taken {
            return Ok(());
        }
        let at = self.next % self.kept;
        let count = BLOCK.min(self.taken - self.next).min(self.kept - at);
        let mut bytes = vec![0; count as usize * LINE];
        self.spool.read_exact_at(&mut bytes, at * LINE as u64)?;
        self.block.extend(bytes.chunks_exact(LINE).map(decode));
        self.next += count;
        Ok(())
    }
}

/// The record in a line.
fn decode(line: &[u8]) -> Record {
    let word = |index: usize| line[index * 8..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    let what = word(record::WHAT);
    let mut args = [0; ARGS];
    args.iter_mut().enumerate().for_each(|(index, arg)| *arg = word(record::FIRST_ARG + index));
    Record {
        tsc: word(record::TSC),
        event: what as u16,
        processor: (what >> 16) as u16,
        thread: word(record::THREAD),
        args,
    }
}

/// What was recorded by all processors.
pub struct Recording {
    /// What the time-stamp counters count in a millisecond; 0: nothing was recorded.
    pub khz: u64,
    lanes: Vec<Kept>,
}

impl Recording {
    /// Events that were overwritten in the kernel before they were taken.
    pub fn lost(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.lost).sum()
    }

    /// Events that were taken, but not kept, as newer ones came.
    pub fn left_out(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.left_out).sum()
    }

    /// The next event in the order of time; those at one time in that of the processors.
    pub fn next(&mut self) -> Result<Option<Record>> {
        self.lanes.iter_mut().try_for_each(Kept::fill)?;
        let first = self.lanes.iter_mut().filter(|lane| !lane.block.is_empty()).min_by_key(|lane| lane.block[0].tsc);
        Ok(first.and_then(|lane| lane.block.pop_front()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::path::PathBuf;

    use kformats::trace::{Event, RECORDS_PER_PAGE, Record, Ring, Store, head, layout, root};

    use super::Reader;
    use crate::dump::memory::Memory;
    use crate::qemu::MemoryPart;

    const ROOT: u64 = 0x1000;
    const HEADS: [Ring; 2] = [Ring(0x2000), Ring(0x3000)];
    /// The pages of the second ring are in another part of the memory.
    const PAGES: [[u64; 2]; 2] = [[0x6000, 0x5000], [0x10_1000, 0x10_0000]];
    const LINES: u64 = 2 * RECORDS_PER_PAGE;

    /// The memory of a machine in files, with a kernel that writes there.
    struct World {
        files: [tempfile::NamedTempFile; 2],
    }

    impl World {
        fn new() -> Self {
            let files = [(); 2].map(|()| tempfile::NamedTempFile::new().expect("a file"));
            files.iter().for_each(|file| file.as_file().set_len(0x8000).expect("room"));
            let world = Self { files };
            for (index, (ring, pages)) in HEADS.into_iter().zip(PAGES).enumerate() {
                ring.make(&world, index, pages);
                world.set_root(root::RINGS + index, ring.0);
            }
            world.set_root(root::MAGIC, root::MAGIC_WORD);
            world.set_root(root::LAYOUT, layout());
            world.set_root(root::TSC_KHZ, 1000);
            world.set_root(root::RINGS_COUNT, 4);
            world
        }

        fn set_root(&self, index: usize, word: u64) {
            self.set(ROOT + index as u64 * 8, word);
        }

        fn place(&self, at: u64) -> (&std::fs::File, u64) {
            let file = self.files[usize::from(at >= 0x10_0000)].as_file();
            (file, at % 0x10_0000)
        }

        fn reader(&self) -> Reader {
            let part = |index: usize, begin: u64| {
                let file: PathBuf = self.files[index].path().to_owned();
                MemoryPart { begin, bytes: 0x8000, file, offset: 0 }
            };
            Reader::new(Memory::of_machine(vec![part(0, 0), part(1, 0x10_0000)]).expect("two files"), ROOT)
        }

        /// The processor records events at these times.
        fn record(&self, processor: usize, times: impl IntoIterator<Item = u64>) {
            for tsc in times {
                let event = Event::SmpIpi.number() as u16;
                let record =
                    Record { tsc, event, processor: processor as u16, thread: !tsc, args: [tsc, 2 * tsc, 3, 4] };
                HEADS[processor].add(self, &record);
            }
        }
    }

    impl Store for World {
        fn get(&self, at: u64) -> u64 {
            let (file, at) = self.place(at);
            let mut word = [0; 8];
            file.read_exact_at(&mut word, at).expect("within the memory");
            u64::from_le_bytes(word)
        }
        fn set(&self, at: u64, word: u64) {
            let (file, at) = self.place(at);
            file.write_all_at(&word.to_le_bytes(), at).expect("within the memory");
        }
    }

    /// What a reader has in the end: times, lost, left out.
    fn result(reader: Reader) -> (Vec<u64>, u64, u64) {
        let (mut recording, _) = reader.finish();
        let (lost, left_out) = (recording.lost(), recording.left_out());
        let mut times = Vec::new();
        while let Some(record) = recording.next().expect("a spool") {
            assert_eq!((record.thread, record.args), (!record.tsc, [record.tsc, 2 * record.tsc, 3, 4]));
            times.push(record.tsc);
        }
        (times, lost, left_out)
    }

    #[test]
    fn a_reader_that_is_quick_enough_loses_nothing() {
        let world = World::new();
        let mut reader = world.reader();
        for round in 0..10 {
            // Both processors in turn, in steps that do not divide the ring.
            let times = round * 100..round * 100 + 100;
            world.record(0, times.clone().step_by(2));
            world.record(1, times.skip(1).step_by(2));
            reader.take().expect("a trace");
        }
        assert_eq!(result(reader), ((0..1000).collect(), 0, 0));
    }

    #[test]
    fn what_was_overwritten_is_counted() {
        let world = World::new();
        let mut reader = world.reader();
        reader.take().expect("a trace");
        world.record(0, 0..3 * LINES + 5);
        reader.take().expect("a trace");
        world.record(0, 1000..1010);
        reader.take().expect("a trace");
        // The oldest line may be about to be overwritten, so it counts as lost.
        let there = (2 * LINES + 6..3 * LINES + 5).chain(1000..1010).collect();
        assert_eq!(result(reader), (there, 2 * LINES + 6, 0));
    }

    #[test]
    fn the_newest_are_kept() {
        let world = World::new();
        let mut reader = world.reader();
        reader.kept = 50;
        for round in 0..7 {
            world.record(1, round * 31..round * 31 + 31);
            reader.take().expect("a trace");
        }
        assert_eq!(result(reader), ((167..217).collect(), 0, 167));
    }

    #[test]
    fn an_emptied_ring_is_read_from_its_beginning() {
        let world = World::new();
        let mut reader = world.reader();
        world.record(0, 0..10);
        reader.take().expect("a trace");
        world.set(HEADS[0].0 + head::NEXT as u64 * 8, 1);
        reader.take().expect("a trace");
        world.record(0, 20..25);
        reader.take().expect("a trace");
        assert_eq!(result(reader), ((0..10).chain(20..25).collect(), 0, 0));
    }

    #[test]
    fn processors_that_come_later_are_found() {
        let world = World::new();
        world.set_root(root::RINGS + 1, 0);
        world.record(0, 0..3);
        let mut reader = world.reader();
        reader.take().expect("a trace");
        world.set_root(root::RINGS + 1, HEADS[1].0);
        world.record(1, 3..5);
        reader.take().expect("a trace");
        assert_eq!(result(reader), ((0..5).collect(), 0, 0));
    }

    #[test]
    fn what_is_no_trace_has_no_events_and_another_format_is_refused() {
        let world = World::new();
        world.record(0, 0..3);
        world.set_root(root::MAGIC, 0);
        let mut reader = world.reader();
        reader.take().expect("nothing yet");
        assert_eq!(result(reader), (vec![], 0, 0));
        world.set_root(root::MAGIC, root::MAGIC_WORD);
        world.set_root(root::LAYOUT, layout() + 1);
        assert!(world.reader().take().is_err_and(|error| error.to_string().contains("another format")));
        world.set_root(root::LAYOUT, layout());
        world.set(HEADS[0].0 + head::PAGES as u64 * 8, 0x77_0000);
        assert!(world.reader().take().is_err_and(|error| error.to_string().contains("not in memory")));
    }
}
