//! What the loader brought, be it by Multiboot or by PVH, copied out of its structures.

use core::ops::Range;

use arrayvec::ArrayVec;
use kformats::acpi::ROOT_POINTER_BYTES;
use kformats::multiboot::{BasicMemory, Framebuffer, Info, Physical, Region, pvh, v1, v2};

use crate::failure::{Failure, Name, Problem, Subject};
use crate::load::Image;
use crate::{Extent, Handoff, KERNEL, MAX_MODULES, MAX_REGIONS, MAX_TEXT_BYTES, ROOT, SIGMA0};

/// Most extents that are ever in use at once: the loader, the memory map, each module's place and the place where it is
/// linked, kernel memory and two tables.
pub(crate) const MAX_BUSY: usize = 2 * MAX_MODULES + 5;

/// A list of extents that are in use.
pub(crate) type Busy = ArrayVec<Extent, MAX_BUSY>;

/// A file that the Multiboot loader brought.
#[derive(Clone, Debug)]
pub struct Module {
    /// Where it is now: the file, or once loaded the executable.
    pub place: Extent,
    /// What it is loaded as; `None` if it stays a file.
    pub image: Option<Image>,
    command_line: Range<usize>,
}

/// All that the Multiboot loader told.
#[derive(Clone, Debug)]
pub struct Request {
    /// The module that is to be sigma1, which the user names.
    pub(crate) sigma1: Option<usize>,
    text: ArrayVec<u8, MAX_TEXT_BYTES>,
    command_line: Range<usize>,
    modules: ArrayVec<Module, MAX_MODULES>,
    regions: Option<ArrayVec<Region, MAX_REGIONS>>,
    basic: Option<BasicMemory>,
    v1: Option<v1::Header>,
    framebuffer: Option<Framebuffer>,
    root_pointer: Option<ArrayVec<u8, ROOT_POINTER_BYTES>>,
}

impl Request {
    /// Reads the structures that `handoff` points to.
    pub fn read(memory: &impl Physical, handoff: Handoff) -> Result<Self, Failure> {
        let address = u64::from(handoff.info);
        let mut request = match handoff.magic {
            v1::LOADER_MAGIC => {
                let info = v1::Info::new(memory, address)?;
                Self::copy(&info, Some(*info.header()))
            }
            v2::LOADER_MAGIC => Self::copy(&v2::Info::new(memory, address)?, None),
            pvh::MAGIC => Self::copy(&pvh::Info::new(memory, address)?, None),
            other => Err(Problem::NotMultiboot(other).of(Subject::Loader)),
        }?;
        request.framebuffer = request.framebuffer.or(handoff.text_screen.then_some(Framebuffer::PC_TEXT));
        Ok(request)
    }

    fn copy(info: &impl Info, v1: Option<v1::Header>) -> Result<Self, Failure> {
        let mut request = Self {
            sigma1: None,
            text: ArrayVec::new(),
            command_line: 0..0,
            modules: ArrayVec::new(),
            regions: None,
            basic: info.basic_memory(),
            v1,
            framebuffer: info.framebuffer(),
            root_pointer: info.root_pointer().map(|copy| copy.iter().copied().take(ROOT_POINTER_BYTES).collect()),
        };
        request.command_line = request.keep(info.command_line()?)?;
        for module in info.modules()? {
            let module = module?;
            request.add_module(module.start, module.end, module.command_line)?;
        }
        if let Some(regions) = info.memory_map()? {
            let mut list = ArrayVec::new();
            for region in regions {
                list.try_push(region?).map_err(|_| Problem::TooManyRegions.of(Subject::Loader))?;
            }
            request.regions = Some(list);
        }
        Ok(request)
    }

    fn add_module(&mut self, start: u64, end: u64, command_line: &[u8]) -> Result<(), Failure> {
        let index = self.modules.len();
        if end < start {
            let subject = Subject::Module(index, Name::new(command_line));
            return Err(Problem::Unreachable { start, end }.of(subject));
        }
        let command_line = self.keep(command_line)?;
        let module = Module { place: Extent::new(start, end), image: None, command_line };
        self.modules.try_push(module).map_err(|_| Problem::TooManyModules.of(Subject::Loader))
    }

    /// Copies `text`; the limit counts a NUL for each.
    fn keep(&mut self, text: &[u8]) -> Result<Range<usize>, Failure> {
        let start = self.text.len();
        let too_long = |_| Problem::TextTooLong.of(Subject::Loader);
        self.text.try_extend_from_slice(text).map_err(too_long)?;
        let end = self.text.len();
        self.text.try_extend_from_slice(&[0]).map_err(too_long)?;
        Ok(start..end)
    }

    /// The loader's own command line.
    pub fn command_line(&self) -> &[u8] {
        &self.text[self.command_line.clone()]
    }

    /// All modules in the user's order.
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// The same, to be changed.
    pub fn modules_mut(&mut self) -> &mut [Module] {
        &mut self.modules
    }

    /// The command line of one of [`Self::modules`], without NUL.
    pub fn text(&self, module: &Module) -> &[u8] {
        &self.text[module.command_line.clone()]
    }

    /// Module `index`, which the boot cannot do without.
    pub fn module(&self, index: usize) -> Result<&Module, Failure> {
        self.modules.get(index).ok_or_else(|| self.blame(index, Problem::Missing))
    }

    /// The executable in module `index`.
    pub(crate) fn image(&self, index: usize) -> Result<&Image, Failure> {
        self.module(index)?.image.as_ref().ok_or_else(|| self.blame(index, Problem::Missing))
    }

    /// The memory map, if the loader has one.
    pub fn regions(&self) -> Option<&[Region]> {
        self.regions.as_deref()
    }

    /// Sizes of memory, if the loader has them.
    pub fn basic_memory(&self) -> Option<BasicMemory> {
        self.basic
    }

    /// The fixed part of Multiboot 1 information, if that is what the loader has.
    pub fn v1_header(&self) -> Option<&v1::Header> {
        self.v1.as_ref()
    }

    /// The screen, if there is one.
    pub fn framebuffer(&self) -> Option<Framebuffer> {
        self.framebuffer
    }

    /// A copy of the root pointer of ACPI, if the loader has one.
    pub fn root_pointer(&self) -> Option<&[u8]> {
        self.root_pointer.as_deref()
    }

    /// Where the Multiboot 1 memory map is, as long as no executable is loaded over it.
    pub fn map_place(&self) -> Option<Extent> {
        let header = self.v1.filter(|header| header.flags & v1::HAS_MAP != 0)?;
        let place = Extent::sized(header.map.into(), header.map_len.into());
        let is_overwritten =
            self.modules.iter().flat_map(|module| &module.image).any(|image| image.extent.overlaps(place));
        (!is_overwritten).then_some(place)
    }

    /// All extents that nothing may be moved to.
    pub(crate) fn busy(&self, own: Extent) -> Busy {
        let places = self.modules.iter().map(|module| module.place);
        let images = self.modules.iter().flat_map(|module| &module.image).map(|image| image.extent);
        [own].into_iter().chain(self.map_place()).chain(places).chain(images).collect()
    }

    /// How a failure names module `index`: by its command line, or by what is expected there.
    pub fn subject(&self, index: usize) -> Subject {
        let name = match (self.modules.get(index), index) {
            (Some(module), _) => self.text(module),
            (None, KERNEL) => b"kernel",
            (None, SIGMA0) => b"sigma0",
            (None, ROOT) => b"root task",
            (None, _) => b"",
        };
        Subject::Module(index, Name::new(name))
    }

    /// `problem` of module `index`.
    pub fn blame(&self, index: usize, problem: Problem) -> Failure {
        problem.of(self.subject(index))
    }
}
