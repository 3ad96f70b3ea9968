//! Message transfer (X.2, Message transfer): words first, then typed items in steps, then both ends of the IPC.

use l4_abi::{
    Acceptor, Fpage, IpcError, IpcErrorKind, ItemKind, MR_COUNT, MapItem, MsgTag, Phase, ThreadId, Time, Word,
};

use super::strings::StringStep;
use super::{Woken, received_tag, without_result_flags};
use crate::kernel::Here;
use crate::machine::{Machine, TcbRef, UserRegs};
use crate::mapdb::Progress;
use crate::space::{PortTransfer, Transfer};
use crate::thread::{Arrival, Purpose, Status, Work};
use crate::trace::{Arg, Event};

/// Pages or mappings that one step of a long operation may touch. About ten microseconds of work.
pub(crate) const STEP_BUDGET: u32 = 64;

/// Bytes of strings that one step copies at most.
pub(super) const BYTES_PER_STEP: usize = 16 << 10;

/// Why a transfer is cut off, as either side sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub sender: IpcErrorKind,
    pub receiver: IpcErrorKind,
}

impl Cut {
    /// Both see the same.
    pub fn both(kind: IpcErrorKind) -> Self {
        Self { sender: kind, receiver: kind }
    }
}

/// What a step of an item comes to.
enum ItemStep {
    /// The next item is at this message register.
    Next(usize),
    /// There is more to do, or to wait for.
    Leave,
}

impl<M: Machine> Here<'_, M> {
    /// Word `index` of the message that `sender` sends.
    pub(super) fn sent_word(&self, sender: TcbRef, index: usize) -> Word {
        let tcb = self.k.tcb(sender);
        match tcb.purpose.get() {
            Purpose::User => self.k.utcb(sender).mr(index),
            _ => tcb.kernel_word(index),
        }
    }

    /// Gives `receiver` word `index` of its message.
    pub(super) fn deliver_word(&self, receiver: TcbRef, index: usize, word: Word) {
        let tcb = self.k.tcb(receiver);
        match tcb.purpose() {
            Purpose::User => self.k.utcb(receiver).set_mr(index, word),
            _ => tcb.set_kernel_word(index, word),
        }
    }

    /// Where `receiver` takes mappings: its acceptor, or the whole space for the reply to a page fault.
    fn receive_window(&self, receiver: TcbRef) -> Fpage {
        match self.k.tcb(receiver).purpose() {
            Purpose::User => Acceptor::from_raw(self.k.utcb(receiver).br(0)).rcv_window(),
            Purpose::PageFault => Fpage::COMPLETE,
            Purpose::IoFault
            | Purpose::Start
            | Purpose::Exception
            | Purpose::Preemption
            | Purpose::PreemptionFault
            | Purpose::Interrupt
            | Purpose::Input => Fpage::NIL,
        }
    }

    /// Sender and receiver have met. `carrier`, one of them and the running thread, carries out the transfer.
    pub(super) fn begin_transfer(&mut self, sender: TcbRef, receiver: TcbRef, carrier: TcbRef) {
        let tag = MsgTag::from_raw(self.sent_word(sender, 0));
        self.cpu.timeouts.cancel(self.k.tcbs, receiver);
        self.k.tcb(receiver).make_wait_ordinary(self.k.machine.ipc_return_ip());
        for index in 1..=tag.untyped() {
            self.deliver_word(receiver, index, self.sent_word(sender, index));
        }
        if tag.typed() == 0 {
            return self.end_transfer(sender, receiver, tag);
        }
        self.couple(sender, receiver, carrier, tag);
        if self.cpu.current.get().thread() == Some(carrier) {
            self.transfer_items(carrier);
        } else {
            // It has come here for the transfer, which is its own work.
            self.enqueue(carrier);
        }
    }

    /// Binds the two for the time of the typed items: the carrier runs and has work, the other one is blocked.
    fn couple(&self, sender: TcbRef, receiver: TcbRef, carrier: TcbRef, tag: MsgTag) {
        let (from, to) = (self.k.tcb(sender), self.k.tcb(receiver));
        self.trace(Event::IpcExtTransfer, |_| [from.id.get().arg(), to.id.get().arg(), tag.raw() as u64]);
        from.peer.set(Some(receiver));
        to.peer.set(Some(sender));
        from.set_status(Status::Sending);
        to.set_status(Status::Receiving);
        let tcb = self.k.tcb(carrier);
        tcb.set_status(Status::Running);
        tcb.work.set(Work::Transfer);
        tcb.transfer.begin(carrier == sender, tag.raw() as usize, tag.untyped() + 1);
        tcb.cursor.reset();
    }

    /// The two threads of the transfer that `carrier` carries out: sender, receiver.
    pub(super) fn transfer_pair(&self, carrier: TcbRef) -> (TcbRef, TcbRef) {
        let tcb = self.k.tcb(carrier);
        let peer = tcb.peer.get().expect("a transfer has two sides");
        if tcb.transfer.as_sender.get() { (carrier, peer) } else { (peer, carrier) }
    }

    /// Transfers the typed items that are left, or a bounded part of them.
    pub(crate) fn transfer_items(&mut self, carrier: TcbRef) {
        let (sender, receiver) = self.transfer_pair(carrier);
        let tcb = self.k.tcb(carrier);
        let tag = MsgTag::from_raw(tcb.transfer.tag.get() as Word);
        let end = tag.untyped() + tag.typed() + 1;
        let mut budget = STEP_BUDGET;
        loop {
            let position = usize::from(tcb.transfer.position.get());
            if position >= end {
                break;
            }
            match self.transfer_item(carrier, (sender, receiver), position, end, &mut budget) {
                Ok(ItemStep::Next(next)) => tcb.transfer.position.set(next as u8),
                Ok(ItemStep::Leave) => return,
                Err(kind) => {
                    self.trace(Event::IpcMessageOverflow, |k| {
                        [k.id_of(sender).arg(), k.id_of(receiver).arg(), tcb.transfer.bytes.get() as u64]
                    });
                    return self.cut_off(carrier, Cut::both(kind));
                }
            }
        }
        tcb.work.set(Work::None);
        self.end_transfer(sender, receiver, tag);
    }

    fn transfer_item(
        &mut self,
        carrier: TcbRef,
        pair: (TcbRef, TcbRef),
        position: usize,
        end: usize,
        budget: &mut u32,
    ) -> Result<ItemStep, IpcErrorKind> {
        if end > MR_COUNT {
            return Err(IpcErrorKind::Overflow);
        }
        let is_string = ItemKind::of(self.sent_word(pair.0, position)) == ItemKind::String;
        if !is_string && !self.k.tcb(carrier).transfer.in_string.get() {
            return self.transfer_mapping(carrier, pair, position, end, budget);
        }
        Ok(match self.transfer_string(carrier, pair, end)? {
            StringStep::Done(next) => ItemStep::Next(next),
            StringStep::Again | StringStep::Blocked => ItemStep::Leave,
        })
    }

    /// Transfers the map or grant item at `position`.
    fn transfer_mapping(
        &mut self,
        carrier: TcbRef,
        (sender, receiver): (TcbRef, TcbRef),
        position: usize,
        end: usize,
        budget: &mut u32,
    ) -> Result<ItemStep, IpcErrorKind> {
        if position + MapItem::WORDS > end {
            return Err(IpcErrorKind::Overflow);
        }
        let words = [self.sent_word(sender, position), self.sent_word(sender, position + 1)];
        let item = MapItem::from_words(words).ok_or(IpcErrorKind::Overflow)?;
        // Everybody takes ports, to where they are (X.2, Acceptor, I/O fpages).
        let is_io = item.fpage.is_io() && self.k.spaces.has_io_fpages();
        let window = self.receive_window(receiver);
        if window.is_nil() && !is_io {
            return Err(IpcErrorKind::Overflow);
        }
        self.deliver_word(receiver, position, words[0]);
        self.deliver_word(receiver, position + 1, words[1]);
        let (source, dest) = (self.k.space_of(sender), self.k.space_of(receiver));
        let cursor = &self.k.tcb(carrier).cursor;
        if self.k.machine.traces(Event::IpcMapGrantItem.bit()) && cursor.is_at_begin() {
            self.trace(Event::IpcMapGrantItem, |_| [words[0] as u64, words[1] as u64, window.raw() as u64]);
        }
        let progress = match (is_io, item.fpage.as_io()) {
            (false, _) => {
                let transfer = Transfer { source, dest, item, window };
                self.k.spaces.map(&mut self.held, &transfer, cursor, budget)
            }
            (true, Some(ports)) => {
                let transfer = PortTransfer { source, dest, ports, kind: item.kind };
                self.k.spaces.map_ports(&mut self.held, &transfer, cursor, budget)
            }
            // More ports than there are.
            (true, None) => Progress::Done,
        };
        Ok(match progress {
            Progress::Again => ItemStep::Leave,
            Progress::NoMemory if self.k.machine.reclaim(&mut self.held) => ItemStep::Leave,
            // Mapping reports no errors: without memory for it, the rest of the item is not mapped.
            Progress::Done | Progress::NoMemory => {
                cursor.reset();
                ItemStep::Next(position + MapItem::WORDS)
            }
        })
    }

    /// Whether `receiver` takes strings at all.
    pub(super) fn accepts_strings(&self, receiver: TcbRef) -> bool {
        let is_user = self.k.tcb(receiver).purpose() == Purpose::User;
        is_user && Acceptor::from_raw(self.k.utcb(receiver).br(0)).accepts_strings()
    }

    /// Both ends of an IPC whose message is cut off after `bytes` of strings.
    pub(super) fn end_cut_off(&mut self, sender: TcbRef, receiver: TcbRef, tag: MsgTag, cut: Cut, bytes: Word) {
        for side in [sender, receiver] {
            self.k.tcb(side).peer.set(None);
            self.k.tcb(side).is_leaving.set(false);
        }
        let tag = without_result_flags(tag).with_flags(MsgTag::ERROR);
        // Nothing says to the receiver in whose name a message came that did not.
        let received = tag.without_flags(MsgTag::PROPAGATED);
        self.fail_at(receiver, IpcError { phase: Phase::Receive, kind: cut.receiver, offset: bytes }, received);
        self.fail_at(sender, IpcError { phase: Phase::Send, kind: cut.sender, offset: bytes }, tag);
    }

    /// Ends the send phase of `sender`, whose receiver is gone out of the transfer.
    pub(super) fn fail_sender(&mut self, sender: TcbRef, kind: IpcErrorKind) {
        let state = &self.k.tcb(sender).transfer;
        let (tag, offset) = (MsgTag::from_raw(state.tag.get() as Word), state.bytes.get() as Word);
        let tag = without_result_flags(tag).with_flags(MsgTag::ERROR);
        self.fail_at(sender, IpcError { phase: Phase::Send, kind, offset }, tag);
    }

    /// Both ends of an IPC whose message is transferred.
    fn end_transfer(&mut self, sender: TcbRef, receiver: TcbRef, tag: MsgTag) {
        let (from, to) = (self.k.tcb(sender), self.k.tcb(receiver));
        from.peer.set(None);
        to.peer.set(None);
        // It may be gone since the send began; then the message is the sender's own.
        let virtual_sender = from.virtual_sender().and_then(|id| self.k.thread(id));
        let is_redirected = from.intended().is_some();
        let tag = received_tag(tag, virtual_sender.is_some(), is_redirected, from.affinity() != to.affinity());
        self.trace(Event::IpcTransfer, |_| [from.id.get().arg(), to.id.get().arg(), tag.raw() as u64]);
        let seen = virtual_sender.unwrap_or(sender);
        match virtual_sender.filter(|&thread| !self.is_here(thread)) {
            Some(_) => {
                // The sender is on its way before the receiver runs, and can post anything to the same place.
                self.complete_receive((sender, seen), receiver, tag);
                from.partner.set(to.id.get());
                from.set_status(Status::Running);
                self.meet_virtual_sender(sender);
                self.make_ready(receiver);
            }
            None => {
                if virtual_sender.is_some() {
                    self.redirect_virtual_sender(seen, sender, to.id.get());
                }
                let woken = Woken { thread: receiver, must_choose: self.cpu.must_choose.get() };
                self.complete_receive((sender, seen), receiver, tag);
                if self.runs_here(receiver) || to.outer_peer.get().is_some() {
                    self.make_ready(receiver);
                    self.receive_phase(sender, Some(woken));
                } else {
                    // It was moved meanwhile, and can post anything to where the sender goes.
                    self.receive_phase(sender, None);
                    self.make_ready(receiver);
                }
                if self.cpu.current.get().thread() == Some(receiver) {
                    self.switch_to_sender(sender);
                }
            }
        }
    }

    /// `sender`, whose message in the name of a thread at home elsewhere is transferred, has come to where that runs.
    pub(crate) fn meet_virtual_sender(&mut self, sender: TcbRef) {
        let tcb = self.k.tcb(sender);
        if let Some(virtual_sender) = tcb.virtual_sender().and_then(|id| self.k.thread(id)) {
            let other = self.k.tcb(virtual_sender);
            let there = other.affinity();
            if there != self.id || other.is_on_its_way_to(self.id) && other.arrival.get() == Arrival::Moved {
                // It was moved, or is being moved here: behind it.
                return self.travel(sender, there, Arrival::VirtualSender);
            }
            if self.is_here(virtual_sender) {
                self.redirect_virtual_sender(virtual_sender, sender, tcb.partner.get());
            } else if other.is_coming_to_wait_at(self.id) {
                self.redirect_coming_virtual_sender(virtual_sender, sender, tcb.partner.get());
            }
        }
        self.receive_phase(sender, None);
    }

    /// The same for a virtual sender that is at the door of this processor, and so belongs to it, with its receive phase
    /// before it. Nobody waits for it to arrive: it may itself have sent in the name of `sender`.
    fn redirect_coming_virtual_sender(&self, thread: TcbRef, sender: TcbRef, receiver: ThreadId) {
        let tcb = self.k.tcb(thread);
        let from = if tcb.purpose.get() == Purpose::User { &tcb.then_from } else { &tcb.partner };
        if self.global_partner(from.get(), tcb.space()) == Some(self.k.tcb(sender).id.get()) {
            from.set(receiver);
        }
    }

    /// If the virtual sender waits for the thread that sent in its name, it now waits for the receiver, so that the
    /// reply reaches it (X.2, Propagation).
    fn redirect_virtual_sender(&self, thread: TcbRef, sender: TcbRef, receiver: ThreadId) {
        let tcb = self.k.tcb(thread);
        if tcb.waiting_for() != Some(self.k.tcb(sender).id.get()) {
            return;
        }
        let is_plain = !tcb.waits_for.get().is_nil();
        // A thread that faulted in the middle of a string waits for its pager's own message, as in a receive phase.
        let is_free = tcb.outer_peer.get().is_none();
        if !is_free || self.queued_sender(thread, receiver).is_none() {
            return tcb.begin_wait(receiver, is_plain);
        }
        // Somebody is queued there with a message in the receiver's name.
        tcb.make_wait_ordinary(self.k.machine.ipc_return_ip());
        if is_plain {
            tcb.then_timeout.set(Time::NEVER);
        }
        tcb.then_from.set(receiver);
        tcb.partner.set(receiver);
        self.cpu.timeouts.cancel(self.k.tcbs, thread);
        self.postpone_receive_phase(thread);
    }

    /// The receiver has its message from `sender`, which it knows as `seen`: its IPC ends as its purpose says. It is to be
    /// made ready.
    fn complete_receive(&mut self, (sender, seen): (TcbRef, TcbRef), receiver: TcbRef, tag: MsgTag) {
        let (from, to) = (self.k.tcb(sender), self.k.tcb(receiver));
        match to.purpose.get() {
            Purpose::User => {
                let utcb = to.utcb_in(self.k.machine);
                utcb.set_tag(tag);
                if tag.is_propagated() {
                    utcb.set_actual_sender(from.id.get());
                }
                if let Some(intended) = from.intended() {
                    utcb.set_intended_receiver(intended);
                }
                self.k.machine.ipc_return(receiver, to, self.k.id_seen_from(seen, to.space()));
            }
            Purpose::Start => {
                if tag.untyped() == 2 {
                    to.ip.set(to.kernel_word(1) as usize);
                    to.sp.set(to.kernel_word(2) as usize);
                }
            }
            Purpose::Exception => self.load_exception_reply(receiver, tag.untyped()),
            Purpose::Preemption => self.resume_after_preemption(receiver),
            Purpose::PageFault | Purpose::IoFault | Purpose::PreemptionFault | Purpose::Interrupt | Purpose::Input => {}
        }
    }

    fn load_exception_reply(&self, thread: TcbRef, untyped: usize) {
        let tcb = self.k.tcb(thread);
        let mut words = [0; crate::machine::EXCEPTION_IMAGE_WORDS];
        let count = untyped.min(words.len());
        for (index, word) in words[..count].iter_mut().enumerate() {
            *word = tcb.kernel_word(index + 1);
        }
        let old = UserRegs { ip: tcb.ip.get(), sp: tcb.sp.get(), flags: tcb.flags.get() };
        let new = self.k.machine.load_exception_image(thread, old, &words[..count]);
        tcb.ip.set(new.ip);
        tcb.sp.set(new.sp);
        tcb.flags.set(new.flags);
    }
}
