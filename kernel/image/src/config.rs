//! What was chosen when the kernel was built: constants, so that every branch compiles.
//!
//! They come from one file with a value for each option of config/Kconfig, by the build script; what is derived from them
//! stands here, and nothing else in the kernel knows where they come from.

use kcore::options::{Clock, Mitigations, Options};
use kformats::console::{Outputs, SerialLine, USUAL_PORTS};

mod chosen {
    include!(concat!(env!("OUT_DIR"), "/config.rs"));
}

pub use chosen::{
    DEBUG, DEBUG_SYMBOLS, IOAPIC, IPC_FASTPATH, KDB_BREAKIN, KDB_BREAKIN_BREAK, KDB_BREAKIN_ESCAPE, KDB_CONS_COM,
    KDB_CONS_KBD, KDB_DISAS, KDB_ON_STARTUP, PERFMON, SMP, SPIN_WHEELS, TRACEBUFFER, TRACEPOINTS, VERBOSE_INIT,
};

/// All of it in words, for those who ask the running kernel: what is on, and values.
pub const WORDS: &str = chosen::WORDS;

/// The most processors the kernel runs on.
pub const MAX_CPUS: usize = chosen::SMP_MAX_PROCS;

/// Whether a processor looks out for others before it sleeps.
pub const LOOKS_OUT: bool = SMP && chosen::SMP_IDLE_POLL;

/// Thread numbers that the kernel keeps between interrupts, which come first, and users.
pub const KERNEL_THREADS: u32 = 32;

/// The serial line of the console.
const SERIAL: SerialLine = SerialLine {
    port: match chosen::KDB_COMPORT {
        usual @ 0..=3 => USUAL_PORTS[usual],
        port => port as u16,
    },
    divisor: match kformats::console::divisor(chosen::KDB_COMSPEED as u32) {
        Some(divisor) => divisor,
        None => panic!("the speed of the console is no part of the base rate"),
    },
};

/// What holds unless the kernel's command line says otherwise.
pub const BOOT_OPTIONS: Options = Options {
    io_fpages: chosen::X86_IO_FLEXPAGES,
    mitigations: match chosen::MITIGATIONS.as_bytes() {
        b"off" => Mitigations::Off,
        b"full" => Mitigations::Full,
        _ => Mitigations::Auto,
    },
    outputs: Outputs { serial: KDB_CONS_COM, screen: true },
    serial: SERIAL,
    clock: Clock::Auto,
    trace: 0,
    trace_pages: 0,
};

const _: () = {
    assert!(MAX_CPUS >= 1 && MAX_CPUS <= khal::processors::MAX_PROCESSORS);
    assert!(SMP || MAX_CPUS == 1, "without other processors there are no tables for them");
    assert!(IOAPIC || !SMP, "interrupts of the 8259A go to one processor");
    assert!(chosen::NEW_MDB && chosen::STATIC_TCBS, "there is no other mapping database, and no other array of TCBs");
    // Its assertions the build tool switches in the compiler; the words say so.
    let _ = chosen::KDB_NO_ASSERTS;
};
