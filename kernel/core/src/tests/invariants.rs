//! What is true of the core's tables whenever no kernel entry is in progress: [`crate::check`], and what only tests can
//! look at.

use super::machine::Fake;
use crate::check;
use crate::kernel::Kernel;
use crate::machine::{CpuId, TcbRef};

type K = Kernel<'static, Fake>;

/// Checks everything but the mappings.
///
/// # Panics
/// Where something is wrong.
pub fn check(k: &K) {
    for (index, cpu) in k.cpus.iter().enumerate() {
        cpu.ready.check_invariants(k.tcbs);
        cpu.timeouts.check_invariants(k.tcbs);
        let here = CpuId::new(index as u32);
        let members = cpu.ready.members(k.tcbs).into_iter().chain(cpu.timeouts.members(k.tcbs));
        members.for_each(|thread| assert!(k.tcb(thread).is_at(here), "only its home knows {thread:?}"));
    }
    check_threads(k);
}

/// Checks threads and send queues.
///
/// # Panics
/// Where something is wrong.
pub fn check_threads(k: &K) {
    if let Err(broken) = k.check_threads() {
        panic!("{broken}");
    }
    for (index, tcb) in k.tcbs.iter().enumerate() {
        let thread = TcbRef::new(index as u32);
        if let Some(space) = tcb.space.get().filter(|_| tcb.exists()) {
            assert!(k.machine.saved(thread).unmaps.get() < u32::MAX, "{thread:?} lives");
            let is_known = tcb.waits_for.get().is_nil() || k.machine.knows_space(tcb.home(), space);
            assert!(is_known, "the fast path may load the space of {thread:?}, and others know");
        }
    }
}

/// Checks that nobody is on the way, and no orphan is left.
///
/// # Panics
/// Where something is.
pub fn check_rest(k: &K) {
    for cpu in k.cpus {
        assert!(
            cpu.mailbox.is_empty() && cpu.orphans.get().is_none() && cpu.questions.is_empty() && !cpu.raised.is_any()
        );
    }
}

/// Checks that whoever was posted to a processor that was not told of it has time: nobody waits for it, and it waits for
/// no time. For worlds in which processors have done all that they were told of.
///
/// # Panics
/// Where a thread was forgotten.
pub fn check_silence(k: &K) {
    for cpu in k.cpus {
        for thread in cpu.mailbox.members(k.tcbs) {
            let tcb = k.tcb(thread);
            assert!(check::has_time(tcb), "nobody was told of {thread:?}, {:?}", tcb.arrival.get());
        }
    }
}
