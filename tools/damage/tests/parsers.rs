//! Each parser of foreign bytes, but those of firmware tables, gets damaged input: it must come back, with an error or with
//! something that can be used, and soon. Half of the inputs follow from a fresh seed, which a failure names.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{SystemTime, UNIX_EPOCH};

use damage::damaged;
use kconfig::{Document, Options, Settings};
use kformats::code::breakpoint::Breakpoint;
use kformats::code::faulting::Faulting;
use kformats::code::port_access::PortAccess;
use kformats::elf::Elf;
use kformats::multiboot::{Info, Physical, Region, pvh, v1, v2};
use l4::bootinfo::{BootInfo, c_str};
use l4_abi::protocol::{PAGE_FAULT, SIGMA0};
use l4_abi::{Fpage, Kip, MemoryDescriptor, MemoryType, MsgTag, Rights, ThreadId, ThreadInfo, Word};
use sigma0::pools::{FIRST_REGIONS, Pools};
use sigma0::regions::Region as Owned;
use sigma0::server::{Action, Message, handle};

/// Inputs of each parser from each seed.
const INPUTS: u64 = 20_000;
/// The seed that is the same each time.
const SEED: u64 = 1;
/// What a list of a damaged file may have before nobody believes that it ends.
const MANY: usize = 100_000;

/// Feeds a parser with what is made of sound input.
fn feed(name: &str, sound: &[u8], inputs: u64, parse: impl Fn(&[u8])) {
    parse(sound);
    let fresh = SystemTime::now().duration_since(UNIX_EPOCH).map_or(2, |time| time.as_millis() as u64 % 1_000_000_000);
    for seed in [SEED, fresh] {
        for number in 0..inputs {
            let input = damaged(sound, seed, number);
            let done = catch_unwind(AssertUnwindSafe(|| parse(&input)));
            assert!(
                done.is_ok(),
                "{name}: damaged({seed}, {number}) is its end: {:x?}",
                &input[..input.len().min(256)]
            );
        }
    }
}

/// A list that must end.
fn count(list: impl Iterator) -> usize {
    let count = list.take(MANY).count();
    assert!(count < MANY, "there is no end");
    count
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A program of 64 bits with two segments.
fn elf_64() -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2u16, 62].iter().flat_map(|half| half.to_le_bytes()));
    file.extend(1u32.to_le_bytes());
    file.extend(words(&[0x10_0000, 64, 0]));
    file.extend(0u32.to_le_bytes());
    file.extend([64u16, 56, 2, 64, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    for (offset, address, flags) in [(176u64, 0x10_0000u64, 5u32), (192, 0x20_0000, 6)] {
        file.extend([1, flags].iter().flat_map(|word| word.to_le_bytes()));
        file.extend(words(&[offset, address, address, 16, 32, 16]));
    }
    file.resize(208, 0x90);
    file
}

#[test]
fn elf() {
    assert!(Elf::parse(&elf_64()).is_ok());
    feed("ELF", &elf_64(), 5 * INPUTS, |bytes| {
        if let Ok(elf) = Elf::parse(bytes) {
            let (low, high) = elf.physical_range();
            assert!(low <= high);
            for segment in elf.segments() {
                assert_eq!(elf.file_bytes(&segment).len() as u64, segment.file_bytes as u64);
            }
        }
    });
}

/// Memory that begins with what the loader left.
struct Memory<'a>(&'a [u8]);

impl Physical for Memory<'_> {
    fn bytes(&self, start: u64, len: u64) -> Option<&[u8]> {
        self.0.get(usize::try_from(start).ok()?..)?.get(..usize::try_from(len).ok()?)
    }
}

fn use_info(info: &impl Info) {
    let _ = (info.command_line().map(<[u8]>::len), info.basic_memory());
    if let Ok(modules) = info.modules() {
        count(modules.take_while(Result::is_ok));
    }
    if let Ok(Some(map)) = info.memory_map() {
        count(map.take_while(Result::is_ok));
    }
}

#[test]
fn multiboot_1() {
    let header = v1::Header {
        flags: v1::HAS_MEMORY | v1::HAS_COMMAND_LINE | v1::HAS_MODULES | v1::HAS_MAP,
        lower_kib: 639,
        upper_kib: 1024,
        command_line: 0x140,
        modules_count: 2,
        modules: 0x100,
        map_len: 48,
        map: 0x180,
        ..Default::default()
    };
    let mut memory = header.to_bytes().to_vec();
    memory.resize(0x100, 0);
    let module = [0x1000u32, 0x1800, 0x148, 0, 0x1800, 0x1900, 0, 0];
    memory.extend(module.iter().flat_map(|word| word.to_le_bytes()));
    memory.resize(0x140, 0);
    memory.extend(b"kick a\0\0sigma0 -x\0");
    memory.resize(0x180, 0);
    memory.extend(v1::region_bytes(&Region { start: 0, len: 0x9_FC00, kind: 1 }));
    memory.extend(v1::region_bytes(&Region { start: 1 << 32, len: 4096, kind: 2 }));
    assert!(v1::Info::new(&Memory(&memory), 0).is_ok());
    feed("Multiboot 1", &memory, 5 * INPUTS, |bytes| {
        if let Ok(info) = v1::Info::new(&Memory(bytes), 0) {
            use_info(&info);
        }
    });
}

#[test]
fn multiboot_2() {
    let mut tags = Vec::new();
    let mut tag = |kind: u32, body: &[u8]| {
        tags.extend([kind, 8 + body.len() as u32].iter().flat_map(|word| word.to_le_bytes()));
        tags.extend(body);
        tags.resize(tags.len().next_multiple_of(8), 0);
    };
    let module = [&0x1000u32.to_le_bytes()[..], &0x1800u32.to_le_bytes(), b"sigma0 -x\0"].concat();
    let map = words(&[24, 0, 0x9_FC00, 1, 1 << 32, 4096, 2]);
    tag(1, b"kick a\0");
    tag(3, &module);
    tag(4, &words(&[639 | 1024 << 32]));
    tag(6, &map);
    tag(0, &[]);
    let memory = [&(8 + tags.len() as u32).to_le_bytes()[..], &[0; 4], &tags].concat();
    assert!(v2::Info::new(&Memory(&memory), 0).is_ok());
    feed("Multiboot 2", &memory, 5 * INPUTS, |bytes| {
        if let Ok(info) = v2::Info::new(&Memory(bytes), 0) {
            use_info(&info);
        }
    });
}

#[test]
fn start_information() {
    let archived = |name: &str, mode: u32, bytes: &[u8]| {
        let numbers = [1, mode, 0, 0, 1, 0, bytes.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        let mut file = b"070701".to_vec();
        file.extend(numbers.iter().flat_map(|number| format!("{number:08x}").into_bytes()));
        file.extend(name.bytes().chain([0]));
        file.resize(file.len().next_multiple_of(4), 0);
        file.extend(bytes);
        file.resize(file.len().next_multiple_of(4), 0);
        file
    };
    let files = [("sigma0 -x", 0o100_644, &[7; 60][..]), ("root", 0o100_644, &[8; 33]), ("TRAILER!!!", 0, &[])];
    let archive: Vec<u8> = files.iter().flat_map(|(name, mode, bytes)| archived(name, *mode, bytes)).collect();
    let mut memory = words(&[u64::from(pvh::MAGIC) | 1 << 32, 2 << 32, 0x80, 0x40, 0x58, 0xC0, 2]);
    memory.resize(0x40, 0);
    memory.extend(b"kick a\0\0sigma0 -x\0");
    memory.resize(0x58, 0);
    memory.extend(b"RSD PTR 123456789012");
    memory.resize(0x80, 0);
    memory.extend(words(&[0x100, archive.len() as u64, 0, 0, 0x40, 0x20, 0x48, 0]));
    memory.extend(words(&[0, 0x9_FC00, 1, 1 << 32, 4096, 2]));
    memory.resize(0x100, 0);
    memory.extend(&archive);
    let found = pvh::Info::new(&Memory(&memory), 0).expect("sound information");
    assert_eq!(found.modules().map(|modules| modules.filter(Result::is_ok).count()), Ok(3));
    feed("start information", &memory, 5 * INPUTS, |bytes| {
        if let Ok(info) = pvh::Info::new(&Memory(bytes), 0) {
            use_info(&info);
            let _ = info.root_pointer();
        }
    });
}

/// Boot information as programs read it: a header, a module, a program, the Multiboot information.
#[test]
fn boot_information() {
    let header = [l4_abi::bootinfo::MAGIC, 1, 304, 64, 3, 0, 0, 0];
    let module = [1, 1, 64, 0x20_0000, 0x1234, 48, 0, 0];
    let exec = [2, 1, 128, 1, 1, 1, 2, 2, 2, 3, 3, 3, 0x100_0000, 2, 0, 0];
    let mut bytes = [words(&header), words(&module), words(&exec), words(&[0x102, 1, 32, 0x9000])].concat();
    bytes[64 + 48..64 + 48 + 10].copy_from_slice(b"file args\0");
    bytes.resize(304, 0);
    assert!(BootInfo::parse(&bytes).is_some());
    feed("boot information", &bytes, 5 * INPUTS, |bytes| {
        let _ = (BootInfo::size_bytes(bytes), c_str(bytes));
        let Some(info) = BootInfo::parse(bytes) else { return };
        count(info.records());
        for record in info.records().take(MANY) {
            let _ = (record.kind(), record.cmdline(), record.module(), record.initial_ip(), record.multiboot());
        }
    });
}

/// Messages to sigma0, many to the same one: tag, words and who sends, and what it gives away stays somebody's.
#[test]
fn messages_to_sigma0() {
    let threads = ThreadInfo::new(18, 16, 48);
    let client = |n: Word| ThreadId::global(60 + n % 4, 1);
    let page = Fpage::new(0x20_0000, 21, Rights::ALL).expect("aligned").raw();
    let any = Fpage::COMPLETE.raw();
    let tag = |label: i64, untyped: usize| MsgTag::new((label << 4) as Word, untyped, 0).raw();
    let sound = words(&[
        tag(SIGMA0, 2),
        page,
        0,
        0,
        tag(SIGMA0, 2),
        any,
        0,
        1,
        tag(SIGMA0, 3),
        page | 1,
        2,
        3,
        tag(PAGE_FAULT, 2),
        0x123_4568,
        0x1000,
        2,
    ]);
    let [memory, ports] = [FIRST_REGIONS, 64].map(|count| vec![Owned::UNUSED; count]);
    feed("sigma0", &sound, INPUTS, |bytes| {
        let kip = Kip { thread_info: threads, ..Kip::ZERO };
        let descriptors = [
            MemoryDescriptor::new(MemoryType::Conventional, 0x10_0000, 0x3FF_FFFF),
            MemoryDescriptor::new(MemoryType::Reserved, 0x200_0000, 0x20F_FFFF),
        ];
        let (mut memory, mut ports) = (memory.clone(), ports.clone());
        let mut pools = Pools::new(&kip, &descriptors, &mut memory, &mut ports);
        for message in bytes.chunks_exact(32) {
            let word = |n: usize| Word::from_le_bytes(message[8 * n..8 * n + 8].try_into().expect("eight bytes"));
            let message = Message {
                from: client(word(3)),
                tag: MsgTag::from_raw(word(0)),
                words: [word(1), word(2), word(3)],
                word_size_mask: if word(3) & 8 == 0 { Word::MAX } else { 0xFFFF_FFFF },
            };
            if let Action::Map { item, .. } = handle(&mut pools, threads, &message)
                && !item.fpage.is_nil()
                && item.fpage.as_io().is_none()
            {
                let (low, high) = (item.fpage.base(), item.fpage.last());
                assert!(high < 0x200_0000 || low > 0x20F_FFFF, "{message:x?} gets what is the kernel's: {item:x?}");
            }
        }
    });
}

#[test]
fn files_of_choices() {
    let options = Options::parse(include_str!("../../../config/Kconfig")).expect("it is in use");
    let files = [include_str!("../../../config/debug"), include_str!("../../../config/small")];
    for file in files {
        feed("a file of choices", file.as_bytes(), INPUTS / 4, |bytes| {
            let (document, settings, repairs) = Document::open(&options, bytes);
            assert!(repairs.len() < MANY && document.text().len() <= 4 * bytes.len() + 4096);
            let mut again = Document::open(&options, document.text().as_bytes()).0;
            again.update(&options, &settings);
        });
    }
    let mut fresh = Document::default();
    fresh.update(&options, &Settings::default());
}

/// What stands in a Kconfig file comes from this project, and a mistake must be an error all the same.
#[test]
fn kconfig_files() {
    let file = "mainmenu \"M\"\nmenu \"A\"\nconfig X\n\tbool \"x\"\n\tdefault y\n\tdepends on Y\nconfig Y\n\tint \"y\"\n\t\
                range 1 9\n\tdefault 4\nendmenu\n";
    assert!(Options::parse(file).is_ok());
    feed("Kconfig", file.as_bytes(), INPUTS / 20, |bytes| drop(Options::parse(&String::from_utf8_lossy(bytes))));
}

#[test]
fn command_lines() {
    let sound = b"kernel ioflexpages=yes mitigations=off kmem=4M timeout=5";
    feed("options of the kernel", sound, INPUTS, |bytes| {
        let mut complaints = 0;
        let _ = kcore::options::Options::default().parse(bytes, |_| complaints += 1);
        assert!(complaints <= bytes.len());
    });
    const LINE: dice::options::CommandLine =
        dice::options::CommandLine { program: "p", count: "calls", default_count: 1 };
    feed("seed and count", b"seed=1 calls=00020", INPUTS, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Err(unknown) = LINE.parse(text.split_ascii_whitespace()) {
            assert!(unknown.to_string().starts_with("p: "));
        }
    });
}

/// Instructions of programs that the kernel takes apart.
#[test]
fn instructions() {
    let sound = [0xF3, 0x48, 0x66, 0x6C, 0xE4, 0x80, 0x8E, 0xC0, 0x0F, 0x32, 0xCC, 0x3C, 0x00, 0xEB, 0x00];
    feed("instructions", &sound, 5 * INPUTS, |bytes| {
        let code = &bytes[..bytes.len().min(16)];
        let _ = (Faulting::decode(code), PortAccess::decode(code), Breakpoint::decode(code));
    });
}
