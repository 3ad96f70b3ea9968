//! Drawing cells.

use crate::font;
use crate::mode::{Cells, Mode, Pixels};

/// Who can write to the memory of a screen. All that is written is below [`Mode::bytes`].
pub trait Canvas {
    /// Writes a byte.
    fn put_byte(&mut self, offset: usize, byte: u8);

    /// Writes four bytes, the lowest first, at an offset that is a multiple of four.
    fn put_word(&mut self, offset: usize, word: u32);
}

/// Who can read the memory of a screen again.
pub trait Glass: Canvas {
    /// A byte below [`Mode::bytes`].
    fn byte(&self, offset: usize) -> u8;
}

/// Writes `bytes` from `offset` on, as much as possible in words: each access to a screen is dear.
fn write(canvas: &mut impl Canvas, offset: usize, bytes: &[u8]) {
    let head = (offset.next_multiple_of(4) - offset).min(bytes.len());
    let (head, rest) = bytes.split_at(head);
    let mut words = rest.chunks_exact(4);
    let middle = offset + head.len();
    let end = middle + 4 * words.len();
    (offset..).zip(head).for_each(|(at, byte)| canvas.put_byte(at, *byte));
    for (at, word) in (middle..).step_by(4).zip(&mut words) {
        canvas.put_word(at, u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    }
    (end..).zip(words.remainder()).for_each(|(at, byte)| canvas.put_byte(at, *byte));
}

/// How a character looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Style {
    /// Light on dark.
    #[default]
    Plain,
    /// Dark on light.
    Inverse,
}

/// The largest row of pixels of a character, in bytes.
const ROW_BYTES_MAX: usize = 2 * font::WIDTH * 4;
/// Bytes that are cleared at a time.
const BLANK_BYTES: usize = 256;

impl Style {
    /// The colours of a text cell: grey on black, black on grey.
    const fn colours(self) -> u8 {
        match self {
            Self::Plain => 0x07,
            Self::Inverse => 0x70,
        }
    }

    /// The light of a pixel that the font has as `light`.
    const fn light(self, light: u8) -> u8 {
        match self {
            Self::Plain => light,
            Self::Inverse => 0xFF - light,
        }
    }
}

/// A screen that can be drawn on.
#[derive(Debug)]
pub struct Surface<C> {
    mode: Mode,
    canvas: C,
}

impl<C: Canvas> Surface<C> {
    /// The screen, as it looks now.
    pub const fn new(mode: Mode, canvas: C) -> Self {
        Self { mode, canvas }
    }

    /// What it is like.
    pub const fn mode(&self) -> &Mode {
        &self.mode
    }

    /// Who writes to it.
    pub const fn canvas(&mut self) -> &mut C {
        &mut self.canvas
    }

    /// Makes all of it dark.
    pub fn clear(&mut self) {
        let mut blank = [0; BLANK_BYTES];
        if matches!(self.mode.cells, Cells::Text) {
            blank.chunks_exact_mut(2).for_each(|cell| cell.copy_from_slice(&[b' ', Style::Plain.colours()]));
        }
        for start in (0..self.mode.bytes()).step_by(BLANK_BYTES) {
            let len = BLANK_BYTES.min(self.mode.bytes() - start);
            write(&mut self.canvas, start, &blank[..len]);
        }
    }

    /// Draws a character. Nothing happens outside the screen.
    pub fn draw(&mut self, row: usize, column: usize, character: u8, style: Style) {
        if row >= self.mode.rows || column >= self.mode.columns {
            return;
        }
        match self.mode.cells {
            Cells::Text => {
                let shown = if matches!(character, b' '..=b'~') { character } else { b'?' };
                write(&mut self.canvas, row * self.mode.pitch + 2 * column, &[shown, style.colours()]);
            }
            Cells::Pixels(pixels) => self.draw_pixels(pixels, row, column, character, style),
        }
    }

    fn draw_pixels(&mut self, pixels: Pixels, row: usize, column: usize, character: u8, style: Style) {
        let left = column * font::WIDTH * pixels.scale * pixels.bytes;
        let top = row * font::HEIGHT * pixels.scale;
        for (y, lights) in font::rows(character).enumerate() {
            let mut line = [0; ROW_BYTES_MAX];
            let targets = line.chunks_exact_mut(pixels.bytes);
            let sources = lights.iter().flat_map(|light| core::iter::repeat_n(*light, pixels.scale));
            for (target, light) in targets.zip(sources) {
                target.copy_from_slice(&pixels.grey(style.light(light))[..pixels.bytes]);
            }
            let len = lights.len() * pixels.scale * pixels.bytes;
            for copy in 0..pixels.scale {
                let offset = (top + y * pixels.scale + copy) * self.mode.pitch + left;
                write(&mut self.canvas, offset, &line[..len]);
            }
        }
    }
}

impl<C: Glass> Surface<C> {
    /// The printable character that stands in a cell, drawn plainly; `None` if there is something else, or no cell.
    ///
    /// Reading is dear: a byte of each pixel of the font.
    pub fn read(&self, row: usize, column: usize) -> Option<u8> {
        if row >= self.mode.rows || column >= self.mode.columns {
            return None;
        }
        let character = match self.mode.cells {
            Cells::Text => Some(self.canvas.byte(row * self.mode.pitch + 2 * column)),
            Cells::Pixels(pixels) => self.read_pixels(pixels, row, column),
        };
        character.filter(|character| matches!(character, b' '..=b'~'))
    }

    fn read_pixels(&self, pixels: Pixels, row: usize, column: usize) -> Option<u8> {
        let light = |x: usize, y: usize| {
            let (left, top) = ((column * font::WIDTH + x) * pixels.scale, (row * font::HEIGHT + y) * pixels.scale);
            let offset = top * self.mode.pitch + left * pixels.bytes + usize::from(pixels.shifts[0] / 8);
            self.canvas.byte(offset)
        };
        let mut seen = [[0; font::WIDTH]; font::HEIGHT];
        for (y, lights) in seen.iter_mut().enumerate() {
            lights.iter_mut().enumerate().for_each(|(x, seen)| *seen = light(x, y));
        }
        (b' '..=b'~').find(|character| font::rows(*character).zip(&seen).all(|(drawn, seen)| drawn == seen))
    }

    /// Hands out what stands on the screen, from top to bottom: the characters of each line up to the last one, and a line
    /// end. Nothing is said of what is below the last line with text. A line ends where there is nothing for long.
    pub fn read_lines(&self, mut take: impl FnMut(u8)) {
        const LONG: usize = 16;
        let mut empty_lines = 0;
        for row in 0..self.mode.rows {
            let mut blanks = 0;
            let mut has_text = false;
            for column in 0..self.mode.columns {
                match self.read(row, column).filter(|character| *character != b' ') {
                    None => blanks += 1,
                    Some(character) => {
                        (0..core::mem::take(&mut empty_lines)).for_each(|_| take(b'\n'));
                        (0..core::mem::take(&mut blanks)).for_each(|_| take(b' '));
                        take(character);
                        has_text = true;
                    }
                }
                if blanks == LONG {
                    break;
                }
            }
            if has_text { take(b'\n') } else { empty_lines += 1 }
        }
    }
}

impl Pixels {
    /// The bytes of a pixel that is grey.
    fn grey(self, light: u8) -> [u8; 4] {
        let bits = self.shifts.iter().fold(0, |bits, shift| bits | u32::from(light) << shift);
        bits.to_le_bytes()
    }
}
