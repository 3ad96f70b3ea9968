//! Pages: taking them away from several processors, and faults that a pager elsewhere serves.

use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use l4::{Fpage, Rights, Word, schedule, space};
use measure::pager;
use measure::stage::must;
use scale::options::Part;
use scale::report::{Figure, Subject};
use scale::steps::is_measured;

use crate::Bench;
use crate::worker::{Span, Task, Worker};

const PAGE_LOG2: u32 = 12;
const PAGES_LOG2: u32 = 4;
const PAGES: usize = 1 << PAGES_LOG2;
const PAGE_WORDS: usize = 512;

#[repr(C, align(65536))]
struct Region([[AtomicU64; PAGE_WORDS]; PAGES]);

static REGION: Region = Region([const { [const { AtomicU64::new(0) }; PAGE_WORDS] }; PAGES]);

/// Reads a word of each of the first pages.
pub fn touch(pages: usize) {
    REGION.0.iter().take(pages).for_each(|page| {
        black_box(page[0].load(Relaxed));
    });
}

/// The first 2^`size_log2` bytes of the region.
fn region(size_log2: u32) -> Fpage {
    let address = (&raw const REGION).addr() as Word;
    Fpage::new(address, size_log2, Rights::ALL).expect("the region is aligned")
}

/// Measures Unmap of a page that is in use in one space, on the caller's processor and some others.
pub fn unmap(bench: &Bench) {
    let cpus = bench.setting.cpus;
    let first = Worker::make(0, 0);
    let mut made = 1;
    for others in (0..cpus).filter(|&others| is_measured(others, cpus - 1)) {
        while made <= others {
            Worker::make_beside(made, first, made);
            made += 1;
        }
        let (mut ticks, mut us) = (0, 0);
        for round in 0..=bench.rounds {
            (0..=others).map(Worker::of).for_each(|worker| {
                worker.tell(Task::Touch(1));
                worker.wait();
            });
            let span = Span::of(|| {
                space::unmap_fpage(region(PAGE_LOG2));
            });
            if round > 0 {
                (ticks, us) = (ticks + span.ticks(), us + span.us());
            }
        }
        let subject = Subject::Count(others);
        bench.print(Figure { part: Part::Unmap, way: "", subject, ticks, count: bench.rounds, us });
    }
    (0..made).map(Worker::of).for_each(Worker::delete);
}

/// Measures page faults of a thread on processor 0 whose pager is there or elsewhere.
pub fn fault(bench: &Bench) {
    let worker = Worker::make(0, 0);
    let move_pager = |cpu: usize| must("moving the pager", schedule::set_processor_no(pager::id(), cpu as u16));
    for to in (0..bench.setting.cpus).filter(|&to| is_measured(to, bench.setting.cpus - 1)) {
        move_pager(to);
        let (mut ticks, mut us) = (0, 0);
        for round in 0..=bench.rounds {
            space::unmap_fpage(region(PAGE_LOG2 + PAGES_LOG2));
            worker.tell(Task::Touch(PAGES as u64));
            let span = worker.wait();
            if round > 0 {
                (ticks, us) = (ticks + span.ticks(), us + span.us());
            }
        }
        let subject = Subject::Between(0, to, bench.places.relation(0, to));
        let count = bench.rounds * PAGES as u64;
        bench.print(Figure { part: Part::Fault, way: "", subject, ticks, count, us });
    }
    move_pager(0);
    worker.delete();
}
