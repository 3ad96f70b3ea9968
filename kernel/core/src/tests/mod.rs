//! The core as threads see it: what the specification says about threads, IPC and scheduling, played on a machine
//! without hardware. Builds that explore interleavings have the world and what that needs, and nothing else.
#![cfg_attr(feature = "explore", allow(dead_code, unused_imports))]

pub(crate) mod backing;
pub(crate) mod invariants;
pub(crate) mod machine;
mod script;
pub(crate) mod shared;
pub(crate) mod stage;
pub(crate) mod world;

#[cfg(not(feature = "explore"))]
mod aborted_strings;
#[cfg(not(feature = "explore"))]
mod bad_pagers;
#[cfg(not(feature = "explore"))]
mod boot;
#[cfg(not(feature = "explore"))]
mod boot_memory;
#[cfg(not(feature = "explore"))]
mod cancel;
#[cfg(not(feature = "explore"))]
mod debugger;
#[cfg(not(feature = "explore"))]
mod deletion;
#[cfg(not(feature = "explore"))]
mod equivalence;
#[cfg(not(feature = "explore"))]
mod everywhere;
#[cfg(not(feature = "explore"))]
mod exchange_registers;
mod fast_path;
#[cfg(not(feature = "explore"))]
mod faults;
mod fingerprint;
#[cfg(not(feature = "explore"))]
mod halt;
#[cfg(not(feature = "explore"))]
mod handed_back;
#[cfg(not(feature = "explore"))]
mod interrupts;
#[cfg(not(feature = "explore"))]
mod ipc_errors;
#[cfg(not(feature = "explore"))]
mod ipc_timeouts;
#[cfg(not(feature = "explore"))]
mod lives;
mod localities;
#[cfg(not(feature = "explore"))]
mod lockstep;
mod memory;
#[cfg(not(feature = "explore"))]
mod memory_control;
#[cfg(not(feature = "explore"))]
mod ports;
#[cfg(not(feature = "explore"))]
mod preemption;
#[cfg(not(feature = "explore"))]
mod processors;
#[cfg(not(feature = "explore"))]
mod propagation;
#[cfg(not(feature = "explore"))]
mod quantum;
#[cfg(not(feature = "explore"))]
mod quota;
pub(crate) mod random;
#[cfg(not(feature = "explore"))]
mod redirection;
#[cfg(not(feature = "explore"))]
mod rendezvous;
pub(crate) mod schedule;
#[cfg(not(feature = "explore"))]
mod scheduling;
#[cfg(not(feature = "explore"))]
mod short_way;
mod space_control;
#[cfg(not(feature = "explore"))]
mod start;
#[cfg(not(feature = "explore"))]
mod strings;
mod thread_control;
#[cfg(not(feature = "explore"))]
mod trace;
#[cfg(not(feature = "explore"))]
mod transfer;
