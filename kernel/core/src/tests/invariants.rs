//! What is true of the core's tables whenever no kernel entry is in progress.

use l4_abi::ThreadId;

use super::machine::Fake;
use crate::kernel::Kernel;
use crate::machine::{CpuId, SpaceRef, TcbRef};
use crate::sched::period_us;
use crate::thread::{Arrival, Purpose, Status, Tcb, Work};

type K = Kernel<'static, Fake>;

/// Where threads are besides their TCBs.
struct Places {
    /// For each thread the processor in whose mailbox it is.
    mail: Vec<Option<CpuId>>,
    /// For each thread the processor among whose orphans it is.
    orphans: Vec<Option<CpuId>>,
}

/// Checks everything but the mappings.
///
/// # Panics
/// Where something is wrong.
pub fn check(k: &K) {
    for (index, cpu) in k.cpus.iter().enumerate() {
        cpu.ready.check_invariants(k.tcbs);
        cpu.timeouts.check_invariants(k.tcbs);
        let here = CpuId::new(index as u32);
        let members = cpu.ready.members(k.tcbs).into_iter().chain(cpu.timeouts.members(k.tcbs));
        members.for_each(|thread| assert!(k.tcb(thread).is_at(here), "only its home knows {thread:?}"));
    }
    check_threads(k);
}

/// Checks threads and send queues.
///
/// # Panics
/// Where something is wrong.
pub fn check_threads(k: &K) {
    for index in 0..k.cpus.len() {
        check_processor(k, CpuId::new(index as u32));
    }
    let places = places(k);
    let mut threads = [0; 64];
    let (mut queued, mut senders) = (0, 0);
    for (index, tcb) in k.tcbs.iter().enumerate() {
        let thread = TcbRef::new(index as u32);
        match tcb.space.get() {
            Some(space) => threads[space.index()] += 1,
            None if index >= k.numbers.system_base as usize => {
                check_empty(tcb);
                continue;
            }
            None => {}
        }
        assert!((tcb.home().index()) < k.cpus.len(), "{thread:?} has a home");
        let is_arrived = tcb.is_at(tcb.home());
        let is_posted = places.mail[index];
        assert_eq!(is_posted, Some(tcb.home()).filter(|_| !is_arrived), "{thread:?} is on its way in one mailbox");
        if !is_arrived {
            check_traveller(k, thread, tcb);
        } else if tcb.space.get().is_none() {
            check_line(k, tcb);
        } else if tcb.exists() {
            let is_current = k.cpus[tcb.home().index()].current.get().thread() == Some(thread);
            check_thread(k, thread, tcb, is_current);
            check_home(k, thread, tcb, places.orphans[index], is_current);
        } else {
            check_dying(tcb);
        }
        queued += check_send_queue(k, thread, tcb) + usize::from(places.orphans[index].is_some());
        senders += usize::from(is_arrived && tcb.status() == Status::PendingSend);
    }
    assert_eq!(queued, senders, "each blocked sender is on one queue");
    for (index, &count) in threads.iter().enumerate().filter(|&(_, &count)| count > 0) {
        let space = SpaceRef::new(index as u32);
        assert_eq!(k.spaces.get(space).threads(), count, "threads of a space");
    }
}

/// Checks that nobody is on the way, and no orphan is left.
///
/// # Panics
/// Where something is.
pub fn check_rest(k: &K) {
    for cpu in k.cpus {
        assert!(
            cpu.mailbox.is_empty() && cpu.orphans.get().is_none() && cpu.questions.is_empty() && !cpu.raised.is_any()
        );
    }
}

/// Checks that whoever was posted to a processor that was not told of it has time: nobody waits for it, and it waits for
/// no time. For worlds in which processors have done all that they were told of.
///
/// # Panics
/// Where a thread was forgotten.
pub fn check_silence(k: &K) {
    for cpu in k.cpus {
        for thread in cpu.mailbox.members(k.tcbs) {
            let tcb = k.tcb(thread);
            let waits_for_ever = match tcb.purpose.get() {
                Purpose::User => tcb.then_timeout.get().is_never(),
                _ => tcb.outer_peer.get().is_none() || tcb.transfer.deadline.get() == u64::MAX,
            };
            let has_time = tcb.arrival.get() == Arrival::Receive && waits_for_ever && tcb.send_queue.get().is_none();
            assert!(has_time, "nobody was told of {thread:?}, {:?}", tcb.arrival.get());
        }
    }
}

fn check_processor(k: &K, here: CpuId) {
    let cpu = k.cpus[here.index()];
    let current = cpu.current.get().thread();
    assert!(current.is_none_or(|thread| k.tcb(thread).is_at(here)), "who runs is at home");
    assert_eq!(
        cpu.slice_owner.get().is_some(),
        current.is_some(),
        "whoever runs, somebody pays; nobody pays for idling"
    );
    let is_right = |owner| k.tcb(owner).exists() && k.tcb(owner).is_at(here);
    assert!(cpu.slice_owner.get().is_none_or(is_right), "neither the dead pay nor those who are away");
    let delaying = cpu.delaying.get();
    assert!(delaying.is_none_or(|thread| current == Some(thread)), "only the running thread delays its preemption");
    assert!(cpu.donee.get().is_none() && !cpu.must_choose.get(), "the dispatcher has decided");
    assert!(!cpu.is_receiving.get() && !cpu.questions.is_asking(), "no entry is in progress");
}

/// Who is in which mailbox, and whose orphan.
fn places(k: &K) -> Places {
    let mut places = Places { mail: vec![None; k.tcbs.len()], orphans: vec![None; k.tcbs.len()] };
    for (index, cpu) in k.cpus.iter().enumerate() {
        let here = CpuId::new(index as u32);
        for thread in cpu.mailbox.members(k.tcbs) {
            assert_eq!(places.mail[thread.index()].replace(here), None, "{thread:?} is in one mailbox");
        }
        let orphans = crate::list::List::new(k.tcbs, &cpu.orphans, |tcb| &tcb.send_link);
        for thread in core::iter::successors(orphans.first(), |&thread| orphans.after(thread)) {
            let tcb = k.tcb(thread);
            assert_eq!(places.orphans[thread.index()].replace(here), None, "{thread:?} is one orphan");
            assert!(tcb.is_at(here) && tcb.status() == Status::PendingSend, "{thread:?} is blocked");
            let dest = k.tcb(tcb.peer.get().expect("it has a partner"));
            assert!(dest.affinity() != here && (dest.exists() || dest.is_dying.get()), "whom {thread:?} lost is away");
        }
    }
    places
}

/// A thread on its way is nowhere else.
fn check_traveller(k: &K, thread: TcbRef, tcb: &Tcb) {
    let is_linked = tcb.ready_link.is_linked() || tcb.send_link.is_linked() || tcb.timeout_link.is_linked();
    assert!(tcb.exists() && !is_linked, "{thread:?} is on no list");
    assert!(tcb.waits_for.get().is_nil(), "{thread:?} is in no plain wait");
    if tcb.status() == Status::PendingSend {
        assert_eq!(tcb.peer.get(), None, "{thread:?} is queued on nobody");
    }
    for cpu in k.cpus {
        let known = [cpu.current.get().thread(), cpu.slice_owner.get(), cpu.donee.get(), cpu.delaying.get()];
        assert!(!known.contains(&Some(thread)), "no processor knows {thread:?}");
    }
}

/// A thread is at home where it runs or where its partner runs (crate::cross).
fn check_home(k: &K, thread: TcbRef, tcb: &Tcb, orphan_at: Option<CpuId>, is_current: bool) {
    let home = tcb.home();
    match tcb.status() {
        Status::PendingSend if orphan_at.is_some() => {}
        Status::PendingSend => {
            let dest = k.tcb(tcb.peer.get().expect("a blocked sender has a partner"));
            assert_eq!(home, dest.affinity(), "{thread:?} waits where its partner runs");
        }
        Status::Waiting | Status::Inactive => assert_eq!(home, tcb.affinity(), "{thread:?} waits where it runs"),
        Status::Sending | Status::Receiving => {}
        Status::Running if tcb.work() == Work::Transfer => {
            let peer = k.tcb(tcb.peer.get().expect("a transfer has two sides"));
            assert_eq!(home, peer.home(), "{thread:?} is with its partner");
        }
        Status::Running => {
            let may_stay = tcb.is_halted() || tcb.work() != Work::None;
            assert!(may_stay || home == tcb.affinity(), "{thread:?} runs where it should, current: {is_current}");
        }
    }
}

fn check_empty(tcb: &Tcb) {
    assert!(!tcb.exists() && !tcb.is_dying.get() && tcb.send_queue.get().is_none(), "an empty slot is empty");
    assert_eq!((tcb.work(), tcb.propagated_senders.get()), (Work::None, 0), "an empty slot has no work");
    check_silent(tcb);
}

fn check_dying(tcb: &Tcb) {
    assert!(tcb.is_dying.get(), "only the dead have a space, but no id");
    check_silent(tcb);
}

fn check_silent(tcb: &Tcb) {
    let is_linked = tcb.ready_link.is_linked() || tcb.send_link.is_linked() || tcb.timeout_link.is_linked();
    assert!(!is_linked, "a deleted thread is on no list");
    assert!(tcb.status() == Status::Inactive, "a deleted thread does nothing");
}

fn check_thread(k: &K, thread: TcbRef, tcb: &Tcb, is_current: bool) {
    assert!(!tcb.is_dying.get() && k.machine.saved(thread).unmaps.get() < u32::MAX, "{thread:?} lives");
    assert_eq!(tcb.is_active(), tcb.utcb.get() != 0, "{thread:?} has a UTCB if it is active");
    assert!(!tcb.is_leaving.get(), "{thread:?} is out of the IPC that it had to leave");
    let is_running = tcb.status() == Status::Running;
    let is_runnable = is_running && (!tcb.is_halted() || tcb.work() != Work::None);
    assert_eq!(tcb.ready_link.is_linked(), is_runnable && !is_current, "{thread:?} is queued if it is ready");
    assert!(!is_current || is_runnable, "{thread:?} may run");
    assert_eq!(tcb.send_link.is_linked(), tcb.status() == Status::PendingSend, "{thread:?} is queued on a partner");
    let may_time_out = matches!(tcb.status(), Status::PendingSend | Status::Waiting);
    assert!(may_time_out || !tcb.timeout_link.is_linked(), "{thread:?} has no timeout");
    check_plain_wait(k, thread, tcb);
    check_times(thread, tcb);
    if let Some(other) = tcb.outer_peer.get() {
        return check_nested_fault(k, thread, tcb, other);
    }
    assert!(is_running || tcb.work() == Work::None, "{thread:?} blocks without work");
    match (tcb.status(), tcb.work()) {
        (Status::PendingSend, _) => {
            let partner = tcb.peer.get().expect("a blocked sender has a partner");
            assert!(k.tcb(partner).exists() || k.tcb(partner).is_dying.get(), "{thread:?} waits for a thread");
        }
        (Status::Sending | Status::Receiving, _) => {
            let carrier = tcb.peer.get().expect("a transfer has two sides");
            assert_eq!(k.tcb(carrier).work(), Work::Transfer, "the transfer of {thread:?} goes on");
            let is_faulting = k.tcb(carrier).outer_peer.get() == Some(thread);
            let is_at_it = k.tcb(carrier).peer.get() == Some(thread) && k.tcb(carrier).status() == Status::Running;
            assert!(is_faulting || is_at_it, "both sides know each other");
        }
        (_, Work::Transfer) => {
            let other = tcb.peer.get().expect("a transfer has two sides");
            let role = if tcb.transfer.as_sender.get() { Status::Receiving } else { Status::Sending };
            assert_eq!(k.tcb(other).status(), role, "the other side of the transfer of {thread:?}");
            assert_eq!(k.tcb(other).peer.get(), Some(thread), "both sides know each other");
        }
        (_, Work::Delete) => assert!(tcb.peer.get().is_none_or(|victim| k.tcb(victim).is_dying.get())),
        (status, work) => assert_eq!(tcb.peer.get(), None, "{thread:?}, {status:?}, {work:?}, has no partner"),
    }
}

/// A thread that faulted in the middle of the string that it exchanges with `other`.
fn check_nested_fault(k: &K, thread: TcbRef, tcb: &Tcb, other: TcbRef) {
    assert_eq!((tcb.work(), tcb.purpose()), (Work::Transfer, Purpose::PageFault), "{thread:?} is in a transfer");
    let is_blocked = matches!(tcb.status(), Status::PendingSend | Status::Waiting | Status::Receiving);
    assert!(is_blocked, "{thread:?} waits for its pager");
    let role = if tcb.transfer.as_sender.get() { Status::Receiving } else { Status::Sending };
    let other = k.tcb(other);
    assert_eq!((other.status(), other.peer.get()), (role, Some(thread)), "the other side of the string of {thread:?}");
}

fn check_plain_wait(k: &K, thread: TcbRef, tcb: &Tcb) {
    if tcb.waits_for.get().is_nil() {
        return;
    }
    assert_eq!((tcb.status(), tcb.purpose()), (Status::Waiting, Purpose::User), "{thread:?} waits");
    assert!(!tcb.timeout_link.is_linked() && !tcb.is_halted(), "only a message ends the wait of {thread:?}");
    assert!(!tcb.owes_message(), "{thread:?} goes to user mode after its wait");
    let is_known = k.machine.knows_space(tcb.home(), k.space_of(thread));
    assert!(is_known, "the fast path may load the space of {thread:?}, and others know");
    let redirector = k.spaces.get(k.space_of(thread)).redirector();
    assert!(redirector.is_nil(), "the fast path does not wake {thread:?}, which could not be redirected");
}

/// No thread has more time left than it was given.
fn check_times(thread: TcbRef, tcb: &Tcb) {
    let times = [(tcb.time_slice.get(), tcb.slice_left_us.get()), (tcb.total_quantum.get(), tcb.quantum_left_us.get())];
    assert!(times.iter().all(|&(whole, left)| left <= period_us(whole)), "{thread:?} has {times:?}");
    let delay = (tcb.max_delay_us.get(), tcb.delay_left_us.get());
    assert!(delay.1 <= delay.0, "{thread:?} may delay {delay:?}");
}

/// Whether a thread that waits for `partner` would take what `sender` has for it.
fn takes(to: &Tcb, partner: ThreadId, from: &Tcb) -> bool {
    let is_open = partner == ThreadId::ANY || partner == ThreadId::ANY_LOCAL && from.space.get() == to.space.get();
    partner != to.id.get() && (is_open || partner == from.id.get() || partner == from.sends_as())
}

/// Interrupt threads never run, and have nothing but their state.
fn check_line(k: &K, tcb: &Tcb) {
    assert!(!tcb.ready_link.is_linked() && !tcb.timeout_link.is_linked(), "an interrupt thread never runs");
    assert!(tcb.work() == Work::None && tcb.utcb.get() == 0, "it has no work and no UTCB");
    assert_eq!(tcb.send_link.is_linked(), tcb.status() == Status::PendingSend, "it is queued on its handler");
    assert!(!matches!(tcb.status(), Status::Sending | Status::Receiving), "its messages have no items");
    if tcb.is_active() {
        assert!(
            k.interrupt_thread(tcb.id.get()).is_some() && k.thread(tcb.id.get()).is_none(),
            "it is found as itself"
        );
        assert!(tcb.is_halted() && tcb.purpose() == Purpose::Interrupt, "it is always the kernel's");
    }
}

/// Returns the number of threads queued on `thread`.
fn check_send_queue(k: &K, thread: TcbRef, tcb: &Tcb) -> usize {
    let queue = crate::list::List::new(k.tcbs, &tcb.send_queue, |tcb| &tcb.send_link);
    let (mut member, mut members, mut propagated) = (queue.first(), 0, 0);
    while let Some(sender) = member {
        let from = k.tcb(sender);
        assert_eq!((from.status(), from.peer.get()), (Status::PendingSend, Some(thread)), "queued on its partner");
        assert!(from.is_at(tcb.affinity()), "{sender:?} is where its partner runs");
        let is_free = tcb.outer_peer.get().is_none() && tcb.is_at(tcb.affinity());
        let has_met = tcb.waiting_for().is_some_and(|partner| is_free && takes(tcb, partner, from));
        assert!(!has_met, "{thread:?} and {sender:?} wait for each other");
        members += 1;
        propagated += u32::from(from.sends_as() != from.id.get());
        assert!(members <= k.tcbs.len(), "a queue ends");
        member = queue.after(sender);
    }
    assert_eq!(tcb.propagated_senders.get(), propagated, "senders in another's name on {thread:?}");
    members
}
