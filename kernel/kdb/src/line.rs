//! A line as it is typed: with a cursor, a history and completion.

use arrayvec::ArrayString;

use crate::output::{BACKSPACE, ESCAPE, Output};

/// The longest line.
pub const LINE_MAX: usize = 96;
/// Lines that are kept.
const HISTORY: usize = 8;

const CONTROL_A: u8 = 0x01;
const CONTROL_C: u8 = 0x03;
const CONTROL_D: u8 = 0x04;
const CONTROL_E: u8 = 0x05;
const CONTROL_K: u8 = 0x0B;
const CONTROL_U: u8 = 0x15;
const TAB: u8 = b'\t';

/// A line.
pub type Line = ArrayString<LINE_MAX>;

/// The lines typed last, the newest first.
#[derive(Default)]
pub struct History {
    lines: [Line; HISTORY],
}

impl History {
    /// As it is before anything was typed.
    pub const fn new() -> Self {
        Self { lines: [const { ArrayString::new_const() }; HISTORY] }
    }

    fn add(&mut self, line: &Line) {
        if !line.is_empty() && self.lines[0] != *line {
            self.lines.rotate_right(1);
            self.lines[0] = *line;
        }
    }

    fn get(&self, back: usize) -> Option<&Line> {
        self.lines.get(back.checked_sub(1)?).filter(|line| !line.is_empty())
    }
}

/// How the words go on that can stand where the cursor is: with each of these that begins with what is there.
pub type Words<'w> = &'w dyn Fn(usize) -> Option<&'static str>;

/// A line that is being typed.
struct Edit<'e, 't> {
    out: &'e mut Output<'t>,
    line: Line,
    /// Where the next character goes, in bytes; all of them are ASCII.
    cursor: usize,
}

/// What an escape sequence means.
enum Arrow {
    Up,
    Down,
    Left,
    Right,
    Home,
    End,
    Delete,
    Other,
}

/// How reading a line ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Typed {
    /// With a line.
    Line(Line),
    /// The person does not want to: Escape.
    Escaped,
    /// There are no more keys.
    Ended,
}

/// Reads a line. Tab completes the first word by `words`.
pub fn read(out: &mut Output<'_>, history: &mut History, words: Words<'_>) -> Typed {
    let mut edit = Edit { out, line: Line::new(), cursor: 0 };
    let mut back = 0;
    loop {
        let Some(key) = edit.out.key() else { return Typed::Ended };
        match key {
            b'\r' | b'\n' => {
                edit.out.echo("\n");
                history.add(&edit.line);
                return Typed::Line(edit.line);
            }
            ESCAPE => match edit.escape() {
                None => {
                    edit.out.echo("\n");
                    return Typed::Escaped;
                }
                Some(Arrow::Up) => {
                    if let Some(line) = history.get(back + 1) {
                        back += 1;
                        edit.replace(line);
                    }
                }
                Some(Arrow::Down) => {
                    back = back.saturating_sub(1);
                    edit.replace(history.get(back).map_or("", |line| line.as_str()));
                }
                Some(arrow) => edit.go(&arrow),
            },
            CONTROL_C => {
                edit.out.echo("\n");
                return Typed::Escaped;
            }
            CONTROL_A => edit.go(&Arrow::Home),
            CONTROL_E => edit.go(&Arrow::End),
            CONTROL_D => edit.go(&Arrow::Delete),
            CONTROL_U => edit.replace(""),
            CONTROL_K => edit.cut(),
            TAB => edit.complete(words),
            key if BACKSPACE.contains(&key) => edit.back(),
            key @ b' '..=b'~' => edit.insert(key),
            _ => {}
        }
    }
}

impl Edit<'_, '_> {
    /// The key for which a terminal sends an escape and more; `None`: it was the escape key itself.
    fn escape(&mut self) -> Option<Arrow> {
        let next = self.out.key_at_once()?;
        if !matches!(next, b'[' | b'O') {
            self.out.return_key(next);
            return None;
        }
        let mut number = 0;
        loop {
            let arrow = match self.out.key_at_once()? {
                digit @ b'0'..=b'9' => {
                    number = digit;
                    continue;
                }
                b';' => continue,
                b'A' => Arrow::Up,
                b'B' => Arrow::Down,
                b'C' => Arrow::Right,
                b'D' => Arrow::Left,
                b'H' => Arrow::Home,
                b'F' => Arrow::End,
                b'~' if number == b'3' => Arrow::Delete,
                b'~' if number == b'1' || number == b'7' => Arrow::Home,
                b'~' if number == b'4' || number == b'8' => Arrow::End,
                _ => Arrow::Other,
            };
            return Some(arrow);
        }
    }

    fn go(&mut self, arrow: &Arrow) {
        match arrow {
            Arrow::Left if self.cursor > 0 => {
                self.cursor -= 1;
                self.out.echo("\x08");
            }
            Arrow::Right => self.forward(1),
            Arrow::Home => {
                self.step_back(self.cursor);
                self.cursor = 0;
            }
            Arrow::End => self.forward(self.line.len() - self.cursor),
            Arrow::Delete if self.cursor < self.line.len() => {
                self.line.remove(self.cursor);
                self.redraw_tail(1);
            }
            _ => {}
        }
    }

    fn forward(&mut self, count: usize) {
        let end = (self.cursor + count).min(self.line.len());
        let passed = &self.line[self.cursor..end];
        self.out.echo(passed);
        self.cursor = end;
    }

    fn step_back(&mut self, count: usize) {
        (0..count).for_each(|_| self.out.echo("\x08"));
    }

    /// Draws what is behind the cursor anew, and so many blanks where there was more.
    fn redraw_tail(&mut self, blanks: usize) {
        let tail = &self.line[self.cursor..];
        let count = tail.len() + blanks;
        self.out.echo(tail);
        (0..blanks).for_each(|_| self.out.echo(" "));
        self.step_back(count);
    }

    fn insert(&mut self, key: u8) {
        if self.line.is_full() {
            return;
        }
        if self.cursor == self.line.len() {
            self.line.push(char::from(key));
            return self.forward(1);
        }
        let tail: Line = ArrayString::from(&self.line[self.cursor..]).unwrap_or_default();
        self.line.truncate(self.cursor);
        self.line.push(char::from(key));
        self.line.push_str(&tail);
        self.redraw_tail(0);
        self.forward(1);
    }

    fn back(&mut self) {
        if self.cursor > 0 {
            self.go(&Arrow::Left);
            self.go(&Arrow::Delete);
        }
    }

    fn cut(&mut self) {
        let blanks = self.line.len() - self.cursor;
        self.line.truncate(self.cursor);
        self.redraw_tail(blanks);
    }

    fn replace(&mut self, text: &str) {
        self.go(&Arrow::Home);
        let before = self.line.len();
        self.line.clear();
        for letter in text.bytes().take(LINE_MAX) {
            self.line.push(char::from(letter));
        }
        self.redraw_tail(before.saturating_sub(self.line.len()));
        self.forward(self.line.len());
    }

    /// Completes the first word, as far as all agree that begin with it; lists them if nothing is added.
    fn complete(&mut self, words: Words<'_>) {
        if self.cursor != self.line.len() || self.line.contains(' ') {
            return;
        }
        let fitting = || (0..).map_while(words).filter(|word| word.starts_with(self.line.as_str()));
        let Some(first) = fitting().next() else { return };
        let is_shared = |len: usize| fitting().all(|word| word.get(..len) == first.get(..len));
        let shared = (self.line.len()..=first.len()).take_while(|&len| is_shared(len)).last().unwrap_or(0);
        let is_only_one = fitting().all(|word| word == first);
        let start = self.line.len();
        if shared == start && !is_only_one {
            self.out.echo("\n");
            for word in (0..).map_while(words).filter(|word| word.starts_with(self.line.as_str())) {
                self.out.echo(word);
                self.out.echo("  ");
            }
            self.out.echo("\n> ");
            let line = self.line;
            self.out.echo(&line);
            return;
        }
        first[start..shared].bytes().for_each(|letter| self.insert(letter));
        if is_only_one {
            self.insert(b' ');
        }
    }
}
