//! What is true of threads, queues and processors whenever no kernel entry is in progress: checked by tests after each
//! step, and by the debugger. What is true of mappings stands beside them ([`crate::space::Spaces::check_invariants`]).
//!
//! Nothing here relies on what it checks: words and links are looked at before they are followed, and every walk ends.

use core::fmt;

use l4_abi::ThreadId;

use crate::inspect::Loose;
use crate::kernel::Kernel;
use crate::machine::{CpuId, Machine, SpaceRef, TcbRef};
use crate::sched::period_us;
use crate::thread::{Arrival, Purpose, Status, Tcb, Work};

/// An invariant that does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken {
    /// What should be so.
    pub what: &'static str,
    /// Whom it is about.
    pub about: About,
}

/// Whom an invariant is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum About {
    /// A thread, by its slot.
    Thread(TcbRef),
    /// A processor.
    Processor(CpuId),
    /// A space.
    Space(SpaceRef),
    /// All threads together.
    All,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.about {
            About::Thread(thread) => write!(f, "thread number {:#x}: ", thread.index())?,
            About::Processor(cpu) => write!(f, "processor {}: ", cpu.index())?,
            About::Space(space) => write!(f, "space {}: ", space.index())?,
            About::All => {}
        }
        f.write_str(self.what)
    }
}

/// How many there are of what was checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    /// Threads, active or not.
    pub threads: usize,
    /// Those who are ready.
    pub ready: usize,
    /// Those who are blocked in a send phase.
    pub senders: usize,
    /// Those who are on their way to a processor.
    pub travellers: usize,
}

type Checked = Result<(), Broken>;

/// Spaces whose threads are counted in one pass through all threads.
const SPACES_AT_A_TIME: usize = 64;

fn hold(holds: bool, what: &'static str, about: About) -> Checked {
    if holds { Ok(()) } else { Err(Broken { what, about }) }
}

/// The thread, or what is wrong with the link to it.
fn linked(link: Result<TcbRef, Loose>, about: About) -> Result<TcbRef, Broken> {
    link.map_err(|loose| Broken {
        what: match loose {
            Loose::Outside => "links lead to threads",
            Loose::Unlinked => "members of a list are linked",
            Loose::NoMemory | Loose::Endless => "lists end",
        },
        about,
    })
}

/// A thread as it is checked.
struct Subject<'k, M: Machine> {
    k: &'k Kernel<'k, M>,
    thread: TcbRef,
    tcb: &'k Tcb,
}

impl<M: Machine> Kernel<'_, M> {
    /// Checks processors, threads and all lists through threads.
    ///
    /// # Errors
    /// The first invariant found broken.
    pub fn check_threads(&self) -> Result<Count, Broken> {
        let mut count = Count::default();
        // First what the rest relies on.
        for (thread, tcb) in self.backed() {
            self.check_words(thread, tcb)?;
        }
        let mut listed = Lists::default();
        for index in 0..self.cpus.len() {
            self.check_processor(CpuId::new(index as u32))?;
            self.check_lists(CpuId::new(index as u32), &mut listed)?;
        }
        let mut queued = listed.orphans;
        for (thread, tcb) in self.backed() {
            let subject = Subject { k: self, thread, tcb };
            queued += subject.check(&mut count)?;
        }
        hold(queued == count.senders, "each blocked sender is on one queue", About::All)?;
        hold(listed.ready == count.ready, "each ready thread is in one ready queue", About::All)?;
        hold(listed.mail == count.travellers, "who is on the way is in one mailbox", About::All)?;
        self.check_spaces()?;
        Ok(count)
    }

    /// Checks that words mean something and that references lead somewhere.
    fn check_words(&self, thread: TcbRef, tcb: &Tcb) -> Checked {
        let about = About::Thread(thread);
        let means = tcb.status.checked().is_some()
            && tcb.purpose.checked().is_some()
            && tcb.work.checked().is_some()
            && tcb.arrival.checked().is_some();
        hold(means, "each state is one of those that there are", about)?;
        let is_thread = |other: Option<TcbRef>| other.is_none_or(|other| other.index() < self.tcbs.len());
        let others = [tcb.peer.get(), tcb.outer_peer.get(), tcb.send_queue.get(), tcb.mail_link.get()];
        hold(others.into_iter().all(is_thread), "links lead to threads", about)?;
        let is_cpu = |cpu: u16| usize::from(cpu) < self.cpus.len();
        hold(is_cpu(tcb.home.get()) && is_cpu(tcb.affinity.get()), "it is at a processor that there is", about)?;
        let is_space = |space: Option<SpaceRef>| space.is_none_or(|space| self.spaces.is_in_use(space));
        hold(is_space(tcb.space.get()), "its space is in use", about)
    }

    fn check_processor(&self, here: CpuId) -> Checked {
        let cpu = self.cpus[here.index()];
        let fail = |holds: bool, what: &'static str| hold(holds, what, About::Processor(here));
        let known = [cpu.current.get().thread(), cpu.slice_owner.get(), cpu.donee.get(), cpu.delaying.get()];
        let is_there = |thread: Option<TcbRef>| thread.is_none_or(|thread| thread.index() < self.tcbs.len());
        fail(known.into_iter().all(is_there), "whom it knows is a thread")?;
        let current = cpu.current.get().thread();
        fail(current.is_none_or(|thread| self.tcb(thread).is_at(here)), "who runs is at home")?;
        fail(
            cpu.slice_owner.get().is_some() == current.is_some(),
            "whoever runs, somebody pays; nobody pays for idling",
        )?;
        let is_right = |owner| self.tcb(owner).exists() && self.tcb(owner).is_at(here);
        fail(cpu.slice_owner.get().is_none_or(is_right), "neither the dead pay nor those who are away")?;
        let delaying = cpu.delaying.get();
        fail(delaying.is_none_or(|thread| current == Some(thread)), "only the running thread delays its preemption")?;
        let is_weighed = delaying.is_some() || cpu.must_compare.get();
        fail(cpu.weighs_hand_overs.get() == is_weighed, "hand-overs are weighed in a delay, and when it is time to")?;
        fail(cpu.donee.get().is_none() && !cpu.must_choose.get(), "the dispatcher has decided")?;
        fail(!cpu.is_receiving.get() && !cpu.questions.is_asking(), "no entry is in progress")
    }

    /// Checks the lists of a processor and counts who is on them.
    fn check_lists(&self, here: CpuId, lists: &mut Lists) -> Checked {
        let about = About::Processor(here);
        let queue = &self.cpus[here.index()].ready;
        hold(queue.is_marked_well(), "a queue with members is marked, and no other", about)?;
        for priority in queue.marked() {
            for thread in self.ready(here, priority) {
                let thread = linked(thread, about)?;
                let tcb = self.tcb(thread);
                hold(tcb.priority() == priority, "it is queued under its priority", About::Thread(thread))?;
                hold(tcb.is_at(here), "only its home knows it", About::Thread(thread))?;
                lists.ready += 1;
            }
        }
        for thread in self.arriving(here) {
            let thread = linked(thread, about)?;
            hold(
                self.tcb(thread).is_on_its_way_to(here),
                "who is in a mailbox is on the way there",
                About::Thread(thread),
            )?;
            lists.mail += 1;
        }
        for thread in self.orphans(here) {
            let thread = linked(thread, about)?;
            let tcb = self.tcb(thread);
            let fail = |holds: bool, what: &'static str| hold(holds, what, About::Thread(thread));
            fail(tcb.is_at(here) && tcb.status() == Status::PendingSend, "an orphan is blocked")?;
            let dest = tcb.peer.get().map(|dest| self.tcb(dest));
            let is_lost = dest.is_some_and(|dest| dest.affinity() != here && (dest.exists() || dest.is_dying.get()));
            fail(is_lost, "whom an orphan lost is away")?;
            lists.orphans += 1;
        }
        Ok(())
    }

    /// Checks that spaces know how many threads they have.
    fn check_spaces(&self) -> Checked {
        let mut first = 0;
        while let Some(begin) = self.spaces.inhabited().map(|space| space.index()).find(|&index| index >= first) {
            first = begin + SPACES_AT_A_TIME;
            let mut threads = [0u32; SPACES_AT_A_TIME];
            for (_, tcb) in self.backed() {
                let index = tcb.space.get().and_then(|space| space.index().checked_sub(begin));
                if let Some(count) = index.and_then(|index| threads.get_mut(index)) {
                    *count += 1;
                }
            }
            for (index, &count) in threads.iter().enumerate().filter(|&(_, &count)| count > 0) {
                let space = SpaceRef::new((begin + index) as u32);
                hold(self.spaces.get(space).threads() == count, "a space knows its threads", About::Space(space))?;
            }
        }
        Ok(())
    }
}

/// Who is on lists of processors.
#[derive(Default)]
struct Lists {
    ready: usize,
    mail: usize,
    orphans: usize,
}

impl<M: Machine> Subject<'_, M> {
    fn fail(&self, holds: bool, what: &'static str) -> Checked {
        hold(holds, what, About::Thread(self.thread))
    }

    /// The TCB of another thread, which the words were found to lead to.
    fn other(&self, other: Option<TcbRef>, what: &'static str) -> Result<&Tcb, Broken> {
        let other = other.and_then(|other| self.k.tcb_at(other));
        other.ok_or(Broken { what, about: About::Thread(self.thread) })
    }

    /// Checks a slot; the number of threads queued on it.
    fn check(&self, count: &mut Count) -> Result<usize, Broken> {
        let tcb = self.tcb;
        let is_line = self.thread.index() < self.k.numbers.system_base as usize;
        if tcb.space.get().is_none() && !is_line {
            return self.check_empty().map(|()| 0);
        }
        count.threads += usize::from(tcb.exists());
        count.ready += usize::from(tcb.ready_link.is_linked());
        let is_arrived = tcb.is_at(tcb.home());
        if !is_arrived {
            count.travellers += 1;
            self.check_traveller()?;
        } else if tcb.space.get().is_none() {
            self.check_line()?;
        } else if tcb.exists() {
            self.check_thread()?;
            self.check_home()?;
        } else {
            self.fail(tcb.is_dying.get(), "only the dead have a space, but no id")?;
            self.check_silent()?;
        }
        count.senders += usize::from(is_arrived && tcb.status() == Status::PendingSend);
        self.check_send_queue()
    }

    fn is_current(&self) -> bool {
        let cpu = self.k.cpus[self.tcb.home().index()];
        cpu.current.get().thread() == Some(self.thread)
    }

    fn is_linked(&self) -> bool {
        self.tcb.ready_link.is_linked() || self.tcb.send_link.is_linked() || self.tcb.timeout_link.is_linked()
    }

    /// A thread on its way is nowhere else.
    fn check_traveller(&self) -> Checked {
        let tcb = self.tcb;
        self.fail(tcb.exists() && !self.is_linked(), "who is on the way is on no list")?;
        self.fail(tcb.waits_for.get().is_nil(), "who is on the way is in no plain wait")?;
        if tcb.status() == Status::PendingSend {
            self.fail(tcb.peer.get().is_none(), "who is on the way is queued on nobody")?;
        }
        for cpu in self.k.cpus {
            let known = [cpu.current.get().thread(), cpu.slice_owner.get(), cpu.donee.get(), cpu.delaying.get()];
            self.fail(!known.contains(&Some(self.thread)), "no processor knows who is on the way")?;
        }
        Ok(())
    }

    /// A thread is at home where it runs or where its partner runs (crate::cross).
    fn check_home(&self) -> Checked {
        let tcb = self.tcb;
        let home = tcb.home();
        match tcb.status() {
            Status::PendingSend => {
                let dest = self.other(tcb.peer.get(), "a blocked sender has a partner")?;
                let is_orphan = || self.k.orphans(home).any(|orphan| orphan == Ok(self.thread));
                self.fail(home == dest.affinity() || is_orphan(), "a sender waits where its partner runs")
            }
            Status::Waiting | Status::Inactive => self.fail(home == tcb.affinity(), "it waits where it runs"),
            Status::Sending | Status::Receiving => Ok(()),
            Status::Running if tcb.work() == Work::Transfer => {
                let peer = self.other(tcb.peer.get(), "a transfer has two sides")?;
                self.fail(home == peer.home(), "who transfers is with its partner")
            }
            Status::Running => {
                let may_stay = tcb.is_halted() || tcb.work() != Work::None;
                self.fail(may_stay || home == tcb.affinity(), "it runs where it should")
            }
        }
    }

    fn check_empty(&self) -> Checked {
        let tcb = self.tcb;
        let is_empty = !tcb.exists() && !tcb.is_dying.get() && tcb.send_queue.get().is_none();
        self.fail(is_empty, "an empty slot is empty")?;
        self.fail(tcb.work() == Work::None && tcb.propagated_senders.get() == 0, "an empty slot has no work")?;
        self.check_silent()
    }

    fn check_silent(&self) -> Checked {
        self.fail(!self.is_linked(), "a deleted thread is on no list")?;
        self.fail(self.tcb.status() == Status::Inactive, "a deleted thread does nothing")
    }

    fn check_thread(&self) -> Checked {
        let tcb = self.tcb;
        let is_current = self.is_current();
        self.fail(!tcb.is_dying.get(), "it lives")?;
        self.fail(tcb.is_active() == (tcb.utcb.get() != 0), "it has a UTCB if it is active")?;
        self.fail(!tcb.is_leaving.get(), "it is out of the IPC that it had to leave")?;
        let is_running = tcb.status() == Status::Running;
        let is_runnable = is_running && (!tcb.is_halted() || tcb.work() != Work::None);
        self.fail(tcb.ready_link.is_linked() == (is_runnable && !is_current), "it is queued if it is ready")?;
        self.fail(!is_current || is_runnable, "who runs may run")?;
        self.fail(
            tcb.send_link.is_linked() == (tcb.status() == Status::PendingSend),
            "a sender is queued on a partner",
        )?;
        let may_time_out = matches!(tcb.status(), Status::PendingSend | Status::Waiting);
        self.fail(may_time_out || !tcb.timeout_link.is_linked(), "only who waits has a timeout")?;
        self.check_plain_wait()?;
        self.check_times()?;
        if let Some(other) = tcb.outer_peer.get() {
            return self.check_nested_fault(other);
        }
        self.fail(is_running || tcb.work() == Work::None, "it blocks without work")?;
        match (tcb.status(), tcb.work()) {
            (Status::PendingSend, _) => {
                let partner = self.other(tcb.peer.get(), "a blocked sender has a partner")?;
                self.fail(partner.exists() || partner.is_dying.get(), "it waits for a thread")
            }
            (Status::Sending | Status::Receiving, _) => {
                let carrier = self.other(tcb.peer.get(), "a transfer has two sides")?;
                self.fail(carrier.work() == Work::Transfer, "its transfer goes on")?;
                let is_faulting = carrier.outer_peer.get() == Some(self.thread);
                let is_at_it = carrier.peer.get() == Some(self.thread) && carrier.status() == Status::Running;
                self.fail(is_faulting || is_at_it, "both sides know each other")
            }
            (_, Work::Transfer) => {
                let other = self.other(tcb.peer.get(), "a transfer has two sides")?;
                self.fail(other.status() == self.role_of_partner(), "the other side of its transfer is in it")?;
                self.fail(other.peer.get() == Some(self.thread), "both sides know each other")
            }
            (_, Work::Delete) => {
                let is_dying = |victim: TcbRef| self.k.tcb(victim).is_dying.get();
                self.fail(tcb.peer.get().is_none_or(is_dying), "who is being deleted is dying")
            }
            _ => self.fail(tcb.peer.get().is_none(), "it has no partner"),
        }
    }

    fn role_of_partner(&self) -> Status {
        if self.tcb.transfer.as_sender.get() { Status::Receiving } else { Status::Sending }
    }

    /// A thread that faulted in the middle of the string that it exchanges with `other`.
    fn check_nested_fault(&self, other: TcbRef) -> Checked {
        let tcb = self.tcb;
        let is_in_it = tcb.work() == Work::Transfer && tcb.purpose() == Purpose::PageFault;
        self.fail(is_in_it, "who faults in a string is in a transfer")?;
        let is_blocked = matches!(tcb.status(), Status::PendingSend | Status::Waiting | Status::Receiving);
        self.fail(is_blocked, "it waits for its pager")?;
        let other = self.k.tcb(other);
        let is_right = other.status() == self.role_of_partner() && other.peer.get() == Some(self.thread);
        self.fail(is_right, "the other side of its string is in it")
    }

    fn check_plain_wait(&self) -> Checked {
        let tcb = self.tcb;
        if tcb.waits_for.get().is_nil() {
            return Ok(());
        }
        self.fail(!tcb.timeout_link.is_linked() && !tcb.is_halted(), "only a message ends a plain wait")?;
        self.fail(!tcb.owes_message(), "it goes to user mode after its plain wait")?;
        let redirector = tcb.space.get().map(|space| self.k.spaces.get(space).redirector());
        self.fail(redirector.is_some_and(ThreadId::is_nil), "nobody waits plainly who could be redirected")
    }

    /// No thread has more time left than it was given.
    fn check_times(&self) -> Checked {
        let tcb = self.tcb;
        let is_slice_right = tcb.slice_left_us.get() <= period_us(tcb.time_slice.get());
        let is_quantum_right = tcb.quantum_left_us.get() <= period_us(tcb.total_quantum.get());
        self.fail(is_slice_right && is_quantum_right, "it has no more time left than it was given")?;
        self.fail(tcb.delay_left_us.get() <= tcb.max_delay_us.get(), "it may not delay for longer than it may")
    }

    /// Interrupt threads never run, and have nothing but their state.
    fn check_line(&self) -> Checked {
        let tcb = self.tcb;
        self.fail(!tcb.ready_link.is_linked() && !tcb.timeout_link.is_linked(), "an interrupt thread never runs")?;
        self.fail(tcb.work() == Work::None && tcb.utcb.get() == 0, "an interrupt thread has no work and no UTCB")?;
        self.fail(
            tcb.send_link.is_linked() == (tcb.status() == Status::PendingSend),
            "an interrupt thread is queued on its handler",
        )?;
        self.fail(!matches!(tcb.status(), Status::Sending | Status::Receiving), "its messages have no items")?;
        if !tcb.is_active() {
            return Ok(());
        }
        let id = tcb.id.get();
        self.fail(self.k.interrupt_thread(id).is_some() && self.k.thread(id).is_none(), "it is found as itself")?;
        self.fail(tcb.is_halted() && tcb.purpose() == Purpose::Interrupt, "an interrupt thread is always the kernel's")
    }

    /// Checks those who are queued on the thread; their number.
    fn check_send_queue(&self) -> Result<usize, Broken> {
        let tcb = self.tcb;
        let (mut members, mut propagated) = (0, 0);
        for sender in self.k.senders(self.thread) {
            let sender = linked(sender, About::Thread(self.thread))?;
            let from = self.k.tcb(sender);
            let fail = |holds: bool, what: &'static str| hold(holds, what, About::Thread(sender));
            let is_right = from.status() == Status::PendingSend && from.peer.get() == Some(self.thread);
            fail(is_right, "it is queued on its partner")?;
            fail(from.is_at(tcb.affinity()), "it is where its partner runs")?;
            let is_free = tcb.outer_peer.get().is_none() && tcb.is_at(tcb.affinity());
            let has_met = tcb.waiting_for().is_some_and(|partner| is_free && takes(tcb, partner, from));
            fail(!has_met, "two wait for each other that could meet")?;
            members += 1;
            propagated += u32::from(from.sends_as() != from.id.get());
        }
        self.fail(tcb.propagated_senders.get() == propagated, "it knows how many send to it in another's name")?;
        Ok(members)
    }
}

/// Whether a thread that waits for `partner` would take what `sender` has for it.
fn takes(to: &Tcb, partner: ThreadId, from: &Tcb) -> bool {
    let is_open = partner == ThreadId::ANY || partner == ThreadId::ANY_LOCAL && from.space.get() == to.space.get();
    partner != to.id.get() && (is_open || partner == from.id.get() || partner == from.sends_as())
}

/// Whether a thread that is on its way would be told of it in vain if it were not: it has time. For worlds in which
/// processors have done all that they were told of.
pub fn has_time(tcb: &Tcb) -> bool {
    let waits_for_ever = match tcb.purpose.get() {
        Purpose::User => tcb.then_timeout.get().is_never(),
        _ => tcb.outer_peer.get().is_none() || tcb.transfer.deadline.get() == u64::MAX,
    };
    tcb.arrival.get() == Arrival::Receive && waits_for_ever && tcb.send_queue.get().is_none()
}
