//! Processors of the test world as processors of an execution: each does its calls, and what others want of it.

use std::sync::{Mutex, PoisonError};

use super::leak;
use crate::explore::{join, processor, random};
use crate::machine::{CpuId, Machine};
use crate::sync::{AtomicUsize, Ordering, spin_loop};
use crate::tests::invariants;
use crate::tests::random::Chaos;
use crate::tests::random::explored::{Next, tell};
use crate::tests::world::{EVERYBODY, Who, World};
use crate::thread::{Status, Work};

/// What a processor does in one kernel entry of its own.
pub type Call = Box<dyn Fn(World) + Send + Sync>;

/// How often a processor looks out before it sleeps.
const LOOKS: u32 = 2;

/// What the processors do.
pub enum Plan {
    /// Each its calls, in their order.
    Calls(Vec<(usize, Call)>),
    /// Anything.
    Anything,
}

/// A world, and what its processors do in it.
pub struct Crew {
    pub world: World,
    plan: Plan,
    /// Processors that have something to do.
    open: AtomicUsize,
    /// For each processor lines that were raised and go to it.
    raised: Vec<AtomicUsize>,
    /// Processors that sleep, a bit for each.
    sleepers: AtomicUsize,
    /// What has happened in this execution.
    events: Mutex<Vec<Next>>,
}

impl Crew {
    /// Of the processors of `world`, as it is now.
    pub fn new(world: World, plan: Plan) -> &'static Self {
        world.k.machine.keep_utcbs();
        let count = world.cpus().len();
        let raised = world.cpus().map(|_| AtomicUsize::new(0)).collect();
        let (open, sleepers, events) = (AtomicUsize::new(count), AtomicUsize::new(0), Mutex::new(Vec::new()));
        leak(Self { world, plan, open, raised, sleepers, events })
    }

    /// One execution, up to where all that the processors were told of is done. The caller is alone then.
    pub fn run(&'static self) {
        self.world.k.machine.restore_utcbs();
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let others: Vec<_> = self.world.cpus().skip(1).map(|cpu| processor(move || self.play(cpu))).collect();
        self.play(0);
        join(others);
        self.check_sleepers();
        if self.do_what_was_told() {
            invariants::check_silence(self.world.k);
        }
        self.finish_work();
        self.world.finish_all();
        invariants::check(self.world.k);
        invariants::check_rest(self.world.k);
    }

    fn play(&self, cpu: usize) {
        let w = self.world.on(cpu);
        match &self.plan {
            Plan::Calls(calls) => calls.iter().filter(|(at, _)| *at == cpu).for_each(|(_, call)| {
                call(w);
                w.dispatch_steps(100);
                self.attend(w);
            }),
            Plan::Anything => self.let_anything_happen(w),
        }
        self.open.fetch_sub(1, Ordering::Release);
        let mut sleeps = false;
        while self.open.load(Ordering::Acquire) > 0 {
            sleeps = sleeps || self.falls_asleep(w);
            if (self.is_woken(w) || !sleeps && w.here().is_behind()) && self.goes_on() {
                sleeps = false;
                self.attend(w);
                self.open.fetch_sub(1, Ordering::Release);
            }
            spin_loop();
        }
        if sleeps {
            self.sleepers.fetch_or(1 << cpu, Ordering::Release);
        }
    }

    /// What the image does where nobody runs: looks out for others for a while, then sleeps until it is interrupted. Whether
    /// it sleeps.
    fn falls_asleep(&self, w: World) -> bool {
        let here = w.here();
        here.is_at_rest() && !here.cpu.attention.look_out(LOOKS, || {})
    }

    /// Nobody sleeps who was told of something and not interrupted.
    fn check_sleepers(&self) {
        let sleepers = self.sleepers.swap(0, Ordering::Acquire);
        for cpu in self.world.cpus().filter(|cpu| sleepers & 1 << cpu != 0) {
            let w = self.world.on(cpu);
            let may_sleep = !w.here().is_behind() || w.k.machine.is_kicked(CpuId::new(cpu as u32));
            assert!(may_sleep, "processor {cpu} sleeps, and somebody wants something of it");
        }
    }

    /// The processor does something once more, during which nobody ends; `false` if all have ended, or will.
    fn goes_on(&self) -> bool {
        let more = |open: usize| (open > 0).then_some(open + 1);
        self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// Whether others or devices want something of the processor.
    fn is_wanted(&self, w: World) -> bool {
        w.here().is_behind() || self.is_woken(w)
    }

    /// Whether they have interrupted it.
    fn is_woken(&self, w: World) -> bool {
        let is_kicked = || w.k.machine.is_kicked(CpuId::new(w.cpu() as u32));
        let is_due = || w.here().next_event().is_some_and(|at| at <= w.k.machine.now_us());
        let is_raised = || self.raised[w.cpu()].load(Ordering::Relaxed) != 0;
        is_kicked() || matches!(self.plan, Plan::Anything) && (is_raised() || is_due())
    }

    fn let_anything_happen(&self, w: World) {
        let mut chaos = Chaos::on(w, random::seed() ^ 0xC0FFEE * (w.cpu() as u64 + 1));
        for _ in 0..chaos.count() {
            let next = chaos.next_here();
            self.events.lock().unwrap_or_else(PoisonError::into_inner).push(next);
            chaos.happen(next, |line| {
                if let Some(cpu) = w.k.machine.raise(line) {
                    self.raised[cpu.index()].fetch_or(1 << line, Ordering::Release);
                }
            });
            self.attend(w);
        }
    }

    /// What has happened in the last execution, and where it has come to.
    pub fn tell(&self) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|event| println!("{event:?}"));
        tell(self.world);
    }

    /// What a processor does between its own entries: interrupts come in.
    fn attend(&self, w: World) {
        if matches!(self.plan, Plan::Anything) {
            self.take_device_interrupts(w);
        }
        if w.k.machine.take_kick(CpuId::new(w.cpu() as u32)) || w.here().is_behind() {
            w.dispatch_steps(100);
        }
    }

    fn take_device_interrupts(&self, w: World) {
        let raised = &self.raised[w.cpu()];
        if raised.load(Ordering::Relaxed) != 0 {
            let mut lines = raised.swap(0, Ordering::Acquire);
            while lines != 0 {
                w.here().interrupt(lines.trailing_zeros());
                w.dispatch_steps(9);
                lines &= lines - 1;
            }
        }
        if w.here().next_event().is_some_and(|at| at <= w.k.machine.now_us()) {
            w.here().timer_interrupt();
            w.dispatch_steps(9);
        }
    }

    /// The processors do what they were told of; whether they came to an end. They do not if someone waits for the work of
    /// a thread whose turn has not come.
    fn do_what_was_told(&self) -> bool {
        for _ in 0..1000 {
            let Some(cpu) = self.world.cpus().find(|&cpu| self.is_wanted(self.world.on(cpu))) else { return true };
            self.attend(self.world.on(cpu));
        }
        false
    }

    /// Everybody's turn comes, until all work is done.
    fn finish_work(&self) {
        let w = self.world;
        let has_work = |who: &Who| {
            let tcb = w.tcb(*who);
            let is_here = tcb.exists() && tcb.is_at(tcb.home());
            is_here && tcb.status() == Status::Running && tcb.work() != Work::None
        };
        for _ in 0..1000 {
            let worker = EVERYBODY.into_iter().find(has_work);
            if let Some(who) = worker {
                w.make_run(who);
                w.at_home_of(who).dispatch_steps(20);
            }
            if self.do_what_was_told() && worker.is_none() {
                return;
            }
        }
        panic!("all work comes to an end");
    }
}
