//! What loader, kernel and console server all know of consoles: the words of command lines that say where output goes and
//! where keys come from, and a few ports.
//!
//! | word | means |
//! |---|---|
//! | `console=both`, `serial`, `screen`, `none` | which of the two |
//! | `serial=LINE` or `serial=LINE,BAUD` | the serial line: 0 to 3, or its first port, and its speed |

/// Where output goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outputs {
    /// To the serial line.
    pub serial: bool,
    /// To the screen.
    pub screen: bool,
}

impl Outputs {
    /// To both.
    pub const BOTH: Self = Self { serial: true, screen: true };
    /// What a value can be.
    pub const VALUES: &'static str = "both, serial, screen or none";

    /// What the value of `console` means; `None` if it means nothing.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (serial, screen) = match value {
            b"both" => (true, true),
            b"serial" => (true, false),
            b"screen" => (false, true),
            b"none" => (false, false),
            _ => return None,
        };
        Some(Self { serial, screen })
    }
}

impl Default for Outputs {
    fn default() -> Self {
        Self::BOTH
    }
}

/// What is written to which ports so that a VGA draws no cursor on a text screen, until somebody sets the mode anew: the number
/// of the register that says where in a character the cursor begins, then its bit that switches it off.
pub const HIDE_CURSOR: [(u16, u8); 2] = [(0x3D4, 0x0A), (0x3D5, 1 << 5)];

/// Where a PC has its serial lines.
pub const USUAL_PORTS: [u16; 4] = [0x3F8, 0x2F8, 0x3E8, 0x2E8];
/// The rate that serial lines divide, in baud.
pub const BASE_BAUD: u32 = 115_200;

/// A serial line: a 16550.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SerialLine {
    /// The first of its eight ports.
    pub port: u16,
    /// What [`BASE_BAUD`] is divided by; not 0.
    pub divisor: u16,
}

impl SerialLine {
    /// The first line of a PC at its highest speed.
    pub const FIRST: Self = Self { port: USUAL_PORTS[0], divisor: 1 };
    /// What a value can be.
    pub const VALUES: &'static str = "a line 0 to 3 or a port, and behind a comma a part of 115200 baud";

    /// What the value of `serial` means; `None` if it means nothing.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = core::str::from_utf8(value).ok()?;
        let (line, baud) = match text.split_once(',') {
            Some((line, baud)) => (line, baud.parse().ok()?),
            None => (text, BASE_BAUD),
        };
        let number = match line.strip_prefix("0x") {
            Some(digits) => u16::from_str_radix(digits, 16).ok()?,
            None => line.parse().ok()?,
        };
        let port = match USUAL_PORTS.get(usize::from(number)) {
            Some(port) => *port,
            // Below there are the devices of the board, and the last line must have eight ports.
            None if (0x100..=0xFFF8).contains(&number) && number % 8 == 0 => number,
            None => return None,
        };
        Some(Self { port, divisor: divisor(baud)? })
    }
}

impl Default for SerialLine {
    fn default() -> Self {
        Self::FIRST
    }
}

/// What the base rate is divided by for this one; `None` if no divisor gives it.
pub const fn divisor(baud: u32) -> Option<u16> {
    if baud == 0 || BASE_BAUD % baud != 0 || BASE_BAUD / baud > u16::MAX as u32 {
        return None;
    }
    Some((BASE_BAUD / baud) as u16)
}

#[cfg(test)]
mod tests {
    use super::{Outputs, SerialLine};

    #[test]
    fn words_name_consoles() {
        let check = |value: &str, expected: Option<(bool, bool)>| {
            let found = Outputs::parse(value.as_bytes()).map(|outputs| (outputs.serial, outputs.screen));
            assert_eq!(found, expected, "{value:?}");
        };
        check("both", Some((true, true)));
        check("serial", Some((true, false)));
        check("screen", Some((false, true)));
        check("none", Some((false, false)));
        for wrong in ["", "Both", "serial,screen", "yes"] {
            check(wrong, None);
        }
    }

    #[test]
    fn rates_are_parts_of_the_base_rate() {
        let rows =
            [(115_200, Some(1)), (57_600, Some(2)), (9_600, Some(12)), (300, Some(0x180)), (100_000, None), (1, None)];
        for (baud, divisor) in rows {
            assert_eq!(super::divisor(baud), divisor, "{baud}");
        }
    }

    #[test]
    fn serial_lines_have_a_port_and_a_speed() {
        let check = |value: &str, expected: Option<(u16, u16)>| {
            let found = SerialLine::parse(value.as_bytes()).map(|line| (line.port, line.divisor));
            assert_eq!(found, expected, "{value:?}");
        };
        check("0", Some((0x3F8, 1)));
        check("1", Some((0x2F8, 1)));
        check("3,9600", Some((0x2E8, 12)));
        check("0xe000", Some((0xE000, 1)));
        check("1016,300", Some((0x3F8, 384)));
        for wrong in
            ["", "4", "0x3F9", "0xfff9", "0xf8", "COM1", "0,", "0,0", "0,110000", "0,1", "0,9600,8", "-1", "65536"]
        {
            check(wrong, None);
        }
    }
}
