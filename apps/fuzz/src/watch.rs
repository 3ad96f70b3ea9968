//! Root watches: it begins the players, begins anew who cannot go on, and ends all of them.

use core::fmt::{Debug, Display};

use l4::message::Msg;
use l4::protocol::start_tag;
use l4::thread::{self, thread_control};
use l4::{
    Fpage, MsgTag, Rights, SpaceControl, SysError, ThreadId, Time, UTCB_SIZE, Word, ipc, kip, schedule, space, time,
    utcb,
};
use l4_rt::{exit, println};

use crate::call::KINDS;
use crate::pager;
use crate::player::{self, play as play_on};
use crate::table::{self, OWN_UTCB, PLAYERS_MAX, Player, WILD, WILD_VERSIONS};

/// Exit status if something is wrong.
const STATUS_FAILURE: u8 = 1;
/// Between two looks.
const LOOK: Time = Time::period_us(1000);
/// Calls of a player between two looks that can be: no processor makes more in some milliseconds.
const CALLS_OF_A_LOOK_MAX: u64 = 1 << 20;
/// Looks without a call of a player after which it is begun anew.
const STILL_LOOKS: u32 = 3;
/// Looks without a call of anybody after which something is wrong.
const DEAD_LOOKS: u32 = 5000;
/// How long a vital thread may take to answer.
const PATIENCE: Time = Time::period_us(10_000_000);
/// Short enough that everybody comes to its turn between two looks.
const SLICE: Time = Time::period_us(200);

static PAGER_STACK: l4::thread::Stack<0x2000> = l4::thread::Stack::new();

/// What was done.
#[derive(Clone, Copy, Default)]
pub struct Done {
    /// System calls.
    pub calls: u64,
    /// Lives of players.
    pub lives: u64,
}

/// Says what is wrong, and what everybody did before, and ends the program.
pub fn fail(what: impl Display) -> ! {
    println!("fuzz: WRONG: {what}; seed={}", player::seed());
    for player in Player::all() {
        println!("fuzz: {player}:");
        for (kind, words) in player.last_calls() {
            println!("fuzz:     {} {words:x?}", KINDS.get(kind).unwrap_or(&"?"));
        }
    }
    exit(STATUS_FAILURE)
}

fn must<T, E: Debug>(what: impl Display, result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| fail(format_args!("{what} fails: {error:?}")))
}

/// Makes the pager, which lives to the end.
pub fn begin_pager() {
    let made = thread::spawn(table::pager(), table::utcb_location_in_root(1), &PAGER_STACK, pager::serve);
    must("making the pager", made);
    must("its priority", schedule::set_priority(table::pager(), 254));
}

/// Has every interrupt once, so that the kernel has what it keeps of interrupts.
pub fn touch_interrupts() {
    for line in 0..kip().thread_info.system_base() {
        // Some lines are not there.
        let _ = thread::associate_interrupt(ThreadId::interrupt(line), table::pager());
    }
    leave_interrupts();
}

fn leave_interrupts() {
    for line in 0..kip().thread_info.system_base() {
        let _ = thread::deassociate_interrupt(ThreadId::interrupt(line));
    }
}

/// sigma0 takes no more kernel memory: what it has for who asks it for memory it keeps for good.
pub fn bound_sigma0() {
    let sigma0 = kip::sigma0_id();
    let used = must("asking for what sigma0 takes", space::memory_used(sigma0));
    // What is used is rounded up.
    let quota = used.map(|kib| kib.saturating_sub(1));
    must("a quota for sigma0", space::set_quota(sigma0, quota));
}

/// Root's space has no quota: who was made anew in it may have got one for it.
fn unbound_root() {
    must("no quota for root", space::set_quota(table::root(), None));
}

/// Lets players make so many system calls.
pub fn play(calls: u64) -> Done {
    let mut done = Done::default();
    for player in Player::all() {
        begin(player, &mut done);
    }
    let mut watched = [Watched::default(); PLAYERS_MAX];
    let mut dead_looks = 0;
    while done.calls < calls {
        time::sleep(LOOK);
        let before = done.calls;
        for player in Player::all() {
            look_at(player, &mut watched[player.index()], &mut done);
        }
        dead_looks = if done.calls == before { dead_looks + 1 } else { 0 };
        if dead_looks > DEAD_LOOKS {
            fail("nobody makes a system call any more");
        }
    }
    end_all();
    done
}

/// What root knows of a player.
#[derive(Clone, Copy, Default)]
struct Watched {
    /// System calls of its present life that are counted.
    counted: u64,
    still_looks: u32,
}

fn look_at(player: Player, watched: &mut Watched, done: &mut Done) {
    let calls = player.calls();
    // A stranger may have received something over its count.
    let more = calls.checked_sub(watched.counted).filter(|more| (1..=CALLS_OF_A_LOOK_MAX).contains(more));
    if let Some(more) = more {
        done.calls += more;
        *watched = Watched { counted: calls, still_looks: 0 };
        return;
    }
    watched.still_looks += 1;
    if watched.still_looks >= STILL_LOOKS {
        end(player);
        begin(player, done);
        *watched = Watched::default();
    }
}

/// Begins the next life of a player. If the kernel has no memory for it, others have too much.
fn begin(player: Player, done: &mut Done) {
    player.begin_life();
    done.lives += 1;
    unbound_root();
    if make(player) == Err(SysError::OutOfMemory) {
        // What was made of it stays if there was enough for a part.
        delete(player.id());
        end_wild();
        Player::all().filter(|other| *other != player).for_each(end);
        player.begin_life();
        must(format_args!("making {player} alone"), make(player));
    }
    let id = player.id();
    // A native may have deleted it by now, or moved it, or have started it.
    let _ = schedule::set_timeslice(id, SLICE, Time::NEVER);
    let _ = schedule::set_processor_no(id, player.processor());
    // In the name of the pager, for whom it waits.
    let tag = start_tag().with_flags(MsgTag::PROPAGATED);
    Msg::of_words(tag, &[play_on as extern "C" fn() -> ! as usize as Word, player.start_sp()]).load();
    utcb().set_virtual_sender(table::pager());
    let _ = ipc::send_timeout(id, Time::ZERO);
}

/// Makes a player that waits for a start message from the pager.
fn make(player: Player) -> Result<(), SysError> {
    let (id, root, pager, utcb) = (player.id(), table::root(), table::pager(), Some(player.utcb_location()));
    if player.is_native() {
        return thread_control(id, root, root, pager, utcb);
    }
    let area =
        |base, size_log2| Fpage::new(base, size_log2, Rights::ALL).expect("areas are at multiples of their size");
    thread_control(id, id, root, ThreadId::NIL, None)?;
    let kip_area = area(core::ptr::from_ref(kip()).addr() as Word, kip().kip_area_info.size_log2());
    let utcb_area = area(OWN_UTCB, UTCB_SIZE.ilog2().max(12));
    space::space_control(id, SpaceControl::NONE, kip_area, utcb_area, ThreadId::ANY)?;
    thread_control(id, id, ThreadId::NIL, pager, utcb)
}

/// Deletes a player, in whichever of its lives it is: a native may have given it another.
fn end(player: Player) {
    delete(player.id());
}

fn delete(id: ThreadId) {
    match thread::delete(id) {
        Ok(()) | Err(SysError::InvalidThread) => {}
        Err(error) => fail(format_args!("deleting {id:?}: {error:?}")),
    }
}

fn end_wild() {
    for (n, version) in (0..WILD).flat_map(|n| (0..WILD_VERSIONS).map(move |version| (n, version))) {
        delete(table::wild(n, version));
    }
}

/// Deletes everybody but the pager, which must still answer.
fn end_all() {
    Player::all().for_each(end);
    end_wild();
    // Wild threads may have made players anew.
    Player::all().for_each(end);
    leave_interrupts();
    unbound_root();
    Msg::new(0).load();
    must("sending to the pager", ipc::send_timeout(table::pager(), PATIENCE));
}
