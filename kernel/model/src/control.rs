//! The calls that change threads and spaces (X.2, ThreadControl, SpaceControl, ExchangeRegisters, Schedule).

use crate::ipc::Reason;
use crate::word::{self, Id, Word};
use crate::{Model, Space, State, Utcb};

/// No privilege.
pub const NO_PRIVILEGE: u64 = 1;
/// Invalid thread.
pub const INVALID_THREAD: u64 = 2;
/// Invalid space.
pub const INVALID_SPACE: u64 = 3;
/// Invalid parameter.
pub const INVALID_PARAMETER: u64 = 5;
/// Error in the UTCB area, or a UTCB location.
pub const UTCB_AREA: u64 = 6;
/// Error in the KIP area.
pub const KIP_AREA: u64 = 7;

/// What ThreadControl is asked for.
#[derive(Clone, Copy, Debug)]
pub struct ThreadControl {
    /// The thread.
    pub dest: Id,
    /// Whose space it shall be in.
    pub space: Id,
    /// Its scheduler.
    pub scheduler: Id,
    /// Its pager.
    pub pager: Id,
    /// Its UTCB; all ones: no change.
    pub location: Word,
}

/// What ExchangeRegisters is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Exregs {
    /// The thread.
    pub dest: Id,
    /// What to do.
    pub control: Word,
    /// Instruction pointer, stack pointer, flags.
    pub registers: [Word; 3],
    /// User-defined handle.
    pub handle: Word,
    /// Pager.
    pub pager: Id,
}

/// What ExchangeRegisters tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exchanged {
    /// The other id of the thread.
    pub other_id: Id,
    /// Whether it was halted, received, sent: bits 0 to 2.
    pub state: Word,
    /// Instruction pointer, stack pointer, flags.
    pub registers: [Word; 3],
    /// User-defined handle.
    pub handle: Word,
    /// Pager.
    pub pager: Id,
}

/// What Schedule is asked for; `None`: no change.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// The thread.
    pub dest: Id,
    /// Its priority.
    pub priority: Option<u8>,
    /// Its time slice, as a time.
    pub slice: Option<u16>,
}

impl Model {
    /// ThreadControl of who runs.
    ///
    /// # Errors
    /// Those of the manual, by their numbers. Nothing has changed then.
    pub fn thread_control(&mut self, caller: u64, args: ThreadControl) -> Result<(), u64> {
        let result = self.decide_thread_control(caller, args);
        self.dispatch();
        result
    }

    fn decide_thread_control(&mut self, caller: u64, args: ThreadControl) -> Result<(), u64> {
        if !self.is_privileged(caller) {
            return Err(NO_PRIVILEGE);
        }
        if word::is_local(args.dest) {
            return Err(INVALID_SPACE);
        }
        let own = self.thread(caller).space;
        let global = |id: Id| match self.named(id, own).filter(|_| word::is_local(id)) {
            Some(number) => self.thread(number).id,
            None => id,
        };
        let (space, scheduler, pager) = (global(args.space), global(args.scheduler), global(args.pager));
        let args = ThreadControl { space, scheduler, pager, ..args };
        let number = word::number(args.dest);
        if number < self.machine.user_base || number >= self.machine.threads {
            return Err(INVALID_THREAD);
        }
        match (args.space, self.threads.contains_key(&number)) {
            (word::NIL, _) if number == caller => Err(INVALID_THREAD),
            (word::NIL, true) => {
                self.delete(number);
                Ok(())
            }
            (word::NIL, false) => Ok(()),
            (_, true) => self.modify(number, args),
            (_, false) => self.create(number, args),
        }
    }

    fn create(&mut self, number: u64, args: ThreadControl) -> Result<(), u64> {
        if args.scheduler == word::NIL {
            return Err(INVALID_THREAD);
        }
        let home = if args.space == args.dest { None } else { Some(self.space_of(args.space)?) };
        if args.pager != word::NIL {
            let areas = home.and_then(|space| self.spaces[&space].areas).ok_or(INVALID_SPACE)?;
            self.check_location(areas[1], args.location)?;
        }
        let space = home.unwrap_or_else(|| self.make_space());
        let mut thread = self.new_thread(args.dest, space, args.scheduler);
        thread.location = Some(args.location).filter(|&location| location != Word::MAX);
        self.threads.insert(number, thread);
        if args.pager != word::NIL {
            self.activate(number, args.pager);
        }
        Ok(())
    }

    fn activate(&mut self, number: u64, pager: Id) {
        let thread = self.thread_mut(number);
        thread.utcb = Utcb::new(thread.id, pager);
        self.wait_for_start(number, pager);
    }

    fn modify(&mut self, number: u64, args: ThreadControl) -> Result<(), u64> {
        let thread = self.thread(number);
        let (old_space, is_active) = (thread.space, thread.is_active());
        let wants_location = args.location != Word::MAX;
        if is_active && wants_location {
            return Err(UTCB_AREA);
        }
        let named = if args.space == args.dest { Ok(old_space) } else { self.space_of(args.space) };
        let space = named.unwrap_or(old_space);
        let (activates, moves) = (args.pager != word::NIL && !is_active, space != old_space);
        let location = if wants_location { Some(args.location) } else { thread.location };
        if wants_location {
            self.check_new_location(space, Some(args.location), activates)?;
        }
        named?;
        if activates || moves && is_active {
            self.check_new_location(space, location, true)?;
        }
        let starts = thread.purpose == crate::Purpose::Start;
        if is_active && (moves || args.dest != thread.id && !starts) {
            self.abort(number, Reason::Canceled);
        }
        let thread = self.thread_mut(number);
        thread.location = location;
        thread.space = space;
        if args.scheduler != word::NIL {
            thread.scheduler = args.scheduler;
        }
        thread.id = args.dest;
        if is_active {
            thread.utcb.my_global_id = args.dest;
            if args.pager != word::NIL {
                thread.utcb.pager = args.pager;
            }
        } else if activates {
            self.activate(number, args.pager);
        }
        self.release_if_empty(old_space);
        Ok(())
    }

    fn delete(&mut self, number: u64) {
        self.abort(number, Reason::Canceled);
        self.unqueue(number);
        if self.processor.payer == Some(number) {
            self.pay();
            self.processor.payer = None;
            self.processor.looks_again = true;
        }
        for sender in self.thread(number).senders.clone() {
            self.lose_receiver(sender);
        }
        let space = self.thread(number).space;
        self.threads.remove(&number);
        self.release_if_empty(space);
    }

    /// The last thread of a space takes it along (X.2, Destruction of a space).
    fn release_if_empty(&mut self, space: usize) {
        if self.threads.values().all(|thread| thread.space != space) {
            self.memory.release(space);
            self.spaces.remove(&space);
        }
    }

    fn space_of(&self, id: Id) -> Result<usize, u64> {
        self.global(id).map(|number| self.thread(number).space).ok_or(INVALID_SPACE)
    }

    fn check_new_location(&self, space: usize, location: Option<Word>, is_used: bool) -> Result<(), u64> {
        match (location, self.spaces[&space].areas) {
            (Some(location), Some(areas)) => self.check_location(areas[1], location),
            _ if is_used => Err(UTCB_AREA),
            _ => Ok(()),
        }
    }

    fn check_location(&self, (begin, end): (Word, Word), location: Word) -> Result<(), u64> {
        let size = 1 << self.machine.utcb_log2;
        let is_inside = location >= begin && location.checked_add(size).is_some_and(|behind| behind <= end);
        if is_inside && location.is_multiple_of(size) { Ok(()) } else { Err(UTCB_AREA) }
    }

    /// SpaceControl of who runs, without a redirector: areas as words of fpages.
    ///
    /// # Errors
    /// Those of the manual, by their numbers.
    pub fn space_control(&mut self, caller: u64, space: Id, kip: Word, utcb: Word) -> Result<(), u64> {
        let result = self.decide_space_control(caller, space, kip, utcb);
        self.dispatch();
        result
    }

    fn decide_space_control(&mut self, caller: u64, space: Id, kip: Word, utcb: Word) -> Result<(), u64> {
        if !self.is_privileged(caller) {
            return Err(NO_PRIVILEGE);
        }
        let space = self.space_of(space)?;
        if self.spaces[&space].areas.is_some() {
            return Ok(());
        }
        let area = |word: Word, least: u32| {
            let fpage = word::fpage(word);
            let is_large_enough = !fpage.is_complete && (least..Word::BITS).contains(&fpage.size_log2);
            let end = is_large_enough.then(|| fpage.base.checked_add(1 << fpage.size_log2)).flatten()?;
            (end <= self.machine.user_end).then_some((fpage.base, end))
        };
        let utcb = area(utcb, self.machine.utcb_area_log2).ok_or(UTCB_AREA)?;
        let kip = area(kip, 12).filter(|kip| kip.1 <= utcb.0 || utcb.1 <= kip.0).ok_or(KIP_AREA)?;
        self.spaces.insert(space, Space { areas: Some([kip, utcb]), is_privileged: false });
        Ok(())
    }

    /// ExchangeRegisters of who runs.
    ///
    /// # Errors
    /// Invalid thread.
    pub fn exchange_registers(&mut self, caller: u64, args: Exregs) -> Result<Exchanged, u64> {
        let result = self.exchange(caller, args);
        self.dispatch();
        result
    }

    fn exchange(&mut self, caller: u64, args: Exregs) -> Result<Exchanged, u64> {
        let own = self.thread(caller).space;
        let number =
            self.named(args.dest, own).filter(|&number| self.thread(number).is_active()).ok_or(INVALID_THREAD)?;
        let its_space = self.thread(number).space;
        let pager = self.named(self.thread(number).utcb.pager, its_space);
        if its_space != own && pager.is_none_or(|pager| self.thread(pager).space != own) {
            return Err(INVALID_THREAD);
        }
        let (sends, receives) = self.phases(number);
        let local = self.local_id(self.thread(number)).unwrap_or(word::NIL);
        let user_flags = self.machine.user_flags;
        let thread = self.thread_mut(number);
        let bit = |is_set: bool, bit: u32| Word::from(is_set) << bit;
        let old = Exchanged {
            other_id: if word::is_local(args.dest) { thread.id } else { local },
            state: bit(thread.is_halted, 0) | bit(receives, 1) | bit(sends, 2),
            registers: thread.registers,
            handle: thread.utcb.handle,
            pager: thread.utcb.pager,
        };
        let has = |bit: u32| args.control >> bit & 1 != 0;
        if has(3) {
            thread.registers[1] = args.registers[1];
        }
        if has(4) {
            thread.registers[0] = args.registers[0];
        }
        if has(5) {
            thread.registers[2] = thread.registers[2] & !user_flags | args.registers[2] & user_flags;
        }
        if has(6) {
            thread.utcb.handle = args.handle;
        }
        if has(7) {
            thread.utcb.pager = args.pager;
        }
        if has(8) {
            self.set_halted(number, has(0));
        }
        if has(1) && receives || has(2) && sends {
            self.abort(number, Reason::Canceled);
        }
        Ok(old)
    }

    fn set_halted(&mut self, number: u64, is_halted: bool) {
        let was_runnable = self.thread(number).is_runnable();
        self.thread_mut(number).is_halted = is_halted;
        let is_runnable = self.thread(number).is_runnable();
        if !is_runnable {
            self.unqueue(number);
        } else if !was_runnable {
            self.enqueue(number);
        }
        if is_halted && self.processor.running == Some(number) {
            self.processor.looks_again = true;
        }
    }

    /// Schedule of who runs. The state of the thread before; `None`: nobody was named.
    ///
    /// # Errors
    /// Those of the manual, by their numbers.
    pub fn schedule(&mut self, caller: u64, args: Schedule) -> Result<Option<u64>, u64> {
        let result = self.decide_schedule(caller, args);
        self.dispatch();
        result
    }

    fn decide_schedule(&mut self, caller: u64, args: Schedule) -> Result<Option<u64>, u64> {
        if args.dest == word::NIL {
            return Ok(None);
        }
        let own = self.thread(caller).space;
        let number = self.named(args.dest, own).ok_or(INVALID_THREAD)?;
        let scheduler = self.global(self.thread(number).scheduler);
        let is_scheduler = scheduler.is_some_and(|scheduler| self.thread(scheduler).space == own);
        let is_privileged = self.is_privileged(caller);
        if !is_scheduler && !is_privileged {
            return Err(NO_PRIVILEGE);
        }
        if args.priority.is_some_and(|priority| !is_privileged && priority > self.thread(caller).priority) {
            return Err(NO_PRIVILEGE);
        }
        if args.slice.is_some_and(|slice| slice >> 15 != 0) {
            return Err(INVALID_PARAMETER);
        }
        self.pay();
        let state = self.schedule_state(number);
        if let Some(priority) = args.priority {
            self.set_priority(number, priority);
        }
        if let Some(slice) = args.slice {
            let length = match word::timeout(slice, 0) {
                word::Timeout::At(us) => Some(us),
                word::Timeout::Never | word::Timeout::Zero => None,
            };
            self.thread_mut(number).slice = (length, length);
        }
        Ok(Some(state))
    }

    /// What Schedule says of a thread: dead, inactive, running, pending send, waiting (X.2, Thread states).
    pub fn schedule_state(&self, number: u64) -> u64 {
        let thread = self.thread(number);
        match thread.state {
            State::Inactive => 1,
            State::Sends(_) => 4,
            State::Waits(_) => 6,
            State::Ready(_) if thread.is_halted => 2,
            State::Ready(_) => 3,
        }
    }
}
