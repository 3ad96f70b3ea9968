//! The kernel interface page, and what the loader left beside it.

use core::fmt::{self, Write};
use core::mem::offset_of;

use kcore::machine::Machine;
use l4_abi::{Word, bootinfo};

use crate::menu::Done;
use crate::session::Session;

/// Bytes of the page.
const PAGE_BYTES: u64 = 4096;
/// Descriptors that are shown at most.
const DESCRIPTORS_MAX: u64 = 256;

/// Words of the page by their place (X.2, Kernel Interface Page).
mod word {
    pub const API_VERSION: u64 = 1;
    pub const API_FLAGS: u64 = 2;
    pub const KERNEL_DESC_PTR: u64 = 3;
    pub const SIGMA0: u64 = 8;
    pub const SIGMA1: u64 = 12;
    pub const ROOT: u64 = 16;
    pub const MEMORY_INFO: u64 = 21;
    pub const UTCB_INFO: u64 = 42;
    pub const KIP_AREA_INFO: u64 = 43;
    pub const BOOT_INFO: u64 = 46;
    pub const PROCESSOR_DESC_PTR: u64 = 47;
    pub const CLOCK_INFO: u64 = 48;
    pub const THREAD_INFO: u64 = 49;
    pub const PAGE_INFO: u64 = 50;
    pub const PROCESSOR_INFO: u64 = 51;
}

const _: () = {
    use core::mem::offset_of;
    use l4_abi::Kip;
    const fn at(word: u64) -> usize {
        word as usize * size_of::<Word>()
    }
    assert!(
        offset_of!(Kip, kernel_desc_ptr) == at(word::KERNEL_DESC_PTR) && offset_of!(Kip, sigma0) == at(word::SIGMA0)
    );
    assert!(offset_of!(Kip, root_server) == at(word::ROOT) && offset_of!(Kip, memory_info) == at(word::MEMORY_INFO));
    assert!(offset_of!(Kip, utcb_info) == at(word::UTCB_INFO) && offset_of!(Kip, boot_info) == at(word::BOOT_INFO));
    assert!(
        offset_of!(Kip, thread_info) == at(word::THREAD_INFO)
            && offset_of!(Kip, processor_info) == at(word::PROCESSOR_INFO)
    );
};

impl<M: Machine + 'static> Session<'_, '_, M> {
    pub(super) fn kip(&mut self) -> Done {
        let page = self.probe.kip();
        let Some(magic) = self.kernel_word(page) else {
            return self.refuse(format_args!("the page is not to be had"));
        };
        let word = |session: &Self, index: u64| session.kernel_word(page + index * 8).unwrap_or(0);
        let magic = magic.to_le_bytes();
        let letters = magic.iter().map(|&byte| if byte.is_ascii_graphic() { char::from(byte) } else { '.' });
        write!(self.out, "kernel interface page at {page:x}, magic ")?;
        for letter in letters {
            write!(self.out, "{letter}")?;
        }
        writeln!(self.out)?;
        let rows = [
            ("API version", word::API_VERSION),
            ("API flags", word::API_FLAGS),
            ("UTCB info", word::UTCB_INFO),
            ("KIP area info", word::KIP_AREA_INFO),
            ("boot info", word::BOOT_INFO),
            ("clock info", word::CLOCK_INFO),
            ("thread info", word::THREAD_INFO),
            ("page info", word::PAGE_INFO),
            ("processor info", word::PROCESSOR_INFO),
        ];
        for (name, index) in rows {
            writeln!(self.out, "  {name:14} {:x}", word(self, index))?;
        }
        for (name, index) in [("sigma0", word::SIGMA0), ("sigma1", word::SIGMA1), ("root task", word::ROOT)] {
            let [sp, ip, low, high] = [0, 1, 2, 3].map(|n| word(self, index + n));
            writeln!(self.out, "  {name:14} ip {ip:x}, sp {sp:x}, memory {low:x} to {high:x}")?;
        }
        self.memory_descriptors(page, word(self, word::MEMORY_INFO))?;
        self.processor_descriptors(page, word(self, word::PROCESSOR_DESC_PTR), word(self, word::PROCESSOR_INFO))?;
        self.version(page, word(self, word::KERNEL_DESC_PTR))?;
        Ok(None)
    }

    fn memory_descriptors(&mut self, page: u64, info: u64) -> fmt::Result {
        const KINDS: [&str; 16] = [
            "undefined",
            "conventional",
            "reserved by the kernel",
            "dedicated",
            "shared",
            "?",
            "?",
            "?",
            "?",
            "?",
            "?",
            "?",
            "?",
            "?",
            "boot loader",
            "architecture",
        ];
        let (count, at) = (info & 0xFFFF_FFFF, page + (info >> 32));
        writeln!(self.out, "  {count} memory descriptors")?;
        for index in 0..count.min(DESCRIPTORS_MAX) {
            let [low, high] = [0, 8].map(|n| self.kernel_word(at + index * 16 + n).unwrap_or(0));
            let kind = KINDS[(low & 0xF) as usize];
            let subtype = low >> 4 & 0xF;
            let is_virtual = if low & 0x200 != 0 { "virtual" } else { "" };
            writeln!(self.out, "    {:14x} to {:14x} {kind} {subtype:x} {is_virtual}", low & !0x3FF, high | 0x3FF)?;
        }
        Ok(())
    }

    fn processor_descriptors(&mut self, page: u64, at: u64, info: u64) -> fmt::Result {
        let (count, size) = ((info & 0xFFFF) + 1, 1u64 << (info >> 60));
        writeln!(self.out, "  {count} processors")?;
        for index in 0..count.min(DESCRIPTORS_MAX) {
            let place = (page + at).wrapping_add(index.wrapping_mul(size));
            let [external, internal] = [0, 8].map(|n| self.kernel_word(place + n).unwrap_or(0));
            writeln!(self.out, "    {index}: {internal} kHz, outside {external} kHz")?;
        }
        Ok(())
    }

    /// The texts behind the kernel descriptor: version, then features, up to an empty one.
    fn version(&mut self, page: u64, descriptor: u64) -> fmt::Result {
        let mut at = descriptor + 4 * 8;
        let mut is_new = true;
        write!(self.out, "  version ")?;
        while at < PAGE_BYTES {
            let mut byte = [0];
            if self.probe.read_kernel(page + at, &mut byte) == 0 {
                break;
            }
            match byte[0] {
                0 if is_new => break,
                0 => {
                    is_new = true;
                    write!(self.out, "\n  and     ")?;
                }
                byte => {
                    is_new = false;
                    let letter = if (b' '..=b'~').contains(&byte) { char::from(byte) } else { '.' };
                    write!(self.out, "{letter}")?;
                }
            }
            at += 1;
        }
        writeln!(self.out)
    }

    pub(super) fn boot_info(&mut self) -> Done {
        let info = self.kernel_word(self.probe.kip() + word::BOOT_INFO * 8).unwrap_or(0);
        let magic = self.physical_word_at(info);
        if magic != Some(bootinfo::MAGIC) {
            return self.refuse(format_args!("at {info:x} there is no generic boot information"));
        }
        let of_header = |session: &Self, offset: usize| session.physical_word_at(info + offset as u64).unwrap_or(0);
        let size = of_header(self, offset_of!(bootinfo::Header, size_bytes));
        let records = of_header(self, offset_of!(bootinfo::Header, records));
        writeln!(self.out, "boot information at {info:x}, {size} bytes, {records} records")?;
        let mut at = info.wrapping_add(of_header(self, offset_of!(bootinfo::Header, first_record)));
        for _ in 0..records.min(DESCRIPTORS_MAX) {
            let of_record = |session: &Self, offset: usize| session.physical_word_at(at.wrapping_add(offset as u64));
            let Some(kind) = of_record(self, offset_of!(bootinfo::RecordHeader, kind)) else {
                return self.refuse(format_args!("  [not to be read]"));
            };
            let next = of_record(self, offset_of!(bootinfo::RecordHeader, next)).unwrap_or(0);
            write!(self.out, "  {at:10x} ")?;
            let cmdline = match kind {
                bootinfo::Module::KIND => {
                    let start = of_record(self, offset_of!(bootinfo::Module, start)).unwrap_or(0);
                    let bytes = of_record(self, offset_of!(bootinfo::Module, size_bytes)).unwrap_or(0);
                    write!(self.out, "module at {start:x}, {bytes} bytes")?;
                    of_record(self, offset_of!(bootinfo::Module, cmdline))
                }
                bootinfo::SimpleExec::KIND => {
                    let ip = of_record(self, offset_of!(bootinfo::SimpleExec, initial_ip)).unwrap_or(0);
                    let text = of_record(self, offset_of!(bootinfo::SimpleExec, text)).unwrap_or(0);
                    write!(self.out, "program at {text:x}, begins at {ip:x}")?;
                    of_record(self, offset_of!(bootinfo::SimpleExec, cmdline))
                }
                kind => {
                    write!(self.out, "record of kind {kind:x}")?;
                    None
                }
            };
            if let Some(offset) = cmdline.filter(|&offset| offset != 0) {
                self.physical_text(at.wrapping_add(offset))?;
            }
            writeln!(self.out)?;
            if next == 0 {
                break;
            }
            at = at.wrapping_add(next);
        }
        Ok(None)
    }

    fn physical_word_at(&self, at: u64) -> Option<Word> {
        let mut bytes = [0; size_of::<Word>()];
        (self.probe.read_physical(at, &mut bytes) == bytes.len()).then(|| Word::from_le_bytes(bytes))
    }

    /// Prints a text up to a zero byte, as far as it is there and not too long.
    fn physical_text(&mut self, at: u64) -> fmt::Result {
        const BYTES_MAX: u64 = 120;
        write!(self.out, ": ")?;
        for offset in 0..BYTES_MAX {
            let mut byte = [0];
            let read = self.probe.read_physical(at.wrapping_add(offset), &mut byte);
            if read == 0 || byte == [0] {
                break;
            }
            let letter = if (b' '..=b'~').contains(&byte[0]) { char::from(byte[0]) } else { '.' };
            write!(self.out, "{letter}")?;
        }
        Ok(())
    }
}
