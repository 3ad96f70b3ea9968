//! The threads and spaces of a measurement. The root task makes them; each is known by its distance from the root task's
//! first thread.

use core::fmt::Debug;

use l4::thread::thread_control;
use l4::{Fpage, Rights, SpaceControl, ThreadId, UTCB_MR0_OFFSET, Word, kip, space, thread};
use l4_rt::{exit, println};

use crate::pager;

/// Exit status for a call that failed.
pub const STATUS_FAILURE: u8 = 1;

/// Version of all threads made here.
const VERSION: Word = 2;
/// First address of the UTCB area of spaces made here.
const UTCB_AREA_BASE: Word = 0x8000_0000;

/// The result of a call that has to succeed.
pub fn must<T, E: Debug>(what: &str, result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| {
        println!("{what} failed: {error:?}");
        exit(STATUS_FAILURE)
    })
}

/// The first thread of the root task.
pub fn root() -> ThreadId {
    kip::root_task_id()
}

/// The id of the `n`th thread after root.
pub fn thread_after_root(n: Word) -> ThreadId {
    ThreadId::global(root().thread_no() + n, VERSION)
}

/// The UTCB location of the `n`th thread after the calling one, in its own space.
pub fn utcb_after_mine(n: Word) -> Word {
    thread::my_local_id().raw() - UTCB_MR0_OFFSET as Word + n * kip().utcb_info.size_bytes()
}

/// Makes thread `id` in a new space of its own, waiting for its start message from the pager: inactive first, as the
/// space is not set up; then with its pager. Called by root.
pub fn make_space(id: ThreadId) {
    let me = thread::my_global_id();
    must("creating a thread", thread_control(id, id, me, ThreadId::NIL, Some(UTCB_AREA_BASE)));
    let (kip_area, utcb_area) = (area(kip_base(), kip().kip_area_info.size_log2()), utcb_area());
    let set_up = space::space_control(id, SpaceControl::NONE, kip_area, utcb_area, ThreadId::NIL);
    must("setting up a space", set_up);
    must("activating a thread", thread_control(id, id, ThreadId::NIL, pager::id(), None));
}

/// Makes thread `id` in the space of `first`, which [`make_space`] made. Called by root.
pub fn make_second(id: ThreadId, first: ThreadId) {
    make_beside(id, first, 1);
}

/// Makes thread `id` in the space of `first`, which [`make_space`] made, as the `n`th after it. Called by root.
pub fn make_beside(id: ThreadId, first: ThreadId, n: Word) {
    let utcb = UTCB_AREA_BASE + n * kip().utcb_info.size_bytes();
    must("creating a thread", thread_control(id, first, thread::my_global_id(), pager::id(), Some(utcb)));
}

fn kip_base() -> Word {
    core::ptr::from_ref(kip()).addr() as Word
}

/// Room for a thread on each processor.
fn utcb_area() -> Fpage {
    const UTCBS_LOG2: u32 = 8;
    area(UTCB_AREA_BASE, kip().utcb_info.size_bytes().ilog2() + UTCBS_LOG2)
}

fn area(base: Word, size_log2: u32) -> Fpage {
    Fpage::new(base, size_log2, Rights::ALL).expect("areas are at multiples of their size")
}
