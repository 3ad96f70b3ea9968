//! I/O ports of spaces (X.2, Fpages, I/O fpages): map, grant, unmap and flush of ports, if the machine has I/O fpages.
//!
//! A port is mapped to where it is: port p of the receiver is port p of the sender, so a space has each port once at most,
//! and there are no rights. sigma0 has all ports, always. For each port the spaces that have it form a tree with sigma0 on
//! top. Most of the time ports come in ranges that a space got from one other space, so what a space has is
//!
//! - a bit for each port, in the form in which processors read it, 8 KiB: set means closed;
//! - *ranges*, sorted and disjoint, each with the space that its open ports came from: their *parent*.
//!
//! A range begins and ends with an open port, but may have closed ones in between. So closing ports never needs memory and
//! never fails, and what a closed port was before is forgotten. Only who opens a port in the middle of a range of another
//! parent cuts that range, and may find that there is no room: the mapping is left out then. A derived mapping names space
//! and port of what it came from, not a node, so cutting a range touches no other. A map of all ports is one range, and its
//! cost is 1024 words of bits.
//!
//! Invariants, at every moment at which no lock is held and nothing is [pending](Pending):
//! 1. Each open port of a space other than sigma0 is in one range.
//! 2. The parent of a range is sigma0 or has all open ports of the range open itself; going from parent to parent leads to
//!    sigma0.
//! 3. A space with ports is on the list of those, and a machine's port map shows its bits.
//!
//! All of this is guarded by one lock of rank PORTS, as ports are mapped rarely. An operation that closes ports takes many
//! steps: what was derived from the closed ports, in any space, must go too. What it still has to do stands in one place,
//! [`Pending`], and not with the thread that asked for it. Whoever wants to change anything about ports settles first
//! what is pending, in steps of his own. So there is one such operation at a time, nobody waits for a thread that does not
//! run, no operation is left half done when its thread goes, and nothing can be mapped on that is about to be taken away.

use l4_abi::{IoFpage, MapKind};

use super::account::{FRAME, TABLE};
use super::{Space, Spaces};
use crate::kmem::FRAME_SIZE;
use crate::lock::{Held, Lock, rank};
use crate::machine::{Mmu, NoMemory, PhysAddr, SpaceRef};
use crate::var::Var;

mod bits;
mod check;
mod map;
mod ranges;
mod revoke;

pub use map::PortTransfer;
use revoke::Pending;

/// The ports of a space.
#[derive(Default)]
pub(super) struct Ports {
    /// The frames with the bits; 0 while the space never had a port.
    bits: [Var<PhysAddr>; 2],
    /// The frame with the ranges; sigma0 has none.
    ranges: Var<PhysAddr>,
    /// Ranges in use.
    count: Var<u32>,
    /// The round in which it last lost ports; see [`revoke`].
    lost_in: Var<u32>,
    /// Neighbours on the list of spaces that may have ranges.
    next: Var<Option<SpaceRef>>,
    prev: Var<Option<SpaceRef>>,
}

/// What there is about ports besides what each space has.
#[derive(Default)]
pub(super) struct PortsOfAll {
    lock: Lock<{ rank::PORTS }>,
    /// First of the spaces that may have ranges.
    first: Var<Option<SpaceRef>>,
    pending: Pending,
}

impl PortsOfAll {
    /// Makes this the first of the spaces that may have ranges.
    pub(super) fn set_first(&self, space: Option<SpaceRef>) {
        self.first.set(space);
    }
}

crate::load::load_fields!(Ports: bits, ranges, count, lost_in, next, prev);

/// There is no room for another range in a space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Full;

impl<M: Mmu> Spaces<'_, M> {
    /// Whether there are I/O fpages.
    #[inline]
    pub fn has_io_fpages(&self) -> bool {
        self.machine.has_io_fpages()
    }

    /// The first port from `first` to `last` that processors find closed in `space`. May be outdated.
    pub fn closed_port(&self, space: SpaceRef, first: u16, last: u16) -> Option<u16> {
        let space = self.get(space);
        if !space.ports.has_bits() {
            return Some(first);
        }
        bits::first_where(first, last, |word| !self.shown_word(space, word))
    }

    /// Opens all ports of sigma0's `space` to its own code.
    ///
    /// # Errors
    /// [`NoMemory`].
    pub fn open_ports_of_sigma0(&self, held: &mut Held<{ rank::NONE }>, space: SpaceRef) -> Result<(), NoMemory> {
        debug_assert!(self.get(space).is_sigma0(), "others get their ports by mapping");
        let mut guard = self.ports.lock.lock(held);
        self.provide_ports(guard.held(), space)
    }

    /// Makes sure that `space` has bits and room for ranges. Needs the lock.
    fn provide_ports(&self, held: &mut Held<{ rank::PORTS }>, space: SpaceRef) -> Result<(), NoMemory> {
        let slot = self.get(space);
        if slot.ports.has_bits() {
            return Ok(());
        }
        let is_sigma0 = slot.is_sigma0();
        let bytes = Self::bytes_of_ports(is_sigma0);
        self.charge(slot, bytes)?;
        self.provide_frames(held, space, is_sigma0).inspect_err(|_| self.discharge(slot, bytes))
    }

    /// What a space with ports takes for them.
    const fn bytes_of_ports(is_sigma0: bool) -> usize {
        TABLE + M::PORT_MAP_FRAMES * FRAME + if is_sigma0 { 0 } else { FRAME }
    }

    fn provide_frames(
        &self,
        held: &mut Held<{ rank::PORTS }>,
        space: SpaceRef,
        is_sigma0: bool,
    ) -> Result<(), NoMemory> {
        let slot = self.get(space);
        let (low, high) = self.alloc_pair(held)?;
        let ranges = if is_sigma0 { Some(PhysAddr(0)) } else { self.kmem.alloc(self.machine, held) };
        let Some(ranges) = ranges else {
            self.free_pair(held, low, high);
            return Err(NoMemory);
        };
        if !is_sigma0 {
            [low, high].into_iter().for_each(|frame| self.close_frame(frame));
        }
        if let Err(NoMemory) = self.machine.open_port_map(self.kmem, held, space, slot.root.get(), [low, high]) {
            self.free_pair(held, low, high);
            if !is_sigma0 {
                self.kmem.free(self.machine, held, ranges);
            }
            return Err(NoMemory);
        }
        slot.ports.bits[0].set(low);
        slot.ports.bits[1].set(high);
        slot.ports.ranges.set(ranges);
        slot.ports.count.set(0);
        if !is_sigma0 {
            self.enlist(space);
        }
        Ok(())
    }

    /// Frees what `space` needed for its ports, of which none is left and from which none is derived. No processor uses the
    /// space any more.
    pub(super) fn free_ports(&self, held: &mut Held<{ rank::NONE }>, space: SpaceRef) {
        let slot = self.get(space);
        if !slot.ports.has_bits() {
            return;
        }
        let mut guard = self.ports.lock.lock(held);
        let held = guard.held();
        self.machine.close_port_map(self.kmem, held, slot.root.get());
        self.free_pair(held, slot.ports.bits[0].replace(PhysAddr(0)), slot.ports.bits[1].replace(PhysAddr(0)));
        self.discharge(slot, Self::bytes_of_ports(slot.is_sigma0()));
        let ranges = slot.ports.ranges.replace(PhysAddr(0));
        if ranges != PhysAddr(0) {
            debug_assert!(slot.ports.count.get() == 0, "all ports are flushed");
            self.kmem.free(self.machine, held, ranges);
            self.delist(space);
        }
    }

    fn enlist(&self, space: SpaceRef) {
        let second = self.ports.first.replace(Some(space));
        let ports = &self.get(space).ports;
        ports.prev.set(None);
        ports.next.set(second);
        if let Some(second) = second {
            self.get(second).ports.prev.set(Some(space));
        }
    }

    fn delist(&self, space: SpaceRef) {
        let ports = &self.get(space).ports;
        let (prev, next) = (ports.prev.replace(None), ports.next.replace(None));
        match prev {
            Some(prev) => self.get(prev).ports.next.set(next),
            None => self.ports.first.set(next),
        }
        if let Some(next) = next {
            self.get(next).ports.prev.set(prev);
        }
        self.ports.pending.skip(space, next);
    }

    fn close_frame(&self, frame: PhysAddr) {
        for at in (0..FRAME_SIZE).step_by(size_of::<usize>()) {
            self.machine.write(PhysAddr(frame.0 + at), usize::MAX);
        }
    }
}

impl Ports {
    /// Whether the space is on the list of those with ranges, and no other is before it.
    pub(super) fn is_first(&self) -> bool {
        self.ranges.get() != PhysAddr(0) && self.prev.get().is_none()
    }

    /// Frames of bits and ranges.
    pub(super) fn frames(&self) -> usize {
        [&self.bits[0], &self.bits[1], &self.ranges].iter().filter(|frame| frame.get() != PhysAddr(0)).count()
    }

    /// The frame with the ranges, and how many there are.
    pub(super) fn table(&self) -> (PhysAddr, u32) {
        (self.ranges.get(), self.count.get())
    }

    /// Whether the space ever had ports: code in it reaches what its bits say, otherwise nothing.
    fn has_bits(&self) -> bool {
        self.bits[0].get() != PhysAddr(0)
    }
}

impl Space {
    /// Whether ports may come from here.
    fn may_have_ports(&self) -> bool {
        self.is_sigma0() || self.ports.has_bits()
    }
}
