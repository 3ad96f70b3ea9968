//! The invariants of spaces and mapping database, checked from outside: by tests and by the debugger. Nothing else may
//! run meanwhile. [`Spaces::check_links`] comes first where nothing can be relied on.

use kformats::paging::{Access, Entry, PageFormat};

use super::account::FRAME;
use super::tables::Mapped;
use super::{Place, Space, Spaces};
use crate::inspect::NodeView;
use crate::machine::{Mmu, NodeRef, PhysAddr, SpaceRef};
use crate::mapdb::{LEVEL_MAX, Node};

/// What there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Census {
    /// Spaces.
    pub spaces: usize,
    /// Mappings of users.
    pub mappings: usize,
    /// Frames of tables, of their shadows, of UTCBs and of ports.
    pub frames: usize,
}

impl Census {
    fn and(self, other: Self) -> Self {
        Self {
            spaces: self.spaces + other.spaces,
            mappings: self.mappings + other.mappings,
            frames: self.frames + other.frames,
        }
    }
}

/// An invariant that does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken {
    /// What is wrong.
    pub what: &'static str,
    /// Where: the space.
    pub space: SpaceRef,
    /// Where: the address.
    pub address: u64,
}

/// Whether the rights of derived mappings can be relied on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rest {
    /// No revocation is under way.
    Settled,
    /// One may be: rights below it may be larger than above.
    Revoking,
}

/// The table being checked.
struct Table<'a> {
    index: SpaceRef,
    space: &'a Space,
    rest: Rest,
}

impl<M: Mmu> Spaces<'_, M> {
    /// Checks what [`Self::check_invariants`] relies on: that tables are where kernel memory is, that links between nodes
    /// lead to nodes in use and back, and that all of it ends.
    ///
    /// # Errors
    /// The first link found broken.
    pub fn check_links(&self) -> Result<(), Broken> {
        for space in self.inhabited() {
            let mut stray = None;
            let end = self.pages(space, 0, &mut |page| {
                let is_right =
                    page.node.is_none_or(|node| self.node_view(node).is_some_and(|view| view.space == Some(space)));
                stray = (!is_right).then_some(page.address);
                is_right
            });
            require(stray.is_none(), "a page has a node of its space", space, stray.unwrap_or(0))?;
            require(end.loose == 0, "entries lead to tables in kernel memory", space, 0)?;
            let mut origins = self.port_origins(space);
            let is_there = origins.all(|(_, _, parent)| self.view(parent).is_some());
            require(is_there, "ports come from spaces that there are", space, 0)?;
        }
        self.mapdb.in_use().try_for_each(|node| self.check_node_links(node))
    }

    fn check_node_links(&self, node: NodeRef) -> Result<(), Broken> {
        let Some(own) = self.node_view(node) else { return Ok(()) };
        let Some(space) = own.space else { return Ok(()) };
        let fail = |holds: bool, what: &'static str| require(holds, what, space, own.page);
        fail(self.view(space).is_some(), "a mapping is in a space that lives")?;
        let leads = |link: Option<NodeRef>, is_right: &dyn Fn(NodeView) -> bool| {
            let Some(link) = link else { return true };
            self.node_view(link).is_some_and(|other| other.space.is_some() && is_right(other))
        };
        fail(leads(own.next, &|next| next.prev == Some(node)), "siblings know each other")?;
        fail(leads(own.prev, &|prev| prev.next == Some(node)), "siblings know each other")?;
        fail(leads(own.child, &|child| child.prev.is_none()), "the first child is the first")?;
        fail(leads(own.parent, &|parent| parent.child.is_some()), "a parent has children")
    }

    /// Checks all spaces and all mappings. Takes time in proportion to all tables.
    ///
    /// # Errors
    /// The first invariant found broken.
    pub fn check_invariants(&self, rest: Rest) -> Result<Census, Broken> {
        let mut census = Census::default();
        for index in self.table.backed() {
            let space = self.get(index);
            if space.is_used.get() {
                let mut own = Census { spaces: 1, ..Census::default() };
                self.check_ports(index, &mut own.frames)?;
                let port_map = if own.frames > 0 { M::PORT_MAP_FRAMES } else { 0 };
                let table = Table { index, space, rest };
                self.check_table(&table, Self::top(), (space.root.get(), space.shadow.get()), 0, &mut own)?;
                let bytes = (own.frames + port_map) * FRAME + own.mappings * size_of::<Node>() + size_of::<Space>();
                require(space.account.used() == bytes, "a space is charged with what it has", index, 0)?;
                census = census.and(own);
            }
        }
        let first = SpaceRef::new(0);
        require(census.mappings == self.mapdb.used(), "each node in use is in one space", first, 0)?;
        Ok(census)
    }

    fn check_table(
        &self,
        table: &Table<'_>,
        level: u32,
        (frame, shadow): (PhysAddr, PhysAddr),
        base: u64,
        census: &mut Census,
    ) -> Result<(), Broken> {
        census.frames += 2;
        for index in 0..1u64 << M::Format::INDEX_BITS {
            let address = base + (index << Self::page_log2(level));
            if address >= self.end_of(table.space) {
                break;
            }
            let at = index << M::Format::ENTRY_LOG2;
            if self.machine.read(PhysAddr(frame.0 + at)) == 0 && self.machine.read(PhysAddr(shadow.0 + at)) == 0 {
                continue;
            }
            let place = self.place(level, frame, shadow, address);
            let is_users = address < self.config.user_end;
            let place = if is_users { place } else { Place { word: 0, ..place } };
            match self.below(&place) {
                Some(below) => self.check_table(table, level - 1, below, address, census)?,
                None => self.check_page(table, &place, address, census)?,
            }
        }
        Ok(())
    }

    fn check_page(&self, table: &Table<'_>, place: &Place, address: u64, census: &mut Census) -> Result<(), Broken> {
        let fail = |holds: bool, what: &'static str| require(holds, what, table.index, address);
        let slot = self.slot(place);
        let is_leaf = matches!(self.entry(place), Entry::Leaf(_));
        // A frame in an entry that is not present would be within the reach of L1TF.
        fail(is_leaf || place.word == 0, "an entry that is not present is zero")?;
        fail(is_leaf || slot.kernel.is_none(), "a page of the kernel has an entry")?;
        fail(!is_leaf || slot.kernel.is_some() || slot.node.is_some(), "a page has a node or is the kernel's")?;
        if matches!(slot.kernel, Some(super::tables::KernelPage::Utcbs(_))) {
            census.frames += 1;
        }
        let Some(node) = slot.node else { return Ok(()) };
        census.mappings += 1;
        let entry_is_users = is_leaf && slot.kernel.is_none();
        fail(entry_is_users != self.mapdb.node(node).is_detached(), "a node has an entry or is detached")?;
        fail(place.level <= LEVEL_MAX, "pages are of a size that there is")?;
        let page = self.mapped(table.space, place, address);
        let page = page.ok_or(Broken { what: "a node is found by its address", space: table.index, address })?;
        self.check_node(table, page, address)
    }

    fn check_node(&self, table: &Table<'_>, page: Mapped, address: u64) -> Result<(), Broken> {
        let fail = |holds: bool, what: &'static str| require(holds, what, table.index, address);
        let node = self.mapdb.node(page.node);
        fail(node.space() == table.index && node.page() == address, "a node knows its page")?;
        fail(node.level() == page.level, "a node knows the size of its page")?;
        fail(node.parent().is_none() == table.space.is_sigma0(), "sigma0 has the roots")?;
        fail(!table.space.is_sigma0() || page.frame == address, "sigma0 is mapped one to one")?;
        let mut previous = None;
        let mut next = node.child();
        while let Some(child) = next {
            let below = self.mapdb.node(child);
            fail(below.parent() == Some(page.node) && below.prev() == previous, "relatives know each other")?;
            self.check_child(table, &page, child, address)?;
            previous = next;
            next = below.next();
        }
        Ok(())
    }

    fn check_child(&self, table: &Table<'_>, page: &Mapped, child: NodeRef, address: u64) -> Result<(), Broken> {
        let fail = |holds: bool, what: &'static str| require(holds, what, table.index, address);
        let node = self.mapdb.node(child);
        let space = self.get(node.space());
        fail(space.is_used.get(), "a derived mapping is in a space that lives")?;
        let place = self.walk(space, node.page(), node.level());
        let below = self.mapped(space, &place, node.page()).filter(|below| below.node == child);
        let Some(below) = below else { return fail(false, "a derived mapping is found by its page") };
        let begin_inside = below.frame >> Self::page_log2(page.level) == page.frame >> Self::page_log2(page.level);
        fail(begin_inside && below.level <= page.level, "the frame of a derived mapping is inside")?;
        let may_have_more = table.rest == Rest::Revoking || page.access == Access::FULL;
        fail(may_have_more || page.access.covers(below.access), "rights of a derived mapping are a subset")
    }
}

pub(super) fn require(holds: bool, what: &'static str, space: SpaceRef, address: u64) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { what, space, address }) }
}
