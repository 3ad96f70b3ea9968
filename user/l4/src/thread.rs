//! Threads: making, starting, stopping (X.2, ThreadControl, ExchangeRegisters).

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use l4_abi::protocol::start_tag;
use l4_abi::{ExregsControl, Fpage, IpcError, SysError, ThreadId, ThreadState, Word};

pub use crate::arch::my_local_id;
use crate::arch::{self, RawExregs};
use crate::message::Msg;
use crate::{ipc, utcb};

/// The calling thread's global id.
#[doc(alias = "L4_MyGlobalId")]
#[doc(alias = "L4_Myself")]
pub fn my_global_id() -> ThreadId {
    utcb().my_global_id()
}

/// Why the last system call of this thread failed.
pub(crate) fn last_error() -> SysError {
    // A number that the manual does not have can only be about something it does not have.
    SysError::from_raw(utcb().error_code()).unwrap_or(SysError::InvalidParameter)
}

/// What ExchangeRegisters found: see [`exchange_registers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchanged {
    /// The global id if a local one was given, else the local one.
    pub other_id: ThreadId,
    /// What the thread was doing.
    #[doc(alias = "L4_ThreadWasHalted")]
    #[doc(alias = "L4_ThreadWasReceiving")]
    #[doc(alias = "L4_ThreadWasSending")]
    #[doc(alias = "L4_ThreadWasIpcing")]
    pub state: ThreadState,
    /// The registers before.
    pub old: Registers,
}

/// The registers of a thread that ExchangeRegisters reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
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

impl Registers {
    /// Zero everywhere: for calls that write none of them.
    pub const ZERO: Self = Self { sp: 0, ip: 0, flags: 0, handle: 0, pager: ThreadId::NIL };
}

/// Reads a thread's registers and writes those that `control` names; aborts, halts or resumes the thread as it says.
///
/// # Errors
/// InvalidThread: not active, or not within the caller's reach.
///
/// # Safety
/// The thread can go on with what is written, and after what is aborted.
#[doc(alias = "L4_ExchangeRegisters")]
pub unsafe fn exchange_registers(
    dest: ThreadId,
    control: ExregsControl,
    new: Registers,
) -> Result<Exchanged, SysError> {
    let Registers { sp, ip, flags, handle, pager } = new;
    let raw = RawExregs { thread: dest, control: control.raw(), sp, ip, flags, handle, pager };
    // SAFETY: the caller's promise is the same.
    let out = unsafe { arch::exchange_registers(dest, control, raw) };
    if out.thread.is_nil() {
        return Err(last_error());
    }
    let old = Registers { sp: out.sp, ip: out.ip, flags: out.flags, handle: out.handle, pager: out.pager };
    Ok(Exchanged { other_id: out.thread, state: out.state(), old })
}

/// Reads a thread's registers and state.
///
/// # Errors
/// InvalidThread.
pub fn inspect(dest: ThreadId) -> Result<Exchanged, SysError> {
    // SAFETY: nothing is written, aborted or halted.
    unsafe { exchange_registers(dest, ExregsControl::DELIVER, Registers::ZERO) }
}

/// The global id of a thread of this space.
///
/// # Errors
/// InvalidThread.
#[doc(alias = "L4_GlobalIdOf")]
pub fn global_id_of(thread: ThreadId) -> Result<ThreadId, SysError> {
    if thread.is_local() { translate(thread) } else { Ok(thread) }
}

/// The local id of a thread of this space.
///
/// # Errors
/// InvalidThread.
#[doc(alias = "L4_LocalIdOf")]
pub fn local_id_of(thread: ThreadId) -> Result<ThreadId, SysError> {
    if thread.is_global() { translate(thread) } else { Ok(thread) }
}

fn translate(thread: ThreadId) -> Result<ThreadId, SysError> {
    // SAFETY: nothing is written, aborted or halted.
    unsafe { exchange_registers(thread, ExregsControl::NONE, Registers::ZERO) }.map(|exchanged| exchanged.other_id)
}

/// Whether two ids name one thread.
#[doc(alias = "L4_SameThreads")]
pub fn is_same_thread(a: ThreadId, b: ThreadId) -> bool {
    match (global_id_of(a), global_id_of(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

/// The pager of another thread.
///
/// # Errors
/// InvalidThread.
#[doc(alias = "L4_PagerOf")]
pub fn pager_of(thread: ThreadId) -> Result<ThreadId, SysError> {
    inspect(thread).map(|exchanged| exchanged.old.pager)
}

/// Sets the pager of another thread.
///
/// # Errors
/// InvalidThread.
#[doc(alias = "L4_Set_PagerOf")]
pub fn set_pager_of(thread: ThreadId, pager: ThreadId) -> Result<(), SysError> {
    // SAFETY: who serves page faults decides about memory only by the thread's own acceptance, as before.
    unsafe { exchange_registers(thread, ExregsControl::PAGER, Registers { pager, ..Registers::ZERO }) }.map(|_| ())
}

/// The user-defined handle of another thread.
///
/// # Errors
/// InvalidThread.
#[doc(alias = "L4_UserDefinedHandleOf")]
pub fn user_defined_handle_of(thread: ThreadId) -> Result<Word, SysError> {
    inspect(thread).map(|exchanged| exchanged.old.handle)
}

/// Sets the user-defined handle of another thread.
///
/// # Errors
/// InvalidThread.
#[doc(alias = "L4_Set_UserDefinedHandleOf")]
pub fn set_user_defined_handle_of(thread: ThreadId, handle: Word) -> Result<(), SysError> {
    // SAFETY: the handle means nothing to kernel and library.
    unsafe { exchange_registers(thread, ExregsControl::HANDLE, Registers { handle, ..Registers::ZERO }) }.map(|_| ())
}

/// Cancels what a thread waits for and resumes it.
///
/// # Errors
/// InvalidThread.
///
/// # Safety
/// The thread has run before or its instruction and stack pointer have been set.
#[doc(alias = "L4_Start")]
pub unsafe fn start(thread: ThreadId) -> Result<ThreadState, SysError> {
    // SAFETY: the caller's promise is the same.
    unsafe { exchange_registers(thread, ExregsControl::START, Registers::ZERO) }.map(|exchanged| exchanged.state)
}

/// Cancels what a thread waits for and has it go on somewhere else.
///
/// # Errors
/// InvalidThread.
///
/// # Safety
/// There is code at `ip` that can run on the stack at `sp`, which no other thread uses.
#[doc(alias = "L4_Start_SpIp")]
pub unsafe fn start_at(thread: ThreadId, sp: Word, ip: Word) -> Result<ThreadState, SysError> {
    let control = ExregsControl::START | ExregsControl::SP | ExregsControl::IP;
    // SAFETY: the caller's promise is the same.
    unsafe { exchange_registers(thread, control, Registers { sp, ip, ..Registers::ZERO }) }
        .map(|exchanged| exchanged.state)
}

/// Halts a thread; what it waits for goes on.
///
/// # Errors
/// InvalidThread.
#[doc(alias = "L4_Stop")]
pub fn stop(thread: ThreadId) -> Result<ThreadState, SysError> {
    // SAFETY: a halted thread stays where it is.
    unsafe { exchange_registers(thread, ExregsControl::STOP, Registers::ZERO) }.map(|exchanged| exchanged.state)
}

/// Lets a halted thread go on where it is; what it waits for goes on, too.
///
/// # Errors
/// InvalidThread.
pub fn resume(thread: ThreadId) -> Result<ThreadState, SysError> {
    // SAFETY: the thread goes on where it stopped.
    unsafe { exchange_registers(thread, ExregsControl::APPLY_HALT, Registers::ZERO) }.map(|exchanged| exchanged.state)
}

/// Aborts the IPC of a thread as [`ExregsControl::ABORT_SEND`] and [`ExregsControl::ABORT_RECEIVE`] say.
///
/// # Errors
/// InvalidThread.
pub fn abort(thread: ThreadId, phases: ExregsControl) -> Result<ThreadState, SysError> {
    let control = phases & ExregsControl::ABORT_IPC;
    // SAFETY: the thread sees an error of its own IPC.
    unsafe { exchange_registers(thread, control, Registers::ZERO) }.map(|exchanged| exchanged.state)
}

/// Aborts the IPC of a thread as [`ExregsControl::ABORT_SEND`] and [`ExregsControl::ABORT_RECEIVE`] say, and halts it.
///
/// # Errors
/// InvalidThread.
#[doc(alias = "L4_AbortReceive_and_stop")]
#[doc(alias = "L4_AbortSend_and_stop")]
#[doc(alias = "L4_AbortIpc_and_stop")]
pub fn abort_and_stop(thread: ThreadId, phases: ExregsControl) -> Result<ThreadState, SysError> {
    let control = ExregsControl::STOP | phases & ExregsControl::ABORT_IPC;
    // SAFETY: a halted thread stays where it is.
    unsafe { exchange_registers(thread, control, Registers::ZERO) }.map(|exchanged| exchanged.state)
}

/// Creates, changes or deletes a thread. Nilthread leaves scheduler and pager alone, `None` the UTCB location; the
/// location is the address of the UTCB's beginning. A nil space deletes the thread.
///
/// # Errors
/// NoPrivilege, InvalidThread, InvalidSpace, InvalidScheduler, UtcbArea, OutOfMemory.
#[doc(alias = "L4_ThreadControl")]
pub fn thread_control(
    dest: ThreadId,
    space: ThreadId,
    scheduler: ThreadId,
    pager: ThreadId,
    utcb_location: Option<Word>,
) -> Result<(), SysError> {
    match arch::thread_control(dest, space, scheduler, pager, utcb_location.unwrap_or(Word::MAX)) {
        0 => Err(last_error()),
        _ => Ok(()),
    }
}

/// Deletes a thread, and its space if it was the last one there.
///
/// # Errors
/// NoPrivilege, InvalidThread.
pub fn delete(thread: ThreadId) -> Result<(), SysError> {
    thread_control(thread, ThreadId::NIL, ThreadId::NIL, ThreadId::NIL, None)
}

/// Has interrupt messages sent to a thread.
///
/// # Errors
/// NoPrivilege, InvalidThread.
#[doc(alias = "L4_AssociateInterrupt")]
pub fn associate_interrupt(interrupt: ThreadId, handler: ThreadId) -> Result<(), SysError> {
    thread_control(interrupt, interrupt, ThreadId::NIL, handler, None)
}

/// Ends [`associate_interrupt`].
///
/// # Errors
/// NoPrivilege, InvalidThread.
#[doc(alias = "L4_DeassociateInterrupt")]
pub fn deassociate_interrupt(interrupt: ThreadId) -> Result<(), SysError> {
    thread_control(interrupt, interrupt, ThreadId::NIL, interrupt, None)
}

/// Where a new thread begins.
pub type Entry = extern "C" fn() -> !;

/// A stack for one thread.
#[repr(C, align(16))]
pub struct Stack<const SIZE: usize> {
    memory: UnsafeCell<[MaybeUninit<u8>; SIZE]>,
    is_taken: AtomicBool,
}

// SAFETY: the memory is only reached by the thread that the stack is given to.
unsafe impl<const SIZE: usize> Sync for Stack<SIZE> {}

impl<const SIZE: usize> Stack<SIZE> {
    /// A stack of `SIZE` bytes, a multiple of 16.
    pub const fn new() -> Self {
        assert!(SIZE.is_multiple_of(16) && SIZE > 0, "stacks keep an alignment of 16 bytes");
        Self { memory: UnsafeCell::new([MaybeUninit::uninit(); SIZE]), is_taken: AtomicBool::new(false) }
    }

    /// The stack pointer to start with: below the top, by the room of the return address that an [`Entry`] never uses.
    pub fn start_sp(&self) -> Word {
        (self.memory.get().expose_provenance() + SIZE - size_of::<Word>()) as Word
    }

    /// The pages of the stack, as the smallest fpages that cover it one by one.
    pub fn pages(&self) -> impl Iterator<Item = Fpage> {
        const PAGE_LOG2: u32 = 12;
        let first = self.memory.get().addr();
        let pages = first >> PAGE_LOG2..(first + SIZE).div_ceil(1 << PAGE_LOG2);
        pages.filter_map(|page| Fpage::new((page << PAGE_LOG2) as Word, PAGE_LOG2, l4_abi::Rights::ALL))
    }

    /// [`Self::start_sp`] for the one thread that gets the stack; `None` if another has it already.
    pub fn take(&'static self) -> Option<Word> {
        if self.is_taken.swap(true, Relaxed) { None } else { Some(self.start_sp()) }
    }
}

impl<const SIZE: usize> Default for Stack<SIZE> {
    fn default() -> Self {
        Self::new()
    }
}

/// Creates a thread in this space and starts it, without a start message. It has the caller's pager, and the caller for
/// its scheduler.
///
/// # Errors
/// Those of [`thread_control`]; OutOfMemory if the stack is taken.
pub fn spawn<const SIZE: usize>(
    id: ThreadId,
    utcb_location: Word,
    stack: &'static Stack<SIZE>,
    entry: Entry,
) -> Result<(), SysError> {
    let sp = stack.take().ok_or(SysError::OutOfMemory)?;
    let me = my_global_id();
    thread_control(id, me, me, utcb().pager(), Some(utcb_location))?;
    // SAFETY: the entry never returns, and by `take` the stack is this thread's alone.
    unsafe { start_at(id, sp, entry as usize as Word) }.map(|_| ())
}

/// Sends the start message to a thread that waits for it from us (thread start protocol).
///
/// # Errors
/// Those of the IPC.
///
/// # Safety
/// If the thread is in this space: there is code at `ip` that can run on the stack at `sp`, which no other thread uses.
pub unsafe fn send_start(thread: ThreadId, ip: Word, sp: Word) -> Result<(), IpcError> {
    Msg::of_words(start_tag(), &[ip, sp]).load();
    ipc::send(thread).map(|_| ())
}
