//! The command line itself: what a wrong word, file or value gets to hear, and what status comes out.

use std::env;
use std::fs;
use std::process::{Command, Output, Stdio};

use anyhow::{Result, ensure};
use tempfile::TempDir;

use super::{Case, Lab};

/// Wrong arguments: the test's name, the arguments, words of the mend.
const WRONG: &[(&str, &[&str], &str)] = &[
    ("an_unknown_command", &["rum"], "cargo xtask --help"),
    ("an_unknown_option", &["run", "--no-such-option"], "cargo xtask run --help"),
    ("an_unknown_program", &["run", "no-such-program"], "there are pingpong, l4test"),
    ("a_missing_file", &["run", "--root", "no/such/file"], "name one that exists"),
    ("a_missing_kernel", &["run", "--kernel", "no/such/kernel"], "name one that exists"),
    ("a_missing_module", &["run", "--module", "no/such/module with arguments"], "name one that exists"),
    ("two_root_tasks", &["run", "pingpong", "--root", "Cargo.toml"], "leave out one"),
    ("no_processors", &["run", "--cpus", "0"], "1..=255"),
    ("processors_that_are_no_number", &["run", "--cpus", "two"], "invalid digit"),
    ("processors_that_do_not_fill_the_sockets", &["run", "--cpus", "3", "--sockets", "2"], "take a multiple"),
    ("processors_that_do_not_fill_the_nodes", &["run", "--cpus", "3", "--nodes", "2"], "take a multiple"),
    ("too_little_memory", &["run", "--memory", "1"], "8..="),
    ("an_unknown_accelerator", &["run", "--accel", "fast"], "auto, tcg, kvm"),
    ("counting_on_kvm", &["run", "--icount", "--accel", "kvm"], "leave out --accel kvm"),
    ("an_unknown_escape", &["run", "--input", "\\q"], "there are \\n, \\e and \\\\"),
    ("an_unknown_architecture", &["run", "--arch", "arm"], "x86_64, x86_32"),
    ("an_architecture_to_come", &["run", "--arch", "x86_32"], "say x86_64"),
    ("a_build_for_an_architecture_to_come", &["build", "--arch", "x86_32"], "say x86_64"),
    ("tests_on_an_architecture_to_come", &["test", "--arch", "x86_32"], "say x86_64"),
    ("a_json_file_nowhere", &["test", "--json", "no/such/folder/file"], "name another file"),
    ("an_unknown_bench", &["bench", "no_such_bench"], "there are ipc, null_call"),
    ("a_part_as_all_figures", &["bench", "ipc", "--bless"], "leave out the name"),
    ("figures_of_many_processors", &["bench", "--cpus", "2", "--bless"], "leave out --cpus"),
    ("sockets_of_one_processor", &["bench", "ipc", "--sockets", "2"], "are for scale"),
    (
        "processors_that_do_not_fill_the_sockets_of_a_bench",
        &["bench", "scale", "--cpus", "3", "--sockets", "2"],
        "multiple",
    ),
    ("figures_in_a_file_nowhere", &["bench", "--json", "no/such/folder/file"], "name another file"),
    ("a_missing_plugin", &["run", "--plugin", "no/such/plugin.so,out=x"], "name one that exists"),
    ("a_plugin_on_kvm", &["run", "--plugin", "Cargo.toml", "--accel", "kvm"], "leave out --accel kvm"),
    ("an_unknown_option_of_tidy", &["tidy", "--no-such-option"], "cargo xtask tidy --help"),
];

/// All tests of this file.
pub fn cases() -> Vec<Case> {
    let wrong = WRONG.iter().map(|&(name, arguments, mend)| {
        Case::new(format!("command::refuses_{name}_in_one_line"), "", move |_| refused(arguments, mend))
    });
    let others = [
        Case::new("command::help_fits_on_a_screen", "", help),
        Case::new("command::run_prints_the_emulator_s_command_line", "", prints),
        Case::new("command::run_ends_with_the_program_s_status", "", status),
        Case::new("command::run_over_its_time_has_status_124", "", overrun),
        Case::new("command::run_says_that_a_boot_was_refused", "", refused_boot),
    ];
    wrong.chain(others).collect()
}

/// Starts this tool anew.
fn xtask(arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(env::current_exe()?).args(arguments).stdin(Stdio::null()).output()?)
}

fn describe(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\nstdout:\n{}\nstderr:\n{}", output.status, text(&output.stdout), text(&output.stderr))
}

fn refused(arguments: &[&str], mend: &str) -> Result<()> {
    let output = xtask(arguments)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let is_one_line = stderr.lines().count() == 1 && stderr.starts_with("error: ");
    ensure!(output.status.code() == Some(2), "expected status 2: {}", describe(&output));
    ensure!(is_one_line && output.stdout.is_empty(), "expected one line of error: {}", describe(&output));
    ensure!(stderr.contains(mend), "expected the mend `{mend}`: {stderr}");
    Ok(())
}

fn help(_: &Lab) -> Result<()> {
    let all: [&[&str]; 7] = [
        &[],
        &["--help"],
        &["run", "--help"],
        &["test", "--help"],
        &["bench", "--help"],
        &["build", "--help"],
        &["tidy", "--help"],
    ];
    for arguments in all {
        let output = xtask(arguments)?;
        let lines = String::from_utf8_lossy(&output.stdout).lines().count();
        ensure!(output.status.success() && (5..=40).contains(&lines), "{arguments:?}: {}", describe(&output));
    }
    Ok(())
}

fn prints(lab: &Lab) -> Result<()> {
    let output = xtask(&["run", "--print", "--icount", "--args", "inter x=1,2"])?;
    let line = String::from_utf8_lossy(&output.stdout);
    let kickstart = lab.image("kickstart").display().to_string();
    let words = ["qemu-system-x86_64 ", "-icount shift=0", &kickstart, "pingpong inter x=1,,2 tick=instructions"];
    ensure!(output.status.success() && line.lines().count() == 1, "{}", describe(&output));
    ensure!(words.iter().all(|word| line.contains(word)), "expected {words:?} in {line}");
    Ok(())
}

fn status(_: &Lab) -> Result<()> {
    let output = xtask(&["run", "pingpong", "--icount", "--args", "inter mrs=0..0", "--timeout", "600"])?;
    ensure!(output.status.success() && !output.stdout.is_empty(), "{}", describe(&output));
    ensure!(!output.stdout.contains(&b'\r'), "lines end with carriage returns: {}", describe(&output));
    Ok(())
}

/// A machine that waits for a debugger makes no progress, on a host of any speed.
fn overrun(_: &Lab) -> Result<()> {
    let output = xtask(&["run", "--gdb", "0", "--timeout", "1"])?;
    ensure!(output.status.code() == Some(124), "expected status 124: {}", describe(&output));
    Ok(())
}

fn refused_boot(_: &Lab) -> Result<()> {
    let dir = TempDir::new()?;
    let file = dir.path().join("text");
    fs::write(&file, "no executable")?;
    let output = xtask(&["run", "--accel", "tcg", "--root", &file.display().to_string()])?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let is_said = stdout.contains("kickstart: ") && stderr.contains("kickstart refused to boot");
    ensure!(output.status.code() == Some(1) && is_said, "{}", describe(&output));
    Ok(())
}
