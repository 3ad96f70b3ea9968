//! The debugger on a kernel without a machine.

mod damage;
mod machine;
mod trace;

use dice::Dice;
use kcore::lock::Held;
use kcore::machine::{CpuId, TcbRef};
use kcore::mapdb::{MapCursor, Progress};
use kcore::space::Transfer;
use kcore::syscall::{SpaceControlArgs, ThreadControlArgs};
use kformats::trace::Memory;
use l4_abi::{Fpage, MapItem, MsgTag, Rights, ThreadId, Timeouts, UTCB_ALIGN_LOG2, Word};

use crate::names::{Name, Named, Names};
use crate::output::Terminal;
use crate::probe::Probe;
use crate::session::{Leave, Session, State};
use machine::{KERNEL_BASE, TCB_TABLE, World, dispatch, here, world};

/// Keys that are typed, and what is printed.
pub struct Script {
    keys: std::collections::VecDeque<u8>,
    pub text: String,
}

impl Script {
    pub fn new(keys: &[u8]) -> Self {
        Self { keys: keys.iter().copied().collect(), text: String::new() }
    }
}

impl Terminal for Script {
    fn key(&mut self) -> Option<u8> {
        self.keys.pop_front()
    }
    fn print(&mut self, text: &str) {
        self.text.push_str(text);
    }
}

/// What the tests know of the machine.
pub struct Known {
    k: World,
    names: Names,
    /// The kernel has tracepoints.
    trace: Option<trace::Words>,
}

impl Known {
    /// The threads of [`ring`] have names.
    fn new(k: World) -> Self {
        let names = Names::new();
        for (who, name) in [(A, "alpha"), (B, "beta"), (C, "gamma")] {
            names.give(Named::Thread(who.id()), Name::of(name.as_bytes()).expect("a name"), |_| true);
        }
        Self { k, names, trace: None }
    }

    /// What is printed when these keys are typed, and how the debugger was left.
    fn type_keys(&mut self, keys: &[u8], state: &mut State) -> (String, Leave) {
        let mut script = Script::new(keys);
        let leave = Session::new(self.k, self, &mut script, state).run();
        (script.text, leave)
    }
}

impl Probe for Known {
    fn cpu(&self) -> CpuId {
        CpuId::new(0)
    }
    fn name(&self, named: Named) -> Option<Name> {
        self.names.get(named)
    }
    fn tcb_table(&self) -> u64 {
        TCB_TABLE
    }
    fn words(&self) -> &str {
        "SMP=2 DEBUG"
    }
    fn read_kernel(&self, address: u64, bytes: &mut [u8]) -> usize {
        let phys = address.wrapping_sub(KERNEL_BASE as u64);
        for (index, byte) in bytes.iter_mut().enumerate() {
            let at = phys.wrapping_add(index as u64);
            if !(machine::KMEM.0..machine::KMEM.1).contains(&at) {
                return index;
            }
            *byte = (kcore::machine::PhysMem::read(self.k.machine, kcore::machine::PhysAddr(at & !7)) >> (at % 8 * 8))
                as u8;
        }
        bytes.len()
    }
    fn disassemble(&self, code: &[u8], f: &mut dyn core::fmt::Write) -> Option<usize> {
        crate::disassemble(code, f)
    }
    fn trace_word(&self, index: usize) -> Option<u64> {
        self.trace.as_ref()?.root_word(index)
    }
    fn set_trace_word(&self, index: usize, word: u64) -> bool {
        self.trace.as_ref().is_some_and(|trace| trace.set_root_word(index, word))
    }
    fn ring_word(&self, at: u64) -> Option<u64> {
        self.trace.as_ref()?.load(at)
    }
    fn set_ring_word(&self, at: u64, word: u64) -> bool {
        self.trace.as_ref().is_some_and(|trace| trace.replace(at, word))
    }
}

/// A thread of a world: its number; the number of the first thread of its space.
#[derive(Clone, Copy)]
pub struct Who(pub u32, pub u32);

const ROOT: Who = Who(34, 34);
const A: Who = Who(40, 40);
const B: Who = Who(41, 40);
const C: Who = Who(50, 50);

impl Who {
    fn id(self) -> ThreadId {
        ThreadId::global(self.0.into(), 1)
    }
    fn tcb(self) -> TcbRef {
        TcbRef::new(self.0)
    }
}

/// Creates and starts a thread, with its space if it is the first there.
fn start(k: World, who: Who) {
    const UTCBS: Word = 0x7100_0000;
    let root = ROOT.tcb();
    run(k, ROOT);
    let space = ThreadId::global(who.1.into(), 1);
    let utcb_location = UTCBS + (Word::from(who.0 - who.1) << UTCB_ALIGN_LOG2);
    let args =
        |pager, utcb_location| ThreadControlArgs { dest: who.id(), space, scheduler: ROOT.id(), pager, utcb_location };
    if who.0 == who.1 {
        let _ = here(k).thread_control(root, args(ThreadId::NIL, Word::MAX));
        dispatch(k);
        let (kip, utcb) = (Fpage::new(0x7000_0000, 12, Rights::NONE), Fpage::new(UTCBS, 14, Rights::NONE));
        let areas = SpaceControlArgs {
            space,
            kip_area: kip.expect("aligned"),
            utcb_area: utcb.expect("aligned"),
            redirector: ThreadId::NIL,
        };
        let _ = here(k).space_control(root, areas);
        dispatch(k);
    }
    let _ = here(k).thread_control(root, args(ROOT.id(), utcb_location));
    dispatch(k);
    let utcb = k.utcb(root);
    for (index, word) in [l4_abi::protocol::start_tag().raw(), 0x40_0000, 0x50_0000].into_iter().enumerate() {
        utcb.set_mr(index, word);
    }
    ipc(k, ROOT, who.id(), ThreadId::NIL);
    assert!(k.tcb(who.tcb()).is_active(), "{} is started", who.0);
}

/// Lets a thread run, on the time of who runs.
fn run(k: World, who: Who) {
    let running = here(k).cpu.current.get().thread().expect("somebody runs");
    if running != who.tcb() {
        here(k).thread_switch(running, who.id());
        dispatch(k);
    }
}

/// Lets a thread make a call of Ipc.
fn ipc(k: World, who: Who, to: ThreadId, from: ThreadId) {
    run(k, who);
    here(k).ipc(who.tcb(), to, from, Timeouts::NEVER);
    dispatch(k);
}

/// A ring of three that call each other.
pub fn ring() -> World {
    let k = world();
    [A, B, C].into_iter().for_each(|who| start(k, who));
    for (who, partner) in [(A, B), (B, C), (C, A)] {
        k.utcb(who.tcb()).set_tag(MsgTag::new(0, 0, 0));
        ipc(k, who, partner.id(), partner.id());
    }
    lend(k);
    k
}

/// A page that went from sigma0 to root, from there to the space of A, and on to that of C.
const LENT: [Word; 4] = [0x20_0000, 0x20_0000, 0x5000_0000, 0x6000_0000];

/// Maps a page along.
fn lend(k: World) {
    let spaces = [Who(32, 32), ROOT, A, C].map(|who| k.tcb(who.tcb()).space());
    for step in 0..3 {
        let page = |at, rights| Fpage::new(at, 12, rights).expect("a page is aligned");
        let item = MapItem::map(page(LENT[step], Rights::READ_WRITE), 0);
        let transfer =
            Transfer { source: spaces[step], dest: spaces[step + 1], item, window: page(LENT[step + 1], Rights::NONE) };
        let progress = k.spaces.map(&mut Held::nothing(), &transfer, &MapCursor::default(), &mut 1000);
        assert_eq!(progress, Progress::Done);
    }
}

/// See [`Known::type_keys`].
pub fn type_keys(k: World, keys: &[u8], state: &mut State) -> (String, Leave) {
    Known::new(k).type_keys(keys, state)
}

#[track_caller]
fn check(k: World, keys: &str, expected: &[&str]) {
    let mut state = State::new();
    state.page = 0;
    let (text, _) = type_keys(k, keys.as_bytes(), &mut state);
    for part in expected {
        assert!(text.contains(part), "no `{part}` after {keys:?} in\n{text}");
    }
}

#[test]
fn a_ring_of_calls_is_pointed_out() {
    let k = ring();
    check(
        k,
        "w",
        &["RING of 3: 28.1 (alpha) -> 29.1 (beta) -> 32.1 (gamma) -> 28.1 (alpha)", "1 rings; 3 can never go on"],
    );
    check(k, "k", &["threads: sound", "spaces:  sound"]);
}

#[test]
fn a_page_is_followed_from_hand_to_hand() {
    let k = ring();
    let steps = [
        "space 0 (sigma0) at 200000, 2M bytes at 200000, rwx",
        "\n  space 1 at 200000, 4K bytes at 200000, rw-",
        "\n    space 2 at 50000000, 4K bytes at 200000, rw-",
        "\n      space 3 at 60000000, 4K bytes at 200000, rw-",
    ];
    for keys in ["mmp200000\r", "mmsgamma\r60000000\r", "mM"] {
        check(k, keys, &steps);
    }
    check(k, "msgamma\r", &["60000000   4K rw- at 200000 from space 2 at 50000000"]);
    check(k, "pgamma\r\r", &["60000000 to     60000fff ->       200000     1 x 4K    rw-"]);
}

#[test]
fn threads_are_found_by_id_number_address_and_name() {
    let k = ring();
    let tcb = format!("t{:x}\r", TCB_TABLE + (u64::from(A.0) << kcore::thread::TCB_SIZE_LOG2));
    let id = format!("t{:x}\r", A.id().raw());
    for keys in ["t28\r", "t#40\r", "talpha\r", &tcb, &id, "t28\rt\r"] {
        check(k, keys, &["thread 28.1 (alpha)", "sends to 29.1 (beta)", "in        space 2"]);
    }
    check(k, "tnobody\r", &["is no thread: type its id, number, TCB address or name"]);
    check(k, "/mm\r", &["thread 32.1 (gamma)", "1 found"]);
}

#[test]
fn commands_are_called_by_name_too() {
    let k = ring();
    check(k, "cmlwaits\rshowtcb alpha\rmdb space 2\r", &["RING of 3", "thread 28.1 (alpha)", "7000"]);
    check(k, "cmlup\rshow\t\rshowt\tcb\rgamma\r", &["showtcb  showtcbext  showqueue", "no such command"]);
    check(k, "cmlup\rshowt\t gamma\r", &["> showtcb gamma", "thread 32.1 (gamma)"]);
    check(k, "cmlup\rlists\t\r", &["> listspaces", "space 1, 1 threads", "sigma0"]);
    check(k, "cmlup\rwaitx\x7fs\r\x1b[A\r", &["RING of 3"]);
    check(k, "cmlup\rnosuch\rgo\r", &["no such command: help lists them"]);
}

#[test]
fn each_way_out_is_told() {
    let k = ring();
    let leave = |keys: &str| type_keys(k, keys.as_bytes(), &mut State::new()).1;
    assert_eq!(leave("g"), Leave::Go);
    assert_eq!(leave(""), Leave::Ended);
    assert_eq!(leave("s"), Leave::Ended, "there is nothing to step through here");
    assert_eq!(leave("acg\x1b\x1bg"), Leave::Go);
}

#[test]
fn long_output_comes_in_pages() {
    let k = ring();
    let (text, leave) = type_keys(k, b"?qg", &mut State::new());
    assert!(text.contains("--- more") && leave == Leave::Go, "{text}");
    let lines = text.lines().take_while(|line| !line.contains("more")).count();
    assert!(lines < 40, "a page, not {lines} lines");
}

/// Numbers from a fixed seed.
fn numbers() -> impl FnMut() -> u64 {
    const SEED: u64 = 0x2545_F491_4F6C_DD1D;
    println!("seed {SEED:#x}");
    let mut dice = Dice::new(SEED, 0);
    move || dice.next()
}

/// No sequence of keys does harm, and each ends.
#[test]
fn any_keys_may_be_typed() {
    let k = ring();
    let mut next = numbers();
    const LIKELY: &[u8] = b"gac#tTwk/KqQSFpdDmMbsjU \r\r\r\x1b0123456789abcdefklnpwy\x7f\t?hIiVPlCNSm[ABq";
    let mut kept = State::new();
    for _ in 0..600 {
        let keys: Vec<u8> = (0..120)
            .map(|_| match next() % 8 {
                0 => next() as u8,
                _ => LIKELY[next() as usize % LIKELY.len()],
            })
            .collect();
        let (text, _) = type_keys(k, &keys, &mut kept);
        assert!(text.len() < 4 << 20, "{keys:?}");
    }
    assert_eq!(k.check_threads().map(|count| count.senders), Ok(3), "nothing was changed");
}
