//! The short way of a page fault: to a pager that waits for it, and back with a page.
//!
//! Most page faults go this way: the pager waits plainly, for anybody or for the thread, and answers with one page. Each
//! half first looks whether all is as it usually is, and then does at once what the phases of [`super`] do one by one; if
//! anything is unusual, it leaves everything alone, and they do it. What both ways leave behind is the same but for words
//! that nobody reads before they are written: the kernel's message, and what a call of Ipc notes for its receive phase.
//!
//! While what a page fault comes to is traced, it takes the phases.
//!
//! The thread that is to go on gets the processor without being queued, on the time of whoever pays, as by the fast path.

use l4_abi::{MapItem, MsgTag, Rights, ThreadId, Timeouts, Word, protocol};

use super::NEVER;
use crate::kernel::Here;
use crate::machine::{Machine, TcbRef};
use crate::sched::Current;
use crate::space::PageTransfer;
use crate::thread::{Purpose, Status, Tcb, plain_name};
use crate::trace::Event;

/// The fields of a tag that tell what a message is made of.
const SHAPE: Word = MsgTag::FLAGS | MsgTag::new(0, 63, 63).raw();

/// Whether a message with `tag` is one map or grant item and nothing else.
fn is_one_item(tag: MsgTag) -> bool {
    tag.raw() & SHAPE == MsgTag::new(0, 0, MapItem::WORDS).raw()
}

impl<M: Machine> Here<'_, M> {
    /// Takes the page fault of the running thread `thread`, as [`Here::page_fault`] has it, to its pager, if that waits for
    /// it: then the pager runs. `None`: nothing has happened.
    #[inline(always)]
    pub(crate) fn fault_to_waiting_pager(
        &self,
        thread: TcbRef,
        address: usize,
        access: Rights,
        ip: usize,
    ) -> Option<TcbRef> {
        if self.k.machine.traces(Event::OF_FAULTS) {
            return None;
        }
        let tcbs = self.k.tcbs;
        let tcb = &tcbs[thread.index()];
        let id = tcb.utcb_in(self.k.machine).pager();
        let pager = self.k.slot(id)?;
        let to = &tcbs[pager.index()];
        let waits_for = to.waits_for.get();
        if waits_for != plain_name(ThreadId::ANY, self.id) && waits_for != tcb.plain_name.get() || to.id.get() != id {
            return None;
        }
        let space = self.k.spaces.get(tcb.space());
        if space.is_sigma0() || !space.redirector().is_nil() || tcb.send_queue.get().is_some() {
            return None;
        }
        if !self.may_hand_over(thread, tcb) {
            return None;
        }
        tcb.purpose.set(Purpose::PageFault);
        tcb.kernel_is_redirected.set(false);
        tcb.begin_wait(id, false);
        tcb.deadline.set(NEVER);
        to.waits_for.set(ThreadId::NIL);
        to.purpose.set(Purpose::User);
        to.ip.set(self.k.machine.ipc_return_ip());
        let utcb = to.utcb_in(self.k.machine);
        let words = [protocol::page_fault_tag(access).raw(), address as Word, ip as Word];
        words.into_iter().enumerate().for_each(|(index, word)| utcb.set_mr(index, word));
        let is_local = tcb.space_word.get() == to.space_word.get();
        let seen = if is_local { tcb.local_id.get() } else { tcb.id.get() };
        self.k.machine.ipc_return(pager, to, seen);
        self.cpu.current.set(Current::running(pager));
        Some(pager)
    }

    /// Answers the page fault of `to` for the running thread `pager`, which then waits for `from`, if it calls Ipc with a
    /// message of one page: then `to` runs. `None`: nothing has happened.
    #[inline(always)]
    pub(crate) fn answer_fault(
        &mut self,
        pager: TcbRef,
        to: ThreadId,
        from: ThreadId,
        timeouts: Timeouts,
    ) -> Option<TcbRef> {
        let is_usual = is_one_item(self.k.utcb(pager).tag())
            && timeouts.rcv().is_never()
            && !self.k.machine.traces(Event::OF_FAULTS);
        if is_usual { self.answer_with_one_item(pager, to, from) } else { None }
    }

    #[inline(never)]
    fn answer_with_one_item(&mut self, pager: TcbRef, to: ThreadId, from: ThreadId) -> Option<TcbRef> {
        let tcbs = self.k.tcbs;
        let tcb = &tcbs[pager.index()];
        let thread = self.k.slot(to)?;
        let dest = &tcbs[thread.index()];
        debug_assert!(tcb.ip.get() == self.k.machine.ipc_return_ip(), "a call of Ipc returns to its stub");
        if dest.id.get() != to || !self.waits_for_page(dest, tcb.id.get()) || !self.may_hand_over(pager, tcb) {
            return None;
        }
        let is_alone = if from == ThreadId::ANY { tcb.send_queue.get().is_none() } else { from == to };
        if !is_alone {
            return None;
        }
        let (source, dest_ref) = (self.k.spaces.get(tcb.space()), dest.space());
        let dest_space = self.k.spaces.get(dest_ref);
        // Both take the fast path next.
        if tcb.is_barred(source) || dest.is_barred(dest_space) {
            return None;
        }
        let utcb = tcb.utcb_in(self.k.machine);
        let transfer = PageTransfer::of(MapItem::from_words([utcb.mr(1), utcb.mr(2)])?)?;
        self.k.spaces.map_page_at_once(&mut self.held, source, (dest_ref, dest_space), transfer)?;
        tcb.waits_for.set(plain_name(from, self.id));
        dest.status.set(Status::Running);
        dest.purpose.set(Purpose::User);
        self.cpu.current.set(Current::running(thread));
        Some(thread)
    }

    /// Whether `tcb` is that of a thread that waits for the answer to a page fault of its own from the thread `pager`, here,
    /// and is in user mode when it has it.
    #[inline(always)]
    fn waits_for_page(&self, tcb: &Tcb, pager: ThreadId) -> bool {
        tcb.status.is(Status::Waiting)
            && tcb.purpose.is(Purpose::PageFault)
            && tcb.partner.get() == pager
            && tcb.outer_peer.get().is_none()
            && !tcb.is_halted()
            && !tcb.owes_message()
            && tcb.is_at(self.id)
    }

    /// Whether `thread`, the running one, which blocks, may hand the processor over without the dispatcher deciding anything.
    /// Priorities do not matter: the partner of a call gets the processor whatever they are.
    #[inline(always)]
    fn may_hand_over(&self, thread: TcbRef, tcb: &Tcb) -> bool {
        let cpu = self.cpu;
        debug_assert!(cpu.current.get() == Current::running(thread) && !cpu.is_receiving.get(), "user code runs");
        debug_assert!(tcb.affinity() == self.id && !tcb.is_halted() && !tcb.owes_message(), "and may do so here");
        debug_assert!(!cpu.must_choose.get() && cpu.donee.get().is_none(), "the dispatcher has decided that");
        debug_assert!(cpu.slice_owner.get().is_some(), "somebody pays");
        self.may_pass_on()
    }
}
