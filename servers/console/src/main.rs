//! The console server: owns screen, keyboard and serial line after the boot. It is sigma1, so each program knows it.
//!
//! A loop around [`console`]: receive, print or hand out keys, answer. The protocol is [`l4_rt::console::protocol`]. Where
//! the screen is the boot loader says, in the copy of the Multiboot information; its memory comes from sigma0, as any
//! memory does. Keys of the keyboard come by its interrupt; those of the serial line are looked for while somebody waits.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use core::cell::Cell;
use core::fmt::Write;

use console::options::{End, Options, Unknown};
use console::pages::Pages;
use console::view::View;
use keys::{Key, Keyboard};
use kformats::console::HIDE_CURSOR;
use kformats::multiboot::v1;
use l4::message::{Msg, accept_untyped};
use l4::{MsgTag, ThreadId, Time, Timeouts, Word, interrupt, ipc, thread, utcb};
use l4_rt::console::ENDED;
use l4_rt::console::protocol::{END, NO_KEY, READ, WAIT, WRITE, WRITE_BYTES_MAX};
use l4_rt::port::HarmlessPort;
use l4_rt::power::Power;
use l4_rt::{DeviceMemory, Storage, keyboard, serial};
use screen::{COLUMNS_MAX, Canvas, Glass, Mode, ROWS_MAX, Surface};

/// How long a key of the serial line may have to wait.
const LOOK: Time = Time::period_us(10_000);
/// The key that switches the machine off when the program has ended.
const ESCAPE: u8 = 0x1B;
/// Keys that nobody has read yet.
const KEYS_KEPT: usize = 64;

static PAGES: Storage<Pages> = Storage::new(Pages::EMPTY);
static SHOWN: Storage<[[u8; COLUMNS_MAX]; ROWS_MAX]> = Storage::new([[0; COLUMNS_MAX]; ROWS_MAX]);

l4_rt::entry!(main);

fn main() {
    accept_untyped();
    let mut server = Server::start();
    let mut request = server.wait(None);
    loop {
        let answer = server.handle(&request);
        request = server.wait(answer);
    }
}

/// The memory of the screen.
struct Window(DeviceMemory);

impl Canvas for Window {
    fn put_byte(&mut self, offset: usize, byte: u8) {
        self.0.put_byte(offset, byte);
    }

    fn put_word(&mut self, offset: usize, word: u32) {
        self.0.put_word(offset, word);
    }
}

impl Glass for Window {
    fn byte(&self, offset: usize) -> u8 {
        self.0.byte(offset)
    }
}

/// A message, or none for a while.
enum Request {
    Nothing,
    Message { from: ThreadId, tag: MsgTag },
}

/// An answer, and what it says.
struct Answer {
    to: ThreadId,
    word: Option<Word>,
}

struct Server {
    options: Options,
    pages: &'static mut Pages,
    view: Option<View<Window>>,
    keyboard: Keyboard,
    keys: [u8; KEYS_KEPT],
    key_count: usize,
    /// Who waits for a key.
    waiting: Option<ThreadId>,
    line: ThreadId,
    /// The program has ended: nobody reads keys any more.
    has_ended: bool,
}

impl Server {
    /// Takes the devices over.
    fn start() -> Self {
        let complaint = Cell::new(None);
        let options = Options::parse(l4_rt::args("console"), |unknown| complaint.set(Some(unknown)));
        if options.outputs.serial {
            serial::choose(options.serial.port, options.serial.divisor);
        }
        let pages = PAGES.take().expect("the server starts once");
        let screen = if options.outputs.screen { screen() } else { None };
        let shown = SHOWN.take().expect("the server starts once");
        let view = screen.map(|surface| View::start(surface, pages, shown));
        let line = ThreadId::interrupt(keyboard::LINE.into());
        let mut server = Self {
            options,
            pages,
            view,
            keyboard: Keyboard::default(),
            keys: [0; KEYS_KEPT],
            key_count: 0,
            waiting: None,
            line,
            has_ended: false,
        };
        if keyboard::start() {
            // Without the interrupt keys are found when somebody asks for one.
            let _ = thread::associate_interrupt(line, thread::my_global_id());
        }
        if server.pages.is_empty() {
            // The kernel was told not to draw.
            for part in [l4::kip::kernel_version_string(), "\n"] {
                server.show(part.as_bytes());
            }
        }
        if let Some(Unknown(word, values)) = complaint.take() {
            for part in ["console: what is ", word, "? There is ", values, "\n"] {
                server.print(part.as_bytes());
            }
        }
        server
    }

    /// Answers, and waits for the next message, or for a while if somebody waits for a key.
    fn wait(&mut self, answer: Option<Answer>) -> Request {
        let to = answer.as_ref().map_or(ThreadId::NIL, |answer| answer.to);
        let word = answer.and_then(|answer| answer.word);
        Msg::of_words(MsgTag::new(0, usize::from(word.is_some()), 0), word.as_slice()).load();
        let patience = if self.waiting.is_some() { LOOK } else { Time::NEVER };
        let outcome = ipc::ipc(to, ThreadId::ANY, Timeouts::new(Time::ZERO, patience));
        // Who does not wait for its answer has asked in vain, and nothing is received then.
        outcome.result().map_or(Request::Nothing, |outcome| Request::Message { from: outcome.from, tag: outcome.tag })
    }

    /// Does what a message asks for, and what keys ask for meanwhile.
    fn handle(&mut self, request: &Request) -> Option<Answer> {
        let answer = match *request {
            Request::Nothing => None,
            Request::Message { from, .. } if from == self.line => {
                self.take_keys();
                // The next one comes after this, whether or not the kernel still waits for it.
                let _ = interrupt::acknowledge(from);
                None
            }
            Request::Message { from, tag } => self.serve(from, tag),
        };
        self.take_keys();
        answer.or_else(|| self.answer_waiting())
    }

    fn serve(&mut self, from: ThreadId, tag: MsgTag) -> Option<Answer> {
        let answer = |word| Some(Answer { to: from, word });
        match (tag.label(), tag.untyped()) {
            (WRITE, 1..) => {
                let mut text = [0; WRITE_BYTES_MAX];
                let len = (utcb().mr(1) as usize).min((tag.untyped() - 1) * size_of::<Word>()).min(text.len());
                for (index, bytes) in text.chunks_exact_mut(size_of::<Word>()).take(tag.untyped() - 1).enumerate() {
                    bytes.copy_from_slice(&utcb().mr(2 + index).to_le_bytes());
                }
                self.print(&text[..len]);
                answer(None)
            }
            (READ, _) => {
                self.take_keys();
                answer(Some(self.next_key().map_or(NO_KEY, Word::from)))
            }
            (WAIT, _) if self.waiting.is_some() => answer(Some(NO_KEY)),
            (WAIT, _) => {
                self.waiting = Some(from);
                None
            }
            (END, 1..) => {
                self.end(utcb().mr(1) as u8);
                answer(None)
            }
            _ => None,
        }
    }

    /// Does what is to happen when the program has ended. Returns if the machine stays on.
    fn end(&mut self, status: u8) {
        self.has_ended = true;
        if let Some(view) = &mut self.view {
            view.end(self.pages, status);
        }
        if self.options.outputs.serial {
            // The screen has a line for it.
            let _ = writeln!(serial::Line, "console: {ENDED}{status}");
            serial::flush();
        }
        match self.options.end {
            End::Stay => {}
            End::Off => self.switch_off(),
            End::Restart => Power::find().restart(),
        }
    }

    /// Switches the machine off, or says why it stays on.
    fn switch_off(&mut self) {
        Power::find().off();
        self.print(b"console: the firmware does not say how this machine is switched off\n");
    }

    fn print(&mut self, text: &[u8]) {
        if self.options.outputs.serial {
            serial::write_bytes(text);
        }
        self.show(text);
    }

    /// Prints on the screen alone.
    fn show(&mut self, text: &[u8]) {
        if let Some(view) = &mut self.view {
            for byte in text {
                let was_last = self.pages.last();
                let change = self.pages.put(*byte);
                view.follow(self.pages, change, was_last);
            }
        }
    }

    /// Takes what was typed on keyboard and serial line.
    fn take_keys(&mut self) {
        while let Some(code) = keyboard::read_code() {
            match self.keyboard.take(code) {
                Some(Key::Character(ESCAPE)) if self.has_ended => self.switch_off(),
                Some(Key::Character(character)) => self.keep(character),
                Some(Key::Restart) => Power::find().restart(),
                Some(Key::Attention) => self.call_debugger(),
                Some(key) => {
                    if let Some(view) = &mut self.view {
                        view.turn(self.pages, key);
                    }
                }
                None => {}
            }
        }
        if self.options.outputs.serial {
            while let Some(byte) = serial::read_byte() {
                self.keep(byte);
            }
        }
    }

    /// Lets a person into the kernel's debugger, which may draw on the screen meanwhile.
    fn call_debugger(&mut self) {
        l4::kdb::enter_with!("Control, Alt and Escape");
        // The debugger has seen them released.
        self.keyboard = Keyboard::default();
        if let Some(view) = &mut self.view {
            view.redraw(self.pages);
        }
    }

    /// Keeps a key for who reads; what is too much is lost.
    fn keep(&mut self, key: u8) {
        if let Some(place) = self.keys.get_mut(self.key_count) {
            *place = key;
            self.key_count += 1;
        }
    }

    fn next_key(&mut self) -> Option<u8> {
        let key = (self.key_count > 0).then(|| self.keys[0])?;
        self.keys.copy_within(1..self.key_count, 0);
        self.key_count -= 1;
        Some(key)
    }

    /// Gives a key to who waits for one.
    fn answer_waiting(&mut self) -> Option<Answer> {
        let to = self.waiting?;
        let key = self.next_key()?;
        self.waiting = None;
        Some(Answer { to, word: Some(key.into()) })
    }
}

/// The screen that the boot loader describes, if its memory can be had.
fn screen() -> Option<Surface<Window>> {
    let info = l4_rt::multiboot_info(v1::INFO_BYTES as usize)?;
    let mode = Mode::new(&v1::Header::read(info)?.framebuffer?)?;
    if mode.is_text() {
        // Nobody types on it.
        HIDE_CURSOR.iter().for_each(|&(port, byte)| _ = HarmlessPort::new(port).map(|port| port.write(byte)));
    }
    Some(Surface::new(mode, Window(DeviceMemory::request(mode.address, mode.bytes())?)))
}
