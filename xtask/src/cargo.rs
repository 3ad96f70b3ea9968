//! Runs cargo and understands what it reports.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::progress::Progress;

/// What a build reported.
#[derive(Debug, Default)]
pub struct Report {
    /// Cargo succeeded.
    pub ok: bool,
    /// The programs, with the names of their targets.
    pub executables: Vec<(String, PathBuf)>,
    /// The dynamic libraries, with the names of their targets.
    pub dynamic_libraries: Vec<(String, PathBuf)>,
    /// Warnings and errors of the compiler or the linter, of this build or an earlier one of the same code.
    pub diagnostics: Vec<Diagnostic>,
    /// What cargo itself said.
    pub log: Vec<String>,
}

impl Report {
    /// What a person needs to see when the build failed.
    pub fn text(&self) -> String {
        let compiler = self.diagnostics.iter().map(|diagnostic| diagnostic.rendered.as_str());
        let cargo = self.log.iter().skip_while(|line| !line.starts_with("error")).map(|line| format!("{line}\n"));
        compiler.map(str::to_owned).chain(cargo).collect()
    }
}

/// A warning or error of the compiler or the linter.
#[derive(Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Path from the root of the workspace and line, if it is about a place.
    pub place: Option<(PathBuf, usize)>,
    /// What is wrong, in one line.
    pub message: String,
    /// As the compiler would print it.
    pub rendered: String,
}

#[derive(Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Event {
    CompilerMessage {
        message: CompilerMessage,
    },
    CompilerArtifact {
        target: Target,
        executable: Option<PathBuf>,
        #[serde(default)]
        filenames: Vec<PathBuf>,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

#[derive(Deserialize)]
struct CompilerMessage {
    message: String,
    rendered: Option<String>,
    spans: Vec<Span>,
}

#[derive(Deserialize)]
struct Span {
    file_name: PathBuf,
    line_start: usize,
    is_primary: bool,
}

/// Runs `command`, a build or check, showing progress under `title`.
pub fn build(command: &mut Command, title: &str) -> Result<Report> {
    let mut report = Report::default();
    command.arg("--message-format=json");
    let (ok, log) = follow(command, &Progress::start(title), |line| report.enter(line))?;
    Ok(Report { ok, log, ..report })
}

/// Runs `command` to its end: `on_line` gets what it prints on stdout, stderr becomes notes of `progress` and is
/// returned, with whether the command succeeded.
pub fn follow(
    command: &mut Command,
    progress: &Progress,
    mut on_line: impl FnMut(&str),
) -> Result<(bool, Vec<String>)> {
    let name = command.get_program().to_string_lossy().into_owned();
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().with_context(|| format!("cannot start {name}"))?;
    let (stdout, stderr) = outputs(&mut child);
    let log = thread::scope(|scope| {
        let log = scope.spawn(|| lines(stderr).inspect(|line| progress.note(line.trim())).collect());
        lines(stdout).for_each(|line| on_line(&line));
        log.join().expect("the reader of stderr does not panic")
    });
    Ok((child.wait()?.success(), log))
}

fn outputs(child: &mut Child) -> (impl Read + Send + use<>, impl Read + Send + use<>) {
    const PIPED: &str = "the child was started with pipes";
    (child.stdout.take().expect(PIPED), child.stderr.take().expect(PIPED))
}

/// The lines up to the end of `stream`; bytes that are not UTF-8 do not stop it.
fn lines(stream: impl Read) -> impl Iterator<Item = String> {
    let bytes = BufReader::new(stream).split(b'\n').map_while(Result::ok);
    bytes.map(|line| String::from_utf8_lossy(&line).into_owned())
}

impl Report {
    /// Enters a line of cargo's; lines that are not JSON come from build scripts and the like.
    fn enter(&mut self, line: &str) {
        match serde_json::from_str(line) {
            Ok(Event::CompilerArtifact { target, executable, filenames }) => {
                self.executables.extend(executable.map(|file| (target.name.clone(), file)));
                let libraries = filenames.into_iter().filter(|file| file.extension().is_some_and(|own| own == "so"));
                self.dynamic_libraries.extend(libraries.map(|file| (target.name.clone(), file)));
            }
            // The count of warnings at the end has no place and no code; it is none itself.
            Ok(Event::CompilerMessage { message }) if !is_summary(&message) => {
                self.diagnostics.push(message.into());
            }
            _ => {}
        }
    }
}

fn is_summary(message: &CompilerMessage) -> bool {
    let text = &message.message;
    message.spans.is_empty() && (text.ends_with("emitted") || text.starts_with("aborting due to"))
}

impl From<CompilerMessage> for Diagnostic {
    fn from(message: CompilerMessage) -> Self {
        let place = message.spans.into_iter().find(|span| span.is_primary);
        Self {
            place: place.map(|span| (span.file_name, span.line_start)),
            rendered: message.rendered.unwrap_or_else(|| format!("{}\n", message.message)),
            message: message.message.lines().collect::<Vec<_>>().join(" "),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Diagnostic, Report};

    #[test]
    fn programs_and_diagnostics_are_found_among_cargo_s_messages() {
        let mut report = Report::default();
        for line in [
            r#"{"reason":"compiler-artifact","target":{"name":"l4","kind":["lib"]},"executable":null,"fresh":true}"#,
            r#"{"reason":"compiler-artifact","target":{"name":"kernel"},"executable":"/t/kernel","fresh":true}"#,
            r#"{"reason":"compiler-artifact","target":{"name":"plugin"},"filenames":["/t/p.rlib","/t/p.so"]}"#,
            r#"{"reason":"compiler-message","message":{"message":"unused","rendered":"warning: unused\n",
                "spans":[{"file_name":"a/b.rs","line_start":7,"is_primary":true}]}}"#,
            r#"{"reason":"compiler-message","message":{"message":"1 warning emitted","rendered":"","spans":[]}}"#,
            r#"{"reason":"build-finished","success":true}"#,
            "words of a build script",
        ] {
            report.enter(line);
        }
        assert_eq!(report.executables, [("kernel".to_owned(), PathBuf::from("/t/kernel"))]);
        assert_eq!(report.dynamic_libraries, [("plugin".to_owned(), PathBuf::from("/t/p.so"))]);
        let expected = Diagnostic {
            place: Some((PathBuf::from("a/b.rs"), 7)),
            message: "unused".to_owned(),
            rendered: "warning: unused\n".to_owned(),
        };
        assert_eq!(report.diagnostics, [expected]);
    }
}
