//! X.2, I/O fpages: items, Unmap and faults, as threads see them.

use l4_abi::{
    Acceptor, ExregsControl, Fpage, IoFpage, IpcError, IpcErrorKind, MapItem, MsgTag, Phase, Rights, UnmapControl, Word,
};

use super::world::{A, B, C, N, ROOT, S, Who, World, X, activation};
use crate::syscall::ThreadControlArgs;

const SERIAL: Fpage = IoFpage::new(0x3F8, 3).expect("aligned").fpage();
const IP: usize = 0x40_1234;

/// A world with I/O fpages.
fn world() -> World {
    let w = World::new();
    w.k.machine.io_fpages.set(true);
    w
}

/// The message with these items.
fn items(items: &[MapItem]) -> Vec<Word> {
    let tag = MsgTag::new(0, 0, 2 * items.len()).raw();
    [tag].into_iter().chain(items.iter().flat_map(|item| item.words())).collect()
}

fn map(fpage: Fpage) -> MapItem {
    MapItem::map(fpage, 0)
}

/// Sends items to somebody who is ready and waits for them.
fn give(w: World, from: Who, to: Who, sent: &[MapItem]) {
    w.wait(to, from.id());
    w.send(from, to.id(), &items(sent));
    assert_eq!(w.outcome(from), "sent", "{}", from.name());
}

/// Lets sigma0, which waits, give root all ports, and root these ports to somebody.
fn let_have(w: World, who: Who, fpage: Fpage) {
    if !has(w, ROOT, 0) {
        w.send(ROOT, S.id(), &[0]);
        give(w, S, ROOT, &[map(IoFpage::COMPLETE.fpage())]);
    }
    give(w, ROOT, who, &[map(fpage)]);
}

fn has(w: World, who: Who, port: u16) -> bool {
    w.k.spaces.closed_port(w.k.space_of(who.tcb()), port, port).is_none()
}

/// Faults at ports; whether that was a fault.
fn fault(w: World, who: Who, port: u16, size_log2: u32) -> bool {
    w.enter(who, |here, thread| here.io_fault(thread, port, size_log2, IP))
}

fn last_error(w: World, who: Who) -> Option<IpcError> {
    w.utcb(who).tag().is_error().then(|| IpcError::from_raw(w.utcb(who).error_code()).expect("an error"))
}

/// X.2, Acceptor: everybody takes I/O items, even who accepts nothing; they arrive as they were sent.
#[test]
fn ports_are_taken_whatever_the_acceptor() {
    for acceptor in [0, Acceptor::COMPLETE.raw(), SERIAL.raw(), 0x1000 | 12 << 4, 1] {
        let w = world();
        w.utcb(A).set_br(0, acceptor);
        let fpage = Fpage::from_raw(SERIAL.raw() | 0xDEAD_BEEF << 32 | 0xF);
        let_have(w, A, fpage);
        assert_eq!(w.outcome(A), "got from root", "{acceptor:#x}");
        assert_eq!(w.mrs(A)[1..3], map(fpage).words());
        assert_eq!([0x3F7, 0x3F8, 0x3FF, 0x400].map(|port| has(w, A, port)), [false, true, true, false]);
        assert!(has(w, B, 0x3F8) && !has(w, X, 0x3F8), "ports belong to spaces");
    }
}

/// X.2, Fpages: the base is aligned down; more ports than there are are none.
#[test]
fn odd_io_fpages_do_what_they_say() {
    let check = |raw: Word, port, is_mapped| {
        let w = world();
        let_have(w, A, Fpage::from_raw(raw));
        assert_eq!(w.outcome(A), "got from root", "{raw:#x}");
        assert_eq!(has(w, A, port), is_mapped, "{raw:#x}");
    };
    check(0x3FF << 16 | 3 << 10 | 2 << 4, 0x3F8, true);
    check(0x3FF << 16 | 16 << 10 | 2 << 4, 0xFFFF, true);
    check(0x3F8 << 16 | 2 << 4, 0x3F9, false);
    check(17 << 10 | 2 << 4, 0, false);
    check(63 << 10 | 2 << 4, 0, false);
}

/// X.2, Acceptor: without the feature an I/O fpage is memory, too small for a page.
#[test]
fn io_fpage_without_the_feature_is_memory() {
    let w = World::new();
    w.wait(A, ROOT.id());
    w.send(ROOT, A.id(), &items(&[map(SERIAL)]));
    assert_eq!((w.outcome(ROOT).as_str(), w.outcome(A).as_str()), ("Send Overflow", "Receive Overflow"));
    w.utcb(A).set_br(0, Acceptor::COMPLETE.raw());
    let before = w.frames_used();
    give(w, ROOT, A, &[map(SERIAL.with_rights(Rights::ALL))]);
    assert_eq!((w.outcome(A).as_str(), w.frames_used()), ("got from root", before));
    assert!(!has(w, A, 0x3F8));
}

/// X.2, Ipc, message transfer: ports and memory in one message; an item cut short is an overflow, and what was mapped stays.
#[test]
fn ports_come_with_memory() {
    let w = world();
    w.utcb(A).set_br(0, Acceptor::COMPLETE.raw());
    let page = Fpage::new(0x100_0000, 12, Rights::ALL).expect("aligned");
    w.send(ROOT, S.id(), &[0]);
    give(w, S, A, &[map(SERIAL), MapItem::map(page, 0x100_0000), MapItem::grant(SERIAL, 0)]);
    assert!(has(w, A, 0x3F8) && w.k.spaces.lookup(w.k.space_of(A.tcb()), 0x100_0000).is_some());
    w.wait(X, A.id());
    w.send(A, X.id(), &[MsgTag::new(0, 0, 3).raw(), map(SERIAL).words()[0], SERIAL.raw(), map(SERIAL).words()[0]]);
    assert_eq!((w.outcome(A).as_str(), w.outcome(X).as_str()), ("Send Overflow", "Receive Overflow"));
    assert!(has(w, X, 0x3F8));
}

/// X.2, Ipc: a grant moves ports.
#[test]
fn granted_ports_leave_the_granter() {
    let w = world();
    let_have(w, A, SERIAL);
    give(w, A, X, &[MapItem::grant(IoFpage::new(0x3FC, 2).expect("aligned").fpage(), 0)]);
    assert_eq!([0x3F8, 0x3FC].map(|port| (has(w, A, port), has(w, X, port))), [(true, false), (false, true)]);
}

// --- Unmap ---

fn unmap(w: World, who: Who, control: UnmapControl, fpages: &[Fpage]) {
    let raw: Vec<Word> = fpages.iter().map(|fpage| fpage.raw()).collect();
    w.set_mrs(who, &raw);
    w.enter(who, |here, thread| here.unmap(thread, control));
}

/// X.2, Unmap: ports are revoked whatever the rights bits; the fpages come back without status.
#[test]
fn unmap_takes_io_fpages_among_others() {
    for rights in [Rights::NONE, Rights::WRITE, Rights::ALL] {
        let w = world();
        let_have(w, A, SERIAL);
        give(w, A, X, &[map(SERIAL)]);
        let part = IoFpage::new(0x3F8, 1).expect("aligned").fpage().with_rights(rights);
        let fpages = [Fpage::COMPLETE, part, Fpage::NIL, Fpage::from_raw(17 << 10 | 2 << 4)];
        unmap(w, A, UnmapControl::unmap(fpages.len()), &fpages);
        assert_eq!([0x3F8, 0x3F9, 0x3FA].map(|port| has(w, X, port)), [false, false, true], "{rights:?}");
        assert!(has(w, A, 0x3F8));
        assert_eq!(w.mrs(A)[1], part.with_rights(Rights::NONE).raw());
        unmap(w, A, UnmapControl::flush(1), &[IoFpage::COMPLETE.fpage()]);
        assert!(!has(w, A, 0x3FA) && !has(w, X, 0x3FA));
    }
}

/// X.2, Unmap: memory is memory; all of it has no ports.
#[test]
fn unmap_of_all_memory_leaves_ports() {
    let w = world();
    let_have(w, A, SERIAL);
    unmap(w, A, UnmapControl::flush(1), &[Fpage::COMPLETE.with_rights(Rights::ALL)]);
    assert!(has(w, A, 0x3F8));
}

/// X.2, ThreadControl: ports go with the space, and so does the memory for them.
#[test]
fn ports_go_with_the_space() {
    let w = world();
    let_have(w, A, SERIAL);
    let before = w.frames_used();
    w.create(N);
    assert_eq!(w.thread_control(ROOT, ThreadControlArgs { pager: A.id(), ..activation(N) }), Ok(()));
    // The start message brings ports, as X.2 lets every receiver take them.
    let start = MsgTag::new(0, 2, 2).raw();
    w.send(A, N.id(), &[start, 0x1000, 0x2000, map(SERIAL).words()[0], SERIAL.raw()]);
    assert_eq!(w.outcome(A), "sent");
    assert!(has(w, N, 0x3F8));
    assert_eq!(w.tcb(N).ip.get(), 0x1000);
    give(w, N, X, &[map(SERIAL)]);
    let with_ports_of_x = 3;
    assert_eq!(w.delete(ROOT, N), Ok(()));
    assert!(!has(w, X, 0x3F8) && has(w, A, 0x3F8));
    assert_eq!(w.frames_used(), before + with_ports_of_x);
}

// --- faults ---

/// X.2, I/O port faults: label -8, parameter 6; the ports and the instruction. The reply opens them.
#[test]
fn closed_port_is_asked_for() {
    let check = |port: u16, size_log2, expected: IoFpage| {
        let w = world();
        let_have(w, B, IoFpage::new(0x80, 4).expect("aligned").fpage());
        w.utcb(X).set_pager(B.id());
        (0..64).for_each(|i| w.utcb(X).set_mr(i, 0x100 + i as Word));
        w.wait(B, X.id());
        assert!(fault(w, X, port, size_log2));
        assert_eq!(w.outcome(X), "fault: waits for b");
        assert_eq!(w.utcb(B).tag(), MsgTag::kernel(-8, 6, 2));
        assert_eq!(w.mrs(B)[1..3], [expected.fpage().raw(), IP as Word], "{port:#x} {size_log2}");
        w.send(B, X.id(), &items(&[map(expected.fpage())]));
        assert_eq!((w.outcome(B).as_str(), w.outcome(X).as_str()), ("sent", "ready"));
        assert!(has(w, X, expected.port()));
        assert!((0..64).all(|i| w.utcb(X).mr(i) == 0x100 + i as Word), "no register changes");
    };
    let ports = |port, size_log2| IoFpage::new(port, size_log2).expect("aligned");
    check(0x80, 0, ports(0x80, 0));
    check(0x82, 1, ports(0x82, 1));
    check(0x84, 2, ports(0x84, 2));
    check(0x83, 1, ports(0x83, 0));
    check(0x82, 2, ports(0x82, 0));
}

/// Ports that are not aligned are asked for one after the other; where all are open it was something else.
#[test]
fn ports_across_fpages_are_asked_for_one_by_one() {
    let w = world();
    w.send(ROOT, S.id(), &[0]);
    give(w, S, ROOT, &[map(IoFpage::COMPLETE.fpage())]);
    w.utcb(A).set_pager(ROOT.id());
    for port in [0x81, 0x82, 0x83, 0x84] {
        w.wait(ROOT, A.id());
        assert!(fault(w, A, 0x81, 2));
        let asked = Fpage::from_raw(w.utcb(ROOT).mr(1));
        assert_eq!(asked.as_io(), IoFpage::new(port, 0));
        w.send(ROOT, A.id(), &items(&[map(asked)]));
    }
    assert!(!fault(w, A, 0x81, 2));
    assert_eq!(w.outcome(A), "ready");
    // Behind the last port there is nothing to ask for.
    w.wait(ROOT, A.id());
    assert!(fault(w, A, 0xFFFF, 1));
    w.send(ROOT, A.id(), &items(&[map(IoFpage::new(0xFFFF, 0).expect("aligned").fpage())]));
    assert!(!fault(w, A, 0xFFFF, 1));
}

/// X.2, I/O port faults: the acceptor is the complete I/O space, and nothing else.
#[test]
fn reply_to_an_io_fault_brings_no_memory() {
    let w = world();
    w.utcb(A).set_pager(B.id());
    w.utcb(A).set_br(0, Acceptor::COMPLETE.raw());
    w.wait(B, A.id());
    fault(w, A, 0x80, 0);
    w.send(B, A.id(), &items(&[map(Fpage::new(0x1000, 12, Rights::ALL).expect("aligned"))]));
    let overflow = IpcError::new(Phase::Send, IpcErrorKind::Overflow);
    assert_eq!((last_error(w, B), w.outcome(A).as_str()), (Some(overflow), "ready"));
}

/// X.2, I/O port faults: an empty reply repeats the access; without a pager the thread halts; a fault can be cut off.
#[test]
fn io_fault_ends_as_a_page_fault_does() {
    let w = world();
    w.utcb(A).set_pager(B.id());
    w.wait(B, A.id());
    fault(w, A, 0x80, 0);
    w.send(B, A.id(), &[0]);
    assert_eq!(w.outcome(A), "ready");
    fault(w, A, 0x80, 0);
    assert_eq!(w.outcome(A), "fault: queued on b");
    w.exregs(C, A.id(), ExregsControl::ABORT_SEND).expect("a thread of the same space");
    assert_eq!(w.outcome(A), "ready");
    w.utcb(A).set_pager(N.id());
    fault(w, A, 0x80, 0);
    assert_eq!(w.outcome(A), "halted");
}

/// X.2, I/O port faults: those of sigma0 are resolved by the kernel.
#[test]
fn sigma0_has_all_ports() {
    let w = world();
    w.send(ROOT, S.id(), &[0]);
    assert!(!has(w, S, 0x3F8));
    assert!(fault(w, S, 0x3F8, 2));
    assert_eq!(w.outcome(S), "got from root");
    assert!([0, 0x3F8, 0xFFFF].iter().all(|&port| has(w, S, port)));
    assert!(!fault(w, S, 0x3F8, 2), "then it is something else");
}

/// What sigma0 had before it used a port itself.
#[test]
fn sigma0_maps_ports_that_it_never_used() {
    let w = world();
    let_have(w, A, SERIAL);
    assert!(has(w, A, 0x3FF) && !has(w, S, 0x3FF));
}
