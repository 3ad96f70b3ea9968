//! Memory of devices, from sigma0.

use l4::{Fpage, Rights, Word, sigma0};

use super::memory;

/// The page of a device at its own address, with all rights; `None` if sigma0 does not give it.
pub fn request(page: Word) -> Option<Word> {
    let fpage = Fpage::new(page, memory::PAGE_LOG2, Rights::ALL)?;
    // SAFETY: nothing of this program is below its image.
    let given = unsafe { sigma0::get_page(fpage) };
    given.ok()?.map(|_| page)
}
