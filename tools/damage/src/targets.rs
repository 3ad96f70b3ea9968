//! The parsers of foreign bytes: for each an input that is sound, and what is done with any other.
//!
//! Whatever the bytes are, [`Target::parse`] comes back, soon, and what it came to can be used: else it panics. Tests feed it
//! with damaged input, and `fuzz/` with what libFuzzer finds to lead to places that were not executed before.

use kconfig::{Document, Options, Settings};
use kformats::acpi::Root;
use kformats::acpi::fadt::Fadt;
use kformats::acpi::madt::Madt;
use kformats::acpi::slit::Slit;
use kformats::acpi::srat::Srat;
use kformats::code::breakpoint::Breakpoint;
use kformats::code::faulting::Faulting;
use kformats::code::port_access::PortAccess;
use kformats::elf::Elf;
use kformats::multiboot::{Info, Physical, Region, pvh, v1, v2};
use l4::bootinfo::{BootInfo, c_str};
use l4::kip::Page;
use l4_abi::protocol::{PAGE_FAULT, SIGMA0};
use l4_abi::{
    API_FLAGS, Fpage, KIP_SIZE, KernelDescriptor, Kip, MemoryDescriptor, MemoryInfo, MemoryType, MsgTag, ProcessorInfo,
    Rights, ThreadId, ThreadInfo, Word,
};
use sigma0::pools::{FIRST_REGIONS, Pools};
use sigma0::regions::Region as Owned;
use sigma0::server::{Action, Message, handle};

/// What a list of a damaged file may have before nobody believes that it ends.
const MANY: usize = 100_000;

/// A parser.
#[derive(Debug)]
pub struct Target {
    /// What it parses, as a name.
    pub name: &'static str,
    /// An input that is sound.
    pub sound: fn() -> Vec<u8>,
    /// Parses, and uses what comes of it.
    pub parse: fn(&[u8]),
    /// How many inputs a test gives it from each seed.
    pub inputs: u64,
}

/// Inputs of most.
const INPUTS: u64 = 20_000;

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "elf", sound: elf_64, parse: elf, inputs: 5 * INPUTS },
    Target { name: "multiboot_1", sound: multiboot_1_memory, parse: multiboot_1, inputs: 5 * INPUTS },
    Target { name: "multiboot_2", sound: multiboot_2_memory, parse: multiboot_2, inputs: 5 * INPUTS },
    Target { name: "start_information", sound: start_memory, parse: start_information, inputs: 5 * INPUTS },
    Target { name: "acpi", sound: acpi_memory, parse: acpi, inputs: 5 * INPUTS },
    Target { name: "kernel_interface_page", sound: interface_page, parse: kernel_interface_page, inputs: 5 * INPUTS },
    Target { name: "boot_information", sound: boot_records, parse: boot_information, inputs: 5 * INPUTS },
    Target { name: "messages_to_sigma0", sound: requests, parse: messages_to_sigma0, inputs: INPUTS },
    Target { name: "files_of_choices", sound: choices, parse: files_of_choices, inputs: INPUTS / 2 },
    Target { name: "kconfig_files", sound: kconfig_file, parse: kconfig_files, inputs: INPUTS / 20 },
    Target { name: "kernel_options", sound: kernel_line, parse: kernel_options, inputs: INPUTS },
    Target { name: "seeds_and_counts", sound: seed_line, parse: seeds_and_counts, inputs: INPUTS },
    Target { name: "instructions", sound: code, parse: instructions, inputs: 5 * INPUTS },
];

/// The one with this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
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

fn elf(bytes: &[u8]) {
    let Ok(elf) = Elf::parse(bytes) else { return };
    let (low, high) = elf.physical_range();
    assert!(low <= high);
    for segment in elf.segments() {
        assert_eq!(elf.file_bytes(&segment).len() as u64, segment.file_bytes as u64);
    }
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

fn multiboot_1_memory() -> Vec<u8> {
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
    memory
}

fn multiboot_1(bytes: &[u8]) {
    if let Ok(info) = v1::Info::new(&Memory(bytes), 0) {
        use_info(&info);
    }
}

fn multiboot_2_memory() -> Vec<u8> {
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
    [&(8 + tags.len() as u32).to_le_bytes()[..], &[0; 4], &tags].concat()
}

fn multiboot_2(bytes: &[u8]) {
    if let Ok(info) = v2::Info::new(&Memory(bytes), 0) {
        use_info(&info);
    }
}

/// A file of an archive of cpio.
fn archived(name: &str, mode: u32, bytes: &[u8]) -> Vec<u8> {
    let numbers = [1, mode, 0, 0, 1, 0, bytes.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
    let mut file = b"070701".to_vec();
    file.extend(numbers.iter().flat_map(|number| format!("{number:08x}").into_bytes()));
    file.extend(name.bytes().chain([0]));
    file.resize(file.len().next_multiple_of(4), 0);
    file.extend(bytes);
    file.resize(file.len().next_multiple_of(4), 0);
    file
}

/// Start information of PVH with an archive of three files and a single one.
fn start_memory() -> Vec<u8> {
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
    memory
}

fn start_information(bytes: &[u8]) {
    if let Ok(info) = pvh::Info::new(&Memory(bytes), 0) {
        use_info(&info);
        let _ = info.root_pointer();
    }
}

/// Where the tables of [`acpi_memory`] are: the root pointer, the list, and what the list names.
const POINTER_AT: usize = 0;
const LIST_AT: usize = 0x28;
const TABLES_AT: [usize; 4] = [0x80, 0x100, 0x180, 0x280];
/// A table of ACPI: where its size stands, its checksum, and how much all have in common.
const SIZE_AT: usize = 4;
const SUM_AT: usize = 9;
const HEADER_BYTES: usize = 36;

/// A table without its checksum.
fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = signature.to_vec();
    bytes.extend(((HEADER_BYTES + body.len()) as u32).to_le_bytes());
    bytes.resize(HEADER_BYTES, 0);
    bytes.extend(body);
    bytes
}

/// A root pointer of version 2, a list of four tables, and these: of interrupt controllers, of affinities, of distances, of
/// the machine's fixed features.
fn acpi_memory() -> Vec<u8> {
    let mut memory = b"RSD PTR \0MARCON\x02".to_vec();
    memory.extend((LIST_AT as u32).to_le_bytes());
    memory.extend(36u32.to_le_bytes());
    memory.extend((LIST_AT as u64).to_le_bytes());
    let madt = [
        &[0, 0, 0xE0, 0xFE, 1, 0, 0, 0][..],
        &[0, 8, 0, 0, 1, 0, 0, 0],
        &[0, 8, 1, 1, 1, 0, 0, 0],
        &[1, 12, 0, 0, 0, 0, 0xC0, 0xFE, 0, 0, 0, 0],
        &[2, 10, 0, 9, 9, 0, 0, 0, 0xD, 0],
        &[9, 16, 0, 0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
    ];
    let mut srat = vec![0; 12];
    srat.extend([0, 16, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let of_memory = [&[1, 40, 1, 0, 0, 0, 0, 0][..], &words(&[0x10_0000, 0x700_0000, 1 << 32, 0])].concat();
    srat.extend(of_memory);
    let slit = [&2u64.to_le_bytes()[..], &[10, 20, 20, 10]].concat();
    let mut fadt = vec![0; 208];
    fadt[4..8].copy_from_slice(&0x240u32.to_le_bytes());
    fadt[40..44].copy_from_slice(&0x608u32.to_le_bytes());
    let tables = [(b"APIC", madt.concat()), (b"SRAT", srat), (b"SLIT", slit), (b"FACP", fadt)];
    let list = TABLES_AT.map(|at| at as u64);
    memory.resize(LIST_AT, 0);
    memory.extend(table(b"XSDT", &words(&list)));
    for ((signature, body), at) in tables.into_iter().zip(TABLES_AT) {
        memory.resize(at, 0);
        memory.extend(table(signature, &body));
    }
    sum_up_all(&mut memory);
    memory
}

/// Makes the bytes of a range, which may be cut off, add up to zero.
fn sum_up(memory: &mut [u8], start: usize, len: usize, sum_at: usize) {
    let end = start.saturating_add(len).min(memory.len());
    let Some(bytes) = memory.get_mut(start..end) else { return };
    if sum_at < bytes.len() {
        bytes[sum_at] = 0;
        bytes[sum_at] = bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_sub(byte));
    }
}

/// Gives all tables their checksums: else nothing behind these would be read.
fn sum_up_all(memory: &mut [u8]) {
    sum_up(memory, POINTER_AT, 20, 8);
    sum_up(memory, POINTER_AT, 36, 32);
    for at in [LIST_AT].into_iter().chain(TABLES_AT) {
        let size = memory.get(at + SIZE_AT..at + SIZE_AT + 4).map(|size| [size[0], size[1], size[2], size[3]]);
        sum_up(memory, at, size.map_or(0, u32::from_le_bytes) as usize, SUM_AT);
    }
}

fn acpi(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    // Sums that are wrong are of interest as well, now and then.
    if bytes.last().is_some_and(|last| last % 8 != 7) {
        sum_up_all(&mut bytes);
    }
    let memory = &Memory(&bytes);
    let Ok(root) = Root::find(memory, Some(&bytes)) else { return };
    if let Ok(madt) = Madt::find(&root, memory) {
        count(madt.entries());
    }
    if let Ok(srat) = Srat::find(&root, memory) {
        count(srat.entries());
    }
    if let Ok(slit) = Slit::find(&root, memory) {
        for number in 0..70 {
            let _ = (slit.distance(number, 1), slit.distance(u32::MAX, number));
        }
    }
    if let Ok(fadt) = Fadt::find(&root, memory) {
        let _ = (fadt.timer, fadt.off(memory).is_ok());
    }
}

/// Where things are in [`interface_page`].
const KERNEL_AT: usize = 0x200;
const MEMORY_AT: usize = 0x400;
const PROCESSORS_AT: usize = 0x500;

fn interface_page() -> Vec<u8> {
    let fields = Kip {
        api_flags: API_FLAGS,
        kernel_desc_ptr: KERNEL_AT as Word,
        memory_info: MemoryInfo::new(3, MEMORY_AT as Word),
        processor_desc_ptr: PROCESSORS_AT as Word,
        processor_info: ProcessorInfo::new(4),
        thread_info: ThreadInfo::new(18, 16, 48),
        ..Kip::ZERO
    };
    let mut page = vec![0; KIP_SIZE];
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &fields.magic);
    put(core::mem::offset_of!(Kip, api_flags), &fields.api_flags.to_le_bytes());
    put(core::mem::offset_of!(Kip, kernel_desc_ptr), &fields.kernel_desc_ptr.to_le_bytes());
    put(core::mem::offset_of!(Kip, memory_info), &fields.memory_info.raw().to_le_bytes());
    put(core::mem::offset_of!(Kip, processor_desc_ptr), &fields.processor_desc_ptr.to_le_bytes());
    put(core::mem::offset_of!(Kip, processor_info), &fields.processor_info.raw().to_le_bytes());
    put(core::mem::offset_of!(Kip, thread_info), &fields.thread_info.raw().to_le_bytes());
    put(KERNEL_AT + size_of::<KernelDescriptor>(), b"Marcona 0.1\0smallspaces\0iofpages\0\0");
    let descriptors = [
        MemoryDescriptor::new(MemoryType::Shared, 0, u64::MAX),
        MemoryDescriptor::new(MemoryType::Conventional, 0x10_0000, 0x3FF_FFFF),
        MemoryDescriptor::new(MemoryType::Reserved, 0x200_0000, 0x20F_FFFF),
    ];
    let raw = descriptors.map(|descriptor| [descriptor.low() | descriptor.kind().raw() as Word, descriptor.high()]);
    put(MEMORY_AT, &words(raw.as_flattened()));
    put(PROCESSORS_AT, &words(&[100_000, 3_000_000, 0, 0]));
    page
}

/// The page as a program reads it, and the server that makes pools of what it says; what is behind its end is zero.
fn kernel_interface_page(bytes: &[u8]) {
    const WORDS: usize = KIP_SIZE / size_of::<Word>();
    let mut page = [0; WORDS];
    for (word, bytes) in page.iter_mut().zip(bytes.chunks_exact(size_of::<Word>())) {
        *word = Word::from_le_bytes(bytes.try_into().expect("as long as a word"));
    }
    let page = Page::new(page);
    let _ = (page.is_ours(), page.kernel_descriptor(), page.kernel_version_string().len());
    assert!(page.features().map(str::len).sum::<usize>() <= KIP_SIZE);
    assert!(size_of_val(page.memory_descriptors()) <= KIP_SIZE);
    let last = page.num_processors() - 1;
    for processor in [0, 1, last / 2, last, last + 1, usize::MAX] {
        let descriptor = page.processor_descriptor(processor);
        assert!(processor <= last || descriptor.is_none());
    }
    let [mut memory, mut ports] = [FIRST_REGIONS, 64].map(|count| vec![Owned::UNUSED; count]);
    let _ = Pools::new(page.kip(), page.memory_descriptors(), &mut memory, &mut ports);
}

/// Boot information as programs read it: a header, a module, a program, the Multiboot information.
fn boot_records() -> Vec<u8> {
    let header = [l4_abi::bootinfo::MAGIC, 1, 304, 64, 3, 0, 0, 0];
    let module = [1, 1, 64, 0x20_0000, 0x1234, 48, 0, 0];
    let exec = [2, 1, 128, 1, 1, 1, 2, 2, 2, 3, 3, 3, 0x100_0000, 2, 0, 0];
    let mut bytes = [words(&header), words(&module), words(&exec), words(&[0x102, 1, 32, 0x9000])].concat();
    bytes[64 + 48..64 + 48 + 10].copy_from_slice(b"file args\0");
    bytes.resize(304, 0);
    bytes
}

fn boot_information(bytes: &[u8]) {
    let _ = (BootInfo::size_bytes(bytes), c_str(bytes));
    let Some(info) = BootInfo::parse(bytes) else { return };
    count(info.records());
    for record in info.records().take(MANY) {
        let _ = (record.kind(), record.cmdline(), record.module(), record.initial_ip(), record.multiboot());
        let _ = record.root_pointer();
    }
}

/// The thread numbers of the machine on which sigma0 gets its messages.
const THREADS: ThreadInfo = ThreadInfo::new(18, 16, 48);

fn requests() -> Vec<u8> {
    let page = Fpage::new(0x20_0000, 21, Rights::ALL).expect("aligned").raw();
    let any = Fpage::COMPLETE.raw();
    let tag = |label: i64, untyped: usize| MsgTag::new((label << 4) as Word, untyped, 0).raw();
    words(&[
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
    ])
}

/// Messages to sigma0, many to the same one: tag, words and who sends, and what it gives away stays somebody's.
fn messages_to_sigma0(bytes: &[u8]) {
    let client = |n: Word| ThreadId::global(60 + n % 4, 1);
    let kip = Kip { thread_info: THREADS, ..Kip::ZERO };
    let descriptors = [
        MemoryDescriptor::new(MemoryType::Conventional, 0x10_0000, 0x3FF_FFFF),
        MemoryDescriptor::new(MemoryType::Reserved, 0x200_0000, 0x20F_FFFF),
    ];
    let [mut memory, mut ports] = [FIRST_REGIONS, 64].map(|count| vec![Owned::UNUSED; count]);
    let mut pools = Pools::new(&kip, &descriptors, &mut memory, &mut ports);
    for message in bytes.chunks_exact(32) {
        let word = |n: usize| Word::from_le_bytes(message[8 * n..8 * n + 8].try_into().expect("eight bytes"));
        let message = Message {
            from: client(word(3)),
            tag: MsgTag::from_raw(word(0)),
            words: [word(1), word(2), word(3)],
            word_size_mask: if word(3) & 8 == 0 { Word::MAX } else { 0xFFFF_FFFF },
        };
        if let Action::Map { item, .. } = handle(&mut pools, THREADS, &message)
            && !item.fpage.is_nil()
            && item.fpage.as_io().is_none()
        {
            let (low, high) = (item.fpage.base(), item.fpage.last());
            assert!(high < 0x200_0000 || low > 0x20F_FFFF, "{message:x?} gets what is the kernel's: {item:x?}");
        }
    }
}

fn choices() -> Vec<u8> {
    include_bytes!("../../../config/debug").to_vec()
}

fn files_of_choices(bytes: &[u8]) {
    thread_local! {
        static OPTIONS: Options = Options::parse(include_str!("../../../config/Kconfig")).expect("it is in use");
    }
    OPTIONS.with(|options| {
        let (document, settings, repairs) = Document::open(options, bytes);
        assert!(repairs.len() < MANY && document.text().len() <= 4 * bytes.len() + 4096);
        let mut again = Document::open(options, document.text().as_bytes()).0;
        again.update(options, &settings);
        let mut fresh = Document::default();
        fresh.update(options, &Settings::default());
    });
}

/// What stands in a Kconfig file comes from this project, and a mistake must be an error all the same.
fn kconfig_file() -> Vec<u8> {
    b"mainmenu \"M\"\nmenu \"A\"\nconfig X\n\tbool \"x\"\n\tdefault y\n\tdepends on Y\nconfig Y\n\tint \"y\"\n\t\
      range 1 9\n\tdefault 4\nendmenu\n"
        .to_vec()
}

fn kconfig_files(bytes: &[u8]) {
    drop(Options::parse(&String::from_utf8_lossy(bytes)));
}

fn kernel_line() -> Vec<u8> {
    b"kernel ioflexpages=yes mitigations=off kmem=4M timeout=5".to_vec()
}

fn kernel_options(bytes: &[u8]) {
    let mut complaints = 0;
    let _ = kcore::options::Options::default().parse::<true>(bytes, |_| complaints += 1);
    assert!(complaints <= bytes.len());
}

fn seed_line() -> Vec<u8> {
    b"seed=1 calls=00020".to_vec()
}

fn seeds_and_counts(bytes: &[u8]) {
    const LINE: dice::options::CommandLine =
        dice::options::CommandLine { program: "p", count: "calls", default_count: 1 };
    let text = String::from_utf8_lossy(bytes);
    if let Err(unknown) = LINE.parse(text.split_ascii_whitespace()) {
        assert!(unknown.to_string().starts_with("p: "));
    }
}

/// Instructions of programs that the kernel takes apart.
fn code() -> Vec<u8> {
    vec![0xF3, 0x48, 0x66, 0x6C, 0xE4, 0x80, 0x8E, 0xC0, 0x0F, 0x32, 0xCC, 0x3C, 0x00, 0xEB, 0x00]
}

fn instructions(bytes: &[u8]) {
    let code = &bytes[..bytes.len().min(16)];
    let _ = (Faulting::decode(code), PortAccess::decode(code), Breakpoint::decode(code));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is damaged is sound before: else nothing behind the first check would be tried.
    #[test]
    fn sound_inputs_are_read() {
        assert!(Elf::parse(&elf_64()).is_ok());
        assert!(v1::Info::new(&Memory(&multiboot_1_memory()), 0).is_ok());
        assert!(v2::Info::new(&Memory(&multiboot_2_memory()), 0).is_ok());
        let start = start_memory();
        let start = Memory(&start);
        let start = pvh::Info::new(&start, 0).expect("sound information");
        assert_eq!(start.modules().map(|modules| modules.filter(Result::is_ok).count()), Ok(3));
        assert!(BootInfo::parse(&boot_records()).is_some());
        assert!(Options::parse(std::str::from_utf8(&kconfig_file()).expect("text")).is_ok());
        let tables = acpi_memory();
        let memory = &Memory(&tables);
        let root = Root::find(memory, Some(&tables)).expect("a root pointer");
        assert_eq!(Madt::find(&root, memory).map(|madt| madt.entries().filter(Result::is_ok).count()), Ok(5));
        assert_eq!(Srat::find(&root, memory).map(|srat| srat.entries().filter(Result::is_ok).count()), Ok(2));
        assert_eq!(Slit::find(&root, memory).map(|slit| slit.distance(0, 1)), Ok(Some(20)));
        assert_eq!(Fadt::find(&root, memory).map(|fadt| fadt.timer), Ok(Some(0x608)));
        TARGETS.iter().for_each(|target| (target.parse)(&(target.sound)()));
    }

    #[test]
    fn the_sound_page_says_what_it_should() {
        let bytes = interface_page();
        let mut page = [0; KIP_SIZE / size_of::<Word>()];
        for (word, bytes) in page.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = Word::from_le_bytes(bytes.try_into().expect("eight bytes"));
        }
        let page = Page::new(page);
        assert!(page.is_ours() && page.kernel_version_string() == "Marcona 0.1");
        assert_eq!(page.features().collect::<Vec<_>>(), ["smallspaces", "iofpages"]);
        assert_eq!((page.memory_descriptors().len(), page.memory_descriptors()[1].low()), (3, 0x10_0000));
        assert_eq!(
            (page.num_processors(), page.processor_descriptor(0).map(|cpu| cpu.internal_khz)),
            (4, Some(3_000_000))
        );
        assert!(page.processor_descriptor(4).is_none());
    }

    #[test]
    fn targets_have_names() {
        let names: std::collections::BTreeSet<_> = TARGETS.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), TARGETS.len());
        assert!(names.into_iter().all(|name| target(name).is_some_and(|found| found.name == name)));
        assert!(target("nothing").is_none());
    }
}
