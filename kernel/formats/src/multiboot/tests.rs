use super::*;
use crate::le::put;

/// Memory from address 0 to its length.
struct Bytes(Vec<u8>);

impl Physical for Bytes {
    fn bytes(&self, start: u64, len: u64) -> Option<&[u8]> {
        self.0.get(usize::try_from(start).ok()?..)?.get(..usize::try_from(len).ok()?)
    }
}

impl Bytes {
    fn with(mut self, offset: usize, value: &[u8]) -> Self {
        put(&mut self.0, offset, value).expect("inside the memory");
        self
    }

    fn with_words(self, offset: usize, words: &[u32]) -> Self {
        words.iter().enumerate().fold(self, |bytes, (i, word)| bytes.with(offset + 4 * i, &word.to_le_bytes()))
    }
}

const INFO: usize = 0x100;
const TABLE: usize = 0x200;
const MAP: usize = 0x300;
const STRINGS: usize = 0x400;

/// Two modules, two map entries of which the first is longer than its fields, all at the end of 8 KiB reach.
fn memory_v1() -> Bytes {
    let header = v1::Header {
        flags: v1::HAS_MEMORY | v1::HAS_COMMAND_LINE | v1::HAS_MODULES | v1::HAS_MAP,
        lower_kib: 639,
        upper_kib: 1024,
        command_line: STRINGS as u32,
        modules_count: 2,
        modules: TABLE as u32,
        map_len: 28 + 24,
        map: MAP as u32,
        ..Default::default()
    };
    Bytes(vec![0; 0x2000])
        .with(INFO, &header.to_bytes())
        .with_words(TABLE, &[0x1000, 0x1800, STRINGS as u32 + 8, 0, 0x1800, 0x1900, 0, 0])
        .with_words(MAP, &[24, 0, 0, 0x9_FC00, 0, 1, 0])
        .with(MAP + 28, &v1::region_bytes(&Region { start: 1 << 32, len: 4096, kind: 2 }))
        .with(STRINGS, b"kick a\0\0sigma0 -x\0")
}

fn tag(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut tag = [kind.to_le_bytes(), (8 + body.len() as u32).to_le_bytes()].concat();
    tag.extend(body);
    tag.resize(tag.len().next_multiple_of(8), 0);
    tag
}

fn module_tag(start: u32, end: u32, command_line: &[u8]) -> Vec<u8> {
    tag(3, &[&start.to_le_bytes(), &end.to_le_bytes(), command_line].concat())
}

fn map_tag() -> Vec<u8> {
    let entry = |start: u64, len: u64, kind: u64| [start.to_le_bytes(), len.to_le_bytes(), kind.to_le_bytes()].concat();
    tag(6, &[24u64.to_le_bytes().to_vec(), entry(0, 0x9_FC00, 1), entry(1 << 32, 4096, 2)].concat())
}

/// The same as [`memory_v1`], with an ACPI tag in between.
fn tags_v2() -> Vec<Vec<u8>> {
    vec![
        tag(1, b"kick a\0"),
        tag(14, b"RSD PTR 123456789012"),
        module_tag(0x1000, 0x1800, b"sigma0 -x\0"),
        module_tag(0x1800, 0x1900, b""),
        tag(4, &[639u32.to_le_bytes(), 1024u32.to_le_bytes()].concat()),
        map_tag(),
        tag(0, &[]),
    ]
}

fn memory_v2(tags: &[Vec<u8>]) -> Bytes {
    let tags = tags.concat();
    Bytes(vec![0; 0x2000]).with_words(INFO, &[8 + tags.len() as u32, 0]).with(INFO + 8, &tags)
}

fn read(info: &impl Info) -> Result<String, Error> {
    let mut text = format!("{:?} {:?}", String::from_utf8_lossy(info.command_line()?), info.basic_memory());
    for module in info.modules()? {
        let Module { start, end, command_line } = module?;
        text += &format!("; {start:x}-{end:x} {:?}", String::from_utf8_lossy(command_line));
    }
    for region in info.memory_map()?.into_iter().flatten() {
        let Region { start, len, kind } = region?;
        text += &format!("; {start:x}+{len:x} {kind}");
    }
    Ok(text)
}

fn read_v1(memory: &Bytes) -> Result<String, Error> {
    read(&v1::Info::new(memory, INFO as u64)?)
}

fn read_v2(tags: &[Vec<u8>]) -> Result<String, Error> {
    read(&v2::Info::new(&memory_v2(tags), INFO as u64)?)
}

#[test]
fn both_formats_say_the_same() {
    let expected = "\"kick a\" Some(BasicMemory { lower_kib: 639, upper_kib: 1024 }); 1000-1800 \"sigma0 -x\"; \
                    1800-1900 \"\"; 0+9fc00 1; 100000000+1000 2";
    assert_eq!(read_v1(&memory_v1()).as_deref(), Ok(expected));
    assert_eq!(read_v2(&tags_v2()).as_deref(), Ok(expected));
}

#[test]
fn what_the_loader_does_not_have_is_absent() {
    assert_eq!(read_v1(&memory_v1().with_words(INFO, &[0])).as_deref(), Ok("\"\" None"));
    assert_eq!(read_v2(&[tag(0, &[])]).as_deref(), Ok("\"\" None"));
}

#[test]
fn hostile_multiboot_1_information_is_named() {
    let check = |offset: usize, words: &[u32], expected: Error| {
        assert_eq!(read_v1(&memory_v1().with_words(offset, words)), Err(expected), "{words:x?} at {offset:#x}");
    };
    check(INFO + 16, &[0xFFFF_FFF0], Error::Unreachable("command line"));
    check(INFO + 20, &[u32::MAX], Error::Unreachable("module table"));
    check(INFO + 24, &[0x1FF8], Error::Unreachable("module table"));
    check(INFO + 44, &[u32::MAX], Error::Unreachable("memory map"));
    check(INFO + 44, &[27], Error::BadSize("memory map"));
    check(INFO + 44, &[28 + 23], Error::BadSize("memory map"));
    check(MAP, &[19], Error::BadSize("memory map"));
    check(MAP, &[u32::MAX], Error::BadSize("memory map"));
    check(TABLE + 8, &[0x2000], Error::Unreachable("command line"));
    assert_eq!(read_v1(&memory_v1().with(0x800, &[b'x'; 0x1800])), read_v1(&memory_v1()));
    let endless = memory_v1().with(0x800, &[b'x'; 0x1800]).with_words(INFO + 16, &[0x800]);
    assert_eq!(read_v1(&endless), Err(Error::EndlessString));
    assert_eq!(v1::Info::new(&Bytes(vec![0; 50]), 0).err(), Some(Error::Unreachable("information")));
}

#[test]
fn hostile_multiboot_2_information_is_named() {
    let check = |position: usize, tag: Vec<u8>, expected: Error| {
        let mut tags = tags_v2();
        tags[position] = tag;
        assert_eq!(read_v2(&tags), Err(expected), "{position}");
    };
    let chain = Error::BadSize("chain of tags");
    check(0, [1u32.to_le_bytes(), 7u32.to_le_bytes()].concat(), chain);
    check(1, [14u32.to_le_bytes(), u32::MAX.to_le_bytes()].concat(), chain);
    check(6, vec![], chain);
    check(2, tag(3, &[0; 7]), Error::BadSize("module tag"));
    check(5, tag(6, &[24, 0, 0, 0]), Error::BadSize("memory map"));
    check(5, tag(6, &[0; 32]), Error::BadSize("memory map"));
    check(5, tag(6, &[&[24, 0, 0, 0, 0, 0, 0, 0][..], &[0; 25]].concat()), Error::BadSize("memory map"));
    let info = |words| v2::Info::new(&Bytes(vec![0; 0x100]).with_words(0, words), 0).map(|_| ());
    assert_eq!(info(&[4]), Err(Error::BadSize("information")));
    assert_eq!(info(&[0x101]), Err(Error::Unreachable("information")));
    assert_eq!(info(&[8]), Err(chain));
}

#[test]
fn no_single_byte_makes_a_parser_panic() {
    for offset in (INFO..INFO + 0x40).chain(TABLE..TABLE + 32).chain(MAP..MAP + 52) {
        for value in [0, 1, 0x7F, 0x80, 0xFF] {
            let _ = read_v1(&memory_v1().with(offset, &[value]));
            let Bytes(memory) = memory_v2(&tags_v2()).with(offset, &[value]);
            let _ = v2::Info::new(&Bytes(memory), INFO as u64).and_then(|info| read(&info));
        }
    }
}

/// A file in an archive, as `cpio` writes it: `mode` says what it is.
fn archived(name: &str, mode: u32, bytes: &[u8]) -> Vec<u8> {
    let numbers = [1, mode, 0, 0, 1, 0, bytes.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
    let mut file = b"070701".to_vec();
    file.extend(numbers.iter().flat_map(|number| format!("{number:08X}").into_bytes()));
    file.extend(name.bytes().chain([0]));
    file.resize(file.len().next_multiple_of(4), 0);
    file.extend(bytes);
    file.resize(file.len().next_multiple_of(4), 0);
    file
}

const FILE: u32 = 0o100_644;

/// A folder, which is no module, and two that are.
fn archive() -> Vec<u8> {
    let entries = [("boot", 0o40_755, &b""[..]), ("sigma0 -x", FILE, b"first"), ("root", FILE, b"second!")];
    entries
        .iter()
        .flat_map(|(name, mode, bytes)| archived(name, *mode, bytes))
        .chain(archived("TRAILER!!!", 0, b""))
        .collect()
}

const ARCHIVE: usize = 0x600;

/// Two modules, the second an archive, and two map entries; all at the end of 8 KiB reach.
fn memory_pvh(version: u32) -> Bytes {
    let map = |at: usize, start: u64, len: u64, kind: u32| {
        (at, [&start.to_le_bytes()[..], &len.to_le_bytes(), &kind.to_le_bytes(), &[0; 4]].concat())
    };
    let (first, second) = (map(MAP, 0, 0x9_FC00, 1), map(MAP + 24, 1 << 32, 4096, 2));
    let len = archive().len() as u32;
    Bytes(vec![0; 0x2000])
        .with_words(
            INFO,
            &[pvh::MAGIC, version, 0, 2, TABLE as u32, 0, STRINGS as u32, 0, 0x500, 0, MAP as u32, 0, 2, 0],
        )
        .with_words(TABLE, &[0x1000, 0, 0x800, 0, STRINGS as u32 + 8, 0, 0, 0, ARCHIVE as u32, 0, len, 0, 0, 0, 0, 0])
        .with(first.0, &first.1)
        .with(second.0, &second.1)
        .with(STRINGS, b"kick a\0\0kernel -y\0")
        .with(0x500, b"RSD PTR 123456789012")
        .with(ARCHIVE, &archive())
}

type FoundPvh = (String, Vec<(u64, u64, String)>, Option<Vec<Region>>);

fn read_pvh(memory: &Bytes) -> Result<FoundPvh, Error> {
    let info = pvh::Info::new(memory, INFO as u64)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let modules = info.modules()?.map(|module| module.map(|m| (m.start, m.end, text(m.command_line))));
    let map = info.memory_map()?.map(Iterator::collect::<Result<_, _>>).transpose()?;
    Ok((text(info.command_line()?), modules.collect::<Result<_, _>>()?, map))
}

#[test]
fn a_virtual_machine_without_firmware_says_the_same() {
    let memory = memory_pvh(1);
    let (line, modules, map) = read_pvh(&memory).expect("sound information");
    assert_eq!(line, "kick a");
    let names: Vec<&str> = modules.iter().map(|(_, _, name)| name.as_str()).collect();
    assert_eq!(names, ["kernel -y", "sigma0 -x", "root"]);
    assert_eq!((modules[0].0, modules[0].1), (0x1000, 0x1800));
    let content = |(start, end, _): &(u64, u64, String)| memory.0[*start as usize..*end as usize].to_vec();
    assert_eq!((content(&modules[1]), content(&modules[2])), (b"first".to_vec(), b"second!".to_vec()));
    let regions = [Region { start: 0, len: 0x9_FC00, kind: 1 }, Region { start: 1 << 32, len: 4096, kind: 2 }];
    assert_eq!(map.as_deref(), Some(&regions[..]));
    let info = pvh::Info::new(&memory, INFO as u64).expect("sound information");
    assert!(info.root_pointer().is_some_and(|pointer| pointer.starts_with(b"RSD PTR 12")));
    // The first version has no memory map.
    assert_eq!(read_pvh(&memory_pvh(0)).map(|(_, modules, map)| (modules.len(), map)), Ok((3, None)));
}

#[test]
fn hostile_start_information_is_named() {
    let check = |offset: usize, words: &[u32], expected: Error| {
        let found = read_pvh(&memory_pvh(1).with_words(offset, words));
        assert_eq!(found, Err(expected), "{words:x?} at {offset:#x}");
    };
    check(INFO, &[pvh::MAGIC + 1], Error::NoMagic);
    check(INFO + 12, &[u32::MAX], Error::Unreachable("module list"));
    check(INFO + 16, &[0x1FF0], Error::Unreachable("module list"));
    check(INFO + 20, &[u32::MAX], Error::Unreachable("module list"));
    check(INFO + 24, &[u32::MAX, u32::MAX], Error::Unreachable("command line"));
    check(INFO + 40, &[u32::MAX, u32::MAX], Error::Unreachable("memory map"));
    check(INFO + 48, &[u32::MAX], Error::Unreachable("memory map"));
    check(TABLE, &[u32::MAX, u32::MAX], Error::BadSize("module list"));
    check(TABLE + 16, &[0x2000], Error::Unreachable("command line"));
    let bad = Error::BadSize("archive of modules");
    check(TABLE + 40, &[archive().len() as u32 - 1], bad);
    let damaged = |at: usize, bytes: &[u8]| read_pvh(&memory_pvh(1).with(ARCHIVE + at, bytes));
    // Sizes of the file and of the name, that are too large or no numbers.
    for (at, bytes) in
        [(54, &b"FFFFFFFF"[..]), (54, b"0000x000"), (54, b"+0000000"), (94, b"FFFFFFFF"), (94, b"00001000")]
    {
        assert_eq!(damaged(at, bytes), Err(bad), "{at}");
    }
    let far = pvh::Info::new(&Bytes(vec![0; 39]), 0).map(|_| ());
    assert_eq!(far, Err(Error::Unreachable("information")));
    let cut = memory_pvh(1).0[..INFO + 40].to_vec();
    assert_eq!(pvh::Info::new(&Bytes(cut), INFO as u64).map(|_| ()), Err(Error::Unreachable("information")));
}

#[test]
fn no_single_byte_makes_the_start_information_panic() {
    for offset in
        (INFO..INFO + 56).chain(TABLE..TABLE + 64).chain(MAP..MAP + 48).chain(ARCHIVE..ARCHIVE + archive().len())
    {
        for value in [0, 1, b'0', b'F', 0x7F, 0x80, 0xFF] {
            let _ = read_pvh(&memory_pvh(1).with(offset, &[value]));
        }
    }
}
