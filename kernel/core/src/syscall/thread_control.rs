//! ThreadControl (X.2, ThreadControl): create, activate, modify, migrate, delete.

use l4_abi::{SysError, ThreadId, Time, UTCB_ALIGN_LOG2, UTCB_MR0_OFFSET, UTCB_SIZE, Word};

use crate::cross::ask::{Reply, Subject, Words, from_word, to_word, words};
use crate::ipc::{Reason, STEP_BUDGET};
use crate::kernel::Here;
use crate::machine::{Machine, SpaceRef, TcbRef};
use crate::mapdb::Progress;
use crate::sched::{DEFAULT_PRIORITY, DEFAULT_TIME_SLICE_US, NEVER_ENDS, period_us};
use crate::space::SpaceKind;
use crate::sync::{Ordering, fence};
use crate::thread::{Purpose, Status, Work};
use crate::trace::{Arg, Event};
use crate::var::AsWord;

/// What the caller passes.
#[derive(Clone, Copy, Debug)]
pub struct ThreadControlArgs {
    /// The thread, by global id; the number counts, the version is given to it.
    pub dest: ThreadId,
    /// A thread in the space it shall be in; nilthread: delete; itself, when it is new: a new space.
    pub space: ThreadId,
    /// Who may schedule it; nilthread: no change.
    pub scheduler: ThreadId,
    /// Its pager; activates an inactive thread; nilthread: no change.
    pub pager: ThreadId,
    /// Address of its UTCB; all ones: no change.
    pub utcb_location: Word,
}

impl ThreadControlArgs {
    fn utcb_location(&self) -> Option<usize> {
        (self.utcb_location != Word::MAX).then_some(self.utcb_location as usize)
    }

    fn pager(&self) -> Option<ThreadId> {
        Some(self.pager).filter(|id| !id.is_nil())
    }

    fn scheduler(&self) -> Option<ThreadId> {
        Some(self.scheduler).filter(|id| !id.is_nil())
    }
}

/// Where a new thread lives.
#[derive(Clone, Copy)]
enum Home {
    /// In a space that exists.
    In(SpaceRef),
    /// In a space of its own, to be made.
    New,
}

/// Why there is no modification, and the space that has no thread any more since it was tried.
struct Refusal {
    error: SysError,
    emptied: Option<SpaceRef>,
}

impl From<SysError> for Refusal {
    fn from(error: SysError) -> Self {
        Self { error, emptied: None }
    }
}

/// What a modification comes to.
struct Modification {
    /// The space that the thread goes to.
    moves_to: Option<SpaceRef>,
    /// The kernel address of its new UTCB, or 0.
    utcb: usize,
    /// Where that is.
    location: usize,
    activates: bool,
    /// It ends the IPC that the thread is in.
    ends_ipc: bool,
}

impl ThreadControlArgs {
    fn to_words(self, dest: TcbRef) -> Words {
        let ids = [self.dest, self.space, self.scheduler, self.pager].map(|id| id.raw() as usize);
        words([dest.index(), ids[0], ids[1], ids[2], ids[3], self.utcb_location as usize])
    }

    fn from_words(words: Words) -> (TcbRef, Self) {
        let [slot, dest, space, scheduler, pager, location, ..] = words;
        let [dest, space, scheduler, pager] =
            [dest, space, scheduler, pager].map(|word| ThreadId::from_raw(word as Word));
        (TcbRef::new(slot as u32), Self { dest, space, scheduler, pager, utcb_location: location as Word })
    }
}

impl<M: Machine> Here<'_, M> {
    /// Creates, activates, modifies or deletes a thread; of an interrupt sets the handler, which is then `pager`.
    ///
    /// # Errors
    /// [`SysError::NoPrivilege`]; [`SysError::InvalidThread`]: a number that is reserved, beyond the table
    /// or still being deleted, or the caller's own for deletion, or no scheduler for a new thread, or as in `interrupt_control`;
    /// [`SysError::InvalidSpace`]; [`SysError::UtcbArea`]; [`SysError::OutOfMemory`].
    pub fn thread_control(&mut self, caller: TcbRef, args: ThreadControlArgs) -> Result<(), SysError> {
        self.require_privilege(caller)?;
        if !args.dest.is_global() {
            return Err(SysError::InvalidSpace);
        }
        let args = self.with_global_ids(caller, args);
        if args.dest.thread_no() < Word::from(self.k.numbers.system_base) {
            return self.interrupt_control(args.dest, args.pager);
        }
        if args.dest.thread_no() < Word::from(self.k.numbers.user_base) {
            return Err(SysError::InvalidThread);
        }
        let dest = self.k.slot(args.dest).ok_or(SysError::InvalidThread)?;
        let mut result = self.control(caller, dest, args);
        if result == Err(SysError::OutOfMemory) && self.k.machine.reclaim(&mut self.held) {
            result = self.control(caller, dest, args);
        }
        result
    }

    fn control(&mut self, caller: TcbRef, dest: TcbRef, args: ThreadControlArgs) -> Result<(), SysError> {
        if args.space.is_nil() {
            return if dest == caller { Err(SysError::InvalidThread) } else { self.delete_thread(caller, dest) };
        }
        if !self.holds_thread(dest) {
            let claim = self.k.creation.claim(dest);
            if !self.holds_thread(dest) {
                return self.create_thread(caller, dest, args);
            }
            // Somebody created it meanwhile.
            drop(claim);
        }
        self.modify_thread(caller, dest, args)
    }

    /// Whether there is a thread in the slot `dest`.
    fn holds_thread(&self, dest: TcbRef) -> bool {
        self.k.machine.has_memory(dest) && self.k.tcb(dest).exists()
    }

    /// The caller may name other threads than `dest` by their local ids.
    fn with_global_ids(&self, caller: TcbRef, args: ThreadControlArgs) -> ThreadControlArgs {
        let global = |id: ThreadId| {
            let thread = if id.is_local() { self.k.local_thread(id, self.k.space_of(caller)) } else { None };
            thread.map_or(id, |thread| self.k.tcb(thread).id.get())
        };
        ThreadControlArgs {
            space: global(args.space),
            scheduler: global(args.scheduler),
            pager: global(args.pager),
            ..args
        }
    }

    // --- creation ---

    /// Creates `dest`, whose slot is claimed.
    fn create_thread(&mut self, caller: TcbRef, dest: TcbRef, args: ThreadControlArgs) -> Result<(), SysError> {
        let scheduler = args.scheduler().ok_or(SysError::InvalidThread)?;
        // Somebody may be deleting it just now.
        fence(Ordering::Acquire);
        if self.k.machine.has_memory(dest) && self.k.tcb(dest).is_dying.get() {
            return Err(SysError::InvalidThread);
        }
        let home = if args.space == args.dest { Home::New } else { Home::In(self.space_specifier(args.space)?) };
        if args.pager().is_some() {
            let Home::In(space) = home else { return Err(SysError::InvalidSpace) };
            if !self.k.spaces.get(space).is_initialised() {
                return Err(SysError::InvalidSpace);
            }
            let location = args.utcb_location().ok_or(SysError::UtcbArea)?;
            self.check_utcb_location(space, location)?;
        }
        if let Home::In(space) = home
            && let Err(Refusal { error, emptied }) = self.join(args.space, space)
        {
            if let Some(space) = emptied {
                self.release_as_work(caller, space);
            }
            return Err(error);
        }
        let made = self.make_thread(dest, home, args);
        let (space, utcb) = match made {
            Ok(made) => made,
            Err(error) => {
                if let Home::In(space) = home
                    && let Some(emptied) = self.leave(space)
                {
                    self.release_as_work(caller, emptied);
                }
                return Err(error);
            }
        };
        self.fill_tcb(dest, space, scheduler);
        if let Some(location) = args.utcb_location() {
            self.set_utcb_location(dest, location);
        }
        if let Some(pager) = args.pager() {
            self.activate(dest, args.dest, utcb, pager);
        }
        self.trace(Event::ThreadCreate, |_| [args.dest.arg(), space.arg()]);
        // Now others may find it.
        self.k.tcb(dest).set_id(args.dest);
        Ok(())
    }

    /// Counts one thread more in `space`, which was the space of the thread `member`. It may be gone by now, or have no
    /// memory for one more.
    fn join(&self, member: ThreadId, space: SpaceRef) -> Result<(), Refusal> {
        let slot = self.k.spaces.get(space);
        if !slot.try_add_thread() {
            return Err(SysError::InvalidSpace.into());
        }
        // It may be another space in the same slot by now; then this one is left alone.
        let is_it = self.k.thread(member).is_some_and(|member| self.k.tcb(member).space.get() == Some(space));
        if is_it && self.k.spaces.is_within_quota(slot) {
            return Ok(());
        }
        let error = if is_it { SysError::OutOfMemory } else { SysError::InvalidSpace };
        Err(Refusal { error, emptied: self.leave(space) })
    }

    /// Counts one thread less in `space`. Returns the space if it was the last.
    fn leave(&self, space: SpaceRef) -> Option<SpaceRef> {
        (self.k.spaces.get(space).remove_thread() == 0).then_some(space)
    }

    /// Makes the release of `space`, which has no thread any more, the work of `caller`.
    fn release_as_work(&self, caller: TcbRef, space: SpaceRef) {
        let own = self.k.tcb(caller);
        own.dying_space.set(Some(space));
        own.peer.set(None);
        own.cursor.reset();
        own.work.set(Work::Delete);
    }

    /// Memory for the new thread `dest`: its space, and the kernel address of its UTCB or 0.
    fn make_thread(
        &mut self,
        dest: TcbRef,
        home: Home,
        args: ThreadControlArgs,
    ) -> Result<(SpaceRef, usize), SysError> {
        self.k.machine.back_thread(&mut self.held, dest).map_err(|_| SysError::OutOfMemory)?;
        let made = self.make_home(home, args);
        made.inspect_err(|_| self.k.machine.release_thread(&mut self.held, dest))
    }

    /// The space of a new thread, made if it is a new one, and the kernel address of the UTCB of one that will be active,
    /// else 0. A new space has no UTCB area yet, so one of the two at most needs memory.
    fn make_home(&mut self, home: Home, args: ThreadControlArgs) -> Result<(SpaceRef, usize), SysError> {
        match (home, args.pager(), args.utcb_location()) {
            (Home::New, ..) => {
                let space = self.k.spaces.create(&mut self.held, SpaceKind::Ordinary);
                let space = space.map_err(|_| SysError::OutOfMemory)?;
                self.k.spaces.get(space).add_thread();
                Ok((space, 0))
            }
            (Home::In(space), Some(_), Some(location)) => Ok((space, self.allocate_utcb(space, location)?)),
            (Home::In(space), ..) => Ok((space, 0)),
        }
    }

    /// Makes the empty, backed slot `dest` an inactive thread with the defaults of a new thread. It is counted in `space`
    /// already, and is not found until its `id` is set.
    pub(crate) fn fill_tcb(&self, dest: TcbRef, space: SpaceRef, scheduler: ThreadId) {
        let tcb = self.k.tcb(dest);
        tcb.set_status(Status::Inactive);
        tcb.purpose.set(Purpose::User);
        tcb.halted.set(false);
        tcb.space.set(Some(space));
        tcb.space_word.set(self.k.spaces.get(space).machine_word());
        tcb.set_home(self.id);
        tcb.set_affinity(self.id);
        tcb.utcb.set(0);
        tcb.local_id.set(ThreadId::NIL);
        tcb.priority.set(DEFAULT_PRIORITY);
        tcb.sensitive_priority.set(DEFAULT_PRIORITY);
        tcb.max_delay_us.set(0);
        tcb.delay_left_us.set(0);
        tcb.owes_fault.set(false);
        tcb.time_slice.set(Time::period_us(DEFAULT_TIME_SLICE_US));
        tcb.slice_left_us.set(period_us(tcb.time_slice.get()));
        tcb.total_quantum.set(Time::NEVER);
        tcb.quantum_left_us.set(NEVER_ENDS);
        tcb.scheduler.set(scheduler);
        tcb.ip.set(0);
        tcb.sp.set(0);
        tcb.flags.set(self.k.machine.default_flags());
        self.k.machine.reset_registers(dest);
    }

    pub(crate) fn set_utcb_location(&self, thread: TcbRef, location: usize) {
        let mr0 = location.wrapping_add(UTCB_MR0_OFFSET);
        self.k.tcb(thread).local_id.set(ThreadId::local(mr0 as Word));
    }

    /// Gives `thread`, whose id will be `id`, its UTCB, which is clear, and lets it wait for the start message of `pager`.
    fn activate(&mut self, thread: TcbRef, id: ThreadId, utcb: usize, pager: ThreadId) {
        self.install_utcb(thread, id, utcb, pager);
        self.wait_for_start(thread, pager);
    }

    /// Ties `thread`, whose id is or will be `id`, and the UTCB at the kernel address `address` together.
    pub(crate) fn install_utcb(&self, thread: TcbRef, id: ThreadId, address: usize, pager: ThreadId) {
        let tcb = self.k.tcb(thread);
        tcb.utcb.set(address);
        let utcb = self.k.utcb(thread);
        utcb.clear();
        utcb.set_my_global_id(id);
        utcb.set_processor_no(tcb.affinity().index() as Word);
        utcb.set_pager(pager);
        utcb.set_word_size_mask(Word::MAX);
    }

    // --- modification ---

    fn modify_thread(&mut self, caller: TcbRef, dest: TcbRef, args: ThreadControlArgs) -> Result<(), SysError> {
        let id = self.k.tcb(dest).id.get();
        let answer = self.at_home_of(dest, Subject::Modify, args.to_words(dest)).ok_or(SysError::InvalidThread)?;
        // If it was refused in the end, it may have ended the IPC before.
        self.see_off(dest, id);
        if let Some(space) = AsWord::from_word(answer[1]) {
            self.release_as_work(caller, space);
        }
        from_word(answer[0])
    }

    /// The act, at the home of the thread. The answer is the result, and a space that has no thread any more.
    pub(crate) fn modify_here(&mut self, question: Words) -> Reply {
        let (dest, args) = ThreadControlArgs::from_words(question);
        if !self.is_here(dest) {
            return Reply::Moved;
        }
        let change = match self.decide_modification(dest, args) {
            Ok(change) => change,
            Err(Refusal { error, emptied }) => return Reply::Done(words([to_word(Err(error)), emptied.to_word()])),
        };
        if change.ends_ipc
            && let Some(reply) = self.not_yet(dest)
        {
            return match self.drop_modification(change) {
                None => reply,
                // The space that it was to go to is gone meanwhile.
                emptied => Reply::Done(words([to_word(Err(SysError::InvalidSpace)), emptied.to_word()])),
            };
        }
        let emptied = self.commit_modification(dest, args, change);
        Reply::Done(words([0, emptied.to_word()]))
    }

    /// Takes `dest`, which is at home here, out of the IPC it is in, and away from its partner to where it runs. Says why that
    /// is not done yet: it may be on its way.
    fn not_yet(&mut self, dest: TcbRef) -> Option<Reply> {
        if self.is_busy(dest) {
            return Some(Reply::Busy);
        }
        if !self.end_ipc(dest, Reason::Canceled) {
            return Some(Reply::Leaving);
        }
        if self.is_here(dest) && !self.runs_here(dest) && !self.is_asking(dest) {
            self.depart(dest);
        }
        Some(Reply::Moved).filter(|_| !self.is_here(dest))
    }

    /// What a modification comes to. What it needs of memory and of a space is there.
    fn decide_modification(&mut self, dest: TcbRef, args: ThreadControlArgs) -> Result<Modification, Refusal> {
        let tcb = self.k.tcb(dest);
        if tcb.is_active() && args.utcb_location().is_some() {
            return Err(SysError::UtcbArea.into());
        }
        let named = if args.space == args.dest { Ok(tcb.space()) } else { self.space_specifier(args.space) };
        let space = named.unwrap_or(tcb.space());
        let activates = args.pager().is_some() && !tcb.is_active();
        if args.utcb_location().is_some() {
            self.check_modified_location(space, args.utcb_location(), activates)?;
        }
        named?;
        let moves = space != tcb.space();
        let location = args.utcb_location().or_else(|| self.utcb_location(dest));
        let needs_utcb = activates || (moves && tcb.is_active());
        if needs_utcb {
            self.check_modified_location(space, location, true)?;
        }
        if moves {
            self.join(args.space, space)?;
        }
        let utcb = match location.filter(|_| needs_utcb).map(|location| self.allocate_utcb(space, location)) {
            Some(Err(error)) => {
                let emptied = if moves { self.leave(space) } else { None };
                return Err(Refusal { error, emptied });
            }
            Some(Ok(utcb)) => utcb,
            None => 0,
        };
        let is_renamed = args.dest != tcb.id.get() && tcb.is_active() && tcb.purpose() != Purpose::Start;
        let ends_ipc = is_renamed || moves && tcb.is_active();
        Ok(Modification {
            moves_to: moves.then_some(space),
            utcb,
            location: location.unwrap_or(0),
            activates,
            ends_ipc,
        })
    }

    /// Gives back what a modification was to use. Returns the space if it has no thread any more.
    fn drop_modification(&mut self, change: Modification) -> Option<SpaceRef> {
        let space = change.moves_to?;
        if change.utcb != 0 {
            self.k.spaces.remove_utcb(&mut self.held, space, change.location);
        }
        self.leave(space)
    }

    /// Returns the space that has no thread any more.
    fn commit_modification(&mut self, dest: TcbRef, args: ThreadControlArgs, change: Modification) -> Option<SpaceRef> {
        let tcb = self.k.tcb(dest);
        if let Some(location) = args.utcb_location() {
            self.set_utcb_location(dest, location);
        }
        let emptied = change.moves_to.and_then(|space| self.migrate(dest, space, change.utcb));
        if let Some(scheduler) = args.scheduler() {
            tcb.scheduler.set(scheduler);
        }
        if args.dest != tcb.id.get() {
            self.change_version(dest, args.dest);
        }
        match args.pager() {
            Some(pager) if change.activates => self.activate(dest, args.dest, change.utcb, pager),
            Some(pager) => self.k.utcb(dest).set_pager(pager),
            None => {}
        }
        emptied
    }

    fn change_version(&mut self, dest: TcbRef, id: ThreadId) {
        let tcb = self.k.tcb(dest);
        if tcb.is_active() && tcb.purpose() != Purpose::Start {
            self.unwind(dest, Reason::Canceled);
        }
        tcb.set_id(id);
        if tcb.is_active() {
            self.k.utcb(dest).set_my_global_id(id);
        }
    }

    /// Moves `dest` to `space`, where it is counted already, and an active thread has its UTCB at the kernel address
    /// `utcb`. Returns the old space if it has no thread any more.
    fn migrate(&mut self, dest: TcbRef, space: SpaceRef, utcb: usize) -> Option<SpaceRef> {
        let tcb = self.k.tcb(dest);
        let old_space = tcb.space();
        if tcb.is_active() {
            self.unwind(dest, Reason::Canceled);
            self.cut_off_range(dest);
            let (old, new) = (self.k.utcb(dest), self.k.machine.utcb(utcb));
            new.copy_from(old);
            tcb.utcb.set(utcb);
            self.remove_utcb(dest, old_space);
        }
        tcb.space.set(Some(space));
        tcb.space_word.set(self.k.spaces.get(space).machine_word());
        self.leave(old_space)
    }

    /// The space of the thread that a space specifier names.
    fn space_specifier(&self, id: ThreadId) -> Result<SpaceRef, SysError> {
        self.k.thread(id).and_then(|thread| self.k.tcb(thread).space.get()).ok_or(SysError::InvalidSpace)
    }

    // --- UTCB locations ---

    /// The UTCB location a thread was given.
    fn utcb_location(&self, thread: TcbRef) -> Option<usize> {
        let local = self.k.tcb(thread).local_id.get();
        (!local.is_nil()).then(|| (local.raw() as usize).wrapping_sub(UTCB_MR0_OFFSET))
    }

    /// Before its space is initialised, an inactive thread may be given any location; one that is to have a UTCB needs a
    /// valid one.
    fn check_modified_location(&self, space: SpaceRef, location: Option<usize>, is_used: bool) -> Result<(), SysError> {
        match location {
            Some(location) if self.k.spaces.get(space).is_initialised() => self.check_utcb_location(space, location),
            _ if is_used => Err(SysError::UtcbArea),
            _ => Ok(()),
        }
    }

    fn check_utcb_location(&self, space: SpaceRef, location: usize) -> Result<(), SysError> {
        let area = self.k.spaces.get(space).utcb_area();
        let is_aligned = location.is_multiple_of(1 << UTCB_ALIGN_LOG2);
        let last = location.checked_add(UTCB_SIZE - 1);
        let is_inside = last.is_some_and(|last| area.contains(location as Word) && area.contains(last as Word));
        if is_aligned && is_inside { Ok(()) } else { Err(SysError::UtcbArea) }
    }

    /// The kernel address of a UTCB for one more thread at `location` in `space`, whose page is mapped if it was not.
    pub(crate) fn allocate_utcb(&mut self, space: SpaceRef, location: usize) -> Result<usize, SysError> {
        let phys = self.k.spaces.add_utcb(&mut self.held, space, location).map_err(|_| SysError::OutOfMemory)?;
        Ok(self.k.machine.kernel_address(phys))
    }

    /// Nobody uses the UTCB of `thread` in `space` any more.
    fn remove_utcb(&mut self, thread: TcbRef, space: SpaceRef) {
        let location = self.utcb_location(thread).expect("a thread with a UTCB has a location for it");
        self.k.spaces.remove_utcb(&mut self.held, space, location);
    }

    // --- deletion ---

    /// Deletes `victim`, if it exists: at once for everybody who might name it; threads queued on it and its space follow
    /// as work of `caller`.
    fn delete_thread(&mut self, caller: TcbRef, victim: TcbRef) -> Result<(), SysError> {
        if !self.holds_thread(victim) {
            return Ok(());
        }
        let id = self.k.tcb(victim).id.get();
        if id.is_nil() {
            return Ok(());
        }
        if self.at_home_of(victim, Subject::Delete, words([victim.index()])).is_none() {
            // Somebody else deleted it, or wants to delete the caller.
            return if self.k.tcb(victim).id.get() == id { Err(SysError::InvalidThread) } else { Ok(()) };
        }
        let own = self.k.tcb(caller);
        own.peer.set(Some(victim));
        own.dying_space.set(None);
        own.work.set(Work::Delete);
        self.delete_step(caller);
        Ok(())
    }

    /// The act, at the home of the thread.
    pub(crate) fn delete_here(&mut self, question: Words) -> Reply {
        let victim = TcbRef::new(question[0] as u32);
        let tcb = self.k.tcb(victim);
        if !self.is_here(victim) {
            return Reply::Moved;
        }
        if let Some(reply) = self.not_yet(victim) {
            return reply;
        }
        self.trace(Event::ThreadDelete, |_| [tcb.id.get().arg()]);
        self.dequeue(victim);
        if matches!(tcb.work(), Work::Unmap | Work::MemoryControl | Work::Redirect | Work::Print | Work::Preemption) {
            tcb.work.set(Work::None);
        }
        // Whoever finds that it is nobody finds that it is dying.
        tcb.is_dying.set(true);
        tcb.set_id(ThreadId::NIL);
        tcb.set_status(Status::Inactive);
        if self.cpu.slice_owner.get() == Some(victim) {
            self.charge();
            self.cpu.slice_owner.set(None);
            self.cpu.must_choose.set(true);
        }
        if self.cpu.current.get().thread() == Some(victim) {
            self.cpu.must_choose.set(true);
        }
        self.k.machine.forget_thread(victim);
        Reply::Done(question)
    }

    /// Does a bounded part of the deletion that `deleter` carries out. If its victim was itself deleting, that comes first.
    pub(super) fn delete_step(&mut self, deleter: TcbRef) {
        let mut deleter = deleter;
        while let Some(victim) = self.k.tcb(deleter).peer.get()
            && self.k.tcb(victim).work() == Work::Delete
        {
            deleter = victim;
        }
        let own = self.k.tcb(deleter);
        if let Some(victim) = own.peer.get() {
            let there = self.k.tcb(victim).affinity();
            let answer = self.ask(there, Subject::FailSenders, words([victim.index()]));
            if matches!(answer, Reply::Done([0, ..])) && !self.are_there_orphans() {
                self.bury(deleter, victim);
            }
        } else if let Some(space) = own.dying_space.get() {
            let mut budget = STEP_BUDGET;
            if self.k.spaces.release(&mut self.held, space, &own.cursor, &mut budget) == Progress::Done {
                own.dying_space.set(None);
                own.work.set(Work::None);
            }
        } else {
            own.work.set(Work::None);
        }
    }

    /// Fails a bounded number of those who wait to send to a thread that is being deleted, where they are queued. The answer
    /// is whether there may be more.
    pub(crate) fn fail_senders_here(&mut self, question: Words) -> Reply {
        let victim = TcbRef::new(question[0] as u32);
        let is_done = (0..STEP_BUDGET).any(|_| !self.fail_one_sender(victim));
        Reply::Done(words([usize::from(!is_done)]))
    }

    /// Nothing refers to `victim` any more: its slot becomes free, and its space is released if it was the last in it.
    fn bury(&mut self, deleter: TcbRef, victim: TcbRef) {
        let (own, tcb) = (self.k.tcb(deleter), self.k.tcb(victim));
        let space = tcb.space();
        if tcb.utcb.replace(0) != 0 {
            self.remove_utcb(victim, space);
        }
        tcb.space.set(None);
        tcb.local_id.set(ThreadId::NIL);
        let claim = self.k.creation.claim(victim);
        tcb.is_dying.set(false);
        self.k.machine.release_thread(&mut self.held, victim);
        drop(claim);
        own.peer.set(None);
        match self.leave(space) {
            Some(space) => self.release_as_work(deleter, space),
            None => own.work.set(Work::None),
        }
    }
}
