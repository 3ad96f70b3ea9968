//! The tables about nodes.

use super::super::slit::Slit;
use super::super::srat::{Entry, Srat};
use super::*;

const NODES: usize = 0x8_4000;

/// A processor of domain 0x04030201, by either kind of number, and memory of domain 5.
const PROCESSOR: [u8; 16] = [0, 16, 1, 77, 1, 0, 0, 0, 9, 2, 3, 4, 0, 0, 0, 0];
const X2_PROCESSOR: [u8; 24] = [2, 24, 0, 0, 1, 2, 3, 4, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn memory_of(start: u64, len: u64, domain: u32, flags: u32) -> [u8; 40] {
    let mut bytes = [0; 40];
    bytes[..2].copy_from_slice(&[1, 40]);
    bytes[2..6].copy_from_slice(&domain.to_le_bytes());
    bytes[8..16].copy_from_slice(&start.to_le_bytes());
    bytes[16..24].copy_from_slice(&len.to_le_bytes());
    bytes[28..32].copy_from_slice(&flags.to_le_bytes());
    bytes
}

fn with_nodes(signature: &[u8; 4], body: &[u8]) -> Bytes {
    machine().with_table(LIST, b"RSDT", &narrow(&[NODES as u32])).with_table(NODES, signature, body)
}

fn with_srat(revision: u8, entries: &[u8]) -> Bytes {
    let mut whole = table(b"SRAT", &[&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], entries].concat());
    whole[8] = revision;
    sum_up(&mut whole, 9);
    with_nodes(b"SRAT", &[]).with(NODES, &whole)
}

fn srat(memory: &Bytes) -> Result<Srat<'_>, Error> {
    Srat::find(&Root::find(memory, None)?, memory)
}

fn slit(memory: &Bytes) -> Result<Slit<'_>, Error> {
    Slit::find(&Root::find(memory, None)?, memory)
}

fn check(revision: u8, entries: &[&[u8]], expected: &[Result<Entry, Error>]) {
    let memory = with_srat(revision, &entries.concat());
    let found: Vec<_> = srat(&memory).expect("the table is well").entries().collect();
    assert_eq!(found, expected);
}

#[test]
fn processors_and_memory_have_a_node() {
    let memory = memory_of(0x1_0000_0000, 0x8000_0000, 0x105, 1);
    let expected = |mask: u32| {
        [
            Ok(Entry::Processor { apic_id: 77, domain: 0x0403_0201 & mask }),
            Ok(Entry::Processor { apic_id: 0x100, domain: 0x0403_0201 & mask }),
            Ok(Entry::Memory { start: 1 << 32, len: 1 << 31, domain: 0x105 & mask }),
        ]
    };
    check(2, &[&PROCESSOR, &X2_PROCESSOR, &memory], &expected(u32::MAX));
    check(1, &[&PROCESSOR, &X2_PROCESSOR, &memory], &expected(0xFF));
}

#[test]
fn what_is_disabled_or_unknown_has_none() {
    let [mut processor, mut other] = [PROCESSOR.to_vec(), X2_PROCESSOR.to_vec()];
    (processor[4], other[12]) = (2, 2);
    check(2, &[&processor, &other, &memory_of(0, 1, 0, 2), &[9, 3, 0]], &[]);
}

#[test]
fn entries_about_nodes_end_at_the_first_that_does_not_fit() {
    let bad = Err(Error::BadSize(Signature(*b"SRAT")));
    check(2, &[&[0, 11, 1, 77, 1, 0, 0, 0, 9, 2, 3]], &[bad]);
    check(2, &[&[2, 15, 0, 0, 1, 2, 3, 4, 0, 1, 0, 0, 1, 0, 0]], &[bad]);
    check(2, &[&memory_of(0, 1, 0, 1)[..39]], &[bad]);
    check(2, &[&[1, 1]], &[bad]);
    let memory = with_nodes(b"SRAT", &[0; 11]);
    assert_eq!(srat(&memory).map(|_| ()), Err(Error::BadSize(Signature(*b"SRAT"))));
}

#[test]
fn distances_are_between_domains_of_the_table() {
    let body = |domains: u64, distances: &[u8]| [&domains.to_le_bytes()[..], distances].concat();
    let memory = with_nodes(b"SLIT", &body(2, &[10, 21, 255, 10]));
    let table = slit(&memory).expect("the table is well");
    let found = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (u32::MAX, 1)].map(|(a, b)| table.distance(a, b));
    assert_eq!(found, [Some(10), Some(21), Some(255), Some(10), None, None, None]);
    let bad = Err(Error::BadSize(Signature(*b"SLIT")));
    for damaged in [body(2, &[10, 21, 21]), body(1 << 63, &[]), body(u64::MAX, &[0; 4]), vec![0; 7]] {
        assert_eq!(slit(&with_nodes(b"SLIT", &damaged)).map(|_| ()), bad);
    }
}

/// Whatever single byte is wrong, reading ends.
#[test]
fn any_damaged_byte_about_nodes_is_survived() {
    let with_srat = with_srat(2, &[&PROCESSOR[..], &X2_PROCESSOR, &memory_of(0, 1, 0, 1)].concat());
    let with_slit = with_nodes(b"SLIT", &[&2u64.to_le_bytes()[..], &[10, 20, 20, 10]].concat());
    for at in NODES + HEADER_BYTES..NODES + 128 {
        for value in [0, 1, 0x7F, 0xFF] {
            for memory in [&with_srat, &with_slit] {
                let mut bytes = memory.clone().with(at, &[value]);
                let len = u32_at(&bytes.0, NODES + 4).expect("a header") as usize;
                sum_up(&mut bytes.0[NODES..NODES + len], 9);
                if let Ok(table) = srat(&bytes) {
                    let _ = table.entries().count();
                }
                if let Ok(table) = slit(&bytes) {
                    let distances: Vec<_> = (0..3).map(|domain| table.distance(domain, 1)).collect();
                    assert_eq!(distances.len(), 3);
                }
            }
        }
    }
}
