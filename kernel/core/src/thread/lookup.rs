//! From ids to threads.

use l4_abi::{THREAD_ID_BITS, ThreadId, UTCB_MR0_OFFSET, UTCB_SIZE};

use crate::kernel::Kernel;
use crate::machine::{Machine, SpaceRef, TcbRef};
use crate::sync::{Ordering, fence};
use crate::thread::Tcb;

impl<M: Machine> Kernel<'_, M> {
    /// The thread whose global id is exactly `id`. Interrupt threads are none.
    #[inline]
    pub fn thread(&self, id: ThreadId) -> Option<TcbRef> {
        let thread = self.slot(id)?;
        // Nilthread has the number of an interrupt, too.
        let is_found = self.tcb(thread).id.get() == id && !self.is_line(thread);
        fence(Ordering::Acquire);
        is_found.then_some(thread)
    }

    /// As [`Self::thread`], with its TCB.
    #[inline(always)]
    pub(crate) fn thread_and_tcb(&self, id: ThreadId) -> Option<(TcbRef, &Tcb)> {
        let number = id.thread_no() as usize;
        let tcb = self.tcbs.get(number)?;
        let is_found = tcb.id.get() == id && number >= self.numbers.system_base as usize;
        fence(Ordering::Acquire);
        is_found.then_some((TcbRef::new(number as u32), tcb))
    }

    /// The interrupt thread whose id is `id`, if it was ever associated.
    pub(crate) fn interrupt_thread(&self, id: ThreadId) -> Option<TcbRef> {
        let thread = self.slot(id)?;
        (self.tcb(thread).id.get() == id && !id.is_nil() && self.is_line(thread)).then_some(thread)
    }

    /// The thread or interrupt thread whose global id is exactly `id`.
    pub(crate) fn thread_or_interrupt(&self, id: ThreadId) -> Option<TcbRef> {
        self.thread(id).or_else(|| self.interrupt_thread(id))
    }

    /// Whether the slot is that of an interrupt.
    #[inline]
    fn is_line(&self, thread: TcbRef) -> bool {
        thread.index() < self.numbers.system_base as usize
    }

    /// The slot that `id` selects by its number, whoever is in it; `None` if the number does not fit the table.
    ///
    /// The number is a program's. A processor that looks ahead of the comparison must not be led far beyond the table by it,
    /// to read there what the program wants: so it is masked, too (Spectre v1).
    #[inline]
    pub fn slot(&self, id: ThreadId) -> Option<TcbRef> {
        const MASK: usize = (1 << THREAD_ID_BITS) - 1;
        let number = id.thread_no() as usize;
        (number < self.tcbs.len()).then(|| TcbRef::new((number & MASK) as u32))
    }

    /// The thread that `id`, global or local to `space`, names.
    pub fn thread_or_local(&self, id: ThreadId, space: SpaceRef) -> Option<TcbRef> {
        if id.is_local() { self.local_thread(id, space) } else { self.thread(id) }
    }

    /// The thread of `space` whose local id is `id`.
    ///
    /// The id is the address of a UTCB, which names its thread in MyGlobalId. User code can write there, so the name is
    /// only a hint: the thread found must itself have that space and local id.
    pub fn local_thread(&self, id: ThreadId, space: SpaceRef) -> Option<TcbRef> {
        // A UTCB that began elsewhere would reach beyond its page.
        let base = (id.raw() as usize).checked_sub(UTCB_MR0_OFFSET).filter(|base| base % UTCB_SIZE == 0)?;
        let utcb = self.spaces.utcb_page(space, base).map(|phys| self.machine.kernel_address(phys))?;
        let hint = self.machine.utcb(utcb).my_global_id();
        let thread = self.thread(hint)?;
        let tcb = self.tcb(thread);
        (tcb.local_id.get() == id && tcb.space.get() == Some(space) && tcb.is_active()).then_some(thread)
    }

    /// The id by which a thread in `space` knows `thread`: local if they share the space, else global.
    #[inline]
    pub fn id_seen_from(&self, thread: TcbRef, space: SpaceRef) -> ThreadId {
        let tcb = self.tcb(thread);
        if tcb.space.get() == Some(space) && tcb.is_active() { tcb.local_id.get() } else { tcb.id.get() }
    }
}
