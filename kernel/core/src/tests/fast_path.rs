//! The fast path of the image, as a model: in the states that it accepts it does what the general path does.

use l4_abi::{ExregsControl, MsgTag, ThreadId, Timeouts};

use super::machine::IPC_RETURN_IP;
use super::script::{expect, play};
use super::world::{A, B, D, EVERYBODY, START_SP, Who, World, no_registers, tag};
use crate::machine::{Machine, PhysAddr};
use crate::sched::Current;
use crate::syscall::Exregs;
use crate::thread::{Purpose, plain_name};

/// What the fast path leaves as instruction pointer of a thread that waits.
const UNDEFINED_IP: usize = 0xDEAD_0000;

/// What the image's fast path does instead of the general one: the same, in the states that it accepts.
pub fn fast_ipc(w: World, who: Who, to: ThreadId, from: ThreadId, timeouts: Timeouts) -> bool {
    let (tcb, tag) = (w.tcb(who), w.utcb(who).tag());
    let is_plain_message = tag.typed() == 0 && tag.raw() & MsgTag::FLAGS == 0 && timeouts.rcv().is_never();
    let is_free = is_plain_message && w.k.machine.allows_fast_path[tcb.home().index()].get();
    let Some(thread) = w.k.thread(to).filter(|_| is_free) else { return false };
    let dest = w.k.tcb(thread);
    let any = plain_name(ThreadId::ANY, tcb.affinity());
    let is_expected = [tcb.plain_name.get(), any].contains(&dest.waits_for.get());
    let may_be = match from {
        ThreadId::NIL => dest.priority() <= tcb.priority(),
        ThreadId::ANY => tcb.send_queue.get().is_none(),
        _ => from == to,
    };
    if !is_expected || !may_be {
        return false;
    }
    let here = w.at_home_of(who).here();
    w.k.machine.saved(who.tcb()).from.set(None);
    for index in 0..=tag.untyped() {
        w.k.utcb(thread).set_mr(index, w.utcb(who).mr(index));
    }
    dest.waits_for.set(ThreadId::NIL);
    dest.purpose.set(Purpose::User);
    dest.ip.set(IPC_RETURN_IP);
    if from.is_nil() {
        here.cpu.ready.push_back(w.k.tcbs, thread);
        // It goes on in the stub, which is what its next entry would save.
        tcb.ip.set(IPC_RETURN_IP);
        w.k.machine.ipc_return(who.tcb(), tcb, ThreadId::NIL);
    } else {
        tcb.waits_for.set(plain_name(from, tcb.affinity()));
        tcb.ip.set(UNDEFINED_IP);
        here.cpu.current.set(Current::running(thread));
    }
    w.k.machine.ipc_return(thread, dest, w.k.id_seen_from(who.tcb(), dest.space()));
    true
}

/// What everybody sees, and who runs.
fn sight(w: World) -> Vec<String> {
    let who = |who: Who| format!("{}: {}, {:?}", who.name(), w.outcome(who), w.tcb(who).exists().then(|| w.mrs(who)));
    EVERYBODY.into_iter().filter(|&who| w.tcb(who).is_active()).map(who).chain([format!("{:?}", w.running())]).collect()
}

/// Both paths do the same where the fast one does anything; elsewhere it leaves everything alone.
#[test]
fn fast_path_does_what_the_general_path_does() {
    let rows = [
        ("b wait", B.id(), B.id(), true),
        ("b wait a", B.id(), B.id(), true),
        ("b wait", B.id(), ThreadId::ANY, true),
        ("b wait; c send a 1", B.id(), B.id(), true),
        ("b wait; c send a 1", B.id(), ThreadId::ANY, false),
        ("b wait; c send a 1 as=b", B.id(), B.id(), false),
        ("b wait; c send a 1 as=d", B.id(), B.id(), false),
        ("b wait c", B.id(), B.id(), false),
        ("b wait b", B.id(), B.id(), false),
        ("b wait local", B.id(), B.id(), false),
        ("b wait rcv=100", B.id(), B.id(), false),
        ("b wait; c halt b", B.id(), B.id(), false),
        ("b wait", B.local(), B.id(), false),
        ("b wait", B.id(), D.id(), false),
        ("b wait", B.id(), ThreadId::NIL, true),
        ("b wait a", B.id(), ThreadId::NIL, true),
        ("b wait; c send a 1 as=b", B.id(), ThreadId::NIL, false),
        ("b wait c", B.id(), ThreadId::NIL, false),
        ("", B.id(), B.id(), false),
        ("b send a 1", B.id(), B.id(), false),
    ];
    for (script, to, from, is_fast) in rows {
        let [general, fast] = [World::new(), World::new()];
        for w in [general, fast] {
            play(w, script);
            w.set_mrs(A, &[tag(5, 3), 11, 12, 13]);
            w.make_run(A);
        }
        let before = sight(fast);
        assert_eq!(fast_ipc(fast, A, to, from, Timeouts::NEVER), is_fast, "after `{script}`");
        if is_fast {
            general.ipc(A, to, from, Timeouts::NEVER);
            assert_eq!(sight(fast), sight(general), "after `{script}`");
        } else {
            assert_eq!(sight(fast), before, "after `{script}`");
        }
    }
}

/// A thread in a fast wait.
fn waiting() -> World {
    let w = World::new();
    play(w, "b wait");
    w.set_mrs(A, &[tag(0, 0)]);
    w.make_run(A);
    assert!(fast_ipc(w, A, B.id(), B.id(), Timeouts::NEVER));
    w
}

/// The fast path does not write the instruction pointer; whatever ends the wait, the thread returns to the stub.
#[test]
fn thread_in_a_fast_wait_returns_to_the_stub() {
    let ends = [
        ("b send a 5", "got 5 from 'b"),
        ("b reply a 5", "got 5 from 'b"),
        ("c cancel a", "Receive Canceled"),
        ("c halt a; b send a 5; c resume a", "got 5 from 'b"),
        ("d wait; b send d 1 as=a; d send a 5", "got 5 from 'd"),
        ("b send d 1 as=a; d wait; d send a 5", "got 5 from 'd"),
        ("b send a 1 map=0x1000/12; a wait; b send a 5", "got 5 from 'b"),
    ];
    for (script, sees) in ends {
        let w = waiting();
        play(w, script);
        expect(w, script, &format!("a {sees}"));
        assert_eq!(w.tcb(A).ip.get(), IPC_RETURN_IP, "after `{script}`");
    }
}

/// X.2, ExchangeRegisters: instruction and stack pointer of a thread in an IPC are those behind its call, where its stack
/// says so.
#[test]
fn registers_of_a_thread_in_ipc_are_those_behind_its_call() {
    let w = waiting();
    let ask = |w: World| w.exregs(B, A.id(), ExregsControl::NONE).map(|old| (old.ip, old.sp));
    assert_eq!(ask(w), Ok((IPC_RETURN_IP, START_SP)), "without a stack");
    let w = World::new();
    play(w, "root send s; a accept; a wait; s send a map=0x1000000/12");
    w.k.machine.poke(PhysAddr(0x100_0FF0), &0x77_7770usize.to_le_bytes());
    let args = Exregs { control: ExregsControl::SP, sp: 0x100_0FF0, ..no_registers(A.id()) };
    w.exchange(B, args).expect("same space");
    for wait in ["a wait", "a wait rcv=500", "a send c 1"] {
        w.tcb(A).sp.set(0x100_0FF0);
        play(w, wait);
        assert_eq!(ask(w), Ok((0x77_7770, 0x100_0FF8)), "{wait}");
        assert_eq!(ask(w), Ok((0x77_7770, 0x100_0FF8)), "{wait}, again");
        play(w, "b cancel a");
        assert_eq!(ask(w), Ok((0x77_7770, 0x100_0FF8)), "{wait}, afterwards");
    }
}
