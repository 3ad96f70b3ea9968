//! Boots with other initial servers than usual: kickstart starts sigma0 and the root task only, but another loader may
//! name a sigma1, or nobody.

use std::fs;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::boots::{self, PATIENCE};
use super::images::{KERNEL, KIP_MAGIC, MEMORY_INFO, PAGE_INFO, kip_word, sound};
use super::{Case, Lab};
use crate::elf::Image;
use crate::qemu::{Console, End, Ended, Module};

/// Words of the kernel interface page: sigma1's stack and instruction pointer, its first address and its end.
const SIGMA1_WORDS: usize = 12;
/// Words of the page without its tables.
const KIP_WORDS: usize = 72;
/// Memory descriptors that there is room for behind a page within the room for those of the real one.
const DECOY_DESCRIPTORS: u64 = 64;
/// Status of a kernel that ended in a panic.
const PANICKED: u8 = 126;

/// Where sigma1 is loaded.
const SIGMA1: u64 = 0x200_0000;
/// What it prints before its id.
const SIGMA1_SAYS: &str = "sigma1 is ";
/// sigma1: reads a model-specific register, as only privileged spaces may; prints the text behind the code, and its global
/// id in hexadecimal, by the debugger's services; stops for good.
const SIGMA1_CODE: [u8; 67] = [
    0xB9, 0x80, 0x00, 0x00, 0xC0, // mov ecx, EFER
    0x0F, 0x32, // rdmsr
    0xB8, 67, 0x00, 0x00, 0x02, // mov eax, the text
    0xCC, 0x3C, 0x01, // int3; cmp al, 1
    0x65, 0x48, 0x8B, 0x04, 0x25, 0x00, 0x00, 0x00, 0x00, // mov rax, gs:[0]
    0x48, 0x8B, 0x58, 0x88, // mov rbx, [rax - 0x78], MyGlobalId
    0xB9, 0x10, 0x00, 0x00, 0x00, // mov ecx, 16
    0x48, 0xC1, 0xC3, 0x04, // next: rol rbx, 4
    0x88, 0xD8, // mov al, bl
    0x24, 0x0F, // and al, 15
    0x04, 0x30, // add al, '0'
    0x3C, 0x39, // cmp al, '9'
    0x76, 0x02, // jbe +2
    0x04, 0x07, // add al, 7
    0xCC, 0x3C, 0x00, // int3; cmp al, 0
    0xFF, 0xC9, // dec ecx
    0x75, 0xE9, // jnz next
    0xB0, 0x0A, // mov al, '\n'
    0xCC, 0x3C, 0x00, // int3; cmp al, 0
    0xF4, // hlt, an exception that nobody handles
    0x90, 0x90, 0x90, 0x90, 0x90,
];

/// All tests of this file.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("boot::a_named_sigma1_is_started", "Boot, initial servers", sigma1),
        Case::new("boot::the_kernel_ends_without_sigma0_by_name", "Boot, initial servers", no_sigma0),
    ]
}

/// Boots kernel, sigma0 and root task as `images` has them, and more.
fn boot(lab: &Lab, images: &[Image], boot_args: &str) -> Result<Ended> {
    let dir = TempDir::new()?;
    let mut machine = boots::machine(lab, "max", 256);
    machine.modules.clear();
    for (index, image) in images.iter().enumerate() {
        let file = dir.path().join(format!("module{index}"));
        fs::write(&file, &image.bytes)?;
        machine.modules.push(Module::new(file));
    }
    "mrs=0..0".clone_into(&mut machine.modules[2].args);
    boot_args.clone_into(&mut machine.boot_args);
    // Else what two programs print at once is mixed in another way each time.
    machine.icount = true;
    machine.boot(&Console::none(), Some(PATIENCE))
}

/// The number before a word in the console's text.
fn number_before(console: &str, word: &str) -> Result<u64> {
    let before = console.split(word).next().unwrap_or_default();
    let number = before.split_whitespace().last().context("nothing is before it")?;
    number.parse().with_context(|| format!("no number before {word}"))
}

fn sigma1(lab: &Lab) -> Result<()> {
    let mut images = sound(lab)?;
    let code = [&SIGMA1_CODE[..], SIGMA1_SAYS.as_bytes(), b"\0"].concat();
    let words = [0, SIGMA1, SIGMA1, SIGMA1 + code.len() as u64];
    for (index, word) in words.into_iter().enumerate() {
        kip_word(&mut images, SIGMA1_WORDS + index, word)?;
    }
    images.push(Image::executable(SIGMA1, &code)?);
    let ended = boot(lab, &images, "decode-all=yes")?;
    ensure!(ended.end == End::Program(0), "{}\n{}", ended.end, boots::tail(&ended.console));
    // Interrupts have the first numbers, then come the kernel's, then sigma0.
    let number = number_before(&ended.console, " interrupt lines")? + 32 + 1;
    let line = format!("{SIGMA1_SAYS}{:016X}", number << 32 | 1);
    ensure!(ended.console.lines().any(|said| said == line), "no `{line}`\n{}", boots::tail(&ended.console));
    Ok(())
}

/// kickstart fills another page than the kernel's, which says nothing of any server then.
fn no_sigma0(lab: &Lab) -> Result<()> {
    let mut images = sound(lab)?;
    hide_page(&mut images[KERNEL].bytes)?;
    let ended = boot(lab, &images, "")?;
    let said = ended.console.contains("kernel panic: the loader gave no sigma0");
    ensure!(said && ended.end == End::Program(PANICKED), "{}\n{}", ended.end, boots::tail(&ended.console));
    Ok(())
}

/// Spoils the magic number of the kernel interface page, and puts what looks like such a page where that has room for
/// memory descriptors.
fn hide_page(kernel: &mut [u8]) -> Result<()> {
    let word = |kernel: &[u8], index: usize| kernel.chunks_exact(8).nth(index).and_then(|word| word.try_into().ok());
    let page = kernel.chunks_exact(8).position(|word| word == KIP_MAGIC).context("the kernel has no interface page")?;
    let room = word(kernel, page + MEMORY_INFO).map(u64::from_le_bytes).context("the interface page is cut off")?;
    let decoy = page + usize::try_from(room >> 32)? / 8;
    let descriptors = (8 * KIP_WORDS as u64) << 32 | DECOY_DESCRIPTORS;
    let changes = [
        (page, 0),
        (decoy, u64::from_le_bytes(KIP_MAGIC)),
        (decoy + MEMORY_INFO, descriptors),
        (decoy + PAGE_INFO, 1 << 12),
    ];
    for (index, value) in changes {
        let word = kernel.chunks_exact_mut(8).nth(index).context("the interface page is cut off")?;
        word.copy_from_slice(&value.to_le_bytes());
    }
    Ok(())
}
