//! Where the kernel can panic: each place in its image has a reason in `kernel/panics.txt` why no input of a user leads there.
//!
//! The places are found in the machine code. Whoever calls a function that panics hands it the place in the source, by its
//! address; so a place is the same wherever its function was inlined.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, OpKind};
use object::elf::FileHeader64;
use object::read::elf::ElfFile;
use object::{LittleEndian, Object, ObjectSection, ObjectSegment, ObjectSymbol};
use rustc_demangle::demangle;

use super::{Case, Skipped};
use crate::project;

type Elf<'a> = ElfFile<'a, FileHeader64<LittleEndian>>;

/// The reasons, from the root of the workspace.
const REASONS: &str = "kernel/panics.txt";
/// How many instructions before a call its place is looked for.
const BEFORE: usize = 12;
/// Bytes of a function that are looked at.
const FUNCTION_BYTES: usize = 32;
/// Bytes of a place: the address and the length of the file's name, line and column.
const PLACE_BYTES: usize = 24;

/// All tests of this file.
pub fn cases() -> Vec<Case> {
    vec![Case::new("boot::each_panic_of_the_kernel_has_a_reason", "", |lab| {
        if !lab.config.is_default {
            return Err(Skipped("the list is that of the default configuration").into());
        }
        let found = places(&fs::read(lab.image("kernel.debug"))?)?;
        compare(&found, &fs::read_to_string(project::root().join(REASONS)).context(REASONS)?)
    })]
}

/// Fails for places without a reason, and for reasons without a place.
fn compare(found: &BTreeSet<String>, reasons: &str) -> Result<()> {
    let listed: BTreeSet<String> =
        reasons.lines().filter_map(|line| line.strip_prefix("    ")).map(Into::into).collect();
    let lines = |of: Vec<&String>| of.iter().fold(String::new(), |all, line| format!("{all}\n    {line}"));
    let new: Vec<_> = found.difference(&listed).collect();
    ensure!(new.is_empty(), "{REASONS} has no reason why no user gets the kernel to:{}", lines(new));
    let old: Vec<_> = listed.difference(found).collect();
    ensure!(old.is_empty(), "{REASONS} has places where the kernel does not panic any more:{}", lines(old));
    Ok(())
}

/// The places from which functions that panic are called, as lines of the list.
fn places(image: &[u8]) -> Result<BTreeSet<String>> {
    let elf = Elf::parse(image)?;
    let named = elf.symbols().filter(|symbol| symbol.address() != 0);
    let named: Vec<(u64, String)> =
        named.filter_map(|symbol| Some((symbol.address(), format!("{:#}", demangle(symbol.name().ok()?))))).collect();
    let panics: BTreeSet<u64> = named.iter().filter(|(_, name)| is_panic(name)).map(|&(address, _)| address).collect();
    let functions: BTreeMap<u64, String> = named.into_iter().collect();
    ensure!(!panics.is_empty(), "the kernel has no function that panics: its symbols are gone, or have other names");
    let mut found = BTreeSet::new();
    for section in elf.sections().filter(|section| section.name().is_ok_and(|name| name.starts_with(".text"))) {
        let mut decoder = Decoder::with_ip(64, section.data()?, section.address(), DecoderOptions::NONE);
        let mut before: VecDeque<Instruction> = VecDeque::new();
        while decoder.can_decode() {
            let instruction = decoder.decode();
            let function = functions.range(..=instruction.ip()).next_back().map_or("", |(_, name)| name.as_str());
            if calls(&instruction, &panics) && !is_panic(function) {
                let place = before.iter().rev().flat_map(addresses).find_map(|address| place_at(&elf, address));
                // What has one caller alone may know its place itself.
                let place = place.or_else(|| place_in(&elf, instruction.near_branch_target()));
                found.insert(place.unwrap_or_else(|| format!("{function}: an unknown place")));
            }
            if instruction.flow_control() == FlowControl::Next {
                before.push_back(instruction);
            } else if instruction.flow_control() != FlowControl::ConditionalBranch {
                before.clear();
            }
            if before.len() > BEFORE {
                before.pop_front();
            }
        }
    }
    Ok(found)
}

/// The place that the function at an address names first.
fn place_in(elf: &Elf<'_>, function: u64) -> Option<String> {
    let mut decoder = Decoder::with_ip(64, bytes_at(elf, function, FUNCTION_BYTES)?, function, DecoderOptions::NONE);
    decoder.iter().flat_map(|instruction| addresses(&instruction)).find_map(|address| place_at(elf, address))
}

/// Whether a function of this name does nothing but panic.
fn is_panic(name: &str) -> bool {
    name.starts_with("core::panicking::")
        || ["::expect_failed", "::unwrap_failed", "::slice_index_fail", "::slice_error_fail"]
            .iter()
            .any(|end| name.ends_with(end))
}

/// Whether an instruction goes to one of these functions.
fn calls(instruction: &Instruction, functions: &BTreeSet<u64>) -> bool {
    let goes = [FlowControl::Call, FlowControl::UnconditionalBranch, FlowControl::ConditionalBranch];
    goes.contains(&instruction.flow_control()) && functions.contains(&instruction.near_branch_target())
}

/// The addresses that an instruction names.
fn addresses(instruction: &Instruction) -> Vec<u64> {
    let relative = instruction.is_ip_rel_memory_operand().then(|| instruction.ip_rel_memory_address());
    let immediates = (0..instruction.op_count()).filter_map(|index| match instruction.op_kind(index) {
        OpKind::Immediate32to64 | OpKind::Immediate64 => Some(instruction.immediate(index)),
        _ => None,
    });
    relative.into_iter().chain(immediates).collect()
}

/// The bytes of the image at an address.
fn bytes_at<'a>(elf: &Elf<'a>, address: u64, len: usize) -> Option<&'a [u8]> {
    elf.segments().find_map(|segment| segment.data_range(address, len as u64).ok().flatten())
}

/// The place at an address, if there is one, as a line of the list: file, and what stands there.
fn place_at(elf: &Elf<'_>, address: u64) -> Option<String> {
    let bytes = bytes_at(elf, address, PLACE_BYTES)?;
    let word = |at: usize| bytes[at..at + 8].iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
    let len = usize::try_from(word(8)).ok().filter(|len| *len < 1000)?;
    let name = std::str::from_utf8(bytes_at(elf, word(0), len)?).ok().filter(|name| name.ends_with(".rs"))?;
    let line = (word(16) as u32).checked_sub(1)? as usize;
    let text = fs::read_to_string(project::root().join(name)).unwrap_or_default();
    Some(format!("{}: {}", short(name), text.lines().nth(line).unwrap_or("?").trim()))
}

/// The name of a source file, which for a crate from elsewhere begins with the crate.
fn short(name: &str) -> String {
    let Some((_, rest)) = name.split_once("registry/src/") else { return name.to_owned() };
    let mut parts =
        PathBuf::from(rest).iter().skip(1).map(|part| part.to_string_lossy().into_owned()).collect::<Vec<_>>();
    if let Some(dir) = parts.first_mut() {
        // Without its version.
        *dir = dir.rsplit_once('-').map_or(dir.clone(), |(name, _)| name.to_owned());
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_reasons_must_agree() {
        let found: BTreeSet<String> = ["a.rs: x.expect()", "b.rs: y[1]"].map(String::from).into();
        let reasons = "# Head\n\nA reason.\n    a.rs: x.expect()\n    b.rs: y[1]\n";
        assert!(compare(&found, reasons).is_ok());
        let missing = compare(&found, "A reason.\n    a.rs: x.expect()\n").expect_err("one is missing");
        assert!(missing.to_string().ends_with("\n    b.rs: y[1]"), "{missing}");
        assert!(compare(&found, &format!("{reasons}    c.rs: z\n")).is_err());
    }

    #[test]
    fn crates_from_elsewhere_have_no_version() {
        assert_eq!(short("kernel/core/src/list.rs"), "kernel/core/src/list.rs");
        assert_eq!(short("/h/.cargo/registry/src/index-1f/raw-cpuid-11.6.0/src/lib.rs"), "raw-cpuid/src/lib.rs");
    }

    #[test]
    fn functions_that_panic_are_known_by_name() {
        for name in
            ["core::panicking::panic_fmt", "core::option::expect_failed", "core::slice::index::slice_index_fail"]
        {
            assert!(is_panic(name), "{name}");
        }
        assert!(!is_panic("kernel::trap::panicking") && !is_panic("<core::fmt::Formatter>::pad"));
    }
}
