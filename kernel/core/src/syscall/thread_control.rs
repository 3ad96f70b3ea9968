//! ThreadControl (X.2, ThreadControl): create, activate, modify, migrate, delete.

use l4_abi::{SysError, ThreadId, Time, UTCB_ALIGN_LOG2, UTCB_MR0_OFFSET, UTCB_SIZE, Word};

use crate::ipc::{Reason, STEP_BUDGET};
use crate::kernel::Here;
use crate::machine::{Machine, SpaceRef, TcbRef};
use crate::mapdb::Progress;
use crate::sched::{DEFAULT_PRIORITY, DEFAULT_TIME_SLICE_US, NEVER_ENDS, period_us};
use crate::space::SpaceKind;
use crate::thread::{Purpose, Status, Work};

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
enum Home {
    /// In a space that exists.
    In(SpaceRef),
    /// In a space of its own, to be made.
    New,
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
        let exists = self.k.tcb(dest).exists();
        match (args.space.is_nil(), exists) {
            (true, _) if dest == caller => Err(SysError::InvalidThread),
            (true, false) => Ok(()),
            (true, true) => {
                self.delete_thread(caller, dest);
                Ok(())
            }
            (false, true) => self.modify_thread(caller, dest, args),
            (false, false) => self.create_thread(dest, args),
        }
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

    fn create_thread(&mut self, dest: TcbRef, args: ThreadControlArgs) -> Result<(), SysError> {
        let scheduler = args.scheduler().ok_or(SysError::InvalidThread)?;
        if self.k.tcb(dest).is_dying.get() {
            return Err(SysError::InvalidThread);
        }
        let home = if args.space == args.dest {
            Home::New
        } else {
            let thread = self.space_specifier(args.space)?;
            Home::In(self.k.space_of(thread))
        };
        if args.pager().is_some() {
            let Home::In(space) = home else { return Err(SysError::InvalidSpace) };
            if !self.k.spaces.get(space).is_initialised() {
                return Err(SysError::InvalidSpace);
            }
            let location = args.utcb_location().ok_or(SysError::UtcbArea)?;
            self.check_utcb_location(space, location)?;
        }
        self.k.machine.back_thread(&mut self.held, dest).map_err(|_| SysError::OutOfMemory)?;
        let made = self.make_home(home, args);
        let (space, utcb) = made.inspect_err(|_| self.k.machine.release_thread(&mut self.held, dest))?;
        self.fill_tcb(dest, args.dest, space, scheduler);
        if let Some(location) = args.utcb_location() {
            self.set_utcb_location(dest, location);
        }
        if let Some(pager) = args.pager() {
            self.activate(dest, utcb, pager);
        }
        Ok(())
    }

    /// The space of a new thread, made if it is a new one, and the kernel address of the UTCB of one that will be active,
    /// else 0. A new space has no UTCB area yet, so one of the two at most needs memory.
    fn make_home(&mut self, home: Home, args: ThreadControlArgs) -> Result<(SpaceRef, usize), SysError> {
        match (home, args.pager(), args.utcb_location()) {
            (Home::New, ..) => {
                let space = self.k.spaces.create(&mut self.held, SpaceKind::Ordinary);
                space.map(|space| (space, 0)).map_err(|_| SysError::OutOfMemory)
            }
            (Home::In(space), Some(_), Some(location)) => Ok((space, self.allocate_utcb(space, location)?)),
            (Home::In(space), ..) => Ok((space, 0)),
        }
    }

    /// Makes the empty, backed slot `dest` an inactive thread of `space` with the defaults of a new thread.
    pub(crate) fn fill_tcb(&self, dest: TcbRef, id: ThreadId, space: SpaceRef, scheduler: ThreadId) {
        let tcb = self.k.tcb(dest);
        tcb.id.set(id);
        tcb.set_status(Status::Inactive);
        tcb.purpose.set(Purpose::User);
        tcb.halted.set(false);
        tcb.space.set(Some(space));
        tcb.space_word.set(self.k.spaces.get(space).machine_word());
        tcb.home.set(self.id.index() as u16);
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
        self.k.spaces.get(space).add_thread();
    }

    pub(crate) fn set_utcb_location(&self, thread: TcbRef, location: usize) {
        let mr0 = location.wrapping_add(UTCB_MR0_OFFSET);
        self.k.tcb(thread).local_id.set(ThreadId::local(mr0 as Word));
    }

    /// Gives `thread` its UTCB, which is clear, and lets it wait for the start message of `pager`.
    fn activate(&mut self, thread: TcbRef, utcb: usize, pager: ThreadId) {
        self.install_utcb(thread, utcb, pager);
        self.wait_for_start(thread, pager);
    }

    /// Ties `thread` and the UTCB at the kernel address `utcb` together.
    pub(crate) fn install_utcb(&self, thread: TcbRef, address: usize, pager: ThreadId) {
        let tcb = self.k.tcb(thread);
        tcb.utcb.set(address);
        let utcb = self.k.utcb(thread);
        utcb.clear();
        utcb.set_my_global_id(tcb.id.get());
        utcb.set_processor_no(tcb.home().index() as Word);
        utcb.set_pager(pager);
        utcb.set_word_size_mask(Word::MAX);
    }

    // --- modification ---

    fn modify_thread(&mut self, caller: TcbRef, dest: TcbRef, args: ThreadControlArgs) -> Result<(), SysError> {
        let tcb = self.k.tcb(dest);
        if tcb.is_active() && args.utcb_location().is_some() {
            return Err(SysError::UtcbArea);
        }
        let home = if args.space == args.dest { Ok(dest) } else { self.space_specifier(args.space) };
        let space = home.map_or(tcb.space(), |home| self.k.space_of(home));
        let activates = args.pager().is_some() && !tcb.is_active();
        if args.utcb_location().is_some() {
            self.check_modified_location(space, args.utcb_location(), activates)?;
        }
        home?;
        let moves = space != tcb.space();
        let location = args.utcb_location().or_else(|| self.utcb_location(dest));
        let needs_utcb = activates || (moves && tcb.is_active());
        if needs_utcb {
            self.check_modified_location(space, location, true)?;
        }
        let utcb = match location.filter(|_| needs_utcb) {
            Some(location) => self.allocate_utcb(space, location)?,
            None => 0,
        };
        if let Some(location) = args.utcb_location() {
            self.set_utcb_location(dest, location);
        }
        if moves {
            self.migrate(caller, dest, space, utcb);
        }
        self.commit_modification(dest, args, utcb, activates);
        Ok(())
    }

    fn commit_modification(&mut self, dest: TcbRef, args: ThreadControlArgs, utcb: usize, activates: bool) {
        let tcb = self.k.tcb(dest);
        if let Some(scheduler) = args.scheduler() {
            tcb.scheduler.set(scheduler);
        }
        if args.dest != tcb.id.get() {
            self.change_version(dest, args.dest);
        }
        match args.pager() {
            Some(pager) if activates => self.activate(dest, utcb, pager),
            Some(pager) => self.k.utcb(dest).set_pager(pager),
            None => {}
        }
    }

    fn change_version(&mut self, dest: TcbRef, id: ThreadId) {
        let tcb = self.k.tcb(dest);
        if tcb.is_active() && tcb.purpose() != Purpose::Start {
            self.unwind(dest, Reason::Canceled);
        }
        tcb.id.set(id);
        if tcb.is_active() {
            self.k.utcb(dest).set_my_global_id(id);
        }
    }

    /// Moves `dest` to `space`, where an active thread has its UTCB at the kernel address `utcb`.
    fn migrate(&mut self, caller: TcbRef, dest: TcbRef, space: SpaceRef, utcb: usize) {
        let tcb = self.k.tcb(dest);
        let old_space = tcb.space();
        if tcb.is_active() {
            self.unwind(dest, Reason::Canceled);
            self.cut_off_unmap(dest);
            let (old, new) = (self.k.utcb(dest), self.k.machine.utcb(utcb));
            new.copy_from(old);
            tcb.utcb.set(utcb);
            self.remove_utcb(dest, old_space);
        }
        tcb.space.set(Some(space));
        tcb.space_word.set(self.k.spaces.get(space).machine_word());
        self.k.spaces.get(space).add_thread();
        if self.k.spaces.get(old_space).remove_thread() == 0 {
            self.k.tcb(caller).dying_space.set(Some(old_space));
            self.k.tcb(caller).peer.set(None);
            self.k.tcb(caller).cursor.reset();
            self.k.tcb(caller).work.set(Work::Delete);
        }
    }

    /// The thread that a space specifier names.
    fn space_specifier(&self, id: ThreadId) -> Result<TcbRef, SysError> {
        self.k.thread(id).ok_or(SysError::InvalidSpace)
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

    /// Deletes `victim`: at once for everybody who might name it; threads queued on it and its space follow as work of
    /// `caller`.
    fn delete_thread(&mut self, caller: TcbRef, victim: TcbRef) {
        let tcb = self.k.tcb(victim);
        self.unwind(victim, Reason::Canceled);
        self.dequeue(victim);
        if matches!(tcb.work(), Work::Unmap | Work::Redirect | Work::Print | Work::Preemption) {
            tcb.work.set(Work::None);
        }
        tcb.id.set(ThreadId::NIL);
        tcb.set_status(Status::Inactive);
        tcb.is_dying.set(true);
        if self.cpu.slice_owner.get() == Some(victim) {
            self.charge();
            self.cpu.slice_owner.set(None);
            self.cpu.must_choose.set(true);
        }
        let own = self.k.tcb(caller);
        own.peer.set(Some(victim));
        own.dying_space.set(None);
        own.work.set(Work::Delete);
        self.delete_step(caller);
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
            for _ in 0..STEP_BUDGET {
                if !self.fail_one_sender(victim) {
                    return self.bury(deleter, victim);
                }
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

    /// Nothing refers to `victim` any more: its slot becomes free, and its space is released if it was the last in it.
    fn bury(&mut self, deleter: TcbRef, victim: TcbRef) {
        let (own, tcb) = (self.k.tcb(deleter), self.k.tcb(victim));
        let space = tcb.space();
        if tcb.utcb.replace(0) != 0 {
            self.remove_utcb(victim, space);
        }
        tcb.space.set(None);
        tcb.local_id.set(ThreadId::NIL);
        tcb.is_dying.set(false);
        self.k.machine.forget_thread(victim);
        self.k.machine.release_thread(&mut self.held, victim);
        own.peer.set(None);
        if self.k.spaces.get(space).remove_thread() == 0 {
            own.cursor.reset();
            own.dying_space.set(Some(space));
        } else {
            own.work.set(Work::None);
        }
    }
}
