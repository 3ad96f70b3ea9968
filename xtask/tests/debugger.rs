//! The kernel debugger as a person uses it: in a terminal, through the emulator, the screen read back.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, PtySize, native_pty_system};

/// Far more than the slowest host needs, building included.
const PATIENCE: Duration = Duration::from_secs(300);
const SIZE: PtySize = PtySize { rows: 40, cols: 110, pixel_width: 0, pixel_height: 0 };

/// A boot of the program with the three mistakes, in a terminal of its own.
struct Terminal {
    screen: Arc<Mutex<vt100::Parser>>,
    keys: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
}

impl Terminal {
    fn boot() -> Self {
        let pair = native_pty_system().openpty(SIZE).expect("the system has terminals");
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(["run", "deadlock", "--config", "trace"]);
        command.env("TERM", "xterm-256color");
        let child = pair.slave.spawn_command(command).expect("the tool starts");
        let screen = Arc::new(Mutex::new(vt100::Parser::new(SIZE.rows, SIZE.cols, 0)));
        let mut output = pair.master.try_clone_reader().expect("the terminal can be read");
        let shown = Arc::clone(&screen);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shown.lock().expect("nobody panics with the screen").process(&bytes[..count]);
            }
        });
        let keys = pair.master.take_writer().expect("the terminal can be typed on");
        Self { screen, keys, child }
    }

    fn text(&self) -> String {
        self.screen.lock().expect("nobody panics with the screen").screen().contents()
    }

    /// Types keys, and waits until the last lines of the screen show `text`.
    #[track_caller]
    fn type_and_see(&mut self, keys: &str, text: &str) {
        self.keys.write_all(keys.as_bytes()).and_then(|()| self.keys.flush()).expect("the terminal takes keys");
        let started = Instant::now();
        while !self.text().contains(text) {
            assert!(started.elapsed() < PATIENCE, "waiting for `{text}`, the screen shows\n{}", self.text());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Does nothing when it has ended.
        let _ = self.child.kill();
    }
}

/// Keys in menus with a pager, then lines with completion and history, and the way back to the program, which ends.
#[test]
fn a_person_finds_the_ring_and_leaves() {
    let mut terminal = Terminal::boot();
    terminal.type_and_see("", "? lists the commands, g leaves");
    terminal.type_and_see("?", "--- more: space, Enter for a line, q to stop ---");
    terminal.type_and_see(" ", "help; Escape or Backspace: the menu above");
    terminal.type_and_see("w", "1 rings; 3 can never go on by themselves");
    terminal.type_and_see("m", "kdb/mdb> ");
    terminal.type_and_see("sserver\r", "from space 1 (root)");
    terminal.type_and_see("\x1bcm", "keys or lines (kl)?");
    terminal.type_and_see("l", "kdb/config> ");
    terminal.type_and_see("up\r", "kdb> ");
    terminal.type_and_see("showq\t", "showqueue");
    terminal.type_and_see("\x15wai\t\r", "RING of 3: ");
    // A letter that is missing is typed where it belongs; then the line before the last comes again.
    terminal.type_and_see("find ruaway\x1b[D\x1b[D\x1b[D\x1b[Dn\r", "2 found");
    terminal.type_and_see("\x1b[A\x1b[A\r", "kdb> waits");
    terminal.type_and_see("nosuch\r", "no such command: help lists them");
    terminal.keys.write_all(b"go\r").expect("the terminal takes keys");
    let status = terminal.child.wait().expect("the tool ends");
    assert!(status.success(), "{status:?}\n{}", terminal.text());
}
