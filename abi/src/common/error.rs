//! Error numbers of the system calls and of IPC.

/// Why a system call failed: the value of the ErrorCode register (X.2, System Calls).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SysError {
    /// The caller's space may not use this call.
    NoPrivilege = 1,
    /// The thread does not exist, is not in a fit state or not for the caller.
    InvalidThread = 2,
    /// The space specifier names no space, or one that is not fit.
    InvalidSpace = 3,
    /// The scheduler is not fit.
    InvalidScheduler = 4,
    /// A parameter is out of range.
    InvalidParameter = 5,
    /// The UTCB area or the UTCB location is not fit.
    UtcbArea = 6,
    /// The KIP area is not fit.
    KipArea = 7,
    /// The kernel has no memory left for this.
    OutOfMemory = 8,
}

impl SysError {
    /// All errors in the order of their numbers, from 1.
    pub const ALL: [Self; 8] = [
        Self::NoPrivilege,
        Self::InvalidThread,
        Self::InvalidSpace,
        Self::InvalidScheduler,
        Self::InvalidParameter,
        Self::UtcbArea,
        Self::KipArea,
        Self::OutOfMemory,
    ];

    /// The manual's number.
    pub const fn raw(self) -> u8 {
        self as u8
    }

    /// The error with this number; `None` for 0 and unknown numbers.
    pub const fn from_raw(raw: u64) -> Option<Self> {
        match raw {
            1..=8 => Some(Self::ALL[raw as usize - 1]),
            _ => None,
        }
    }
}

/// The phase of an IPC that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Phase {
    /// The send phase; the receive phase was not entered.
    Send = 0,
    /// The receive phase; what was to be sent has been.
    Receive = 1,
}

/// Why an IPC failed (X.2, IPC, ErrorCode). From [`Self::Overflow`] on the transfer had begun, and both partners see an
/// error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum IpcErrorKind {
    /// The timeout ran out before the transfer began.
    Timeout = 1,
    /// The partner does not exist.
    NonExisting = 2,
    /// Canceled by another thread before the transfer began.
    Canceled = 3,
    /// The receiver had no room for an item.
    Overflow = 4,
    /// A page fault during the transfer took longer than the invoker's transfer timeout.
    XferTimeoutInvoker = 5,
    /// A page fault during the transfer took longer than the partner's transfer timeout.
    XferTimeoutPartner = 6,
    /// Aborted by another thread during the transfer.
    Aborted = 7,
}

impl IpcErrorKind {
    /// All kinds in the order of their numbers, from 1.
    pub const ALL: [Self; 7] = [
        Self::Timeout,
        Self::NonExisting,
        Self::Canceled,
        Self::Overflow,
        Self::XferTimeoutInvoker,
        Self::XferTimeoutPartner,
        Self::Aborted,
    ];

    /// The manual's number.
    pub const fn raw(self) -> u8 {
        self as u8
    }

    /// The kind with this number; `None` unless 1 to 7.
    pub const fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            1..=7 => Some(Self::ALL[raw as usize - 1]),
            _ => None,
        }
    }

    /// Whether the transfer had begun, so that both partners see the error and the offset counts.
    pub const fn is_in_transfer(self) -> bool {
        self as u8 >= Self::Overflow as u8
    }
}
