//! The total quantum and its preemption message (X.2, Schedule: total quantum; X.2, Preemption protocol), and whose time
//! is counted.
//!
//! As in [`super::scheduling`], who acts in a script must be running.

use l4_abi::{
    PreemptFlags, PrioControl, ScheduleResult, StringItem, ThreadId, Time, TimeControl, Timeouts, Word, protocol,
};

use super::fast_path::fast_ipc;
use super::random::Random;
use super::schedule::{nothing, schedule};
use super::scheduling::{ready, set_priority};
use super::script::{check_scheduled, expect, play};
use super::strings::{FROM, TO, buffers, with_memory, words};
use super::world::{A, B, C, D, R, ROOT, S, Who, World, X, Y, no_change};
use crate::machine::Machine;
use crate::sched::{NEVER_ENDS, period_us};
use crate::syscall::{ScheduleArgs, ThreadControlArgs};
use crate::thread::Work;

/// These threads are ready in this order, with these priorities, and root with priority 0. x, with priority 200, is the
/// scheduler of a, which has this quantum, and waits.
fn limited(threads: &[(Who, u8)], quantum_us: u64) -> World {
    let w = World::bare();
    for &(who, priority) in threads {
        w.start(who);
        set_priority(w, who, priority);
    }
    w.start(X);
    set_priority(w, X, 200);
    let scheduler = ThreadControlArgs { scheduler: X.id(), ..no_change(A) };
    assert_eq!(w.thread_control(ROOT, scheduler), Ok(()));
    give(w, ROOT, A, quantum_us);
    set_priority(w, ROOT, 0);
    w.wait(X, ThreadId::ANY);
    w
}

/// `who` gives somebody a quantum, and the usual time slice.
fn give(w: World, who: Who, dest: Who, quantum_us: u64) {
    let quantum = if quantum_us == NEVER_ENDS { Time::NEVER } else { Time::period_us(quantum_us) };
    let args = ScheduleArgs { time: TimeControl::new(Time::period_us(10_000), quantum), ..nothing(dest.id()) };
    assert!(schedule(w, who, args).is_ok());
}

const EQUAL: [(Who, u8); 2] = [(A, 100), (B, 100)];

#[track_caller]
fn check(threads: &[(Who, u8)], quantum_us: u64, script: &str, expected: &str) {
    check_scheduled(limited(threads, quantum_us), script, expected);
}

/// X.2, Preemption protocol: at the end of its quantum a thread calls its scheduler with the clock's two words, and waits.
#[test]
fn scheduler_is_told_of_the_end() {
    let told = "x runs; x got 4000 0 from a; a preemption: waits for x";
    check(&EQUAL, 4_000, "clock 3999", "a runs; x waits for any");
    check(&EQUAL, 4_000, "clock 4000", told);
    check(&EQUAL, 4_000, "clock 4000; x wait", "b runs; a preemption: waits for x");
    check(&EQUAL, 4_000, "clock 4000; x wait; b wait", "a preemption: waits for x");
    let w = limited(&EQUAL, 4_000);
    w.jump(5_000);
    expect(w, "a late timer", "x runs; x got 5000 0 from a");
    assert_eq!(w.utcb(X).tag(), protocol::preemption_tag());
    assert_eq!(w.utcb(X).mr(0), !0x2F_FFFF | 2, "label -3, two words");
    assert_eq!(w.tcb(A).quantum_left_us.get(), 0);
}

/// X.2, Schedule: the quantum is used up by all slices together, and by nothing else.
#[test]
fn quantum_counts_over_slices_and_preemptions() {
    // a has 10 ms, b has 10 ms, a has another 10 ms, b again; then 4 ms are left.
    check(&EQUAL, 24_000, "clock 43999", "a runs");
    check(&EQUAL, 24_000, "clock 44000", "x runs; x got 44000 0 from a");
    // y preempts a for 2 ms.
    let threads = [(Y, 150), (A, 100), (B, 100)];
    let preempted = "y wait y rcv=3000; clock 3000; clock 5000; y wait";
    check(&threads, 7_000, &format!("{preempted}; clock 8999"), "a runs");
    check(&threads, 7_000, &format!("{preempted}; clock 9000"), "x runs; x got 9000 0 from a");
    // It sleeps meanwhile.
    check(&[(A, 100)], 4_000, "clock 1000; a wait a rcv=8000; clock 11999", "a runs");
    check(&[(A, 100)], 4_000, "clock 1000; a wait a rcv=8000; clock 12000", "x runs");
    check(&EQUAL, 10_000, "clock 10000", "x runs; a preemption: waits for x");
}

/// X.2, Preemption protocol: with the answer the thread goes on, and has another quantum as long as the last unless
/// Schedule has given it one.
#[test]
fn answer_begins_a_new_quantum() {
    let answered = "clock 4000; x send a; x wait";
    check(&[(A, 100)], 4_000, answered, "a runs; x waits for any");
    check(&[(A, 100)], 4_000, &format!("{answered}; clock 7999"), "a runs");
    check(&[(A, 100)], 4_000, &format!("{answered}; clock 8000"), "x runs; x got 8000 0 from a");
    check(&[(A, 100)], 4_000, "clock 4000; x send a 1 2 3 label=7; x wait; clock 8000", "x got 8000 0 from a");
    for (quantum_us, end) in [(500, Some(4_500)), (16_000, Some(20_000)), (NEVER_ENDS, None)] {
        let w = limited(&[(A, 100)], 4_000);
        play(w, "clock 4000");
        give(w, X, A, quantum_us);
        expect(w, "Schedule", "x runs; a preemption: waits for x");
        play(w, "x send a; x wait");
        let Some(end) = end else {
            check_scheduled(w, "clock 10000000", "a runs");
            continue;
        };
        check_scheduled(w, &format!("clock {}", end - 1), "a runs");
        check_scheduled(w, &format!("clock {end}"), &format!("x got {end} 0 from a"));
    }
}

/// X.2, Preemption protocol: only the scheduler's answer counts, or one in its name.
#[test]
fn only_the_scheduler_can_answer() {
    let told = "clock 4000; x wait";
    check(&EQUAL, 4_000, &format!("{told}; b send a 1 snd=0"), "b Send Timeout; a preemption: waits for x");
    check(&[(A, 100), (Y, 90)], 4_000, &format!("{told}; y send a 1 as=x"), "a runs; y sent");
}

/// X.2, Preemption protocol: a scheduler that does something else finds the message later.
#[test]
fn message_waits_for_a_busy_scheduler() {
    let w = limited(&[(B, 100), (A, 100)], 4_000);
    check_scheduled(w, "b send x 1; x wait x rcv=8000; b wait; clock 4000", "root runs; a preemption: queued on x");
    assert_eq!(w.state(A), ScheduleResult::PendingSend);
    check_scheduled(w, "clock 8000; x wait", "x runs; x got 4000 0 from a; a preemption: waits for x");
    assert_eq!(w.state(A), ScheduleResult::Waiting);
}

/// X.2, Preemption protocol: without scheduler the thread halts; resumed, it meets the same again, until it has time.
#[test]
fn thread_without_scheduler_halts() {
    let w = limited(&[(B, 100), (A, 90), (R, 80)], 4_000);
    play(w, "b wait; r delete x");
    check_scheduled(w, "clock 4000", "a halted; r runs");
    assert_eq!(w.state(A), ScheduleResult::Inactive);
    play(w, "r send b 1; b resume a; b wait");
    expect(w, "resume", "a halted");
    give(w, ROOT, A, 4_000);
    play(w, "r send b 1; b resume a; b wait");
    expect(w, "a new quantum and resume", "a ready");
    // Deleted while the message waits for it.
    let w = limited(&[(A, 100), (R, 90)], 4_000);
    play(w, "r send x 1; x wait x");
    play(w, "clock 4000");
    expect(w, "a busy scheduler", "a preemption: queued on x");
    play(w, "r delete x");
    expect(w, "deletion of the scheduler", "a halted; r runs");
}

/// X.2, Preemption protocol: a thread that schedules itself waits for itself; others run, and it can be deleted.
#[test]
fn own_scheduler_waits_for_itself() {
    let w = limited(&[(A, 100), (R, 100)], 4_000);
    let own = ThreadControlArgs { scheduler: A.id(), ..no_change(A) };
    w.make_run(R);
    assert_eq!(w.thread_control(R, own), Ok(()));
    w.make_run(A);
    check_scheduled(w, "clock 5000", "r runs; a preemption: queued on a");
    check_scheduled(w, "clock 900000", "r runs");
    let w2 = limited(&[(A, 100), (B, 90), (R, 80)], 4_000);
    w2.make_run(R);
    assert_eq!(w2.thread_control(R, own), Ok(()));
    w2.make_run(A);
    check_scheduled(w2, "clock 5000; b cancel a", "b runs; a preemption: queued on a");
    give(w2, ROOT, A, 4_000);
    w2.make_run(B);
    check_scheduled(w2, "b cancel a", "a runs");
    play(w, "r delete a");
    expect(w, "deletion", "a gone");
}

/// X.2, Cancel: a message that is cut off is sent again: the quantum is still over.
#[test]
fn cancelled_message_is_sent_again() {
    let threads = [(A, 100), (B, 90)];
    check(&threads, 4_000, "clock 4000; x wait; b cancel a", "x runs; x got 4000 0 from a");
    check(&threads, 4_000, "clock 4000; x wait; clock 6000; b cancel a", "x got 6000 0 from a");
    check(&threads, 4_000, "clock 4000; x wait; b start a; x send a; x wait", "a runs");
    let w = limited(&threads, 4_000);
    play(w, "clock 4000; x wait");
    give(w, ROOT, A, 100);
    w.make_run(B);
    check_scheduled(w, "b cancel a", "a runs; x waits for any");
}

/// X.2, Preemption protocol: the message goes past the virtual registers.
#[test]
fn message_leaves_the_virtual_registers() {
    let long: String = (1..=63).map(|i| format!(" {i}")).collect();
    for reply in ["", " 1 2 3", &long] {
        let w = limited(&[(A, 100)], 4_000);
        let before: Vec<Word> = (0..64).map(|i| 0xABC0 + i * 0x10001).collect();
        w.set_mrs(A, &before);
        let utcb = w.utcb(A);
        utcb.set_br(0, 0x55);
        utcb.set_error_code(0x66);
        utcb.set_virtual_sender(ThreadId::from_raw(0x77));
        check_scheduled(w, &format!("clock 4000; x send a{reply}; x wait"), "a runs");
        assert_eq!(w.mrs(A), before, "after{reply}");
        assert_eq!((utcb.br(0), utcb.error_code(), utcb.virtual_sender().raw()), (0x55, 0x66, 0x77));
    }
    // Items are too much: the scheduler has to answer again.
    let w = limited(&[(A, 100)], 4_000);
    check_scheduled(w, "clock 4000; x send a map=0x1000/12", "x Send Overflow; x runs");
    check_scheduled(w, "x wait", "x got 4000 0 from a; a preemption: waits for x");
}

/// X.2, Scheduling: who runs on a donation uses up the donor's quantum. When that is over it goes on on its own time, and
/// the donor tells its scheduler as soon as it would run.
#[test]
fn donated_time_counts_for_the_donor() {
    let threads = [(B, 100), (A, 100), (C, 100)];
    let called = "b wait; clock 1000; a call b 1";
    check(&threads, 4_000, &format!("{called}; clock 3999"), "b runs");
    check(&threads, 4_000, &format!("{called}; clock 4000"), "b runs; a waits for b; x waits for any");
    // b has a slice of its own, from then on.
    check(&threads, 4_000, &format!("{called}; clock 13999"), "b runs");
    check(&threads, 4_000, &format!("{called}; clock 14000"), "c runs");
    let replied = format!("{called}; clock 5000; b reply a 2");
    check(&threads, 4_000, &replied, "x runs; x got 5000 0 from a; a preemption: waits for x");
    check(&threads, 4_000, &format!("{replied}; x send a; x wait; c wait"), "a runs; a got 2 from 'b");
    // The reply comes in time.
    check(&threads, 4_000, &format!("{called}; clock 3000; b reply a 2; clock 3999"), "a runs");
    check(&threads, 4_000, &format!("{called}; clock 3000; b reply a 2; clock 4000"), "x got 4000 0 from a");
    // The donor is ready.
    let w = limited(&[(A, 100), (B, 100)], 4_000);
    w.enter(A, |here, a| here.thread_switch(a, B.id()));
    check_scheduled(w, "clock 4000", "b runs; a ready");
    check_scheduled(w, "clock 14000", "x got 14000 0 from a");
}

/// X.2, Preemption protocol: the fast path does not take a thread past the message that it owes.
#[test]
fn fast_path_leaves_the_message() {
    let w = limited(&[(B, 100), (A, 100)], 4_000);
    play(w, "b wait");
    assert!(fast_ipc(w, A, B.id(), B.id(), Timeouts::NEVER));
    check_scheduled(w, "clock 4000", "b runs; a waits for b");
    assert!(!fast_ipc(w, B, A.id(), ThreadId::ANY, Timeouts::NEVER));
    check_scheduled(w, "b reply a 2", "x runs; a preemption: waits for x; b waits for any");
    check_scheduled(w, "x send a; x wait", "a runs; a got 2 from 'b");
    // With time again, it is fast again.
    play(w, "a wait");
    assert!(fast_ipc(w, X, A.id(), ThreadId::ANY, Timeouts::NEVER) || w.running() != Some(X));
    // A wait that begins when the quantum is over already.
    let w = limited(&[(B, 100), (A, 100)], 4_000);
    play(w, "b wait");
    w.k.machine.set_clock(4_100);
    w.ipc(A, B.id(), B.id(), Timeouts::NEVER);
    expect(w, "a late call", "b runs; a waits for b");
    assert!(!fast_ipc(w, B, A.id(), ThreadId::ANY, Timeouts::NEVER), "charged when b got the processor");
}

/// X.2, Preemption protocol: a thread that is busy in the kernel comes to the end of that first.
#[test]
fn message_comes_after_the_work_in_the_kernel() {
    let w = World::new();
    play(w, "root send s; r accept; r wait; s send r map=0x1000000/20; b accept; b wait");
    give(w, ROOT, R, 4_000);
    play(w, "r send b 1 map=0x1000000/20 ~");
    w.k.machine.set_clock(4_000);
    w.here().timer_interrupt();
    w.dispatch_steps(0);
    assert!(w.tcb(R).quantum_is_over() && w.tcb(R).work() == Work::Transfer);
    assert_eq!(w.here().next_event(), Some(10_000), "only its slice needs an end");
    play(w, "r finish");
    expect(w, "the transfer", "b got 1 from r; r preemption: queued on root");
    play(w, "root wait; root reply r");
    expect(w, "the answer", "r sent");
}

/// X.2, Preemption protocol: a thread whose quantum ends in the middle of a string, while a pager works on its time, is in
/// the string to its end.
#[test]
fn message_comes_after_the_string() {
    let w = with_memory();
    buffers(w, &[StringItem::new(0x1000).raw(), TO + 0x4000]);
    play(w, "x wait; r wait");
    give(w, ROOT, A, 4_000);
    [S, ROOT].into_iter().for_each(|server| set_priority(w, server, 0));
    w.make_run(A);
    w.send(A, X.id(), &words(&[StringItem::new(0x1000).raw(), FROM]));
    expect(w, "the fault", "a sends to x; x fault: waits for r; r runs");
    w.clock(4_000);
    expect(w, "the end of the quantum", "a sends to x; x fault: waits for r; r runs");
    assert!(w.tcb(A).quantum_is_over());
    play(w, "r send x map=0x2004000/12; x finish");
    expect(w, "the answer", "x got from a; a preemption: queued on root");
    play(w, "root wait; root reply a");
    expect(w, "the scheduler's answer", "a sent");
}

/// X.2, ExchangeRegisters: a halted thread tells nobody; it does when it is resumed.
#[test]
fn halted_thread_tells_when_it_is_resumed() {
    let w = limited(&[(A, 100), (B, 100)], 4_000);
    w.enter(A, |here, a| here.thread_switch(a, B.id()));
    check_scheduled(w, "b halt a; clock 5000", "b runs; a halted; x waits for any");
    check_scheduled(w, "b resume a; b wait", "x runs; x got 5000 0 from a");
    // It waits for the answer when it is halted.
    let halted = "clock 4000; x wait; b halt a; clock 6000; b send x 1; x send a; x wait";
    check(&[(A, 100), (B, 90)], 4_000, halted, "a halted; b runs");
    check(&[(A, 100), (B, 90)], 4_000, &format!("{halted}; b resume a"), "a runs");
}

/// X.2, Schedule: who gets a new quantum before it has told of the end has nothing to tell.
#[test]
fn new_quantum_in_time_leaves_no_message() {
    let w = limited(&[(B, 100), (A, 100)], 4_000);
    play(w, "b wait; a call b 1; clock 5000");
    give(w, ROOT, A, 4_000);
    w.make_run(B);
    check_scheduled(w, "b send a 2; b wait", "a runs; a got 2 from 'b; x waits for any");
    check_scheduled(w, "clock 8999", "a runs");
    check_scheduled(w, "clock 9000", "x got 9000 0 from a");
}

/// X.2, Schedule: the result has what is left of the quantum: nothing, at its end.
#[test]
fn rest_of_the_quantum_is_told() {
    let w = limited(&EQUAL, 4_000);
    let left = |w: World| {
        let reply = schedule(w, ROOT, nothing(A.id())).expect("root may").expect("a thread was named");
        (reply.state, reply.time.total_quantum())
    };
    w.clock(1_500);
    assert_eq!(left(w), (ScheduleResult::Running, Time::period_us(2_500)));
    w.make_run(A);
    w.clock(4_000);
    assert_eq!(left(w), (ScheduleResult::Waiting, Time::ZERO));
}

/// X.2, Preemption protocol: a thread can be deleted, or given another version, whatever its message does.
#[test]
fn message_ends_with_its_thread() {
    for script in ["clock 4000; x wait", "clock 4000"] {
        let w = limited(&[(A, 100), (R, 100)], 4_000);
        play(w, script);
        w.make_run(R);
        play(w, "r delete a");
        expect(w, script, "a gone");
        let w = limited(&[(A, 100), (R, 90)], 4_000);
        play(w, script);
        w.make_run(R);
        let version = ThreadControlArgs { dest: A.version(2), ..no_change(A) };
        assert_eq!(w.thread_control(R, ThreadControlArgs { space: A.id(), ..version }), Ok(()));
        play(w, "x wait");
        assert_eq!(w.tcb(A).id.get(), A.version(2));
        assert_eq!(w.outcome(A), "preemption: waits for x", "it tells again");
    }
}

// --- the sum of it all ---

const PAYERS: [Who; 6] = [A, B, C, D, X, R];

/// Who has paid for what.
struct Ledger {
    w: World,
    payer: Option<Who>,
    paid_us: [u64; PAYERS.len()],
    idle_us: u64,
}

impl Ledger {
    /// Quanta that do not end, but count.
    const PLENTY_US: u64 = 1 << 40;

    /// The payers are ready, with priorities, slices and delays of their own.
    fn new(random: &mut Random) -> Self {
        let w = ready(&PAYERS.map(|who| (who, random.one_of(&[90, 100, 100, 110]))));
        for who in PAYERS {
            let tcb = w.tcb(who);
            tcb.time_slice.set(random.one_of(&[Time::NEVER, Time::period_us(300), Time::period_us(5_000)]));
            tcb.slice_left_us.set(period_us(tcb.time_slice.get()));
            tcb.max_delay_us.set(random.one_of(&[0, 200, 2_000]));
            tcb.delay_left_us.set(tcb.max_delay_us.get());
            tcb.total_quantum.set(Time::from_raw(0x7FFF));
            tcb.quantum_left_us.set(Self::PLENTY_US);
        }
        Self { w, payer: w.running(), paid_us: [0; PAYERS.len()], idle_us: 0 }
    }

    /// The time passes, with the timer interrupts on the way.
    fn pass(&mut self, us: u64) {
        let end = self.w.k.machine.now_us() + us;
        loop {
            let now = self.w.k.machine.now_us();
            let event = self.w.here().next_event().filter(|&at| at <= end);
            let until = event.unwrap_or(end).max(now);
            match self.payer {
                Some(payer) => self.paid_us[place(payer)] += until - now,
                None => self.idle_us += until - now,
            }
            self.w.k.machine.set_clock(until);
            if event.is_none() {
                return self.check();
            }
            let ran = self.w.running();
            self.w.here().timer_interrupt();
            self.w.dispatch();
            self.turn(ran, None);
        }
    }

    /// `ran` ran until now; `given` is to whom it gave the processor, if it did. Whoever gets the processor pays for
    /// itself, unless it was given it: then who paid goes on to pay, and at the end of that the thread itself.
    fn turn(&mut self, ran: Option<Who>, given: Option<Who>) {
        let running = self.w.running();
        let payer = self.w.here().cpu.slice_owner.get().and_then(Who::at);
        if running == ran || (running.is_some() && running == given) {
            assert!(payer == self.payer || payer == running, "{payer:?} pays for {running:?} after {:?}", self.payer);
        } else {
            assert_eq!(payer, running, "{running:?} pays for itself");
        }
        self.payer = payer;
        self.check();
    }

    /// What the kernel counts is what the ledger has: of each thread, and together.
    fn check(&self) {
        let now = self.w.k.machine.now_us();
        self.w.here().charge();
        let used = PAYERS.map(|who| Self::PLENTY_US - self.w.tcb(who).quantum_left_us.get());
        assert_eq!(used, self.paid_us, "microseconds of the payers at {now}");
        assert_eq!(used.iter().sum::<u64>() + self.idle_us, now, "every microsecond is somebody's, or idle");
    }
}

fn place(who: Who) -> usize {
    PAYERS.iter().position(|&payer| payer == who).expect("a payer")
}

/// Somebody who runs does something; to whom it gives the processor by that.
fn act(w: World, random: &mut Random, who: Who) -> Option<Who> {
    let other = random.one_of(&PAYERS);
    let is_other = other != who;
    let is_expected = is_other && w.tcb(other).waiting_for().is_some_and(|id| [who.id(), ThreadId::ANY].contains(&id));
    match random.below(10) {
        0 => {
            // An equal that is queued on it may be next.
            let sender = w.tcb(who).send_queue.get().and_then(Who::at);
            w.wait(who, ThreadId::ANY);
            return sender;
        }
        1 => w.ipc(who, ThreadId::NIL, who.id(), Timeouts::new(Time::NEVER, Time::period_us(1 + random.below(20_000)))),
        2 if is_other => {
            w.enter(who, |here, thread| here.thread_switch(thread, other.id()));
            return Some(other);
        }
        3 => w.enter(who, |here, thread| here.thread_switch(thread, ThreadId::NIL)),
        4 if is_expected => w.send(who, other.id(), &[0]),
        5 if is_other => {
            // It may have to wait until the other receives.
            w.set_mrs(who, &[0]);
            w.ipc(who, other.id(), ThreadId::NIL, Timeouts::new(Time::period_us(3_000), Time::NEVER));
        }
        6 if who == R => {
            let prio = PrioControl::new(random.one_of(&[90, 100, 110]));
            assert!(schedule(w, who, ScheduleArgs { prio, ..nothing(other.id()) }).is_ok());
        }
        7 => w.utcb(who).set_preempt_flags(random.one_of(&[0, PreemptFlags::DELAY.raw()])),
        8 | 9 if is_expected => {
            w.set_mrs(who, &[0]);
            let from = random.one_of(&[other.id(), ThreadId::ANY]);
            let timeouts = Timeouts::new(Time::NEVER, random.one_of(&[Time::NEVER, Time::period_us(50_000)]));
            if !fast_ipc(w, who, other.id(), from, timeouts) {
                w.ipc(who, other.id(), from, timeouts);
            }
            return Some(other);
        }
        _ => {}
    }
    None
}

/// X.2, Scheduling: over random scripts every microsecond is charged to exactly one thread, the right one, or is idle.
#[test]
fn every_microsecond_is_charged_once() {
    for seed in 1..=20 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let mut ledger = Ledger::new(&mut random);
        for _ in 0..2_000 {
            let us = random.one_of(&[0, 1, 7, 100, 3_000, 12_000]);
            ledger.pass(us);
            if let Some(who) = ledger.w.running() {
                let given = act(ledger.w, &mut random, who);
                ledger.turn(Some(who), given);
            }
        }
        assert!(ledger.paid_us.iter().filter(|&&us| us > 0).count() > 2, "threads have run: {:?}", ledger.paid_us);
    }
}
