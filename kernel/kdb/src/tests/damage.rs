//! The debugger on tables that are damaged: each command ends, and says what it found.

use kcore::machine::PhysAddr;
use kcore::machine::PhysMem;

use super::{A, World, ring, type_keys};
use crate::session::State;

/// Every command that looks at tables.
const ALL: &str = "lwkBqQSt\rT\r dkffffffff80000000\r\rmMmp0\rms2\r70000000\rs0\rs2\rI\x1b#k\x1bp2\r\r/a\rp0\r\r";

fn look_at_all(k: World) -> String {
    let mut state = State::new();
    state.page = 0;
    type_keys(k, ALL.as_bytes(), &mut state).0
}

#[test]
fn sound_tables_are_shown() {
    let text = look_at_all(ring());
    assert!(!text.contains("BROKEN"), "{text}");
}

/// Words of a TCB that can be written from outside the core, set to nonsense.
#[test]
fn nonsense_in_a_thread_is_told() {
    let k = ring();
    let tcb = k.tcb(A.tcb());
    tcb.affinity.set(u16::MAX);
    let text = look_at_all(k);
    assert!(text.contains("BROKEN: thread number 0x28: it is at a processor that there is"), "{text}");
}

/// Each word of the page tables and shadows in turn: whatever it is, all commands end, and nothing outside of kernel memory
/// is read as if it were a table.
#[test]
fn nonsense_in_tables_does_no_harm() {
    let words: Vec<u64> = {
        let k = ring();
        (super::machine::KMEM.0..super::machine::KMEM.1)
            .step_by(8)
            .filter(|&at| k.machine.read(PhysAddr(at)) != 0)
            .collect()
    };
    // A world each time would take long: what was damaged is put back.
    let k = ring();
    for &at in &words {
        let at = PhysAddr(at);
        let sound = k.machine.read(at);
        for nonsense in [0, 0x67, usize::MAX, sound ^ 0x8000_0000_0000, 0x10_0067, sound.wrapping_add(0x1000)] {
            k.machine.write(at, nonsense);
            look_at_all(k);
        }
        k.machine.write(at, sound);
    }
    assert!(words.len() > 50, "{} words", words.len());
}
