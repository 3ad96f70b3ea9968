//! Servers: they answer every message, and nobody deletes or halts them. So whoever calls one gets an answer.

use l4::ThreadId;

use crate::messages::Me;

/// The life of a server.
pub extern "C" fn run() -> ! {
    let mut me = Me::new();
    let mut answer_to = ThreadId::NIL;
    loop {
        answer_to = me.reply_wait(answer_to).unwrap_or(ThreadId::NIL);
    }
}
