//! The manual's own protocols: numbers in the label, tags and words of their messages.

use super::*;

/// An interrupt came: from its thread to the handler, no words.
pub const INTERRUPT: SWord = -1;
/// A page fault: fault address, instruction pointer; the parameter is the access.
pub const PAGE_FAULT: SWord = -2;
/// A preemption: low and high word of the clock.
pub const PREEMPTION: SWord = -3;
/// An exception of an architecture's own; not on x86.
pub const ARCH_EXCEPTION: SWord = -4;
/// An exception: the registers, in the order of [`ExceptionWord`].
pub const EXCEPTION: SWord = -5;
/// A request to sigma0: fpage, attributes.
pub const SIGMA0: SWord = -6;
/// An I/O port fault: I/O fpage, instruction pointer.
pub const IO_PAGE_FAULT: SWord = -8;
/// A request to sigma0 from the kernel or the root task: operation, argument.
pub const SIGMA0_EXTENDED: SWord = -1001;

/// Instruction pointer in the page-fault message of an incoming string: the thread is not at any instruction.
pub const PAGE_FAULT_IN_STRING: Word = Word::MAX;

/// Untyped words of a start message: instruction pointer, stack pointer.
pub const START_WORDS: usize = 2;

/// The tag of an interrupt message.
pub const fn interrupt_tag() -> MsgTag {
    MsgTag::kernel(INTERRUPT, 0, 0)
}

/// The tag of a page-fault message for this access.
pub const fn page_fault_tag(access: Rights) -> MsgTag {
    MsgTag::kernel(PAGE_FAULT, access.bits(), 2)
}

/// The tag of an I/O port fault.
pub const fn io_page_fault_tag() -> MsgTag {
    MsgTag::kernel(IO_PAGE_FAULT, Rights::READ_WRITE.bits(), 2)
}

/// The tag of a preemption message.
pub const fn preemption_tag() -> MsgTag {
    MsgTag::kernel(PREEMPTION, 0, 2)
}

/// The words of a preemption message: the clock.
pub const fn preemption_words(clock_us: u64) -> [Word; 2] {
    // Two shifts, as one by the width of a 64-bit word would not be defined.
    [clock_us as Word, (clock_us >> (Word::BITS / 2) >> (Word::BITS / 2)) as Word]
}

/// The tag of an exception message.
pub const fn exception_tag() -> MsgTag {
    MsgTag::kernel(EXCEPTION, 0, EXCEPTION_WORDS)
}

/// The tag of a start message.
pub const fn start_tag() -> MsgTag {
    MsgTag::new(0, START_WORDS, 0)
}

/// The base of an fpage in a sigma0 request, shifted: any address will do.
const ANY_BASE: Word = Word::MAX >> 10;

/// A request for memory or ports to sigma0 (sigma0 protocol).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sigma0Request {
    /// What is wanted.
    pub fpage: Fpage,
    /// Caching attributes for MemoryControl; 0 is the default.
    pub attributes: Word,
    /// Address bits above a word; sent if the fpage is extended.
    pub high: Word,
}

impl Sigma0Request {
    /// A request for this page or these ports.
    pub const fn page(fpage: Fpage) -> Self {
        Self { fpage, attributes: 0, high: 0 }
    }

    /// A request for any page of 2^`size_log2` bytes.
    pub const fn any(size_log2: u32) -> Self {
        Self::page(Fpage::from_raw(ANY_BASE << 10 | (size_log2 as Word) << 4))
    }

    /// Whether any address will do.
    pub const fn is_any(&self) -> bool {
        self.fpage.raw() >> 10 == ANY_BASE
    }

    /// The tag of the message.
    pub const fn tag(&self) -> MsgTag {
        MsgTag::kernel(SIGMA0, 0, if self.fpage.is_extended() { 3 } else { 2 })
    }

    /// The words of the message; the last is sent if the fpage is extended.
    pub const fn words(&self) -> [Word; 3] {
        [self.fpage.raw(), self.attributes, self.high]
    }

    /// The tag of the reply, which has one map item: the page, or nilpage if the request is refused.
    pub const fn reply_tag() -> MsgTag {
        MsgTag::new(0, 0, MapItem::WORDS)
    }
}

/// First word of an extended request: set the verbosity to the second word.
pub const SIGMA0_SET_VERBOSITY: Word = 1;
/// First word of an extended request: print the pools; reply if the second word is not zero.
pub const SIGMA0_DUMP_POOLS: Word = 2;
