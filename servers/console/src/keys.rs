//! Keys: the codes of the first PC, which keyboard controllers still translate to (scan code set 1), on a keyboard with
//! American letters.

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character for who reads.
    Character(u8),
    /// The page before.
    PageUp,
    /// The page behind.
    PageDown,
    /// The first page.
    First,
    /// The page that is being written.
    Last,
    /// Control, Alt and Delete.
    Restart,
}

const RELEASED: u8 = 0x80;
/// What comes before the codes of keys that the first PC did not have.
const EXTENDED: u8 = 0xE0;
/// What comes before the five codes of the pause key.
const PAUSE: u8 = 0xE1;
const PAUSE_BYTES: u8 = 5;

const CONTROL: u8 = 0x1D;
const LEFT_SHIFT: u8 = 0x2A;
const RIGHT_SHIFT: u8 = 0x36;
const ALT: u8 = 0x38;
const CAPS_LOCK: u8 = 0x3A;
const HOME: u8 = 0x47;
const PAGE_UP: u8 = 0x49;
const END: u8 = 0x4F;
const PAGE_DOWN: u8 = 0x51;
const DELETE: u8 = 0x53;

/// Characters by code, plain and with shift; 0 where there is none.
const PLAIN: &[u8; 58] = b"\0\x1B1234567890-=\x08\tqwertyuiop[]\n\0asdfghjkl;'`\0\\zxcvbnm,./\0*\0 ";
const SHIFTED: &[u8; 58] = b"\0\x1B!@#$%^&*()_+\x08\tQWERTYUIOP{}\n\0ASDFGHJKL:\"~\0|ZXCVBNM<>?\0*\0 ";

/// Which keys are down, and where in a sequence the codes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keyboard {
    shifts: [bool; 2],
    control: bool,
    alt: bool,
    caps_lock: bool,
    is_extended: bool,
    /// Codes of the pause key that are still to come.
    to_skip: u8,
}

impl Keyboard {
    /// Takes the next code; what it comes to, if a key was pressed that means something.
    pub fn take(&mut self, code: u8) -> Option<Key> {
        if self.to_skip > 0 {
            self.to_skip -= 1;
            return None;
        }
        let is_extended = core::mem::take(&mut self.is_extended);
        match code {
            EXTENDED => self.is_extended = true,
            PAUSE => self.to_skip = PAUSE_BYTES,
            _ => return self.key(code & !RELEASED, code & RELEASED == 0, is_extended),
        }
        None
    }

    fn key(&mut self, key: u8, is_pressed: bool, is_extended: bool) -> Option<Key> {
        match key {
            // With the extension these are no keys, but say how the next one is meant.
            LEFT_SHIFT | RIGHT_SHIFT if is_extended => {}
            LEFT_SHIFT => self.shifts[0] = is_pressed,
            RIGHT_SHIFT => self.shifts[1] = is_pressed,
            CONTROL => self.control = is_pressed,
            ALT => self.alt = is_pressed,
            CAPS_LOCK if is_pressed => self.caps_lock = !self.caps_lock,
            _ if is_pressed => return self.pressed(key, is_extended),
            _ => {}
        }
        None
    }

    fn pressed(&self, key: u8, is_extended: bool) -> Option<Key> {
        match key {
            DELETE if self.control && self.alt => Some(Key::Restart),
            PAGE_UP => Some(Key::PageUp),
            PAGE_DOWN => Some(Key::PageDown),
            HOME => Some(Key::First),
            END => Some(Key::Last),
            // Of the extended keys with characters there are two: Enter and the slash of the block of digits.
            _ if is_extended && !matches!(key, 0x1C | 0x35) => None,
            _ => self.character(key),
        }
    }

    fn character(&self, key: u8) -> Option<Key> {
        let plain = PLAIN.get(usize::from(key)).copied().filter(|character| *character != 0)?;
        if self.control {
            return plain.is_ascii_lowercase().then_some(Key::Character(plain & 0x1F));
        }
        let is_shifted = (self.shifts != [false; 2]) ^ (self.caps_lock && plain.is_ascii_lowercase());
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
    fn some_keys_turn_pages() {
        use Key::{First, Last, PageDown, PageUp, Restart};
        let check = |codes: &[u8], expected: &[Key]| assert_eq!(keys(codes), expected, "{codes:x?}");
        check(&[0xE0, 0x49, 0xE0, 0xC9, 0xE0, 0x51], &[PageUp, PageDown]);
        check(&[0xE0, 0x47, 0xE0, 0x4F], &[First, Last]);
        check(&[0x49, 0x51], &[PageUp, PageDown]);
        check(&[0x1D, 0x38, 0xE0, 0x53], &[Restart]);
        check(&[0x1D, 0xE0, 0x53], &[]);
        check(&[0x38, 0xE0, 0x53], &[]);
        check(&[0xE0, 0x1D, 0xE0, 0x38, 0x53], &[Restart]);
    }

    #[test]
    fn no_codes_do_any_harm() {
        let mut keyboard = Keyboard::default();
        let mut seed = 1u32;
        for _ in 0..100_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let _ = keyboard.take((seed >> 24) as u8);
        }
    }
}
