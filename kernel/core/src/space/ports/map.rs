//! Map and grant of ports.
//!
//! The receive window does not count, and neither does the send base: ports go to where they are. Where rules leave a choice:
//! - A map leaves ports alone that the receiver has, wherever from.
//! - A grant takes such ports away first, as the receiver is to have them from whom the granter has them; unless that is so,
//!   or the granter has them from the receiver. What is derived from granted ports is derived from the receiver's then. At
//!   the end the granter loses the complete send fpage.
//! - What sigma0 grants, it maps. Nothing is mapped to sigma0.

use super::revoke::{Closing, charge};
use super::*;
use crate::mapdb::{MapCursor, Progress};
use crate::space::spend;

/// A map or grant item with an I/O fpage on its way: the operands of [`Spaces::map_ports`].
#[derive(Clone, Copy, Debug)]
pub struct PortTransfer {
    /// The sender's space.
    pub source: SpaceRef,
    /// The receiver's space.
    pub dest: SpaceRef,
    /// The ports.
    pub ports: IoFpage,
    /// Map or grant.
    pub kind: MapKind,
}

impl<M: Mmu> Spaces<'_, M> {
    /// Maps or grants ports. Silent about what cannot be mapped; `cursor` is reset before the first step.
    pub fn map_ports(
        &self,
        held: &mut Held<{ rank::NONE }>,
        transfer: &PortTransfer,
        cursor: &MapCursor,
        budget: &mut u32,
    ) -> Progress {
        let PortTransfer { source, dest, ports, kind } = *transfer;
        let (from, to) = (self.get(source), self.get(dest));
        if source == dest || to.is_sigma0() || !from.may_have_ports() {
            return Progress::Done;
        }
        let mut guard = self.ports.lock.lock(held);
        let is_grant = kind == MapKind::Grant && !from.is_sigma0();
        // A grant that has begun settles itself.
        if !is_grant && !self.settle(budget) {
            return Progress::Again;
        }
        // Who releases the space flushes what was mapped before it said so.
        if !to.is_initialised() {
            return Progress::Done;
        }
        if !to.ports.has_bits() {
            if self.provide_ports(guard.held(), dest) == Err(NoMemory) {
                return Progress::NoMemory;
            }
            charge(budget, 0, u16::MAX);
        }
        match is_grant {
            true => self.close(source, ports, Closing::Granted(dest), cursor, budget),
            false => self.map_runs(transfer, cursor, budget),
        }
    }

    /// Maps what is left. Nothing is pending.
    fn map_runs(&self, transfer: &PortTransfer, cursor: &MapCursor, budget: &mut u32) -> Progress {
        let PortTransfer { source, dest, ports, .. } = *transfer;
        loop {
            let first = usize::from(ports.port()).saturating_add(cursor.pages.get());
            let Some(first) = u16::try_from(first).ok().filter(|&first| first <= ports.last()) else {
                return Progress::Done;
            };
            if !spend(budget) {
                return Progress::Again;
            }
            match self.open_run(self.get(dest), self.get(source), source, (first, ports.last()), budget) {
                Ok(Some(last)) => {
                    charge(budget, first, last);
                    cursor.pages.set(usize::from(last - ports.port()) + 1);
                }
                // Without room the rest is left out, as it is without memory.
                Ok(None) | Err(Full) => return Progress::Done,
            }
        }
    }
}
