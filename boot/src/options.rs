//! The loader's own command line.

use kformats::console::{Outputs, SerialLine};

use crate::failure::{Failure, Name, Problem, Subject};
use crate::{MAX_MODULES, PAGE, ROOT};

/// What the user chose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// `maxmem=SIZE`: memory from this address on is not used; a multiple of 4 KiB.
    pub max_memory: u64,
    /// `kmem=SIZE`: bytes of memory for the kernel; `None` leaves the choice to the loader.
    pub kernel_memory: Option<u64>,
    /// `bootinfo=WORD`: write the generic boot information.
    pub bootinfo: bool,
    /// `mbi=WORD`: write a copy of the Multiboot information.
    pub mbi: bool,
    /// `decode-all=WORD`: load executables among the further modules too.
    pub decode_all: bool,
    /// `verbose=WORD`: say where each module went.
    pub verbose: bool,
    /// `sigma1=N`: module N, counted from the kernel at 0, is an executable, and the kernel starts it as sigma1.
    pub sigma1: Option<usize>,
    /// `console=WORD`: where the loader says what it does.
    pub outputs: Outputs,
    /// `serial=LINE,BAUD`: its serial line.
    pub serial: SerialLine,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_memory: !(PAGE - 1),
            kernel_memory: None,
            bootinfo: true,
            mbi: true,
            decode_all: false,
            verbose: false,
            sigma1: None,
            outputs: Outputs::BOTH,
            serial: SerialLine::FIRST,
        }
    }
}

impl Options {
    /// Reads `NAME=VALUE` words between blanks. A first word that is no option is the loader's file name, which some
    /// Multiboot loaders put there; any further one is refused.
    pub fn parse(command_line: &[u8]) -> Result<Self, Failure> {
        let mut options = Self::default();
        let words = command_line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        for (position, word) in words.enumerate() {
            let fail = |problem: fn(Name) -> Problem| problem(Name::new(word)).of(Subject::CommandLine);
            match options.set(word) {
                Ok(()) => {}
                Err(Refusal::Unknown) if position == 0 => {}
                Err(Refusal::Unknown) => return Err(fail(Problem::UnknownOption)),
                Err(Refusal::Value) => return Err(fail(Problem::BadValue)),
            }
        }
        Ok(options)
    }

    fn set(&mut self, word: &[u8]) -> Result<(), Refusal> {
        let equals = word.iter().position(|byte| *byte == b'=').ok_or(Refusal::Unknown)?;
        let (name, value) = (&word[..equals], &word[equals + 1..]);
        match name {
            b"maxmem" => self.max_memory = size(value)? & !(PAGE - 1),
            b"kmem" => self.kernel_memory = Some(size(value)?),
            b"bootinfo" => self.bootinfo = truth(value)?,
            b"mbi" => self.mbi = truth(value)?,
            b"decode-all" => self.decode_all = truth(value)?,
            b"verbose" => self.verbose = truth(value)?,
            b"sigma1" => self.sigma1 = Some(further_module(value)?),
            b"console" => self.outputs = Outputs::parse(value).ok_or(Refusal::Value)?,
            b"serial" => self.serial = SerialLine::parse(value).ok_or(Refusal::Value)?,
            _ => return Err(Refusal::Unknown),
        }
        Ok(())
    }
}

enum Refusal {
    Unknown,
    Value,
}

fn truth(value: &[u8]) -> Result<bool, Refusal> {
    match value {
        b"yes" | b"on" | b"enable" => Ok(true),
        b"no" | b"off" | b"disable" => Ok(false),
        _ => Err(Refusal::Value),
    }
}

/// The index of a module behind the root task.
fn further_module(value: &[u8]) -> Result<usize, Refusal> {
    let index = core::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or(Refusal::Value)?;
    if (ROOT + 1..MAX_MODULES).contains(&index) { Ok(index) } else { Err(Refusal::Value) }
}

/// A decimal number, or a hexadecimal one after `0x`, and one of the letters K, M and G if wanted.
fn size(value: &[u8]) -> Result<u64, Refusal> {
    let text = core::str::from_utf8(value).map_err(|_| Refusal::Value)?;
    let digits = text.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G']);
    let unit: u64 = match &value[digits.len()..] {
        [] => 1,
        [b'k' | b'K'] => 1 << 10,
        [b'm' | b'M'] => 1 << 20,
        [b'g' | b'G'] => 1 << 30,
        _ => return Err(Refusal::Value),
    };
    let number = match digits.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => digits.parse(),
    };
    number.ok().and_then(|number| number.checked_mul(unit)).ok_or(Refusal::Value)
}
