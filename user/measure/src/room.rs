//! How much memory the kernel has, found out by filling it.

use l4::thread::{self, thread_control};
use l4::{Fpage, Rights, SpaceControl, SysError, ThreadId, UTCB_SIZE, Word, kip, space};
use l4_rt::{exit, println};

use crate::stage::{STATUS_FAILURE, must, root};

/// Where the only UTCB of a space made here is.
const UTCB: Word = 0x8000_0000;
const PAGE_LOG2: u32 = 12;

/// What the kernel's memory suffices for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Inactive threads in root's space.
    pub threads: usize,
    /// Threads in spaces of their own.
    pub spaces: usize,
}

impl Room {
    /// Finds out, by making as many, which are deleted again. For the root task. Ends the program if memory does not run
    /// out, or anything else goes wrong.
    pub fn measure() -> Self {
        Self {
            threads: fill(|id| thread_control(id, root(), root(), ThreadId::NIL, None)),
            spaces: fill(make_own_space),
        }
    }
}

fn make_own_space(id: ThreadId) -> Result<(), SysError> {
    let area =
        |base, size_log2| Fpage::new(base, size_log2, Rights::ALL).expect("areas are at multiples of their size");
    thread_control(id, id, root(), ThreadId::NIL, None)?;
    let kip_area = area(core::ptr::from_ref(kip()).addr() as Word, kip().kip_area_info.size_log2());
    let utcb_area = area(UTCB, UTCB_SIZE.ilog2().max(PAGE_LOG2));
    space::space_control(id, SpaceControl::NONE, kip_area, utcb_area, ThreadId::NIL)?;
    thread_control(id, id, ThreadId::NIL, l4::kip::sigma0_id(), Some(UTCB))
}

/// How many can be made until there is no memory. All are deleted.
fn fill(make: impl Fn(ThreadId) -> Result<(), SysError>) -> usize {
    const MANY: usize = 100_000;
    const FIRST: Word = 4096;
    let id = |n: usize| ThreadId::global(root().thread_no() + FIRST + n as Word, 1);
    let end = (0..MANY).find_map(|n| make(id(n)).err().map(|error| (n, error)));
    // The last may be there or not.
    for n in 0..end.map_or(MANY, |(n, _)| n + 1) {
        must("deleting a thread", thread::delete(id(n)));
    }
    match end {
        Some((count, SysError::OutOfMemory)) => return count,
        Some((_, error)) => println!("filling memory ends with {error:?}"),
        None => println!("kernel memory does not run out with {MANY} threads"),
    }
    exit(STATUS_FAILURE)
}
