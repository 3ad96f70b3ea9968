//! A space takes no more of kernel memory than its quota, whatever is mapped to it, and nobody else notices.

use kformats::paging::{Amd64, Ia32};

use super::world::{NAMES, Parts, TestFormat, Toy, World};
use crate::machine::SpaceRef;
use crate::mapdb::Node;
use crate::space::{NO_QUOTA, Rest, Space};

const APP: usize = 2;
/// From quota to quota: no part of a frame, so that each place where memory can be lacking comes up.
const STEP: usize = 19 * size_of::<Node>();

/// What gives the space `app` mappings and tables: by map and by grant, of both sizes, in steps of three pages.
const SCRIPT: &str = "map root:800000 -> app:1000, map root:801000 -> app:40003000, map root:800000/S -> app:400000/S,
    grant web:70000000/64k -> app:70000000/64k, map app:1000 -> app:50000000, map root:800000/64k -> app:bf000000/64k";

/// The world in which the script runs, with a quota for `app`.
fn world<F: TestFormat>(parts: &Parts<F>) -> World<'_, F> {
    let world = World::new(parts, 3);
    world.run("map sigma0:800000/S -> root:800000/S, map sigma0:400000/64k -> web:70000000/64k");
    world
}

fn app<'a, F: TestFormat>(world: &World<'a, F>) -> &'a Space {
    world.spaces.get(SpaceRef::new(APP as u32))
}

/// Runs the script with each quota that makes a difference. What is refused can be had later, and all comes back.
fn check_each_quota<F: TestFormat>() {
    let (parts, full) = (Parts::<F>::new(512), Parts::<F>::new(512));
    let without = world(&full);
    let start = without.spaces.memory_used(app(&without));
    without.run(SCRIPT);
    let (end, expected) = (without.spaces.memory_used(app(&without)), without.print());
    assert!(end > start + 4 * 4096, "the script takes {start} to {end} bytes");
    let mut refused = 0;
    for quota in (start..end + STEP).step_by(STEP) {
        let world = world(&parts);
        world.spaces.set_quota(app(&world), quota);
        for command in super::world::commands(SCRIPT) {
            refused += usize::from(world.try_command(command).is_err());
            assert!(world.spaces.memory_used(app(&world)) <= quota);
            world.check_structure(Rest::Settled);
        }
        // Others have as much as before.
        world.run("map root:800000/S -> disk:400000/S, map root:800000/64k -> disk:bf000000/64k, flush disk:all");
        world.spaces.set_quota(app(&world), NO_QUOTA);
        super::world::commands(SCRIPT).for_each(|command| assert_eq!(world.try_command(command), Ok(()), "{command}"));
        assert_eq!(world.print(), expected, "quota {quota}");
        world.run("flush app:all");
        assert!(world.spaces.memory_used(app(&world)) < end);
        world.release_all();
    }
    assert!(refused > 10, "{refused} commands were refused");
    without.release_all();
}

#[test]
fn no_quota_is_exceeded_on_amd64() {
    check_each_quota::<Amd64>();
}

#[test]
fn no_quota_is_exceeded_on_ia32() {
    check_each_quota::<Ia32>();
}

#[test]
fn no_quota_is_exceeded_with_three_sizes() {
    check_each_quota::<Toy>();
}

/// A quota below what is in use takes nothing away, and a space without one is charged all the same.
#[test]
fn quota_takes_nothing_away() {
    let parts = Parts::<Amd64>::new(512);
    let world = world(&parts);
    world.run(SCRIPT);
    let (tree, used) = (world.print(), world.spaces.memory_used(app(&world)));
    world.spaces.set_quota(app(&world), 0);
    assert!(world.try_command("map root:802000 -> app:2000").is_err());
    assert_eq!((world.print(), world.spaces.memory_used(app(&world))), (tree, used));
    world.run("flush app:all, map root:802000 -> disk:2000");
    assert!(world.spaces.memory_used(app(&world)) < used && world.is_alive(APP) && NAMES[APP] == "app");
    world.release_all();
}
