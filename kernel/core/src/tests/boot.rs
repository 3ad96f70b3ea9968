//! The initial servers (X.2, Generic booting).

use l4_abi::{Kip, ROOT_KIP_AREA_BASE, ROOT_UTCB_AREA_BASE, ServerWords, ThreadId, UTCB_MR0_OFFSET, Word};

use super::machine::DEFAULT_FLAGS;
use super::script::{expect, play};
use super::world::{NUMBERS, ROOT, S, START_IP, START_SP, World};
use crate::boot::{BadServers, InitialServers, Server};
use crate::machine::TcbRef;
use crate::thread::{Status, Work};

/// A server whose memory begins at `low`.
const fn words(low: Word) -> ServerWords {
    ServerWords { sp: low + 0x800, ip: low + 0x10, low, high: low + 0x1000 }
}

const NOBODY: ServerWords = ServerWords { sp: 1, ip: 2, low: 0x5000, high: 0x5000 };

fn kip(sigma0: ServerWords, sigma1: ServerWords, root_server: ServerWords) -> Kip {
    Kip { sigma0, sigma1, root_server, ..Kip::ZERO }
}

/// The servers in the order in which they are started: id, pager, instruction pointer, stack pointer.
fn list(kip: &Kip) -> Vec<(ThreadId, ThreadId, usize, usize)> {
    let servers = InitialServers::of(kip).expect("there is a sigma0");
    let list: Vec<Server> = servers.list(NUMBERS).collect();
    assert!(list.iter().all(|server| server.scheduler == ROOT.id() && server.is_sigma0 == (server.id == S.id())));
    assert_eq!(servers.has_root_task(), list.iter().any(|server| server.id == ROOT.id()));
    list.into_iter().map(|server| (server.id, server.pager, server.ip, server.sp)).collect()
}

/// sigma0 first, with the kernel as its pager, then those that the loader names, whose pager is sigma0.
#[test]
fn servers_are_those_that_the_loader_names() {
    let sigma0 = (ThreadId::global(32, 1), ThreadId::NIL, 0x10_0010, 0x10_0800);
    let sigma1 = (ThreadId::global(33, 1), ThreadId::global(32, 1), 0x20_0010, 0x20_0800);
    let root = (ThreadId::global(34, 1), ThreadId::global(32, 1), 0x30_0010, 0x30_0800);
    let (s, t, r) = (words(0x10_0000), words(0x20_0000), words(0x30_0000));
    assert_eq!(list(&kip(s, t, r)), [sigma0, sigma1, root]);
    assert_eq!(list(&kip(s, NOBODY, r)), [sigma0, root]);
    assert_eq!(list(&kip(s, ServerWords::ZERO, r)), [sigma0, root]);
    assert_eq!(list(&kip(s, t, NOBODY)), [sigma0, sigma1]);
    assert_eq!(list(&kip(s, ServerWords::ZERO, ServerWords::ZERO)), [sigma0]);
}

/// Without memory for sigma0, the boot ends by that name.
#[test]
fn boot_needs_sigma0() {
    for nobody in [NOBODY, ServerWords::ZERO] {
        let refused = InitialServers::of(&kip(nobody, words(0x20_0000), words(0x30_0000)));
        assert_eq!(refused, Err(BadServers::NoSigma0));
    }
    assert_eq!(BadServers::NoSigma0.to_string(), "the loader gave no sigma0");
}

/// A stack pointer by which a loader asks for compatibility mode is no stack pointer.
#[test]
fn narrow_programs_are_refused_by_name() {
    let narrow = |low| ServerWords { sp: 1 << 63, ..words(low) };
    let (s, t, r) = (words(0x10_0000), words(0x20_0000), words(0x30_0000));
    let check = |kip: Kip, name| {
        let error = InitialServers::of(&kip).expect_err("it is refused");
        assert_eq!(error.to_string(), format!("{name} is a 32-bit program, for which this kernel has no mode"));
    };
    check(kip(narrow(0x10_0000), t, r), "sigma0");
    check(kip(s, narrow(0x20_0000), r), "sigma1");
    check(kip(s, t, narrow(0x30_0000)), "the root task");
    // Nobody is not narrow.
    assert!(InitialServers::of(&kip(s, ServerWords { sp: 1 << 63, ..NOBODY }, r)).is_ok());
}

/// What each server finds, whichever it is.
#[track_caller]
fn check_server(w: World, server: Server) {
    let thread = w.k.thread(server.id).expect("it is there");
    let (tcb, utcb, space) = (w.k.tcb(thread), w.k.utcb(thread), w.k.spaces.get(w.k.space_of(thread)));
    assert_eq!((tcb.ip.get(), tcb.sp.get(), tcb.flags.get()), (server.ip, server.sp, DEFAULT_FLAGS));
    assert_eq!((tcb.status(), tcb.work(), tcb.is_halted()), (Status::Running, Work::None, false));
    assert_eq!((tcb.priority(), tcb.home().index(), tcb.scheduler.get()), (255, 0, ROOT.id()));
    assert_eq!(tcb.local_id.get(), ThreadId::local(ROOT_UTCB_AREA_BASE + UTCB_MR0_OFFSET as Word));
    assert_eq!((utcb.pager(), utcb.exception_handler()), (server.pager, ThreadId::NIL));
    assert_eq!(utcb.my_global_id(), server.id);
    assert_eq!((space.kip_area().base(), space.utcb_area().base()), (ROOT_KIP_AREA_BASE, ROOT_UTCB_AREA_BASE));
    assert_eq!(space.utcb_area().size_log2(), 18, "256 UTCBs");
    assert_eq!((space.threads(), space.is_privileged(), space.is_sigma0()), (1, true, server.is_sigma0));
}

/// The servers run without a start message, each in a privileged space of its own.
#[test]
fn initial_servers_just_run() {
    let w = World::bare();
    expect(w, "boot", "root runs; root ready; s waits for any");
    let (s, t, r) = (words(0x10_0000), words(0x20_0000), words(0x30_0000));
    let sigma1 =
        InitialServers::of(&kip(s, t, r)).map(|servers| servers.list(NUMBERS).nth(1)).expect("sigma0 is there");
    let sigma1 = sigma1.expect("sigma1 is there");
    w.here().start_server(sigma1).expect("there is memory");
    check_server(w, sigma1);
    let root = Server { id: ROOT.id(), ip: START_IP, sp: START_SP, ..sigma1 };
    check_server(w, root);
    assert_ne!(w.k.space_of(TcbRef::new(33)), w.k.space_of(ROOT.tcb()));
    // It is ready behind the root task, which has the same priority.
    assert!(w.k.tcb(TcbRef::new(33)).ready_link.is_linked());
    play(w, "root send s");
    assert_eq!(w.outcome(S), "got from root");
}
