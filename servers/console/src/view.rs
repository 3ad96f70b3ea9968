//! The page that is shown, and below it a line that says which one that is and which keys there are.

use core::fmt::{self, Write};

use keys::Key;
use screen::{COLUMNS_MAX, Canvas, Glass, ROWS_MAX, Style, Surface};

use crate::pages::{BLANK, Change, Pages};

/// What the line below says behind the number of the page.
const KEYS: &str = "PgUp PgDn: pages, Ctrl-Alt-Del: restart";
/// The same when the program has ended, beside how it did.
const LAST_KEYS: &str = "PgUp PgDn: pages, Esc: off";

/// A screen with a page on it.
pub struct View<C> {
    surface: Surface<C>,
    page: usize,
    /// What each cell shows.
    shown: &'static mut [[u8; COLUMNS_MAX]; ROWS_MAX],
    /// How the program ended.
    status: Option<u8>,
}

impl<C: Glass> View<C> {
    /// Takes the screen over and has pages of its size, on which stands first what is on the screen now: what the kernel said
    /// while it booted. `shown` is a place to remember what is on it.
    pub fn start(
        mut surface: Surface<C>,
        pages: &mut Pages,
        shown: &'static mut [[u8; COLUMNS_MAX]; ROWS_MAX],
    ) -> Self {
        pages.start(surface.mode().rows().saturating_sub(1), surface.mode().columns());
        surface.read_lines(|character| _ = pages.put(character));
        surface.clear();
        *shown = [[BLANK; COLUMNS_MAX]; ROWS_MAX];
        let mut view = Self { surface, page: 0, shown, status: None };
        view.show(pages, pages.last());
        view
    }
}

impl<C: Canvas> View<C> {
    /// Shows what came of a character that was printed: the last page is followed, others are left.
    pub fn follow(&mut self, pages: &Pages, change: Change, was_last: usize) {
        match change {
            Change::Nothing => {}
            Change::Cell { row, column } if self.page == pages.last() => {
                self.set(row, column, pages.line(self.page, row)[column]);
            }
            Change::Cell { .. } => {}
            Change::Page if self.page == was_last || self.page < pages.first() => self.show(pages, pages.last()),
            Change::Page => self.show_status(pages),
        }
    }

    /// Does what a key asks for, if it is about pages.
    pub fn turn(&mut self, pages: &Pages, key: Key) {
        let page = match key {
            Key::PageUp => self.page.saturating_sub(1).max(pages.first()),
            Key::PageDown => (self.page + 1).min(pages.last()),
            Key::Home => pages.first(),
            Key::End => pages.last(),
            _ => return,
        };
        self.show(pages, page);
    }

    /// Shows the page once more, after somebody else has drawn on the screen.
    pub fn redraw(&mut self, pages: &Pages) {
        self.surface.clear();
        *self.shown = [[BLANK; COLUMNS_MAX]; ROWS_MAX];
        self.show(pages, self.page);
    }

    /// Shows that the program has ended.
    pub fn end(&mut self, pages: &Pages, status: u8) {
        self.status = Some(status);
        self.show_status(pages);
    }

    fn show(&mut self, pages: &Pages, page: usize) {
        self.page = page;
        for row in 0..pages.rows() {
            for (column, character) in pages.line(page, row).iter().enumerate() {
                self.set(row, column, *character);
            }
        }
        self.show_status(pages);
    }

    fn set(&mut self, row: usize, column: usize, character: u8) {
        let character = if character == b' ' { BLANK } else { character };
        if self.shown[row][column] != character {
            self.shown[row][column] = character;
            self.surface.draw(row, column, if character == BLANK { b' ' } else { character }, Style::Plain);
        }
    }

    /// Draws the line below, as far as it has changed.
    fn show_status(&mut self, pages: &Pages) {
        let mut line = Line { cells: [b' '; COLUMNS_MAX], len: 0 };
        let (page, last) = (self.page + 1, pages.last() + 1);
        // What is too long for the screen is cut off.
        let _ = write!(line, " Marcona | page {page} of {last} | ");
        let _ = match self.status {
            Some(status) => write!(line, "ended with status {status} | {LAST_KEYS}"),
            None => line.write_str(KEYS),
        };
        let row = pages.rows();
        for column in 0..pages.columns() {
            if self.shown[row][column] != line.cells[column] {
                self.shown[row][column] = line.cells[column];
                self.surface.draw(row, column, line.cells[column], Style::Inverse);
            }
        }
    }
}

/// A line of text.
struct Line {
    cells: [u8; COLUMNS_MAX],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            *self.cells.get_mut(self.len).ok_or(fmt::Error)? = byte;
            self.len += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::boxed::Box;
    use std::format;
    use std::string::{String, ToString};
    use std::vec::Vec;
    use std::{vec, vec::IntoIter};

    use kformats::multiboot::Framebuffer;
    use screen::{Mode, Terminal};

    use super::*;

    struct Memory(Vec<u8>);

    impl Canvas for Memory {
        fn put_byte(&mut self, offset: usize, byte: u8) {
            self.0[offset] = byte;
        }

        fn put_word(&mut self, offset: usize, word: u32) {
            self.0[offset..offset + 4].copy_from_slice(&word.to_le_bytes());
        }
    }

    impl Glass for Memory {
        fn byte(&self, offset: usize) -> u8 {
            self.0[offset]
        }
    }

    struct Server {
        pages: Box<Pages>,
        view: View<Memory>,
    }

    impl Server {
        fn new() -> Self {
            let mode = Mode::new(&Framebuffer::PC_TEXT).expect("a sound screen");
            Self::after(Surface::new(mode, Memory(vec![0; mode.bytes()])))
        }

        /// One that takes over what is on the screen.
        fn after(surface: Surface<Memory>) -> Self {
            let mut pages = Box::new(Pages::EMPTY);
            let shown = Box::leak(Box::new([[BLANK; COLUMNS_MAX]; ROWS_MAX]));
            let view = View::start(surface, &mut pages, shown);
            Self { pages, view }
        }

        fn print(&mut self, text: &str) {
            for byte in text.bytes() {
                let was_last = self.pages.last();
                let change = self.pages.put(byte);
                self.view.follow(&self.pages, change, was_last);
            }
        }

        fn turn(&mut self, key: Key) {
            self.view.turn(&self.pages, key);
        }

        /// The lines of the screen.
        fn lines(&mut self) -> IntoIter<String> {
            let bytes = &self.view.surface.canvas().0;
            let line = |cells: &[u8]| cells.chunks(2).map(|cell| char::from(cell[0])).collect::<String>();
            bytes.chunks(160).map(|cells| line(cells).trim_end().to_string()).collect::<Vec<_>>().into_iter()
        }

        fn check(&mut self, first: &str, status: &str) {
            let lines: Vec<String> = self.lines().collect();
            assert_eq!((&lines[0][..], lines.len()), (first, 25));
            assert!(lines[24].starts_with(&format!(" Marcona | {status} |")), "{}", lines[24]);
        }
    }

    #[test]
    fn the_last_page_is_followed_unless_another_is_looked_at() {
        let mut server = Server::new();
        server.check("", "page 1 of 1");
        (0..30).for_each(|i| server.print(&format!("line {i}\n")));
        server.check("line 24", "page 2 of 2");
        server.turn(Key::PageUp);
        server.check("line 0", "page 1 of 2");
        (30..80).for_each(|i| server.print(&format!("line {i}\n")));
        server.check("line 0", "page 1 of 4");
        server.turn(Key::PageDown);
        server.check("line 24", "page 2 of 4");
        server.turn(Key::End);
        server.check("line 72", "page 4 of 4");
        server.turn(Key::PageDown);
        server.check("line 72", "page 4 of 4");
        server.turn(Key::Home);
        server.turn(Key::PageUp);
        server.check("line 0", "page 1 of 4");
    }

    #[test]
    fn a_page_that_is_gone_is_left() {
        let mut server = Server::new();
        server.turn(Key::Home);
        (0..5000).for_each(|i| server.print(&format!("line {i}\n")));
        let first = server.pages.first();
        server.turn(Key::Home);
        server.check(&format!("line {}", 24 * first), &format!("page {} of 209", first + 1));
    }

    #[test]
    fn what_somebody_drew_is_drawn_over() {
        let mut server = Server::new();
        (0..30).for_each(|i| server.print(&format!("line {i}\n")));
        server.view.surface.draw(3, 3, b'X', Style::Plain);
        server.view.surface.draw(24, 5, b'X', Style::Plain);
        server.view.redraw(&server.pages);
        server.check("line 24", "page 2 of 2");
        assert!(server.lines().all(|line| !line.contains('X')));
    }

    #[test]
    fn what_the_kernel_said_comes_first() {
        let mode = Mode::new(&Framebuffer::PC_TEXT).expect("a sound screen");
        let mut surface = Surface::new(mode, Memory(vec![0x55; mode.bytes()]));
        let mut terminal = Box::new(Terminal::EMPTY);
        terminal.clear(&mut surface);
        (0..40).for_each(|i| writeln!(terminal.on(&mut surface), "marcona: {i}").expect("screens take all"));
        // The last 24 lines and an empty one, of which a page has 24.
        let mut server = Server::after(surface);
        server.print("hello\n");
        server.check("hello", "page 2 of 2");
        server.turn(Key::Home);
        server.check("marcona: 16", "page 1 of 2");
        assert!(Server::new().pages.is_empty());
    }

    #[test]
    fn the_line_below_says_how_it_ended() {
        let mut server = Server::new();
        server.view.end(&server.pages, 3);
        let last = server.lines().next_back().expect("a screen has lines");
        assert!(last.contains("ended with status 3") && last.ends_with("Esc: off"), "{last}");
    }
}
