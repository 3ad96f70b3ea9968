//! Walks through tables that another processor takes out meanwhile.

use std::cell::Cell;
use std::rc::Rc;

use kformats::paging::Entry;

use super::world::{Parts, Toy, UNLIMITED, World};
use crate::lock::Held;
use crate::machine::{PhysMem, SpaceRef};
use crate::space::Rest;

/// A world that lives as long as the test program, so that what happens in the middle of a walk can use it.
fn world() -> &'static World<'static, Toy> {
    let parts = Box::leak(Box::new(Parts::<Toy>::new(256)));
    let world: &World<'static, Toy> = Box::leak(Box::new(World::new(parts, UNLIMITED)));
    // Tables of three levels below the larger page at 0 of root, with a page in the last.
    world.run("map sigma0:40000000/L -> app:0/L, map sigma0:1000 -> root:1000, map sigma0:8000/S -> root:8000/S");
    world
}

/// Takes the tables out of the space of root and has their frames used for something else: full of what would lead far
/// out of memory if it were taken for entries.
fn take_out(world: &'static World<'static, Toy>) {
    world.try_command("map app:0/L -> root:0/L").expect("memory");
    let held = &mut Held::nothing();
    let frames: Vec<_> = (0..4).filter_map(|_| world.parts.kmem.alloc(&world.parts.fake, held)).collect();
    for frame in frames {
        for word in 0..8 {
            world.parts.fake.write(crate::machine::PhysAddr(frame.0 + word * 512), 0xFFFF_FFFF_F007);
        }
    }
}

/// Has something done once so many more words were read; whether it was.
fn happens_after(world: &World<'static, Toy>, moment: u32, act: impl FnOnce() + 'static) -> Rc<Cell<bool>> {
    let has_happened = Rc::new(Cell::new(false));
    let happens = has_happened.clone();
    world.parts.fake.in_the_middle(moment, move || {
        happens.set(true);
        act();
    });
    has_happened
}

/// Whenever tables go in the middle of a walk, it finds what was mapped before or what is mapped afterwards.
#[test]
fn walk_finds_the_old_or_the_new_page() {
    let mut found = [0, 0];
    for moment in 0.. {
        let world = world();
        let has_happened = happens_after(world, moment, || take_out(world));
        let place = world.spaces.walk(world.spaces.get(SpaceRef::new(1)), 0x1000, 0);
        if !has_happened.get() {
            break;
        }
        match (place.level, world.spaces.entry(&place)) {
            (0, Entry::Leaf(leaf)) if leaf.frame == 0x1000 => found[0] += 1,
            (2, Entry::Leaf(leaf)) if leaf.frame == 0x4000_0000 => found[1] += 1,
            other => panic!("at {moment}: {other:x?}"),
        }
    }
    assert!(found[1] > 4, "{found:?}: it was in the middle");
}

/// A page that goes in the middle of its being mapped, whenever that is, is not mapped in the end, and nothing that was taken
/// for it is left.
#[test]
fn mapping_of_a_page_that_goes_leaves_nothing() {
    const FRAME: u64 = 0x1000;
    let mut went = 0;
    for moment in 0.. {
        let world = world();
        let has_happened = happens_after(world, moment, || {
            // Who has the lock sees to it that it stays.
            if !world.spaces.mapdb().is_tree_taken(FRAME) {
                world.try_command("flush root:1000").expect("it needs no memory");
            }
        });
        world.try_command("map root:1000 -> disk:1000").expect("memory");
        if !has_happened.get() {
            break;
        }
        world.check_structure(Rest::Settled);
        let has_page = world.spaces.lookup_if_any(SpaceRef::new(4), 0x1000).is_some();
        let is_gone = world.spaces.lookup_if_any(SpaceRef::new(1), 0x1000).is_none();
        assert!(has_page != is_gone, "at {moment}");
        went += usize::from(is_gone);
    }
    assert!(went > 4, "it was in the middle");
}

/// A place in a table that went is not looked at again, neither by its old nor by its new owner's contents.
#[test]
fn place_in_a_table_that_went_is_not_read_again() {
    let world = world();
    let space = world.spaces.get(SpaceRef::new(1));
    let [old, other] = [0x1000, 0x8000].map(|address| world.spaces.walk(space, address, 0));
    assert!(world.spaces.reload(space, &old, 0x1000).is_some() && world.spaces.reload(space, &other, 0x8000).is_some());
    take_out(world);
    assert!(world.spaces.reload(space, &old, 0x1000).is_none() && world.spaces.reload(space, &other, 0x8000).is_none());
    let new = world.spaces.walk(space, 0x1000, 0);
    assert_eq!(world.spaces.reload(space, &new, 0x1000).map(|place| place.level), Some(2));
}
