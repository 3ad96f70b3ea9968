//! Short scripts: what threads do, and what each of them sees in the end.
//!
//! A script is steps, separated by `;`. A step is a name and what that thread does; it must be ready. `~` at its end
//! leaves the work of the kernel entry to later.
//!
//! ```text
//! wait [FROM]              receive from somebody, `any` (as without FROM) or `local`
//! send TO [WORDS]          send these words
//! call TO [WORDS]          send, and receive from the same
//! reply TO [WORDS]         send at once or not at all, and receive from anybody
//! fault ADDRESS, except    a page fault when reading, an exception
//! input                    finds no input at its breakpoint
//! cancel TO, cancel-send TO, cancel-receive TO, halt TO, resume TO, start TO, delete TO
//! pager TO, handler TO     sets the register
//! accept                   opens the receive window: the complete space
//! finish                   does what is left of the work
//! place TO CPU             lets a thread run at this processor
//! redirect OF TO           makes TO the redirector of the space of OF; `any` ends redirection
//! handle IRQ, ignore IRQ   becomes the handler of an interrupt; it gets none. Asked by root
//! ```
//!
//! A name stands for the global id, `'name` for the local one, `name/2` for the second version, `nil` for nobody.
//! Messages take `snd=T`, `rcv=T` (`never`, `0`, microseconds, or `@` and a point of the clock), `from=F`, `as=V` (in the
//! name of V), `label=L`, `map=ADDRESS/SIZE` and `grant=ADDRESS/SIZE` (to the same address; SIZE is log2). Numbers may be
//! hexadecimal. `irq5` is an interrupt. The step `clock T` sets the clock, which stands at 0 when a script begins; `raise N`
//! is a device's; `settle` lets all processors do what they were told of and have not done because of a `~`.
//!
//! What a thread sees is [`World::outcome`], or `runs`.

use l4_abi::{
    Acceptor, ExregsControl, Fpage, MapItem, MsgTag, ProcessorControl, Rights, ThreadId, Time, Timeouts, Word,
};

use super::invariants;
use super::schedule::nothing;
use super::space_control::areas;
use super::world::{ROOT, START_IP, START_SP, Who, World, deletion, no_registers};
use crate::syscall::{Exregs, ScheduleArgs, SpaceControlArgs, ThreadControlArgs};

/// Plays a script in a fresh world, in which every thread that the script lets act gets the processor, and compares
/// what the threads then see. They see the same on several processors, wherever they run.
pub fn check(script: &str, expected: &str) {
    check_alone(script, expected);
    // On one processor work can be left because the scheduler prefers somebody else.
    let leaves_work = script.contains('~') || script.contains("finish") || expected.contains("works on");
    if !leaves_work {
        for shift in 0..3 {
            check_across(World::spread(shift), script, expected);
        }
    }
}

/// As [`check`], on one processor alone.
pub fn check_alone(script: &str, expected: &str) {
    check_across(World::new(), script, expected);
}

/// As [`check`], in a world of several processors.
pub fn check_across(w: World, script: &str, expected: &str) {
    play(w, script);
    expect(w, script, expected);
}

/// As [`check`], but the scheduler decides who runs: who acts must be running.
pub fn check_scheduled(w: World, script: &str, expected: &str) {
    for step in steps(script) {
        let (actor, _) = words(step).split_first().map(|(actor, rest)| (*actor, rest.len())).expect("a step");
        let runs = w.running();
        assert!(
            ["clock", "raise"].contains(&actor) || Who::named(actor) == runs,
            "`{step}` in `{script}`: {runs:?} runs"
        );
        play(w, step);
    }
    expect(w, script, expected);
}

/// Compares what threads see.
pub fn expect(w: World, script: &str, expected: &str) {
    for clause in steps(expected) {
        let (name, sees) = clause.split_once(' ').unwrap_or((clause, ""));
        if let Some(line) = name.strip_prefix("irq") {
            assert_eq!(w.line(number(line) as u32), sees, "interrupt {line} after `{script}`");
            continue;
        }
        let who = Who::named(name).unwrap_or_else(|| panic!("nobody is called {name}"));
        if sees == "runs" {
            assert_eq!(w.running(), Some(who), "who runs after `{script}`");
        } else {
            assert_eq!(w.outcome(who), sees, "what {name} sees after `{script}`");
        }
    }
}

/// Plays a script.
pub fn play(w: World, script: &str) {
    for step in steps(script) {
        let line = words(step);
        match line[..] {
            ["clock", us] => w.clock(number(us)),
            ["raise", line] => w.raise(number(line) as u32),
            ["settle"] => w.settle(),
            [actor, verb, ref rest @ ..] => {
                let who = Who::named(actor).unwrap_or_else(|| panic!("nobody is called {actor}"));
                act(w, who, verb, rest);
            }
            _ => panic!("`{step}` is no step"),
        }
    }
}

fn steps(script: &str) -> impl Iterator<Item = &str> {
    script.split(';').map(str::trim).filter(|step| !step.is_empty())
}

fn words(step: &str) -> Vec<&str> {
    step.split_whitespace().collect()
}

fn act(w: World, who: Who, verb: &str, rest: &[&str]) {
    let (is_whole, rest) = match rest {
        [rest @ .., "~"] => (false, rest),
        _ => (true, rest),
    };
    let w = w.at_home_of(who);
    let dest = || thread(rest.first().expect("somebody is named"));
    match verb {
        "wait" | "send" | "call" | "reply" => {
            let ipc = Ipc::parse(verb, rest);
            ipc.load(w, who);
            w.trap_ipc(who, ipc.to, ipc.from, Timeouts::new(ipc.snd, ipc.rcv));
        }
        "fault" => _ = w.trap(who, |here, t| here.page_fault(t, number(rest[0]) as usize, Rights::READ, START_IP)),
        "except" => w.trap(who, |here, t| here.exception(t)),
        "input" => w.trap(who, |here, t| here.sleep_for_input(t)),
        "pager" => w.utcb(who).set_pager(dest()),
        "handler" => w.utcb(who).set_exception_handler(dest()),
        "accept" => w.utcb(who).set_acceptor(Acceptor::COMPLETE),
        "finish" => w.make_run(who),
        "place" => move_to(w, who, dest(), number(rest[1]) as u16),
        "handle" | "ignore" => {
            let pager = if verb == "handle" { who.id() } else { dest() };
            let args = ThreadControlArgs { dest: dest(), pager, ..deletion(who) };
            assert_eq!(w.thread_control(ROOT, args), Ok(()), "{} is to {verb} {}", who.name(), rest[0]);
        }
        "redirect" => {
            let of = Who::named(rest[0]).expect("somebody's space is redirected");
            let args = SpaceControlArgs { redirector: thread(rest[1]), ..areas(of) };
            assert_eq!(w.trap(who, |here, t| here.space_control(t, args)), Ok(()), "{rest:?}");
        }
        "delete" => {
            let victim = Who::named(rest[0]).expect("somebody is deleted");
            let done = w.trap(who, |here, t| here.thread_control(t, deletion(victim)));
            assert_eq!(done, Ok(()), "deletion of {}", rest[0]);
        }
        "start" => {
            let control = ExregsControl::START | ExregsControl::SP | ExregsControl::IP;
            exchange(w, who, Exregs { control, sp: START_SP, ip: START_IP, ..no_registers(dest()) });
        }
        _ => exchange(w, who, Exregs { control: control(verb), ..no_registers(dest()) }),
    }
    if is_whole {
        w.dispatch()
    } else {
        w.dispatch_steps(0)
    }
    invariants::check(w.k);
}

fn move_to(w: World, who: Who, dest: ThreadId, cpu: u16) {
    let args = ScheduleArgs { processor: ProcessorControl::new(cpu), ..nothing(dest) };
    let done = w.trap(who, |here, t| here.schedule(t, args));
    assert!(done.is_ok(), "{dest:?} goes to {cpu}: {done:?}");
}

fn exchange(w: World, who: Who, args: Exregs) {
    let done = w.trap(who, |here, thread| here.exchange_registers(thread, args));
    assert!(done.is_ok(), "ExchangeRegisters of {args:?}");
}

fn control(verb: &str) -> ExregsControl {
    match verb {
        "cancel" => ExregsControl::ABORT_IPC,
        "cancel-send" => ExregsControl::ABORT_SEND,
        "cancel-receive" => ExregsControl::ABORT_RECEIVE,
        "halt" => ExregsControl::APPLY_HALT | ExregsControl::HALT,
        "resume" => ExregsControl::APPLY_HALT,
        _ => panic!("nobody can {verb}"),
    }
}

/// A call of Ipc in a script.
struct Ipc {
    to: ThreadId,
    from: ThreadId,
    snd: Time,
    rcv: Time,
    label: Word,
    virtual_sender: Option<ThreadId>,
    words: Vec<Word>,
    items: Vec<MapItem>,
}

impl Ipc {
    fn parse(verb: &str, rest: &[&str]) -> Self {
        let first = rest.first().filter(|word| !word.contains('=')).map(|word| thread(word));
        let (to, from, snd) = match verb {
            "wait" => (ThreadId::NIL, first.unwrap_or(ThreadId::ANY), Time::NEVER),
            "send" => (first.expect("a receiver"), ThreadId::NIL, Time::NEVER),
            "call" => (first.expect("a partner"), first.expect("a partner"), Time::NEVER),
            _ => (first.expect("a receiver"), ThreadId::ANY, Time::ZERO),
        };
        let none = (0, None, Vec::new(), Vec::new());
        let (label, virtual_sender, words, items) = none;
        let mut ipc = Self { to, from, snd, rcv: Time::NEVER, label, virtual_sender, words, items };
        for word in rest.iter().skip(usize::from(first.is_some())) {
            match word.split_once('=') {
                None => ipc.words.push(number(word)),
                Some(("snd", value)) => ipc.snd = time(value),
                Some(("rcv", value)) => ipc.rcv = time(value),
                Some(("from", value)) => ipc.from = thread(value),
                Some(("as", value)) => ipc.virtual_sender = Some(thread(value)),
                Some(("label", value)) => ipc.label = number(value),
                Some(("map", value)) => ipc.items.push(MapItem::map(fpage(value), fpage(value).base())),
                Some(("grant", value)) => ipc.items.push(MapItem::grant(fpage(value), fpage(value).base())),
                Some((option, _)) => panic!("a message has no {option}"),
            }
        }
        ipc
    }

    fn load(&self, w: World, who: Who) {
        if self.to.is_nil() {
            return;
        }
        let mut tag = MsgTag::new(self.label, self.words.len(), 2 * self.items.len());
        if let Some(virtual_sender) = self.virtual_sender {
            tag = tag.with_flags(MsgTag::PROPAGATED);
            w.utcb(who).set_virtual_sender(virtual_sender);
        }
        let items = self.items.iter().flat_map(|item| item.words());
        let message: Vec<Word> = [tag.raw()].into_iter().chain(self.words.iter().copied()).chain(items).collect();
        w.set_mrs(who, &message);
    }
}

/// The id that a word means.
fn thread(word: &str) -> ThreadId {
    let named = |name| Who::named(name).unwrap_or_else(|| panic!("nobody is called {name}"));
    match word {
        "nil" => ThreadId::NIL,
        "any" => ThreadId::ANY,
        "local" => ThreadId::ANY_LOCAL,
        _ if word.starts_with("irq") => ThreadId::interrupt(number(&word[3..])),
        _ => match (word.strip_prefix('\''), word.split_once('/')) {
            (Some(name), _) => named(name).local(),
            (_, Some((name, version))) => named(name).version(number(version)),
            _ => named(word).id(),
        },
    }
}

fn time(word: &str) -> Time {
    match (word, word.strip_prefix('@')) {
        ("never", _) => Time::NEVER,
        (_, Some(point)) => Time::point_us(0, number(point)).expect("a point soon"),
        _ => Time::period_us(number(word)),
    }
}

fn fpage(word: &str) -> Fpage {
    let (base, size_log2) = word.split_once('/').expect("base and size");
    Fpage::new(number(base), number(size_log2) as u32, Rights::ALL).expect("aligned")
}

fn number(word: &str) -> Word {
    let parsed = match word.strip_prefix("0x") {
        Some(digits) => Word::from_str_radix(digits, 16),
        None => word.parse(),
    };
    parsed.unwrap_or_else(|_| panic!("{word} is no number"))
}
