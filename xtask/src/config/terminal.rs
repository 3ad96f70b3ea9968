//! The menu in a terminal: keys in, a picture of [`kconfig::menu`] out, files in between.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use kconfig::Options;
use kconfig::menu::{Key, Menu, Request, Row, Window};
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, List, ListState, Paragraph, Wrap};
use ratatui::{DefaultTerminal, Frame};

use super::chosen::{self, File};
use crate::project;

/// Lines of what is said about an option, with their frame.
const DETAIL_LINES: u16 = 8;
/// What the name of the file ends with that has what is not saved.
const RESCUE: &str = "unsaved";

/// Runs the menu on the current configuration.
pub fn run(options: &Options) -> Result<ExitCode> {
    let mut file = File::open(options, &chosen::current())?;
    let mut menu = Menu::new(options, file.settings.clone(), chosen::names()?);
    if !file.repairs.is_empty() {
        let mut lines = file.repairs.clone();
        lines.push("When it is saved, the file as it was stays beside it.".to_owned());
        menu.notice("This file was repaired", lines);
    }
    let mut rescue = Rescue::beside(options, &file)?;
    if rescue.is_there {
        let name = project::relative(&rescue.file.path).display().to_string();
        menu.loaded(&name, rescue.file.settings.clone(), vec!["An earlier menu ended before it was saved.".to_owned()]);
    }
    // The terminal is as before when this returns, and also after a panic.
    let mut terminal = ratatui::try_init()?;
    let ended = attend(&mut terminal, options, &mut menu, &mut file, &mut rescue);
    ratatui::restore();
    if let Err(error) = ended {
        let rescued = if rescue.is_there { "what was chosen is kept for the next menu" } else { "nothing was changed" };
        return Err(error.context(format!("the terminal is gone; {rescued}")));
    }
    rescue.remove();
    println!("{} {}", project::relative(&file.path).display(), state(&menu));
    Ok(ExitCode::SUCCESS)
}

fn state(menu: &Menu<'_>) -> &'static str {
    if menu.is_changed() { "is as it was" } else { "has what was chosen" }
}

/// What was chosen and is not saved, in a file beside: there as long as the menu is, and afterwards if it ended without a word,
/// as when the terminal is gone.
struct Rescue {
    file: File,
    is_there: bool,
}

impl Rescue {
    /// Beside this file. What an earlier menu left there is read.
    fn beside(options: &Options, file: &File) -> Result<Self> {
        let name = format!("{}.{RESCUE}", file.path.file_name().unwrap_or_default().to_string_lossy());
        let path = file.path.with_file_name(name);
        let is_there = path.is_file();
        let mut left = if is_there { File::open(options, &path)? } else { file.clone() };
        left.path = path;
        Ok(Self { file: left, is_there })
    }

    /// Keeps what the menu has, if that is not kept already.
    fn keep(&mut self, options: &Options, menu: &Menu<'_>) -> Result<()> {
        if !menu.is_changed() {
            self.remove();
        } else if !self.is_there || self.file.settings != *menu.settings() {
            self.file.repairs.clear();
            self.file.save(options, menu.settings())?;
            self.is_there = true;
        }
        Ok(())
    }

    fn remove(&mut self) {
        if self.is_there {
            // If it stays, the next menu asks.
            let _ = std::fs::remove_file(&self.file.path);
            self.is_there = false;
        }
    }
}

/// Takes keys until somebody leaves.
fn attend(
    terminal: &mut DefaultTerminal,
    options: &Options,
    menu: &mut Menu<'_>,
    file: &mut File,
    rescue: &mut Rescue,
) -> Result<()> {
    loop {
        rescue.keep(options, menu)?;
        terminal.draw(|frame| draw(frame, menu))?;
        let Some(key) = next_key()? else { continue };
        let Some(request) = menu.press(key) else { continue };
        match request {
            Request::Leave => return Ok(()),
            Request::Save => {
                if save(options, menu, file) {
                    let name = project::relative(&file.path).display().to_string();
                    menu.notice("Saved", vec![format!("{name} is saved.")]);
                }
            }
            Request::SaveAndLeave => {
                if save(options, menu, file) {
                    return Ok(());
                }
            }
            Request::SaveAs(name) => match save_as(options, menu, file, &name) {
                Ok(()) => menu.saved_as(&name),
                Err(error) => menu.notice("Not saved", vec![format!("{error:#}")]),
            },
            Request::Load(name) => match chosen::find(&name).and_then(|path| File::open(options, &path)) {
                Ok(loaded) => menu.loaded(&name, loaded.settings, loaded.repairs),
                Err(error) => menu.notice("Not loaded", vec![format!("{error:#}")]),
            },
        }
    }
}

/// Saves to the file; says in the menu if that fails.
fn save(options: &Options, menu: &mut Menu<'_>, file: &mut File) -> bool {
    match file.save(options, menu.settings()) {
        Ok(_) => menu.saved(),
        Err(ref error) => menu.notice("Not saved", vec![format!("{error:#}")]),
    }
    !menu.is_changed()
}

fn save_as(options: &Options, menu: &Menu<'_>, file: &File, name: &str) -> Result<()> {
    super::check_new_name(name)?;
    let path = chosen::named(name);
    let mut named = if Path::new(&path).is_file() { File::open(options, &path)? } else { file.clone() };
    named.path = path;
    named.save(options, menu.settings()).map(drop)
}

/// The next key that means something; `None`: the terminal has another size, or something else happened.
fn next_key() -> io::Result<Option<Key>> {
    match event::read()? {
        Event::Key(event) if event.kind != KeyEventKind::Release => Ok(key(event)),
        _ => Ok(None),
    }
}

fn key(event: KeyEvent) -> Option<Key> {
    let is_control = event.modifiers.contains(KeyModifiers::CONTROL);
    Some(match event.code {
        KeyCode::Char('c') if is_control => Key::Interrupt,
        KeyCode::Char('h') if is_control => Key::Backspace,
        KeyCode::Char(_) if is_control || event.modifiers.contains(KeyModifiers::ALT) => return None,
        KeyCode::Char(character) => Key::Character(character),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        _ => return None,
    })
}

// --- the picture ---

const SELECTED: Style = Style::new().add_modifier(Modifier::REVERSED);
const CLOSED: Style = Style::new().add_modifier(Modifier::DIM);

fn draw(frame: &mut Frame<'_>, menu: &mut Menu<'_>) {
    let [top, middle, details, bottom] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Max(DETAIL_LINES),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let change = if menu.is_changed() { " (changed)" } else { "" };
    frame.render_widget(Line::from(format!("{}{change}", menu.title())), top);
    menu.set_page(usize::from(middle.height.saturating_sub(2)));
    let rows: Vec<Line<'_>> = menu.rows().iter().map(line).collect();
    let list = List::new(rows).block(Block::bordered()).highlight_style(SELECTED);
    frame.render_stateful_widget(list, middle, &mut ListState::default().with_selected(Some(menu.cursor())));
    let text: Vec<Line<'_>> = menu.details().into_iter().map(Line::from).collect();
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }).block(Block::bordered()), details);
    frame.render_widget(Line::from(menu.keys()), bottom);
    if let Some(window) = menu.window() {
        draw_window(frame, &window);
    }
}

fn line(row: &Row) -> Line<'static> {
    let arrow = if row.leads_on { "  --->" } else { "" };
    let style = if row.is_free { Style::new() } else { CLOSED };
    let text = format!("{:<9} {:<44} {}{arrow}", row.mark, row.text, row.name);
    Line::from(Span::styled(text, style))
}

fn draw_window(frame: &mut Frame<'_>, window: &Window) {
    let area = inner(frame.area(), window);
    frame.render_widget(Clear, area);
    let block = Block::bordered().title(window.title.as_str()).title_bottom(window.keys);
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let input_lines = u16::from(window.input.is_some());
    let [input, lines] = Layout::vertical([Constraint::Length(input_lines), Constraint::Fill(1)]).areas(inside);
    if let Some(text) = &window.input {
        frame.render_widget(Line::from(format!("> {text}")), input);
        let column = input.x.saturating_add(2).saturating_add(u16::try_from(text.chars().count()).unwrap_or(u16::MAX));
        frame.set_cursor_position(Position::new(column.min(frame.area().right().saturating_sub(1)), input.y));
    }
    match window.cursor {
        Some(cursor) => {
            let list = List::new(window.lines.iter().map(String::as_str)).highlight_style(SELECTED);
            frame.render_stateful_widget(list, lines, &mut ListState::default().with_selected(Some(cursor)));
        }
        None => {
            let text: Vec<Line<'_>> = window.lines.iter().map(|line| Line::from(line.as_str())).collect();
            frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), lines);
        }
    }
}

/// A place in the middle that has room for the window, as far as there is room.
fn inner(area: Rect, window: &Window) -> Rect {
    let width = area.width.saturating_sub(4).min(76).max(area.width.min(20));
    // Long lines take several.
    let columns = usize::from(width.saturating_sub(2).max(1));
    let lines: usize = window.lines.iter().map(|line| line.chars().count().div_ceil(columns).max(1)).sum();
    let wanted = lines + usize::from(window.input.is_some()) + 2;
    let height = u16::try_from(wanted).unwrap_or(u16::MAX).clamp(3, area.height.max(3)).min(area.height);
    Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height }
}
