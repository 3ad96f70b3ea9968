//! Output and input of programs: by the console server if there is one, else by the first serial line.
//!
//! The console server is sigma1, which the boot loader names in the kernel interface page: so every program of every space
//! knows its id, and the root task's own threads keep their numbers. A sigma1 that does not listen is none, which the first
//! message finds out. A message takes the thread's message registers, so they are put back afterwards: printing changes
//! nothing that a program can see.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use l4::message::Msg;
use l4::{MR_COUNT, MsgTag, ThreadId, Time, Timeouts, Word, ipc, kip, thread, utcb};

use crate::serial;

/// The messages to the console server. Each is a call; answers have label 0.
pub mod protocol {
    use l4::Word;

    /// Prints. MR1: number of bytes; from MR2 on the bytes, the lowest of a word first. The answer is empty.
    pub const WRITE: Word = 0xC01;
    /// Asks for a key. The answer's MR1: the key, or [`NO_KEY`].
    pub const READ: Word = 0xC02;
    /// Waits for a key, for one thread at a time. The answer is as for [`READ`].
    pub const WAIT: Word = 0xC03;
    /// Says that the program has ended. MR1: its status. The answer, which is empty, comes if the machine stays on.
    pub const END: Word = 0xC04;

    /// No key was typed, or somebody else waits for it.
    pub const NO_KEY: Word = Word::MAX;
    /// Most bytes that a message prints.
    pub const WRITE_BYTES_MAX: usize = 62 * size_of::<Word>();
}

/// How whoever says it on the serial line says how the program ended: its status follows.
pub const ENDED: &str = "ended with status ";

/// How long the console server may take to listen, at first, and to print.
const PATIENCE: Time = Time::period_us(10_000_000);

/// It is not known whether there is a server.
const UNKNOWN: u8 = 0;
/// There is one.
const SERVER: u8 = 1;
/// There is none.
const ALONE: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(UNKNOWN);

/// The console server, unless there is none or this is a server that it asks itself.
fn server() -> Option<ThreadId> {
    let id = kip().thread_info.sigma1();
    if STATE.load(Relaxed) == UNKNOWN {
        let me = thread::my_global_id();
        let is_there = kip().sigma1.is_present() && me != id && me != kip::sigma0_id();
        STATE.store(if is_there { SERVER } else { ALONE }, Relaxed);
    }
    (STATE.load(Relaxed) == SERVER).then_some(id)
}

/// Calls the server with these words, or does without it for ever. Returns MR1 of the answer.
fn call(server: ThreadId, label: Word, words: &[Word], answer: Time) -> Option<Word> {
    let saved: [Word; MR_COUNT] = core::array::from_fn(|i| utcb().mr(i));
    Msg::of_words(MsgTag::new(label, words.len(), 0), words).load();
    let result = ipc::call_timeouts(server, Timeouts::new(PATIENCE, answer));
    let first = utcb().mr(1);
    saved.iter().enumerate().for_each(|(i, word)| utcb().set_mr(i, *word));
    if result.is_err() {
        STATE.store(ALONE, Relaxed);
    }
    result.ok().map(|_| first)
}

/// Text on its way to the server.
struct Packet {
    server: ThreadId,
    bytes: [u8; protocol::WRITE_BYTES_MAX],
    len: usize,
}

impl Packet {
    /// Sends what there is.
    fn send(&mut self) -> fmt::Result {
        let text = &self.bytes[..core::mem::take(&mut self.len)];
        let mut words = [0; 63];
        words[0] = text.len() as Word;
        for (word, bytes) in words[1..].iter_mut().zip(text.chunks(size_of::<Word>())) {
            let mut whole = [0; size_of::<Word>()];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = Word::from_le_bytes(whole);
        }
        let count = 1 + text.len().div_ceil(size_of::<Word>());
        if call(self.server, protocol::WRITE, &words[..count], PATIENCE).is_none() {
            serial::write_bytes(text);
        }
        Ok(())
    }
}

impl Write for Packet {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            self.bytes[self.len] = byte;
            self.len += 1;
            if self.len == self.bytes.len() {
                self.send()?;
            }
        }
        Ok(())
    }
}

/// Prints formatted text: see [`crate::println`].
pub fn print(text: fmt::Arguments<'_>) {
    // Consoles never fail; a value that cannot be formatted is left out.
    let _ = match server() {
        Some(server) => {
            let mut packet = Packet { server, bytes: [0; protocol::WRITE_BYTES_MAX], len: 0 };
            packet.write_fmt(text).and_then(|()| packet.send())
        }
        None => serial::Line.write_fmt(text),
    };
}

/// The next key that was typed, if there is one.
pub fn read_byte() -> Option<u8> {
    let Some(server) = server() else { return serial::read_byte() };
    call(server, protocol::READ, &[], PATIENCE).and_then(key)
}

/// Waits for a key.
pub fn read_byte_blocking() -> u8 {
    loop {
        let found = match server() {
            Some(server) => call(server, protocol::WAIT, &[], Time::NEVER).and_then(key),
            None => Some(serial::read_byte_blocking()),
        };
        if let Some(byte) = found {
            return byte;
        }
        l4::schedule::yield_now();
    }
}

fn key(word: Word) -> Option<u8> {
    u8::try_from(word).ok()
}

/// Says that the program has ended; whether there is a server that heard it. Returns if the machine stays on.
pub fn tell_end(status: u8) -> bool {
    server().is_some_and(|server| call(server, protocol::END, &[status.into()], PATIENCE).is_some())
}
