//! Independent pairs of threads, each on a processor of its own: they must not slow each other down.
//!
//! Each number of pairs is a region for the emulator's plugin, in which processors count while their pair exchanges messages.

use l4::arch::mark;
use l4::time::system_clock_us;
use scale::options::Part;
use scale::report::{Figure, Subject};

use crate::Bench;
use crate::worker::{Span, Task, Worker};

/// Round trips of a pair for each round that was asked for: so many that all pairs work at the same time, and that it
/// does not show what it takes them to begin together.
const ROUNDS_OF_PAIR: u64 = 60;
/// How long it takes to tell all pairs what to do: until then those that know wait.
const LEAD_US: u64 = 5_000;
const LEAD_OF_PAIR_US: u64 = 500;

/// Measures one pair, then two, up to one on each processor.
pub fn run(bench: &Bench) {
    let (cpus, rounds) = (bench.setting.cpus, bench.rounds * ROUNDS_OF_PAIR);
    let counts = if bench.pairs == 0 { 1..=cpus } else { bench.pairs.min(cpus)..=bench.pairs.min(cpus) };
    let most = *counts.end();
    let mut made = 0;
    for count in counts {
        (made..count).for_each(make);
        made = count;
        mark::begin::<0>();
        let start_us = system_clock_us() + LEAD_US + LEAD_OF_PAIR_US * count as u64;
        for (ping, pong) in (0..count).map(of) {
            pong.tell(Task::Pong(ping, rounds));
            ping.tell(Task::PingAt(pong, rounds, start_us));
        }
        let spans = (0..count).map(|pair| {
            let span = of(pair).0.wait();
            of(pair).1.wait();
            span
        });
        let Some(span) = spans.reduce(Span::join) else { return };
        mark::end();
        let messages = 2 * rounds * count as u64;
        let subject = Subject::Count(count);
        bench.print(Figure {
            part: Part::Pairs,
            way: "",
            subject,
            ticks: span.ticks(),
            count: messages,
            us: span.us(),
        });
    }
    for (ping, pong) in (0..most).map(of) {
        ping.delete();
        pong.delete();
    }
}

/// Makes a pair, each thread in a space of its own.
fn make(pair: usize) {
    Worker::make(2 * pair, pair);
    Worker::make(2 * pair + 1, pair);
}

fn of(pair: usize) -> (Worker, Worker) {
    (Worker::of(2 * pair), Worker::of(2 * pair + 1))
}
