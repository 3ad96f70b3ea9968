//! Faults of user code: page faults and exceptions become IPC to the thread's pager and exception handler (X.2, Page
//! fault protocol, Exception protocol). So do preemptions that somebody wants to know of (X.2, Preemption protocol).
//!
//! The messages go through the kernel's buffer in the TCB, so no virtual register of the faulting thread changes.

use l4_abi::{MsgTag, Rights, Word, protocol};

use crate::kernel::Here;
use crate::machine::{EXCEPTION_IMAGE_WORDS, Machine, NoMemory, TcbRef, UserRegs};
use crate::sched::period_us;
use crate::thread::{Purpose, Work};

/// How long sigma0 waits before it tries again whether there is memory for a page of its own.
const MEMORY_WAIT_US: u64 = 1000;

impl<M: Machine> Here<'_, M> {
    /// The running thread `thread` accessed `address` at instruction `ip` and needs `access` there. sigma0's own faults
    /// in user memory are resolved here, as soon as there is memory for that; everybody else's pager is asked.
    pub fn page_fault(&mut self, thread: TcbRef, address: usize, access: Rights, ip: usize) {
        let space = self.k.space_of(thread);
        if self.k.spaces.get(space).is_sigma0() {
            match self.k.spaces.sigma0_fault(&mut self.held, space, address) {
                Ok(true) => return,
                Ok(false) => {}
                Err(NoMemory) if self.k.machine.reclaim(&mut self.held) => return,
                Err(NoMemory) => return self.wait_for_memory(thread),
            }
        }
        self.set_kernel_message(thread, protocol::page_fault_tag(access), &[address as Word, ip as Word]);
        let pager = self.k.utcb(thread).pager();
        self.kernel_call(thread, pager, Purpose::PageFault);
    }

    /// There is no memory to enter a page of sigma0's, which nobody can help: its thread sleeps for a while, as in a wait
    /// for itself, and then meets the same fault again.
    fn wait_for_memory(&self, thread: TcbRef) {
        let tcb = self.k.tcb(thread);
        tcb.purpose.set(Purpose::PageFault);
        tcb.begin_wait(tcb.id.get(), false);
        self.cpu.timeouts.start(self.k.tcbs, thread, self.k.machine.now_us() + MEMORY_WAIT_US);
    }

    /// The running thread `thread` raised an exception; its register image goes to its exception handler.
    pub fn exception(&mut self, thread: TcbRef) {
        let tcb = self.k.tcb(thread);
        let regs = UserRegs { ip: tcb.ip.get(), sp: tcb.sp.get(), flags: tcb.flags.get() };
        let mut words = [0; EXCEPTION_IMAGE_WORDS];
        let count = self.k.machine.exception_image(thread, regs, &mut words);
        self.set_kernel_message(thread, protocol::exception_tag(), &words[..count]);
        let handler = self.k.utcb(thread).exception_handler();
        self.kernel_call(thread, handler, Purpose::Exception);
    }

    /// Sends a preemption message that `thread`, the running one, owes: to its scheduler if its total quantum is over, or
    /// to its exception handler if it could not delay a preemption any longer. The thread waits for the answer.
    pub(crate) fn send_preemption(&mut self, thread: TcbRef) {
        let tcb = self.k.tcb(thread);
        tcb.work.set(Work::None);
        // The receiver gets the processor only if it is the best.
        self.cpu.must_choose.set(true);
        let (receiver, purpose) = if tcb.quantum_is_over() {
            (tcb.scheduler.get(), Purpose::Preemption)
        } else if tcb.owes_fault.replace(false) {
            (self.k.utcb(thread).exception_handler(), Purpose::PreemptionFault)
        } else {
            return;
        };
        let words = protocol::preemption_words(self.k.machine.now_us());
        self.set_kernel_message(thread, protocol::preemption_tag(), &words);
        self.kernel_call(thread, receiver, purpose);
    }

    /// The scheduler has answered `thread`, whose total quantum is over. If it has not given it a new one by Schedule, the
    /// next one is as long as the last.
    pub(crate) fn resume_after_preemption(&self, thread: TcbRef) {
        let tcb = self.k.tcb(thread);
        if tcb.quantum_is_over() {
            tcb.quantum_left_us.set(period_us(tcb.total_quantum.get()));
        }
    }

    pub(crate) fn set_kernel_message(&self, thread: TcbRef, tag: MsgTag, words: &[Word]) {
        let tcb = self.k.tcb(thread);
        tcb.set_kernel_word(0, tag.raw());
        for (index, &word) in words.iter().enumerate() {
            tcb.set_kernel_word(index + 1, word);
        }
    }
}
