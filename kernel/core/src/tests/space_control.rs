//! SpaceControl (X.2, SpaceControl).

use l4_abi::{Fpage, Rights, SysError, ThreadId, Word};

use super::thread_control::snapshot;
use super::world::{A, KIP_AREA, M, N, ROOT, UNCHANGED, USER_END, UTCB_AREA, Who, World, Z, activation};
use crate::syscall::{SpaceControlArgs, ThreadControlArgs};

/// The usual areas for the space of somebody.
pub fn areas(who: Who) -> SpaceControlArgs {
    SpaceControlArgs { space: who.id(), kip_area: KIP_AREA, utcb_area: UTCB_AREA, redirector: ThreadId::NIL }
}

fn area(base: Word, size_log2: u32) -> Fpage {
    Fpage::new(base, size_log2, Rights::NONE).expect("aligned")
}

/// The cast, n inactive in a space that is not initialised.
fn with_raw_space() -> World {
    let w = World::new();
    let args = ThreadControlArgs { utcb_location: UNCHANGED, ..activation(N) };
    assert_eq!(w.thread_control(ROOT, args), Ok(()));
    w
}

fn space_control(w: World, who: Who, args: SpaceControlArgs) -> Result<(), SysError> {
    w.enter(who, |here, thread| here.space_control(thread, args))
}

/// X.2, SpaceControl: privilege, the space's id, UTCB area, KIP area are checked in this order.
#[test]
fn space_control_is_checked_in_order() {
    let w = with_raw_space();
    let end = USER_END;
    let check = |who, args, error| {
        let before = snapshot(w);
        assert_eq!(space_control(w, who, args), Err(error), "{args:?}");
        assert_eq!(snapshot(w), before, "{args:?}");
    };
    let nowhere = Fpage::NIL;
    let nothing = SpaceControlArgs {
        space: A.local(),
        kip_area: nowhere,
        utcb_area: nowhere,
        redirector: ThreadId::interrupt(5),
    };
    check(A, nothing, SysError::NoPrivilege);
    for space in [A.local(), ROOT.local(), N.version(2), ThreadId::NIL, ThreadId::ANY, ThreadId::ANY_LOCAL] {
        check(ROOT, SpaceControlArgs { space, ..nothing }, SysError::InvalidSpace);
    }
    let nothing = SpaceControlArgs { space: N.id(), ..nothing };
    for redirector in [ThreadId::interrupt(5), ThreadId::ANY_LOCAL, A.local(), A.version(2), M.id()] {
        check(ROOT, SpaceControlArgs { redirector, ..nothing }, SysError::InvalidSpace);
    }
    let nothing = SpaceControlArgs { redirector: Z.id(), ..nothing };
    let outside = [area(end, 20), area(0, 48), area(0xFFFF_8000_0000_0000, 20)];
    for utcb_area in [Fpage::NIL, area(0x1000, 11), Fpage::COMPLETE].into_iter().chain(outside) {
        check(ROOT, SpaceControlArgs { utcb_area, ..nothing }, SysError::UtcbArea);
    }
    let args = SpaceControlArgs { utcb_area: UTCB_AREA, ..nothing };
    let overlapping = [UTCB_AREA, area(UTCB_AREA.base() + 0x1000, 12), area(0x7000_0000, 28)];
    for kip_area in [Fpage::NIL, area(0x1000, 11), Fpage::COMPLETE].into_iter().chain(outside).chain(overlapping) {
        check(ROOT, SpaceControlArgs { kip_area, ..args }, SysError::KipArea);
    }
    assert_eq!(space_control(w, ROOT, SpaceControlArgs { kip_area: KIP_AREA, ..args }), Ok(()));
    let page = w.k.spaces.lookup(w.k.space_of(N.tcb()), KIP_AREA.base() as usize).expect("the KIP is mapped");
    assert_eq!((page.phys.0, page.rights), (0x1000, Rights::READ_EXECUTE));
}

/// X.2, SpaceControl: the areas of a space that is initialised are ignored; pingpong passes nilpages.
#[test]
fn areas_of_an_initialised_space_do_not_matter() {
    let w = World::new();
    let before = snapshot(w);
    for (kip_area, utcb_area) in
        [(Fpage::NIL, Fpage::NIL), (UTCB_AREA, KIP_AREA), (area(0x1000, 12), area(0x10_0000, 20))]
    {
        let args = SpaceControlArgs { kip_area, utcb_area, ..areas(A) };
        assert_eq!(space_control(w, ROOT, args), Ok(()));
    }
    assert_eq!(snapshot(w), before);
}

/// X.2, SpaceControl: the smallest areas are a page each, and may be neighbours.
#[test]
fn areas_can_be_small_neighbours() {
    let w = with_raw_space();
    let args = SpaceControlArgs { kip_area: area(0, 12), utcb_area: area(0x1000, 12), ..areas(N) };
    assert_eq!(space_control(w, ROOT, args), Ok(()));
    let args = ThreadControlArgs { pager: ROOT.id(), utcb_location: 0x1C00, ..super::world::no_change(N) };
    assert_eq!(w.thread_control(ROOT, args), Ok(()));
}

/// Tests that hold on several processors, too.
pub const EVERYWHERE: &[(&str, fn())] = &[
    ("space_control_is_checked_in_order", space_control_is_checked_in_order),
    ("areas_of_an_initialised_space_do_not_matter", areas_of_an_initialised_space_do_not_matter),
    ("areas_can_be_small_neighbours", areas_can_be_small_neighbours),
];
