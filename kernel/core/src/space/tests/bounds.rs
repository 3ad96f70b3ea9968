//! How long a step can take, and how many steps a large range takes.

use kformats::paging::{Amd64, Ia32};
use l4_abi::{Fpage, Rights};

use super::world::{Parts, TestFormat, Toy, UNLIMITED, World};
use crate::lock::Held;
use crate::machine::SpaceRef;
use crate::mapdb::{MapCursor, Progress, UnmapScope};
use crate::tests::random::Random;

/// The budget of a step of the system calls.
const BUDGET: u32 = crate::ipc::STEP_BUDGET;

/// One page in a hundred places: all derived from the first, each from the one before, or anything in between; and some
/// of them large pages, mapped in parts.
fn shapes() -> Vec<String> {
    let place =
        |n: u64| format!("{}:{:x}", ["root", "app", "web", "disk"][n as usize % 4], 0x10_0000 + (n / 4) * 0x1000);
    let mut shapes: Vec<String> = Vec::new();
    for seed in 1..=6 {
        let mut random = Random(seed);
        let mut script = format!("map sigma0:1000 -> {}", place(0));
        for n in 1..160 {
            let parent = match seed {
                1 => 0,
                2 => n - 1,
                3 => n / 2,
                _ => random.below(n),
            };
            script += &format!(", map {} -> {}", place(parent), place(n));
        }
        shapes.push(script);
    }
    let parts =
        (0..64).map(|n| format!("map root:400000/S -> {}:{:x}/S @ 0", ["app", "web"][n % 2], 0x80_0000 * (1 + n)));
    shapes.push(
        std::iter::once("map sigma0:400000/S -> root:400000/S".to_owned()).chain(parts).collect::<Vec<_>>().join(", "),
    );
    let small = (0..80).map(|n| format!("map root:{:x} -> app:{:x}", 0x40_0000 + (n % 8) * 0x1000, 0x1000 * n));
    shapes.push(
        std::iter::once("map sigma0:400000/S -> root:400000/S".to_owned()).chain(small).collect::<Vec<_>>().join(", "),
    );
    shapes
}

/// Steps that an operation takes with this budget; each is bounded, which [`World`] checks.
fn steps<F: TestFormat>(world: &World<'_, F>, space: usize, fpage: Fpage, scope: UnmapScope) -> usize {
    let cursor = MapCursor::default();
    let space = SpaceRef::new(space as u32);
    let mut steps = 1;
    let step = || {
        world.bounded_step(|held, budget| world.spaces.unmap(held, space, fpage, scope, &cursor, budget))
            == Progress::Again
    };
    while step() {
        steps += 1;
    }
    steps
}

fn check_revocations<F: TestFormat>() {
    for shape in shapes() {
        for rights in [Rights::NONE, Rights::WRITE, Rights::ALL] {
            for scope in [UnmapScope::Derived, UnmapScope::Flush] {
                for budget in [1, 5, BUDGET] {
                    let parts = Parts::<F>::new(512);
                    let mut world = World::new(&parts, UNLIMITED);
                    for command in super::world::commands(&shape) {
                        world.try_command(command).expect("memory");
                    }
                    let nodes = world.spaces.mapdb().used();
                    world.budget = budget;
                    let (base, size_log2) = if shape.contains("/S") { (0x40_0000, 22) } else { (0x10_0000, 12) };
                    let fpage = Fpage::new(base, size_log2, rights).expect("an fpage");
                    let steps = steps(&world, 1, fpage, scope);
                    // A mapping is lifted and removed, or entered and left; holes come in between.
                    let most = 1 + (3 * nodes + 200) / budget as usize;
                    assert!(steps <= most, "{steps} steps with a budget of {budget} for {nodes} nodes: {shape}");
                    world.budget = UNLIMITED;
                    world.release_all();
                }
            }
        }
    }
}

/// However a tree looks, the entries that a step of its revocation touches are bounded by the budget, and the steps by
/// the size of the tree.
#[test]
fn revocation_is_bounded_for_trees_of_any_shape() {
    check_revocations::<Amd64>();
    check_revocations::<Ia32>();
    check_revocations::<Toy>();
}

/// The measure is one: without a budget the same work is one long step.
#[test]
fn step_without_a_budget_touches_much() {
    let parts = Parts::<Amd64>::new(512);
    let world = World::new(&parts, UNLIMITED);
    for command in super::world::commands(&shapes()[0]) {
        world.try_command(command).expect("memory");
    }
    assert_eq!(steps(&world, 0, Fpage::COMPLETE.with_rights(Rights::WRITE), UnmapScope::Derived), 1);
    assert!(world.longest.get() > 160 * 4, "every mapping was walked to");
    world.release_all();
}

/// Unmap of the complete space takes as long as there are tables, however large the space is.
#[test]
fn complete_space_with_few_pages_takes_few_steps() {
    let parts = Parts::<Amd64>::new(512);
    let mut world = World::new(&parts, UNLIMITED);
    world.run(
        "map sigma0:1000 -> root:1000, map sigma0:400000/S -> root:40000000/S, map sigma0:1000 -> root:7fffffffe000,
         map sigma0:1000 -> root:400000000000, map sigma0:100000000/L -> root:100000000000/L, map root:all -> app:all",
    );
    world.budget = BUDGET;
    let all = Fpage::COMPLETE.with_rights(Rights::ALL);
    for (space, scope, most) in [(1, UnmapScope::Derived, 8), (1, UnmapScope::Flush, 8), (0, UnmapScope::Flush, 30)] {
        let steps = steps(&world, space, all, scope);
        assert!(steps <= most, "{steps} steps for the space {space}");
    }
    let left = world.mappings().len();
    assert_eq!(left, 0, "{}", world.print());
    world.budget = UNLIMITED;
    world.release_all();
}

/// An empty table in the way, and one full of pages, are made room in bounded steps.
#[test]
fn making_room_for_a_larger_page_is_bounded() {
    let parts = Parts::<Amd64>::new(1024);
    let mut world = World::new(&parts, UNLIMITED);
    world.run("map sigma0:400000/S -> root:400000/S, map sigma0:0/64k -> app:0/64k");
    // 32 small pages at the end of each of 64 superpages; the last of them is full.
    for superpage in 0..64u64 {
        world
            .try_command(&format!("map root:400000/64k -> app:{:x}/64k", 0x401F_0000 + superpage * 0x20_0000))
            .expect("memory");
    }
    world.try_command("map root:400000/S -> app:47e00000/S").expect("memory");
    world.run("unmap root:47e00000/S");
    world.budget = BUDGET;
    world.run("map sigma0:80000000/L -> root:80000000/L, map sigma0:100000000/L -> app:40000000/L");
    let sizes = |space| world.mappings().iter().filter(|page| page.0 == space && page.3.level == 2).count();
    assert_eq!((sizes(1), sizes(2)), (0, 1));
    world.budget = UNLIMITED;
    world.release_all();
}

/// What [`World`] checks of steps is checked here, too.
#[test]
fn map_of_the_complete_space_takes_few_steps() {
    let parts = Parts::<Amd64>::new(256);
    let mut world = World::new(&parts, UNLIMITED);
    world.run("map sigma0:1000 -> root:1000, map sigma0:1000 -> root:7fffffffe000");
    world.budget = BUDGET;
    let cursor = MapCursor::default();
    let all = Fpage::COMPLETE.with_rights(Rights::ALL);
    let item = l4_abi::MapItem::map(all, 0);
    let transfer = crate::space::Transfer { source: SpaceRef::new(1), dest: SpaceRef::new(2), item, window: all };
    let mut steps = 1;
    while world.spaces.map(&mut Held::nothing(), &transfer, &cursor, &mut BUDGET.clone()) == Progress::Again {
        steps += 1;
    }
    assert!(steps <= 8, "{steps} steps");
    assert_eq!(world.mappings().iter().filter(|page| page.0 == 2).count(), 2);
    world.budget = UNLIMITED;
    world.release_all();
}
