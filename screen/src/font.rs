//! The font: Noto Sans Mono, as a picture of each printable character of ASCII.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

/// Pixels of a character from left to right.
pub const WIDTH: usize = get_raster_width(FontWeight::Regular, RasterHeight::Size16);
/// Pixels from top to bottom.
pub const HEIGHT: usize = RasterHeight::Size16.val();

/// How light the pixels of a character are, from 0 to 255: rows from top to bottom. What the font does not have looks like
/// a question mark.
pub fn rows(character: u8) -> impl Iterator<Item = &'static [u8]> {
    let raster = |byte: u8| get_raster(char::from(byte), FontWeight::Regular, RasterHeight::Size16);
    let printable = if matches!(character, b' '..=b'~') { character } else { b'?' };
    raster(printable).into_iter().flat_map(|raster| raster.rows())
}
