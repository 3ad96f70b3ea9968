//! Which interrupt lines a machine has, and how they are wired: plain data, from the firmware's tables.
//!
//! With I/O APICs a line is a *global system interrupt*; without, one of the 16 inputs of the two 8259A.

use kformats::acpi::Error;
use kformats::acpi::madt::Entry;
pub use kformats::acpi::madt::{Polarity, Trigger};

use crate::pic;

/// Most lines there can be.
pub const MAX_LINES: usize = 256;
/// Most I/O APICs that are driven.
pub const MAX_IO_APICS: usize = 16;

/// Lines of the ISA bus.
const ISA_LINES: u32 = 16;
/// The ISA interrupt of ACPI itself, which is no device's.
const ISA_ACPI: u8 = 9;

/// How a line says that there is an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wiring {
    /// By what.
    pub trigger: Trigger,
    /// At which level.
    pub polarity: Polarity,
}

impl Wiring {
    /// As the ISA bus has it.
    pub const ISA: Self = Self { trigger: Trigger::Edge, polarity: Polarity::High };
    /// As the PCI bus has it.
    pub const PCI: Self = Self { trigger: Trigger::Level, polarity: Polarity::Low };
}

/// An I/O APIC and the lines it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoApicLines {
    /// Physical address of its registers.
    pub address: u64,
    /// The line of its first input.
    pub first: u32,
    /// How many inputs it has; 0 until [`Lines::set_inputs`].
    pub count: u32,
}

/// An input of an I/O APIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Input {
    /// The I/O APIC, as an index of [`Lines::io_apics`].
    pub io_apic: usize,
    /// The input, counted from 0.
    pub pin: u32,
}

/// The lines of a machine.
#[derive(Clone, Debug)]
pub struct Lines {
    io_apics: [IoApicLines; MAX_IO_APICS],
    io_apic_count: usize,
    wiring: [Wiring; MAX_LINES],
    is_reserved: [bool; MAX_LINES],
}

impl Lines {
    /// The lines of two 8259A. The second controller is at line 2; line 8 is the real-time clock, which is kept back.
    pub fn of_pics() -> Self {
        let mut lines = Self::none();
        lines.is_reserved[usize::from(pic::CASCADE)] = true;
        lines.is_reserved[usize::from(pic::REAL_TIME_CLOCK)] = true;
        lines
    }

    /// The lines of the I/O APICs in the firmware's table. I/O APICs beyond [`MAX_IO_APICS`] and lines beyond
    /// [`MAX_LINES`] are left out, as are I/O APICs for whose address `can_be_device` says no: it would be written to as
    /// if it had registers. `None` if the table has no other I/O APIC.
    ///
    /// # Errors
    /// That of the first entry that cannot be read.
    pub fn of_entries(
        entries: impl Iterator<Item = Result<Entry, Error>>,
        can_be_device: impl Fn(u64) -> bool,
    ) -> Result<Option<Self>, Error> {
        let mut lines = Self::none();
        let mut acpi_line = u32::from(ISA_ACPI);
        for entry in entries {
            match entry? {
                Entry::IoApic { address, .. } if !can_be_device(address.into()) => {}
                Entry::IoApic { address, first_line } => lines.add_io_apic(address, first_line),
                Entry::Override { source, line, trigger, polarity } => {
                    if source == ISA_ACPI {
                        acpi_line = line;
                    }
                    let wiring = Wiring {
                        trigger: trigger.unwrap_or(Wiring::ISA.trigger),
                        polarity: polarity.unwrap_or(Wiring::ISA.polarity),
                    };
                    set(&mut lines.wiring, line, wiring);
                }
                Entry::NonMaskable { line } => set(&mut lines.is_reserved, line, true),
                Entry::Processor { .. } => {}
            }
        }
        for line in [u32::from(ISA_ACPI), acpi_line] {
            set(&mut lines.is_reserved, line, true);
        }
        Ok((lines.io_apic_count > 0).then_some(lines))
    }

    fn none() -> Self {
        let wiring = |line| if line < ISA_LINES as usize { Wiring::ISA } else { Wiring::PCI };
        Self {
            io_apics: [IoApicLines { address: 0, first: 0, count: 0 }; MAX_IO_APICS],
            io_apic_count: 0,
            wiring: core::array::from_fn(wiring),
            is_reserved: [false; MAX_LINES],
        }
    }

    fn add_io_apic(&mut self, address: u32, first: u32) {
        if let Some(slot) = self.io_apics.get_mut(self.io_apic_count) {
            *slot = IoApicLines { address: address.into(), first, count: 0 };
            self.io_apic_count += 1;
        }
    }

    /// The I/O APICs; none: there are two 8259A.
    pub fn io_apics(&self) -> &[IoApicLines] {
        &self.io_apics[..self.io_apic_count]
    }

    /// Whether the lines are those of two 8259A.
    pub fn are_of_pics(&self) -> bool {
        self.io_apic_count == 0
    }

    /// Notes how many inputs an I/O APIC, an index of [`Lines::io_apics`], has.
    pub fn set_inputs(&mut self, io_apic: usize, count: u32) {
        self.io_apics[io_apic].count = count;
    }

    /// One more than the highest line, at most [`MAX_LINES`].
    pub fn count(&self) -> u32 {
        if self.are_of_pics() {
            return ISA_LINES;
        }
        let ends =
            self.io_apics().iter().filter(|apic| apic.count > 0).map(|apic| apic.first.saturating_add(apic.count));
        ends.max().unwrap_or(0).min(MAX_LINES as u32)
    }

    /// Whether a device can be at `line`.
    pub fn is_available(&self, line: u32) -> bool {
        let exists = if self.are_of_pics() { line < ISA_LINES } else { self.input(line).is_some() };
        exists && !self.is_reserved[line as usize]
    }

    /// How `line`, below [`Lines::count`], is wired.
    pub fn wiring(&self, line: u32) -> Wiring {
        self.wiring[line as usize]
    }

    /// The input of an I/O APIC that `line` is.
    pub fn input(&self, line: u32) -> Option<Input> {
        let has = |apic: &IoApicLines| line.checked_sub(apic.first).filter(|&pin| pin < apic.count);
        let found = self.io_apics().iter().enumerate().find_map(|(i, apic)| Some((i, has(apic)?)));
        found.filter(|_| (line as usize) < MAX_LINES).map(|(io_apic, pin)| Input { io_apic, pin })
    }
}

/// Sets the entry of `line`, if there is one.
fn set<T>(table: &mut [T; MAX_LINES], line: u32, value: T) {
    if let Some(entry) = table.get_mut(line as usize) {
        *entry = value;
    }
}

#[cfg(test)]
mod tests {
    use dice::Dice;
    use kformats::acpi::madt::SIGNATURE;

    use super::*;

    /// Whatever entries say, there are lines, and each of them can be asked about.
    #[test]
    fn any_entries_make_lines() {
        const SEED: u64 = 0x11CE_5EED;
        const INPUTS: u64 = 200_000;
        for input in 0..INPUTS {
            let mut dice = Dice::new(SEED, input);
            let mut draw = |limit: u64| dice.below(limit);
            let mut number = || match draw(4) {
                0 => u32::MAX - draw(3) as u32,
                1 => draw(1 << 32) as u32,
                _ => draw(300) as u32,
            };
            let entries: Vec<Entry> = (0..6)
                .map(|kind| match kind {
                    0..3 => Entry::IoApic { address: number(), first_line: number() },
                    3 => Entry::NonMaskable { line: number() },
                    _ => Entry::Override { source: number() as u8, line: number(), trigger: None, polarity: None },
                })
                .collect();
            let lines = Lines::of_entries(entries.iter().copied().map(Ok), |_| true).expect("entries without errors");
            let mut lines = lines.expect("there are I/O APICs");
            for io_apic in 0..lines.io_apics().len() {
                lines.set_inputs(io_apic, number() % 257);
            }
            let count = lines.count();
            assert!(count as usize <= MAX_LINES, "input {input} of seed {SEED:#x}");
            for line in [0, 9, count / 2, count.saturating_sub(1)].into_iter().filter(|line| *line < count) {
                let _ = (lines.is_available(line), lines.wiring(line), lines.input(line));
            }
        }
    }

    const LOW_LEVEL: Wiring = Wiring::PCI;

    fn io_apic(first_line: u32) -> Entry {
        Entry::IoApic { address: 0xFEC0_0000, first_line }
    }

    fn isa(source: u8, line: u32) -> Entry {
        Entry::Override { source, line, trigger: None, polarity: None }
    }

    /// The lines of a machine whose I/O APICs have so many inputs.
    fn lines(entries: &[Entry], inputs: &[u32]) -> Lines {
        let found = Lines::of_entries(entries.iter().copied().map(Ok), |_| true).expect("readable");
        let mut lines = found.expect("an I/O APIC");
        for (index, &count) in inputs.iter().enumerate() {
            lines.set_inputs(index, count);
        }
        lines
    }

    fn unavailable(lines: &Lines) -> Vec<u32> {
        (0..lines.count()).filter(|&line| !lines.is_available(line)).collect()
    }

    #[test]
    fn without_io_apics_there_are_the_isa_lines() {
        let lines = Lines::of_pics();
        assert_eq!((lines.count(), unavailable(&lines)), (16, vec![2, 8]));
        assert!(!lines.is_available(16) && !lines.is_available(u32::MAX));
        let none = Lines::of_entries([Ok(isa(0, 2))].into_iter(), |_| true).map(|lines| lines.is_none());
        assert_eq!(none, Ok(true));
    }

    #[test]
    fn lines_count_through_the_inputs_of_all_io_apics() {
        let lines = lines(&[io_apic(0), io_apic(32), io_apic(24)], &[24, 16, 8]);
        assert_eq!((lines.count(), unavailable(&lines)), (48, vec![9]));
        let check = |line, input: Option<(usize, u32)>| {
            assert_eq!(lines.input(line), input.map(|(io_apic, pin)| Input { io_apic, pin }), "line {line}");
        };
        check(0, Some((0, 0)));
        check(23, Some((0, 23)));
        check(24, Some((2, 0)));
        check(32, Some((1, 0)));
        check(47, Some((1, 15)));
        check(48, None);
    }

    /// What a table calls an I/O APIC and is memory is never driven; the others keep their lines.
    #[test]
    fn io_apics_over_memory_are_left_out() {
        const MEMORY: u32 = 0x10_0000;
        let over_memory = Entry::IoApic { address: MEMORY, first_line: 24 };
        let found = |entries: &[Entry]| {
            Lines::of_entries(entries.iter().copied().map(Ok), |address| address != MEMORY.into()).expect("readable")
        };
        let mut lines = found(&[io_apic(0), over_memory, io_apic(32)]).expect("two I/O APICs");
        assert!(lines.io_apics().iter().all(|apic| apic.address != MEMORY.into()));
        (0..lines.io_apics().len()).for_each(|index| lines.set_inputs(index, 8));
        assert_eq!((lines.count(), lines.input(24), lines.input(32)), (40, None, Some(Input { io_apic: 1, pin: 0 })));
        assert!(found(&[over_memory]).is_none(), "then there are two 8259A");
    }

    #[test]
    fn lines_that_no_device_can_use_are_unavailable() {
        let entries = [io_apic(0), io_apic(30), isa(9, 20), Entry::NonMaskable { line: 23 }, isa(0, 2)];
        assert_eq!(unavailable(&lines(&entries, &[24, 2])), [9, 20, 23, 24, 25, 26, 27, 28, 29]);
    }

    #[test]
    fn overrides_change_how_a_line_is_wired() {
        let (trigger, polarity) = (Some(Trigger::Level), Some(Polarity::Low));
        let entries = [io_apic(0), isa(0, 2), isa(7, 17), Entry::Override { source: 5, line: 5, trigger, polarity }];
        let lines = lines(&entries, &[24]);
        let wirings = [2, 4, 5, 15, 16, 17, 23].map(|line| lines.wiring(line));
        assert_eq!(wirings, [Wiring::ISA, Wiring::ISA, LOW_LEVEL, Wiring::ISA, Wiring::PCI, Wiring::ISA, Wiring::PCI]);
    }

    #[test]
    fn hostile_tables_change_nothing_beyond_their_lines() {
        let many: Vec<Entry> = (0..MAX_IO_APICS as u32 + 4).map(|i| io_apic(8 * i)).collect();
        let many_lines = lines(&many, &[8; MAX_IO_APICS]);
        assert_eq!((many_lines.io_apics().len(), many_lines.count()), (MAX_IO_APICS, 128));
        let high = lines(&[io_apic(0), io_apic(u32::MAX), isa(9, u32::MAX), isa(1, 256)], &[24, 240]);
        assert_eq!((high.count(), high.input(256), high.input(u32::MAX)), (256, None, None));
        assert_eq!(lines(&[io_apic(0)], &[0]).count(), 0);
        let damaged = [Ok(io_apic(0)), Err(Error::BadSize(SIGNATURE))];
        assert_eq!(Lines::of_entries(damaged.into_iter(), |_| true).err(), Some(Error::BadSize(SIGNATURE)));
    }
}
