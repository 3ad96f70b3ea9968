//! The emulator: a machine as options, a boot as a supervised process, its end as a value.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::{build, bundle, packages};

/// The emulator's name in the search path.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// The processors that QEMU's translator can have.
pub const MAX_CPUS: i64 = 255;
/// Nodes there can be: localities that the kernel knows.
pub const MAX_NODES: i64 = 16;

/// The port that ends the emulation: a guest that writes n lets QEMU exit with status 2n + 1.
pub const EXIT_PORT: u8 = 0xF4;

/// The device behind [`EXIT_PORT`].
pub const EXIT_DEVICE: [&str; 2] = ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"];

/// Where QEMU's usual board has memory: all of it below the first bound, if it is less than that; else as much as the second
/// one, and the rest from 4 GiB on. Devices are in the gap.
const LONG_BELOW_GAP: u64 = 0xE000_0000;
const SHORT_BELOW_GAP: u64 = 0xC000_0000;
const GAP_END: u64 = 1 << 32;

/// What kickstart writes to the exit port when it refuses to boot.
const BOOT_ERROR: u8 = 0x7F;

/// Who says on the serial line how the program ended, and how.
const TELLERS: [&str; 2] = ["l4-rt: ", "console: "];
const ENDED: &str = "ended with status ";

/// The console must be silent for this long before something is typed: then the program waits for it.
const SILENCE: Duration = Duration::from_millis(500);

/// The silence after which a program is taken to wait that has not said a word.
const LONG_SILENCE: Duration = Duration::from_secs(10);

/// How the lines of loader and kernel begin.
const BOOT_LINES: [&str; 2] = ["kickstart ", "marcona: "];

/// How long an emulator may take to restore the terminal and end.
const GRACE: Duration = Duration::from_secs(5);

/// Makes sure that there is an emulator.
pub fn ensure() -> Result<()> {
    packages::program(PROGRAM, &["qemu-system-x86"]).map(drop)
}

/// Makes sure that the emulator can open a window.
pub fn ensure_window() -> Result<()> {
    let output = Command::new(PROGRAM).args(["-display", "help"]).output()?;
    let has_window = String::from_utf8_lossy(&output.stdout).lines().any(|kind| kind == "gtk" || kind == "sdl");
    if has_window { Ok(()) } else { packages::install("QEMU's window", &["qemu-system-gui"]) }
}

/// Who executes the guest's instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accel {
    /// QEMU's translator.
    Tcg,
    /// The processor.
    Kvm,
}

impl Accel {
    /// QEMU's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcg => "tcg",
            Self::Kvm => "kvm",
        }
    }
}

/// A boot module.
#[derive(Clone, Debug)]
pub struct Module {
    /// Its file; the name has no space.
    pub file: PathBuf,
    /// What follows the name on its command line.
    pub args: String,
}

impl Module {
    /// A module without arguments.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), args: String::new() }
    }

    /// As an element of `-initrd`: the command line, with its commas doubled.
    fn option(&self) -> String {
        let file = self.file.display();
        let line = if self.args.is_empty() { file.to_string() } else { format!("{file} {}", self.args) };
        line.replace(',', ",,")
    }
}

/// What a machine boots.
#[derive(Clone, Debug)]
pub enum Boot {
    /// The loader and the modules of [`Machine`], which QEMU puts into memory.
    Modules,
    /// The same by PVH: the loader for it, and the modules as the one file that there can be.
    Pvh(PathBuf),
    /// What its firmware finds on a medium: QEMU's options for both.
    Medium(Vec<String>),
}

/// A machine and what it boots.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What it boots.
    pub boot: Boot,
    /// QEMU's name of the board, and options behind commas; empty for QEMU's own choice.
    pub board: String,
    /// Processors in all.
    pub cpus: u32,
    /// Packages over which they are spread; divides `cpus`.
    pub sockets: u32,
    /// Nodes over which processors and memory are spread (NUMA); divides `cpus` and is at most `memory_mib`.
    pub nodes: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// QEMU's name of the processor model.
    pub cpu: String,
    /// Who executes.
    pub accel: Accel,
    /// One virtual nanosecond per instruction; only with [`Accel::Tcg`].
    pub icount: bool,
    /// The multiboot loader.
    pub kickstart: PathBuf,
    /// The loader's own command line.
    pub boot_args: String,
    /// The modules: kernel, sigma0, root task, others.
    pub modules: Vec<Module>,
    /// Wait for a debugger at this TCP port of the host.
    pub gdb: Option<u16>,
    /// Open a window.
    pub display: bool,
    /// Have a screen, be it shown or not.
    pub has_screen: bool,
    /// Load this plugin, with its arguments behind commas; only with [`Accel::Tcg`].
    pub plugin: Option<String>,
    /// Have a serial line.
    pub has_serial: bool,
    /// Start again when the machine resets itself, in place of ending.
    pub restarts: bool,
    /// Have the device behind [`EXIT_PORT`].
    pub has_exit: bool,
    /// Open a monitor for programs at this socket ([`crate::monitor`]).
    pub monitor: Option<PathBuf>,
    /// More of QEMU's options.
    pub more: Vec<String>,
    /// Have the memory in files in this folder ([`Self::memory_parts`]).
    pub memory_dir: Option<PathBuf>,
}

/// A part of the physical memory of a machine that has it in files. It is there from the start of the emulator on, and stays
/// when that has ended, as it was in that moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemoryPart {
    /// Its first address.
    pub begin: u64,
    /// How long it is.
    pub bytes: u64,
    /// The file.
    pub file: PathBuf,
    /// Where the part begins in it.
    pub offset: u64,
}

impl Machine {
    /// A machine with one full processor, emulated, that boots `root` with the images in `dir`.
    pub fn new(dir: &Path, root: Module) -> Self {
        let [kernel, sigma0] = ["kernel", "sigma0"].map(|name| Module::new(dir.join(name)));
        Self {
            boot: Boot::Modules,
            board: String::new(),
            cpus: 1,
            sockets: 1,
            nodes: 1,
            memory_mib: 256,
            cpu: "max".to_owned(),
            accel: Accel::Tcg,
            icount: false,
            kickstart: dir.join("kickstart"),
            boot_args: String::new(),
            modules: vec![kernel, sigma0, root],
            gdb: None,
            display: false,
            has_screen: false,
            plugin: None,
            has_serial: true,
            restarts: false,
            has_exit: true,
            monitor: None,
            more: Vec::new(),
            memory_dir: None,
        }
    }

    /// The same machine, that boots from a medium.
    pub fn of_medium(options: Vec<String>) -> Self {
        let nothing = Self::new(Path::new(""), Module::new(""));
        Self { boot: Boot::Medium(options), modules: Vec::new(), ..nothing }
    }

    /// The same machine, whose loader is started by PVH; the file with the modules is written into `dir`, which must stay.
    pub fn by_pvh(self, dir: &Path) -> Result<Self> {
        let bundle = dir.join("bundle");
        bundle::write(&bundle, &self.modules)?;
        let kickstart = self.kickstart.with_file_name(build::PVH_LOADER);
        Ok(Self { boot: Boot::Pvh(bundle), kickstart, ..self })
    }

    /// QEMU's options; `console` decides where the serial line goes.
    pub fn options(&self, console: &Console) -> Vec<OsString> {
        let (cpus, sockets, memory) = (self.cpus, self.sockets, self.memory_mib);
        let mut words: Vec<OsString> = ["-nodefaults", "-no-user-config"].map(Into::into).into();
        if !self.restarts {
            words.push("-no-reboot".into());
        }
        let mut add = |option: &str, value: &str| words.extend([option.into(), value.into()]);
        if !self.board.is_empty() {
            add("-machine", &self.board);
        }
        add("-accel", self.accel.name());
        add("-cpu", &self.cpu);
        add("-smp", &format!("{cpus},sockets={sockets},cores={},threads=1", cpus / sockets));
        add("-m", &memory.to_string());
        if self.nodes > 1 {
            self.numa().for_each(|(option, value)| add(option, &value));
        } else if self.memory_dir.is_some() {
            add("-object", &self.backend(0, memory));
            add("-machine", "memory-backend=node0");
        }
        if self.icount {
            add("-icount", "shift=0,sleep=off");
            // The host's date would make runs differ.
            add("-rtc", "base=2000-01-01,clock=vm");
        }
        if self.has_exit {
            add(EXIT_DEVICE[0], EXIT_DEVICE[1]);
        }
        if self.display || self.has_screen {
            add("-vga", "std");
        }
        if !self.display {
            add("-display", "none");
        }
        match console.input {
            _ if !self.has_serial => add("-serial", "none"),
            Input::Terminal => add("-serial", "mon:stdio"),
            Input::Nothing | Input::Typed(_) => add("-serial", "stdio"),
        }
        if let Some(plugin) = &self.plugin {
            add("-plugin", plugin);
        }
        if let Some(socket) = &self.monitor {
            add("-qmp", &format!("unix:{},server=on,wait=off", socket.display()));
        }
        if let Some(port) = self.gdb {
            add("-gdb", &format!("tcp:127.0.0.1:{port}"));
            words.push("-S".into());
        }
        words.extend(self.more.iter().map(Into::into));
        if let Boot::Medium(options) = &self.boot {
            words.extend(options.iter().map(Into::into));
            return words;
        }
        words.extend(["-kernel".into(), self.kickstart.clone().into()]);
        if !self.boot_args.is_empty() {
            words.extend(["-append".into(), self.boot_args.clone().into()]);
        }
        let modules = match &self.boot {
            Boot::Pvh(bundle) => bundle.into(),
            _ => self.modules.iter().map(Module::option).collect::<Vec<_>>().join(",").into(),
        };
        words.extend(["-initrd".into(), modules]);
        words
    }

    /// The memory of each node, in MiB: they lie in a row, and the last one has the rest of it.
    fn nodes_mib(&self) -> impl Iterator<Item = u64> + use<> {
        let (nodes, each) = (u64::from(self.nodes), self.memory_mib / u64::from(self.nodes));
        let rest = self.memory_mib - each * nodes;
        (0..nodes).map(move |node| if node == nodes - 1 { each + rest } else { each })
    }

    /// What brings the memory of a node.
    fn backend(&self, node: u32, size_mib: u64) -> String {
        match self.memory_file(node) {
            Some(file) => {
                let file = file.display().to_string().replace(',', ",,");
                format!("memory-backend-file,id=node{node},size={size_mib}M,share=on,mem-path={file}")
            }
            None => format!("memory-backend-ram,id=node{node},size={size_mib}M"),
        }
    }

    fn memory_file(&self, node: u32) -> Option<PathBuf> {
        self.memory_dir.as_ref().map(|dir| dir.join(format!("node{node}")))
    }

    /// Where the memory is that is in files; none if it is not. The files are there as soon as the emulator is.
    pub fn memory_parts(&self) -> Vec<MemoryPart> {
        let below = if self.memory_mib << 20 < LONG_BELOW_GAP { LONG_BELOW_GAP } else { SHORT_BELOW_GAP };
        let (mut parts, mut first) = (Vec::new(), 0);
        for (node, size) in (0..).zip(self.nodes_mib()) {
            let Some(file) = self.memory_file(node) else { break };
            let (begin, end) = (first, first + (size << 20));
            let of = |from: u64, to: u64, shift| MemoryPart {
                begin: from + shift,
                bytes: to.saturating_sub(from),
                file: file.clone(),
                offset: from - begin,
            };
            parts.push(of(begin, end.min(below).max(begin), 0));
            parts.push(of(begin.max(below), end.max(below), GAP_END - below));
            first = end;
        }
        parts.retain(|part| part.bytes > 0);
        parts
    }

    /// The options for several nodes.
    fn numa(&self) -> impl Iterator<Item = (&'static str, String)> {
        let (nodes, cpus) = (self.nodes, self.cpus / self.nodes);
        let each = (0..nodes).zip(self.nodes_mib()).flat_map(move |(node, size)| {
            let (first, last) = (node * cpus, (node + 1) * cpus - 1);
            [
                ("-object", self.backend(node, size)),
                ("-numa", format!("node,nodeid={node},cpus={first}-{last},memdev=node{node}")),
            ]
        });
        let pairs =
            (0..nodes).flat_map(move |from| (0..nodes).map(move |to| (from, to))).filter(|(from, to)| from != to);
        each.chain(pairs.map(|(from, to)| {
            let distance = distance(from, to);
            ("-numa", format!("dist,src={from},dst={to},val={distance}"))
        }))
    }

    /// Boots it and stays until it ends, for at most `timeout`.
    pub fn boot(&self, console: &Console, timeout: Option<Duration>) -> Result<Ended> {
        supervise(&self.options(console), console, timeout)
    }
}

/// How far nodes are from each other; 10 is here (ACPI, SLIT).
pub fn distance(from: u32, to: u32) -> u32 {
    10 + 10 * from.abs_diff(to)
}

/// What is typed on the serial line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// Nothing.
    Nothing,
    /// Whatever comes from the terminal; Ctrl-A X leaves.
    Terminal,
    /// Text, once the program waits for it.
    Typed(Typing),
}

/// Text to be typed, part after part. What has been typed and not been read is lost when a program sets up its line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Typing {
    parts: VecDeque<Part>,
    /// How much the line had said when the part before was typed.
    said: usize,
}

/// What is typed at once.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Part {
    text: Vec<u8>,
    /// What the program says when it waits for this. If that is not known, it is typed when the program falls silent.
    prompt: Option<&'static str>,
}

impl Typing {
    /// One byte at a time, whenever the program falls silent.
    pub fn key_by_key(text: &[u8]) -> Self {
        Self { parts: text.iter().map(|&key| Part { text: vec![key], prompt: None }).collect(), said: 0 }
    }

    /// All of the text when the program says `prompt`.
    pub fn at(prompt: &'static str, text: impl Into<Vec<u8>>) -> Self {
        Self { parts: VecDeque::new(), said: 0 }.then(prompt, text)
    }

    /// And then this text, when the program says `prompt` after the last one.
    #[must_use]
    pub fn then(mut self, prompt: &'static str, text: impl Into<Vec<u8>>) -> Self {
        self.parts.push_back(Part { text: text.into(), prompt: Some(prompt) });
        self
    }

    /// What is to be typed now that the line has said so many bytes.
    fn next_part(&mut self, said: usize) -> Option<Vec<u8>> {
        self.said = said;
        self.parts.pop_front().map(|part| part.text)
    }
}

/// How long the line, which has said `text`, must be silent from now on before `typing` goes on; `None`: it must say
/// something first.
fn silence_before(typing: &Typing, text: &[u8]) -> Option<Duration> {
    let said = |from: usize| String::from_utf8_lossy(text.get(from..).unwrap_or_default());
    match typing.parts.front()?.prompt {
        Some(prompt) => said(typing.said).contains(prompt).then_some(Duration::ZERO),
        None if text.is_empty() => None,
        // Before its first word a program has not set up its line.
        None => Some(if has_program_spoken(&said(0)) { SILENCE } else { LONG_SILENCE }),
    }
}

/// Whether there is anything in `text` but lines of loader and kernel, or the beginning of one.
fn has_program_spoken(text: &str) -> bool {
    let is_of_boot = |line: &str| BOOT_LINES.iter().any(|start| line.starts_with(start) || start.starts_with(line));
    !text.lines().all(is_of_boot)
}

/// The other end of the serial line.
#[derive(Clone, Debug)]
pub struct Console {
    /// What is typed.
    pub input: Input,
    /// Output goes to stdout at once.
    pub is_shown: bool,
    /// The boot is over as soon as a line has one of these in it.
    pub until: &'static [&'static str],
    /// The boot is over when nothing was said for so long.
    pub silence: Option<Duration>,
}

impl Console {
    /// Nothing typed, nothing shown.
    pub fn none() -> Self {
        Self { input: Input::Nothing, is_shown: false, until: &[], silence: None }
    }
}

/// How a boot ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// The guest ended the emulation with this status.
    Program(u8),
    /// kickstart refused the images.
    BootError,
    /// The time was over.
    Overrun,
    /// It said what it was waited for ([`Console::until`]).
    Said,
    /// Without a status: by Ctrl-A X, or because the machine switched itself off or reset itself.
    Off,
    /// The emulator failed.
    Emulator(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program(status) => write!(f, "the program ended with status {status}"),
            Self::BootError => write!(f, "kickstart refused to boot, for the reason above"),
            Self::Overrun => write!(f, "the time is over and the program has not ended"),
            Self::Said => write!(f, "it said what it was waited for, and was left"),
            Self::Off => write!(f, "the machine was left (Ctrl-A X), switched off, or reset itself (triple fault)"),
            Self::Emulator(reason) => write!(f, "the emulator failed: {reason}"),
        }
    }
}

/// What is left of a boot.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub end: End,
    /// All output of the serial line, without carriage returns.
    pub console: String,
    /// When it was said.
    pub times: Times,
}

/// When a serial line said what.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<(usize, Duration)>);

impl Times {
    /// How long after the start of the emulator the end of `text` had come, which is on `console`.
    pub fn of(&self, console: &str, text: &str) -> Option<Duration> {
        let end = console.find(text)? + text.len();
        self.0.iter().find(|(said, _)| *said >= end).map(|(_, time)| *time)
    }
}

/// The emulator with these options, which ends when this process does.
pub fn emulator_command(options: &[OsString]) -> Command {
    let mut command = match packages::find_program("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "TERM", PROGRAM]);
            command
        }
        None => Command::new(PROGRAM),
    };
    command.args(options);
    command
}

/// The emulator's process; it does not outlive this value.
struct Emulator(Child);

impl Emulator {
    /// The options go to QEMU by way of setpriv, which has the kernel end QEMU whenever this process dies.
    fn start(options: &[OsString], console: &Console) -> Result<Self> {
        let mut command = emulator_command(options);
        let stdin = match console.input {
            Input::Nothing => Stdio::null(),
            Input::Terminal => Stdio::inherit(),
            Input::Typed(_) => Stdio::piped(),
        };
        let command = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(Self(command.spawn().with_context(|| format!("cannot start {PROGRAM}"))?))
    }

    /// Asks it to end: it then gives the terminal back.
    fn terminate(&self) {
        // Fails only when it has ended by itself.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // Both do nothing when it was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the emulator with `options` and stays until it ends, for at most `timeout`.
pub fn supervise(options: &[OsString], console: &Console, timeout: Option<Duration>) -> Result<Ended> {
    const PIPED: &str = "the emulator was started with pipes";
    let started = Instant::now();
    let mut emulator = Emulator::start(options, console)?;
    let output = read_output(emulator.0.stdout.take().expect(PIPED));
    let words = read_words(emulator.0.stderr.take().expect(PIPED));
    let mut session = Session {
        output,
        shows: console.is_shown,
        raw: console.input == Input::Terminal,
        text: Vec::new(),
        started,
        times: Vec::new(),
        typing: typing(&mut emulator.0, console),
        until: console.until,
        silence: console.silence,
        heard: started,
    };

    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let is_over = session.follow(deadline)?;
    if is_over {
        emulator.terminate();
        session.silence = None;
        if session.follow(Some(Instant::now() + GRACE))? {
            emulator.0.kill()?;
        }
    }
    let status = emulator.0.wait()?;
    let words = words.join().expect("the reader of stderr does not panic");
    let console = String::from_utf8_lossy(&session.text).into_owned();
    let end = match is_over {
        true if session.has_said_all() => End::Said,
        true => End::Overrun,
        false => end(status, &words, &console),
    };
    Ok(Ended { end, console, times: Times(session.times) })
}

/// What is to be typed into `child`.
fn typing(child: &mut Child, console: &Console) -> Option<(ChildStdin, Typing)> {
    match &console.input {
        Input::Typed(typing) => child.stdin.take().map(|stdin| (stdin, typing.clone())),
        Input::Nothing | Input::Terminal => None,
    }
}

/// The serial line of a running emulator.
struct Session {
    output: Receiver<Vec<u8>>,
    shows: bool,
    raw: bool,
    text: Vec<u8>,
    started: Instant,
    /// Bytes of text, and when there were as many.
    times: Vec<(usize, Duration)>,
    typing: Option<(ChildStdin, Typing)>,
    until: &'static [&'static str],
    silence: Option<Duration>,
    /// When it said something last.
    heard: Instant,
}

impl Session {
    /// Whether a complete line has what was waited for in it.
    fn has_said_all(&self) -> bool {
        if self.until.is_empty() {
            return false;
        }
        let end = self.text.iter().rposition(|&byte| byte == b'\n').unwrap_or(0);
        let text = String::from_utf8_lossy(&self.text[..end]);
        self.until.iter().any(|what| text.contains(what))
    }

    /// Takes output, and types when the line falls silent, until the emulator ends (`false`) or `deadline` (`true`), or has
    /// said what was waited for, or nothing for too long (`true`).
    fn follow(&mut self, deadline: Option<Instant>) -> Result<bool> {
        loop {
            let end = [deadline, self.silence.map(|silence| self.heard + silence)].into_iter().flatten().min();
            let rest = end.map(|end| end.saturating_duration_since(Instant::now()));
            if rest == Some(Duration::ZERO) {
                return Ok(true);
            }
            let silence = self.typing.as_ref().and_then(|(_, typing)| silence_before(typing, &self.text));
            let patience = [rest, silence].into_iter().flatten().min().unwrap_or(Duration::MAX);
            match self.output.recv_timeout(patience) {
                Ok(bytes) => {
                    self.take(bytes)?;
                    if self.has_said_all() {
                        return Ok(true);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(false),
                Err(RecvTimeoutError::Timeout) if silence == Some(patience) => self.send_typing()?,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn take(&mut self, mut bytes: Vec<u8>) -> io::Result<()> {
        if self.shows && self.raw {
            show(&bytes)?;
        }
        bytes.retain(|&byte| byte != b'\r');
        if self.shows && !self.raw {
            show(&bytes)?;
        }
        self.text.extend(bytes);
        self.heard = Instant::now();
        self.times.push((self.text.len(), self.started.elapsed()));
        Ok(())
    }

    /// Types all that is due now.
    fn send_typing(&mut self) -> io::Result<()> {
        let Some((mut stdin, mut typing)) = self.typing.take() else { return Ok(()) };
        let Some(part) = typing.next_part(self.text.len()) else { return Ok(()) };
        // A pipe holds more than is typed at once, so this does not wait for a guest that never reads. An emulator that
        // ends before it has read everything is no error of the typist.
        let is_open = stdin.write_all(&part).and_then(|()| stdin.flush()).is_ok();
        self.typing = (is_open && !typing.parts.is_empty()).then_some((stdin, typing));
        Ok(())
    }
}

/// Hands `bytes` to stdout at once.
pub fn show(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Hands on what the serial line says; the channel closes when the emulator ends.
fn read_output(mut stdout: ChildStdout) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = stdout.read(&mut buffer) {
            if sender.send(buffer[..len].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

fn read_words(mut stderr: ChildStderr) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error counts.
        let _ = stderr.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The status with which the program ended by what was last said on the serial line: programs say it before they switch the
/// machine off.
pub fn told_status(console: &str) -> Option<u8> {
    // A line that is not complete may lack a digit.
    let line = console.strip_suffix('\n')?.lines().next_back()?;
    TELLERS.iter().find_map(|teller| line.strip_prefix(teller))?.strip_prefix(ENDED)?.parse().ok()
}

/// Reads the end from QEMU's status, from its words on stderr, and from what came from the serial line.
fn end(status: ExitStatus, words: &str, console: &str) -> End {
    let mut complaints = words.lines().filter(|line| !line.is_empty() && !line.contains("warning:"));
    let complaint = complaints.next().map(|line| line.trim_start_matches("qemu-system-x86_64: ").to_owned());
    let Some(code) = status.code() else {
        return End::Emulator(complaint.unwrap_or_else(|| status.to_string()));
    };
    match (u8::try_from(code).unwrap_or(u8::MAX), complaint) {
        (0, None) => told_status(console).map_or(End::Off, End::Program),
        // QEMU refuses its options with the same status as a program that ends with 0.
        (1, Some(reason)) if console.is_empty() => End::Emulator(reason),
        (code, _) if code % 2 == 1 && code >> 1 == BOOT_ERROR => End::BootError,
        (code, _) if code % 2 == 1 => End::Program(code >> 1),
        (code, reason) => End::Emulator(reason.unwrap_or_else(|| format!("status {code}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::path::Path;
    use std::process::ExitStatus;
    use std::time::Duration;

    use super::{Console, End, Input, LONG_SILENCE, Machine, Module, SILENCE, Typing, end, silence_before};

    #[test]
    fn the_status_of_the_program_comes_back() {
        let check = |code: i32, words: &str, console: &str, expected: End| {
            assert_eq!(end(ExitStatus::from_raw(code << 8), words, console), expected, "{code} {words:?} {console}");
        };
        check(1, "", "x\n", End::Program(0));
        check(1, "", "", End::Program(0));
        check(7, "", "x\n", End::Program(3));
        check(253, "", "x\n", End::Program(126));
        check(255, "", "x\n", End::BootError);
        check(0, "", "x\n", End::Off);
        check(0, "", "x\nl4-rt: ended with status 0\n", End::Program(0));
        check(0, "", "x\nconsole: ended with status 101\n", End::Program(101));
        check(0, "", "l4-rt: ended with status 10", End::Off);
        check(0, "", "l4-rt: ended with status 300\n", End::Off);
        check(0, "", "l4-rt: ended with status 0\nkickstart 0.1.0\n", End::Off);
        check(7, "", "l4-rt: ended with status 0\n", End::Program(3));
        check(1, "qemu-system-x86_64: warning: no svm\n", "", End::Program(0));
        check(1, "qemu-system-x86_64: -m 1: bad\n", "", End::Emulator("-m 1: bad".to_owned()));
        check(2, "", "x\n", End::Emulator("status 2".to_owned()));
        check(0, "qemu-system-x86_64: lost\n", "x\n", End::Emulator("lost".to_owned()));
        let killed = end(ExitStatus::from_raw(9), "", "");
        assert_eq!(killed, End::Emulator("signal: 9 (SIGKILL)".to_owned()));
    }

    #[test]
    fn keys_are_typed_when_the_program_itself_has_spoken() {
        let key_by_key = Typing::key_by_key(b"ab");
        let boot = "kickstart 0.1.0 (Marcona)\nmarcona: 1 processors\n";
        let check =
            |text: &str, expected| assert_eq!(silence_before(&key_by_key, text.as_bytes()), expected, "{text:?}");
        check("", None);
        check("kick", Some(LONG_SILENCE));
        check(boot, Some(LONG_SILENCE));
        check(&format!("{boot}\nmar"), Some(LONG_SILENCE));
        check(&format!("{boot}marmot\n"), Some(SILENCE));
        check(&format!("{boot}What now?"), Some(SILENCE));
        check(&format!("What now?\n{boot}"), Some(SILENCE));
        let mut at_prompts = Typing::at("now?", "ab").then("now?", "c");
        let mut check_prompt = |text: &str, expected: Option<&str>| {
            let due = silence_before(&at_prompts, text.as_bytes()).map(|silence| {
                assert_eq!(silence, Duration::ZERO, "{text}");
                at_prompts.next_part(text.len())
            });
            assert_eq!(due.flatten(), expected.map(|keys| keys.as_bytes().to_vec()), "{text}");
        };
        check_prompt(boot, None);
        check_prompt("What now? ", Some("ab"));
        check_prompt("What now? ab", None);
        check_prompt("What now? ab\nWhat now?", Some("c"));
        check_prompt("What now? ab\nWhat now? What now?", None);
    }

    #[test]
    fn keys_are_typed_one_by_one_without_a_prompt() {
        let mut typing = Typing::key_by_key(b"ab");
        let parts = [(); 3].map(|()| typing.next_part(0));
        assert_eq!(parts, [Some(b"a".to_vec()), Some(b"b".to_vec()), None]);
    }

    fn options(change: impl FnOnce(&mut Machine), input: Input) -> String {
        let mut machine = Machine::new(Path::new(""), Module::new("root"));
        change(&mut machine);
        let words = machine.options(&Console { input, ..Console::none() });
        words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn commas_in_module_arguments_reach_the_guest() {
        let root = Module { file: "a,b".into(), args: "x=1,2 y".to_owned() };
        let line = options(|machine| machine.modules[2] = root, Input::Nothing);
        assert!(line.ends_with("-kernel kickstart -initrd kernel,sigma0,a,,b x=1,,2 y"), "{line}");
    }

    #[test]
    fn memory_in_files_is_found_by_its_addresses() {
        let check = |nodes: u32, memory_mib: u64, expected: &[(u64, u64, &str, u64)]| {
            let mut machine = Machine::new(Path::new(""), Module::new("root"));
            (machine.nodes, machine.memory_mib, machine.memory_dir) = (nodes, memory_mib, Some("/m".into()));
            let parts = machine.memory_parts();
            let found =
                parts.iter().map(|part| (part.begin, part.bytes, part.file.to_str().unwrap_or(""), part.offset));
            assert_eq!(found.collect::<Vec<_>>(), expected, "{memory_mib} MiB on {nodes} nodes");
        };
        const MIB: u64 = 1 << 20;
        const GIB: u64 = 1 << 30;
        check(1, 256, &[(0, 256 * MIB, "/m/node0", 0)]);
        check(1, 3583, &[(0, 3583 * MIB, "/m/node0", 0)]);
        check(1, 3584, &[(0, 3 * GIB, "/m/node0", 0), (4 * GIB, 512 * MIB, "/m/node0", 3 * GIB)]);
        check(2, 129, &[(0, 64 * MIB, "/m/node0", 0), (64 * MIB, 65 * MIB, "/m/node1", 0)]);
        let split = [
            (0, 2 * GIB, "/m/node0", 0),
            (2 * GIB, GIB, "/m/node1", 0),
            (4 * GIB, GIB, "/m/node1", GIB),
            (5 * GIB, 2 * GIB, "/m/node2", 0),
            (7 * GIB, 2 * GIB, "/m/node3", 0),
        ];
        check(4, 8192, &split);
        assert_eq!(Machine::new(Path::new(""), Module::new("root")).memory_parts(), []);
    }

    #[test]
    fn options_say_what_was_asked_for() {
        let check = |expected: &str, change: fn(&mut Machine)| {
            let line = options(change, Input::Nothing);
            assert!(line.contains(expected), "{line}");
        };
        check("-accel tcg -cpu max -smp 1,sockets=1,cores=1,threads=1 -m 256", |_| ());
        check("-smp 8,sockets=4,cores=2,threads=1", |machine| (machine.cpus, machine.sockets) = (8, 4));
        let two = "-object memory-backend-ram,id=node1,size=128M -numa node,nodeid=1,cpus=2-3,memdev=node1 \
                   -numa dist,src=0,dst=1,val=20";
        check(two, |machine| (machine.cpus, machine.nodes) = (4, 2));
        check("-icount shift=0,sleep=off -rtc base=2000-01-01,clock=vm", |machine| machine.icount = true);
        check("-gdb tcp:127.0.0.1:99 -S", |machine| machine.gdb = Some(99));
        check("-plugin p.so,out=f", |machine| machine.plugin = Some("p.so,out=f".to_owned()));
        check("-qmp unix:/tmp/m,server=on,wait=off", |machine| machine.monitor = Some("/tmp/m".into()));
        let in_a_file = "-object memory-backend-file,id=node0,size=256M,share=on,mem-path=/a,,b/node0 \
                         -machine memory-backend=node0";
        check(in_a_file, |machine| machine.memory_dir = Some("/a,b".into()));
        let in_two = "-object memory-backend-file,id=node1,size=128M,share=on,mem-path=/m/node1 -numa node,nodeid=1,";
        check(in_two, |machine| (machine.cpus, machine.nodes, machine.memory_dir) = (2, 2, Some("/m".into())));
        check("-vga std", |machine| machine.display = true);
        check("-display none -serial stdio", |_| ());
        assert!(options(|_| (), Input::Terminal).contains("-serial mon:stdio"));
    }
}
