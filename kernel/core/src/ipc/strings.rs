//! String items (X.2, String items): bytes from the sender's space to the receiver's, with page faults on both sides.
//!
//! A string is a chain of sub-strings on either side. [`TransferState`] says where in both chains the copy stands; each
//! step re-reads the descriptors, which user code may change meanwhile to its own harm only. Where a page is missing, the
//! thread whose page it is asks its pager: it becomes the one that carries out the transfer, with its place in it kept
//! beside the fault ([`Tcb::outer_peer`](crate::thread::Tcb)), and goes on when the pager has answered.

use l4_abi::{IpcErrorKind, ItemKind, Rights, StringItem, Word, protocol};

use super::transfer::{BYTES_PER_STEP, Cut};
use crate::kernel::Here;
use crate::machine::{Machine, TcbRef};
use crate::thread::{Purpose, Status, TransferState, Work};
use crate::trace::{Arg, Event};

const PAGE_BYTES: usize = 4096;
/// Buffer registers, BR0 among them.
const BR_COUNT: usize = l4_abi::BR_COUNT;

/// A run of bytes in a user space.
#[derive(Clone, Copy, Debug)]
struct Run {
    address: usize,
    len: usize,
}

/// What a step of a string comes to.
pub(super) enum StringStep {
    /// The string is complete; the next item is at this message register.
    Done(usize),
    /// There is more to copy.
    Again,
    /// A page is missing: its thread asks for it, or the transfer was cut off.
    Blocked,
}

/// What the copy needs next.
enum Next {
    Copy(Run, Run),
    End,
}

/// Whose page is missing.
struct Missing {
    thread: TcbRef,
    address: usize,
    access: Rights,
    /// What the fault message gives as instruction pointer.
    ip: Word,
}

impl<M: Machine> Here<'_, M> {
    /// Copies a bounded part of the string whose items begin at or before the position of `carrier`; the message ends
    /// before message register `end`.
    pub(super) fn transfer_string(
        &mut self,
        carrier: TcbRef,
        pair: (TcbRef, TcbRef),
        end: usize,
    ) -> Result<StringStep, IpcErrorKind> {
        let state = &self.k.tcb(carrier).transfer;
        if !state.in_string.get() {
            self.begin_string(state, pair, end)?;
        }
        let mut left = BYTES_PER_STEP;
        loop {
            let (from, to) = match self.next_runs(state, pair, end)? {
                Next::Copy(from, to) => (from, to),
                Next::End => return Ok(StringStep::Done(self.end_string(state, pair.1))),
            };
            if left == 0 {
                return Ok(StringStep::Again);
            }
            let len = from.len.min(to.len).min(rest_of_page(from.address)).min(rest_of_page(to.address)).min(left);
            self.k.machine.begin_copy();
            let copied = self.copy(pair, from.address, to.address, len);
            self.k.machine.end_copy();
            if let Err(missing) = copied {
                self.ask_for_page(carrier, pair, missing);
                return Ok(StringStep::Blocked);
            }
            state.offset.set(state.offset.get() + len);
            state.buffer_offset.set(state.buffer_offset.get() + len);
            state.bytes.set(state.bytes.get() + len);
            left -= len;
        }
    }

    /// Takes the receiver's next buffer for the string at the position of the transfer.
    fn begin_string(
        &self,
        state: &TransferState,
        (sender, receiver): (TcbRef, TcbRef),
        end: usize,
    ) -> Result<(), IpcErrorKind> {
        let position = usize::from(state.position.get());
        self.item(sender, position, end)?;
        let item = self.sent_word(sender, position);
        self.deliver_word(receiver, position, item);
        self.trace(Event::IpcStringItem, |_| [item as u64, self.sent_word(sender, (position + 1).min(end - 1)) as u64]);
        if !self.accepts_strings(receiver) || state.no_more_buffers.get() {
            return Err(IpcErrorKind::Overflow);
        }
        state.no_more_buffers.set(true);
        self.enter_buffer(state, receiver, usize::from(state.buffer.get()).max(1))?;
        state.buffer_offset.set(0);
        state.substring.set(0);
        state.offset.set(0);
        state.in_string.set(true);
        Ok(())
    }

    /// The string item at `position`. Its addresses count one by one, as they are reached.
    fn item(&self, sender: TcbRef, position: usize, end: usize) -> Result<StringItem, IpcErrorKind> {
        if position >= end {
            return Err(IpcErrorKind::Overflow);
        }
        let word = self.sent_word(sender, position);
        let is_string = ItemKind::of(word) == ItemKind::String;
        if is_string { Ok(StringItem::from_raw(word)) } else { Err(IpcErrorKind::Overflow) }
    }

    /// The buffer item at `index`, as [`Self::item`].
    fn buffer(&self, receiver: TcbRef, index: usize) -> Result<StringItem, IpcErrorKind> {
        Ok(StringItem::from_raw(self.buffer_word(receiver, index)?))
    }

    /// Goes on with the buffer item at `index`. C in any item of a compound buffer announces the next buffer: the C library
    /// has always set it in the first one, others set it in the last.
    fn enter_buffer(&self, state: &TransferState, receiver: TcbRef, index: usize) -> Result<StringItem, IpcErrorKind> {
        let word = self.buffer_word(receiver, index)?;
        if ItemKind::of(word) != ItemKind::String {
            return Err(IpcErrorKind::Overflow);
        }
        let buffer = StringItem::from_raw(word);
        if buffer.has_more() {
            state.no_more_buffers.set(false);
        }
        state.buffer.set(index as u8);
        state.buffer_part.set(0);
        Ok(buffer)
    }

    fn buffer_word(&self, receiver: TcbRef, index: usize) -> Result<Word, IpcErrorKind> {
        if index < BR_COUNT { Ok(self.k.utcb(receiver).br(index)) } else { Err(IpcErrorKind::Overflow) }
    }

    /// Where the next bytes are and where they go.
    fn next_runs(
        &self,
        state: &TransferState,
        (sender, receiver): (TcbRef, TcbRef),
        end: usize,
    ) -> Result<Next, IpcErrorKind> {
        let Some(from) = self.next_source(state, sender, receiver, end)? else { return Ok(Next::End) };
        let to = self.next_dest(state, receiver)?;
        let is_user = |run: Run| {
            let last = run.address.checked_add(run.len - 1);
            last.is_some_and(|last| self.k.spaces.is_user_range(run.address, last))
        };
        let clip = |run: Run| if is_user(run) { Ok(run) } else { self.clip(run) };
        Ok(Next::Copy(clip(from)?, clip(to)?))
    }

    /// The part of a run that is user memory.
    fn clip(&self, run: Run) -> Result<Run, IpcErrorKind> {
        let len = run.len.min(rest_of_page(run.address));
        let is_user = self.k.spaces.is_user_range(run.address, run.address.saturating_add(len - 1));
        if is_user { Ok(Run { len, ..run }) } else { Err(IpcErrorKind::Overflow) }
    }

    /// The next bytes of the sender's string; `None` at its end. Descriptors are delivered as they are reached.
    fn next_source(
        &self,
        state: &TransferState,
        sender: TcbRef,
        receiver: TcbRef,
        end: usize,
    ) -> Result<Option<Run>, IpcErrorKind> {
        loop {
            let position = usize::from(state.position.get());
            let item = self.item(sender, position, end)?;
            let part = usize::from(state.substring.get());
            if part >= item.substrings() {
                if !item.is_compound() {
                    return Ok(None);
                }
                let next = position + item.words();
                self.item(sender, next, end)?;
                self.deliver_word(receiver, next, self.sent_word(sender, next));
                state.position.set(next as u8);
                state.substring.set(0);
                continue;
            }
            let (pointer, offset) = (position + 1 + part, state.offset.get());
            if pointer >= end {
                return Err(IpcErrorKind::Overflow);
            }
            let address = self.sent_word(sender, pointer);
            if offset == 0 {
                self.deliver_word(receiver, pointer, address);
            }
            let len = item.len_bytes() as usize;
            if offset < len {
                return Ok(Some(Run { address: (address as usize).saturating_add(offset), len: len - offset }));
            }
            state.substring.set(part as u8 + 1);
            state.offset.set(0);
        }
    }

    /// Where the receiver's buffer goes on; an overflow if it is full.
    fn next_dest(&self, state: &TransferState, receiver: TcbRef) -> Result<Run, IpcErrorKind> {
        loop {
            let index = usize::from(state.buffer.get());
            let buffer = self.buffer(receiver, index)?;
            let part = usize::from(state.buffer_part.get());
            if part >= buffer.substrings() {
                if !buffer.is_compound() {
                    return Err(IpcErrorKind::Overflow);
                }
                self.enter_buffer(state, receiver, index + buffer.words())?;
                continue;
            }
            let (offset, len) = (state.buffer_offset.get(), buffer.len_bytes() as usize);
            if offset < len {
                let address = self.buffer_word(receiver, index + 1 + part)? as usize;
                return Ok(Run { address: address.saturating_add(offset), len: len - offset });
            }
            state.buffer_part.set(part as u8 + 1);
            state.buffer_offset.set(0);
        }
    }

    /// The string is complete: the rest of its buffer, of which nothing need be there, is left alone. Returns where the
    /// next item is.
    fn end_string(&self, state: &TransferState, receiver: TcbRef) -> usize {
        let mut buffer = self.buffer(receiver, usize::from(state.buffer.get()));
        while let Ok(item) = buffer {
            let next = usize::from(state.buffer.get()) + item.words();
            buffer =
                if item.is_compound() { self.enter_buffer(state, receiver, next) } else { Err(IpcErrorKind::Overflow) };
            state.buffer.set(next.min(BR_COUNT) as u8);
        }
        state.in_string.set(false);
        usize::from(state.position.get()) + 1 + usize::from(state.substring.get())
    }

    /// Copies `len` bytes that are in one page on either side.
    fn copy(&self, (sender, receiver): (TcbRef, TcbRef), from: usize, to: usize, len: usize) -> Result<(), Missing> {
        let (source, dest) = (self.k.space_of(sender), self.k.space_of(receiver));
        let missing = |thread, address, access, ip| Missing { thread, address, access, ip };
        let own_ip = self.k.tcb(sender).ip.get() as Word;
        let from_phys = self.k.spaces.touch(source, from, Rights::READ);
        let from_phys = from_phys.ok_or(missing(sender, from, Rights::READ, own_ip))?;
        let to_phys = self.k.spaces.touch(dest, to, Rights::WRITE);
        let to_phys = to_phys.ok_or(missing(receiver, to, Rights::WRITE, protocol::PAGE_FAULT_IN_STRING))?;
        self.k.machine.copy(from_phys, to_phys, len);
        self.trace(Event::IpcStringCopy, |_| [from as u64, to as u64, len as u64]);
        Ok(())
    }

    /// The thread whose page is missing asks its pager for it, unless there is no time for that.
    fn ask_for_page(&mut self, carrier: TcbRef, (sender, receiver): (TcbRef, TcbRef), missing: Missing) {
        let thread = missing.thread;
        // sigma0 has no pager: its pages are there as soon as they are touched, and need no time.
        let is_sigma0s = self.k.spaces.get(self.k.space_of(thread)).is_sigma0();
        if !is_sigma0s && !self.k.tcb(carrier).transfer.has_deadline.get() {
            self.start_xfer_timeout(carrier, sender, receiver);
        }
        let state = &self.k.tcb(carrier).transfer;
        if !is_sigma0s && state.deadline.get() == 0 {
            return self.cut_off(carrier, self.expired(carrier));
        }
        self.trace_of(Event::PagefaultTunnel, thread, |k| {
            let partner = if thread == sender { receiver } else { sender };
            let (address, access) = (missing.address as u64, missing.access.bits() as u64);
            [address, k.id_of(partner).arg(), access, k.utcb(thread).pager().arg()]
        });
        self.hand_over(carrier, thread, sender);
        let tcb = self.k.tcb(thread);
        tcb.outer_peer.set(tcb.peer.replace(None));
        if is_sigma0s {
            return self.resolve_own_page(thread, missing.address);
        }
        let words = [missing.address as Word, missing.ip];
        self.set_kernel_message(thread, protocol::page_fault_tag(missing.access), &words);
        let pager = self.k.utcb(thread).pager();
        self.kernel_call(thread, pager, Purpose::PageFault);
    }

    fn resolve_own_page(&mut self, thread: TcbRef, address: usize) {
        let space = self.k.space_of(thread);
        if self.k.spaces.sigma0_fault(&mut self.held, space, address) == Ok(true) {
            self.make_ready(thread);
        } else {
            self.cut_nested(thread, Cut::both(IpcErrorKind::Aborted));
        }
    }

    /// `thread`, one of the two, carries out the transfer from now on; the other one is blocked.
    fn hand_over(&self, carrier: TcbRef, thread: TcbRef, sender: TcbRef) {
        let (old, new) = (self.k.tcb(carrier), self.k.tcb(thread));
        if carrier != thread {
            self.dequeue(carrier);
            old.work.set(Work::None);
            old.set_status(if carrier == sender { Status::Sending } else { Status::Receiving });
            new.transfer.copy_from(&old.transfer);
            new.transfer.as_sender.set(thread == sender);
        }
        new.set_status(Status::Running);
        new.work.set(Work::Transfer);
    }

    /// The first fault of a transfer starts its timeout: the smaller of the two (X.2, String items, XferTimeouts).
    /// A deadline of 0 is one that is over.
    fn start_xfer_timeout(&self, carrier: TcbRef, sender: TcbRef, receiver: TcbRef) {
        let now = self.k.machine.now_us();
        let of = |timeout: l4_abi::Time| match timeout.deadline_us(now) {
            None => u64::MAX,
            Some(deadline) if deadline <= now => 0,
            Some(deadline) => deadline,
        };
        let sender_deadline = of(self.k.utcb(sender).xfer_timeouts().snd());
        let receiver_deadline = of(self.k.utcb(receiver).xfer_timeouts().rcv());
        let state = &self.k.tcb(carrier).transfer;
        state.has_deadline.set(true);
        state.is_receivers.set(receiver_deadline < sender_deadline);
        state.deadline.set(sender_deadline.min(receiver_deadline));
    }

    /// What both sides see when the transfer timeout of `carrier` is over: who owns the timeout sees its own.
    pub(super) fn expired(&self, carrier: TcbRef) -> Cut {
        let (own, other) = (IpcErrorKind::XferTimeoutInvoker, IpcErrorKind::XferTimeoutPartner);
        if self.k.tcb(carrier).transfer.is_receivers.get() {
            Cut { sender: other, receiver: own }
        } else {
            Cut { sender: own, receiver: other }
        }
    }

    /// Ends the page fault of `thread` in the middle of a string, and the transfer with it.
    pub(super) fn cut_nested(&mut self, thread: TcbRef, cut: Cut) {
        match self.k.tcb(thread).status() {
            // Without a partner it was taken off the queue already: its pager is being deleted.
            Status::PendingSend if self.k.tcb(thread).peer.get().is_some() => self.leave_send_queue(thread),
            Status::Waiting => self.cpu.timeouts.cancel(self.k.tcbs, thread),
            Status::Receiving => self.cut_off_pager(thread),
            _ => {}
        }
        self.end_nested_fault(thread);
        self.cut_off(thread, cut);
    }

    /// The pager was answering `thread`, which does not wait for the answer any more.
    fn cut_off_pager(&mut self, thread: TcbRef) {
        let pager = self.k.tcb(thread).peer.replace(None).expect("a transfer has two sides");
        let tcb = self.k.tcb(pager);
        tcb.peer.set(None);
        tcb.work.set(Work::None);
        self.dequeue(pager);
        self.fail_sender(pager, IpcErrorKind::Aborted);
    }

    /// `thread` has come back to the transfer that it carries out. Its partner may be leaving that.
    pub(crate) fn resume_transfer(&mut self, thread: TcbRef) {
        if self.k.tcb(thread).peer.get().is_some_and(|partner| self.k.tcb(partner).is_leaving.get()) {
            self.cut_off(thread, Cut::both(IpcErrorKind::Aborted));
        } else {
            self.enqueue(thread);
        }
    }

    /// The fault of `thread` is over: it is in its string again, and carries it out, where its partner is.
    pub(crate) fn end_nested_fault(&self, thread: TcbRef) {
        let tcb = self.k.tcb(thread);
        if let Some(peer) = tcb.outer_peer.replace(None) {
            tcb.peer.set(Some(peer));
            self.cpu.timeouts.cancel(self.k.tcbs, thread);
        }
        tcb.set_status(Status::Running);
        tcb.purpose.set(Purpose::User);
    }
}

fn rest_of_page(address: usize) -> usize {
    PAGE_BYTES - address % PAGE_BYTES
}
