//! Threads: the control block and the states of a thread.
//!
//! A TCB belongs to its home processor, the only one that changes it. That is where the thread runs
//! ([`Tcb::affinity`]), but for the time in which it is with a partner elsewhere ([`crate::cross`]); who is queued on the
//! thread belongs to the processor where it runs, always. What a thread is doing is its [`Tcb::status`];
//! what it still has to do in the kernel before it may run in user mode is its [`Work`].

use l4_abi::{ThreadId, Time, Utcb, Word};

use crate::list::{Head, Link};
use crate::machine::{CpuId, EXCEPTION_IMAGE_WORDS, Machine, SpaceRef, TcbRef};
use crate::mapdb::MapCursor;
use crate::space::Space;
use crate::sync::{AtomicU8, AtomicU16, AtomicUsize, Ordering, fence};
use crate::var::{AsWord, Var, Var64};

pub mod lookup;

/// Size of a TCB slot, log2: the stride of the table, which the fast path relies on.
pub const TCB_SIZE_LOG2: u32 = if usize::BITS == 64 { 9 } else { 8 };

/// Words of the buffer for kernel messages: tag and the largest register image of an exception message.
pub const KERNEL_MESSAGE_WORDS: usize = EXCEPTION_IMAGE_WORDS + 1;

macro_rules! id_as_word {
    ($t:ty => $cell:ty) => {
        impl AsWord for $t {
            type Cell = $cell;
            #[inline(always)]
            fn to_word(self) -> usize {
                self.raw() as usize
            }
            #[inline(always)]
            fn from_word(word: usize) -> Self {
                Self::from_raw(word as _)
            }
        }
    };
}
id_as_word!(ThreadId => AtomicUsize);
id_as_word!(Time => AtomicU16);

macro_rules! enum_as_word {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$vdoc:meta])* $variant:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl AsWord for $name {
            type Cell = AtomicU8;
            #[inline(always)]
            fn to_word(self) -> usize {
                self as usize
            }
            #[inline(always)]
            fn from_word(word: usize) -> Self {
                const ALL: &[$name] = &[$($name::$variant,)*];
                ALL[word]
            }
            fn checked(word: usize) -> Option<Self> {
                const ALL: &[$name] = &[$($name::$variant,)*];
                ALL.get(word).copied()
            }
        }
    };
}

enum_as_word! {
    /// What a thread is doing, as far as the IPC and scheduling rules care (X.2, Thread states).
    pub enum Status {
        /// The slot holds no thread, or one that was not activated or was killed by its own unhandled fault.
        Inactive,
        /// Ready or running, unless halted.
        Running,
        /// Blocked in the send phase; queued on its partner.
        PendingSend,
        /// Blocked in the receive phase.
        Waiting,
        /// Partner in a message transfer that the other side carries out: as sender.
        Sending,
        /// Partner in a message transfer that the other side carries out: as receiver.
        Receiving,
    }
}

enum_as_word! {
    /// On whose behalf a thread is in an IPC: its own, or the kernel's in its name.
    pub enum Purpose {
        /// A call of Ipc. Messages are in the UTCB.
        User,
        /// Waiting for the start message (X.2, Thread start). Messages are in the kernel's buffer, as in all below.
        Start,
        /// A page fault of its own.
        PageFault,
        /// An access of its own to a port that is closed.
        IoFault,
        /// An exception of its own.
        Exception,
        /// Its total quantum is over: a preemption message to its scheduler.
        Preemption,
        /// It was preempted although it delayed that: a preemption message to its exception handler.
        PreemptionFault,
        /// The message of an interrupt, whose thread does nothing else.
        Interrupt,
        /// Not in an IPC, but waiting for input of the console: no message ends that.
        Input,
    }
}

enum_as_word! {
    /// What a thread still has to do in the kernel before it may run in user mode.
    pub enum Work {
        /// Nothing.
        None,
        /// The receive phase of an IPC whose send phase ended while others were queued.
        ReceivePhase,
        /// The send phase of an IPC, which was put off as somebody asked for the thread.
        SendPhase,
        /// The typed items of a message: to or from the thread `peer`.
        Transfer,
        /// Unmap: fpages left in the message registers.
        Unmap,
        /// MemoryControl: fpages left in the message registers.
        MemoryControl,
        /// Deletion of the thread `peer`: threads queued on it, then its space if it was the last.
        Delete,
        /// SpaceControl: plain waits left in a space that gets a redirector.
        Redirect,
        /// Printing on the console for the debugger.
        Print,
        /// The preemption messages that it owes.
        Preemption,
    }
}

enum_as_word! {
    /// What the debugger prints for a thread that is behind a breakpoint.
    pub enum Print {
        /// The character that is the argument.
        Char,
        /// The text at the address that is the argument, up to a zero byte.
        Text,
        /// Where the thread is: it stops.
        Enter,
        /// The same text, and where the thread is: it stops.
        EnterWithText,
        /// That the debugger has no service of this number, and where the thread is.
        UnknownService,
        /// That the breakpoint asks for nothing known, and where the thread is.
        UnknownBreakpoint,
    }
}

enum_as_word! {
    /// What a thread goes on with at the processor to which it was posted.
    pub enum Arrival {
        /// It is at home: it is on its way to nowhere.
        None,
        /// It is ready there, or halted.
        Ready,
        /// Its send phase, to [`Tcb::destination`], until `deadline`.
        Send,
        /// Its receive phase.
        Receive,
        /// The transfer with `peer`, its own to carry out.
        Transfer,
        /// The end of that transfer, as it says.
        Cut,
        /// The virtual sender of its message, which may have to wait for `partner` instead; then its receive phase.
        VirtualSender,
        /// What it was doing: it was moved.
        Moved,
    }
}

/// How far the message transfer that a thread carries out has come.
#[derive(Default)]
pub struct TransferState {
    /// Whether the thread is the sender.
    pub(crate) as_sender: Var<bool>,
    /// The message register of the item in transfer.
    pub(crate) position: Var<u8>,
    /// The item is a string of which a part may be copied.
    pub(crate) in_string: Var<bool>,
    /// The sub-string of the item.
    pub(crate) substring: Var<u8>,
    /// The buffer register of the receiver's item; 0 before the first string.
    pub(crate) buffer: Var<u8>,
    /// The part of that item.
    pub(crate) buffer_part: Var<u8>,
    /// The last string took the receiver's last buffer.
    pub(crate) no_more_buffers: Var<bool>,
    /// The transfer timeout runs.
    pub(crate) has_deadline: Var<bool>,
    /// It is the receiver's.
    pub(crate) is_receivers: Var<bool>,
    /// When it is over, microseconds on the clock; 0: already, all ones: never.
    pub(crate) deadline: Var64,
    /// The tag of the message.
    pub(crate) tag: Var<usize>,
    /// Bytes of the sub-string that are copied.
    pub(crate) offset: Var<usize>,
    /// Bytes of the buffer part that are filled.
    pub(crate) buffer_offset: Var<usize>,
    /// Bytes of all strings that are copied.
    pub(crate) bytes: Var<usize>,
}

impl TransferState {
    /// The beginning of the typed items of a message with `tag`, which are at `position`.
    pub(crate) fn begin(&self, as_sender: bool, tag: usize, position: usize) {
        self.as_sender.set(as_sender);
        self.tag.set(tag);
        self.position.set(position as u8);
        self.in_string.set(false);
        self.buffer.set(0);
        self.no_more_buffers.set(false);
        self.has_deadline.set(false);
        self.bytes.set(0);
    }

    /// Takes over the place of `other`.
    pub(crate) fn copy_from(&self, other: &Self) {
        self.as_sender.set(other.as_sender.get());
        self.position.set(other.position.get());
        self.in_string.set(other.in_string.get());
        self.substring.set(other.substring.get());
        self.buffer.set(other.buffer.get());
        self.buffer_part.set(other.buffer_part.get());
        self.no_more_buffers.set(other.no_more_buffers.get());
        self.has_deadline.set(other.has_deadline.get());
        self.is_receivers.set(other.is_receivers.get());
        self.deadline.set(other.deadline.get());
        self.tag.set(other.tag.get());
        self.offset.set(other.offset.get());
        self.buffer_offset.set(other.buffer_offset.get());
        self.bytes.set(other.bytes.get());
    }
}

/// A thread control block.
///
/// The first 64 bytes are what the IPC fast path of the image needs; their layout is an interface, asserted below.
#[derive(Default)]
#[repr(C)]
#[cfg_attr(target_pointer_width = "64", repr(align(512)))]
#[cfg_attr(target_pointer_width = "32", repr(align(256)))]
pub struct Tcb {
    /// The global id; nilthread while the slot is empty.
    pub id: Var<ThreadId>,
    /// The partner of a *plain* wait: one of a user IPC, without timeout, by a thread that is not halted. A send to such
    /// a thread is complete with the copy of the message. It stands here as it is known at the processor of the waiting
    /// thread ([`plain_name`]), so that no thread of another one finds itself in it. Nilthread in every other state.
    pub waits_for: Var<ThreadId>,
    /// The kernel's address of the UTCB, for [`Machine::utcb`]; 0 before activation.
    pub utcb: Var<usize>,
    /// The machine's word for the space (page-table root and the like).
    pub space_word: Var<usize>,
    /// What a plain wait for this thread holds, at the processor where it runs.
    pub plain_name: Var<ThreadId>,
    /// User stack pointer.
    pub sp: Var<usize>,
    /// User flags.
    pub flags: Var<usize>,
    /// The local id: user address of MR0; nilthread before a UTCB location was given.
    pub local_id: Var<ThreadId>,

    // The next 64 bytes are what the short ways and the dispatcher look at.
    /// First of the threads that wait to send to this one.
    pub send_queue: Head,
    pub(crate) space: Var<Option<SpaceRef>>,
    /// User instruction pointer; undefined during a plain wait, which returns to the stub of Ipc.
    pub ip: Var<usize>,
    /// Partner id of the current phase, in its global form.
    pub(crate) partner: Var<ThreadId>,
    pub(crate) quantum_left_us: Var64,
    /// The other thread of a transfer, on both sides; on whom a blocked sender is queued; who is being deleted.
    pub(crate) peer: Var<Option<TcbRef>>,
    /// During a page fault in the middle of a string: the other thread of the string's transfer.
    pub(crate) outer_peer: Var<Option<TcbRef>>,
    /// How many of the threads queued here send in another's name.
    pub(crate) propagated_senders: Var<u32>,
    /// The home processor.
    pub(crate) home: Var<u16>,
    /// The processor where it runs. Changed by that processor alone.
    pub affinity: Var<u16>,
    pub(crate) timeout_link: Link,
    pub(crate) status: Var<Status>,
    /// On whose behalf the thread is in an IPC; undefined during a plain wait, which is its own.
    pub purpose: Var<Purpose>,
    pub(crate) halted: Var<bool>,
    pub(crate) work: Var<Work>,
    pub(crate) arrival: Var<Arrival>,
    /// The thread owes its exception handler a preemption message.
    pub(crate) owes_fault: Var<bool>,
    /// The scheduling priority.
    pub priority: Var<u8>,
    /// The kernel's message in the name of the thread is redirected; it is for `partner`.
    pub(crate) kernel_is_redirected: Var<bool>,

    /// The thread is deleted, but others may still be queued on it: the slot cannot be used yet.
    pub(crate) is_dying: Var<bool>,
    /// There is memory behind the slot for the sake of this slot: from [`Machine::back_thread`] to
    /// [`Machine::release_thread`].
    pub(crate) claimed: Var<bool>,
    /// Of an interrupt: its line came again while the last message is not answered.
    pub(crate) came_again: Var<bool>,
    /// It sends by propagation in a call of Ipc, be it in its own name.
    pub(crate) user_propagates: Var<bool>,
    /// Receive timeout of the receive phase that follows a blocked send.
    pub(crate) then_timeout: Var<Time>,
    pub(crate) timeout_slot: Var<u16>,
    /// From specifier for that receive phase; global form.
    pub(crate) then_from: Var<ThreadId>,
    /// In whose name the thread sends in a call of Ipc: its own, or that of a virtual sender.
    pub(crate) user_sends_as: Var<ThreadId>,
    /// Whom a redirected message of a call of Ipc is for; nilthread: whoever gets it.
    pub(crate) user_intended: Var<ThreadId>,
    pub(crate) deadline: Var64,
    /// The transfer that this thread carries out. Unmap and MemoryControl keep operands and position here, SpaceControl
    /// its place in the table of threads, and a thread that prints how far it is.
    pub(crate) transfer: TransferState,
    /// How far the map, unmap or release operation in progress got.
    pub(crate) cursor: MapCursor,

    /// Its place among those that are ready.
    pub ready_link: Link,
    pub(crate) send_link: Link,
    /// The next thread that was posted to the same processor.
    pub(crate) mail_link: Var<Option<TcbRef>>,
    /// The space to release in a deletion, or after a migration emptied it.
    pub(crate) dying_space: Var<Option<SpaceRef>>,

    pub(crate) slice_left_us: Var64,
    pub(crate) scheduler: Var<ThreadId>,
    pub(crate) max_delay_us: Var<u16>,
    /// What is left of it since the last ThreadSwitch.
    pub(crate) delay_left_us: Var<u16>,
    pub(crate) time_slice: Var<Time>,
    pub(crate) total_quantum: Var<Time>,
    pub(crate) sensitive_priority: Var<u8>,
    /// Its IPC is over: it leaves the transfer with `peer`, which has a page fault elsewhere, as soon as that is back.
    pub(crate) is_leaving: Var<bool>,
    /// The processor that it left last of those where it ran: where its waits are known.
    pub(crate) left: Var<u16>,

    pub(crate) kernel_message: [Var<usize>; KERNEL_MESSAGE_WORDS],
}

crate::load::load_fields!(TransferState: as_sender, position, in_string, substring, buffer, buffer_part, no_more_buffers,
    has_deadline, is_receivers, deadline, tag, offset, buffer_offset, bytes);
crate::load::load_fields!(Tcb: id, waits_for, utcb, space_word, plain_name, sp, flags, local_id, send_queue, space, ip,
    partner, quantum_left_us, peer, outer_peer, propagated_senders, home, affinity, timeout_link, status, purpose, halted,
    work, arrival, owes_fault, priority, kernel_is_redirected, is_dying, claimed, came_again, user_propagates, then_timeout,
    timeout_slot, then_from, user_sends_as, user_intended, deadline, transfer, ready_link, send_link, mail_link,
    dying_space, slice_left_us, scheduler, max_delay_us, delay_left_us, time_slice, total_quantum, sensitive_priority,
    is_leaving, left, kernel_message);

/// How a plain wait for `partner`, an id or anythread, is known at processor `cpu`: other processors know none by this
/// name. Applied to such a name it gives the partner.
///
/// Thread numbers leave the highest bits of an id free where ids have 64 bits. Where they have 32 there is no fast path
/// that could mistake one for another: it has to look at the processor itself.
#[inline(always)]
pub fn plain_name(partner: ThreadId, cpu: CpuId) -> ThreadId {
    ThreadId::from_raw(partner.raw() ^ plain_mark(cpu))
}

/// What makes the names of plain waits at `cpu` different from those elsewhere.
pub const fn plain_mark(cpu: CpuId) -> Word {
    const FREE_BITS: u32 = 8;
    if Word::BITS == 64 { (cpu.index() as Word) << (Word::BITS - FREE_BITS) } else { 0 }
}

/// Whether no slot is claimed among the `per_page` that share a page of some table with that of `thread`.
pub fn is_page_vacant(tcbs: &[Tcb], thread: TcbRef, per_page: usize) -> bool {
    let first = thread.index() / per_page * per_page;
    tcbs[first..].iter().take(per_page).all(|tcb| !tcb.is_claimed())
}

const _: () = {
    const WORD: usize = size_of::<usize>();
    assert!(size_of::<Tcb>() == 1 << TCB_SIZE_LOG2);
    assert!(core::mem::offset_of!(Tcb, id) == 0);
    assert!(core::mem::offset_of!(Tcb, local_id) == 7 * WORD);
    assert!(core::mem::offset_of!(Tcb, send_queue) == 8 * WORD);
};

impl Tcb {
    /// Whether the slot is claimed: memory behind it must stay. For the machine, under the lock that guards this memory.
    pub fn is_claimed(&self) -> bool {
        self.claimed.get()
    }

    /// Claims the slot, or gives up the claim.
    pub fn set_claimed(&self, is_claimed: bool) {
        self.claimed.set(is_claimed);
    }

    /// Whether the slot holds a thread, active or not.
    #[inline]
    pub fn exists(&self) -> bool {
        !self.id.get().is_nil()
    }

    /// What the thread is doing. A plain wait stands only in `waits_for`, so that the fast path has one word to write.
    #[inline]
    pub fn status(&self) -> Status {
        if self.waits_for.get().is_nil() { self.status.get() } else { Status::Waiting }
    }

    /// Whether the thread was activated.
    #[inline]
    pub fn is_active(&self) -> bool {
        self.status() != Status::Inactive
    }

    /// Whether ExchangeRegisters halted the thread.
    #[inline]
    pub fn is_halted(&self) -> bool {
        self.halted.get()
    }

    /// The id that a waiting thread waits for, in global form; `None` in other states.
    #[inline]
    pub fn waiting_for(&self) -> Option<ThreadId> {
        let plain = self.waits_for.get();
        if !plain.is_nil() {
            return Some(plain_name(plain, self.home()));
        }
        self.status.is(Status::Waiting).then(|| self.partner.get())
    }

    /// The home processor. The thread may be on its way there.
    #[inline]
    pub fn home(&self) -> CpuId {
        let home = self.home.get();
        // Who sees the new home sees that it has not arrived.
        fence(Ordering::Acquire);
        CpuId::new(u32::from(home))
    }

    /// Whether the thread is at home at `cpu`, and has arrived there.
    #[inline(always)]
    pub fn is_at(&self, cpu: CpuId) -> bool {
        let is_there = self.home() == cpu && self.arrival.is(Arrival::None);
        // It may have been handed over just now.
        fence(Ordering::Acquire);
        is_there
    }

    /// Whether the thread is on its way to `cpu`.
    #[inline]
    pub fn is_on_its_way_to(&self, cpu: CpuId) -> bool {
        self.home() == cpu && !self.arrival.is(Arrival::None)
    }

    /// Whether the thread is on its way to `cpu` and may wait for a message when it has arrived.
    #[inline]
    pub(crate) fn is_coming_to_wait_at(&self, cpu: CpuId) -> bool {
        let comes_to_wait = |arrival| matches!(arrival, Arrival::Receive | Arrival::VirtualSender | Arrival::Moved);
        self.home() == cpu && comes_to_wait(self.arrival.get())
    }

    /// The processor where the thread runs.
    #[inline]
    pub fn affinity(&self) -> CpuId {
        let affinity = self.affinity.get();
        fence(Ordering::Acquire);
        CpuId::new(u32::from(affinity))
    }

    /// The space the thread is in.
    #[inline]
    pub fn space(&self) -> SpaceRef {
        self.space.get().expect("an existing thread is in a space")
    }

    /// Whether the thread, which is in `space`, must leave its IPC to the general path.
    #[inline(always)]
    pub fn is_barred(&self, space: &Space) -> bool {
        self.propagated_senders.get() != 0 || space.bars_fast_path()
    }

    /// The purpose of the IPC the thread is in.
    #[inline]
    pub fn purpose(&self) -> Purpose {
        if self.waits_for.get().is_nil() { self.purpose.get() } else { Purpose::User }
    }

    /// The scheduling priority.
    #[inline]
    pub fn priority(&self) -> u8 {
        self.priority.get()
    }

    /// Whether the total quantum is used up. Then the thread owes its scheduler a preemption message.
    #[inline]
    pub(crate) fn quantum_is_over(&self) -> bool {
        self.quantum_left_us.get() == 0
    }

    /// Whether the thread owes a preemption message, which it sends before it is in user mode again.
    #[inline]
    pub(crate) fn owes_message(&self) -> bool {
        self.quantum_is_over() || self.owes_fault.get()
    }

    /// Makes the messages that a thread owes its work, now that it would go to user mode.
    #[inline]
    pub(crate) fn recall_messages(&self) {
        if self.work.is(Work::None) && self.owes_message() {
            self.work.set(Work::Preemption);
        }
    }

    /// What the thread has to do before it may run in user mode.
    #[inline]
    pub fn work(&self) -> Work {
        self.work.get()
    }

    /// The UTCB of an active thread.
    #[inline]
    pub fn utcb_in<'m, M: Machine>(&self, machine: &'m M) -> &'m Utcb {
        debug_assert!(self.utcb.get() != 0, "an active thread has a UTCB");
        machine.utcb(self.utcb.get())
    }

    /// Begins a wait for `partner` (global form); it is plain if nothing but the message can end it.
    pub(crate) fn begin_wait(&self, partner: ThreadId, is_plain: bool) {
        if is_plain {
            self.status.set(Status::Running);
            self.waits_for.set(plain_name(partner, self.home()));
        } else {
            self.waits_for.set(ThreadId::NIL);
            self.partner.set(partner);
            self.status.set(Status::Waiting);
        }
    }

    /// Makes a plain wait an ordinary one, which the fast path leaves alone. A plain wait ends at `return_ip`
    /// ([`Machine::ipc_return_ip`]), which the TCB does not say before.
    pub(crate) fn make_wait_ordinary(&self, return_ip: usize) {
        let partner = self.waits_for.get();
        if !partner.is_nil() {
            self.ip.set(return_ip);
            self.purpose.set(Purpose::User);
            self.begin_wait(plain_name(partner, self.home()), false);
        }
    }

    /// Notes the global id that the send phase of the thread goes to: at another processor it is looked up again. The
    /// kernel's messages go to `partner`; a call of Ipc has no transfer yet, whose place is used.
    pub(crate) fn set_destination(&self, to: ThreadId) {
        if self.purpose.get() == Purpose::User {
            self.transfer.tag.set(to.raw() as usize);
        }
    }

    /// Where the send phase of the thread goes to.
    pub(crate) fn destination(&self) -> ThreadId {
        match self.purpose.get() {
            Purpose::User => ThreadId::from_raw(self.transfer.tag.get() as Word),
            _ => self.partner.get(),
        }
    }

    /// In whose name the thread sends: the kernel's messages always in its own.
    pub(crate) fn sends_as(&self) -> ThreadId {
        if self.purpose.is(Purpose::User) { self.user_sends_as.get() } else { self.id.get() }
    }

    /// The virtual sender of the thread's message, if it is propagated: never one of the kernel's.
    pub(crate) fn virtual_sender(&self) -> Option<ThreadId> {
        let propagates = self.purpose.is(Purpose::User) && self.user_propagates.get();
        propagates.then(|| self.user_sends_as.get())
    }

    /// Whom the message of the thread is for, if it is redirected.
    pub(crate) fn intended(&self) -> Option<ThreadId> {
        let intended = match self.purpose.get() {
            Purpose::User => self.user_intended.get(),
            _ if self.kernel_is_redirected.get() => self.partner.get(),
            _ => ThreadId::NIL,
        };
        Some(intended).filter(|id| !id.is_nil())
    }

    /// Gives the thread another id; nilthread: it is nobody any more.
    pub(crate) fn set_id(&self, id: ThreadId) {
        self.plain_name.set(plain_name(id, self.affinity()));
        // Whoever finds a thread by its id finds it complete.
        fence(Ordering::Release);
        self.id.set(id);
    }

    /// Lets the thread run at `cpu` from now on, which then sees all that was done to it and to its send queue.
    pub(crate) fn set_affinity(&self, cpu: CpuId) {
        self.plain_name.set(plain_name(self.id.get(), cpu));
        fence(Ordering::Release);
        self.affinity.set(cpu.index() as u16);
    }

    /// Makes `cpu` the home of the thread, which is there, or on its way if it goes on with some [`Arrival`].
    pub(crate) fn set_home(&self, cpu: CpuId) {
        fence(Ordering::Release);
        self.home.set(cpu.index() as u16);
    }

    /// The thread, which is on its way to its home, is there: all that was done to it is seen there.
    pub(crate) fn arrive(&self) {
        fence(Ordering::Release);
        self.arrival.set(Arrival::None);
    }

    /// Enters a state other than waiting.
    pub(crate) fn set_status(&self, status: Status) {
        self.waits_for.set(ThreadId::NIL);
        self.status.set(status);
    }

    /// A word of the kernel's message buffer.
    pub(crate) fn kernel_word(&self, index: usize) -> Word {
        self.kernel_message.get(index).map_or(0, |word| word.get() as Word)
    }

    /// Replaces a word of the kernel's message buffer; words beyond it are dropped.
    pub(crate) fn set_kernel_word(&self, index: usize, word: Word) {
        if let Some(slot) = self.kernel_message.get(index) {
            slot.set(word as usize);
        }
    }
}
