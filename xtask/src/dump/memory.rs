//! The memory of a machine: as QEMU's `dump-guest-memory` writes it, an ELF core file with a segment for each part of physical
//! memory, and notes with the registers of each processor; or the files in which a running machine has it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use kdb::{Control, Registers};
use kformats::trace;
use object::LittleEndian as LE;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader};

use crate::qemu::MemoryPart;

/// A processor's registers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Processor {
    /// The general ones.
    pub registers: Registers,
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Flags.
    pub flags: u64,
    /// Whether it was in user mode.
    pub is_user: bool,
    /// Control registers, without EFER.
    pub control: Control,
}

/// A part of physical memory.
struct Part {
    begin: u64,
    len: u64,
    /// Where its bytes are, and from where on there.
    place: Place,
    offset: u64,
}

/// Where bytes are.
enum Place {
    /// In the dump.
    Dump,
    /// In a file.
    File(File),
}

/// The memory.
pub struct Memory {
    /// The whole dump.
    dump: Vec<u8>,
    parts: Vec<Part>,
    /// The processors; those of a running machine are not known.
    pub processors: Vec<Processor>,
}

impl Memory {
    /// Reads a dump.
    pub fn open(file: &Path) -> Result<Self> {
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        Self::parse(bytes).with_context(|| format!("{} is no dump of dump-guest-memory", file.display()))
    }

    /// The memory of a machine that has it in files. What is read is what is there at that moment; the bytes of an aligned
    /// word belong together.
    pub fn of_machine(parts: Vec<MemoryPart>) -> Result<Self> {
        let open = |part: MemoryPart| {
            let file = File::open(&part.file).with_context(|| format!("cannot read {}", part.file.display()))?;
            Ok(Part { begin: part.begin, len: part.bytes, place: Place::File(file), offset: part.offset })
        };
        let parts = parts.into_iter().map(open).collect::<Result<_>>()?;
        Ok(Self { dump: Vec::new(), parts, processors: Vec::new() })
    }

    fn parse(bytes: Vec<u8>) -> Result<Self> {
        let (mut parts, mut processors, mut controls) = (Vec::new(), Vec::new(), Vec::new());
        {
            let data = bytes.as_slice();
            let not_elf = |error| anyhow!("{error}");
            let header = FileHeader64::<LE>::parse(data).map_err(not_elf)?;
            for segment in header.program_headers(LE, data).map_err(not_elf)? {
                if segment.p_type(LE) == elf::PT_LOAD {
                    let (offset, len) = (segment.p_offset(LE), segment.p_filesz(LE));
                    let in_file = usize::try_from(offset)?..usize::try_from(offset.saturating_add(len))?;
                    data.get(in_file).context("a part of the memory is cut off")?;
                    parts.push(Part { begin: segment.p_paddr(LE), len, place: Place::Dump, offset });
                }
                let Some(mut notes) = segment.notes(LE, data).map_err(not_elf)? else { continue };
                while let Some(note) = notes.next().map_err(not_elf)? {
                    match (note.name(), note.n_type(LE)) {
                        (b"CORE", elf::NT_PRSTATUS) => processors.extend(status(note.desc())),
                        (b"QEMU", _) => controls.extend(control(note.desc())),
                        _ => {}
                    }
                }
            }
        }
        for (processor, control) in processors.iter_mut().zip(controls) {
            processor.control = control;
        }
        Ok(Self { dump: bytes, parts, processors })
    }

    /// Reads physical memory; how many bytes are there, from the first on.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let at = address.wrapping_add(done as u64);
            let Some(part) = self.parts.iter().find(|part| at.wrapping_sub(part.begin) < part.len) else { break };
            let inside = at - part.begin;
            let count = (part.len - inside).min((bytes.len() - done) as u64) as usize;
            let (bytes, from) = (&mut bytes[done..done + count], part.offset + inside);
            match &part.place {
                Place::Dump => bytes.copy_from_slice(&self.dump[from as usize..][..count]),
                // An emulator that is about to start has made its files, but not yet as long as they will be.
                Place::File(file) if file.read_exact_at(bytes, from).is_err() => break,
                Place::File(_) => {}
            }
            done += count;
        }
        done
    }

    /// A word of it.
    pub fn word(&self, address: u64) -> Option<u64> {
        let mut word = [0; 8];
        (self.read(address, &mut word) == word.len()).then(|| u64::from_le_bytes(word))
    }
}

impl trace::Memory for Memory {
    fn load(&self, at: u64) -> Option<u64> {
        self.word(at)
    }
}

fn word(desc: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*desc.get(at..)?.first_chunk()?))
}

/// Where the registers begin in the status of a process on x86-64.
const STATUS_REGISTERS: usize = 112;

fn status(desc: &[u8]) -> Option<Processor> {
    let register = |index: usize| word(desc, STATUS_REGISTERS + index * 8);
    Some(Processor {
        registers: Registers {
            r15: register(0)?,
            r14: register(1)?,
            r13: register(2)?,
            r12: register(3)?,
            rbp: register(4)?,
            rbx: register(5)?,
            r11: register(6)?,
            r10: register(7)?,
            r9: register(8)?,
            r8: register(9)?,
            rax: register(10)?,
            rcx: register(11)?,
            rdx: register(12)?,
            rsi: register(13)?,
            rdi: register(14)?,
        },
        ip: register(16)?,
        is_user: register(17)? & 3 != 0,
        flags: register(18)?,
        sp: register(19)?,
        control: Control::default(),
    })
}

/// Where QEMU's own note has the control registers: behind eighteen registers and ten segments.
const QEMU_CONTROL: usize = 8 + 18 * 8 + 10 * 24;

fn control(desc: &[u8]) -> Option<Control> {
    let cr = |index: usize| word(desc, QEMU_CONTROL + index * 8);
    Some(Control { cr0: cr(0)?, cr2: cr(2)?, cr3: cr(3)?, cr4: cr(4)?, efer: 0 })
}

#[cfg(test)]
mod tests {
    use super::Memory;

    /// A core file with 32 bytes of memory at 0x1000 and a status of one processor.
    fn file() -> Vec<u8> {
        let mut status = vec![0; 336];
        status[112 + 16 * 8..][..8].copy_from_slice(&0x1234u64.to_le_bytes());
        status[112 + 17 * 8..][..8].copy_from_slice(&0x2Bu64.to_le_bytes());
        let mut note = [5u32, status.len() as u32, 1].map(u32::to_le_bytes).concat();
        note.extend(b"CORE\0\0\0\0");
        note.extend(&status);
        let headers = 64 + 2 * 56;
        let header = |kind: u32, offset: usize, phys: u64, len: usize| {
            let mut bytes = [kind, 0].map(u32::to_le_bytes).concat();
            for word in [offset as u64, 0, phys, len as u64, len as u64, 0] {
                bytes.extend(word.to_le_bytes());
            }
            bytes
        };
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(16, 0);
        bytes.extend(4u16.to_le_bytes());
        bytes.extend(62u16.to_le_bytes());
        bytes.extend(1u32.to_le_bytes());
        for word in [0u64, 64, 0] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(0u32.to_le_bytes());
        for half in [64u16, 56, 2, 0, 0, 0] {
            bytes.extend(half.to_le_bytes());
        }
        bytes.extend(header(4, headers, 0, note.len()));
        bytes.extend(header(1, headers + note.len(), 0x1000, 32));
        bytes.extend(&note);
        bytes.extend(1..=32);
        bytes
    }

    #[test]
    fn memory_and_processors_are_found() {
        let memory = Memory::parse(file()).expect("a sound file");
        assert_eq!(
            (memory.word(0x1000), memory.word(0x1018)),
            (Some(0x0807_0605_0403_0201), Some(0x201F_1E1D_1C1B_1A19))
        );
        assert_eq!((memory.word(0xFFF), memory.word(0x1019), memory.word(u64::MAX)), (None, None, None));
        assert_eq!(memory.processors.len(), 1);
        assert_eq!((memory.processors[0].ip, memory.processors[0].is_user), (0x1234, true));
    }

    #[test]
    fn what_is_no_dump_is_refused() {
        assert!(Memory::parse(Vec::new()).is_err() && Memory::parse(vec![0x7F; 200]).is_err());
        let mut cut = file();
        cut.truncate(cut.len() - 1);
        assert!(Memory::parse(cut).is_err_and(|error| error.to_string().contains("cut off")));
    }
}
