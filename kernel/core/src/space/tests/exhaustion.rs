//! Kernel memory runs out at every place where it can.

use kformats::paging::{Amd64, Ia32};

use super::world::{NAMES, Parts, TestFormat, Toy, UNLIMITED, World};
use crate::machine::NoMemory;
use crate::space::Rest;

const SCRIPT: &str = "map sigma0:1000 -> root:4000, map sigma0:400000/S -> root:800000/S,
    map root:803000 -> app:40003000, map root:800000/S -> web:bf800000/S, utcb app:bf001000,
    map sigma0:bff00000 -> disk:10000000, map app:40003000 -> app:50000000, map sigma0:2000 -> root:4000,
    grant root:801000 -> disk:20000000, map sigma0:0/64k -> web:70000000/64k,
    cache sigma0:800000/8k ^ 4, fault c00000, cache sigma0:c01000 ^ 4, unmap sigma0:0/S=w, flush app:all,
    release web";

/// The same with pages larger than superpages.
const LARGER_SCRIPT: &str = "fault 40001000, cache sigma0:40011000 ^ 0, map sigma0:1000 -> app:100001000,
    map sigma0:40000000/L -> root:100000000/L, map root:100001000 -> app:5000, map sigma0:8000/S -> app:100038000/S,
    map root:100000000/L -> app:100000000/L, grant app:100000000/L -> web:0/L, map web:1000 -> disk:1000,
    grant web:8000/S -> disk:100008000/S, flush root:100000000, map sigma0:40000000/L -> disk:0/L,
    flush sigma0:40000000, cache sigma0:40008000 ^ 3";

/// Runs the script with the `n`th allocation failing; what fails is tried again. `false` if there were fewer.
fn run_with_failure<F: TestFormat>(script: &str, n: usize, expected: &str) -> bool {
    let parts = Parts::<F>::new(512);
    let world = World::empty(&parts, UNLIMITED);
    parts.kmem.fail_nth(n);
    for name in NAMES {
        let free = parts.kmem.free_count();
        if world.create(name).is_err() {
            assert_eq!(parts.kmem.free_count(), free, "a space that is not made leaves nothing");
            world.create(name).expect("memory");
        }
    }
    for command in super::world::commands(script) {
        let before = world.known();
        let (tree, free) = (world.print(), parts.kmem.free_count());
        let mut result = world.try_command(command);
        world.check(&before, Rest::Settled);
        if result == Err(NoMemory) {
            let is_free = parts.kmem.free_count() == free;
            assert!(is_free || world.print() != tree, "what was not mapped took no memory: {command}, allocation {n}");
            result = world.try_command(command);
        }
        assert_eq!(result, Ok(()), "{command}");
    }
    assert_eq!(world.print(), expected, "allocation {n} failed");
    world.release_all();
    !parts.kmem.is_failure_pending()
}

fn check_every_failure<F: TestFormat>(script: &str) {
    let parts = Parts::<F>::new(512);
    let world = World::new(&parts, UNLIMITED);
    world.run(script);
    let expected = world.print();
    let failures = (1..).take_while(|n| run_with_failure::<F>(script, *n, &expected)).count();
    assert!(failures > 20, "the script allocates, {failures} times");
}

#[test]
fn every_failed_allocation_can_be_tried_again_on_amd64() {
    check_every_failure::<Amd64>(SCRIPT);
}

#[test]
fn every_failed_allocation_can_be_tried_again_on_ia32() {
    check_every_failure::<Ia32>(SCRIPT);
}

#[test]
fn every_failed_allocation_can_be_tried_again_with_three_sizes() {
    check_every_failure::<Toy>(SCRIPT);
    check_every_failure::<Toy>(LARGER_SCRIPT);
}

/// With little memory a superpage is mapped in small pieces until none is left.
#[test]
fn exhausted_memory_ends_a_map_where_it_is() {
    for frames in 30..60 {
        let parts = Parts::<Amd64>::new(frames);
        let world = World::empty(&parts, 3);
        if NAMES.iter().any(|name| world.create(name).is_err()) {
            world.release_all();
            continue;
        }
        let before = world.known();
        let commands =
            ["map sigma0:400000/S -> root:800000/S", "map root:801000 -> app:1000", "map root:800000/S -> app:0/S"];
        let results = commands.map(|command| world.try_command(command));
        world.check(&before, Rest::Settled);
        let size = |level: u32| 1u64 << (12 + 9 * level);
        let bytes: u64 = world.mappings().iter().filter(|page| page.0 == 2).map(|page| size(page.3.level)).sum();
        assert!(results[0].is_err() || results[2].is_ok() == (bytes == size(1)), "{frames} frames");
        world.release_all();
    }
}
