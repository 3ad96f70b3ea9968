//! Questions that a command asks: answered by the words typed behind its name, or else at a prompt.

use core::fmt::{self, Write};

use kcore::machine::{CpuId, Machine, SpaceRef, TcbRef};
use l4_abi::ThreadId;

use crate::line::{self, Line, Typed};
use crate::names::Named;
use crate::output::ESCAPE;
use crate::session::Session;
use crate::words;

impl<M: Machine + 'static> Session<'_, '_, M> {
    /// The next word of the command line, or what is typed at a prompt. Empty if only Return was pressed.
    fn answer(&mut self, question: fmt::Arguments<'_>) -> Result<Line, fmt::Error> {
        self.ask_word(question, &|_| None)
    }

    /// The same, with words that the key Tab completes.
    pub fn ask_word(
        &mut self,
        question: fmt::Arguments<'_>,
        words: &dyn Fn(usize) -> Option<&'static str>,
    ) -> Result<Line, fmt::Error> {
        if let Some(word) = self.next_word() {
            return Ok(word);
        }
        write!(self.out, "{question}: ")?;
        match line::read(&mut self.out, &mut self.state.answers, words) {
            Typed::Line(line) => Ok(Line::from(line.trim()).unwrap_or_default()),
            Typed::Escaped | Typed::Ended => Err(fmt::Error),
        }
    }

    /// A number, hexadecimal unless it begins with `#`.
    pub fn ask_number(&mut self, what: &str, default: u64) -> Result<u64, fmt::Error> {
        let answer = self.answer(format_args!("{what} [{default:#x}]"))?;
        if answer.is_empty() {
            return Ok(default);
        }
        match words::number(&answer) {
            Some(number) => Ok(number),
            None => self.refuse(format_args!("{answer} is no number: type it in hexadecimal, or in decimal behind #")),
        }
    }

    /// A number, or the address of a symbol.
    pub fn ask_address(&mut self, what: &str, default: u64) -> Result<u64, fmt::Error> {
        let answer = self.answer(format_args!("{what} [{default:#x}]"))?;
        if answer.is_empty() {
            return Ok(default);
        }
        if let Some(number) = words::number(&answer) {
            return Ok(number);
        }
        match self.address_of(&answer) {
            Some(address) => Ok(address),
            None => self.refuse(format_args!("{answer} is neither a number nor a symbol")),
        }
    }

    /// One of some keys, pressed alone; the first is taken if it is Return.
    pub fn ask_key(&mut self, what: &str, keys: &str) -> Result<char, fmt::Error> {
        let first = keys.chars().next().unwrap_or(' ');
        let key = match self.next_word() {
            Some(word) => word.chars().next().unwrap_or(first),
            None => {
                write!(self.out, "{what} ({keys})? ")?;
                let key = match self.out.key().ok_or(fmt::Error)? {
                    ESCAPE => return Err(fmt::Error),
                    b'\r' | b'\n' => first,
                    key => char::from(key),
                };
                writeln!(self.out, "{}", key.escape_default())?;
                key
            }
        };
        if keys.contains(key) {
            Ok(key)
        } else {
            self.refuse(format_args!("{} is none of {keys}", key.escape_default()))
        }
    }

    /// A text.
    pub fn ask_text(&mut self, what: &str) -> Result<Line, fmt::Error> {
        self.answer(format_args!("{what}"))
    }

    /// A thread: by its global id, its number, the address of its TCB, or its name. The one asked for last is the default.
    pub fn ask_thread(&mut self) -> Result<TcbRef, fmt::Error> {
        let default = self.default_thread();
        let answer = match default {
            Some(thread) => self.answer(format_args!("thread [{:#x}]", thread.index()))?,
            None => self.answer(format_args!("thread"))?,
        };
        let found = if answer.is_empty() { default } else { self.thread_of(&answer) };
        match found.filter(|thread| self.k.tcb_at(*thread).is_some()) {
            Some(thread) => {
                self.state.thread = Some(thread);
                Ok(thread)
            }
            None => self.refuse(format_args!("{answer} is no thread: type its id, number, TCB address or name")),
        }
    }

    /// The thread asked for last, or the one that runs here.
    pub fn default_thread(&self) -> Option<TcbRef> {
        let here = || self.k.cpus.get(self.probe.cpu().index()).and_then(|cpu| cpu.view().current);
        self.state.thread.or_else(here)
    }

    /// The thread that a person means by `text`.
    pub fn thread_of(&self, text: &str) -> Option<TcbRef> {
        let by_name = || {
            let named = |(thread, view): (TcbRef, kcore::inspect::ThreadView)| {
                let name = self.probe.name(Named::Thread(view.id));
                name.is_some_and(|name| name.as_str() == text).then_some(thread)
            };
            self.k.inhabited().find_map(named)
        };
        let Some(number) = words::number(text) else { return by_name() };
        by_name().or_else(|| self.thread_of_number(number))
    }

    fn thread_of_number(&self, number: u64) -> Option<TcbRef> {
        let slots = self.k.tcbs.len() as u64;
        let table = self.probe.tcb_table();
        let size = 1u64 << kcore::thread::TCB_SIZE_LOG2;
        let slot = if number < slots {
            number
        } else if table != 0 && (table..table + slots * size).contains(&number) {
            (number - table) / size
        } else {
            ThreadId::from_raw(number as _).thread_no() as u64
        };
        kcore::inspect::thread_at(slot as usize).filter(|thread| thread.index() < self.k.tcbs.len())
    }

    /// A space: by its number, by a thread in it, or by its name. The one asked for last is the default.
    pub fn ask_space(&mut self) -> Result<SpaceRef, fmt::Error> {
        let of_thread = self.default_thread().and_then(|thread| self.k.tcb_at(thread)).and_then(|tcb| tcb.view().space);
        let default = self.state.space.or(of_thread);
        let answer = match default {
            Some(space) => self.answer(format_args!("space [{:#x}]", space.index()))?,
            None => self.answer(format_args!("space"))?,
        };
        let found = if answer.is_empty() { default } else { self.space_of(&answer) };
        match found.filter(|space| self.k.spaces.view(*space).is_some()) {
            Some(space) => {
                self.state.space = Some(space);
                Ok(space)
            }
            None => {
                self.refuse(format_args!("{answer} is no space: type its number, its name, or a thread's id or name"))
            }
        }
    }

    fn space_of(&self, text: &str) -> Option<SpaceRef> {
        let is_named =
            |space: &SpaceRef| self.probe.name(Named::Space(space.index())).is_some_and(|name| name.as_str() == text);
        let by_number = || {
            let number = u32::try_from(words::number(text)?).ok()?;
            Some(SpaceRef::new(number)).filter(|space| self.k.spaces.view(*space).is_some())
        };
        let by_thread = || self.k.tcb_at(self.thread_of(text)?).and_then(|tcb| tcb.view().space);
        self.k.spaces.inhabited().find(is_named).or_else(by_number).or_else(by_thread)
    }

    /// A processor.
    pub fn ask_cpu(&mut self) -> Result<CpuId, fmt::Error> {
        let number = self.ask_number("processor", self.probe.cpu().index() as u64)?;
        match u32::try_from(number).ok().filter(|number| (*number as usize) < self.k.cpus.len()) {
            Some(number) => Ok(CpuId::new(number)),
            None => self.refuse(format_args!("there are {} processors, from 0 on", self.k.cpus.len())),
        }
    }

    /// Says why an answer will not do; ends the command.
    pub fn refuse<T>(&mut self, why: fmt::Arguments<'_>) -> Result<T, fmt::Error> {
        writeln!(self.out, "{why}")?;
        Err(fmt::Error)
    }

    fn address_of(&self, name: &str) -> Option<u64> {
        let symbols = self.probe.symbols();
        let exact = symbols.all().find(|(_, own)| own.as_str() == name);
        let mut ending = symbols.all().filter(|(_, own)| own.as_str().rsplit("::").next() == Some(name));
        exact.or_else(|| ending.next()).map(|(address, _)| address)
    }
}
