//! Regions against a list with an owner per address.

use std::vec;
use std::vec::Vec;

use super::*;

const A: Owner = Owner::Thread(ThreadId::from_raw(1));

fn parts(regions: &Regions<'_>) -> Vec<(u64, Owner)> {
    regions.check_invariants();
    regions.iter().map(|part| (part.low, part.owner)).collect()
}

/// Sets ranges one after the other on free addresses, and compares where regions begin.
fn check(sets: &[(u64, u64, Owner)], expected: &[(u64, Owner)]) {
    let mut storage = [Region::UNUSED; 16];
    let mut regions = Regions::new(&mut storage, Owner::Free);
    for (low, high, owner) in sets {
        regions.set(*low, *high, *owner).expect("room");
    }
    assert_eq!(parts(&regions), expected, "{sets:x?}");
}

#[test]
fn range_in_the_middle_splits_a_region() {
    check(&[(10, 19, A)], &[(0, Owner::Free), (10, A), (20, Owner::Free)]);
}

#[test]
fn range_at_an_end_of_the_addresses_has_one_neighbour() {
    check(&[(0, 9, A)], &[(0, A), (10, Owner::Free)]);
    check(&[(10, u64::MAX, A)], &[(0, Owner::Free), (10, A)]);
    check(&[(0, u64::MAX, A)], &[(0, A)]);
}

#[test]
fn neighbours_of_one_owner_become_one() {
    check(&[(10, 19, A), (20, 29, A)], &[(0, Owner::Free), (10, A), (30, Owner::Free)]);
    check(&[(20, 29, A), (10, 19, A)], &[(0, Owner::Free), (10, A), (30, Owner::Free)]);
    check(&[(10, 19, A), (30, 39, A), (20, 29, A)], &[(0, Owner::Free), (10, A), (40, Owner::Free)]);
    check(&[(10, 19, A), (10, 19, Owner::Free)], &[(0, Owner::Free)]);
}

#[test]
fn later_range_overrides_earlier_ones() {
    let sets = [(10, 19, A), (30, 39, Owner::Shared), (15, 34, Owner::Special)];
    check(&sets, &[(0, Owner::Free), (10, A), (15, Owner::Special), (35, Owner::Shared), (40, Owner::Free)]);
}

#[test]
fn same_owner_again_changes_nothing() {
    check(&[(10, 19, A), (12, 15, A)], &[(0, Owner::Free), (10, A), (20, Owner::Free)]);
}

#[test]
fn full_storage_refuses_and_keeps_everything() {
    let mut storage = [Region::UNUSED; 2];
    let mut regions = Regions::new(&mut storage, Owner::Free);
    assert_eq!(regions.set(10, 19, A), Err(Full));
    assert_eq!(parts(&regions), [(0, Owner::Free)]);
    assert_eq!(regions.set(10, u64::MAX, A), Ok(()));
    assert_eq!(regions.set(0, u64::MAX, Owner::Shared), Ok(()));
    assert_eq!((parts(&regions), regions.spare()), (vec![(0, Owner::Shared)], 1));
}

#[test]
fn move_to_larger_storage_keeps_everything() {
    let (mut small, mut large) = ([Region::UNUSED; 3], [Region::UNUSED; 5]);
    let mut regions = Regions::new(&mut small, Owner::Free);
    regions.set(10, 19, A).expect("room");
    assert_eq!(regions.set(30, 39, A), Err(Full));
    assert_eq!(regions.move_to(&mut large).len(), 3);
    regions.set(30, 39, A).expect("room now");
    assert_eq!(parts(&regions).len(), 5);
}

#[test]
fn within_cuts_the_outer_parts() {
    let mut storage = [Region::UNUSED; 8];
    let mut regions = Regions::new(&mut storage, Owner::Free);
    regions.set(10, 19, A).expect("room");
    let found: Vec<Part> = regions.within(5, 12).collect();
    let expected = [Part { low: 5, high: 9, owner: Owner::Free }, Part { low: 10, high: 12, owner: A }];
    assert_eq!(found, expected);
}

#[test]
fn random_sets_agree_with_a_list_of_addresses() {
    const SIZE: u64 = 64;
    let owners = [Owner::Free, Owner::Special, Owner::Shared, A];
    let mut state = 1u64;
    let mut random = |limit: u64| {
        // The constants of a well-known linear congruential generator.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % limit
    };
    let mut storage = [Region::UNUSED; 2 * SIZE as usize];
    let mut regions = Regions::new(&mut storage, Owner::Free);
    let mut model = vec![Owner::Free; SIZE as usize];
    for _ in 0..2000 {
        let (a, b, owner) = (random(SIZE), random(SIZE), owners[random(4) as usize]);
        let (low, high) = (a.min(b), a.max(b));
        regions.set(low, high, owner).expect("room");
        model[low as usize..=high as usize].fill(owner);
        regions.check_invariants();
        for (address, owner) in model.iter().enumerate() {
            let found = regions.within(address as u64, address as u64).next().map(|part| part.owner);
            assert_eq!(found, Some(*owner), "{address}");
        }
    }
}
