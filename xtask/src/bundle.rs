//! Boot modules as one file (cpio, `newc`), for loaders of virtual machines that bring one alone: kickstart takes it apart.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::build;
use crate::qemu::Module;

/// What files in the archive begin with, and bytes before a name.
const MAGIC: &str = "070701";
const HEADER_BYTES: usize = 6 + 13 * 8;
/// The name behind the last file.
const END: &str = "TRAILER!!!";
/// A file that everybody may read.
const MODE: u32 = 0o100_644;
/// Files begin at multiples of this, so that what stays a file is in pages of its own.
const PAGE: usize = 4096;

/// Writes `modules` to `file`; the command line of each is its name there.
pub fn write(file: &Path, modules: &[Module]) -> Result<()> {
    let mut bytes = vec![];
    for module in modules {
        let Some(name) = module.file.file_name().and_then(|name| name.to_str()) else {
            bail!("{} has no name for a bundle", module.file.display());
        };
        let content = fs::read(&module.file).with_context(|| format!("cannot read {}", module.file.display()))?;
        add(&mut bytes, format!("{name} {}", module.args).trim_end(), MODE, &content)?;
    }
    add(&mut bytes, END, 0, &[])?;
    build::replace(file, &bytes)
}

/// Adds a file. Behind its name stand as many NULs as it takes for the content to begin a page.
fn add(bytes: &mut Vec<u8>, name: &str, mode: u32, content: &[u8]) -> Result<()> {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let name_at = bytes.len() + HEADER_BYTES;
    let content_at = (name_at + name.len() + 1).next_multiple_of(PAGE);
    let (content_bytes, name_bytes) = (u32::try_from(content.len())?, u32::try_from(content_at - name_at)?);
    *bytes = [&bytes[..], MAGIC.as_bytes()].concat();
    for number in [0, mode, 0, 0, 1, 0, content_bytes, 0, 0, 0, 0, name_bytes, 0] {
        bytes.extend(format!("{number:08x}").into_bytes());
    }
    bytes.extend(name.bytes());
    bytes.resize(content_at, 0);
    bytes.extend(content);
    Ok(())
}

#[cfg(test)]
mod tests {
    use kformats::multiboot::{Info, Physical, pvh};

    use super::{END, MODE, PAGE, add};

    struct Memory(Vec<u8>);

    impl Physical for Memory {
        fn bytes(&self, start: u64, len: u64) -> Option<&[u8]> {
            self.0.get(usize::try_from(start).ok()?..)?.get(..usize::try_from(len).ok()?)
        }
    }

    /// What is put in is what kickstart finds, in pages of its own.
    #[test]
    fn the_loader_finds_what_is_in_a_bundle() {
        let mut bundle = vec![];
        let files = [("kernel console=both", &[1; 5000][..]), ("sigma0", &[2; 3]), ("root a=1 b", &[])];
        for (name, content) in files {
            add(&mut bundle, name, MODE, content).expect("it is small");
        }
        add(&mut bundle, END, 0, &[]).expect("it is small");
        let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        let mut memory = words(&[pvh::MAGIC.into(), 1 << 32, 0x80, 0, 0]);
        memory.resize(0x80, 0);
        memory.extend(words(&[PAGE as u64, bundle.len() as u64, 0, 0]));
        memory.resize(PAGE, 0);
        memory.extend(&bundle);
        let memory = Memory(memory);
        let info = pvh::Info::new(&memory, 0).expect("sound information");
        let found: Vec<_> = info.modules().expect("a list").map(|module| module.expect("sound")).collect();
        assert_eq!(found.len(), files.len());
        for (module, (name, content)) in found.iter().zip(files) {
            assert_eq!(module.command_line, name.as_bytes());
            assert!(module.start.is_multiple_of(PAGE as u64));
            assert_eq!(memory.bytes(module.start, module.end - module.start), Some(content));
        }
    }
}
