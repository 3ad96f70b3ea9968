//! A world whose processors execute the image's code: where a call of Ipc enters the kernel and where it leaves. What lies
//! between is the core, and the few lines of the image that join the two, which stand here again.
//!
//! | here | in the image |
//! |---|---|
//! | [`Side::call`] | `trap::syscall`, `decode::syscall` and `decode::ipc` |
//! | [`Side::call_elsewhere`] | `trap::ipc_elsewhere` |
//! | [`Side::go_on`] | `dispatch::go_on` |
//! | [`Side::leave`] | `dispatch::enter_user`, with `machine::enter_space` and `machine::enter_registers` |
//! | [`Side::use_fpu`] | `machine::use_fpu` |
//! | [`Side::interrupt`] | the gates in `trap::entry` |

use l4_abi::{ThreadId, Timeouts, UTCB_MR0_OFFSET, UTCB_MY_GLOBAL_ID_OFFSET, UTCB_SIZE, Word};

use super::code::Code;
use super::processor::{Exit, Memory, Registers, execute, reg};
use crate::kernel::Here;
use crate::list::Head;
use crate::machine::{Machine, TcbRef};
use crate::sched::Current;
use crate::sched::ready_queue::PRIORITIES;
use crate::tests::machine::{FRAME_MRS, FRAME_REGISTERS, FRAME_RSI, Fake};
use crate::tests::world::World;
use crate::thread::{Purpose, Work, plain_name};
use crate::var::{AsWord, Var};

/// The selector that the kernel leaves in `gs`.
pub const KERNELS_GS: u32 = 0x2B;
/// What the fast path may be compared with if the thread must not take it: no selector.
const NO_SELECTOR: u32 = u32::MAX;
/// Words of a kernel stack that are in use at most.
const STACK_WORDS: usize = 32;
/// The registers of a frame by their numbers in instructions.
pub const FRAME_ORDER: [usize; FRAME_REGISTERS] = [
    reg::RAX,
    reg::RBX,
    reg::RCX,
    reg::RDX,
    reg::RSI,
    reg::RDI,
    reg::RBP,
    reg::R8,
    reg::R9,
    reg::R10,
    reg::R11,
    reg::R12,
    reg::R13,
    reg::R14,
    reg::R15,
];
const FRAME_RCX: usize = 2;
const FRAME_RDX: usize = 3;
const FRAME_R8: usize = 7;

/// What a processor has of its own.
#[derive(Clone, Debug, Default)]
pub struct Processor {
    /// The registers of the thread that is in user mode; `None`: nobody is.
    pub user: Option<Registers>,
    /// The selector in `gs`.
    pub gs: u32,
    /// The page tables that are loaded.
    pub cr3: u64,
    /// The words of its area.
    pub space_word: u64,
    user_stack: u64,
    pub fast_gs: u32,
    /// What user code finds as its UTCB.
    pub utcb_slot: u64,
    /// Whose floating-point registers it holds.
    pub fpu_owner: Option<TcbRef>,
    /// Whether they can be used without a trap.
    pub fpu_is_live: bool,
    stack: [u64; STACK_WORDS],
}

/// A world on such processors.
pub struct Side {
    pub w: World,
    pub processors: Vec<Processor>,
    code: &'static Code,
    /// Whether calls of Ipc enter where SYSCALL does, or behind the fast path.
    may_be_fast: bool,
}

/// A call of Ipc, as the user's registers say it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Call {
    /// The registers; the instruction pointer is that behind SYSCALL.
    pub registers: Registers,
}

impl Call {
    /// Whom it goes to.
    pub fn to(&self) -> ThreadId {
        ThreadId::from_raw(self.registers.general[reg::RSI] as Word)
    }

    /// Whom it receives from.
    pub fn from(&self) -> ThreadId {
        ThreadId::from_raw(self.registers.general[reg::RDX] as Word)
    }

    /// Its timeouts.
    pub fn timeouts(&self) -> Timeouts {
        Timeouts::from_raw(self.registers.general[reg::R8] as Word)
    }

    /// MR0.
    pub fn tag(&self) -> l4_abi::MsgTag {
        l4_abi::MsgTag::from_raw(self.registers.general[reg::R9] as Word)
    }
}

impl Side {
    /// `w`, whose threads are in user mode as soon as they run.
    pub fn new(w: World, code: &'static Code, may_be_fast: bool) -> Self {
        let processors = w.cpus().map(|_| Processor { gs: KERNELS_GS, ..Processor::default() }).collect();
        let mut side = Self { w, processors, code, may_be_fast };
        side.leave_all();
        side
    }

    /// Whoever runs on processor `cpu`.
    pub fn current(&self, cpu: usize) -> Option<TcbRef> {
        self.w.k.cpus[cpu].current.get().thread()
    }

    /// The thread that is in user mode on processor `cpu` calls Ipc. Whether the fast path took it.
    pub fn call(&mut self, cpu: usize, call: &Call) -> bool {
        let mut registers = call.registers;
        // SYSCALL: the address behind it, and the flags. It clears the direction flag, which the code relies on.
        registers.general[reg::RCX] = registers.ip;
        registers.general[reg::R11] = registers.flags;
        let entry = if self.may_be_fast { self.code.syscall_entry } else { self.code.general_syscall };
        let function = match self.execute(cpu, entry, &mut registers) {
            Exit::Sysret => {
                self.processors[cpu].user = Some(registers);
                return true;
            }
            Exit::Iret => panic!("the entry calls the kernel first"),
            Exit::Call(function) => function,
        };
        assert_eq!(registers.general[reg::RSP], self.code.map.stack_top + self.area_offset(cpu), "an empty stack");
        self.processors[cpu].user = None;
        self.interrupt_all();
        let thread = self.current(cpu).expect("somebody called");
        let here = &mut self.here(cpu);
        let next = match function == self.code.ipc_elsewhere {
            true => self.call_elsewhere(here, thread, &registers.general),
            false => ipc(here, thread),
        };
        match next {
            Some(next) if !here.is_behind() => self.go_on(cpu, next),
            _ => self.dispatch(cpu),
        }
        false
    }

    /// The call of Ipc of `thread` to a thread of another processor, as the arguments say it. Its words are in its UTCB.
    /// Returns who runs, if there is nothing to decide about that.
    fn call_elsewhere(&self, here: &mut Here<'static, Fake>, thread: TcbRef, general: &[u64; 16]) -> Option<TcbRef> {
        let receiver = TcbRef::new((general[reg::RDI] / self.code.map.tcbs.1) as u32);
        let [to, from] = [reg::RSI, reg::RDX].map(|number| ThreadId::from_raw(general[number] as Word));
        let timeouts = Timeouts::from_raw(general[reg::RCX] as Word);
        here.k.machine.saved(thread).from.set(None);
        if here.send_away(thread, (receiver, to), from, timeouts) {
            return None;
        }
        here.ipc(thread, to, from, timeouts)
    }

    /// The processor's view of the core.
    pub fn here(&self, cpu: usize) -> Here<'static, Fake> {
        self.w.on(cpu).here()
    }

    /// A kernel entry of who runs on processor `cpu`, other than Ipc: its registers are in its frame, and come back from it.
    pub fn enter<T>(&mut self, cpu: usize, entry: impl FnOnce(&mut Here<'static, Fake>) -> T) -> T {
        self.interrupt_all();
        let result = entry(&mut self.here(cpu));
        self.dispatch(cpu);
        result
    }

    /// The time passes, with all timer interrupts on the way.
    pub fn clock(&mut self, us: u64) {
        self.interrupt_all();
        let w = self.w;
        let next = || w.cpus().filter_map(|cpu| Some((w.on(cpu).here().next_event()?, cpu))).min();
        while let Some((at, cpu)) = next().filter(|&(at, _)| at <= us) {
            w.k.machine.set_clock(at.max(w.k.machine.now_us()));
            w.on(cpu).here().timer_interrupt();
            self.finish(cpu);
        }
        w.k.machine.set_clock(us);
        self.leave_all();
    }

    /// Who runs on processor `cpu` uses a floating-point register.
    pub fn use_fpu(&mut self, cpu: usize) {
        let thread = self.current(cpu);
        if !self.processors[cpu].fpu_is_live {
            let owner = &mut self.processors[cpu].fpu_owner;
            *owner = thread;
            self.enter(cpu, |_| ());
        }
    }

    /// Every thread in user mode is interrupted.
    fn interrupt_all(&mut self) {
        self.w.cpus().for_each(|cpu| self.interrupt(cpu));
    }

    /// Saves the registers of who is in user mode on processor `cpu`.
    fn interrupt(&mut self, cpu: usize) {
        let Some(registers) = self.processors[cpu].user.take() else { return };
        let thread = self.current(cpu).expect("somebody is in user mode");
        let frame = &self.w.k.machine.saved(thread).frame;
        for (place, number) in frame.iter().zip(FRAME_ORDER) {
            place.set(registers.general[number] as usize);
        }
        let tcb = self.w.k.tcb(thread);
        tcb.ip.set(registers.ip as usize);
        tcb.sp.set(registers.general[reg::RSP] as usize);
        tcb.flags.set(registers.flags as usize);
    }

    /// `thread` runs on processor `cpu`, and may take the fast path: nothing is to be decided about that.
    fn go_on(&mut self, cpu: usize, thread: TcbRef) {
        assert_eq!(self.current(cpu), Some(thread), "who goes on runs");
        self.w.k.machine.allows_fast_path[cpu].set(true);
        self.leave_all();
    }

    /// What follows a kernel entry on processor `cpu`: the dispatcher, there and wherever it tells others of something.
    fn dispatch(&mut self, cpu: usize) {
        self.finish(cpu);
        self.leave_all();
    }

    /// Processors that served others in the middle of something go on with it, too.
    fn finish(&self, cpu: usize) {
        let has_work = |&cpu: &usize| self.current(cpu).is_some_and(|thread| self.w.k.tcb(thread).work() != Work::None);
        let mut next = Some(cpu);
        while let Some(cpu) = next {
            self.w.on(cpu).dispatch_steps(100_000);
            if self.processors.len() > 1 {
                self.w.settle();
            }
            next = self.w.cpus().find(has_work);
        }
    }

    /// Whoever runs goes to user mode.
    fn leave_all(&mut self) {
        for cpu in self.w.cpus() {
            if self.processors[cpu].user.is_some() {
                continue;
            }
            if let Some(thread) = self.current(cpu) {
                assert_eq!(self.w.k.tcb(thread).work(), Work::None, "who is chosen has nothing to do in the kernel");
                self.leave(cpu, thread);
            }
        }
    }

    /// To user mode, with everything that belongs to `thread` in place.
    fn leave(&mut self, cpu: usize, thread: TcbRef) {
        let may_call_fast = self.w.k.machine.allows_fast_path[cpu].get();
        let tcb = self.w.k.tcb(thread);
        let processor = &mut self.processors[cpu];
        let word = tcb.space_word.get() as u64;
        if processor.space_word != word {
            processor.space_word = word;
            processor.cr3 = word;
        }
        processor.utcb_slot = tcb.local_id.get().raw() as u64;
        processor.gs = KERNELS_GS;
        // What a deleted thread had in the registers is nobody's.
        let exists = |owner: &TcbRef| self.w.k.tcb(*owner).exists();
        processor.fpu_owner = processor.fpu_owner.filter(exists);
        processor.fpu_is_live = processor.fpu_owner == Some(thread);
        let may_be_fast = may_call_fast && !processor.fpu_is_live;
        processor.fast_gs = if may_be_fast { KERNELS_GS } else { NO_SELECTOR };
        let mut registers = Registers::default();
        registers.general[reg::RSP] = self.code.map.stack_top + self.area_offset(cpu) - 8;
        let exit = self.execute(cpu, self.code.resume_user, &mut registers);
        assert_eq!(exit, Exit::Iret, "the general path leaves by IRET");
        self.processors[cpu].user = Some(registers);
    }

    fn area_offset(&self, cpu: usize) -> u64 {
        cpu as u64 * self.code.map.areas.1
    }

    fn execute(&mut self, cpu: usize, entry: usize, registers: &mut Registers) -> Exit {
        let area_offset = self.area_offset(cpu);
        let mut bus = Bus { w: self.w, code: self.code, cpu, area_offset, processor: &mut self.processors[cpu] };
        execute(self.code, entry, registers, &mut bus)
    }
}

/// The call of Ipc whose registers are in the frame of `thread`. Returns who runs, if there is nothing to decide about that.
fn ipc(here: &mut Here<'static, Fake>, thread: TcbRef) -> Option<TcbRef> {
    let saved = here.k.machine.saved(thread);
    let (frame, tcb) = (&saved.frame, here.k.tcb(thread));
    let word = |place: usize| frame[place].get() as Word;
    saved.from.set(None);
    tcb.ip.set(frame[FRAME_RCX].get());
    let utcb = here.k.utcb(thread);
    FRAME_MRS.into_iter().enumerate().for_each(|(i, place)| utcb.set_mr(i, word(place)));
    let (to, from) = (ThreadId::from_raw(word(FRAME_RSI)), ThreadId::from_raw(word(FRAME_RDX)));
    here.ipc(thread, to, from, Timeouts::from_raw(word(FRAME_R8)))
}

/// What the code of processor `cpu` reaches.
struct Bus<'s> {
    w: World,
    code: &'static Code,
    cpu: usize,
    area_offset: u64,
    processor: &'s mut Processor,
}

/// What an address means.
#[derive(Debug)]
enum Place {
    Tcb(TcbRef, usize),
    /// A slot that no thread can have here. It reads as zero, as what is not backed does.
    Gap,
    Frame(TcbRef, usize),
    Utcb(usize, usize),
    Stack(usize),
    Area(u64),
}

const WORD: usize = size_of::<u64>();

/// Where the words of a TCB are that the code knows.
mod tcb {
    use core::mem::offset_of;

    use crate::list::Link;
    use crate::thread::Tcb;

    pub const ID: usize = offset_of!(Tcb, id);
    pub const WAITS_FOR: usize = offset_of!(Tcb, waits_for);
    pub const UTCB: usize = offset_of!(Tcb, utcb);
    pub const SPACE_WORD: usize = offset_of!(Tcb, space_word);
    pub const PLAIN_NAME: usize = offset_of!(Tcb, plain_name);
    pub const SP: usize = offset_of!(Tcb, sp);
    pub const FLAGS: usize = offset_of!(Tcb, flags);
    pub const LOCAL_ID: usize = offset_of!(Tcb, local_id);
    pub const SEND_QUEUE: usize = offset_of!(Tcb, send_queue);
    pub const IP: usize = offset_of!(Tcb, ip);
    pub const AFFINITY: usize = offset_of!(Tcb, affinity);
    pub const PRIORITY: usize = offset_of!(Tcb, priority);
    pub const PURPOSE: usize = offset_of!(Tcb, purpose);
    pub const READY_NEXT: usize = offset_of!(Tcb, ready_link) + Link::NEXT_OFFSET;
    pub const READY_PREV: usize = offset_of!(Tcb, ready_link) + Link::PREV_OFFSET;
}

/// A word of a ready queue.
enum ReadyWord {
    /// The beginning of the queue of a priority.
    Head(&'static Head),
    /// Which queues are occupied, 64 of them.
    Occupied(&'static Var<usize>),
}

/// Which of `count` elements of so many bytes, which begin at `start`, is at `address`.
fn index_of(address: u64, start: u64, bytes: usize, count: usize) -> Option<usize> {
    let offset = address.checked_sub(start)? as usize;
    (offset.is_multiple_of(bytes) && offset / bytes < count).then_some(offset / bytes)
}

impl Bus<'_> {
    fn place(&self, address: u64) -> Place {
        let map = &self.code.map;
        let slot = |(start, stride): (u64, u64), size: u64| {
            let offset = address.checked_sub(start).filter(|&offset| offset < size)?;
            Some(((offset / stride) as u32, (offset % stride) as usize))
        };
        // As many slots as the image has: the frames begin behind them.
        let table_bytes = (map.frames.0 - map.tcbs.0) / 2;
        if let Some((index, offset)) = slot(map.tcbs, table_bytes) {
            let is_here = (index as usize) < self.w.k.tcbs.len();
            return if is_here { Place::Tcb(TcbRef::new(index), offset) } else { Place::Gap };
        }
        if let Some((index, offset)) = slot(map.frames, 2 * table_bytes) {
            return Place::Frame(TcbRef::new(index), offset);
        }
        let in_first_area = address.wrapping_sub(self.area_offset);
        let below_top = map.stack_top.wrapping_sub(in_first_area) as usize;
        if (1..=STACK_WORDS * WORD).contains(&below_top) {
            assert!(below_top.is_multiple_of(WORD), "the stack is used by words");
            return Place::Stack(STACK_WORDS - below_top / WORD);
        }
        if in_first_area.wrapping_sub(map.areas.0) < map.areas.1 {
            return Place::Area(in_first_area);
        }
        let base = address as usize / UTCB_SIZE * UTCB_SIZE;
        Place::Utcb(base, address as usize - base)
    }

    fn message_register(&self, base: usize, offset: usize) -> (&l4_abi::Utcb, usize) {
        let at = offset.checked_sub(UTCB_MR0_OFFSET).filter(|at| at % WORD == 0);
        let index =
            at.unwrap_or_else(|| panic!("the code touches {base:#x} + {offset:#x}, no message register")) / WORD;
        (self.w.k.machine.utcb(base), index)
    }

    fn load_from_tcb(&self, thread: TcbRef, offset: usize, bytes: u32) -> u64 {
        let tcb = self.w.k.tcb(thread);
        let word = match (offset, bytes) {
            (tcb::ID, 8) => tcb.id.get().raw() as usize,
            (tcb::WAITS_FOR, 8) => tcb.waits_for.get().raw() as usize,
            (tcb::UTCB, 8) => tcb.utcb.get(),
            (tcb::SPACE_WORD, 8) => tcb.space_word.get(),
            (tcb::PLAIN_NAME, 8) => tcb.plain_name.get().raw() as usize,
            (tcb::SP, 8) => tcb.sp.get(),
            (tcb::FLAGS, 8) => tcb.flags.get(),
            (tcb::LOCAL_ID, 8) => tcb.local_id.get().raw() as usize,
            // Whether somebody is queued; the number itself is nobody's business.
            (tcb::SEND_QUEUE, 4) => tcb.send_queue.get().map_or(0, |first| first.index() + 1),
            (tcb::IP, 8) => tcb.ip.get(),
            (tcb::AFFINITY, 2) => tcb.affinity.get().into(),
            (tcb::PRIORITY, 1) => tcb.priority.get().into(),
            (tcb::READY_PREV, 4) => tcb.ready_link.words()[1].get().to_word(),
            _ => panic!("the code reads {bytes} bytes of a TCB at {offset:#x}"),
        };
        word as u64
    }

    fn store_to_tcb(&self, thread: TcbRef, offset: usize, bytes: u32, value: u64) {
        let tcb = self.w.k.tcb(thread);
        match (offset, bytes) {
            (tcb::WAITS_FOR, 8) => tcb.waits_for.set(ThreadId::from_raw(value as Word)),
            (tcb::IP, 8) => tcb.ip.set(value as usize),
            (tcb::SP, 8) => tcb.sp.set(value as usize),
            (tcb::FLAGS, 8) => tcb.flags.set(value as usize),
            (tcb::PURPOSE, 1) => tcb.purpose.set(Purpose::from_word(value as usize)),
            (tcb::READY_NEXT, 4) => tcb.ready_link.words()[0].set(Option::from_word(value as usize)),
            (tcb::READY_PREV, 4) => tcb.ready_link.words()[1].set(Option::from_word(value as usize)),
            _ => panic!("the code writes {bytes} bytes of a TCB at {offset:#x}"),
        }
    }

    fn load_from_area(&self, address: u64, bytes: u32) -> u64 {
        let words = &self.code.map.words;
        let (here, processor) = (self.w.on(self.cpu).here(), &self.processor);
        let mark = |partner| plain_name(partner, here.id).raw() as u64;
        match bytes {
            8 if address == words.current => match here.cpu.current.get() {
                Current::IDLE => panic!("the code reads who runs, and nobody does"),
                current => (current.thread().expect("somebody runs").index() as u64) * self.code.map.tcbs.1,
            },
            8 if address == words.space_word => processor.space_word,
            8 if address == words.user_stack => processor.user_stack,
            4 if address == words.fast_gs => processor.fast_gs.into(),
            8 if address == words.plain_mark => mark(ThreadId::NIL),
            8 if address == words.plain_any => mark(ThreadId::ANY),
            2 if address == words.number => here.id.index() as u64,
            _ => match (bytes, self.ready_word(address)) {
                (4, Some(ReadyWord::Head(head))) => head.get().to_word() as u64,
                (8, Some(ReadyWord::Occupied(bits))) => bits.get() as u64,
                _ => panic!("the code reads {bytes} bytes of an area at {address:#x}"),
            },
        }
    }

    /// The word at `address`, if it is one of the ready queue.
    fn ready_word(&self, address: u64) -> Option<ReadyWord> {
        let (words, ready) = (&self.code.map.words, &self.w.k.cpus[self.cpu].ready);
        let head = index_of(address, words.ready_heads, size_of::<u32>(), PRIORITIES);
        let bits = index_of(address, words.ready_occupied, WORD, PRIORITIES / u64::BITS as usize);
        head.map(|queue| ReadyWord::Head(ready.head(queue)))
            .or_else(|| bits.map(|word| ReadyWord::Occupied(ready.occupied(word))))
    }

    fn store_to_area(&mut self, address: u64, bytes: u32, value: u64) {
        let words = &self.code.map.words;
        match (bytes, self.ready_word(address)) {
            (4, Some(ReadyWord::Head(head))) => return head.set(Option::from_word(value as usize)),
            (8, Some(ReadyWord::Occupied(bits))) => return bits.set(value as usize),
            _ => {}
        }
        assert_eq!(bytes, 8, "the code writes whole words of an area");
        match address {
            _ if address == words.current => {
                let (index, rest) = (value / self.code.map.tcbs.1, value % self.code.map.tcbs.1);
                assert_eq!(rest, 0, "who runs is a slot");
                self.w.k.cpus[self.cpu].current.set(Current::running(TcbRef::new(index as u32)));
            }
            _ if address == words.space_word => self.processor.space_word = value,
            _ if address == words.user_stack => self.processor.user_stack = value,
            _ if address == self.code.map.utcb_slot => self.processor.utcb_slot = value,
            _ => panic!("the code writes to an area at {address:#x}"),
        }
    }
}

impl Memory for Bus<'_> {
    fn load(&self, address: u64, bytes: u32) -> u64 {
        match self.place(address) {
            Place::Gap => 0,
            Place::Tcb(thread, offset) => self.load_from_tcb(thread, offset, bytes),
            Place::Frame(thread, offset) => {
                assert_eq!((offset % WORD, bytes), (0, 8), "frames are read by words");
                self.w.k.machine.saved(thread).frame[offset / WORD].get() as u64
            }
            Place::Stack(index) => self.processor.stack[index],
            Place::Area(address) => self.load_from_area(address, bytes),
            Place::Utcb(base, UTCB_MY_GLOBAL_ID_OFFSET) => self.w.k.machine.utcb(base).my_global_id().raw(),
            Place::Utcb(base, offset) => {
                let (utcb, index) = self.message_register(base, offset);
                utcb.mr(index)
            }
        }
    }

    fn store(&mut self, address: u64, bytes: u32, value: u64) {
        match self.place(address) {
            Place::Gap => panic!("the code writes to a slot without memory, {address:#x}"),
            Place::Tcb(thread, offset) => self.store_to_tcb(thread, offset, bytes, value),
            Place::Frame(thread, offset) => {
                assert_eq!((offset % WORD, bytes), (0, 8), "frames are written by words");
                self.w.k.machine.saved(thread).frame[offset / WORD].set(value as usize);
            }
            Place::Stack(index) => self.processor.stack[index] = value,
            Place::Area(address) => self.store_to_area(address, bytes, value),
            Place::Utcb(base, offset) => {
                let (utcb, index) = self.message_register(base, offset);
                utcb.set_mr(index, value);
            }
        }
    }

    fn in_own_area(&self, address: u64) -> u64 {
        address + self.area_offset
    }

    fn gs(&self) -> u32 {
        self.processor.gs
    }

    fn set_cr3(&mut self, value: u64) {
        self.processor.cr3 = value;
    }
}
