//! Two device drivers at user level, as a test of interrupts and as an example.
//!
//! | thread | number | does |
//! |---|---|---|
//! | root | root task | makes the others, associates their interrupts, prints what they report |
//! | timer | + 1 | counts interrupts of the interval timer |
//! | serial | + 2 | echoes what is typed at the first serial line, up to a `q` |
//! | spinner | + 3 | with `busy`: runs at the lowest priority, so that interrupts find somebody to preempt |
//!
//! The command line: `ticks=N`, the timer interrupts to count; `busy`. Exit status 0: both drivers ended by themselves.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

mod port;
mod serial;
mod timer;

use core::fmt::Debug;

use l4::interrupt::count;
use l4::message::Msg;
use l4::thread::{Entry, Stack, associate_interrupt, deassociate_interrupt, spawn};
use l4::{MsgTag, SysError, ThreadId, UTCB_MR0_OFFSET, Word, ipc, kip, schedule, thread, utcb};
use l4_rt::{exit, println};

/// Exit status for a bad command line.
const STATUS_USAGE: u8 = 2;
/// Exit status for a call that failed.
const STATUS_FAILURE: u8 = 1;

const TICKS_DEFAULT: Word = 50;
/// Version of all threads made here.
const VERSION: Word = 2;

type DriverStack = Stack<0x4000>;

static TIMER_STACK: DriverStack = Stack::new();
static SERIAL_STACK: DriverStack = Stack::new();
static SPINNER_STACK: DriverStack = Stack::new();

l4_rt::entry!(main);

fn main() {
    let (ticks, is_busy) = options();
    // Other threads than this one cannot ask sigma0 for pages of the image: they find all of them mapped.
    l4_rt::touch_image();
    println!("drivers: {} interrupts, type here, q ends", count());
    check_refusals();
    if is_busy {
        start(3, &SPINNER_STACK, spin);
        must("the spinner's priority", schedule::set_priority(thread_after_root(3), 1));
    }
    let timer = start(1, &TIMER_STACK, timer::serve);
    let serial = start(2, &SERIAL_STACK, serial::serve);
    let timer_lines = timer::LINES.map(ThreadId::interrupt).map(|line| (line, associate_interrupt(line, timer)));
    assert!(timer_lines.iter().any(|(_, result)| result.is_ok()), "the timer's interrupt can be associated");
    must("associating the serial line", associate_interrupt(serial::LINE, serial));

    send_off(serial, &[]);
    send_off(timer, &[ticks]);
    let [counted, us] = report_of(timer);
    println!("timer: {counted} interrupts in {us} us");
    let [interrupts, characters] = report_of(serial);
    println!("serial: {characters} characters in {interrupts} interrupts");

    for (line, _) in timer_lines.into_iter().filter(|(_, result)| result.is_ok()) {
        must("giving the timer back", deassociate_interrupt(line));
    }
    must("giving the serial line back", deassociate_interrupt(serial::LINE));
}

/// The number of ticks, and whether somebody shall spin.
fn options() -> (Word, bool) {
    let (mut ticks, mut is_busy) = (TICKS_DEFAULT, false);
    for word in l4_rt::args("drivers") {
        match word.strip_prefix("ticks=").map(str::parse) {
            Some(Ok(number)) => ticks = number,
            None if word == "busy" => is_busy = true,
            _ => {
                println!("drivers: what is {word}? There are ticks=N and busy");
                exit(STATUS_USAGE)
            }
        }
    }
    (ticks, is_busy)
}

/// What is no interrupt cannot be associated, and one that was not cannot be scheduled.
fn check_refusals() {
    let me = thread::my_global_id();
    let line = serial::LINE;
    let refused = [
        associate_interrupt(ThreadId::global(line.thread_no(), 2), me),
        associate_interrupt(ThreadId::interrupt(count() as Word), me),
        associate_interrupt(line, ThreadId::global(me.thread_no(), me.version() + 1)),
        schedule::set_priority(line, 1).map(|_| ()),
    ];
    assert_eq!(refused, [Err(SysError::InvalidThread); 4], "what the kernel must refuse");
    assert_eq!(deassociate_interrupt(line), Ok(()), "nobody has the line, and nobody has it after");
}

/// Starts the `n`th thread after this one.
fn start(n: Word, stack: &'static DriverStack, entry: Entry) -> ThreadId {
    let id = thread_after_root(n);
    let my_utcb = thread::my_local_id().raw() - UTCB_MR0_OFFSET as Word;
    must("making a thread", spawn(id, my_utcb + n * kip().utcb_info.size_bytes(), stack, entry));
    id
}

fn thread_after_root(n: Word) -> ThreadId {
    ThreadId::global(kip::root_task_id().thread_no() + n, VERSION)
}

/// Lets a driver begin, with these words.
fn send_off(driver: ThreadId, words: &[Word]) {
    Msg::of_words(MsgTag::NIL, words).load();
    must("sending a driver off", ipc::send(driver));
}

/// What a driver reports in the end.
fn report_of(driver: ThreadId) -> [Word; 2] {
    must("hearing from a driver", ipc::receive(driver));
    [utcb().mr(1), utcb().mr(2)]
}

/// Reports to root, and is done.
fn report(words: [Word; 2]) -> ! {
    Msg::of_words(MsgTag::NIL, &words).load();
    must("reporting", ipc::send(kip::root_task_id()));
    l4::time::sleep_forever()
}

extern "C" fn spin() -> ! {
    loop {
        core::hint::spin_loop();
    }
}

/// The result of a call that has to succeed.
fn must<T, E: Debug>(what: &str, result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| {
        println!("drivers: {what} failed: {error:?}");
        exit(STATUS_FAILURE)
    })
}
