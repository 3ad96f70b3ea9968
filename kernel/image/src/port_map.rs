//! The port maps of spaces: what the entry of their root tables for [`layout::PORT_MAP`] leads to.
//!
//! Spaces without ports share the tables of [`crate::boot::paging`], by which all ports are closed. A space with ports has
//! three tables of its own, which show the bits that the core keeps and then the ones that end every map. Nothing on the
//! way from thread to thread has to know: loading the root table changes the map. Processors read the bits at each access,
//! so only a change of tables must be told to them.

use kcore::kmem::Kmem;
use kcore::lock::{Held, rank};
use kcore::machine::{NoMemory, PhysAddr, PhysMem};
use kformats::paging::{Amd64, PageFormat};
use khal::tables::PageKind;

use crate::layout;
use crate::machine::Hardware;

/// Pages of a map: the bits, and what ends them.
pub const PAGES: usize = 3;
const PAGE_BYTES: usize = 4096;
/// Levels of tables below a root.
pub const LEVELS_BELOW: usize = 3;

/// The address of a page of the map.
pub fn page(index: usize) -> usize {
    layout::PORT_MAP + index * PAGE_BYTES
}

/// This processor forgets what it knows of the map in the space with `word`, which lives.
pub fn forget_here(hardware: &Hardware, word: usize) {
    (0..PAGES).for_each(|index| hardware.forget_page_here(word, page(index)));
}

/// The entry of `root` for the map.
fn root_entry(root: PhysAddr) -> PhysAddr {
    let index = Amd64::index(Amd64::LEVELS - 1, layout::PORT_MAP as u64);
    PhysAddr(root.0 + (index << Amd64::ENTRY_LOG2) as u64)
}

/// Gives the space with this root table a map of its own, which shows the frames in `pages`.
///
/// # Errors
/// [`NoMemory`]; nothing has changed.
pub fn open(
    memory: &impl PhysMem,
    format: Amd64,
    kmem: &Kmem,
    held: &mut Held<{ rank::PORTS }>,
    root: PhysAddr,
    pages: [PhysAddr; PAGES],
) -> Result<(), NoMemory> {
    let mut claim = kmem.reserve(held, LEVELS_BELOW).ok_or(NoMemory)?;
    let mut frame = || kmem.alloc_reserved(memory, held, &mut claim);
    let mut table = frame();
    for (index, page) in pages.into_iter().enumerate() {
        let entry = format.leaf(0, PageKind::SpaceConst.leaf(page.0));
        memory.write(PhysAddr(table.0 + (index << Amd64::ENTRY_LOG2) as u64), entry as usize);
    }
    // The map begins where a table of any level does: it is the first entry of each.
    for _ in 1..LEVELS_BELOW {
        let above = frame();
        memory.write(above, format.table(table.0) as usize);
        table = above;
    }
    memory.write(root_entry(root), format.table(table.0) as usize);
    kmem.give_back(held, claim);
    Ok(())
}

/// Frees the tables of the map of a space that no processor uses, and which has a map of its own.
pub fn close(memory: &impl PhysMem, format: Amd64, kmem: &Kmem, held: &mut Held<{ rank::PORTS }>, root: PhysAddr) {
    let mut at = root_entry(root);
    for level in (1..Amd64::LEVELS).rev() {
        let entry = memory.read(at) as u64;
        let table = PhysAddr(format.below(level, entry).expect("a space with ports has a map of its own"));
        memory.write(at, 0);
        if at != root_entry(root) {
            kmem.free(memory, held, PhysAddr(at.0));
        }
        at = table;
    }
    kmem.free(memory, held, at);
}

const _: () = assert!(Amd64::LEVELS as usize == LEVELS_BELOW + 1 && layout::PORT_MAP.is_multiple_of(1 << 39));
