//! What happens when kernel memory is exhausted: the call says so, and nothing has changed.

use l4_abi::SysError;

use super::script::{expect, play};
use super::thread_control::snapshot;
use super::world::{M, N, ROOT, UNCHANGED, World, X, activation, no_change};
use crate::lock::Held;
use crate::space::Rest;
use crate::syscall::ThreadControlArgs;

type Call = fn(World) -> Result<(), SysError>;

fn create_space(w: World) -> Result<(), SysError> {
    w.thread_control(ROOT, ThreadControlArgs { utcb_location: UNCHANGED, ..activation(N) })
}

fn create_active(w: World) -> Result<(), SysError> {
    w.thread_control(ROOT, ThreadControlArgs { pager: ROOT.id(), ..activation(M) })
}

fn initialise(w: World) -> Result<(), SysError> {
    w.enter(ROOT, |here, root| here.space_control(root, super::space_control::areas(N)))
}

fn activate(w: World) -> Result<(), SysError> {
    w.thread_control(ROOT, ThreadControlArgs { pager: ROOT.id(), utcb_location: N.utcb_location(), ..no_change(N) })
}

fn migrate(w: World) -> Result<(), SysError> {
    w.thread_control(ROOT, ThreadControlArgs { space: X.id(), ..no_change(M) })
}

/// Each call, and those that must have been made before.
const CALLS: [(&str, &[Call], Call); 5] = [
    ("creation of a space", &[], create_space),
    ("creation of an active thread", &[], create_active),
    ("SpaceControl", &[create_space], initialise),
    ("activation", &[create_space, initialise], activate),
    ("migration", &[create_active], migrate),
];

/// X.2, ThreadControl and SpaceControl: whichever allocation fails, the call says "out of memory" and changes nothing;
/// later it succeeds.
#[test]
fn calls_without_memory_change_nothing() {
    for (what, before, call) in CALLS {
        let mut failures = 0;
        loop {
            let w = World::new();
            before.iter().for_each(|call| call(w).expect("there is memory"));
            let old = snapshot(w);
            w.k.kmem.fail_nth(failures + 1);
            let result = call(w);
            w.k.kmem.fail_nth(0);
            if result.is_ok() {
                break;
            }
            failures += 1;
            assert_eq!(result, Err(SysError::OutOfMemory), "{what}");
            assert_eq!(snapshot(w), old, "{what}, allocation {failures}");
            let census = w.k.spaces.check_invariants(Rest::Settled).expect("all is well");
            assert_eq!(w.frames_used(), census.frames, "no frame is lost by {what}, allocation {failures}");
            assert_eq!(call(w), Ok(()), "{what}, again");
        }
        assert!(failures > 0, "{what} needs memory");
    }
}

/// With no frame left, what needs none goes on, and what needs some is refused until one is given back.
#[test]
fn exhausted_memory_refuses_and_recovers() {
    let w = World::new();
    let mut held = Held::nothing();
    let frames: Vec<_> = std::iter::from_fn(|| w.k.kmem.alloc(w.k.machine, &mut held)).collect();
    for call in [create_space, create_active] {
        assert_eq!(call(w), Err(SysError::OutOfMemory));
    }
    play(w, "b wait; a call b 1; b reply a 2; a pager c; a fault 0x5000; c wait; c send a; z send b 9");
    expect(w, "IPC", "b got 9 from z; a got 2 from 'b; c sent");
    play(w, "root delete x; root delete y; root delete z");
    let census = w.k.spaces.check_invariants(Rest::Settled).expect("all is well");
    assert_eq!(w.frames_used(), frames.len() + census.frames);
    assert_eq!((create_space(w), create_active(w)), (Ok(()), Ok(())), "the spaces that went had enough");
}

/// X.2, Map: mapping has no errors: without memory, the rest is not mapped, and the message arrives.
#[test]
fn map_without_memory_maps_less() {
    let w = World::new();
    play(w, "root send s; r accept; r wait; s send r map=0x1000000/20; b accept");
    for n in 1..6 {
        play(w, "b wait");
        w.k.kmem.fail_nth(n);
        play(w, "r send b 5 map=0x1000000/13 map=0x1010000/12");
        w.k.kmem.fail_nth(0);
        expect(w, "a map without memory", "r sent; b got 5 from r");
    }
    let space = w.k.space_of(super::world::B.tcb());
    assert!(w.k.spaces.lookup(space, 0x100_0000).is_some() && w.k.spaces.lookup(space, 0x101_0000).is_some());
}

/// X.2, sigma0: a page of its own that cannot be entered for lack of memory stops sigma0, as nobody can help it.
#[test]
fn sigma0_without_memory_stops() {
    let w = World::new();
    play(w, "root send s");
    w.k.kmem.fail_nth(1);
    play(w, "s fault 0x12345000");
    expect(w, "a fault without memory", "s halted");
}
