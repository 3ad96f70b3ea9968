//! The program's image, which the threads of other spaces run too.

use l4::{Fpage, MapItem, Rights, Word};

/// log2 of the image's place: 4 MiB that it begins and does not leave, by the linker script.
const PLACE_LOG2: u32 = 22;

unsafe extern "C" {
    /// First byte of the image, by the linker script.
    static image_start: u8;
    /// The first byte behind the image, by the linker script.
    static image_end: u8;
}

fn start() -> Word {
    (&raw const image_start).addr() as Word
}

fn end() -> Word {
    (&raw const image_end).addr() as Word
}

/// Whether the address is in the image.
pub fn contains(address: Word) -> bool {
    (start()..end()).contains(&address)
}

/// Whether a part of the image is in an fpage.
pub fn overlaps(fpage: &Fpage) -> bool {
    !fpage.is_nil() && fpage.base() < end() && fpage.last() >= start()
}

/// The item that maps all of the image to where it is, at once.
pub fn map_item() -> MapItem {
    assert!(end() - start() <= 1 << PLACE_LOG2, "the image is not larger than its place");
    let place = Fpage::new(start(), PLACE_LOG2, Rights::ALL).expect("the image begins at a large page");
    MapItem::map(place, start())
}
