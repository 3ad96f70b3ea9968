//! Finding text in a picture of a screen: for tests, which look at what a person would see.

use crate::font;

/// A picture: how light each pixel is.
pub trait Picture {
    /// Pixels from left to right.
    fn width(&self) -> usize;
    /// Pixels from top to bottom.
    fn height(&self) -> usize;
    /// The light of a pixel inside.
    fn light(&self, x: usize, y: usize) -> u8;
}

/// The character in a cell of a framebuffer that was drawn by [`crate::Surface`] with pixels of this scale, be it plain or
/// inverse; `None` if it is none of the font.
pub fn character(picture: &impl Picture, scale: usize, row: usize, column: usize) -> Option<u8> {
    let (left, top) = (column * font::WIDTH * scale, row * font::HEIGHT * scale);
    if left + font::WIDTH * scale > picture.width() || top + font::HEIGHT * scale > picture.height() {
        return None;
    }
    let shows = |character: &u8, flip: u8| {
        let rows = font::rows(*character).enumerate();
        rows.flat_map(|(y, lights)| lights.iter().enumerate().map(move |(x, light)| (x, y, *light)))
            .all(|(x, y, light)| picture.light(left + x * scale, top + y * scale) == light ^ flip)
    };
    (b' '..=b'~')
        .find(|character| shows(character, 0))
        .or_else(|| (b' '..=b'~').find(|character| shows(character, 0xFF)))
}
