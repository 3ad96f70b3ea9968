//! Text on a picture of a machine's screen, found by the font that it was drawn with.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use screen::read::{Picture, character};
use screen::{Mode, font};

/// The text mode: characters of 9 by 16 pixels.
const TEXT_SIZE: [usize; 2] = [720, 400];
const TEXT_CELL: [usize; 2] = [9, 16];
/// Where the emulator's packages have the graphics card's own program, which brings the font of the text mode.
const CARDS: [&str; 3] = [
    "/usr/share/seabios/vgabios-stdvga.bin",
    "/usr/share/qemu/vgabios-stdvga.bin",
    "/usr/share/vgabios/vgabios-stdvga.bin",
];
/// How it draws an A.
const LETTER_A: [u8; 16] = [0, 0, 0x10, 0x38, 0x6C, 0xC6, 0xC6, 0xFE, 0xC6, 0xC6, 0xC6, 0xC6, 0, 0, 0, 0];
/// Pixels from here on are light.
const LIGHT: u8 = 0x40;
/// Stands for what is no character of the font.
const UNREADABLE: char = '\u{FFFD}';

/// A picture in the format of the emulator: how light its pixels are.
pub struct Screenshot {
    width: usize,
    height: usize,
    lights: Vec<u8>,
}

impl Picture for Screenshot {
    fn width(&self) -> usize {
        self.width
    }

    fn height(&self) -> usize {
        self.height
    }

    fn light(&self, x: usize, y: usize) -> u8 {
        self.lights[y * self.width + x]
    }
}

impl Screenshot {
    /// A picture in the Portable Pixmap format, binary, of three bytes a pixel; all of ours is grey.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut parts = bytes.splitn(4, |byte| *byte == b'\n');
        let mut line =
            || parts.next().and_then(|line| std::str::from_utf8(line).ok()).context("the picture is cut off");
        let (kind, size, depth) = (line()?, line()?, line()?);
        ensure!(kind == "P6" && depth == "255", "the picture has another format");
        let (width, height) = size.split_once(' ').context("the picture has no size")?;
        let (width, height) = (width.parse()?, height.parse()?);
        let lights: Vec<u8> = parts.next().context("the picture is cut off")?.chunks(3).map(|pixel| pixel[0]).collect();
        ensure!(lights.len() == width * height, "the picture is cut off");
        Ok(Self { width, height, lights })
    }

    /// The lines of text, without the blanks at their ends.
    pub fn lines(&self) -> Result<Vec<String>> {
        if [self.width, self.height] == TEXT_SIZE {
            return self.lines_of_text_mode();
        }
        let scale = Mode::scale(self.width, self.height);
        let (columns, rows) = (self.width / (scale * font::WIDTH), self.height / (scale * font::HEIGHT));
        let cell = |row, column| character(self, scale, row, column).map_or(UNREADABLE, char::from);
        Ok((0..rows).map(|row| line((0..columns).map(|column| cell(row, column)))).collect())
    }

    fn lines_of_text_mode(&self) -> Result<Vec<String>> {
        let font = font_of_text_mode()?;
        let [width, height] = TEXT_CELL;
        let (columns, rows) = (self.width / width, self.height / height);
        let cell = |row: usize, column: usize| {
            let row_bits = |y| {
                let light = |x| self.light(column * width + x, row * height + y) >= LIGHT;
                (0..8).fold(0u8, |bits, x| bits << 1 | u8::from(light(x)))
            };
            let bits: Vec<u8> = (0..height).map(row_bits).collect();
            let flipped: Vec<u8> = bits.iter().map(|row| !row).collect();
            let shows = |code: &u8| [&bits, &flipped].contains(&&font[usize::from(*code)]);
            (b' '..=b'~').find(shows).map_or(UNREADABLE, char::from)
        };
        Ok((0..rows).map(|row| line((0..columns).map(|column| cell(row, column)))).collect())
    }
}

fn line(cells: impl Iterator<Item = char>) -> String {
    cells.collect::<String>().trim_end().to_owned()
}

/// The rows of each of the 256 characters.
fn font_of_text_mode() -> Result<Vec<Vec<u8>>> {
    let Some(card) = CARDS.iter().find_map(|file| fs::read(file).ok()) else {
        bail!("the graphics card's program is at none of {CARDS:?}");
    };
    let at = card.windows(LETTER_A.len()).position(|window| window == LETTER_A);
    let start = at.and_then(|at| at.checked_sub(usize::from(b'A') * LETTER_A.len()));
    let font = start.and_then(|start| card.get(start..start + 256 * LETTER_A.len()));
    Ok(font.context("the graphics card has no such font")?.chunks(LETTER_A.len()).map(<[u8]>::to_vec).collect())
}

#[cfg(test)]
mod tests {
    use super::Screenshot;

    fn picture(width: usize, height: usize) -> Vec<u8> {
        [format!("P6\n{width} {height}\n255\n").into_bytes(), vec![0; 3 * width * height]].concat()
    }

    #[test]
    fn a_dark_screen_has_empty_lines() {
        let shot = Screenshot::parse(&picture(800, 600)).expect("a sound picture");
        let lines = shot.lines().expect("any picture has lines");
        assert_eq!(lines, vec![String::new(); 37]);
    }

    #[test]
    fn pictures_of_other_kinds_are_refused() {
        for wrong in [&b"P5\n8 8\n255\n"[..], b"P6\n8 8\n255\n", b"P6\n8\n255\n", b"P6\n8 8\n65535\n", b"", b"P6\n8 8"]
        {
            assert!(Screenshot::parse(wrong).is_err());
        }
    }
}
