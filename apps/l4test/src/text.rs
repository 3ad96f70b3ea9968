//! Text of limited length, without a heap.

use core::fmt::{self, Write};
use core::str;

/// Up to `N` bytes of text; what is written beyond them is dropped.
#[derive(Clone, Copy)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    /// No text.
    pub const fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    /// Formatted text, as far as it fits.
    pub fn format(text: fmt::Arguments<'_>) -> Self {
        let mut result = Self::new();
        // Only a value that refuses to be formatted makes this fail; then its text is missing.
        let _ = result.write_fmt(text);
        result
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..self.len]).expect("text is cut between characters")
    }
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Write for Text<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = text.floor_char_boundary(N - self.len);
        self.bytes[self.len..self.len + end].copy_from_slice(&text.as_bytes()[..end]);
        self.len += end;
        Ok(())
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::Text;

    #[test]
    fn text_ends_where_the_room_does() {
        assert_eq!(Text::<8>::format(format_args!("{}-{}", "abc", 12)).as_str(), "abc-12");
        assert_eq!(Text::<5>::format(format_args!("{}-{}", "abc", 12)).as_str(), "abc-1");
        assert_eq!(Text::<0>::format(format_args!("abc")).as_str(), "");
    }

    #[test]
    fn characters_are_not_cut() {
        assert_eq!(Text::<4>::format(format_args!("aµµµ")).as_str(), "aµ");
    }
}
