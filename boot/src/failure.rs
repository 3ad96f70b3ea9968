//! What can be wrong with a boot, in words for the one who set it up.

use core::fmt;

use arrayvec::ArrayString;
use kformats::{elf, multiboot};

use crate::{Extent, MAX_MODULES, MAX_REGIONS, MAX_TEXT_BYTES, Request};

/// The start of a text of the user's; bytes that are no printable ASCII are question marks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Name(ArrayString<40>);

impl Name {
    /// The start of `text`.
    pub fn new(text: &[u8]) -> Self {
        let mut name = ArrayString::new();
        for byte in text {
            let printable = matches!(byte, b' '..=b'~');
            if name.try_push(if printable { char::from(*byte) } else { '?' }).is_err() {
                break;
            }
        }
        Self(name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why the boot stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    /// What it is about.
    pub subject: Subject,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What a failure is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// What started us.
    Loader,
    /// Our own command line.
    CommandLine,
    /// Memory as a whole.
    Memory,
    /// The module with this index and command line.
    Module(usize, Name),
}

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem {
    /// eax has no magic of a Multiboot loader.
    NotMultiboot(u32),
    /// The loader's structures make no sense.
    Information(multiboot::Error),
    /// The loader has no memory map.
    NoMemoryMap,
    /// The memory map has more than [`MAX_REGIONS`] entries.
    TooManyRegions,
    /// There are more than [`MAX_MODULES`] modules.
    TooManyModules,
    /// All command lines together have more than [`MAX_TEXT_BYTES`].
    TextTooLong,
    /// An option that does not exist.
    UnknownOption(Name),
    /// An option with a value that it does not take.
    BadValue(Name),
    /// The loader did not bring this module.
    Missing,
    /// The module is of size zero.
    Empty,
    /// The module lies where no memory is, or over the loader's own image.
    Unreachable {
        /// As the loader says, which may be below each other.
        start: u64,
        /// The address after it.
        end: u64,
    },
    /// The executable is not sound.
    Elf(elf::Error),
    /// The executable is linked to addresses that are not all free memory.
    OutsideMemory(Extent),
    /// The executable is linked to the place of the loader.
    LinkedOverLoader(Extent),
    /// The executable is linked to the place of this other module.
    LinkedOverModule(Extent, usize),
    /// The module lies where an executable is linked, and there is no free memory for it.
    NoRoomToMove(Extent),
    /// There is no kernel interface page in the kernel.
    NoKip,
    /// The kernel interface page has no array of memory descriptors inside the kernel's image.
    NoDescriptors,
    /// The kernel interface page has no page size.
    NoPageSize,
    /// The memory descriptors do not fit.
    TooManyDescriptors {
        /// Descriptors in the kernel's array.
        room: u64,
        /// Descriptors of this boot.
        needed: usize,
    },
    /// A 64-bit program for a 32-bit kernel.
    TooWide,
    /// No free memory for this many bytes of kernel memory.
    NoKernelMemory(u64),
    /// No free memory for the named table.
    NoRoomFor(&'static str),
    /// The boot information does not fit into a page.
    BootinfoTooLong,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.problem)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loader => write!(f, "boot loader"),
            Self::CommandLine => write!(f, "command line"),
            Self::Memory => write!(f, "memory"),
            Self::Module(index, name) => write!(f, "module {index} ({name})"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMultiboot(magic) => write!(f, "is neither Multiboot nor PVH (eax is {magic:#x})"),
            Self::Information(error) => write!(f, "{error}"),
            Self::NoMemoryMap => write!(f, "brings no memory map"),
            Self::TooManyRegions => write!(f, "its memory map has more than {MAX_REGIONS} entries"),
            Self::TooManyModules => write!(f, "brings more than {MAX_MODULES} modules"),
            Self::TextTooLong => write!(f, "all command lines together are longer than {MAX_TEXT_BYTES} bytes"),
            Self::UnknownOption(word) => write!(f, "there is no option {word}"),
            Self::BadValue(word) => write!(f, "{word} has no value of its kind"),
            Self::Missing => write!(f, "is missing"),
            Self::Empty => write!(f, "is empty"),
            Self::Unreachable { start, end } => write!(f, "lies at {start:#x}-{end:#x}, where no module can be"),
            Self::Elf(error) => write!(f, "{error}"),
            Self::OutsideMemory(extent) => write!(f, "is linked to {extent}, which is not all free memory"),
            Self::LinkedOverLoader(extent) => write!(f, "is linked to {extent}, over kickstart"),
            Self::LinkedOverModule(extent, other) => write!(f, "is linked to {extent}, over module {other}"),
            Self::NoRoomToMove(extent) => {
                write!(f, "lies at {extent}, where another is to be loaded, and there is no room to move it")
            }
            Self::NoKip => write!(f, "has no kernel interface page"),
            Self::NoDescriptors => write!(f, "its kernel interface page has no array of memory descriptors"),
            Self::NoPageSize => write!(f, "its kernel interface page has no page size"),
            Self::TooManyDescriptors { room, needed } => {
                write!(f, "has room for {room} memory descriptors, {needed} are needed")
            }
            Self::TooWide => write!(f, "is a 64-bit program, the kernel is a 32-bit one"),
            Self::NoKernelMemory(bytes) => write!(f, "has no {bytes:#x} free bytes in one piece for the kernel"),
            Self::NoRoomFor(table) => write!(f, "has no free place for the {table}"),
            Self::BootinfoTooLong => write!(f, "has too small a page for the boot information"),
        }
    }
}

impl Problem {
    /// This problem of `subject`.
    pub const fn of(self, subject: Subject) -> Failure {
        Failure { subject, problem: self }
    }
}

impl From<multiboot::Error> for Failure {
    fn from(error: multiboot::Error) -> Self {
        Problem::Information(error).of(Subject::Loader)
    }
}

/// Names the module that a problem is about.
pub trait BlameModule<T> {
    /// The same, with module `index` as the one to blame.
    fn blame(self, request: &Request, index: usize) -> Result<T, Failure>;
}

impl<T> BlameModule<T> for Result<T, Problem> {
    fn blame(self, request: &Request, index: usize) -> Result<T, Failure> {
        self.map_err(|problem| request.blame(index, problem))
    }
}
