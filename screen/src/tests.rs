use core::fmt::Write;

use kformats::multiboot::{Field, Framebuffer, FramebufferKind};

use crate::read::{Picture, character};
use crate::{COLUMNS_MAX, Canvas, Glass, Mode, Style, Surface, Terminal, font};

/// A screen's memory, which remembers how much was written to it.
struct Memory {
    bytes: Vec<u8>,
    written: usize,
}

impl Canvas for Memory {
    fn put_byte(&mut self, offset: usize, byte: u8) {
        self.bytes[offset] = byte;
        self.written += 1;
    }

    fn put_word(&mut self, offset: usize, word: u32) {
        assert!(offset % 4 == 0, "words are aligned");
        self.bytes[offset..offset + 4].copy_from_slice(&word.to_le_bytes());
        self.written += 4;
    }
}

impl Glass for Memory {
    fn byte(&self, offset: usize) -> u8 {
        self.bytes[offset]
    }
}

const RGB: FramebufferKind = FramebufferKind::Rgb([
    Field { position: 16, size: 8 },
    Field { position: 8, size: 8 },
    Field { position: 0, size: 8 },
]);

fn pixels(width: u32, height: u32, bits: u8) -> Framebuffer {
    let pitch = width * u32::from(bits) / 8 + 24;
    Framebuffer { address: 0xFD00_0000, pitch, width, height, bits, kind: RGB }
}

const TEXT: Framebuffer =
    Framebuffer { address: 0xB_8000, pitch: 160, width: 80, height: 25, bits: 16, kind: FramebufferKind::Text };

fn surface(screen: &Framebuffer) -> Surface<Memory> {
    let mode = Mode::new(screen).expect("a sound screen");
    // Anything but dark, so that it must be cleared.
    Surface::new(mode, Memory { bytes: vec![0x55; mode.bytes()], written: 0 })
}

/// A framebuffer as a person sees it.
struct Seen<'a> {
    screen: Framebuffer,
    bytes: &'a [u8],
}

impl Picture for Seen<'_> {
    fn width(&self) -> usize {
        self.screen.width as usize
    }

    fn height(&self) -> usize {
        self.screen.height as usize
    }

    fn light(&self, x: usize, y: usize) -> u8 {
        let at = y * self.screen.pitch as usize + x * usize::from(self.screen.bits / 8);
        assert!(self.bytes[at] == self.bytes[at + 1] && self.bytes[at] == self.bytes[at + 2], "all is grey");
        self.bytes[at]
    }
}

/// The lines of a screen, without the blanks at their ends.
fn lines(surface: &mut Surface<Memory>, screen: &Framebuffer) -> Vec<String> {
    let mode = *surface.mode();
    let bytes = &surface.canvas().bytes;
    let cell = |row: usize, column: usize| match screen.kind {
        FramebufferKind::Text => bytes[row * screen.pitch as usize + 2 * column],
        _ => {
            let scale = if screen.width >= 2048 { 2 } else { 1 };
            character(&Seen { screen: *screen, bytes }, scale, row, column).expect("a character of the font")
        }
    };
    let line = |row| (0..mode.columns()).map(|column| char::from(cell(row, column))).collect::<String>();
    (0..mode.rows()).map(|row| line(row).trim_end().to_owned()).collect()
}

#[test]
fn text_stands_on_screens_of_all_kinds() {
    for screen in [TEXT, pixels(800, 600, 24), pixels(1280, 800, 32), pixels(2560, 1600, 32)] {
        let mut surface = surface(&screen);
        let mut terminal = Terminal::EMPTY;
        terminal.clear(&mut surface);
        let alphabet: String = (b' '..=b'~').map(char::from).collect();
        let (first, second) = alphabet.split_at(48);
        let _ = write!(terminal.on(&mut surface), "{first}\n{second}\n\n\u{7F}");
        surface.draw(4, 2, b'x', Style::Inverse);
        let lines = lines(&mut surface, &screen);
        assert_eq!(lines[..5], [first.trim_end(), second, "", "?", "  x"], "{screen:?}");
        assert!(lines[5..].iter().all(String::is_empty));
    }
}

#[test]
fn full_screens_scroll() {
    for screen in [TEXT, pixels(640, 480, 32)] {
        let mut surface = surface(&screen);
        let rows = surface.mode().rows();
        let mut terminal = Terminal::EMPTY;
        terminal.clear(&mut surface);
        let count = 2 * rows + 3;
        (0..count).for_each(|i| writeln!(terminal.on(&mut surface), "line {i}").expect("screens take all"));
        let mut expected: Vec<String> = (count - rows + 1..count).map(|i| format!("line {i}")).collect();
        expected.push(String::new());
        assert_eq!(lines(&mut surface, &screen), expected);
    }
}

#[test]
fn long_lines_go_on_in_the_next_one() {
    let mut surface = surface(&TEXT);
    let mut terminal = Terminal::EMPTY;
    terminal.clear(&mut surface);
    let _ = write!(terminal.on(&mut surface), "{}\nend", "x".repeat(81));
    let lines = lines(&mut surface, &TEXT);
    assert_eq!(lines[..3], ["x".repeat(80), "x".to_owned(), "end".to_owned()]);
}

#[test]
fn characters_are_taken_back() {
    let rows = [
        ("abc\x08\x08X", "aXc"),
        ("abc\x08 \x08d", "abd"),
        ("more\r    \rend", "end"),
        ("\x08\x08a", "a"),
        ("ab\r\nc", "ab"),
    ];
    for (text, expected) in rows {
        let mut surface = surface(&TEXT);
        let mut terminal = Terminal::EMPTY;
        terminal.clear(&mut surface);
        terminal.on(&mut surface).write_str(text).expect("screens take all");
        assert_eq!(lines(&mut surface, &TEXT)[0], expected, "{text:?}");
    }
    // A line that was too long for the screen is taken back to its beginning.
    let mut surface = surface(&TEXT);
    let mut terminal = Terminal::EMPTY;
    terminal.clear(&mut surface);
    let _ = write!(terminal.on(&mut surface), "{}{}a", "x".repeat(82), "\x08 \x08".repeat(81));
    assert_eq!(lines(&mut surface, &TEXT)[..2], ["xa", ""]);
}

/// What is written to a screen of pixels is dear: a line that moves up costs what has changed.
#[test]
fn cells_that_stay_are_not_drawn() {
    let screen = pixels(1280, 800, 32);
    let mut surface = surface(&screen);
    let mut terminal = Terminal::EMPTY;
    terminal.clear(&mut surface);
    (0..surface.mode().rows()).for_each(|_| terminal.on(&mut surface).write_str("same\n").expect("takes all"));
    surface.canvas().written = 0;
    terminal.put(&mut surface, b'\n');
    let cell = font::WIDTH * font::HEIGHT * 4;
    // The last line of text is gone, all others show what they showed.
    assert_eq!(surface.canvas().written, 4 * cell);
}

#[test]
fn screens_that_make_no_sense_are_refused() {
    let good = pixels(800, 600, 32);
    assert!(Mode::new(&good).is_some());
    let field = |position, size| Field { position, size };
    let odd = FramebufferKind::Rgb([field(11, 5), field(5, 6), field(0, 5)]);
    let outside = FramebufferKind::Rgb([field(24, 8), field(8, 8), field(0, 8)]);
    let bad = [
        Framebuffer { address: 0, ..good },
        Framebuffer { address: good.address + 2, ..good },
        Framebuffer { address: u64::MAX - 100, ..good },
        Framebuffer { width: 0, ..good },
        Framebuffer { width: 3, ..good },
        Framebuffer { height: 15, ..good },
        Framebuffer { width: u32::MAX, ..good },
        Framebuffer { height: u32::MAX, ..good },
        Framebuffer { pitch: 3199, ..good },
        Framebuffer { pitch: u32::MAX, ..good },
        Framebuffer { bits: 16, ..good },
        Framebuffer { bits: 15, kind: odd, ..good },
        Framebuffer { bits: 16, kind: odd, ..good },
        Framebuffer { bits: 24, kind: outside, ..good },
        Framebuffer { kind: FramebufferKind::Indexed, ..good },
        Framebuffer { pitch: 159, ..TEXT },
    ];
    for screen in bad {
        assert_eq!(Mode::new(&screen), None, "{screen:?}");
    }
}

/// Whatever a description says, what is drawn stays in the memory that it comes to.
#[test]
fn nothing_is_written_outside() {
    let mut seed = 0x1234_5678_9ABC_DEF1_u64;
    let mut draw = |limit: u32| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 32) as u32 % limit
    };
    let mut drawn = 0;
    for _ in 0..20_000 {
        let bits = [16, 24, 32][draw(3) as usize];
        let kind = if draw(4) == 0 { FramebufferKind::Text } else { RGB };
        let screen = Framebuffer { address: 4096, pitch: draw(900), width: draw(220), height: draw(70), bits, kind };
        let Some(mode) = Mode::new(&screen) else { continue };
        drawn += 1;
        let mut surface = Surface::new(mode, Memory { bytes: vec![0; mode.bytes()], written: 0 });
        surface.clear();
        for (row, column) in [(0, 0), (mode.rows() - 1, mode.columns() - 1), (mode.rows(), 0), (0, COLUMNS_MAX)] {
            surface.draw(row, column, b'W', Style::Inverse);
        }
    }
    assert!(drawn > 1000, "{drawn} sound screens");
}

/// Whoever gets the screen next can read what stands there, however it is drawn.
#[test]
fn what_was_drawn_is_read_again() {
    for screen in [TEXT, pixels(640, 480, 32), pixels(804, 600, 24), pixels(2560, 1440, 32)] {
        let mut surface = surface(&screen);
        if !surface.mode().is_text() {
            assert_eq!(surface.read(0, 0), None, "grey is no character");
        }
        let mut terminal = Terminal::EMPTY;
        terminal.clear(&mut surface);
        let text = "marcona: 24 lines,  2 gaps\n\n  @{x}~\nlast";
        terminal.on(&mut surface).write_str(text).expect("screens take all");
        surface.draw(5, 0, b'i', Style::Inverse);
        let mut read = Vec::new();
        surface.read_lines(|character| read.push(character));
        // A text mode does not say that a character is inverse.
        let below = if surface.mode().is_text() { "\n\ni\n" } else { "\n" };
        assert_eq!(String::from_utf8_lossy(&read), format!("{text}{below}"));
        assert_eq!(surface.read(surface.mode().rows(), 0), None);
        assert_eq!(surface.read(0, surface.mode().columns()), None);
    }
}
