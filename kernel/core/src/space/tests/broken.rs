//! The checker finds what is wrong.

use kformats::paging::Amd64;

use super::world::{Parts, UNLIMITED, World};
use crate::machine::{PhysMem, SpaceRef};
use crate::mapdb::Kept;
use crate::space::{Place, Rest};

/// Lets `damage` spoil the entry of app:8000, which comes from root:4000, and expects the checker to complain of `what`.
fn check_found(what: &str, damage: impl FnOnce(&World<'_, Amd64>, Place)) {
    let parts = Parts::<Amd64>::new(128);
    let world = World::new(&parts, UNLIMITED);
    world.run("map sigma0:1000=rx -> root:4000, map root:4000 -> app:8000, map root:4000 -> app:9000");
    let place = world.spaces.walk(world.spaces.get(SpaceRef::new(2)), 0x8000, 0);
    damage(&world, place);
    let broken = world.spaces.check_invariants(Rest::Settled).expect_err(what);
    assert_eq!(broken.what, what);
}

#[test]
fn lost_entry_is_found() {
    check_found("a derived mapping is found by its page", |world, place| world.parts.fake.write(place.entry_at, 0));
}

#[test]
fn lost_shadow_is_found() {
    check_found("a derived mapping is found by its page", |world, place| world.parts.fake.write(place.slot_at, 0));
}

#[test]
fn page_without_a_node_is_found() {
    check_found("a page has a node or is the kernel's", |world, place| {
        let empty = world.spaces.walk(world.spaces.get(SpaceRef::new(0)), 0x40_0000, 0);
        world.parts.fake.write(empty.entry_at, world.parts.fake.read(place.entry_at) | 0x80);
    });
}

#[test]
fn lost_page_is_found() {
    check_found("a derived mapping is found by its page", |world, place| {
        world.parts.fake.write(place.entry_at, 0);
        world.parts.fake.write(place.slot_at, 0);
    });
}

#[test]
fn too_many_rights_are_found() {
    check_found("rights of a derived mapping are a subset", |world, place| {
        world.parts.fake.update(place.entry_at, 0, 2);
    });
}

#[test]
fn wrong_frame_is_found() {
    check_found("the frame of a derived mapping is inside", |world, place| {
        world.parts.fake.update(place.entry_at, 0, 0x2000);
    });
}

#[test]
fn swapped_nodes_are_found() {
    check_found("a derived mapping is found by its page", |world, place| {
        let other = world.spaces.walk(world.spaces.get(SpaceRef::new(2)), 0x9000, 0);
        let (one, two) = (world.parts.fake.read(place.slot_at), world.parts.fake.read(other.slot_at));
        world.parts.fake.write(place.slot_at, two);
        world.parts.fake.write(other.slot_at, one);
    });
}

#[test]
fn lost_node_is_found() {
    check_found("each node in use is in one space", |world, _| {
        let spaces = &world.spaces;
        let held = &mut crate::lock::Held::nothing();
        let node = spaces.mapdb().alloc(&world.parts.fake, &world.parts.kmem, held).expect("memory");
        assert!(!spaces.mapdb().node(node).take(Kept::Derived).dirty);
    });
}
