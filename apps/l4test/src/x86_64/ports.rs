//! Instructions that use I/O ports, and others that a program may only execute if it may use all ports.

use core::arch::naked_asm;

use l4::Word;

use super::{Raise, raise};

/// An instruction that uses ports.
pub struct PortAccess {
    /// What it is, for messages.
    pub name: &'static str,
    /// The function that has it.
    run: unsafe extern "C" fn(Word) -> Word,
    /// log2 of the number of ports.
    pub size_log2: u32,
    /// The port that it names itself; otherwise any.
    pub immediate: Option<u16>,
}

/// Bytes of the functions before their instruction.
const IP_OFFSET: Word = 19;

/// The port that instructions name themselves.
const IMMEDIATE: u16 = 0xE0;

impl PortAccess {
    /// Uses `port`, or the port that the instruction names. The instruction is at [`Self::ip`].
    ///
    /// # Panics
    /// For ports at which a device may be.
    pub fn execute(&self, port: u16) -> Word {
        assert!(matches!(port, 0x9000..=0x9FFF | IMMEDIATE | 0xFFFF), "only ports without devices are used");
        // SAFETY: nothing is there that could change memory; what comes from the port goes to the function's own stack.
        unsafe { (self.run)(port.into()) }
    }

    /// Where the instruction is.
    pub fn ip(&self) -> Word {
        self.run as *const () as Word + IP_OFFSET
    }
}

macro_rules! port_access {
    ($name:literal, $size_log2:literal, $immediate:expr, $bytes:literal) => {{
        #[unsafe(naked)]
        unsafe extern "C" fn run(_port: Word) -> Word {
            naked_asm!(
                "sub rsp, 64",
                "mov edx, edi",
                "mov rdi, rsp",
                "mov rsi, rsp",
                "mov ecx, 2",
                "xor eax, eax",
                concat!(".byte ", $bytes),
                "add rsp, 64",
                "ret",
            )
        }
        PortAccess { name: $name, run, size_log2: $size_log2, immediate: $immediate }
    }};
}

/// One of each kind and size. The first one reads a byte.
pub const PORT_ACCESSES: [PortAccess; 21] = [
    port_access!("in al, dx", 0, None, "0xEC"),
    port_access!("in ax, dx", 1, None, "0x66, 0xED"),
    port_access!("in eax, dx", 2, None, "0xED"),
    port_access!("out dx, al", 0, None, "0xEE"),
    port_access!("out dx, ax", 1, None, "0x66, 0xEF"),
    port_access!("out dx, eax", 2, None, "0xEF"),
    port_access!("insb", 0, None, "0x6C"),
    port_access!("insw", 1, None, "0x66, 0x6D"),
    port_access!("insd", 2, None, "0x6D"),
    port_access!("outsb", 0, None, "0x6E"),
    port_access!("outsw", 1, None, "0x66, 0x6F"),
    port_access!("outsd", 2, None, "0x6F"),
    port_access!("rep insb", 0, None, "0xF3, 0x6C"),
    port_access!("rep insw", 1, None, "0xF3, 0x66, 0x6D"),
    port_access!("rep outsd", 2, None, "0xF3, 0x6F"),
    port_access!("in al, imm", 0, Some(IMMEDIATE), "0xE4, 0xE0"),
    port_access!("in ax, imm", 1, Some(IMMEDIATE), "0x66, 0xE5, 0xE0"),
    port_access!("in eax, imm", 2, Some(IMMEDIATE), "0xE5, 0xE0"),
    port_access!("out imm, al", 0, Some(IMMEDIATE), "0xE6, 0xE0"),
    port_access!("out imm, ax", 1, Some(IMMEDIATE), "0x66, 0xE7, 0xE0"),
    port_access!("out imm, eax", 2, Some(IMMEDIATE), "0xE7, 0xE0"),
];

/// A byte from port 0x9000 to an address that is not canonical, and one from an address that is not to that port.
pub const STRINGS_NOWHERE: [Raise; 2] = [
    raise!("insb", 13, error [0; 2], ip 15, skip 1:
        "mov edx, 0x9000", "movabs rdi, 0x8000000000000000", "insb"),
    raise!("outsb", 13, error [0; 2], ip 15, skip 1:
        "mov edx, 0x9000", "movabs rsi, 0x8000000000000000", "outsb"),
];

/// The two bytes of "in al, imm".
pub const IN_IMMEDIATE: [u8; 2] = [0xE4, 0xE0];

/// Instructions that are exceptions without the right to all ports: those of the interrupt flag, and uses of ports with
/// prefixes that no kernel has to know (amd64 ABI, Exception message).
pub const EXCEPTIONS_WITHOUT_PORTS: [Raise; 5] = [
    raise!("cli", 13, error [0; 2], ip 0, skip 1: "cli"),
    raise!("sti", 13, error [0; 2], ip 0, skip 1: "sti"),
    raise!("repne insb", 13, error [0; 2], ip 13, skip 2:
        "mov edx, 0x9000", "mov ecx, 1", "mov rdi, rsp", ".byte 0xF2, 0x6C"),
    raise!("rex in eax, dx", 13, error [0; 2], ip 5, skip 2: "mov edx, 0x9000", ".byte 0x48, 0xED"),
    raise!("segment prefix in al, dx", 13, error [0; 2], ip 5, skip 2: "mov edx, 0x9000", ".byte 0x2E, 0xEC"),
];
