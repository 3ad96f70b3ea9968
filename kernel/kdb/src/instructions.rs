//! Instructions as text.

use core::fmt;

use yaxpeax_arch::LengthedInstruction;
use yaxpeax_x86::amd64::InstDecoder;

/// Writes the first instruction of `code`; how many bytes it has. `None`: these bytes are none.
pub fn disassemble(code: &[u8], f: &mut dyn fmt::Write) -> Option<usize> {
    let instruction = InstDecoder::default().decode_slice(code).ok()?;
    write!(f, "{instruction}").ok()?;
    Some(instruction.len().to_const() as usize)
}

#[cfg(test)]
mod tests {
    use dice::Dice;

    use super::disassemble;

    #[test]
    fn instructions_are_told_with_their_length() {
        let check = |code: &[u8], expected: Option<(&str, usize)>| {
            let mut text = String::new();
            let len = disassemble(code, &mut text);
            assert_eq!(len.map(|len| (text.as_str(), len)), expected, "{code:x?}");
        };
        check(&[0x0F, 0x05], Some(("syscall", 2)));
        check(&[0xCC, 0x90], Some(("int 0x3", 1)));
        check(&[0x48, 0x89, 0xE5], Some(("mov rbp, rsp", 3)));
        check(&[0x0F], None);
        check(&[], None);
    }

    /// Whatever the bytes are, the decoder ends.
    #[test]
    fn any_bytes_are_taken() {
        let mut dice = Dice::new(1, 0);
        for _ in 0..20_000 {
            let bytes: [u8; 15] = core::array::from_fn(|_| dice.next() as u8);
            let mut text = String::new();
            if let Some(len) = disassemble(&bytes, &mut text) {
                assert!((1..=15).contains(&len), "{bytes:x?}");
            }
        }
    }
}
