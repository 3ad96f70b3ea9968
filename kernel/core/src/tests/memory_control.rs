//! MemoryControl (X.2, MemoryControl).

use l4_abi::{Fpage, MR_COUNT, Rights, SysError, Word};

use super::script::{expect, play};
use super::world::{A, B, R, ROOT, S, Who, World, no_change};
use crate::syscall::ThreadControlArgs;
use crate::thread::Work;

/// The root task and b have a megabyte from sigma0.
const PAGES: &str =
    "root send s; r accept; r wait; s send r map=0x1000000/20; b accept; b wait; r send b map=0x1000000/20";

fn with_pages() -> World {
    let w = World::new();
    play(w, PAGES);
    w
}

/// The fpage of a page, or of more, with the number of an attribute in its rights.
fn fpage(base: Word, size_log2: u32, chosen: Word) -> Word {
    Fpage::new(base, size_log2, Rights::from_bits_truncate(chosen)).expect("aligned").raw()
}

fn call(w: World, who: Who, control: Word, attributes: [Word; 4]) -> Result<(), SysError> {
    w.enter(who, |here, thread| here.memory_control(thread, control, attributes))
}

/// The memory type of somebody's page.
#[track_caller]
fn cache(w: World, who: Who, address: usize) -> u8 {
    w.k.spaces.lookup(w.k.space_of(who.tcb()), address).expect("a page").cache.index()
}

/// X.2, MemoryControl: privilege, the number of fpages, and the attributes that these choose are checked; after an error
/// nothing has changed, not even the pages of the fpages in front.
#[test]
fn errors_change_nothing() {
    let w = with_pages();
    let flushes = w.k.machine.cache_flushes.get();
    w.set_mrs(R, &[fpage(0x100_0000, 12, 0), 0, fpage(0x100_1000, 12, 2), fpage(0x100_2000, 12, 1)]);
    w.set_mrs(A, &[fpage(0x100_0000, 12, 0)]);
    assert_eq!(call(w, A, 99, [9; 4]), Err(SysError::NoPrivilege));
    for control in [MR_COUNT as Word, Word::MAX] {
        assert_eq!(call(w, R, control, [0; 4]), Err(SysError::InvalidParameter), "{control}");
    }
    for none in [6, 7, 9, 64, Word::MAX] {
        assert_eq!(call(w, R, 2, [4, 0, none, 0]), Err(SysError::InvalidParameter), "{none}");
    }
    assert!([0x100_0000, 0x100_1000].iter().all(|address| cache(w, R, *address) == 0));
    assert_eq!(w.k.machine.cache_flushes.get(), flushes);
    assert_eq!(call(w, R, 2, [4, 9, 5, 9]), Ok(()), "attributes that no fpage of the call chooses do not matter");
    assert_eq!([0x100_0000, 0x100_1000, 0x100_2000].map(|address| cache(w, R, address)), [3, 4, 0]);
    assert_eq!(w.k.machine.cache_flushes.get(), flushes + 1);
}

/// X.2, MemoryControl: each fpage chooses among the attributes; derived mappings follow; those above do not.
#[test]
fn attributes_reach_derived_mappings() {
    let w = with_pages();
    let words = (0..4).map(|chosen| fpage(0x100_0000 + 0x1000 * chosen, 12, chosen)).collect::<Vec<_>>();
    w.set_mrs(R, &words);
    assert_eq!(call(w, R, 3, [1, 2, 8, 5]), Ok(()));
    for who in [R, B] {
        assert_eq!([0, 1, 2, 3, 4].map(|page| cache(w, who, 0x100_0000 + 0x1000 * page)), [0, 1, 7, 4, 0]);
    }
    assert_eq!(cache(w, S, 0x100_0000), 0);
}

/// X.2, sigma0: it sets the attribute of memory before it maps it, whether it has touched that or not.
#[test]
fn sigma0_maps_with_the_attribute() {
    let w = World::new();
    play(w, "root send s");
    w.set_mrs(S, &[fpage(0x200_1000, 12, 0)]);
    assert_eq!(call(w, S, 0, [4; 4]), Ok(()));
    play(w, "r accept; r wait; s send r map=0x2000000/13");
    assert_eq!([0x200_0000, 0x200_1000].map(|address| cache(w, R, address)), [0, 3]);
}

/// X.2, MemoryControl: without a page attribute table, what takes one is no attribute.
#[test]
fn processors_without_a_table_have_four_memory_types() {
    let w = with_pages();
    w.k.machine.has_pat.set(false);
    w.set_mrs(R, &[fpage(0x100_0000, 12, 0)]);
    let results = [0, 1, 2, 3, 4, 5, 8].map(|attribute| call(w, R, 0, [attribute; 4]).is_ok());
    assert_eq!(results, [true, true, true, true, true, false, false]);
}

/// X.2, MemoryControl: as many fpages as there are message registers, in steps, between which others have their turns.
#[test]
fn much_is_done_in_steps() {
    let w = with_pages();
    w.set_mrs(R, &[fpage(0x100_0000, 20, 0); MR_COUNT]);
    assert_eq!(w.begin(R, |here, r| here.memory_control(r, MR_COUNT as Word - 1, [4; 4])), Ok(()));
    expect(w, "the first step", "r works on MemoryControl");
    assert_eq!((cache(w, R, 0x100_0000), cache(w, R, 0x10F_F000)), (3, 0));
    // Whoever changes the fpages meanwhile gets what they choose now, if it is an attribute.
    w.set_mrs(R, &[fpage(0x100_0000, 20, 0), fpage(0x100_0000, 12, 1)]);
    play(w, "a wait; root send a 2; root halt r; root resume r; r finish");
    assert!((0..256).all(|page| cache(w, B, 0x100_0000 + page * 0x1000) == 3));
}

/// X.2, ThreadControl: a thread that moves in the middle of MemoryControl does not go on with it in its new space.
#[test]
fn memory_control_does_not_go_on_in_another_space() {
    let w = with_pages();
    w.set_mrs(R, &[fpage(0x100_0000, 20, 0); MR_COUNT]);
    assert_eq!(w.begin(R, |here, r| here.memory_control(r, MR_COUNT as Word - 1, [4; 4])), Ok(()));
    let flushes = w.k.machine.cache_flushes.get();
    assert_eq!(w.thread_control(ROOT, ThreadControlArgs { space: S.id(), ..no_change(R) }), Ok(()));
    assert_eq!((w.tcb(R).work(), w.k.machine.cache_flushes.get()), (Work::None, flushes + 1));
    assert_eq!((cache(w, ROOT, 0x100_0000), cache(w, ROOT, 0x10F_F000), cache(w, S, 0x10F_F000)), (3, 0, 0));
}

/// X.2, ThreadControl: a thread in the middle of MemoryControl can be deleted.
#[test]
fn thread_with_memory_control_to_do_can_be_deleted() {
    let w = with_pages();
    w.set_mrs(R, &[fpage(0x100_0000, 20, 0); MR_COUNT]);
    assert_eq!(w.begin(R, |here, r| here.memory_control(r, MR_COUNT as Word - 1, [4; 4])), Ok(()));
    assert_eq!(w.delete(ROOT, R), Ok(()));
    expect(w, "deletion", "r gone");
}
