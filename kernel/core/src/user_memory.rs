//! Reading memory of a user space, by its page tables. Nothing faults: what is not mapped is not read.

use l4_abi::Rights;

use crate::kernel::Here;
use crate::machine::{Machine, SpaceRef};

const WORD_BYTES: usize = size_of::<usize>();

impl<M: Machine> Here<'_, M> {
    /// Reads what `space` has at `address` into `bytes`; how many bytes are mapped there, from the first on. Code and data
    /// alike: on x86 a page that can be executed can be read.
    pub fn read_user(&self, space: SpaceRef, address: usize, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        self.k.machine.begin_copy();
        while done < bytes.len()
            && let Some(at) = address.checked_add(done)
            && let skipped = at % WORD_BYTES
            && let Some(word) = self.read_word_of(space, at - skipped)
        {
            let word = word.to_le_bytes();
            let rest = &mut bytes[done..];
            let len = rest.len().min(WORD_BYTES - skipped);
            rest[..len].copy_from_slice(&word[skipped..skipped + len]);
            done += len;
        }
        self.k.machine.end_copy();
        done
    }

    /// The word that `space` has at `at`, which is aligned, if it is mapped.
    pub(crate) fn read_word_of(&self, space: SpaceRef, at: usize) -> Option<usize> {
        self.k.machine.begin_copy();
        let word = self.k.spaces.touch(space, at, Rights::READ).map(|at| self.k.machine.read_user_word(at));
        self.k.machine.end_copy();
        word
    }
}
