//! The timeouts of an IPC.

use super::*;

word_type! {
    /// Send and receive timeout; the XferTimeouts register has the same form (X.2, Ipc).
    ///
    /// Bits, lowest first: receive timeout 16, send timeout 16; those above are ignored.
    Timeouts
}

impl Timeouts {
    /// No limit for either phase.
    pub const NEVER: Self = Self(0);

    /// The two timeouts in one word.
    pub const fn new(snd: Time, rcv: Time) -> Self {
        Self((snd.raw() as Word) << 16 | rcv.raw() as Word)
    }

    /// The send timeout.
    pub const fn snd(self) -> Time {
        Time::from_raw((self.0 >> 16) as u16)
    }

    /// The receive timeout.
    pub const fn rcv(self) -> Time {
        Time::from_raw(self.0 as u16)
    }
}
