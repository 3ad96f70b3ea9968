//! Memory types and caches (Intel SDM 3A, Memory Cache Control).

use core::arch::asm;

use crate::cpu::Features;
use crate::msr::Msr;

/// A memory type, with its number in the page attribute table.
#[derive(Clone, Copy)]
#[repr(u8)]
enum MemoryType {
    Uncacheable = 0,
    WriteCombining = 1,
    WriteThrough = 4,
    WriteProtected = 5,
    WriteBack = 6,
    /// Not cached, unless the range registers say "write-combining".
    UncacheableWeak = 7,
}

/// The page attribute table of X.2 on x86 (ia32 ABI, MemoryControl attributes). The first four entries are those that
/// processors come up with, on which all tables made before rely.
const TABLE: [MemoryType; 8] = {
    use MemoryType::*;
    [
        WriteBack,
        WriteThrough,
        UncacheableWeak,
        Uncacheable,
        WriteCombining,
        WriteThrough,
        UncacheableWeak,
        WriteProtected,
    ]
};

const fn table_word() -> u64 {
    let mut word = 0;
    let mut index = 0;
    while index < TABLE.len() {
        word |= (TABLE[index] as u64) << (8 * index);
        index += 1;
    }
    word
}

/// Loads this processor's page attribute table, if it has one.
///
/// # Safety
/// 1. `features` are this processor's.
/// 2. No page table in use has an entry whose memory type is one of the last four.
pub unsafe fn load_page_attributes(features: Features) {
    if features.contains(Features::PAT) {
        // SAFETY: by 1. the register is there; the values are memory types; the entries in use keep theirs, by 2.
        unsafe { Msr::PAT.write(table_word()) };
    }
}

/// Writes back and empties this processor's caches, as is necessary when pages get another memory type, unless it has
/// [`Features::SELF_SNOOP`] (Intel SDM 3A, MTRR Considerations in MP Systems).
pub fn flush() {
    // SAFETY: what memory holds stays the same for everybody.
    unsafe { asm!("wbinvd", options(nostack, preserves_flags)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value that the reference kernel's ABI documents; the lower half is the one after a reset.
    #[test]
    fn the_table_is_the_documented_one() {
        assert_eq!(table_word(), 0x0507_0401_0007_0406);
    }
}
