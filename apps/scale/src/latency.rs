//! The time of a message between each two processors.

use scale::options::Part;
use scale::report::{Figure, Subject};

use crate::Bench;
use crate::worker::{Task, Worker};

/// Measures between all processors: the first thread begins, the second answers.
pub fn run(bench: &Bench) {
    let (ping, pong) = (Worker::make(0, 0), Worker::make(1, 0));
    let cpus = bench.setting.cpus;
    for (from, to) in (0..cpus).flat_map(|from| (0..cpus).map(move |to| (from, to))) {
        ping.move_to(from);
        pong.move_to(to);
        ping.tell(Task::Ping(pong, bench.rounds));
        pong.tell(Task::Pong(ping, bench.rounds));
        let span = ping.wait();
        pong.wait();
        let subject = Subject::Between(from, to, bench.places.relation(from, to));
        let count = 2 * bench.rounds;
        bench.print(Figure { part: Part::Latency, way: "", subject, ticks: span.ticks(), count, us: span.us() });
    }
    ping.delete();
    pong.delete();
}
