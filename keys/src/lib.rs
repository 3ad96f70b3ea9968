#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
//! Keys: the codes of the first PC, which keyboard controllers still translate to (scan code set 1), on a keyboard with
//! American letters. The kernel's debugger and the console server read them.

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character for who reads.
    Character(u8),
    /// The line or choice before.
    Up,
    /// The line or choice behind.
    Down,
    /// The character before.
    Left,
    /// The character behind.
    Right,
    /// The page before.
    PageUp,
    /// The page behind.
    PageDown,
    /// The beginning: the first page.
    Home,
    /// The end: the page that is being written.
    End,
    /// The character under the cursor goes.
    Delete,
    /// Control, Alt and Delete.
    Restart,
    /// Control, Alt and Escape: a person wants the debugger.
    Attention,
}

impl Key {
    /// What a terminal sends for the key (ECMA-48 with the numbers of the VT220).
    pub const fn sequence(&self) -> &[u8] {
        match self {
            Self::Character(character) => core::slice::from_ref(character),
            Self::Up => b"\x1B[A",
            Self::Down => b"\x1B[B",
            Self::Right => b"\x1B[C",
            Self::Left => b"\x1B[D",
            Self::Home => b"\x1B[1~",
            Self::Delete => b"\x1B[3~",
            Self::End => b"\x1B[4~",
            Self::PageUp => b"\x1B[5~",
            Self::PageDown => b"\x1B[6~",
            Self::Attention => b"\x1B",
            Self::Restart => b"",
        }
    }
}

const RELEASED: u8 = 0x80;
/// What comes before the codes of keys that the first PC did not have.
const EXTENDED: u8 = 0xE0;
/// What comes before the five codes of the pause key.
const PAUSE: u8 = 0xE1;
const PAUSE_BYTES: u8 = 5;

const ESCAPE: u8 = 0x01;
const CONTROL: u8 = 0x1D;
const LEFT_SHIFT: u8 = 0x2A;
const RIGHT_SHIFT: u8 = 0x36;
const ALT: u8 = 0x38;
const CAPS_LOCK: u8 = 0x3A;
const HOME: u8 = 0x47;
const UP: u8 = 0x48;
const PAGE_UP: u8 = 0x49;
const LEFT: u8 = 0x4B;
const RIGHT: u8 = 0x4D;
const END: u8 = 0x4F;
const DOWN: u8 = 0x50;
const PAGE_DOWN: u8 = 0x51;
const DELETE: u8 = 0x53;

/// Characters by code, plain and with shift; 0 where there is none.
const PLAIN: &[u8; 58] = b"\0\x1B1234567890-=\x08\tqwertyuiop[]\n\0asdfghjkl;'`\0\\zxcvbnm,./\0*\0 ";
const SHIFTED: &[u8; 58] = b"\0\x1B!@#$%^&*()_+\x08\tQWERTYUIOP{}\n\0ASDFGHJKL:\"~\0|ZXCVBNM<>?\0*\0 ";

/// Which keys are down, and where in a sequence the codes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keyboard {
    /// Bits of the constants below.
    down: u8,
    /// Codes of the pause key that are still to come.
    to_skip: u8,
}

impl Keyboard {
    const LEFT_SHIFT: u8 = 1 << 0;
    const RIGHT_SHIFT: u8 = 1 << 1;
    const CONTROL: u8 = 1 << 2;
    const ALT: u8 = 1 << 3;
    /// Not whether the key is down, but whether letters are capitals.
    const CAPS_LOCK: u8 = 1 << 4;
    /// The next code is one of a key that the first PC did not have.
    const EXTENDED: u8 = 1 << 5;

    /// All of it in a word, for who keeps it in one.
    pub const fn bits(self) -> u16 {
        u16::from_le_bytes([self.down, self.to_skip])
    }

    /// What [`Self::bits`] said.
    pub const fn from_bits(bits: u16) -> Self {
        let [down, to_skip] = bits.to_le_bytes();
        Self { down, to_skip }
    }

    const fn is(self, bits: u8) -> bool {
        self.down & bits == bits
    }

    const fn set(&mut self, bit: u8, is_set: bool) {
        self.down = if is_set { self.down | bit } else { self.down & !bit };
    }

    /// Takes the next code; what it comes to, if a key was pressed that means something.
    pub fn take(&mut self, code: u8) -> Option<Key> {
        if self.to_skip > 0 {
            self.to_skip -= 1;
            return None;
        }
        let is_extended = self.is(Self::EXTENDED);
        self.set(Self::EXTENDED, false);
        match code {
            EXTENDED => self.set(Self::EXTENDED, true),
            PAUSE => self.to_skip = PAUSE_BYTES,
            _ => return self.key(code & !RELEASED, code & RELEASED == 0, is_extended),
        }
        None
    }

    fn key(&mut self, key: u8, is_pressed: bool, is_extended: bool) -> Option<Key> {
        match key {
            // With the extension these are no keys, but say how the next one is meant.
            LEFT_SHIFT | RIGHT_SHIFT if is_extended => {}
            LEFT_SHIFT => self.set(Self::LEFT_SHIFT, is_pressed),
            RIGHT_SHIFT => self.set(Self::RIGHT_SHIFT, is_pressed),
            CONTROL => self.set(Self::CONTROL, is_pressed),
            ALT => self.set(Self::ALT, is_pressed),
            CAPS_LOCK if is_pressed => self.down ^= Self::CAPS_LOCK,
            _ if is_pressed => return self.pressed(key, is_extended),
            _ => {}
        }
        None
    }

    fn pressed(&self, key: u8, is_extended: bool) -> Option<Key> {
        match key {
            DELETE if self.is(Self::CONTROL | Self::ALT) => Some(Key::Restart),
            ESCAPE if self.is(Self::CONTROL | Self::ALT) => Some(Key::Attention),
            UP => Some(Key::Up),
            DOWN => Some(Key::Down),
            LEFT => Some(Key::Left),
            RIGHT => Some(Key::Right),
            PAGE_UP => Some(Key::PageUp),
            PAGE_DOWN => Some(Key::PageDown),
            HOME => Some(Key::Home),
            END => Some(Key::End),
            DELETE => Some(Key::Delete),
            // Of the extended keys with characters there are two: Enter and the slash of the block of digits.
            _ if is_extended && !matches!(key, 0x1C | 0x35) => None,
            _ => self.character(key),
        }
    }

    fn character(&self, key: u8) -> Option<Key> {
        let plain = PLAIN.get(usize::from(key)).copied().filter(|character| *character != 0)?;
        if self.is(Self::CONTROL) {
            return plain.is_ascii_lowercase().then_some(Key::Character(plain & 0x1F));
        }
        let has_shift = self.is(Self::LEFT_SHIFT) || self.is(Self::RIGHT_SHIFT);
        let is_shifted = has_shift ^ (self.is(Self::CAPS_LOCK) && plain.is_ascii_lowercase());
        Some(Key::Character(if is_shifted { SHIFTED[usize::from(key)] } else { plain }))
    }
}

#[cfg(test)]
mod tests {
    use std::string::String;
    use std::vec::Vec;

    use super::*;

    fn keys(codes: &[u8]) -> Vec<Key> {
        let mut keyboard = Keyboard::default();
        codes.iter().filter_map(|code| keyboard.take(*code)).collect()
    }

    #[test]
    fn keys_are_characters() {
        let check = |codes: &[u8], expected: &str| {
            let text: String = keys(codes)
                .into_iter()
                .map(|key| match key {
                    Key::Character(character) => char::from(character),
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(text, expected, "{codes:x?}");
        };
        check(&[0x1E, 0x9E, 0x30, 0xB0], "ab");
        check(&[0x2A, 0x1E, 0x9E, 0xAA, 0x1E], "Aa");
        check(&[0x36, 0x02, 0x82, 0x0C, 0xB6, 0x02], "!_1");
        check(&[0x3A, 0xBA, 0x1E, 0x02, 0x2A, 0x1E, 0xAA, 0x3A, 0x1E], "A1aa");
        check(&[0x1D, 0x2E, 0x02, 0x9D, 0x2E], "\u{3}c");
        check(&[0x01, 0x1C, 0x39, 0x0E, 0xE0, 0x1C, 0xE0, 0x35], "\u{1b}\n \u{8}\n/");
        // Left shift and control stay down while the other one is released.
        check(&[0x2A, 0x36, 0xB6, 0x1E], "A");
        // Functions, the pause key, codes that no keyboard sends.
        check(&[0x3B, 0xE1, 0x1D, 0x45, 0xE1, 0x9D, 0xC5, 0x1E, 0x7F, 0x00, 0xFF, 0xE0, 0x2A, 0x1E], "aa");
    }

    #[test]
    fn some_keys_are_no_characters() {
        use Key::{Attention, Delete, Down, End, Home, Left, PageDown, PageUp, Restart, Right, Up};
        let check = |codes: &[u8], expected: &[Key]| assert_eq!(keys(codes), expected, "{codes:x?}");
        check(&[0xE0, 0x49, 0xE0, 0xC9, 0xE0, 0x51], &[PageUp, PageDown]);
        check(&[0xE0, 0x47, 0xE0, 0x4F], &[Home, End]);
        check(&[0x49, 0x51], &[PageUp, PageDown]);
        check(&[0x1D, 0x38, 0xE0, 0x53], &[Restart]);
        check(&[0x1D, 0xE0, 0x53], &[Delete]);
        check(&[0x38, 0xE0, 0x53], &[Delete]);
        check(&[0x1D, 0x38, 0x01], &[Attention]);
        check(&[0xE0, 0x48, 0xE0, 0x50, 0xE0, 0x4B, 0xE0, 0x4D], &[Up, Down, Left, Right]);
        check(&[0xE0, 0x1D, 0xE0, 0x38, 0x53], &[Restart]);
    }

    #[test]
    fn no_codes_do_any_harm() {
        let mut keyboard = Keyboard::default();
        let mut seed = 1u32;
        for _ in 0..100_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let key = keyboard.take((seed >> 24) as u8);
            assert!(key.is_none_or(|key| key.sequence().len() <= 4));
            assert_eq!(Keyboard::from_bits(keyboard.bits()), keyboard);
        }
    }
}
