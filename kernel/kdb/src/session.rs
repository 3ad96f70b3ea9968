//! A stay in the debugger: prompts, keys and lines, menus.

use core::fmt::Write;

use arrayvec::{ArrayString, ArrayVec};
use kcore::kernel::Kernel;
use kcore::machine::{Machine, SpaceRef, TcbRef};

use crate::commands;
use crate::line::{self, History, LINE_MAX, Line, Typed};
use crate::menu::{Action, Command, Done, Menu};
use crate::output::{BACKSPACE, ESCAPE, Output, PAGE_LINES, Terminal};
use crate::probe::Probe;

/// How a person leaves the debugger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leave {
    /// The machine goes on.
    Go,
    /// It executes one instruction.
    Step,
    /// It runs to the next branch that is taken.
    Branch,
    /// There are no more keys.
    Ended,
}

/// How commands are called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// By a key each, in menus.
    Keys,
    /// By lines with their names.
    Lines,
}

/// How threads are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdForm {
    /// By name if they have one, and by number and version.
    Name,
    /// By the address of the TCB.
    Tcb,
    /// By the raw id.
    Raw,
}

/// What lasts from one stay to the next.
pub struct State {
    pub(crate) mode: Mode,
    pub(crate) ids: IdForm,
    /// Lines of a page; 0: there are no pages.
    pub(crate) page: usize,
    /// Whether prompts name the processor.
    pub(crate) shows_cpu: bool,
    /// Bytes of the words of a memory dump.
    pub(crate) word_bytes: u8,
    pub(crate) thread: Option<TcbRef>,
    pub(crate) space: Option<SpaceRef>,
    /// Where the next dump of memory and the next page of instructions begin.
    pub(crate) memory_at: u64,
    pub(crate) code_at: u64,
    /// What of the trace is shown.
    pub(crate) filters: commands::Filters,
    pub(crate) lines: History,
    pub(crate) answers: History,
}

impl State {
    /// As it is in the beginning.
    #[allow(clippy::new_without_default, reason = "for statics")]
    pub const fn new() -> Self {
        Self {
            mode: Mode::Keys,
            ids: IdForm::Name,
            page: PAGE_LINES,
            shows_cpu: false,
            word_bytes: 8,
            thread: None,
            space: None,
            memory_at: 0,
            code_at: 0,
            filters: commands::Filters::NONE,
            lines: History::new(),
            answers: History::new(),
        }
    }

    /// Without pages, and by lines: as programs like it.
    #[must_use]
    pub const fn for_programs(mut self) -> Self {
        self.page = 0;
        self.mode = Mode::Lines;
        self
    }
}

/// Menus above the one that is open.
const DEPTH_MAX: usize = 4;

/// A stay in the debugger.
pub struct Session<'s, 'k, M: Machine> {
    pub(crate) k: &'s Kernel<'k, M>,
    pub(crate) probe: &'s mut dyn Probe,
    pub(crate) out: Output<'s>,
    pub(crate) state: &'s mut State,
    /// The words behind a command's name that are not used yet.
    words: Line,
}

impl<'s, 'k, M: Machine + 'static> Session<'s, 'k, M> {
    /// A stay with this kernel and this machine.
    pub fn new(
        k: &'s Kernel<'k, M>,
        probe: &'s mut dyn Probe,
        terminal: &'s mut dyn Terminal,
        state: &'s mut State,
    ) -> Self {
        let out = Output::new(terminal, state.page);
        Self { k, probe, out, state, words: Line::new() }
    }

    /// Talks with the person until they leave.
    pub fn run(&mut self) -> Leave {
        (self.state.thread, self.state.space) = (None, None);
        // Whoever does not want to read it all has no harm of it.
        let _ = self.greet();
        let mut path: ArrayVec<&'static Menu<M>, DEPTH_MAX> = ArrayVec::new();
        path.push(&commands::Menus::<M>::ROOT);
        loop {
            self.out.begin(self.state.page);
            self.prompt(&path);
            let left = match self.state.mode {
                Mode::Keys => self.by_key(&mut path),
                Mode::Lines => self.by_line(&mut path),
            };
            if let Some(leave) = left {
                return leave;
            }
        }
    }

    /// Carries out one line, as if it had been typed, and says whether there is such a command.
    pub fn execute(&mut self, line: &str) -> bool {
        let mut path: ArrayVec<&'static Menu<M>, DEPTH_MAX> = ArrayVec::new();
        path.push(&commands::Menus::<M>::ROOT);
        self.out.begin(self.state.page);
        let line = Line::from(line).unwrap_or_default();
        self.interpret(&line, &mut path).is_ok()
    }

    fn greet(&mut self) -> core::fmt::Result {
        let mut reason = ArrayString::<LINE_MAX>::new();
        let _ = self.probe.reason(&mut reason);
        writeln!(self.out, "\n--- kernel debugger, processor {}: {reason} ---", self.probe.cpu().index())?;
        self.show_entry()?;
        writeln!(self.out, "? lists the commands, g leaves")
    }

    fn prompt(&mut self, path: &[&'static Menu<M>]) {
        if self.state.shows_cpu {
            let mut cpu = ArrayString::<8>::new();
            let _ = write!(cpu, "{}", self.probe.cpu().index());
            self.out.echo("cpu");
            self.out.echo(&cpu);
            self.out.echo(" ");
        }
        self.out.echo("kdb");
        for menu in path.iter().skip(1) {
            self.out.echo("/");
            self.out.echo(menu.name);
        }
        self.out.echo("> ");
    }

    fn by_key(&mut self, path: &mut ArrayVec<&'static Menu<M>, DEPTH_MAX>) -> Option<Leave> {
        let Some(key) = self.out.key() else { return Some(Leave::Ended) };
        let menu = path[path.len() - 1];
        if key == b'?' || key == b'h' && menu.by_key(key).is_none() {
            self.out.echo("help\n");
            let _ = self.help(menu);
        } else if key == ESCAPE || BACKSPACE.contains(&key) {
            self.out.echo("\n");
            if path.len() > 1 {
                path.pop();
            }
        } else if let Some(command) = menu.by_key(key) {
            self.out.echo(command.name);
            self.out.echo("\n");
            return self.call(command, path);
        } else if key == b'\r' || key == b'\n' {
            self.out.echo("\n");
        } else {
            self.out.echo("no such key: ? lists the commands\n");
        }
        None
    }

    fn by_line(&mut self, path: &mut ArrayVec<&'static Menu<M>, DEPTH_MAX>) -> Option<Leave> {
        let menu = path[path.len() - 1];
        let words = |index: usize| {
            let own = menu.commands.get(index).map(|command| command.name);
            own.or_else(|| Self::BESIDES.get(index.checked_sub(menu.commands.len())?).copied())
        };
        let line = match line::read(&mut self.out, &mut self.state.lines, &words) {
            Typed::Line(line) => line,
            Typed::Escaped => {
                if path.len() > 1 {
                    path.pop();
                }
                return None;
            }
            Typed::Ended => return Some(Leave::Ended),
        };
        match self.interpret(&line, path) {
            Ok(left) => left,
            Err(NoCommand) => {
                self.out.echo("no such command: help lists them\n");
                None
            }
        }
    }

    /// Words that are understood in each menu.
    const BESIDES: &'static [&'static str] = &["help", "up"];

    /// Carries out a line. Names of menus can stand before that of a command: then the menu stays closed.
    fn interpret(
        &mut self,
        line: &Line,
        path: &mut ArrayVec<&'static Menu<M>, DEPTH_MAX>,
    ) -> Result<Option<Leave>, NoCommand> {
        self.words = *line;
        let mut menu = path[path.len() - 1];
        let mut depth = 0;
        while let Some(word) = self.next_word() {
            match word.as_str() {
                "?" | "help" => {
                    let _ = self.help(menu);
                    return Ok(None);
                }
                "up" | ".." => {
                    if path.len() > 1 {
                        path.pop();
                    }
                    return Ok(None);
                }
                _ => {}
            }
            // A key is as good as a name, in its menu.
            let by_key = || Some(word.as_bytes()).filter(|word| word.len() == 1).and_then(|word| menu.by_key(word[0]));
            let root = &commands::Menus::<M>::ROOT;
            let from_root = || if depth == 0 { root.by_name(&word) } else { None };
            let found = menu.by_name(&word).or_else(by_key).or_else(from_root);
            let command = found.ok_or(NoCommand)?;
            match command.action {
                Action::Run(_) => return Ok(self.call(command, path)),
                Action::Menu(below) if self.words.is_empty() => {
                    path.truncate(1);
                    path.push(below);
                    return Ok(None);
                }
                Action::Menu(below) => menu = below,
            }
            depth += 1;
        }
        Ok(None)
    }

    fn call(&mut self, command: &Command<M>, path: &mut ArrayVec<&'static Menu<M>, DEPTH_MAX>) -> Option<Leave> {
        let done: Done = match command.action {
            Action::Run(run) => run(self),
            Action::Menu(menu) => {
                let _ = path.try_push(menu);
                Ok(None)
            }
        };
        self.words.clear();
        done.ok().flatten()
    }

    fn help(&mut self, menu: &'static Menu<M>) -> core::fmt::Result {
        for command in menu.commands {
            let key = if command.key == b' ' {
                "space"
            } else {
                core::str::from_utf8(core::slice::from_ref(&command.key)).unwrap_or("")
            };
            let kind = if matches!(command.action, Action::Menu(_)) { " ..." } else { "" };
            writeln!(self.out, "{key:>5}  {:12} {}{kind}", command.name, command.help)?;
        }
        match self.state.mode {
            Mode::Keys => writeln!(self.out, "    ?  help; Escape or Backspace: the menu above"),
            Mode::Lines => writeln!(self.out, "       help, up; Tab completes; arrows: cursor and history"),
        }
    }

    /// Takes the next word of the command line.
    pub(crate) fn next_word(&mut self) -> Option<Line> {
        let line = self.words;
        let (word, rest) = match line.trim_start().split_once(' ') {
            Some((word, rest)) => (word, rest.trim()),
            None => (line.trim(), ""),
        };
        self.words = Line::from(rest).unwrap_or_default();
        (!word.is_empty()).then(|| Line::from(word).unwrap_or_default())
    }
}

/// There is no command of that name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct NoCommand;
