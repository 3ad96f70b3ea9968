//! ExchangeRegisters (X.2, ExchangeRegisters).

use l4_abi::{ExregsControl, SysError, ThreadId, ThreadState, Word};

use crate::cross::ask::{Reply, Subject, Words, words};
use crate::ipc::Reason;
use crate::kernel::Here;
use crate::machine::{Machine, SpaceRef, TcbRef};

/// What the caller passes.
#[derive(Clone, Copy, Debug)]
pub struct Exregs {
    /// The thread, by global or local id.
    pub dest: ThreadId,
    /// What to do and which of the values below to take.
    pub control: ExregsControl,
    /// Stack pointer.
    pub sp: usize,
    /// Instruction pointer.
    pub ip: usize,
    /// Flags.
    pub flags: usize,
    /// User-defined handle.
    pub handle: Word,
    /// Pager.
    pub pager: ThreadId,
}

/// The values before the call.
#[derive(Clone, Copy, Debug)]
pub struct ExregsResult {
    /// The other form of the id passed: local for a global one, global for a local one.
    pub thread: ThreadId,
    /// What the thread was doing.
    pub state: ThreadState,
    /// Stack pointer.
    pub sp: usize,
    /// Instruction pointer.
    pub ip: usize,
    /// Flags.
    pub flags: usize,
    /// User-defined handle.
    pub handle: Word,
    /// Pager.
    pub pager: ThreadId,
}

impl Exregs {
    pub(crate) fn to_words(self, caller: TcbRef, dest: TcbRef) -> Words {
        words([
            dest.index(),
            self.dest.raw() as usize,
            self.control.raw() as usize,
            self.sp,
            self.ip,
            self.flags,
            self.handle as usize,
            self.pager.raw() as usize,
            caller.index(),
        ])
    }

    /// Caller, thread, and what the caller passes.
    fn from_words(words: Words) -> (TcbRef, TcbRef, Self) {
        let [dest, named, control, sp, ip, flags, handle, pager, caller, ..] = words;
        let id = |word| ThreadId::from_raw(word as Word);
        let control = ExregsControl::from_raw(control as Word);
        let args = Self { dest: id(named), control, sp, ip, flags, handle: handle as Word, pager: id(pager) };
        (TcbRef::new(caller as u32), TcbRef::new(dest as u32), args)
    }
}

impl ExregsResult {
    fn to_words(self) -> Words {
        let (thread, state, pager) = (self.thread.raw(), self.state.raw(), self.pager.raw());
        words([thread as usize, state as usize, self.sp, self.ip, self.flags, self.handle as usize, pager as usize])
    }

    fn from_words(words: Words) -> Self {
        let [thread, state, sp, ip, flags, handle, pager, ..] = words;
        let id = |word| ThreadId::from_raw(word as Word);
        let state = ThreadState::from_raw(state as Word);
        Self { thread: id(thread), state, sp, ip, flags, handle: handle as Word, pager: id(pager) }
    }
}

impl<M: Machine> Here<'_, M> {
    /// Reads and changes registers and the state of a thread.
    ///
    /// # Errors
    /// [`SysError::InvalidThread`] unless the thread is active and either in the caller's space or paged by a thread of
    /// the caller's space (feature `pagerexregs`).
    pub fn exchange_registers(&mut self, caller: TcbRef, args: Exregs) -> Result<ExregsResult, SysError> {
        let dest = self.exregs_dest(caller, args.dest).ok_or(SysError::InvalidThread)?;
        let id = self.k.tcb(dest).id.get();
        let answer = self.at_home_of(dest, Subject::Exregs, args.to_words(caller, dest));
        self.see_off(dest, id);
        answer.map(ExregsResult::from_words).ok_or(SysError::InvalidThread)
    }

    /// The act, at the home of the thread: what is told, changed and aborted is one, and nothing comes in between.
    pub(crate) fn exregs_here(&mut self, question: Words) -> Reply {
        let (caller, dest, args) = Exregs::from_words(question);
        if !self.is_here(dest) {
            return Reply::Moved;
        }
        // Since the caller found it, another one of the same id may have come: inactive, without registers, or in another space.
        // The second is looked at for callers of other processors; one of this processor mostly asks at once.
        let is_allowed = || !self.cpu.questions.is_serving() || self.may_exchange(caller, dest);
        if !self.k.tcb(dest).is_active() || !is_allowed() {
            return Reply::Gone;
        }
        self.leave_stub(dest);
        let result = self.sample(dest, args.dest);
        self.write_registers(dest, args);
        self.abort_and_halt(dest, args.control);
        Reply::Done(result.to_words())
    }

    fn exregs_dest(&self, caller: TcbRef, dest: ThreadId) -> Option<TcbRef> {
        let space = self.k.space_of(caller);
        self.k.thread_or_local(dest, space).filter(|&thread| self.may_exchange(caller, thread))
    }

    /// Whether `thread`, which may be deleted at this moment, is active and either in the caller's space or paged from there.
    #[inline(always)]
    fn may_exchange(&self, caller: TcbRef, thread: TcbRef) -> bool {
        let (space, tcb) = (self.k.tcb(caller).space.get(), self.k.tcb(thread));
        tcb.is_active() && (tcb.space.get() == space || self.is_paged_from(thread, space))
    }

    /// Whether a thread of `space` is the pager of `thread`.
    #[inline(never)]
    fn is_paged_from(&self, thread: TcbRef, space: Option<SpaceRef>) -> bool {
        let Some(its_space) = self.k.tcb(thread).space.get() else { return false };
        let pager = self.k.utcb_if_any(thread).and_then(|utcb| self.k.thread_or_local(utcb.pager(), its_space));
        pager.is_some_and(|pager| self.k.tcb(pager).space.get() == space)
    }

    /// Makes instruction and stack pointer of a thread in an IPC those behind its call, if the return address can be
    /// read: the stub would do no more than go there.
    fn leave_stub(&self, dest: TcbRef) {
        let (tcb, return_ip) = (self.k.tcb(dest), self.k.machine.ipc_return_ip());
        tcb.make_wait_ordinary(return_ip);
        let sp = tcb.sp.get();
        if tcb.ip.get() != return_ip || !sp.is_multiple_of(size_of::<usize>()) {
            return;
        }
        if let Some(ip) = self.read_word_of(tcb.space(), sp) {
            tcb.ip.set(ip);
            tcb.sp.set(sp + size_of::<usize>());
        }
    }

    fn sample(&self, dest: TcbRef, named: ThreadId) -> ExregsResult {
        let (tcb, utcb) = (self.k.tcb(dest), self.k.utcb(dest));
        let flag = |set, flag| if set { flag } else { ThreadState::NONE };
        let state = flag(tcb.is_halted(), ThreadState::HALTED)
            | flag(self.is_sending(dest), ThreadState::SENDING)
            | flag(self.is_receiving(dest), ThreadState::RECEIVING);
        ExregsResult {
            thread: if named.is_local() { tcb.id.get() } else { tcb.local_id.get() },
            state,
            sp: tcb.sp.get(),
            ip: tcb.ip.get(),
            flags: tcb.flags.get(),
            handle: utcb.user_defined_handle(),
            pager: utcb.pager(),
        }
    }

    fn write_registers(&self, dest: TcbRef, args: Exregs) {
        let (tcb, utcb) = (self.k.tcb(dest), self.k.utcb(dest));
        if args.control.contains(ExregsControl::SP) {
            tcb.sp.set(args.sp);
        }
        if args.control.contains(ExregsControl::IP) {
            tcb.ip.set(args.ip);
        }
        if args.control.contains(ExregsControl::FLAGS) {
            tcb.flags.set(self.k.machine.user_flags(tcb.flags.get(), args.flags));
        }
        if args.control.contains(ExregsControl::HANDLE) {
            utcb.set_user_defined_handle(args.handle);
        }
        if args.control.contains(ExregsControl::PAGER) {
            utcb.set_pager(args.pager);
        }
    }

    /// Whether an IPC of `dest` is aborted.
    fn aborts(&self, dest: TcbRef, control: ExregsControl) -> bool {
        (control.contains(ExregsControl::ABORT_SEND) && self.is_sending(dest))
            || (control.contains(ExregsControl::ABORT_RECEIVE) && self.is_receiving(dest))
    }

    fn abort_and_halt(&mut self, dest: TcbRef, control: ExregsControl) {
        let aborts = self.aborts(dest, control);
        // Once out of its IPC it may be on its way to where it runs.
        if control.contains(ExregsControl::APPLY_HALT) {
            if control.contains(ExregsControl::HALT) { self.halt(dest) } else { self.resume(dest) }
        }
        if aborts {
            self.end_ipc(dest, Reason::Canceled);
        }
    }

    /// Stops `thread` before it runs in user mode again; an IPC in progress goes on.
    fn halt(&mut self, thread: TcbRef) {
        let tcb = self.k.tcb(thread);
        tcb.halted.set(true);
        if !self.is_runnable(thread) {
            self.dequeue(thread);
        }
        if self.cpu.current.get().thread() == Some(thread) {
            self.cpu.must_choose.set(true);
        }
    }

    /// Lets a halted thread go on.
    fn resume(&mut self, thread: TcbRef) {
        // A halted thread that still has work is in the queue already.
        let was_runnable = self.is_runnable(thread);
        self.k.tcb(thread).halted.set(false);
        if !was_runnable && self.is_runnable(thread) {
            self.enqueue(thread);
        }
    }
}
