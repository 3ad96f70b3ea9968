//! Names that programs give to their threads and spaces.
//!
//! A table of the debugger's own, beside the core's: a name costs a thread nothing, neither in its TCB nor in any call. An
//! entry counts as long as the id that it was given for: a slot that somebody else has got has no name. What is named
//! latest takes the place of a name whose thread is gone, or is refused when the table is full.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use l4_abi::ThreadId;

/// Bytes of a name.
pub const NAME_BYTES: usize = 24;
const WORDS: usize = NAME_BYTES / 8;
/// Names that there is room for.
pub const NAMES: usize = 512;

/// What has a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Named {
    /// The thread with this global id.
    Thread(ThreadId),
    /// The space in which the thread with this global id was when it named it, by its number.
    Space(usize),
}

impl Named {
    /// Spaces are told from threads by a bit that no global id has: its version would be zero in the low bits.
    fn key(self) -> u64 {
        match self {
            Self::Thread(id) => id.raw() as u64,
            Self::Space(index) => (index as u64) << 8 | 1 << 63 | 0x40,
        }
    }
}

/// A name, as it was given: letters that can be printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Name {
    bytes: [u8; NAME_BYTES],
    len: usize,
}

impl Name {
    /// The first bytes of `text`, up to a zero byte; what cannot be printed becomes a dot. `None`: there are none.
    pub fn of(text: &[u8]) -> Option<Self> {
        let mut name = Self { bytes: [0; NAME_BYTES], len: 0 };
        for &byte in text.iter().take(NAME_BYTES).take_while(|&&byte| byte != 0) {
            name.bytes[name.len] = if byte.is_ascii_graphic() { byte } else { b'.' };
            name.len += 1;
        }
        (name.len > 0).then_some(name)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.len]).unwrap_or("?")
    }
}

/// An entry: whose it is, 0 for nobody's; the name.
#[repr(C)]
struct Entry {
    key: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// All names. Made of atomics, so that each processor may write at any time; what is read while it is written is a mixture
/// of two names, which does no harm.
#[repr(C)]
pub struct Names {
    entries: [Entry; NAMES],
}

#[allow(clippy::new_without_default, reason = "for statics")]
impl Names {
    /// No names.
    pub const fn new() -> Self {
        Self {
            entries: [const { Entry { key: AtomicU64::new(0), words: [const { AtomicU64::new(0) }; WORDS] } }; NAMES],
        }
    }

    /// The names in a copy of the table's memory, as far as it goes.
    pub fn load(&self, bytes: &[u8]) {
        let (entries, _) = bytes.as_chunks::<{ (1 + WORDS) * 8 }>();
        for (entry, bytes) in self.entries.iter().zip(entries) {
            let (words, _) = bytes.as_chunks::<8>();
            let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
            entry.key.store(words.next().unwrap_or(0), Relaxed);
            entry.words.iter().zip(words).for_each(|(word, value)| word.store(value, Relaxed));
        }
    }

    /// Gives a name. `is_there` says whether a key of an older name still means something. `false`: there is no room.
    pub fn give(&self, named: Named, name: Name, is_there: impl Fn(Named) -> bool) -> bool {
        let key = named.key();
        let own = self.entries.iter().find(|entry| entry.key.load(Relaxed) == key);
        let is_free = |entry: &&Entry| match Self::named(entry.key.load(Relaxed)) {
            None => true,
            Some(named) => !is_there(named),
        };
        let Some(entry) = own.or_else(|| self.entries.iter().find(is_free)) else { return false };
        let (words, _) = name.bytes.as_chunks::<8>();
        for (slot, word) in entry.words.iter().zip(words) {
            slot.store(u64::from_le_bytes(*word), Relaxed);
        }
        entry.key.store(key, Relaxed);
        true
    }

    /// The name of something.
    pub fn get(&self, named: Named) -> Option<Name> {
        let key = named.key();
        self.entries.iter().find(|entry| entry.key.load(Relaxed) == key).and_then(Entry::name)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (Named, Name)> {
        self.entries.iter().filter_map(|entry| Self::named(entry.key.load(Relaxed)).zip(entry.name()))
    }

    fn named(key: u64) -> Option<Named> {
        match key {
            0 => None,
            _ if key >> 63 != 0 && key & 0xFF == 0x40 => Some(Named::Space((key << 1 >> 9) as usize)),
            _ => Some(Named::Thread(ThreadId::from_raw(key as _))),
        }
    }
}

impl Entry {
    fn name(&self) -> Option<Name> {
        let mut bytes = [0; NAME_BYTES];
        for (place, word) in bytes.chunks_exact_mut(8).zip(&self.words) {
            place.copy_from_slice(&word.load(Relaxed).to_le_bytes());
        }
        Name::of(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use l4_abi::ThreadId;

    use super::{NAMES, Name, Named, Names};

    fn thread(number: u64) -> Named {
        Named::Thread(ThreadId::global(number as _, 1))
    }

    fn name(text: &str) -> Name {
        Name::of(text.as_bytes()).expect("a name")
    }

    #[test]
    fn names_are_what_can_be_printed_of_them() {
        let check = |text: &[u8], expected: Option<&str>| {
            assert_eq!(Name::of(text).as_ref().map(Name::as_str), expected, "{text:?}");
        };
        check(b"pager", Some("pager"));
        check(b"two words\x1b[2J\0rest", Some("two.words.[2J"));
        check(b"", None);
        check(b"\0", None);
        check(&[0xFF; 100], Some("........................"));
    }

    #[test]
    fn names_belong_to_whom_they_were_given() {
        let names = Names::new();
        assert!(names.give(thread(5), name("a"), |_| true) && names.give(Named::Space(5), name("b"), |_| true));
        assert!(names.give(thread(5), name("c"), |_| true));
        assert_eq!(names.get(thread(5)), Some(name("c")));
        assert_eq!(names.get(Named::Space(5)), Some(name("b")));
        assert_eq!(names.get(thread(6)), None);
        let all: Vec<_> = names.all().collect();
        assert_eq!(all, [(thread(5), name("c")), (Named::Space(5), name("b"))]);
    }

    #[test]
    fn names_of_the_dead_make_room() {
        let names = Names::new();
        for number in 0..NAMES as u64 {
            assert!(names.give(thread(number + 1), name("x"), |_| true));
        }
        assert!(!names.give(thread(1000), name("y"), |_| true), "the table is full");
        assert!(names.give(thread(1000), name("y"), |named| named != thread(7)));
        assert_eq!((names.get(thread(7)), names.get(thread(1000))), (None, Some(name("y"))));
    }
}
