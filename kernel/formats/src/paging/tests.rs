use super::*;

const AMD64: Amd64 = Amd64 { no_execute: true, global: true, pat: true, huge: false };
const OLD_AMD64: Amd64 = Amd64 { no_execute: false, global: false, pat: false, huge: false };
const IA32: Ia32 = Ia32 { large: true, global: true, pat: true };

const PLAIN: Leaf = Leaf {
    frame: 0,
    access: Access::FULL,
    user: true,
    global: false,
    cache: PatIndex(0),
    status: Status { accessed: false, dirty: false },
};

/// Checks that `leaf` is written as `entry` and read back as it was.
fn check<F: PageFormat>(format: F, level: u32, leaf: Leaf, entry: u64) {
    assert_eq!(format.leaf(level, leaf), entry, "{leaf:x?}");
    assert_eq!(format.decode(level, entry), Entry::Leaf(leaf), "{entry:#x}");
}

#[test]
fn amd64_leaf_has_the_bits_of_the_manual() {
    check(AMD64, 0, Leaf { frame: 0xF_FFFF_FFFF_F000, ..PLAIN }, 0x000F_FFFF_FFFF_F007);
    check(AMD64, 0, Leaf { frame: 0x1000, access: Access::READ_ONLY, ..PLAIN }, 0x8000_0000_0000_1005);
    check(AMD64, 0, Leaf { access: Access { write: true, execute: false }, ..PLAIN }, 0x8000_0000_0000_0007);
    check(AMD64, 0, Leaf { user: false, global: true, ..PLAIN }, 0x103);
    check(AMD64, 0, Leaf { status: Status { accessed: true, dirty: false }, ..PLAIN }, 0x27);
    check(AMD64, 0, Leaf { status: Status { accessed: true, dirty: true }, ..PLAIN }, 0x67);
    check(AMD64, 1, Leaf { frame: 0x4020_0000, ..PLAIN }, 0x4020_0087);
}

#[test]
fn ia32_leaf_has_the_bits_of_the_manual() {
    check(IA32, 0, Leaf { frame: 0xFFFF_F000, ..PLAIN }, 0xFFFF_F007);
    check(IA32, 0, Leaf { access: Access { write: false, execute: true }, ..PLAIN }, 0x5);
    check(IA32, 1, Leaf { frame: 0xFFC0_0000, global: true, ..PLAIN }, 0xFFC0_0187);
}

#[test]
fn memory_type_is_spread_over_three_bits() {
    for (index, small, large) in [(1, 0x8, 0x8), (2, 0x10, 0x10), (4, 0x80, 0x1000), (7, 0x98, 0x1018)] {
        let leaf = Leaf { cache: PatIndex::new(index).expect("below 8"), ..PLAIN };
        check(AMD64, 0, leaf, 0x7 | small);
        check(AMD64, 1, leaf, 0x87 | large);
        check(IA32, 0, leaf, 0x7 | small);
        check(IA32, 1, leaf, 0x87 | large);
    }
    assert_eq!(PatIndex::new(8), None);
}

/// A derived entry is that of the leaf with the rights that both have, and fresh status.
#[test]
fn derived_entries_have_what_both_allow() {
    fn check<F: PageFormat>(format: F) {
        let all = [false, true].map(|write| [false, true].map(|execute| format.effective(Access { write, execute })));
        for (level, access) in (0..2).flat_map(|level| all.concat().into_iter().map(move |access| (level, access))) {
            for passed in all.concat() {
                let status = Status { accessed: true, dirty: access.write };
                let leaf = Leaf { frame: 0x4000_0000, access, cache: PatIndex(3), status, ..PLAIN };
                let expected = Leaf { access: access.and(passed), status: Status::default(), ..leaf };
                let entry = format.derived(format.leaf(level, leaf), passed);
                assert_eq!(entry, format.leaf(level, expected), "{access:?}, {passed:?}");
            }
        }
    }
    check(AMD64);
    check(OLD_AMD64);
    check(IA32);
}

#[test]
fn table_entries_allow_everything() {
    assert_eq!(AMD64.table(0x12_3456_7000), 0x12_3456_7007);
    assert_eq!(IA32.table(0x1234_5000), 0x1234_5007);
    // The processor may have set the accessed flag.
    assert_eq!(AMD64.decode(3, 0x12_3456_7027), Entry::Table(0x12_3456_7000));
    assert_eq!(IA32.decode(1, 0x1234_5027), Entry::Table(0x1234_5000));
}

#[test]
fn walk_goes_on_where_a_table_is() {
    for (entry, table) in [(0x1234_5027, Some(0x1234_5000)), (0x1234_5026, None), (0x1240_00A7, None)] {
        assert_eq!(AMD64.below(1, entry), table);
        assert_eq!(IA32.below(1, entry), table);
        assert_eq!(AMD64.below(0, entry), None);
    }
    assert_eq!(AMD64.below(2, 0x800F_FFFF_FFFF_F007), Some(0xF_FFFF_FFFF_F000));
}

#[test]
fn entry_without_present_bit_is_empty() {
    assert_eq!(AMD64.decode(0, 0xFFFF_FFFF_FFFF_FFFE), Entry::Empty);
    assert_eq!(IA32.decode(1, 0xFFFF_FFFE), Entry::Empty);
}

#[test]
fn bits_that_the_processor_lacks_stay_clear() {
    let leaf = Leaf { access: Access::READ_ONLY, global: true, ..PLAIN };
    assert_eq!(OLD_AMD64.leaf(0, leaf), 0x5);
    assert_eq!(OLD_AMD64.set_access(Access::READ_ONLY).set, 0);
    assert_eq!(IA32.leaf(0, Leaf { access: Access::READ_ONLY, ..PLAIN }), 0x5);
    let read_execute = Access { write: false, execute: true };
    assert_eq!(OLD_AMD64.effective(Access::READ_ONLY), read_execute);
    assert_eq!(IA32.effective(Access::READ_ONLY), read_execute);
    assert_eq!(AMD64.effective(Access::READ_ONLY), Access::READ_ONLY);
}

/// Applies `edit` to `entry`.
fn edited(entry: u64, edit: Edit) -> u64 {
    entry & !edit.clear | edit.set
}

#[test]
fn change_of_rights_keeps_all_other_bits() {
    for access in [Access::READ_ONLY, Access::FULL, Access { write: true, execute: false }] {
        let status = Status { accessed: true, dirty: true };
        let leaf = Leaf { frame: 0x20_0000, global: true, cache: PatIndex(5), status, ..PLAIN };
        for from in [Access::READ_ONLY, Access::FULL] {
            let entry = edited(AMD64.leaf(1, Leaf { access: from, ..leaf }), AMD64.set_access(access));
            assert_eq!(AMD64.decode(1, entry), Entry::Leaf(Leaf { access, ..leaf }));
        }
    }
    assert_eq!(edited(0x67, IA32.set_access(Access::READ_ONLY)), 0x65);
    assert_eq!(edited(0x65, IA32.set_access(Access::FULL)), 0x67);
}

#[test]
fn change_of_memory_type_keeps_all_other_bits() {
    for (from, to) in [(0, 4), (4, 7), (7, 0), (3, 3), (5, 2)].map(|(from, to)| (PatIndex(from), PatIndex(to))) {
        let leaf = Leaf { frame: 0x8000_0000, status: Status { accessed: true, dirty: true }, ..PLAIN };
        for level in 0..2 {
            let entry = edited(AMD64.leaf(level, Leaf { cache: from, ..leaf }), AMD64.set_cache(level, to));
            assert_eq!(AMD64.decode(level, entry), Entry::Leaf(Leaf { cache: to, ..leaf }));
            let entry = edited(IA32.leaf(level, Leaf { cache: from, ..leaf }), IA32.set_cache(level, to));
            assert_eq!(IA32.decode(level, entry), Entry::Leaf(Leaf { cache: to, ..leaf }));
        }
    }
}

#[test]
fn memory_types_without_a_table_are_the_first_four() {
    for index in 0..8 {
        let cache = PatIndex(index);
        assert!(AMD64.cache_allowed(cache) && IA32.cache_allowed(cache));
        assert_eq!(OLD_AMD64.cache_allowed(cache), index < 4);
        assert_eq!(Ia32 { pat: false, ..IA32 }.cache_allowed(cache), index < 4);
    }
}

#[test]
fn reset_of_status_clears_accessed_and_dirty() {
    assert_eq!(edited(0xE7, AMD64.reset_status()), 0x87);
    assert_eq!(edited(0xE7, IA32.reset_status()), 0x87);
}

#[test]
fn geometry_follows_the_index_bits() {
    assert_eq!([0, 1, 2, 3].map(Amd64::size_log2), [12, 21, 30, 39]);
    assert_eq!([0, 1].map(Ia32::size_log2), [12, 22]);
    let address = 511 << 39 | 3 << 30 | 2 << 21 | 1 << 12 | 0xFFF;
    assert_eq!([0, 1, 2, 3].map(|level| Amd64::index(level, address)), [1, 2, 3, 511]);
    assert_eq!([0, 1].map(|level| Ia32::index(level, 0xFFC0_1FFF)), [1, 1023]);
}

#[test]
fn pages_exist_at_the_levels_the_processor_has() {
    assert_eq!([0, 1, 2, 3].map(|level| AMD64.leaf_allowed(level)), [true, true, false, false]);
    assert!(Amd64 { huge: true, ..AMD64 }.leaf_allowed(2));
    assert_eq!([0, 1].map(|level| IA32.leaf_allowed(level)), [true, true]);
    assert!(!Ia32 { large: false, ..IA32 }.leaf_allowed(1));
}

#[test]
fn rights_combine_as_sets() {
    let (w, x) = (Access { write: true, execute: false }, Access { write: false, execute: true });
    assert_eq!(w.or(x), Access::FULL);
    assert_eq!(w.and(x), Access::READ_ONLY);
    assert_eq!(Access::FULL.without(w), x);
    assert!(Access::FULL.covers(w) && !w.covers(Access::FULL) && !w.covers(x));
}
