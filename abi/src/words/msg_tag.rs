//! The message tag.

use super::*;

word_type! {
    /// MR0: what a message consists of (X.2, Messages).
    ///
    /// Bits, lowest first: untyped words 6, typed words 6, flags P, R, X, E, label in the rest.
    MsgTag
}

const COUNT_MASK: Word = 0x3F;
const TYPED_SHIFT: u32 = 6;
const LABEL_SHIFT: u32 = 16;
const PARAMETER_BITS: u32 = 4;

impl MsgTag {
    /// The empty message.
    pub const NIL: Self = Self(0);
    /// P: sent in the name of the virtual sender.
    pub const PROPAGATED: Word = 1 << 12;
    /// R: came through the redirector.
    pub const REDIRECTED: Word = 1 << 13;
    /// X: came from another processor.
    pub const XCPU: Word = 1 << 14;
    /// E: the IPC failed, the ErrorCode register says why.
    pub const ERROR: Word = 1 << 15;
    /// All four flags.
    pub const FLAGS: Word = Self::PROPAGATED | Self::REDIRECTED | Self::XCPU | Self::ERROR;
    /// The tag of an error without a message.
    pub const ERROR_ONLY: Self = Self(Self::ERROR);
    /// Highest label.
    pub const LABEL_MAX: Word = Word::MAX >> LABEL_SHIFT;

    /// A tag without flags. The label and the counts (at most 63 words in all) are cut to their fields.
    pub const fn new(label: Word, untyped: usize, typed: usize) -> Self {
        Self(label << LABEL_SHIFT | (typed as Word & COUNT_MASK) << TYPED_SHIFT | untyped as Word & COUNT_MASK)
    }

    /// The tag of a message of protocol `number` (negative for the manual's own) with four bits of parameter.
    pub const fn kernel(number: SWord, parameter: Word, untyped: usize) -> Self {
        Self::new(Self::kernel_label(number, parameter), untyped, 0)
    }

    /// The label of protocol `number`: the number above four bits of parameter.
    pub const fn kernel_label(number: SWord, parameter: Word) -> Word {
        ((number << PARAMETER_BITS) as Word | parameter & 0xF) & Self::LABEL_MAX
    }

    /// The label.
    pub const fn label(self) -> Word {
        self.0 >> LABEL_SHIFT
    }

    /// The protocol number in the label, with its sign.
    pub const fn protocol(self) -> SWord {
        self.0 as SWord >> (LABEL_SHIFT + PARAMETER_BITS)
    }

    /// The four parameter bits of the label.
    pub const fn parameter(self) -> Word {
        self.label() & 0xF
    }

    /// Number of untyped words, from MR1.
    pub const fn untyped(self) -> usize {
        (self.0 & COUNT_MASK) as usize
    }

    /// Number of typed words, after the untyped ones.
    pub const fn typed(self) -> usize {
        (self.0 >> TYPED_SHIFT & COUNT_MASK) as usize
    }

    /// Flag P.
    pub const fn is_propagated(self) -> bool {
        self.0 & Self::PROPAGATED != 0
    }

    /// Flag R.
    pub const fn is_redirected(self) -> bool {
        self.0 & Self::REDIRECTED != 0
    }

    /// Flag X.
    pub const fn is_xcpu(self) -> bool {
        self.0 & Self::XCPU != 0
    }

    /// Flag E.
    pub const fn is_error(self) -> bool {
        self.0 & Self::ERROR != 0
    }

    /// The same tag with another label.
    pub const fn with_label(self, label: Word) -> Self {
        Self(self.0 & !(Self::LABEL_MAX << LABEL_SHIFT) | label << LABEL_SHIFT)
    }

    /// The same tag with other counts.
    pub const fn with_counts(self, untyped: usize, typed: usize) -> Self {
        Self(Self::new(self.label(), untyped, typed).0 | self.0 & Self::FLAGS)
    }

    /// The same tag with these flags set too.
    pub const fn with_flags(self, flags: Word) -> Self {
        Self(self.0 | flags & Self::FLAGS)
    }

    /// The same tag with these flags clear.
    pub const fn without_flags(self, flags: Word) -> Self {
        Self(self.0 & !(flags & Self::FLAGS))
    }
}
