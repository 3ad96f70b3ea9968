//! Instructions that use I/O ports, from their bytes (Intel SDM 2A, IN, INS, OUT, OUTS).

/// An access to I/O ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortAccess {
    /// The first port.
    pub port: PortNumber,
    /// log2 of the number of ports: 0, 1 or 2. As many bytes go from or to memory.
    pub size_log2: u32,
    /// Which register has the address of that memory, if it is any.
    pub memory: Option<MemoryAt>,
}

/// Where an instruction has its port from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortNumber {
    /// Itself.
    Immediate(u8),
    /// The register DX.
    Dx,
}

/// Where a string of an access is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryAt {
    /// At RDI: what was read goes there.
    Rdi,
    /// At RSI: what is written comes from there.
    Rsi,
}

const REPEAT: u8 = 0xF3;
const OPERAND_SIZE: u8 = 0x66;

/// The longest such instruction.
pub const LEN_MAX: usize = 4;

impl PortAccess {
    /// The access of the instruction that these bytes begin with. `None` for other instructions, for those with other
    /// prefixes than a repetition and then an operand size, and where a byte is missing.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let byte = |at: usize| bytes.get(at).copied();
        let after = |at: usize, prefix| Some(at + usize::from(byte(at)? == prefix));
        let sized = after(0, REPEAT)?;
        let at = after(sized, OPERAND_SIZE)?;
        let opcode = byte(at)?;
        let port = match opcode {
            0xE4..=0xE7 => PortNumber::Immediate(byte(at + 1)?),
            0xEC..=0xEF | 0x6C..=0x6F => PortNumber::Dx,
            _ => return None,
        };
        let size_log2 = match opcode & 1 {
            0 => 0,
            _ if at > sized => 1,
            _ => 2,
        };
        let memory = match opcode {
            0x6C | 0x6D => Some(MemoryAt::Rdi),
            0x6E | 0x6F => Some(MemoryAt::Rsi),
            _ => None,
        };
        Some(Self { port, size_log2, memory })
    }
}

#[cfg(test)]
mod tests {
    use super::{MemoryAt, PortAccess, PortNumber};

    /// The bytes are such an instruction, whatever follows, and not without the last of them.
    #[track_caller]
    fn check(bytes: &[u8], port: PortNumber, size_log2: u32) {
        let decoded = PortAccess::decode(bytes);
        assert_eq!(decoded.map(|access| (access.port, access.size_log2)), Some((port, size_log2)), "{bytes:x?}");
        assert_eq!(PortAccess::decode(&[bytes, &[0x66, 0xF3]].concat()), decoded, "{bytes:x?}");
        for len in 0..bytes.len() {
            assert_eq!(PortAccess::decode(&bytes[..len]), None, "{len} of {bytes:x?}");
        }
    }

    #[test]
    fn opcodes_say_size_and_port() {
        use PortNumber::{Dx, Immediate};
        for (opcode, size_log2) in [(0xE4, 0), (0xE6, 0), (0xE5, 2), (0xE7, 2)] {
            check(&[opcode, 0x80], Immediate(0x80), size_log2);
        }
        for (opcode, size_log2) in
            [(0xEC, 0), (0xEE, 0), (0x6C, 0), (0x6E, 0), (0xED, 2), (0xEF, 2), (0x6D, 2), (0x6F, 2)]
        {
            check(&[opcode], Dx, size_log2);
        }
    }

    #[test]
    fn prefixes_make_words_and_repeat() {
        use PortNumber::{Dx, Immediate};
        for (opcode, size_log2) in [(0xEC, 0), (0xED, 1), (0xEF, 1), (0x6D, 1), (0x6E, 0), (0x6F, 1)] {
            check(&[0x66, opcode], Dx, size_log2);
            check(&[0xF3, 0x66, opcode], Dx, size_log2);
        }
        check(&[0x66, 0xE5, 0xFF], Immediate(0xFF), 1);
        check(&[0xF3, 0x6C], Dx, 0);
        check(&[0xF3, 0x6F], Dx, 2);
    }

    #[test]
    fn strings_are_in_memory() {
        let check = |bytes: &[u8], memory| {
            assert_eq!(PortAccess::decode(bytes).map(|access| access.memory), Some(memory), "{bytes:x?}");
        };
        check(&[0x6C], Some(MemoryAt::Rdi));
        check(&[0xF3, 0x66, 0x6D], Some(MemoryAt::Rdi));
        check(&[0x6E], Some(MemoryAt::Rsi));
        check(&[0xF3, 0x6F], Some(MemoryAt::Rsi));
        check(&[0xEC], None);
        check(&[0xE7, 0x80], None);
    }

    #[test]
    fn all_else_is_something_else() {
        let others: [&[u8]; 14] = [
            &[0xF4],
            &[0xFA],
            &[0xFB],
            &[0xF2, 0x6C],
            &[0x66, 0xF3, 0x6D],
            &[0xF3, 0xF3, 0x6D],
            &[0x66, 0x66, 0xED],
            &[0x48, 0xED],
            &[0x67, 0xEC],
            &[0xF0, 0xEC],
            &[0x64, 0x6E],
            &[0x0F, 0x30],
            &[0xCC],
            &[],
        ];
        for bytes in others {
            assert_eq!(PortAccess::decode(bytes), None, "{bytes:x?}");
        }
        let known = (0..=u8::MAX).filter(|opcode| PortAccess::decode(&[*opcode, 0]).is_some());
        assert_eq!(known.count(), 12);
    }
}
