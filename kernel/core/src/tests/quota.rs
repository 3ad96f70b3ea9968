//! Quotas of kernel memory, as SpaceControl sets them (an extension of X.2).

use l4_abi::{SpaceControl, SysError, ThreadId};

use super::memory::ledger;
use super::world::{A, B, M, ROOT, UNCHANGED, World, X, activation, deletion};
use crate::machine::Mmu;
use crate::space::NO_QUOTA;
use crate::syscall::ThreadControlArgs;
use crate::tests::machine::Fake;

fn set(w: World, control: SpaceControl) -> SpaceControl {
    w.here().control_memory(A.id(), control)
}

/// The old control word says what is asked for; other bits mean nothing, and without any of ours it is zero.
#[test]
fn control_word_sets_and_tells() {
    let w = World::new();
    let used = || set(w, SpaceControl::USAGE).kib();
    assert_eq!(set(w, SpaceControl::NONE), SpaceControl::NONE);
    assert_eq!(set(w, SpaceControl::MODE), SpaceControl::NONE);
    assert_eq!(set(w, SpaceControl::quota(Some(64))), SpaceControl::quota(None));
    assert_eq!(set(w, SpaceControl::quota(Some(0))), SpaceControl::quota(Some(64)));
    assert_eq!(set(w, SpaceControl::quota(None)), SpaceControl::quota(Some(0)));
    let space = w.k.spaces.get(w.tcb(A).space());
    assert_eq!(w.k.spaces.quota(space), NO_QUOTA);
    assert_eq!(used() as usize, w.k.spaces.memory_used(space).div_ceil(1024));
    assert_eq!(w.here().control_memory(ThreadId::NIL, SpaceControl::USAGE), SpaceControl::NONE);
}

/// X.2, ThreadControl: a thread that the quota of its space does not allow for is not made, and does not move there; nothing
/// has changed. Whoever goes makes room.
#[test]
fn threads_count() {
    let w = World::new();
    let space = w.k.spaces.get(w.tcb(A).space());
    let make = || w.thread_control(ROOT, ThreadControlArgs { utcb_location: UNCHANGED, ..activation(M) });
    let start = w.k.spaces.memory_used(space);
    assert_eq!(make(), Ok(()));
    assert_eq!(w.k.spaces.memory_used(space), start + Fake::THREAD_BYTES);
    assert_eq!(w.thread_control(ROOT, deletion(M)), Ok(()));
    assert_eq!(w.k.spaces.memory_used(space), start);
    for (quota, expected) in [
        (start, Err(SysError::OutOfMemory)),
        (start + Fake::THREAD_BYTES - 1, Err(SysError::OutOfMemory)),
        (start + Fake::THREAD_BYTES, Ok(())),
    ] {
        w.k.spaces.set_quota(space, quota);
        let before = ledger(w);
        assert_eq!(make(), expected, "{quota}");
        assert_eq!(w.thread_control(ROOT, deletion(M)), Ok(()));
        assert_eq!(ledger(w), before);
    }
    // Into the space of A: X has one of its own.
    w.k.spaces.set_quota(space, start);
    let moved = || w.thread_control(ROOT, ThreadControlArgs { space: A.id(), ..super::world::no_change(X) });
    if w.tcb(X).space() != w.tcb(A).space() {
        assert_eq!(moved(), Err(SysError::OutOfMemory));
    }
    assert_eq!((w.k.spaces.memory_used(space), w.tcb(B).space()), (start, w.tcb(A).space()));
}
