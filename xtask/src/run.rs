//! `cargo xtask run`: builds what a boot needs and boots it in QEMU.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf, absolute};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::config::Chosen;
use crate::project::{self, Arch, Kind};
use crate::qemu::{self, Accel, Boot, Console, End, Ended, Input, Machine, Module, Typing};
use crate::trace::{self, Traced};
use crate::{build, kvm, usage};

/// Status of a run that did not end in time.
const OVERRUN_STATUS: u8 = 124;

/// The time that a run may take when nobody watches.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);

/// The program that is booted when none is named.
pub const DEFAULT_PROGRAM: &str = "pingpong";

/// The programs that take the word `tick=` on their command line.
const MEASURING: [&str; 3] = [DEFAULT_PROGRAM, "bench", "scale"];

/// What is booted, whoever emulates the machine.
#[derive(clap::Args, Debug)]
pub struct Booted {
    /// Root task: pingpong (default), l4test, bench, scale, storm, fuzz, siege, drivers, deadlock
    pub program: Option<String>,
    /// Command line of the root task; l4test explains its own with `help`
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub args: Option<String>,
    /// Command line of kickstart, as in kmem=64M
    #[arg(long, value_name = "TEXT")]
    pub boot_args: Option<String>,
    /// Options of the kernel, such as ioflexpages=yes
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub kernel_args: Option<String>,
    /// Kernel configuration, by name or file [default: the current one]
    #[arg(long, value_name = "NAME|FILE")]
    pub config: Option<String>,
}

/// Options of `run`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    booted: Booted,
    /// Architecture
    #[arg(long, value_enum, default_value = "x86_64", hide_possible_values = true, value_name = "x86_64|x86_32")]
    arch: Arch,
    /// Processors in all
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=qemu::MAX_CPUS))]
    cpus: u32,
    /// Sockets over which the processors are spread
    #[arg(long, value_name = "S", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=qemu::MAX_CPUS))]
    sockets: u32,
    /// NUMA nodes over which processors and memory are spread
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=qemu::MAX_NODES))]
    nodes: u32,
    /// Memory in MiB
    #[arg(long, value_name = "MIB", default_value = "256", value_parser = clap::value_parser!(u64).range(8..=1 << 20))]
    memory: u64,
    /// QEMU's processor model
    #[arg(long, value_name = "MODEL", default_value = "max")]
    cpu: String,
    /// Who executes; auto takes KVM where it truly works
    #[arg(long, value_enum, value_name = "auto|tcg|kvm", default_value = "auto", hide_possible_values = true)]
    accel: Wanted,
    /// rdtsc counts instructions, the same in every run
    #[arg(long)]
    icount: bool,
    /// ELF file to boot in place of our kernel
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// ELF file to boot in place of our sigma0
    #[arg(long, value_name = "FILE")]
    sigma0: Option<PathBuf>,
    /// ELF file to boot as the root task
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// One more boot module; repeatable
    #[arg(long = "module", value_name = "FILE ARGS")]
    modules: Vec<String>,
    /// Typed on the console, knows \n and \e; without it Ctrl-A X leaves a terminal
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    input: Option<String>,
    /// Longest run; over it the status is 124 [default: 120 without a terminal]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,
    /// Wait for gdb at a TCP port of this machine [default: 1234]
    #[arg(long, value_name = "PORT", num_args = 0..=1, default_missing_value = "1234")]
    gdb: Option<u16>,
    /// Open a window
    #[arg(long)]
    display: bool,
    /// Boot a microvm, by PVH and not by Multiboot
    #[arg(long)]
    pvh: bool,
    /// Plugin for QEMU, its arguments behind commas
    #[arg(long, value_name = "FILE[,ARGS]")]
    plugin: Option<String>,
    /// Trace into a file for ui.perfetto.dev; print a summary
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Print the QEMU command line and stop
    #[arg(long)]
    print: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Wanted {
    Auto,
    Tcg,
    Kvm,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let plan = Plan::new(args)?;
    let console = Console { input: plan.input.clone(), is_shown: true, ..Console::none() };
    if !args.print {
        qemu::ensure()?;
    }
    if args.display && !args.print {
        qemu::ensure_window()?;
    }
    let accel = accel(args)?;
    let machine = plan.machine(args, accel)?;
    let machine = if args.pvh { machine.by_pvh(&project::image_dir())? } else { machine };
    if args.print {
        println!("{}", shell_line(&machine.options(&console)));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(port) = args.gdb {
        let ours = machine.modules[0].file.with_extension("debug");
        let symbols = if args.kernel.is_none() { ours } else { project::image_dir().join("kernel.debug") };
        eprintln!("waiting: type `gdb {} -ex 'target remote localhost:{port}'`", symbols.display());
    }
    let timeout = timeout(args, &console);
    let ended = match &args.trace {
        Some(file) => traced(args, &machine, &console, timeout, file)?,
        None => machine.boot(&console, timeout)?,
    };
    Ok(ExitCode::from(status(&ended.end)))
}

/// Boots a machine, writes its trace into a file and prints what it comes to.
fn traced(args: &Args, machine: &Machine, console: &Console, timeout: Option<Duration>, file: &Path) -> Result<Ended> {
    let kernel = &machine.modules[0].file;
    let with_symbols = kernel.with_extension("debug");
    let kernel = if with_symbols.is_file() { &with_symbols } else { kernel };
    let (ended, trace) = Traced::new(machine, kernel)?.boot(console, timeout)?;
    let unit = if args.icount { "instructions" } else { trace::TICKS };
    print!("{}", trace.write(file, unit)?);
    Ok(ended)
}

/// Whether somebody can type.
pub fn is_at_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Builds what these options name, for a machine that somebody else starts.
pub fn machine(args: &Args) -> Result<Machine> {
    if args.trace.is_some() {
        usage!("a trace needs a run from its start to its end: leave out --trace, or say `cargo xtask run`");
    }
    Plan::new(args)?.machine(args, accel(args)?)
}

/// The status of the command for the end of a boot; says on stderr what is not the program's own status.
pub fn status(end: &End) -> u8 {
    if let End::Program(status) = end {
        return *status;
    }
    eprintln!("error: {end}");
    if *end == End::Overrun { OVERRUN_STATUS } else { 1 }
}

/// Checked options: nothing is built before they are all found right.
struct Plan {
    /// What our kernel is built with.
    config: Chosen,
    /// The name of the root task, unless it is a file from elsewhere.
    program: Option<String>,
    root: Option<PathBuf>,
    kernel: Option<PathBuf>,
    sigma0: Option<PathBuf>,
    modules: Vec<Module>,
    input: Input,
    plugin: Option<String>,
}

impl Plan {
    fn new(args: &Args) -> Result<Self> {
        args.arch.check()?;
        if args.cpus % args.sockets != 0 {
            usage!("--cpus {} cannot be spread over --sockets {}: take a multiple", args.cpus, args.sockets);
        }
        if args.cpus % args.nodes != 0 {
            usage!("--cpus {} cannot be spread over --nodes {}: take a multiple", args.cpus, args.nodes);
        }
        if args.icount && args.accel == Wanted::Kvm {
            usage!("--icount counts the instructions of --accel tcg: leave out --accel kvm");
        }
        if args.plugin.is_some() && args.accel == Wanted::Kvm {
            usage!("--plugin watches the translator of --accel tcg: leave out --accel kvm");
        }
        if args.booted.config.is_some() && args.kernel.is_some() {
            usage!("--kernel is built already: leave out --config");
        }
        let config = match args.kernel {
            Some(_) => Chosen::by_default()?,
            None => configuration(args)?,
        };
        let program = match (&args.booted.program, &args.root) {
            (Some(name), Some(_)) => usage!("{name} and --root are two root tasks: leave out one"),
            (None, Some(_)) => None,
            (name, None) => Some(name.as_deref().unwrap_or(DEFAULT_PROGRAM).to_owned()),
        };
        if let Some(name) = &program {
            check_program(name)?;
        }
        // Whoever names a file that cannot be written hears of it before anything is built.
        if let (Some(file), false) = (&args.trace, args.print) {
            if let Err(error) = File::create(file) {
                usage!("cannot write {}: {error}; name another file", file.display());
            }
        }
        let file = |file: &Option<PathBuf>| file.as_deref().map(existing).transpose();
        Ok(Self {
            config,
            program,
            root: file(&args.root)?,
            kernel: file(&args.kernel)?,
            sigma0: file(&args.sigma0)?,
            modules: args.modules.iter().map(|text| module(text)).collect::<Result<_>>()?,
            plugin: args.plugin.as_deref().map(plugin).transpose()?,
            input: match &args.input {
                Some(text) => Input::Typed(Typing::key_by_key(&typed(text)?)),
                None if is_at_terminal() => Input::Terminal,
                None => Input::Nothing,
            },
        })
    }

    /// Builds the parts that do not come from elsewhere, and puts all together.
    fn machine(&self, args: &Args, accel: Accel) -> Result<Machine> {
        let ours = [("kernel", &self.kernel), ("sigma0", &self.sigma0)];
        let ours = ours.into_iter().filter(|(_, file)| file.is_none()).map(|(name, _)| name);
        let names: Vec<&str> = ["kickstart"].into_iter().chain(ours).chain(self.program.as_deref()).collect();
        let dir = without_space(build::images(&names, &self.config)?)?;
        let or_ours = |file: &Option<PathBuf>, name: &str| file.clone().unwrap_or_else(|| dir.join(name));
        let root = Module {
            file: or_ours(&self.root, self.program.as_deref().unwrap_or_default()),
            args: root_args(args, self.program.as_deref(), accel),
        };
        let kernel_args = args.booted.kernel_args.as_deref().unwrap_or_default();
        let kernel_args = if args.trace.is_some() { trace::kernel_args(kernel_args) } else { kernel_args.to_owned() };
        let kernel = Module { file: or_ours(&self.kernel, "kernel"), args: kernel_args };
        let sigma0 = Module::new(or_ours(&self.sigma0, "sigma0"));
        Ok(Machine {
            boot: Boot::Modules,
            board: if args.pvh { "microvm" } else { "" }.to_owned(),
            cpus: args.cpus,
            sockets: args.sockets,
            nodes: args.nodes,
            memory_mib: args.memory,
            cpu: args.cpu.clone(),
            accel,
            icount: args.icount,
            kickstart: dir.join("kickstart"),
            boot_args: args.booted.boot_args.clone().unwrap_or_default(),
            modules: [kernel, sigma0, root].into_iter().chain(self.modules.iter().cloned()).collect(),
            gdb: args.gdb,
            display: args.display,
            has_screen: false,
            has_serial: true,
            restarts: false,
            has_exit: true,
            plugin: self.plugin.clone(),
            monitor: None,
            more: Vec::new(),
            memory_dir: None,
        })
    }
}

/// What our kernel is built with: for a trace something with tracepoints.
fn configuration(args: &Args) -> Result<Chosen> {
    let chosen = Chosen::of(args.booted.config.as_deref())?;
    match &args.booted.config {
        _ if args.trace.is_none() || chosen.has_tracepoints => Ok(chosen),
        Some(name) => usage!("configuration {name} has no TRACEPOINTS: say --config {}", trace::CONFIGURATION),
        None => Chosen::of(Some(trace::CONFIGURATION)),
    }
}

/// The root task's command line. A program that measures cannot see what its ticks are, so it is told.
fn root_args(args: &Args, program: Option<&str>, accel: Accel) -> String {
    let tick = match accel {
        _ if !program.is_some_and(|name| MEASURING.contains(&name)) => None,
        _ if args.icount => Some("tick=instructions"),
        Accel::Kvm => Some("tick=cycles"),
        Accel::Tcg => Some("tick=meaningless"),
    };
    args.booted.args.as_deref().into_iter().chain(tick).collect::<Vec<_>>().join(" ")
}

fn accel(args: &Args) -> Result<Accel> {
    match args.accel {
        Wanted::Tcg => Ok(Accel::Tcg),
        Wanted::Auto if args.icount || args.plugin.is_some() => Ok(Accel::Tcg),
        Wanted::Auto => Ok(if kvm::works() { Accel::Kvm } else { Accel::Tcg }),
        Wanted::Kvm if kvm::works() => Ok(Accel::Kvm),
        Wanted::Kvm => usage!("KVM does not work on this machine: say --accel tcg"),
    }
}

/// A person at a terminal, in a window or in a debugger may take all the time there is.
fn timeout(args: &Args, console: &Console) -> Option<Duration> {
    let is_watched = console.input == Input::Terminal || args.gdb.is_some() || args.display;
    args.timeout.map(Duration::from_secs).or_else(|| (!is_watched).then_some(DEFAULT_TIMEOUT))
}

/// Refuses what is no program of ours.
pub fn check_program(name: &str) -> Result<()> {
    let names: Vec<&str> = project::names(Kind::Program).collect();
    if !names.contains(&name) {
        usage!("no program is called {name}: there are {}, and --root FILE boots any file", names.join(", "));
    }
    Ok(())
}

/// The absolute path of a file that is there.
fn existing(file: &Path) -> Result<PathBuf> {
    if !file.is_file() {
        usage!("there is no file {}: name one that exists", file.display());
    }
    without_space(absolute(file)?)
}

/// QEMU takes the name of a module up to the first space.
fn without_space(path: PathBuf) -> Result<PathBuf> {
    match path.to_str() {
        Some(text) if !text.contains(' ') => Ok(path),
        _ => usage!("QEMU cannot load {}: use a path without spaces, in UTF-8", path.display()),
    }
}

fn module(text: &str) -> Result<Module> {
    let (file, args) = text.split_once(' ').unwrap_or((text, ""));
    Ok(Module { file: existing(Path::new(file))?, args: args.to_owned() })
}

/// The plugin's file, as an absolute path, and its arguments.
fn plugin(text: &str) -> Result<String> {
    let (file, args) = text.split_once(',').unwrap_or((text, ""));
    let file = existing(Path::new(file))?.display().to_string();
    Ok(if args.is_empty() { file } else { format!("{file},{args}") })
}

/// The bytes that `text` stands for.
fn typed(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        let meant = match next {
            '\\' => match rest.next() {
                Some('n') => '\n',
                Some('e') => '\u{1b}',
                Some('\\') => '\\',
                other => {
                    let other = other.map(String::from).unwrap_or_default();
                    usage!("--input does not know \\{other}: there are \\n, \\e and \\\\");
                }
            },
            plain => plain,
        };
        bytes.extend(meant.encode_utf8(&mut [0; 4]).bytes());
    }
    Ok(bytes)
}

/// QEMU with its options, as a line for a shell.
fn shell_line(options: &[std::ffi::OsString]) -> String {
    let quote = |word: &std::ffi::OsString| {
        let word = word.to_string_lossy();
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_=.,:/+".contains(letter);
        if !word.is_empty() && word.chars().all(is_plain) {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    [qemu::PROGRAM.to_owned()].into_iter().chain(options.iter().map(quote)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{Accel, Args, Plan, root_args, shell_line, status, typed};
    use crate::qemu::End;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(words: &[&str]) -> Args {
        Line::try_parse_from(["run"].iter().chain(words)).expect("these options are right").args
    }

    #[test]
    fn typed_text_knows_line_feed_and_escape() {
        let check = |text: &str, expected: &[u8]| assert_eq!(typed(text).expect("sound text"), expected);
        check("1g", b"1g");
        check(r"a\nb\e", b"a\nb\x1b");
        check(r"\\n", b"\\n");
        for wrong in [r"\q", "\\"] {
            assert!(typed(wrong).is_err_and(|error| error.to_string().contains("there are \\n")), "{wrong}");
        }
    }

    #[test]
    fn the_benchmark_is_told_what_a_tick_is() {
        let check = |words: &[&str], program, accel, expected: &str| {
            assert_eq!(root_args(&parse(words), program, accel), expected);
        };
        check(&[], Some("pingpong"), Accel::Tcg, "tick=meaningless");
        check(&["--icount"], Some("pingpong"), Accel::Tcg, "tick=instructions");
        check(&["--args", "inter mrs=0..7"], Some("pingpong"), Accel::Kvm, "inter mrs=0..7 tick=cycles");
        check(&["--icount", "--args", "list"], Some("l4test"), Accel::Tcg, "list");
        check(&["--icount"], Some("bench"), Accel::Tcg, "tick=instructions");
        check(&["--icount"], None, Accel::Tcg, "");
    }

    #[test]
    fn wrong_values_are_found_before_anything_is_built() {
        let check = |words: &[&str], expected: &str| {
            let error = Plan::new(&parse(words)).err().expect("these options are wrong").to_string();
            assert!(error.contains(expected), "{error}");
            assert_eq!(error.lines().count(), 1);
        };
        check(&["--arch", "x86_32"], "not available yet");
        check(&["nosuch"], "there are pingpong, l4test");
        check(&["--cpus", "4", "--sockets", "3"], "take a multiple");
        check(&["--icount", "--accel", "kvm"], "leave out --accel kvm");
        check(&["--plugin", "/dev/null", "--accel", "kvm"], "leave out --accel kvm");
        check(&["--plugin", "/no/such.so,out=/dev/null"], "there is no file /no/such.so:");
        check(&["pingpong", "--root", "/dev/null"], "leave out one");
        check(&["--config", "nosuch"], "there are bench, debug, default");
        check(&["--config", "small", "--kernel", "/dev/null"], "leave out --config");
        check(&["--kernel", "/no/such"], "there is no file /no/such");
        check(&["--module", "/no/such with arguments"], "there is no file /no/such:");
        check(&["--input", "\\x"], "there are \\n, \\e and \\\\");
    }

    #[test]
    fn a_port_for_gdb_may_be_left_out() {
        assert_eq!(parse(&["--gdb"]).gdb, Some(1234));
        assert_eq!(parse(&["--gdb", "99", "pingpong"]).gdb, Some(99));
        assert_eq!(parse(&["pingpong"]).gdb, None);
    }

    #[test]
    fn the_status_is_the_program_s_unless_the_boot_failed() {
        assert_eq!(status(&End::Program(0)), 0);
        assert_eq!(status(&End::Program(5)), 5);
        assert_eq!(status(&End::Overrun), 124);
        assert_eq!(status(&End::BootError), 1);
        assert_eq!(status(&End::Off), 1);
    }

    #[test]
    fn the_printed_command_line_survives_a_shell() {
        let words = ["-m", "256", "kernel,root a=1", "it's"].map(Into::into);
        assert_eq!(shell_line(&words), r"qemu-system-x86_64 -m 256 'kernel,root a=1' 'it'\''s'");
    }
}
