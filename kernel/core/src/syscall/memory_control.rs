//! MemoryControl (X.2, MemoryControl).

use l4_abi::{MR_COUNT, SysError, Word};

use crate::kernel::Here;
use crate::machine::{Machine, TcbRef};

impl<M: Machine> Here<'_, M> {
    /// Sets caching attributes of the `control` + 1 fpages in the message registers. The default is the only attribute
    /// there is, and every page has it.
    ///
    /// # Errors
    /// [`SysError::NoPrivilege`]; [`SysError::InvalidParameter`]: more fpages than message registers, or an fpage that
    /// selects another attribute.
    pub fn memory_control(&mut self, caller: TcbRef, control: Word, attributes: [Word; 4]) -> Result<(), SysError> {
        self.require_privilege(caller)?;
        if control >= MR_COUNT as Word {
            return Err(SysError::InvalidParameter);
        }
        let utcb = self.k.utcb(caller);
        let selected = |index| {
            let fpage = l4_abi::Fpage::from_raw(utcb.mr(index));
            (!fpage.is_nil()).then(|| attributes[(fpage.rights().bits() & 3) as usize])
        };
        let all_default = (0..=control as usize).filter_map(selected).all(|attribute| attribute == 0);
        if all_default { Ok(()) } else { Err(SysError::InvalidParameter) }
    }
}
