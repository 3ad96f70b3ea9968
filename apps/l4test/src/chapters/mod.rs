//! The tests, a module for each chapter of the specification.

use crate::registry::Test;

mod arch;
mod authority;
mod cancel;
mod debugger;
mod exceptions;
mod exchange_registers;
mod faults;
mod hostile;
mod interrupts;
mod ioports;
mod ipc;
mod ipc_errors;
mod ipc_words;
mod kernel_memory;
mod kip;
mod layout;
mod localities;
mod memory;
mod pagers;
mod probes;
mod processors;
mod quota;
mod redirection;
mod schedule;
mod schedule_words;
mod sigma0;
mod space;
mod space_control;
mod strings;
mod thread;
mod thread_control;
mod timeouts;
mod trace_buffer;
mod unmap_words;
mod wild;

/// All chapters, those first that others rely on.
pub const ALL: &[&[Test]] = &[
    kip::TESTS,
    layout::TESTS,
    thread::TESTS,
    thread_control::TESTS,
    exchange_registers::TESTS,
    space::TESTS,
    kernel_memory::TESTS,
    quota::TESTS,
    space_control::TESTS,
    ipc::TESTS,
    ipc_words::TESTS,
    ipc_errors::TESTS,
    redirection::TESTS,
    timeouts::TESTS,
    trace_buffer::TESTS,
    cancel::TESTS,
    faults::TESTS,
    strings::TESTS,
    pagers::TESTS,
    memory::TESTS,
    ioports::TESTS,
    unmap_words::TESTS,
    sigma0::TESTS,
    schedule::TESTS,
    schedule_words::TESTS,
    exceptions::TESTS,
    arch::TESTS,
    processors::TESTS,
    localities::TESTS,
    interrupts::TESTS,
    authority::TESTS,
    debugger::TESTS,
    hostile::TESTS,
    probes::TESTS,
    wild::TESTS,
];
