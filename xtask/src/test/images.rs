//! Boots of images that are damaged on purpose: each must end with kickstart's words for the damage.

use std::fs;

use anyhow::{Context, Result, ensure};
use object::LittleEndian as LE;
use object::elf::{EM_AARCH64, ET_DYN, PT_LOAD, PT_NOTE};
use tempfile::TempDir;

use super::boots::{self, PATIENCE};
use super::{Case, Lab};
use crate::elf::Image;
use crate::qemu::{Console, End, Module};

/// The file names of the modules, in order.
const NAMES: [&str; 3] = ["kernel", "sigma0", "root"];
pub const KERNEL: usize = 0;
const SIGMA0: usize = 1;
const ROOT: usize = 2;

/// The first word of the kernel interface page, 64 bits wide (X.2, Kernel Interface Page).
pub const KIP_MAGIC: [u8; 8] = *b"L4\xE6K\0\0\0\0";
/// Words of that page: number and offset of the memory descriptors; page sizes.
pub const MEMORY_INFO: usize = 21;
pub const PAGE_INFO: usize = 50;

/// Makes sound modules unsound.
type Damage = fn(&mut Vec<Image>) -> Result<()>;

/// A damage: the test's name, what is done, what kickstart must say.
type Row = (&'static str, Damage, &'static str);

const ROWS: &[Row] = &[
    ("no_modules", |m| cut_list(m, 0), "module 0 (kernel): is missing"),
    ("no_sigma0", |m| cut_list(m, 1), "module 1 (sigma0): is missing"),
    ("no_root_task", |m| cut_list(m, 2), "module 2 (root task): is missing"),
    ("no_elf_file", |m| text(m, SIGMA0), "is not an ELF file"),
    ("a_cut_header", |m| cut(m, KERNEL, |_| 40), "ends inside the ELF header"),
    ("cut_program_headers", |m| cut(m, ROOT, |_| 80), "ends before program header"),
    ("a_cut_segment", |m| cut(m, KERNEL, |len| len - 1), "ends inside segment"),
    ("half_a_file", |m| cut(m, ROOT, |len| len / 2), "ends inside segment"),
    ("an_unknown_class", |m| ident(m, SIGMA0, 4, 9), "has the unknown ELF class 9"),
    ("big_endian", |m| ident(m, KERNEL, 5, 2), "is not little-endian"),
    ("an_unknown_version", |m| ident(m, ROOT, 6, 7), "has the unknown ELF version 7"),
    ("another_machine", |m| other_machine(m), "is for another machine (number 183)"),
    ("a_position_independent_file", |m| position_independent(m), "is not an EXEC file"),
    ("an_odd_size_of_program_headers", |m| odd_headers(m), "has program headers of 57 bytes"),
    ("program_headers_beyond_the_file", |m| headers_beyond(m), "ends before program header"),
    ("nothing_to_load", |m| nothing_to_load(m), "has no segment to load"),
    ("an_entry_outside", |m| entry_outside(m), "is in no loaded segment"),
    ("a_segment_larger_than_its_memory", |m| larger_than_memory(m), "is larger in the file than in memory"),
    ("addresses_that_wrap", |m| relink(m, SIGMA0, u64::MAX - 0xFFF), "wrap around"),
    ("a_root_task_over_sigma0", |m| over_sigma0(m), "over module 1"),
    ("a_program_over_kickstart", |m| relink(m, ROOT, 0x10_0000), "over kickstart"),
    ("a_program_beyond_memory", |m| relink(m, SIGMA0, 0xC000_0000), "which is not all free memory"),
    ("a_program_above_4_gib", |m| relink(m, ROOT, 1 << 40), "which is not all free memory"),
    // A program that looks for the page has its magic number as well, but no page behind it.
    ("kernel_and_sigma0_swapped", |m| swap(m, KERNEL, SIGMA0), "kernel interface page"),
    ("kernel_and_root_task_swapped", |m| swap(m, KERNEL, ROOT), "kernel interface page"),
    ("a_kernel_without_its_page", |m| kip_word(m, 0, 0), "has no kernel interface page"),
    ("no_memory_descriptors", |m| kip_word(m, MEMORY_INFO, 0), "no array of memory descriptors"),
    ("no_page_size", |m| kip_word(m, PAGE_INFO, 0), "its kernel interface page has no page size"),
];

/// All tests of this file.
pub fn cases() -> Vec<Case> {
    let case = |&(name, damage, expected): &'static Row| {
        Case::new(format!("boot::refuses_{name}"), "Boot, loader", move |lab| refuses(lab, damage, expected))
    };
    ROWS.iter().map(case).collect()
}

fn refuses(lab: &Lab, damage: Damage, expected: &str) -> Result<()> {
    let mut images = sound(lab)?;
    damage(&mut images)?;
    let dir = TempDir::new()?;
    let mut machine = boots::machine(lab, "max", 256);
    machine.modules.clear();
    for (image, name) in images.iter().zip(NAMES) {
        let file = dir.path().join(name);
        fs::write(&file, &image.bytes)?;
        machine.modules.push(Module::new(file));
    }
    let ended = machine.boot(&Console::none(), Some(PATIENCE))?;
    let said = ended.console.lines().find(|line| line.starts_with("kickstart: ")).unwrap_or_default();
    ensure!(
        said.contains(expected) && ended.end == End::BootError,
        "expected `kickstart: ... {expected}`; {}\n{}",
        ended.end,
        boots::tail(&ended.console)
    );
    Ok(())
}

/// Kernel, sigma0 and a root task as they are.
pub fn sound(lab: &Lab) -> Result<Vec<Image>> {
    let read = |name| {
        let file = lab.image(name);
        fs::read(&file).map(|bytes| Image { bytes }).with_context(|| format!("cannot read {}", file.display()))
    };
    ["kernel", "sigma0", "pingpong"].into_iter().map(read).collect()
}

fn cut_list(images: &mut Vec<Image>, len: usize) -> Result<()> {
    images.truncate(len);
    Ok(())
}

fn swap(images: &mut [Image], one: usize, other: usize) -> Result<()> {
    images.swap(one, other);
    Ok(())
}

fn text(images: &mut [Image], index: usize) -> Result<()> {
    images[index].bytes = b"#!/bin/sh\necho this is no executable\n".to_vec();
    Ok(())
}

fn cut(images: &mut [Image], index: usize, new_len: fn(usize) -> usize) -> Result<()> {
    let bytes = &mut images[index].bytes;
    bytes.truncate(new_len(bytes.len()));
    Ok(())
}

fn ident(images: &mut [Image], index: usize, at: usize, value: u8) -> Result<()> {
    images[index].bytes[at] = value;
    Ok(())
}

fn other_machine(images: &mut [Image]) -> Result<()> {
    images[SIGMA0].header()?.e_machine.set(LE, EM_AARCH64);
    Ok(())
}

fn position_independent(images: &mut [Image]) -> Result<()> {
    images[ROOT].header()?.e_type.set(LE, ET_DYN);
    Ok(())
}

fn odd_headers(images: &mut [Image]) -> Result<()> {
    images[KERNEL].header()?.e_phentsize.set(LE, 57);
    Ok(())
}

fn headers_beyond(images: &mut [Image]) -> Result<()> {
    images[SIGMA0].header()?.e_phoff.set(LE, u64::MAX - 7);
    Ok(())
}

fn nothing_to_load(images: &mut [Image]) -> Result<()> {
    images[ROOT].segments()?.iter_mut().for_each(|segment| segment.p_type.set(LE, PT_NOTE));
    Ok(())
}

fn entry_outside(images: &mut [Image]) -> Result<()> {
    images[SIGMA0].header()?.e_entry.set(LE, 0x10);
    Ok(())
}

fn larger_than_memory(images: &mut [Image]) -> Result<()> {
    let segments = images[ROOT].segments()?;
    let segment = segments.iter_mut().find(|segment| segment.p_type.get(LE) == PT_LOAD).context("nothing is loaded")?;
    segment.p_memsz.set(LE, segment.p_filesz.get(LE) - 1);
    Ok(())
}

fn over_sigma0(images: &mut [Image]) -> Result<()> {
    let place = lowest(&mut images[SIGMA0])?;
    relink(images, ROOT, place)
}

fn lowest(image: &mut Image) -> Result<u64> {
    let loaded = image.segments()?.iter().filter(|segment| segment.p_type.get(LE) == PT_LOAD);
    loaded.map(|segment| segment.p_paddr.get(LE)).min().context("nothing is loaded")
}

/// Moves all segments, and the entry point with them, such that the lowest begins at `place`.
fn relink(images: &mut [Image], index: usize, place: u64) -> Result<()> {
    let image = &mut images[index];
    let offset = place.wrapping_sub(lowest(image)?);
    for segment in image.segments()? {
        segment.p_paddr.set(LE, segment.p_paddr.get(LE).wrapping_add(offset));
        segment.p_vaddr.set(LE, segment.p_vaddr.get(LE).wrapping_add(offset));
    }
    let header = image.header()?;
    header.e_entry.set(LE, header.e_entry.get(LE).wrapping_add(offset));
    Ok(())
}

/// Sets a word of the kernel interface page in the kernel's file.
pub fn kip_word(images: &mut [Image], index: usize, value: u64) -> Result<()> {
    let bytes = &mut images[KERNEL].bytes;
    let page = bytes.chunks_exact(8).position(|word| word == KIP_MAGIC).context("the kernel has no interface page")?;
    let word = bytes.chunks_exact_mut(8).nth(page + index).context("the interface page is cut off")?;
    word.copy_from_slice(&value.to_le_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use object::LittleEndian as LE;

    use super::{KERNEL, ROWS, SIGMA0, kip_word, lowest, relink};
    use crate::elf::Image;
    use crate::elf::tests::executable;

    fn images() -> Vec<Image> {
        let mut images = vec![executable(), executable(), executable()];
        // A kernel interface page where the symbols are, at a multiple of 8.
        images[KERNEL].bytes.resize(1024, 0);
        images[KERNEL].bytes[256..264].copy_from_slice(&super::KIP_MAGIC);
        images[KERNEL].bytes[256 + 8 * super::PAGE_INFO] = 1;
        images[KERNEL].bytes[256 + 8 * super::MEMORY_INFO] = 1;
        images
    }

    #[test]
    fn each_damage_changes_something() {
        for (name, damage, _) in ROWS.iter().filter(|(name, ..)| !name.ends_with("swapped")) {
            let mut damaged = images();
            damage(&mut damaged).unwrap_or_else(|error| panic!("{name}: {error}"));
            let bytes = |images: &[Image]| images.iter().map(|image| image.bytes.clone()).collect::<Vec<_>>();
            // The sample is linked over kickstart, and both programs to one place.
            if !name.contains("over_") {
                assert_ne!(bytes(&damaged), bytes(&images()), "{name}");
            }
        }
    }

    #[test]
    fn a_relinked_program_keeps_its_entry_inside() {
        let mut images = images();
        relink(&mut images, SIGMA0, 0xC000_0000).expect("the sample is sound");
        assert_eq!(lowest(&mut images[SIGMA0]).expect("the sample is sound"), 0xC000_0000);
        let header = images[SIGMA0].header().expect("the sample is sound");
        assert_eq!(header.e_entry.get(LE), 0xC000_0000);
    }

    #[test]
    fn words_of_the_kernel_interface_page_are_found() {
        let mut images = images();
        kip_word(&mut images, 3, 0x1122).expect("there is a page");
        assert_eq!(images[KERNEL].bytes[256 + 24..][..8], [0x22, 0x11, 0, 0, 0, 0, 0, 0]);
    }
}
