//! Traces: what the tracepoints of a kernel recorded, as a file for ui.perfetto.dev and chrome://tracing, and as text.
//!
//! A machine that is traced has its memory in files ([`crate::qemu::MemoryPart`]), and this tool reads the kernel's rings
//! there while it runs, and once more when it has ended. Nothing in the machine waits for that or notices it: a run that is
//! the same each time is the same with it, and a machine that ends at once, by a port or because it was killed, leaves its
//! last events.

mod args;
mod json;
mod recording;
mod story;
mod summary;
mod who;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::statvfs;
use serde_json::Map;
use tempfile::TempDir;

use crate::dump::memory::Memory;
use crate::dump::remains::{Image, KERNEL_BASE, Roster};
use crate::qemu::{Console, Ended, Machine};
use crate::usage;
use recording::{Reader, Recording};
use story::Story;
use summary::Summary;
use who::Who;

/// The named configuration of a kernel that can be traced.
pub const CONFIGURATION: &str = "trace";
/// The symbol of the kernel's trace.
const ROOT: &str = "kernel_trace";
/// Words for the kernel that record everything, in rings as long as they can be, unless it is told otherwise.
const KERNEL_WORDS: [(&str, &str); 2] = [("trace=", "trace=all"), ("tracepages=", "tracepages=256")];
/// How long this tool lets the machine run before it looks again. A ring holds many times more than that.
const PAUSE: Duration = Duration::from_millis(1);

/// What the time-stamp counter counts, where nothing better is known.
pub const TICKS: &str = "ticks of the time-stamp counter";

/// The physical address of a kernel's trace; `None`: it has no tracepoints.
pub fn root_of(image: &Image) -> Option<u64> {
    image.address(ROOT).ok()?.checked_sub(KERNEL_BASE)
}

/// The same, of a kernel that must have one.
fn needed_root(image: &Image, kernel: &Path) -> Result<u64> {
    match root_of(image) {
        Some(root) => Ok(root),
        None => usage!(
            "{} has no tracepoints: take a configuration with TRACEPOINTS, such as --config {CONFIGURATION}, and its file with symbols",
            kernel.display()
        ),
    }
}

/// The kernel's options, with those for a trace.
pub fn kernel_args(args: &str) -> String {
    let mut words: Vec<&str> = args.split_whitespace().collect();
    for (start, word) in KERNEL_WORDS {
        if !words.iter().any(|word| word.starts_with(start)) {
            words.push(word);
        }
    }
    words.join(" ")
}

/// A machine that is to be traced.
pub struct Traced {
    machine: Machine,
    reader: Reader,
    image: Image,
    /// Where its memory is.
    _dir: TempDir,
}

impl Traced {
    /// Prepares it. `kernel` is the file with symbols of the kernel that it boots.
    pub fn new(machine: &Machine, kernel: &Path) -> Result<Self> {
        let image = Image::open(kernel)?;
        let root = needed_root(&image, kernel)?;
        let dir = place_for(machine.memory_mib << 20)?;
        let machine = Machine { memory_dir: Some(dir.path().to_owned()), ..machine.clone() };
        let parts = machine.memory_parts();
        // The emulator makes files as long as they must be, and takes those that are there.
        parts.iter().try_for_each(|part| File::create(&part.file).map(drop))?;
        Ok(Self { reader: Reader::new(Memory::of_machine(parts)?, root), machine, image, _dir: dir })
    }

    /// Boots it and reads its trace until it ends; also what it recorded.
    pub fn boot(mut self, console: &Console, timeout: Option<Duration>) -> Result<(Ended, Trace)> {
        let has_ended = AtomicBool::new(false);
        let (machine, reader) = (&self.machine, &mut self.reader);
        let (ended, read) = thread::scope(|scope| {
            let read = scope.spawn(|| -> Result<()> {
                while !has_ended.load(Ordering::Acquire) {
                    reader.take()?;
                    thread::sleep(PAUSE);
                }
                reader.take()
            });
            let ended = machine.boot(console, timeout);
            has_ended.store(true, Ordering::Release);
            (ended, read.join().expect("the reader of a trace does not panic"))
        });
        let ended = ended?;
        read?;
        Ok((ended, Trace::new(self.reader, &self.image)))
    }
}

/// A folder for files of this size, in memory if there is room.
fn place_for(bytes: u64) -> Result<TempDir> {
    let places = [PathBuf::from("/dev/shm"), std::env::temp_dir(), crate::project::root().join("target")];
    let has_room = |place: &PathBuf| statvfs(place).is_ok_and(|state| state.f_bavail * state.f_frsize > bytes);
    let Some(place) = places.iter().find(|place| has_room(place)) else {
        usage!("there is no room for the machine's memory, {} MiB: take less by --memory", bytes >> 20);
    };
    tempfile::tempdir_in(place).with_context(|| format!("cannot make a folder in {}", place.display()))
}

/// What a machine recorded.
pub struct Trace {
    recording: Recording,
    who: Who,
}

impl Trace {
    /// The trace in what is left of a machine.
    ///
    /// # Errors
    /// The kernel has no tracepoints, or the memory is not that of this kernel.
    pub fn of_dump(memory: Memory, kernel: &Path) -> Result<Self> {
        let image = Image::open(kernel)?;
        let mut reader = Reader::new(memory, needed_root(&image, kernel)?);
        reader.take()?;
        Ok(Self::new(reader, &image))
    }

    fn new(reader: Reader, image: &Image) -> Self {
        let (recording, memory) = reader.finish();
        // A machine that ended early has no threads, and nothing to be told of them.
        let who = Roster::read(memory, image).map_or_else(|_| Who::nobody(), |roster| Who::of(&roster));
        Self { recording, who }
    }

    /// Writes the trace file, and returns what it comes to in words. `unit`: what a tick of the time-stamp counter is.
    pub fn write(mut self, file: &Path, unit: &str) -> Result<String> {
        let cannot_write = || format!("cannot write {}", file.display());
        let who = &self.who;
        let out = BufWriter::new(File::create(file).with_context(cannot_write)?);
        let (lost, left_out) = (self.recording.lost(), self.recording.left_out());
        let mut story = Story::new(json::Writer::new(out, self.recording.khz.max(1)).with_context(cannot_write)?, who);
        let mut summary = Summary::default();
        while let Some(record) = self.recording.next()? {
            summary.count(&record);
            story.tell(&record).with_context(cannot_write)?;
        }
        let about = Map::from_iter([
            ("lost-events".to_owned(), lost.into()),
            ("left-out-events".to_owned(), left_out.into()),
            ("tsc-khz".to_owned(), self.recording.khz.into()),
        ]);
        story.finish(&about).and_then(|mut out| out.flush()).with_context(cannot_write)?;
        Ok(summary.shown(who, unit, lost, left_out).to_string())
    }
}
