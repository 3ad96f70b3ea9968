//! What user code asks of the kernel debugger: a one-byte breakpoint, told apart by the bytes behind it (kernel debugger
//! ABI for user code).

/// The breakpoint itself.
pub const OPCODE: u8 = 0xCC;
/// Bytes behind it that can matter.
pub const BYTES_MAX: usize = 1 + 2 + 7;

const NOP: u8 = 0x90;
const JMP_SHORT: u8 = 0xEB;
const CMP_AL: u8 = 0x3C;
/// `mov rax, imm32`, sign-extended, without the number.
const MOV_RAX: [u8; 3] = [0x48, 0xC7, 0xC0];

/// A breakpoint in user code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Breakpoint {
    /// What is asked for.
    pub request: Request,
    /// Whether the program stops where the request is to stop; otherwise it goes on in any case.
    pub stops: bool,
}

/// What a breakpoint asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Stop; with the address of a text that says why.
    Enter(Option<u64>),
    /// Something that the debugger does without a stop.
    Service(Service),
    /// Nothing known: stop.
    Unknown,
}

/// What the debugger does without a stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Service {
    /// Print the character in `al`.
    PrintChar,
    /// Print the text at the address in `rax`.
    PrintString,
    /// Switch the look-out for keys that stop the system on or off.
    ToggleBreakin,
    /// Read a character, if there is one.
    ReadChar,
    /// Wait for a character.
    ReadCharBlocked,
    /// Name the thread by the text at the address in `rax`.
    NameThread,
    /// Name its space, likewise.
    NameSpace,
    /// Something else, by its number.
    Other(u8),
}

impl Breakpoint {
    /// A breakpoint that means nothing to the debugger.
    pub const UNKNOWN: Self = Self { request: Request::Unknown, stops: true };

    /// The breakpoint with these bytes behind it.
    pub fn decode(bytes: &[u8]) -> Self {
        match bytes {
            [NOP, rest @ ..] => Self { request: Request::decode(rest), stops: false },
            _ => Self { request: Request::decode(bytes), stops: true },
        }
    }
}

impl Request {
    fn decode(bytes: &[u8]) -> Self {
        match *bytes {
            [CMP_AL, number, ..] => Self::Service(Service::of(number)),
            [JMP_SHORT, _, ref rest @ ..] => Self::Enter(text_address(rest)),
            _ => Self::Unknown,
        }
    }
}

fn text_address(bytes: &[u8]) -> Option<u64> {
    let number = bytes.strip_prefix(&MOV_RAX)?.first_chunk()?;
    Some(i64::from(i32::from_le_bytes(*number)) as u64)
}

impl Service {
    const fn of(number: u8) -> Self {
        match number {
            0x00 => Self::PrintChar,
            0x01 => Self::PrintString,
            0x03 => Self::ToggleBreakin,
            0x08 => Self::ReadChar,
            0x0D => Self::ReadCharBlocked,
            0x20 => Self::NameThread,
            0x21 => Self::NameSpace,
            _ => Self::Other(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BYTES_MAX, Breakpoint, Request, Service};

    #[track_caller]
    fn check(bytes: &[u8], request: Request) {
        assert_eq!(Breakpoint::decode(bytes), Breakpoint { request, stops: true }, "{bytes:x?}");
        let after_nop = [&[0x90], bytes].concat();
        assert_eq!(Breakpoint::decode(&after_nop), Breakpoint { request, stops: false }, "{after_nop:x?}");
    }

    #[test]
    fn services_are_told_by_their_number() {
        check(&[0x3C, 0x00], Request::Service(Service::PrintChar));
        check(&[0x3C, 0x01, 0xC3], Request::Service(Service::PrintString));
        check(&[0x3C, 0x03], Request::Service(Service::ToggleBreakin));
        check(&[0x3C, 0x08], Request::Service(Service::ReadChar));
        check(&[0x3C, 0x0D], Request::Service(Service::ReadCharBlocked));
        check(&[0x3C, 0x20], Request::Service(Service::NameThread));
        check(&[0x3C, 0x21], Request::Service(Service::NameSpace));
        for number in [0x02, 0x04, 0x07, 0x09, 0x0C, 0x0E, 0xFF] {
            check(&[0x3C, number], Request::Service(Service::Other(number)));
        }
    }

    #[test]
    fn text_of_a_stop_is_found_behind_the_jump() {
        let with_text = [0xEB, 7, 0x48, 0xC7, 0xC0, 0x78, 0x56, 0x34, 0x12];
        check(&with_text, Request::Enter(Some(0x1234_5678)));
        check(&[&with_text[..], &[0xCC; 8]].concat(), Request::Enter(Some(0x1234_5678)));
        check(&[0xEB, 0, 0x48, 0xC7, 0xC0, 0, 0, 0, 0x80], Request::Enter(Some(0xFFFF_FFFF_8000_0000)));
        assert_eq!(with_text.len() + 1, BYTES_MAX);
    }

    #[test]
    fn a_jump_over_anything_else_is_a_stop_without_text() {
        check(&[0xEB, 0], Request::Enter(None));
        check(&[0xEB, 5, b'h', b'e', b'l', b'l', b'o'], Request::Enter(None));
        // The 32-bit form, and other registers.
        check(&[0xEB, 5, 0xB8, 1, 2, 3, 4, 0, 0], Request::Enter(None));
        check(&[0xEB, 7, 0x48, 0xC7, 0xC1, 1, 2, 3, 4], Request::Enter(None));
    }

    #[test]
    fn bytes_that_cannot_be_read_are_not_guessed() {
        let with_text = [0xEB, 7, 0x48, 0xC7, 0xC0, 0x78, 0x56, 0x34, 0x12];
        for len in 2..with_text.len() {
            check(&with_text[..len], Request::Enter(None));
        }
        check(&[0xEB], Request::Unknown);
        check(&[0x3C], Request::Unknown);
        check(&[], Request::Unknown);
    }

    #[test]
    fn other_instructions_mean_nothing() {
        check(&[0xC3], Request::Unknown);
        check(&[0x3D, 0, 0, 0, 0], Request::Unknown);
        // One NOP is skipped, not two.
        assert_eq!(Breakpoint::decode(&[0x90, 0x90, 0x3C, 0]).request, Request::Unknown);
        assert_eq!(Breakpoint::decode(&[0xCC]), Breakpoint::UNKNOWN);
    }
}
