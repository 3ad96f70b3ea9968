//! One function per system call, with the registers of the amd64 ABI, section System-Call Registers.
//!
//! Every call goes through an absolute address that [`init`] copies from the kernel interface page, and every block keeps
//! the same contract: the stub may destroy rbp, and all other registers that are no outputs; it restores rsp, leaves DF
//! clear and touches no more of our stack than below rsp. LLVM does not lend rbx and rbp, so they go to the stack.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use l4_abi::{
    ExregsControl, Fpage, MsgTag, PreemptionControl, PrioControl, ProcessorControl, SpaceControl, ThreadId,
    ThreadState, TimeControl, Timeouts, UnmapControl, Word,
};

use super::{kernel_interface, mr0_address, utcb};

/// Addresses of the stubs, each called through memory: no register is left for them.
mod stub {
    use super::AtomicU64;

    pub static SPACE_CONTROL: AtomicU64 = AtomicU64::new(0);
    pub static THREAD_CONTROL: AtomicU64 = AtomicU64::new(0);
    pub static PROCESSOR_CONTROL: AtomicU64 = AtomicU64::new(0);
    pub static MEMORY_CONTROL: AtomicU64 = AtomicU64::new(0);
    pub static IPC: AtomicU64 = AtomicU64::new(0);
    pub static LIPC: AtomicU64 = AtomicU64::new(0);
    pub static UNMAP: AtomicU64 = AtomicU64::new(0);
    pub static EXCHANGE_REGISTERS: AtomicU64 = AtomicU64::new(0);
    pub static SYSTEM_CLOCK: AtomicU64 = AtomicU64::new(0);
    pub static THREAD_SWITCH: AtomicU64 = AtomicU64::new(0);
    pub static SCHEDULE: AtomicU64 = AtomicU64::new(0);
}

/// Asks the kernel for its interface page and remembers what is in it. The first thing a program does; a space that
/// shares the program's data and has its interface page at the same address need not do it again.
///
/// # Panics
/// If the kernel's page is not that of a 64-bit X.2 kernel.
pub fn init() {
    let kip = crate::kip::set(kernel_interface().kip);
    let calls = &kip.system_calls;
    let stubs = [
        (&stub::SPACE_CONTROL, calls.space_control),
        (&stub::THREAD_CONTROL, calls.thread_control),
        (&stub::PROCESSOR_CONTROL, calls.processor_control),
        (&stub::MEMORY_CONTROL, calls.memory_control),
        (&stub::IPC, calls.ipc),
        (&stub::LIPC, calls.lipc),
        (&stub::UNMAP, calls.unmap),
        (&stub::EXCHANGE_REGISTERS, calls.exchange_registers),
        (&stub::SYSTEM_CLOCK, calls.system_clock),
        (&stub::THREAD_SWITCH, calls.thread_switch),
        (&stub::SCHEDULE, calls.schedule),
    ];
    for (stub, address) in stubs {
        stub.store(address, Relaxed);
    }
    utcb().set_word_size_mask(Word::MAX);
}

/// Registers of ExchangeRegisters, in and out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawExregs {
    /// In: which thread. Out: the other form of its id, or nilthread after an error.
    pub thread: ThreadId,
    /// In: a control word. Out: the old state.
    pub control: Word,
    /// Stack pointer.
    pub sp: Word,
    /// Instruction pointer.
    pub ip: Word,
    /// Processor flags.
    pub flags: Word,
    /// The user-defined handle.
    pub handle: Word,
    /// The pager.
    pub pager: ThreadId,
}

impl RawExregs {
    /// The state in the control word that came out.
    pub const fn state(&self) -> ThreadState {
        ThreadState::from_raw(self.control)
    }
}

/// ExchangeRegisters.
///
/// | | in | out |
/// |---|---|---|
/// | rax | dest | result |
/// | rsi | control | old control |
/// | rdx, r8, r9 | SP, IP, flags | the old ones |
/// | r10, rdi | handle, pager | the old ones |
///
/// # Safety
/// With the bits that set SP, IP or flags, or that abort and resume, the thread must be one that can go on there.
pub unsafe fn exchange_registers(dest: ThreadId, control: ExregsControl, new: RawExregs) -> RawExregs {
    let (thread, old_control, sp, ip, flags, handle, pager);
    // SAFETY: the table above is the ABI's; what it does to the other thread is the caller's promise.
    unsafe {
        asm!(
            "push rbp",
            "push rbx",
            "call qword ptr [rip + {stub}]",
            "pop rbx",
            "pop rbp",
            stub = sym stub::EXCHANGE_REGISTERS,
            inlateout("rax") dest.raw() => thread,
            inlateout("rsi") control.raw() => old_control,
            inlateout("rdx") new.sp => sp,
            inlateout("r8") new.ip => ip,
            inlateout("r9") new.flags => flags,
            inlateout("r10") new.handle => handle,
            inlateout("rdi") new.pager.raw() => pager,
            lateout("rcx") _, lateout("r11") _, lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
        );
    }
    RawExregs {
        thread: ThreadId::from_raw(thread),
        control: old_control,
        sp,
        ip,
        flags,
        handle,
        pager: ThreadId::from_raw(pager),
    }
}

/// ThreadControl: rdi dest, rsi pager, rdx scheduler, r8 space, r9 UTCB location; rax result.
pub fn thread_control(dest: ThreadId, space: ThreadId, scheduler: ThreadId, pager: ThreadId, utcb: Word) -> Word {
    let result;
    // SAFETY: these are the ABI's registers; the call starts no thread at an address of our choice.
    unsafe {
        asm!(
            "push rbp",
            "push rbx",
            "call qword ptr [rip + {stub}]",
            "pop rbx",
            "pop rbp",
            stub = sym stub::THREAD_CONTROL,
            inlateout("rdi") dest.raw() => _,
            inlateout("rsi") pager.raw() => _,
            inlateout("rdx") scheduler.raw() => _,
            inlateout("r8") space.raw() => _,
            inlateout("r9") utcb => _,
            lateout("rax") result,
            lateout("rcx") _, lateout("r10") _, lateout("r11") _,
            lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
        );
    }
    result
}

/// SystemClock: rax clock.
pub fn system_clock() -> u64 {
    let clock;
    // SAFETY: these are the ABI's registers; the call reads a clock.
    unsafe {
        asm!(
            "push rbp",
            "push rbx",
            "call qword ptr [rip + {stub}]",
            "pop rbx",
            "pop rbp",
            stub = sym stub::SYSTEM_CLOCK,
            lateout("rax") clock,
            lateout("rcx") _, lateout("rdx") _, lateout("rsi") _, lateout("rdi") _,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
            lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
        );
    }
    clock
}

/// ThreadSwitch: rdi dest.
pub fn thread_switch(dest: ThreadId) {
    // SAFETY: these are the ABI's registers; the call gives up the processor.
    unsafe {
        asm!(
            "push rbp",
            "push rbx",
            "call qword ptr [rip + {stub}]",
            "pop rbx",
            "pop rbp",
            stub = sym stub::THREAD_SWITCH,
            inlateout("rdi") dest.raw() => _,
            lateout("rax") _, lateout("rcx") _, lateout("rdx") _, lateout("rsi") _,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
            lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
        );
    }
}

/// Schedule: rdi dest, rsi priority, rdx time, r8 processor, r9 preemption control; rax result, rdx old time control.
pub fn schedule(
    dest: ThreadId,
    time: TimeControl,
    processor: ProcessorControl,
    prio: PrioControl,
    preemption: PreemptionControl,
) -> (Word, TimeControl) {
    let (result, old_time);
    // SAFETY: these are the ABI's registers; the call changes when a thread runs, not what it does.
    unsafe {
        asm!(
            "push rbp",
            "push rbx",
            "call qword ptr [rip + {stub}]",
            "pop rbx",
            "pop rbp",
            stub = sym stub::SCHEDULE,
            inlateout("rdi") dest.raw() => _,
            inlateout("rsi") prio.raw() => _,
            inlateout("rdx") time.raw() => old_time,
            inlateout("r8") processor.raw() => _,
            inlateout("r9") preemption.raw() => _,
            lateout("rax") result,
            lateout("rcx") _, lateout("r10") _, lateout("r11") _,
            lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
        );
    }
    (result, TimeControl::from_raw(old_time))
}

/// Ipc and Lipc, which differ in the stub.
///
/// | | in | out |
/// |---|---|---|
/// | rsi | to | from |
/// | rdx, r8 | FromSpecifier, timeouts | - |
/// | rdi | address of MR0 | the same |
/// | r9, rax, rbx, r10, r12-r15 | MR0-MR7 | MR0-MR7 |
/// | rcx, r11, rbp | - | - |
macro_rules! ipc_call {
    ($(#[$meta:meta])* $name:ident, $stub:path) => {
        $(#[$meta])*
        pub unsafe fn $name(to: ThreadId, from: ThreadId, timeouts: Timeouts) -> (ThreadId, MsgTag) {
            let utcb = utcb();
            let (sender, mr0, mr1, mr3, mr4, mr5, mr6, mr7): (Word, Word, Word, Word, Word, Word, Word, Word);
            // SAFETY: the table above is the ABI's; what is received goes where the caller promised there is room.
            unsafe {
                asm!(
                    "push rbp",
                    "push rbx",
                    "mov rbx, [rdi + 16]",
                    "call qword ptr [rip + {stub}]",
                    "mov [rdi + 16], rbx",
                    "pop rbx",
                    "pop rbp",
                    stub = sym $stub,
                    inlateout("rsi") to.raw() => sender,
                    inlateout("rdx") from.raw() => _,
                    inlateout("r8") timeouts.raw() => _,
                    inlateout("rdi") mr0_address() => _,
                    inlateout("r9") utcb.mr(0) => mr0,
                    inlateout("rax") utcb.mr(1) => mr1,
                    inlateout("r10") utcb.mr(3) => mr3,
                    inlateout("r12") utcb.mr(4) => mr4,
                    inlateout("r13") utcb.mr(5) => mr5,
                    inlateout("r14") utcb.mr(6) => mr6,
                    inlateout("r15") utcb.mr(7) => mr7,
                    lateout("rcx") _, lateout("r11") _,
                );
            }
            for (i, mr) in [(0, mr0), (1, mr1), (3, mr3), (4, mr4), (5, mr5), (6, mr6), (7, mr7)] {
                utcb.set_mr(i, mr);
            }
            (ThreadId::from_raw(sender), MsgTag::from_raw(mr0))
        }
    };
}

ipc_call! {
    /// Ipc with the message in the UTCB; the received one is there afterwards.
    ///
    /// # Safety
    /// Acceptor and buffer registers name memory that may be overmapped and overwritten.
    ipc, stub::IPC
}
ipc_call! {
    /// Lipc with the message in the UTCB; the received one is there afterwards.
    ///
    /// # Safety
    /// Acceptor and buffer registers name memory that may be overmapped and overwritten.
    lipc, stub::LIPC
}

/// The loop that a benchmark times: nothing between two calls but what the ABI wants.
macro_rules! ipc_rounds {
    ($(#[$meta:meta])* $name:ident, $stub:path) => {
        $(#[$meta])*
        pub unsafe fn $name(partner: ThreadId, tag: MsgTag, rounds: u64) {
            // On the stack across the calls, as they leave no register: [rsp] rounds to go, [rsp + 8] tag,
            // [rsp + 16] partner. MR1 to MR7 are whatever is in their registers, the same at each turn.
            // SAFETY: the registers are those of Ipc; rdi is the address of MR0 again after each call; what is received
            // goes where the caller promised there is room.
            unsafe {
                asm!(
                    "push rbp",
                    "push rbx",
                    "push rsi",
                    "push r9",
                    "push rcx",
                    "test rcx, rcx",
                    "jz 3f",
                    "2:",
                    "mov rsi, [rsp + 16]",
                    "mov rdx, rsi",
                    "xor r8d, r8d",
                    "mov r9, [rsp + 8]",
                    "call qword ptr [rip + {stub}]",
                    "dec qword ptr [rsp]",
                    "jnz 2b",
                    "3:",
                    "add rsp, 24",
                    "pop rbx",
                    "pop rbp",
                    stub = sym $stub,
                    inlateout("rcx") rounds => _,
                    inlateout("rsi") partner.raw() => _,
                    inlateout("r9") tag.raw() => _,
                    inlateout("rdi") mr0_address() => _,
                    lateout("rax") _, lateout("rdx") _, lateout("r8") _, lateout("r10") _, lateout("r11") _,
                    lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
                );
            }
        }
    };
}

ipc_rounds! {
    /// Calls `partner` `rounds` times with a message of untyped words, without timeouts, and looks at no
    /// answer. The words are undefined.
    ///
    /// # Safety
    /// Acceptor and buffer registers name memory that may be overmapped and overwritten.
    ipc_rounds, stub::IPC
}
ipc_rounds! {
    /// [`ipc_rounds`] by Lipc.
    ///
    /// # Safety
    /// Acceptor and buffer registers name memory that may be overmapped and overwritten.
    lipc_rounds, stub::LIPC
}

/// Unmap: rdx control, rdi address of MR0, MR0-MR7 as for Ipc, in and out. The fpages are in the UTCB before and after.
///
/// # Safety
/// What is flushed is not in use by this program.
pub unsafe fn unmap(control: UnmapControl) {
    let utcb = utcb();
    let (mr0, mr1, mr3, mr4, mr5, mr6, mr7): (Word, Word, Word, Word, Word, Word, Word);
    // SAFETY: these are the ABI's registers; what becomes of the memory is the caller's promise.
    unsafe {
        asm!(
            "push rbp",
            "push rbx",
            "mov rbx, [rdi + 16]",
            "call qword ptr [rip + {stub}]",
            "mov [rdi + 16], rbx",
            "pop rbx",
            "pop rbp",
            stub = sym stub::UNMAP,
            inlateout("rdx") control.raw() => _,
            inlateout("rdi") mr0_address() => _,
            inlateout("r9") utcb.mr(0) => mr0,
            inlateout("rax") utcb.mr(1) => mr1,
            inlateout("r10") utcb.mr(3) => mr3,
            inlateout("r12") utcb.mr(4) => mr4,
            inlateout("r13") utcb.mr(5) => mr5,
            inlateout("r14") utcb.mr(6) => mr6,
            inlateout("r15") utcb.mr(7) => mr7,
            lateout("rcx") _, lateout("rsi") _, lateout("r8") _, lateout("r11") _,
        );
    }
    for (i, mr) in [(0, mr0), (1, mr1), (3, mr3), (4, mr4), (5, mr5), (6, mr6), (7, mr7)] {
        utcb.set_mr(i, mr);
    }
}

/// SpaceControl: rdi space, rsi control, rdx KIP area, r8 UTCB area, r9 redirector; rax result, rdx old control.
pub fn space_control(
    space: ThreadId,
    control: SpaceControl,
    kip_area: Fpage,
    utcb_area: Fpage,
    redirector: ThreadId,
) -> (Word, SpaceControl) {
    let (result, old_control);
    // SAFETY: these are the ABI's registers; areas are set in spaces that do not run yet.
    unsafe {
        asm!(
            "push rbp",
            "push rbx",
            "call qword ptr [rip + {stub}]",
            "pop rbx",
            "pop rbp",
            stub = sym stub::SPACE_CONTROL,
            inlateout("rdi") space.raw() => _,
            inlateout("rsi") control.raw() => _,
            inlateout("rdx") kip_area.raw() => old_control,
            inlateout("r8") utcb_area.raw() => _,
            inlateout("r9") redirector.raw() => _,
            lateout("rax") result,
            lateout("rcx") _, lateout("r10") _, lateout("r11") _,
            lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
        );
    }
    (result, SpaceControl::from_raw(old_control))
}

/// ProcessorControl: rdi number, rsi internal and rdx external frequency in kHz, r8 voltage in mV; rax result.
pub fn processor_control(processor: Word, internal_khz: Word, external_khz: Word, voltage_mv: Word) -> Word {
    let result;
    // SAFETY: these are the ABI's registers; the call concerns a processor's clock.
    unsafe {
        asm!(
            "push rbp",
            "push rbx",
            "call qword ptr [rip + {stub}]",
            "pop rbx",
            "pop rbp",
            stub = sym stub::PROCESSOR_CONTROL,
            inlateout("rdi") processor => _,
            inlateout("rsi") internal_khz => _,
            inlateout("rdx") external_khz => _,
            inlateout("r8") voltage_mv => _,
            lateout("rax") result,
            lateout("rcx") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
            lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
        );
    }
    result
}

/// MemoryControl: rdx control, attributes in rcx, rsi, r8, r11, rdi address of MR0, MR0-MR7 as for Ipc; rdx result. The
/// fpages are in the UTCB.
pub fn memory_control(control: Word, attributes: [Word; 4]) -> Word {
    let utcb = utcb();
    let result;
    // SAFETY: these are the ABI's registers; the call changes how memory is cached, not what is in it.
    unsafe {
        asm!(
            "push rbp",
            "push rbx",
            "mov rbx, [rdi + 16]",
            "call qword ptr [rip + {stub}]",
            "pop rbx",
            "pop rbp",
            stub = sym stub::MEMORY_CONTROL,
            inlateout("rdx") control => result,
            inlateout("rcx") attributes[0] => _,
            inlateout("rsi") attributes[1] => _,
            inlateout("r8") attributes[2] => _,
            inlateout("r11") attributes[3] => _,
            inlateout("rdi") mr0_address() => _,
            inlateout("r9") utcb.mr(0) => _,
            inlateout("rax") utcb.mr(1) => _,
            inlateout("r10") utcb.mr(3) => _,
            inlateout("r12") utcb.mr(4) => _,
            inlateout("r13") utcb.mr(5) => _,
            inlateout("r14") utcb.mr(6) => _,
            inlateout("r15") utcb.mr(7) => _,
        );
    }
    result
}
