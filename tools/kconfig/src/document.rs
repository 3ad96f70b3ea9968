//! Files of wishes.
//!
//! A line is `NAME=VALUE`, a comment behind `#`, or empty. Whatever else stands there, from a damaged file or from that of
//! another kernel, stays as a comment that says so; what is clear enough is read, and said to be repaired. Lines that are
//! right stay as they are, byte for byte, where they are.

use crate::evaluate::{Refusal, Settings};
use crate::options::{ChoiceId, Kind, OptionId, Options, Value};

/// A file of wishes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Document {
    lines: Vec<Line>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Line {
    text: String,
    wish: Option<Wish>,
    /// The member of a choice that it says not to be chosen, which says nothing about the others.
    denied: Option<OptionId>,
}

impl Line {
    fn text(text: String) -> Self {
        Self { text, wish: None, denied: None }
    }

    fn wish(text: String, id: OptionId, value: Value) -> Self {
        Self { text, wish: Some(Wish { id, value }), denied: None }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Wish {
    id: OptionId,
    value: Value,
}

/// What at most one wish of a file is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    Option(OptionId),
    Choice(ChoiceId),
}

fn subject(options: &Options, id: OptionId) -> Subject {
    options.get(id).choice.map_or(Subject::Option(id), Subject::Choice)
}

impl Document {
    /// Reads a file. Returns what it wishes, and what had to be repaired, a line of text each.
    pub fn open(options: &Options, bytes: &[u8]) -> (Self, Settings, Vec<String>) {
        let mut opening =
            Opening { options, document: Self::default(), settings: Settings::default(), repairs: vec![] };
        let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        let mut lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
        // What follows the last line feed is a line only if something is there.
        lines.pop_if_empty();
        for (index, line) in lines.into_iter().enumerate() {
            opening.enter(index + 1, line.strip_suffix(b"\r").unwrap_or(line));
        }
        (opening.document, opening.settings, opening.repairs)
    }

    /// The file.
    pub fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{}\n", line.text)).collect()
    }

    /// Adds a comment.
    pub fn comment(&mut self, text: &str) {
        self.lines.push(Line::text(format!("# {text}")));
    }

    /// Makes the wishes of the file those of `settings`: lines of changed ones change, lines of forgotten ones go, new ones
    /// come last. All other lines stay.
    pub fn update(&mut self, options: &Options, settings: &Settings) {
        let is_chosen = |denied: OptionId| settings.get(denied).is_some();
        self.lines.retain_mut(|line| {
            if line.denied.is_some_and(is_chosen) {
                return false;
            }
            let Some(wish) = &mut line.wish else { return true };
            let about = subject(options, wish.id);
            let Some((id, value)) = settings.iter().find(|&(id, _)| subject(options, id) == about) else {
                return false;
            };
            if (id, value) != (wish.id, &wish.value) {
                *wish = Wish { id, value: value.clone() };
                line.text = text_of(options, id, value);
            }
            true
        });
        for (id, value) in settings.iter() {
            let about = subject(options, id);
            let is_there = |line: &Line| line.wish.as_ref().is_some_and(|wish| subject(options, wish.id) == about);
            if !self.lines.iter().any(is_there) {
                self.lines.push(Line::wish(text_of(options, id, value), id, value.clone()));
            }
        }
    }
}

/// A wish as a line. A member of a choice is written as the value that it gives to another option, if there is one.
pub fn text_of(options: &Options, id: OptionId, value: &Value) -> String {
    if options.get(id).choice.is_some() {
        for other in options.ids().filter(|&other| options.get(other).prompt.is_none()) {
            let given = options.given(other);
            if let Some(given) = given.iter().find(|given| options.giver(other, given) == Some(id)) {
                return format!("{}={given}", options.get(other).name);
            }
        }
    }
    format!("{}={value}", options.get(id).name)
}

/// Lines without an empty last one.
trait PopIfEmpty {
    fn pop_if_empty(&mut self);
}

impl PopIfEmpty for Vec<&[u8]> {
    fn pop_if_empty(&mut self) {
        if self.last().is_some_and(|line| line.is_empty()) {
            self.pop();
        }
    }
}

/// A file that is being read.
struct Opening<'o> {
    options: &'o Options,
    document: Document,
    settings: Settings,
    repairs: Vec<String>,
}

impl Opening<'_> {
    fn enter(&mut self, number: usize, bytes: &[u8]) {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return self.set_aside(number, "not text", &bytes.escape_ascii().to_string());
        };
        if text.chars().any(|letter| letter.is_control() && letter != '\t') {
            return self.set_aside(number, "not text", &text.escape_debug().to_string());
        }
        let words = text.trim();
        if let Some(name) = words.strip_prefix('#').and_then(|rest| rest.trim().strip_suffix(" is not set")) {
            return self.enter_old_no(number, text, name.trim());
        }
        if words.is_empty() || words.starts_with('#') {
            return self.keep(text);
        }
        match words.split_once('=') {
            Some((name, value)) => self.enter_wish(number, text, name.trim(), value.trim()),
            None => self.set_aside(number, "not understood", text),
        }
    }

    /// `# NAME is not set`, as other tools write it.
    fn enter_old_no(&mut self, number: usize, text: &str, name: &str) {
        let known = self.options.find(name.strip_prefix("CONFIG_").unwrap_or(name));
        match known.filter(|&id| self.options.get(id).kind == Kind::Bool) {
            Some(_) => self.enter_wish(number, text, name, "n"),
            None => self.keep(text),
        }
    }

    fn enter_wish(&mut self, number: usize, text: &str, name: &str, value: &str) {
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        let before = self.settings.clone();
        match self.settings.set(self.options, name, value) {
            Ok(Some(id)) => self.take(number, text, id, &before),
            Ok(None) => self.keep(text),
            Err(Refusal::BadValue(_, _, reason)) => match self.clamped(name, value) {
                Some((id, nearest)) => {
                    self.set_aside(number, &reason, text);
                    self.repairs.push(format!("line {number}: {name} is taken as {nearest}"));
                    self.settings.wish(self.options, id, nearest);
                    self.take(number, &text_of_wish(self.options, &self.settings, id), id, &before);
                }
                None => self.set_aside(number, &reason, text),
            },
            Err(refusal) => self.set_aside(number, &refusal.to_string(), text),
        }
    }

    /// The nearest value that a number can be.
    fn clamped(&self, name: &str, value: &str) -> Option<(OptionId, Value)> {
        let id = self.options.find(name.strip_prefix("CONFIG_").unwrap_or(name))?;
        let option = self.options.get(id);
        let &(low, high, _) = option.ranges.first()?;
        option.prompt.as_ref()?;
        match option.parse(value).ok()? {
            Value::Int(number) => Some((id, Value::Int(number.clamp(low, high)))),
            Value::Hex(number) => Some((id, Value::Hex(number.clamp(low, high)))),
            _ => None,
        }
    }

    /// Takes the wish about `id` that was just entered, and sets an earlier one about the same aside.
    fn take(&mut self, number: usize, text: &str, id: OptionId, before: &Settings) {
        let about = subject(self.options, id);
        let Some(value) = self.settings.get(id).cloned() else {
            // "No" to a member of a choice; a "yes" before it is taken back.
            if before.get(id).is_some() {
                self.repairs.push(format!("line {number}: takes back what a line before it chose"));
                self.document.lines.retain_mut(|line| aside_if(line, self.options, about));
            }
            self.document.lines.push(Line { text: text.to_owned(), wish: None, denied: Some(id) });
            return;
        };
        let is_again =
            before.iter().any(|(other, own)| subject(self.options, other) == about && (other, own) != (id, &value));
        if is_again {
            self.repairs.push(format!("line {number}: counts in place of a line before it"));
            self.document.lines.retain_mut(|line| aside_if(line, self.options, about));
        }
        let words: String = text.split_whitespace().collect();
        let canonical = text_of(self.options, id, &value);
        let quoted = canonical.replacen('=', "=\"", 1) + "\"";
        let gives_text = canonical.split_once('=').is_some_and(|(name, _)| {
            self.options.find(name).is_some_and(|giver| self.options.get(giver).kind == Kind::Text)
        });
        let plain = format!("{}={value}", self.options.get(id).name);
        let is_plain = words == canonical || words == plain || gives_text && words == quoted;
        let line = if is_plain { text.to_owned() } else { canonical };
        if !is_plain {
            self.repairs.push(format!("line {number}: `{}` is written {line}", text.trim()));
        }
        self.document.lines.push(Line::wish(line, id, value));
    }

    fn keep(&mut self, text: &str) {
        self.document.lines.push(Line::text(text.to_owned()));
    }

    fn set_aside(&mut self, number: usize, reason: &str, text: &str) {
        self.repairs.push(format!("line {number}: kept as a comment: {reason}: {}", text.trim()));
        self.document.lines.push(Line::text(format!("# {reason}: {text}")));
    }
}

fn text_of_wish(options: &Options, settings: &Settings, id: OptionId) -> String {
    settings.get(id).map_or_else(String::new, |value| text_of(options, id, value))
}

/// Makes a comment of a wish about the same; the line stays.
fn aside_if(line: &mut Line, options: &Options, about: Subject) -> bool {
    if line.wish.as_ref().is_some_and(|wish| subject(options, wish.id) == about) {
        line.text = format!("# a later line counts: {}", line.text);
        line.wish = None;
    }
    true
}
