//! The rules of X.2 one by one, in the language of [`super::world`].

use kformats::paging::{Amd64, Ia32, PatIndex};
use l4_abi::{Fpage, MapItem, Rights, Word};

use super::world::{KIP_AREA, NAMES, Parts, TestFormat, Toy, UNLIMITED, UTCB_AREA, World, check, check_on};
use crate::lock::Held;
use crate::machine::{PhysAddr, SpaceRef};
use crate::pool::Table;
use crate::space::map::Route;
use crate::space::{Mapping, Rest, Space, SpaceConfig, SpaceKind, Spaces};

// --- which part of the send fpage goes where ---

/// Checks a send fpage of 2^`s` at `fpage`, base `base`, into a window of 2^`r` at `window`.
fn check_route((fpage, s): (u64, u32), base: u64, (window, r): (u64, u32), expected: Option<(u64, u64, u64)>) {
    let make = |base: u64, size_log2: u32| match size_log2 {
        64 => Fpage::COMPLETE,
        _ => Fpage::new(base as Word, size_log2, Rights::ALL).expect("an fpage"),
    };
    let route = Route::new(&MapItem::map(make(fpage, s), base as Word), make(window, r), 1 << 47, 1 << 47);
    assert_eq!(route.map(|route| (route.from, route.to, route.len)), expected);
}

#[test]
fn equal_sizes_go_to_the_window_whatever_the_base() {
    check_route((0x4000, 14), 0x123_4400, (0x8000, 14), Some((0x4000, 0x8000, 0x4000)));
}

#[test]
fn small_fpage_goes_where_the_base_says() {
    check_route((0x4000, 12), 0x3000, (0x8000, 14), Some((0x4000, 0xB000, 0x1000)));
    check_route((0x4000, 13), 0x7_3400, (0x8000, 14), Some((0x4000, 0xA000, 0x2000)));
    check_route((0x4000, 12), 0x1234_5000, (0, 64), Some((0x4000, 0x1234_5000, 0x1000)));
}

#[test]
fn large_fpage_is_cut_where_the_base_says() {
    check_route((0x8000, 15), 0x5000, (0x3000, 12), Some((0xD000, 0x3000, 0x1000)));
    check_route((0x8000, 15), 0xFF_7000, (0x2000, 13), Some((0xE000, 0x2000, 0x2000)));
    check_route((0, 64), 0x1234_5678, (0x2000, 13), Some((0x1234_4000, 0x2000, 0x2000)));
}

#[test]
fn complete_space_is_cut_at_the_end_of_user_memory() {
    check_route((0, 64), 0x5000, (0, 64), Some((0, 0, 1 << 47)));
    check_route((0, 48), 0, (0, 64), Some((0, 0, 1 << 47)));
    check_route((0x1000, 12), 1 << 50, (0, 64), None);
    check_route((1 << 50, 12), 0, (0x1000, 12), None);
}

#[test]
fn less_than_a_page_is_nothing() {
    check_route((0x4000, 10), 0, (0x8000, 14), None);
    check_route((0x4000, 12), 0, (0x8000, 11), None);
    check("map sigma0:1000/1k -> root:4000, map sigma0:1000 -> root:4000/1k", "");
}

// --- map ---

#[test]
fn map_derives_a_page() {
    check("map sigma0:1000 -> root:4000, map root:4000 -> app:8000", "sigma0:0/S (root:4000@1000 (app:8000))");
}

#[test]
fn send_base_places_a_page_in_the_window() {
    check("map sigma0:1000 -> root:10000/64k @ 3000", "sigma0:0/S (root:13000@1000)");
    check("map sigma0:10000/64k -> root:4000 @ 5000", "sigma0:0/S (root:4000@15000)");
    check("map sigma0:1000 -> root:all @ 77000", "sigma0:0/S (root:77000@1000)");
}

#[test]
fn rights_are_what_was_sent_and_what_the_source_has() {
    check("map sigma0:1000=rx -> root:4000, map root:4000 -> app:8000", "sigma0:0/S (root:4000=rx@1000 (app:8000=rx))");
    check_on::<Amd64>(
        "map sigma0:1000=rw -> root:4000, map root:4000=rx -> app:8000",
        "sigma0:0/S (root:4000=rw@1000 (app:8000=r))",
    );
}

#[test]
fn mapped_page_can_be_read() {
    check_on::<Amd64>("map sigma0:1000=w -> root:4000", "sigma0:0/S (root:4000=rw@1000)");
    check_on::<Ia32>("map sigma0:1000=r -> root:4000", "sigma0:0/S (root:4000=rx@1000)");
}

#[test]
fn nothing_is_mapped_without_any_right() {
    check("map sigma0:1000=- -> root:4000", "");
}

#[test]
fn hole_in_the_source_leaves_the_destination_alone() {
    check(
        "map sigma0:1000 -> root:4000, map sigma0:3000 -> root:6000, map sigma0:9000 -> app:15000,
         map root:4000/16k -> app:14000/16k",
        "sigma0:0/S (root:4000@1000 (app:14000), root:6000@3000 (app:16000), app:15000@9000)",
    );
}

#[test]
fn empty_source_maps_nothing() {
    check("map root:all -> app:all, map root:40000000/S -> app:40000000/S", "");
}

#[test]
fn complete_space_is_mapped_to_the_same_addresses() {
    check(
        "map sigma0:1000 -> root:7fff000, map sigma0:400000/S -> root:800000/S, map root:all -> app:all",
        "sigma0:0/S (root:7fff000@1000 (app:7fff000)), sigma0:400000/S (root:800000/S (app:800000/S))",
    );
}

#[test]
fn superpage_is_mapped_whole() {
    check("map sigma0:400000/S -> root:800000/S", "sigma0:400000/S (root:800000/S)");
    let two = "map sigma0:800000/2S -> root:0/2S, unmap sigma0:800000/S";
    check_on::<Amd64>(two, "sigma0:800000/S, sigma0:a00000/S (root:200000/S)");
    check_on::<Ia32>(two, "sigma0:800000/S, sigma0:c00000/S (root:400000/S)");
}

#[test]
fn superpage_is_mapped_in_small_pages_where_that_is_all_that_fits() {
    check(
        "map sigma0:400000/S -> root:800000/S, map root:803000 -> app:3000, map root:804000/8k -> app:6000/8k",
        "sigma0:400000/S (root:800000/S (app:3000@403000, app:6000@404000, app:7000@405000))",
    );
}

#[test]
fn small_pages_fill_a_large_window() {
    check(
        "map sigma0:401000 -> root:801000, map sigma0:402000 -> root:802000, map root:800000/S -> app:c00000/S",
        "sigma0:400000/S (root:801000@401000 (app:c01000), root:802000@402000 (app:c02000))",
    );
}

#[test]
fn superpage_to_an_unaligned_place_is_divided() {
    for budget in [UNLIMITED, 5] {
        let parts = Parts::<Amd64>::new(256);
        let world = World::new(&parts, budget);
        world.run("map sigma0:400000/S -> root:800000/S, map root:800000/2S -> app:0/2S");
        assert_eq!(world.print(), "sigma0:400000/S (root:800000/S (app:0/S))");
        // The KIP area is in the way of a superpage, not of the pages around it.
        world.run("flush app:all, map root:800000/S -> app:bfe00000/S");
        assert_eq!(world.mappings().iter().filter(|(space, ..)| *space == 2).count(), 511);
        world.release_all();
    }
}

#[test]
fn same_page_again_extends_rights() {
    check("map sigma0:1000=rx -> root:4000, map sigma0:1000 -> root:4000", "sigma0:0/S (root:4000@1000)");
    check(
        "map sigma0:400000/S=rx -> root:800000/S, map sigma0:400000/S -> root:800000/S",
        "sigma0:400000/S (root:800000/S)",
    );
}

#[test]
fn same_page_again_never_reduces_rights() {
    check("map sigma0:1000 -> root:4000, map sigma0:1000=rx -> root:4000", "sigma0:0/S (root:4000@1000)");
    check_on::<Amd64>(
        "map sigma0:1000=rw -> root:4000, map sigma0:1000=rx -> root:4000",
        "sigma0:0/S (root:4000@1000)",
    );
}

#[test]
fn extension_keeps_what_is_derived() {
    check(
        "map sigma0:1000=rx -> root:4000, map root:4000 -> app:8000, map sigma0:1000 -> root:4000",
        "sigma0:0/S (root:4000@1000 (app:8000=rx))",
    );
}

#[test]
fn same_page_from_elsewhere_stays_if_it_has_the_rights() {
    check(
        "map sigma0:1000 -> root:4000, map sigma0:1000 -> app:4000, map root:4000 -> web:8000, map app:4000 -> web:8000",
        "sigma0:0/S (root:4000@1000 (web:8000), app:4000@1000)",
    );
}

#[test]
fn same_page_from_elsewhere_with_more_rights_replaces() {
    check(
        "map sigma0:1000 -> root:4000, map sigma0:1000 -> app:4000, map root:4000=rx -> web:8000, map app:4000 -> web:8000",
        "sigma0:0/S (root:4000@1000, app:4000@1000 (web:8000))",
    );
}

#[test]
fn page_mapped_back_to_its_origin_changes_nothing() {
    let mapped = "sigma0:0/S (root:4000@1000 (app:8000))";
    check("map sigma0:1000 -> root:4000, map root:4000 -> app:8000, map app:8000 -> root:4000", mapped);
}

#[test]
fn other_page_replaces_with_all_that_is_derived() {
    check(
        "map sigma0:1000 -> root:4000, map root:4000 -> app:8000, map app:8000 -> web:c000, map sigma0:2000 -> root:4000",
        "sigma0:0/S (root:4000@2000)",
    );
    check(
        "map sigma0:400000/S -> root:800000/S, map root:801000 -> app:8000, map sigma0:800000/S -> root:800000/S",
        "sigma0:400000/S, sigma0:800000/S (root:800000/S)",
    );
}

#[test]
fn small_pages_give_way_to_a_superpage() {
    check(
        "map sigma0:1000 -> root:801000, map root:801000 -> app:1000, map sigma0:2000 -> root:805000,
         map sigma0:400000/S -> root:800000/S",
        "sigma0:0/S, sigma0:400000/S (root:800000/S)",
    );
    // Even if they are parts of it.
    check(
        "map sigma0:400000/S -> app:0/S, map app:1000 -> root:801000, map sigma0:401000 -> root:802000,
         map app:0/S -> root:800000/S",
        "sigma0:400000/S (app:0/S (root:800000/S))",
    );
    check(
        "map sigma0:1000 -> root:801000, map sigma0:400000/S -> app:0/S, grant app:0/S -> root:800000/S",
        "sigma0:0/S, sigma0:400000/S (root:800000/S)",
    );
}

#[test]
fn destination_that_was_divided_takes_a_superpage_again() {
    check(
        "map sigma0:1000 -> root:801000, flush root:801000, map sigma0:400000/S -> root:800000/S, flush root:800000/S,
         map sigma0:1000 -> root:801000, map sigma0:800000/S -> root:800000/S",
        "sigma0:0/S, sigma0:400000/S, sigma0:800000/S (root:800000/S)",
    );
}

#[test]
fn table_in_the_way_of_a_superpage_is_freed() {
    let parts = Parts::<Amd64>::new(256);
    let world = World::new(&parts, UNLIMITED);
    world.run("map sigma0:400000/S -> root:400000/S");
    let free = parts.kmem.free_count();
    for _ in 0..3 {
        world.run("map sigma0:1000 -> root:801000");
        assert_eq!(free - parts.kmem.free_count(), 2, "a table and its shadow");
        world.run("map sigma0:400000/S -> root:800000/S, flush root:800000/S");
        assert_eq!(parts.kmem.free_count(), free);
    }
    world.release_all();
}

#[test]
fn destination_in_a_larger_page_stays() {
    check(
        "map sigma0:400000/S -> root:800000/S, map sigma0:1000 -> root:803000, map sigma0:0/16k -> root:804000/16k",
        "sigma0:0/S, sigma0:400000/S (root:800000/S)",
    );
}

#[test]
fn kernel_pages_are_no_destination() {
    check("utcb root:bf000000, map sigma0:1000 -> root:bf000000, map sigma0:1000 -> root:bff00000", "");
    check("map sigma0:1000 -> root:bf01f000", "");
    check(
        "map sigma0:100000/64k -> root:bf030000/64k, map sigma0:103000 -> root:bf040000",
        "sigma0:0/S (root:bf040000@103000)",
    );
}

#[test]
fn kernel_pages_are_no_source() {
    check("utcb root:bf000000, map root:bf000000 -> app:4000, map root:bff00000 -> app:5000", "");
    check("utcb root:bf000000, grant root:bf000000 -> app:4000, grant root:bff00000 -> app:5000", "");
}

#[test]
fn kernel_addresses_are_no_destination() {
    check_on::<Amd64>("map sigma0:1000 -> root:800000000000, map sigma0:1000 -> root:ffffffff80000000", "");
    check_on::<Amd64>("map sigma0:1000 -> root:7ffffffff000", "");
    check_on::<Ia32>("map sigma0:1000 -> root:c0000000, map sigma0:400000/S -> root:ffc00000/S", "");
}

#[test]
fn kernel_addresses_are_no_source() {
    check_on::<Amd64>("map root:ffffffff80000000 -> app:1000", "");
    check_on::<Ia32>("map root:c0000000/S -> app:400000/S", "");
}

#[test]
fn overmapping_can_destroy_the_source() {
    // root gets page 1000 from app, at the place whose page app's comes from; app's page goes, so nothing is left to map.
    check(
        "map sigma0:400000/S -> root:400000/S, map root:401000 -> app:1000, map app:1000 -> root:800000, map root:400000/S -> root:c00000/S",
        "sigma0:400000/S (root:400000/S (root:c00000/S, app:1000@401000 (root:800000)))",
    );
    check(
        "map sigma0:1000 -> root:4000, map sigma0:2000 -> web:7000, map root:4000 -> app:8000, map web:7000 -> disk:1000,
         map app:8000 -> web:9000, map app:8000=rx -> app:8000",
        "sigma0:0/S (root:4000@1000 (app:8000 (web:9000)), web:7000@2000 (disk:1000))",
    );
}

#[test]
fn overmapping_between_two_trees_that_feed_each_other() {
    // The fpage covers 4000 and 5000 of root; 5000 was derived from what is replaced at web:8000.
    check(
        "map sigma0:1000 -> root:4000, map sigma0:2000 -> web:8000, map web:8000 -> root:5000, map root:4000/8k -> web:8000/8k",
        "sigma0:0/S (root:4000@1000 (web:8000))",
    );
}

#[test]
fn page_can_be_mapped_within_a_space() {
    check(
        "map sigma0:1000 -> root:4000, map root:4000 -> root:5000, map root:5000=rx -> root:6000",
        "sigma0:0/S (root:4000@1000 (root:5000 (root:6000=rx)))",
    );
    check("map sigma0:1000 -> root:4000, map root:4000 -> root:4000", "sigma0:0/S (root:4000@1000)");
}

#[test]
fn long_chains_of_mappings_come_and_go() {
    let mut script = String::from("map sigma0:1000 -> root:100000");
    for page in 0..40u64 {
        script += &format!(", map root:{:x} -> root:{:x}", 0x10_0000 + page * 0x1000, 0x10_1000 + page * 0x1000);
    }
    check(&(script.clone() + ", flush root:100000"), "sigma0:0/S");
    check(&(script + ", unmap root:101000=w, unmap root:101000"), "sigma0:0/S (root:100000@1000 (root:101000))");
}

// --- grant ---

#[test]
fn grant_moves_a_page() {
    check("map sigma0:1000 -> root:4000, grant root:4000 -> app:8000", "sigma0:0/S (app:8000@1000)");
    check(
        "map sigma0:400000/S -> root:800000/S, grant root:800000/S -> app:c00000/S",
        "sigma0:400000/S (app:c00000/S)",
    );
}

#[test]
fn grant_keeps_what_is_derived() {
    check(
        "map sigma0:1000 -> root:4000, map root:4000 -> app:8000, grant root:4000 -> web:8000",
        "sigma0:0/S (web:8000@1000 (app:8000))",
    );
}

#[test]
fn grant_of_fewer_rights_flushes_what_is_derived() {
    check(
        "map sigma0:1000 -> root:4000, map root:4000 -> app:8000, map app:8000 -> disk:0, grant root:4000=rx -> web:8000",
        "sigma0:0/S (web:8000=rx@1000)",
    );
}

#[test]
fn right_that_the_processor_cannot_withhold_is_granted_along() {
    check_on::<Ia32>(
        "map sigma0:1000 -> root:4000, map root:4000 -> app:8000, grant root:4000=rw -> web:8000",
        "sigma0:0/S (web:8000@1000 (app:8000))",
    );
}

#[test]
fn granted_page_can_still_be_revoked() {
    check("map sigma0:1000 -> root:4000, grant root:4000 -> app:8000, unmap sigma0:1000", "sigma0:0/S");
}

#[test]
fn granter_loses_the_complete_fpage() {
    check("map sigma0:0/16k -> root:4000/16k, grant root:4000/16k -> app:8000 @ 2000", "sigma0:0/S (app:8000@2000)");
}

#[test]
fn grant_over_a_derived_page_replaces_it() {
    check(
        "map sigma0:1000 -> root:4000, map root:4000 -> app:8000, map app:8000 -> web:c000, grant root:4000 -> app:8000",
        "sigma0:0/S (app:8000@1000)",
    );
}

#[test]
fn grant_over_a_sibling_extends_its_rights() {
    check(
        "map sigma0:1000 -> root:4000, map sigma0:1000=rx -> app:8000, map app:8000 -> web:c000, grant root:4000 -> app:8000",
        "sigma0:0/S (app:8000@1000 (web:c000=rx))",
    );
}

#[test]
fn grant_back_to_the_origin_leaves_it_there() {
    check(
        "map sigma0:1000 -> root:4000, map root:4000 -> app:8000, grant app:8000 -> root:4000",
        "sigma0:0/S (root:4000@1000)",
    );
}

#[test]
fn grant_of_a_part_gives_a_part_and_takes_the_superpage() {
    check(
        "map sigma0:400000/S -> root:800000/S, map root:801000 -> web:1000, grant root:802000/8k -> app:2000/8k",
        "sigma0:400000/S (app:2000@402000, app:3000@403000)",
    );
}

#[test]
fn grant_within_a_space_moves_a_page() {
    check("map sigma0:1000 -> root:4000, grant root:4000 -> root:9000", "sigma0:0/S (root:9000@1000)");
}

#[test]
fn grant_to_itself_does_nothing() {
    check(
        "map sigma0:0/16k -> root:4000/16k, grant root:4000/16k -> root:4000/16k, unmap sigma0:1000/1k",
        "sigma0:0/S (root:4000@0, root:6000@2000, root:7000@3000)",
    );
    check(
        "map sigma0:1000 -> root:4000, grant root:4000 -> root:all @ 5000, grant root:4000/16k -> root:4000",
        "sigma0:0/S (root:5000@1000)",
    );
}

#[test]
fn grant_replaces_another_page() {
    check(
        "map sigma0:1000 -> root:4000, map sigma0:2000 -> app:8000, map app:8000 -> web:1000, grant root:4000 -> app:8000",
        "sigma0:0/S (app:8000@1000)",
    );
}

// --- sigma0 ---

#[test]
fn sigma0_faults_are_resolved_one_to_one() {
    check("fault 1234, fault 400000, fault 1fff", "sigma0:0/S, sigma0:400000/S");
    let parts = Parts::<Amd64>::new(64);
    let world = World::new(&parts, UNLIMITED);
    let fault = |address| world.spaces.sigma0_fault(&mut Held::nothing(), SpaceRef::new(0), address);
    assert_eq!(fault(KIP_AREA as usize), Ok(false));
    assert_eq!(fault(UTCB_AREA as usize + 0x1000), Ok(false));
    assert_eq!(fault(0x7FFF_FFFF_F000), Ok(false));
    assert_eq!(fault(0x7FFF_FFFF_E000), Ok(true));
    assert_eq!(world.print(), "sigma0:7fffffffe000");
    world.release_all();
}

#[test]
fn there_is_nothing_beyond_physical_memory() {
    let parts = Parts::<Amd64>::new(64);
    let world = World::with_physical_memory(&parts, 1 << 32);
    let fault = |address| world.spaces.sigma0_fault(&mut Held::nothing(), SpaceRef::new(0), address);
    assert_eq!(fault(1 << 32), Ok(false));
    assert_eq!(fault((1 << 32) - 1), Ok(true));
    world.run(
        "map sigma0:100000000 -> root:4000, map sigma0:fffff000 -> root:5000, map sigma0:200000000/S -> root:200000",
    );
    assert_eq!(world.print(), "sigma0:ffe00000/S (root:5000@fffff000)");
    world.release_all();
}

#[test]
fn what_sigma0_grants_it_maps() {
    check("grant sigma0:1000 -> root:4000, unmap sigma0:1000", "sigma0:0/S");
    check("grant sigma0:1000 -> root:4000", "sigma0:0/S (root:4000@1000)");
}

#[test]
fn nothing_is_mapped_to_sigma0() {
    check(
        "map sigma0:1000 -> root:4000, map root:4000 -> sigma0:400000, grant root:4000 -> sigma0:1000",
        "sigma0:0/S (root:4000@1000)",
    );
}

#[test]
fn sigma0_has_all_rights_again_when_it_maps() {
    check("fault 1000, flush sigma0:1000=w", "sigma0:0/S=rx");
    check("fault 1000, flush sigma0:1000=w, map sigma0:1000 -> root:4000", "sigma0:0/S (root:4000@1000)");
    check("fault 1000, flush sigma0:1000=w, fault 1000", "sigma0:0/S");
}

#[test]
fn sigma0_owns_the_frames_behind_its_own_kernel_pages() {
    // Around them it has small pages; behind them frames that it cannot see itself.
    check(
        "map sigma0:bff00000 -> root:1000, map sigma0:bf000000 -> root:2000, map sigma0:bff01000 -> root:3000",
        "sigma0:bf000000 (root:2000), sigma0:bff00000 (root:1000), sigma0:bff01000 (root:3000)",
    );
    check(
        "map sigma0:bff00000 -> root:1000, map root:1000 -> app:1000, unmap sigma0:bff00000=w",
        "sigma0:bff00000 (root:1000=rx (app:1000=rx))",
    );
    check("map sigma0:bff00000 -> root:1000, map root:1000 -> app:1000, unmap sigma0:bff00000", "sigma0:bff00000");
    check("map sigma0:bf000000 -> root:1000, utcb sigma0:bf000000, flush sigma0:bf000000", "");
}

#[test]
fn sigma0_owns_the_frames_at_kernel_addresses() {
    check_on::<Ia32>(
        "map sigma0:fd000000/S -> root:800000/S, map sigma0:fee00000 -> root:1000, map root:801000 -> app:2000",
        "sigma0:fd000000/S (root:800000/S (app:2000@fd001000)), sigma0:fec00000/S (root:1000@fee00000)",
    );
    check_on::<Ia32>("map sigma0:fee00000 -> root:1000, flush sigma0:fee00000", "");
    check_on::<Ia32>(
        "map sigma0:fee00000 -> root:1000, unmap sigma0:fee00000=w",
        "sigma0:fec00000/S (root:1000=rx@fee00000)",
    );
}

// --- pages larger than superpages ---

/// On 64-bit x86 and on its small copy.
fn check_larger(script: &str, expected: &str) {
    check_on::<Amd64>(script, expected);
    check_on::<Toy>(script, expected);
}

#[test]
fn larger_page_is_mapped_whole() {
    check_larger(
        "map sigma0:40000000/L -> root:100000000/L, map root:100000000/L -> app:0/L, grant app:0/L -> web:40000000/L",
        "sigma0:40000000/L (root:100000000/L (web:40000000/L))",
    );
    check_larger(
        "map sigma0:40000000/L -> root:100000000/L, map root:all -> app:all",
        "sigma0:40000000/L (root:100000000/L (app:100000000/L))",
    );
}

#[test]
fn larger_page_is_mapped_in_parts() {
    check_larger(
        "map sigma0:40000000/L -> root:100000000/L, map root:100001000 -> app:5000, map root:100000000/S -> web:0/S, map web:3000 -> disk:0",
        "sigma0:40000000/L (root:100000000/L (app:5000@40001000, web:0/S@40000000 (disk:0@40003000)))",
    );
    check_larger(
        "map sigma0:40000000/L -> root:100000000/L, map sigma0:40002000 -> app:0, map sigma0:40000000/S -> web:0/S",
        "sigma0:40000000/L (root:100000000/L, app:0@40002000, web:0/S@40000000)",
    );
    check_larger(
        "map sigma0:40000000/L -> root:100000000/L, grant root:100001000 -> app:5000",
        "sigma0:40000000/L (app:5000@40001000)",
    );
}

#[test]
fn sigma0_has_superpages_unless_larger_ones_are_asked_for() {
    check_larger("fault 40001000, map sigma0:40002000 -> root:0", "sigma0:40000000/S (root:0@40002000)");
    check_larger("map sigma0:40000000/L -> root:all @ 40000000", "sigma0:40000000/L (root:40000000/L)");
    check_on::<Amd64>(
        "map sigma0:40000000/2S -> root:100000000/L",
        "sigma0:40000000/S (root:100000000/S), sigma0:40200000/S (root:100200000/S)",
    );
}

#[test]
fn unused_pages_of_sigma0_give_way_to_a_larger_one() {
    let larger = "map sigma0:40000000/L -> root:100000000/L";
    check_larger(&format!("fault 40001000, fault 40008000, {larger}"), "sigma0:40000000/L (root:100000000/L)");
    check_larger(
        &format!("map sigma0:40001000 -> app:0, cache sigma0:40008000 ^ 0, flush app:all, {larger}"),
        "sigma0:40000000/L (root:100000000/L)",
    );
    check_on::<Toy>(
        &format!("map sigma0:40031000 -> app:0, fault 40001000, {larger}"),
        "sigma0:40000000/S (root:100000000/S), sigma0:40008000/S (root:100008000/S), sigma0:40010000/S (root:100010000/S), \
         sigma0:40018000/S (root:100018000/S), sigma0:40020000/S (root:100020000/S), sigma0:40028000/S (root:100028000/S), \
         sigma0:40030000/S (root:100030000/S, app:0@40031000), sigma0:40038000/S (root:100038000/S)",
    );
    check(
        "cache sigma0:401000 ^ 4, cache sigma0:401000 ^ 0, map sigma0:400000/S -> root:800000/S",
        "sigma0:400000/S (root:800000/S)",
    );
}

#[test]
fn page_with_an_attribute_gives_way_to_none() {
    check_on::<Toy>(
        "cache sigma0:1000 ^ 4, map sigma0:0/S -> root:0/S",
        "sigma0:0 (root:0), sigma0:1000^4 (root:1000^4), sigma0:2000 (root:2000), sigma0:3000 (root:3000), \
         sigma0:4000 (root:4000), sigma0:5000 (root:5000), sigma0:6000 (root:6000), sigma0:7000 (root:7000)",
    );
    check_larger(
        "cache sigma0:40000000/L ^ 4, map sigma0:40001000 -> root:0",
        "sigma0:40000000/L^4 (root:0@40001000^4)",
    );
}

#[test]
fn smaller_pages_give_way_to_a_larger_one() {
    check_on::<Toy>(
        "map sigma0:1000 -> root:100001000, map root:100001000 -> app:0, map sigma0:8000/S -> root:100010000/S,
         map sigma0:0/16k -> root:10003c000/16k, map sigma0:40000000/L -> root:100000000/L",
        "sigma0:0/S, sigma0:8000/S, sigma0:40000000/L (root:100000000/L)",
    );
    check_on::<Amd64>(
        "map sigma0:1000 -> root:100001000, map sigma0:400000/S -> root:13ee00000/S, map sigma0:1000 -> root:11ffff000,
         map sigma0:40000000/L -> app:0/L, map app:0/L -> root:100000000/L",
        "sigma0:0/S, sigma0:400000/S, sigma0:40000000/L (app:0/L (root:100000000/L))",
    );
}

#[test]
fn destination_in_a_still_larger_page_stays() {
    check_larger(
        "map sigma0:40000000/L -> root:100000000/L, map sigma0:1000 -> root:100003000, map sigma0:0/S -> root:100000000/S",
        "sigma0:0/S, sigma0:40000000/L (root:100000000/L)",
    );
}

#[test]
fn unmap_of_a_part_of_a_larger_page_takes_what_meets_it() {
    let mapped =
        "map sigma0:40000000/L -> root:100000000/L, map root:100001000 -> app:1000, map root:100002000 -> app:2000,
        map root:100000000/S -> web:0/S, map web:3000 -> disk:3000, map root:100000000/L -> disk:40000000/L, ";
    check_larger(
        &(mapped.to_owned() + "unmap root:100001000"),
        "sigma0:40000000/L (root:100000000/L (app:2000@40002000))",
    );
    check_larger(
        &(mapped.to_owned() + "unmap root:100001000=w"),
        "sigma0:40000000/L (root:100000000/L (app:1000=rx@40001000, app:2000@40002000, web:0/S=rx@40000000 \
         (disk:3000=rx@40003000), disk:40000000/L=rx))",
    );
    check_larger(&(mapped.to_owned() + "unmap sigma0:40000000/S"), "sigma0:40000000/L");
}

#[test]
fn flush_of_a_part_takes_the_larger_page() {
    let mapped = "map sigma0:40000000/L -> root:100000000/L, map root:100001000 -> app:1000, ";
    check_larger(&(mapped.to_owned() + "flush root:100003000"), "sigma0:40000000/L");
    check_larger(
        &(mapped.to_owned() + "flush root:100000000/S=w"),
        "sigma0:40000000/L (root:100000000/L=rx (app:1000=rx@40001000))",
    );
}

#[test]
fn status_of_a_larger_page_is_told() {
    check_larger(
        "map sigma0:40000000/L -> root:100000000/L, map root:100000000/L -> app:0/L, map root:100001000 -> web:0,
         write app:5000, touch web:0, unmap root:100002000=- ? rwx, unmap root:100000000/L=- ? rx,
         unmap root:100000000/L=- ? -, unmap sigma0:40000000/L=- ? rwx",
        "sigma0:40000000/L (root:100000000/L (app:0/L, web:0@40001000))",
    );
}

#[test]
fn larger_page_has_an_attribute() {
    check_on::<Toy>(
        "map sigma0:40000000/L -> root:100000000/L, map root:100000000/L -> app:0/L, map root:100008000 -> web:0,
         map root:100007000 -> disk:0, cache root:100000000/S ^ 5",
        "sigma0:40000000/L (root:100000000/L^5 (app:0/L^5, web:0@40008000, disk:0@40007000^5))",
    );
    check_larger(
        "fault 40000000, map sigma0:40000000/L -> root:100000000/L, flush root:all, cache sigma0:40001000 ^ 4",
        "sigma0:40001000^4",
    );
}

#[test]
fn kernel_pages_keep_larger_pages_away() {
    fn check<F: TestFormat>(script: &str, expected: [usize; 3]) {
        let parts = Parts::<F>::new(256);
        let world = World::new(&parts, UNLIMITED);
        world.run(script);
        let sizes = |level| world.mappings().iter().filter(|page| page.0 == 1 && page.3.level == level).count();
        assert_eq!([0, 1, 2].map(sizes), expected);
        world.release_all();
    }
    check::<Toy>("map sigma0:0/L -> root:bffc0000/L", [0, 0, 1]);
    check::<Toy>("map sigma0:0/L -> root:bff00000/L", [7, 7, 0]);
    check::<Toy>("map sigma0:0/L -> root:bf000000/L", [0, 0, 0]);
    check::<Amd64>("map sigma0:40000000/L -> root:80000000/L", [511 + 512 - 64, 510, 0]);
}

#[test]
fn processor_without_larger_pages_maps_superpages() {
    let parts = Parts::with(Amd64 { huge: false, ..Amd64::FORMAT }, 256);
    let world = World::new(&parts, UNLIMITED);
    world.run("map sigma0:40000000/L -> root:40000000/L");
    let levels =
        |space| world.mappings().iter().filter(|page| page.0 == space).map(|page| page.3.level).collect::<Vec<_>>();
    assert_eq!((levels(0), levels(1)), (vec![1; 512], vec![1; 512]));
    world.run("unmap sigma0:40000000/L, map sigma0:40000000/L -> root:40000000/L, flush sigma0:40000000/L");
    assert_eq!(world.print(), "");
    world.release_all();
}

// --- caching attributes ---

#[test]
fn attribute_is_that_of_own_and_derived_pages() {
    check(
        "map sigma0:1000 -> root:4000, map root:4000 -> app:8000, map app:8000 -> web:1000, cache root:4000 ^ 4",
        "sigma0:0/S (root:4000@1000^4 (app:8000^4 (web:1000^4)))",
    );
    check(
        "map sigma0:1000 -> root:4000, map root:4000 -> app:8000, map root:4000 -> web:1000, cache app:8000 ^ 7, cache root:5000 ^ 4",
        "sigma0:0/S (root:4000@1000 (app:8000^7, web:1000))",
    );
    check(
        "map sigma0:400000/S -> root:800000/S, map root:800000/S -> app:0/S, cache root:800000/S ^ 4",
        "sigma0:400000/S (root:800000/S^4 (app:0/S^4))",
    );
    check(
        "map sigma0:0/16k -> root:4000/16k, cache root:6000/8k ^ 3, flush root:4000/8k",
        "sigma0:0/S (root:6000@2000^3, root:7000@3000^3)",
    );
}

#[test]
fn attribute_is_inherited() {
    check(
        "map sigma0:1000 -> root:4000, cache root:4000 ^ 4, map root:4000 -> app:8000, grant root:4000 -> web:9000",
        "sigma0:0/S (web:9000@1000^4 (app:8000^4))",
    );
    check(
        "map sigma0:400000/S -> root:800000/S, cache root:800000/S ^ 5, map root:801000 -> app:8000, map root:800000/S -> web:0/S",
        "sigma0:400000/S (root:800000/S^5 (app:8000@401000^5, web:0/S^5))",
    );
    check(
        "map sigma0:400000/S -> root:800000/S, cache root:800000/S ^ 5, grant root:801000 -> app:8000",
        "sigma0:400000/S (app:8000@401000^5)",
    );
}

#[test]
fn attribute_can_be_taken_back() {
    check(
        "map sigma0:1000 -> root:4000, map root:4000 -> app:8000, cache root:4000 ^ 4, cache root:all ^ 0",
        "sigma0:0/S (root:4000@1000 (app:8000))",
    );
}

#[test]
fn attribute_changes_nothing_else() {
    check(
        "map sigma0:1000 -> root:4000, map root:4000=rx -> app:8000, write root:4000, touch app:8000, cache root:4000 ^ 4,
         unmap root:4000=- ? rx, flush root:4000=- ? rwx",
        "sigma0:0/S (root:4000@1000^4 (app:8000=rx^4))",
    );
}

#[test]
fn attribute_of_a_part_is_that_of_the_superpage() {
    check(
        "map sigma0:400000/S -> root:800000/S, map root:801000 -> app:1000, map root:802000 -> app:2000,
         map root:800000/S -> web:0/S, map web:2000 -> disk:0, cache root:802000 ^ 4",
        "sigma0:400000/S (root:800000/S^4 (app:1000@401000, app:2000@402000^4, web:0/S^4 (disk:0@402000^4)))",
    );
}

#[test]
fn attribute_of_a_part_divides_what_only_sigma0_has() {
    check("cache sigma0:401000 ^ 4, map sigma0:401000 -> root:1000", "sigma0:401000^4 (root:1000^4)");
    check(
        "fault 400000, cache sigma0:402000/8k ^ 4, map sigma0:400000/16k -> root:0/16k",
        "sigma0:400000 (root:0), sigma0:401000 (root:1000), sigma0:402000^4 (root:2000^4), sigma0:403000^4 (root:3000^4)",
    );
    check("cache sigma0:400000/S ^ 4, map sigma0:401000 -> root:1000", "sigma0:400000/S^4 (root:1000@401000^4)");
    check(
        "map sigma0:401000 -> root:1000, cache sigma0:402000 ^ 4, map sigma0:402000 -> root:2000",
        "sigma0:400000/S^4 (root:1000@401000, root:2000@402000^4)",
    );
}

#[test]
fn attribute_reaches_pages_that_users_have_only() {
    check("utcb root:bf000000, cache root:bf000000 ^ 4, cache root:bff00000 ^ 4, cache root:all ^ 4", "");
    check("fault 1000, cache sigma0:all ^ 4, cache sigma0:bff00000 ^ 4", "sigma0:0/S^4");
    check_on::<Amd64>("cache sigma0:7fffffffe000 ^ 4, cache sigma0:7ffffffff000 ^ 4", "sigma0:7fffffffe000^4");
    check_on::<Ia32>(
        "map sigma0:fee00000 -> root:1000, cache sigma0:fee00000 ^ 4",
        "sigma0:fec00000/S (root:1000@fee00000^4)",
    );
}

// --- unmap and flush ---

#[test]
fn unmap_without_flush_keeps_own_page() {
    check(
        "map sigma0:1000 -> root:4000, map root:4000 -> app:8000, map app:8000 -> web:1000, unmap root:4000",
        "sigma0:0/S (root:4000@1000)",
    );
}

#[test]
fn flush_takes_own_page_too() {
    check("map sigma0:1000 -> root:4000, map root:4000 -> app:8000, flush root:4000", "sigma0:0/S");
    check("map sigma0:1000 -> root:4000, map root:4000 -> app:8000, flush app:8000", "sigma0:0/S (root:4000@1000)");
    check("map sigma0:1000 -> root:4000, flush sigma0:1000", "");
}

#[test]
fn unmap_leaves_siblings_and_parents() {
    check(
        "map sigma0:1000 -> root:4000, map sigma0:1000 -> web:4000, map root:4000 -> app:8000, map root:4000 -> app:9000, unmap app:8000, flush app:9000",
        "sigma0:0/S (root:4000@1000 (app:8000), web:4000@1000)",
    );
}

#[test]
fn unmap_takes_all_branches() {
    check(
        "map sigma0:1000 -> root:4000, map root:4000 -> app:8000, map app:8000 -> web:1000, map app:8000 -> web:2000,
         map web:2000 -> disk:0, map root:4000 -> disk:1000, unmap root:4000",
        "sigma0:0/S (root:4000@1000)",
    );
}

#[test]
fn write_can_be_revoked_alone() {
    check(
        "map sigma0:1000 -> root:4000, map root:4000 -> app:8000, map app:8000 -> web:1000, unmap root:4000=w",
        "sigma0:0/S (root:4000@1000 (app:8000=rx (web:1000=rx)))",
    );
    check(
        "map sigma0:1000 -> root:4000, map root:4000 -> app:8000, map app:8000 -> web:1000, flush root:4000=rw",
        "sigma0:0/S (root:4000=rx@1000 (app:8000=rx (web:1000=rx)))",
    );
}

#[test]
fn execute_can_be_revoked_where_the_processor_knows_it() {
    check_on::<Amd64>(
        "map sigma0:1000 -> root:4000, map root:4000 -> app:8000, unmap root:4000=x",
        "sigma0:0/S (root:4000@1000 (app:8000=rw))",
    );
    check_on::<Amd64>("map sigma0:1000 -> root:4000, flush root:4000=wx", "sigma0:0/S (root:4000=r@1000)");
    check_on::<Ia32>(
        "map sigma0:1000 -> root:4000, map root:4000 -> app:8000, flush root:4000=x",
        "sigma0:0/S (root:4000@1000 (app:8000))",
    );
}

#[test]
fn revoking_read_or_nothing_leaves_rights() {
    let mapped = "sigma0:0/S (root:4000@1000 (app:8000))";
    check("map sigma0:1000 -> root:4000, map root:4000 -> app:8000, flush root:4000=r, flush root:4000=-", mapped);
}

#[test]
fn rights_once_revoked_can_be_mapped_again() {
    check(
        "map sigma0:1000 -> root:4000, map root:4000 -> app:8000, unmap root:4000=w, map root:4000 -> app:8000",
        "sigma0:0/S (root:4000@1000 (app:8000))",
    );
}

#[test]
fn unmap_tells_what_derived_mappings_did() {
    let mapped = "map sigma0:1000 -> root:4000, map root:4000 -> app:8000, ";
    let end = "sigma0:0/S (root:4000@1000 (app:8000))";
    check(&(mapped.to_owned() + "unmap root:4000=- ? -"), end);
    check(&(mapped.to_owned() + "touch app:8000, unmap root:4000=- ? rx, unmap root:4000=- ? -"), end);
    check(&(mapped.to_owned() + "write app:8000, unmap root:4000=- ? rwx, unmap root:4000=- ? -"), end);
    check(&(mapped.to_owned() + "write app:8000, unmap root:4000 ? rwx"), "sigma0:0/S (root:4000@1000)");
    check(
        &(mapped.to_owned() + "write app:8000, unmap root:4000=w ? rwx"),
        "sigma0:0/S (root:4000@1000 (app:8000=rx))",
    );
}

#[test]
fn own_accesses_are_told_with_flush_only() {
    let mapped = "map sigma0:1000 -> root:4000, map root:4000 -> app:8000, ";
    let end = "sigma0:0/S (root:4000@1000 (app:8000))";
    check(
        &(mapped.to_owned() + "write root:4000, unmap root:4000=- ? -, flush root:4000=- ? rwx, flush root:4000=- ? -"),
        end,
    );
    check(&(mapped.to_owned() + "touch root:4000, flush root:4000 ? rx"), "sigma0:0/S");
}

#[test]
fn status_reported_once_is_still_known_above() {
    let mapped = "map sigma0:1000 -> root:4000, map root:4000 -> app:8000, ";
    let end = "sigma0:0/S (root:4000@1000 (app:8000))";
    check(&(mapped.to_owned() + "write app:8000, unmap root:4000=- ? rwx, unmap sigma0:1000=- ? rwx"), end);
    check(&(mapped.to_owned() + "write app:8000, unmap root:4000=- ? rwx, flush root:4000=- ? rwx"), end);
    check(&(mapped.to_owned() + "write app:8000, flush app:8000=- ? rwx, unmap root:4000=- ? rwx"), end);
}

#[test]
fn accesses_of_a_mapping_that_is_gone_are_still_told() {
    check(
        "map sigma0:1000 -> root:4000, map root:4000 -> app:8000, write app:8000, flush app:8000, unmap root:4000=- ? rwx",
        "sigma0:0/S (root:4000@1000)",
    );
    check(
        "map sigma0:1000 -> root:4000, map root:4000 -> app:8000, write app:8000, release app, unmap root:4000=- ? rwx",
        "sigma0:0/S (root:4000@1000)",
    );
    check(
        "map sigma0:1000 -> root:4000, write root:4000, grant root:4000 -> app:8000, unmap sigma0:1000=- ? rwx",
        "sigma0:0/S (app:8000@1000)",
    );
}

#[test]
fn status_is_told_over_all_pages_of_the_fpage() {
    check(
        "map sigma0:0/16k -> root:4000/16k, map root:4000/16k -> app:8000/16k, touch app:8000, write app:b000, unmap root:4000/16k=- ? rwx, unmap root:4000/16k=- ? -",
        "sigma0:0/S (root:4000@0 (app:8000), root:5000@1000 (app:9000), root:6000@2000 (app:a000), root:7000@3000 (app:b000))",
    );
}

#[test]
fn unmap_of_a_part_takes_what_meets_it() {
    let mapped = "map sigma0:400000/S -> root:800000/S, map root:801000 -> app:1000, map root:802000 -> app:2000, map root:800000/S -> web:800000/S, map web:802000 -> disk:2000, ";
    check(&(mapped.to_owned() + "unmap root:801000"), "sigma0:400000/S (root:800000/S (app:2000@402000))");
    check(
        &(mapped.to_owned() + "unmap root:801000=w"),
        "sigma0:400000/S (root:800000/S (app:1000=rx@401000, app:2000@402000, web:800000/S=rx (disk:2000=rx@402000)))",
    );
    check(&(mapped.to_owned() + "unmap sigma0:403000"), "sigma0:400000/S");
}

#[test]
fn flush_of_a_part_takes_the_superpage() {
    let mapped = "map sigma0:400000/S -> root:800000/S, map root:801000 -> app:1000, ";
    check(&(mapped.to_owned() + "flush root:803000"), "sigma0:400000/S");
    check(&(mapped.to_owned() + "flush root:803000=w"), "sigma0:400000/S (root:800000/S=rx (app:1000=rx@401000))");
}

#[test]
fn fpage_smaller_than_a_page_means_the_page() {
    check("map sigma0:1000 -> root:4000, map root:4000 -> app:8000, unmap root:4000/1k", "sigma0:0/S (root:4000@1000)");
}

#[test]
fn complete_space_can_be_flushed() {
    check(
        "map sigma0:1000 -> root:4000, map sigma0:400000/S -> root:800000/S, map sigma0:2000 -> root:bf7ff000, utcb root:bf000000, flush root:all",
        "sigma0:0/S, sigma0:400000/S",
    );
}

#[test]
fn kernel_pages_cannot_be_unmapped() {
    let parts = Parts::<Amd64>::new(64);
    let world = World::new(&parts, UNLIMITED);
    world.run("utcb root:bf001000, flush root:all, unmap root:all, flush root:bff00000, flush root:bf001000");
    let root = SpaceRef::new(1);
    let page = |address| world.spaces.lookup(root, address).map(|page| (page.rights, page.is_kernel_page));
    assert_eq!(page(UTCB_AREA as usize + 0x1000), Some((Rights::READ_WRITE, true)));
    assert_eq!(page(KIP_AREA as usize), Some((Rights::READ_EXECUTE, true)));
    world.release_all();
}

#[test]
fn nilpage_and_kernel_addresses_are_harmless_in_unmap() {
    let parts = Parts::<Ia32>::new(64);
    let world = World::new(&parts, UNLIMITED);
    world.run("map sigma0:0 -> root:0, flush root:c0000000/S");
    world.unmap(1, Fpage::NIL, crate::mapdb::UnmapScope::Flush);
    assert_eq!(world.print(), "sigma0:0/S (root:0@0)");
    world.release_all();
}

#[test]
fn caching_attributes_are_inherited() {
    let parts = Parts::<Amd64>::new(64);
    let world = World::new(&parts, UNLIMITED);
    world.run("map sigma0:1000 -> root:4000, map sigma0:400000/S -> root:800000/S");
    // Write-through, and PAT index 4, which has its bit at another place in a superpage.
    let set = |address: u64, bits: usize| {
        let place = world.spaces.walk(world.spaces.get(SpaceRef::new(1)), address, 0);
        crate::machine::PhysMem::update(&parts.fake, place.entry_at, 0, bits);
    };
    set(0x4000, 1 << 3);
    set(0x80_0000, 1 << 12);
    world.run("map root:4000 -> app:4000, map root:803000 -> app:5000, grant root:4000 -> web:4000");
    let cache = |space: usize, address: u64| {
        world.mappings().iter().find(|page| page.0 == space && page.1 == address).map(|page| page.3.cache.index())
    };
    assert_eq!((cache(2, 0x4000), cache(2, 0x5000), cache(3, 0x4000)), (Some(1), Some(4), Some(1)));
    world.release_all();
}

// --- spaces ---

#[test]
fn released_space_loses_everything_and_its_slot_is_used_again() {
    check(
        "map sigma0:1000 -> root:4000, map root:4000 -> app:8000, map app:8000 -> web:1000, utcb app:bf000000, utcb app:bf002000, map root:4000 -> disk:7fff000, release app",
        "sigma0:0/S (root:4000@1000 (disk:7fff000))",
    );
    let parts = Parts::<Amd64>::new(64);
    let world = World::new(&parts, UNLIMITED);
    world.release(3);
    assert!(!world.is_alive(3));
    assert_eq!(world.create(NAMES[3]).map(SpaceRef::index), Ok(3));
    world.release_all();
}

#[test]
fn there_are_as_many_spaces_as_slots() {
    let parts = Parts::<Amd64>::new(64);
    let world = World::new(&parts, UNLIMITED);
    // The last slot of a page is the head of the others.
    let slots = crate::kmem::FRAME_SIZE as usize / size_of::<Space>() - 1;
    for _ in NAMES.len()..slots {
        world.spaces.create(&mut Held::nothing(), SpaceKind::Ordinary).expect("a slot is left");
    }
    let free = parts.kmem.free_count();
    assert!(world.spaces.create(&mut Held::nothing(), SpaceKind::Ordinary).is_err());
    assert_eq!(parts.kmem.free_count(), free);
}

#[test]
fn space_is_initialised_once() {
    let parts = Parts::<Amd64>::new(64);
    let world = World::new(&parts, UNLIMITED);
    let root = SpaceRef::new(1);
    let space = world.spaces.get(root);
    let area = |base| Fpage::new(base, 12, Rights::NONE).expect("an fpage");
    assert_eq!(world.spaces.initialise(&mut Held::nothing(), root, area(0x1000), area(0x2000)), Ok(()));
    assert_eq!(space.kip_area().base() as u64, KIP_AREA);
    assert!(space.is_initialised() && !space.is_privileged() && !space.is_sigma0());
    let sigma0 = world.spaces.get(SpaceRef::new(0));
    assert!(sigma0.is_privileged() && sigma0.is_sigma0());
    assert_eq!(space.machine_word(), space.root().0 as usize | 1);
}

#[test]
fn nothing_is_mapped_before_initialisation() {
    let parts = Parts::<Amd64>::new(64);
    let world = World::empty(&parts, UNLIMITED);
    world.create("sigma0").expect("memory");
    world.spaces.create(&mut Held::nothing(), SpaceKind::Ordinary).expect("memory");
    world.run("map sigma0:1000 -> root:4000");
    assert_eq!(world.print(), "sigma0:0/S");
    world.release_all();
}

#[test]
fn utcb_page_is_made_once() {
    let parts = Parts::<Amd64>::new(64);
    let world = World::new(&parts, UNLIMITED);
    let root = SpaceRef::new(1);
    let utcb = UTCB_AREA as usize + 0x1400;
    assert_eq!(world.spaces.utcb_page(root, utcb), None);
    let phys = world.spaces.add_utcb(&mut Held::nothing(), root, utcb).expect("memory");
    assert_eq!(phys.0 % 0x1000, 0x400);
    assert_eq!(world.spaces.add_utcb(&mut Held::nothing(), root, utcb + 0x400).map(|p| p.0), Ok(phys.0 + 0x400));
    assert_eq!(world.spaces.utcb_page(root, utcb), Some(phys));
    assert_eq!(world.spaces.utcb_page(root, KIP_AREA as usize), None);
    world.release_all();
}

/// A page of UTCBs goes with the last one on it, and processors forget it; its tables stay with the space.
#[test]
fn utcb_page_goes_with_its_last_utcb() {
    for space in [0, 1] {
        let parts = Parts::<Amd64>::new(64);
        let world = World::new(&parts, UNLIMITED);
        let (root, held) = (SpaceRef::new(space), &mut Held::nothing());
        let utcbs = [0x1400, 0x1000, 0x1400, 0x2000].map(|offset| UTCB_AREA as usize + offset);
        world.run("map sigma0:bf001000 -> app:1000");
        let first = world.spaces.add_utcb(held, root, utcbs[0]).expect("memory");
        let with_tables = parts.kmem.free_count();
        for utcb in &utcbs[1..] {
            world.spaces.add_utcb(held, root, *utcb).expect("memory");
        }
        assert_eq!(parts.kmem.free_count(), with_tables - 1, "another page");
        for utcb in [utcbs[3], utcbs[0], utcbs[1]] {
            world.spaces.remove_utcb(held, root, utcb);
            assert_eq!((parts.kmem.free_count(), world.spaces.utcb_page(root, utcbs[0])), (with_tables, Some(first)));
            world.check_structure(Rest::Settled);
        }
        world.spaces.remove_utcb(held, root, utcbs[2]);
        assert_eq!((parts.kmem.free_count(), world.spaces.utcb_page(root, utcbs[0])), (with_tables + 1, None));
        assert!(parts.fake.invalidated.borrow().contains(&(space as usize, UTCB_AREA as usize + 0x1000, 12)));
        world.check_structure(Rest::Settled);
        world.spaces.add_utcb(held, root, utcbs[0]).expect("memory");
        world.release_all();
    }
}

#[test]
fn lookup_finds_the_address_in_its_page() {
    let parts = Parts::<Amd64>::new(64);
    let world = World::new(&parts, UNLIMITED);
    world.run("map sigma0:400000/S=rx -> root:800000/S");
    let found = world.spaces.lookup(SpaceRef::new(1), 0x80_1234);
    let rights = Rights::READ_EXECUTE;
    let cache = PatIndex::default();
    assert_eq!(found, Some(Mapping { phys: PhysAddr(0x40_1234), size_log2: 21, rights, cache, is_kernel_page: false }));
    assert_eq!(world.spaces.lookup(SpaceRef::new(1), 0xA0_0000), None);
    assert_eq!(world.spaces.lookup(SpaceRef::new(1), usize::MAX), None);
}

#[test]
fn user_range_ends_where_the_kernel_begins() {
    let parts = Parts::<Ia32>::new(4);
    let config = SpaceConfig { user_end: 0xC000_0000, physical_end: u64::MAX, kip: PhysAddr(0) };
    let spaces = Spaces::new(
        &parts.fake,
        &parts.kmem,
        Table { slots: &[], backed: &[] },
        Table { slots: &[], backed: &[] },
        config,
    );
    assert!(spaces.is_user_range(0, 0xBFFF_FFFF));
    assert!(!spaces.is_user_range(0, 0xC000_0000) && !spaces.is_user_range(2, 1));
}

#[test]
fn fpages_overlap_if_they_share_an_address() {
    let fpage = |base, size_log2| Fpage::new(base, size_log2, Rights::NONE).expect("an fpage");
    assert!(Space::overlap(fpage(0x4000, 14), fpage(0x7000, 12)));
    assert!(!Space::overlap(fpage(0x4000, 14), fpage(0x8000, 12)));
}

#[test]
fn threads_are_counted() {
    let space = Space::default();
    space.add_thread();
    space.add_thread();
    assert_eq!((space.remove_thread(), space.threads(), space.remove_thread()), (1, 1, 0));
}
