//! The keyboard of a PC: behind an 8042, or a USB keyboard that the firmware shows as one.

use crate::arch::{in_byte, out_byte};

const DATA: u16 = 0x60;
const STATUS_AND_COMMAND: u16 = 0x64;

const OUTPUT_FULL: u8 = 1 << 0;
const INPUT_FULL: u8 = 1 << 1;
/// What is to be read comes from a mouse.
const FROM_MOUSE: u8 = 1 << 5;
/// What a port reads as where no device answers.
const NOBODY: u8 = 0xFF;

const READ_CONFIGURATION: u8 = 0x20;
const WRITE_CONFIGURATION: u8 = 0x60;
const ENABLE_KEYBOARD: u8 = 0xAE;
const INTERRUPT: u8 = 1 << 0;
const DISABLED: u8 = 1 << 4;
const TRANSLATED: u8 = 1 << 6;

/// Looks at the status before a command is given up.
const PATIENCE: u32 = 100_000;

/// The line of its interrupt.
pub const LINE: u32 = 1;

/// Switches the keyboard and its interrupt on; whether there is one. Keys then come in the codes of the first PC.
pub fn start() -> bool {
    if in_byte(STATUS_AND_COMMAND) == NOBODY {
        return false;
    }
    drain();
    let configuration = command(READ_CONFIGURATION).and_then(|()| answer());
    let Some(configuration) = configuration else { return false };
    let wanted = configuration & !DISABLED | INTERRUPT | TRANSLATED;
    command(WRITE_CONFIGURATION).and_then(|()| send(wanted)).and_then(|()| command(ENABLE_KEYBOARD)).is_some()
}

/// Forgets what was typed before.
fn drain() {
    for _ in 0..PATIENCE {
        if in_byte(STATUS_AND_COMMAND) & OUTPUT_FULL == 0 {
            return;
        }
        in_byte(DATA);
    }
}

/// The next code of the keyboard, if there is one; codes of a mouse are passed over.
pub fn read_code() -> Option<u8> {
    loop {
        let status = in_byte(STATUS_AND_COMMAND);
        if status == NOBODY || status & OUTPUT_FULL == 0 {
            return None;
        }
        let code = in_byte(DATA);
        if status & FROM_MOUSE == 0 {
            return Some(code);
        }
    }
}

/// Has the controller reset the machine, as the first PC did it.
pub(crate) fn reset_machine() {
    const PULSE_RESET: u8 = 0xFE;
    let _ = command(PULSE_RESET);
}

fn ready() -> Option<()> {
    (0..PATIENCE).any(|_| in_byte(STATUS_AND_COMMAND) & INPUT_FULL == 0).then_some(())
}

fn command(command: u8) -> Option<()> {
    ready()?;
    out_byte(STATUS_AND_COMMAND, command);
    Some(())
}

fn send(value: u8) -> Option<()> {
    ready()?;
    out_byte(DATA, value);
    Some(())
}

fn answer() -> Option<u8> {
    (0..PATIENCE).any(|_| in_byte(STATUS_AND_COMMAND) & OUTPUT_FULL != 0).then(|| in_byte(DATA))
}
