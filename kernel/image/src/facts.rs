//! What tools must know that see nothing but the kernel's memory: those that read what is left of a dead machine, and gdb.
//!
//! The words of `kernel_facts`, in this order. They are an interface: tools find them by the symbol, and compare the first two.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use kcore::kernel::ThreadNumbers;
use kcore::machine::PhysAddr;

use crate::config::MAX_CPUS;

/// The first word.
const MAGIC: u64 = u64::from_le_bytes(*b"Marcona\x01");
const WORDS: usize = 12;

#[unsafe(export_name = "kernel_facts")]
static FACTS: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];

/// What is known when the core begins.
pub struct Facts {
    /// The root of the kernel's own page tables.
    pub root: PhysAddr,
    /// Processors that run.
    pub cpus: usize,
    /// Borders of the thread numbers.
    pub numbers: ThreadNumbers,
    /// Slots of the tables of spaces and of mapping nodes.
    pub spaces: usize,
    /// See `spaces`.
    pub nodes: usize,
    /// Bits of physical addresses.
    pub physical_bits: u32,
    /// The frame of the kernel interface page.
    pub kip: PhysAddr,
    /// Whether there are I/O fpages.
    pub has_io_fpages: bool,
}

impl Facts {
    /// Writes them down.
    pub fn publish(&self) {
        let words = [
            MAGIC,
            kcore::load::layout(),
            self.root.0,
            self.cpus as u64,
            self.numbers.system_base.into(),
            self.numbers.user_base.into(),
            self.spaces as u64,
            self.nodes as u64,
            self.physical_bits.into(),
            self.kip.0,
            self.has_io_fpages.into(),
            MAX_CPUS as u64,
        ];
        FACTS.iter().zip(words).for_each(|(fact, word)| fact.store(word, Relaxed));
    }
}
