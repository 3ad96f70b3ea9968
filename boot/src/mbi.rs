//! A copy of the Multiboot information for the root task, in the format of Multiboot 1 whatever the loader has.
//!
//! One area holds the info structure, the module table, the strings, and the memory map unless the loader's own is
//! still in place. The screen is described there
//! whatever told the loader of it. Fields that point to further structures of the loader are not taken over, as nobody
//! preserves those.

use arrayvec::ArrayVec;
use kformats::le;
use kformats::multiboot::{Region, v1};

use crate::failure::{Failure, Problem, Subject};
use crate::ram::Ram;
use crate::request::Busy;
use crate::{Extent, Memory, Module, ROOT, Request};

const NO_ROOM: Failure = Problem::NoRoomFor("Multiboot information").of(Subject::Memory);
/// Size of an entry of the memory map with its size field.
const REGION_BYTES: u64 = 24;
/// The module table starts at a multiple of this.
const ALIGN: u64 = 8;

/// Where the parts are, as addresses.
struct Layout {
    info: u64,
    modules: u64,
    regions: u64,
    text: u64,
    end: u64,
}

impl Layout {
    fn new(request: &Request, regions: &[Region], start: u64) -> Self {
        let count = request.modules().len() as u64;
        let modules = start + v1::INFO_BYTES.next_multiple_of(ALIGN);
        let regions_at = modules + count * v1::MODULE_BYTES;
        let text = regions_at + regions.len() as u64 * REGION_BYTES;
        let text_bytes: usize = request.modules().iter().map(|module| request.text(module).len() + 1).sum();
        Self { info: start, modules, regions: regions_at, text, end: text + text_bytes as u64 }
    }
}

/// Writes the copy to free memory, whole pages of `page` bytes, and returns the place.
pub(crate) fn write(
    memory: &mut impl Memory,
    request: &Request,
    ram: &Ram,
    page: u64,
    busy: &Busy,
) -> Result<Extent, Failure> {
    let original_map = request.map_place();
    let regions = if original_map.is_some() { &[] } else { request.regions().unwrap_or_default() };
    let size = Layout::new(request, regions, 0).end.next_multiple_of(page);
    let place = ram.lowest_free(size, page, busy).ok_or(NO_ROOM)?;
    let layout = Layout::new(request, regions, place.start);

    let area = memory.bytes_mut(place).ok_or(NO_ROOM)?;
    area.fill(0);
    let mut put = |address: u64, value: &[u8]| le::put(area, (address - place.start) as usize, value).ok_or(NO_ROOM);
    let mut text_at = layout.text;
    let mut header = header(request, &layout, original_map, regions);
    for (index, module) in request.modules().iter().enumerate() {
        let text = request.text(module);
        if index == ROOT {
            header.command_line = low(text_at);
        }
        put(layout.modules + index as u64 * v1::MODULE_BYTES, &module_entry(module, low(text_at)))?;
        put(text_at, text)?;
        text_at += text.len() as u64 + 1;
    }
    for (index, region) in regions.iter().enumerate() {
        put(layout.regions + index as u64 * REGION_BYTES, &v1::region_bytes(region))?;
    }
    put(layout.info, &header.to_bytes())?;
    Ok(place)
}

fn header(request: &Request, layout: &Layout, original_map: Option<Extent>, regions: &[Region]) -> v1::Header {
    let original = request.v1_header().copied().unwrap_or_default();
    let copied_map = Extent::sized(layout.regions, regions.len() as u64 * REGION_BYTES);
    let map = original_map.unwrap_or(copied_map);
    let basic = request.basic_memory();
    let flag_if = |condition: bool, flag: u32| if condition { flag } else { 0 };
    v1::Header {
        flags: v1::HAS_COMMAND_LINE
            | v1::HAS_MODULES
            | original.flags & v1::HAS_BOOT_DEVICE
            | flag_if(basic.is_some(), v1::HAS_MEMORY)
            | flag_if(!map.is_empty(), v1::HAS_MAP),
        lower_kib: basic.map_or(0, |basic| basic.lower_kib),
        upper_kib: basic.map_or(0, |basic| basic.upper_kib),
        boot_device: original.boot_device,
        command_line: 0,
        modules_count: request.modules().len() as u32,
        modules: low(layout.modules),
        map_len: map.len() as u32,
        map: low(map.start),
        framebuffer: request.framebuffer(),
    }
}

/// Start, end, command line, and in the reserved word the entry point of what was loaded.
fn module_entry(module: &Module, text: u32) -> ArrayVec<u8, { v1::MODULE_BYTES as usize }> {
    let entry = module.image.map_or(0, |image| image.entry);
    [low(module.place.start), low(module.place.end), text, low(entry)]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

/// An address of something that was placed or checked to be below 4 GiB.
fn low(address: u64) -> u32 {
    address as u32
}
