//! Reading memory of a user space, by its page tables. Nothing faults: what is not mapped is not read.

use l4_abi::Rights;

use crate::kernel::Here;
use crate::machine::{Machine, PhysAddr, SpaceRef};

const WORD_BYTES: usize = size_of::<usize>();

impl<M: Machine> Here<'_, M> {
    /// Reads what `space` has at `address` into `bytes`; how many bytes are mapped there, from the first on. Code and data
    /// alike: on x86 a page that can be executed can be read.
    pub fn read_user(&self, space: SpaceRef, address: usize, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        self.k.machine.begin_copy();
        while done < bytes.len()
            && let Some(at) = address.checked_add(done)
            && let Some(PhysAddr(phys)) = self.k.spaces.touch(space, at, Rights::READ)
        {
            let skipped = at % WORD_BYTES;
            let word = self.k.machine.read_user_word(PhysAddr(phys - skipped as u64)).to_le_bytes();
            let rest = &mut bytes[done..];
            let len = rest.len().min(WORD_BYTES - skipped);
            rest[..len].copy_from_slice(&word[skipped..skipped + len]);
            done += len;
        }
        self.k.machine.end_copy();
        done
    }
}
