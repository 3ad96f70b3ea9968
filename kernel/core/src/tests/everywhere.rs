//! The tests of the other modules on several processors: nothing of what they show depends on where threads run. Left out
//! are those that look at single steps of the dispatcher.

use super::world::on_several_processors;
use super::{
    deletion, exchange_registers, faults, halt, interrupts, ipc_errors, ipc_timeouts, memory, propagation, redirection,
    space_control, start, strings, thread_control, transfer,
};

fn check(tests: &[(&str, fn())]) {
    for &(name, test) in tests {
        for shift in 0..3 {
            println!("{name}, {shift}");
            on_several_processors(shift, test);
        }
    }
}

#[test]
fn strings_on_several_processors() {
    check(strings::EVERYWHERE);
}

#[test]
fn deletion_on_several_processors() {
    check(deletion::EVERYWHERE);
}

#[test]
fn exchange_registers_on_several_processors() {
    check(exchange_registers::EVERYWHERE);
}

#[test]
fn faults_on_several_processors() {
    check(faults::EVERYWHERE);
}

#[test]
fn halt_on_several_processors() {
    check(halt::EVERYWHERE);
}

#[test]
fn ipc_errors_on_several_processors() {
    check(ipc_errors::EVERYWHERE);
}

#[test]
fn ipc_timeouts_on_several_processors() {
    check(ipc_timeouts::EVERYWHERE);
}

#[test]
fn propagation_on_several_processors() {
    check(propagation::EVERYWHERE);
}

#[test]
fn redirection_on_several_processors() {
    check(redirection::EVERYWHERE);
}

#[test]
fn space_control_on_several_processors() {
    check(space_control::EVERYWHERE);
}

#[test]
fn start_on_several_processors() {
    check(start::EVERYWHERE);
}

#[test]
fn thread_control_on_several_processors() {
    check(thread_control::EVERYWHERE);
}

#[test]
fn transfer_on_several_processors() {
    check(transfer::EVERYWHERE);
}

#[test]
fn interrupts_on_several_processors() {
    check(interrupts::EVERYWHERE);
}

#[test]
fn memory_on_several_processors() {
    check(memory::EVERYWHERE);
}
