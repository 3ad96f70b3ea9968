//! The pager: it gives strangers what they need of the program's image. Whom it does not answer has made a mistake that
//! cannot be mended, and is begun anew some time later.

use core::hint::spin_loop;

use l4::ipc::{self, Outcome};
use l4::message::Msg;
use l4::protocol::PAGE_FAULT;
use l4::{Fpage, MapItem, Rights, ThreadId, Time, Timeouts, Word, utcb};

use crate::table::Player;

const PAGE_LOG2: u32 = 12;

/// The life of the pager. Whatever comes, it goes on.
pub extern "C" fn serve() -> ! {
    let mut answer_to = ThreadId::NIL;
    loop {
        l4::message::accept_untyped();
        let timeouts = Timeouts::new(Time::ZERO, Time::NEVER);
        let outcome = ipc::ipc(answer_to, ThreadId::ANY, timeouts).result();
        // As for players: pager and thread could go on between them for ever.
        spin_loop();
        answer_to = outcome.ok().filter(|outcome| load_answer(*outcome)).map_or(ThreadId::NIL, |outcome| outcome.from);
    }
}

/// Loads the answer to a message; `false`: there is none.
fn load_answer(outcome: Outcome) -> bool {
    let address = utcb().mr(1);
    let access = Rights::from_bits_truncate(outcome.tag.parameter());
    if outcome.tag.protocol() != PAGE_FAULT || !l4_rt::image_contains(address as usize) {
        return false;
    }
    let Some(player) = Player::of(outcome.from).filter(|player| !player.is_native()) else { return false };
    let rights = if player.may_write(address) { Rights::ALL } else { Rights::READ | Rights::EXECUTE };
    let page = Fpage::new(address >> PAGE_LOG2 << PAGE_LOG2, PAGE_LOG2, rights);
    let Some(page) = page.filter(|_| rights.contains(access)) else { return false };
    Msg::new(0).append_map(MapItem::map(page, page.base() as Word)).load();
    true
}
