//! What the plugin knows about an instruction from its bytes: enough of the encoding of 64-bit code to tell what is
//! privileged, what is locked, and what is a mark.

/// The first address of the kernel's half.
const KERNEL_HALF: u64 = 0xFFFF_8000_0000_0000;
/// Size of the page that user code executes in the kernel's half.
const PAGE_BYTES: u64 = 4096;

/// The bytes before the displacement of a mark: `nop dword ptr [rax + displacement]`.
const MARK_OPCODE: [u8; 3] = [0x0F, 0x1F, 0x80];
/// The upper half of the displacement of a mark; below it the kind of the mark, then its number.
const MARK_MAGIC: u32 = 0x4D4B;

/// Whose code an instruction is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The kernel's.
    Kernel,
    /// A user program's, the stubs of the system calls included.
    User,
}

/// An instruction of user code that the plugin obeys: a no-operation whose displacement is `4D4B` (hexadecimal), a byte
/// for the kind, a byte for a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// 1: a region begins. The number says how many entries of the kernel are an operation; 0: operations are marked.
    Begin(u8),
    /// 2: an operation begins, and the one before is over.
    Operation,
    /// 3: the operation is over; what comes now does not count.
    Rest,
    /// 4: the region ends.
    End,
    /// 5: what this processor does counts from here on. With the others that do so it is one operation of the region.
    BeginAlone,
    /// 6: it counts no more.
    EndAlone,
}

impl Mark {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let displacement = u32::from_le_bytes(*bytes.strip_prefix(&MARK_OPCODE)?.first_chunk()?);
        let [number, kind, ..] = displacement.to_le_bytes();
        match (displacement >> 16 == MARK_MAGIC, kind) {
            (true, 1) => Some(Self::Begin(number)),
            (true, 2) => Some(Self::Operation),
            (true, 3) => Some(Self::Rest),
            (true, 4) => Some(Self::End),
            (true, 5) => Some(Self::BeginAlone),
            (true, 6) => Some(Self::EndAlone),
            _ => None,
        }
    }
}

/// An instruction of the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instruction {
    /// Its virtual address.
    pub address: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Whose code it is.
    pub side: Side,
    /// Its name, if it is privileged, or loads a segment register, or makes the processor wait for all before it.
    pub privileged: Option<&'static str>,
    /// It locks memory against other processors.
    pub is_locked: bool,
    /// What it asks of the plugin.
    pub mark: Option<Mark>,
}

impl Instruction {
    /// The instruction with these bytes at `address`. `stubs` is the page that user code executes in the kernel's half.
    pub fn new(address: u64, bytes: &[u8], stubs: u64) -> Self {
        let is_stub = (stubs..stubs.saturating_add(PAGE_BYTES)).contains(&address);
        let side = if address >= KERNEL_HALF && !is_stub { Side::Kernel } else { Side::User };
        let parts = Parts::of(bytes);
        Self {
            address,
            bytes: bytes.len() as u64,
            side,
            privileged: parts.as_ref().and_then(Parts::privileged),
            is_locked: parts.as_ref().is_some_and(Parts::is_locked),
            mark: Mark::decode(bytes).filter(|_| side == Side::User),
        }
    }
}

/// The parts of an instruction (Intel SDM 2, Instruction Format).
struct Parts<'a> {
    has_lock: bool,
    /// The opcode without the escape byte.
    opcode: u8,
    /// The opcode follows the escape byte 0F.
    is_escaped: bool,
    /// What is behind the opcode.
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    /// `None` for what is cut off.
    fn of(bytes: &'a [u8]) -> Option<Self> {
        const LOCK: u8 = 0xF0;
        const PREFIXES: [u8; 11] = [LOCK, 0xF2, 0xF3, 0x2E, 0x36, 0x3E, 0x26, 0x64, 0x65, 0x66, 0x67];
        const REX: std::ops::RangeInclusive<u8> = 0x40..=0x4F;
        const ESCAPE: u8 = 0x0F;
        let prefixes = bytes.iter().take_while(|byte| PREFIXES.contains(byte)).count();
        let (prefixes, mut rest) = bytes.split_at(prefixes);
        if rest.first().is_some_and(|first| REX.contains(first)) {
            rest = &rest[1..];
        }
        let is_escaped = rest.first() == Some(&ESCAPE);
        if is_escaped {
            rest = &rest[1..];
        }
        let (&opcode, rest) = rest.split_first()?;
        Some(Self { has_lock: prefixes.contains(&LOCK), opcode, is_escaped, rest })
    }

    /// The fields of the byte behind the opcode: mode, register or extension of the opcode, register or memory.
    fn mod_rm(&self) -> (u8, u8, u8) {
        let byte = self.rest.first().copied().unwrap_or(0);
        (byte >> 6, byte >> 3 & 7, byte & 7)
    }

    fn is_memory(&self) -> bool {
        self.mod_rm().0 != 3
    }

    fn is_locked(&self) -> bool {
        let is_exchange = !self.is_escaped && matches!(self.opcode, 0x86 | 0x87);
        self.has_lock || (is_exchange && self.is_memory())
    }

    fn privileged(&self) -> Option<&'static str> {
        let (_, register, low) = self.mod_rm();
        if !self.is_escaped {
            return match self.opcode {
                0x8E => Some("mov to segment"),
                0xCF => Some("iret"),
                0xE4 | 0xE5 | 0xEC | 0xED => Some("in"),
                0xE6 | 0xE7 | 0xEE | 0xEF => Some("out"),
                0xF4 => Some("hlt"),
                0xFA => Some("cli"),
                0xFB => Some("sti"),
                _ => None,
            };
        }
        match self.opcode {
            0x00 => [None, None, Some("lldt"), Some("ltr")].get(usize::from(register)).copied().flatten(),
            0x01 if self.is_memory() => match register {
                2 => Some("lgdt"),
                3 => Some("lidt"),
                6 => Some("lmsw"),
                7 => Some("invlpg"),
                _ => None,
            },
            0x01 => match (register, low) {
                (1, 2) => Some("clac"),
                (1, 3) => Some("stac"),
                (2, 1) => Some("xsetbv"),
                (7, 0) => Some("swapgs"),
                _ => None,
            },
            0x06 => Some("clts"),
            0x07 => Some("sysret"),
            0x08 => Some("invd"),
            0x09 => Some("wbinvd"),
            0x20 => Some("mov from control register"),
            0x21 => Some("mov from debug register"),
            0x22 if register == 3 => Some("mov to cr3"),
            0x22 => Some("mov to control register"),
            0x23 => Some("mov to debug register"),
            0x30 => Some("wrmsr"),
            0x32 => Some("rdmsr"),
            0xA2 => Some("cpuid"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Instruction, Mark, Side};

    const KERNEL: u64 = 0xFFFF_FFFF_8060_0000;
    const STUBS: u64 = 0xFFFF_FFFF_FFB0_0000;

    fn kernel(bytes: &[u8]) -> Instruction {
        Instruction::new(KERNEL, bytes, STUBS)
    }

    #[test]
    fn privileged_instructions_have_names() {
        let rows: &[(&[u8], Option<&str>)] = &[
            (&[0x0F, 0x22, 0xD8], Some("mov to cr3")),
            (&[0x41, 0x0F, 0x22, 0xDB], Some("mov to cr3")),
            (&[0x0F, 0x22, 0xC0], Some("mov to control register")),
            (&[0x0F, 0x20, 0xD0], Some("mov from control register")),
            (&[0x48, 0x0F, 0x07], Some("sysret")),
            (&[0x48, 0xCF], Some("iret")),
            (&[0x0F, 0x30], Some("wrmsr")),
            (&[0x0F, 0x01, 0x3F], Some("invlpg")),
            (&[0x0F, 0x01, 0xF8], Some("swapgs")),
            (&[0x0F, 0x01, 0xCA], Some("clac")),
            (&[0x8E, 0xE8], Some("mov to segment")),
            (&[0x8C, 0xE8], None),
            (&[0xEE], Some("out")),
            (&[0xE4, 0x60], Some("in")),
            (&[0x0F, 0x00, 0xD8], Some("ltr")),
            (&[0x0F, 0x00, 0xC0], None),
            (&[0x0F, 0x05], None),
            (&[0x0F, 0xAE, 0x00], None),
            (&[0x48, 0x89, 0xE5], None),
            (&[0x48], None),
            (&[], None),
        ];
        for (bytes, name) in rows {
            assert_eq!(kernel(bytes).privileged, *name, "{bytes:X?}");
        }
    }

    #[test]
    fn locks_are_seen_where_the_prefix_is_left_out_too() {
        let rows: &[(&[u8], bool)] = &[
            (&[0xF0, 0x48, 0x0F, 0xB1, 0x0F], true),
            (&[0x66, 0xF0, 0x0F, 0xC1, 0x07], true),
            (&[0x48, 0x87, 0x07], true),
            (&[0x86, 0x07], true),
            (&[0x48, 0x87, 0xC3], false),
            (&[0x48, 0x0F, 0xB1, 0x0F], false),
        ];
        for (bytes, is_locked) in rows {
            assert_eq!(kernel(bytes).is_locked, *is_locked, "{bytes:X?}");
        }
    }

    #[test]
    fn the_stubs_are_user_code() {
        let side = |address| Instruction::new(address, &[0x90], STUBS).side;
        assert_eq!([side(0x1000), side(STUBS), side(STUBS + 4095)], [Side::User; 3]);
        assert_eq!([side(KERNEL), side(STUBS - 1), side(STUBS + 4096), side(0xFFFF_8000_0000_0000)], [Side::Kernel; 4]);
    }

    #[test]
    fn marks_are_obeyed_in_user_code_alone() {
        let bytes = |kind, number| [0x0F, 0x1F, 0x80, number, kind, 0x4B, 0x4D];
        let mark = |kind, number| Instruction::new(0x1000, &bytes(kind, number), STUBS).mark;
        assert_eq!(mark(1, 2), Some(Mark::Begin(2)));
        assert_eq!(mark(2, 0), Some(Mark::Operation));
        assert_eq!(mark(3, 0), Some(Mark::Rest));
        assert_eq!(mark(4, 0), Some(Mark::End));
        assert_eq!(mark(5, 0), Some(Mark::BeginAlone));
        assert_eq!(mark(6, 0), Some(Mark::EndAlone));
        assert_eq!(mark(7, 0), None);
        assert_eq!(Instruction::new(0x1000, &[0x0F, 0x1F, 0x80, 0, 1, 0, 0], STUBS).mark, None);
        assert_eq!(kernel(&bytes(1, 2)).mark, None);
    }
}
