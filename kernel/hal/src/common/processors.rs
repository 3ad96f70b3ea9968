//! Which processors a machine has, and their numbers: plain data, from the firmware's table.

use arrayvec::ArrayVec;
use kformats::acpi::Error;
use kformats::acpi::madt::Entry;

/// Most processors that get a number: one byte numbers them all, with one value to spare.
pub const MAX_PROCESSORS: usize = 255;

/// Numbers of local APICs from here on can be addressed in x2APIC mode alone; 255 addresses all at once.
const FIRST_OF_X2APIC: u32 = 255;

/// The processors, by their numbers: the one that boots is 0, the others follow in the order of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processors {
    apic_ids: ArrayVec<u32, MAX_PROCESSORS>,
    left_off: u32,
}

impl Processors {
    /// A machine with the processor whose local APIC has this number, and no other.
    pub fn alone(boot_apic_id: u32) -> Self {
        Self { apic_ids: ArrayVec::from_iter([boot_apic_id]), left_off: 0 }
    }

    /// The boot processor and those that the firmware enabled, up to `max` in all; a processor that is listed twice
    /// counts once. Without `has_x2apic`, those that only x2APIC mode can address are left off.
    ///
    /// # Errors
    /// That of the first entry that cannot be read.
    pub fn of_entries(
        entries: impl Iterator<Item = Result<Entry, Error>>,
        boot_apic_id: u32,
        max: usize,
        has_x2apic: bool,
    ) -> Result<Self, Error> {
        let mut processors = Self::alone(boot_apic_id);
        for entry in entries {
            if let Entry::Processor { apic_id, is_enabled: true } = entry? {
                processors.add(apic_id, max.min(MAX_PROCESSORS), has_x2apic);
            }
        }
        Ok(processors)
    }

    fn add(&mut self, apic_id: u32, max: usize, has_x2apic: bool) {
        let is_addressable = has_x2apic || apic_id < FIRST_OF_X2APIC;
        if self.apic_ids.contains(&apic_id) {
        } else if self.apic_ids.len() < max && is_addressable {
            self.apic_ids.push(apic_id);
        } else {
            self.left_off += 1;
        }
    }

    /// The numbers of the local APICs.
    pub fn apic_ids(&self) -> &[u32] {
        &self.apic_ids
    }

    /// Enabled processors that got no number. One that is listed twice may count twice.
    pub fn left_off(&self) -> u32 {
        self.left_off
    }

    /// Whether one of them can be addressed in x2APIC mode alone.
    pub fn need_x2apic(&self) -> bool {
        self.apic_ids.iter().any(|&id| id >= FIRST_OF_X2APIC)
    }
}

#[cfg(test)]
mod tests {
    use kformats::acpi::madt::SIGNATURE;

    use super::*;

    fn processor(apic_id: u32) -> Entry {
        Entry::Processor { apic_id, is_enabled: true }
    }

    fn found(entries: &[Entry], max: usize, has_x2apic: bool) -> Processors {
        let entries = entries.iter().copied().map(Ok);
        Processors::of_entries(entries, 4, max, has_x2apic).expect("readable")
    }

    #[test]
    fn the_boot_processor_is_first_and_the_others_follow_in_their_order() {
        let off = Entry::Processor { apic_id: 6, is_enabled: false };
        let io_apic = Entry::IoApic { address: 0, first_line: 0 };
        let entries = [processor(0), off, processor(16), processor(4), io_apic, processor(5), processor(16)];
        let processors = found(&entries, 255, false);
        assert_eq!((processors.apic_ids(), processors.left_off()), (&[4, 0, 16, 5][..], 0));
    }

    #[test]
    fn processors_beyond_the_maximum_are_counted() {
        let entries: Vec<Entry> = (0..300).map(processor).collect();
        let processors = found(&entries, 3, true);
        assert_eq!((processors.apic_ids(), processors.left_off()), (&[4, 0, 1][..], 297));
        let processors = found(&entries, 1000, true);
        assert_eq!((processors.apic_ids().len(), processors.left_off()), (255, 45));
    }

    #[test]
    fn large_numbers_need_x2apic() {
        let entries = [processor(254), processor(255), processor(256)];
        let old = found(&entries, 255, false);
        assert_eq!((old.apic_ids(), old.left_off(), old.need_x2apic()), (&[4, 254][..], 2, false));
        let new = found(&entries, 255, true);
        assert_eq!((new.apic_ids(), new.left_off(), new.need_x2apic()), (&[4, 254, 255, 256][..], 0, true));
    }

    #[test]
    fn a_damaged_table_is_an_error() {
        let damaged = [Ok(processor(0)), Err(Error::BadSize(SIGNATURE))];
        let result = Processors::of_entries(damaged.into_iter(), 0, 255, false);
        assert_eq!(result, Err(Error::BadSize(SIGNATURE)));
    }
}
