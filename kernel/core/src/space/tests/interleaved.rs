//! Operations that run at the same time: each step of one may find what another has done since.

use kformats::paging::{Amd64, Entry, Ia32, PatIndex};
use l4_abi::{Fpage, MapItem, MapKind, Rights, Word};

use super::world::{Parts, TestFormat, Toy, UNLIMITED, World};
use crate::lock::Held;
use crate::machine::SpaceRef;
use crate::mapdb::{MapCursor, Progress, UnmapScope};
use crate::space::{Rest, Transfer};
use crate::tests::random::Random;

#[derive(Clone, Copy, Debug)]
enum Operation {
    Map(Transfer),
    Unmap(SpaceRef, Fpage, UnmapScope),
    Cache(SpaceRef, Fpage, PatIndex),
}

fn random_operation<F: TestFormat>(random: &mut Random) -> Operation {
    let fpage = random.fpage::<F>();
    if random.below(3) == 0 {
        let scope = random.pick([UnmapScope::Derived, UnmapScope::Flush]);
        return Operation::Unmap(SpaceRef::new(random.below(5) as u32), fpage, scope);
    }
    if random.below(8) == 0 {
        let cache = PatIndex::new(random.pick([0, 3, 5])).expect("an index");
        return Operation::Cache(SpaceRef::new(random.below(5) as u32), fpage, cache);
    }
    let kind = random.pick([MapKind::Map, MapKind::Map, MapKind::Grant]);
    let item = MapItem { snd_base: random.address::<F>() as Word, fpage, kind };
    let (source, dest) = (SpaceRef::new(random.below(5) as u32), SpaceRef::new(1 + random.below(4) as u32));
    Operation::Map(Transfer { source, dest, item, window: random.fpage::<F>() })
}

fn step<F: TestFormat>(world: &World<'_, F>, operation: &Operation, cursor: &MapCursor, budget: &mut u32) -> Progress {
    let held = &mut Held::nothing();
    match operation {
        Operation::Map(transfer) => world.spaces.map(held, transfer, cursor, budget),
        Operation::Unmap(space, fpage, scope) => world.spaces.unmap(held, *space, *fpage, *scope, cursor, budget),
        Operation::Cache(space, fpage, cache) => world.spaces.set_cache(held, *space, *fpage, *cache, cursor, budget),
    }
}

fn run_interleaved<F: TestFormat>(seed: u64) {
    let parts = Parts::<F>::new(1024);
    let world = World::new(&parts, 5);
    let mut random = Random(seed);
    let mut running: Vec<(Operation, MapCursor)> = Vec::new();
    for round in 0..5000 {
        while running.len() < 4 {
            running.push((random_operation::<F>(&mut random), MapCursor::default()));
        }
        let index = random.below(running.len() as u64) as usize;
        let (operation, cursor) = &running[index];
        if step(&world, operation, cursor, &mut (1 + random.below(6) as u32)) != Progress::Again {
            running.swap_remove(index);
        }
        if round % 30 == 0 {
            let broken = world.spaces.check_invariants(Rest::Revoking).err();
            assert_eq!(broken, None, "seed {seed}, round {round}");
        }
    }
    for (operation, cursor) in &running {
        while step(&world, operation, cursor, &mut UNLIMITED.clone()) == Progress::Again {}
    }
    world.release_all();
}

#[test]
fn interleaved_steps_keep_the_invariants() {
    for seed in 1..=4 {
        run_interleaved::<Amd64>(seed);
        run_interleaved::<Ia32>(seed);
        run_interleaved::<Toy>(seed);
        run_interleaved::<Toy>(seed + 10);
    }
}

/// Whoever removes mappings below a page all the time, so that a walk through them loses its place, cannot keep the
/// rights to it from being revoked.
#[test]
fn changes_below_a_page_cannot_hold_up_a_revocation() {
    for budget in [12, 15, 19] {
        let parts = Parts::<Amd64>::new(128);
        let world = World::new(&parts, UNLIMITED);
        world.run("map sigma0:1000 -> root:4000");
        let map_all = || (0..10).for_each(|page| world.run(&format!("map root:4000 -> app:{:x}", page * 0x1000)));
        map_all();
        let fpage = Fpage::new(0x4000, 12, Rights::WRITE).expect("an fpage");
        let operation = Operation::Unmap(SpaceRef::new(1), fpage, UnmapScope::Derived);
        let cursor = MapCursor::default();
        let mut steps = 0;
        while step(&world, &operation, &cursor, &mut budget.clone()) == Progress::Again {
            world.run("flush app:all");
            map_all();
            steps += 1;
            assert!(steps < 100, "the revocation ends");
        }
        let may_write = |entry| matches!(entry, Entry::Leaf(leaf) if leaf.access.write);
        assert!(
            !world.mappings().iter().any(|(space, _, place, _)| *space == 2 && may_write(world.spaces.entry(place)))
        );
        world.release_all();
    }
}

/// A page that is granted away while its derived mappings lose rights takes the rest of them along.
#[test]
fn page_granted_in_the_middle_of_a_revocation_is_left_alone() {
    let parts = Parts::<Amd64>::new(128);
    let world = World::new(&parts, UNLIMITED);
    world.run("map sigma0:1000 -> root:4000, map root:4000 -> app:1000, map root:4000 -> app:2000");
    let fpage = Fpage::new(0x4000, 12, Rights::WRITE).expect("an fpage");
    let operation = Operation::Unmap(SpaceRef::new(1), fpage, UnmapScope::Derived);
    let cursor = MapCursor::default();
    assert_eq!(step(&world, &operation, &cursor, &mut 1), Progress::Again);
    world.run("grant root:4000 -> web:8000, map sigma0:2000 -> root:4000, map root:4000 -> disk:0");
    while step(&world, &operation, &cursor, &mut 1) == Progress::Again {}
    assert_eq!(world.print(), "sigma0:0/S (root:4000@2000 (disk:0=rx), web:8000@1000 (app:1000, app:2000=rx))");
    world.release_all();
}

/// Whoever grants a page away in parts, or begins to remove it, between two steps of a revocation moves mappings to other
/// places in the tree, but not past the revocation.
#[test]
fn mappings_that_move_in_the_tree_lose_their_rights_too() {
    let setup = "map sigma0:400000/S -> root:400000/S, map root:400000/S -> app:400000/S,
        map root:401000 -> web:1000, map root:402000 -> web:2000, map web:2000 -> disk:2000,
        map app:403000 -> disk:3000, map app:404000 -> web:4000, map web:4000 -> disk:4000";
    let may_write = |world: &World<'_, Amd64>| {
        let may_write = |entry| matches!(entry, Entry::Leaf(leaf) if leaf.access.write);
        world
            .mappings()
            .iter()
            .filter(|(space, _, place, _)| *space > 1 && may_write(world.spaces.entry(place)))
            .count()
    };
    for first in 1..12 {
        for second in 1..12 {
            let parts = Parts::<Amd64>::new(128);
            let world = World::new(&parts, UNLIMITED);
            world.run(setup);
            let fpage = Fpage::new(0x40_0000, 21, Rights::WRITE).expect("an fpage");
            let revocation = Operation::Unmap(SpaceRef::new(1), fpage, UnmapScope::Derived);
            let cursor = MapCursor::default();
            let is_done = step(&world, &revocation, &cursor, &mut first.clone()) == Progress::Done;
            // Parts of app's large page become siblings of it; then a part of the removal of all that is web's.
            let part = Fpage::new(0x40_4000, 13, Rights::ALL).expect("an fpage");
            let item = MapItem { snd_base: 0, fpage: part, kind: MapKind::Grant };
            let window = Fpage::new(0x80_0000, 13, Rights::ALL).expect("an fpage");
            let grant = Operation::Map(Transfer { source: SpaceRef::new(2), dest: SpaceRef::new(4), item, window });
            step(&world, &grant, &MapCursor::default(), &mut second.clone());
            let all = Operation::Unmap(SpaceRef::new(3), Fpage::COMPLETE.with_rights(Rights::ALL), UnmapScope::Flush);
            step(&world, &all, &MapCursor::default(), &mut second.clone());
            while !is_done && step(&world, &revocation, &cursor, &mut UNLIMITED.clone()) == Progress::Again {}
            assert_eq!(may_write(&world), 0, "steps of {first} and {second}: {}", world.print());
            world.release_all();
        }
    }
}

/// The items and windows of a message are in user memory and may change between two steps.
#[test]
fn operands_that_change_on_the_way_do_no_harm() {
    let parts = Parts::<Amd64>::new(512);
    let world = World::new(&parts, UNLIMITED);
    world.run("map sigma0:400000/S -> root:800000/S, map sigma0:0/64k -> root:0/64k");
    let mut random = Random(7);
    for _ in 0..300 {
        let cursor = MapCursor::default();
        for _ in 0..6 {
            let operation = random_operation::<Amd64>(&mut random);
            step(&world, &operation, &cursor, &mut 3);
            assert_eq!(world.spaces.check_invariants(Rest::Revoking).err(), None);
        }
    }
    world.release_all();
}
