//! The command line of the root task, or of sigma1.
//!
//! The kernel interface page leads to the boot information, or to a raw Multiboot structure if the loader made none. Both
//! are physical memory that is asked of sigma0. The root task is module 2, which is the second record, as the list
//! begins with module 1.

use core::slice;
use core::str::SplitAsciiWhitespace;

use l4::bootinfo::{BootInfo, Record, c_str};
use l4::{Fpage, Rights};

pub(crate) const PAGE_LOG2: u32 = 12;
const PAGE_SIZE: usize = 1 << PAGE_LOG2;
/// Longest command line in a Multiboot structure that is read.
const CMDLINE_MAX: usize = PAGE_SIZE;
/// The root task among the records of the boot information.
const ROOT_RECORD: usize = 1;

/// The words of a command line.
pub type Args = SplitAsciiWhitespace<'static>;

/// The words of the command line of the root task, or of sigma1 if that asks, without the program's name: some boot loaders
/// put the name or path of the file in front, others do not. For the first thread of one of them; each call asks sigma0
/// anew.
pub fn args(program: &str) -> Args {
    let line = command_line().unwrap_or("").trim_ascii();
    let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
    let is_name = !first.contains('=') && (first.contains('/') || first.starts_with(program));
    if is_name { rest } else { line }.split_ascii_whitespace()
}

fn command_line() -> Option<&'static str> {
    let address = usize::try_from(l4::kip().boot_info).ok().filter(|address| *address != 0)?;
    let header = physical(address, size_of::<l4::abi::bootinfo::Header>())?;
    match BootInfo::size_bytes(header) {
        Some(size) => own_record(BootInfo::parse(physical(address, size)?)?)?.cmdline(),
        None => multiboot_command_line(address),
    }
}

/// The record of this program.
fn own_record(info: BootInfo<'static>) -> Option<Record<'static>> {
    if l4::thread::my_global_id() == l4::kip().thread_info.sigma1() {
        let ip = l4::kip().sigma1.ip;
        return info.records().find(|record| record.initial_ip() == Some(ip));
    }
    info.records().nth(ROOT_RECORD)
}

/// A copy of the root pointer of ACPI, if the loader has one.
pub(crate) fn root_pointer() -> Option<&'static [u8]> {
    let address = usize::try_from(l4::kip().boot_info).ok().filter(|address| *address != 0)?;
    let size = BootInfo::size_bytes(physical(address, size_of::<l4::abi::bootinfo::Header>())?)?;
    BootInfo::parse(physical(address, size)?)?.records().find_map(Record::root_pointer)
}

/// The first `len` bytes of the Multiboot information.
pub(crate) fn multiboot_info(len: usize) -> Option<&'static [u8]> {
    let address = usize::try_from(l4::kip().boot_info).ok().filter(|address| *address != 0)?;
    let header = physical(address, size_of::<l4::abi::bootinfo::Header>())?;
    let multiboot = match BootInfo::size_bytes(header) {
        Some(size) => {
            let info = BootInfo::parse(physical(address, size)?)?;
            let found = info.records().find_map(Record::multiboot)?;
            usize::try_from(found).ok()?
        }
        None => address,
    };
    physical(multiboot, len)
}

/// The command line in a Multiboot information structure (Multiboot Specification 0.6.96, Boot Information Format): the
/// root task's, as the boot loader has it copied.
fn multiboot_command_line(info: usize) -> Option<&'static str> {
    const FLAGS: usize = 0;
    const CMDLINE: usize = 16;
    const HAS_CMDLINE: u32 = 1 << 2;
    let info = physical(info, CMDLINE + size_of::<u32>())?;
    let field = |at: usize| info.get(at..)?.first_chunk().copied().map(u32::from_le_bytes);
    if field(FLAGS)? & HAS_CMDLINE == 0 {
        return None;
    }
    let line = usize::try_from(field(CMDLINE)?).ok()?;
    // As far as the page goes, then one more if need be.
    let in_page = PAGE_SIZE - line % PAGE_SIZE;
    physical(line, in_page).and_then(c_str).or_else(|| physical(line, CMDLINE_MAX).and_then(c_str))
}

/// Physical memory at its own address, asked of sigma0 page by page; `None` if it refuses.
fn physical(address: usize, len: usize) -> Option<&'static [u8]> {
    let end = address.checked_add(len)?;
    for page in address >> PAGE_LOG2..end.div_ceil(PAGE_SIZE) {
        let fpage = Fpage::new((page << PAGE_LOG2) as l4::Word, PAGE_LOG2, Rights::ALL)?;
        // SAFETY: the program's own image is no boot information, and there is nothing else in the space: what comes is
        // mapped where nothing was, or where the same was.
        unsafe { l4::sigma0::get_page(fpage) }.ok()??;
    }
    let first = core::ptr::with_exposed_provenance(address);
    // SAFETY: all of it has just been mapped for good, it is not null as page 0 is never given away unasked, and nobody
    // writes to boot information any more.
    Some(unsafe { slice::from_raw_parts(first, len) })
}
