//! SpaceControl (X.2, SpaceControl).

use l4_abi::{Fpage, KIP_AREA_LOG2, SysError, ThreadId, UTCB_AREA_MIN_LOG2};

use crate::kernel::Here;
use crate::machine::{Machine, TcbRef};
use crate::space::Space;

/// What the caller passes. Control bits and the redirector mean nothing on this kernel.
#[derive(Clone, Copy, Debug)]
pub struct SpaceControlArgs {
    /// Global id of a thread in the space.
    pub space: ThreadId,
    /// Where the KIP shall be; ignored if the space is initialised.
    pub kip_area: Fpage,
    /// Where UTCBs may be; ignored if the space is initialised.
    pub utcb_area: Fpage,
}

impl<M: Machine> Here<'_, M> {
    /// Initialises a space: gives it its KIP and UTCB areas and maps the KIP.
    ///
    /// # Errors
    /// [`SysError::NoPrivilege`]; [`SysError::InvalidSpace`]: not the global id of a thread; [`SysError::UtcbArea`],
    /// [`SysError::KipArea`]: too small, outside user memory, or overlapping; [`SysError::OutOfMemory`].
    pub fn space_control(&mut self, caller: TcbRef, args: SpaceControlArgs) -> Result<(), SysError> {
        self.require_privilege(caller)?;
        let thread = Some(args.space).filter(|id| id.is_global()).and_then(|id| self.k.thread(id));
        let space = self.k.space_of(thread.ok_or(SysError::InvalidSpace)?);
        if self.k.spaces.get(space).is_initialised() {
            return Ok(());
        }
        self.check_areas(args.kip_area, args.utcb_area)?;
        let done = self.k.spaces.initialise(&mut self.held, space, args.kip_area, args.utcb_area);
        done.map_err(|_| SysError::OutOfMemory)
    }

    fn check_areas(&self, kip_area: Fpage, utcb_area: Fpage) -> Result<(), SysError> {
        let in_user_area = |area: Fpage, min_log2: u32| {
            area.size_log2() >= min_log2 && self.k.spaces.is_user_range(area.base() as usize, area.last() as usize)
        };
        if utcb_area.is_complete() || !in_user_area(utcb_area, UTCB_AREA_MIN_LOG2) {
            return Err(SysError::UtcbArea);
        }
        let overlaps = Space::overlap(kip_area, utcb_area);
        if kip_area.is_complete() || !in_user_area(kip_area, KIP_AREA_LOG2) || overlaps {
            return Err(SysError::KipArea);
        }
        Ok(())
    }
}
