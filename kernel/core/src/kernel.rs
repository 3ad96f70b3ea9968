//! The core's tables together, and the core as one processor sees it during one kernel entry.

use l4_abi::ThreadId;

use crate::cross::claims::Claims;
use crate::kmem::Kmem;
use crate::lock::{Held, rank};
use crate::machine::{CpuId, Machine, SpaceRef, TcbRef};
use crate::sched::Cpu;
use crate::space::Spaces;
use crate::thread::Tcb;

/// The borders of the thread numbers (X.2, Thread identifiers): below `system_base` interrupts, below `user_base` the
/// kernel's own.
#[derive(Clone, Copy, Debug)]
pub struct ThreadNumbers {
    /// The first number that is not an interrupt; at least 1.
    pub system_base: u32,
    /// The first number for users; sigma0 has it.
    pub user_base: u32,
}

impl ThreadNumbers {
    /// The id of sigma0.
    pub fn sigma0(self) -> ThreadId {
        ThreadId::global(self.user_base as _, 1)
    }

    /// The id of sigma1.
    pub fn sigma1(self) -> ThreadId {
        ThreadId::global((self.user_base + 1) as _, 1)
    }

    /// The id of the root task.
    pub fn root_task(self) -> ThreadId {
        ThreadId::global((self.user_base + 2) as _, 1)
    }
}

/// All state of the core, shared by all processors.
pub struct Kernel<'k, M: Machine> {
    /// The machine.
    pub machine: &'k M,
    /// Thread control blocks by thread number.
    pub tcbs: &'k [Tcb],
    /// Processors.
    pub cpus: &'k [&'k Cpu],
    /// Address spaces and the mapping database.
    pub spaces: Spaces<'k, M>,
    /// Kernel memory.
    pub kmem: &'k Kmem,
    /// Borders of the thread numbers.
    pub numbers: ThreadNumbers,
    /// Who makes and frees slots of threads.
    pub creation: Claims,
}

impl<M: Machine> Kernel<'_, M> {
    /// The TCB of `thread`.
    #[inline(always)]
    pub fn tcb(&self, thread: TcbRef) -> &Tcb {
        &self.tcbs[thread.index()]
    }

    /// The UTCB of `thread`, which is active.
    #[inline(always)]
    pub fn utcb(&self, thread: TcbRef) -> &l4_abi::Utcb {
        self.tcb(thread).utcb_in(self.machine)
    }

    /// The UTCB of `thread`, which another processor may be deleting.
    pub(crate) fn utcb_if_any(&self, thread: TcbRef) -> Option<&l4_abi::Utcb> {
        match self.tcb(thread).utcb.get() {
            0 => None,
            address => Some(self.machine.utcb(address)),
        }
    }

    /// Whether `thread` may use the privileged system calls: it is in the space of sigma0, sigma1 or the root task.
    pub fn is_privileged(&self, thread: TcbRef) -> bool {
        self.spaces.get(self.tcb(thread).space()).is_privileged()
    }

    /// Whether the fast path may carry out calls of `thread`: it looks neither for queued senders in others' names nor for
    /// a redirector.
    #[inline(always)]
    pub fn may_call_fast(&self, thread: TcbRef) -> bool {
        let tcb = self.tcb(thread);
        !tcb.is_barred(self.spaces.get(tcb.space()))
    }

    /// The space of `thread`.
    pub fn space_of(&self, thread: TcbRef) -> SpaceRef {
        self.tcb(thread).space()
    }
}

/// The core as processor `id` sees it during one kernel entry. Making one is a claim that this processor is `id`.
pub struct Here<'h, M: Machine> {
    /// The tables.
    pub k: &'h Kernel<'h, M>,
    /// This processor's state.
    pub cpu: &'h Cpu,
    /// This processor.
    pub id: CpuId,
    pub(crate) held: Held<{ rank::NONE }>,
}

impl<'h, M: Machine> Here<'h, M> {
    /// The view of processor `id`, at the beginning of a kernel entry on it.
    pub fn new(k: &'h Kernel<'h, M>, id: CpuId) -> Self {
        Self::at(k, k.cpus[id.index()], id)
    }

    /// The same, by somebody who knows where the state of processor `id` is.
    #[inline(always)]
    pub fn at(k: &'h Kernel<'h, M>, cpu: &'h Cpu, id: CpuId) -> Self {
        debug_assert!(core::ptr::eq(k.cpus[id.index()], cpu), "a processor has one state");
        Self { k, cpu, id, held: Held::nothing() }
    }
}
