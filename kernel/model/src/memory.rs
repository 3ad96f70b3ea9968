//! Who has which page, from whom, by what right (X.2, Mappings; X.2, Unmap). A list of mappings, searched from end to end.

use std::collections::BTreeMap;

use crate::word::{Fpage, Word};
use crate::{Model, SIGMA0};

const PAGE: Word = 4096;
const PAGE_LOG2: u32 = 12;
/// Execute, write, read, as in fpages.
const EXECUTE: Word = 1;
const WRITE: Word = 2;
const READ: Word = 4;

/// How a page was used: at all, and written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Use {
    accessed: bool,
    written: bool,
}

impl Use {
    fn and(self, other: Self) -> Self {
        Self { accessed: self.accessed | other.accessed, written: self.written | other.written }
    }

    /// As Unmap tells it: read and executed if accessed, written if written, which is read, too.
    fn rights(self) -> Word {
        let accessed = if self.accessed { READ | EXECUTE } else { 0 };
        let written = if self.written { READ | WRITE } else { 0 };
        accessed | written
    }
}

/// A page of a space.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// The space.
    pub space: usize,
    /// The address there.
    pub page: Word,
    /// The address in memory.
    pub frame: Word,
    /// What can be done with it. A page that is there can be read.
    pub rights: Word,
    /// From which mapping it comes; `None`: from sigma0.
    parent: Option<u32>,
    /// How it was used since that was told last; how it was before, as far as the parent does not know; how mappings were
    /// used that came from it.
    used: Use,
    told: Use,
    derived: Use,
}

/// All pages.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    mappings: BTreeMap<u32, Mapping>,
    next: u32,
}

/// A map or grant item.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    /// The send base.
    pub base: Word,
    /// What is sent.
    pub fpage: Fpage,
    /// Whether the sender keeps nothing.
    pub is_grant: bool,
}

impl Memory {
    /// All mappings.
    pub fn mappings(&self) -> impl Iterator<Item = &Mapping> {
        self.mappings.values()
    }

    /// What a space has at a page.
    pub fn at(&self, space: usize, page: Word) -> Option<&Mapping> {
        self.find(space, page).map(|id| &self.mappings[&id])
    }

    fn find(&self, space: usize, page: Word) -> Option<u32> {
        let is_it = |mapping: &Mapping| mapping.space == space && mapping.page == page;
        self.mappings.iter().find(|(_, mapping)| is_it(mapping)).map(|(id, _)| *id)
    }

    fn children(&self, parent: u32) -> Vec<u32> {
        let children = self.mappings.iter().filter(|(_, mapping)| mapping.parent == Some(parent));
        children.map(|(id, _)| *id).collect()
    }

    fn get_mut(&mut self, id: u32) -> &mut Mapping {
        self.mappings.get_mut(&id).expect("there is such a mapping")
    }

    /// Removes a mapping and all that comes from it; how all of it was used.
    fn remove(&mut self, id: u32) -> Use {
        self.remove_children(id);
        let gone = self.mappings.remove(&id).expect("there is such a mapping");
        let all = gone.used.and(gone.told).and(gone.derived);
        if let Some(parent) = gone.parent {
            let parent = self.get_mut(parent);
            parent.derived = parent.derived.and(all);
        }
        all
    }

    fn remove_children(&mut self, id: u32) {
        for child in self.children(id) {
            self.remove(child);
        }
    }

    /// Takes rights from a mapping and tells how it was used.
    fn restrict(&mut self, id: u32, rights: Word) -> Use {
        let mapping = self.get_mut(id);
        mapping.rights &= !rights | READ;
        std::mem::take(&mut mapping.used)
    }

    /// Takes rights from all that comes from a mapping, which notes how that was used.
    fn restrict_children(&mut self, top: u32, id: u32, rights: Word) {
        for child in self.children(id) {
            let mapping = self.get_mut(child);
            let kept = std::mem::take(&mut mapping.told).and(std::mem::take(&mut mapping.derived));
            let all = self.restrict(child, rights).and(kept);
            let top_mapping = self.get_mut(top);
            top_mapping.derived = top_mapping.derived.and(all);
            self.restrict_children(top, child, rights);
        }
    }

    /// Unmap or flush of one page; how it was used.
    fn unmap_page(&mut self, id: u32, rights: Word, is_flush: bool) -> Use {
        let is_all = rights == READ | WRITE | EXECUTE;
        if is_flush && is_all {
            return self.remove(id);
        }
        if is_all {
            self.remove_children(id);
        } else if !is_flush {
            self.restrict_children(id, id, rights);
        }
        if !is_flush {
            let mapping = self.get_mut(id);
            let told = std::mem::take(&mut mapping.derived);
            mapping.told = mapping.told.and(told);
            return told;
        }
        let own = self.restrict(id, rights);
        let mapping = self.get_mut(id);
        mapping.told = mapping.told.and(own);
        self.restrict_children(id, id, rights);
        let mapping = self.get_mut(id);
        let all = std::mem::take(&mut mapping.told).and(std::mem::take(&mut mapping.derived));
        if let Some(parent) = mapping.parent {
            let parent = self.get_mut(parent);
            parent.derived = parent.derived.and(all);
        }
        all
    }

    /// Unmap or flush of an fpage; the rights by which it was used.
    fn unmap(&mut self, space: usize, fpage: Fpage, is_flush: bool) -> Word {
        if fpage.is_nil {
            return 0;
        }
        let (first, last) = bounds(fpage);
        let is_meant = |mapping: &Mapping| mapping.space == space && (first..=last).contains(&mapping.page);
        let meant: Vec<u32> = self.mappings.iter().filter(|(_, m)| is_meant(m)).map(|(id, _)| *id).collect();
        let mut used = Use::default();
        for id in meant {
            // It may have come from another page of the same fpage.
            if self.mappings.contains_key(&id) {
                used = used.and(self.unmap_page(id, fpage.rights, is_flush));
            }
        }
        used.rights()
    }

    /// A space is gone.
    pub(crate) fn release(&mut self, space: usize) {
        while let Some(id) = self.mappings.iter().find(|(_, mapping)| mapping.space == space).map(|(id, _)| *id) {
            self.remove(id);
        }
    }

    /// Takes one page from one space to another.
    fn map_page(&mut self, (source, from): (usize, Word), (dest, to): (usize, Word), item: &Item) {
        let wanted = item.fpage.rights | READ;
        loop {
            let id = if source == SIGMA0 { None } else { self.find(source, from) };
            let (frame, rights, origin) = match id.map(|id| &self.mappings[&id]) {
                Some(page) => (page.frame, page.rights & wanted, page.parent),
                None if source == SIGMA0 => (from, wanted, None),
                None => return,
            };
            let is_grant = item.is_grant && source != SIGMA0;
            let heir = if is_grant { origin } else { id };
            let Some(old) = self.find(dest, to) else {
                match id.filter(|_| is_grant) {
                    Some(id) => self.grant(id, dest, to, rights),
                    None => self.add(Mapping {
                        space: dest,
                        page: to,
                        frame,
                        rights,
                        parent: heir,
                        used: Use::default(),
                        told: Use::default(),
                        derived: Use::default(),
                    }),
                }
                return;
            };
            let there = &self.mappings[&old];
            if there.frame == frame {
                if there.parent == heir && Some(old) != id {
                    self.get_mut(old).rights |= rights;
                    return;
                }
                let is_enough = !is_grant && there.rights & rights == rights;
                if Some(old) == id || id.is_some() && Some(old) == origin || is_enough {
                    return;
                }
            }
            self.remove(old);
        }
    }

    fn add(&mut self, mapping: Mapping) {
        self.mappings.insert(self.next, mapping);
        self.next += 1;
    }

    fn grant(&mut self, id: u32, dest: usize, to: Word, rights: Word) {
        if rights != self.mappings[&id].rights {
            self.remove_children(id);
        }
        let mapping = self.get_mut(id);
        let used = std::mem::take(&mut mapping.used);
        mapping.told = mapping.told.and(used);
        (mapping.space, mapping.page, mapping.rights) = (dest, to, rights);
    }
}

/// The first and the last address of an fpage, in whole pages.
fn bounds(fpage: Fpage) -> (Word, Word) {
    if fpage.size_log2 >= Word::BITS {
        return (0, Word::MAX);
    }
    (fpage.base / PAGE * PAGE, fpage.base | ((1 << fpage.size_log2) - 1) | (PAGE - 1))
}

impl Model {
    /// Map and grant (X.2, Mappings): which part of the item goes where in the window, page by page.
    pub(crate) fn map(&mut self, (source, dest): (usize, usize), item: Item, window: Fpage) {
        let (s, r) = (item.fpage.size_log2, window.size_log2);
        if s.min(r) < PAGE_LOG2 || item.fpage.rights == 0 || dest == SIGMA0 {
            return;
        }
        let low = |log2: u32| if log2 >= Word::BITS { Word::MAX } else { (1 << log2) - 1 };
        let offset = item.base & low(s.max(r)) & !low(s.min(r));
        let (from, to) =
            if s > r { (item.fpage.base + offset, window.base) } else { (item.fpage.base, window.base + offset) };
        let end = self.machine.user_end;
        let rest = end.saturating_sub(from).min(end.saturating_sub(to));
        let len = low(s.min(r)).saturating_add(1).min(rest);
        let overlaps = from < to + len && to < from + len;
        let is_grant = item.is_grant && source != SIGMA0;
        if len == 0 || is_grant && source == dest && overlaps {
            return;
        }
        for page in (0..len).step_by(PAGE as usize) {
            let areas = self.spaces[&dest].areas;
            let is_protected = areas.iter().flatten().any(|&(begin, end)| (begin..end).contains(&(to + page)));
            if !is_protected {
                self.memory.map_page((source, from + page), (dest, to + page), &item);
            }
        }
        if is_grant {
            let whole = Fpage { rights: READ | WRITE | EXECUTE, ..item.fpage };
            self.memory.unmap(source, whole, true);
        }
    }

    /// Unmap of who runs: the fpages in its message registers, which then tell how they were used (X.2, Unmap).
    pub fn unmap(&mut self, caller: u64, control: Word) {
        let (count, is_flush) = ((control & 0x3F) as usize + 1, control & 0x40 != 0);
        for index in 0..count {
            let thread = self.thread(caller);
            let (word, space) = (thread.utcb.mr[index], thread.space);
            let rights = self.memory.unmap(space, crate::word::fpage(word), is_flush);
            self.thread_mut(caller).utcb.mr[index] = word & !7 | rights;
        }
        self.dispatch();
    }

    /// User code of a thread reads or writes memory; whether it can.
    pub fn access(&mut self, number: u64, address: Word, writes: bool) -> bool {
        let space = self.thread(number).space;
        let Some(id) = self.memory.find(space, address / PAGE * PAGE) else { return false };
        let mapping = self.memory.get_mut(id);
        let can = !writes || mapping.rights & WRITE != 0;
        if can {
            mapping.used = mapping.used.and(Use { accessed: true, written: writes });
        }
        can
    }
}
