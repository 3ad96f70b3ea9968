//! Memory behind the tables of a fake machine: frames that nobody looks into, but that are counted.

use std::collections::BTreeMap;

use crate::kmem::Kmem;
use crate::lock::Held;
use crate::machine::{NoMemory, PhysAddr, PhysMem};
use crate::tests::shared::Shared;

/// A table that is backed page by page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    Tcbs,
    Frames,
    Spaces,
    Nodes,
}

/// Which pages have which frames.
#[derive(Default)]
pub struct Backing(Shared<BTreeMap<(Kind, usize), PhysAddr>>);

impl Backing {
    /// Backs a page that is not backed.
    #[track_caller]
    pub fn back<const P: u8>(
        &self,
        memory: &impl PhysMem,
        kmem: &Kmem,
        held: &mut Held<P>,
        page: (Kind, usize),
    ) -> Result<(), NoMemory> {
        let frame = kmem.alloc(memory, held).ok_or(NoMemory)?;
        assert_eq!(self.0.borrow().insert(page, frame), None, "{page:?} is backed once");
        Ok(())
    }

    /// Takes the memory of a backed page away.
    pub fn release<const P: u8>(&self, memory: &impl PhysMem, kmem: &Kmem, held: &mut Held<P>, page: (Kind, usize)) {
        let frame = self.0.borrow().remove(&page);
        kmem.free(memory, held, frame.unwrap_or_else(|| panic!("{page:?} is backed")));
    }

    pub fn is_backed(&self, page: (Kind, usize)) -> bool {
        self.0.borrow().contains_key(&page)
    }

    /// Frames in use.
    pub fn count(&self) -> usize {
        self.0.borrow().len()
    }
}
