//! The image of the kernel has no indirect branches where user code could lead them astray (Spectre v2): none to an address in a
//! register or in memory, but in what runs at boot and in what prints.

use iced_x86::{Decoder, DecoderOptions, Instruction};
use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind};

/// Parts of the names of functions that may have some: formatting goes by tables of functions, and the start code leaves the
/// addresses below 4 GiB for good.
const ALLOWED: [&str; 5] = ["3fmt", "4boot", "7Options7of_boot", "long_mode", "9Interrupts5start"];

/// Where in the image an indirect branch is.
struct Found {
    address: u64,
    function: String,
}

/// The indirect branches of the image, and how many instructions there are.
fn find() -> (Vec<Found>, usize) {
    let bytes = super::code::image();
    let elf = object::File::parse(bytes.as_slice()).expect("the image is sound");
    let mut labels: Vec<(u64, &str)> = elf
        .symbols()
        .filter(|symbol| matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Label | SymbolKind::Unknown))
        .filter_map(|symbol| Some((symbol.address(), symbol.name().ok()?)))
        .filter(|(_, name)| !name.is_empty())
        .collect();
    labels.sort_unstable();
    let function = |address: u64| {
        let behind = labels.partition_point(|&(at, _)| at <= address);
        labels[..behind].last().map_or_else(|| "nobody".to_owned(), |(_, name)| (*name).to_owned())
    };
    let (mut found, mut count) = (Vec::new(), 0);
    for section in elf.sections().filter(|section| section.kind() == SectionKind::Text) {
        // The start code is of 32 bits, up to where it leaves for long mode.
        if section.name() == Ok(".boot") {
            continue;
        }
        let code = section.data().expect("code has bytes");
        let mut decoder = Decoder::with_ip(64, code, section.address(), DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            count += 1;
            let is_far = instruction.is_call_far_indirect() || instruction.is_jmp_far_indirect();
            if is_far || instruction.is_call_near_indirect() || instruction.is_jmp_near_indirect() {
                found.push(Found { address: instruction.ip(), function: function(instruction.ip()) });
            }
        }
    }
    (found, count)
}

#[test]
fn kernel_has_no_indirect_branches_but_to_boot_and_to_print() {
    let (found, count) = find();
    println!("note: {} indirect branches among {count} instructions", found.len());
    assert!(count > 10_000 && !found.is_empty(), "the code was found, and what prints in it");
    let is_bad = |found: &&Found| !ALLOWED.iter().any(|part| found.function.contains(part));
    let bad: Vec<String> =
        found.iter().filter(is_bad).map(|found| format!("{:#x} in {}", found.address, found.function)).collect();
    assert!(bad.is_empty(), "indirect branches:\n{}", bad.join("\n"));
}
