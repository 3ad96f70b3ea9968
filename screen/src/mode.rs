//! What a screen is like.

use kformats::multiboot::{Framebuffer, FramebufferKind};

use crate::font;

/// Most characters of a line that are used.
pub const COLUMNS_MAX: usize = 280;
/// Most lines that are used.
pub const ROWS_MAX: usize = 100;

/// From this width or height on, characters have twice the size: else nobody could read them.
const LARGE_WIDTH: usize = 2048;
const LARGE_HEIGHT: usize = 1440;
/// No screen has more pixels than this in a direction.
const PIXELS_MAX: u32 = 1 << 14;

/// A screen whose description makes sense. The memory is that from `address` on, [`Mode::bytes`] of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mode {
    /// Physical address of its first byte.
    pub address: u64,
    pub(crate) pitch: usize,
    pub(crate) columns: usize,
    pub(crate) rows: usize,
    pub(crate) cells: Cells,
    pixel_rows: usize,
}

/// What a character is drawn with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cells {
    /// Its code, and a byte of colours.
    Text,
    /// Pixels.
    Pixels(Pixels),
}

/// How a pixel is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pixels {
    /// Bytes of a pixel: 3 or 4.
    pub(crate) bytes: usize,
    /// Where the eight bits of red, green and blue begin.
    pub(crate) shifts: [u8; 3],
    /// Pixels of the screen for one of the font, in both directions.
    pub(crate) scale: usize,
}

impl Mode {
    /// The screen that a boot loader describes; `None` for one that nothing is drawn on here: with a palette, with
    /// other pixels than three or four bytes of eight bits each, without room for a character, or of impossible sizes or place.
    pub fn new(screen: &Framebuffer) -> Option<Self> {
        let pitch = screen.pitch as usize;
        let is_possible = screen.width <= PIXELS_MAX && screen.height <= PIXELS_MAX && pitch <= 8 * PIXELS_MAX as usize;
        if !is_possible || screen.address == 0 || screen.address % 4 != 0 {
            return None;
        }
        let (width, height) = (screen.width as usize, screen.height as usize);
        let (cells, line_bytes, columns, rows) = match screen.kind {
            FramebufferKind::Text => (Cells::Text, 2 * width, width, height),
            FramebufferKind::Indexed => return None,
            FramebufferKind::Rgb(fields) => {
                let bytes = usize::from(screen.bits / 8);
                if !matches!(screen.bits, 24 | 32)
                    || fields
                        .iter()
                        .any(|field| field.size != 8 || u32::from(field.position) + 8 > u32::from(screen.bits))
                {
                    return None;
                }
                let scale = Self::scale(width, height);
                let pixels = Pixels { bytes, shifts: fields.map(|field| field.position), scale };
                let (columns, rows) = (width / (scale * font::WIDTH), height / (scale * font::HEIGHT));
                (Cells::Pixels(pixels), bytes * width, columns, rows)
            }
        };
        let (columns, rows) = (columns.min(COLUMNS_MAX), rows.min(ROWS_MAX));
        let mode = Self { address: screen.address, pitch, columns, rows, cells, pixel_rows: height };
        let is_inside = line_bytes <= pitch && mode.address.checked_add(mode.bytes() as u64).is_some();
        (columns > 0 && rows > 0 && is_inside).then_some(mode)
    }

    /// Pixels of a screen of this size for one of the font, in both directions.
    pub const fn scale(width: usize, height: usize) -> usize {
        if width >= LARGE_WIDTH || height >= LARGE_HEIGHT { 2 } else { 1 }
    }

    /// Bytes of the screen's memory.
    pub const fn bytes(&self) -> usize {
        self.pitch * self.pixel_rows
    }

    /// Whether the screen itself knows what characters look like, and has a cursor.
    pub const fn is_text(&self) -> bool {
        matches!(self.cells, Cells::Text)
    }

    /// Characters of a line.
    pub const fn columns(&self) -> usize {
        self.columns
    }

    /// Lines.
    pub const fn rows(&self) -> usize {
        self.rows
    }
}
