//! Tracepoints: which events calls and faults make.

use kformats::trace::{Event, Group, Kind};
use l4_abi::ThreadId;

use super::processors::apart;
use super::script::play;
use super::strings::with_memory;
use super::world::{EVERYBODY, World};

/// What was traced since the last time: names of events, with the threads, processors and numbers that they tell.
fn told(w: World) -> Vec<String> {
    let name = |id: u64| {
        let id = ThreadId::from_raw(id as _);
        let who = EVERYBODY.into_iter().find(|who| who.id() == id || w.tcb(*who).local_id.get() == id && !id.is_nil());
        match who {
            Some(who) => who.name().to_owned(),
            None if id == ThreadId::ANY => "any".into(),
            None => id.raw().to_string(),
        }
    };
    let events = w.k.machine.events.take();
    let text = |(event, thread, args): (Event, Option<ThreadId>, [u64; 4])| {
        let point = event.point();
        let about = thread.map(|id| format!("{}: ", name(id.raw() as u64))).unwrap_or_default();
        let args = point.args.iter().zip(args).filter_map(|((_, kind), arg)| match kind {
            Kind::Thread => Some(format!(" {}", name(arg))),
            Kind::Processor | Kind::Line | Kind::Number => Some(format!(" {arg}")),
            _ => None,
        });
        format!("{about}{}{}", point.name, args.collect::<String>())
    };
    events.into_iter().map(text).collect()
}

/// Traces some events of a script.
fn trace(w: World, events: &str, script: &str) -> Vec<String> {
    let events = Event::list(events.as_bytes()).expect("events have these names");
    w.k.machine.events.take();
    w.k.machine.wanted.store(events, std::sync::atomic::Ordering::Relaxed);
    play(w, script);
    w.k.machine.wanted.store(0, std::sync::atomic::Ordering::Relaxed);
    told(w)
}

#[track_caller]
fn check(w: World, events: &str, script: &str, expected: &[&str]) {
    assert_eq!(trace(w, events, script), expected, "{script}");
}

const MESSAGES: &str = "IPC_TRANSFER,IPC_DETAILS,IPC_ERROR";

#[test]
fn messages_tell_who_sends_to_whom_and_who_waits() {
    check(World::new(), MESSAGES, "b wait", &["b: IPC_DETAILS any 1"]);
    check(World::new(), MESSAGES, "a send b 1", &["a: IPC_DETAILS b 0"]);
    let call =
        ["b: IPC_DETAILS any 1", "IPC_TRANSFER a b", "a: IPC_DETAILS b 1", "IPC_TRANSFER b a", "b: IPC_DETAILS any 1"];
    check(World::new(), MESSAGES, "b wait; a call b 1; b reply a 2", &call);
    check(World::new(), MESSAGES, "a send b 1 snd=0", &["a: IPC_ERROR"]);
    check(World::new(), "none", "b wait; a call b 1; b reply a 2", &[]);
}

#[test]
fn timeouts_and_cancels_tell_what_they_end() {
    check(
        World::new(),
        "IPC_UNWIND,SCHEDULE_WAKEUP_TIMEOUT,IPC_ERROR",
        "a wait b rcv=10; clock 20",
        &["SCHEDULE_WAKEUP_TIMEOUT a", "IPC_UNWIND a b", "a: IPC_ERROR"],
    );
    check(World::new(), "IPC_UNWIND,IPC_ERROR", "a send b 1; c cancel a", &["IPC_UNWIND a b", "a: IPC_ERROR"]);
    check(World::new(), "IPC_UNWIND", "c cancel a", &[]);
}

#[test]
fn page_faults_are_traced_and_take_the_phases_then() {
    let fault = "PAGEFAULT_USER,IPC_TRANSFER";
    let expected = ["a: PAGEFAULT_USER b", "IPC_TRANSFER a b", "IPC_TRANSFER b a"];
    check(World::new(), fault, "a pager b; b wait; a fault 0x5000; b send a", &expected);
    let exception = ["a: EXCEPTION_IPC b", "IPC_TRANSFER a b"];
    check(World::new(), "EXCEPTION_IPC,IPC_TRANSFER", "a handler b; b wait; a except", &exception);
}

#[test]
fn a_map_item_tells_of_the_pages_and_of_the_database() {
    let w = with_memory();
    // r, which is in the root task's space, maps two pages; a has neither of them.
    let told = trace(
        w,
        "memory,IPC_MAPGRANT_ITEM,IPC_EXT_TRANSFER,-KMEM_ALLOC,-MDB_ALLOC_BUFFER",
        "a wait; r send a map=0x1010000/13",
    );
    let of = |name: &str| told.iter().filter(|line| line.contains(name)).count();
    assert_eq!(told.first().map(String::as_str), Some("IPC_EXT_TRANSFER r a"), "{told:?}");
    let counts = ["IPC_MAPGRANT_ITEM", "FPAGE_MAP", "MDB_MAP", "MDB_UNMAP", "FPAGE_OVERMAP"].map(of);
    assert_eq!(counts, [1, 1, 2, 0, 0], "{told:?}");
}

#[test]
fn kernel_memory_that_goes_back_was_taken() {
    let w = World::new();
    let told = trace(w, "KMEM_ALLOC,KMEM_FREE,THREAD_CREATE,THREAD_DELETE", "a wait; root delete c");
    assert!(told.iter().any(|line| line == "THREAD_DELETE c"), "{told:?}");
    w.k.machine.wanted.store(Group::Memory.mask() | Group::Threads.mask(), std::sync::atomic::Ordering::Relaxed);
    w.create(super::world::N);
    let told = self::told(w);
    let frames = told.iter().filter(|line| line.starts_with("KMEM_ALLOC")).count();
    assert!(frames >= 2, "a space has a root and its shadow: {told:?}");
    assert!(told.iter().any(|line| line == "THREAD_CREATE n"), "{told:?}");
}

#[test]
fn strings_tell_of_items_copies_and_faults() {
    let w = with_memory();
    play(w, "x wait");
    super::strings::buffers(w, &super::strings::string(super::strings::TO, 0x2000));
    w.k.machine.wanted.store(Group::Ipc.mask() | Event::PagefaultTunnel.bit(), std::sync::atomic::Ordering::Relaxed);
    let item = super::strings::string(super::strings::FROM, 0x1800);
    w.send(super::world::A, super::world::X.id(), &super::strings::words(&item));
    let told = told(w);
    let of = |name: &str| told.iter().filter(|line| line.contains(name)).count();
    assert_eq!((of("IPC_STRING_ITEM"), of("IPC_STRING_COPY"), of("IPC_TRANSFER a x")), (1, 2, 1), "{told:?}");
}

#[test]
fn threads_that_travel_and_move_tell_where() {
    let told = trace(apart(), "IPC_XCPU_DETAILS,IPC_TRANSFER", "x wait; a call x 1; x reply a 2; settle");
    let journey = |line: &str| told.iter().any(|own| own == line);
    assert!(journey("IPC_XCPU_DETAILS a 0 1") && journey("IPC_XCPU_DETAILS a 1 0"), "{told:?}");
    assert_eq!(told.iter().filter(|line| line.starts_with("IPC_TRANSFER")).count(), 2, "{told:?}");
    check(apart(), "THREAD_MIGRATE", "root place b 1; settle", &["THREAD_MIGRATE b 0 1"]);
}

#[test]
fn interrupts_tell_their_lines() {
    let expected = ["INTERRUPT 6", "INTERRUPT_DETAILS 6 x"];
    let told = trace(World::new(), "interrupts,IPC_TRANSFER", "root handle irq5; x handle irq6; x wait; raise 6");
    assert_eq!(told[..2], expected[..2], "{told:?}");
    assert!(told[2].starts_with("IPC_TRANSFER ") && told[2].ends_with(" x"), "{told:?}");
}
