//! Runs: steps of random choice, checks after each of them, and the shortest trace of a failure.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::process::Command;
use std::sync::Once;
use std::time::{Duration, Instant};

use super::shrink::shortest;
use super::*;
use crate::tests::invariants;

/// After so many steps nothing is on its way, and all is checked.
const SETTLES_EVERY: usize = 512;
/// After so many all entries come to their ends.
const FINISHES_EVERY: usize = 64;
/// Steps of a world at most: a trace of them fits in memory.
const STEPS_OF_A_WORLD: usize = 1 << 20;
/// How long the shortest trace of a failure is looked for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What was seen in a run, and how often.
type Sights = BTreeMap<&'static str, usize>;

/// A run, which follows from these.
#[derive(Clone, Copy, Debug)]
struct Run {
    seed: u64,
    steps: usize,
    processors: usize,
    /// What goes wrong behind each step.
    mistake: Option<fn(World, Event)>,
}

/// A failure.
pub struct Failure {
    /// What failed, and where.
    pub message: String,
    /// The file with what failed.
    pub file: String,
}

thread_local! {
    /// Whether failures are noted and not printed.
    static IS_WATCHED: Cell<bool> = const { Cell::new(false) };
    static NOTED: RefCell<Option<Failure>> = const { RefCell::new(None) };
}

/// Does `run`, of which a failure is noted in place of being printed.
pub fn watched<T>(run: impl FnOnce() -> T) -> Result<T, Failure> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| if IS_WATCHED.get() { note(info) } else { others(info) }));
    });
    let was_watched = IS_WATCHED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    IS_WATCHED.set(was_watched);
    result.map_err(|_| NOTED.take().expect("what fails says why"))
}

fn note(info: &PanicHookInfo<'_>) {
    let file = info.location().map(|place| place.file().to_owned()).unwrap_or_default();
    NOTED.with_borrow_mut(|noted| *noted = noted.take().or(Some(Failure { message: info.to_string(), file })));
}

/// Checks what must hold between two steps.
fn check(chaos: &Chaos, count: usize, event: Event) {
    let w = chaos.w;
    if !chaos.is_quiet() {
        // Of a processor in the middle of an entry little can be said.
        for cpu in w.cpus().filter(|&cpu| chaos.is_free(cpu)) {
            w.k.cpus[cpu].ready.check_invariants(w.k.tcbs);
        }
        return;
    }
    match (event, count % 4) {
        (Event::Settle, _) => {
            invariants::check(w.k);
            invariants::check_rest(w.k);
            let census = w.k.spaces.check_invariants(Rest::Revoking).expect("all is well");
            assert_eq!(census.frames, w.frames_used(), "no frame is lost");
        }
        (_, 0) => invariants::check(w.k),
        _ => invariants::check_threads(w.k),
    }
    w.check_translations();
}

impl Run {
    const fn new(seed: u64, steps: usize, processors: usize) -> Self {
        Self { seed, steps, processors, mistake: None }
    }

    /// The world at the beginning.
    fn begin(self) -> Chaos {
        Chaos { mistake: self.mistake, ..Chaos::new(self.seed, self.processors) }
    }

    /// Carries out the run, in worlds one after the other. Returns what was seen.
    ///
    /// # Panics
    /// Where it fails, with the shortest trace.
    fn carry_out(self, mut on_progress: impl FnMut(usize)) -> Sights {
        println!("seed {}, {} processors, {} steps", self.seed, self.processors, self.steps);
        let (mut sights, mut done) = (Sights::new(), 0);
        for world in 0.. {
            let steps = (self.steps - done).min(STEPS_OF_A_WORLD);
            let run = Self { seed: self.seed.wrapping_add(world), steps, ..self };
            let mut trace = Vec::with_capacity(steps);
            match watched(|| run.in_a_world(&mut trace)) {
                Ok(seen) => seen.into_iter().for_each(|(sight, count)| *sights.entry(sight).or_default() += count),
                Err(failure) => run.report(&failure, trace),
            }
            done += steps;
            on_progress(done);
            if done == self.steps {
                break;
            }
        }
        println!("{sights:?}");
        sights
    }

    /// Carries out the run in one world, and enters its steps in `trace`.
    fn in_a_world(self, trace: &mut Vec<Step>) -> Sights {
        let mut chaos = self.begin();
        for count in 1..=self.steps {
            let mut step = chaos.next_step();
            match count {
                _ if count % SETTLES_EVERY == 0 => step.event = Event::Settle,
                _ if count % FINISHES_EVERY == 0 => step.event = Event::Finish,
                _ => {}
            }
            trace.push(step);
            chaos.take(step);
            check(&chaos, count, step.event);
        }
        let sights = std::mem::take(&mut chaos.sights);
        chaos.end();
        sights
    }

    /// Carries out these steps in the world of the run. `tell` is called after each of them.
    fn again(self, steps: &[Step], mut tell: impl FnMut(World)) {
        let mut chaos = self.begin();
        for &step in steps {
            chaos.take(step);
            tell(chaos.w);
            // As often as it can be told.
            check(&chaos, 0, step.event);
        }
        chaos.end();
    }

    /// How these steps fail, if they do.
    fn failure(self, steps: &[Step]) -> Option<Failure> {
        watched(|| self.again(steps, |_| {})).err()
    }

    /// Tells of a failure after these steps, and of the shortest part of them that fails in the same file.
    fn report(self, failure: &Failure, trace: Vec<Step>) -> ! {
        let count = trace.len();
        let is_same = |steps: &[Step]| self.failure(steps).is_some_and(|found| found.file == failure.file);
        println!("{}", failure.message);
        let Self { seed, processors, .. } = self;
        println!("seed {seed}, {processors} processors, commit {}, after {count} steps", commit());
        if is_same(&trace) {
            let found = shortest(trace, PATIENCE, is_same);
            let kind = if found.is_minimal { "the shortest trace" } else { "a trace" };
            println!("{kind} that still fails has {} steps:", found.steps.len());
            self.tell(&found.steps);
        } else {
            println!("the steps alone do not fail in the same place: something hangs on what was before");
        }
        let steps = count.next_multiple_of(SETTLES_EVERY);
        panic!("it fails with: cargo xtask simulate --seed {seed} --steps {steps} --cpus {processors}");
    }

    /// Prints steps with what each changes of threads, and how they end.
    fn tell(self, steps: &[Step]) {
        let mut before: Vec<String> = Vec::new();
        let mut next = steps.iter();
        let ended = watched(|| {
            self.again(steps, |w| {
                println!("{:?}", next.next().expect("a step").event);
                let now: Vec<String> = EVERYBODY.into_iter().map(|who| state(who, w.tcb(who))).collect();
                let changed = now.iter().enumerate().filter(|&(i, state)| before.get(i) != Some(state));
                changed.for_each(|(_, state)| println!("    {state}"));
                before = now;
            })
        });
        match (next.next(), ended) {
            (Some(last), Err(failure)) => println!("{:?}\n    {}", last.event, failure.message),
            (_, Err(failure)) => println!("    {}", failure.message),
            (_, Ok(())) => {}
        }
    }
}

/// The commit that is checked out, and whether something was changed since.
pub fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed = git(&["status", "--porcelain"]).is_some_and(|changes| !changes.is_empty());
    let commit = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    if changed { commit + ", changed since" } else { commit }
}

/// A number from the environment.
pub fn own(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|number| number.parse().ok())
}

/// A seed that was not there before.
pub fn fresh() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    own("KCORE_FRESH_SEED").unwrap_or(since.as_millis() as u64 % 1_000_000_000)
}

/// 400,000 steps, in a few worlds, of which one is a fresh one.
#[test]
fn random_calls_keep_the_invariants() {
    for seed in [1, 2, 3, fresh()] {
        Run::new(seed, 100_000, 1).carry_out(|_| {});
    }
}

/// 660,000 steps on 2 to 4 processors, a third of them from fresh seeds.
#[test]
fn random_calls_on_several_processors_keep_the_invariants() {
    let mut seen = Sights::new();
    let fresh = fresh();
    for (index, seed) in [11, 12, 13, 14, 27, 34].into_iter().chain(fresh..fresh + 3).enumerate() {
        let steps = if index < 6 { 73_000 } else { 74_000 };
        for (sight, count) in Run::new(seed, steps, 2 + index % 3).carry_out(|_| {}) {
            *seen.entry(sight).or_insert(0) += count;
        }
    }
    for sight in [
        "goes on",
        "goes to send",
        "comes to receive",
        "goes to end a string",
        "goes on with a string",
        "goes to whom it sent for",
        "was moved",
        "orphan",
        "put off",
        "asks",
        "with a fault elsewhere",
    ] {
        assert!(seen.get(sight).is_some_and(|&count| count >= 3), "{sight}: {seen:?}");
    }
}

/// A run carried out again, step by step, is the same: nothing follows from anything but the steps.
#[test]
fn steps_alone_say_what_happens() {
    for processors in 1..=3 {
        let run = Run::new(8, 3000, processors);
        let mut trace = Vec::new();
        run.in_a_world(&mut trace);
        let mut states = Vec::new();
        let mut chaos = run.begin();
        for step in &trace {
            chaos.take(*step);
            states.push(format!("{:?}", EVERYBODY.map(|who| state(who, chaos.w.tcb(who)))));
        }
        let mut states = states.into_iter();
        run.again(&trace, |w| {
            let now = format!("{:?}", EVERYBODY.map(|who| state(who, w.tcb(who))));
            assert_eq!(Some(now), states.next());
        });
    }
}

/// Steps that cannot happen are left out, whatever is taken away before them.
#[test]
fn any_part_of_a_run_is_a_run() {
    for (seed, processors) in [(5, 1), (6, 2), (7, 3)] {
        let run = Run::new(seed, 4000, processors);
        let mut trace = Vec::new();
        run.in_a_world(&mut trace);
        for part in 2..6 {
            let steps: Vec<Step> =
                trace.iter().copied().enumerate().filter(|(i, _)| i % part > 0).map(|(_, s)| s).collect();
            assert!(run.failure(&steps).is_none(), "without each {part}th step");
        }
    }
}

/// Who halts somebody spoils a word of the processor.
fn spoil(w: World, event: Event) {
    if let Event::Act { act: Act::Exregs(args), .. } = event
        && args.control.contains(ExregsControl::APPLY_HALT)
    {
        w.k.cpus[0].must_choose.set(true);
    }
}

/// A failure is reported with the seed, and the shortest trace is the one step with the mistake.
#[test]
fn failures_come_with_the_shortest_trace() {
    let run = Run { mistake: Some(spoil), ..Run::new(3, 5000, 1) };
    let mut trace = Vec::new();
    let failure = watched(|| run.in_a_world(&mut trace)).expect_err("a mistake is found");
    assert!(failure.message.contains("the dispatcher has decided"), "{}", failure.message);
    let is_same = |steps: &[Step]| run.failure(steps).is_some_and(|found| found.file == failure.file);
    let found = shortest(trace.clone(), Duration::MAX, is_same);
    assert!(found.is_minimal && found.steps.len() <= 2 && trace.len() > 5, "{:?} of {}", found.steps, trace.len());
    let told = watched(|| -> () { run.report(&failure, trace) }).expect_err("it fails");
    assert!(told.message.contains("cargo xtask simulate --seed 3 --steps 512 --cpus 1"), "{}", told.message);
    assert!(!commit().is_empty());
}

/// As long as `SIMULATE_STEPS` says: what `cargo xtask simulate` runs.
#[test]
#[ignore = "as long as one likes: cargo xtask simulate"]
fn long_run() {
    let seed = own("SIMULATE_SEED").unwrap_or(1);
    let steps = own("SIMULATE_STEPS").unwrap_or(1_000_000) as usize;
    let processors = own("SIMULATE_CPUS").unwrap_or(4) as usize;
    let begin = Instant::now();
    Run::new(seed, steps, processors).carry_out(|done| {
        let rate = done as f64 / begin.elapsed().as_secs_f64().max(0.001);
        println!("{done} steps, {rate:.0} a second");
    });
}
