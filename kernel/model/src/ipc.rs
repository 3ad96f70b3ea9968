//! Messages (X.2, Ipc): a send phase and a receive phase, and what the kernel sends in a thread's name.

use crate::memory::Item;
use crate::word::{self, ERROR, Id, PROPAGATED, RESULT_FLAGS, Timeout, Word};
use crate::{MRS, Model, Purpose, REGISTERS, SIGMA0, State};

/// Timeout, non-existing partner, cancelled, overflow (X.2, IPC errors).
const TIMEOUT: Word = 1;
const NON_EXISTING: Word = 2;
const CANCELED: Word = 3;
const OVERFLOW: Word = 4;

/// Why a phase ends early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Its time is over.
    Timeout,
    /// Somebody cancelled it.
    Canceled,
}

/// Whose send phase has just ended, and whether somebody else may have had to run before.
#[derive(Clone, Copy)]
struct Woken {
    thread: u64,
    looked_again: bool,
}

impl Model {
    /// Ipc of who runs: to, from, timeouts (X.2, Ipc).
    pub fn ipc(&mut self, caller: u64, to: Id, from: Id, timeouts: Word) {
        let return_ip = self.machine.return_ip;
        let thread = self.thread_mut(caller);
        thread.from = None;
        thread.registers[0] = return_ip;
        thread.purpose = Purpose::Own;
        thread.then = (from, timeouts as u16);
        match (to, from) {
            (word::NIL, word::NIL) => thread.from = Some(word::NIL),
            (word::NIL, _) => self.receive_phase(caller, None),
            _ => self.send_phase(caller, to, word::timeout((timeouts >> 16) as u16, self.now)),
        }
        self.dispatch();
    }

    /// A page fault of who runs: its pager is asked (X.2, Page fault protocol).
    pub fn page_fault(&mut self, caller: u64, address: Word, rights: Word, ip: Word) {
        // sigma0 has all memory, and its faults are nobody's business.
        if self.thread(caller).space != SIGMA0 {
            let tag = (-2_i64 as Word) << 20 | rights << 16 | 2;
            let pager = self.thread(caller).utcb.pager;
            self.kernel_call(caller, Purpose::Fault, pager, &[tag, address, ip]);
        }
        self.dispatch();
    }

    /// An exception of who runs: its handler gets its registers (X.2, Exception protocol).
    pub fn exception(&mut self, caller: u64) {
        let thread = self.thread(caller);
        let count = (3 + REGISTERS) as Word;
        let tag = (-5_i64 as Word) << 20 | count;
        let message: Vec<Word> = [tag].into_iter().chain(thread.registers).chain(thread.general).collect();
        let handler = thread.utcb.exception_handler;
        self.kernel_call(caller, Purpose::Exception, handler, &message);
        self.dispatch();
    }

    fn kernel_call(&mut self, caller: u64, purpose: Purpose, partner: Id, message: &[Word]) {
        let thread = self.thread_mut(caller);
        thread.purpose = purpose;
        thread.kernel_message[..message.len()].copy_from_slice(message);
        thread.then = (partner, 0);
        if partner == word::NIL {
            return self.fail(caller, false, NON_EXISTING, ERROR);
        }
        self.send_phase(caller, partner, Timeout::Never);
    }

    /// A fresh thread waits for its start message (X.2, Thread start protocol).
    pub(crate) fn wait_for_start(&mut self, number: u64, pager: Id) {
        let thread = self.thread_mut(number);
        thread.purpose = Purpose::Start;
        thread.then = (pager, 0);
        match self.sender_for(number, pager) {
            Some(_) => self.postpone(number),
            None => self.thread_mut(number).state = State::Waits(pager),
        }
    }

    // --- the send phase ---

    fn send_phase(&mut self, sender: u64, to: Id, timeout: Timeout) {
        let Some(dest) = self.named(to, self.thread(sender).space) else {
            return self.fail(sender, false, NON_EXISTING, ERROR);
        };
        let name = self.name(sender, dest);
        let dest_id = self.thread(dest).id;
        let thread = self.thread_mut(sender);
        thread.sends_as = name;
        if thread.purpose != Purpose::Own {
            // The answer is to come from whom the message went to.
            thread.then.0 = dest_id;
        }
        match self.thread(dest).state {
            State::Waits(partner) if self.takes(dest, partner, sender) => self.transfer(sender, dest),
            _ if timeout == Timeout::Zero => self.fail(sender, false, TIMEOUT, ERROR),
            _ => {
                self.thread_mut(dest).senders.push(sender);
                self.thread_mut(sender).state = State::Sends(dest);
                self.start_timeout(sender, timeout);
            }
        }
    }

    /// In whose name a thread sends (X.2, Propagation): another's only if that, or the receiver, is of its own space.
    fn name(&self, sender: u64, dest: u64) -> (Id, bool) {
        let thread = self.thread(sender);
        let own = (thread.id, false);
        if thread.purpose != Purpose::Own || thread.utcb.mr[0] & PROPAGATED == 0 {
            return own;
        }
        let Some(other) = self.named(thread.utcb.virtual_sender, thread.space) else { return own };
        let is_neighbour = |number: u64| self.thread(number).space == thread.space;
        if is_neighbour(other) || is_neighbour(dest) { (self.thread(other).id, true) } else { own }
    }

    /// Whether a wait of `dest` for `partner` is one for what `sender` sends. Who waits for itself sleeps.
    fn takes(&self, dest: u64, partner: Id, sender: u64) -> bool {
        let (to, from) = (self.thread(dest), self.thread(sender));
        let is_open = partner == word::ANY || partner == word::ANY_LOCAL && from.space == to.space;
        partner != to.id && (is_open || partner == from.sends_as.0 || partner == from.id)
    }

    // --- the receive phase ---

    fn sender_for(&self, receiver: u64, partner: Id) -> Option<u64> {
        self.thread(receiver).senders.iter().copied().find(|&sender| self.takes(receiver, partner, sender))
    }

    fn receive_phase(&mut self, receiver: u64, woken: Option<Woken>) {
        let thread = self.thread(receiver);
        let ((from, time), space, is_own) = (thread.then, thread.space, thread.purpose == Purpose::Own);
        if from == word::NIL {
            return self.end_without_receive(receiver);
        }
        let is_anybody = from == word::ANY || from == word::ANY_LOCAL;
        let named = if is_anybody { Some(from) } else { self.named(from, space).map(|other| self.thread(other).id) };
        let Some(partner) = named else {
            return self.fail(receiver, true, NON_EXISTING, ERROR);
        };
        if let Some(sender) = self.sender_for(receiver, partner) {
            if self.processor.running != Some(receiver) {
                return self.postpone(receiver);
            }
            if let Some(woken) = woken {
                self.weigh(woken, sender);
            }
            self.leave_queue(sender);
            return self.transfer(sender, receiver);
        }
        match word::timeout(if is_own { time } else { 0 }, self.now) {
            Timeout::Zero => self.fail(receiver, true, TIMEOUT, ERROR),
            timeout => {
                self.thread_mut(receiver).state = State::Waits(partner);
                self.start_timeout(receiver, timeout);
            }
        }
        if let Some(woken) = woken.filter(|woken| self.is_queued(woken.thread)) {
            self.donate(woken.thread);
            // Whatever the priorities are, it is its turn.
            self.processor.looks_again = woken.looked_again;
        }
    }

    /// There is a sender, but it is not the receiver's turn.
    fn postpone(&mut self, receiver: u64) {
        self.thread_mut(receiver).state = State::Ready(true);
        self.enqueue(receiver);
    }

    /// It is its turn now.
    pub(crate) fn look_for_sender(&mut self, receiver: u64) {
        self.thread_mut(receiver).state = State::Ready(false);
        self.receive_phase(receiver, None);
    }

    /// Reply and wait, with a sender already queued: the higher of client and sender decides (X.2, Ipc, scheduling effects).
    fn weigh(&mut self, woken: Woken, sender: u64) {
        if !self.is_queued(woken.thread) {
            return;
        }
        if self.thread(woken.thread).priority > self.thread(sender).priority {
            self.donate(woken.thread);
        } else {
            self.processor.looks_again = woken.looked_again;
        }
    }

    pub(crate) fn leave_queue(&mut self, sender: u64) {
        if let State::Sends(dest) = self.thread(sender).state {
            self.thread_mut(dest).senders.retain(|queued| *queued != sender);
        }
        self.thread_mut(sender).deadline = None;
    }

    // --- the transfer ---

    fn sent_word(&self, sender: u64, index: usize) -> Word {
        let thread = self.thread(sender);
        if thread.purpose == Purpose::Own { thread.utcb.mr[index] } else { thread.kernel_message[index] }
    }

    fn deliver(&mut self, receiver: u64, index: usize, word: Word) {
        let thread = self.thread_mut(receiver);
        let message = if thread.purpose == Purpose::Own { &mut thread.utcb.mr } else { &mut thread.kernel_message };
        message[index] = word;
    }

    /// Both have met (X.2, Message transfer).
    fn transfer(&mut self, sender: u64, receiver: u64) {
        self.thread_mut(receiver).deadline = None;
        let tag = self.sent_word(sender, 0);
        let (untyped, typed) = word::counts(tag);
        for index in 1..=untyped {
            self.deliver(receiver, index, self.sent_word(sender, index));
        }
        if self.transfer_items(sender, receiver, untyped + 1, untyped + typed + 1) {
            return self.end_transfer(sender, receiver, tag);
        }
        let tag = tag & !RESULT_FLAGS | ERROR;
        self.fail(receiver, true, OVERFLOW, tag & !PROPAGATED);
        self.fail(sender, false, OVERFLOW, tag);
    }

    /// Whether all items from one position to another one went.
    fn transfer_items(&mut self, sender: u64, receiver: u64, begin: usize, end: usize) -> bool {
        let window = match self.thread(receiver).purpose {
            Purpose::Own => self.thread(receiver).utcb.br[0] & !0xF,
            Purpose::Fault => 0x10,
            Purpose::Start | Purpose::Exception => 0,
        };
        let mut position = begin;
        while position < end {
            if end > MRS {
                return false;
            }
            let first = self.sent_word(sender, position);
            match first >> 1 & 7 {
                // A string: it is announced, but nobody takes one here.
                0..=3 => {
                    self.deliver(receiver, position, first);
                    return false;
                }
                kind @ (4 | 5) if position + 2 <= end && window != 0 => {
                    let second = self.sent_word(sender, position + 1);
                    self.deliver(receiver, position, first);
                    self.deliver(receiver, position + 1, second);
                    let item = Item { base: first >> 10 << 10, fpage: word::fpage(second), is_grant: kind == 5 };
                    let spaces = (self.thread(sender).space, self.thread(receiver).space);
                    self.map(spaces, item, word::fpage(window));
                    position += 2;
                }
                _ => return false,
            }
        }
        true
    }

    fn end_transfer(&mut self, sender: u64, receiver: u64, tag: Word) {
        let (name, is_propagated) = self.thread(sender).sends_as;
        // Who is gone by now sends nothing any more: then it is the sender's own message.
        let virtual_sender = self.global(name).filter(|_| is_propagated);
        if let Some(other) = virtual_sender {
            self.turn_wait(other, sender, receiver);
        }
        let woken = Woken { thread: receiver, looked_again: self.processor.looks_again };
        self.complete_receive(sender, virtual_sender, receiver, tag);
        self.receive_phase(sender, Some(woken));
        if self.processor.running == Some(receiver) {
            self.switch_to_sender(sender, receiver);
        }
    }

    /// If the virtual sender waits for who sent in its name, it waits for the receiver from now on (X.2, Propagation).
    fn turn_wait(&mut self, other: u64, sender: u64, receiver: u64) {
        if self.thread(other).state != State::Waits(self.thread(sender).id) {
            return;
        }
        let receiver = self.thread(receiver).id;
        self.thread_mut(other).then.0 = receiver;
        if self.sender_for(other, receiver).is_some() {
            self.thread_mut(other).deadline = None;
            self.postpone(other);
        } else {
            self.thread_mut(other).state = State::Waits(receiver);
        }
    }

    fn complete_receive(&mut self, sender: u64, virtual_sender: Option<u64>, receiver: u64, tag: Word) {
        let sender_id = self.thread(sender).id;
        let seen = self.seen_from(virtual_sender.unwrap_or(sender), self.thread(receiver).space);
        let thread = self.thread_mut(receiver);
        match thread.purpose {
            Purpose::Own => {
                let flags = if virtual_sender.is_some() { PROPAGATED } else { 0 };
                thread.utcb.mr[0] = tag & !(RESULT_FLAGS | PROPAGATED) | flags;
                if virtual_sender.is_some() {
                    thread.utcb.virtual_sender = sender_id;
                }
                thread.from = Some(seen);
            }
            Purpose::Start if word::counts(tag).0 == 2 => {
                thread.registers[0] = thread.kernel_message[1];
                thread.registers[1] = thread.kernel_message[2];
            }
            Purpose::Exception => self.load_registers(receiver, word::counts(tag).0),
            Purpose::Start | Purpose::Fault => {}
        }
        self.end_ipc(receiver);
    }

    /// The answer to an exception has so many words (X.2, Exception protocol).
    fn load_registers(&mut self, number: u64, count: usize) {
        let user_flags = self.machine.user_flags;
        let thread = self.thread_mut(number);
        let words = thread.kernel_message;
        for (index, &word) in words[1..].iter().enumerate().take(count) {
            match index {
                2 => thread.registers[2] = thread.registers[2] & !user_flags | word & user_flags,
                0 | 1 => thread.registers[index] = word,
                _ if index < 3 + REGISTERS => thread.general[index - 3] = word,
                _ => {}
            }
        }
    }

    /// Who received from a queued thread that has nothing left to do lets it run, unless its own priority is higher.
    fn switch_to_sender(&mut self, sender: u64, receiver: u64) {
        let has_sent = self.is_queued(sender) && self.thread(sender).state == State::Ready(false);
        if !has_sent || !self.thread(receiver).is_runnable() {
            return;
        }
        match self.thread(sender).priority.cmp(&self.thread(receiver).priority) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => self.donate(sender),
            std::cmp::Ordering::Greater => {
                self.unqueue(sender);
                self.queue_first(sender);
            }
        }
    }

    // --- ends ---

    /// A thread is out of its IPC.
    fn end_ipc(&mut self, number: u64) {
        let thread = self.thread_mut(number);
        thread.purpose = Purpose::Own;
        thread.state = State::Ready(false);
        thread.deadline = None;
        self.make_ready(number);
    }

    fn end_without_receive(&mut self, number: u64) {
        let thread = self.thread_mut(number);
        if thread.purpose == Purpose::Own {
            thread.utcb.mr[0] &= !RESULT_FLAGS;
            thread.from = Some(word::NIL);
        }
        self.end_ipc(number);
    }

    fn fail(&mut self, number: u64, is_receive: bool, kind: Word, tag: Word) {
        let thread = self.thread_mut(number);
        if thread.purpose == Purpose::Own {
            thread.utcb.error_code = word::ipc_error(is_receive, kind);
            thread.utcb.mr[0] = tag;
            thread.from = Some(word::NIL);
        } else if kind == NON_EXISTING {
            // Nobody handles its fault: it stops, and meets it again if somebody resumes it.
            thread.is_halted = true;
            self.processor.looks_again = true;
        }
        self.end_ipc(number);
    }

    /// The tag of a send phase that ended early.
    fn own_tag(&self, number: u64) -> Word {
        let thread = self.thread(number);
        let own = if thread.purpose == Purpose::Own { thread.utcb.mr[0] & !RESULT_FLAGS } else { 0 };
        own | ERROR
    }

    /// Whether a thread is in its send phase, and whether in its receive phase.
    pub(crate) fn phases(&self, number: u64) -> (bool, bool) {
        let state = self.thread(number).state;
        (matches!(state, State::Sends(_)), matches!(state, State::Waits(_) | State::Ready(true)))
    }

    /// Ends the IPC of a thread, if it is in one.
    pub(crate) fn abort(&mut self, number: u64, reason: Reason) {
        let kind = if reason == Reason::Timeout { TIMEOUT } else { CANCELED };
        match self.thread(number).state {
            State::Sends(_) => {
                self.leave_queue(number);
                let tag = self.own_tag(number);
                self.fail(number, false, kind, tag);
            }
            State::Waits(_) => self.fail(number, true, kind, ERROR),
            State::Ready(true) => {
                self.unqueue(number);
                self.fail(number, true, kind, ERROR);
            }
            State::Ready(false) | State::Inactive => {}
        }
    }

    /// The receiver of a thread that waits to send is gone.
    pub(crate) fn lose_receiver(&mut self, sender: u64) {
        self.leave_queue(sender);
        let tag = self.own_tag(sender);
        self.fail(sender, false, NON_EXISTING, tag);
    }
}
