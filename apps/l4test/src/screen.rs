//! What turns in the corner of the text screen: for tests of kernels that show their activity there.

use l4::{Time, Word, time};
use l4_rt::{exit, print, println};

use crate::world::device;
use crate::world::memory;

/// Where the text screen is.
const SCREEN: Word = 0xB8000;
/// Characters in a line, and bytes of each.
const COLUMNS: Word = 80;
const CELL_BYTES: Word = 2;
const LINES: Word = 3;
/// How often it looks, and how long it sleeps in between, which is an interrupt of the timer.
const LOOKS: usize = 12;
const SLEEP: Time = Time::period_us(2000);
/// Exit status if there is no screen.
const STATUS_ABSENT: u8 = 3;

/// Prints what the last column of the first lines shows, time after time.
pub fn show() {
    let Some(base) = device::request(SCREEN) else {
        println!("screen: sigma0 does not give it");
        exit(STATUS_ABSENT)
    };
    for line in 0..LINES {
        print!("screen: ");
        for _ in 0..LOOKS {
            time::sleep(SLEEP);
            // The last of the four cells in the last word of the line; the character is the lower half of a cell.
            let cell = memory::read(base + ((line + 1) * COLUMNS - 4) * CELL_BYTES) >> (3 * 16);
            let character = char::from(cell as u8);
            print!("{}", if character.is_ascii_graphic() { character } else { '.' });
        }
        println!();
    }
}
