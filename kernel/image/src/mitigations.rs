//! What this boot does about weaknesses of the processor by which programs can read what is not theirs.
//!
//! What costs time on a way out is not there unless it is needed: the ways out have a second form each, and a jump to it is
//! written over the end of the first before any processor runs it. So a processor that needs nothing executes not one
//! instruction more.
//!
//! | measure | where |
//! |---|---|
//! | VERW on the way to user mode | second form of the ends of `resume_user` and of the fast path |
//! | IBRS, STIBP, SSBD | set when the processor starts |
//! | IBPB between spaces | [`crate::machine::enter_space`]; the entry goes past the fast path, which has none |
//!
//! A non-maskable interrupt returns as it came: it touches nothing but what other processors ask to be forgotten.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use kcore::options::{Mitigations, Options};
use khal::vulnerabilities::{self, Finding, Identity, Measures, Policy, Weakness};

use crate::boot::paging::area_template;
use crate::once::BootCell;
use crate::trap::entry;
use crate::{console, layout};

/// What was decided.
struct Decision {
    choice: Mitigations,
    identity: Identity,
    measures: Measures,
}

static DECISION: BootCell<Decision> = BootCell::new();
/// [`Measures::BARRIER_BETWEEN_SPACES`], where the thread switch finds it.
static HAS_BARRIER: AtomicBool = AtomicBool::new(false);

/// Bytes of a jump to anywhere near.
const JUMP_BYTES: usize = 5;

/// Decides what is done on this machine and makes the entry code fit.
///
/// # Safety
/// The rough tables are in use, and no processor has executed code of the entry, nor was it copied.
pub unsafe fn prepare(options: Options) {
    let identity = Identity::detect();
    let policy = match options.mitigations {
        Mitigations::Off => Policy::Off,
        Mitigations::Auto => Policy::Auto,
        Mitigations::Full => Policy::Full,
    };
    let measures = Measures::decide(identity, policy);
    let address = |code: unsafe extern "C" fn()| code as *const () as usize;
    let mut jumps = arrayvec::ArrayVec::<(usize, usize), 5>::new();
    if measures.contains(Measures::CLEAR_BUFFERS) {
        let clearing = address(entry::fast_exit_clearing);
        jumps.push((address(entry::general_exit), address(entry::general_exit_clearing)));
        jumps.push((address(entry::fast_exit_other_space), clearing));
        jumps.push((address(entry::fast_exit_same_space), clearing));
        jumps.push((address(entry::ipc_exit), clearing));
    }
    if measures.contains(Measures::BARRIER_BETWEEN_SPACES) {
        jumps.push((address(entry::syscall_entry), address(entry::general_syscall)));
    }
    for (from, to) in jumps {
        // SAFETY: by contract the code can be written and was not executed; there are places for jumps at these labels.
        unsafe { write_jump(from, to) };
    }
    HAS_BARRIER.store(measures.contains(Measures::BARRIER_BETWEEN_SPACES), Relaxed);
    DECISION.set(Decision { choice: options.mitigations, identity, measures });
}

/// Writes a jump to `to` over the code at `from`. Code of an area is changed where it is copied from.
///
/// # Safety
/// 1. `from` is code of the image, [`JUMP_BYTES`] of which can be written now; nothing jumps into their middle.
/// 2. No processor has executed it.
unsafe fn write_jump(from: usize, to: usize) {
    const OPCODE: u8 = 0xE9;
    let distance = to.wrapping_sub(from + JUMP_BYTES) as u32;
    let is_in_area = (layout::AREAS..layout::AREAS + layout::AREA_BYTES).contains(&from);
    let place = if is_in_area { from - layout::AREAS + area_template() } else { from };
    let bytes = [OPCODE].into_iter().chain(distance.to_le_bytes());
    for (index, byte) in bytes.enumerate() {
        let at: *mut u8 = core::ptr::with_exposed_provenance_mut(place + index);
        // SAFETY: by 1. these are bytes of the image that can be written; by 2. nobody reads them meanwhile.
        unsafe { at.write_volatile(byte) };
    }
}

/// Switches on what stays on, on this processor.
pub fn start() {
    // SAFETY: all processors of a machine are of a kind.
    unsafe { DECISION.get().measures.start() };
}

/// Another space than before is entered.
#[inline]
pub fn between_spaces() {
    if HAS_BARRIER.load(Relaxed) {
        // SAFETY: the measure is taken only where the processor has it.
        unsafe { vulnerabilities::barrier() };
    }
}

/// Says what was chosen, and for each weakness whether the processor has it and what is done.
pub fn tell() {
    let &Decision { choice, identity, measures } = DECISION.get();
    console::line(format_args!("mitigations={choice}"));
    for weakness in Weakness::ALL {
        console::line(format_args!("{}", Finding { weakness, identity, measures }));
    }
}
