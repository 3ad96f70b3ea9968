//! Page faults that are answered badly or not at all: the thread has what it had before and asks again, or its IPC ends as
//! X.2 says; nothing is mapped that the pager could not give, and nothing is lost.

use l4_abi::{Fpage, MapItem, MsgTag, Rights, StringItem, ThreadId, Timeouts, Word};

use super::invariants;
use super::memory::ledger;
use super::script::{expect, play};
use super::strings::{ALL, FROM, Missing, TO, faulting, finish, mend, with_memory};
use super::world::{A, B, C, D, R, ROOT, UTCB_AREA, Who, World, X, Y, Z};

const PAGE: Word = 0x1000;
/// A page that r has, and nobody faults at.
const GOOD: Word = 0x100_8000;

fn fpage(base: Word, size_log2: u32, rights: Rights) -> Fpage {
    Fpage::new(base, size_log2, rights).expect("aligned")
}

/// Messages that a pager may send in place of a page for `address`.
fn bad_answers(address: Word) -> Vec<(&'static str, Vec<Word>)> {
    let tag = |untyped, typed| MsgTag::new(0, untyped, typed).raw();
    let item = |fpage: Fpage, base: Word| [&[tag(0, 2)], MapItem::map(fpage, base).words().as_slice()].concat();
    let page = fpage(GOOD, 12, Rights::ALL);
    let nowhere = fpage(0x6000_0000, 12, Rights::ALL);
    let [first, second] = MapItem::map(page, address).words();
    vec![
        ("nothing", vec![tag(0, 0)]),
        ("all words that there are", [&[tag(63, 0)], [7; 63].as_slice()].concat()),
        ("a nil item", item(Fpage::NIL, address)),
        ("less than a page", item(fpage(GOOD, 10, Rights::ALL), address)),
        ("a page without rights", item(fpage(GOOD, 12, Rights::NONE), address)),
        ("a page that the pager has not", item(nowhere, address)),
        ("a page elsewhere", item(page, address + 0x10_0000)),
        ("a page for the kernel's half", item(page, 0xFFFF_8000_0000_0000)),
        ("a page over UTCBs", item(page, UTCB_AREA.base())),
        ("half an item", vec![tag(0, 1), first]),
        ("an item behind too many words", [&[tag(63, 2)], [first; 63].as_slice()].concat()),
        ("more items than registers", [&[tag(1, 63), 0, first, second], [0; 60].as_slice()].concat()),
        ("an unknown item", vec![tag(0, 2), 0xE, second]),
        ("a string", vec![tag(0, 2), StringItem::new(8).raw(), FROM]),
        ("a page in another's name", vec![MsgTag::from_raw(tag(0, 0)).with_flags(MsgTag::PROPAGATED).raw()]),
        ("flags of the kernel", vec![tag(0, 0) | MsgTag::ERROR | MsgTag::REDIRECTED | MsgTag::XCPU]),
    ]
}

/// r sends a message to a thread that waits for its page, and waits for the next fault.
fn answer(w: World, who: Who, message: &[Word]) {
    w.set_mrs(R, message);
    w.ipc(R, who.id(), ThreadId::NIL, Timeouts::NEVER);
    let is_cut_off = w.utcb(R).tag().is_error();
    assert!(is_cut_off || w.outcome(R) == "sent", "{}", w.outcome(R));
    w.wait(R, ThreadId::ANY);
}

/// What a thread has at an address.
fn at(w: World, who: Who, address: Word) -> Option<(u64, Rights)> {
    w.k.spaces.lookup(w.k.space_of(who.tcb()), address as usize).map(|page| (page.phys.0, page.rights))
}

/// X.2, Page fault protocol: after a bad answer the thread tries again and asks again; a good one helps it at last.
#[test]
fn thread_asks_again_after_a_bad_answer() {
    let address = FROM + 0x5000;
    for access in [Rights::READ, Rights::WRITE, Rights::EXECUTE] {
        for (what, message) in bad_answers(address) {
            let w = with_memory();
            let fault = || _ = w.enter(A, |here, a| here.page_fault(a, address as usize, access, 0x777));
            play(w, "r wait");
            let registers = w.mrs(A);
            for _ in 0..3 {
                fault();
                assert!(w.outcome(R).ends_with("from a"), "{what}: {}", w.outcome(R));
                assert_eq!(w.mrs(R)[1..3], [address, 0x777], "{what}");
                answer(w, A, &message);
                expect(w, what, "a got from r; r waits for any");
                assert_eq!(at(w, A, address), None, "{what}");
                assert_eq!(w.mrs(A), registers, "{what}");
                ledger(w);
            }
            fault();
            let [first, second] = MapItem::map(fpage(address, 12, Rights::ALL), address).words();
            answer(w, A, &[MsgTag::new(0, 0, 2).raw(), first, second]);
            assert_eq!(at(w, A, address), Some((address, Rights::ALL)), "{what}");
        }
    }
}

/// The same in the middle of a string, on either side: it goes on when the page comes, and arrives whole.
#[test]
fn string_outlives_bad_answers() {
    for (missing, is_queued) in ALL {
        let (who, address) = match missing {
            Missing::Dest => (X, TO + 4 * PAGE),
            Missing::Source | Missing::Both => (A, FROM + 4 * PAGE),
        };
        for (what, message) in bad_answers(address) {
            let w = faulting(missing, is_queued);
            for _ in 0..2 {
                assert_eq!(w.mrs(R)[1], address, "{what}, {missing:?}");
                answer(w, who, &message);
                finish(w);
                assert_eq!(at(w, who, address), None, "{what}, {missing:?}");
                ledger(w);
            }
            play(w, &mend(missing));
            finish(w);
            expect(w, what, "a sent; x got from a");
            let (from, to) = (w.utcb(A).mr(2), w.utcb(X).br(2));
            let page = |at| w.k.machine.peek(crate::machine::PhysAddr(at), PAGE as usize);
            assert_eq!((page(to), page(to + PAGE)), (page(from), page(from + PAGE)), "{what}, {missing:?}");
        }
    }
}

/// What a pager does in place of an answer.
const REFUSALS: [&str; 8] = [
    "r wait nil",
    "root delete r",
    "root halt r",
    "r send y 1 snd=0",
    "c send a 1 snd=0; y send x 1 snd=0",
    "r wait rcv=100; clock 200",
    "root place r 0",
    "r except",
];

/// What somebody does then.
const ENDS: [&str; 6] = [
    "b cancel a; y cancel x",
    "root delete a",
    "root delete x",
    "root delete x; root delete a",
    "b halt a; y halt x; b resume a; y resume x",
    "clock 1000000",
];

/// Everybody but the servers goes.
fn delete_all(w: World) {
    w.finish_all();
    for who in [R, A, B, C, D, X, Y, Z] {
        w.delete(ROOT, who).expect("root may");
        w.finish_all();
    }
}

/// Whatever a pager does in place of an answer, and whatever somebody does to its clients then: when all are gone all memory
/// is there again.
#[test]
fn refusals_cost_nothing() {
    let without = with_memory();
    delete_all(without);
    let all = ledger(without);
    for (missing, is_queued) in ALL {
        for refusal in REFUSALS {
            for end in ENDS {
                let w = faulting(missing, is_queued);
                play(w, refusal);
                play(w, end);
                finish(w);
                invariants::check(w.k);
                ledger(w);
                delete_all(w);
                assert_eq!(ledger(w), all, "{missing:?}, {is_queued}: {refusal}; {end}");
            }
        }
    }
}
