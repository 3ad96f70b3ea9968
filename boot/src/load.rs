//! Executables: checked while they are files, then copied to where they are linked.

use kformats::elf::{self, Class, Elf, Segment};
use kformats::multiboot::Physical;

use crate::failure::{BlameModule, Failure, Problem};
use crate::ram::Ram;
use crate::{Extent, FOUR_GIB, KERNEL, Memory, PAGE, ROOT, Request, SIGMA0};

/// An executable as it will be in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Image {
    /// Width of the program.
    pub class: Class,
    /// Address of the first instruction.
    pub entry: u64,
    /// From its lowest to its highest byte, with any holes between its segments.
    pub extent: Extent,
    /// What it may not write: code and constants.
    pub text: Part,
    /// What it may write and the file has values for.
    pub data: Part,
    /// What it may write and starts as zero.
    pub bss: Part,
}

/// A part of an executable; all zero if it has no such part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Part {
    /// Physical address.
    pub physical: u64,
    /// Virtual address.
    pub virt: u64,
    /// Size in bytes.
    pub len: u64,
}

impl Part {
    /// The hull of `segments`, each with the given number of its bytes.
    fn hull(segments: impl Iterator<Item = Segment>, bytes: fn(&Segment) -> u64) -> Self {
        let hull = segments.fold(None, |hull: Option<(u64, u64, u64)>, segment| {
            let end = segment.physical.saturating_add(bytes(&segment));
            let (physical, virt, old_end) = hull.unwrap_or((u64::MAX, u64::MAX, 0));
            Some((physical.min(segment.physical), virt.min(segment.virt), old_end.max(end)))
        });
        hull.map_or(Self::default(), |(physical, virt, end)| Self { physical, virt, len: end - physical })
    }
}

impl Image {
    fn of(elf: &Elf<'_>) -> Self {
        let (low, high) = elf.physical_range();
        let writable = || elf.segments().filter(|segment| segment.is_writable);
        let text = Part::hull(elf.segments().filter(|segment| !segment.is_writable), |segment| segment.memory_bytes);
        let data = Part::hull(writable(), |segment| segment.file_bytes as u64);
        let all = Part::hull(writable(), |segment| segment.memory_bytes);
        let bss = Part {
            physical: data.physical + data.len,
            virt: data.virt.wrapping_add(data.len),
            len: all.len - data.len,
        };
        Self { class: elf.class(), entry: elf.entry(), extent: Extent::new(low, high), text, data, bss }
    }
}

/// Checks all modules, and for the executables among them fills in [`Module::image`](crate::Module::image).
pub fn inspect(memory: &impl Physical, request: &mut Request, decode_all: bool) -> Result<(), Failure> {
    for index in [KERNEL, SIGMA0, ROOT].into_iter().chain(request.sigma1) {
        request.module(index)?;
    }
    for index in 0..request.modules().len() {
        let Extent { start, end } = request.modules()[index].place;
        let file = memory.bytes(start, end - start).ok_or(Problem::Unreachable { start, end }).blame(request, index)?;
        let image = if index <= ROOT || request.sigma1 == Some(index) {
            Some(inspect_executable(file))
        } else {
            decode_all.then(|| inspect_executable(file)).filter(|image| !is_plain_file(image))
        };
        request.modules_mut()[index].image = image.transpose().blame(request, index)?;
    }
    Ok(())
}

fn inspect_executable(file: &[u8]) -> Result<Image, Problem> {
    if file.is_empty() {
        return Err(Problem::Empty);
    }
    Elf::parse(file).map(|elf| Image::of(&elf)).map_err(Problem::Elf)
}

/// A further module may be anything; it must be sound only if it claims to be an executable.
fn is_plain_file(image: &Result<Image, Problem>) -> bool {
    matches!(image, Err(Problem::Empty | Problem::Elf(elf::Error::NotElf | elf::Error::NotExecutable(_))))
}

/// Puts all executables where they are linked.
///
/// Two of them may not share a place, with each other or with the loader (`own`), and all must be in RAM. A module that
/// lies in the way moves to free memory. Afterwards [`Module::place`](crate::Module::place) is where the executable is.
pub fn place(memory: &mut impl Memory, request: &mut Request, ram: &Ram, own: Extent) -> Result<(), Failure> {
    let count = request.modules().len();
    for index in 0..count {
        check_place(request, ram, own, index).blame(request, index)?;
    }
    for index in 0..count {
        move_away(memory, request, ram, own, index).blame(request, index)?;
    }
    for index in 0..count {
        load(memory, request, index).blame(request, index)?;
    }
    Ok(())
}

fn check_place(request: &Request, ram: &Ram, own: Extent, index: usize) -> Result<(), Problem> {
    let Some(Image { extent, .. }) = request.modules()[index].image else { return Ok(()) };
    if extent.end > FOUR_GIB || !ram.covers(extent) {
        return Err(Problem::OutsideMemory(extent));
    }
    if extent.overlaps(own) {
        return Err(Problem::LinkedOverLoader(extent));
    }
    let shares = |image: &Option<Image>| image.is_some_and(|image| image.extent.overlaps(extent));
    match request.modules()[..index].iter().position(|other| shares(&other.image)) {
        Some(other) => Err(Problem::LinkedOverModule(extent, other)),
        None => Ok(()),
    }
}

/// Moves module `index` if an executable, itself or another, is linked to its place.
fn move_away(
    memory: &mut impl Memory,
    request: &mut Request,
    ram: &Ram,
    own: Extent,
    index: usize,
) -> Result<(), Problem> {
    let place = request.modules()[index].place;
    let mut images = request.modules().iter().flat_map(|module| &module.image);
    if !images.any(|image| image.extent.overlaps(place)) {
        return Ok(());
    }
    let no_room = Problem::NoRoomToMove(place);
    let target = ram.lowest_free(place.len(), PAGE, &request.busy(own)).ok_or(no_room)?;
    memory.copy(place, target.start).ok_or(no_room)?;
    request.modules_mut()[index].place = target;
    Ok(())
}

/// Copies the segments of module `index` out of its file, which overlaps none of them.
fn load(memory: &mut impl Memory, request: &mut Request, index: usize) -> Result<(), Problem> {
    let module = &mut request.modules_mut()[index];
    let Some(Image { extent, .. }) = module.image else { return Ok(()) };
    let mut done = 0;
    while let Some(segment) = nth_segment(memory, module.place, done)? {
        load_segment(memory, module.place, &segment).ok_or(Problem::OutsideMemory(extent))?;
        done += 1;
    }
    module.place = extent;
    Ok(())
}

/// Segment `n` of the executable in `file`. The file is parsed again for each, as its bytes are borrowed meanwhile.
fn nth_segment(memory: &impl Physical, file: Extent, n: usize) -> Result<Option<Segment>, Problem> {
    let bytes = memory.bytes(file.start, file.len()).unwrap_or_default();
    Ok(Elf::parse(bytes).map_err(Problem::Elf)?.segments().nth(n))
}

fn load_segment(memory: &mut impl Memory, file: Extent, segment: &Segment) -> Option<()> {
    let from = Extent::sized(file.start + segment.offset as u64, segment.file_bytes as u64);
    let to = Extent::sized(segment.physical, segment.memory_bytes);
    memory.copy(from, to.start)?;
    memory.bytes_mut(to.from(to.start + from.len()))?.fill(0);
    Some(())
}
