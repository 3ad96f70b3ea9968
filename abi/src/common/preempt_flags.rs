//! The PreemptFlags register.

/// Bits of the PreemptFlags byte (X.2, Delayed Preemption).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct PreemptFlags(u8);

impl PreemptFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// s: signal a preemption fault to the exception handler when the maximum delay is used up.
    pub const SIGNAL: Self = Self(1 << 5);
    /// d: delay preemption.
    pub const DELAY: Self = Self(1 << 6);
    /// I: a preemption is pending; set by the kernel, cleared by the user.
    pub const PENDING: Self = Self(1 << 7);

    /// The flags with these bits.
    pub const fn from_raw(raw: u8) -> Self {
        Self(raw)
    }

    /// The bits.
    pub const fn raw(self) -> u8 {
        self.0
    }

    /// Whether every flag of `other` is set here.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}
