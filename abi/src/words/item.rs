//! Typed items of messages and buffers.

use super::*;

const MORE: Word = 1;
const KIND_SHIFT: u32 = 1;
const KIND_MASK: Word = 0x7;
const KIND_MAP: Word = 4;
const KIND_GRANT: Word = 5;
const KIND_CTRL_XFER: Word = 6;
const BASE_SHIFT: u32 = 10;

/// What the first word of a typed item begins (X.2, Messages).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ItemKind {
    /// A string item.
    String,
    /// A map item.
    Map,
    /// A grant item.
    Grant,
    /// A control-transfer item.
    CtrlXfer,
    /// Nothing defined; the message overflows.
    Unknown,
}

impl ItemKind {
    /// The kind in bits 1 to 3 of an item's first word.
    pub const fn of(first: Word) -> Self {
        match first >> KIND_SHIFT & KIND_MASK {
            0..=3 => Self::String,
            KIND_MAP => Self::Map,
            KIND_GRANT => Self::Grant,
            KIND_CTRL_XFER => Self::CtrlXfer,
            _ => Self::Unknown,
        }
    }
}

/// Whether a mapping is copied or moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MapKind {
    /// The sender keeps the page; the new mapping is derived from his.
    Map,
    /// The sender loses the page to the receiver.
    Grant,
}

/// A map or grant item (X.2, MapItem, GrantItem).
///
/// First word, lowest bits first: C 1, kind 3, zero 6, send base / 1024 in the rest. The second is the send fpage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MapItem {
    /// Where in the receive window the page goes if the sizes differ; a multiple of 1024.
    pub snd_base: Word,
    /// The page and the rights to pass.
    pub fpage: Fpage,
    /// Map or grant.
    pub kind: MapKind,
}

impl MapItem {
    /// Words of the item.
    pub const WORDS: usize = 2;

    /// The item that maps `fpage`.
    pub const fn map(fpage: Fpage, snd_base: Word) -> Self {
        Self { snd_base, fpage, kind: MapKind::Map }
    }

    /// The item that grants `fpage`.
    pub const fn grant(fpage: Fpage, snd_base: Word) -> Self {
        Self { snd_base, fpage, kind: MapKind::Grant }
    }

    /// The two words of the item, C clear; the send base is cut to a multiple of 1024.
    pub const fn words(self) -> [Word; 2] {
        let kind = match self.kind {
            MapKind::Map => KIND_MAP,
            MapKind::Grant => KIND_GRANT,
        };
        [self.snd_base >> BASE_SHIFT << BASE_SHIFT | kind << KIND_SHIFT, self.fpage.raw()]
    }

    /// The item in these words; `None` if they are another kind of item.
    pub const fn from_words(words: [Word; 2]) -> Option<Self> {
        let kind = match ItemKind::of(words[0]) {
            ItemKind::Map => MapKind::Map,
            ItemKind::Grant => MapKind::Grant,
            _ => return None,
        };
        Some(Self { snd_base: words[0] >> BASE_SHIFT << BASE_SHIFT, fpage: Fpage::from_raw(words[1]), kind })
    }

    /// Whether the sender loses the page.
    pub const fn is_grant(self) -> bool {
        matches!(self.kind, MapKind::Grant)
    }
}

word_type! {
    /// First word of a string item in a message or of a buffer item in the BRs (X.2, StringItem).
    ///
    /// Bits, lowest first: C 1, hints 2, zero 1, sub-strings - 1 5, compound 1, length in the rest. One address for each
    /// sub-string follows; each has the given length.
    StringItem
}

const SUBSTRINGS_SHIFT: u32 = 4;
const SUBSTRINGS_MASK: Word = 0x1F;
const COMPOUND: Word = 1 << 9;

impl StringItem {
    /// Longest sub-string in bytes.
    pub const LEN_MAX: Word = Word::MAX >> BASE_SHIFT;
    /// Most sub-strings of one item.
    pub const SUBSTRINGS_MAX: usize = SUBSTRINGS_MASK as usize + 1;

    /// One sub-string of `len_bytes`, at most [`Self::LEN_MAX`].
    pub const fn new(len_bytes: Word) -> Self {
        Self(len_bytes << BASE_SHIFT)
    }

    /// The same item with `count` sub-strings of its length, 1 to [`Self::SUBSTRINGS_MAX`].
    pub const fn with_substrings(self, count: usize) -> Self {
        let field = SUBSTRINGS_MASK << SUBSTRINGS_SHIFT;
        Self(self.0 & !field | (count as Word - 1) << SUBSTRINGS_SHIFT & field)
    }

    /// The same item, continued by the string item behind it.
    pub const fn with_compound(self) -> Self {
        Self(self.0 | COMPOUND)
    }

    /// The same item with C set: another one follows.
    pub const fn with_more(self) -> Self {
        Self(self.0 | MORE)
    }

    /// Length of each sub-string in bytes.
    pub const fn len_bytes(self) -> Word {
        self.0 >> BASE_SHIFT
    }

    /// Number of sub-strings, and of the addresses that follow: 1 to 32.
    pub const fn substrings(self) -> usize {
        (self.0 >> SUBSTRINGS_SHIFT & SUBSTRINGS_MASK) as usize + 1
    }

    /// Whether the item behind this one continues the same string.
    pub const fn is_compound(self) -> bool {
        self.0 & COMPOUND != 0
    }

    /// Whether C is set: another item follows; in the BRs, another buffer.
    pub const fn has_more(self) -> bool {
        self.0 & MORE != 0
    }

    /// The cacheability hint; 0 is the default, and the kernel ignores the others.
    pub const fn hints(self) -> Word {
        self.0 >> KIND_SHIFT & 0x3
    }

    /// Words of this item: itself and its addresses.
    pub const fn words(self) -> usize {
        1 + self.substrings()
    }
}

word_type! {
    /// First word of a control-transfer item; one word for each bit of the mask follows, lowest first.
    ///
    /// Bits, lowest first: C 1, kind 3, id 8, mask in the rest.
    CtrlXferItem
}

impl CtrlXferItem {
    /// The item of register group `id` (or of a fault, in a configuration) with the registers in `mask`.
    pub const fn new(id: u8, mask: Word) -> Self {
        Self(mask << 12 | (id as Word) << 4 | KIND_CTRL_XFER << KIND_SHIFT)
    }

    /// Register group, or fault.
    pub const fn id(self) -> u8 {
        (self.0 >> 4) as u8
    }

    /// Registers of the group, or groups.
    pub const fn mask(self) -> Word {
        self.0 >> 12
    }
}
