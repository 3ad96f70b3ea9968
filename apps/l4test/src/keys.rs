//! Reading keys through the debugger's services: for tests that type.

use l4::{Time, kdb, time};
use l4_rt::println;

/// How long it sleeps between two looks for a key.
const POLL: Time = Time::period_us(1000);

/// Says which keys were typed, up to `q`, which it waits for, and one more, which it looks for.
pub fn read() {
    println!("keys: q ends");
    loop {
        let key = kdb::read_char_blocked();
        println!("keys: {:?}", char::from(key));
        if key == b'q' {
            break;
        }
    }
    let last = loop {
        match kdb::read_char() {
            Some(key) => break key,
            None => time::sleep(POLL),
        }
    };
    println!("keys: at last {:?}", char::from(last));
}
