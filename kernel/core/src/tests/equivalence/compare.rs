//! What a program, or any later system call, could see of a world: the same on both sides.
//!
//! What is left out is what nobody can see. Registers that the ABI leaves undefined behind a call of Ipc (amd64 ABI, Ipc:
//! `rcx`, `rdx`, `rbp`, `r8`, `r11`); MR0 to MR7 in the UTCB of a thread that has them in its registers, and MR0 while it
//! receives, as the message brings its own; the instruction pointer in the TCB of a thread that is in user mode or in a
//! plain wait; and what a TCB still says of an IPC that is over.

use l4_abi::{MR_COUNT, Utcb};

use super::processor::{Registers, reg};
use super::side::{FRAME_ORDER, Side};
use crate::ipc::Sending;
use crate::list::List;
use crate::machine::{Machine, TcbRef};
use crate::sched::NEVER_ENDS;
use crate::tests::world::EVERYBODY;
use crate::thread::{Purpose, Status, Tcb, Work};

/// Where the sides differ.
pub type Difference = String;

/// Compares a value of both sides: the words say what it is.
macro_rules! same {
    ($fast:expr, $general:expr, $($what:tt)+) => {{
        let (fast, general) = ($fast, $general);
        if fast != general {
            return Err(format!("{}: {fast:x?} by the fast path, {general:x?} by the general one", format!($($what)+)));
        }
    }};
}

/// Compares both sides: all of them but UTCBs, of which there are only those of threads that `is_concerned` names.
///
/// # Errors
/// The first difference.
pub fn compare(fast: &Side, general: &Side, is_concerned: impl Fn(TcbRef) -> bool) -> Result<(), Difference> {
    for cpu in fast.w.cpus() {
        compare_processors(fast, general, cpu)?;
    }
    for who in EVERYBODY {
        let compared = compare_threads(fast, general, who.tcb()).and_then(|()| match is_concerned(who.tcb()) {
            true => compare_utcbs(fast, general, who.tcb()),
            false => Ok(()),
        });
        compared.map_err(|what| format!("{}: {what}", who.name()))?;
    }
    Ok(())
}

fn compare_processors(fast: &Side, general: &Side, cpu: usize) -> Result<(), Difference> {
    let (a, b) = (fast.w.k.cpus[cpu], general.w.k.cpus[cpu]);
    same!(fast.current(cpu), general.current(cpu), "who runs on processor {cpu}");
    same!(a.slice_owner.get(), b.slice_owner.get(), "who pays on processor {cpu}");
    same!(a.must_choose.get(), b.must_choose.get(), "whether processor {cpu} must choose");
    same!(a.donee.get(), b.donee.get(), "who gets processor {cpu}");
    same!(a.delaying.get(), b.delaying.get(), "who delays on processor {cpu}");
    same!(a.delay_end.get(), b.delay_end.get(), "how long it delays on processor {cpu}");
    if !a.ready.is_same(fast.w.k.tcbs, &b.ready, general.w.k.tcbs) {
        same!(a.ready.members(fast.w.k.tcbs), b.ready.members(general.w.k.tcbs), "who is ready on processor {cpu}");
    }
    same!(orphans(fast, cpu), orphans(general, cpu), "orphans of processor {cpu}");
    same!(a.timeouts.count(), b.timeouts.count(), "timeouts on processor {cpu}");
    same!(fast.here(cpu).next_event(), general.here(cpu).next_event(), "when the timer fires on processor {cpu}");
    let (a, b) = (&fast.processors[cpu], &general.processors[cpu]);
    same!(a.gs, b.gs, "gs on processor {cpu}");
    same!(a.utcb_slot, b.utcb_slot, "the pointer to the UTCB on processor {cpu}");
    same!(a.cr3, b.cr3, "the page tables of processor {cpu}");
    same!(a.space_word, b.space_word, "what processor {cpu} thinks of its page tables");
    same!(a.fpu_owner, b.fpu_owner, "whose floating-point registers processor {cpu} has");
    let uses_others = a.user.is_some() && a.fpu_is_live && a.fpu_owner != fast.current(cpu);
    same!(uses_others, false, "use of floating-point registers of others");
    Ok(())
}

fn orphans(side: &Side, cpu: usize) -> Vec<TcbRef> {
    let tcbs = side.w.k.tcbs;
    members(&List::new(tcbs, &side.w.k.cpus[cpu].orphans))
}

/// Members of a list; most are empty.
fn members(list: &List<'_, Sending>) -> Vec<TcbRef> {
    core::iter::successors(list.first(), |&thread| list.after(thread)).collect()
}

/// Whether the thread has MR0 to MR7 in its registers: it is in user mode, or its next way there brings it back as it was.
fn has_message_in_registers(tcb: &Tcb) -> bool {
    let is_in_call = match tcb.status() {
        Status::Running => {
            !matches!(tcb.work(), Work::None | Work::Preemption | Work::Print | Work::Delete | Work::Redirect)
        }
        _ => tcb.purpose() == Purpose::User,
    };
    !is_in_call
}

/// Whether a call that is not over still needs MR0: that of a receiver is its next message's.
fn sends(tcb: &Tcb) -> bool {
    match (tcb.status(), tcb.work()) {
        (Status::PendingSend | Status::Sending, _) => true,
        (Status::Running, Work::Transfer) => tcb.transfer.as_sender.get(),
        (Status::Running, work) => work != Work::ReceivePhase,
        _ => false,
    }
}

/// The registers of a thread that is in user mode.
fn user_registers(side: &Side, thread: TcbRef) -> Option<&Registers> {
    side.w.cpus().find(|&cpu| side.current(cpu) == Some(thread)).and_then(|cpu| side.processors[cpu].user.as_ref())
}

fn compare_threads(fast: &Side, general: &Side, thread: TcbRef) -> Result<(), Difference> {
    let (a, b) = (fast.w.k.tcb(thread), general.w.k.tcb(thread));
    same!(a.id.get(), b.id.get(), "id");
    same!(a.plain_name.get(), b.plain_name.get(), "name of plain waits");
    same!(a.waits_for.get(), b.waits_for.get(), "plain wait");
    same!(a.status(), b.status(), "status");
    same!(a.purpose() == Purpose::User, b.purpose() == Purpose::User, "purpose");
    same!(a.waiting_for(), b.waiting_for(), "partner");
    same!((a.work(), a.peer.get(), a.outer_peer.get()), (b.work(), b.peer.get(), b.outer_peer.get()), "work");
    same!((a.is_halted(), a.is_dying.get()), (b.is_halted(), b.is_dying.get()), "halted, dying");
    same!((a.home(), a.affinity()), (b.home(), b.affinity()), "processors");
    same!((a.arrival.get(), a.mail_link.get()), (b.arrival.get(), b.mail_link.get()), "on its way");
    same!((a.space.get(), a.space_word.get()), (b.space.get(), b.space_word.get()), "space");
    same!((a.utcb.get(), a.local_id.get()), (b.utcb.get(), b.local_id.get()), "UTCB");
    same!(a.propagated_senders.get(), b.propagated_senders.get(), "senders in others' names");
    same!(a.ready_link.is_linked(), b.ready_link.is_linked(), "ready");
    same!(a.send_link.is_linked(), b.send_link.is_linked(), "queued");
    same!(a.timeout_link.is_linked(), b.timeout_link.is_linked(), "has a timeout");
    if a.timeout_link.is_linked() {
        same!(a.deadline.get(), b.deadline.get(), "timeout");
    }
    if matches!(a.status(), Status::PendingSend) {
        same!(a.destination(), b.destination(), "destination");
        same!((a.sends_as(), a.virtual_sender()), (b.sends_as(), b.virtual_sender()), "in whose name it sends");
        same!(a.intended(), b.intended(), "whom it is for");
        same!((a.then_from.get(), a.then_timeout.get()), (b.then_from.get(), b.then_timeout.get()), "what comes then");
    }
    let [queue, other] = [fast, general].map(|side| {
        let tcb = side.w.k.tcb(thread);
        members(&List::new(side.w.k.tcbs, &tcb.send_queue))
    });
    same!(queue, other, "send queue");
    compare_times(fast, general, thread)?;
    if a.exists() {
        compare_registers(fast, general, thread)?;
    }
    Ok(())
}

fn compare_times(fast: &Side, general: &Side, thread: TcbRef) -> Result<(), Difference> {
    let (a, b) = (fast.w.k.tcb(thread), general.w.k.tcb(thread));
    same!(a.priority(), b.priority(), "priority");
    same!(a.sensitive_priority.get(), b.sensitive_priority.get(), "sensitive priority");
    same!((a.max_delay_us.get(), a.delay_left_us.get()), (b.max_delay_us.get(), b.delay_left_us.get()), "delays");
    same!(a.owes_message(), b.owes_message(), "debt of a message");
    same!((a.time_slice.get(), a.total_quantum.get()), (b.time_slice.get(), b.total_quantum.get()), "periods");
    same!(a.scheduler.get(), b.scheduler.get(), "scheduler");
    same!(times_left(fast, thread), times_left(general, thread), "rest of slice and quantum");
    Ok(())
}

/// What is left of the slice and the quantum now: who pays is charged later by the fast path.
fn times_left(side: &Side, thread: TcbRef) -> [u64; 2] {
    let tcb = side.w.k.tcb(thread);
    let pays = |&cpu: &usize| side.w.k.cpus[cpu].slice_owner.get() == Some(thread);
    let not_charged = side
        .w
        .cpus()
        .find(pays)
        .map_or(0, |cpu| side.w.k.machine.now_us().saturating_sub(side.w.k.cpus[cpu].charged_until.get()));
    [&tcb.slice_left_us, &tcb.quantum_left_us].map(|left| match left.get() {
        NEVER_ENDS => NEVER_ENDS,
        left => left.saturating_sub(not_charged),
    })
}

/// Those that are defined behind a call of Ipc, but the stack pointer.
const DEFINED: [usize; 10] =
    [reg::RSI, reg::RDI, reg::R9, reg::RAX, reg::RBX, reg::R10, reg::R12, reg::R13, reg::R14, reg::R15];

fn compare_registers(fast: &Side, general: &Side, thread: TcbRef) -> Result<(), Difference> {
    let (a, b) = (fast.w.k.tcb(thread), general.w.k.tcb(thread));
    match (user_registers(fast, thread), user_registers(general, thread)) {
        (None, None) => {
            same!((a.sp.get(), a.flags.get()), (b.sp.get(), b.flags.get()), "stack pointer and flags");
            if a.waits_for.get().is_nil() {
                same!(a.ip.get(), b.ip.get(), "instruction pointer");
            }
            if !has_message_in_registers(a) {
                // What comes back is not in the frame yet.
                return Ok(());
            }
            let (a, b) = (&fast.w.k.machine.saved(thread).frame, &general.w.k.machine.saved(thread).frame);
            for (place, number) in FRAME_ORDER.into_iter().enumerate().filter(|(_, number)| DEFINED.contains(number)) {
                same!(a[place].get(), b[place].get(), "saved register {number}");
            }
        }
        (Some(a), Some(b)) => {
            same!((a.ip, a.flags), (b.ip, b.flags), "instruction pointer and flags");
            for number in DEFINED.into_iter().chain([reg::RSP]) {
                same!(a.general[number], b.general[number], "register {number}");
            }
        }
        (a, b) => same!(a.is_some(), b.is_some(), "in user mode"),
    }
    Ok(())
}

fn compare_utcbs(fast: &Side, general: &Side, thread: TcbRef) -> Result<(), Difference> {
    let tcb = fast.w.k.tcb(thread);
    if tcb.utcb.get() == 0 {
        return Ok(());
    }
    let [a, b] = [fast, general].map(|side| side.w.k.utcb(thread));
    compare_control_registers(a, b)?;
    let first = match has_message_in_registers(tcb) {
        true => IN_REGISTERS,
        false => usize::from(!sends(tcb)),
    };
    for index in first..MR_COUNT {
        same!(a.mr(index), b.mr(index), "MR{index}");
    }
    Ok(())
}

fn compare_control_registers(a: &Utcb, b: &Utcb) -> Result<(), Difference> {
    for index in 0..l4_abi::BR_COUNT {
        same!(a.br(index), b.br(index), "BR{index}");
    }
    same!((a.my_global_id(), a.processor_no()), (b.my_global_id(), b.processor_no()), "MyGlobalId, ProcessorNo");
    same!((a.user_defined_handle(), a.pager()), (b.user_defined_handle(), b.pager()), "UserDefinedHandle, Pager");
    same!(a.exception_handler(), b.exception_handler(), "ExceptionHandler");
    same!((a.preempt_flags(), a.cop_flags()), (b.preempt_flags(), b.cop_flags()), "PreemptFlags, CopFlags");
    same!((a.error_code(), a.xfer_timeouts()), (b.error_code(), b.xfer_timeouts()), "ErrorCode, XferTimeouts");
    same!(a.intended_receiver(), b.intended_receiver(), "IntendedReceiver");
    same!(a.virtual_sender(), b.virtual_sender(), "VirtualSender");
    same!((a.thread_word(0), a.thread_word(1)), (b.thread_word(0), b.thread_word(1)), "ThreadWords");
    same!(a.word_size_mask(), b.word_size_mask(), "WordSizeMask");
    Ok(())
}

/// Message registers that the ABI passes in registers.
const IN_REGISTERS: usize = 8;
