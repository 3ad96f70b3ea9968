//! Reading the boot information.
//!
//! It comes from the boot loader, by way of physical memory: so nothing of it is trusted, and what does not fit in its
//! bytes is not there.

use l4_abi::bootinfo::{Header, MAGIC, Module, Multiboot, RecordHeader, RootPointer, SimpleExec};
use l4_abi::{WORD_SIZE, Word};

/// The generic boot information.
#[derive(Clone, Copy, Debug)]
#[doc(alias = "L4_BootInfo_t")]
pub struct BootInfo<'a> {
    bytes: &'a [u8],
}

/// One record of the boot information: its kind and its bytes.
#[derive(Clone, Copy, Debug)]
#[doc(alias = "L4_BootRec_t")]
pub struct Record<'a> {
    bytes: &'a [u8],
}

/// Word `index` of `bytes`, if it is inside.
fn word(bytes: &[u8], index: usize) -> Option<Word> {
    let bytes = bytes.get(index * WORD_SIZE..)?.first_chunk()?;
    Some(Word::from_le_bytes(*bytes))
}

/// Position of a field of words in its structure.
macro_rules! index {
    ($type:ty, $($field:ident).+) => {
        core::mem::offset_of!($type, $($field).+) / WORD_SIZE
    };
}

impl<'a> BootInfo<'a> {
    /// The size in bytes that the header asks for; `None` if this is not the beginning of boot information.
    #[doc(alias = "L4_BootInfo_Size")]
    pub fn size_bytes(header: &[u8]) -> Option<usize> {
        if word(header, index!(Header, magic))? != MAGIC {
            return None;
        }
        usize::try_from(word(header, index!(Header, size_bytes))?).ok()
    }

    /// The boot information in these bytes; `None` without its magic.
    #[doc(alias = "L4_BootInfo_Valid")]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let size = Self::size_bytes(bytes)?.min(bytes.len());
        Some(Self { bytes: &bytes[..size] })
    }

    /// The records in order: one for each module from sigma0 on, then others.
    #[doc(alias = "L4_BootInfo_FirstEntry")]
    #[doc(alias = "L4_BootRec_Next")]
    pub fn records(self) -> impl Iterator<Item = Record<'a>> {
        let mut left = word(self.bytes, index!(Header, records)).unwrap_or(0);
        let first = word(self.bytes, index!(Header, first_record)).unwrap_or(Word::MAX);
        let mut rest = usize::try_from(first).ok().and_then(|first| self.bytes.get(first..)).unwrap_or(&[]);
        core::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let next = usize::try_from(word(rest, index!(RecordHeader, next))?).ok()?;
            let record = Record { bytes: &rest[..next.min(rest.len())] };
            // A record that does not lead on is the last one.
            rest = rest.get(next.max(1)..).unwrap_or(&[]);
            Some(record)
        })
    }
}

impl<'a> Record<'a> {
    /// What it is: one of the `KIND` constants of [`l4_abi::bootinfo`].
    #[doc(alias = "L4_BootRec_Type")]
    pub fn kind(self) -> Option<Word> {
        word(self.bytes, index!(RecordHeader, kind))
    }

    /// The command line of a module or executable.
    #[doc(alias = "L4_Module_Cmdline")]
    #[doc(alias = "L4_SimpleExec_Cmdline")]
    pub fn cmdline(self) -> Option<&'a str> {
        let at = match self.kind()? {
            Module::KIND => word(self.bytes, index!(Module, cmdline))?,
            SimpleExec::KIND => word(self.bytes, index!(SimpleExec, cmdline))?,
            _ => return None,
        };
        if at == 0 {
            return None;
        }
        c_str(self.bytes.get(usize::try_from(at).ok()?..)?)
    }

    /// First address and size in bytes of a module that is no executable.
    #[doc(alias = "L4_Module_Start")]
    #[doc(alias = "L4_Module_Size")]
    pub fn module(self) -> Option<(Word, Word)> {
        if self.kind()? != Module::KIND {
            return None;
        }
        Some((word(self.bytes, index!(Module, start))?, word(self.bytes, index!(Module, size_bytes))?))
    }

    /// Entry of an executable.
    #[doc(alias = "L4_SimpleExec_InitialIP")]
    pub fn initial_ip(self) -> Option<Word> {
        if self.kind()? != SimpleExec::KIND {
            return None;
        }
        word(self.bytes, index!(SimpleExec, initial_ip))
    }

    /// A copy of the root pointer of ACPI.
    pub fn root_pointer(self) -> Option<&'a [u8]> {
        if self.kind()? != RootPointer::KIND {
            return None;
        }
        let copy = usize::try_from(word(self.bytes, index!(RootPointer, copy))?).ok()?;
        let size = usize::try_from(word(self.bytes, index!(RootPointer, size_bytes))?).ok()?;
        self.bytes.get(copy..)?.get(..size)
    }

    /// Address of the Multiboot information.
    #[doc(alias = "L4_MBI_Address")]
    pub fn multiboot(self) -> Option<Word> {
        if self.kind()? != Multiboot::KIND {
            return None;
        }
        word(self.bytes, index!(Multiboot, address))
    }
}

/// The text before the first zero byte; `None` without one, or for bytes that are no text.
pub fn c_str(bytes: &[u8]) -> Option<&str> {
    core::ffi::CStr::from_bytes_until_nul(bytes).ok()?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    /// A header, a module with its command line, an executable without, the Multiboot information.
    fn sample() -> Vec<u8> {
        let words: [Word; 8] = [MAGIC, 1, 240 + 64, 64, 3, 0, 0, 0];
        let module: [Word; 8] = [1, 1, 64, 0x20_0000, 0x1234, 48, 0, 0];
        let exec: [Word; 16] = [2, 1, 128, 1, 1, 1, 2, 2, 2, 3, 3, 3, 0x100_0000, 2, 0, 0];
        let multiboot: [Word; 4] = [0x102, 1, 32, 0x9000];
        let words = [&words[..], &module, &exec, &multiboot].concat();
        let mut bytes: Vec<u8> = words.into_iter().flat_map(Word::to_le_bytes).collect();
        bytes[64 + 48..64 + 48 + 10].copy_from_slice(b"file args\0");
        bytes.resize(304, 0);
        bytes
    }

    #[test]
    fn records_are_read_in_order() {
        let bytes = sample();
        let info = BootInfo::parse(&bytes).expect("valid");
        let records: Vec<Record> = info.records().collect();
        let kinds: Vec<_> = records.iter().map(|record| record.kind()).collect();
        assert_eq!(kinds, [Some(Module::KIND), Some(SimpleExec::KIND), Some(Multiboot::KIND)]);
        assert_eq!((records[0].cmdline(), records[0].module()), (Some("file args"), Some((0x20_0000, 0x1234))));
        assert_eq!((records[1].cmdline(), records[1].initial_ip()), (None, Some(0x100_0000)));
        assert_eq!((records[2].multiboot(), records[2].cmdline()), (Some(0x9000), None));
    }

    #[test]
    fn the_root_pointer_is_in_its_record() {
        let header: [Word; 8] = [MAGIC, 1, 64 + 64, 64, 1, 0, 0, 0];
        let record: [Word; 5] = [0x4D00_0001, 1, 64, 40, 20];
        let words = [&header[..], &record].concat();
        let mut bytes: Vec<u8> = words.into_iter().flat_map(Word::to_le_bytes).collect();
        bytes.extend(b"RSD PTR 123456789012\0\0\0\0");
        let pointer = |bytes: &[u8]| {
            let info = BootInfo::parse(bytes).expect("valid");
            info.records().find_map(Record::root_pointer).map(<[u8]>::to_vec)
        };
        assert_eq!(pointer(&bytes), Some(b"RSD PTR 123456789012".to_vec()));
        bytes[64 + 24] = 50;
        assert_eq!(pointer(&bytes), None);
    }

    #[test]
    fn bytes_without_the_magic_are_refused() {
        let mut bytes = sample();
        bytes[0] ^= 1;
        assert!(BootInfo::parse(&bytes).is_none() && BootInfo::parse(&[]).is_none());
    }

    #[test]
    fn broken_bytes_end_the_list_and_harm_nobody() {
        let good = sample();
        for at in 0..good.len() {
            for value in [0, 1, 0x7F, 0xFF] {
                let mut bytes = good.clone();
                bytes[at] = value;
                let Some(info) = BootInfo::parse(&bytes) else { continue };
                for record in info.records().take(1000) {
                    let _ = (record.cmdline(), record.module(), record.initial_ip(), record.multiboot());
                }
            }
        }
        for len in 0..good.len() {
            let _ = BootInfo::parse(&good[..len]).map(|info| info.records().count());
        }
    }
}
