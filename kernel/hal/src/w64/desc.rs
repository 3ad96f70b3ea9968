//! Descriptor tables: segments, gates and the task state (Intel SDM 3A, Protected-Mode Memory Management; Interrupt and
//! Exception Handling).
//!
//! The tables are made of atomics, so that they can be plain `static`s, changed in place while the processor reads them:
//! each processor has its own, and each 8-byte word of them changes at once.

use core::arch::asm;
use core::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use crate::msr::Msr;

/// A segment selector. The user's are the ABI's (amd64, thread start state).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Selector(pub u16);

impl Selector {
    /// Kernel code.
    pub const KERNEL_CODE: Self = Self(0x08);
    /// Kernel data and stack.
    pub const KERNEL_DATA: Self = Self(0x10);
    /// 32-bit user code: what SYSRET counts from. There is no such segment, so that user code is always 64-bit code.
    pub const USER_CODE32: Self = Self(0x18 | 3);
    /// User data and stack.
    pub const USER_DATA: Self = Self(0x20 | 3);
    /// 64-bit user code.
    pub const USER_CODE64: Self = Self(0x28 | 3);
    /// User data with a base of its own, for `gs`. There is no such segment but while the kernel loads it.
    pub const USER_GS: Self = Self(0x30 | 3);
    /// The task state.
    pub const TSS: Self = Self(0x38);

    const fn index(self) -> usize {
        self.0 as usize / 8
    }
}

/// A flat segment: base 0, limit 4 GiB, present, marked accessed so that the processor never writes the table.
const FLAT: u64 = 0x00CF_9100_0000_FFFF;
const READ_WRITE: u64 = 1 << 41;
const CODE: u64 = 1 << 43 | 1 << 41;
const USER: u64 = 3 << 45;
/// 64-bit instead of 32-bit code: L set, D clear. Applied by exclusive or.
const LONG: u64 = 1 << 53 | 1 << 54;

/// The global descriptor table of a processor.
#[repr(C, align(64))]
pub struct Gdt([AtomicU64; 9]);

impl Gdt {
    /// The entry at `index`, if there is one.
    pub fn entry(&self, index: usize) -> Option<u64> {
        self.0.get(index).map(|word| word.load(Ordering::Relaxed))
    }

    /// The table with all segments, and no task state yet.
    #[allow(clippy::new_without_default, reason = "for statics")]
    pub const fn new() -> Self {
        Self([
            AtomicU64::new(0),
            AtomicU64::new((FLAT | CODE) ^ LONG),
            AtomicU64::new(FLAT | READ_WRITE),
            AtomicU64::new(0),
            AtomicU64::new(FLAT | READ_WRITE | USER),
            AtomicU64::new((FLAT | CODE | USER) ^ LONG),
            AtomicU64::new(0),
            AtomicU64::new(0),
            AtomicU64::new(0),
        ])
    }

    /// Makes this the processor's table, the only one with segments, `tss` its task state, and loads all segment registers:
    /// the kernel's, and the user's where the kernel needs none.
    ///
    /// # Safety
    /// 1. No other processor uses the table or the task state.
    /// 2. Both stay mapped where they are in every space from now on.
    pub unsafe fn load(&'static self, tss: &'static Tss, user_gs_base: usize) {
        let [low, high] = tss_descriptor(tss.hardware_address(), tss.limit());
        self.0[Selector::TSS.index()].store(low, Ordering::Relaxed);
        self.0[Selector::TSS.index() + 1].store(high, Ordering::Relaxed);
        let pointer = TablePointer::new(self);
        // SAFETY: the pointer holds address and limit of a table that stays (2.).
        unsafe { asm!("lgdt [{}]", in(reg) &pointer, options(nostack, readonly, preserves_flags)) };
        // SAFETY: the kernel's code segment is the one that runs now, by another table: a far return to the next
        // instruction loads it anew.
        unsafe {
            asm!(
                "push {code}",
                "lea {next}, [rip + 2f]",
                "push {next}",
                "retfq",
                "2:",
                code = const Selector::KERNEL_CODE.0,
                next = out(reg) _,
            );
        }
        // SAFETY: flat data for the stack; and no local table, whose call gates would be a way into the kernel.
        unsafe {
            asm!(
                "mov ss, {kernel:e}",
                "lldt {none:x}",
                kernel = in(reg) u32::from(Selector::KERNEL_DATA.0),
                none = in(reg) 0,
                options(nostack, preserves_flags),
            );
        }
        // SAFETY: the table is loaded by now, and the kernel uses none of the registers.
        unsafe { self.load_user_data(user_gs_base) };
        // SAFETY: the entry describes an available task state that stays (2.); `ltr` marks it busy in the table.
        unsafe { asm!("ltr {:x}", in(reg) Selector::TSS.0, options(nostack, preserves_flags)) };
    }

    /// Loads the data segment registers as a fresh thread finds them: `gs` with `gs_base`, the others flat. The kernel
    /// addresses nothing through any of them, so the user's stay there.
    ///
    /// # Safety
    /// As for [`Gdt::load_user_gs`].
    pub unsafe fn load_user_data(&self, gs_base: usize) {
        // SAFETY: the segment is in the table, and by contract nothing of the kernel is reached through the registers.
        unsafe {
            asm!(
                "mov ds, {user:e}",
                "mov es, {user:e}",
                "mov fs, {user:e}",
                user = in(reg) u32::from(Selector::USER_DATA.0),
                options(nostack, preserves_flags),
            );
        }
        // SAFETY: by contract.
        unsafe { self.load_user_gs(gs_base) };
    }

    /// Loads `gs` with the user's selector and `base`: after user code may have loaded another one.
    ///
    /// The segment is in the table only meanwhile: user code that loads `gs` itself changes the base, and because it
    /// cannot load this selector, the selector shows that it did.
    ///
    /// # Safety
    /// The table is the processor's, `base` is canonical, and nothing of the kernel is reached through `gs`.
    pub unsafe fn load_user_gs(&self, base: usize) {
        let segment = &self.0[Selector::USER_GS.index()];
        segment.store(FLAT | READ_WRITE | USER, Ordering::Relaxed);
        // SAFETY: the selector exists in the table; loading it sets the base from there, so the base comes second.
        unsafe {
            asm!("mov gs, {:e}", in(reg) u32::from(Selector::USER_GS.0), options(nostack, preserves_flags));
        }
        segment.store(0, Ordering::Relaxed);
        // SAFETY: canonical by contract.
        unsafe { Msr::GS_BASE.write(base as u64) };
    }
}

/// What LGDT and LIDT read.
#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}

impl TablePointer {
    fn new<T>(table: &'static T) -> Self {
        Self { limit: (size_of::<T>() - 1) as u16, base: (&raw const *table).addr() as u64 }
    }
}

/// The two words that describe an available 64-bit task state at `base`, whose last byte has offset `limit`.
const fn tss_descriptor(base: u64, limit: u16) -> [u64; 2] {
    const AVAILABLE_PRESENT: u64 = 0x89 << 40;
    let limit = limit as u64;
    let low = (base & 0xFF_FFFF) << 16 | (base >> 24 & 0xFF) << 56;
    [low | limit | AVAILABLE_PRESENT, base >> 32]
}

/// One of the stacks that a gate can ask for by number, whatever stack was in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum InterruptStack {
    /// The first.
    Ist1 = 1,
    /// The second.
    Ist2 = 2,
    /// The third.
    Ist3 = 3,
}

/// The task state: which stacks the processor takes when it enters the kernel, and where it finds which ports are open to
/// user code that may not use all.
///
/// The hardware's structure begins 4 bytes in: its 8-byte fields are then aligned and can be atomics.
#[repr(C, align(128))]
pub struct Tss {
    padding: u32,
    reserved0: u32,
    privileged_stacks: [AtomicU64; 3],
    reserved1: u64,
    interrupt_stacks: [AtomicU64; 7],
    reserved2: u64,
    reserved3: u16,
    port_map_offset: AtomicU16,
}

impl Tss {
    /// Size of what the processor sees.
    const HARDWARE_BYTES: usize = 104;
    const HARDWARE_OFFSET: usize = 4;
    /// Size of a port map: a bit for each port. The processor reads a byte more.
    const PORT_MAP_BYTES: u16 = 0x2000;

    /// No stacks yet.
    #[allow(clippy::new_without_default, reason = "for statics")]
    pub const fn new() -> Self {
        Self {
            padding: 0,
            reserved0: 0,
            privileged_stacks: [const { AtomicU64::new(0) }; 3],
            reserved1: 0,
            interrupt_stacks: [const { AtomicU64::new(0) }; 7],
            reserved2: 0,
            reserved3: 0,
            // At or beyond the end: there is no map, and ports obey IOPL alone.
            port_map_offset: AtomicU16::new(Self::HARDWARE_BYTES as u16),
        }
    }

    /// Where `rsp` points when user code enters through a gate without an interrupt stack. The processor first rounds
    /// it down to 16, then pushes.
    #[inline(always)]
    pub fn set_kernel_stack(&self, top: usize) {
        self.privileged_stacks[0].store(top as u64, Ordering::Relaxed);
    }

    /// Where `rsp` points when a gate asks for `stack`.
    pub fn set_interrupt_stack(&self, stack: InterruptStack, top: usize) {
        self.interrupt_stacks[stack as usize - 1].store(top as u64, Ordering::Relaxed);
    }

    /// Makes the processor find the port map at `address`, before the task state is loaded: a bit for each of the 2^16
    /// ports, set if user code may not use it, and behind them a byte of ones.
    ///
    /// # Panics
    /// If the map does not begin in the 56 KiB behind the task state.
    pub fn set_port_map(&'static self, address: usize) {
        let offset =
            (address as u64).checked_sub(self.hardware_address()).and_then(|offset| u16::try_from(offset).ok());
        let fits =
            |&offset: &u16| offset > Self::HARDWARE_BYTES as u16 && offset.checked_add(Self::PORT_MAP_BYTES).is_some();
        let offset = offset.filter(fits).expect("a port map is near its task state");
        self.port_map_offset.store(offset, Ordering::Relaxed);
    }

    /// Offset of the last byte that the processor may read.
    fn limit(&self) -> u16 {
        let no_map = Self::HARDWARE_BYTES as u16;
        match self.port_map_offset.load(Ordering::Relaxed) {
            offset if offset == no_map => no_map - 1,
            offset => offset + Self::PORT_MAP_BYTES,
        }
    }

    fn hardware_address(&'static self) -> u64 {
        ((&raw const *self).addr() + Self::HARDWARE_OFFSET) as u64
    }
}

const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(Tss, reserved0) == Tss::HARDWARE_OFFSET);
    assert!(offset_of!(Tss, privileged_stacks) == Tss::HARDWARE_OFFSET + 0x04);
    assert!(offset_of!(Tss, interrupt_stacks) == Tss::HARDWARE_OFFSET + 0x24);
    assert!(offset_of!(Tss, port_map_offset) == Tss::HARDWARE_OFFSET + 0x66);
    assert!(offset_of!(Tss, port_map_offset) + 2 - Tss::HARDWARE_OFFSET == Tss::HARDWARE_BYTES);
};

/// Who may reach a gate by an INT instruction. Interrupts and exceptions reach each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caller {
    /// The kernel only; user code gets a general-protection fault.
    Kernel,
    /// Anybody: breakpoints and the debugger's calls.
    User,
}

/// The interrupt descriptor table of a processor. All gates switch interrupts off.
#[repr(C, align(4096))]
pub struct Idt([[AtomicU64; 2]; 256]);

impl Idt {
    /// A table without gates.
    #[allow(clippy::new_without_default, reason = "for statics")]
    pub const fn new() -> Self {
        Self([const { [const { AtomicU64::new(0) }; 2] }; 256])
    }

    /// The two words of a gate.
    pub fn gate(&self, vector: u8) -> [u64; 2] {
        self.0[usize::from(vector)].each_ref().map(|word| word.load(Ordering::Relaxed))
    }

    /// Makes `vector` enter the kernel at address `entry`, on `stack` if given, else on the current stack or, from user
    /// code, on the kernel stack of the task state.
    ///
    /// # Safety
    /// `entry` stays mapped in every space and is code for this vector, error code or not.
    pub unsafe fn set(&self, vector: u8, entry: usize, stack: Option<InterruptStack>, caller: Caller) {
        let [low, high] = gate(entry as u64, stack, caller);
        let [first, second] = &self.0[usize::from(vector)];
        // The word with the present bit comes last, so that a gate in use is never half new where it was absent.
        second.store(high, Ordering::Relaxed);
        first.store(low, Ordering::Release);
    }

    /// Makes this the processor's table.
    ///
    /// # Safety
    /// 1. Gates exist for all vectors that can arrive.
    /// 2. The table stays mapped where it is in every space from now on.
    pub unsafe fn load(&'static self) {
        let pointer = TablePointer::new(self);
        // SAFETY: the pointer holds address and limit of a table that stays (2.).
        unsafe { asm!("lidt [{}]", in(reg) &pointer, options(nostack, readonly, preserves_flags)) };
    }
}

/// The two words of an interrupt gate.
const fn gate(entry: u64, stack: Option<InterruptStack>, caller: Caller) -> [u64; 2] {
    const PRESENT_INTERRUPT_GATE: u64 = 0x8E << 40;
    let stack = match stack {
        None => 0,
        Some(stack) => stack as u64,
    };
    let privilege = match caller {
        Caller::Kernel => 0,
        Caller::User => 3,
    };
    let selector = Selector::KERNEL_CODE.0 as u64;
    let low = entry & 0xFFFF | selector << 16 | stack << 32 | privilege << 45 | (entry >> 16 & 0xFFFF) << 48;
    [low | PRESENT_INTERRUPT_GATE, entry >> 32]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_those_of_the_abi() {
        let Gdt(words) = Gdt::new();
        let check = |selector: Selector, wanted: u64| {
            assert_eq!(words[selector.index()].load(Ordering::Relaxed), wanted, "{selector:x?}");
        };
        check(Selector::KERNEL_CODE, 0x00AF_9B00_0000_FFFF);
        check(Selector::KERNEL_DATA, 0x00CF_9300_0000_FFFF);
        check(Selector::USER_CODE32, 0);
        check(Selector::USER_DATA, 0x00CF_F300_0000_FFFF);
        check(Selector::USER_CODE64, 0x00AF_FB00_0000_FFFF);
        check(Selector::USER_GS, 0);
        assert_eq!(Selector::USER_GS.0, 0x33);
    }

    #[test]
    fn the_task_state_is_found_anywhere_in_the_address_space() {
        let check = |base, wanted| assert_eq!(tss_descriptor(base, 0x67), wanted, "{base:x}");
        check(0xFFFF_FFFF_8123_4584, [0x8100_8923_4584_0067, 0xFFFF_FFFF]);
        check(0x0000_0001_0000_0004, [0x0000_8900_0004_0067, 1]);
    }

    #[test]
    fn a_port_map_is_inside_the_limit() {
        static TSS: Tss = Tss::new();
        assert_eq!((TSS.limit(), TSS.port_map_offset.load(Ordering::Relaxed)), (0x67, 0x68));
        let base = TSS.hardware_address() as usize;
        TSS.set_port_map(base + 0x1FFC);
        assert_eq!((TSS.limit(), TSS.port_map_offset.load(Ordering::Relaxed)), (0x3FFC, 0x1FFC));
        for (distance, fits) in
            [(0x68, false), (0x69, true), (0xDFFF, true), (0xE000, false), (0x1_0000, false), (usize::MAX, false)]
        {
            let result = std::panic::catch_unwind(|| TSS.set_port_map(base.wrapping_add(distance)));
            assert_eq!(result.is_ok(), fits, "{distance:#x}");
        }
    }

    #[test]
    fn gates_hold_address_stack_and_privilege() {
        let check = |entry, stack, caller, wanted| assert_eq!(gate(entry, stack, caller), wanted, "{entry:x}");
        check(0xFFFF_FFFF_8123_4567, None, Caller::Kernel, [0x8123_8E00_0008_4567, 0xFFFF_FFFF]);
        check(0xFFFF_FFFF_8123_4567, Some(InterruptStack::Ist2), Caller::Kernel, [0x8123_8E02_0008_4567, 0xFFFF_FFFF]);
        check(0x1234, None, Caller::User, [0x0000_EE00_0008_1234, 0]);
    }
}
