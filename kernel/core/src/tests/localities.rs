//! Localities: what the firmware says, and kernel memory in each.

use kformats::acpi::Error;
use kformats::acpi::srat::{Entry, SIGNATURE};
use l4_abi::common::{LOCALITIES_MAX, LocalityTable};
use l4_abi::{MemoryDescriptor, MemoryType, Word};

use super::random::Random;
use crate::boot::kernel_memory;
use crate::localities::{kernel_memory_in, localities, split};
use crate::machine::PhysAddr;

const MIB: u64 = 1 << 20;
const LIMIT: PhysAddr = PhysAddr(1 << 39);

fn processor(apic_id: u32, domain: u32) -> Result<Entry, Error> {
    Ok(Entry::Processor { apic_id, domain })
}

fn memory(start: u64, end: u64, domain: u32) -> Result<Entry, Error> {
    Ok(Entry::Memory { start, len: end - start, domain })
}

fn table(entries: &[Result<Entry, Error>], apic_ids: &[u32]) -> LocalityTable {
    localities(entries.iter().copied(), apic_ids, |_, _| None).expect("the entries are well")
}

/// Two domains with 1 GiB each, of which the higher number comes first.
fn two() -> LocalityTable {
    table(
        &[
            processor(8, 7),
            processor(4, 3),
            memory(1024 * MIB, 2048 * MIB, 7),
            memory(0, 640 << 10, 3),
            memory(MIB, 1024 * MIB, 3),
        ],
        &[4, 8],
    )
}

#[test]
fn localities_are_domains_in_the_order_of_their_numbers() {
    let table = two();
    assert_eq!((table.localities, table.processors), (2, 2));
    assert_eq!([0, 1, 2, 255, 256].map(|processor| table.of_processor(processor)), [0, 1, 0, 0, 0]);
    let at = [0, 0x9_FFFF, 0xA_0000, MIB, 1024 * MIB - 1, 1024 * MIB, 2048 * MIB].map(|at| table.of_address(at));
    assert_eq!(at, [Some(0), Some(0), None, Some(0), Some(0), Some(1), None]);
    assert_eq!(
        [(0, 0), (0, 1), (1, 0), (0, 99)].map(|(a, b)| table.distance(a, b)),
        [Some(10), Some(20), Some(20), None]
    );
}

#[test]
fn distances_are_those_of_the_domains() {
    let entries = [processor(0, 3), processor(1, 7)];
    let distance = |from, to| (from != to).then_some((10 * from + to) as u8);
    let table = localities(entries.into_iter(), &[0, 1], distance).expect("the entries are well");
    let found = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(from, to)| table.distance(from, to));
    assert_eq!(found, [Some(10), Some(37), Some(73), Some(10)]);
}

#[test]
fn one_domain_is_none() {
    assert_eq!(table(&[], &[0]), LocalityTable::NONE);
    assert_eq!(table(&[processor(0, 5), memory(0, MIB, 5)], &[0]), LocalityTable::NONE);
}

#[test]
fn what_there_is_no_room_for_is_in_locality_0() {
    let many: Vec<_> = (0..40).rev().map(|n| processor(n, n)).collect();
    let apic_ids: Vec<u32> = (0..40).collect();
    let table = table(&many, &apic_ids);
    assert_eq!(table.localities as usize, LOCALITIES_MAX);
    assert_eq!([0, 1, 15, 16, 39].map(|processor| table.of_processor(processor)), [0, 1, 15, 0, 0]);
}

#[test]
fn an_entry_that_cannot_be_read_is_an_error() {
    let bad = Error::BadSize(SIGNATURE);
    let entries = [processor(0, 0), Err(bad)];
    assert_eq!(localities(entries.into_iter(), &[0], |_, _| None), Err(bad));
}

#[test]
fn ranges_are_split_where_localities_end() {
    let parts = |start, end| -> Vec<_> {
        let parts = split(&two(), (PhysAddr(start), PhysAddr(end))).collect::<Vec<_>>();
        parts.into_iter().map(|((start, end), locality)| (start.0, end.0, locality)).collect()
    };
    assert_eq!(parts(16 * MIB, 32 * MIB), [(16 * MIB, 32 * MIB, 0)]);
    let border = 1024 * MIB;
    assert_eq!(parts(border - MIB, border + MIB), [(border - MIB, border, 0), (border, border + MIB, 1)]);
    assert_eq!(parts(2047 * MIB, 2049 * MIB), [(2047 * MIB, 2048 * MIB, 1), (2048 * MIB, 2049 * MIB, 0)]);
    assert_eq!(parts(MIB, MIB), []);
}

fn descriptor(kind: MemoryType, start: u64, end: u64) -> MemoryDescriptor {
    MemoryDescriptor::new(kind, start as Word, end as Word - 1)
}

fn check_place(descriptors: &[MemoryDescriptor], busy: &[(u64, u64)], limit: PhysAddr, expected: Option<(u64, u64)>) {
    let busy: Vec<_> = busy.iter().map(|&(start, end)| (PhysAddr(start), PhysAddr(end))).collect();
    let found = kernel_memory_in(&two(), 1, descriptors, &busy, limit).map(|(start, end)| (start.0, end.0));
    assert_eq!(found, expected);
}

#[test]
fn a_locality_gives_the_kernel_a_sixteenth() {
    let all = [descriptor(MemoryType::Shared, 0, 1 << 40), descriptor(MemoryType::Conventional, MIB, 2048 * MIB)];
    check_place(&all, &[], LIMIT, Some((1984 * MIB, 2048 * MIB)));
    // The limit cuts what there is, and with it the share.
    check_place(&all, &[], PhysAddr(1536 * MIB), Some((1504 * MIB, 1536 * MIB)));
    check_place(&all, &[], PhysAddr(1024 * MIB), None);
    check_place(&[], &[], LIMIT, None);
    let virtual_memory = [descriptor(MemoryType::Conventional, MIB, 2048 * MIB).as_virtual()];
    check_place(&virtual_memory, &[], LIMIT, None);
}

#[test]
fn what_is_taken_stays() {
    let free = descriptor(MemoryType::Conventional, MIB, 2048 * MIB);
    let server = descriptor(MemoryType::BootLoader, 2047 * MIB, 2047 * MIB + 1024);
    check_place(&[free, server], &[], LIMIT, Some((1982 * MIB, 2046 * MIB)));
    // What comes earlier is overridden.
    check_place(&[server, free], &[], LIMIT, Some((1984 * MIB, 2048 * MIB)));
    check_place(&[free], &[(1990 * MIB, 1991 * MIB)], LIMIT, Some((1926 * MIB, 1990 * MIB)));
    // A free piece of 5 MiB holds 4 MiB.
    check_place(&[free], &[(1024 * MIB, 1536 * MIB), (1541 * MIB, 2048 * MIB)], LIMIT, Some((1536 * MIB, 1540 * MIB)));
    check_place(&[free], &[(1024 * MIB, 2047 * MIB)], LIMIT, None);
}

/// Whatever the firmware says of nodes, and the loader of memory, each place is in one locality, and kernel memory that is
/// found is memory.
#[test]
fn any_table_of_nodes_makes_localities() {
    const SEED: u64 = 0x0DE5_5EED;
    const INPUTS: u64 = 100_000;
    for input in 0..INPUTS {
        let mut random = Random(SEED + input);
        let mut draw = |limit: u64| random.below(limit);
        let mut address = || match draw(4) {
            0 => u64::MAX - draw(1 << 20),
            1 => draw(1 << 40),
            _ => draw(1 << 20) << 12,
        };
        let entries: Vec<Entry> = (0..8)
            .map(|kind| match kind {
                0..3 => Entry::Processor { apic_id: address() as u32 % 8, domain: address() as u32 % 40 },
                _ => Entry::Memory { start: address(), len: address(), domain: address() as u32 % 40 },
            })
            .collect();
        let distance = |from: u32, to: u32| (from != to).then_some(from as u8 ^ to as u8);
        let table =
            localities(entries.iter().copied().map(Ok), &[0, 1, 2, 3], distance).expect("entries without errors");
        let descriptors: Vec<MemoryDescriptor> = (0..6)
            .map(|kind| {
                let kinds = [MemoryType::Conventional, MemoryType::Reserved, MemoryType::Shared];
                MemoryDescriptor::new(kinds[kind % 3], address(), address())
            })
            .collect();
        let image = (PhysAddr(6 << 20), PhysAddr(7 << 20));
        let limit = PhysAddr(510 << 30);
        for (start, end) in kernel_memory(&descriptors, image, PhysAddr(512 << 20)) {
            assert!(start <= end, "input {input} of seed {SEED:#x}");
            let parts = split(&table, (start, end)).fold(0, |sum, ((first, last), _)| sum + (last.0 - first.0));
            assert_eq!(parts, end.0 - start.0, "input {input} of seed {SEED:#x}");
        }
        for locality in 0..table.localities as usize {
            let found = kernel_memory_in(&table, locality, &descriptors, &[image], limit);
            assert!(found.is_none_or(|(start, end)| start < end && end <= limit), "input {input} of seed {SEED:#x}");
        }
    }
}
