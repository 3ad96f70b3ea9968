//! Random operations against a naive model: a list of mappings, searched from end to end.

use std::collections::{BTreeMap, BTreeSet};

use kformats::paging::{Access, Amd64, Entry, Ia32, PatIndex, Status};
use l4_abi::{Fpage, MapItem, MapKind, Rights, Word};

use super::world::{NAMES, Parts, TestFormat, Toy, World};
use crate::lock::Held;
use crate::machine::{NodeRef, SpaceRef};
use crate::mapdb::{Progress, UnmapScope, merge};
use crate::space::map::Route;
use crate::space::{Rest, Transfer, access_of};
use crate::tests::random::Random;

/// Choices of these tests.
impl Random {
    pub fn pick<T: Copy, const N: usize>(&mut self, choices: [T; N]) -> T {
        choices[self.below(N as u64) as usize]
    }

    /// One of a few pages in a few superpages, of a few larger pages if there are any.
    pub fn address<F: TestFormat>(&mut self) -> u64 {
        let last = (1 << F::INDEX_BITS) - 1;
        let page = self.pick([0, 1, 2, 3, 4, last]);
        let superpage = match F::FORMAT.leaf_allowed(2) {
            true => (self.below(2) << F::INDEX_BITS) + self.pick([0, 1, last]),
            false => self.below(4),
        };
        (superpage << F::size_log2(1)) + (page << 12)
    }

    pub fn fpage<F: TestFormat>(&mut self) -> Fpage {
        let superpage = F::size_log2(1);
        let rights = self.pick([Rights::ALL, Rights::ALL, Rights::READ_WRITE, Rights::READ_EXECUTE, Rights::WRITE]);
        let size_log2 = match self.below(24) {
            0 => superpage + 1,
            1..=4 => superpage,
            5 | 6 if F::FORMAT.leaf_allowed(2) => F::size_log2(2),
            n => [12, 12, 12, 13, 14][n as usize % 5],
        };
        let base = self.address::<F>() >> size_log2 << size_log2;
        Fpage::new(base as Word, size_log2, rights).expect("an aligned fpage")
    }
}

#[derive(Clone, Debug)]
struct Mapping {
    space: usize,
    page: u64,
    level: u32,
    frame: u64,
    access: Access,
    cache: PatIndex,
    parent: Option<u32>,
    /// In the entry; reported to the space; left by derived mappings.
    entry: Status,
    reported: Status,
    derived: Status,
}

/// What is mapped: space and page; level, frame, rights, memory type, status of the entry, space and page of the parent.
type List = BTreeMap<(usize, u64), (u32, u64, Access, PatIndex, Status, Option<(usize, u64)>)>;

/// What is mapped, as it should be.
struct Model<F> {
    mappings: BTreeMap<u32, Mapping>,
    /// The same by space and page.
    places: BTreeMap<(usize, u64), u32>,
    /// Parents with children.
    families: BTreeSet<(u32, u32)>,
    next: u32,
    /// Pages of sigma0 that have a table, by level and address: it never shows elsewhere whether there is one.
    tables: BTreeSet<(u32, u64)>,
    format: F,
}

const NOTHING: Status = Status { accessed: false, dirty: false };

impl<F: TestFormat> Model<F> {
    fn new() -> Self {
        let (mappings, places, families, tables) = Default::default();
        Self { mappings, places, families, next: 0, tables, format: F::FORMAT }
    }

    fn size(level: u32) -> u64 {
        1 << F::size_log2(level)
    }

    /// The mapping of `space` at `address`.
    fn at(&self, space: usize, address: u64) -> Option<u32> {
        let page = |level: u32| address & !(Self::size(level) - 1);
        let at =
            |level: u32| self.places.get(&(space, page(level))).copied().filter(|id| self.mappings[id].level == level);
        (0..3).find_map(at)
    }

    /// The first mapping of `space` that begins in these addresses.
    fn first_in(&self, space: usize, addresses: std::ops::Range<u64>) -> Option<u32> {
        self.places.range((space, addresses.start)..(space, addresses.end)).next().map(|(_, id)| *id)
    }

    /// Whether a page of `level` can be mapped from one of these addresses to the other.
    fn fits(&self, level: u32, from: u64, to: u64, len: u64) -> bool {
        (from | to).is_multiple_of(Self::size(level)) && len >= Self::size(level) && self.format.leaf_allowed(level)
    }

    fn children(&self, parent: u32) -> Vec<u32> {
        self.families.range((parent, 0)..=(parent, u32::MAX)).map(|(_, child)| *child).collect()
    }

    fn add(&mut self, mapping: Mapping) {
        self.places.insert((mapping.space, mapping.page), self.next);
        if let Some(parent) = mapping.parent {
            self.families.insert((parent, self.next));
        }
        self.mappings.insert(self.next, mapping);
        self.next += 1;
    }

    fn remove(&mut self, id: u32) -> Status {
        for child in self.children(id) {
            self.remove(child);
        }
        let gone = self.mappings.remove(&id).expect("a mapping");
        self.places.remove(&(gone.space, gone.page));
        let status = merge(gone.entry, merge(gone.reported, gone.derived));
        if let Some(parent) = gone.parent {
            self.families.remove(&(parent, id));
            let parent = self.mappings.get_mut(&parent).expect("a parent");
            parent.derived = merge(parent.derived, status);
        }
        status
    }

    /// sigma0 gets a page of `most` at most, unless it has one; smaller ones in that of `least` go first if all are unused.
    fn provide_root(&mut self, address: u64, least: u32, most: u32) {
        let base = |level: u32| address & !(Self::size(level) - 1);
        let is_large_enough = |root: u32| self.mappings[&root].level >= least;
        if self.tables.contains(&(least, base(least))) && !self.at(0, address).is_some_and(is_large_enough) {
            self.clear_unused(least, base(least));
        }
        if let Some(root) = self.at(0, address) {
            self.mappings.get_mut(&root).expect("a root").access = Access::FULL;
            return;
        }
        let lowest_table = (1..3).find(|level| self.tables.contains(&(*level, base(*level)))).unwrap_or(3);
        let level = most.min(lowest_table - 1);
        self.tables.extend((level + 1..3).map(|above| (above, base(above))));
        let (page, access, cache) = (base(level), Access::FULL, PatIndex::default());
        let (entry, reported, derived) = (NOTHING, NOTHING, NOTHING);
        self.add(Mapping { space: 0, page, level, frame: page, access, cache, parent: None, entry, reported, derived });
    }

    /// Removes the pages below a table of sigma0, and the table, up to one that is in use; `false` if there is one.
    fn clear_unused(&mut self, level: u32, base: u64) -> bool {
        for entry in (base..base + Self::size(level)).step_by(Self::size(level - 1) as usize) {
            if self.tables.contains(&(level - 1, entry)) {
                if !self.clear_unused(level - 1, entry) {
                    return false;
                }
            } else if let Some(root) = self.at(0, entry) {
                if self.mappings[&root].cache != PatIndex::default() || !self.children(root).is_empty() {
                    return false;
                }
                self.remove(root);
            }
        }
        self.tables.remove(&(level, base));
        true
    }

    fn map(&mut self, transfer: &Transfer) {
        let Transfer { source, dest, item, window } = *transfer;
        let (source, dest) = (source.index(), dest.index());
        let kind = if source == 0 { MapKind::Map } else { item.kind };
        let Some(route) = Route::new(&item, window, F::USER_END, F::USER_END) else { return };
        let overlaps = route.from < route.to + route.len && route.to < route.from + route.len;
        if item.fpage.rights().is_empty() || kind == MapKind::Grant && source == dest && overlaps {
            return;
        }
        let mut done = 0;
        while done < route.len {
            done += self.map_page(source, dest, kind, &item, (route.from + done, route.to + done, route.len - done));
        }
        if kind == MapKind::Grant {
            self.unmap(source, item.fpage.with_rights(Rights::ALL), UnmapScope::Flush);
        }
    }

    /// Returns the bytes done.
    fn map_page(
        &mut self,
        source: usize,
        dest: usize,
        kind: MapKind,
        item: &MapItem,
        (from, to, len): (u64, u64, u64),
    ) -> u64 {
        let fits = |level: &u32| self.fits(*level, from, to, len);
        if source == 0 {
            let wanted = (1..3).rev().find(fits).unwrap_or(0);
            self.provide_root(from, wanted, wanted.max(1));
        }
        let Some(id) = self.at(source, from) else {
            let next = self.first_in(source, from..from + len);
            return next.map_or(len, |next| self.mappings[&next].page - from);
        };
        let page = self.mappings[&id].clone();
        let fits = |level: &u32| self.fits(*level, from, to, len);
        let level = (0..=page.level).rev().find(fits).expect("small pages fit everywhere");
        let old = self.at(dest, to);
        if let Some(larger) = old.map(|old| self.mappings[&old].level).filter(|larger| *larger > level) {
            return Self::size(larger) - to % Self::size(larger);
        }
        if let Some(smaller) = self.first_in(dest, to..to + Self::size(level))
            && self.mappings[&smaller].level < level
        {
            self.remove(smaller);
            return 0;
        }
        let frame = page.frame + from % Self::size(page.level);
        let access = self.format.effective(access_of(item.fpage.rights()).and(page.access));
        let heir = if kind == MapKind::Map { Some(id) } else { page.parent };
        if let Some(old) = old {
            let there = self.mappings[&old].clone();
            if there.frame == frame {
                if there.parent == heir && old != id {
                    self.mappings.get_mut(&old).expect("the old one").access = there.access.or(access);
                    return Self::size(level);
                }
                let is_enough = kind == MapKind::Map && there.access.covers(access);
                if old == id || Some(old) == page.parent || is_enough {
                    return Self::size(level);
                }
            }
            self.remove(old);
            return 0;
        }
        if kind == MapKind::Grant && level == page.level {
            if access != page.access {
                for child in self.children(id) {
                    self.remove(child);
                }
            }
            let moved = self.mappings.get_mut(&id).expect("the granted page");
            (moved.space, moved.page, moved.access) = (dest, to, access);
            self.places.remove(&(source, page.page));
            self.places.insert((dest, to), id);
            moved.reported = merge(moved.reported, std::mem::take(&mut moved.entry));
        } else {
            let (entry, reported, derived, cache) = (NOTHING, NOTHING, NOTHING, page.cache);
            let (space, page, parent) = (dest, to, heir);
            self.add(Mapping { space, page, level, frame, access, cache, parent, entry, reported, derived });
        }
        Self::size(level)
    }

    /// Takes rights from a mapping and all that is derived from it; returns what stood there of accesses.
    fn restrict(&mut self, id: u32, rights: Rights) -> Status {
        let restricted = self.format.effective(self.mappings[&id].access.without(access_of(rights)));
        let mapping = self.mappings.get_mut(&id).expect("a mapping");
        mapping.access = restricted;
        let own = merge(std::mem::take(&mut mapping.entry), std::mem::take(&mut mapping.reported));
        let own = merge(own, std::mem::take(&mut mapping.derived));
        self.children(id).into_iter().fold(own, |status, child| merge(status, self.restrict(child, rights)))
    }

    /// The first page of `space` in these addresses, or around the first of them.
    fn next_in(&self, space: usize, addresses: std::ops::Range<u64>) -> Option<u32> {
        self.at(space, addresses.start).or_else(|| self.first_in(space, addresses))
    }

    /// The part of the frame of a mapping that is at these addresses, and the end of the mapping.
    fn meant(&self, id: u32, addresses: &std::ops::Range<u64>) -> (std::ops::Range<u64>, u64) {
        let page = &self.mappings[&id];
        let end = page.page + Self::size(page.level);
        let first = addresses.start.max(page.page) - page.page;
        (page.frame + first..page.frame + (end.min(addresses.end) - page.page), end)
    }

    fn unmap(&mut self, space: usize, fpage: Fpage, scope: UnmapScope) -> Status {
        let (mut address, end) = (fpage.base() as u64, fpage.last() as u64 + 1);
        let mut status = NOTHING;
        while let Some(top) = self.next_in(space, address..end) {
            let (meant, next) = self.meant(top, &(address..end));
            status = merge(status, self.unmap_page(top, meant, fpage.rights(), scope));
            address = next;
            if address >= end {
                break;
            }
        }
        status
    }

    fn set_cache(&mut self, space: usize, fpage: Fpage, cache: PatIndex) {
        let (mut address, end) = (fpage.base() as u64, fpage.last() as u64 + 1);
        while address < end {
            if space == 0 {
                self.provide_part(address, end);
            }
            let Some(top) = self.next_in(space, address..end) else { return };
            let (meant, next) = self.meant(top, &(address..end));
            self.mappings.get_mut(&top).expect("the top").cache = cache;
            for child in self.children(top) {
                let mapping = &self.mappings[&child];
                if mapping.frame < meant.end && meant.start < mapping.frame + Self::size(mapping.level) {
                    self.recache(child, cache);
                }
            }
            address = next;
        }
    }

    fn recache(&mut self, id: u32, cache: PatIndex) {
        self.mappings.get_mut(&id).expect("a mapping").cache = cache;
        self.children(id).into_iter().for_each(|child| self.recache(child, cache));
    }

    fn provide_part(&mut self, address: u64, end: u64) {
        let level = (0..3).rev().find(|level| self.fits(*level, address, 0, end - address)).expect("a page fits");
        if let Some(root) = self.at(0, address)
            && self.mappings[&root].level > level
            && self.children(root).is_empty()
        {
            let Mapping { page, level, .. } = self.mappings[&root];
            self.remove(root);
            self.tables.insert((level, page));
        }
        self.provide_root(address, 0, level);
    }

    fn unmap_page(&mut self, top: u32, meant: std::ops::Range<u64>, rights: Rights, scope: UnmapScope) -> Status {
        if scope == UnmapScope::Flush && rights == Rights::ALL {
            return self.remove(top);
        }
        if scope == UnmapScope::Flush {
            let status = self.restrict(top, rights);
            if let Some(parent) = self.mappings[&top].parent {
                let parent = self.mappings.get_mut(&parent).expect("a parent");
                parent.derived = merge(parent.derived, status);
            }
            return status;
        }
        for child in self.children(top) {
            let mapping = &self.mappings[&child];
            if mapping.frame >= meant.end || mapping.frame + Self::size(mapping.level) <= meant.start {
                continue;
            }
            if rights == Rights::ALL {
                self.remove(child);
            } else {
                let status = self.restrict(child, rights);
                let mapping = self.mappings.get_mut(&top).expect("the top");
                mapping.derived = merge(mapping.derived, status);
            }
        }
        let mapping = self.mappings.get_mut(&top).expect("the top");
        let status = std::mem::take(&mut mapping.derived);
        mapping.reported = merge(mapping.reported, status);
        status
    }

    fn release(&mut self, space: usize) {
        while let Some((_, id)) = self.places.range((space, 0)..(space + 1, 0)).next() {
            self.remove(*id);
        }
    }

    fn list(&self) -> List {
        let of = |id: u32| (self.mappings[&id].space, self.mappings[&id].page);
        let entry = |m: &Mapping| ((m.space, m.page), (m.level, m.frame, m.access, m.cache, m.entry, m.parent.map(of)));
        self.mappings.values().map(entry).collect()
    }
}

fn list<F: TestFormat>(world: &World<'_, F>) -> List {
    let mappings = world.mappings();
    let names: BTreeMap<NodeRef, (usize, u64)> =
        mappings.iter().map(|(space, address, _, page)| (page.node, (*space, *address))).collect();
    let entry = |(space, address, place, page): &(usize, u64, crate::space::Place, crate::space::tables::Mapped)| {
        let status = match world.spaces.entry(place) {
            Entry::Leaf(leaf) => leaf.status,
            _ => NOTHING,
        };
        let parent = world.spaces.mapdb().node(page.node).parent().map(|parent| names[&parent]);
        ((*space, *address), (page.level, page.frame, page.access, page.cache, status, parent))
    };
    mappings.iter().map(entry).collect()
}

/// Does one random thing to both; returns what it was.
fn act<F: TestFormat>(world: &World<'_, F>, model: &mut Model<F>, random: &mut Random) -> String {
    let space = random.below(5) as usize;
    match random.below(100) {
        0..=49 => {
            let kind = random.pick([MapKind::Map, MapKind::Map, MapKind::Map, MapKind::Grant]);
            let item = MapItem { snd_base: random.address::<F>() as Word, fpage: random.fpage::<F>(), kind };
            let dest = SpaceRef::new(1 + random.below(4) as u32);
            let transfer = Transfer { source: SpaceRef::new(space as u32), dest, item, window: random.fpage::<F>() };
            assert_eq!(world.transfer(transfer), Progress::Done);
            model.map(&transfer);
            format!("{transfer:?}")
        }
        50..=74 => {
            let (fpage, scope) = (random.fpage::<F>(), random.pick([UnmapScope::Derived, UnmapScope::Flush]));
            let status = model.unmap(space, fpage, scope);
            let expected = Rights::NONE
                | if status.accessed { Rights::READ_EXECUTE } else { Rights::NONE }
                | if status.dirty { Rights::READ_WRITE } else { Rights::NONE };
            assert_eq!(world.unmap(space, fpage, scope), expected, "{scope:?} {fpage:?} in {}", NAMES[space]);
            format!("{scope:?} {fpage:?} in {}", NAMES[space])
        }
        75..=78 => {
            let (fpage, cache) = (random.fpage::<F>(), PatIndex::new(random.pick([0, 3, 4, 7])).expect("an index"));
            assert_eq!(world.set_cache(space, fpage, cache), Progress::Done);
            model.set_cache(space, fpage, cache);
            format!("{cache:?} for {fpage:?} in {}", NAMES[space])
        }
        79..=96 => {
            let address = random.address::<F>();
            let Some(id) = model.at(space, address) else { return String::new() };
            let mapping = model.mappings.get_mut(&id).expect("found");
            let dirty = mapping.access.write && random.below(2) == 0;
            mapping.entry = Status { accessed: true, dirty: mapping.entry.dirty | dirty };
            world.access(space, address, dirty);
            format!("access to {}:{address:x}", NAMES[space])
        }
        97 if space > 0 => {
            world.release(space);
            model.release(space);
            world.create(NAMES[space]).expect("memory");
            format!("release {}", NAMES[space])
        }
        _ => {
            let address = random.address::<F>();
            world.spaces.sigma0_fault(&mut Held::nothing(), SpaceRef::new(0), address as usize).expect("memory");
            model.provide_root(address, 0, 1);
            format!("fault at {address:x}")
        }
    }
}

fn run_random<F: TestFormat>(seed: u64, steps: u32) {
    let parts = Parts::<F>::new(1024);
    let mut world = World::new(&parts, 1);
    let mut model = Model::<F>::new();
    let mut random = Random(seed);
    let mut known = world.known();
    let mut actions = Vec::new();
    for step in 0..steps {
        world.budget = random.pick([1, 2, 3, 10, 100, 1000]);
        actions.push(act(&world, &mut model, &mut random));
        if step % 5 > 0 {
            continue;
        }
        let (found, expected) = (list(&world), model.list());
        if found != expected {
            let extra: Vec<_> = found.iter().filter(|(key, value)| expected.get(key) != Some(value)).collect();
            let missing: Vec<_> = expected.iter().filter(|(key, value)| found.get(key) != Some(value)).collect();
            panic!("seed {seed}, step {step}: {actions:#?}\nfound {extra:x?}\nexpected {missing:x?}");
        }
        known = world.check_forgotten(&known);
        world.check_structure(Rest::Settled);
        actions.clear();
    }
    world.release_all();
}

#[test]
fn random_operations_do_what_the_model_does_on_amd64() {
    (1..=8).for_each(|seed| run_random::<Amd64>(seed, 3000));
}

#[test]
fn random_operations_do_what_the_model_does_on_few_pages_of_three_sizes() {
    (21..=40).for_each(|seed| run_random::<Toy>(seed, 3000));
}

#[test]
fn random_operations_do_what_the_model_does_on_ia32() {
    (11..=18).for_each(|seed| run_random::<Ia32>(seed, 2000));
}
