//! Unmap (X.2, Unmap).

use l4_abi::{Fpage, MR_COUNT, UnmapControl};

use crate::ipc::STEP_BUDGET;
use crate::kernel::Here;
use crate::machine::{Machine, TcbRef};
use crate::mapdb::{Progress, UnmapScope};
use crate::thread::{Tcb, Work};

impl<M: Machine> Here<'_, M> {
    /// Revokes mappings of the fpages in the caller's message registers, in steps.
    pub fn unmap(&mut self, caller: TcbRef, control: UnmapControl) {
        let tcb = self.k.tcb(caller);
        tcb.transfer.tag.set(control.raw() as usize);
        tcb.transfer.position.set(0);
        tcb.cursor.reset();
        tcb.work.set(Work::Unmap);
        self.unmap_step(caller);
    }

    /// Ends an Unmap or MemoryControl of `thread` that is not done: what is left of it would hit another space.
    pub(super) fn cut_off_range(&mut self, thread: TcbRef) {
        let tcb = self.k.tcb(thread);
        match tcb.work() {
            Work::Unmap => self.k.machine.unmap_return(thread, self.k.utcb(thread)),
            Work::MemoryControl => self.k.machine.flush_caches(),
            _ => return,
        }
        tcb.work.set(Work::None);
        if !self.is_runnable(thread) {
            self.dequeue(thread);
        }
    }

    pub(super) fn unmap_step(&mut self, caller: TcbRef) {
        let tcb = self.k.tcb(caller);
        let utcb = self.k.utcb(caller);
        let control = UnmapControl::from_raw(tcb.transfer.tag.get() as _);
        let scope = if control.is_flush() { UnmapScope::Flush } else { UnmapScope::Derived };
        let mut budget = STEP_BUDGET;
        while usize::from(tcb.transfer.position.get()) < control.count().min(MR_COUNT) {
            let index = usize::from(tcb.transfer.position.get());
            let fpage = Fpage::from_raw(utcb.mr(index));
            match self.unmap_fpage(tcb, fpage, scope, &mut budget) {
                Progress::Again => return,
                Progress::Done | Progress::NoMemory => utcb.set_mr(index, fpage.with_rights(tcb.cursor.status()).raw()),
            }
            tcb.cursor.reset();
            tcb.transfer.position.set(index as u8 + 1);
        }
        tcb.work.set(Work::None);
        self.k.machine.unmap_return(caller, utcb);
    }

    /// Revokes what is mapped of memory or ports; ports whatever the rights, which they do not have.
    fn unmap_fpage(&mut self, tcb: &Tcb, fpage: Fpage, scope: UnmapScope, budget: &mut u32) -> Progress {
        let (space, spaces) = (tcb.space(), &self.k.spaces);
        if !fpage.is_io() || !spaces.has_io_fpages() {
            return spaces.unmap(&mut self.held, space, fpage, scope, &tcb.cursor, budget);
        }
        match fpage.as_io() {
            Some(ports) => spaces.unmap_ports(&mut self.held, space, ports, scope, &tcb.cursor, budget),
            // More ports than there are.
            None => Progress::Done,
        }
    }
}
