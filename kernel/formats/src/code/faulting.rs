//! Instructions that raise a general-protection fault in user code and that the kernel settles itself (amd64 ABI,
//! Exception message): access to model-specific registers, and loads of segment registers.

/// The longest instruction.
pub const LEN_MAX: usize = 15;

/// An instruction that the kernel may settle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Faulting {
    /// What it does.
    pub kind: Kind,
    /// Bytes from its first prefix to the next instruction.
    pub len: usize,
}

/// What such an instruction does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// RDMSR.
    ReadMsr,
    /// WRMSR.
    WriteMsr,
    /// Loads a segment register.
    LoadSegment(Source),
}

/// Where a selector comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// A general register: only the selector can be at fault.
    Register,
    /// Memory, which can be at fault as well.
    Memory,
}

impl Faulting {
    /// The instruction that these bytes begin with, if it is one of those and all of it is there.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = &bytes[..bytes.len().min(LEN_MAX)];
        let opcode_at = skip_prefixes(bytes);
        let (kind, opcode_len) = decode_opcode(bytes.get(opcode_at..)?)?;
        let len = opcode_at + opcode_len;
        (len <= bytes.len()).then_some(Self { kind, len })
    }
}

/// Where the opcode is: behind prefixes of segment, operand size, address size and repetition, and REX, which is last.
fn skip_prefixes(bytes: &[u8]) -> usize {
    const LEGACY: [u8; 10] = [0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF2, 0xF3];
    let count = bytes.iter().take_while(|byte| LEGACY.contains(byte)).count();
    let is_rex = bytes.get(count).is_some_and(|byte| byte >> 4 == 0x4);
    count + usize::from(is_rex)
}

/// The instruction without prefixes, and its length.
fn decode_opcode(bytes: &[u8]) -> Option<(Kind, usize)> {
    let pop = Kind::LoadSegment(Source::Memory);
    match *bytes {
        [0x0F, 0x32, ..] => Some((Kind::ReadMsr, 2)),
        [0x0F, 0x30, ..] => Some((Kind::WriteMsr, 2)),
        [0x0F, 0xA1 | 0xA9, ..] => Some((pop, 2)),
        // Not in 64-bit mode, where they are invalid; the ABI lists them.
        [0x07 | 0x17 | 0x1F, ..] => Some((pop, 1)),
        [0x8E, ref operand @ ..] => {
            let modrm = *operand.first()?;
            // `cs` and the two registers that do not exist are invalid.
            let is_loadable = matches!(modrm >> 3 & 7, 0 | 2..=5);
            let source = if modrm >> 6 == 3 { Source::Register } else { Source::Memory };
            is_loadable.then_some((Kind::LoadSegment(source), 1 + operand_len(modrm, operand.get(1).copied())?))
        }
        _ => None,
    }
}

/// Bytes of a ModR/M operand: the byte itself, a scale-index-base byte, which comes next, and a displacement (Intel SDM
/// 2A, Addressing-Mode Encoding of ModR/M and SIB Bytes). Sizes are the same with 64-bit and with 32-bit addresses.
fn operand_len(modrm: u8, next: Option<u8>) -> Option<usize> {
    const HAS_SIB: u8 = 4;
    const NO_BASE: u8 = 5;
    let (mode, rm) = (modrm >> 6, modrm & 7);
    if mode == 3 {
        return Some(1);
    }
    let (sib, base) = if rm == HAS_SIB { (1, next? & 7) } else { (0, rm) };
    let displacement = match mode {
        0 if base == NO_BASE => 4,
        0 => 0,
        1 => 1,
        _ => 4,
    };
    Some(1 + sib + displacement)
}

#[cfg(test)]
mod tests {
    use super::{Faulting, Kind, LEN_MAX, Source};

    const FROM_REGISTER: Kind = Kind::LoadSegment(Source::Register);
    const FROM_MEMORY: Kind = Kind::LoadSegment(Source::Memory);

    /// The bytes are one instruction: whatever follows, and not if the last byte is missing.
    #[track_caller]
    fn check(bytes: &[u8], kind: Kind) {
        let decoded = Some(Faulting { kind, len: bytes.len() });
        assert_eq!(Faulting::decode(bytes), decoded, "{bytes:x?}");
        for next in [0x00, 0x05, 0x25, 0xC3, 0xFF] {
            let code = [bytes, &[next; LEN_MAX]].concat();
            assert_eq!(Faulting::decode(&code), decoded, "{code:x?}");
        }
        for len in 0..bytes.len() {
            assert_eq!(Faulting::decode(&bytes[..len]), None, "{len} bytes of {bytes:x?}");
        }
    }

    #[test]
    fn msr_instructions_are_two_bytes() {
        check(&[0x0F, 0x32], Kind::ReadMsr);
        check(&[0x0F, 0x30], Kind::WriteMsr);
        check(&[0x48, 0x0F, 0x32], Kind::ReadMsr);
    }

    #[test]
    fn selectors_come_from_registers() {
        check(&[0x8E, 0xD8], FROM_REGISTER); // mov ds, eax
        check(&[0x8E, 0xC7], FROM_REGISTER); // mov es, edi
        check(&[0x8E, 0xD0], FROM_REGISTER); // mov ss, eax
        check(&[0x8E, 0xE4], FROM_REGISTER); // mov fs, esp
        check(&[0x8E, 0xED], FROM_REGISTER); // mov gs, ebp
        check(&[0x48, 0x8E, 0xD8], FROM_REGISTER); // mov ds, rax
        check(&[0x41, 0x8E, 0xD8], FROM_REGISTER); // mov ds, r8d
        check(&[0x66, 0x8E, 0xE8], FROM_REGISTER); // mov gs, ax
    }

    #[test]
    fn selectors_come_from_memory_of_any_form() {
        check(&[0x8E, 0x18], FROM_MEMORY); // mov ds, [rax]
        check(&[0x8E, 0x58, 0x10], FROM_MEMORY); // mov ds, [rax + 16]
        check(&[0x8E, 0x98, 0, 1, 0, 0], FROM_MEMORY); // mov ds, [rax + 256]
        check(&[0x8E, 0x1D, 0, 1, 0, 0], FROM_MEMORY); // mov ds, [rip + 256]
        check(&[0x8E, 0x1C, 0x24], FROM_MEMORY); // mov ds, [rsp]
        check(&[0x8E, 0x5C, 0x24, 8], FROM_MEMORY); // mov ds, [rsp + 8]
        check(&[0x8E, 0x9C, 0x24, 0, 1, 0, 0], FROM_MEMORY); // mov ds, [rsp + 256]
        check(&[0x8E, 0x1C, 0x25, 0, 1, 0, 0], FROM_MEMORY); // mov ds, [256]
        check(&[0x8E, 0x5D, 0], FROM_MEMORY); // mov ds, [rbp]
        check(&[0x41, 0x8E, 0x5D, 0], FROM_MEMORY); // mov ds, [r13]
        check(&[0x41, 0x8E, 0x1C, 0x24], FROM_MEMORY); // mov ds, [r12]
        check(&[0x67, 0x8E, 0x18], FROM_MEMORY); // mov ds, [eax]
        check(&[0x64, 0x66, 0x48, 0x8E, 0x2C, 0x25, 0, 0, 0, 0], FROM_MEMORY); // mov gs, fs:[0]
    }

    #[test]
    fn selectors_come_from_the_stack() {
        check(&[0x0F, 0xA1], FROM_MEMORY);
        check(&[0x0F, 0xA9], FROM_MEMORY);
        check(&[0x66, 0x0F, 0xA9], FROM_MEMORY);
        check(&[0x48, 0x0F, 0xA1], FROM_MEMORY);
        for opcode in [0x07, 0x17, 0x1F] {
            check(&[opcode], FROM_MEMORY);
        }
    }

    #[test]
    fn other_instructions_are_left_alone() {
        let others: &[&[u8]] = &[
            &[0xF4],                   // hlt
            &[0x8E, 0xC8],             // mov cs, eax
            &[0x8E, 0xF0],             // mov ?, eax
            &[0x8C, 0xD8],             // mov eax, ds
            &[0x0F, 0x31],             // rdtsc
            &[0x0F, 0x33],             // rdpmc
            &[0x0F, 0xA0],             // push fs
            &[0xF0, 0x0F, 0x32],       // lock rdmsr
            &[0x48, 0x48, 0x8E, 0xD8], // a REX that is no prefix any more
            &[0xCD, 0x0F, 0x32],       // int 15
            &[0x66; 20],
        ];
        for bytes in others {
            assert_eq!(Faulting::decode(bytes), None, "{bytes:x?}");
        }
    }

    #[test]
    fn an_instruction_ends_within_its_longest_form() {
        let padded = |prefixes: usize| [&vec![0x66; prefixes][..], &[0x8E, 0x98, 0, 1, 0, 0]].concat();
        check(&padded(9), FROM_MEMORY);
        assert_eq!(Faulting::decode(&padded(10)), None);
    }
}
