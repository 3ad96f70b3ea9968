use super::madt::{Entry, Madt, Polarity, Trigger};
use super::*;
use crate::le::put;

mod fuzz;
mod nodes;

/// 1 MiB of memory in which the tables begin at 0x8_0000; all else is zero.
#[derive(Clone)]
struct Bytes(Vec<u8>);

const POINTER: usize = 0xF_0010;
const LIST: usize = 0x8_0000;
const OTHER: usize = 0x8_1000;
const MADT: usize = 0x8_2000;

impl Physical for Bytes {
    fn bytes(&self, start: u64, len: u64) -> Option<&[u8]> {
        self.0.get(usize::try_from(start).ok()?..)?.get(..usize::try_from(len).ok()?)
    }
}

impl Bytes {
    fn empty() -> Self {
        Self(vec![0; 1 << 20])
    }

    fn with(mut self, offset: usize, value: &[u8]) -> Self {
        put(&mut self.0, offset, value).expect("inside the memory");
        self
    }

    fn with_table(self, at: usize, signature: &[u8; 4], body: &[u8]) -> Self {
        self.with(at, &table(signature, body))
    }

    fn with_madt(self, entries: &[u8]) -> Self {
        let body = [&[0, 0, 0xE0, 0xFE, 1, 0, 0, 0], entries].concat();
        self.with_table(MADT, b"APIC", &body)
    }
}

/// Makes the byte at `at` such that all add up to zero.
fn sum_up(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    bytes[at] = bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_sub(byte));
}

fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    const CHECKSUM: usize = 9;
    let len = HEADER_BYTES + body.len();
    let mut bytes = [&signature[..], &(len as u32).to_le_bytes(), &[0; HEADER_BYTES - 8], body].concat();
    sum_up(&mut bytes, CHECKSUM);
    bytes
}

fn pointer(revision: u8, rsdt: u32, xsdt: u64) -> Vec<u8> {
    let mut bytes = [&b"RSD PTR \0MARCON"[..], &[revision], &rsdt.to_le_bytes()].concat();
    sum_up(&mut bytes, 8);
    if revision >= 2 {
        bytes.extend_from_slice(&36u32.to_le_bytes());
        bytes.extend_from_slice(&xsdt.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        sum_up(&mut bytes, 32);
    }
    bytes
}

fn narrow(addresses: &[u32]) -> Vec<u8> {
    addresses.iter().flat_map(|address| address.to_le_bytes()).collect()
}

fn wide(addresses: &[u64]) -> Vec<u8> {
    addresses.iter().flat_map(|address| address.to_le_bytes()).collect()
}

const IO_APIC: [u8; 12] = [1, 12, 0, 0, 0, 0, 0xC0, 0xFE, 24, 0, 0, 0];
const TIMER: [u8; 10] = [2, 10, 0, 0, 2, 0, 0, 0, 0, 0];
const SCI: [u8; 10] = [2, 10, 0, 9, 9, 0, 0, 0, 0x0D, 0];
const LOCAL: [u8; 8] = [0, 8, 0, 0, 1, 0, 0, 0];

/// A machine with a root pointer, two tables and three entries.
fn machine() -> Bytes {
    Bytes::empty()
        .with(POINTER, &pointer(0, LIST as u32, 0))
        .with_table(LIST, b"RSDT", &narrow(&[OTHER as u32, MADT as u32]))
        .with_table(OTHER, b"FACP", &[0; 80])
        .with_madt(&[&LOCAL[..], &IO_APIC, &TIMER].concat())
}

fn entries(memory: &Bytes) -> Result<Vec<Result<Entry, Error>>, Error> {
    Madt::find(&Root::find(memory, None)?, memory).map(|madt| madt.entries().collect())
}

fn check(memory: &Bytes, expected: Result<&[Result<Entry, Error>], Error>) {
    assert_eq!(entries(memory).as_deref(), expected.as_ref().map(|entries| *entries));
}

const AN_IO_APIC: Entry = Entry::IoApic { address: 0xFEC0_0000, first_line: 24 };
/// What all that is well leads to.
const FOUND: Result<&[Result<Entry, Error>], Error> = Ok(&[Ok(A_PROCESSOR), Ok(AN_IO_APIC), Ok(A_TIMER)]);
const A_PROCESSOR: Entry = Entry::Processor { apic_id: 0, is_enabled: true };
const A_TIMER: Entry = Entry::Override { source: 0, line: 2, trigger: None, polarity: None };

#[test]
fn interrupt_controllers_are_found_through_either_list() {
    check(&machine(), FOUND);
    let xsdt = 0x9_0000;
    let both = machine().with(POINTER, &pointer(2, 1, xsdt)).with_table(xsdt as usize, b"XSDT", &wide(&[MADT as u64]));
    check(&both, FOUND);
    check(&machine().with(POINTER, &pointer(2, LIST as u32, 0)), FOUND);
}

#[test]
fn the_root_pointer_is_in_either_bios_area() {
    let without = machine().with(POINTER, &[0; 20]);
    check(&without, Err(Error::NoRoot));
    let here = pointer(0, LIST as u32, 0);
    check(&without.clone().with(0x9_FC20, &here), Err(Error::NoRoot));
    check(&without.clone().with(0x40E, &0x9FC0u16.to_le_bytes()).with(0x9_FC20, &here), FOUND);
    check(&without.clone().with(0xF_FFF0, &here[..16]), Err(Error::NoRoot));
    check(&without.clone().with(POINTER + 8, &here), Err(Error::NoRoot));
    check(&without.with(0x40E, &0xFFFFu16.to_le_bytes()), Err(Error::NoRoot));
}

/// With UEFI there is none in the BIOS areas, and the boot loader has a copy.
#[test]
fn the_boot_loader_may_know_the_root_pointer() {
    let memory = machine().with(POINTER, &[0; 20]);
    let check = |told: &[u8], expected| {
        let found = Root::find(&memory, Some(told)).and_then(|root| Madt::find(&root, &memory));
        assert_eq!(found.map(|_| ()), expected, "{told:x?}");
    };
    let here = pointer(0, LIST as u32, 0);
    check(&here, Ok(()));
    check(&[&here[..], &[0xCC; 20]].concat(), Ok(()));
    check(&here[..19], Err(Error::NoRoot));
    check(&[], Err(Error::NoRoot));
    check(&pointer(0, OTHER as u32, 0), Err(Error::Misplaced(Signature::RSDT)));
    // What is in the BIOS counts if the loader's is damaged.
    let root = Root::find(&machine(), Some(&here[1..])).expect("the one in the BIOS");
    assert!(Madt::find(&root, &machine()).is_ok());
}

#[test]
fn a_damaged_root_pointer_is_none() {
    check(&machine().with(POINTER + 8, &[1]), Err(Error::NoRoot));
    check(&machine().with(POINTER, &pointer(0, 0, 0)), Err(Error::NoRoot));
    // The extension is damaged, or longer than the area: the 32-bit list counts.
    let xsdt = pointer(2, LIST as u32, 0x9_0000);
    check(&machine().with(POINTER, &xsdt).with(POINTER + 33, &[1]), FOUND);
    check(&machine().with(POINTER, &xsdt).with(POINTER + 20, &[0xFF; 4]), FOUND);
}

#[test]
fn tables_with_impossible_sizes_or_checksums_are_refused() {
    let (rsdt, madt) = (Signature(*b"RSDT"), madt::SIGNATURE);
    let length = |at: usize, len: u32| machine().with(at + LENGTH, &len.to_le_bytes());
    check(&length(LIST, 0), Err(Error::BadSize(rsdt)));
    check(&length(LIST, 35), Err(Error::BadSize(rsdt)));
    check(&length(LIST, u32::MAX), Err(Error::BadSize(rsdt)));
    check(&length(LIST, MAX_TABLE_BYTES), Err(Error::Unreachable(LIST as u64)));
    check(&length(LIST, 37), Err(Error::BadChecksum(rsdt)));
    check(&length(MADT, 0), Err(Error::BadSize(madt)));
    check(&length(MADT, 50), Err(Error::BadChecksum(madt)));
    check(&machine().with_table(MADT, b"APIC", &[0; 7]), Err(Error::BadSize(madt)));
    check(&machine().with(LIST, b"FACP"), Err(Error::Misplaced(rsdt)));
    check(&machine().with(MADT + 12, &[1]), Err(Error::BadChecksum(madt)));
}

#[test]
fn a_list_may_lead_anywhere() {
    let list = |addresses: &[u32]| machine().with_table(LIST, b"RSDT", &narrow(addresses));
    let absent = Err(Error::Absent(madt::SIGNATURE));
    check(&list(&[]), absent);
    check(&list(&[LIST as u32, LIST as u32, OTHER as u32]), absent);
    check(&list(&[0, 0xF_FFFF, MADT as u32]), FOUND);
    check(&list(&[0xFFFF_FFFF, OTHER as u32, 0xF_FFFF]), Err(Error::Unreachable(0xFFFF_FFFF)));
    check(&machine().with(POINTER, &pointer(0, 0xFFFF_0000, 0)), Err(Error::Unreachable(0xFFFF_0000)));
    let xsdt = machine().with(POINTER, &pointer(2, 1, LIST as u64));
    check(&xsdt.with_table(LIST, b"XSDT", &wide(&[u64::MAX])), Err(Error::Unreachable(u64::MAX)));
}

#[test]
fn entries_end_at_the_first_that_does_not_fit() {
    let check = |bytes: &[&[u8]], expected: &[Result<Entry, Error>]| {
        check(&machine().with_madt(&bytes.concat()), Ok(expected));
    };
    let bad = Err(Error::BadSize(madt::SIGNATURE));
    check(&[], &[]);
    check(&[&[4, 6, 0, 0, 0, 1], &IO_APIC], &[Ok(AN_IO_APIC)]);
    check(&[&IO_APIC, &[1, 0], &IO_APIC], &[Ok(AN_IO_APIC), bad]);
    check(&[&IO_APIC, &[77, 1], &IO_APIC], &[Ok(AN_IO_APIC), bad]);
    check(&[&[77]], &[bad]);
    check(&[&[1, 11, 0, 0, 0, 0, 0xC0, 0xFE, 24, 0, 0], &TIMER], &[bad]);
    check(&[&TIMER, &[2, 255, 0, 0]], &[Ok(A_TIMER), bad]);
    check(&[&[3, 8, 0, 0, 23, 0, 0, 0]], &[Ok(Entry::NonMaskable { line: 23 })]);
}

#[test]
fn overrides_say_how_a_line_is_wired() {
    let check = |flags: u8, trigger, polarity| {
        let mut entry = SCI;
        entry[8] = flags;
        let expected = Entry::Override { source: 9, line: 9, trigger, polarity };
        check(&machine().with_madt(&entry), Ok(&[Ok(expected)]));
    };
    check(0b0000, None, None);
    check(0b0101, Some(Trigger::Edge), Some(Polarity::High));
    check(0b1101, Some(Trigger::Level), Some(Polarity::High));
    check(0b1111, Some(Trigger::Level), Some(Polarity::Low));
    check(0b1010, None, None);
    let mut of_another_bus = SCI;
    of_another_bus[2] = 1;
    super::tests::check(&machine().with_madt(&of_another_bus), Ok(&[]));
}

/// Whatever single byte is wrong, reading ends, and nothing but an error or what an entry says comes of it.
#[test]
fn any_damaged_byte_is_survived() {
    let good = machine();
    let places = (LIST..LIST + 44).chain(MADT..MADT + 74).chain(POINTER..POINTER + 20);
    for at in places {
        for value in [0, 1, 0x7F, 0xFF] {
            let _ = entries(&good.clone().with(at, &[value]));
        }
    }
}

#[test]
fn processors_have_numbers_of_8_or_of_32_bits() {
    let check = |bytes: &[u8], expected: Result<Entry, Error>| {
        check(&machine().with_madt(bytes), Ok(&[expected]));
    };
    let processor = |apic_id, is_enabled| Ok(Entry::Processor { apic_id, is_enabled });
    check(&[0, 8, 1, 77, 1, 0, 0, 0], processor(77, true));
    check(&[0, 8, 1, 255, 2, 0, 0, 0], processor(255, false));
    check(&[9, 16, 0, 0, 1, 2, 0, 0, 3, 0, 0, 0, 9, 0, 0, 0], processor(0x201, true));
    check(&[9, 16, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0], processor(0x201, false));
    check(&[0, 7, 1, 77, 1, 0, 0], Err(Error::BadSize(madt::SIGNATURE)));
    check(&[9, 11, 0, 0, 1, 2, 0, 0, 3, 0, 0], Err(Error::BadSize(madt::SIGNATURE)));
}
