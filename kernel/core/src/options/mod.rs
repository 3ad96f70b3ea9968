//! What can be chosen when the kernel is booted: words of its command line.
//!
//! The command line is that of the first boot module, the kernel itself. Its words are `NAME=VALUE`, separated by blanks;
//! a `NAME` alone says yes. What a word means wrongly is complained about and otherwise ignored, as a kernel that runs
//! without a wish is worth more than one that does not: so every line, however damaged, gives options.

use core::fmt;

use kformats::console::{Outputs, SerialLine};
use kformats::multiboot::{self, Physical};
use kformats::trace::Event;
use kformats::trace::head::PAGES_MAX;

mod source;
#[cfg(test)]
mod tests;

pub use source::{KnownMemory, framebuffer, root_pointer};

/// What the user chose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// `ioflexpages`: user code reaches only the I/O ports that were mapped to its space by I/O fpages. Otherwise it
    /// reaches all of them, and there are no I/O fpages.
    pub io_fpages: bool,
    /// `mitigations`: what is done about weaknesses of processors by which programs can read what is not theirs.
    pub mitigations: Mitigations,
    /// `console`: where the kernel says what there is to say.
    pub outputs: Outputs,
    /// `serial`: its serial line.
    pub serial: SerialLine,
    /// `trace`: the events that are recorded from the start, a bit for each.
    pub trace: u64,
    /// `tracepages`: pages of the ring of each processor; 0: as many as usual.
    pub trace_pages: u16,
    /// `clock`: by which clock of the machine the others are measured.
    pub clock: Clock,
}

/// A clock of known frequency.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Clock {
    /// The first one that counts.
    #[default]
    Auto,
    /// The timer of the first PC.
    Pit,
    /// The timer of ACPI.
    Acpi,
    /// The high-precision event timer.
    Hpet,
}

/// How much is done about weaknesses of processors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mitigations {
    /// Nothing that costs time.
    Off,
    /// What this processor needs.
    #[default]
    Auto,
    /// The same, and what separates programs that share a processor from each other, at any price.
    Full,
}

impl fmt::Display for Mitigations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Auto => "auto",
            Self::Full => "full",
        })
    }
}

/// What is wrong with a command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Complaint<'a> {
    /// No option has this name.
    Unknown(&'a [u8]),
    /// The option does not take this value, but those.
    BadValue(&'a [u8], &'static str),
    /// There is no line to read.
    Unreadable(multiboot::Error),
}

impl Options {
    /// The options on the command line to which `boot_info`, a word of the kernel interface page, leads; nothing on the
    /// way is trusted. What it does not say is as in `self`. `complain` is called for each thing that is wrong. A kernel knows
    /// the names of tracepoints if it has them: `TRACES`.
    pub fn of_boot<const TRACES: bool>(
        self,
        memory: &impl Physical,
        boot_info: u64,
        mut complain: impl FnMut(Complaint<'_>),
    ) -> Self {
        let mut options = self;
        let read =
            source::with_command_line(memory, boot_info, |line| options = self.parse::<TRACES>(line, &mut complain));
        if let Err(error) = read {
            complain(Complaint::Unreadable(error));
        }
        options
    }

    /// The options on a command line, and those of `self` that it does not name. A first word without `=` that is no option is the kernel's file name, which some
    /// Multiboot loaders put there.
    pub fn parse<'a, const TRACES: bool>(self, line: &'a [u8], mut complain: impl FnMut(Complaint<'a>)) -> Self {
        let mut options = self;
        let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        for (position, word) in words.enumerate() {
            match options.set::<TRACES>(word) {
                Err(Complaint::Unknown(_)) if position == 0 && !word.contains(&b'=') => {}
                Err(complaint) => complain(complaint),
                Ok(()) => {}
            }
        }
        options
    }

    fn set<'a, const TRACES: bool>(&mut self, word: &'a [u8]) -> Result<(), Complaint<'a>> {
        let (name, value) = match word.iter().position(|byte| *byte == b'=') {
            Some(equals) => (&word[..equals], &word[equals + 1..]),
            None => (word, &b"yes"[..]),
        };
        let truth = || truth(value).ok_or(Complaint::BadValue(word, "yes or no"));
        match name {
            b"ioflexpages" => self.io_fpages = truth()?,
            b"mitigations" => {
                let found = mitigations(value).ok_or(Complaint::BadValue(word, "auto, off or full"))?;
                self.mitigations = found;
            }
            b"console" => {
                self.outputs = Outputs::parse(value).ok_or(Complaint::BadValue(word, Outputs::VALUES))?;
            }
            b"serial" => {
                self.serial = SerialLine::parse(value).ok_or(Complaint::BadValue(word, SerialLine::VALUES))?;
            }
            b"trace" | b"tracepages" if !TRACES => {
                return Err(Complaint::BadValue(word, "nothing, as this kernel has no tracepoints"));
            }
            b"trace" => {
                // The word alone means what the word yes would.
                let list = if value == b"yes" { b"all" } else { value };
                self.trace = Event::list(list).ok_or(Complaint::BadValue(word, "all, none, or names of events"))?;
            }
            b"tracepages" => {
                let pages = number(value).filter(|pages| (1..=PAGES_MAX as u16).contains(pages));
                self.trace_pages = pages.ok_or(Complaint::BadValue(word, "1 to 256"))?;
            }
            b"clock" => {
                self.clock = clock(value).ok_or(Complaint::BadValue(word, "auto, pit, acpi or hpet"))?;
            }
            _ => return Err(Complaint::Unknown(word)),
        }
        Ok(())
    }
}

/// The same words as the loader's.
fn truth(value: &[u8]) -> Option<bool> {
    match value {
        b"yes" | b"on" | b"enable" => Some(true),
        b"no" | b"off" | b"disable" => Some(false),
        _ => None,
    }
}

fn number(value: &[u8]) -> Option<u16> {
    core::str::from_utf8(value).ok()?.parse().ok()
}

fn clock(value: &[u8]) -> Option<Clock> {
    match value {
        b"auto" => Some(Clock::Auto),
        b"pit" => Some(Clock::Pit),
        b"acpi" => Some(Clock::Acpi),
        b"hpet" => Some(Clock::Hpet),
        _ => None,
    }
}

fn mitigations(value: &[u8]) -> Option<Mitigations> {
    match value {
        b"auto" => Some(Mitigations::Auto),
        b"off" => Some(Mitigations::Off),
        b"full" => Some(Mitigations::Full),
        _ => None,
    }
}

/// Bytes of a word that a complaint shows.
const SHOWN_BYTES: usize = 64;

impl fmt::Display for Complaint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn shown(word: &[u8]) -> core::slice::EscapeAscii<'_> {
            word[..word.len().min(SHOWN_BYTES)].escape_ascii()
        }
        match *self {
            Self::Unknown(word) => write!(f, "\"{}\" is no option and is ignored", shown(word)),
            Self::BadValue(word, values) => write!(f, "\"{}\" is ignored: it takes {values}", shown(word)),
            Self::Unreadable(error) => write!(f, "options are ignored: {error}"),
        }
    }
}
