//! Tables in which any field says anything: reading them ends, with values or with errors. Seeded, so that a failure comes
//! again: its seed is printed.

use dice::Dice;

use super::super::fadt::Fadt;
use super::super::hpet::Hpet;
use super::super::mcfg::Mcfg;
use super::super::slit::Slit;
use super::super::srat::Srat;
use super::*;

const SEED: u64 = 0x4D41_5243_4F4E_4131;
/// Inputs for each kind of table.
const INPUTS: u64 = 1_000_000;
/// Inputs for searches through the BIOS, which are long.
const SEARCHES: u64 = 2_000;

/// Chooses what is damaged.
struct Damage(Dice);

impl Damage {
    /// That of an input.
    fn of(input: u64) -> Self {
        Self(Dice::new(SEED, input))
    }

    fn next(&mut self) -> u64 {
        self.0.next()
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0.within(0..limit)
    }

    /// A number that somebody may not have thought of.
    fn odd(&mut self) -> u64 {
        match self.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << self.below(64),
            3 => (1u64 << self.below(64)).wrapping_sub(1),
            4 => self.below(64) as u64,
            _ => self.next(),
        }
    }

    /// Changes some fields of `bytes`, of one, two, four or eight bytes.
    fn damage(&mut self, bytes: &mut [u8]) {
        for _ in 0..=self.below(4) {
            let size = 1 << self.below(4);
            let at = self.below(bytes.len());
            let end = (at + size).min(bytes.len());
            bytes[at..end].copy_from_slice(&self.odd().to_le_bytes()[..end - at]);
        }
    }
}

/// Says which input it was that a panic came of.
struct Input(u64);

impl Drop for Input {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("input {} of seed {SEED:#x}", self.0);
        }
    }
}

/// Memory of a few tables.
struct Memory {
    base: u64,
    bytes: Vec<u8>,
}

impl Physical for Memory {
    fn bytes(&self, start: u64, len: u64) -> Option<&[u8]> {
        let at = usize::try_from(start.checked_sub(self.base)?).ok()?;
        self.bytes.get(at..)?.get(..usize::try_from(len).ok()?)
    }
}

const BASE: u64 = 0x7FE0_0000;
const LIST_AT: u64 = BASE + 0x40;
const TABLE_AT: u64 = BASE + 0x80;

/// A list with one table, both damaged somewhere; most of the time their checksums are right all the same.
fn damaged(dice: &mut Damage, signature: &[u8; 4], body: &[u8]) -> (Root, Memory) {
    let is_wide = dice.below(2) == 0;
    let entry = if is_wide { TABLE_AT.to_le_bytes().to_vec() } else { (TABLE_AT as u32).to_le_bytes().to_vec() };
    let mut list = table(if is_wide { b"XSDT" } else { b"RSDT" }, &entry);
    let mut whole = table(signature, body);
    whole[8] = dice.below(4) as u8;
    if dice.below(8) == 0 {
        dice.damage(&mut list);
    }
    dice.damage(&mut whole[4..]);
    for bytes in [&mut list, &mut whole] {
        let len = u32_at(bytes, 4).unwrap_or(0) as usize;
        if dice.below(16) > 0 && len > 9 {
            let end = len.min(bytes.len());
            sum_up(&mut bytes[..end], 9);
        }
    }
    let mut bytes = vec![0; 0x80];
    bytes[0x40..0x40 + list.len()].copy_from_slice(&list);
    bytes.extend(whole);
    bytes.extend([0; 64]);
    let signature = if is_wide { Signature::XSDT } else { Signature::RSDT };
    (Root { address: LIST_AT, signature }, Memory { base: BASE, bytes })
}

/// Reads tables like the one with this body, and says in how many something was found.
fn read_many(signature: &[u8; 4], body: &[u8], read: impl Fn(&Root, &Memory) -> bool) {
    let mut found = 0;
    for input in 0..INPUTS {
        let _input = Input(input);
        let (root, memory) = damaged(&mut Damage::of(input), signature, body);
        found += u64::from(read(&root, &memory));
    }
    // Else nothing behind the checksums would have been tried.
    assert!(found > INPUTS / 4, "{found} of {INPUTS} were read");
}

#[test]
fn any_root_pointer_is_read_or_refused() {
    let mut found = 0;
    for input in 0..INPUTS {
        let _input = Input(input);
        let mut dice = Damage::of(input);
        let mut bytes = pointer(dice.below(4) as u8, LIST as u32, 0x9_0000);
        dice.damage(&mut bytes);
        let len = bytes.len();
        if dice.below(8) > 0 {
            sum_up(&mut bytes[..20], 8);
            if len > 32 {
                sum_up(&mut bytes, 32);
            }
        }
        bytes.truncate(if dice.below(4) == 0 { dice.below(len + 1) } else { len });
        found += u64::from(Root::of_pointer(&bytes).is_some());
    }
    assert!(found > INPUTS / 4, "{found} of {INPUTS} are root pointers");
}

#[test]
fn any_bios_area_is_searched_to_its_end() {
    let mut memory = machine();
    for input in 0..SEARCHES {
        let _input = Input(input);
        let mut dice = Damage::of(input);
        let at = [0x40E, POINTER, 0xF_FFF0, 0xE_0000][dice.below(4)];
        let end = (at + 36).min(memory.0.len());
        dice.damage(&mut memory.0[at..end]);
        let _ =
            Root::find(&memory, None).and_then(|root| Madt::find(&root, &memory).map(|madt| madt.entries().count()));
    }
}

#[test]
fn any_table_of_interrupt_controllers_is_read_or_refused() {
    let entries = [&LOCAL[..], &IO_APIC, &TIMER, &SCI, &[4, 6, 0, 0, 0, 1], &[3, 8, 0, 0, 23, 0, 0, 0]].concat();
    let x2apic = [9, 16, 0, 0, 1, 2, 0, 0, 3, 0, 0, 0, 9, 0, 0, 0];
    let body = [&[0, 0, 0xE0, 0xFE, 1, 0, 0, 0], &entries[..], &x2apic].concat();
    read_many(b"APIC", &body, |root, memory| Madt::find(root, memory).is_ok_and(|madt| madt.entries().count() > 0));
}

#[test]
fn any_table_of_affinities_is_read_or_refused() {
    let processor = [0, 16, 1, 77, 1, 0, 0, 0, 9, 2, 3, 4, 0, 0, 0, 0];
    let mut of_memory = [0; 40];
    of_memory[..2].copy_from_slice(&[1, 40]);
    of_memory[28] = 1;
    let x2apic = [2, 24, 0, 0, 1, 2, 3, 4, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let body = [&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &processor[..], &of_memory, &x2apic].concat();
    read_many(b"SRAT", &body, |root, memory| Srat::find(root, memory).is_ok_and(|srat| srat.entries().count() > 0));
}

#[test]
fn any_table_of_distances_is_read_or_refused() {
    let body = [&2u64.to_le_bytes()[..], &[10, 20, 20, 10]].concat();
    read_many(b"SLIT", &body, |root, memory| {
        let slit = Slit::find(root, memory);
        let ask = |slit: &Slit<'_>| [0, 1, 2, u32::MAX].map(|domain| slit.distance(domain, 1));
        slit.as_ref().map(ask).is_ok_and(|answers| answers.iter().any(Option::is_some))
    });
}

#[test]
fn any_table_of_a_timer_is_read_or_refused() {
    let body = [&[1, 0xA2, 0x86, 0x80, 0, 64, 0, 0][..], &0xFED0_0000u64.to_le_bytes(), &[0, 0x80, 0, 0]].concat();
    read_many(b"HPET", &body, |root, memory| {
        let hpet = Hpet::find(root, memory);
        hpet.is_ok_and(|hpet| hpet.address.checked_add(1024).is_some_and(|end| hpet.address >> 12 == (end - 1) >> 12))
    });
}

#[test]
fn any_table_of_configuration_is_read_or_refused() {
    let entry = |base: u64, buses: [u8; 2]| [&base.to_le_bytes()[..], &[0, 0], &buses, &[0; 4]].concat();
    let body = [&[0; 8][..], &entry(0xB000_0000, [0, 255]), &entry(1 << 40, [3, 7])].concat();
    read_many(b"MCFG", &body, |root, memory| {
        let Ok(mcfg) = Mcfg::find(root, memory) else { return false };
        let sound = mcfg.windows().filter_map(Result::ok);
        sound.inspect(|window| assert!(window.start.checked_add(window.bytes).is_some())).count() > 0
    });
}

#[test]
fn any_table_of_power_is_read_or_refused() {
    let mut body = vec![0; 240];
    for (at, value) in [(40, 0xBFFE_0000u32), (48, 0xB2), (52, 0xF1), (64, 0x604), (76, 0x608), (112, 1 << 10)] {
        body[at - HEADER_BYTES..][..4].copy_from_slice(&value.to_le_bytes());
    }
    read_many(b"FACP", &body, |root, memory| {
        let fadt = Fadt::find(root, memory);
        // Most of the time the byte code is nowhere.
        fadt.inspect(|fadt| _ = fadt.off(memory)).is_ok()
    });
}
