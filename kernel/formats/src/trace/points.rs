//! The tracepoints: their names, numbers, groups and arguments.

/// What an argument is, for those who show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// There is none.
    None,
    /// A thread id as programs know it; 0 is nilthread.
    Thread,
    /// A message tag.
    Tag,
    /// An address space, by its number in the kernel; those of `cargo xtask dump` and the debugger.
    Space,
    /// A virtual address.
    Address,
    /// A physical address.
    Physical,
    /// An fpage.
    Fpage,
    /// Send timeout and receive timeout of an IPC, as in the call.
    Timeouts,
    /// A time on the kernel's clock, microseconds; all ones: never.
    Clock,
    /// An ErrorCode of an IPC.
    IpcError,
    /// An ErrorCode of another system call; 0: none.
    SysError,
    /// A processor.
    Processor,
    /// A line of an interrupt controller.
    Line,
    /// A system call: the number of its event.
    Call,
    /// Rights: bit 0 execute, bit 1 write, bit 2 read.
    Rights,
    /// An I/O port.
    Port,
    /// A number, best shown in decimal.
    Number,
    /// A word, best shown in hexadecimal.
    Word,
}

/// What tracepoints belong together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Group {
    /// System calls.
    Calls,
    /// Messages.
    Ipc,
    /// Page faults, mappings, kernel memory.
    Memory,
    /// Who runs.
    Schedule,
    /// Threads that come, go and move.
    Threads,
    /// Interrupts.
    Interrupts,
    /// What is the processor's own.
    X86,
}

impl Group {
    /// All groups.
    pub const ALL: [Self; 7] =
        [Self::Calls, Self::Ipc, Self::Memory, Self::Schedule, Self::Threads, Self::Interrupts, Self::X86];

    /// Its name, as it is typed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Ipc => "ipc",
            Self::Memory => "memory",
            Self::Schedule => "schedule",
            Self::Threads => "threads",
            Self::Interrupts => "interrupts",
            Self::X86 => "x86",
        }
    }

    /// Its events, a bit for each.
    pub const fn mask(self) -> u64 {
        let (mut mask, mut index) = (0, 0);
        while index < POINTS.len() {
            if POINTS[index].group as u8 == self as u8 {
                mask |= 1 << index;
            }
            index += 1;
        }
        mask
    }
}

/// A tracepoint.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Which one.
    pub event: Event,
    /// Its name in X.2 kernels, where they have it.
    pub name: &'static str,
    /// What it belongs to.
    pub group: Group,
    /// When it comes.
    pub about: &'static str,
    /// Its arguments, name and kind; those that it does not have are `("", Kind::None)`.
    pub args: [(&'static str, Kind); super::ARGS],
}

/// The arguments, filled up.
const fn fill(given: &[(&'static str, Kind)]) -> [(&'static str, Kind); super::ARGS] {
    let mut args = [("", Kind::None); super::ARGS];
    let mut index = 0;
    while index < given.len() {
        args[index] = given[index];
        index += 1;
    }
    args
}

macro_rules! points {
    ($($group:ident {
        $($(#[doc = $about:literal])+ $event:ident $name:literal ($($arg:ident: $kind:ident),*),)*
    })*) => {
        /// The tracepoints by number.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Event {
            $($($(#[doc = $about])+ $event,)*)*
        }

        /// All of them, by number.
        pub const POINTS: &[Point] = &[
            $($(Point {
                event: Event::$event,
                name: $name,
                group: Group::$group,
                about: concat!($($about),+).trim_ascii(),
                args: fill(&[$((stringify!($arg), Kind::$kind)),*]),
            },)*)*
        ];
    };
}

points! {
    Calls {
        /// A thread calls Ipc.
        SyscallIpc "SYSCALL_IPC" (to: Thread, from: Thread, timeouts: Timeouts, tag: Tag),
        /// A thread calls ExchangeRegisters.
        SyscallExchangeRegisters "SYSCALL_EXCHANGE_REGISTERS" (dest: Thread, control: Word, sp: Address, ip: Address),
        /// A thread calls ThreadControl for a thread.
        SyscallThreadControl "SYSCALL_THREAD_CONTROL" (dest: Thread, space: Thread, scheduler: Thread, pager: Thread),
        /// A thread calls ThreadControl for an interrupt.
        SyscallThreadControlIrq "SYSCALL_THREAD_CONTROL_IRQ" (line: Thread, space: Thread, handler: Thread),
        /// A thread calls ThreadSwitch.
        SyscallThreadSwitch "SYSCALL_THREAD_SWITCH" (dest: Thread),
        /// A thread calls Schedule.
        SyscallSchedule "SYSCALL_SCHEDULE" (dest: Thread, time: Word, prio: Word, processor: Word),
        /// A thread calls Unmap; the fpage is the first one.
        SyscallUnmap "SYSCALL_UNMAP" (control: Word, fpage: Fpage),
        /// A thread calls SpaceControl.
        SyscallSpaceControl "SYSCALL_SPACE_CONTROL" (space: Thread, control: Word, kip: Fpage, utcbs: Fpage),
        /// A thread calls ProcessorControl.
        SyscallProcessorControl "SYSCALL_PROCESSOR_CONTROL" (processor: Number, internal: Number, external: Number, voltage: Number),
        /// A thread calls MemoryControl; the fpage is the first one.
        SyscallMemoryControl "SYSCALL_MEMORY_CONTROL" (control: Word, fpage: Fpage),
        /// A system call ends for the thread that is named: of Ipc the result is the sender and error an ErrorCode of Ipc, 0
        /// if there is none.
        SyscallReturn "SYSCALL_RETURN" (call: Call, result: Word, error: Word, received: Tag),
    }
    Ipc {
        /// A message goes over; the tag is the one that arrives.
        IpcTransfer "IPC_TRANSFER" (from: Thread, to: Thread, tag: Tag),
        /// A thread begins to wait for its partner, in phase 0 to send, in phase 1 to receive.
        IpcDetails "IPC_DETAILS" (partner: Thread, phase: Number, until: Clock),
        /// An IPC of the thread that is named fails.
        IpcError "IPC_ERROR" (error: IpcError),
        /// A thread goes to the processor of its partner, or comes back.
        IpcXcpuDetails "IPC_XCPU_DETAILS" (traveller: Thread, from: Processor, to: Processor),
        /// A part of a string is copied.
        IpcStringCopy "IPC_STRING_COPY" (from: Address, to: Address, bytes: Number),
        /// A string item of a message is begun.
        IpcStringItem "IPC_STRING_ITEM" (item: Word, address: Address),
        /// A map or grant item of a message is carried out.
        IpcMapGrantItem "IPC_MAPGRANT_ITEM" (base: Word, fpage: Fpage, window: Fpage),
        /// A message does not fit: strings are longer than the receiver's buffers, or there are too few.
        IpcMessageOverflow "IPC_MESSAGE_OVERFLOW" (from: Thread, to: Thread, offset: Number),
        /// A message with typed items is begun.
        IpcExtTransfer "IPC_EXT_TRANSFER" (from: Thread, to: Thread, tag: Tag),
        /// An IPC is ended from outside: cancelled, aborted, or its partner deleted.
        IpcUnwind "IPC_UNWIND" (ended: Thread, partner: Thread, error: IpcError),
        /// The same, of a thread that is at another processor than its own.
        IpcXcpuUnwind "IPC_XCPU_UNWIND" (ended: Thread, partner: Thread, error: IpcError),
        /// An exception message is made of the thread that is named.
        ExceptionIpc "EXCEPTION_IPC" (handler: Thread, label: Word, ip: Address),
    }
    Memory {
        /// User code faults at a page.
        PagefaultUser "PAGEFAULT_USER" (address: Address, ip: Address, access: Rights, pager: Thread),
        /// The kernel reads at a gap in one of its tables, which then shows zeroes.
        PagefaultKernel "PAGEFAULT_KERNEL" (address: Address, ip: Address),
        /// A string transfer finds a page missing, of the thread that is named.
        PagefaultTunnel "PAGEFAULT_TUNNEL" (address: Address, partner: Thread, access: Rights, pager: Thread),
        /// An fpage is mapped or granted from one space to another; address: where it goes.
        FpageMap "FPAGE_MAP" (from: Space, to: Space, fpage: Fpage, address: Address),
        /// What is mapped takes the place of something.
        FpageOvermap "FPAGE_OVERMAP" (space: Space, address: Address, size_log2: Number),
        /// Rights are taken from an fpage and what was mapped from it: by unmap, flush, or the end of a space.
        FpageMapctrl "FPAGE_MAPCTRL" (space: Space, fpage: Fpage, flush: Number),
        /// The mapping database gets a mapping.
        MdbMap "MDB_MAP" (space: Space, address: Address, physical: Physical, size_log2: Number),
        /// The mapping database loses a mapping.
        MdbUnmap "MDB_UNMAP" (space: Space, address: Address, physical: Physical, size_log2: Number),
        /// The mapping database takes a page of kernel memory for nodes.
        MdbAllocBuffer "MDB_ALLOC_BUFFER" (first_node: Number),
        /// The mapping database gives such a page back.
        MdbFreeBuffer "MDB_FREE_BUFFER" (first_node: Number),
        /// A frame of kernel memory is taken; left: how many are free then.
        KmemAlloc "KMEM_ALLOC" (frame: Physical, left: Number),
        /// A frame of kernel memory is given back.
        KmemFree "KMEM_FREE" (frame: Physical, left: Number),
    }
    Schedule {
        /// The processor switches from a thread to another one.
        ScheduleDetails "SCHEDULE_DETAILS" (from: Thread, to: Thread),
        /// Nobody is ready.
        ScheduleIdle "SCHEDULE_IDLE" (),
        /// The timeout of a thread is over.
        ScheduleWakeupTimeout "SCHEDULE_WAKEUP_TIMEOUT" (woken: Thread),
        /// The time slice of who pays is used up.
        TimesliceExpired "TIMESLICE_EXPIRED" (owner: Thread),
        /// The total quantum of who pays is used up.
        TotalQuantumExpired "TOTAL_QUANTUM_EXPIRED" (owner: Thread),
        /// A thread delays that it is preempted.
        SchedulePmDelayed "SCHEDULE_PM_DELAYED" (delaying: Thread, until: Clock),
        /// A thread would delay it, but who is to run is too urgent.
        SchedulePmDelayOverruled "SCHEDULE_PM_DELAY_OVERRULED" (delaying: Thread, next: Thread),
        /// A thread delayed it for too long, or wants to be told: its exception handler gets a message.
        SchedulePmFault "SCHEDULE_PM_FAULT" (delaying: Thread),
        /// A thread that delayed it ends that in time, and may delay again.
        SchedulePmDelayRefresh "SCHEDULE_PM_DELAY_REFRESH" (delaying: Thread),
    }
    Threads {
        /// A thread is created.
        ThreadCreate "THREAD_CREATE" (created: Thread, space: Space),
        /// A thread is deleted.
        ThreadDelete "THREAD_DELETE" (deleted: Thread),
        /// A thread is moved to another processor for good.
        ThreadMigrate "THREAD_MIGRATE" (moved: Thread, from: Processor, to: Processor),
    }
    Interrupts {
        /// An interrupt of a device comes.
        Interrupt "INTERRUPT" (line: Line),
        /// The message of an interrupt is sent to its handler.
        InterruptDetails "INTERRUPT_DETAILS" (line: Line, handler: Thread),
        /// Another processor is interrupted, as there is something to do for it.
        SmpIpi "SMP_IPI" (processor: Processor),
    }
    X86 {
        /// A general-protection fault of user code.
        X86Gp "X86_GP" (error: Word, ip: Address),
        /// An invalid instruction of user code.
        X86Ud "X86_UD" (ip: Address),
        /// User code uses floating-point registers that it does not have at hand.
        X86Nomath "X86_NOMATH" (ip: Address),
        /// Segment registers get back the only values that they can have.
        X86Segreload "X86_SEGRELOAD" (),
        /// The processor halts until an interrupt comes.
        X86Hlt "X86_HLT" (),
        /// A breakpoint of user code.
        X86Breakpoint "X86_BREAKPOINT" (ip: Address),
        /// The timer of the local APIC fires.
        X86ApicTimer "X86_APIC_TIMER" (),
        /// User code uses an I/O port that is closed to it: its pager is asked, or it has it meanwhile.
        X86IoPortSpace "X86_IO_PORT_SPACE" (port: Port, size_log2: Number, ip: Address),
        /// The processor loads the floating-point registers of a thread; before: whose it held.
        X86FpuReenable "X86_FPU_REENABLE" (before: Thread),
    }
}

const _: () = assert!(POINTS.len() <= super::EVENTS_MAX, "an event is a bit of a word");

impl Event {
    /// All events, a bit for each.
    pub const ALL: u64 = (1 << POINTS.len()) - 1;
    /// Those that messages of the shortest way would make: while one of them is traced, all messages take the general one.
    pub const OF_MESSAGES: u64 = Self::SyscallIpc.bit()
        | Self::SyscallReturn.bit()
        | Self::IpcTransfer.bit()
        | Self::IpcDetails.bit()
        | Self::ScheduleDetails.bit();
    /// The same for page faults that a pager who waits answers with a page.
    pub const OF_FAULTS: u64 = Self::OF_MESSAGES | Group::Ipc.mask() | Group::Memory.mask();

    /// Its number.
    pub const fn number(self) -> usize {
        self as usize
    }

    /// Its bit in masks.
    pub const fn bit(self) -> u64 {
        1 << self as u8
    }

    /// The event with a number.
    pub const fn new(number: usize) -> Option<Self> {
        if number < POINTS.len() { Some(POINTS[number].event) } else { None }
    }

    /// What there is to say of it.
    pub const fn point(self) -> &'static Point {
        &POINTS[self as usize]
    }

    /// What a word names: a tracepoint or a group, in letters of either case, `all` or `none`. A bit for each event.
    pub fn named(word: &[u8]) -> Option<u64> {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        if is("all") {
            return Some(Self::ALL);
        }
        if is("none") {
            return Some(0);
        }
        let group = Group::ALL.into_iter().find(|group| is(group.name())).map(Group::mask);
        group.or_else(|| POINTS.iter().find(|point| is(point.name)).map(|point| point.event.bit()))
    }

    /// What a list of such words with commas between them names; `-` before a word takes away.
    pub fn list(words: &[u8]) -> Option<u64> {
        words.split(|byte| *byte == b',').try_fold(0, |mask, word| {
            Some(match word.strip_prefix(b"-") {
                Some(word) => mask & !Self::named(word)?,
                None => mask | Self::named(word)?,
            })
        })
    }
}

/// FNV-1a, a step of it.
pub(super) const fn mix(hash: u64, byte: u8) -> u64 {
    (hash ^ byte as u64).wrapping_mul(0x100_0000_01b3)
}

/// A number that stands for the table.
pub(super) const fn hash() -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut index = 0;
    while index < POINTS.len() {
        let point = &POINTS[index];
        hash = mix_text(hash, point.name);
        let mut arg = 0;
        while arg < point.args.len() {
            hash = mix(mix_text(hash, point.args[arg].0), point.args[arg].1 as u8);
            arg += 1;
        }
        index += 1;
    }
    hash
}

const fn mix_text(mut hash: u64, text: &str) -> u64 {
    let mut index = 0;
    while index < text.len() {
        hash = mix(hash, text.as_bytes()[index]);
        index += 1;
    }
    mix(hash, 0)
}
