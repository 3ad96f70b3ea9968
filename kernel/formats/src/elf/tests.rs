use super::*;
use crate::le::put;

const HEADER_64: usize = 64;
const ENTRY: u64 = 0x60_0010;

/// Two segments to load and one that is not: code at 0x600000, data with zeros after it at 0x602000.
fn file_64() -> Vec<u8> {
    let mut file = vec![0; HEADER_64 + 3 * 56 + 0x30];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    let data_at = (HEADER_64 + 3 * 56) as u64;
    for (offset, value) in [(16, 2), (18, 62), (54, 56), (56, 3)] {
        put(&mut file, offset, &u16::to_le_bytes(value)).expect("inside the header");
    }
    put(&mut file, 24, &ENTRY.to_le_bytes()).expect("inside the header");
    put(&mut file, 32, &u64::to_le_bytes(HEADER_64 as u64)).expect("inside the header");
    let segments = [
        (1u32, 5u32, data_at, 0x60_0000u64, 0x20u64, 0x20u64),
        (4, 4, 0, 0, 0, 0),
        (1, 6, data_at + 0x20, 0x60_2000, 0x10, 0x100),
    ];
    for (index, (kind, flags, offset, address, file_bytes, memory_bytes)) in segments.into_iter().enumerate() {
        let at = HEADER_64 + index * 56;
        put(&mut file, at, &kind.to_le_bytes()).expect("inside the table");
        put(&mut file, at + 4, &flags.to_le_bytes()).expect("inside the table");
        let high = 0xFFFF_FFFF_8000_0000u64;
        for (word, value) in [offset, high + address, address, file_bytes, memory_bytes].into_iter().enumerate() {
            put(&mut file, at + 8 + 8 * word, &value.to_le_bytes()).expect("inside the table");
        }
    }
    file
}

/// One segment at 0x20000, 0x10 bytes in the file and 0x40 in memory.
fn file_32() -> Vec<u8> {
    let mut file = vec![0; 52 + 32 + 0x10];
    file[..7].copy_from_slice(b"\x7fELF\x01\x01\x01");
    for (offset, value) in [(16, 2), (18, 3), (42, 32), (44, 1)] {
        put(&mut file, offset, &u16::to_le_bytes(value)).expect("inside the header");
    }
    put(&mut file, 24, &0x2_0004u32.to_le_bytes()).expect("inside the header");
    put(&mut file, 28, &52u32.to_le_bytes()).expect("inside the header");
    let header = [1u32, 84, 0x2_0000, 0x2_0000, 0x10, 0x40, 7, 0x1000];
    for (word, value) in header.into_iter().enumerate() {
        put(&mut file, 52 + 4 * word, &value.to_le_bytes()).expect("inside the table");
    }
    file
}

#[test]
fn a_64_bit_file_gives_its_segments() {
    let file = file_64();
    let elf = Elf::parse(&file).expect("a sound file");
    assert_eq!((elf.class(), elf.entry(), elf.physical_range()), (Class::Elf64, ENTRY, (0x60_0000, 0x60_2100)));
    let segments: Vec<_> = elf.segments().collect();
    let [code, data] = segments[..] else { panic!("two segments to load") };
    assert_eq!((code.physical, code.virt, code.is_writable), (0x60_0000, 0xFFFF_FFFF_8060_0000, false));
    assert_eq!((data.file_bytes, data.memory_bytes, data.is_writable), (0x10, 0x100, true));
    assert_eq!(elf.file_bytes(&data), &file[file.len() - 0x10..]);
}

#[test]
fn a_32_bit_file_gives_its_segment() {
    let file = file_32();
    let elf = Elf::parse(&file).expect("a sound file");
    assert_eq!((elf.class(), elf.entry(), elf.physical_range()), (Class::Elf32, 0x2_0004, (0x2_0000, 0x2_0040)));
    assert!(elf.segments().all(|segment| segment.is_writable && segment.offset == 84));
}

fn check(mut file: Vec<u8>, offset: usize, patch: &[u8], expected: Error) {
    put(&mut file, offset, patch).expect("the patch is inside the file");
    assert_eq!(Elf::parse(&file).map(|elf| elf.entry()), Err(expected), "{patch:x?} at {offset}");
}

#[test]
fn a_damaged_field_is_named() {
    const TABLE: usize = HEADER_64;
    check(file_64(), 0, b"MZ", Error::NotElf);
    check(file_64(), 4, &[3], Error::UnknownClass(3));
    check(file_64(), 4, &[1], Error::WrongMachine(62));
    check(file_32(), 4, &[2], Error::WrongMachine(3));
    check(file_64(), 5, &[2], Error::NotLittleEndian(2));
    check(file_64(), 6, &[0], Error::UnknownVersion(0));
    check(file_64(), 16, &[3, 0], Error::NotExecutable(3));
    check(file_64(), 18, &[183, 0], Error::WrongMachine(183));
    check(file_64(), 24, &0x60_0020u64.to_le_bytes(), Error::EntryOutside(0x60_0020));
    check(file_64(), 24, &0x60_2100u64.to_le_bytes(), Error::EntryOutside(0x60_2100));
    check(file_64(), 32, &u64::MAX.to_le_bytes(), Error::TruncatedProgramHeaders(0));
    check(file_64(), 54, &[32, 0], Error::ProgramHeaderSize(32));
    check(file_64(), 56, &[0, 0], Error::NothingToLoad);
    check(file_64(), 56, &[0xFF, 0xFF], Error::TruncatedProgramHeaders(3));
    check(file_64(), TABLE + 8, &u64::MAX.to_le_bytes(), Error::TruncatedSegment(0));
    check(file_64(), TABLE + 24, &(u64::MAX - 0x1E).to_le_bytes(), Error::AddressOverflow(0));
    check(file_64(), TABLE + 16, &(u64::MAX - 0x1E).to_le_bytes(), Error::AddressOverflow(0));
    check(file_64(), TABLE + 32, &0x21u64.to_le_bytes(), Error::FileSizeAboveMemorySize(0));
    check(file_64(), TABLE + 112 + 40, &u64::MAX.to_le_bytes(), Error::AddressOverflow(2));
    check(file_32(), 52 + 12, &0xFFFF_FFD0u32.to_le_bytes(), Error::AddressOverflow(0));
    check(file_32(), 52 + 20, &0u32.to_le_bytes(), Error::FileSizeAboveMemorySize(0));
    check(file_32(), 52, &[6], Error::NothingToLoad);
}

#[test]
fn each_cut_of_a_file_is_refused() {
    for file in [file_32(), file_64()] {
        for len in 0..file.len() {
            assert!(Elf::parse(&file[..len]).is_err(), "{len} of {} bytes", file.len());
        }
        assert_eq!(Elf::parse(&file[..4]).err(), Some(Error::TruncatedHeader));
        assert_eq!(Elf::parse(&file[..40]).err(), Some(Error::TruncatedHeader));
    }
}

#[test]
fn no_single_byte_makes_the_parser_panic() {
    for file in [file_32(), file_64()] {
        for offset in 0..file.len() {
            for value in [0, 1, 0x7F, 0x80, 0xFF] {
                let mut file = file.clone();
                file[offset] = value;
                if let Ok(elf) = Elf::parse(&file) {
                    assert!(elf.segments().all(|segment| elf.file_bytes(&segment).len() == segment.file_bytes));
                }
            }
        }
    }
}
