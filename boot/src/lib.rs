//! The loader's decisions: what the Multiboot loader brought, whether it is sound, what goes where, and what kernel,
//! sigma0 and root task are told about it.
//!
//! [`boot`] does all of it, on a [`Memory`]. The modules are told apart by their order alone: kernel, sigma0, root
//! task, then whatever the user adds. The steps, each in a file:
//!
//! 1. [`Request`]: command line, modules and memory map are copied out of the loader's structures, which may be
//!    overwritten from here on. [`Options`] come from the command line.
//! 2. [`load`]: the executables are checked, then placed; a module that lies where one is linked is moved away.
//! 3. [`kip`]: the kernel interface page is found in the kernel's image.
//! 4. [`mbi`] and [`bootinfo`]: what the root task may read about the boot is written to free memory.
//! 5. [`descriptors`]: all of that becomes the list of memory descriptors.
//!
//! Whatever is wrong ends in a [`Failure`], which names the module and what is wrong with it.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

use core::fmt::Write;

mod bootinfo;
mod descriptors;
mod extent;
mod failure;
mod kip;
mod load;
mod mbi;
mod options;
mod ram;
mod request;

#[cfg(test)]
mod tests;

pub use extent::Extent;
pub use failure::{Failure, Problem, Subject};
pub use options::Options;
pub use request::{Module, Request};

use arrayvec::ArrayVec;
use descriptors::Descriptors;
use failure::BlameModule;
use kformats::console::SerialLine;
use kformats::elf::Class;
use kformats::multiboot::{Framebuffer, Physical, Region};
use kip::{Kip, Width};
use ram::Ram;
use screen::Mode;

/// Modules that a boot may have.
pub const MAX_MODULES: usize = 32;
/// Bytes that all command lines may have together, each with its NUL.
pub const MAX_TEXT_BYTES: usize = 4096;
/// Entries that the memory map may have.
pub const MAX_REGIONS: usize = 128;

/// Index of the kernel among the modules.
pub const KERNEL: usize = 0;
/// Index of sigma0 among the modules.
pub const SIGMA0: usize = 1;
/// Index of the root task among the modules.
pub const ROOT: usize = 2;

/// First address that a 32-bit kernel entry cannot reach.
const FOUR_GIB: u64 = 1 << 32;
/// Moved modules and tables start at multiples of this.
const PAGE: u64 = 4096;

/// Physical memory. The loader's own image is not part of it.
pub trait Memory: Physical {
    /// The bytes of `extent`, to be changed; `None` unless all of them are memory.
    fn bytes_mut(&mut self, extent: Extent) -> Option<&mut [u8]>;

    /// Copies the bytes of `from` to `to` and up; the two may overlap. `None`, and nothing changed, unless all of both
    /// are memory.
    fn copy(&mut self, from: Extent, to: u64) -> Option<()>;
}

/// What the loader leaves in registers.
#[derive(Clone, Copy, Debug)]
pub struct Handoff {
    /// eax; where nothing is defined for it the entry code puts [`kformats::multiboot::pvh::MAGIC`] there.
    pub magic: u32,
    /// ebx: physical address of the boot information.
    pub info: u32,
    /// Whether there is a text screen at its usual place: it counts if the loader says nothing of any screen.
    pub text_screen: bool,
}

/// Where the loader says what it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Consoles {
    /// The serial line, if it is to be used.
    pub serial: Option<SerialLine>,
    /// The screen, if there is one that can be drawn on, and it is to be used.
    pub screen: Option<Mode>,
}

impl Consoles {
    /// What the command line asks for; all there is if that cannot be read.
    ///
    /// A screen that lies where the memory map has RAM, or over the loader's own image, is none.
    pub fn of(memory: &impl Memory, handoff: Handoff, own: Extent) -> Self {
        let request = Request::read(memory, handoff).ok();
        let options = request.as_ref().and_then(|request| Options::parse(request.command_line()).ok());
        let Options { outputs, serial, .. } = options.unwrap_or_default();
        let told = match &request {
            Some(request) => request.framebuffer(),
            None => handoff.text_screen.then_some(Framebuffer::PC_TEXT),
        };
        let regions = request.as_ref().and_then(Request::regions).unwrap_or_default();
        let is_free = |mode: &Mode| {
            let extent = Extent::sized(mode.address, mode.bytes() as u64);
            let ram = regions.iter().filter(|region| region.kind == Region::AVAILABLE);
            !extent.overlaps(own) && !ram.map(|ram| Extent::sized(ram.start, ram.len)).any(|ram| ram.overlaps(extent))
        };
        let screen = told.as_ref().and_then(Mode::new).filter(is_free);
        Self { serial: outputs.serial.then_some(serial), screen: screen.filter(|_| outputs.screen) }
    }
}

/// Where the kernel starts, in 32-bit protected mode without paging.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Launch {
    /// Physical address.
    pub entry: u32,
}

/// Loads what the Multiboot loader brought and prepares the kernel interface page.
///
/// `own` is the loader's own image, which nothing may overwrite. `log` gets a line per module if the user asks for it.
pub fn boot(memory: &mut impl Memory, handoff: Handoff, own: Extent, log: &mut impl Write) -> Result<Launch, Failure> {
    let mut request = Request::read(memory, handoff)?;
    let options = Options::parse(request.command_line())?;
    request.sigma1 = options.sigma1;
    load::inspect(memory, &mut request, options.decode_all)?;
    let ram = Ram::new(&request, options.max_memory)?;
    load::place(memory, &mut request, &ram, own)?;
    if options.verbose {
        describe(&request, log);
    }

    let kernel = request.image(KERNEL)?;
    let entry = u32::try_from(kernel.entry).expect("an entry point is inside its image, which ends below 4 GiB");
    let kip = Kip::find(memory, kernel.extent).blame(&request, KERNEL)?;
    check_classes(&request, kip.width())?;
    fill(memory, &request, &options, &ram, own, &kip)?;
    Ok(Launch { entry })
}

/// A 32-bit kernel cannot start 64-bit programs.
fn check_classes(request: &Request, width: Width) -> Result<(), Failure> {
    for index in [SIGMA0, ROOT].into_iter().chain(request.sigma1) {
        if width == Width::W32 && request.image(index)?.class == Class::Elf64 {
            return Err(request.blame(index, Problem::TooWide));
        }
    }
    Ok(())
}

/// Finds places for kernel memory and tables, writes the tables, then the kernel interface page.
fn fill(
    memory: &mut impl Memory,
    request: &Request,
    options: &Options,
    ram: &Ram,
    own: Extent,
    kip: &Kip,
) -> Result<(), Failure> {
    let page = kip.min_page_bytes(memory).blame(request, KERNEL)?;
    let mut busy = request.busy(own);
    let kernel_memory = ram::kernel_memory(ram, options.kernel_memory, kip.width(), page, &busy)?;
    busy.extend(kernel_memory);
    let mbi = if options.mbi { Some(mbi::write(memory, request, ram, page, &busy)?) } else { None };
    busy.extend(mbi);
    let bootinfo = if options.bootinfo { Some(bootinfo::write(memory, request, ram, page, &busy, mbi)?) } else { None };

    let tables: ArrayVec<Extent, 2> = bootinfo.into_iter().chain(mbi).collect();
    let list = Descriptors { request, ram, width: kip.width(), kernel_memory, tables: &tables }.list();
    kip.write_descriptors(memory, &list).blame(request, KERNEL)?;
    kip.write_server(memory, kip::SIGMA0_WORDS, request.image(SIGMA0)?);
    kip.write_server(memory, kip::ROOT_WORDS, request.image(ROOT)?);
    if let Some(index) = request.sigma1 {
        kip.write_server(memory, kip::SIGMA1_WORDS, request.image(index)?);
    }
    kip.put(memory, kip::BOOT_INFO, tables.first().map_or(0, |table| table.start));
    Ok(())
}

/// A line per module. A console that does not take it is no reason to stop.
fn describe(request: &Request, log: &mut impl Write) {
    for (index, module) in request.modules().iter().enumerate() {
        let subject = request.subject(index);
        let _ = match &module.image {
            Some(image) => writeln!(log, "{subject}: loaded to {}, entry {:#x}", image.extent, image.entry),
            None => writeln!(log, "{subject}: at {}", module.place),
        };
    }
}
