//! The interactive menu.

use l4::kdb;
use l4_rt::{console, println};
use pingpong::options::{Format, Mode, Options};

use crate::stage;

const ESCAPE: u8 = 0x1B;

/// Asks what to run until the user quits.
pub fn run(mut options: Options) {
    loop {
        println!();
        for (key, mode) in (1..).zip(Mode::ALL) {
            println!("{key}: {}", mode.title());
        }
        println!("s: tables on or off   q: quit   ESC: kernel debugger");
        match console::read_byte_blocking() {
            key @ b'1'..=b'4' => repeat(&options, Mode::ALL[usize::from(key - b'1')]),
            b's' => {
                let is_table = options.format == Format::Table;
                options.format = if is_table { Format::Lines } else { Format::Table };
            }
            b'q' => return,
            ESCAPE => kdb::enter(),
            _ => {}
        }
    }
}

/// Runs a mode as often as the user likes.
fn repeat(options: &Options, mode: Mode) {
    if !stage::is_possible(mode) {
        println!("{} needs two processors", mode.title());
        return;
    }
    loop {
        stage::run(options, mode);
        println!("g: again   q: menu   ESC: kernel debugger");
        loop {
            match console::read_byte_blocking() {
                b'g' => break,
                b'q' => return,
                ESCAPE => kdb::enter(),
                _ => {}
            }
        }
    }
}
