//! What the core asks of the machine, and the types that both sides use.

use kformats::paging::PageFormat;
use l4_abi::{ThreadId, Utcb, Word};

use crate::kmem::Kmem;
use crate::lock::{Held, rank};
use crate::sync::{AtomicU32, AtomicUsize};
use crate::thread::Tcb;
use crate::trace::Sink;
use crate::var::AsWord;

/// A type of references to the slots of a table.
pub trait Index: Copy + PartialEq {
    /// The reference to slot `index`.
    fn new(index: u32) -> Self;
    /// The slot.
    fn index(self) -> usize;
}

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

        impl Index for $name {
            #[inline(always)]
            fn new(index: u32) -> Self {
                Self(index)
            }
            #[inline(always)]
            fn index(self) -> usize {
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
/// only aligned ones. Processors, their page walkers too, see writes in the order in which they are made.
pub trait PhysMem: Sink {
    /// The word at `at`.
    fn read(&self, at: PhysAddr) -> usize;
    /// Replaces the word at `at`.
    fn write(&self, at: PhysAddr, word: usize);
    /// Clears and then sets bits of the word at `at` and returns the old word. Atomic: bits that a processor sets in a
    /// page-table entry meanwhile are in the old word or in the new one.
    fn update(&self, at: PhysAddr, clear: usize, set: usize) -> usize;
    /// Makes the word at `at` `new` if it is `old`, and says whether it was. Atomic.
    fn replace(&self, at: PhysAddr, old: usize, new: usize) -> bool;
    /// Clears the 4 KiB frame at `frame`.
    fn zero_frame(&self, frame: PhysAddr);
    /// The locality of this processor, below [`l4_abi::common::LOCALITIES_MAX`]. A machine with one leaves this alone.
    #[inline(always)]
    fn locality(&self) -> usize {
        0
    }
}

/// Where changed translations are made known to the processors that may have cached them.
pub trait Tlb {
    /// The translation of the 2^`size_log2` bytes at `at` in `space` is gone or has fewer rights. May be collected; is
    /// complete when the system call ends.
    fn invalidate(&self, space: SpaceRef, at: usize, size_log2: u32);
    /// All translations of `space` are gone, and its tables will be freed: processors that still have its root table
    /// loaded leave it. Complete when the step of the operation ends that asked for it.
    fn invalidate_all(&self, space: SpaceRef);
    /// Returns when no processor knows any translation that [`Tlb::invalidate`] was asked for, so that frames they led to
    /// may be used for something else.
    fn complete(&self);
    /// Memory types of pages changed: what the processors have cached of memory is written back and forgotten, unless
    /// they find out by themselves that an access by another type means the same line. Complete when this returns.
    fn flush_caches(&self);
}

/// The machine as address spaces see it.
pub trait Mmu: PhysMem + Tlb {
    /// The format of its page tables.
    type Format: PageFormat;

    /// What the slots of a thread take in the tables of the core and the machine.
    const THREAD_BYTES: usize = size_of::<crate::thread::Tcb>();
    /// Frames that a space with I/O ports takes besides those of the core.
    const PORT_MAP_FRAMES: usize = 0;

    /// The format with what the processors can do.
    fn format(&self) -> Self::Format;

    /// Fills the kernel's part of a fresh root table; the rest is zero.
    fn init_root(&self, root: PhysAddr);

    /// The machine's word for the space whose root table is `root`: what the thread switch loads. The same space always
    /// gets the same word.
    fn space_word(&self, space: SpaceRef, root: PhysAddr) -> usize;

    /// Backs the page of the table of mapping nodes that begins with the node `first` with a frame of `kmem`, full of
    /// zeroes, so that it may be written.
    ///
    /// # Errors
    /// [`NoMemory`] when kernel memory is exhausted.
    fn back_nodes(&self, kmem: &Kmem, held: &mut Held<{ rank::NODES }>, first: NodeRef) -> Result<(), NoMemory>;

    /// Gives the frame behind that page back to `kmem`, when no processor can find it any more. The page reads as zero
    /// again.
    fn release_nodes(&self, kmem: &Kmem, held: &mut Held<{ rank::NODES }>, first: NodeRef);

    /// As [`Mmu::back_nodes`], for the table of spaces.
    ///
    /// # Errors
    /// [`NoMemory`] when kernel memory is exhausted.
    fn back_spaces(&self, kmem: &Kmem, held: &mut Held<{ rank::SPACE }>, first: SpaceRef) -> Result<(), NoMemory>;

    /// As [`Mmu::release_nodes`], for the table of spaces.
    fn release_spaces(&self, kmem: &Kmem, held: &mut Held<{ rank::SPACE }>, first: SpaceRef);

    /// Whether user code reaches only the I/O ports that are mapped to its space, by I/O fpages. A machine where it is
    /// otherwise leaves this and the next two alone.
    fn has_io_fpages(&self) -> bool {
        false
    }

    /// Lets code in `space`, whose root table is `root`, reach the I/O ports whose bits in the two frames at `bits` are
    /// clear, in order of their numbers, each byte's lowest bit first. Before that it reaches none. The bits may change at
    /// any time, and nobody need be told. What is needed for that comes from `kmem`.
    ///
    /// # Errors
    /// [`NoMemory`] when kernel memory is exhausted; nothing has changed.
    fn open_port_map(
        &self,
        _kmem: &Kmem,
        _held: &mut Held<{ rank::PORTS }>,
        _space: SpaceRef,
        _root: PhysAddr,
        _bits: [PhysAddr; 2],
    ) -> Result<(), NoMemory> {
        Ok(())
    }

    /// Gives what [`Mmu::open_port_map`] took for the space with root table `root`, which no processor uses, back to `kmem`.
    fn close_port_map(&self, _kmem: &Kmem, _held: &mut Held<{ rank::PORTS }>, _root: PhysAddr) {}
}

/// Kernel memory is exhausted; nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoMemory;

/// The machine as the core sees it: what differs between processors and widths.
pub trait Machine: Mmu {
    /// Whether there can be another processor than this one. If not, the number of each processor and all homes are 0.
    const IS_MULTIPROCESSOR: bool = true;

    /// The system clock, microseconds since boot (X.2, SystemClock).
    fn now_us(&self) -> u64;

    /// The kernel's address of kernel memory at `phys`.
    fn kernel_address(&self, phys: PhysAddr) -> usize;

    /// The UTCB whose kernel address is `address`, which came from [`Machine::kernel_address`].
    fn utcb(&self, address: usize) -> &Utcb;

    /// Copies `len` bytes of physical memory, which lie in one page on either side.
    fn copy(&self, from: PhysAddr, to: PhysAddr, len: usize);

    /// The word of physical memory at `at`, which is aligned.
    fn read_user_word(&self, at: PhysAddr) -> usize;

    /// Where a thread goes on after an IPC: in the stub, with the address behind its call on top of its stack.
    fn ipc_return_ip(&self) -> usize;

    /// Whether there may be memory behind the slot of `thread`. Where there is none nobody is, and who looks nevertheless may leave
    /// a trace in the machine's tables, for which backing has to ask all processors. A machine that does not mind leaves this
    /// alone.
    #[inline]
    fn has_memory(&self, _thread: TcbRef) -> bool {
        true
    }

    /// Backs the table slots of `thread` with memory, so that its TCB may be written, and claims them
    /// ([`crate::thread::Tcb::is_claimed`]); nobody has claimed them.
    ///
    /// # Errors
    /// [`NoMemory`] when kernel memory is exhausted; nothing has changed.
    fn back_thread(&self, held: &mut Held<{ rank::NONE }>, thread: TcbRef) -> Result<(), NoMemory>;

    /// Gives up the claim to the slots of `thread`, which is an empty one. Memory behind pages in which no slot is
    /// claimed any more goes back, when no processor can find it any more; they read as zero again.
    /// The machine may keep a few pages for the next thread until somebody asks for them by [`Machine::reclaim`].
    fn release_thread(&self, held: &mut Held<{ rank::NONE }>, thread: TcbRef);

    /// Gives back memory that the machine keeps for the next thread; whether there was any. Whoever finds no memory asks
    /// for this and tries again.
    fn reclaim(&self, _held: &mut Held<{ rank::NONE }>) -> bool {
        false
    }

    /// Gives `thread` the general and floating-point registers of a fresh thread, which hold no kernel data.
    fn reset_registers(&self, thread: TcbRef);

    /// The user flags of a fresh thread.
    fn default_flags(&self) -> usize;

    /// `wanted` as far as a user may change it, the rest from `old` (ABI, changeable flags).
    fn user_flags(&self, old: usize, wanted: usize) -> usize;

    /// Makes processor `cpu` look at its mailbox and at its questions, soon. A machine with one processor leaves this and
    /// the next alone.
    fn kick(&self, _cpu: CpuId) {}

    /// Waits a moment for another processor.
    fn relax(&self) {}

    /// This processor does the same again and again until others have come further.
    fn pause(&self) {}

    /// `thread` runs at processor `cpu` from now on. If it is an interrupt's, that is where its line goes.
    fn route_line(&self, _thread: TcbRef, _cpu: CpuId) {}

    /// User pages are about to be looked up and copied, and until [`Machine::end_copy`] nobody may take it that their frames
    /// are not used any more.
    fn begin_copy(&self) {}

    /// The copy is done.
    fn end_copy(&self) {}

    /// `thread`, which this processor need not have run before, begins a plain wait here: the fast path may load its space
    /// without a word.
    fn note_plain_wait(&self, _thread: TcbRef) {}

    /// Another processor will run `thread`, which does not run: what this one holds of it is saved.
    fn let_go(&self, _thread: TcbRef) {}

    /// Whether a device can be at interrupt line `line`. A machine without lines leaves this and the next two alone.
    fn has_line(&self, _line: u32) -> bool {
        false
    }

    /// Holds the interrupts of `line` back: [`crate::kernel::Here::interrupt`] is not called for it until it is unmasked.
    /// Before each call for a line that stays raised, and for one that remembers what comes while it is masked, the
    /// machine masks it by itself.
    fn mask_line(&self, _held: &mut Held<{ rank::NONE }>, _line: u32) {}

    /// Lets the interrupts of `line` through.
    fn unmask_line(&self, _held: &mut Held<{ rank::NONE }>, _line: u32) {}

    /// Gives the console a character; `false` if it can take none now. A machine without console leaves this alone.
    fn put_char(&self, _character: u8) -> bool {
        true
    }

    /// Drops what the processor holds of `thread` (floating-point registers): it is deleted.
    fn forget_thread(&self, thread: TcbRef);

    /// Ends a call of Ipc of `thread`, whose TCB is `tcb`: `from`, the local id and the message registers that the ABI passes
    /// in processor registers, from the UTCB, into its saved registers.
    fn ipc_return(&self, thread: TcbRef, tcb: &Tcb, from: ThreadId);

    /// Ends a call of Unmap: as [`Machine::ipc_return`], without a `from`.
    fn unmap_return(&self, thread: TcbRef, utcb: &Utcb);

    /// The words MR1.. of an exception message with the registers of `thread` (ABI, exception message); their number.
    fn exception_image(&self, thread: TcbRef, regs: UserRegs, words: &mut [Word; EXCEPTION_IMAGE_WORDS]) -> usize;

    /// Loads the registers of `thread` from the first words of the reply to an exception message; words beyond `words`
    /// are unchanged. Returns the new instruction pointer, stack pointer and flags.
    fn load_exception_image(&self, thread: TcbRef, regs: UserRegs, words: &[Word]) -> UserRegs;
}

/// Room for the register image of an exception message at any width.
pub const EXCEPTION_IMAGE_WORDS: usize = 20;

/// The user registers that the core itself reads and writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UserRegs {
    /// Instruction pointer.
    pub ip: usize,
    /// Stack pointer.
    pub sp: usize,
    /// Flags.
    pub flags: usize,
}
