//! Memory and instructions.

use core::fmt::{self, Write};

use kcore::machine::{Machine, SpaceRef};

use crate::menu::Done;
use crate::session::Session;

/// Bytes of a line of a memory dump, and of all of them.
const LINE_BYTES: usize = 16;
const DUMP_BYTES: u64 = 256;
/// Instructions that are shown at once, and the longest one (Intel SDM 2A, Instruction Format).
const INSTRUCTIONS: u64 = 16;
const INSTRUCTION_BYTES: usize = 15;

/// Whose memory it is.
#[derive(Clone, Copy)]
enum Whose {
    Kernel,
    Space(SpaceRef),
    Physical,
}

impl<M: Machine + 'static> Session<'_, '_, M> {
    fn read(&self, whose: Whose, address: u64, bytes: &mut [u8]) -> usize {
        match whose {
            Whose::Kernel => self.probe.read_kernel(address, bytes),
            Whose::Space(space) => self.read_space(space, address, bytes),
            Whose::Physical => self.probe.read_physical(address, bytes),
        }
    }

    pub(super) fn dump_memory(&mut self) -> Done {
        let whose = match self.ask_key("the kernel's, or physical", "kp")? {
            'p' => Whose::Physical,
            _ => Whose::Kernel,
        };
        self.dump(whose)
    }

    pub(super) fn dump_memory_of_space(&mut self) -> Done {
        let space = self.ask_space()?;
        self.dump(Whose::Space(space))
    }

    fn dump(&mut self, whose: Whose) -> Done {
        let from = self.ask_address("address", self.state.memory_at)? & !(LINE_BYTES as u64 - 1);
        let len = self.ask_number("bytes", DUMP_BYTES)?;
        let mut done = 0;
        while done < len {
            let at = from.wrapping_add(done);
            self.dump_line(whose, at)?;
            done += LINE_BYTES as u64;
        }
        self.state.memory_at = from.wrapping_add(done);
        Ok(None)
    }

    fn dump_line(&mut self, whose: Whose, at: u64) -> fmt::Result {
        let mut bytes = [0; LINE_BYTES];
        let read = self.read(whose, at, &mut bytes);
        write!(self.out, "{at:016x} ")?;
        let size = usize::from(self.state.word_bytes);
        for (index, word) in bytes.chunks(size).enumerate() {
            if (index + 1) * size > read {
                write!(self.out, " {:->width$}", "", width = 2 * size)?;
                continue;
            }
            let value = word.iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
            write!(self.out, " {value:0width$x}", width = 2 * size)?;
        }
        write!(self.out, "  ")?;
        for &byte in &bytes[..read] {
            let letter = if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' };
            write!(self.out, "{letter}")?;
        }
        writeln!(self.out)
    }

    pub(super) fn disassemble(&mut self) -> Done {
        let whose = match self.ask_key("the kernel's, or a space's", "ks")? {
            's' => Whose::Space(self.ask_space()?),
            _ => Whose::Kernel,
        };
        let entry = self.probe.entry(self.probe.cpu()).map_or(0, |entry| entry.ip);
        let default = if self.state.code_at == 0 { entry } else { self.state.code_at };
        let mut at = self.ask_address("address", default)?;
        let count = self.ask_number("instructions", INSTRUCTIONS)?;
        for _ in 0..count {
            let mut bytes = [0; INSTRUCTION_BYTES];
            let read = self.read(whose, at, &mut bytes);
            if read == 0 {
                writeln!(self.out, "{at:016x}  [not mapped]")?;
                break;
            }
            let mut place = arrayvec::ArrayString::<160>::new();
            let _ = write!(place, "{}", self.address(at));
            let mut text = arrayvec::ArrayString::<120>::new();
            let len = self.probe.disassemble(&bytes[..read], &mut text);
            match len {
                Some(_) => writeln!(self.out, "{place}\n        {text}")?,
                None => writeln!(self.out, "{place}\n        [no instruction: {:02x}]", bytes[0])?,
            }
            at = at.wrapping_add(len.unwrap_or(1).max(1) as u64);
        }
        self.state.code_at = at;
        Ok(None)
    }
}
