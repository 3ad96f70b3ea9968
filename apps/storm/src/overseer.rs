//! Writers, and the overseer that takes their page away: after Unmap has returned no processor writes to it any more.
//!
//! All writers wait with a page fault until the overseer, their pager, gives them the page. Then they write without a
//! pause, on all processors, until it is taken away; the overseer puts something else there, and that must stay.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dice::{Dice, mix};
use l4::ipc;
use l4::message::Msg;
use l4::{MapItem, Rights, ThreadId, Time, Timeouts, Word, space, time, utcb};

use crate::failure::{check, fail, seed};
use crate::memory::{PAGE_LOG2, PAGE_WORDS, Page};
use crate::pager;
use crate::table::{GROUPS_MAX, Role, Slot, all_of, slot_of};

/// The page.
static PAGE: Page = Page::new();
/// Words between those of two writers.
const STRIDE: usize = PAGE_WORDS / GROUPS_MAX;
/// How long a writer may take to fault, on a crowded processor.
const PATIENCE_US: u64 = 60_000_000;

static ROUNDS: AtomicU64 = AtomicU64::new(0);

/// How often the page was taken away.
pub fn rounds() -> u64 {
    ROUNDS.load(Relaxed)
}

/// Whether the address is that of the page.
pub fn is_page(address: Word) -> bool {
    address >> PAGE_LOG2 == PAGE.address() >> PAGE_LOG2
}

/// The life of a writer.
pub extern "C" fn write() -> ! {
    let word = &PAGE.words()[Slot::me().group() * STRIDE];
    let mut value: u64 = 0;
    loop {
        value = value.wrapping_add(2);
        word.store(value, Relaxed);
    }
}

/// The writers that wait for the page, a bit each.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Waiting(u32);

impl Waiting {
    fn all() -> Self {
        Self(all_of(Role::Writer).fold(0, |bits, slot| bits | 1 << slot.group()))
    }
}

/// The life of the overseer.
pub extern "C" fn run() -> ! {
    let mut dice = Dice::new(seed(), Slot::OVERSEER.index() as u64);
    let mut waiting = Waiting(0);
    loop {
        wait_for_all(&mut waiting);
        listen(&mut waiting, dice.within(0..20_000) as u64);
        give_page();
        waiting = Waiting(0);
        listen(&mut waiting, dice.within(50..2000) as u64);
        let rights = dice.one_of(&[Rights::ALL, Rights::WRITE]);
        space::unmap_fpage(PAGE.fpage(rights));
        check_page(&mut waiting, &mut dice);
        ROUNDS.fetch_add(1, Relaxed);
    }
}

/// Serves others until all writers wait. At the beginning some have not been started.
fn wait_for_all(waiting: &mut Waiting) {
    let deadline = time::system_clock_us() + PATIENCE_US;
    while *waiting != Waiting::all() {
        listen_until(waiting, deadline);
        if time::system_clock_us() >= deadline {
            crate::describe_all();
            let lost = all_of(Role::Writer).find(|slot| waiting.0 >> slot.group() & 1 == 0);
            fail(format_args!("a writer does not come for its page: {}", lost.unwrap_or(Slot::OVERSEER)));
        }
    }
}

/// Serves others for some time.
fn listen(waiting: &mut Waiting, us: u64) {
    let deadline = time::system_clock_us() + us;
    while time::system_clock_us() < deadline {
        listen_until(waiting, deadline);
    }
}

/// Answers one message, unless it is the fault of a writer at the page.
fn listen_until(waiting: &mut Waiting, deadline_us: u64) {
    let rcv = Time::period_us(deadline_us.saturating_sub(time::system_clock_us()).max(1));
    let Ok(outcome) = ipc::ipc(ThreadId::NIL, ThreadId::ANY, Timeouts::new(Time::NEVER, rcv)).result() else { return };
    let mut keep = |from: ThreadId, address: Word, _: Rights| {
        let writer = slot_of(from).filter(|slot| slot.role() == Role::Writer && is_page(address));
        writer.inspect(|slot| waiting.0 |= 1 << slot.group()).is_some()
    };
    if let Some(to) = pager::answer(outcome, &mut keep) {
        // Who does not wait any more was disturbed and comes again.
        let _ = ipc::reply(to);
    }
}

/// Lets all writers go on. Who was disturbed meanwhile faults again.
fn give_page() {
    for id in all_of(Role::Writer).filter_map(Slot::id) {
        let page = PAGE.fpage(Rights::READ | Rights::WRITE);
        Msg::new(0).append_map(MapItem::map(page, page.base())).load();
        let _ = ipc::reply(id);
    }
    utcb().set_error_code(0);
}

/// What is put into the page stays there.
fn check_page(waiting: &mut Waiting, dice: &mut Dice) {
    let mark = mix(rounds()) | 1;
    PAGE.words().iter().for_each(|word| word.store(mark, Relaxed));
    listen(waiting, dice.within(10..500) as u64);
    for (at, word) in PAGE.words().iter().enumerate() {
        let now = word.load(Relaxed);
        check(now == mark, format_args!("somebody writes to word {at} after Unmap: {now:#x} instead of {mark:#x}"));
    }
}
