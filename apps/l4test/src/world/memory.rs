//! Pages to map, and places to map them to.

use core::sync::atomic::Ordering::Relaxed;

use super::image;
use crate::arch;
use crate::failure::Failure;
use l4::{AtomicWord, Fpage, MapItem, Rights, WORD_SIZE, Word, space};

/// log2 of the size of a page.
pub const PAGE_LOG2: u32 = 12;
/// Size of a page.
pub const PAGE_SIZE: Word = 1 << PAGE_LOG2;

/// Pages that tests may use.
pub const PAGES: usize = 16;

/// A page of the program's image.
#[repr(C, align(4096))]
pub struct Page {
    words: [AtomicWord; PAGE_SIZE as usize / WORD_SIZE],
}

static ALL_PAGES: [Page; PAGES] = [const { Page { words: [const { AtomicWord::new(0) }; 512] } }; PAGES];

/// Page `index`, below [`PAGES`]. What is in it is left from earlier tests. All follow each other in memory.
pub fn page(index: usize) -> &'static Page {
    &ALL_PAGES[index]
}

/// The last page of user memory.
pub fn last_user_page() -> Result<Word, Failure> {
    let last = l4::kip::last_user_address().ok_or(Failure::new("user memory has no end"))?;
    Ok(last & !(PAGE_SIZE - 1))
}

impl Page {
    /// Its address in the program's space.
    pub fn address(&self) -> Word {
        (&raw const *self).expose_provenance() as Word
    }

    /// Its fpage in the program's space.
    pub fn fpage(&self, rights: Rights) -> Fpage {
        fpage(self.address(), PAGE_LOG2, rights)
    }

    /// The item that maps it.
    pub fn map_to(&self, snd_base: Word, rights: Rights) -> MapItem {
        MapItem::map(self.fpage(rights), snd_base)
    }

    /// Its first word.
    pub fn get(&self) -> Word {
        self.words[0].load(Relaxed)
    }

    /// Sets its first word.
    pub fn set(&self, value: Word) {
        self.words[0].store(value, Relaxed);
    }

    /// The byte at an offset.
    pub fn byte(&self, offset: usize) -> u8 {
        self.words[offset / WORD_SIZE].load(Relaxed).to_ne_bytes()[offset % WORD_SIZE]
    }

    /// Sets all bytes, each to what `byte` says of its offset.
    pub fn fill(&self, byte: impl Fn(usize) -> u8) {
        for (i, word) in self.words.iter().enumerate() {
            let bytes = core::array::from_fn(|in_word| byte(i * WORD_SIZE + in_word));
            word.store(Word::from_ne_bytes(bytes), Relaxed);
        }
    }
}

/// log2 of the size of the playground.
const PLAYGROUND_LOG2: u32 = 36;
const PLAYGROUND: Word = 1 << PLAYGROUND_LOG2;

/// Addresses, in every space, where nothing is but what tests map there.
pub fn playground() -> Fpage {
    fpage(PLAYGROUND, PLAYGROUND_LOG2, Rights::NONE)
}

/// The address at an offset in the playground.
///
/// # Panics
/// Outside.
pub fn at(offset: Word) -> Word {
    assert!(offset < PLAYGROUND, "the playground ends");
    PLAYGROUND + offset
}

/// A window in the playground: 2^`size_log2` bytes at an offset that is a multiple of that.
pub fn window(offset: Word, size_log2: u32) -> Fpage {
    fpage(at(offset), size_log2, Rights::NONE)
}

/// Whether all of an fpage is in the playground.
pub fn is_in_playground(fpage: Fpage) -> bool {
    fpage.is_nil() || (playground().contains(fpage.base()) && playground().contains(fpage.last()))
}

/// An fpage with a base that is a multiple of its size.
///
/// # Panics
/// If it is not.
pub fn fpage(base: Word, size_log2: u32, rights: Rights) -> Fpage {
    Fpage::new(base, size_log2, rights).expect("the base is a multiple of the size")
}

/// Reads the word at an address outside the image: of the playground, of a page of the kernel's, or of nothing. A fault
/// goes to the thread's pager. The instruction is at the address of [`arch::read_at`].
///
/// # Panics
/// Inside the image.
pub fn read(address: Word) -> Word {
    assert!(!image::contains(address), "objects are not read as words");
    // SAFETY: no object of this program is there.
    unsafe { arch::read_at(address) }
}

/// Writes the word at an address outside the image; see [`read`], and [`arch::write_at`].
///
/// # Panics
/// Inside the image.
pub fn write(address: Word, value: Word) {
    assert!(!image::contains(address), "objects are not written as words");
    // SAFETY: no object of this program is there.
    unsafe { arch::write_at(address, value) };
}

/// Calls the code at an address outside the image, where tests put nothing but functions from [`arch`] that change no
/// memory.
///
/// # Panics
/// Inside the image.
pub fn execute(address: Word) {
    assert!(!image::contains(address), "only code of tests is executed so");
    // SAFETY: if there is a page, the code in it returns, and changes what any function may change.
    unsafe { arch::execute_at(address) };
}

/// Puts code into page 0, or a part that is on its border into pages 0 and 1, such that `before` bytes of it are in page 0.
/// The offset at which it begins.
pub fn put_code(code: &[u8], before: usize) -> Word {
    let start = PAGE_SIZE as usize - before;
    let byte = |offset: usize| offset.checked_sub(start).and_then(|index| code.get(index)).copied().unwrap_or(0);
    page(0).fill(byte);
    page(1).fill(|offset| byte(PAGE_SIZE as usize + offset));
    start as Word
}

/// Removes what a test has mapped to the playground of the program's space.
pub fn clear_playground() {
    // SAFETY: no object is there.
    unsafe { space::flush(&mut [playground().with_rights(Rights::ALL)]) };
}
