//! What a space takes of kernel memory, and its quota: how much it may. X.2 knows no such thing; a privileged thread sets it
//! by SpaceControl.
//!
//! Charged to a space are its tables and their shadows, the pages of its UTCBs, what its I/O ports need, the nodes of the
//! mappings that it has, its slot and those of its threads: all by their size, so that what is given back is what was
//! taken. A page of nodes or slots that several spaces share is charged by the slot. What exceeds the quota is refused as if
//! there were no kernel memory for it. A quota below what is in use takes nothing away.

use l4_abi::Word;

use super::{Space, Spaces};
use crate::kmem::FRAME_SIZE;
use crate::lock::Held;
use crate::machine::{Mmu, NoMemory, NodeRef};
use crate::mapdb::Node;
use crate::sync::{AtomicUsize, Ordering};
use crate::var::Var;

/// The quota of a space that has none.
pub const NO_QUOTA: usize = usize::MAX;

/// What a frame costs.
pub(super) const FRAME: usize = FRAME_SIZE as usize;
/// What a table costs, with its shadow.
pub(super) const TABLE: usize = 2 * FRAME;

/// Bytes of kernel memory of a space, without its threads, which are counted anyway.
#[derive(Default)]
pub(super) struct Account {
    used: AtomicUsize,
    quota: Var<usize>,
}

crate::load::load_fields!(Account: used, quota);

impl Account {
    /// The account of a new space, which has its root table.
    pub(super) fn open(&self) {
        self.used.store(TABLE + size_of::<Space>(), Ordering::Relaxed);
        self.quota.set(NO_QUOTA);
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl<M: Mmu> Spaces<'_, M> {
    /// Bytes of kernel memory that are charged to `space`.
    pub fn memory_used(&self, space: &Space) -> usize {
        space.account.used() + space.threads() as usize * M::THREAD_BYTES
    }

    /// Its quota in bytes, or [`NO_QUOTA`].
    pub fn quota(&self, space: &Space) -> usize {
        space.account.quota.get()
    }

    /// Gives it another one.
    pub(crate) fn set_quota(&self, space: &Space, bytes: usize) {
        space.account.quota.set(bytes);
    }

    /// Whether its quota allows for the threads that are counted in it.
    pub(crate) fn is_within_quota(&self, space: &Space) -> bool {
        self.quota(space) == NO_QUOTA || self.memory_used(space) <= self.quota(space)
    }

    /// Charges `bytes` to `space`.
    ///
    /// # Errors
    /// [`NoMemory`]: that is beyond its quota, and nothing is charged.
    #[inline(always)]
    pub(super) fn charge(&self, space: &Space, bytes: usize) -> Result<(), NoMemory> {
        space.account.used.fetch_add(bytes, Ordering::Relaxed);
        if space.account.quota.get() == NO_QUOTA { Ok(()) } else { self.charge_within_quota(space, bytes) }
    }

    #[cold]
    fn charge_within_quota(&self, space: &Space, bytes: usize) -> Result<(), NoMemory> {
        if self.is_within_quota(space) {
            return Ok(());
        }
        self.discharge(space, bytes);
        Err(NoMemory)
    }

    /// `space` has given back so many bytes.
    #[inline(always)]
    pub(super) fn discharge(&self, space: &Space, bytes: usize) {
        space.account.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A node without relatives for a mapping in `space`, to which it is charged.
    ///
    /// # Errors
    /// [`NoMemory`]: there is none for more, or not for this space.
    pub(super) fn alloc_node<const P: u8>(&self, held: &mut Held<P>, space: &Space) -> Result<NodeRef, NoMemory> {
        self.charge(space, size_of::<Node>())?;
        let node = self.mapdb.alloc(self.machine, self.kmem, held);
        node.inspect_err(|_| self.discharge(space, size_of::<Node>()))
    }

    /// Takes back a node without relatives that was charged to `space`, which stays for now.
    pub(super) fn free_node<const P: u8>(&self, held: &mut Held<P>, space: &Space, node: NodeRef) {
        self.mapdb.free(self.machine, self.kmem, held, node);
        self.discharge(space, size_of::<Node>());
    }
}

/// KiB as the control word of SpaceControl has them, of bytes: rounded up.
pub(crate) fn kib_of(bytes: usize) -> Word {
    (bytes as Word).div_ceil(1024)
}

/// Bytes of so many KiB; what is beyond all memory is no quota.
pub(crate) fn bytes_of(kib: Word) -> usize {
    usize::try_from(kib).ok().and_then(|kib| kib.checked_mul(1024)).unwrap_or(NO_QUOTA)
}
