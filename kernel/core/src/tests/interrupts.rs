//! Interrupts: association, delivery, answers (X.2, Interrupt protocol, ThreadControl).

use l4_abi::{ExregsControl, ScheduleResult, SysError, ThreadId, Word, protocol};

use super::machine::FIRST_LINE;
use super::script::{check, check_scheduled, expect, play};
use super::world::{A, B, C, N, NUMBERS, ROOT, UNCHANGED, World, activation, deletion};
use crate::syscall::ThreadControlArgs;

const NIL: ThreadId = ThreadId::NIL;

fn irq(line: Word) -> ThreadId {
    ThreadId::interrupt(line)
}

fn associate(w: World, interrupt: ThreadId, handler: ThreadId) -> Result<(), SysError> {
    w.thread_control(ROOT, ThreadControlArgs { dest: interrupt, pager: handler, ..deletion(ROOT) })
}

/// X.2, Interrupt protocol: the message has the interrupt's id, no words and a label of its own.
#[test]
fn message_reaches_a_waiting_handler() {
    check("b handle irq5", "irq5 idle, open");
    check("b handle irq5; b wait; raise 5", "b got from irq5; irq5 waits for b, masked");
    check("b handle irq5; b wait irq5; raise 5", "b got from irq5; irq5 waits for b, masked");
    check("root handle irq5; root wait; raise 5", "root got from irq5; irq5 waits for root, masked");
    let w = World::new();
    play(w, "b handle irq5; b wait; raise 5");
    assert_eq!(w.tag(B), protocol::interrupt_tag());
}

/// X.2, Interrupt protocol: until the handler takes it, the message is in its send queue.
#[test]
fn message_waits_for_a_handler_that_is_busy() {
    check("b handle irq5; raise 5", "b ready; irq5 queued on b, masked");
    check("b handle irq5; b wait a; raise 5", "b waits for a; irq5 queued on b, masked");
    check("b handle irq5; raise 5; b wait", "b got from irq5; irq5 waits for b, masked");
    check("b handle irq5; raise 5; b wait irq5", "b got from irq5; irq5 waits for b, masked");
    check("b handle irq5; raise 5; a send b 1; b wait irq5", "b got from irq5; a queued on b");
    check("b handle irq5; a send b 1; raise 5; b wait", "b got 1 from 'a; irq5 queued on b, masked");
    check("b handle irq5; b handle irq6; raise 6; raise 5; b wait irq5", "b got from irq5; irq6 queued on b, masked");
    check("a handle irq5; raise 5; c send b 1 as=a; b wait", "b got 1 from 'a by c; irq5 queued on a, masked");
}

/// X.2, Ipc, receive: interrupts are in nobody's space.
#[test]
fn anylocal_wait_takes_no_interrupt() {
    check("b handle irq5; b wait local; raise 5", "b waits for local; irq5 queued on b, masked");
    check("b handle irq5; raise 5; b wait local", "b waits for local; irq5 queued on b, masked");
}

/// X.2, Interrupt protocol: any message of the handler answers; it need not wait for that, and may wait for the next.
#[test]
fn answer_opens_the_line_again() {
    check("b handle irq5; b wait; raise 5; b send irq5 snd=0", "b sent; irq5 idle, open");
    check("b handle irq5; b wait; raise 5; b reply irq5", "b waits for any; irq5 idle, open");
    check("b handle irq5; b wait; raise 5; b call irq5 snd=0", "b waits for irq5; irq5 idle, open");
    check("b handle irq5; b wait; raise 5; b reply irq5 1 2 map=0x1000/12", "b waits for any; irq5 idle, open");
    check("b handle irq5; raise 5; b wait; b reply irq5; raise 5", "b got from irq5; irq5 waits for b, masked");
    check("b handle irq5; b wait; raise 5; a send b 7; b reply irq5", "b got 7 from 'a; irq5 idle, open");
}

/// X.2, Interrupt protocol: without an outstanding message there is nothing to answer.
#[test]
fn answer_before_the_message_times_out_or_waits() {
    check("b reply irq5", "b Send NonExisting");
    check("b handle irq5; b reply irq5", "b Send Timeout; irq5 idle, open");
    check("b handle irq5; raise 5; b reply irq5", "b Send Timeout; irq5 queued on b, masked");
    check("b handle irq5; b send irq5", "b queued on irq5");
    check("b handle irq5; b send irq5; raise 5", "b queued on irq5; irq5 queued on b, masked");
    check("b handle irq5; b send irq5 snd=50; raise 5; clock 50; b wait", "b got from irq5; irq5 waits for b, masked");
    check("b handle irq5; b send irq5; raise 5; a cancel b; b wait", "b got from irq5; irq5 waits for b, masked");
    check("b handle irq5; b send irq5; root delete b; raise 5", "irq5 nobody's, masked");
}

/// X.2, Interrupt protocol: only the handler answers, or who may speak in its name.
#[test]
fn others_cannot_answer() {
    check("b handle irq5; b wait; raise 5; a send irq5 snd=0", "a Send Timeout; irq5 waits for b, masked");
    check("b handle irq5; b wait; raise 5; a send irq5 snd=0 as=b", "a sent; irq5 idle, open");
    check("b handle irq5; b wait; raise 5; x send irq5 snd=0 as=b", "x Send Timeout; irq5 waits for b, masked");
    check("b handle irq5; a send irq5 as=b; b wait; raise 5", "a sent; b got from irq5; irq5 idle, open");
    check("b handle irq5; a call irq5 as=b; b wait; raise 5", "a waits for irq5; irq5 idle, open");
    check("b handle irq5; x send irq5; b wait; raise 5; b reply irq5", "x queued on irq5; irq5 idle, open");
    check("b handle irq5; a send c as=irq5; c wait", "c got from 'a");
}

/// A line that the machine cannot hold back is masked when it comes again, and its next message follows the answer.
#[test]
fn interrupt_that_comes_too_early_is_not_lost() {
    check("b handle irq9; b wait; raise 9", "b got from irq9; irq9 waits for b, open");
    check("b handle irq9; b wait; raise 9; b reply irq9", "b waits for any; irq9 idle, open");
    check("b handle irq9; b wait; raise 9; raise 9; raise 9", "b got from irq9; irq9 waits for b, masked");
    check("b handle irq9; b wait; raise 9; raise 9; b reply irq9", "b got from irq9; irq9 waits for b, open");
    check("b handle irq9; b wait; raise 9; raise 9; b send irq9", "b sent; irq9 queued on b, open");
    check("b handle irq9; raise 9; raise 9; b wait; b reply irq9; b reply irq9", "b waits for any; irq9 idle, open");
    check("b handle irq9; raise 9; raise 9; a send irq9 as=b; b wait", "b got from irq9; irq9 queued on b, open");
}

/// X.2, Interrupt protocol: without handler the line stays masked until it has a new one.
#[test]
fn line_dies_with_its_handler() {
    check("b handle irq5; root delete b", "irq5 idle, open");
    check("b handle irq5; root delete b; raise 5", "irq5 nobody's, masked");
    check("b handle irq5; raise 5; root delete b", "irq5 nobody's, masked");
    check("b handle irq9; b wait; raise 9; root delete b; raise 9", "irq9 waits for b, masked");
    check("b handle irq5; root delete b; raise 5; c handle irq5; c wait; raise 5", "c got from irq5");
    check("b handle irq5; b wait; raise 5; root delete b; c handle irq5; c wait; raise 5", "c got from irq5");
    check("a send irq5 snd=0; b handle irq5; b ignore irq5; a send irq5 snd=0", "a Send Timeout");
}

/// X.2, ThreadControl: the old handler loses what it has not received; the same one changes nothing.
#[test]
fn handler_can_be_replaced() {
    check("b handle irq5; raise 5; c handle irq5; b wait", "b waits for any; irq5 idle, open");
    check("b handle irq5; raise 5; c handle irq5; c wait; raise 5", "c got from irq5; irq5 waits for c, masked");
    check("b handle irq5; b wait; raise 5; c handle irq5; b reply irq5", "b Send Timeout; irq5 idle, open");
    check("b handle irq9; raise 9; raise 9; c handle irq9; c wait", "c waits for any; irq9 idle, open");
    check("b handle irq5; raise 5; b handle irq5; b wait", "b got from irq5; irq5 waits for b, masked");
    check("b handle irq5; b wait; raise 5; b handle irq5", "irq5 waits for b, masked");
}

/// X.2, ThreadControl: an interrupt can be given back, whether it was anybody's or not.
#[test]
fn handler_can_give_an_interrupt_back() {
    check("b ignore irq5; raise 5", "irq5 nobody's, masked");
    check("b handle irq5; b ignore irq5; b wait; raise 5", "b waits for any; irq5 nobody's, masked");
    check("b handle irq5; raise 5; b ignore irq5; b wait", "b waits for any; irq5 nobody's, masked");
    check("b handle irq5; b wait; raise 5; b ignore irq5; b reply irq5", "b Send Timeout; irq5 nobody's, masked");
    check("b handle irq5; b ignore irq5; b handle irq5; b wait; raise 5", "b got from irq5");
}

/// An interrupt that the processor took just before the line was masked has no effect.
#[test]
fn interrupt_of_nobody_is_dropped() {
    let w = World::new();
    w.here().interrupt(5);
    w.dispatch();
    expect(w, "an interrupt of nobody", "irq5 nobody's, masked");
}

/// X.2, Interrupt protocol: the handler runs by its own priority.
#[test]
fn interrupt_preempts_by_the_priority_of_the_handler() {
    let w = World::new();
    play(w, "root handle irq5; a handle irq6; root wait");
    let runs = w.running().expect("somebody").name();
    check_scheduled(w, "raise 6", &format!("{runs} runs"));
    check_scheduled(w, "raise 5", "root runs");
}

/// X.2, ThreadControl: a line that exists, in its only version, and a handler that exists.
#[test]
fn association_is_checked() {
    let w = World::new();
    w.create(N);
    let check = |interrupt, handler, expected| assert_eq!(associate(w, interrupt, handler), expected);
    let (no_line, invalid) = (irq(Word::from(FIRST_LINE) - 1), Err(SysError::InvalidThread));
    check(ThreadId::global(5, 2), B.id(), invalid);
    check(no_line, B.id(), invalid);
    check(no_line, no_line, invalid);
    check(irq(NUMBERS.system_base.into()), B.id(), invalid);
    check(irq(5), NIL, invalid);
    check(irq(5), B.version(2), invalid);
    check(irq(5), irq(6), invalid);
    w.k.kmem.fail_nth(1);
    check(irq(5), B.id(), Err(SysError::OutOfMemory));
    expect(w, "refused associations", "irq5 nobody's, masked");
    check(irq(5), N.id(), Ok(()));
    check(irq(6), ROOT.local(), Ok(()));
    let args = ThreadControlArgs { dest: irq(7), pager: B.id(), ..deletion(A) };
    assert_eq!(w.thread_control(A, args), Err(SysError::NoPrivilege));
    play(w, "raise 5; root wait; raise 6");
    expect(w, "two interrupts", "irq5 queued on n, masked; root got from irq6");
}

/// X.2, Schedule: an interrupt has a state once it was associated.
#[test]
fn schedule_knows_interrupts_that_were_associated() {
    let w = World::new();
    let state = || w.enter(ROOT, |here, root| here.schedule(root, super::schedule::nothing(irq(5))));
    let check = |script, expected| {
        play(w, script);
        assert_eq!(state().map(|reply| reply.expect("an interrupt was named").state), expected, "{script}");
    };
    check("", Err(SysError::InvalidThread));
    check("b handle irq5", Ok(ScheduleResult::Inactive));
    check("raise 5", Ok(ScheduleResult::PendingSend));
    check("b wait", Ok(ScheduleResult::Waiting));
    check("b ignore irq5", Ok(ScheduleResult::Dead));
}

/// An interrupt is no thread for anybody else.
#[test]
fn interrupts_are_no_threads() {
    let w = World::new();
    play(w, "b handle irq5; b wait; raise 5");
    assert!(w.exregs(ROOT, irq(5), ExregsControl::HALT | ExregsControl::APPLY_HALT).is_err());
    let args = ThreadControlArgs { space: irq(5), pager: NIL, utcb_location: UNCHANGED, ..activation(N) };
    assert_eq!(w.thread_control(ROOT, args), Err(SysError::InvalidSpace));
    w.enter(A, |here, a| here.thread_switch(a, irq(5)));
    w.utcb(C).set_pager(irq(5));
    play(w, "c fault 0x1000");
    expect(w, "a fault of c", "c fault: queued on irq5; irq5 waits for b, masked");
}

/// Tests that hold on several processors, too.
pub const EVERYWHERE: &[(&str, fn())] = &[
    ("message_reaches_a_waiting_handler", message_reaches_a_waiting_handler),
    ("message_waits_for_a_handler_that_is_busy", message_waits_for_a_handler_that_is_busy),
    ("anylocal_wait_takes_no_interrupt", anylocal_wait_takes_no_interrupt),
    ("answer_opens_the_line_again", answer_opens_the_line_again),
    ("answer_before_the_message_times_out_or_waits", answer_before_the_message_times_out_or_waits),
    ("others_cannot_answer", others_cannot_answer),
    ("interrupt_that_comes_too_early_is_not_lost", interrupt_that_comes_too_early_is_not_lost),
    ("line_dies_with_its_handler", line_dies_with_its_handler),
    ("handler_can_be_replaced", handler_can_be_replaced),
    ("handler_can_give_an_interrupt_back", handler_can_give_an_interrupt_back),
    ("interrupt_of_nobody_is_dropped", interrupt_of_nobody_is_dropped),
    ("interrupt_preempts_by_the_priority_of_the_handler", interrupt_preempts_by_the_priority_of_the_handler),
    ("association_is_checked", association_is_checked),
    ("schedule_knows_interrupts_that_were_associated", schedule_knows_interrupts_that_were_associated),
    ("interrupts_are_no_threads", interrupts_are_no_threads),
];
