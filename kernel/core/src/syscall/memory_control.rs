//! MemoryControl (X.2, MemoryControl).

use kformats::paging::{PageFormat, PatIndex};
use l4_abi::{Fpage, MR_COUNT, PageAttribute, SysError, Word};

use crate::ipc::STEP_BUDGET;
use crate::kernel::Here;
use crate::machine::{Machine, TcbRef};
use crate::mapdb::Progress;
use crate::thread::Work;

/// What is left of a call besides the fpages: how many there are, and the memory types that they choose from. A word, so
/// that a TCB can keep it.
#[derive(Clone, Copy)]
struct Job(usize);

impl Job {
    const COUNT_BITS: u32 = 8;
    const CACHE_BITS: u32 = 4;
    const NONE: usize = (1 << Self::CACHE_BITS) - 1;

    fn new(count: usize, caches: [Option<PatIndex>; 4]) -> Self {
        let word = |cache: Option<PatIndex>| cache.map_or(Self::NONE, |cache| usize::from(cache.index()));
        let caches = caches.into_iter().rev().fold(0, |words, cache| words << Self::CACHE_BITS | word(cache));
        Self(caches << Self::COUNT_BITS | count)
    }

    fn count(self) -> usize {
        self.0 & ((1 << Self::COUNT_BITS) - 1)
    }

    /// The memory type that `fpage` chooses; `None` if it is none.
    fn cache(self, fpage: Fpage) -> Option<PatIndex> {
        let index = fpage.rights().bits() as u32 & 3;
        PatIndex::new((self.0 >> (Self::COUNT_BITS + index * Self::CACHE_BITS) & Self::NONE) as u8)
    }
}

impl<M: Machine> Here<'_, M> {
    /// Sets caching attributes of the `control` + 1 fpages in the message registers, in steps: of the caller's mappings
    /// there and of all that are derived from them. The low two rights bits of an fpage choose one of the attributes;
    /// attributes that none chooses do not matter, and nil fpages are left out.
    ///
    /// # Errors
    /// [`SysError::NoPrivilege`]; [`SysError::InvalidParameter`]: more fpages than message registers, or an fpage that
    /// chooses an attribute which is none, or which the processors lack.
    pub fn memory_control(&mut self, caller: TcbRef, control: Word, attributes: [Word; 4]) -> Result<(), SysError> {
        self.require_privilege(caller)?;
        if control >= MR_COUNT as Word {
            return Err(SysError::InvalidParameter);
        }
        let format = self.k.machine.format();
        let cache = |attribute| PageAttribute::from_raw(attribute).pat_index().and_then(PatIndex::new);
        let job = Job::new(
            control as usize + 1,
            attributes.map(|attribute| cache(attribute).filter(|cache| format.cache_allowed(*cache))),
        );
        let utcb = self.k.utcb(caller);
        let mut fpages = (0..job.count()).map(|index| Fpage::from_raw(utcb.mr(index)));
        if fpages.any(|fpage| !fpage.is_nil() && job.cache(fpage).is_none()) {
            return Err(SysError::InvalidParameter);
        }
        let tcb = self.k.tcb(caller);
        tcb.transfer.tag.set(job.0);
        tcb.transfer.position.set(0);
        tcb.cursor.reset();
        tcb.work.set(Work::MemoryControl);
        self.memory_control_step(caller);
        Ok(())
    }

    pub(super) fn memory_control_step(&mut self, caller: TcbRef) {
        let tcb = self.k.tcb(caller);
        let utcb = self.k.utcb(caller);
        let job = Job(tcb.transfer.tag.get());
        let mut budget = STEP_BUDGET;
        while usize::from(tcb.transfer.position.get()) < job.count() {
            let index = usize::from(tcb.transfer.position.get());
            let fpage = Fpage::from_raw(utcb.mr(index));
            // User code that changes the fpages meanwhile may choose what is no attribute.
            if let Some(cache) = job.cache(fpage)
                && self.k.spaces.set_cache(&mut self.held, tcb.space(), fpage, cache, &tcb.cursor, &mut budget)
                    == Progress::Again
            {
                return;
            }
            tcb.cursor.reset();
            tcb.transfer.position.set(index as u8 + 1);
        }
        tcb.work.set(Work::None);
        self.k.machine.flush_caches();
    }
}

#[cfg(test)]
mod tests {
    use l4_abi::Rights;

    use super::*;

    /// A job comes out of its word as it went in.
    #[test]
    fn a_job_fits_a_word() {
        for count in [1, MR_COUNT] {
            let caches = [PatIndex::new(7), None, PatIndex::new(0), PatIndex::new(4)];
            let job = Job::new(count, caches);
            assert_eq!(job.count(), count);
            for (bits, cache) in caches.into_iter().enumerate() {
                for bits in [bits, bits | 4] {
                    let rights = Rights::from_bits_truncate(bits as Word);
                    assert_eq!(job.cache(Fpage::COMPLETE.with_rights(rights)), cache, "{rights:?}");
                }
            }
        }
    }
}
