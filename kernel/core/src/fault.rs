//! Faults of user code: page faults, faults at I/O ports and exceptions become IPC to the thread's pager and exception
//! handler (X.2, Page fault protocol, I/O port faults, Exception protocol). So do
//! preemptions that somebody wants to know of (X.2, Preemption protocol).
//!
//! The messages go through the kernel's buffer in the TCB, so no virtual register of the faulting thread changes.

use l4_abi::{IoFpage, MsgTag, Rights, Word, protocol};

use crate::kernel::Here;
use crate::machine::{EXCEPTION_IMAGE_WORDS, Machine, NoMemory, TcbRef, UserRegs};
use crate::sched::period_us;
use crate::thread::{Purpose, Work};
use crate::trace::{Arg, Event};

/// How long sigma0 waits before it tries again whether there is memory for a page of its own.
const MEMORY_WAIT_US: u64 = 1000;

impl<M: Machine> Here<'_, M> {
    /// The running thread `thread` accessed `address` at instruction `ip` and needs `access` there. sigma0's own faults
    /// in user memory are resolved here, as soon as there is memory for that; everybody else's pager is asked. Returns who
    /// runs, if there is nothing to decide about that.
    #[inline]
    pub fn page_fault(&mut self, thread: TcbRef, address: usize, access: Rights, ip: usize) -> Option<TcbRef> {
        self.trace_of(Event::PagefaultUser, thread, |k| {
            [address as u64, ip as u64, access.bits() as u64, k.utcb(thread).pager().arg()]
        });
        let next = self.fault_to_waiting_pager(thread, address, access, ip);
        if next.is_none() {
            self.ask_pager(thread, address, access, ip);
        }
        next
    }

    #[inline(never)]
    pub(crate) fn ask_pager(&mut self, thread: TcbRef, address: usize, access: Rights, ip: usize) {
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

    /// The running thread `thread` tried to use the 2^`size_log2` ports from `port` on, 1, 2 or 4 of them, at instruction
    /// `ip`. If one of them is closed to its space its pager is asked for it; sigma0's ports are opened here. `false` if none
    /// is.
    ///
    /// Ports that are not aligned are no I/O fpage. They are asked for one by one, each at another fault.
    pub fn io_fault(&mut self, thread: TcbRef, port: u16, size_log2: u32, ip: usize) -> bool {
        let space = self.k.space_of(thread);
        // Behind the last port there is none that could be opened.
        let last = port.saturating_add((1 << size_log2) - 1);
        let Some(closed) = self.k.spaces.closed_port(space, port, last) else { return false };
        if self.k.spaces.get(space).is_sigma0() {
            if self.k.spaces.open_ports_of_sigma0(&mut self.held, space) == Err(NoMemory) {
                self.wait_for_memory(thread);
            }
            return true;
        }
        let ports = IoFpage::new(port, size_log2).or(IoFpage::new(closed, 0)).expect("one port is aligned");
        self.set_kernel_message(thread, protocol::io_page_fault_tag(), &[ports.fpage().raw(), ip as Word]);
        let pager = self.k.utcb(thread).pager();
        self.kernel_call(thread, pager, Purpose::IoFault);
        true
    }

    /// The running thread `thread` raised an exception; its register image goes to its exception handler.
    pub fn exception(&mut self, thread: TcbRef) {
        let tcb = self.k.tcb(thread);
        let regs = UserRegs { ip: tcb.ip.get(), sp: tcb.sp.get(), flags: tcb.flags.get() };
        let mut words = [0; EXCEPTION_IMAGE_WORDS];
        let count = self.k.machine.exception_image(thread, regs, &mut words);
        self.set_kernel_message(thread, protocol::exception_tag(), &words[..count]);
        let handler = self.k.utcb(thread).exception_handler();
        self.trace_of(Event::ExceptionIpc, thread, |_| {
            [handler.arg(), protocol::exception_tag().raw() as u64, regs.ip as u64]
        });
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
            self.trace(Event::TotalQuantumExpired, |k| [k.id_of(thread).arg()]);
            (tcb.scheduler.get(), Purpose::Preemption)
        } else if tcb.owes_fault.replace(false) {
            self.trace(Event::SchedulePmFault, |k| [k.id_of(thread).arg()]);
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
