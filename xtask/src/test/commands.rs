//! The command line itself: what a wrong word, file or value gets to hear, and what status comes out.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Result, ensure};
use tempfile::TempDir;

use super::{Case, Lab};
use crate::config;

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
    ("an_unknown_configuration", &["run", "--config", "nosuch"], "there are bench, debug, default"),
    ("a_configuration_of_a_kernel_that_is_built", &["run", "--config", "small", "--kernel", "Cargo.toml"], "leave out"),
    ("a_trace_of_a_kernel_without_tracepoints", &["run", "--config", "small", "--trace", "x"], "say --config trace"),
    ("a_trace_in_a_file_nowhere", &["run", "--trace", "no/such/folder/file"], "name another file"),
    ("figures_of_another_configuration", &["bench", "--config", "small", "--bless"], "leave out --config"),
    ("an_unknown_option_of_the_kernel", &["config", "set", "SMPP=y"], "there is SMP"),
    ("a_number_beyond_its_range", &["config", "set", "VERBOSE_INIT=y", "SMP_MAX_PROCS=256"], "it takes 1 to 255"),
    ("a_wish_without_a_value", &["config", "set", "SMP"], "type KEY=VALUE"),
    ("another_mapping_database", &["config", "set", "NEW_MDB=n"], "This kernel has no other"),
    ("a_speed_that_no_line_has", &["config", "set", "KDB_COMSPEED=9601"], "9600"),
    ("a_configuration_that_is_none", &["config", "check", "nosuch"], "or name a file"),
    ("a_configuration_with_a_strange_name", &["config", "save", "a/b"], "letters, digits and dashes"),
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
        Case::new("command::config_keeps_what_is_chosen", "", configures),
        Case::new("command::config_repairs_files_and_loses_nothing", "", repairs),
        Case::new("command::named_configurations_are_sound", "", named),
        Case::new("command::run_over_its_time_has_status_124", "", overrun),
        Case::new("command::run_says_that_a_boot_was_refused", "", refused_boot),
    ];
    wrong.chain(others).collect()
}

/// Starts this tool anew, without a current configuration.
fn xtask(arguments: &[&str]) -> Result<Output> {
    xtask_with(Path::new("/nonexistent/.config"), arguments)
}

/// Starts this tool anew, with this file for the current configuration.
fn xtask_with(current: &Path, arguments: &[&str]) -> Result<Output> {
    // The file of this tool may be another one by now: tests of the tool build it, too.
    let mut command = Command::new("/proc/self/exe");
    command.env(config::VARIABLE, current).args(arguments);
    Ok(command.stdin(Stdio::null()).output()?)
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
    let all: [&[&str]; 8] = [
        &[],
        &["--help"],
        &["run", "--help"],
        &["test", "--help"],
        &["bench", "--help"],
        &["build", "--help"],
        &["config", "--help"],
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

/// Several at once or none; what does not count now is kept; back to the default; from and to names.
fn configures(_: &Lab) -> Result<()> {
    let dir = TempDir::new()?;
    let file = dir.path().join(".config");
    let run = |arguments: &[&str], expected: &str| -> Result<()> {
        let output = xtask_with(&file, arguments)?;
        let is_said = String::from_utf8_lossy(&output.stdout).contains(expected);
        ensure!(output.status.success() && is_said, "expected `{expected}`: {}", describe(&output));
        Ok(())
    };
    let has = |text: &str| -> Result<()> {
        let found = fs::read_to_string(&file)?;
        ensure!(found == text, "expected {text:?}: {found:?}");
        Ok(())
    };
    run(&["config", "set", "SMP_MAX_PROCS=40", "KDB_COMSPEED=9600", "NEW_MDB=y"], "SMP_MAX_PROCS=40")?;
    has("SMP_MAX_PROCS=40\nKDB_COMSPEED=9600\n")?;
    run(&["config", "set", "SMP=n"], "SMP=n")?;
    run(&["config", "set", "SMP_MAX_PROCS=41"], "does not count now: it needs SMP=y")?;
    has("SMP_MAX_PROCS=41\nKDB_COMSPEED=9600\nSMP=n\n")?;
    let refused = xtask_with(&file, &["config", "set", "SMP=y", "SMP_MAX_PROCS=0"])?;
    ensure!(refused.status.code() == Some(2), "{}", describe(&refused));
    has("SMP_MAX_PROCS=41\nKDB_COMSPEED=9600\nSMP=n\n")?;
    run(&["config", "show"], "SMP_MAX_PROCS=1")?;
    run(&["config", "set", "SMP=y"], "SMP=y")?;
    run(&["config", "show"], "SMP_MAX_PROCS=41")?;
    run(&["config"], "KDB_COMSPEED=9600")?;
    run(&["config", "default"], "is as default")?;
    run(&["config", "show"], "SMP_MAX_PROCS=255")?;
    ensure!(
        fs::read_to_string(dir.path().join(".config.old"))?.contains("SMP_MAX_PROCS=41"),
        "what was chosen is lost"
    );
    run(&["config", "load", "forty-cores"], "is as forty-cores")?;
    run(&["config", "show"], "SPIN_WHEELS=y")?;
    run(&["config", "check"], "sound")
}

fn repairs(_: &Lab) -> Result<()> {
    const DAMAGED: &[u8] =
        b"CONFIG_SMP=y\r\nSMP_MAX_PROCS=4000\n# CONFIG_VERBOSE_INIT is not set\nX_SCHED_HS=y\n\xFF\n";
    let dir = TempDir::new()?;
    let file = dir.path().join("old");
    let name = file.display().to_string();
    fs::write(&file, DAMAGED)?;
    let found = xtask(&["config", "check", &name])?;
    ensure!(found.status.code() == Some(1) && fs::read(&file)? == DAMAGED, "{}", describe(&found));
    let changed = xtask(&["config", "set", "PERFMON=y", "--config", &name])?;
    ensure!(changed.status.success() && !changed.stderr.is_empty(), "{}", describe(&changed));
    ensure!(fs::read(dir.path().join("old.old"))? == DAMAGED, "the damaged file is not beside");
    let text = fs::read_to_string(&file)?;
    for line in
        ["SMP=y\n", "\nSMP_MAX_PROCS=255\n", "=4000\n", "VERBOSE_INIT=n\n", "X_SCHED_HS=y\n", "\\xff\n", "PERFMON=y\n"]
    {
        ensure!(text.contains(line), "no {line:?} in {text}");
    }
    let sound = xtask(&["config", "check", &name])?;
    ensure!(sound.status.success(), "{}", describe(&sound));
    Ok(())
}

/// Files that come with the sources need no repair, and nothing in them is in vain.
fn named(_: &Lab) -> Result<()> {
    let output = xtask(&["config", "check"])?;
    let text = String::from_utf8_lossy(&output.stdout);
    let is_sound = output.status.success() && text.lines().all(|line| line.ends_with(": sound"));
    ensure!(is_sound && text.contains("forty-cores"), "{}", describe(&output));
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
