//! The configuration menu as a person uses it: keys typed into a terminal, the screen read back.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use kconfig::menu::{Key, Menu, Request};
use kconfig::{Document, Options, Settings};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use tempfile::TempDir;

/// Far more than the slowest host needs.
const PATIENCE: Duration = Duration::from_secs(120);
/// Steps of the test with random keys.
const RANDOM_KEYS: usize = 400;
const SEED: u64 = 1;
/// Rows that the reader of the screen has at least: with one, a line that was drawn for a wider screen ends it.
const ROWS_MIN: u16 = 2;

/// The menu in a terminal of its own, on a configuration of its own.
struct Terminal {
    _dir: TempDir,
    file: PathBuf,
    screen: Arc<Mutex<vt100::Parser>>,
    /// Bytes that the menu has drawn.
    drawn: Arc<AtomicUsize>,
    master: Box<dyn MasterPty + Send>,
    keys: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
}

impl Terminal {
    /// Starts the menu on a file with this text, or on none.
    fn start(text: Option<&str>, rows: u16, cols: u16) -> Self {
        Self::start_in(TempDir::new().expect("there is room"), text, rows, cols)
    }

    /// The same, in a folder where something may be already.
    fn start_in(dir: TempDir, text: Option<&str>, rows: u16, cols: u16) -> Self {
        let file = dir.path().join(".config");
        if let Some(text) = text {
            fs::write(&file, text).expect("there is room");
        }
        let pair = native_pty_system()
            .openpty(PtySize { rows, cols, pixel_width: 0, pixel_height: 0 })
            .expect("the system has terminals");
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_xtask"));
        command.arg("config");
        command.env("TERM", "xterm-256color");
        command.env("MARCONA_CONFIG", &file);
        let child = pair.slave.spawn_command(command).expect("the tool starts");
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows.max(ROWS_MIN), cols, 0)));
        let mut output = pair.master.try_clone_reader().expect("the terminal can be read");
        let shown = Arc::clone(&screen);
        let drawn = Arc::new(AtomicUsize::new(0));
        let drawing = Arc::clone(&drawn);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shown.lock().expect("nobody panics with the screen").process(&bytes[..count]);
                drawing.fetch_add(count, Ordering::Release);
            }
        });
        let keys = pair.master.take_writer().expect("the terminal can be typed on");
        Self { _dir: dir, file, screen, drawn, master: pair.master, keys, child }
    }

    fn text(&self) -> String {
        self.screen.lock().expect("nobody panics with the screen").screen().contents()
    }

    /// Waits until the screen shows `text`.
    #[track_caller]
    fn see(&self, text: &str) {
        self.wait(|screen| screen.contains(text), text);
    }

    /// Waits until it does not any more.
    #[track_caller]
    fn lose(&self, text: &str) {
        self.wait(|screen| !screen.contains(text), text);
    }

    #[track_caller]
    fn wait(&self, is_so: impl Fn(&str) -> bool, what: &str) {
        let started = Instant::now();
        while !is_so(&self.text()) {
            assert!(started.elapsed() < PATIENCE, "waiting for `{what}`, the screen shows\n{}", self.text());
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal takes keys");
        self.keys.flush().expect("the terminal takes keys");
    }

    /// Changes the size, and waits until the menu has drawn something for it.
    #[track_caller]
    fn resize(&self, rows: u16, cols: u16) {
        let before = self.drawn.load(Ordering::Acquire);
        self.screen.lock().expect("nobody panics with the screen").set_size(rows.max(ROWS_MIN), cols);
        self.master.resize(PtySize { rows, cols, pixel_width: 0, pixel_height: 0 }).expect("the terminal has a size");
        self.wait(|_| self.drawn.load(Ordering::Acquire) > before, "something new");
    }

    /// Waits for the end; the status must be 0.
    #[track_caller]
    fn end(&mut self) {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the tool is ours") {
                return assert!(status.success(), "{status:?}\n{}", self.text());
            }
            assert!(started.elapsed() < PATIENCE, "it does not end; the screen shows\n{}", self.text());
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn saved(&self) -> String {
        fs::read_to_string(&self.file).unwrap_or_default()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
    }
}

const UP: &str = "\x1b[A";
const DOWN: &str = "\x1b[B";
const RIGHT: &str = "\x1b[C";
const LEFT: &str = "\x1b[D";
const ENTER: &str = "\r";
const ESCAPE: &str = "\x1b";
const INTERRUPT: &str = "\x03";
const BACKSPACE: &str = "\x7f";

#[test]
fn an_option_is_found_changed_and_saved() {
    let mut terminal = Terminal::start(None, 24, 80);
    terminal.see("Processors and interrupts");
    terminal.press(DOWN);
    terminal.press(ENTER);
    terminal.see("Marcona > Kernel");
    terminal.see("[ ]       Activity on the text screen");
    terminal.press("/");
    terminal.see("Search");
    terminal.press("wheels");
    terminal.see("> wheels");
    terminal.press(ENTER);
    terminal.lose("> wheels");
    terminal.see("SPIN_WHEELS=n, by default n");
    terminal.press(" ");
    terminal.see("[*]       Activity on the text screen");
    terminal.see("(changed)");
    terminal.press("s");
    terminal.see("is saved");
    terminal.press(ENTER);
    terminal.lose("(changed)");
    terminal.press("q");
    terminal.end();
    assert_eq!(terminal.saved(), "SPIN_WHEELS=y\n");
}

#[test]
fn numbers_and_choices_are_checked() {
    let mut terminal = Terminal::start(Some("# mine\nSMP_MAX_PROCS=8\n"), 24, 80);
    terminal.press("/");
    terminal.see("Search");
    terminal.press("max_procs");
    terminal.see("> max_procs");
    terminal.press(ENTER);
    terminal.see("SMP_MAX_PROCS=8, by default 255");
    terminal.press(ENTER);
    terminal.see("> 8");
    terminal.press(BACKSPACE);
    terminal.press("900");
    terminal.press(ENTER);
    terminal.see("it takes 1 to 255");
    terminal.press(BACKSPACE);
    terminal.press(BACKSPACE);
    terminal.press(BACKSPACE);
    terminal.press("40");
    terminal.see("> 40");
    terminal.press(ENTER);
    terminal.see("SMP_MAX_PROCS=40, by default 255");
    terminal.press("/baud");
    terminal.see("> baud");
    terminal.press(ENTER);
    terminal.see("<115200>");
    terminal.press(ENTER);
    terminal.see("Enter take");
    terminal.press(DOWN);
    terminal.press(DOWN);
    terminal.press(ENTER);
    terminal.see("<38400>");
    terminal.press("q");
    terminal.see("Changes are not saved");
    terminal.press("y");
    terminal.end();
    assert_eq!(terminal.saved(), "# mine\nSMP_MAX_PROCS=40\nKDB_COMSPEED=38400\n");
}

#[test]
fn what_is_off_says_why_and_comes_back() {
    let mut terminal = Terminal::start(Some("SMP_MAX_PROCS=40\n"), 24, 80);
    terminal.see("Processors and interrupts");
    terminal.press(RIGHT);
    terminal.see("(40)");
    // Without I/O APICs there are no other processors.
    terminal.press("n");
    terminal.see("(1)");
    terminal.press(DOWN);
    terminal.see("Not to be chosen: it needs IOAPIC=y");
    terminal.press("y");
    terminal.see("This cannot be chosen now");
    terminal.press(ENTER);
    terminal.press(DOWN);
    terminal.see("40 is kept, and counts when it can.");
    terminal.press(UP);
    terminal.press(UP);
    terminal.press("y");
    terminal.see("(40)");
    terminal.press("?");
    terminal.see("Help");
    terminal.press(ESCAPE);
    terminal.lose("any key goes on");
    terminal.press(LEFT);
    terminal.press(ESCAPE);
    terminal.see("Changes are not saved");
    terminal.press("n");
    terminal.end();
    assert_eq!(terminal.saved(), "SMP_MAX_PROCS=40\n");
}

#[test]
fn named_configurations_are_loaded() {
    let mut terminal = Terminal::start(Some("VERBOSE_INIT=y\n"), 24, 80);
    terminal.see("Processors and interrupts");
    terminal.press("l");
    terminal.see("forty-cores");
    // bench, debug, default, forty-cores.
    terminal.press(DOWN);
    terminal.press(DOWN);
    terminal.press(DOWN);
    terminal.press(ENTER);
    terminal.see("This is forty-cores now");
    terminal.press(ENTER);
    terminal.see("(changed)");
    terminal.press(RIGHT);
    terminal.see("(40)");
    terminal.press("q");
    terminal.see("Changes are not saved");
    terminal.press("y");
    terminal.end();
    let saved = terminal.saved();
    assert!(saved.contains("SMP_MAX_PROCS=40\n") && !saved.contains("VERBOSE_INIT"), "{saved}");
}

#[test]
fn damaged_files_are_repaired_and_kept_beside() {
    let damaged = "CONFIG_SMP=y\nSMP_MAX_PROCS=4000\nCONFIG_X_SCHED_HS=y\n<<<<<<<\n";
    let mut terminal = Terminal::start(Some(damaged), 24, 80);
    terminal.see("This file was repaired");
    terminal.see("SMP_MAX_PROCS is taken as 255");
    terminal.press(ENTER);
    terminal.lose("This file was repaired");
    terminal.press("s");
    terminal.see("is saved");
    terminal.press(ENTER);
    terminal.press("q");
    terminal.end();
    let saved = terminal.saved();
    for kept in ["SMP=y\n", "SMP_MAX_PROCS=4000\n", "\nSMP_MAX_PROCS=255\n", "CONFIG_X_SCHED_HS=y\n", "<<<<<<<\n"] {
        assert!(saved.contains(kept), "no {kept} in {saved}");
    }
    let old = terminal.file.with_file_name(".config.old");
    assert_eq!(fs::read_to_string(old).expect("the damaged file is beside"), damaged);
}

#[test]
fn any_size_of_the_terminal_will_do() {
    let mut terminal = Terminal::start(None, 24, 80);
    terminal.see("Processors and interrupts");
    for (rows, cols) in [(1, 1), (2, 200), (60, 3), (5, 20), (100, 300)] {
        terminal.resize(rows, cols);
        terminal.press("/");
        terminal.press("s");
        terminal.press(INTERRUPT);
    }
    terminal.resize(24, 80);
    terminal.see("Processors and interrupts");
    terminal.press("q");
    terminal.end();
}

/// A menu that is ended from outside loses nothing: the next one has it.
#[test]
fn what_was_not_saved_is_there_again() {
    let mut terminal = Terminal::start(Some("# mine\n"), 24, 80);
    terminal.see("Processors and interrupts");
    terminal.press("/");
    terminal.press("wheels");
    terminal.press(ENTER);
    terminal.press("y");
    terminal.see("SPIN_WHEELS=y");
    let unsaved = terminal.file.with_file_name(".config.unsaved");
    let started = Instant::now();
    while fs::read_to_string(&unsaved).unwrap_or_default() != "# mine\nSPIN_WHEELS=y\n" {
        assert!(started.elapsed() < PATIENCE, "nothing is kept");
        thread::sleep(Duration::from_millis(10));
    }
    terminal.child.kill().expect("it is ours");
    terminal.child.wait().expect("it is ours");
    assert_eq!(terminal.saved(), "# mine\n");

    let dir = TempDir::new().expect("there is room");
    fs::copy(&unsaved, dir.path().join(".config.unsaved")).expect("there is room");
    let mut again = Terminal::start_in(dir, None, 24, 80);
    again.see("An earlier menu ended");
    again.press(ENTER);
    again.see("(changed)");
    again.press("q");
    again.see("Changes are not saved");
    again.press("y");
    again.end();
    assert_eq!(again.saved(), "SPIN_WHEELS=y\n");
    assert!(!again.file.with_file_name(".config.unsaved").exists(), "it is saved, and kept all the same");
}

// --- random keys ---

/// Keys, and what a terminal sends for them. Those that reach files under names of others are left out.
const RANDOM: &[(Key, &str)] = &[
    (Key::Up, UP),
    (Key::Down, DOWN),
    (Key::Down, DOWN),
    (Key::Left, LEFT),
    (Key::Right, RIGHT),
    (Key::PageDown, "\x1b[6~"),
    (Key::Home, "\x1b[H"),
    (Key::End, "\x1b[F"),
    (Key::Enter, ENTER),
    (Key::Enter, ENTER),
    (Key::Backspace, BACKSPACE),
    (Key::Interrupt, INTERRUPT),
    (Key::Character(' '), " "),
    (Key::Character('y'), "y"),
    (Key::Character('n'), "n"),
    (Key::Character('d'), "d"),
    (Key::Character('/'), "/"),
    (Key::Character('?'), "?"),
    (Key::Character('s'), "s"),
    (Key::Character('l'), "l"),
    (Key::Character('e'), "e"),
    (Key::Character('1'), "1"),
    (Key::Character('9'), "9"),
    (Key::Character('0'), "0"),
    (Key::Character('x'), "x"),
];

/// The same menu without a terminal: what the file must come to.
struct Model<'o> {
    options: &'o Options,
    menu: Menu<'o>,
    saved: Settings,
}

impl Model<'_> {
    /// Presses a key; whether the menu is still there.
    fn press(&mut self, key: Key, names: &Path) -> bool {
        match self.menu.press(key) {
            Some(Request::Leave) => return false,
            Some(Request::Save) => {
                self.saved = self.menu.settings().clone();
                self.menu.saved();
                self.menu.notice("Saved", vec![String::new()]);
            }
            Some(Request::SaveAndLeave) => {
                self.saved = self.menu.settings().clone();
                return false;
            }
            Some(Request::Load(name)) => {
                let bytes = fs::read(names.join(&name)).expect("it is in the list");
                let (_, settings, repairs) = Document::open(self.options, &bytes);
                self.menu.loaded(&name, settings, repairs);
            }
            Some(Request::SaveAs(_)) | None => {}
        }
        true
    }
}

/// Whatever is typed, the menu goes on, and in the end the file has what was chosen.
#[test]
fn random_keys_lose_nothing() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let text = fs::read_to_string(config.join("Kconfig")).expect("the options are there");
    let options = Options::parse(&text).expect("the options are sound");
    let mut names: Vec<String> = fs::read_dir(&config)
        .expect("the folder is there")
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name != "Kconfig")
        .collect();
    names.sort();
    let mut seed = std::env::var("MENU_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
    println!("note: MENU_SEED={seed}");
    let mut random = move |bound: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % bound
    };
    let mut menu = Menu::new(&options, Settings::default(), names);
    // As many lines as the terminal below shows at once.
    menu.set_page(12);
    let mut model = Model { options: &options, menu, saved: Settings::default() };
    let mut terminal = Terminal::start(None, 24, 80);
    terminal.see("Processors and interrupts");
    for _ in 0..RANDOM_KEYS {
        let (key, bytes) = RANDOM[random(RANDOM.len())];
        let mut after = Model { options: &options, menu: model.menu.clone(), saved: model.saved.clone() };
        if !after.press(key, &config) {
            continue;
        }
        model = after;
        terminal.press(bytes);
    }
    // Out of whatever is open, and up.
    while model.menu.window().is_some() || model.menu.title().contains('>') {
        let is_notice = model.menu.window().is_some_and(|window| window.keys.contains("any key"));
        // An escape would be told from the beginning of another key by the silence behind it alone.
        let (key, bytes) = match model.menu.window() {
            Some(_) if is_notice => (Key::Enter, ENTER),
            Some(_) => (Key::Interrupt, INTERRUPT),
            None => (Key::Left, LEFT),
        };
        assert!(model.press(key, &config));
        terminal.press(bytes);
    }
    let is_changed = model.menu.is_changed();
    terminal.press("q");
    if is_changed {
        terminal.see("Changes are not saved");
        terminal.press("y");
    }
    terminal.end();
    let chosen = model.menu.settings().clone();
    let (_, saved, repairs) = Document::open(&options, terminal.saved().as_bytes());
    assert!(repairs.is_empty(), "{repairs:?}");
    assert_eq!(saved, chosen, "the file is\n{}", terminal.saved());
}
