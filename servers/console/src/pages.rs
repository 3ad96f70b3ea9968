//! What was printed, cut into pages of the size of the screen. A page never changes its place, so a person can name it and
//! take a picture of each.

use screen::COLUMNS_MAX;

/// Lines of text that are kept, at least but for a page.
const LINES_KEPT: usize = 2048;

/// A character that is none.
pub const BLANK: u8 = 0;

/// What a character came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing that can be seen.
    Nothing,
    /// This cell of the last page has a new character.
    Cell {
        /// Its line on the page.
        row: usize,
        /// Its column.
        column: usize,
    },
    /// There is a new last page.
    Page,
}

/// The text.
pub struct Pages {
    lines: [[u8; COLUMNS_MAX]; LINES_KEPT],
    columns: usize,
    rows: usize,
    /// Lines that were ended, which is the number of the one that is being written.
    ended: usize,
    column: usize,
    /// It was ended, too, and the next one begins with the next character: a page stays until there is more to show.
    is_over: bool,
}

impl Pages {
    /// Nothing was printed, on pages of no size. All is zero, so that it takes no room in the program's file.
    pub const EMPTY: Self =
        Self { lines: [[BLANK; COLUMNS_MAX]; LINES_KEPT], columns: 0, rows: 0, ended: 0, column: 0, is_over: false };

    /// Has pages of this size from now on; what was printed is gone. Sizes out of reach count as the nearest.
    pub fn start(&mut self, rows: usize, columns: usize) {
        (self.rows, self.columns) = (rows.clamp(1, LINES_KEPT), columns.clamp(1, COLUMNS_MAX));
        (self.ended, self.column, self.is_over) = (0, 0, false);
        self.lines[0] = [BLANK; COLUMNS_MAX];
    }

    /// Whether nothing was printed.
    pub fn is_empty(&self) -> bool {
        (self.ended, self.column, self.is_over) == (0, 0, false)
    }

    /// Lines that are kept: whole pages.
    fn kept(&self) -> usize {
        LINES_KEPT / self.rows() * self.rows()
    }

    /// Columns of a page.
    pub fn columns(&self) -> usize {
        self.columns.max(1)
    }

    /// Lines of a page.
    pub fn rows(&self) -> usize {
        self.rows.max(1)
    }

    /// The number of the page that is being written, from 0.
    pub fn last(&self) -> usize {
        self.ended / self.rows()
    }

    /// The number of the first page that is still there.
    pub fn first(&self) -> usize {
        (self.last() + 1).saturating_sub(self.kept() / self.rows())
    }

    /// A line of a page. What is not there is blank.
    pub fn line(&self, page: usize, row: usize) -> &[u8] {
        const NOTHING: &[u8; COLUMNS_MAX] = &[BLANK; COLUMNS_MAX];
        let line = page * self.rows() + row;
        let is_there = page >= self.first() && row < self.rows() && line <= self.ended;
        let cells = if is_there { &self.lines[line % self.kept()] } else { NOTHING };
        &cells[..self.columns()]
    }

    /// Prints a character. A tab goes to the next multiple of eight; other control characters than that and line ends
    /// print nothing.
    pub fn put(&mut self, character: u8) -> Change {
        match character {
            b'\n' => {
                let begun = self.begin_line();
                self.is_over = true;
                begun
            }
            b'\t' => {
                let begun = self.begin_line();
                self.column = (self.column + 8) / 8 * 8;
                begun
            }
            0..b' ' | 0x7F => Change::Nothing,
            _ => {
                self.is_over |= self.column >= self.columns();
                let begun = self.begin_line();
                let (line, column) = (self.ended, self.column);
                let kept = self.kept();
                self.lines[line % kept][column] = character;
                self.column += 1;
                if begun == Change::Page { begun } else { Change::Cell { row: line % self.rows(), column } }
            }
        }
    }

    /// Begins the next line if the one before was ended.
    fn begin_line(&mut self) -> Change {
        if !core::mem::take(&mut self.is_over) {
            return Change::Nothing;
        }
        self.column = 0;
        let before = self.last();
        self.ended += 1;
        let kept = self.kept();
        self.lines[self.ended % kept] = [BLANK; COLUMNS_MAX];
        if self.last() == before { Change::Nothing } else { Change::Page }
    }
}

#[cfg(test)]
mod tests {
    use std::boxed::Box;
    use std::format;
    use std::string::{String, ToString};
    use std::vec::Vec;

    use super::*;

    fn pages(rows: usize, columns: usize) -> Box<Pages> {
        let mut pages = Box::new(Pages::EMPTY);
        pages.start(rows, columns);
        pages
    }

    fn print(pages: &mut Pages, text: &str) -> Vec<Change> {
        text.bytes().map(|byte| pages.put(byte)).filter(|change| *change != Change::Nothing).collect()
    }

    fn page(pages: &Pages, number: usize) -> Vec<String> {
        let text = |line: &[u8]| {
            let shown = line.iter().map(|byte| if *byte == BLANK { ' ' } else { char::from(*byte) });
            shown.collect::<String>().trim_end().to_string()
        };
        (0..pages.rows()).map(|row| text(pages.line(number, row))).collect()
    }

    #[test]
    fn text_fills_page_after_page() {
        let mut pages = pages(3, 10);
        print(&mut pages, "one\ntwo\n\nfour\r\nlonger than ten\n");
        assert_eq!((pages.first(), pages.last()), (0, 1), "a page that is full stays until there is more");
        assert_eq!(page(&pages, 0), ["one", "two", ""]);
        assert_eq!(page(&pages, 1), ["four", "longer tha", "n ten"]);
        assert_eq!(page(&pages, 2), ["", "", ""]);
        assert_eq!(page(&pages, 3), ["", "", ""]);
    }

    #[test]
    fn changes_say_what_is_to_be_drawn() {
        let mut pages = pages(2, 3);
        let cell = |row, column| Change::Cell { row, column };
        assert_eq!(print(&mut pages, "ab"), [cell(0, 0), cell(0, 1)]);
        assert_eq!(print(&mut pages, "\x07\x1b"), []);
        assert_eq!(print(&mut pages, "cd"), [cell(0, 2), cell(1, 0)]);
        assert_eq!(print(&mut pages, "\n"), []);
        assert_eq!(print(&mut pages, "x"), [Change::Page]);
        assert_eq!(print(&mut pages, "\nabcd"), [cell(1, 0), cell(1, 1), cell(1, 2), Change::Page]);
        assert_eq!(print(&mut pages, "\ta"), [cell(1, 0)], "a tab beyond the end goes to the next line");
    }

    #[test]
    fn old_pages_give_way() {
        let mut pages = pages(50, 20);
        for i in 0..5000 {
            print(&mut pages, &format!("line {i}\n"));
        }
        assert_eq!((pages.first(), pages.last()), (60, 99));
        assert_eq!(page(&pages, 60)[0], "line 3000");
        assert_eq!(page(&pages, 99)[49], "line 4999");
        assert_eq!(page(&pages, 59)[0], "");
    }

    #[test]
    fn any_size_and_any_text_will_do() {
        let mut pages = Box::new(Pages::EMPTY);
        let mut seed = 7u32;
        let mut draw = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed >> 16
        };
        for _ in 0..50 {
            pages.start(draw() as usize % 3000, draw() as usize % 300);
            for _ in 0..5000 {
                let byte = if draw() % 4 == 0 { b'\n' } else { draw() as u8 };
                if let Change::Cell { row, column } = pages.put(byte) {
                    assert_eq!(pages.line(pages.last(), row)[column], byte);
                }
            }
        }
    }
}
