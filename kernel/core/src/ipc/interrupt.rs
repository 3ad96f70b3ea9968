//! Interrupts of devices (X.2, Interrupt protocol): each line has a thread of the kernel, by its own number, that sends
//! a message to the line's handler and waits for the answer.
//!
//! | state | [`Status`] | the line |
//! |---|---|---|
//! | never associated, or not any more, or its handler is gone | `Inactive` | masked |
//! | idle | `Running`, halted | open |
//! | message queued on the handler | `PendingSend` | held back by the machine, or open |
//! | message delivered, waiting for the handler's answer | `Waiting` | held back by the machine, or open |
//!
//! The machine holds a line back by itself when it reports an interrupt, if it can do so without losing the next one;
//! then nothing comes until the answer. A line that it cannot hold back may come again before: that is noted, the line
//! masked, and the next message follows the answer. So at most one message is outstanding, and none is lost.
//!
//! An interrupt thread has neither space nor UTCB. It is no thread for anybody but IPC, Schedule and the call that
//! associates it: lookup by id does not find it.

use l4_abi::{SysError, ThreadId, Word, protocol};

use super::NEVER;
use crate::cross::Place;
use crate::cross::ask::{Reply, Subject, Words, from_word, to_word, words};
use crate::kernel::Here;
use crate::machine::{CpuId, Machine, TcbRef};
use crate::sched::NEVER_ENDS;
use crate::thread::{Arrival, Purpose, Status};
use crate::trace::{Arg, Event};

/// The priority of interrupt threads. They never run: messages come in at the handler's priority.
const PRIORITY: u8 = 255;

impl<M: Machine> Here<'_, M> {
    /// Makes `handler` the thread that is told of the interrupts of the line `id`; nobody if it is `id` itself. The old
    /// handler loses a message that it has not received; what it has received it need not answer.
    ///
    /// # Errors
    /// [`SysError::InvalidThread`]: `id` is no line that a device can be at, or there is no thread `handler`;
    /// [`SysError::OutOfMemory`].
    pub(crate) fn interrupt_control(&mut self, id: ThreadId, handler: ThreadId) -> Result<(), SysError> {
        let line = TcbRef::new(id.thread_no() as u32);
        if !self.is_interrupt(id) || !self.k.machine.has_line(line.index() as u32) {
            return Err(SysError::InvalidThread);
        }
        let question = words([line.index(), id.raw() as usize, handler.raw() as usize]);
        loop {
            let home = self.k.tcb(line).home();
            match self.ask(home, Subject::Interrupt, question) {
                Reply::Done(answer) => return from_word(answer[0]),
                _ => self.wait_a_moment(),
            }
        }
    }

    /// The act, at the home of the interrupt thread. If that is not where it runs, it has to go there first, without its
    /// message.
    pub(crate) fn interrupt_here(&mut self, question: Words) -> Reply {
        let line = TcbRef::new(question[0] as u32);
        if !self.is_here(line) {
            return Reply::Moved;
        }
        let (id, handler) = (ThreadId::from_raw(question[1] as Word), ThreadId::from_raw(question[2] as Word));
        if handler != id && self.k.thread(handler).is_none() {
            return Reply::Done(words([to_word(Err(SysError::InvalidThread))]));
        }
        let tcb = self.k.tcb(line);
        let is_same = match tcb.status() {
            Status::Inactive => handler == id,
            _ => tcb.partner.get() == handler,
        };
        if is_same {
            return Reply::Done(words([to_word(Ok(()))]));
        }
        if !self.runs_here(line) {
            self.deassociate(line);
            return Reply::Moved;
        }
        Reply::Done(words([to_word(self.set_handler(line, id, handler))]))
    }

    fn set_handler(&mut self, line: TcbRef, id: ThreadId, handler: ThreadId) -> Result<(), SysError> {
        if handler == id {
            self.deassociate(line);
            return Ok(());
        }
        // An interrupt thread is never deleted: memory for its slot is claimed once.
        if !self.k.tcb(line).exists() {
            self.k.machine.back_thread(&mut self.held, line).map_err(|_| SysError::OutOfMemory)?;
        }
        self.associate(line, id, handler);
        Ok(())
    }

    fn associate(&mut self, line: TcbRef, id: ThreadId, handler: ThreadId) {
        self.drop_message(line);
        let tcb = self.k.tcb(line);
        tcb.set_id(id);
        tcb.purpose.set(Purpose::Interrupt);
        tcb.halted.set(true);
        tcb.set_home(self.id);
        tcb.set_affinity(self.id);
        tcb.partner.set(handler);
        tcb.priority.set(PRIORITY);
        tcb.sensitive_priority.set(PRIORITY);
        tcb.slice_left_us.set(NEVER_ENDS);
        tcb.quantum_left_us.set(NEVER_ENDS);
        self.set_kernel_message(line, protocol::interrupt_tag(), &[]);
        self.open(line);
    }

    fn deassociate(&mut self, line: TcbRef) {
        if self.k.tcb(line).status() != Status::Inactive {
            self.drop_message(line);
            self.retire(line);
        }
    }

    fn drop_message(&mut self, line: TcbRef) {
        if self.k.tcb(line).status() == Status::PendingSend {
            self.leave_send_queue(line);
        }
    }

    /// The line is idle from now on.
    fn open(&mut self, line: TcbRef) {
        let tcb = self.k.tcb(line);
        tcb.set_status(Status::Running);
        tcb.came_again.set(false);
        self.k.machine.unmask_line(&mut self.held, line.index() as u32);
    }

    /// The line has no handler any more.
    pub(super) fn retire(&mut self, line: TcbRef) {
        let tcb = self.k.tcb(line);
        tcb.set_status(Status::Inactive);
        self.mask(line);
        if !self.runs_here(line) {
            self.travel(line, tcb.affinity(), Arrival::Moved);
        }
    }

    /// `line` was moved here, or has come back without handler. If it is idle, its interrupts come here from now on.
    pub(crate) fn settle_line(&mut self, line: TcbRef) {
        if self.k.tcb(line).status() == Status::Running {
            self.reopen(line);
        }
    }

    fn mask(&mut self, line: TcbRef) {
        self.k.machine.mask_line(&mut self.held, line.index() as u32);
    }

    /// A device has raised `line`, below the first number that is not an interrupt's.
    pub fn interrupt(&mut self, line: u32) {
        let thread = TcbRef::new(line);
        let tcb = self.k.tcb(thread);
        self.trace(Event::Interrupt, |_| [line.into()]);
        if !self.runs_here(thread) {
            return self.pass_on(line, tcb.affinity());
        }
        match tcb.status() {
            Status::Inactive if self.is_here(thread) => self.mask(thread),
            Status::Running if self.is_here(thread) => self.announce(thread),
            // Its message is on its way, queued on the handler, or not answered.
            _ => {
                tcb.came_again.set(true);
                self.mask(thread);
            }
        }
    }

    /// `line` runs at `cpu` by now.
    fn pass_on(&self, line: u32, cpu: CpuId) {
        self.k.cpus[cpu.index()].raised.post(line as usize);
        self.tell(cpu);
    }

    /// Takes the interrupts that others passed on to this processor.
    pub(crate) fn receive_interrupts(&mut self) {
        let cpu = self.cpu;
        cpu.raised.take(|line| self.interrupt(line));
    }

    /// Sends the message of `line`, which is idle.
    pub(super) fn announce(&mut self, line: TcbRef) {
        self.trace(Event::InterruptDetails, |k| [line.index() as u64, k.tcb(line).partner.get().arg()]);
        match self.k.thread(self.k.tcb(line).partner.get()) {
            None => self.retire(line),
            Some(handler) if !self.runs_here(handler) => self.send_elsewhere(line, handler, handler, NEVER),
            Some(handler) => match self.place_of(handler) {
                Place::Here if self.is_deliverable(line, handler) => self.begin_transfer(line, handler, line),
                place => self.block_sending(line, (handler, place), NEVER),
            },
        }
    }

    /// The handler has the message: only its answer ends the wait. Somebody may have been sending it in its name already.
    pub(super) fn wait_for_answer(&mut self, line: TcbRef) {
        let handler = self.k.tcb(line).partner.get();
        self.k.tcb(line).begin_wait(handler, false);
        if let Some(sender) = self.queued_sender(line, handler) {
            self.leave_send_queue(sender);
            self.answer(sender, line);
        }
    }

    /// `line` waits for what `sender` sends, of which all that counts is that it comes.
    pub(super) fn answer(&mut self, sender: TcbRef, line: TcbRef) {
        self.reopen(line);
        self.receive_phase(sender, None);
    }

    /// `line` is idle again; if it has come meanwhile, its next message goes out.
    fn reopen(&mut self, line: TcbRef) {
        let came_again = self.k.tcb(line).came_again.get();
        self.open(line);
        if came_again {
            self.announce(line);
        }
    }
}
