//! l4test: a boot on one processor and some on several, many tests each, two once more on a processor from whose user code
//! the kernel is hidden, and boots with I/O fpages, of the tests of these. Each line of result that it prints becomes a test of
//! ours.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde::Deserialize;

use super::boots::{self, PATIENCE};
use super::ktap::{self, Verdict as Ktap};
use super::{Case, Filter, Job, Lab, NOTE, Outcome, Verdict};
use crate::qemu::{Console, End, Ended, Module};
use crate::tidy;

/// The group of its tests on one processor.
pub const GROUP: &str = "l4test";

/// A boot.
#[derive(Clone, Copy)]
struct Boot {
    cpus: u32,
    cpu: &'static str,
    /// The group of its tests.
    group: &'static str,
    /// Its name as a whole.
    whole: &'static str,
}

/// The boot whose threads run on processors that follow from the seed that is the same each time.
const SPREAD: &str = "l4test_spread";
const SPREAD_SEED: u64 = 1;
/// The boot whose threads run on processors that follow from the run's seed.
const SPREAD_ANEW: &str = "l4test_anew";

const fn boot_of(cpus: u32, cpu: &'static str, group: &'static str, whole: &'static str) -> Boot {
    Boot { cpus, cpu, group, whole }
}

/// The processor that is not told otherwise, and one with Meltdown and MDS.
pub const STRONG: &str = "max";
pub const WEAK: &str = "Haswell";

const BOOTS: [Boot; 6] = [
    boot_of(1, STRONG, GROUP, "boot::l4test_ends_with_its_numbers"),
    boot_of(4, STRONG, "l4test_smp", "boot::l4test_smp_ends_with_its_numbers"),
    boot_of(1, WEAK, "l4test_isolated", "boot::l4test_isolated_ends_with_its_numbers"),
    boot_of(4, WEAK, "l4test_isolated_smp", "boot::l4test_isolated_smp_ends_with_its_numbers"),
    boot_of(4, STRONG, SPREAD, "boot::l4test_spread_ends_with_its_numbers"),
    boot_of(4, STRONG, SPREAD_ANEW, "boot::l4test_spread_anew_ends_with_its_numbers"),
];

/// The boots with I/O fpages.
const PORTS_BOOTS: [Boot; 2] = [
    boot_of(2, STRONG, "l4test_ports", "boot::l4test_ports_ends_with_its_numbers"),
    boot_of(2, WEAK, "l4test_isolated_ports", "boot::l4test_isolated_ports_ends_with_its_numbers"),
];
/// The chapter whose tests it runs.
const PORTS_CHAPTER: &str = "ioports::";

/// Boots l4test with what `filter` leaves of it.
pub fn jobs(filter: &Filter) -> Vec<Job> {
    let boots = BOOTS.into_iter().filter(|boot| filter.may_take_from(boot.group));
    let jobs = boots.filter_map(|boot| Some(job(boot, args(filter, boot.group, boot.whole)?, "")));
    let ports = PORTS_BOOTS.into_iter().filter(|boot| takes_ports(filter, boot));
    let ports = ports.map(|boot| job(boot, format!("json run={PORTS_CHAPTER}"), "ioflexpages=yes"));
    jobs.chain(ports).collect()
}

/// Whether `filter` takes anything of this boot with I/O fpages.
fn takes_ports(filter: &Filter, &Boot { group, whole, .. }: &Boot) -> bool {
    let prefix = with_group(PORTS_CHAPTER);
    let name = |known: &String| known.strip_prefix(&prefix).map(|rest| format!("{group}::{PORTS_CHAPTER}{rest}"));
    // Without the sources nothing can be ruled out.
    let names = tidy::program_names().unwrap_or_default();
    filter.takes(whole) || names.is_empty() || names.iter().filter_map(name).any(|name| filter.takes(&name))
}

fn job(machine: Boot, args: String, kernel_args: &'static str) -> Job {
    Box::new(move |lab| {
        let Boot { group, whole, .. } = machine;
        let started = Instant::now();
        let is_all = args == ALL;
        let spread = spread(lab, group);
        let args = spread.as_ref().map_or(args.clone(), |spread| format!("{args} {spread}"));
        let (mut outcomes, result) = match boot(lab, machine, args, kernel_args) {
            Ok(ended) => {
                let mut outcomes = results(group, &ended.console);
                name_spread(&mut outcomes, spread.as_deref());
                let result = check(&ended.end, &ended.console, &outcomes);
                let result = if is_all { result.and_then(|()| check_names(group, &outcomes)) } else { result };
                (outcomes, result)
            }
            Err(error) => (Vec::new(), Err(error)),
        };
        let mut end = Outcome::of(whole, result, started);
        if let Some(spread) = spread {
            end.details = format!("{NOTE}{spread}\n{}", end.details);
        }
        outcomes.push(end);
        outcomes
    })
}

/// What says where threads run, in the boots that spread them.
fn spread(lab: &Lab, group: &str) -> Option<String> {
    match group {
        SPREAD => Some(format!("spread={SPREAD_SEED}")),
        SPREAD_ANEW => Some(format!("spread={}", lab.seed)),
        _ => None,
    }
}

/// Tells with each failure how to see it again.
fn name_spread(outcomes: &mut [Outcome], spread: Option<&str>) {
    let Some(spread) = spread else { return };
    for outcome in outcomes.iter_mut().filter(|outcome| outcome.result == Verdict::Failed) {
        outcome.details = format!("{} ({spread})", outcome.details);
    }
}

fn boot(lab: &Lab, Boot { cpus, cpu, .. }: Boot, args: String, kernel_args: &str) -> Result<Ended> {
    let mut machine = boots::machine(lab, cpu, 256);
    machine.cpus = cpus;
    kernel_args.clone_into(&mut machine.modules[0].args);
    machine.modules[2] = Module { file: lab.image("l4test"), args };
    machine.boot(&Console::none(), Some(PATIENCE))
}

/// The arguments for all tests.
const ALL: &str = "json";

/// It knows its tests without the name of the group. Those that match only by that name are left out afterwards.
/// `None`: the filter is for another boot.
fn args(filter: &Filter, group: &str, whole: &str) -> Option<String> {
    let Some(part) = filter.0.as_deref().filter(|part| !whole.contains(part) && !group.contains(part)) else {
        return Some(ALL.to_owned());
    };
    let (named, rest) = part.split_once("::").unwrap_or(("", part));
    let is_boot = |name: &str| BOOTS.iter().any(|boot| boot.group == name);
    let rest = match named {
        _ if named == group || (!is_boot(named) && group.ends_with(named)) => rest,
        _ if is_boot(named) => return None,
        _ => part,
    };
    Some(format!("json run={rest}"))
}

/// Boots of l4test that are one test each.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("boot::l4test_prints_ktap", "", prints_ktap),
        Case::new("boot::l4test_lists_its_tests_below_clauses", "", lists),
        Case::new("boot::l4test_refuses_unknown_words", "", refuses),
    ]
}

fn prints_ktap(lab: &Lab) -> Result<()> {
    let ended = boot(lab, BOOTS[0], "ktap run=ki".to_owned(), "")?;
    ensure!(ended.end == End::Program(0), "{}\n{}", ended.end, boots::tail(&ended.console));
    let entries = ktap::parse(&ended.console)?;
    ensure!(entries.len() > 5 && entries.iter().all(|entry| entry.verdict == Ktap::Ok), "results: {entries:?}");
    ensure!(entries.iter().any(|entry| entry.name == "kip::magic_and_versions"), "results: {entries:?}");
    Ok(())
}

fn lists(lab: &Lab) -> Result<()> {
    let ended = boot(lab, BOOTS[0], "list".to_owned(), "")?;
    ensure!(ended.end == End::Program(0), "{}\n{}", ended.end, boots::tail(&ended.console));
    let listed: BTreeSet<String> =
        ended.console.lines().filter_map(|line| line.strip_prefix("        ")).map(with_group).collect();
    let expected: BTreeSet<String> = tidy::program_names()?.into_iter().collect();
    ensure!(listed == expected, "it lists other tests than the sources have: {:?}", difference(&listed, &expected));
    Ok(())
}

fn with_group(name: &str) -> String {
    format!("{GROUP}::{name}")
}

fn refuses(lab: &Lab) -> Result<()> {
    let ended = boot(lab, BOOTS[0], "jsno".to_owned(), "")?;
    ensure!(ended.end == End::Program(2), "{}\n{}", ended.end, boots::tail(&ended.console));
    ensure!(ended.console.contains("\"jsno\" means nothing"), "{}", boots::tail(&ended.console));
    Ok(())
}

/// The names that only one of them has.
fn difference<'a>(one: &'a BTreeSet<String>, other: &'a BTreeSet<String>) -> Vec<&'a String> {
    one.symmetric_difference(other).collect()
}

/// All tests of the sources have run, and no other.
fn check_names(group: &str, outcomes: &[Outcome]) -> Result<()> {
    let own = |outcome: &Outcome| outcome.test.strip_prefix(group).map(|rest| format!("{GROUP}{rest}"));
    let ran: BTreeSet<String> = outcomes.iter().filter_map(own).collect();
    let expected: BTreeSet<String> = tidy::program_names()?.into_iter().collect();
    ensure!(
        ran == expected && outcomes.len() == expected.len(),
        "other tests ran than the sources have: {:?}",
        difference(&ran, &expected)
    );
    Ok(())
}

/// A line of result.
#[derive(Deserialize)]
struct Line {
    test: String,
    clause: String,
    result: Verdict,
    ms: u64,
    #[serde(default)]
    why: String,
}

/// The tests in the console's text.
fn results(group: &str, console: &str) -> Vec<Outcome> {
    let lines = console.lines().filter_map(|line| serde_json::from_str(line).ok());
    lines
        .map(|Line { test, clause, result, ms, why }| Outcome {
            test: format!("{group}::{test}"),
            clause,
            result,
            ms,
            details: why,
            is_build: false,
        })
        .collect()
}

/// How many tests the console's text has, and those that failed, with why.
pub fn failures(console: &str) -> (usize, Vec<String>) {
    let outcomes = results(GROUP, console);
    let failed = outcomes.iter().filter(|outcome| outcome.result == Verdict::Failed);
    (outcomes.len(), failed.map(|outcome| format!("{}: {}", outcome.test, outcome.details)).collect())
}

/// A kernel with a bug that lets l4test say nothing for so long hangs.
const SILENCE: Duration = Duration::from_secs(120);
/// What shows that a boot is of no use any more: a test that failed, or the end of the kernel.
const FAILURES: &[&str] = &["\"result\":\"failed\"", "panic"];

/// Boots l4test until its first failure, for so long at most: an error that names it.
///
/// # Errors
/// What failed, by the name of the test if it was one.
pub fn hunt(
    lab: &Lab,
    (cpus, cpu): (u32, &'static str),
    args: &str,
    kernel_args: &str,
    patience: Duration,
) -> Result<()> {
    let mut machine = boots::machine(lab, cpu, 256);
    machine.cpus = cpus;
    kernel_args.clone_into(&mut machine.modules[0].args);
    machine.modules[2] = Module { file: lab.image("l4test"), args: args.to_owned() };
    let console = Console { until: FAILURES, silence: Some(SILENCE), ..Console::none() };
    let ended = machine.boot(&console, Some(patience))?;
    first_failure(&ended)
}

/// The first test that failed, or the last line of a boot that did not end well.
pub fn first_failure(ended: &Ended) -> Result<()> {
    let (ran, failed) = failures(&ended.console);
    if let Some(first) = failed.first() {
        bail!("{}", first.split(": ").next().unwrap_or(first));
    }
    let last = ended.console.lines().rev().find(|line| !line.is_empty()).unwrap_or("silence");
    ensure!(ended.end == End::Program(0), "{} after {ran} tests of l4test: {last}", ended.end);
    Ok(())
}

/// The last line must agree with the lines before, and the status with the last line.
fn check(end: &End, console: &str, outcomes: &[Outcome]) -> Result<()> {
    let count = |verdict| outcomes.iter().filter(|outcome| outcome.result == verdict).count();
    let (passed, failed) = (count(Verdict::Ok), count(Verdict::Failed));
    let expected = format!("{passed} passed, {failed} failed");
    let last = console.lines().last().unwrap_or_default();
    ensure!(last == expected, "{end}; expected the last line `{expected}`\n{}", boots::tail(console));
    match end {
        End::Program(0) if failed == 0 => Ok(()),
        End::Program(1..) if failed > 0 => Ok(()),
        end => bail!("{end}, with {failed} failed tests"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Filter, Verdict};
    use super::{BOOTS, PORTS_BOOTS, args, check, results, takes_ports};
    use crate::qemu::End;

    const CONSOLE: &str = r#"Marcona
{"test":"ipc::send","clause":"X.2, Ipc, phases","result":"ok","ms":3}
{"test":"ipc::wait","clause":"X.2, Ipc, phases","result":"failed","ms":4,"why":"MR1: 2"}
{"test":"ipc::far","clause":"X.2, Ipc, phases","result":"skipped","ms":0,"why":"one processor"}
1 skipped
1 passed, 1 failed
"#;

    #[test]
    fn each_line_of_result_is_a_test() {
        let outcomes = results("l4test", CONSOLE);
        assert_eq!(outcomes.len(), 3);
        assert_eq!((outcomes[0].test.as_str(), outcomes[0].result), ("l4test::ipc::send", Verdict::Ok));
        assert_eq!((outcomes[0].clause.as_str(), outcomes[0].ms), ("X.2, Ipc, phases", 3));
        assert_eq!((outcomes[1].test.as_str(), outcomes[1].result), ("l4test::ipc::wait", Verdict::Failed));
        assert_eq!(outcomes[1].details, "MR1: 2");
        assert_eq!((outcomes[2].result, outcomes[2].details.as_str()), (Verdict::Ignored, "one processor"));
    }

    #[test]
    fn the_numbers_and_the_status_must_agree() {
        let is_right = |end: End, console: &str| check(&end, console, &results("l4test", console)).is_ok();
        let passed = CONSOLE.lines().nth(1).unwrap_or_default();
        assert!(is_right(End::Program(1), CONSOLE));
        assert!(!is_right(End::Program(0), CONSOLE));
        assert!(!is_right(End::Overrun, CONSOLE));
        assert!(is_right(End::Program(0), &format!("{passed}\n1 passed, 0 failed\n")));
        assert!(!is_right(End::Program(0), &format!("{passed}\n2 passed, 0 failed\n")));
        assert!(!is_right(End::Program(0), passed));
    }

    #[test]
    fn the_boot_with_io_fpages_has_tests_of_its_own() {
        let [boot, isolated] = PORTS_BOOTS;
        let takes = |filter: &str| takes_ports(&Filter(Some(filter.to_owned())), &boot);
        let none = Filter(None);
        assert!(takes_ports(&none, &boot) && takes("l4test") && takes("ioports") && takes("l4test_ports::ioports::"));
        assert!(takes_ports(&none, &isolated) && !takes_ports(&Filter(Some("l4test_ports".to_owned())), &isolated));
        assert!(takes("boot::l4test_ports") && takes("grant_moves_ports"));
        assert!(!takes("l4test::ioports") && !takes("kip") && !takes("ipc::send"));
    }

    #[test]
    fn a_filter_reaches_the_program() {
        let check = |filter: Option<&str>, expected: [Option<&str>; 6]| {
            let filter = Filter(filter.map(str::to_owned));
            let found = BOOTS.map(|boot| args(&filter, boot.group, boot.whole));
            assert_eq!(found.each_ref().map(Option::as_deref), expected, "{filter:?}");
        };
        check(None, [Some("json"); 6]);
        check(Some("l4test"), [Some("json"); 6]);
        check(Some("boot::l4test"), [Some("json"); 6]);
        check(Some("ipc"), [Some("json run=ipc"); 6]);
        check(Some("l4test::ipc"), [Some("json run=ipc"), None, None, None, None, None]);
        check(Some("l4test_smp::ipc"), [None, Some("json run=ipc"), None, None, None, None]);
        check(Some("l4test_isolated::ipc"), [None, None, Some("json run=ipc"), None, None, None]);
        check(Some("l4test_anew::ipc"), [None, None, None, None, None, Some("json run=ipc")]);
        let (own, other) = (Some("json run=ipc::send"), Some("json run=test::ipc::send"));
        check(Some("test::ipc::send"), [own, other, other, other, other, other]);
        let other = Some("json run=smp::ipc::send");
        check(Some("smp::ipc::send"), [other, own, other, own, other, other]);
        check(Some("ipc::send"), [Some("json run=ipc::send"); 6]);
    }
}
