//! What the kernel debugger does for user code, in a kernel without one (kernel debugger ABI for user code): it prints, and
//! it lets a thread wait for input.
//!
//! Printing is work of the thread, done in steps as far as the console takes it, so that neither a long text nor a slow
//! line keeps the processor. A text is read as it stands when its turn comes. A thread that waits for input sleeps and
//! then executes its breakpoint anew: until then it is in a wait that no message ends, as in a fault, so that all its
//! virtual registers stay, and whoever may abort a fault may abort this.

use core::fmt::{self, Write};

use l4_abi::Time;

use crate::kernel::Here;
use crate::machine::{Machine, TcbRef};
use crate::thread::{Print, Purpose, TransferState, Work};
use crate::var::{AsWord, Var};

/// Characters that one step prints at most.
const CHARS_PER_STEP: usize = 32;
/// Characters of a text that are printed at most: whoever forgets the end of a text does not print all of memory.
const TEXT_MAX: usize = 64 << 10;
/// How long a thread that waits for input sleeps between two looks, microseconds.
const INPUT_POLL_US: u64 = 1000;

/// What the thread does when all is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Then {
    /// It goes on.
    GoOn,
    /// It raises the exception that brought it here, if it has an exception handler; else it goes on.
    Stop,
}

/// Why a text ends before its end.
const NOT_MAPPED: &str = "[not mapped]";
const TOO_LONG: &str = "[too long]";

/// How far a thread has come that prints. It carries out no transfer meanwhile, and uses the words of one.
struct Progress<'t>(&'t TransferState);

impl<'t> Progress<'t> {
    /// The beginning of something.
    fn begin(&self, print: Print, argument: usize, then: Then) {
        self.0.substring.set(print.to_word() as u8);
        self.0.tag.set(argument);
        self.0.as_sender.set(then == Then::Stop);
        self.begin_part(0);
    }

    fn begin_part(&self, part: u8) {
        self.0.position.set(part);
        self.has_returned().set(false);
        self.is_cut_off().set(false);
        self.done().set(0);
    }

    fn print(&self) -> Print {
        Print::from_word(self.0.substring.get().into())
    }

    fn argument(&self) -> usize {
        self.0.tag.get()
    }

    fn stops(&self) -> bool {
        self.0.as_sender.get()
    }

    fn part(&self) -> u8 {
        self.0.position.get()
    }

    /// Characters of the part that are printed.
    fn done(&self) -> &'t Var<usize> {
        &self.0.offset
    }

    /// The carriage return of a line feed is printed.
    fn has_returned(&self) -> &'t Var<bool> {
        &self.0.in_string
    }

    /// The part, a text, cannot be read any further.
    fn is_cut_off(&self) -> &'t Var<bool> {
        &self.0.no_more_buffers
    }

    /// It cannot because it is too long, not because it is not mapped.
    fn is_too_long(&self) -> &'t Var<bool> {
        &self.0.is_receivers
    }
}

/// A part of what is printed.
enum Part {
    /// These characters.
    Line(Line),
    /// The thread's own text at this address.
    Text(usize),
}

/// A short line. The longest is that of two addresses.
struct Line {
    bytes: [u8; Self::MAX],
    len: usize,
}

impl Line {
    const MAX: usize = 64;

    fn of(text: fmt::Arguments<'_>) -> Self {
        let mut line = Self { bytes: [0; Self::MAX], len: 0 };
        line.write_fmt(text).expect("the lines here are short");
        line
    }

    fn of_byte(byte: u8) -> Self {
        Self { bytes: [byte; Self::MAX], len: 1 }
    }

    fn get(&self, index: usize) -> Option<u8> {
        self.bytes[..self.len].get(index).copied()
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let rest = self.bytes[self.len..].get_mut(..text.len()).ok_or(fmt::Error)?;
        rest.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

impl<M: Machine> Here<'_, M> {
    /// Lets the running thread `thread`, which is behind a breakpoint, print something before it goes on or stops.
    /// `argument` is what the kind of print says.
    pub fn print(&mut self, thread: TcbRef, print: Print, argument: usize, then: Then) {
        self.progress(thread).begin(print, argument, then);
        self.k.tcb(thread).work.set(Work::Print);
    }

    /// The running thread `thread` executed a breakpoint that asks for nothing known: an exception, or, without a handler,
    /// a line on the console.
    pub fn unknown_breakpoint(&mut self, thread: TcbRef, then: Then) {
        if then == Then::Stop && self.has_exception_handler(thread) {
            return self.exception(thread);
        }
        self.print(thread, Print::UnknownBreakpoint, 0, Then::GoOn);
    }

    /// The running thread `thread`, whose instruction pointer is at its breakpoint again, finds no input: it sleeps for a
    /// moment.
    pub fn sleep_for_input(&mut self, thread: TcbRef) {
        let tcb = self.k.tcb(thread);
        tcb.purpose.set(Purpose::Input);
        tcb.begin_wait(tcb.id.get(), false);
        self.start_timeout(thread, self.deadline(Time::period_us(INPUT_POLL_US)));
    }

    fn progress(&self, thread: TcbRef) -> Progress<'_> {
        Progress(&self.k.tcb(thread).transfer)
    }

    fn has_exception_handler(&self, thread: TcbRef) -> bool {
        !self.k.utcb(thread).exception_handler().is_nil()
    }

    /// Prints a bounded part of what `thread` has to print, as far as the console takes it.
    pub(crate) fn print_step(&mut self, thread: TcbRef) {
        let mut left = CHARS_PER_STEP;
        while let Some(part) = self.part(thread) {
            let progress = self.progress(thread);
            let Some(character) = self.character(thread, &part) else {
                progress.begin_part(progress.part() + 1);
                continue;
            };
            if left == 0 || !self.put(thread, character) {
                return;
            }
            left -= 1;
            progress.done().set(progress.done().get() + 1);
        }
        self.end_print(thread);
    }

    fn end_print(&mut self, thread: TcbRef) {
        self.k.tcb(thread).work.set(Work::None);
        if self.progress(thread).stops() && self.has_exception_handler(thread) {
            self.exception(thread);
        }
    }

    /// The part that `thread` is printing; `None` behind the last.
    fn part(&self, thread: TcbRef) -> Option<Part> {
        let (tcb, progress) = (self.k.tcb(thread), self.progress(thread));
        let argument = progress.argument();
        let line = |text: fmt::Arguments<'_>| Some(Part::Line(Line::of(text)));
        // The breakpoint is one byte long.
        let at = (tcb.ip.get().wrapping_sub(1), tcb.sp.get());
        let registers = || line(format_args!("--- ip {:#x}, sp {:#x} ---\n", at.0, at.1));
        match (progress.print(), progress.part()) {
            (Print::Char, 0) => Some(Part::Line(Line::of_byte(argument as u8))),
            (Print::Text, 0) | (Print::EnterWithText, 1) => Some(Part::Text(argument)),
            (Print::EnterWithText, 0) => line(format_args!("--- \"")),
            (Print::EnterWithText, 2) => line(format_args!("\" ---\n")),
            (Print::UnknownService, 0) => line(format_args!("--- unknown service {argument:#04x} ---\n")),
            (Print::UnknownBreakpoint, 0) => line(format_args!("--- unknown breakpoint ---\n")),
            (Print::EnterWithText, 3) | (Print::Enter, 0) => registers(),
            (Print::UnknownService | Print::UnknownBreakpoint, 1) => registers(),
            _ => None,
        }
    }

    /// The next character of the part; `None` at its end.
    fn character(&self, thread: TcbRef, part: &Part) -> Option<u8> {
        let progress = self.progress(thread);
        let done = progress.done().get();
        let address = match part {
            Part::Line(line) => return line.get(done),
            Part::Text(address) => *address,
        };
        if progress.is_cut_off().get() {
            let why = if progress.is_too_long().get() { TOO_LONG } else { NOT_MAPPED };
            return why.as_bytes().get(done).copied();
        }
        let mut byte = [0];
        let is_mapped = address
            .checked_add(done)
            .is_some_and(|at| self.read_user(self.k.space_of(thread), at, &mut byte) == byte.len());
        if is_mapped && byte == [0] {
            return None;
        }
        if is_mapped && done < TEXT_MAX {
            return Some(byte[0]);
        }
        progress.is_cut_off().set(true);
        progress.is_too_long().set(is_mapped);
        progress.done().set(0);
        self.character(thread, part)
    }

    /// Gives the console a character; `false` if it can take none now. The end of a line is two, as terminals want it.
    fn put(&self, thread: TcbRef, character: u8) -> bool {
        let has_returned = self.progress(thread).has_returned();
        if character == b'\n' && !has_returned.get() {
            if !self.k.machine.put_char(b'\r') {
                return false;
            }
            has_returned.set(true);
        }
        let is_put = self.k.machine.put_char(character);
        if is_put {
            has_returned.set(false);
        }
        is_put
    }
}
