//! Command lines and the way to them, sound and hostile.

use kformats::console::{Outputs, SerialLine};
use kformats::multiboot::{Error, Framebuffer, Physical, v1};
use kformats::trace::{Event, Group};
use l4_abi::{MemoryDescriptor, MemoryType, Word};

use super::{Clock, Complaint, KnownMemory, Mitigations, Options, framebuffer, root_pointer};

const OFF: Options = Options {
    io_fpages: false,
    mitigations: Mitigations::Auto,
    outputs: Outputs::BOTH,
    serial: SerialLine::FIRST,
    clock: Clock::Auto,
    trace: 0,
    trace_pages: 0,
};
const ON: Options = Options { io_fpages: true, ..OFF };
const TRUTH: &str = "yes or no";

/// What a line comes to: options and complaints.
#[track_caller]
fn check(line: &str, expected: Options, complaints: &[Complaint<'_>]) {
    let mut heard = Vec::new();
    let options = Options::default().parse::<true>(line.as_bytes(), |complaint| heard.push(complaint));
    assert_eq!((options, &heard[..]), (expected, complaints), "{line:?}");
}

#[test]
fn words_are_set_in_any_order() {
    check("", OFF, &[]);
    check("kernel", OFF, &[]);
    check("/boot/kernel ioflexpages=yes", ON, &[]);
    check("  kernel \t ioflexpages=enable\n", ON, &[]);
    check("ioflexpages=on", ON, &[]);
    check("ioflexpages", ON, &[]);
    check("kernel ioflexpages=yes ioflexpages=off", OFF, &[]);
    check("kernel ioflexpages=no", OFF, &[]);
    check("kernel ioflexpages=disable", OFF, &[]);
}

/// What was chosen when the kernel was built holds until the line says otherwise.
#[test]
fn unnamed_options_stay_as_they_are() {
    let chosen = Options { mitigations: Mitigations::Off, ..ON };
    let with = |line: &'static str| chosen.parse::<true>(line.as_bytes(), |complaint| panic!("{complaint}"));
    assert_eq!(with("kernel"), chosen);
    assert_eq!(with("ioflexpages=no"), Options { io_fpages: false, ..chosen });
    assert_eq!(with("mitigations=full"), Options { mitigations: Mitigations::Full, ..chosen });
}

#[test]
fn what_is_traced_is_a_list_of_names() {
    let with = |trace, trace_pages| Options { trace, trace_pages, ..OFF };
    check("kernel trace=all tracepages=256", with(Event::ALL, 256), &[]);
    check("kernel trace trace=none", OFF, &[]);
    check("trace=ipc,-IPC_ERROR", with(Group::Ipc.mask() & !Event::IpcError.bit(), 0), &[]);
    for word in ["trace=", "trace=ipc,nothing", "tracepages", "tracepages=0", "tracepages=257", "tracepages=-1"] {
        let values = if word.starts_with("tracep") { "1 to 256" } else { "all, none, or names of events" };
        check(word, OFF, &[Complaint::BadValue(word.as_bytes(), values)]);
    }
    let mut heard = Vec::new();
    let options = Options::default().parse::<false>(b"kernel trace=all", |complaint| heard.push(complaint));
    let absent = Complaint::BadValue(b"trace=all", "nothing, as this kernel has no tracepoints");
    assert_eq!((options, &heard[..]), (OFF, &[absent][..]));
}

#[test]
fn mitigations_have_three_values() {
    let with = |mitigations| Options { mitigations, ..OFF };
    check("kernel mitigations=off", with(Mitigations::Off), &[]);
    check("mitigations=full ioflexpages", Options { mitigations: Mitigations::Full, ..ON }, &[]);
    check("mitigations=off mitigations=auto", OFF, &[]);
    for word in ["mitigations", "mitigations=", "mitigations=no", "mitigations=AUTO", "mitigations=autos"] {
        check(word, OFF, &[Complaint::BadValue(word.as_bytes(), "auto, off or full")]);
    }
}

#[test]
fn a_clock_can_be_chosen() {
    for (word, clock) in [("auto", Clock::Auto), ("pit", Clock::Pit), ("acpi", Clock::Acpi), ("hpet", Clock::Hpet)] {
        check(&format!("kernel clock={word}"), Options { clock, ..OFF }, &[]);
    }
    for word in ["clock", "clock=", "clock=tsc"] {
        check(word, OFF, &[Complaint::BadValue(word.as_bytes(), "auto, pit, acpi or hpet")]);
    }
}

#[test]
fn consoles_are_chosen() {
    let outputs = Outputs { serial: false, screen: true };
    check("kernel console=screen", Options { outputs, ..OFF }, &[]);
    check("serial=1,9600", Options { serial: SerialLine { port: 0x2F8, divisor: 12 }, ..OFF }, &[]);
    check("console=tty", OFF, &[Complaint::BadValue(b"console=tty", Outputs::VALUES)]);
    check("serial=9", OFF, &[Complaint::BadValue(b"serial=9", SerialLine::VALUES)]);
}

#[test]
fn what_is_not_known_is_named_and_ignored() {
    check("kernel ioflexpage=yes", OFF, &[Complaint::Unknown(b"ioflexpage=yes")]);
    check("ioflexpage=yes", OFF, &[Complaint::Unknown(b"ioflexpage=yes")]);
    check("kernel quick ioflexpages", ON, &[Complaint::Unknown(b"quick")]);
    check("kernel IOFLEXPAGES =", OFF, &[Complaint::Unknown(b"IOFLEXPAGES"), Complaint::Unknown(b"=")]);
    check("kernel ioflexpages=", OFF, &[Complaint::BadValue(b"ioflexpages=", TRUTH)]);
    check("kernel ioflexpages=yes=no", OFF, &[Complaint::BadValue(b"ioflexpages=yes=no", TRUTH)]);
    check("kernel ioflexpages=1 ioflexpages", ON, &[Complaint::BadValue(b"ioflexpages=1", TRUTH)]);
}

#[test]
fn complaints_fit_on_a_line_whatever_the_word() {
    let long = [b'x'; 4096];
    let rows = [
        (Complaint::Unknown(b"quick"), "\"quick\" is no option and is ignored"),
        (Complaint::Unknown(b"\x1b[2J\xFF\""), "\"\\x1b[2J\\xff\\\"\" is no option and is ignored"),
        (Complaint::BadValue(b"ioflexpages=1", TRUTH), "\"ioflexpages=1\" is ignored: it takes yes or no"),
        (Complaint::Unreadable(Error::EndlessString), "options are ignored: a command line has no end"),
    ];
    for (complaint, expected) in rows {
        assert_eq!(complaint.to_string(), expected);
    }
    assert!(Complaint::Unknown(&long).to_string().len() < 120);
}

// --- the way there ---

/// Memory at an address. No other address can be read.
#[derive(Clone)]
struct Memory {
    base: u64,
    bytes: Vec<u8>,
}

impl Physical for Memory {
    fn bytes(&self, start: u64, len: u64) -> Option<&[u8]> {
        let offset = usize::try_from(start.checked_sub(self.base)?).ok()?;
        self.bytes.get(offset..)?.get(..usize::try_from(len).ok()?)
    }
}

const BASE: u64 = 0x8000;
const MBI: u64 = BASE + 0x400;
const MODULES: u64 = BASE + 0x500;
const LINE: u64 = BASE + 0x600;

impl Memory {
    fn put(&mut self, at: u64, bytes: &[u8]) {
        let offset = (at - self.base) as usize;
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn put_words(&mut self, at: u64, width: usize, words: &[u64]) {
        for (i, word) in words.iter().enumerate() {
            self.put(at + (i * width) as u64, &word.to_le_bytes()[..width]);
        }
    }

    /// Boot information as a loader writes it for a root task with words of this width: a module, an executable, the
    /// Multiboot information, in which the kernel is the first module.
    fn of_boot(width: usize, line: &[u8]) -> Self {
        let mut memory = Self { base: BASE, bytes: vec![0; 0x800] };
        let w = width as u64;
        let (module, executable) = (BASE + 8 * w, BASE + 16 * w);
        memory.put_words(BASE, width, &[0x14B0_021D, 1, 36 * w, 8 * w, 3, 0, 0, 0]);
        memory.put_words(module, width, &[1, 1, 8 * w, 0x20_0000, 0x1234, 6 * w]);
        memory.put(module + 6 * w, b"sigma0");
        memory.put_words(executable, width, &[2, 1, 16 * w]);
        memory.put_words(executable + 16 * w, width, &[0x102, 1, 4 * w, MBI]);
        let header = v1::Header {
            flags: v1::HAS_COMMAND_LINE | v1::HAS_MODULES,
            command_line: LINE as u32,
            modules_count: 2,
            modules: MODULES as u32,
            ..Default::default()
        };
        memory.put(MBI, &header.to_bytes());
        memory.put_words(MODULES, 4, &[0x60_0000, 0x68_0000, LINE, 0x60_1000, 0, 0, 0, 0]);
        memory.put(LINE, line);
        memory
    }

    /// The options, and how many complaints there were.
    fn options(&self, boot_info: u64) -> (Options, usize) {
        let mut complaints = 0;
        let options = Options::default().of_boot::<true>(self, boot_info, |complaint| {
            complaints += 1;
            assert!(complaint.to_string().len() < 400, "{complaint}");
        });
        (options, complaints)
    }
}

#[test]
fn line_is_found_by_either_kind_of_boot_information() {
    for width in [4, 8] {
        let memory = Memory::of_boot(width, b"kernel ioflexpages=yes\0");
        assert_eq!(memory.options(BASE), (ON, 0), "{width} bytes");
        assert_eq!(memory.options(MBI), (ON, 0), "the Multiboot information itself");
        assert_eq!(memory.options(0), (OFF, 0), "none");
    }
}

#[test]
fn loader_may_leave_out_any_part() {
    let mut no_record = Memory::of_boot(8, b"ioflexpages\0");
    no_record.put_words(BASE + 4 * 8, 8, &[2]);
    assert_eq!(no_record.options(BASE), (OFF, 0));
    let mut no_modules = Memory::of_boot(8, b"ioflexpages\0");
    no_modules.put(MBI, &[0; 4]);
    assert_eq!(no_modules.options(BASE), (OFF, 0));
    let mut no_line = Memory::of_boot(8, b"ioflexpages\0");
    no_line.put_words(MODULES + 8, 4, &[0]);
    assert_eq!(no_line.options(BASE), (OFF, 0));
}

/// Each part that cannot be read leaves the options as they are without a line, with one complaint.
#[test]
fn what_leads_astray_is_complained_about() {
    let check = |boot_info, change: &dyn Fn(&mut Memory)| {
        let mut memory = Memory::of_boot(8, b"kernel ioflexpages\0");
        change(&mut memory);
        assert_eq!(memory.options(boot_info), (OFF, 1));
    };
    check(BASE - 1, &|_| ());
    check(u64::MAX, &|_| ());
    check(BASE + 0x7FC, &|_| ());
    check(BASE, &|memory| memory.put_words(BASE + 3 * 8, 8, &[u64::MAX]));
    check(BASE, &|memory| memory.put_words(BASE + 10 * 8, 8, &[0x10_0000]));
    check(BASE, &|memory| memory.put_words(BASE + 35 * 8, 8, &[0]));
    check(BASE, &|memory| memory.put_words(BASE + 35 * 8, 8, &[u64::MAX]));
    check(BASE, &|memory| memory.put_words(MBI + 20, 4, &[u32::MAX.into()]));
    check(BASE, &|memory| memory.put_words(MBI + 24, 4, &[0xFFFF_FFF0]));
    check(BASE, &|memory| memory.put_words(MODULES + 8, 4, &[1]));
    // No end, up to the end of memory.
    check(BASE, &|memory| memory.put(LINE, &[b'x'; 0x200]));
}

/// A record that leads to itself, and more records than there are, end the search.
#[test]
fn records_in_a_circle_have_an_end() {
    let mut memory = Memory::of_boot(8, b"ioflexpages\0");
    memory.put_words(BASE + 4 * 8, 8, &[u64::MAX]);
    memory.put_words(BASE + 10 * 8, 8, &[0]);
    assert_eq!(memory.options(BASE), (OFF, 0));
}

#[test]
fn line_without_end_is_not_read() {
    let mut memory = Memory::of_boot(8, b"");
    memory.bytes.resize(0x4000, 0);
    memory.put(LINE, &[b'x'; 0x2000]);
    assert_eq!(memory.options(BASE), (OFF, 1));
}

/// Any byte may be anything.
#[test]
fn damaged_bytes_harm_nobody() {
    for width in [4, 8] {
        let sound = Memory::of_boot(width, b"kernel ioflexpages=yes\0");
        for at in 0..sound.bytes.len() {
            for value in [0, 1, 0x7F, 0x80, 0xFF] {
                let mut memory = sound.clone();
                memory.bytes[at] = value;
                memory.options(BASE);
                memory.options(MBI);
            }
        }
        for len in 0..sound.bytes.len() {
            let memory = Memory { bytes: sound.bytes[..len].to_vec(), ..sound };
            memory.options(BASE);
        }
    }
}

/// The loader's descriptors decide what is memory; what is the kernel's is left alone.
#[test]
fn only_conventional_memory_is_read() {
    let descriptor = |kind, low: Word, high: Word| MemoryDescriptor::new(kind, low, high);
    let descriptors = [
        descriptor(MemoryType::Shared, 0, Word::MAX),
        descriptor(MemoryType::Conventional, 0, 0x9_FBFF),
        descriptor(MemoryType::Conventional, 0x10_0000, 0xFFF_FFFF),
        descriptor(MemoryType::Architecture, 0x1000_0000, 0x10FF_FFFF),
        descriptor(MemoryType::Reserved, 0xE00_0000, 0xEFF_FFFF),
        descriptor(MemoryType::BootLoader, 0x20_0000, 0x20_0FFF),
        descriptor(MemoryType::Conventional, 0x4000_0000, 0x4FFF_FFFF).as_virtual(),
    ];
    let memory = KnownMemory { descriptors: &descriptors, image: (0x60_0000, 0x6F_FFFF) };
    let rows = [
        (0x1000, 0x100, true),
        (0, 0x100, false),
        (0x9_F000, 0xC00, true),
        (0x9_F000, 0xC01, false),
        (0xA_0000, 1, false),
        (0x20_0000, 0x1000, true),
        (0x60_0000, 1, false),
        (0x5F_FFFF, 1, true),
        (0x5F_FFFF, 2, false),
        (0x70_0000, 0, true),
        (0xDFF_FFFF, 1, true),
        (0xDFF_FFFF, 2, false),
        (0xF00_0000, 0x100_0000, true),
        (0xF00_0000, 0x100_0001, false),
        (0x10_0000, 0xFF0_0000, false),
        (0x1000_0000, 1, false),
        (0x4000_0000, 1, false),
        (u64::MAX, 1, false),
        (u64::MAX, 2, false),
        (0x1000, u64::MAX, false),
    ];
    for (start, len, expected) in rows {
        assert_eq!(memory.may_read(start, len), expected, "{start:#x} {len:#x}");
    }
}

// --- what else the loader says ---

#[test]
fn the_screen_and_the_root_pointer_are_found() {
    for width in [4, 8] {
        let mut memory = Memory::of_boot(width, b"kernel");
        assert_eq!((framebuffer(&memory, BASE), root_pointer(&memory, BASE)), (None, None));
        let header = v1::Header { framebuffer: Some(Framebuffer::PC_TEXT), ..Default::default() };
        memory.put(MBI, &header.to_bytes());
        let w = width as u64;
        // A fourth record behind the others.
        memory.put_words(BASE + 4 * w, width, &[4]);
        memory.put_words(BASE + 36 * w, width, &[0x4D00_0001, 1, 16 * w, 5 * w, 20]);
        memory.put(BASE + 41 * w, b"RSD PTR 123456789012");
        assert_eq!(framebuffer(&memory, BASE), Some(Framebuffer::PC_TEXT));
        assert_eq!(root_pointer(&memory, BASE), Some(&b"RSD PTR 123456789012"[..]));
        // The Multiboot information itself says less.
        assert_eq!((framebuffer(&memory, MBI), root_pointer(&memory, MBI)), (Some(Framebuffer::PC_TEXT), None));
        assert_eq!((framebuffer(&memory, 0), root_pointer(&memory, 0)), (None, None));
        memory.put_words(BASE + 39 * w, width, &[u64::MAX, u64::MAX]);
        assert_eq!(root_pointer(&memory, BASE), None);
    }
}
