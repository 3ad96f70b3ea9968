//! What this boot does about weaknesses of the processor by which programs can read what is not theirs.
//!
//! What costs time on a way out is not there unless it is needed: the ways out have a second form each, and a jump to it is
//! written over the end of the first before any processor runs it. So a processor that needs nothing executes not one
//! instruction more.
//!
//! Against Meltdown, spaces show only the porch of the kernel ([`crate::boot::paging`]), and the kernel runs on tables of its
//! own, the same whatever space it works for: it never uses a user's address. The entries load them, and the ways out load the
//! word of the space that [`load_space`] only notes. Both have second forms for that, beside those for VERW.
//!
//! | measure | where |
//! |---|---|
//! | VERW on the way to user mode | second form of the ends of `resume_user` and of the fast path |
//! | tables without the kernel | second forms of gates and ways out, an entry of its own from SYSCALL |
//! | IBRS, STIBP, SSBD | set when the processor starts |
//! | floating-point registers are emptied | `machine::enter_registers` |
//! | IBPB between spaces | [`load_space`]; the entry goes past the fast path, which has none |
//!
//! A non-maskable interrupt returns as it came, to the tables that it found: it touches nothing but what other processors ask
//! to be forgotten.

use core::arch::asm;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use kcore::options::{Mitigations, Options};
use khal::vulnerabilities::{self, Finding, Identity, Measures, Policy, Weakness};

use crate::boot::paging::area_template;
use crate::once::BootCell;
use crate::trap::entry;
use crate::{config, console, layout};

/// What was decided.
struct Decision {
    choice: Mitigations,
    identity: Identity,
    measures: Measures,
}

static DECISION: BootCell<Decision> = BootCell::new();
/// What it takes to enter another space besides loading it at once; where the thread switch finds it.
static SWITCH: AtomicU8 = AtomicU8::new(0);
/// [`Measures::BARRIER_BETWEEN_SPACES`].
const BARRIER: u8 = 1 << 0;
/// [`Measures::ISOLATED_TABLES`]: it is not loaded at once.
const LOADED_LATER: u8 = 1 << 1;

/// Bytes of a jump to anywhere near.
const JUMP_BYTES: usize = 5;
/// An instruction that does nothing, as long as the load of a space on the fast path.
const NOTHING: [u8; 4] = [0x0F, 0x1F, 0x40, 0x00];

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
    let isolates = measures.contains(Measures::ISOLATED_TABLES);
    let mut jumps = arrayvec::ArrayVec::<Jump, 16>::new();
    if isolates {
        jumps.extend([
            (entry::common_gate as Code, entry::common_gate_isolated as Code),
            (entry::non_maskable_entry, entry::non_maskable_isolated),
            (entry::resume_user_stack, entry::resume_user_isolated),
            (entry::general_exit, entry::general_exit_isolated),
            (entry::resume_from_ipc_stack, entry::resume_from_ipc_isolated),
            (entry::ipc_exit, entry::ipc_exit_isolated),
            (entry::fast_exit_other_space, entry::fast_exit_isolated),
            (entry::fast_exit_same_space, entry::fast_exit_isolated),
            (entry::fast_exit_after_send, entry::fast_exit_isolated),
        ]);
        // SAFETY: by contract the code can be written and was not executed; an instruction of that length is there.
        unsafe { write_code(address(entry::fast_path_space_load), NOTHING) };
    }
    if measures.contains(Measures::CLEAR_BUFFERS) {
        let more: &[Jump] = if isolates {
            &[
                (entry::general_exit_isolated_end, entry::general_exit_isolated_clearing),
                (entry::ipc_exit_isolated_end, entry::ipc_exit_isolated_clearing),
                (entry::fast_exit_isolated_end, entry::fast_exit_clearing),
            ]
        } else {
            &[
                (entry::general_exit, entry::general_exit_clearing),
                (entry::fast_exit_other_space, entry::fast_exit_clearing),
                (entry::fast_exit_same_space, entry::fast_exit_clearing),
                (entry::fast_exit_after_send, entry::fast_exit_clearing),
                (entry::ipc_exit, entry::fast_exit_clearing),
            ]
        };
        jumps.extend(more.iter().copied());
    }
    for (from, to) in jumps {
        // SAFETY: by contract the code can be written and was not executed; there are places for jumps at these labels.
        unsafe { write_jump(address(from), address(to)) };
    }
    let has_barrier = measures.contains(Measures::BARRIER_BETWEEN_SPACES);
    let also = if has_barrier { BARRIER } else { 0 } | if isolates { LOADED_LATER } else { 0 };
    SWITCH.store(also, Relaxed);
    DECISION.set(Decision { choice: options.mitigations, identity, measures });
}

/// A label in the code of entries and ways out.
type Code = unsafe extern "C" fn();
/// Where a jump is written, and where it leads.
type Jump = (Code, Code);

fn address(code: Code) -> usize {
    code as *const () as usize
}

/// Writes a jump to `to` over the code at `from`. Code of an area is changed where it is copied from.
///
/// # Safety
/// 1. `from` is code of the image, [`JUMP_BYTES`] of which can be written now; nothing jumps into their middle.
/// 2. No processor has executed it.
unsafe fn write_jump(from: usize, to: usize) {
    const OPCODE: u8 = 0xE9;
    let [a, b, c, d] = (to.wrapping_sub(from + JUMP_BYTES) as u32).to_le_bytes();
    // SAFETY: by contract.
    unsafe { write_code(from, [OPCODE, a, b, c, d]) };
}

/// Writes `bytes` over the code at `from`. Code of an area is changed where it is copied from.
///
/// # Safety
/// As for [`write_jump`], with as many bytes.
unsafe fn write_code<const N: usize>(from: usize, bytes: [u8; N]) {
    let is_in_area = (layout::AREAS..layout::AREAS + layout::AREA_BYTES).contains(&from);
    let place = if is_in_area { from - layout::AREAS + area_template() } else { from };
    for (index, byte) in bytes.into_iter().enumerate() {
        let at: *mut u8 = core::ptr::with_exposed_provenance_mut(place + index);
        // SAFETY: by contract these are bytes of the image that can be written, and nobody reads them meanwhile.
        unsafe { at.write_volatile(byte) };
    }
}

/// Whether floating-point registers are emptied when the thread whose they are stops running.
pub fn empty_fpu() -> bool {
    DECISION.get().measures.contains(Measures::EMPTY_FPU)
}

/// Whether spaces do not show the kernel.
pub fn isolate_tables() -> bool {
    DECISION.get().measures.contains(Measures::ISOLATED_TABLES)
}

/// Where SYSCALL enters, in the area of processor 0. What is done between spaces is not on the path of a message, and a kernel
/// can be built without that path.
pub fn syscall_entry() -> usize {
    let has_barrier = DECISION.get().measures.contains(Measures::BARRIER_BETWEEN_SPACES);
    address(match (isolate_tables(), has_barrier || !config::IPC_FASTPATH) {
        (false, false) => entry::syscall_entry,
        (false, true) => entry::general_syscall,
        (true, false) => entry::syscall_isolated,
        (true, true) => entry::general_syscall_isolated,
    })
}

/// Switches on what stays on, on this processor.
pub fn start() {
    // SAFETY: all processors of a machine are of a kind.
    unsafe { DECISION.get().measures.start() };
}

/// Enters the space with `word`, another one than before. Where spaces do not show the kernel, it is loaded on the way out.
///
/// What is rare is no function of its own: around a call the registers of the usual way would have to be saved.
///
/// # Safety
/// If the space shows the kernel, it does so as the present one does. If the word says so, what is cached under its identifier
/// is the space's.
#[inline(always)]
pub unsafe fn load_space(word: usize) {
    let also = SWITCH.load(Relaxed);
    if also != 0 {
        if also & BARRIER != 0 {
            // SAFETY: the measure is taken only where the processor has it.
            unsafe { vulnerabilities::barrier() };
        }
        if also & LOADED_LATER != 0 {
            return;
        }
    }
    // SAFETY: by contract, as the space shows the kernel.
    unsafe { asm!("mov cr3, {}", in(reg) word, options(nostack, preserves_flags)) };
}

/// Says what was chosen, and for each weakness whether the processor has it and what is done.
pub fn tell() {
    let &Decision { choice, identity, measures } = DECISION.get();
    console::line(format_args!("mitigations={choice}"));
    for weakness in Weakness::ALL {
        console::line(format_args!("{}", Finding { weakness, identity, measures }));
    }
}
