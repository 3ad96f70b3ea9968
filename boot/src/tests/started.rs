//! Boots that reach the kernel: what they leave in memory.

use super::*;

/// Size of a word in programs of `class`.
fn word_bytes(class: u8) -> usize {
    4 * usize::from(class)
}

impl Booted {
    fn kip(&self, class: u8, word: usize, count: usize) -> Vec<u64> {
        assert_eq!(self.result, Ok(Launch { entry: 0x60_0000 }));
        let size = word_bytes(class);
        self.memory.words(0x60_0000 + (KIP_OFFSET + word * size) as u64, size, count)
    }

    /// The memory descriptors as "type.subtype low-high", in order.
    fn descriptors(&self, class: u8) -> Vec<String> {
        let size = word_bytes(class);
        let info = self.kip(class, 21, 1)[0];
        let (count, offset) = (info & 0xFFFF, info >> (4 * size));
        let words = self.memory.words(0x60_1000 + offset, size, 2 * count as usize);
        let row = |pair: &[u64]| {
            format!("{:x}.{:x} {:x}-{:x}", pair[0] & 0xF, pair[0] >> 4 & 0xF, pair[0] & !0x3FF, pair[1] | 0x3FF)
        };
        words.chunks(2).map(row).collect()
    }

    /// The extent of kernel memory.
    fn kernel_memory(&self) -> Option<String> {
        let descriptors = self.descriptors(2);
        descriptors.iter().find_map(|row| row.strip_prefix("2.0 ")).map(String::from)
    }
}

fn boot(class: u8, change: impl FnOnce(&mut Machine)) -> Booted {
    let mut machine = Machine::new(class);
    change(&mut machine);
    machine.start()
}

#[test]
fn memory_descriptors_have_their_order_at_64_bits() {
    let booted = boot(2, |m| m.add(b"data", "data"));
    let expected = [
        "4.0 0-ffffffffffffffff",
        "1.1 0-9fbff",
        "f.2 9fc00-9ffff",
        "f.2 f0000-fffff",
        "1.1 100000-3fdffff",
        "f.3 3fe0000-3ffffff",
        "f.2 fffc0000-ffffffff",
        "4.0 a0000-bffff",
        "4.0 c0000-effff",
        "2.0 2e00000-3dfffff",
        "e.2 f00000-f013ff",
        "e.2 1000000-10013ff",
        "e.3 12a000-12a3ff",
        "e.1 121000-121fff",
        "e.1 120000-120fff",
    ];
    assert_eq!(booted.descriptors(2), expected);
}

#[test]
fn memory_descriptors_have_their_order_at_32_bits() {
    let booted = boot(1, |m| m.map.as_mut().expect("a map").push(region(1 << 32, 2 << 32, 1)));
    let expected = [
        "4.0 0-ffffffff",
        "1.1 0-9fbff",
        "f.2 9fc00-9ffff",
        "f.2 f0000-fffff",
        "1.1 100000-3fdffff",
        "f.3 3fe0000-3ffffff",
        "f.2 fffc0000-ffffffff",
        "2.0 2fe0000-3fdffff",
        "4.0 a0000-bffff",
        "4.0 c0000-effff",
        "e.2 f00000-f013ff",
        "e.2 1000000-10013ff",
        "e.1 121000-121fff",
        "e.1 120000-120fff",
    ];
    // Of more than 4 GiB of memory a larger share goes to the kernel.
    let small = boot(1, |_| {});
    assert_eq!(small.descriptors(1), expected);
    assert!(booted.descriptors(1).iter().all(|row| !row.contains("100000000")));
}

#[test]
fn the_kernel_learns_where_the_servers_are() {
    for class in [1, 2] {
        let booted = boot(class, |m| m.program(2).memory_bytes = 0x2000);
        assert_eq!(booted.kip(class, 8, 4), [0, 0xF0_0000, 0xF0_0000, 0xF0_1234], "sigma0");
        assert_eq!(booted.kip(class, 12, 4), [0; 4], "sigma1");
        assert_eq!(booted.kip(class, 16, 4), [0, 0x100_0000, 0x100_0000, 0x100_2000], "root task");
        assert_eq!(booted.kip(class, 46, 1), [0x12_1000], "boot information");
    }
}

#[test]
fn a_32_bit_root_task_under_a_64_bit_kernel_runs_in_compatibility_mode() {
    let booted = boot(2, |m| m.modules[2].0 = File::Program(program(1, 0x100_0000)));
    assert_eq!(booted.kip(2, 8, 1), [0], "sigma0");
    assert_eq!(booted.kip(2, 16, 2), [1 << 63, 0x100_0000], "root task");
    let bootinfo = booted.kip(2, 46, 1)[0];
    assert_eq!(booted.memory.words(bootinfo, 4, 2), [0x14B0_021D, 1]);
}

#[test]
fn executables_are_copied_and_the_rest_of_them_is_zero() {
    for files in [FILES, 0x5F_F000, 0xEF_E800, 0xF0_0000, 0xFF_F000, 0x100_0000] {
        let booted = boot(2, |m| {
            m.files = files;
            m.program(2).memory_bytes = 0x9000;
        });
        for (address, len) in [(0xF0_0000, 0x1234), (0x100_0000, 0x1234)] {
            let expected = program(2, address).bytes;
            assert!(booted.memory.bytes(address, len) == Some(&expected), "{address:#x} with files at {files:#x}");
        }
        assert!(booted.memory.bytes(0x100_1234, 0x7DCC).is_some_and(|bss| bss.iter().all(|byte| *byte == 0)));
        assert_eq!(booted.kip(2, 1, 1), [0x8405_0000]);
    }
}

#[test]
fn a_module_in_the_way_is_found_at_its_new_place() {
    // The root task grows over the place of the fourth module, and in the second boot stops just below it.
    for (memory_bytes, is_moved) in [(0x8001, true), (0x8000, false)] {
        let booted = boot(2, |m| {
            m.files = 0xFF_E000;
            m.program(2).memory_bytes = memory_bytes;
            m.add(b"precious", "data");
        });
        let module = records(&booted, 2).remove(2).0;
        assert_eq!(module[2] != 0x100_8000, is_moved, "at {:#x}", module[2]);
        assert_eq!(booted.memory.bytes(module[2], 8), Some(&b"precious"[..]));
        assert!(booted.descriptors(2).contains(&format!("e.3 {:x}-{:x}", module[2], module[2] + 0x3FF)));
    }
}

/// Kernel memory on a machine with memory up to `end`, with `command_line`.
fn check_kernel_memory(end: u64, command_line: &str, expected: Option<&str>) {
    let booted = boot(2, |m| {
        m.map = Some(pc_map(end));
        m.command_line = command_line.into();
    });
    assert_eq!(booted.kernel_memory().as_deref(), expected, "{end:#x} {command_line}");
}

#[test]
fn kernel_memory_is_at_the_end_below_240_mib() {
    check_kernel_memory(64 * MIB, "", Some("2e00000-3dfffff"));
    check_kernel_memory(256 * MIB, "", Some("e000000-effffff"));
    check_kernel_memory(1024 * MIB, "", Some("b000000-effffff"));
    check_kernel_memory(8192 * MIB, "", Some("7000000-effffff"));
    check_kernel_memory(256 * MIB, "kmem=5000K", Some("ea00000-effffff"));
    check_kernel_memory(64 * MIB, "kmem=4k", Some("3c00000-3dfffff"));
    check_kernel_memory(64 * MIB, "kmem=0", None);
    check_kernel_memory(64 * MIB, "kmem=4095", None);
}

#[test]
fn kernel_memory_goes_around_what_is_loaded() {
    let booted = boot(2, |m| {
        let root = m.program(2);
        (root.address, root.entry) = (0x1D0_0000, 0x1D0_0000);
        m.map = Some(pc_map(0x1E2_0000));
        m.command_line = "kmem=8M".into();
    });
    assert_eq!(booted.kernel_memory().as_deref(), Some("1400000-1bfffff"));
}

#[test]
fn memory_beyond_maxmem_is_not_free() {
    let change = |m: &mut Machine| {
        m.map = Some(pc_map(256 * MIB));
        m.command_line = "maxmem=64M".into();
    };
    let wide = boot(2, change).descriptors(2);
    assert_eq!(wide[4..6], ["1.1 100000-3ffffff", "2.0 4000000-ffdffff"]);
    assert!(wide.contains(&"2.0 3000000-3ffffff".into()), "kernel memory below the limit");
    let narrow = boot(1, change).descriptors(1);
    assert_eq!(narrow[4..6], ["1.1 100000-3ffffff", "f.3 ffe0000-fffffff"]);
}

#[test]
fn a_32_bit_kernel_does_without_memory_map() {
    let booted = boot(1, |m| m.map = None);
    assert_eq!(booted.descriptors(1)[..3], ["4.0 0-ffffffff", "1.1 0-9fbff", "1.1 100000-3ffffff"]);
    let mbi = booted.memory.words(0x12_0000, 4, 13);
    assert_eq!((mbi[0], mbi[2], mbi[11]), (0b1101, 63 << 10, 0), "sizes, command line and modules, but no map");
}

/// The records of the boot information as words, each with its text.
fn records(booted: &Booted, class: u8) -> Vec<(Vec<u64>, String)> {
    let size = word_bytes(class);
    let base = booted.kip(class, 46, 1)[0];
    let header = booted.memory.words(base, size, 8);
    assert_eq!(header[..2], [0x14B0_021D, 1]);
    assert_eq!(header[5..], [0; 3]);
    let mut at = base + header[3];
    let mut records = vec![];
    for _ in 0..header[4] {
        let kind = booted.memory.words(at, size, 1)[0];
        let count = match kind {
            1 => 6,
            2 => 16,
            _ => 4,
        };
        let mut words = booted.memory.words(at, size, count);
        let next = words.remove(2);
        let text = match words.last() {
            Some(offset) if kind < 0x100 && *offset != 0 => booted.memory.text(at + offset),
            _ => String::new(),
        };
        assert!(text.len() < next as usize && next.is_multiple_of(size as u64));
        records.push((words, text));
        at += next;
    }
    assert_eq!(at, base + header[2], "the size is that of the header and all records");
    records
}

#[test]
fn boot_information_has_a_record_for_each_module() {
    for class in [1u8, 2] {
        let size = word_bytes(class) as u64;
        let booted = boot(class, |m| {
            m.add(b"some bytes", "first arg");
            m.add(b"", "");
        });
        let server = |address: u64| {
            let data = [address, address, 0x1234, address + 0x1234, address + 0x1234, 0];
            [&[2, 1, 0, 0, 0][..], &data, &[address, class.into(), 0, 16 * size]].concat()
        };
        let expected = [
            (server(0xF0_0000), "sigma0 -v".to_string()),
            (server(0x100_0000), "root a=1 b".to_string()),
            (vec![1, 1, 0x12_A000, 10, 6 * size], "first arg".to_string()),
            (vec![1, 1, 0x12_B000, 0, 0], String::new()),
            (vec![0x102, 1, 0x12_0000], String::new()),
        ];
        assert_eq!(records(&booted, class), expected);

        let two = records(&boot(class, |m| m.command_line = "mbi=no".into()), class);
        assert_eq!(two.iter().map(|(words, _)| words[0]).collect::<Vec<_>>(), [2, 2]);
    }
}

#[test]
fn further_executables_are_loaded_on_demand() {
    let change = |command_line: &str| {
        let line = command_line.to_string();
        move |m: &mut Machine| {
            m.command_line = line;
            m.modules.push((File::Program(program(2, 0x140_0000)), "extra".into()));
            m.add(b"\x7fELF is what this text starts with, but it is none", "text");
            m.modules[4].0 = File::Bytes(b"plain".to_vec());
        }
    };
    let kinds = |booted: &Booted| records(booted, 2).iter().map(|(words, _)| words[0]).collect::<Vec<_>>();
    assert_eq!(kinds(&boot(2, change(""))), [2, 2, 1, 1, 0x102]);
    let loaded = boot(2, change("decode-all=yes"));
    assert_eq!(kinds(&loaded), [2, 2, 2, 1, 0x102]);
    assert!(loaded.descriptors(2).contains(&"e.3 1400000-14013ff".into()));
    assert_eq!(loaded.memory.bytes(0x140_0000, 0x1234), Some(&program(2, 0x140_0000).bytes[..]));
}

#[test]
fn tables_can_be_left_out() {
    let booted = |line: &str| boot(2, |m| m.command_line = line.into());
    assert_eq!(booted("bootinfo=no").kip(2, 46, 1), [0x12_0000]);
    assert_eq!(booted("mbi=no").kip(2, 46, 1), [0x12_0000]);
    assert_eq!(booted("bootinfo=no mbi=no").kip(2, 46, 1), [0]);
}

#[test]
fn the_multiboot_copy_has_the_same_modules_under_both_loaders() {
    for magic in [v1::LOADER_MAGIC, v2::LOADER_MAGIC] {
        let booted = boot(2, |m| {
            m.magic = magic;
            m.command_line = "bootinfo=no".into();
            m.add(b"data", "data x");
        });
        let mbi = booted.kip(2, 46, 1)[0];
        let info = booted.memory.words(mbi, 4, 29);
        assert_eq!(info[0] & 0b100_1100, 0b100_1100, "command line, modules and map");
        assert_eq!(booted.memory.text(info[4]), "root a=1 b");
        let modules = booted.memory.words(info[6], 4, 4 * info[5] as usize);
        let modules: Vec<_> = modules.chunks(4).map(|m| (m[0], m[1], booted.memory.text(m[2]), m[3])).collect();
        let expected = [
            (0x60_0000, 0x60_3000, "kernel".to_string(), 0x60_0000),
            (0xF0_0000, 0xF0_1234, "sigma0 -v".to_string(), 0xF0_0000),
            (0x100_0000, 0x100_1234, "root a=1 b".to_string(), 0x100_0000),
            (0x12_A000, 0x12_A004, "data x".to_string(), 0),
        ];
        assert_eq!(modules, expected);
        let is_original = info[12] == 0x9100;
        assert_eq!(is_original, magic == v1::LOADER_MAGIC);
        let map: Vec<u8> = pc_map(64 * MIB).iter().flat_map(v1::region_bytes).collect();
        assert_eq!(booted.memory.bytes(info[12], info[11]), Some(&map[..]));
    }
}

#[test]
fn a_map_under_an_executable_moves_into_the_copy() {
    let booted = boot(1, |m| {
        let sigma0 = m.program(1);
        (sigma0.address, sigma0.entry) = (0x9000, 0x9000);
    });
    let info = booted.memory.words(0x12_0000, 4, 29);
    assert_eq!(info[12] & !0xFFF, 0x12_0000);
    let map: Vec<u8> = pc_map(64 * MIB).iter().flat_map(v1::region_bytes).collect();
    assert_eq!(booted.memory.bytes(info[12], info[11]), Some(&map[..]));
}

#[test]
fn the_loader_is_quiet_unless_asked() {
    assert_eq!(boot(2, |_| {}).log, "");
    let log = boot(2, |m| {
        m.command_line = "verbose=yes".into();
        m.add(b"data", "data");
    });
    let expected = "module 0 (kernel): loaded to 0x600000-0x603000, entry 0x600000\n\
                    module 1 (sigma0 -v): loaded to 0xf00000-0xf01234, entry 0xf00000\n\
                    module 2 (root a=1 b): loaded to 0x1000000-0x1001234, entry 0x1000000\n\
                    module 3 (data): at 0x12a000-0x12a004\n";
    assert_eq!(log.log, expected);
}

// --- screen, root pointer, a second server ---

/// A screen of pixels, as Multiboot 1 describes it and as Multiboot 2 does.
const SCREEN: Framebuffer = Framebuffer {
    address: 0xFD00_0000,
    pitch: 5120,
    width: 1280,
    height: 800,
    bits: 32,
    kind: FramebufferKind::Rgb([
        Field { position: 16, size: 8 },
        Field { position: 8, size: 8 },
        Field { position: 0, size: 8 },
    ]),
};
const SCREEN_TAG: (u32, [u8; 30]) =
    (8, [0, 0, 0, 0xFD, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 5, 0, 0, 0x20, 3, 0, 0, 32, 1, 0, 0, 16, 8, 8, 8, 0, 8]);

/// The screen that the copy of the Multiboot information describes.
fn told_screen(booted: &Booted) -> Option<Framebuffer> {
    let info = v1::Info::new(&booted.memory, 0x12_0000).expect("the copy is there");
    info.header().framebuffer
}

#[test]
fn the_root_task_learns_of_the_screen() {
    assert_eq!(told_screen(&boot(2, |_| ())), None);
    assert_eq!(told_screen(&boot(2, |m| m.framebuffer = Some(SCREEN))), Some(SCREEN));
    assert_eq!(told_screen(&boot(2, |m| m.framebuffer = Some(Framebuffer::PC_TEXT))), Some(Framebuffer::PC_TEXT));
    let (kind, body) = SCREEN_TAG;
    let with_tag = boot(2, |m| (m.magic, m.tags) = (v2::LOADER_MAGIC, vec![(kind, body.to_vec())]));
    assert_eq!(told_screen(&with_tag), Some(SCREEN));
}

#[test]
fn the_root_pointer_is_handed_on() {
    let pointer = |kind, len: u8| (kind, (0..len).collect::<Vec<u8>>());
    let check = |tags: Vec<(u32, Vec<u8>)>, expected: Option<u8>| {
        for class in [1, 2] {
            let booted = boot(class, |m| (m.magic, m.tags) = (v2::LOADER_MAGIC, tags.clone()));
            let (size, info) = (word_bytes(class), booted.kip(class, 46, 1)[0]);
            let mut at = info + booted.memory.words(info, size, 4)[3];
            let mut found = None;
            for _ in 0..booted.memory.words(info, size, 5)[4] {
                let record = booted.memory.words(at, size, 5);
                if record[0] == 0x4D00_0001 {
                    found = booted.memory.bytes(at + record[3], record[4]).map(<[u8]>::to_vec);
                }
                at += record[2];
            }
            assert_eq!(at, info + booted.memory.words(info, size, 3)[2], "the records end where all of it does");
            assert_eq!(found, expected.map(|len| (0..len).collect()), "class {class}");
        }
    };
    check(vec![], None);
    check(vec![pointer(14, 20)], Some(20));
    check(vec![pointer(14, 20), pointer(15, 36)], Some(36));
    check(vec![pointer(15, 200)], Some(36));
}

#[test]
fn a_further_module_can_be_sigma1() {
    let booted = boot(2, |m| {
        m.add(b"data", "data");
        m.modules.push((File::Program(program(2, 0xC0_0000)), "console".to_string()));
        m.command_line = "sigma1=4".into();
    });
    assert_eq!(booted.kip(2, 12, 4), [0, 0xC0_0000, 0xC0_0000, 0xC0_1234]);
    let descriptors = booted.descriptors(2);
    let last: Vec<&str> = descriptors[descriptors.len() - 6..].iter().map(String::as_str).collect();
    // Both servers may ask for the tables.
    let expected = ["e.2 f00000-f013ff", "e.2 1000000-10013ff", "e.3 12a000-12a3ff", "e.2 c00000-c013ff"];
    assert_eq!(last[..4], expected);
    assert!(last[4..].iter().all(|row| row.starts_with("4.0 12")), "{last:?}");
    let kinds: Vec<u64> = records(&booted, 2).iter().map(|(words, _)| words[0]).collect();
    assert_eq!(kinds, [2, 2, 1, 2, 0x102]);
}

#[test]
fn a_sigma1_that_is_no_program_is_refused() {
    let check = |line: &str, expected: &str| {
        let booted = boot(2, |m| {
            m.add(b"data", "data");
            m.command_line = line.into();
        });
        assert_eq!(booted.result, Err(expected.to_string()), "{line}");
    };
    check("sigma1=3", "module 3 (data): is not an ELF file");
    check("sigma1=4", "module 4 (): is missing");
    check("sigma1=2", "command line: sigma1=2 has no value of its kind");
    check("sigma1=32", "command line: sigma1=32 has no value of its kind");
}

#[test]
fn consoles_are_what_the_command_line_asks_for() {
    let consoles = |line: &str, screen: Option<Framebuffer>, text_screen| {
        let mut machine = Machine::new(2);
        (machine.command_line, machine.framebuffer) = (line.to_string(), screen);
        let memory = machine.start().memory;
        Consoles::of(&memory, Handoff { magic: machine.magic, info: INFO as u32, text_screen }, OWN)
    };
    let check = |line, screen: Option<Framebuffer>, text_screen, expected: (Option<u16>, Option<u64>)| {
        let found = consoles(line, screen, text_screen);
        let found = (found.serial.map(|line| line.port), found.screen.map(|mode| mode.address));
        assert_eq!(found, expected, "{line} {screen:?}");
    };
    check("", None, false, (Some(0x3F8), None));
    check("", None, true, (Some(0x3F8), Some(0xB_8000)));
    check("serial=1", Some(SCREEN), true, (Some(0x2F8), Some(0xFD00_0000)));
    check("console=serial", Some(SCREEN), false, (Some(0x3F8), None));
    check("console=screen", Some(SCREEN), false, (None, Some(0xFD00_0000)));
    check("console=none", Some(SCREEN), true, (None, None));
    // What cannot be understood must be told to somebody.
    check("console=screem", None, true, (Some(0x3F8), Some(0xB_8000)));
    // A screen over memory or over the loader would destroy what it shows.
    check("", Some(Framebuffer { address: 0x20_0000, ..SCREEN }), false, (Some(0x3F8), None));
    check("", Some(Framebuffer { address: OWN.start - 4096, ..SCREEN }), false, (Some(0x3F8), None));
    let nowhere = Handoff { magic: 0, info: 0, text_screen: true };
    assert!(Consoles::of(&Fake(vec![]), nowhere, OWN).screen.is_some());
}

/// All three kinds of loaders say the same, so the same comes of it.
#[test]
fn a_virtual_machine_without_firmware_boots_the_same() {
    let by = |magic| {
        boot(2, |m| {
            m.magic = magic;
            m.command_line = "kmem=8M".to_string();
            m.add(b"data", "data x");
        })
    };
    let (pvh, v2) = (by(pvh::MAGIC), by(v2::LOADER_MAGIC));
    assert_eq!(pvh.descriptors(2), v2.descriptors(2));
    let info = pvh.kip(2, crate::kip::BOOT_INFO as usize, 1)[0];
    assert_eq!(pvh.memory.words(info, 8, 24), v2.memory.words(info, 8, 24));
}
