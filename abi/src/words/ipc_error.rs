//! The ErrorCode register after an IPC.

use super::*;

/// Why and where an IPC failed (X.2, IPC, ErrorCode).
///
/// Bits of its word, lowest first: phase 1, kind 3, offset in the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpcError {
    /// The phase that failed.
    pub phase: Phase,
    /// The reason.
    pub kind: IpcErrorKind,
    /// Bytes of strings transferred until then; defined if [`IpcErrorKind::is_in_transfer`].
    pub offset: Word,
}

impl IpcError {
    /// An error before any transfer.
    pub const fn new(phase: Phase, kind: IpcErrorKind) -> Self {
        Self { phase, kind, offset: 0 }
    }

    /// The word of the ErrorCode register.
    pub const fn raw(self) -> Word {
        self.offset << 4 | (self.kind as Word) << 1 | self.phase as Word
    }

    /// The error in the word; `None` if it holds no kind.
    pub const fn from_raw(raw: Word) -> Option<Self> {
        let phase = if raw & 1 == 0 { Phase::Send } else { Phase::Receive };
        match IpcErrorKind::from_raw((raw >> 1 & 0x7) as u8) {
            Some(kind) => Some(Self { phase, kind, offset: raw >> 4 }),
            None => None,
        }
    }
}
