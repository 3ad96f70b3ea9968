//! Runs tests until one fails: what came of a bug.

use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::weave::VARIABLE;

/// A test that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(150);
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
    loop {
        match chunks.recv_timeout(patience) {
            Ok(chunk) => said.push_str(&chunk),
            Err(RecvTimeoutError::Timeout) => return End::Hung(unfinished(&said).unwrap_or_default()),
            Err(RecvTimeoutError::Disconnected) => return last_word(&said),
        }
        if let Some(test) = said.lines().find_map(failed) {
            return End::Failed(test);
        }
    }
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
    use std::time::Instant;

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
