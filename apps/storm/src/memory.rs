//! Pages that threads of several spaces share.

use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use l4::{Fpage, Rights, Word};

/// log2 of the size of a page.
pub const PAGE_LOG2: u32 = 12;
/// Words of a page.
pub const PAGE_WORDS: usize = 512;

/// A page of words.
#[repr(C, align(4096))]
pub struct Page([AtomicU64; PAGE_WORDS]);

impl Page {
    /// Zeros.
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; PAGE_WORDS])
    }

    /// Its words.
    pub fn words(&self) -> &[AtomicU64; PAGE_WORDS] {
        &self.0
    }

    /// Its address.
    pub fn address(&self) -> Word {
        (&raw const *self).expose_provenance() as Word
    }

    /// It as an fpage.
    pub fn fpage(&self, rights: Rights) -> Fpage {
        page_at(self.address(), rights)
    }
}

/// The page with this address.
pub fn page_at(address: Word, rights: Rights) -> Fpage {
    Fpage::new(address >> PAGE_LOG2 << PAGE_LOG2, PAGE_LOG2, rights).expect("pages are at multiples of their size")
}

/// log2 of the number of pages in the arena.
const ARENA_LOG2: u32 = 4;
/// Pages in the arena.
pub const ARENA_PAGES: usize = 1 << ARENA_LOG2;

/// Pages that threads map to each other, here and there.
#[repr(C, align(65536))]
pub struct Arena([Page; ARENA_PAGES]);

/// How a page is touched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing is written.
    Read,
    /// The processor writes.
    Write,
}

/// The arena.
pub static ARENA: Arena = Arena([const { Page::new() }; ARENA_PAGES]);

impl Arena {
    /// One of the pages.
    pub fn page(&self, index: usize) -> &Page {
        &self.0[index]
    }

    /// All of it.
    pub fn fpage(&self) -> Fpage {
        Fpage::new(self.0[0].address(), PAGE_LOG2 + ARENA_LOG2, Rights::ALL).expect("the arena is aligned")
    }

    /// Reads a page, or writes to it what is there: a pager's late answer may have brought another page here.
    pub fn touch(&self, index: usize, access: Access) {
        let word = &self.0[index].0[index];
        let value = black_box(word.load(Relaxed));
        if access == Access::Write {
            let _ = black_box(word.compare_exchange(value, value, Relaxed, Relaxed));
        }
    }
}
