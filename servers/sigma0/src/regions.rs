//! A range of addresses, cut into regions with one owner each.

use core::fmt;

use l4_abi::ThreadId;

/// Who has a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nobody, ever: not usable.
    Nobody,
    /// Nobody yet: for any request.
    Free,
    /// Nobody yet: only for a request of that address.
    Special,
    /// Everybody who asks.
    Shared,
    /// One thread.
    Thread(ThreadId),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("unusable"),
            Self::Free => f.write_str("free"),
            Self::Special => f.write_str("special"),
            Self::Shared => f.write_str("shared"),
            Self::Thread(id) => write!(f, "thread {} version {}", id.thread_no(), id.version()),
        }
    }
}

/// A region: from here to the next one, or to the last address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    low: u64,
    owner: Owner,
}

impl Region {
    /// A value for storage that is not in use.
    pub const UNUSED: Self = Self { low: 0, owner: Owner::Nobody };
}

/// A part of a region, with both ends inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// First address.
    pub low: u64,
    /// Last address.
    pub high: u64,
    /// Who has it.
    pub owner: Owner,
}

/// All addresses and their owners.
///
/// Invariants: there is a region at address 0; regions are in the order of their addresses; neighbours have different
/// owners. So there are never more regions than the history of [`Self::set`] makes necessary: a call adds two at most.
#[derive(Debug)]
pub struct Regions<'a> {
    storage: &'a mut [Region],
    len: usize,
}

/// The storage has no room for two more regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl<'a> Regions<'a> {
    /// One region with this owner.
    ///
    /// # Panics
    /// Without any storage.
    pub fn new(storage: &'a mut [Region], owner: Owner) -> Self {
        storage[0] = Region { low: 0, owner };
        Self { storage, len: 1 }
    }

    /// How many more regions there is room for.
    pub fn spare(&self) -> usize {
        self.storage.len() - self.len
    }

    /// Number of regions that the storage can hold.
    pub fn capacity(&self) -> usize {
        self.storage.len()
    }

    /// Moves to a larger storage; returns the old one.
    ///
    /// # Panics
    /// If the new storage is too small.
    pub fn move_to(&mut self, storage: &'a mut [Region]) -> &'a mut [Region] {
        storage[..self.len].copy_from_slice(&self.storage[..self.len]);
        core::mem::replace(&mut self.storage, storage)
    }

    /// All regions.
    pub fn iter(&self) -> impl Iterator<Item = Part> {
        self.within(0, u64::MAX)
    }

    /// The parts of regions between two addresses, both inside.
    pub fn within(&self, low: u64, high: u64) -> impl Iterator<Item = Part> {
        let first = self.index_of(low);
        let last = self.index_of(high);
        (first..=last).map(move |i| Part {
            low: self.storage[i].low.max(low),
            high: self.end_of(i).min(high),
            owner: self.storage[i].owner,
        })
    }

    /// Gives all from `low` to `high`, both inside, to `owner`. After an error nothing has changed.
    ///
    /// # Errors
    /// [`Full`].
    pub fn set(&mut self, low: u64, high: u64, owner: Owner) -> Result<(), Full> {
        let (first, last) = (self.index_of(low), self.index_of(high));
        let (mut new, mut count) = ([Region::UNUSED; 3], 0);
        let mut push = |region| {
            new[count] = region;
            count += 1;
        };

        // What begins in front of `low` keeps its beginning.
        let before = if self.storage[first].low < low {
            push(self.storage[first]);
            Some(self.storage[first].owner)
        } else {
            first.checked_sub(1).map(|i| self.storage[i].owner)
        };
        if before != Some(owner) {
            push(Region { low, owner });
        }
        // What ends behind `high` begins behind it; with our owner it does not begin at all.
        let mut end = last + 1;
        if high < self.end_of(last) {
            let owner_behind = self.storage[last].owner;
            if owner_behind != owner {
                push(Region { low: high + 1, owner: owner_behind });
            }
        } else if end < self.len && self.storage[end].owner == owner {
            end += 1;
        }
        self.splice(first, end, &new[..count])
    }

    /// Replaces the regions from `start` up to `end` by others.
    fn splice(&mut self, start: usize, end: usize, new: &[Region]) -> Result<(), Full> {
        let len = self.len - (end - start) + new.len();
        if len > self.storage.len() {
            return Err(Full);
        }
        self.storage.copy_within(end..self.len, start + new.len());
        self.storage[start..start + new.len()].copy_from_slice(new);
        self.len = len;
        Ok(())
    }

    /// The region with this address.
    fn index_of(&self, address: u64) -> usize {
        self.storage[..self.len].partition_point(|region| region.low <= address) - 1
    }

    /// Last address of a region.
    fn end_of(&self, index: usize) -> u64 {
        if index + 1 < self.len { self.storage[index + 1].low - 1 } else { u64::MAX }
    }

    /// Whether the invariants hold.
    #[cfg(test)]
    fn check_invariants(&self) {
        assert_eq!(self.storage[0].low, 0);
        for pair in self.storage[..self.len].windows(2) {
            assert!(pair[0].low < pair[1].low && pair[0].owner != pair[1].owner, "{pair:?}");
        }
    }
}

#[cfg(test)]
mod tests;
