//! Runs tests until one fails: what came of a bug.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::weave::VARIABLE;

/// A test that says nothing for so long hangs: of processor time, as a machine with other work lets tests wait.
const PATIENCE: Duration = Duration::from_secs(150);
/// So many times that of time, a test that waits for ever hangs, too, which takes no processor time.
const LONGER: u32 = 8;
/// The unit of times in Linux's files of processes.
const TICKS_A_SECOND: u64 = 100;
/// Kilobytes of memory that tests get: a list without end fills it.
const MEMORY_KIB: u64 = 7 << 20;
/// How many bytes of what a test says are read at once.
const CHUNK: usize = 4096;

/// The tests of the core that take long, or much memory: each of them a process. Those that see most come first.
const LONG: [&str; 8] = [
    "tests::lockstep",
    "tests::random",
    "tests::everywhere",
    "space::tests::model",
    "space::tests::interleaved",
    "space::tests::ports",
    "tests::handed_back",
    "tests::aborted_strings",
];
/// Those that execute the kernel's image, which has no bugs.
const OF_THE_IMAGE: &str = "equivalence";

/// What came of a bug.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// This test failed.
    Failed(String),
    /// This test did not end.
    Hung(String),
    /// The whole program ended in this test.
    Crashed(String),
    /// No test found it.
    Missed,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(test) => write!(f, "by {test}"),
            Self::Hung(test) => write!(f, "by {test}, which hangs"),
            Self::Crashed(test) => write!(f, "by {test}, which crashes"),
            Self::Missed => write!(f, "by nobody"),
        }
    }
}

/// How thoroughly a bug is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effort {
    /// Tests that are soon over.
    Short,
    /// Those first, then all others.
    All,
}

/// The tests of a crate with bugs.
pub struct Suite {
    /// The program.
    pub program: PathBuf,
    /// Where it runs.
    pub dir: PathBuf,
}

impl Suite {
    /// Looks for the bug with this number.
    pub fn look_for(&self, number: usize, effort: Effort) -> Result<End> {
        let skipped: Vec<&str> = LONG.into_iter().chain([OF_THE_IMAGE]).flat_map(|name| ["--skip", name]).collect();
        let mut end = self.run(number, &skipped)?;
        for name in LONG.into_iter().filter(|_| effort == Effort::All) {
            if end != End::Missed {
                break;
            }
            end = self.run(number, &[name])?;
        }
        Ok(end)
    }

    fn run(&self, number: usize, arguments: &[&str]) -> Result<End> {
        run(&self.program, &self.dir, arguments, [(VARIABLE, number.to_string().into())])
    }
}

/// Runs tests of a program up to the first that fails, with these variables.
pub fn run<const N: usize>(
    program: &Path,
    dir: &Path,
    arguments: &[&str],
    variables: [(&str, OsString); N],
) -> Result<End> {
    let mut child = command(program, arguments)
        .current_dir(dir)
        .envs(variables)
        .env("RUST_BACKTRACE", "0")
        // The same tests for everybody.
        .env("KCORE_FRESH_SEED", "1")
        .spawn()
        .context("cannot start the tests")?;
    let end = watch(&mut child, PATIENCE);
    // It may be over.
    let _ = child.kill();
    child.wait()?;
    Ok(end)
}

/// The tests, one after the other, within their memory.
fn command(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit -v {MEMORY_KIB}; exec \"$0\" \"$@\"")).arg(program);
    command.args(["--test-threads", "1"]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// Reads what tests say, up to the first failure.
fn watch(child: &mut Child, patience: Duration) -> End {
    let Some(mut stdout) = child.stdout.take() else { return End::Missed };
    let (sender, chunks) = channel();
    thread::spawn(move || {
        let mut bytes = [0; CHUNK];
        while let Ok(count @ 1..) = stdout.read(&mut bytes) {
            if sender.send(String::from_utf8_lossy(&bytes[..count]).into_owned()).is_err() {
                return;
            }
        }
    });
    let mut said = String::new();
    let (mut used_before, mut silent_since) = (Duration::ZERO, Instant::now());
    loop {
        match chunks.recv_timeout(patience) {
            Ok(chunk) => {
                said.push_str(&chunk);
                used_before = used(child);
                silent_since = Instant::now();
            }
            Err(RecvTimeoutError::Timeout) => {
                let has_worked = used(child).saturating_sub(used_before) >= patience;
                if has_worked || silent_since.elapsed() >= patience * LONGER {
                    return End::Hung(unfinished(&said).unwrap_or_default());
                }
            }
            Err(RecvTimeoutError::Disconnected) => return last_word(&said),
        }
        if let Some(test) = said.lines().find_map(failed) {
            return End::Failed(test);
        }
    }
}

/// The processor time that a child has had; nothing if nobody says.
fn used(child: &Child) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    ticks(&stat).map_or(Duration::ZERO, |ticks| Duration::from_millis(ticks * (1000 / TICKS_A_SECOND)))
}

/// User and system time, in ticks, from what Linux says of a process. Its name stands in parentheses, and can be anything.
fn ticks(stat: &str) -> Option<u64> {
    const USER: usize = 11;
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(USER).map(str::parse::<u64>);
    Some(fields.next()?.ok()? + fields.next()?.ok()?)
}

/// What came of tests that have said all they had to say.
fn last_word(said: &str) -> End {
    match said.lines().find_map(failed) {
        Some(test) => End::Failed(test),
        None if said.contains("test result: ok") => End::Missed,
        None => End::Crashed(unfinished(said).unwrap_or_default()),
    }
}

/// The test that a line says has failed.
fn failed(line: &str) -> Option<String> {
    Some(line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?.to_owned())
}

/// The test that has begun and not ended.
fn unfinished(said: &str) -> Option<String> {
    let name = said.lines().last()?.strip_prefix("test ")?.split(" ... ").next()?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped());
        command.spawn().expect("there is a shell")
    }

    #[test]
    fn the_first_failure_counts() {
        let failure = "echo 'test a::b ... ok'; echo 'test a::c ... FAILED'; exec sleep 600";
        let begin = Instant::now();
        let mut child = shell(failure);
        assert_eq!(watch(&mut child, PATIENCE), End::Failed("a::c".into()));
        child.kill().expect("it sleeps");
        child.wait().expect("it was started");
        assert!(begin.elapsed() < PATIENCE);
    }

    #[test]
    fn processor_time_is_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 106 0 0 0 250 50 0 0 20 0 1 0 100 1 1";
        assert_eq!((ticks(stat), ticks("")), (Some(300), None));
    }

    #[test]
    fn silence_is_a_hang_and_an_early_end_a_crash() {
        let mut child = shell("printf 'test a::b ... ok\\ntest a::c ... '; exec sleep 600");
        assert_eq!(watch(&mut child, Duration::from_secs(1)), End::Hung("a::c".into()));
        child.kill().expect("it sleeps");
        child.wait().expect("it was started");
        let mut child = shell("printf 'test a::b ... ok\\ntest a::c ... '; exit 1");
        assert_eq!(watch(&mut child, PATIENCE), End::Crashed("a::c".into()));
        child.wait().expect("it was started");
        let mut child = shell("echo 'test a::b ... ok'; echo 'test result: ok. 1 passed'");
        assert_eq!(watch(&mut child, PATIENCE), End::Missed);
        child.wait().expect("it was started");
    }
}
