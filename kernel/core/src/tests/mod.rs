//! The core as threads see it: what the specification says about threads, IPC and scheduling, played on a machine
//! without hardware.

pub(crate) mod backing;
mod invariants;
mod machine;
mod script;
pub(crate) mod shared;
pub(crate) mod stage;
mod world;

mod boot;
mod boot_memory;
mod cancel;
mod debugger;
mod deletion;
mod equivalence;
mod everywhere;
mod exchange_registers;
mod fast_path;
mod faults;
mod halt;
mod handed_back;
mod interrupts;
mod ipc_errors;
mod ipc_timeouts;
mod lives;
mod localities;
mod memory;
mod memory_control;
mod ports;
mod preemption;
mod processors;
mod propagation;
mod quantum;
mod random;
mod redirection;
mod rendezvous;
mod schedule;
mod scheduling;
mod short_way;
mod space_control;
mod start;
mod strings;
mod thread_control;
mod transfer;
