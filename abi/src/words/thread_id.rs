//! Thread ids.

use super::*;

word_type! {
    /// The id of a thread, or one of the special ids (X.2, ThreadId).
    ///
    /// A *global* id has the version below and the thread number from bit [`Self::THREAD_NO_SHIFT`]; one of the low six
    /// bits is set. A *local* id is the address of the thread's MR0 in its own space; its low six bits are clear. The
    /// special ids follow the same rule: [`Self::ANY`] counts as global, [`Self::ANY_LOCAL`] as local.
    ThreadId
}

const LOCAL_MASK: Word = 0x3F;

impl ThreadId {
    /// nilthread.
    pub const NIL: Self = Self(0);
    /// anythread.
    pub const ANY: Self = Self(Word::MAX);
    /// anylocalthread.
    pub const ANY_LOCAL: Self = Self(!LOCAL_MASK);
    /// Position of the thread number.
    pub const THREAD_NO_SHIFT: u32 = THREAD_NO_SHIFT;
    /// Highest version.
    pub const VERSION_MAX: Word = (1 << THREAD_NO_SHIFT) - 1;
    /// Highest thread number that the layout can hold.
    pub const THREAD_NO_MAX: Word = Word::MAX >> THREAD_NO_SHIFT;

    /// The global id of a number and a version, each cut to its field. For a valid id the low six bits of the version
    /// are not all clear.
    pub const fn global(thread_no: Word, version: Word) -> Self {
        Self(thread_no << THREAD_NO_SHIFT | version & Self::VERSION_MAX)
    }

    /// The local id of the thread with its MR0 at this address, a multiple of 64.
    pub const fn local(mr0_address: Word) -> Self {
        Self(mr0_address & !LOCAL_MASK)
    }

    /// The id of an interrupt.
    pub const fn interrupt(number: Word) -> Self {
        Self::global(number, 1)
    }

    /// Thread number of a global id.
    pub const fn thread_no(self) -> Word {
        self.0 >> THREAD_NO_SHIFT
    }

    /// Version of a global id.
    pub const fn version(self) -> Word {
        self.0 & Self::VERSION_MAX
    }

    /// Whether this is nilthread.
    pub const fn is_nil(self) -> bool {
        self.0 == 0
    }

    /// Whether this is anythread.
    pub const fn is_any(self) -> bool {
        self.0 == Self::ANY.0
    }

    /// Whether this is anylocalthread.
    pub const fn is_any_local(self) -> bool {
        self.0 == Self::ANY_LOCAL.0
    }

    /// Whether this has the form of a global id. True of anythread, false of nilthread.
    pub const fn is_global(self) -> bool {
        self.0 & LOCAL_MASK != 0
    }

    /// Whether this has the form of a local id. True of anylocalthread, false of nilthread.
    pub const fn is_local(self) -> bool {
        !self.is_nil() && !self.is_global()
    }
}
