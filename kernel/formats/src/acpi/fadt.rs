//! Switching off and starting again, and a timer (ACPI, Fixed ACPI Description Table; Sleeping and Resume).
//!
//! The table has registers that all such machines have, and leads to the DSDT, of whose byte code one name is looked for:
//! `_S5_`, which says what to write to these registers.

use super::{Error, HEADER_BYTES, Root, Signature, read_table};
use crate::le::{u16_at, u32_at, u64_at};
use crate::multiboot::Physical;

/// Its signature.
pub const SIGNATURE: Signature = Signature(*b"FACP");
const DSDT_SIGNATURE: Signature = Signature(*b"DSDT");

/// Where a register is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Register {
    /// In physical memory.
    Memory(u64),
    /// At a port.
    Port(u16),
}

impl Register {
    /// The register that a generic address structure names; `None` for address 0 and for other kinds.
    fn read(table: &[u8], at: usize) -> Option<Self> {
        const MEMORY: u8 = 0;
        const PORT: u8 = 1;
        let address = u64_at(table, at + 4).filter(|address| *address != 0)?;
        match *table.get(at)? {
            MEMORY => Some(Self::Memory(address)),
            PORT => u16::try_from(address).ok().map(Self::Port),
            _ => None,
        }
    }
}

/// What the table says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fadt {
    dsdt: u64,
    /// The port by which the firmware is told to leave the machine to who uses these tables, and what it is told; `None` if
    /// it has.
    pub enable: Option<(u16, u8)>,
    /// The ports of the power management control registers, of 16 bits: one or two.
    pub control: [Option<u16>; 2],
    /// The port of the timer, of 24 bits at least.
    pub timer: Option<u16>,
    /// The register that takes their place on machines without them, of 8 bits.
    pub sleep_control: Option<Register>,
    /// The register of 8 bits that starts the machine again, and what is written to it.
    pub reset: Option<(Register, u8)>,
}

/// What to write to the control registers to switch off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SleepTypes(pub [u8; 2]);

impl SleepTypes {
    /// In a control register: the type and that it begins, bits that others have left alone.
    pub fn control(self, index: usize, before: u16) -> u16 {
        const ENABLE: u16 = 1 << 13;
        before & !(0b111 << 10) | u16::from(self.0[index] & 0b111) << 10 | ENABLE
    }

    /// In the register of machines without control registers.
    pub fn sleep_control(self) -> u8 {
        const ENABLE: u8 = 1 << 5;
        (self.0[0] & 0b111) << 2 | ENABLE
    }
}

impl Fadt {
    /// The table of the machine with this list of tables.
    ///
    /// # Errors
    /// All of [`Error`] but [`Error::NoRoot`].
    pub fn find(root: &Root, memory: &impl Physical) -> Result<Self, Error> {
        Self::of_table(root.table(memory, SIGNATURE)?).ok_or(Error::BadSize(SIGNATURE))
    }

    fn of_table(table: &[u8]) -> Option<Self> {
        const DSDT: usize = 40;
        const COMMAND: usize = 48;
        const ENABLE: usize = 52;
        const CONTROL: [usize; 2] = [64, 68];
        const TIMER: usize = 76;
        const FLAGS: usize = 112;
        const RESET: usize = 116;
        const RESET_VALUE: usize = 128;
        const WIDE_DSDT: usize = 140;
        const SLEEP_CONTROL: usize = 244;
        const HAS_RESET: u32 = 1 << 10;
        const IS_REDUCED: u32 = 1 << 20;
        let port = |at| u32_at(table, at).and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
        let flags = u32_at(table, FLAGS)?;
        let has = |flag| flags & flag != 0;
        let wide = u64_at(table, WIDE_DSDT).filter(|address| *address != 0);
        let enable = *table.get(ENABLE)?;
        let reset = Register::read(table, RESET).zip(table.get(RESET_VALUE).copied());
        Some(Self {
            dsdt: wide.unwrap_or(u32_at(table, DSDT)?.into()),
            enable: port(COMMAND).filter(|_| enable != 0).map(|port| (port, enable)),
            timer: port(TIMER).filter(|_| !has(IS_REDUCED)),
            control: if has(IS_REDUCED) { [None; 2] } else { CONTROL.map(port) },
            sleep_control: Register::read(table, SLEEP_CONTROL).filter(|_| has(IS_REDUCED)),
            reset: reset.filter(|_| has(HAS_RESET)),
        })
    }

    /// What switches the machine off; `None` if its DSDT does not say.
    ///
    /// # Errors
    /// Those of the DSDT.
    pub fn off(&self, memory: &impl Physical) -> Result<Option<SleepTypes>, Error> {
        Ok(sleep_types(&read_table(memory, self.dsdt, DSDT_SIGNATURE)?[HEADER_BYTES..]))
    }
}

/// Looks for the name `_S5_` of a package, and reads its first two numbers (ACPI, ACPI Machine Language).
fn sleep_types(code: &[u8]) -> Option<SleepTypes> {
    const NAME: u8 = 0x08;
    const ROOT: u8 = b'\\';
    let is_named = |at: usize| {
        let before = |distance: usize| at.checked_sub(distance).map(|at| code[at]);
        before(1) == Some(NAME) || (before(1) == Some(ROOT) && before(2) == Some(NAME))
    };
    let mut places = code.windows(4).enumerate().filter(|(at, name)| *name == b"_S5_" && is_named(*at));
    places.find_map(|(at, _)| package(code.get(at + 4..)?))
}

/// The first two numbers of a package; the second is 0 if there is one alone.
fn package(code: &[u8]) -> Option<SleepTypes> {
    const PACKAGE: u8 = 0x12;
    let (&PACKAGE, rest) = code.split_first()? else { return None };
    // The length says in its upper bits how many bytes of it follow.
    let length_bytes = 1 + usize::from(rest.first()? >> 6);
    let (&count, elements) = rest.get(length_bytes..)?.split_first()?;
    let (first, rest) = number(elements)?;
    let second = if count > 1 { number(rest).map_or(0, |(second, _)| second) } else { 0 };
    (count > 0).then_some(SleepTypes([first, second]))
}

/// A number of a byte, and what follows it.
fn number(code: &[u8]) -> Option<(u8, &[u8])> {
    const ZERO: u8 = 0x00;
    const ONE: u8 = 0x01;
    const BYTE: u8 = 0x0A;
    const WORD: u8 = 0x0B;
    const DOUBLE_WORD: u8 = 0x0C;
    match *code.first()? {
        small @ (ZERO | ONE) => Some((small, &code[1..])),
        BYTE => Some((*code.get(1)?, &code[2..])),
        WORD => Some((u16_at(code, 1)? as u8, &code[3..])),
        DOUBLE_WORD => Some((u32_at(code, 1)? as u8, &code[5..])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: &[u8], expected: Option<[u8; 2]>) {
        assert_eq!(sleep_types(code), expected.map(SleepTypes), "{code:x?}");
    }

    #[test]
    fn types_are_found_in_byte_code() {
        check(b"\x08_S5_\x12\x06\x04\x0A\x05\x0A\x05\x00\x00", Some([5, 5]));
        check(b"junk\x08\\_S5_\x12\x06\x04\x00\x01\x00\x00", Some([0, 1]));
        check(b"\x08_S5_\x12\x46\x00\x02\x0B\x07\x00\x0C\x06\0\0\0", Some([7, 6]));
        check(b"\x08_S5_\x12\x04\x01\x0A\x03", Some([3, 0]));
        // Somebody else's name, an empty package, no package, and the one behind.
        check(b"X_S5_\x12\x06\x04\x0A\x05\x0A\x05", None);
        check(b"\x08_S5_\x12\x02\x00\x0A\x05", None);
        check(b"\x08_S5_\x0A\x05\x08_S5_\x12\x06\x04\x0A\x04\x0A\x04", Some([4, 4]));
        check(b"_S5_", None);
        check(b"", None);
    }

    #[test]
    fn cut_off_code_is_survived() {
        let whole = b"\x08\\_S5_\x12\x46\x00\x02\x0B\x07\x00\x0C\x06\0\0\0";
        for len in 0..whole.len() {
            let _ = sleep_types(&whole[..len]);
        }
    }

    #[test]
    fn registers_get_type_and_start() {
        let types = SleepTypes([5, 2]);
        assert_eq!(types.control(0, 0x0001), 0x3401);
        assert_eq!(types.control(1, 0x1C00), 0x2800);
        assert_eq!(types.sleep_control(), 0x34);
    }

    fn fadt(changes: &[(usize, &[u8])]) -> Vec<u8> {
        let mut table = vec![0; 276];
        for (at, bytes) in changes {
            crate::le::put(&mut table, *at, bytes).expect("inside the table");
        }
        table
    }

    #[test]
    fn the_table_names_registers() {
        let old = [
            (40, &[0, 0, 0xFE, 0xBF][..]),
            (48, &[0xB2, 0, 0, 0]),
            (52, &[0xF1]),
            (64, &[4, 6, 0, 0]),
            (76, &[8, 6, 0, 0]),
        ];
        let expected = Fadt {
            dsdt: 0xBFFE_0000,
            enable: Some((0xB2, 0xF1)),
            control: [Some(0x604), None],
            timer: Some(0x608),
            sleep_control: None,
            reset: None,
        };
        assert_eq!(Fadt::of_table(&fadt(&old)[..116]), Some(expected));
        let reset = [(113, &[4][..]), (116, &[1, 8, 0, 1, 0xF9, 0x0C, 0, 0, 0, 0, 0, 0, 0x0F])];
        let found = Fadt::of_table(&fadt(&[&old[..], &reset].concat())).expect("the table is well");
        assert_eq!(found, Fadt { reset: Some((Register::Port(0xCF9), 0x0F)), ..expected });
        let reduced = [(114, &[0x10][..]), (244, &[0, 8, 0, 1, 0, 0, 0xE0, 0xFE]), (140, &[1, 2, 3, 4, 5, 6, 7, 8])];
        let found = Fadt::of_table(&fadt(&[&old[..], &reduced].concat())).expect("the table is well");
        assert_eq!((found.control, found.timer), ([None; 2], None));
        assert_eq!((found.control, found.sleep_control), ([None; 2], Some(Register::Memory(0xFEE0_0000))));
        assert_eq!(found.dsdt, 0x0807_0605_0403_0201);
        assert_eq!(Fadt::of_table(&fadt(&old)[..100]), None);
    }
}
