//! What the core asks of the machine, and the types that both sides use.

use core::sync::atomic::{AtomicU32, AtomicUsize};

use crate::var::AsWord;

macro_rules! index_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub struct $name(u32);

        impl $name {
            /// The reference to slot `index`.
            #[inline(always)]
            pub const fn new(index: u32) -> Self {
                Self(index)
            }
            /// The slot.
            #[inline(always)]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl AsWord for Option<$name> {
            type Cell = AtomicU32;
            #[inline(always)]
            fn to_word(self) -> usize {
                match self {
                    None => 0,
                    Some(r) => r.index() + 1,
                }
            }
            #[inline(always)]
            fn from_word(word: usize) -> Self {
                match word {
                    0 => None,
                    n => Some($name((n - 1) as u32)),
                }
            }
        }
    };
}

index_type!(
    /// A thread control block, by thread number.
    TcbRef
);
index_type!(
    /// An address space.
    SpaceRef
);
index_type!(
    /// A node of the mapping database.
    NodeRef
);
index_type!(
    /// A processor; 0 is the one that booted.
    CpuId
);

/// A physical address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct PhysAddr(pub u64);

impl AsWord for PhysAddr {
    type Cell = AtomicUsize;
    // Kernel memory, the only memory whose address a `Var` holds, lies below 4 GiB on 32-bit machines.
    #[inline(always)]
    fn to_word(self) -> usize {
        self.0 as usize
    }
    #[inline(always)]
    fn from_word(word: usize) -> Self {
        PhysAddr(word as u64)
    }
}

/// Words of kernel memory by physical address. Only addresses inside frames of the kernel's allocator are used, and
/// only aligned ones.
pub trait PhysMem {
    /// The word at `at`.
    fn read(&self, at: PhysAddr) -> usize;
    /// Replaces the word at `at`.
    fn write(&self, at: PhysAddr, word: usize);
    /// Clears the 4 KiB frame at `frame`.
    fn zero_frame(&self, frame: PhysAddr);
}

/// Where changed translations are made known to the processors that may have cached them.
pub trait Tlb {
    /// The translation of the 2^`size_log2` bytes at `at` in `space` is gone or has fewer rights. May be collected; is
    /// complete when the system call ends.
    fn invalidate(&self, space: SpaceRef, at: usize, size_log2: u32);
    /// All translations of `space` are gone.
    fn invalidate_all(&self, space: SpaceRef);
}
