//! The tests, a module for each chapter of the specification.

use crate::registry::Test;

mod arch;
mod authority;
mod cancel;
mod debugger;
mod exceptions;
mod faults;
mod hostile;
mod ipc;
mod kernel_memory;
mod kip;
mod memory;
mod processors;
mod redirection;
mod schedule;
mod sigma0;
mod space;
mod strings;
mod thread;
mod thread_control;
mod timeouts;

/// All chapters, those first that others rely on.
pub const ALL: &[&[Test]] = &[
    kip::TESTS,
    thread::TESTS,
    thread_control::TESTS,
    space::TESTS,
    kernel_memory::TESTS,
    ipc::TESTS,
    redirection::TESTS,
    timeouts::TESTS,
    cancel::TESTS,
    faults::TESTS,
    strings::TESTS,
    memory::TESTS,
    sigma0::TESTS,
    schedule::TESTS,
    exceptions::TESTS,
    arch::TESTS,
    processors::TESTS,
    authority::TESTS,
    debugger::TESTS,
    hostile::TESTS,
];
