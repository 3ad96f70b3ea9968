//! Control words and results of the system calls.

use super::*;

word_type! {
    /// What ExchangeRegisters shall do (X.2, ExchangeRegisters).
    ExregsControl
}
flag_set!(ExregsControl);

impl ExregsControl {
    /// H: halt rather than resume, if [`Self::APPLY_HALT`] is set.
    pub const HALT: Self = Self(1 << 0);
    /// R: abort a receive operation.
    pub const ABORT_RECEIVE: Self = Self(1 << 1);
    /// S: abort a send operation.
    pub const ABORT_SEND: Self = Self(1 << 2);
    /// s: set the stack pointer.
    pub const SP: Self = Self(1 << 3);
    /// i: set the instruction pointer.
    pub const IP: Self = Self(1 << 4);
    /// f: set the flags that users may change.
    pub const FLAGS: Self = Self(1 << 5);
    /// u: set the user-defined handle.
    pub const HANDLE: Self = Self(1 << 6);
    /// p: set the pager.
    pub const PAGER: Self = Self(1 << 7);
    /// h: halt or resume, as [`Self::HALT`] says.
    pub const APPLY_HALT: Self = Self(1 << 8);
    /// d: deliver the old values; they always are.
    pub const DELIVER: Self = Self(1 << 9);
    /// S and R.
    pub const ABORT_IPC: Self = Self(Self::ABORT_RECEIVE.0 | Self::ABORT_SEND.0);
    /// S, R, h: resume a thread out of whatever it waits for.
    pub const START: Self = Self(Self::ABORT_IPC.0 | Self::APPLY_HALT.0);
    /// d, h, H: halt a thread.
    pub const STOP: Self = Self(Self::DELIVER.0 | Self::APPLY_HALT.0 | Self::HALT.0);
}

word_type! {
    /// What a thread was doing when ExchangeRegisters came: the old control word (X.2, ExchangeRegisters).
    ThreadState
}
flag_set!(ThreadState);

impl ThreadState {
    /// It was halted.
    pub const HALTED: Self = Self(1 << 0);
    /// It was receiving, or waiting to.
    pub const RECEIVING: Self = Self(1 << 1);
    /// It was sending, or waiting to.
    pub const SENDING: Self = Self(1 << 2);

    /// Whether it was halted.
    pub const fn was_halted(self) -> bool {
        self.contains(Self::HALTED)
    }

    /// Whether it was receiving.
    pub const fn was_receiving(self) -> bool {
        self.contains(Self::RECEIVING)
    }

    /// Whether it was sending.
    pub const fn was_sending(self) -> bool {
        self.contains(Self::SENDING)
    }

    /// Whether it was in an IPC.
    pub const fn was_ipcing(self) -> bool {
        self.was_receiving() || self.was_sending()
    }
}

/// The state of a thread before Schedule changed it (X.2, Schedule).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ScheduleResult {
    /// The call failed.
    Error = 0,
    /// Not activated, or dead.
    Dead = 1,
    /// Halted.
    Inactive = 2,
    /// Running or ready.
    Running = 3,
    /// Waiting for the receiver.
    PendingSend = 4,
    /// In the transfer, as the sender.
    Sending = 5,
    /// Waiting for a sender.
    Waiting = 6,
    /// In the transfer, as the receiver.
    Receiving = 7,
}

impl ScheduleResult {
    /// The manual's number.
    pub const fn raw(self) -> Word {
        self as Word
    }

    /// The result with this number; `None` beyond 7.
    pub const fn from_raw(raw: Word) -> Option<Self> {
        Some(match raw {
            0 => Self::Error,
            1 => Self::Dead,
            2 => Self::Inactive,
            3 => Self::Running,
            4 => Self::PendingSend,
            5 => Self::Sending,
            6 => Self::Waiting,
            7 => Self::Receiving,
            _ => return None,
        })
    }
}

/// A parameter of Schedule that all ones leave as it is.
macro_rules! schedule_word {
    ($(#[$meta:meta])* $name:ident) => {
        word_type! { $(#[$meta])* $name }

        impl $name {
            /// All ones: leave it as it is.
            pub const NO_CHANGE: Self = Self(Word::MAX);

            /// Whether this is all ones.
            pub const fn is_no_change(self) -> bool {
                self.0 == Word::MAX
            }
        }
    };
}

schedule_word! {
    /// Time slice and total quantum (X.2, Schedule).
    ///
    /// Bits, lowest first: total quantum 16, time slice 16; both are periods, never means infinite.
    TimeControl
}

impl TimeControl {
    /// The two periods in one word.
    pub const fn new(timeslice: Time, total_quantum: Time) -> Self {
        Self((timeslice.raw() as Word) << 16 | total_quantum.raw() as Word)
    }

    /// Length of a time slice.
    pub const fn timeslice(self) -> Time {
        Time::from_raw((self.0 >> 16) as u16)
    }

    /// Time until the thread is stopped.
    pub const fn total_quantum(self) -> Time {
        Time::from_raw(self.0 as u16)
    }
}

schedule_word! {
    /// The priority, and parameters of optional schedulers (X.2, Schedule).
    ///
    /// Bits, lowest first: priority 9, log id 7, stride 16. A priority above 255 leaves it as it is.
    PrioControl
}

impl PrioControl {
    /// The priority field that leaves it as it is.
    pub const NO_PRIORITY: Word = 0x1FF;

    /// This priority.
    pub const fn new(priority: u8) -> Self {
        Self(priority as Word)
    }

    /// The new priority, if there is one.
    pub const fn priority(self) -> Option<u8> {
        match self.0 & Self::NO_PRIORITY {
            priority @ 0..=0xFF => Some(priority as u8),
            _ => None,
        }
    }

    /// The log id of event logging; 0 leaves it as it is.
    pub const fn logid(self) -> u8 {
        (self.0 >> 9 & 0x7F) as u8
    }

    /// The stride of the hierarchical scheduler; 0 leaves it as it is.
    pub const fn stride(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

schedule_word! {
    /// The processor to move to (X.2, Schedule): its number in the low 16 bits.
    ProcessorControl
}

impl ProcessorControl {
    /// This processor.
    pub const fn new(processor: u16) -> Self {
        Self(processor as Word)
    }

    /// The new processor, if there is one.
    pub const fn processor(self) -> Option<u16> {
        if self.is_no_change() { None } else { Some(self.0 as u16) }
    }
}

schedule_word! {
    /// Parameters of delayed preemption (X.2, Schedule).
    ///
    /// Bits, lowest first: maximum delay in microseconds 16, sensitive priority 8, log flag 1, hierarchical scheduling 1.
    PreemptionControl
}

impl PreemptionControl {
    const HS_EXTENDED: Word = 1 << 25;

    /// This sensitive priority and maximum delay.
    pub const fn new(sensitive_priority: u8, max_delay_us: u16) -> Self {
        Self((sensitive_priority as Word) << 16 | max_delay_us as Word)
    }

    /// Longest delay of a preemption in microseconds.
    pub const fn max_delay_us(self) -> u16 {
        self.0 as u16
    }

    /// Only threads above this priority preempt at once.
    pub const fn sensitive_priority(self) -> u8 {
        (self.0 >> 16) as u8
    }

    /// Whether the call is one of the extension for hierarchical scheduling.
    pub const fn is_hs_extended(self) -> bool {
        !self.is_no_change() && self.0 & Self::HS_EXTENDED != 0
    }
}

word_type! {
    /// How many fpages Unmap takes, and whether it flushes (X.2, Unmap).
    ///
    /// Bits, lowest first: number of fpages - 1 6, flush 1.
    UnmapControl
}

impl UnmapControl {
    const FLUSH: Word = 1 << 6;
    const COUNT_MASK: Word = 0x3F;

    /// Revokes derived mappings of the `count` fpages from MR0 on, 1 to 64.
    pub const fn unmap(count: usize) -> Self {
        Self((count as Word).wrapping_sub(1) & Self::COUNT_MASK)
    }

    /// Revokes own and derived mappings of the `count` fpages from MR0 on, 1 to 64.
    pub const fn flush(count: usize) -> Self {
        Self(Self::unmap(count).0 | Self::FLUSH)
    }

    /// Number of fpages, 1 to 64.
    pub const fn count(self) -> usize {
        (self.0 & Self::COUNT_MASK) as usize + 1
    }

    /// Whether own mappings are revoked too.
    pub const fn is_flush(self) -> bool {
        self.0 & Self::FLUSH != 0
    }
}

word_type! {
    /// The architecture's part of SpaceControl (X.2, SpaceControl; ia32 and amd64).
    SpaceControl
}
flag_set!(SpaceControl);

impl SpaceControl {
    /// Top bit. amd64: the space runs 32-bit code. ia32: the space becomes a small space. In the old control word that
    /// a call returns: it was done.
    pub const MODE: Self = Self(1 << (Word::BITS - 1));
    /// The space gets another quota of kernel memory, the number below in KiB; all ones: none. In the old control word: what
    /// it was. An extension of X.2.
    pub const QUOTA: Self = Self(1 << (Word::BITS - 2));
    /// The old control word tells how much kernel memory the space takes, in KiB, in place of its old quota. An extension of
    /// X.2.
    pub const USAGE: Self = Self(1 << (Word::BITS - 3));
    /// The number of KiB.
    const KIB: Word = Self::USAGE.0 - 1;

    /// Asks for this quota in KiB, or for none. What is too large for the word is none.
    pub const fn quota(kib: Option<Word>) -> Self {
        match kib {
            Some(kib) if kib < Self::KIB => Self(Self::QUOTA.0 | kib),
            _ => Self(Self::QUOTA.0 | Self::KIB),
        }
    }

    /// Asks how much kernel memory the space takes; or says so, in KiB. What is too large for the word is the largest number.
    pub const fn usage(kib: Word) -> Self {
        Self(Self::USAGE.0 | if kib < Self::KIB { kib } else { Self::KIB })
    }

    /// The quota in KiB, or that there shall be none; `None`: nothing is said of a quota.
    pub const fn quota_kib(self) -> Option<Option<Word>> {
        let kib = self.0 & Self::KIB;
        match self.0 & Self::QUOTA.0 {
            0 => None,
            _ if kib == Self::KIB => Some(None),
            _ => Some(Some(kib)),
        }
    }

    /// Whether the call asks what the space takes, or the answer says it.
    pub const fn asks_for_usage(self) -> bool {
        self.0 & Self::USAGE.0 != 0
    }

    /// The number of KiB in an answer.
    pub const fn kib(self) -> Word {
        self.0 & Self::KIB
    }
}

word_type! {
    /// A caching attribute: how processors access a page (X.2, MemoryControl; ia32 ABI, MemoryControl attributes, which
    /// hold for both widths).
    PageAttribute
}

impl PageAttribute {
    /// What memory has unless somebody asks for something else.
    #[doc(alias = "L4_DefaultMemory")]
    pub const DEFAULT: Self = Self(0);
    #[doc(alias = "L4_WriteBackMemory")]
    /// Cached; writes go to memory when the cache line does.
    pub const WRITE_BACK: Self = Self(1);
    #[doc(alias = "L4_WriteThroughMemory")]
    /// Cached; writes go to memory at once.
    pub const WRITE_THROUGH: Self = Self(2);
    /// Not cached, unless the range registers of the processor say "write-combining".
    pub const UNCACHEABLE_WEAK: Self = Self(3);
    #[doc(alias = "L4_UncacheableMemory")]
    /// Not cached.
    pub const UNCACHEABLE: Self = Self(4);
    #[doc(alias = "L4_WriteCombiningMemory")]
    /// Not cached; writes may be collected.
    pub const WRITE_COMBINING: Self = Self(5);
    #[doc(alias = "L4_WriteProtectedMemory")]
    /// Reads are cached; writes go to memory at once and empty the caches of other processors.
    pub const WRITE_PROTECTED: Self = Self(8);

    /// The entry of the page attribute table that stands for it; `None` if it is no attribute.
    pub const fn pat_index(self) -> Option<u8> {
        match self.0 {
            0 => Some(0),
            1..=5 | 8 => Some(self.0 as u8 - 1),
            _ => None,
        }
    }
}
