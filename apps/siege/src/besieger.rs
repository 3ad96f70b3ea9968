//! Besiegers: two threads for each processor, in a space of their own. One maps a page of theirs to the other, which takes it
//! anywhere: at each new place the kernel needs tables, and a node.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dice::Dice;
use l4::message::Msg;
use l4::thread::Stack;
use l4::{Acceptor, Fpage, MapItem, Rights, ThreadId, Time, Word, ipc, kip, schedule, space, utcb};
use measure::pager;
use measure::stage::{make_second, make_space, must, thread_after_root};

const FIRST: Word = 4;
const PROCESSORS_MAX: usize = 16;
const PAGE_LOG2: u32 = 12;
/// What a table of each level maps, by its log2: at a new place as many of them are needed as are not there.
const STRIDES_LOG2: [usize; 3] = [21, 30, 39];
/// Places are below this; the lowest are the image's, and the highest page is nobody's.
const PLACES_LOG2: usize = 46;
/// Below all that are in the way, above those of the besieged.
const PRIORITY: u8 = 90;

static STACKS: [Stack<0x1000>; 2 * PROCESSORS_MAX] = [const { Stack::new() }; 2 * PROCESSORS_MAX];
static SEED: AtomicU64 = AtomicU64::new(0);

/// A page of the program, which is mapped.
#[repr(align(4096))]
struct Page(AtomicU64);
static PAGE: Page = Page(AtomicU64::new(0));

/// Those of a round.
pub struct Besiegers {
    count: Word,
}

impl Besiegers {
    /// Begins the siege: on each processor, each space with this quota.
    pub fn begin(seed: u64, round: u64, quota_kib: Option<Word>) -> Self {
        SEED.store(dice::mix(seed ^ round), Relaxed);
        let cpus = kip::num_processors().min(PROCESSORS_MAX);
        let besiegers = Self { count: 2 * cpus as Word };
        for cpu in 0..cpus {
            let [taker, giver] = [0, 1].map(|n| thread_after_root(FIRST + 2 * cpu as Word + n));
            make_space(taker);
            make_second(giver, taker);
            must("a quota", space::set_quota(taker, quota_kib));
            for (n, id, entry) in [(0, taker, take as l4::thread::Entry), (1, giver, give as l4::thread::Entry)] {
                must("a priority", schedule::set_priority(id, PRIORITY));
                must("a processor", schedule::set_processor_no(id, cpu as u16));
                pager::start_thread(id, entry, STACKS[2 * cpu + n].start_sp());
            }
        }
        besiegers
    }

    /// Their ids: of each space the taker first.
    pub fn ids(&self) -> impl Iterator<Item = ThreadId> {
        (0..self.count).map(|n| thread_after_root(FIRST + n))
    }
}

/// The number of the calling thread among all.
fn own_number() -> Word {
    let first = thread_after_root(FIRST).thread_no();
    utcb().my_global_id().thread_no() - first
}

extern "C" fn take() -> ! {
    utcb().set_acceptor(Acceptor::map_grant(Fpage::COMPLETE));
    let giver = thread_after_root(FIRST + own_number() + 1);
    loop {
        // What is left out makes no error.
        let _ = ipc::receive(giver);
    }
}

extern "C" fn give() -> ! {
    let number = own_number();
    let taker = thread_after_root(FIRST + number - 1);
    let mut dice = Dice::new(SEED.load(Relaxed), number);
    let base = (&raw const PAGE).expose_provenance() as Word;
    loop {
        // Another page of the image would do as well. This one may only be read.
        core::hint::black_box(PAGE.0.load(Relaxed));
        let page = Fpage::new(base, PAGE_LOG2, Rights::READ);
        let stride_log2 = dice.one_of(&STRIDES_LOG2);
        let place = (1 + dice.within(0..(1 << (PLACES_LOG2 - stride_log2)) - 1)) << stride_log2;
        if let Some(page) = page {
            Msg::new(0).append_map(MapItem::map(page, place as Word)).load();
            let _ = ipc::send_timeout(taker, Time::period_us(1000));
        }
    }
}
