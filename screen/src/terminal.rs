//! Text that goes on.

use core::fmt;

use crate::mode::{COLUMNS_MAX, ROWS_MAX};
use crate::surface::{Canvas, Style, Surface};

/// A cell that shows nothing. Zero, so that an empty screen takes no room in a program's file.
const BLANK: u8 = 0;

const BACKSPACE: u8 = 0x08;

/// What stands on a screen that scrolls: text begins in the first line, and when the last one is full all lines move up.
#[derive(Debug)]
pub struct Terminal {
    /// What each cell shows.
    cells: [[u8; COLUMNS_MAX]; ROWS_MAX],
    row: usize,
    column: usize,
}

impl Terminal {
    /// An empty screen.
    pub const EMPTY: Self = Self { cells: [[BLANK; COLUMNS_MAX]; ROWS_MAX], row: 0, column: 0 };

    /// Clears the screen.
    pub fn clear(&mut self, surface: &mut Surface<impl Canvas>) {
        surface.clear();
        self.cells.iter_mut().for_each(|row| row.fill(BLANK));
        (self.row, self.column) = (0, 0);
    }

    /// Writes a character, ends the line, or goes back: to the character before, or to the beginning of the line. `surface`
    /// must be the one that was cleared.
    pub fn put(&mut self, surface: &mut Surface<impl Canvas>, character: u8) {
        match character {
            b'\n' => return self.end_line(surface),
            b'\r' => return self.column = 0,
            BACKSPACE => return self.go_back(surface),
            _ => {}
        }
        if self.column == surface.mode().columns() {
            self.end_line(surface);
        }
        self.set(surface, self.row, self.column, character);
        self.column += 1;
    }

    /// Goes to the cell before, in the line above if need be.
    fn go_back(&mut self, surface: &Surface<impl Canvas>) {
        if self.column > 0 {
            self.column -= 1;
        } else if self.row > 0 {
            (self.row, self.column) = (self.row - 1, surface.mode().columns().saturating_sub(1));
        }
    }

    fn end_line(&mut self, surface: &mut Surface<impl Canvas>) {
        self.column = 0;
        if self.row + 1 < surface.mode().rows() {
            self.row += 1;
        } else {
            self.scroll(surface);
        }
    }

    /// Moves all lines up by one.
    fn scroll(&mut self, surface: &mut Surface<impl Canvas>) {
        let (rows, columns) = (surface.mode().rows(), surface.mode().columns());
        for row in 0..rows {
            for column in 0..columns {
                let below = if row + 1 < rows { self.cells[row + 1][column] } else { BLANK };
                self.set(surface, row, column, below);
            }
        }
    }

    /// Makes a cell show a character, and draws it if it showed another one.
    fn set(&mut self, surface: &mut Surface<impl Canvas>, row: usize, column: usize, character: u8) {
        let character = if character == b' ' { BLANK } else { character };
        let cell = &mut self.cells[row][column];
        if *cell != character {
            *cell = character;
            surface.draw(row, column, if character == BLANK { b' ' } else { character }, Style::Plain);
        }
    }

    /// Both, for text to be formatted into.
    pub fn on<'a, C: Canvas>(&'a mut self, surface: &'a mut Surface<C>) -> Writer<'a, C> {
        Writer { terminal: self, surface }
    }
}

/// A terminal with its screen.
#[derive(Debug)]
pub struct Writer<'a, C> {
    terminal: &'a mut Terminal,
    surface: &'a mut Surface<C>,
}

impl<C: Canvas> fmt::Write for Writer<'_, C> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.terminal.put(self.surface, byte));
        Ok(())
    }
}
