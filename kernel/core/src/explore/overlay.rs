//! Values of words during one execution.

/// Values by address, with a base where none was written.
pub struct Overlay {
    slots: Vec<Slot>,
    used: usize,
    /// Slots with another stamp are free.
    stamp: u32,
}

#[derive(Clone, Copy)]
struct Slot {
    address: usize,
    stamp: u32,
    value: u64,
}

const FREE: Slot = Slot { address: 0, stamp: 0, value: 0 };
const FIRST_SIZE: usize = 1 << 12;

impl Overlay {
    /// No value.
    pub fn new() -> Self {
        Self { slots: vec![FREE; FIRST_SIZE], used: 0, stamp: 1 }
    }

    /// Forgets all values.
    pub fn clear(&mut self) {
        (self.stamp, self.used) = (self.stamp + 1, 0);
    }

    /// The value at `address`, which is `base` at first.
    pub fn value(&mut self, address: usize, base: u64) -> &mut u64 {
        if self.used * 2 > self.slots.len() {
            self.grow();
        }
        let at = self.find(address);
        if self.slots[at].stamp != self.stamp {
            self.slots[at] = Slot { address, stamp: self.stamp, value: base };
            self.used += 1;
        }
        &mut self.slots[at].value
    }

    fn find(&self, address: usize) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = (address.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) & mask;
        while self.slots[at].stamp == self.stamp && self.slots[at].address != address {
            at = (at + 1) & mask;
        }
        at
    }

    fn grow(&mut self) {
        let larger = vec![FREE; self.slots.len() * 2];
        let old = std::mem::replace(&mut self.slots, larger);
        for slot in old.into_iter().filter(|slot| slot.stamp == self.stamp) {
            let at = self.find(slot.address);
            self.slots[at] = slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Overlay;

    #[test]
    fn values_stay_until_all_are_forgotten() {
        let mut overlay = Overlay::new();
        for round in 0..3 {
            for word in 0..10_000 {
                assert_eq!(*overlay.value(word * 8, 7), 7, "round {round}");
                *overlay.value(word * 8, 0) = word as u64;
            }
            assert!((0..10_000).all(|word| *overlay.value(word * 8, 0) == word as u64));
            overlay.clear();
        }
    }
}
