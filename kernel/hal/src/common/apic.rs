//! The local APIC (Intel SDM 3A, Advanced Programmable Interrupt Controller), through its memory page or, in x2APIC mode,
//! through model-specific registers.

use core::num::NonZero;
use core::ptr::NonNull;

use crate::irq::IrqOff;
use crate::msr::Msr;

/// A register, by byte offset in the page; in x2APIC mode a sixteenth of that, from [`X2APIC_REGISTERS`] on.
#[derive(Clone, Copy)]
struct Register(usize);

impl Register {
    const fn msr(self) -> Msr {
        Msr(X2APIC_REGISTERS + (self.0 >> 4) as u32)
    }

    const ID: Self = Self(0x020);
    const TASK_PRIORITY: Self = Self(0x080);
    const END_OF_INTERRUPT: Self = Self(0x0B0);
    const SPURIOUS: Self = Self(0x0F0);
    const ERROR_STATUS: Self = Self(0x280);
    const COMMAND: Self = Self(0x300);
    const COMMAND_HIGH: Self = Self(0x310);
    const LVT_TIMER: Self = Self(0x320);
    const LVT_LINT0: Self = Self(0x350);
    const LVT_LINT1: Self = Self(0x360);
    const LVT_ERROR: Self = Self(0x370);
    const TIMER_INITIAL: Self = Self(0x380);
    const TIMER_CURRENT: Self = Self(0x390);
    const TIMER_DIVIDE: Self = Self(0x3E0);
}

const MASKED: u32 = 1 << 16;
const DELIVER_NMI: u32 = 0b100 << 8;
const DELIVER_EXTERNAL: u32 = 0b111 << 8;
const SOFTWARE_ENABLED: u32 = 1 << 8;
/// The first model-specific register of x2APIC mode.
const X2APIC_REGISTERS: u32 = 0x800;

/// Bits of the command register: how an interrupt is delivered, and that it is still on its way.
const COMMAND_INIT: u32 = 0b101 << 8;
const COMMAND_STARTUP: u32 = 0b110 << 8;
const COMMAND_ASSERT: u32 = 1 << 14;
const COMMAND_PENDING: u32 = 1 << 12;

/// By what the timer's input clock is divided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
#[allow(missing_docs, reason = "the numbers say it")]
pub enum Divider {
    By1 = 0b1011,
    By2 = 0b0000,
    By4 = 0b0001,
    By8 = 0b0010,
    By16 = 0b0011,
    By32 = 0b1000,
    By64 = 0b1001,
    By128 = 0b1010,
}

impl Divider {
    /// The divisor.
    pub const fn divisor(self) -> NonZero<u64> {
        const TWO: NonZero<u64> = NonZero::new(2).expect("it is not zero");
        let power = match self {
            Self::By1 => 0,
            Self::By2 => 1,
            Self::By4 => 2,
            Self::By8 => 3,
            Self::By16 => 4,
            Self::By32 => 5,
            Self::By64 => 6,
            Self::By128 => 7,
        };
        TWO.saturating_pow(power)
    }
}

/// How the registers are reached.
#[derive(Clone, Copy)]
enum Access {
    Page(NonNull<u32>),
    X2Apic,
}

/// The local APIC of this processor.
pub struct LocalApic {
    access: Access,
    divider: Divider,
}

impl LocalApic {
    /// The local APIC whose registers are at `page`. Changes nothing; see [`LocalApic::enable`].
    ///
    /// # Safety
    /// 1. `page` maps the 4 KiB of registers at [`physical_base`], uncached and writable, from now on.
    /// 2. This processor has no other `LocalApic` in use, and the value stays on it.
    pub const unsafe fn new(page: NonNull<u32>) -> Self {
        Self { access: Access::Page(page), divider: Divider::By2 }
    }

    /// The local APIC in x2APIC mode. Changes nothing.
    ///
    /// # Safety
    /// 1. This processor is in that mode ([`enter_x2apic`]) from now on.
    /// 2. As 2. of [`LocalApic::new`].
    pub const unsafe fn new_x2apic() -> Self {
        Self { access: Access::X2Apic, divider: Divider::By2 }
    }

    #[inline(always)]
    fn read(&self, register: Register) -> u32 {
        match self.access {
            // SAFETY: mapped by `new` 1.; reading these registers has no side effect.
            Access::Page(page) => unsafe { page.as_ptr().wrapping_byte_add(register.0).read_volatile() },
            // SAFETY: the register exists in this mode, by `new_x2apic` 1.
            Access::X2Apic => unsafe { register.msr().read() as u32 },
        }
    }

    /// The register at `offset` of the page, below 4 KiB, for a debugger: 0 if there is none.
    pub fn read_at(&self, offset: u32) -> u32 {
        let register = Register((offset as usize & 0xFFF) & !0xF);
        match self.access {
            Access::Page(_) => self.read(register),
            Access::X2Apic => register.msr().try_read().unwrap_or(0) as u32,
        }
    }

    #[inline(always)]
    fn write(&mut self, register: Register, value: u32) {
        match self.access {
            // SAFETY: mapped by `new` 1.; by 2. and `&mut self` nobody else writes it. What is written makes the APIC
            // deliver interrupts at most, and the kernel's handlers are sound for every vector.
            Access::Page(page) => unsafe { page.as_ptr().wrapping_byte_add(register.0).write_volatile(value) },
            // SAFETY: the register exists in this mode; the rest as above.
            Access::X2Apic => unsafe { register.msr().write(value.into()) },
        }
    }

    /// Switches the APIC on: all priorities accepted, timer stopped, the 8259A input masked, NMI let in; spurious
    /// interrupts arrive at `spurious_vector`, whose low four bits should be set and which needs no end of interrupt.
    pub fn enable(&mut self, spurious_vector: u8, _: &mut IrqOff) {
        self.write(Register::LVT_TIMER, MASKED);
        self.write(Register::LVT_LINT0, MASKED);
        self.write(Register::LVT_LINT1, DELIVER_NMI);
        self.write(Register::LVT_ERROR, MASKED);
        self.write(Register::TIMER_INITIAL, 0);
        self.set_divider(Divider::By2);
        self.write(Register::TASK_PRIORITY, 0);
        self.write(Register::SPURIOUS, SOFTWARE_ENABLED | u32::from(spurious_vector));
        self.write(Register::ERROR_STATUS, 0);
    }

    /// Lets the interrupts of the 8259A in, which need no end of interrupt here.
    pub fn let_pics_in(&mut self, _: &mut IrqOff) {
        self.write(Register::LVT_LINT0, DELIVER_EXTERNAL);
    }

    /// The APIC's number, by which other processors address it.
    pub fn id(&self) -> u32 {
        match self.access {
            Access::Page(_) => self.read(Register::ID) >> 24,
            Access::X2Apic => self.read(Register::ID),
        }
    }

    /// Interrupts the processor whose APIC has number `apic_id`, at `vector`. All that this processor wrote before is
    /// visible to the handler.
    #[inline]
    pub fn interrupt_processor(&mut self, apic_id: u32, vector: u8, _: &IrqOff) {
        self.command(apic_id, u32::from(vector) | COMMAND_ASSERT);
    }

    /// Interrupts the processor whose APIC has number `apic_id`, wherever it is. As [`LocalApic::interrupt_processor`].
    #[inline]
    pub fn interrupt_non_maskably(&mut self, apic_id: u32, _: &IrqOff) {
        self.command(apic_id, DELIVER_NMI | COMMAND_ASSERT);
    }

    /// Resets the processor whose APIC has number `apic_id`: it then waits for [`LocalApic::start_processor`].
    ///
    /// # Safety
    /// That processor is none whose work anybody relies on.
    pub unsafe fn reset_processor(&mut self, apic_id: u32, _: &IrqOff) {
        self.command(apic_id, COMMAND_INIT | COMMAND_ASSERT);
    }

    /// Lets a processor that was reset run from `page`, a page below 1 MiB, in real mode. Does nothing to others.
    ///
    /// # Safety
    /// Code that may be run so is there.
    pub unsafe fn start_processor(&mut self, apic_id: u32, page: u8, _: &IrqOff) {
        self.command(apic_id, COMMAND_STARTUP | COMMAND_ASSERT | u32::from(page));
    }

    /// Sends what `command` says to one processor, and waits until it is on its way.
    fn command(&mut self, apic_id: u32, command: u32) {
        match self.access {
            Access::Page(_) => {
                while self.read(Register::COMMAND) & COMMAND_PENDING != 0 {
                    core::hint::spin_loop();
                }
                self.write(Register::COMMAND_HIGH, apic_id << 24);
                self.write(Register::COMMAND, command);
            }
            Access::X2Apic => {
                // Writes of these registers do not wait for stores to memory, as those of the page do.
                core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
                let command = u64::from(apic_id) << 32 | u64::from(command);
                // SAFETY: as in `write`; resetting and starting processors is the callers'.
                unsafe { Register::COMMAND.msr().write(command) };
            }
        }
    }

    /// Ends the interrupt in service.
    #[inline(always)]
    pub fn end_of_interrupt(&mut self, _: &IrqOff) {
        self.write(Register::END_OF_INTERRUPT, 0);
    }

    /// Divides the timer's input clock; stop the timer first.
    pub fn set_divider(&mut self, divider: Divider) {
        self.divider = divider;
        self.write(Register::TIMER_DIVIDE, divider as u32);
    }

    /// By what the timer's input clock is divided.
    pub const fn divider(&self) -> Divider {
        self.divider
    }

    /// One interrupt at `vector` after `ticks` of the divided clock, from now; replaces an earlier request. 0 stops.
    #[inline(always)]
    pub fn start_timer(&mut self, vector: u8, ticks: u32) {
        self.write(Register::LVT_TIMER, u32::from(vector));
        self.write(Register::TIMER_INITIAL, ticks);
    }

    /// Counts down from `ticks` without an interrupt.
    pub fn start_silent_timer(&mut self, ticks: u32) {
        self.write(Register::LVT_TIMER, MASKED);
        self.write(Register::TIMER_INITIAL, ticks);
    }

    /// Stops the timer; an interrupt that is already pending still arrives.
    #[inline(always)]
    pub fn stop_timer(&mut self) {
        self.write(Register::TIMER_INITIAL, 0);
    }

    /// Ticks left until the timer's interrupt; 0 when stopped or over.
    #[inline(always)]
    pub fn timer_ticks_left(&self) -> u32 {
        self.read(Register::TIMER_CURRENT)
    }
}

const GLOBAL_ENABLE: u64 = 1 << 11;
const X2APIC_MODE: u64 = 1 << 10;

/// Whether this processor's local APIC is in x2APIC mode, as the firmware left it.
///
/// # Safety
/// The processor has a local APIC.
pub unsafe fn is_in_x2apic_mode(_: &IrqOff) -> bool {
    // SAFETY: every processor with a local APIC that knows long mode has the register.
    let base = unsafe { Msr::APIC_BASE.read() };
    base & X2APIC_MODE != 0
}

/// Brings the local APIC into x2APIC mode.
///
/// # Safety
/// 1. The processor has that mode.
/// 2. Nobody uses the memory page from now on.
pub unsafe fn enter_x2apic(_: &mut IrqOff) {
    // SAFETY: by 1.
    let base = unsafe { Msr::APIC_BASE.read() };
    // The mode is entered from "on" alone (Intel SDM 3A, x2APIC State Transitions).
    // SAFETY: by 1. and 2.
    unsafe { Msr::APIC_BASE.write(base | GLOBAL_ENABLE) };
    // SAFETY: by 1. and 2.
    unsafe { Msr::APIC_BASE.write(base | GLOBAL_ENABLE | X2APIC_MODE) };
}

/// Makes sure that the local APIC, which is not in x2APIC mode, is on, and returns the physical address of its page.
///
/// # Safety
/// 1. The processor has a local APIC.
/// 2. Nobody relies on its present state, which is lost if firmware left it off.
pub unsafe fn physical_base(_: &mut IrqOff) -> u64 {
    const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
    // SAFETY: every processor with a local APIC that knows long mode has the register.
    let base = unsafe { Msr::APIC_BASE.read() };
    // SAFETY: by 2.; the address stays.
    unsafe { Msr::APIC_BASE.write(base | GLOBAL_ENABLE) };
    base & ADDRESS
}
