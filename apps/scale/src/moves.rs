//! Moves to another processor.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use l4::message::Msg;
use l4::thread::{Stack, delete, spawn};
use l4::{MsgTag, Word, ipc, schedule, utcb};
use measure::stage::{must, root, thread_after_root, utcb_after_mine};
use scale::options::Part;
use scale::report::{Figure, Subject};
use scale::steps::is_measured;

use crate::Bench;
use crate::worker::{Span, Worker};

const MOVER: Word = 2;
static STACK: Stack<0x1000> = Stack::new();
static ROUNDS: AtomicU64 = AtomicU64::new(0);

/// Measures a thread that moves itself, and one that is moved while it waits. Those who may move threads are in root's
/// space.
pub fn run(bench: &Bench) {
    ROUNDS.store(bench.rounds, Relaxed);
    let mover = thread_after_root(MOVER);
    must("making the mover", spawn(mover, utcb_after_mine(MOVER), &STACK, run_mover));
    let waiting = Worker::make(0, 0);
    for to in (1..bench.setting.cpus).filter(|&to| is_measured(to, bench.setting.cpus - 1)) {
        let subject = Subject::Between(0, to, bench.places.relation(0, to));
        let count = 2 * bench.rounds;
        let print = |way, span: Span| {
            bench.print(Figure { part: Part::Migrate, way, subject, ticks: span.ticks(), count, us: span.us() });
        };
        Msg::of_words(MsgTag::NIL, &[to as Word]).load();
        must("a round of the mover", ipc::call(mover));
        let [start, end, start_us, end_us] = core::array::from_fn(|i| utcb().mr(i + 1));
        print("itself", Span { start, end, start_us, end_us });
        let there_and_back = |_| [to, 0].into_iter().for_each(|cpu| waiting.move_to(cpu));
        print("another", Span::of(|| (0..bench.rounds).for_each(there_and_back)));
    }
    waiting.delete();
    must("deleting the mover", delete(mover));
}

extern "C" fn run_mover() -> ! {
    let me = utcb().my_global_id();
    let move_to = |cpu: u16| must("moving", schedule::set_processor_no(me, cpu));
    loop {
        must("waiting for root", ipc::receive(root()));
        let to = utcb().mr(1) as u16;
        let span = Span::of(|| {
            for _ in 0..ROUNDS.load(Relaxed) {
                move_to(to);
                move_to(0);
            }
        });
        Msg::of_words(MsgTag::NIL, &[span.start, span.end, span.start_us, span.end_us]).load();
        must("telling root", ipc::send(root()));
    }
}
