//! The acceptor.

use super::*;

word_type! {
    /// BR0: which typed items a receiver takes (X.2, Acceptor).
    ///
    /// Bits, lowest first: strings 1, control transfer 1, zero 2, receive window without its low four bits in the rest.
    Acceptor
}

const STRINGS: Word = 1;
const CTRL_XFER: Word = 2;
const WINDOW_MASK: Word = !0xF;

impl Acceptor {
    /// Untyped words alone.
    pub const UNTYPED: Self = Self(0);
    /// Strings, into the buffers from BR1.
    pub const STRINGS: Self = Self(STRINGS);
    /// Control-transfer items, applied to the registers.
    pub const CTRL_XFER: Self = Self(CTRL_XFER);
    /// Mappings anywhere in the space.
    pub const COMPLETE: Self = Self::map_grant(Fpage::COMPLETE);

    /// Mappings into this window.
    pub const fn map_grant(window: Fpage) -> Self {
        Self(window.raw() & WINDOW_MASK)
    }

    /// The same and strings too.
    pub const fn with_strings(self) -> Self {
        Self(self.0 | STRINGS)
    }

    /// Whether strings are taken.
    pub const fn accepts_strings(self) -> bool {
        self.0 & STRINGS != 0
    }

    /// Whether control-transfer items are applied.
    pub const fn accepts_ctrl_xfer(self) -> bool {
        self.0 & CTRL_XFER != 0
    }

    /// The receive window, without rights; nil if no mapping is taken.
    pub const fn rcv_window(self) -> Fpage {
        Fpage::from_raw(self.0 & WINDOW_MASK)
    }
}
