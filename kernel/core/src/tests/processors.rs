//! More than one processor (X.2, Processors).
//!
//! What does not depend on where threads run is shown by [`super::script::check`] and [`super::everywhere`] in worlds of
//! several processors. Here is what does: the flag X, moves, and what processors do at the same time. A step with `~` leaves
//! the other processors alone: what it posted to them arrives with the next whole step or `settle`.

use l4_abi::{ExregsControl, MsgTag, ScheduleResult, StringItem, SysError, ThreadId, Time, Timeouts, Word, protocol};

use super::deletion::crowd;
use super::invariants;
use super::random::Random;
use super::script::{expect, play};
use super::stage::{Place, Stage};
use super::strings::{FROM, TO, buffers, string, with_memory, words};
use super::world::{A, B, N, Q, R, ROOT, Who, World, X, Y, Z, activation, deletion, no_change, on_several_processors};
use crate::cross::ask::{Reply, question};
use crate::lock::Held;
use crate::machine::CpuId;
use crate::syscall::ThreadControlArgs;
use crate::thread::{Status, Work};

/// The cast, a on processor 0, x on 1, r on 2 and the rest on 0.
pub fn apart() -> World {
    let w = World::of_processors(3);
    w.place(X, 1);
    w.place(R, 2);
    w
}

/// Plays a script in such a world and compares what threads see.
#[track_caller]
fn check(script: &str, expected: &str) {
    let w = apart();
    play(w, script);
    expect(w, script, expected);
    invariants::check_rest(w.k);
}

// --- the flag X ---

/// X.2, Ipc, message tag: X says that the message crossed processors, be it call or answer, waited for or queued.
#[test]
fn flag_x_says_whether_a_message_crossed_processors() {
    let is_marked = |w: World, who| w.utcb(who).tag().raw() & MsgTag::XCPU != 0;
    for script in ["x wait; a call x 1", "a call x 1; x wait"] {
        let w = apart();
        play(w, script);
        assert!(is_marked(w, X), "{script}");
        play(w, "x reply a 2");
        assert!(is_marked(w, A), "{script}");
        play(w, "b wait; a send b 1");
        assert!(!is_marked(w, B), "a message on one processor");
        w.place(X, 0);
        play(w, "a send x 3");
        assert!(!is_marked(w, X), "x has come to a");
    }
    // The answer to a fault and the message of an interrupt have it, too; a sender's own X does not count.
    let w = apart();
    play(w, "root handle irq5; x handle irq6; x wait; raise 6; b wait");
    assert!(is_marked(w, X), "an interrupt");
    w.send(A, B.id(), &[MsgTag::new(0, 0, 0).with_flags(MsgTag::XCPU).raw()]);
    assert!(!is_marked(w, B), "a forged flag");
}

// --- on the way ---

/// X.2, ThreadControl, ExchangeRegisters: who is on its way to its partner can be deleted, cancelled, halted and asked.
#[test]
fn sender_can_be_stopped_on_its_way() {
    check("a send x 1 ~; root delete a; x wait", "a gone; x waits for any");
    check("a send x 1 ~; b cancel a", "a Send Canceled");
    check("a send x 1 ~; b cancel-receive a", "a queued on x");
    check("a call x 1 ~; b halt a; x wait", "a waits for x, halted; x got 1 from a");
    check("x wait; a call x 1 ~; b cancel a", "a Receive Canceled; x got 1 from a");
    check("a send x 1 snd=50 ~; clock 50", "a Send Timeout");
    check("a send x 1 snd=0 ~; settle", "a Send Timeout");
    let w = apart();
    play(w, "a send x 1 ~");
    assert_eq!(w.state(A), ScheduleResult::PendingSend);
}

/// X.2, Ipc: a sender that finds its receiver gone when it arrives sees that it does not exist; one that was moved it
/// follows.
#[test]
fn receiver_can_go_while_a_sender_comes() {
    check("a send x 1 ~; root delete x", "a Send NonExisting");
    // Whoever was posted before arrives before.
    check("x wait; a send x 1 ~; root delete x", "a sent; x gone");
    check("x wait; a send x 1 ~; root place x 2", "a sent; x got 1 from a");
    check("a send x 1 ~; root place x 0; x wait", "a sent; x got 1 from a");
    check("x wait; a send x 1 snd=0 ~; root place x 2", "a sent; x got 1 from a");
    check("x wait; a call x 1 ~; root place x 0; x reply a 2", "a got 2 from x");
    check("a call x 1 ~; root place x 2; root place a 1; x wait; x reply a 2", "a got 2 from x");
}

/// X.2, Schedule: both of a pair can be moved at once, wherever they are; also to where the other was.
#[test]
fn pairs_can_be_moved() {
    for (first, second) in [(2, 2), (1, 0), (2, 0), (1, 2)] {
        for (before, after) in [
            ("a call x 1", "x wait; x reply a 2"),
            ("x wait; a call x 1", "x reply a 2"),
            ("x wait", "a call x 1; x reply a 2"),
            ("a call x 1 ~", "x wait; x reply a 2"),
        ] {
            let moves = format!("root place a {first} ~; root place x {second} ~");
            check(&format!("{before}; {moves}; settle; {after}"), "a got 2 from x; x waits for any");
        }
    }
}

/// A receiver that is being moved has not left its wait: a send without delay meets it, wherever it comes from.
#[test]
fn send_without_delay_meets_a_receiver_that_is_being_moved() {
    // From where it goes to, from where it comes from, and from elsewhere.
    for from in [1, 0, 2] {
        let w = apart();
        w.place(Y, from);
        play(w, "a wait; root place a 1 ~; y send a 7 snd=0");
        expect(w, &format!("a send from {from}"), "y sent; a got 7 from y");
    }
}

/// The running one finishes the call that moves it; what it does then it does there.
#[test]
fn thread_moves_itself() {
    let w = apart();
    play(w, "r place r 0");
    assert_eq!((w.tcb(R).affinity(), w.tcb(R).home()), (CpuId::new(0), CpuId::new(0)));
    assert_eq!(w.utcb(R).processor_no(), 0);
    play(w, "r place r 2; r place r 1; a send r 1; r wait; r place r 0");
    expect(w, "moves", "r got 1 from a");
    assert_eq!(w.utcb(R).processor_no(), 0);
}

/// X.2, Processors: a thread can be moved in any state, and stays in it.
#[test]
fn thread_can_be_moved_in_any_state() {
    let rows = [
        ("", "a ready"),
        ("a wait", "a waits for any"),
        ("a wait x", "a waits for x"),
        ("a send x 1", "a queued on x"),
        ("a send b 1", "a queued on b"),
        ("b halt a", "a halted"),
        ("a wait; b halt a", "a waits for any, halted"),
        ("a pager x; a fault 0x5000", "a fault: queued on x"),
        ("x wait; a pager x; a fault 0x5000", "a fault: waits for x"),
        ("a handler b; b wait; a except", "a exception: waits for b"),
    ];
    for (script, state) in rows {
        for route in [&[1][..], &[2], &[1, 0], &[1, 2, 1], &[2, 1, 0]] {
            let w = apart();
            play(w, script);
            for &cpu in route {
                w.place(A, cpu);
            }
            expect(w, &format!("{script} and moves {route:?}"), state);
            let last = CpuId::new(route[route.len() - 1] as u32);
            assert_eq!((w.tcb(A).affinity(), w.utcb(A).processor_no()), (last, last.index() as Word));
            // And it goes on from there.
            play(w, "root delete a");
        }
    }
    let w = apart();
    w.create(N);
    w.place(N, 1);
    play(w, "x send n 1 snd=0");
    expect(w, "an inactive thread", "n inactive; x Send Timeout");
    w.activate(N);
    w.place(N, 2);
    play(w, "root send n ~");
    w.set_mrs(ROOT, &[protocol::start_tag().raw(), 1, 2]);
    w.settle();
    assert_eq!(w.tcb(N).affinity(), CpuId::new(2), "it starts where it was put");
}

/// X.2, Processors: pending timeouts go on when a thread is moved, and when it follows a moved receiver.
#[test]
fn timeouts_go_on_elsewhere() {
    check("a wait rcv=100; root place a 1; clock 99", "a waits for any");
    check("a wait rcv=100; root place a 1; clock 100", "a Receive Timeout");
    check("a wait rcv=100; root place a 1; root place a 0; clock 100", "a Receive Timeout");
    check("a wait rcv=100; clock 50; root place a 1; clock 100", "a Receive Timeout");
    check("a send x 1 snd=100; root place x 2; clock 99", "a queued on x");
    check("a send x 1 snd=100; root place x 2; clock 100", "a Send Timeout");
    check("a send x 1 snd=100; root place x 0; root place x 2; clock 100; x wait", "a Send Timeout; x waits for any");
    check("a send x 1 snd=100; root place a 2; clock 100", "a Send Timeout");
}

// --- those who are queued ---

/// X.2, Ipc, send: who is queued on a thread follows it in its order, back and forth.
#[test]
fn queued_senders_follow_in_their_order() {
    let sent = "a send x 1; r send x 2; b send x 3";
    for moves in
        ["root place x 2", "root place x 0", "root place x 0; root place x 1", "root place x 2 ~; root place x 0"]
    {
        check(&format!("{sent}; {moves}; x wait"), "x got 1 from a; a sent; r queued on x; b queued on x");
        check(&format!("{sent}; {moves}; x wait; x wait; x wait"), "x got 3 from b; b sent");
        check(&format!("{sent}; {moves}; x wait r"), "x got 2 from r; a queued on x; b queued on x");
        check(&format!("{sent}; {moves}; root delete x"), "a Send NonExisting; r Send NonExisting; b Send NonExisting");
        check(&format!("{sent}; {moves}; c cancel a; x wait"), "a Send Canceled; x got 2 from r");
    }
    check("b send x 1 as=a; root place x 2; x wait a", "x got 1 from a by b");
    let gone = "b send x 1 as=a snd=50; root place x 2; clock 50; root place x 0; c send x 2; x wait";
    check(gone, "b Send Timeout; x got 2 from c");
}

/// A crowd that is queued on a thread follows it in parts; who is left behind is not forgotten, not taken for somebody
/// else's, and its timeout goes on.
#[test]
fn crowd_follows_a_moved_thread() {
    let crowded = || {
        let w = World::with_processors(200, 3);
        w.start(X);
        w.start(R);
        w.start(A);
        w.place(X, 1);
        let senders = crowd(w, 60);
        for &sender in &senders {
            w.ipc(sender, X.id(), ThreadId::NIL, Timeouts::new(Time::period_us(500), Time::NEVER));
        }
        w.on(1).dispatch();
        (w, senders)
    };
    let (w, senders) = crowded();
    play(w, "root place x 2 ~");
    assert!(w.k.cpus[1].orphans.get().is_some(), "not all can go at once");
    w.clock(499);
    assert!(senders.iter().all(|&who| w.outcome(who) == "queued on x"));
    w.clock(500);
    assert!(senders.iter().all(|&who| w.outcome(who) == "Send Timeout"));
    // Deleted and made anew before all have gone.
    let (w, senders) = crowded();
    play(w, "root place x 2 ~; root delete x");
    w.start(X);
    assert!(senders.iter().all(|&who| w.outcome(who) == "Send NonExisting"));
    play(w, "x wait; a send x 1");
    expect(w, "a new x", "x got 1 from a");
    // Moved back before all have gone.
    let (w, senders) = crowded();
    play(w, "root place x 2 ~; root place x 1 ~; root place x 0; x wait");
    let (sent, queued): (Vec<Who>, Vec<Who>) = senders.into_iter().partition(|&who| w.outcome(who) == "sent");
    assert_eq!(sent.len(), 1, "x got one of the messages");
    assert!(queued.into_iter().all(|who| w.outcome(who) == "queued on x"));
}

/// However many arrive at a processor that sleeps, or whose thread runs without a break, none waits for the next one.
#[test]
fn no_arrival_is_forgotten() {
    let w = World::with_processors(200, 2);
    w.start(X);
    w.start(A);
    play(w, "x wait x");
    w.place(X, 1);
    for sender in crowd(w, 60) {
        w.trap_ipc(sender, X.id(), ThreadId::NIL, Timeouts::NEVER);
        w.dispatch_steps(0);
    }
    let other = w.on(1);
    assert!(w.k.machine.take_kick(CpuId::new(1)), "the processor is told");
    other.dispatch_steps(0);
    assert!(other.here().is_behind(), "it has to look again by itself");
    assert!(other.here().next_event().is_some_and(|at| at <= 100), "and the timer sees to that");
    other.dispatch_steps(100);
    assert!(!other.here().is_behind() && !w.k.machine.take_kick(CpuId::new(1)));
}

/// Who arrives has no time slice to give: the running thread keeps the processor, and its time.
#[test]
fn arrivals_do_not_take_the_time_of_the_running_thread() {
    let w = apart();
    w.place(Y, 1);
    play(w, "x wait");
    w.make_run(Y);
    w.make_run(A);
    w.clock(100);
    play(w, "a call x 1");
    expect(w, "a call from elsewhere", "x got 1 from a");
    assert_eq!(w.on(1).running(), Some(Y));
    assert_eq!(w.on(1).here().cpu.slice_owner.get(), Some(Y.tcb()), "y pays for itself");
    w.on(1).here().charge();
    let before = w.tcb(Y).slice_left_us.get();
    w.clock(300);
    w.on(1).here().charge();
    assert_eq!(w.tcb(Y).slice_left_us.get(), before - 200);
    assert_eq!(w.tcb(A).slice_left_us.get(), 10_000 - 100, "a has paid for its time before only");
}

// --- strings and faults ---

const PAGE: Word = 0x1000;

/// a on 0 sends two pages to x on 1; the second page of the source or of the destination is missing, and r on 2, the pager of
/// both, has the fault.
fn faulting(is_source: bool, is_queued: bool) -> World {
    let w = with_memory();
    let (from, to) = if is_source { (FROM + 3 * PAGE, TO) } else { (FROM, TO + 3 * PAGE) };
    buffers(w, &[StringItem::new(2 * PAGE).raw(), to]);
    for who in [A, X] {
        w.utcb(who).set_xfer_timeouts(Timeouts::new(Time::period_us(500), Time::period_us(900)));
    }
    play(w, if is_queued { "r wait" } else { "r wait; x wait" });
    w.send(A, X.id(), &words(&string(from, 2 * PAGE)));
    play(w, if is_queued { "x wait" } else { "" });
    assert_eq!((w.state(A), w.state(X)), (ScheduleResult::Sending, ScheduleResult::Receiving));
    w
}

/// Each of these with the fault on either side.
pub fn with_faults(each: impl Fn(World, Who, &str)) {
    for shift in 0..3 {
        for (is_source, is_queued) in [(true, false), (true, true), (false, false), (false, true)] {
            let w = on_several_processors(shift, || faulting(is_source, is_queued));
            let (who, answer) =
                if is_source { (A, "r send a map=0x1004000/12") } else { (X, "r send x map=0x2004000/12") };
            each(w, who, answer);
            invariants::check_rest(w.k);
        }
    }
}

/// X.2, Schedule: both sides of a string and the pager can be moved while a page is missing, also back and forth; when it
/// is there, the string goes on.
#[test]
fn string_goes_on_after_moves() {
    for moves in ["place a 1", "place x 0", "place r 1", "place a 2; place x 2", "place a 1; place x 0; place r 0"] {
        for is_there_and_back in [false, true] {
            with_faults(|w, _, answer| {
                let places = [A, X, R].map(|who| w.tcb(who).affinity().index());
                moves.split("; ").for_each(|step| play(w, &format!("root {step}")));
                if is_there_and_back {
                    [A, X, R].into_iter().zip(places).for_each(|(who, cpu)| w.place(who, cpu));
                }
                play(w, answer);
                expect(w, moves, "a sent; x got from a; r sent");
            });
        }
    }
}

/// X.2, ExchangeRegisters, ThreadControl: either side can be cancelled or deleted by a third thread while a page is missing,
/// and the other side sees that.
#[test]
fn string_can_be_ended_by_others() {
    with_faults(|w, _, _| {
        play(w, "b cancel a");
        expect(
            w,
            "cancel a",
            "a Send Aborted; x Receive Aborted; r got 16793600 5242880 from a".split(';').next().unwrap_or(""),
        );
        expect(w, "cancel a", "a Send Aborted; x Receive Aborted");
    });
    with_faults(|w, _, _| {
        play(w, "y cancel x");
        expect(w, "cancel x", "a Send Aborted; x Receive Aborted");
    });
    with_faults(|w, _, _| {
        play(w, "root delete a");
        expect(w, "deletion of a", "a gone; x Receive Aborted");
    });
    with_faults(|w, _, _| {
        play(w, "root delete x");
        expect(w, "deletion of x", "x gone; a Send Aborted");
    });
    with_faults(|w, _, _| {
        play(w, "root delete a ~; root delete x");
        expect(w, "both deletions", "a gone; x gone");
    });
}

/// X.2, Ipc, XferTimeouts: the transfer timeout ends the string on its time, wherever the fault is by then.
#[test]
fn transfer_timeout_holds_across_processors() {
    for moves in ["", "root place a 1; root place x 0", "root place x 2; root place a 2"] {
        with_faults(|w, _, _| {
            play(w, moves);
            w.clock(499);
            assert_eq!(w.state(A), ScheduleResult::Sending);
            w.clock(500);
            expect(w, moves, "a Send XferTimeoutInvoker; x Receive XferTimeoutPartner");
        });
    }
}

/// X.2, Ipc, XferTimeouts: a side of a string that waits for its pager where it runs has its timeout there. So whoever
/// posts it there tells the processor, which may be busy; [`World::settle`] checks that.
#[test]
fn processor_is_told_of_a_string_with_a_timeout() {
    with_faults(|w, who, _| {
        let next = w.at_home_of(who).here().next_event();
        assert!(next.is_some_and(|at| at <= 500), "{}: {next:?}", who.name());
    });
}

/// The pager of a fault in the middle of a string dies, before or after it has the message.
#[test]
fn pager_of_a_string_can_die() {
    with_faults(|w, _, _| {
        play(w, "root delete r");
        w.clock(500);
        expect(w, "a pager that had the fault", "a Send XferTimeoutInvoker; x Receive XferTimeoutPartner");
    });
    let w = on_several_processors(0, with_memory);
    buffers(w, &[StringItem::new(2 * PAGE).raw(), TO + 3 * PAGE]);
    play(w, "x wait");
    w.send(A, X.id(), &words(&string(FROM, 2 * PAGE)));
    expect(w, "a busy pager", "x fault: queued on r");
    play(w, "root delete r");
    expect(w, "its end", "a Send Aborted; x Receive Aborted");
}

// --- propagation ---

/// X.2, Propagation: the answer reaches the virtual sender, wherever it, the actual sender and the receiver run, and also
/// if the virtual sender is moved in the middle.
#[test]
fn answer_reaches_a_virtual_sender_elsewhere() {
    for cpus in 0..27 {
        let [virtual_sender, actual, receiver] = [cpus % 3, cpus / 3 % 3, cpus / 9];
        for moves in ["", "; root place a 2 ~", "; root place a 0 ~"] {
            let w = World::of_processors(3);
            w.place(A, virtual_sender);
            w.place(B, actual);
            w.place(X, receiver);
            play(w, &format!("x wait; b wait; a call b 1; b send x 2 as=a ~{moves}; settle; x reply a 3"));
            expect(w, &format!("{cpus}{moves}"), "x waits for any; b sent; a got 3 from x");
        }
    }
}

// --- interrupts ---

/// X.2, Interrupt protocol: a handler elsewhere gets and answers interrupts as one here does; the line can be given to
/// others and taken back, and its message is not lost as long as it has the same handler.
#[test]
fn handler_may_be_elsewhere() {
    check("x handle irq5; x wait; raise 5; x reply irq5; raise 5", "x got from irq5; irq5 waits for x, masked");
    check("x handle irq5; raise 5; x handle irq5; x wait", "x got from irq5; irq5 waits for x, masked");
    check("x handle irq5; raise 5; r handle irq5; x wait; r wait; raise 5", "x waits for any; r got from irq5");
    check("x handle irq5; raise 5; x ignore irq5; x wait; raise 5", "x waits for any; irq5 nobody's, masked");
    check("x handle irq5; raise 5; root delete x; raise 5", "irq5 nobody's, masked");
    check("x handle irq5; raise 5; root delete x; r handle irq5; r wait; raise 5", "r got from irq5");
    check("x handle irq9; raise 9; raise 9; x wait; x reply irq9; x reply irq9", "x waits for any; irq9 idle, open");
    let w = apart();
    play(w, "x handle irq5; raise 5");
    let args = ThreadControlArgs { dest: ThreadId::interrupt(5), pager: N.id(), ..deletion(ROOT) };
    assert_eq!(w.thread_control(ROOT, args), Err(SysError::InvalidThread));
    play(w, "x wait");
    expect(w, "a handler that does not exist", "x got from irq5");
}

/// X.2, Processors: interrupts go to the processor of their thread. When it is moved no interrupt is lost, whatever state
/// it is in, and each comes once.
#[test]
fn interrupt_threads_can_be_moved() {
    let w = apart();
    let to = |cpu: usize| {
        let args = super::schedule::nothing(ThreadId::interrupt(9));
        let args = crate::syscall::ScheduleArgs { processor: l4_abi::ProcessorControl::new(cpu as u16), ..args };
        assert!(w.enter(ROOT, |here, root| here.schedule(root, args)).is_ok());
    };
    play(w, "x handle irq9; x wait");
    for cpu in [1, 2, 0] {
        to(cpu);
        assert_eq!(w.k.machine.raise(9).map(CpuId::index), Some(cpu), "an idle line is routed at once");
        play(w, "raise 9");
        expect(w, "an interrupt", "x got from irq9; irq9 waits for x, open");
        to((cpu + 1) % 3);
        play(w, "raise 9; x reply irq9");
        expect(w, "one that came again", "x got from irq9; irq9 waits for x, open");
        play(w, "x reply irq9");
        expect(w, "the answer", "x waits for any; irq9 idle, open");
        // It is blocked in its send phase.
        play(w, "a send x 1; raise 9");
        to(cpu);
        play(w, "x wait; x reply irq9");
        expect(w, "a queued message", "x waits for any; irq9 idle, open");
    }
    // It comes to where the line was before, in the middle of the move.
    to(0);
    let args = super::schedule::nothing(ThreadId::interrupt(9));
    let args = crate::syscall::ScheduleArgs { processor: l4_abi::ProcessorControl::new(2), ..args };
    w.begin(ROOT, |here, root| here.schedule(root, args)).expect("root may");
    w.here().interrupt(9);
    w.dispatch();
    expect(w, "an interrupt during a move", "x got from irq9; irq9 waits for x, open");
}

// --- calls of several processors at once ---

/// Who does what.
pub type Call<T> = (Who, Box<dyn FnOnce(World, Who) -> T + Send>);

/// Lets processors do what each is to do, all at the same time, in the order that `seed` says. What each call returned.
pub fn at_once<T: Send + 'static>(w: World, seed: u64, calls: Vec<Call<T>>) -> Vec<T> {
    let mut random = Random(seed);
    let mut stage = Stage::new(w.cpus().len());
    let (results, found) = std::sync::mpsc::channel();
    for (index, (who, call)) in calls.into_iter().enumerate() {
        let (results, cpu) = (results.clone(), w.tcb(who).home().index());
        stage.begin(cpu, random.next(), 3, move || {
            let result = call(w, who);
            w.on(cpu).dispatch_steps(100);
            results.send((index, result)).expect("the test waits for it");
        });
    }
    for _ in 0..100_000 {
        let cpu = random.below(w.cpus().len() as u64) as usize;
        if stage.place(cpu) != Place::Done {
            stage.go_on(cpu);
        } else if w.k.machine.take_kick(CpuId::new(cpu as u32)) {
            stage.begin(cpu, random.next(), 3, move || w.on(cpu).dispatch_steps(100));
        } else if w.cpus().all(|cpu| stage.place(cpu) == Place::Done) {
            break;
        }
    }
    assert!(w.cpus().all(|cpu| stage.place(cpu) == Place::Done), "seed {seed}: nobody hangs");
    w.finish_all();
    invariants::check(w.k);
    invariants::check_rest(w.k);
    let mut found: Vec<(usize, T)> = found.try_iter().collect();
    found.sort_by_key(|&(index, _)| index);
    found.into_iter().map(|(_, result)| result).collect()
}

/// A call that has another processor revoke something is over when all have forgotten that, and memory is not used anew before:
/// here it is the UTCB page of z.
#[test]
fn answers_come_when_what_was_revoked_is_forgotten() {
    let w = World::of_processors(2);
    w.place(Z, 1);
    assert!(w.access(Z, Z.utcb_location() as usize, true), "it is its own");
    let mut stage = Stage::new(2);
    stage.begin(0, 0, 0, move || {
        let args = ThreadControlArgs { space: A.id(), ..no_change(Z) };
        assert_eq!(w.trap(ROOT, |here, root| here.thread_control(root, args)), Ok(()));
    });
    assert_eq!(stage.place(0), Place::Waits);
    // It stops wherever it can.
    stage.begin(1, 0, 1, move || w.on(1).dispatch_steps(9));
    let mut has_revoked = false;
    while stage.place(0) != Place::Done {
        has_revoked |= !w.k.machine.has_forgotten();
        stage.go_on(0);
        if stage.place(1) != Place::Done && stage.place(0) != Place::Done {
            stage.go_on(1);
        }
        // Whatever is free may be taken at once.
        let frame = w.k.kmem.alloc(w.k.machine, &mut Held::nothing()).expect("memory");
        w.k.kmem.free(w.k.machine, &mut Held::nothing(), frame);
    }
    assert!(has_revoked && w.k.machine.has_forgotten());
    while stage.place(1) != Place::Done {
        stage.go_on(1);
    }
    w.finish_all();
}

/// Three threads of the root task, a processor each.
fn privileged() -> World {
    let w = World::of_processors(3);
    w.start(Q);
    w.place(R, 1);
    w.place(Q, 2);
    w
}

fn control(who: Who, args: ThreadControlArgs) -> Call<Result<(), SysError>> {
    (who, Box::new(move |w, who| w.trap(who, |here, thread| here.thread_control(thread, args))))
}

/// X.2, ThreadControl: threads that delete each other at the same time, two or three in a ring: nobody hangs, and at least
/// one of them is left.
#[test]
fn threads_that_delete_each_other_do_not_hang() {
    for seed in 0..200 {
        let w = privileged();
        let results = at_once(w, seed, vec![control(R, deletion(Q)), control(Q, deletion(R))]);
        let left = [R, Q].into_iter().filter(|&who| w.tcb(who).exists()).count();
        assert_eq!(left, 1, "seed {seed}: {results:?}");
        let w = privileged();
        let ring = vec![control(ROOT, deletion(R)), control(R, deletion(Q)), control(Q, deletion(ROOT))];
        let results = at_once(w, seed, ring);
        let left = [ROOT, R, Q].into_iter().filter(|&who| w.tcb(who).exists()).count();
        assert!((1..=2).contains(&left), "seed {seed}: {left} are left, {results:?}");
    }
}

/// A thread that is in the middle of a call for another one is deleted only when it has its answer, and nobody is left
/// half-deleted.
#[test]
fn deletion_of_the_asker_waits_for_its_answer() {
    for seed in 0..200 {
        let w = privileged();
        w.place(X, 2);
        let halt = ExregsControl::APPLY_HALT | ExregsControl::HALT;
        let args = ThreadControlArgs { pager: R.id(), ..super::world::no_change(X) };
        assert_eq!(w.thread_control(ROOT, args), Ok(()));
        let asks: Call<Result<(), SysError>> = (
            R,
            Box::new(move |w, who| {
                let args = super::world::no_registers(X.id());
                let args = crate::syscall::Exregs { control: halt, ..args };
                w.trap(who, |here, thread| here.exchange_registers(thread, args)).map(|_| ())
            }),
        );
        let results = at_once(w, seed, vec![control(ROOT, deletion(R)), asks]);
        assert_eq!(results, [Ok(()), Ok(())], "seed {seed}");
        expect(w, "both calls", "r gone; x halted");
    }
}

/// X.2, Schedule: threads that move each other, or one thread to different places, at the same time.
#[test]
fn threads_can_be_moved_at_the_same_time() {
    let to = |who: Who, dest: Who, cpu: u16| -> Call<()> {
        let processor = l4_abi::ProcessorControl::new(cpu);
        let args = crate::syscall::ScheduleArgs { processor, ..super::schedule::nothing(dest.id()) };
        (who, Box::new(move |w, who| _ = w.trap(who, |here, t| here.schedule(t, args)).expect("root may")))
    };
    for seed in 0..200 {
        let w = privileged();
        at_once(w, seed, vec![to(R, Q, 0), to(Q, R, 0)]);
        assert_eq!([R, Q].map(|who| w.tcb(who).affinity().index()), [0, 0], "seed {seed}");
        let w = privileged();
        play(w, "a send x 1; b send x 2; x wait");
        at_once(w, seed, vec![to(ROOT, X, 2), to(R, X, 1), to(Q, X, 0)]);
        play(w, "x wait");
        expect(w, "moves", "x got 2 from b");
        let w = privileged();
        at_once(w, seed, vec![to(ROOT, ROOT, 1), to(R, R, 2), to(Q, Q, 0)]);
        assert_eq!([ROOT, R, Q].map(|who| w.tcb(who).affinity().index()), [1, 2, 0], "seed {seed}");
    }
}

/// X.2, ThreadControl: who creates the same thread on two processors finds one of them first; it exists once.
#[test]
fn thread_can_be_created_on_two_processors_at_once() {
    let create = |who| {
        let args = ThreadControlArgs { pager: ThreadId::NIL, utcb_location: super::world::UNCHANGED, ..activation(N) };
        control(who, args)
    };
    for seed in 0..200 {
        let w = privileged();
        let before = w.k.kmem.free_count();
        let results = at_once(w, seed, vec![create(ROOT), create(R), create(Q)]);
        assert!(results.iter().all(Result::is_ok), "seed {seed}: {results:?}");
        expect(w, "creations", "n inactive");
        assert_eq!(w.k.spaces.get(w.k.space_of(N.tcb())).threads(), 1, "seed {seed}");
        w.delete(ROOT, N).expect("root may");
        assert_eq!(w.k.kmem.free_count(), before, "seed {seed}");
    }
}

/// Creation, deletion and use of a thread at the same time: each call has one of its results, and nothing is lost.
#[test]
fn thread_can_be_used_while_it_is_deleted() {
    for seed in 0..400 {
        let w = privileged();
        w.place(X, 1);
        w.place(A, 2);
        let send: Call<Result<(), SysError>> = (
            A,
            Box::new(|w, who| {
                w.set_mrs(who, &[super::world::tag(0, 0)]);
                w.trap_ipc(who, X.id(), ThreadId::NIL, Timeouts::NEVER);
                Ok(())
            }),
        );
        let args = super::world::no_registers(X.id());
        let ask: Call<Result<(), SysError>> = (
            R,
            Box::new(move |w, who| {
                let asked = w.trap(who, |here, thread| here.exchange_registers(thread, args));
                asked.map(|_| ()).or(Ok(()))
            }),
        );
        let results = at_once(w, seed, vec![control(ROOT, deletion(X)), send, ask]);
        assert!(results.iter().all(Result::is_ok), "seed {seed}: {results:?}");
        expect(w, &format!("seed {seed}"), "x gone; a Send NonExisting");
    }
}

/// A call about a thread that goes back and forth between processors comes to an end.
#[test]
fn thread_that_never_rests_can_be_asked() {
    for seed in 0..100 {
        let w = privileged();
        w.place(X, 2);
        play(w, "x wait");
        w.set_mrs(A, &[super::world::tag(0, 0)]);
        let ball: Call<Result<(), SysError>> = (
            A,
            Box::new(|w, who| {
                w.trap_ipc(who, X.id(), X.id(), Timeouts::NEVER);
                Ok(())
            }),
        );
        let results = at_once(w, seed, vec![ball, control(R, deletion(A))]);
        assert_eq!(results, [Ok(()), Ok(())], "seed {seed}");
        expect(w, &format!("seed {seed}"), "a gone");
    }
}

/// a on 0 sends to x on 1 again and again, which waits again and again, while r on 2 does `call`. The processors take turns
/// in this order: each goes up to where it waits for others, or has nothing to do. The call must come to an end.
#[track_caller]
fn check_in_step(order: [usize; 3], items: &[Word], call: impl Fn(World) + Copy + Send + 'static) {
    let w = apart();
    w.k.machine.set_clock(0);
    play(w, "x accept; x wait");
    let mut stage = Stage::new(3);
    let is_ready = move |cpu: usize, who: Who| {
        let tcb = w.tcb(who);
        tcb.is_at(CpuId::new(cpu as u32)) && tcb.status() == Status::Running && tcb.work() == Work::None
    };
    let message = words(items);
    let mut has_begun = false;
    for turn in 0..1000 {
        for cpu in order {
            if stage.place(cpu) != Place::Done {
                stage.go_on(cpu);
                continue;
            }
            if cpu == 2 && has_begun {
                return;
            }
            let (begins, message) = (turn == 10 && cpu == 2, message.clone());
            has_begun |= begins;
            stage.begin(cpu, 0, 0, move || {
                if begins {
                    return call(w);
                }
                w.on(cpu).dispatch_steps(9);
                if is_ready(cpu, A) {
                    w.set_mrs(A, &message);
                    w.trap_ipc(A, X.id(), ThreadId::NIL, Timeouts::NEVER);
                } else if is_ready(cpu, X) {
                    w.trap_ipc(X, ThreadId::NIL, ThreadId::ANY, Timeouts::NEVER);
                }
                w.on(cpu).dispatch_steps(9);
            });
        }
    }
    panic!("{order:?}, {items:?}: the call does not end");
}

/// Nobody escapes a call by going to and fro in step with its questions.
#[test]
fn thread_that_is_always_elsewhere_can_be_asked() {
    let map = l4_abi::MapItem::map(l4_abi::Fpage::NIL, 0).words();
    for order in [[0, 1, 2], [1, 0, 2], [0, 2, 1]] {
        for items in [&[][..], &map] {
            let deletes = |w: World| w.trap(R, |here, r| here.thread_control(r, deletion(A))).expect("it may");
            check_in_step(order, items, deletes);
            let asks = |w: World| {
                w.utcb(A).set_pager(R.id());
                let args = super::world::no_registers(A.id());
                w.trap(R, |here, r| here.exchange_registers(r, args)).expect("it may");
            };
            check_in_step(order, items, asks);
        }
    }
}

/// X.2, SpaceControl: a redirector that is set while threads of the space run elsewhere catches all that they send then.
#[test]
fn redirector_holds_on_all_processors() {
    let w = apart();
    w.place(Y, 2);
    play(w, "x wait; y wait; a wait");
    let waits = |who: Who| !w.tcb(who).waits_for.get().is_nil();
    assert!(waits(X) && waits(Y), "plain waits");
    play(w, "root redirect x z");
    assert!(!waits(X) && !waits(Y), "no wait is plain in a redirected space");
    play(w, "b send x 1; z wait; x send a 2");
    expect(w, "a redirected message", "z got 2 from x for a; a waits for any");
}

/// The queue of one who is away is where it runs, and deletion finds it there.
#[test]
fn senders_of_a_thread_that_is_away_are_failed() {
    check("x send r 1; a send x 2; b send x 3; root delete x", "a Send NonExisting; b Send NonExisting; x gone");
    check("x send r 1; a send x 2; root place x 0; root delete x", "a Send NonExisting; x gone");
    check("x send r 1; a send x 2; root place x 0; r wait; x wait", "r got 1 from x; x got 2 from a");
}

/// A thread that is moved while it is blocked in a send phase waits where it never ran: others know that its space may be
/// loaded there, before the fast path does so.
#[test]
fn thread_waits_plainly_where_it_never_ran() {
    for cpu in [1, 2] {
        let w = World::of_processors(3);
        w.place(X, 1);
        play(w, &format!("a call x 1; root place a {cpu}; x wait"));
        assert_eq!(w.tcb(A).home(), CpuId::new(cpu as u32));
        assert!(!w.tcb(A).waits_for.get().is_nil(), "a plain wait");
        invariants::check_threads(w.k);
    }
}

/// What a thread still has to do in the kernel it does where it was moved to.
#[test]
fn work_goes_on_elsewhere() {
    let w = World::with_processors(200, 3);
    w.start(R);
    w.create(N);
    let senders = crowd(w, 80);
    for &sender in &senders {
        w.ipc(sender, N.id(), ThreadId::NIL, Timeouts::NEVER);
    }
    w.begin(R, |here, r| here.thread_control(r, deletion(N))).expect("r may");
    assert_eq!(w.tcb(R).work(), Work::Delete);
    w.place(R, 2);
    assert_eq!((w.tcb(R).work(), w.tcb(R).home()), (Work::None, CpuId::new(2)));
    assert!(senders.iter().all(|&sender| w.outcome(sender) == "Send NonExisting"));
    expect(w, "a deletion", "n gone; r ready");
}

// --- meetings on the way ---

/// Two threads are at the door of processor 0, and come in.
#[track_caller]
fn arrive_both(w: World) {
    let at_the_door = || w.k.cpus[0].mailbox.members(w.k.tcbs).len();
    assert_eq!(at_the_door(), 2, "both are at the door");
    w.on(0).dispatch_steps(100);
    assert_eq!(at_the_door(), 0, "neither waits for the other");
    w.settle();
}

/// X.2, Ipc: of two that send to each other and come to the same processor at the same time none waits for the other to
/// arrive: they would do so for ever, and with them whoever asks for one of them.
#[test]
fn those_who_send_to_each_other_meet_on_the_way() {
    let w = apart();
    play(w, "a send x 1 ~; x send a 2 ~");
    // a is queued on x, which is moved to where it is going to; a follows it.
    let there = w.on(1);
    let reply = there.here().move_here(question(X.id(), [X.tcb().index(), 0]));
    assert!(matches!(reply, Reply::Done(_)));
    there.dispatch_steps(10);
    arrive_both(w);
    expect(w, "a ring of senders", "a queued on x; x queued on a");
    play(w, "r cancel a");
    expect(w, "who leaves the ring", "a Send Canceled; x queued on a");
    invariants::check_rest(w.k);
}

/// X.2, Propagation: the same for two that send in each other's name.
#[test]
fn those_who_send_for_each_other_meet_on_the_way() {
    let w = apart();
    w.place(Y, 1);
    play(w, "y wait; r wait; a send r 1 as=b ~; b send y 2 as=a ~");
    for cpu in [1, 2] {
        w.on(cpu).dispatch_steps(10);
    }
    arrive_both(w);
    expect(w, "each in the other's name", "a sent; b sent; r got 1 from b by a; y got 2 from a by b");
    invariants::check_rest(w.k);
}
