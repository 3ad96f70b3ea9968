//! The interrupt controllers: the machine's lines, found at boot, and which vector belongs to which.
//!
//! With I/O APICs a line that stays raised is masked before its interrupt ends, as it would come again at once. A line
//! whose edges count stays open, as an I/O APIC forgets an edge that comes while it is masked; the core notes what comes
//! too early. The 8259A remembers edges, so its lines are always masked.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering};

use kcore::boot::is_memory;
use kcore::lock::{Held, Lock, rank};
use kcore::machine::PhysAddr;
use kformats::acpi::madt::Madt;
use khal::apic::LocalApic;
use khal::ioapic::{self, IoApic, Redirection};
use khal::irq::IrqOff;
use khal::lines::{Input, Lines, MAX_IO_APICS, Trigger};
use khal::pic::{self, Pics};
use l4_abi::MemoryDescriptor;

use crate::trap::vector;
use crate::{config, console, layout, machine};

const PAGE_BYTES: u64 = 4096;

/// The interrupt controllers.
pub struct Interrupts {
    lines: Lines,
    /// Guards the registers.
    lock: Lock<{ rank::LINES }>,
    /// The local APIC that the interrupts of each line go to.
    destinations: [AtomicU8; vector::LINES_MAX as usize],
}

/// The lines according to the firmware; those of the 8259A if it says nothing, or if the kernel was built for these. I/O APICs
/// that would lie where `memory` has memory, or across the end of a page, are left out. Says why.
pub fn lines(madt: Option<Madt<'_>>, memory: &[MemoryDescriptor]) -> Lines {
    if !config::IOAPIC {
        return Lines::of_pics();
    }
    let can_be_device = |address: u64| {
        let is_memory = is_memory(memory, PhysAddr(address & !(PAGE_BYTES - 1)));
        if is_memory || !ioapic::can_be_at(address) {
            let what = if is_memory { "there is memory" } else { "no page has room for registers" };
            console::line(format_args!("ACPI: an I/O APIC cannot be at {address:#x}: {what}"));
            return false;
        }
        true
    };
    let found = madt.map_or(Ok(None), |madt| Lines::of_entries(madt.entries(), can_be_device));
    let lines = found.unwrap_or_else(|error| {
        console::line(format_args!("ACPI: {error}"));
        None
    });
    lines.unwrap_or_else(Lines::of_pics)
}

/// The pages with the registers of the I/O APICs, as [`layout::IO_APIC_PAGES`] shows them one after the other.
pub fn pages(lines: &Lines) -> impl Iterator<Item = PhysAddr> {
    lines.io_apics().iter().map(|io_apic| PhysAddr(io_apic.address & !(PAGE_BYTES - 1)))
}

impl Interrupts {
    /// Takes the controllers over: all lines are masked. The kernel's own tables are in use, with [`pages`]; the 8259A are
    /// silent.
    pub fn start(mut lines: Lines, apic: &mut LocalApic, irq: &mut IrqOff) -> Self {
        for index in 0..lines.io_apics().len() {
            let mut io_apic = io_apic(&lines, index);
            let inputs = io_apic.inputs();
            (0..inputs).for_each(|pin| io_apic.set(pin, Redirection::NONE, irq));
            lines.set_inputs(index, inputs);
        }
        if lines.count() == 0 {
            console::line(format_args!("no I/O APIC answers"));
            lines = Lines::of_pics();
        }
        if lines.are_of_pics() {
            pics().connect();
            apic.let_pics_in(irq);
        }
        Self { lines, lock: Lock::new(), destinations: core::array::from_fn(|_| AtomicU8::new(apic.id() as u8)) }
    }

    /// How many lines there are, at least one.
    pub fn count(&self) -> u32 {
        self.lines.count()
    }

    /// The number of I/O APICs; 0: two 8259A.
    pub fn io_apic_count(&self) -> usize {
        self.lines.io_apics().len()
    }

    /// Whether a device can be at `line`.
    pub fn is_available(&self, line: u32) -> bool {
        line < vector::LINES_MAX && self.lines.is_available(line)
    }

    /// Holds the interrupts of `line` back.
    pub fn mask(&self, held: &mut Held<{ rank::NONE }>, line: u32) {
        let _guard = self.lock.lock(held);
        match self.lines.input(line) {
            Some(input) => self.set_mask(input, self.redirection(line).masked()),
            None => pics().mask(line as u8),
        }
    }

    /// Lets the interrupts of `line` through.
    pub fn unmask(&self, held: &mut Held<{ rank::NONE }>, line: u32) {
        let _guard = self.lock.lock(held);
        match self.lines.input(line) {
            Some(Input { io_apic, pin }) => {
                self::io_apic(&self.lines, io_apic).set(pin, self.redirection(line), &irq())
            }
            None => pics().unmask(line as u8),
        }
    }

    /// Lets the interrupts of `line` go to the local APIC `apic_id` from the next time on at which it is unmasked. Those of
    /// an 8259A, and those for a number that an I/O APIC cannot name, stay where they are.
    pub fn route(&self, line: u32, apic_id: u32) {
        if let (Some(destination), Ok(apic_id)) = (self.destinations.get(line as usize), u8::try_from(apic_id)) {
            destination.store(apic_id, Ordering::Relaxed);
        }
    }

    /// Ends the interrupt that came as `vector`, in the controller. The line that is now to be reported, if it is real.
    pub fn take(&self, vector: usize) -> Option<u32> {
        let line = vector.checked_sub(usize::from(vector::LINES)).map(|line| line as u32);
        let line = line.filter(|&line| line < self.count());
        let mut nothing = Held::nothing();
        let _guard = self.lock.lock(&mut nothing);
        if self.lines.are_of_pics() {
            return line.filter(|&line| pics().take(line as u8));
        }
        if let Some((line, input)) = line.and_then(|line| Some((line, self.lines.input(line)?)))
            && self.lines.wiring(line).trigger == Trigger::Level
        {
            self.set_mask(input, self.redirection(line).masked());
        }
        machine::local_apic().end_of_interrupt(&irq());
        line
    }

    /// What becomes of an input of an I/O APIC, if there is that input: for the debugger, while nobody else uses them.
    pub fn redirection_of(&self, index: usize, pin: u32) -> Option<u64> {
        self.lines.io_apics().get(index)?;
        let mut io_apic = io_apic(&self.lines, index);
        (pin < io_apic.inputs()).then(|| io_apic.entry(pin))
    }

    /// What becomes of `line`, which is available, while it is open.
    fn redirection(&self, line: u32) -> Redirection {
        let destination = self.destinations[line as usize].load(Ordering::Relaxed);
        Redirection::new(vector::LINES + line as u8, destination, self.lines.wiring(line))
    }

    fn set_mask(&self, Input { io_apic, pin }: Input, redirection: Redirection) {
        self::io_apic(&self.lines, io_apic).set_mask(pin, redirection, &irq());
    }
}

/// One of the I/O APICs. The lock is held, or there is nobody else.
fn io_apic(lines: &Lines, index: usize) -> IoApic {
    let offset = (lines.io_apics()[index].address % PAGE_BYTES) as usize;
    let address = layout::IO_APIC_PAGES + index * PAGE_BYTES as usize + offset;
    let registers = NonNull::new(core::ptr::with_exposed_provenance_mut(address)).expect("the pages are not at 0");
    // SAFETY: the page is mapped, uncached; the lock keeps others away.
    unsafe { IoApic::new(registers) }
}

/// The two 8259A. The lock is held, or there is nobody else.
fn pics() -> Pics {
    // SAFETY: the lock keeps others away.
    unsafe { Pics::new() }
}

fn irq() -> IrqOff {
    // SAFETY: interrupts are off in the kernel, and no other token is in use here.
    unsafe { IrqOff::assume() }
}

const _: () = assert!(MAX_IO_APICS == layout::IO_APICS_MAX && vector::LINES == pic::VECTOR_BASE);
const _: () = assert!(pic::LINES as u32 <= vector::LINES_MAX);
