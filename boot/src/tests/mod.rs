//! Boots on a fake machine: each test sets one up, changes something and looks at what the loader says or leaves.

mod options;
mod refused;
mod started;

use kformats::le::put;
use kformats::multiboot::{Field, Framebuffer, FramebufferKind, Physical, Region, pvh, v1, v2};

use crate::{Consoles, Extent, Handoff, Launch, Memory};

/// The loader's own image.
const OWN: Extent = Extent::new(0x10_0000, 0x12_0000);
const INFO: u64 = 0x9000;
/// The modules' files, one after the other from here on, at whole pages.
const FILES: u64 = 0x12_0000;
/// Bytes of memory that can be accessed; the map may name more.
const REACH: usize = 32 << 20;
const MIB: u64 = 1 << 20;

/// Offset of the page inside the kernel.
const KIP_OFFSET: usize = 0x1000;
/// Descriptors that the usual kernels have room for.
const CAPACITY: u64 = 40;

/// Memory from address 0, without the loader's image.
#[derive(Clone)]
struct Fake(Vec<u8>);

impl Fake {
    fn range(&self, extent: Extent) -> Option<core::ops::Range<usize>> {
        (!extent.overlaps(OWN) && extent.end <= REACH as u64).then_some(extent.start as usize..extent.end as usize)
    }

    fn write(&mut self, address: u64, bytes: &[u8]) {
        put(&mut self.0, address as usize, bytes).expect("a test writes inside the fake memory");
    }

    /// Words of `size` bytes from `address` on.
    fn words(&self, address: u64, size: usize, count: usize) -> Vec<u64> {
        let bytes = self.bytes(address, (size * count) as u64).expect("a test reads inside the fake memory");
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        bytes.chunks(size).map(word).collect()
    }

    fn text(&self, address: u64) -> String {
        let text = self.0[address as usize..].iter().take_while(|byte| **byte != 0);
        text.map(|byte| char::from(*byte)).collect()
    }
}

impl Physical for Fake {
    fn bytes(&self, start: u64, len: u64) -> Option<&[u8]> {
        self.0.get(self.range(Extent::sized(start, len))?)
    }
}

impl Memory for Fake {
    fn bytes_mut(&mut self, extent: Extent) -> Option<&mut [u8]> {
        let range = self.range(extent)?;
        self.0.get_mut(range)
    }

    fn copy(&mut self, from: Extent, to: u64) -> Option<()> {
        let (from, to) = (self.range(from)?, self.range(Extent::sized(to, from.len()))?);
        self.0.copy_within(from, to.start);
        Some(())
    }
}

/// An executable with one segment, all of it in the file.
#[derive(Clone)]
struct Program {
    class: u8,
    machine: u16,
    kind: u16,
    entry: u64,
    address: u64,
    bytes: Vec<u8>,
    memory_bytes: u64,
    segment_type: u32,
    /// Bytes of the file that are kept.
    cut: usize,
}

impl Program {
    fn new(class: u8, address: u64, bytes: Vec<u8>) -> Self {
        let memory_bytes = bytes.len() as u64;
        let machine = if class == 1 { 3 } else { 62 };
        Self { class, machine, kind: 2, entry: address, address, bytes, memory_bytes, segment_type: 1, cut: usize::MAX }
    }

    /// The file; bytes of the segment start at 0x1000.
    fn file(&self) -> Vec<u8> {
        const DATA: u64 = 0x1000;
        let mut file = vec![0; DATA as usize];
        let mut field = |offset: usize, value: &[u8]| put(&mut file, offset, value).expect("inside the headers");
        field(0, &[0x7F, b'E', b'L', b'F', self.class, 1, 1]);
        field(16, &self.kind.to_le_bytes());
        field(18, &self.machine.to_le_bytes());
        let len = self.bytes.len() as u64;
        let header = [DATA, self.address, self.address, len, self.memory_bytes];
        if self.class == 1 {
            let narrow = |value: u64| (value as u32).to_le_bytes();
            field(24, &narrow(self.entry));
            field(28, &narrow(52));
            field(42, &[32, 0, 1]);
            field(52, &self.segment_type.to_le_bytes());
            header.iter().enumerate().for_each(|(i, word)| field(56 + 4 * i, &narrow(*word)));
            field(52 + 24, &[7]);
        } else {
            field(24, &self.entry.to_le_bytes());
            field(32, &64u64.to_le_bytes());
            field(54, &[56, 0, 1]);
            field(64, &self.segment_type.to_le_bytes());
            field(68, &[7]);
            header.iter().enumerate().for_each(|(i, word)| field(72 + 8 * i, &word.to_le_bytes()));
        }
        file.extend(&self.bytes);
        file.truncate(self.cut);
        file
    }
}

/// A kernel with a kernel interface page in its second page, with the memory descriptors at offset 0x800.
fn kernel(class: u8, address: u64) -> Program {
    let size = if class == 1 { 4 } else { 8 };
    let mut bytes = vec![0x90; 0x3000];
    bytes[KIP_OFFSET..][..0x1000].fill(0);
    let mut field = |word: usize, value: u64| {
        put(&mut bytes, KIP_OFFSET + word * size, &value.to_le_bytes()[..size]).expect("inside the page");
    };
    field(0, u64::from(u32::from_le_bytes([b'L', b'4', 0xE6, b'K'])));
    field(1, 0x8405_0000);
    field(21, 0x800 << (4 * size) | CAPACITY);
    field(50, if class == 1 { 0x40_1006 } else { 0x20_1007 });
    Program::new(class, address, bytes)
}

fn program(class: u8, address: u64) -> Program {
    Program::new(class, address, (0..0x1234).map(|i| (i * 7 + address as usize / 4096) as u8).collect())
}

#[derive(Clone)]
enum File {
    Program(Program),
    Bytes(Vec<u8>),
}

/// A machine to boot.
#[derive(Clone)]
struct Machine {
    magic: u32,
    command_line: String,
    modules: Vec<(File, String)>,
    map: Option<Vec<Region>>,
    /// Where the modules' files start.
    files: u64,
    framebuffer: Option<Framebuffer>,
    /// Tags of Multiboot 2 before the last one.
    tags: Vec<(u32, Vec<u8>)>,
    /// Bytes that are put to an address at last.
    patches: Vec<(u64, Vec<u8>)>,
}

fn region(start: u64, end: u64, kind: u32) -> Region {
    Region { start, len: end - start, kind }
}

/// The map of a PC with memory up to `end`.
fn pc_map(end: u64) -> Vec<Region> {
    let hole = 0xC000_0000;
    let mut map = vec![
        region(0, 0x9_FC00, 1),
        region(0x9_FC00, 0xA_0000, 2),
        region(0xF_0000, MIB, 2),
        region(MIB, end.min(hole) - 0x2_0000, 1),
        region(end.min(hole) - 0x2_0000, end.min(hole), 3),
        region(0xFFFC_0000, 1 << 32, 2),
    ];
    if end > hole {
        map.push(region(1 << 32, (1 << 32) + end - hole, 1));
    }
    map
}

impl Machine {
    /// 64 MiB, a kernel, sigma0 and root task of `class` at their usual places, loaded by Multiboot 1.
    fn new(class: u8) -> Self {
        let module = |program, text: &str| (File::Program(program), text.to_string());
        let modules = vec![
            module(kernel(class, 0x60_0000), "kernel"),
            module(program(class, 0xF0_0000), "sigma0 -v"),
            module(program(class, 0x100_0000), "root a=1 b"),
        ];
        Self {
            magic: v1::LOADER_MAGIC,
            command_line: String::new(),
            modules,
            map: Some(pc_map(64 * MIB)),
            files: FILES,
            framebuffer: None,
            tags: vec![],
            patches: vec![],
        }
    }

    fn program(&mut self, index: usize) -> &mut Program {
        match &mut self.modules[index].0 {
            File::Program(program) => program,
            File::Bytes(_) => panic!("module {index} is no program"),
        }
    }

    fn add(&mut self, file: &[u8], text: &str) {
        self.modules.push((File::Bytes(file.to_vec()), text.to_string()));
    }

    /// Changes the word of a 64-bit kernel's page.
    fn set_kip(&mut self, word: usize, value: u64) {
        put(&mut self.program(0).bytes, KIP_OFFSET + 8 * word, &value.to_le_bytes()).expect("inside the page");
    }

    fn start(&self) -> Booted {
        // Free memory is full of something, so that what must be zero has to be made so.
        let mut memory = Fake(vec![0xCC; REACH]);
        let mut files = vec![];
        let mut at = self.files;
        for (file, text) in &self.modules {
            let bytes = match file {
                File::Program(program) => program.file(),
                File::Bytes(bytes) => bytes.clone(),
            };
            memory.write(at, &bytes);
            files.push((at, at + bytes.len() as u64, text.as_str()));
            at = (at + bytes.len() as u64).next_multiple_of(4096);
        }
        match self.magic {
            v2::LOADER_MAGIC => self.write_v2(&mut memory, &files),
            pvh::MAGIC => self.write_pvh(&mut memory, &files),
            _ => self.write_v1(&mut memory, &files),
        }
        for (address, bytes) in &self.patches {
            memory.write(*address, bytes);
        }
        let mut log = String::new();
        let result = crate::boot(
            &mut memory,
            Handoff { magic: self.magic, info: INFO as u32, text_screen: false },
            OWN,
            &mut log,
        );
        Booted { result: result.map_err(|failure| failure.to_string()), memory, log }
    }

    /// Info structure at 0x9000, map at 0x9100, module table at 0xA000, texts from 0xB000.
    fn write_v1(&self, memory: &mut Fake, files: &[(u64, u64, &str)]) {
        let mut text_at = 0xB000;
        let mut text = |memory: &mut Fake, text: &str| {
            memory.write(text_at, &[text.as_bytes(), &[0]].concat());
            text_at += text.len() as u64 + 1;
            (text_at - text.len() as u64 - 1) as u32
        };
        let map: Vec<u8> = self.map.iter().flatten().flat_map(v1::region_bytes).collect();
        memory.write(0x9100, &map);
        let command_line = text(memory, &self.command_line);
        for (index, (start, end, line)) in files.iter().enumerate() {
            let entry = [*start as u32, *end as u32, text(memory, line), 0].map(u32::to_le_bytes).concat();
            memory.write(0xA000 + 16 * index as u64, &entry);
        }
        let header = v1::Header {
            flags: v1::HAS_MEMORY
                | v1::HAS_COMMAND_LINE
                | v1::HAS_MODULES
                | if self.map.is_some() { v1::HAS_MAP } else { 0 },
            lower_kib: 639,
            upper_kib: 63 << 10,
            boot_device: 0,
            command_line,
            modules_count: files.len() as u32,
            modules: 0xA000,
            map_len: map.len() as u32,
            map: 0x9100,
            framebuffer: self.framebuffer,
        };
        memory.write(INFO, &header.to_bytes());
    }

    /// Start information at 0x9000, map at 0x9100, module list at 0xA000, texts from 0xB000.
    fn write_pvh(&self, memory: &mut Fake, files: &[(u64, u64, &str)]) {
        let mut text_at = 0xB000;
        let mut text = |memory: &mut Fake, text: &str| {
            memory.write(text_at, &[text.as_bytes(), &[0]].concat());
            text_at += text.len() as u64 + 1;
            text_at - text.len() as u64 - 1
        };
        let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        let regions = self.map.as_deref().unwrap_or_default();
        let map: Vec<u8> = regions.iter().flat_map(|r| words(&[r.start, r.len, r.kind.into()])).collect();
        memory.write(0x9100, &map);
        let command_line = text(memory, &self.command_line);
        for (index, (start, end, line)) in files.iter().enumerate() {
            let entry = words(&[*start, end - start, text(memory, line), 0]);
            memory.write(0xA000 + 32 * index as u64, &entry);
        }
        let head = u64::from(pvh::MAGIC) | u64::from(self.map.is_some()) << 32;
        let info = [head, (files.len() as u64) << 32, 0xA000, command_line, 0, 0x9100, regions.len() as u64];
        memory.write(INFO, &words(&info));
    }

    fn write_v2(&self, memory: &mut Fake, files: &[(u64, u64, &str)]) {
        fn tag(kind: u32, body: &[u8]) -> Vec<u8> {
            let mut tag = [kind.to_le_bytes(), (8 + body.len() as u32).to_le_bytes()].concat();
            tag.extend(body);
            tag.resize(tag.len().next_multiple_of(8), 0);
            tag
        }
        let mut tags = tag(1, self.command_line.as_bytes());
        for (start, end, line) in files {
            let place = [*start as u32, *end as u32].map(u32::to_le_bytes).concat();
            tags.extend(tag(3, &[&place, line.as_bytes()].concat()));
        }
        let entry = |region: &Region| [region.start, region.len, region.kind.into()].map(u64::to_le_bytes).concat();
        let map: Vec<u8> = self.map.iter().flatten().flat_map(entry).collect();
        tags.extend(tag(6, &[&24u64.to_le_bytes()[..], &map].concat()));
        self.tags.iter().for_each(|(kind, body)| tags.extend(tag(*kind, body)));
        tags.extend(tag(0, &[]));
        memory.write(INFO, &[(8 + tags.len() as u32).to_le_bytes(), [0; 4]].concat());
        memory.write(INFO + 8, &tags);
    }
}

/// What a boot left.
struct Booted {
    result: Result<Launch, String>,
    memory: Fake,
    log: String,
}
