//! Says on stderr what takes longer than two seconds: a spinner on a terminal, plain lines otherwise.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const PATIENCE: Duration = Duration::from_secs(2);
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(100);

/// The work that is under way: what is begun meanwhile is a part of it.
static CURRENT: Mutex<Weak<Display>> = Mutex::new(Weak::new());

/// Work that is under way, or a part of it; it ends when this is dropped.
pub struct Progress {
    title: String,
    display: Arc<Display>,
    /// Of the whole, not of a part.
    watcher: Option<Watcher>,
}

/// What a person sees.
struct Display {
    bar: ProgressBar,
    note: Mutex<String>,
}

/// The thread that shows it.
struct Watcher {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Progress {
    /// Begins work called `title`.
    pub fn start(title: impl Into<String>) -> Self {
        let title = title.into();
        let mut current = CURRENT.lock().expect("no holder of the current work panics");
        if let Some(display) = current.upgrade() {
            let part = Self { title, display, watcher: None };
            part.note("");
            return part;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let display = Arc::new(Display { bar, note: Mutex::default() });
        *current = Arc::downgrade(&display);
        let watcher = Some(Watcher::start(&title, &display));
        Self { title, display, watcher }
    }

    /// Says which part of the work is being done.
    pub fn note(&self, text: impl Into<String>) {
        let text = text.into();
        let text = match self.watcher {
            Some(_) => text,
            None if text.is_empty() => self.title.clone(),
            None => format!("{}: {text}", self.title),
        };
        self.display.bar.set_message(text.clone());
        *self.display.note.lock().expect("no holder of the note panics") = text;
    }

    /// Prints a line of result on stdout, clear of the spinner.
    pub fn println(&self, line: &str) {
        self.display.bar.suspend(|| println!("{line}"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(Watcher { stop, thread }) = self.watcher.take() {
            drop(stop);
            // A watcher that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

impl Watcher {
    fn start(title: &str, display: &Arc<Display>) -> Self {
        let (title, display) = (title.to_owned(), Arc::clone(display));
        let (stop, stopped) = mpsc::channel();
        Self { stop, thread: thread::spawn(move || display.show(&title, &stopped)) }
    }
}

impl Display {
    /// Shows nothing for two seconds, then what suits stderr, until the other end of `stopped` is dropped.
    fn show(&self, title: &str, stopped: &mpsc::Receiver<()>) {
        let started = Instant::now();
        let runs_on = |patience| stopped.recv_timeout(patience) == Err(RecvTimeoutError::Timeout);
        if !runs_on(PATIENCE) {
            return;
        }
        if io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{spinner} {prefix} [{elapsed}] {wide_msg}");
            self.bar.set_style(style.expect("the template names known keys"));
            self.bar.set_prefix(title.to_owned());
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar.enable_steady_tick(TICK);
            // Returns when the work is done, with an error that says so.
            let _ = stopped.recv();
            return self.bar.finish_and_clear();
        }
        eprintln!("{title} ...");
        while runs_on(PLAIN_INTERVAL) {
            let note = self.note.lock().expect("no holder of the note panics").clone();
            eprintln!("{title}: {} s, {note}", started.elapsed().as_secs());
        }
        eprintln!("{title}: done after {} s", started.elapsed().as_secs());
    }
}
