//! Words of the interface, taken apart (X.2, Data types; 64 bits).

/// A machine word.
pub type Word = u64;
/// A thread id.
pub type Id = u64;

/// Nilthread.
pub const NIL: Id = 0;
/// Anythread.
pub const ANY: Id = !0;
/// Anylocalthread.
pub const ANY_LOCAL: Id = !0x3F;

/// Flags of a tag: propagated, redirected, cross-processor, error.
pub const PROPAGATED: Word = 1 << 12;
/// See [`PROPAGATED`].
pub const ERROR: Word = 1 << 15;
/// Those that only results have.
pub const RESULT_FLAGS: Word = 7 << 13;

/// Whether an id is a local one.
pub fn is_local(id: Id) -> bool {
    id & 0x3F == 0
}

/// The thread number of a global id.
pub fn number(id: Id) -> u64 {
    id >> 32
}

/// How many untyped words and how many words of items a message has.
pub fn counts(tag: Word) -> (usize, usize) {
    ((tag & 0x3F) as usize, (tag >> 6 & 0x3F) as usize)
}

/// What a timeout means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timeout {
    /// Not at all.
    Zero,
    /// Up to this time.
    At(u64),
    /// For ever.
    Never,
}

/// What a timeout means at this time (X.2, Time).
pub fn timeout(time: u16, now: u64) -> Timeout {
    let (time, mantissa) = (u64::from(time), u64::from(time & 0x3FF));
    if time == 0 {
        return Timeout::Never;
    }
    if time >> 15 == 0 {
        let period = mantissa << (time >> 10);
        return if period == 0 { Timeout::Zero } else { Timeout::At(now + period) };
    }
    let (exponent, carry) = (time >> 11 & 0xF, time >> 10 & 1);
    let unit = 1 << (exponent + 10);
    let point = (now & !(unit - 1)) + (mantissa << exponent);
    Timeout::At(if now >> (exponent + 10) & 1 == carry { point } else { point + unit })
}

/// An error of Ipc: in the receive phase or not, and what it is (X.2, IPC errors).
pub fn ipc_error(is_receive: bool, kind: Word) -> Word {
    kind << 1 | Word::from(is_receive)
}

/// A part of a space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fpage {
    /// The first address.
    pub base: Word,
    /// log2 of its size.
    pub size_log2: u32,
    /// Rights: execute 1, write 2, read 4.
    pub rights: Word,
    /// It is no fpage.
    pub is_nil: bool,
    /// It is all of the space.
    pub is_complete: bool,
}

/// The fpage that a word is.
pub fn fpage(word: Word) -> Fpage {
    let (size, rights) = (word >> 4 & 0x3F, word & 7);
    let is_complete = size == 1 && word >> 10 == 0;
    let size_log2 = if is_complete { 64 } else { size as u32 };
    let base = if is_complete || size_log2 >= 64 { 0 } else { word >> 10 << 10 >> size_log2 << size_log2 };
    Fpage { base, size_log2, rights, is_nil: word == 0, is_complete }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// X.2, Time: periods, the two ways to say none, and points before and behind a carry.
    #[test]
    fn times_are_what_the_manual_says() {
        assert_eq!(timeout(0, 5), Timeout::Never);
        assert_eq!(timeout(0x400, 5), Timeout::Zero);
        assert_eq!(timeout(1000, 5), Timeout::At(1005));
        assert_eq!(timeout(3 << 10 | 7, 5), Timeout::At(61));
        let point = |mantissa: u16, carry: u16| 1 << 15 | carry << 10 | mantissa;
        assert_eq!(timeout(point(1000, 0), 5), Timeout::At(1000));
        assert_eq!(timeout(point(1, 1), 5), Timeout::At(1025));
        assert_eq!(timeout(point(1, 0), 1023 + 1024), Timeout::At(2049));
    }

    /// X.2, Fpages: bases are aligned down; two words are special.
    #[test]
    fn fpages_are_what_the_manual_says() {
        let page = fpage(0x1234_5000 | 13 << 4 | 5);
        assert_eq!((page.base, page.size_log2, page.rights, page.is_nil), (0x1234_4000, 13, 5, false));
        assert!(fpage(0).is_nil && fpage(0x17).is_complete && fpage(0x17).rights == 7);
    }

    /// X.2, Thread identifiers.
    #[test]
    fn ids_are_local_or_global() {
        assert!(is_local(NIL) && is_local(ANY_LOCAL) && !is_local(ANY) && !is_local(34 << 32 | 1));
        assert_eq!(number(34 << 32 | 1), 34);
    }
}
