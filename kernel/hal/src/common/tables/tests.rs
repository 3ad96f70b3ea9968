//! The tables as a processor with 64-bit paging would walk them.

use std::collections::BTreeMap;

use kformats::paging::{Amd64, Ia32};

use super::*;

/// Frames from 0x1000 up, at most `left`.
struct FakeMemory {
    words: BTreeMap<u64, u64>,
    next: u64,
    left: usize,
}

impl FakeMemory {
    fn with_frames(left: usize) -> Self {
        Self { words: BTreeMap::new(), next: 0x1000, left }
    }
}

impl TableMemory for FakeMemory {
    fn read(&self, at: u64) -> u64 {
        assert!((0x1000..self.next).contains(&at), "{at:#x} is not in a table");
        self.words.get(&at).copied().unwrap_or(0)
    }

    fn write(&mut self, at: u64, entry: u64) {
        assert!((0x1000..self.next).contains(&at), "{at:#x} is not in a table");
        self.words.insert(at, entry);
    }

    fn replace(&mut self, at: u64, old: u64, new: u64) -> bool {
        let is_old = self.read(at) == old;
        if is_old {
            self.write(at, new);
        }
        is_old
    }

    fn take_frame(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        self.next += 0x1000;
        Some(self.next - 0x1000)
    }
}

/// What a walk finds for `address`: the physical address and what is allowed on all levels, as in `krw-cg`: kernel only,
/// read, write, execute, cached, global.
fn walk(memory: &FakeMemory, tables: &KernelTables<Amd64>, address: u64) -> Option<(u64, String)> {
    let (mut table, mut all, mut any) = (tables.root(), !0, 0);
    for shift in [39, 30, 21, 12] {
        let entry = memory.read(table + 8 * (address >> shift & 511));
        if entry & 1 == 0 {
            return None;
        }
        all &= entry;
        any |= entry;
        table = entry & 0x000F_FFFF_FFFF_F000;
        if shift == 12 || entry & 1 << 7 != 0 {
            let bit = |is_set, letter| if is_set { letter } else { '-' };
            let rights = [
                bit(all & 1 << 2 == 0, 'k'),
                'r',
                bit(all & 1 << 1 != 0, 'w'),
                bit(any & 1 << 63 == 0, 'x'),
                bit(entry & 1 << 4 == 0, 'c'),
                bit(entry & 1 << 8 != 0, 'g'),
            ];
            return Some((table + (address & ((1 << shift) - 1)), rights.iter().collect()));
        }
    }
    unreachable!()
}

const MODERN: Amd64 = Amd64 { no_execute: true, global: true, pat: true, huge: false };
const BASE: u64 = 0xFFFF_FFFF_8000_0000;
const LARGE: u64 = 1 << 21;

fn tables(memory: &mut FakeMemory) -> KernelTables<Amd64> {
    KernelTables::new(MODERN, memory).expect("frames are left")
}

#[test]
fn each_kind_gives_its_rights_and_no_page_is_writable_and_executable() {
    let check = |no_execute, global, kind, rights: &str| {
        let memory = &mut FakeMemory::with_frames(10);
        let tables =
            KernelTables::new(Amd64 { no_execute, global, pat: true, huge: false }, memory).expect("frames are left");
        tables.map(memory, BASE + 0x3000, 0x70_0000, kind).expect("frames are left");
        let found = walk(memory, &tables, BASE + 0x3123);
        assert_eq!(found, Some((0x70_0123, rights.to_string())), "{kind:?}");
    };
    check(true, true, PageKind::KernelCode, "kr-xcg");
    check(true, true, PageKind::KernelConst, "kr--cg");
    check(true, true, PageKind::KernelData, "krw-cg");
    check(true, true, PageKind::KernelDevice, "krw--g");
    check(true, true, PageKind::UserCode, "-r-xcg");
    check(true, true, PageKind::UserConst, "-r--cg");
    check(true, true, PageKind::UserData, "-rw-cg");
    check(false, false, PageKind::KernelData, "krwxc-");
    check(true, false, PageKind::UserConst, "-r--c-");
}

#[test]
fn a_user_page_opens_none_of_the_kernels() {
    let memory = &mut FakeMemory::with_frames(20);
    let tables = tables(memory);
    tables.map(memory, BASE, 0x70_0000, PageKind::KernelData).expect("frames are left");
    tables.map(memory, BASE + 0x1000, 0x70_1000, PageKind::UserConst).expect("frames are left");
    let rights = |page| walk(memory, &tables, BASE + page).map(|(_, rights)| rights);
    assert_eq!(rights(0x0000).as_deref(), Some("krw-cg"));
    assert_eq!(rights(0x1000).as_deref(), Some("-r--cg"));
}

#[test]
fn large_pages_map_two_megabytes() {
    let memory = &mut FakeMemory::with_frames(10);
    let tables = tables(memory);
    tables.map_large(memory, BASE + 0x80_0000, 0xC0_0000, PageKind::KernelData).expect("frames are left");
    assert_eq!(walk(memory, &tables, BASE + 0x9F_FFFF), Some((0xDF_FFFF, "krw-cg".into())));
    assert_eq!(walk(memory, &tables, BASE + 0xA0_0000), None);
    assert!(tables.is_backed(memory, BASE + 0x9F_FFFF));
}

/// A gap where nothing is becomes zeroes when somebody looks, and only then are there translations to forget.
#[test]
fn gaps_are_backed_without_a_trace_unless_somebody_has_looked() {
    let memory = &mut FakeMemory::with_frames(20);
    let tables = tables(memory);
    tables.reserve(memory, BASE, LARGE).expect("frames are left");
    let before = memory.next;
    let (page, other) = (BASE + 0x5000, BASE + 0x6000);
    for _ in 0..3 {
        assert_eq!(walk(memory, &tables, page), None);
        assert!(!tables.is_backed(memory, page));
        assert!(!tables.back(memory, page, 0x70_0000, PageKind::KernelData), "nobody looked");
        assert!(tables.fill_gap(memory, page), "somebody who looked before that finds what is there");
        assert_eq!(walk(memory, &tables, page), Some((0x70_0000, "krw-cg".into())));
        assert!(tables.fill_gap(memory, other), "somebody looks");
        let (_, rights) = walk(memory, &tables, other).expect("it reads as zero");
        assert_eq!((rights.as_str(), tables.is_backed(memory, other)), ("kr--cg", false));
        assert!(tables.back(memory, other, 0x70_1000, PageKind::KernelData), "somebody has looked");
        assert_eq!(tables.release(memory, page), 0x70_0000);
        assert_eq!(tables.release(memory, other), 0x70_1000);
    }
    assert!(!tables.fill_gap(memory, BASE + LARGE), "there is no table");
    assert_eq!(memory.next, before, "the page tables were there");
}

#[test]
#[should_panic(expected = "a gap has nothing to give back")]
fn a_page_is_released_once() {
    let memory = &mut FakeMemory::with_frames(20);
    let tables = tables(memory);
    tables.reserve(memory, BASE, LARGE).expect("frames are left");
    assert!(!tables.back(memory, BASE, 0x70_0000, PageKind::KernelData), "nobody looked");
    tables.release(memory, BASE);
    tables.release(memory, BASE);
}

#[test]
fn without_frames_nothing_is_mapped() {
    // Two frames for the tables as such, two for the levels down to large pages; the lowest level finds none.
    let memory = &mut FakeMemory::with_frames(4);
    let tables = tables(memory);
    assert_eq!(tables.map(memory, BASE, 0x70_0000, PageKind::KernelData), Err(NoFrame));
    assert_eq!(walk(memory, &tables, BASE), None);
    assert_eq!(tables.reserve(memory, BASE, LARGE), Err(NoFrame));
    assert_eq!(walk(memory, &tables, BASE), None);
    assert_eq!(KernelTables::new(MODERN, &mut FakeMemory::with_frames(1)).err(), Some(NoFrame));
}

#[test]
fn spaces_share_the_kernel_by_its_root_entry() {
    let memory = &mut FakeMemory::with_frames(10);
    let tables = tables(memory);
    tables.map(memory, BASE, 0x70_0000, PageKind::KernelCode).expect("frames are left");
    let (index, entry) = tables.root_entry(memory, BASE);
    assert_eq!((index, entry), (511, memory.read(tables.root() + 511 * 8)));
    assert_ne!(entry, 0);
}

#[test]
fn the_32_bit_format_works_the_same() {
    let memory = &mut FakeMemory::with_frames(10);
    let tables = KernelTables::new(Ia32 { large: true, global: true, pat: true }, memory).expect("frames are left");
    tables.reserve(memory, 0xE000_0000, 8 << 20).expect("frames are left");
    assert!(!tables.back(memory, 0xE040_1000, 0x70_0000, PageKind::KernelData), "nobody looked");
    [0xE040_2000, 0xE000_0000].into_iter().for_each(|page| assert!(tables.fill_gap(memory, page)));
    let entry_of = |address: u64| {
        let table = memory.read(tables.root() + 4 * (address >> 22)) & !0xFFF;
        memory.read(table + 4 * (address >> 12 & 1023))
    };
    assert_eq!(entry_of(0xE040_1000), 0x70_0163);
    assert_eq!(entry_of(0xE040_2000), entry_of(0xE000_0000));
    assert_eq!(entry_of(0xE000_0000) & 0xFFF, 0x121);
    assert!(tables.is_backed(memory, 0xE040_1000) && !tables.is_backed(memory, 0xE040_2000));
}

#[test]
#[should_panic(expected = "mapped once")]
fn a_page_is_not_mapped_over_another() {
    let memory = &mut FakeMemory::with_frames(10);
    let tables = tables(memory);
    tables.map(memory, BASE, 0x70_0000, PageKind::KernelCode).expect("frames are left");
    let _ = tables.map(memory, BASE, 0x70_1000, PageKind::KernelData);
}
