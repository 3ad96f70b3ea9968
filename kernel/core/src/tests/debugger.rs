//! The debugger's services for user code (kernel debugger ABI for user code).

use l4_abi::{MR_COUNT, ScheduleResult, ThreadId, Word};

use super::script::{check, expect, play};
use super::world::{A, R, ROOT, START_IP, START_SP, World};
use crate::debugger::Then;
use crate::machine::PhysAddr;
use crate::thread::{Print, Work};

/// Where `r` has two pages, each at its physical address.
const PAGES: usize = 0x100_0000;
const BEHIND_PAGES: usize = PAGES + 0x2000;

/// A world where `r` has memory with this text at this address.
fn with_text(address: usize, text: &[u8]) -> World {
    let w = World::new();
    play(w, "root send s; r accept; r wait; s send r map=0x1000000/13");
    for (at, &byte) in (address..).zip(text) {
        w.k.machine.poke(PhysAddr(at as u64), &[byte]);
    }
    w.tcb(R).ip.set(START_IP);
    w.k.machine.saved(R.tcb()).from.set(None);
    w
}

fn printed(w: World) -> String {
    w.k.machine.console.take()
}

/// `r` prints, to the end.
fn print(w: World, print: Print, argument: usize, then: Then) -> String {
    w.enter(R, |here, r| here.print(r, print, argument, then));
    printed(w)
}

#[track_caller]
fn check_text(address: usize, text: &[u8], expected: &str) {
    let w = with_text(address, text);
    assert_eq!(print(w, Print::Text, address, Then::GoOn), expected);
    assert_eq!(w.state(R), ScheduleResult::Running);
}

/// Where the thread stopped: its breakpoint is before its instruction pointer.
fn place() -> String {
    format!("--- ip {:#x}, sp {START_SP:#x} ---\r\n", START_IP - 1)
}

/// PrintChar: any byte, and the end of a line as terminals want it.
#[test]
fn characters_are_printed() {
    for (character, expected) in [('x', "x"), ('\n', "\r\n"), ('\r', "\r"), ('\0', "\0"), ('\u{ff}', "\u{ff}")] {
        let w = World::new();
        assert_eq!(print(w, Print::Char, character as usize, Then::GoOn), expected);
        // The character is one byte of a register.
        assert_eq!(print(w, Print::Char, character as usize | 0x1100, Then::GoOn), expected);
        assert_eq!(w.running(), Some(R));
    }
}

/// PrintString: up to the zero, wherever the text lies.
#[test]
fn texts_are_printed_up_to_their_end() {
    check_text(PAGES, b"\0", "");
    check_text(PAGES, b"hello\0there", "hello");
    check_text(PAGES + 3, b"two\nlines\n\0", "two\r\nlines\r\n");
    check_text(PAGES + 0xFFB, b"over a border of pages\0", "over a border of pages");
    let long: Vec<u8> = (0..0x1FFFu32).map(|i| b'a' + (i % 26) as u8).chain([0]).collect();
    check_text(PAGES, &long, core::str::from_utf8(&long[..0x1FFF]).expect("letters"));
}

/// PrintString: what cannot be read is said to be so, and raises no fault.
#[test]
fn texts_that_are_not_mapped_are_reported() {
    check_text(BEHIND_PAGES - 4, b"word", "word[not mapped]");
    let w = with_text(PAGES, b"");
    for address in [0, BEHIND_PAGES, PAGES - 1, 1 << 47, 0xFFFF_FFFF_8000_0000, usize::MAX] {
        assert_eq!(print(w, Print::Text, address, Then::GoOn), "[not mapped]", "{address:#x}");
        assert_eq!(w.running(), Some(R), "{address:#x}");
    }
}

/// PrintString: a text without end ends somewhere.
#[test]
fn texts_are_cut_off_where_they_are_too_long() {
    let w = World::new();
    play(w, "root send s; r accept; r wait; s send r map=0x1000000/17");
    w.k.machine.poke(PhysAddr(PAGES as u64), &[b'x'; 0x1000]);
    for page in 1..32 {
        w.k.machine.poke(PhysAddr(PAGES as u64 + page * 0x1000), &[b'x'; 0x1000]);
    }
    let text = print(w, Print::Text, PAGES, Then::GoOn);
    assert_eq!(text.len(), 0x1_0000 + "[too long]".len());
    assert!(text.ends_with("xx[too long]"));
}

/// A step prints a few characters; then somebody better may run.
#[test]
fn long_texts_are_printed_in_steps() {
    let w = with_text(PAGES, &[b'x'; 100]);
    w.trap(R, |here, r| here.print(r, Print::Text, PAGES, Then::GoOn));
    for step in 1..=3 {
        w.dispatch_steps(1);
        assert_eq!(w.k.machine.console.borrow().len(), step * 32);
        expect(w, "a step", "r works on Print; r runs");
    }
    w.make_run(A);
    assert_eq!(w.running(), Some(A), "others can run meanwhile");
    w.make_run(R);
    w.dispatch();
    assert_eq!(printed(w), "x".repeat(100));
}

/// A console that takes nothing more keeps nobody else; what was printed is not printed again.
#[test]
fn printing_waits_for_the_console() {
    for room in 0..9 {
        let w = with_text(PAGES, b"ab\ncd\0");
        w.k.machine.console_room.set(room);
        w.trap(R, |here, r| here.print(r, Print::Text, PAGES, Then::GoOn));
        w.dispatch_steps(5);
        assert_eq!(*w.k.machine.console.borrow(), "ab\r\ncd"[..room.min(6)]);
        assert_eq!(w.tcb(R).work() == Work::Print, room < 6, "room for {room}");
        w.k.machine.console_room.set(usize::MAX);
        w.dispatch();
        assert_eq!(printed(w), "ab\r\ncd", "room for {room}");
    }
}

/// Enter: the text and the place. Without an exception handler the thread goes on.
#[test]
fn stop_says_why_and_where() {
    let w = with_text(PAGES, b"why\0");
    assert_eq!(print(w, Print::EnterWithText, PAGES, Then::Stop), format!("--- \"why\" ---\r\n{}", place()));
    assert_eq!(print(w, Print::EnterWithText, 0, Then::Stop), format!("--- \"[not mapped]\" ---\r\n{}", place()));
    assert_eq!(print(w, Print::Enter, 0, Then::Stop), place());
    assert_eq!(w.running(), Some(R));
    assert_eq!(w.tcb(R).ip.get(), START_IP);
}

/// Enter: with an exception handler the thread raises its exception, unless it asked to go on.
#[test]
fn stop_is_an_exception_where_there_is_a_handler() {
    for print_kind in [Print::Enter, Print::EnterWithText, Print::UnknownService] {
        let w = with_text(PAGES, b"why\0");
        play(w, "r handler a; a wait");
        print(w, print_kind, PAGES, Then::Stop);
        expect(w, "a stop", "r exception: waits for a");
        assert_eq!(w.mrs(A)[1], START_IP as Word, "behind the breakpoint");
        play(w, "a send r");
        expect(w, "the answer", "r ready");
        assert_eq!(printed(w), "", "nothing is printed again");
        print(w, print_kind, PAGES, Then::GoOn);
        assert_eq!(w.running(), Some(R));
    }
}

/// Unknown services and breakpoints are reported; breakpoints not where there is a handler for them.
#[test]
fn what_is_unknown_is_reported() {
    let w = World::new();
    let service = print(w, Print::UnknownService, 0x2, Then::Stop);
    assert_eq!(service, format!("--- unknown service 0x02 ---\r\n{}", place()));
    let unknown = format!("--- unknown breakpoint ---\r\n{}", place());
    w.enter(R, |here, r| here.unknown_breakpoint(r, Then::Stop));
    assert_eq!((printed(w), w.running()), (unknown.clone(), Some(R)));
    play(w, "r handler a; a wait");
    w.enter(R, |here, r| here.unknown_breakpoint(r, Then::GoOn));
    assert_eq!((printed(w), w.running()), (unknown, Some(R)));
    w.enter(R, |here, r| here.unknown_breakpoint(r, Then::Stop));
    assert_eq!(printed(w), "");
    expect(w, "a breakpoint", "r exception: waits for a");
}

/// A thread that prints can be halted, and stops at the end, and deleted, and stops at once.
#[test]
fn printing_can_be_stopped() {
    let begun = || {
        let w = with_text(PAGES, &[b'x'; 100]);
        w.trap(R, |here, r| here.print(r, Print::Text, PAGES, Then::GoOn));
        w.dispatch_steps(1);
        w
    };
    let w = begun();
    play(w, "root halt r; r finish");
    expect(w, "a halt", "r halted");
    assert_eq!(printed(w).len(), 100);
    let w = begun();
    play(w, "root delete r");
    expect(w, "a deletion", "r gone");
    assert!(printed(w).len() < 100);
    let w = begun();
    play(w, "root cancel r; r finish");
    assert_eq!(printed(w).len(), 100, "it is in no IPC");
}

/// ReadChar_Blocked: the thread sleeps and looks again; others run meanwhile, and nobody can send to it.
#[test]
fn waiting_for_input_is_sleep() {
    check("a input", "a input: waits for a");
    check("a input; clock 999", "a input: waits for a");
    check("a input; clock 1000", "a ready");
    check("a input; b send a snd=0; x send a snd=0", "b Send Timeout; x Send Timeout; a input: waits for a");
    check("a input; b send a 5; clock 1000; a wait", "a got 5 from 'b");
    check("a input; b send c as=a snd=0; clock 1000", "b Send Timeout; a ready");
    check("a input; clock 1000; a input; clock 2000; a wait rcv=0", "a Receive Timeout");
}

/// ReadChar_Blocked: ends as a fault can be ended from outside, and leaves the virtual registers as they are.
#[test]
fn waiting_for_input_can_be_cut_off() {
    let scripts = [
        ("a input; clock 1000", "a ready"),
        ("a input; b cancel-send a", "a input: waits for a"),
        ("a input; b cancel-receive a", "a ready"),
        ("a input; b start a", "a ready"),
        ("a input; b halt a; clock 1000", "a halted"),
        ("a input; b halt a; b resume a", "a input: waits for a"),
        ("a input; b halt a; clock 1000; b resume a", "a ready"),
    ];
    for (script, sees) in scripts {
        let w = World::new();
        let before: Vec<Word> = (0..MR_COUNT as Word).map(|i| 0xABC0 + i * 0x10001).collect();
        w.set_mrs(A, &before);
        w.utcb(A).set_error_code(0x66);
        w.utcb(A).set_virtual_sender(ThreadId::from_raw(0x77));
        play(w, script);
        expect(w, script, sees);
        assert_eq!(w.mrs(A), before, "message registers after `{script}`");
        assert_eq!((w.utcb(A).error_code(), w.utcb(A).virtual_sender().raw()), (0x66, 0x77), "after `{script}`");
    }
    check("a input; root delete a; clock 2000", "a gone");
    let w = World::new();
    play(w, "a input");
    let args = super::world::no_change(A);
    let args = crate::syscall::ThreadControlArgs { dest: A.version(2), ..args };
    assert_eq!(w.thread_control(ROOT, args), Ok(()));
    assert_eq!(w.outcome(A), "ready", "a new version cuts it off");
}
