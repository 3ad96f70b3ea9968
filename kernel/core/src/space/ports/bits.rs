//! The bits of a space's ports, word by word.

use super::super::{Space, Spaces};
use crate::kmem::FRAME_SIZE;
use crate::machine::{Mmu, PhysAddr};

/// Ports of a word.
pub(super) const WORD_PORTS: usize = usize::BITS as usize;
/// Words of a frame.
const FRAME_WORDS: usize = FRAME_SIZE as usize / size_of::<usize>();

/// The words that hold ports from `first` to `last`, and in each the bits of these ports.
pub(super) fn words(first: u16, last: u16) -> impl DoubleEndedIterator<Item = (usize, usize)> {
    let (first, last) = (usize::from(first), usize::from(last));
    (first / WORD_PORTS..last / WORD_PORTS + 1).map(move |index| {
        let base = index * WORD_PORTS;
        let from = first.saturating_sub(base);
        let to = (last - base).min(WORD_PORTS - 1);
        (index, usize::MAX << from & usize::MAX >> (WORD_PORTS - 1 - to))
    })
}

/// The first port from `first` to `last` that has its bit in the words of `word_of`.
pub(super) fn first_where(first: u16, last: u16, word_of: impl Fn(usize) -> usize) -> Option<u16> {
    words(first, last).find_map(|(index, mask)| {
        let found = word_of(index) & mask;
        (found != 0).then(|| (index * WORD_PORTS + found.trailing_zeros() as usize) as u16)
    })
}

/// The last port from `first` to `last` that has its bit in the words of `word_of`.
pub(super) fn last_where(first: u16, last: u16, word_of: impl Fn(usize) -> usize) -> Option<u16> {
    words(first, last).rev().find_map(|(index, mask)| {
        let found = word_of(index) & mask;
        (found != 0).then(|| (index * WORD_PORTS + found.ilog2() as usize) as u16)
    })
}

impl<M: Mmu> Spaces<'_, M> {
    fn word_at(space: &Space, index: usize) -> PhysAddr {
        let frame = space.ports.bits[index / FRAME_WORDS].get();
        PhysAddr(frame.0 + (index % FRAME_WORDS * size_of::<usize>()) as u64)
    }

    /// Word `index` of the bits of `space`, which has bits: ports that its code can reach.
    pub(super) fn shown_word(&self, space: &Space, index: usize) -> usize {
        !self.machine.read(Self::word_at(space, index))
    }

    /// Word `index` of the ports that `space` has.
    pub(super) fn open_word(&self, space: &Space, index: usize) -> usize {
        match space.is_sigma0() {
            true => usize::MAX,
            false if space.ports.has_bits() => self.shown_word(space, index),
            false => 0,
        }
    }

    /// Opens the ports in `mask`.
    pub(super) fn open_in_word(&self, space: &Space, index: usize, mask: usize) {
        self.machine.update(Self::word_at(space, index), mask, 0);
    }

    /// Closes the ports in `mask`; whether any was open.
    pub(super) fn close_in_word(&self, space: &Space, index: usize, mask: usize) -> bool {
        let was_open = self.shown_word(space, index) & mask;
        if was_open != 0 {
            self.machine.update(Self::word_at(space, index), 0, was_open);
        }
        was_open != 0
    }

    /// The first open port from `first` to `last`.
    pub(super) fn first_open(&self, space: &Space, first: u16, last: u16) -> Option<u16> {
        first_where(first, last, |index| self.open_word(space, index))
    }

    /// The last open port from `first` to `last`.
    pub(super) fn last_open(&self, space: &Space, first: u16, last: u16) -> Option<u16> {
        last_where(first, last, |index| self.open_word(space, index))
    }
}
