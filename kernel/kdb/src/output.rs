//! The terminal, and what is printed on it, a page at a time.

use core::fmt::{self, Write};

/// Keys and characters.
pub trait Terminal {
    /// The next key, as soon as there is one; `None`: there will be no more.
    fn key(&mut self) -> Option<u8>;
    /// The next key, if it comes at once: the rest of what a terminal sends for one key of its keyboard.
    fn key_at_once(&mut self) -> Option<u8> {
        self.key()
    }
    /// Prints a text. Lines end with a line feed.
    fn print(&mut self, text: &str);
}

/// Lines of a page, unless the person wants others.
pub const PAGE_LINES: usize = 24;

/// The escape key.
pub const ESCAPE: u8 = 0x1B;
/// Both codes of the key that takes a character back.
pub const BACKSPACE: [u8; 2] = [0x08, 0x7F];

const MORE: &str = "--- more: space, Enter for a line, q to stop ---";
const ERASE: &str = "\r                                                \r";

/// Where commands print. After a page it waits for a key; who has seen enough makes all further printing fail, which ends
/// the command.
pub struct Output<'t> {
    terminal: &'t mut dyn Terminal,
    /// Lines of a page; 0: there are no pages.
    page: usize,
    left: usize,
    is_stopped: bool,
    /// A key that was read and belongs to what comes next.
    returned: Option<u8>,
}

impl<'t> Output<'t> {
    /// On this terminal, in pages of so many lines.
    pub fn new(terminal: &'t mut dyn Terminal, page: usize) -> Self {
        Self { terminal, page, left: page, is_stopped: false, returned: None }
    }

    /// A new command: a new page, and nobody has had enough.
    pub fn begin(&mut self, page: usize) {
        (self.page, self.left, self.is_stopped) = (page, page, false);
    }

    /// The next key. A person who was asked has seen what was printed.
    pub fn key(&mut self) -> Option<u8> {
        self.left = self.page;
        self.returned.take().or_else(|| self.terminal.key())
    }

    /// The next key if it comes at once, as those of a sequence do.
    pub fn key_at_once(&mut self) -> Option<u8> {
        self.returned.take().or_else(|| self.terminal.key_at_once())
    }

    /// Gives back the key that was read last.
    pub fn return_key(&mut self, key: u8) {
        self.returned = Some(key);
    }

    /// Prints without counting lines.
    pub fn echo(&mut self, text: &str) {
        self.terminal.print(text);
    }

    /// Waits at the end of a page.
    fn turn(&mut self) {
        self.terminal.print(MORE);
        self.left = loop {
            match self.terminal.key() {
                Some(b' ') => break self.page,
                Some(b'\r' | b'\n') => break 1,
                Some(b'q' | b'Q' | ESCAPE) | None => {
                    self.is_stopped = true;
                    break self.page;
                }
                Some(_) => {}
            }
        };
        self.terminal.print(ERASE);
    }
}

impl Write for Output<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive('\n') {
            if self.is_stopped {
                return Err(fmt::Error);
            }
            self.terminal.print(part);
            if part.ends_with('\n') && self.page > 0 {
                self.left = self.left.saturating_sub(1);
                if self.left == 0 {
                    self.turn();
                }
            }
        }
        Ok(())
    }
}
