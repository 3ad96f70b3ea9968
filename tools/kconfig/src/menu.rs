//! The menu as a state: keys change it, a terminal shows it. What needs files is requested of whoever runs the menu.

use crate::document::text_of;
use crate::evaluate::{Configuration, Settings};
use crate::options::{ChoiceId, Item, Kind, OptionId, Options, Value};

/// A key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the keys' names")]
pub enum Key {
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Backspace,
    Character(char),
    /// Ctrl-C, or whoever ends programs.
    Interrupt,
}

/// What whoever runs the menu has to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Save the settings to the file that they came from, then call [`Menu::saved`].
    Save,
    /// The same, and leave if it could be saved.
    SaveAndLeave,
    /// Save the settings under a name, then call [`Menu::saved_as`].
    SaveAs(String),
    /// Read a named configuration, then call [`Menu::loaded`].
    Load(String),
    /// Leave.
    Leave,
}

/// A line of the menu.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// What is chosen: `[*]`, `(255)`, `<auto>`, or nothing before a menu.
    pub mark: String,
    /// What a person is asked.
    pub text: String,
    /// The option's name.
    pub name: String,
    /// It can be chosen now.
    pub is_free: bool,
    /// It leads to more lines.
    pub leads_on: bool,
}

/// What lies over the menu.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Window {
    /// Its title.
    pub title: String,
    /// What is being typed.
    pub input: Option<String>,
    /// Its lines.
    pub lines: Vec<String>,
    /// The line that Enter takes.
    pub cursor: Option<usize>,
    /// Keys that do something in it.
    pub keys: &'static str,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Dialog {
    Edit {
        id: OptionId,
        text: String,
        complaint: String,
    },
    Choose {
        choice: ChoiceId,
        cursor: usize,
    },
    Search {
        text: String,
        cursor: usize,
    },
    Load {
        cursor: usize,
    },
    /// Load although changes are not saved?
    Replace(String),
    SaveAs(String),
    /// Save over what has that name?
    Overwrite(String),
    Leave,
    Notice(String, Vec<String>),
}

/// A menu on the way from the first to the one that is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Place {
    cursor: usize,
}

/// The menu.
#[derive(Clone, Debug)]
pub struct Menu<'o> {
    options: &'o Options,
    settings: Settings,
    saved: Settings,
    /// The cursor of each menu on the way; all but the last are on the menu that follows.
    places: Vec<Place>,
    dialog: Option<Dialog>,
    names: Vec<String>,
    page: usize,
}

/// Longest text that is typed.
const TEXT_MAX: usize = 64;

const KEYS: &str = "Enter choose  ? help  / search  s save  w save as  l load  d default  q leave";

impl<'o> Menu<'o> {
    /// The menu of `options` with these settings, which are those of the file, and the names of configurations to be loaded.
    pub fn new(options: &'o Options, settings: Settings, names: Vec<String>) -> Self {
        let saved = settings.clone();
        Self { options, settings, saved, places: vec![Place::default()], dialog: None, names, page: 10 }
    }

    /// What is chosen.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether something was chosen that is not saved.
    pub fn is_changed(&self) -> bool {
        self.settings != self.saved
    }

    /// So many lines are to be seen at once.
    pub fn set_page(&mut self, lines: usize) {
        self.page = lines.max(1);
    }

    /// Tells something that has to be read.
    pub fn notice(&mut self, title: &str, lines: Vec<String>) {
        self.dialog = Some(Dialog::Notice(title.to_owned(), lines));
    }

    /// The settings are in the file.
    pub fn saved(&mut self) {
        self.saved = self.settings.clone();
    }

    /// The settings have this name, too.
    pub fn saved_as(&mut self, name: &str) {
        if !self.names.iter().any(|own| own == name) {
            self.names.push(name.to_owned());
            self.names.sort();
        }
        self.notice("Saved", vec![format!("{name} is saved.")]);
    }

    /// These are the settings of the configuration that was to be loaded, with what had to be repaired there.
    pub fn loaded(&mut self, name: &str, settings: Settings, repairs: Vec<String>) {
        self.settings = settings;
        let mut lines = vec![format!("This is {name} now; s saves it.")];
        lines.extend(repairs);
        self.notice("Loaded", lines);
    }

    // --- what is to be seen ---

    /// The way to the open menu.
    pub fn title(&self) -> String {
        let mut title = self.options.title.clone();
        let mut items = &self.options.menu[..];
        for place in &self.places[..self.places.len() - 1] {
            if let Some(Item::Menu(name, inner)) = items.get(place.cursor) {
                title = format!("{title} > {name}");
                items = inner;
            }
        }
        title
    }

    /// The lines of the open menu.
    pub fn rows(&self) -> Vec<Row> {
        let configuration = self.configuration();
        self.items().iter().map(|item| self.row(item, &configuration)).collect()
    }

    /// The line that is looked at.
    pub fn cursor(&self) -> usize {
        self.places.last().map_or(0, |place| place.cursor)
    }

    /// What there is to say about the line that is looked at.
    pub fn details(&self) -> Vec<String> {
        let configuration = self.configuration();
        match self.items().get(self.cursor()) {
            Some(Item::Option(id)) => self.details_of(*id, &configuration),
            Some(Item::Choice(id)) => {
                let choice = self.options.choice(*id);
                let mut lines = reasons(&configuration.obstacles_of_choice(*id));
                lines.push(choice.help.clone());
                lines
            }
            Some(Item::Menu(title, items)) => vec![format!("{title}: {} lines", items.len())],
            None => Vec::new(),
        }
    }

    fn details_of(&self, id: OptionId, configuration: &Configuration<'_>) -> Vec<String> {
        let option = self.options.get(id);
        let mut default = self.settings.clone();
        default.forget(id);
        let default = self.options.evaluate(&default).value(id).clone();
        let mut lines = vec![format!("{}={}, by default {default}", option.name, configuration.value(id))];
        // What may be cut off where there is little room comes last.
        if let Some(wish) = self.settings.get(id).filter(|wish| *wish != configuration.value(id)) {
            lines.push(format!("{wish} is kept, and counts when it can."));
        }
        lines.extend(reasons(&configuration.obstacles(id)));
        let needs = configuration.needs(id);
        if !needs.is_empty() {
            lines.push(format!("Needs: {}", needs.join(", ")));
        }
        lines.push(option.help.clone());
        lines
    }

    /// Keys that do something.
    pub fn keys(&self) -> &'static str {
        KEYS
    }

    /// What lies over the menu, if something does.
    pub fn window(&self) -> Option<Window> {
        let window = |title: &str, input: Option<&String>, lines: Vec<String>, cursor, keys| Window {
            title: title.to_owned(),
            input: input.cloned(),
            lines,
            cursor,
            keys,
        };
        Some(match self.dialog.as_ref()? {
            Dialog::Edit { id, text, complaint } => {
                let option = self.options.get(*id);
                let lines = if complaint.is_empty() { vec![] } else { vec![complaint.clone()] };
                window(&option.name, Some(text), lines, None, "Enter take  Esc cancel")
            }
            Dialog::Choose { choice, cursor } => {
                let choice = self.options.choice(*choice);
                let prompt = |id: &OptionId| self.options.get(*id).prompt.clone().unwrap_or_default();
                let lines = choice.members.iter().map(prompt).collect();
                window(&choice.prompt, None, lines, Some(*cursor), "Enter take  Esc cancel")
            }
            Dialog::Search { text, cursor } => {
                let found = self.found(text);
                let lines = found.iter().map(|found| found.text.clone()).collect();
                let cursor = (!found.is_empty()).then_some(*cursor);
                window("Search", Some(text), lines, cursor, "Enter go there  Esc cancel")
            }
            Dialog::Load { cursor } => {
                window("Load", None, self.names.clone(), Some(*cursor), "Enter load  Esc cancel")
            }
            Dialog::Replace(name) => {
                let lines = vec![format!("Changes are not saved. Load {name} in their place?")];
                window("Load", None, lines, None, "y yes  n no")
            }
            Dialog::SaveAs(text) => {
                let lines = vec!["A name of letters, digits and dashes".to_owned()];
                window("Save as", Some(text), lines, None, "Enter save  Esc cancel")
            }
            Dialog::Overwrite(name) => {
                window("Save as", None, vec![format!("There is a {name}. Save over it?")], None, "y yes  n no")
            }
            Dialog::Leave => {
                let lines = vec!["Changes are not saved. Save them?".to_owned()];
                window("Leave", None, lines, None, "y save and leave  n leave without  Esc stay")
            }
            Dialog::Notice(title, lines) => window(title, None, lines.clone(), None, "any key goes on"),
        })
    }

    // --- keys ---

    /// A key was pressed.
    pub fn press(&mut self, key: Key) -> Option<Request> {
        match self.dialog.take() {
            None => self.press_in_menu(key),
            Some(dialog) => self.press_in_dialog(dialog, key),
        }
    }

    fn press_in_menu(&mut self, key: Key) -> Option<Request> {
        let (count, page) = (self.items().len(), self.page);
        let cursor = self.cursor();
        match key {
            Key::Up | Key::Character('k') => self.set_cursor(cursor.saturating_sub(1)),
            Key::Down | Key::Character('j') => self.set_cursor((cursor + 1).min(count.saturating_sub(1))),
            Key::PageUp => self.set_cursor(cursor.saturating_sub(page)),
            Key::PageDown => self.set_cursor((cursor + page).min(count.saturating_sub(1))),
            Key::Home => self.set_cursor(0),
            Key::End => self.set_cursor(count.saturating_sub(1)),
            Key::Enter | Key::Right | Key::Character(' ') => self.open(),
            Key::Left | Key::Backspace if self.places.len() > 1 => drop(self.places.pop()),
            Key::Escape if self.places.len() > 1 => drop(self.places.pop()),
            Key::Escape | Key::Interrupt | Key::Character('q') => return self.leave(),
            Key::Character('y') => self.answer(true),
            Key::Character('n') => self.answer(false),
            Key::Character('d') => self.forget(),
            Key::Character('?' | 'h') => {
                let lines = self.details();
                self.notice("Help", lines);
            }
            Key::Character('/') => self.dialog = Some(Dialog::Search { text: String::new(), cursor: 0 }),
            Key::Character('l') => self.dialog = Some(Dialog::Load { cursor: 0 }),
            Key::Character('w') => self.dialog = Some(Dialog::SaveAs(String::new())),
            Key::Character('s') => return Some(Request::Save),
            Key::Left | Key::Backspace | Key::Character(_) => {}
        }
        None
    }

    fn leave(&mut self) -> Option<Request> {
        if !self.is_changed() {
            return Some(Request::Leave);
        }
        self.dialog = Some(Dialog::Leave);
        None
    }

    fn press_in_dialog(&mut self, dialog: Dialog, key: Key) -> Option<Request> {
        match dialog {
            Dialog::Notice(..) => {}
            Dialog::Edit { id, text, .. } => self.press_in_edit(id, text, key),
            Dialog::Choose { choice, cursor } => self.press_in_choice(choice, cursor, key),
            Dialog::Search { text, cursor } => self.press_in_search(text, cursor, key),
            Dialog::Load { cursor } => match key {
                Key::Enter => {
                    let name = self.names.get(cursor)?.clone();
                    if !self.is_changed() {
                        return Some(Request::Load(name));
                    }
                    self.dialog = Some(Dialog::Replace(name));
                }
                Key::Escape | Key::Interrupt | Key::Left => {}
                key => self.dialog = Some(Dialog::Load { cursor: moved(cursor, self.names.len(), self.page, key) }),
            },
            Dialog::Replace(name) => match key {
                Key::Character('y') => return Some(Request::Load(name)),
                Key::Character('n') | Key::Escape | Key::Interrupt => {}
                _ => self.dialog = Some(Dialog::Replace(name)),
            },
            Dialog::SaveAs(mut text) => match key {
                Key::Enter if text.is_empty() => {}
                Key::Enter if self.names.contains(&text) => self.dialog = Some(Dialog::Overwrite(text)),
                Key::Enter => return Some(Request::SaveAs(text)),
                Key::Escape | Key::Interrupt => {}
                key => {
                    edit(&mut text, key);
                    self.dialog = Some(Dialog::SaveAs(text));
                }
            },
            Dialog::Overwrite(name) => match key {
                Key::Character('y') => return Some(Request::SaveAs(name)),
                Key::Character('n') | Key::Escape | Key::Interrupt => {}
                _ => self.dialog = Some(Dialog::Overwrite(name)),
            },
            Dialog::Leave => match key {
                Key::Character('y') => return Some(Request::SaveAndLeave),
                Key::Character('n') => return Some(Request::Leave),
                Key::Escape | Key::Interrupt => {}
                _ => self.dialog = Some(Dialog::Leave),
            },
        }
        None
    }

    fn press_in_edit(&mut self, id: OptionId, mut text: String, key: Key) {
        match key {
            Key::Escape | Key::Interrupt => return,
            Key::Enter => {
                let name = self.options.get(id).name.clone();
                match self.settings.set(self.options, &name, text.trim()) {
                    Ok(_) => return,
                    Err(refusal) => {
                        let complaint = refusal.to_string();
                        self.dialog = Some(Dialog::Edit { id, text, complaint });
                        return;
                    }
                }
            }
            key => edit(&mut text, key),
        }
        self.dialog = Some(Dialog::Edit { id, text, complaint: String::new() });
    }

    fn press_in_choice(&mut self, choice: ChoiceId, cursor: usize, key: Key) {
        let members = &self.options.choice(choice).members;
        match key {
            Key::Enter | Key::Character(' ') => {
                if let Some(&member) = members.get(cursor) {
                    self.settings.wish(self.options, member, Value::Bool(true));
                }
            }
            Key::Escape | Key::Interrupt | Key::Left => {}
            key => self.dialog = Some(Dialog::Choose { choice, cursor: moved(cursor, members.len(), self.page, key) }),
        }
    }

    fn press_in_search(&mut self, mut text: String, cursor: usize, key: Key) {
        let found = self.found(&text);
        let cursor = match key {
            Key::Enter => {
                if let Some(found) = found.into_iter().nth(cursor) {
                    self.places = found.way.into_iter().map(|cursor| Place { cursor }).collect();
                }
                return;
            }
            Key::Escape | Key::Interrupt => return,
            Key::Character(_) | Key::Backspace => {
                edit(&mut text, key);
                0
            }
            key => moved(cursor, found.len(), self.page, key),
        };
        self.dialog = Some(Dialog::Search { text, cursor });
    }

    // --- what keys do ---

    fn configuration(&self) -> Configuration<'o> {
        self.options.evaluate(&self.settings)
    }

    fn items(&self) -> &'o [Item] {
        let mut items = &self.options.menu[..];
        for place in &self.places[..self.places.len() - 1] {
            if let Some(Item::Menu(_, inner)) = items.get(place.cursor) {
                items = inner;
            }
        }
        items
    }

    fn set_cursor(&mut self, cursor: usize) {
        if let Some(place) = self.places.last_mut() {
            place.cursor = cursor;
        }
    }

    /// Enters a menu, or changes an option.
    fn open(&mut self) {
        let configuration = self.configuration();
        match self.items().get(self.cursor()) {
            Some(Item::Menu(..)) => self.places.push(Place::default()),
            Some(Item::Choice(choice)) => {
                if self.refuses(&configuration.obstacles_of_choice(*choice)) {
                    return;
                }
                let members = &self.options.choice(*choice).members;
                let chosen = configuration.chosen(*choice);
                let cursor = members.iter().position(|member| Some(*member) == chosen).unwrap_or(0);
                self.dialog = Some(Dialog::Choose { choice: *choice, cursor });
            }
            Some(Item::Option(id)) => match configuration.value(*id) {
                Value::Bool(is_set) => self.answer(!is_set),
                value => {
                    if !self.refuses(&configuration.obstacles(*id)) {
                        let text = value.to_string();
                        self.dialog = Some(Dialog::Edit { id: *id, text, complaint: String::new() });
                    }
                }
            },
            None => {}
        }
    }

    /// Tells obstacles, if there are some.
    fn refuses(&mut self, obstacles: &[String]) -> bool {
        if !obstacles.is_empty() {
            self.notice("This cannot be chosen now", reasons(obstacles));
        }
        !obstacles.is_empty()
    }

    /// Says yes or no to the option that is looked at.
    fn answer(&mut self, is_set: bool) {
        let Some(Item::Option(id)) = self.items().get(self.cursor()) else { return };
        let configuration = self.configuration();
        if self.options.get(*id).kind == Kind::Bool && !self.refuses(&configuration.obstacles(*id)) {
            self.settings.wish(self.options, *id, Value::Bool(is_set));
        }
    }

    /// Nothing is wished any more of the line that is looked at.
    fn forget(&mut self) {
        match self.items().get(self.cursor()) {
            Some(Item::Option(id)) => self.settings.forget(*id),
            Some(Item::Choice(choice)) => {
                self.options.choice(*choice).members.iter().for_each(|member| self.settings.forget(*member));
            }
            _ => {}
        }
    }

    fn row(&self, item: &Item, configuration: &Configuration<'_>) -> Row {
        match item {
            Item::Menu(title, _) => {
                Row { mark: String::new(), text: title.clone(), name: String::new(), is_free: true, leads_on: true }
            }
            Item::Choice(id) => {
                let choice = self.options.choice(*id);
                let member = configuration.chosen(*id).unwrap_or(choice.members[0]);
                let shown = text_of(self.options, member, &Value::Bool(true));
                let (name, value) = shown.split_once('=').unwrap_or((&shown, ""));
                Row {
                    mark: format!("<{value}>"),
                    text: choice.prompt.clone(),
                    name: name.to_owned(),
                    is_free: configuration.obstacles_of_choice(*id).is_empty(),
                    leads_on: true,
                }
            }
            Item::Option(id) => {
                let option = self.options.get(*id);
                let mark = match configuration.value(*id) {
                    Value::Bool(true) => "[*]".to_owned(),
                    Value::Bool(false) => "[ ]".to_owned(),
                    value => format!("({value})"),
                };
                let text =
                    option.prompt.clone().unwrap_or_else(|| option.help.split('.').next().unwrap_or("").to_owned());
                let is_free = configuration.obstacles(*id).is_empty();
                Row { mark, text, name: option.name.clone(), is_free, leads_on: false }
            }
        }
    }

    /// The lines in which `text` is found, in any menu.
    fn found(&self, text: &str) -> Vec<Found> {
        let mut found = Vec::new();
        let (configuration, text) = (self.configuration(), text.to_lowercase());
        self.search(&self.options.menu, &mut Vec::new(), &configuration, &text, &mut found);
        found
    }

    fn search(
        &self,
        items: &[Item],
        way: &mut Vec<usize>,
        configuration: &Configuration<'_>,
        text: &str,
        found: &mut Vec<Found>,
    ) {
        for (index, item) in items.iter().enumerate() {
            way.push(index);
            let row = self.row(item, configuration);
            let words = match item {
                Item::Menu(title, inner) => {
                    self.search(inner, way, configuration, text, found);
                    title.clone()
                }
                Item::Option(id) => format!("{} {} {}", row.name, row.text, self.options.get(*id).help),
                Item::Choice(id) => {
                    let choice = self.options.choice(*id);
                    let members = choice.members.iter().map(|member| {
                        let option = self.options.get(*member);
                        format!("{} {}", option.name, option.prompt.as_deref().unwrap_or(""))
                    });
                    format!("{} {} {}", row.text, choice.help, members.collect::<Vec<_>>().join(" "))
                }
            };
            if words.to_lowercase().contains(text) {
                let text = format!("{} {}  {}", row.mark, row.text, row.name).trim().to_owned();
                found.push(Found { way: way.clone(), text });
            }
            way.pop();
        }
    }
}

/// A line that was searched for.
struct Found {
    way: Vec<usize>,
    text: String,
}

fn reasons(obstacles: &[String]) -> Vec<String> {
    obstacles.iter().map(|obstacle| format!("Not to be chosen: {obstacle}")).collect()
}

fn moved(cursor: usize, count: usize, page: usize, key: Key) -> usize {
    let last = count.saturating_sub(1);
    match key {
        Key::Up => cursor.saturating_sub(1),
        Key::Down => (cursor + 1).min(last),
        Key::PageUp => cursor.saturating_sub(page),
        Key::PageDown => (cursor + page).min(last),
        Key::Home => 0,
        Key::End => last,
        _ => cursor,
    }
}

fn edit(text: &mut String, key: Key) {
    match key {
        Key::Character(character) if text.chars().count() < TEXT_MAX && !character.is_control() => text.push(character),
        Key::Backspace => drop(text.pop()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, Menu, Request};
    use crate::{Options, Settings};

    const OPTIONS: &str = include_str!("../../../config/Kconfig");

    fn press(menu: &mut Menu<'_>, text: &str) -> Option<Request> {
        text.chars().filter_map(|character| menu.press(Key::Character(character))).last()
    }

    #[test]
    fn keys_fit_on_a_narrow_screen() {
        let options = Options::parse(OPTIONS).expect("sound options");
        assert!(Menu::new(&options, Settings::default(), vec![]).keys().len() <= 80);
    }

    #[test]
    fn nothing_is_left_or_written_over_without_a_question() {
        let options = Options::parse(OPTIONS).expect("sound options");
        let mut menu = Menu::new(&options, Settings::default(), vec!["mine".to_owned()]);
        assert_eq!(menu.press(Key::Interrupt), Some(Request::Leave));
        menu.press(Key::Enter);
        press(&mut menu, "n");
        assert!(menu.is_changed());
        for key in [Key::Interrupt, Key::Character('q')] {
            assert_eq!(menu.press(key), None);
            assert_eq!(menu.press(Key::Escape), None);
        }
        press(&mut menu, "l");
        assert_eq!(menu.press(Key::Enter), None, "changes would be lost");
        assert_eq!(press(&mut menu, "y"), Some(Request::Load("mine".to_owned())));
        press(&mut menu, "wmine");
        assert_eq!(menu.press(Key::Enter), None, "another configuration would be lost");
        assert_eq!(press(&mut menu, "n"), None);
        press(&mut menu, "wother");
        assert_eq!(menu.press(Key::Enter), Some(Request::SaveAs("other".to_owned())));
        assert_eq!(press(&mut menu, "qy"), Some(Request::SaveAndLeave));
    }

    #[test]
    fn search_finds_names_texts_and_members() {
        let options = Options::parse(OPTIONS).expect("sound options");
        let check = |text: &str, expected: &str| {
            let mut menu = Menu::new(&options, Settings::default(), vec![]);
            press(&mut menu, "/");
            press(&mut menu, text);
            menu.press(Key::Enter);
            assert_eq!(menu.rows()[menu.cursor()].name, expected, "{text}");
        };
        check("spin_wheels", "SPIN_WHEELS");
        check("wheels", "SPIN_WHEELS");
        check("38400", "KDB_COMSPEED");
        check("overflow", "KDB_NO_ASSERTS");
        check("mitigations_full", "MITIGATIONS");
    }
}
