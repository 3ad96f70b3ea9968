//! What each processor has of its own: scheduling state, the words that the trap entry uses, the page through which user
//! code finds its UTCB.

use kcore::machine::TcbRef;
use kcore::sched::Cpu;
use kcore::var::Var;
use khal::desc::Selector;

use crate::config::MAX_CPUS;

/// The words that trap entry and dispatcher share on one processor.
#[repr(C, align(64))]
pub struct PerCpu {
    /// The space word that is loaded.
    pub space_word: Var<usize>,
    /// Where the entry keeps the user's stack pointer for a moment.
    pub user_stack: Var<usize>,
    /// What `gs` must be for the fast path: the selector that the kernel left there, or [`NO_SELECTOR`] while the running
    /// thread must not take it, so that one compare decides both.
    pub fast_gs: Var<u32>,
    /// Whether the floating-point registers can be used without a trap: they hold the running thread's.
    pub fpu_is_live: Var<bool>,
    /// Whose floating-point registers the processor holds.
    pub fpu_owner: Var<Option<TcbRef>>,
    /// What the timer is armed for, microseconds on the clock; 0: nothing.
    pub armed_for: kcore::var::Var64,
}

/// No selector is this.
const NO_SELECTOR: u32 = u32::MAX;

/// The page that user code reads through `gs`: a cache line per processor whose first word is the local id of the
/// running thread.
#[repr(C, align(4096))]
pub struct UtcbSlots([UtcbSlot; 64]);

#[repr(C, align(64))]
struct UtcbSlot(Var<usize>);

impl UtcbSlots {
    /// Makes `local_id` what user code of processor `cpu` finds.
    #[inline(always)]
    pub fn set(&self, cpu: usize, local_id: usize) {
        self.0[cpu].0.set(local_id);
    }
}

/// Scheduling states.
pub static CPUS: [Cpu; MAX_CPUS] = [const { Cpu::new() }; MAX_CPUS];
/// Entry words.
pub static PER_CPU: [PerCpu; MAX_CPUS] = [const { PerCpu::new() }; MAX_CPUS];
/// UTCB pointers of the first 64 processors.
pub static UTCB_SLOTS: UtcbSlots = UtcbSlots([const { UtcbSlot(Var::zero()) }; 64]);

impl PerCpu {
    /// Lets the running thread take the fast path, or not.
    #[inline]
    pub fn allow_fast_path(&self, is_allowed: bool) {
        self.fast_gs.set(if is_allowed { u32::from(Selector::USER_GS.0) } else { NO_SELECTOR });
    }

    const fn new() -> Self {
        Self {
            space_word: Var::zero(),
            user_stack: Var::zero(),
            fast_gs: Var::zero(),
            fpu_is_live: Var::zero(),
            fpu_owner: Var::zero(),
            armed_for: kcore::var::Var64::zero(),
        }
    }
}
