//! The trace buffer: memory that kernel and programs write records to (X.2 kernels with the feature `tracebuffer`). It is there
//! in all spaces at one address, which a memory descriptor says: reserved, virtual. Any program can write to all of it.

use super::Word;

/// The name of the feature.
pub const FEATURE: &str = "tracebuffer";
/// The first word.
pub const MAGIC: Word = (0x0001_464B_123A_CEBF_u64 >> if Word::BITS == 32 { 20 } else { 0 }) as Word;

/// Words of the header, by their indices.
pub mod header {
    /// [`super::MAGIC`].
    pub const MAGIC: usize = 0;
    /// The index of the record that was written last.
    pub const CURRENT: usize = 1;
    /// Types of events that are recorded: see [`super::accepts`].
    pub const MASK: usize = 2;
    /// Records that there is room for.
    pub const MAX: usize = 3;
    /// Bit 0: there is more than one processor. The others say how performance counters are used: not at all.
    pub const CONFIG: usize = 4;
    /// Counters of programs.
    pub const COUNTERS: usize = 8;
    /// How many there are.
    pub const COUNTERS_MAX: usize = 8;
    /// Words of the header, and where records begin.
    pub const WORDS: usize = 16;
}

/// Words of a record, by their indices.
pub mod record {
    /// Bits 0 to 15: the type that the program chose, 0: it is the kernel's. Bits 16 to 31: the type of the kernel's event.
    pub const TYPE: usize = 0;
    /// Bits 0 to 15: the processor. Bits 16 to 31: which event; of programs from [`super::FIRST_USER_ID`] on.
    pub const WHERE: usize = 1;
    /// The time-stamp counter.
    pub const TSC: usize = 2;
    /// The thread: of the kernel's records and of programs' by its global id.
    pub const THREAD: usize = 3;
    /// Two performance counters.
    pub const COUNTERS: usize = 4;
    /// The address of a text that says what the record is, or 0.
    pub const TEXT: usize = 6;
    /// Arguments.
    pub const ARGS: usize = 7;
    /// How many there are.
    pub const ARGS_MAX: usize = 9;
    /// Words of a record.
    pub const WORDS: usize = 16;
}

/// Events of programs have numbers from here on.
pub const FIRST_USER_ID: u16 = 100;
/// The type that programs use if they do not choose one.
pub const DEFAULT_TYPE: u16 = 1;

/// Whether records with this word [`record::TYPE`] are recorded while [`header::MASK`] is `mask`.
pub const fn accepts(mask: Word, kind: Word) -> bool {
    mask & ((kind & 0xFFFF) << 16) != 0
}
