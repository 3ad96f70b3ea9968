//! ELF files as bytes that can be changed in place: stripped for the boot, broken for tests.

use anyhow::{Result, anyhow};
use object::LittleEndian as LE;
use object::elf::{EM_X86_64, ET_EXEC, FileHeader64, PT_LOAD, ProgramHeader64, SymbolSection};
use object::pod;

/// A 64-bit ELF file.
#[derive(Clone)]
pub struct Image {
    /// The whole file.
    pub bytes: Vec<u8>,
}

const HEADER_BYTES: usize = size_of::<FileHeader64<LE>>();
const SEGMENT_BYTES: usize = size_of::<ProgramHeader64<LE>>();

impl Image {
    /// A program for x86-64: one segment with these bytes at this address, which begins with the first instruction.
    pub fn executable(address: u64, code: &[u8]) -> Result<Self> {
        let segment_at = HEADER_BYTES + SEGMENT_BYTES;
        let mut image = Self { bytes: vec![0; segment_at] };
        image.bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        let header = image.header()?;
        header.e_type.set(LE, ET_EXEC);
        header.e_machine.set(LE, EM_X86_64);
        header.e_entry.set(LE, address);
        header.e_phoff.set(LE, HEADER_BYTES as u64);
        header.e_phentsize.set(LE, SEGMENT_BYTES as u16);
        header.e_phnum.set(LE, 1);
        let segment = &mut image.segments()?[0];
        segment.p_type.set(LE, PT_LOAD);
        segment.p_offset.set(LE, segment_at as u64);
        segment.p_vaddr.set(LE, address);
        segment.p_paddr.set(LE, address);
        segment.p_filesz.set(LE, code.len() as u64);
        segment.p_memsz.set(LE, code.len() as u64);
        image.bytes.extend(code);
        Ok(image)
    }

    /// The file header.
    pub fn header(&mut self) -> Result<&mut FileHeader64<LE>> {
        let (header, _) = pod::from_bytes_mut(&mut self.bytes).map_err(|()| anyhow!("the ELF header is cut off"))?;
        Ok(header)
    }

    /// The program headers.
    pub fn segments(&mut self) -> Result<&mut [ProgramHeader64<LE>]> {
        let header = self.header()?;
        let (offset, count) = (usize::try_from(header.e_phoff.get(LE))?, header.e_phnum.get(LE).into());
        let table = self.bytes.get_mut(offset..).and_then(|rest| pod::slice_from_bytes_mut(rest, count).ok());
        Ok(table.ok_or_else(|| anyhow!("the program headers are cut off"))?.0)
    }

    /// Removes symbols, debug information and section headers, which the linker puts behind the last segment. What is
    /// before stays byte for byte where it is: loaders that go by file offsets see the same file.
    pub fn strip(mut self) -> Result<Self> {
        let segments = self.segments()?.iter();
        let data = segments.map(|segment| segment.p_offset.get(LE) + segment.p_filesz.get(LE)).max().unwrap_or(0);
        let header = self.header()?;
        header.e_shoff.set(LE, 0);
        header.e_shnum.set(LE, 0);
        header.e_shstrndx.set(LE, SymbolSection(0));
        let table =
            header.e_phoff.get(LE) + u64::from(header.e_phnum.get(LE)) * size_of::<ProgramHeader64<LE>>() as u64;
        self.bytes.truncate(usize::try_from(data.max(table))?);
        Ok(self)
    }
}

#[cfg(test)]
pub mod tests {
    use object::LittleEndian as LE;

    use super::{HEADER_BYTES, Image, SEGMENT_BYTES};

    /// A small executable: one segment of 16 bytes at 1 MiB behind the headers, and 100 bytes of symbols.
    pub fn executable() -> Image {
        let mut image = Image::executable(0x10_0000, &[0; 16]).expect("there is room for the headers");
        let header = image.header().expect("there is a header");
        header.e_shoff.set(LE, (HEADER_BYTES + SEGMENT_BYTES) as u64 + 16);
        header.e_shnum.set(LE, 1);
        image.segments().expect("there is a segment")[0].p_memsz.set(LE, 32);
        image.bytes.extend([0; 100]);
        image
    }

    #[test]
    fn a_stripped_file_keeps_all_bytes_that_are_loaded_where_they_are() {
        let full = executable();
        let mut stripped = full.clone().strip().expect("the file is sound");
        assert_eq!(stripped.bytes.len(), HEADER_BYTES + SEGMENT_BYTES + 16);
        assert_eq!(stripped.bytes[HEADER_BYTES..], full.bytes[HEADER_BYTES..stripped.bytes.len()]);
        let header = stripped.header().expect("the header is there");
        assert_eq!((header.e_shoff.get(LE), header.e_shnum.get(LE)), (0, 0));
    }

    #[test]
    fn a_cut_off_file_is_refused() {
        let mut image = executable();
        image.bytes.truncate(HEADER_BYTES + 1);
        assert!(image.clone().strip().is_err());
        image.bytes.truncate(HEADER_BYTES - 1);
        assert!(image.strip().is_err());
    }
}
