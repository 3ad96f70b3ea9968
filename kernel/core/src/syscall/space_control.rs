//! SpaceControl (X.2, SpaceControl).

use l4_abi::{Fpage, KIP_AREA_LOG2, SpaceControl, SysError, ThreadId, UTCB_AREA_MIN_LOG2};

use crate::cross::ask::{Reply, Subject, Words, words};
use crate::kernel::Here;
use crate::machine::{CpuId, Machine, SpaceRef, TcbRef};
use crate::space::{NO_QUOTA, Space, bytes_of, kib_of};
use crate::thread::{Tcb, Work};

/// Slots of the table of threads that one step looks at.
const SLOTS_PER_STEP: usize = 256;

/// What the caller passes, but for the control word ([`Here::control_memory`]).
#[derive(Clone, Copy, Debug)]
pub struct SpaceControlArgs {
    /// Global id of a thread in the space.
    pub space: ThreadId,
    /// Where the KIP shall be; ignored if the space is initialised.
    pub kip_area: Fpage,
    /// Where UTCBs may be; ignored if the space is initialised.
    pub utcb_area: Fpage,
    /// Who gets what leaves the space, by any id; nilthread: no change; anythread: whoever it is sent to.
    pub redirector: ThreadId,
}

/// What becomes of the redirector.
enum Redirection {
    Unchanged,
    Ends,
    To(ThreadId),
}

impl<M: Machine> Here<'_, M> {
    /// Initialises a space: gives it its KIP and UTCB areas and maps the KIP. Sets the redirector of any space, in steps.
    ///
    /// # Errors
    /// [`SysError::NoPrivilege`]; [`SysError::InvalidSpace`]: not the global id of a thread, or a redirector that does not
    /// exist; [`SysError::UtcbArea`], [`SysError::KipArea`]: too small, outside user memory, or overlapping;
    /// [`SysError::OutOfMemory`].
    pub fn space_control(&mut self, caller: TcbRef, args: SpaceControlArgs) -> Result<(), SysError> {
        self.require_privilege(caller)?;
        let thread = Some(args.space).filter(|id| id.is_global()).and_then(|id| self.k.thread(id));
        let thread = thread.ok_or(SysError::InvalidSpace)?;
        let redirection = self.redirection(caller, args.redirector)?;
        let space = self.k.tcb(thread).space.get().ok_or(SysError::InvalidSpace)?;
        if !self.k.spaces.get(space).is_initialised() {
            self.check_areas(args.kip_area, args.utcb_area)?;
            let mut done = self.k.spaces.initialise(&mut self.held, space, args.kip_area, args.utcb_area);
            if done.is_err() && self.k.machine.reclaim(&mut self.held) {
                done = self.k.spaces.initialise(&mut self.held, space, args.kip_area, args.utcb_area);
            }
            done.map_err(|_| SysError::OutOfMemory)?;
        }
        match redirection {
            Redirection::Unchanged => {}
            Redirection::Ends => self.k.spaces.get(space).clear_redirector(),
            Redirection::To(redirector) => self.redirect(caller, space, thread.index(), redirector),
        }
        Ok(())
    }

    /// Carries out what the control word of a call of SpaceControl that succeeded says of the kernel memory of the space of
    /// `thread`; returns the old control word (an extension of X.2).
    pub fn control_memory(&self, thread: ThreadId, control: SpaceControl) -> SpaceControl {
        let space = self.k.thread(thread).and_then(|thread| self.k.tcb(thread).space.get());
        let Some(space) = space.map(|space| self.k.spaces.get(space)) else { return SpaceControl::NONE };
        let old = match self.k.spaces.quota(space) {
            NO_QUOTA => None,
            bytes => Some(kib_of(bytes)),
        };
        if let Some(quota) = control.quota_kib() {
            self.k.spaces.set_quota(space, quota.map_or(NO_QUOTA, bytes_of));
        }
        match control {
            _ if control.asks_for_usage() => SpaceControl::usage(kib_of(self.k.spaces.memory_used(space))),
            _ if control.quota_kib().is_some() => SpaceControl::quota(old),
            _ => SpaceControl::NONE,
        }
    }

    fn redirection(&self, caller: TcbRef, redirector: ThreadId) -> Result<Redirection, SysError> {
        if redirector.is_nil() {
            return Ok(Redirection::Unchanged);
        }
        if redirector == ThreadId::ANY {
            return Ok(Redirection::Ends);
        }
        let thread = self.k.thread_or_local(redirector, self.k.space_of(caller)).ok_or(SysError::InvalidSpace)?;
        Ok(Redirection::To(self.k.tcb(thread).id.get()))
    }

    /// Makes `redirector` the redirector of the space of `member`. First the space must be without plain waits: a thread
    /// that the fast path wakes out of one would take the fast path again, which does not redirect.
    /// One of its threads has slot `member`.
    fn redirect(&mut self, caller: TcbRef, space: SpaceRef, member: usize, redirector: ThreadId) {
        let slot = self.k.spaces.get(space);
        let bar = self.k.spaces.bar_fast_path(space);
        let is_free_of_plain_waits = !slot.redirector().is_nil();
        let is_alone = self.k.cpus.len() == 1;
        if is_free_of_plain_waits || is_alone && self.end_plain_waits(space, member, SLOTS_PER_STEP) == slot.threads() {
            return slot.set_redirector(redirector);
        }
        let own = self.k.tcb(caller);
        own.then_from.set(redirector);
        own.transfer.tag.set(bar as usize);
        own.transfer.bytes.set(space.index());
        own.transfer.offset.set(0);
        own.work.set(Work::Redirect);
    }

    /// Looks at a part of the threads that are left; after the last the space has its redirector, unless it is gone or
    /// somebody ended redirection meanwhile.
    pub(super) fn redirect_step(&mut self, caller: TcbRef) {
        let own = self.k.tcb(caller);
        let space = SpaceRef::new(own.transfer.bytes.get() as u32);
        let first = own.transfer.offset.get();
        self.end_plain_waits_everywhere(space, first);
        own.transfer.offset.set(first + SLOTS_PER_STEP);
        if first + SLOTS_PER_STEP < self.k.tcbs.len() {
            return;
        }
        own.work.set(Work::None);
        let slot = self.k.spaces.get(space);
        if slot.fast_path_bar() as usize == own.transfer.tag.get() {
            slot.set_redirector(own.then_from.get());
        }
    }

    /// Ends plain waits in a part of the table, each processor those of its own threads.
    fn end_plain_waits_everywhere(&mut self, space: SpaceRef, first: usize) {
        for cpu in 0..self.k.cpus.len() {
            self.ask(CpuId::new(cpu as u32), Subject::EndPlainWaits, words([space.index(), first]));
        }
    }

    pub(crate) fn end_plain_waits_here(&mut self, question: Words) -> Reply {
        self.end_plain_waits(SpaceRef::new(question[0] as u32), question[1], SLOTS_PER_STEP);
        Reply::Done(question)
    }

    /// Makes plain waits in `space` ordinary among `count` slots from `first` on. Returns how many of its threads it saw.
    fn end_plain_waits(&self, space: SpaceRef, first: usize, count: usize) -> u32 {
        let return_ip = self.k.machine.ipc_return_ip();
        let mut seen = 0;
        let is_own = |tcb: &Tcb| tcb.is_at(self.id) && tcb.space.get() == Some(space);
        for (index, tcb) in self.k.tcbs.iter().enumerate().skip(first).take(count) {
            if self.k.machine.has_memory(TcbRef::new(index as u32)) && is_own(tcb) {
                tcb.make_wait_ordinary(return_ip);
                seen += 1;
            }
        }
        seen
    }

    fn check_areas(&self, kip_area: Fpage, utcb_area: Fpage) -> Result<(), SysError> {
        let in_user_area = |area: Fpage, min_log2: u32| {
            area.size_log2() >= min_log2 && self.k.spaces.is_user_range(area.base() as usize, area.last() as usize)
        };
        if utcb_area.is_complete() || !in_user_area(utcb_area, UTCB_AREA_MIN_LOG2) {
            return Err(SysError::UtcbArea);
        }
        let overlaps = Space::overlap(kip_area, utcb_area);
        if kip_area.is_complete() || !in_user_area(kip_area, KIP_AREA_LOG2) || overlaps {
            return Err(SysError::KipArea);
        }
        Ok(())
    }
}
