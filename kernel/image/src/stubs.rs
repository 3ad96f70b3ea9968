//! The system-call stubs: user code in a page of the kernel, at the same address in every space (amd64 ABI, KIP).
//!
//! The KIP holds their addresses; the kernel knows a call by the address behind its SYSCALL, and returns there. As the
//! processor itself provides that address, Ipc needs neither to keep nor to check it; who asks for the registers of a
//! thread in an IPC sees those behind the call ([`kcore::machine::Machine::ipc_return_ip`]). SystemClock never enters
//! the kernel.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use khal::timer::Scale;
use l4_abi::{SystemCalls, Word};

use crate::layout::STUB_PAGE;

/// Distance of two stubs.
const STUB_BYTES: u64 = 16;

/// The calls that enter the kernel, in the order of their stubs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
#[allow(missing_docs, reason = "the manual's names")]
pub enum Call {
    Ipc,
    ExchangeRegisters,
    ThreadControl,
    ThreadSwitch,
    Schedule,
    Unmap,
    SpaceControl,
    ProcessorControl,
    MemoryControl,
}

const CALLS: [Call; 9] = [
    Call::Ipc,
    Call::ExchangeRegisters,
    Call::ThreadControl,
    Call::ThreadSwitch,
    Call::Schedule,
    Call::Unmap,
    Call::SpaceControl,
    Call::ProcessorControl,
    Call::MemoryControl,
];

/// Where SystemClock's stub is, behind the others.
const SYSTEM_CLOCK_OFFSET: u64 = STUB_BYTES * CALLS.len() as u64;
/// Address behind the SYSCALL of Ipc's stub, where a thread goes on after an IPC.
pub const IPC_RETURN: u64 = STUB_PAGE as u64 + 2;

global_asm!(
    ".pushsection .stubs, \"ax\"",
    ".balign 4096",
    ".rept {plain_calls}",
    ".balign {size}, 0xCC",
    "syscall",
    "ret",
    ".endr",
    // MemoryControl passes attributes in rcx and r11, which SYSCALL destroys.
    ".balign {size}, 0xCC",
    "mov rbp, rcx",
    "mov rdi, r11",
    "syscall",
    "ret",
    // SystemClock: the 64-bit time stamp times a fraction of 2^64.
    ".balign {size}, 0xCC",
    "rdtsc",
    "shl rdx, 32",
    "or rax, rdx",
    "mul qword ptr [rip + system_clock_scale]",
    "mov rax, rdx",
    "ret",
    ".balign 8",
    ".global system_clock_scale",
    "system_clock_scale: .quad 0",
    ".balign 4096, 0xCC",
    ".popsection",
    plain_calls = const CALLS.len() - 1,
    size = const STUB_BYTES,
);

/// Tells SystemClock's stub how long a tick of the time-stamp counter is: a fraction of a microsecond.
pub fn set_clock_scale(tsc_to_us: Scale) {
    unsafe extern "C" {
        static system_clock_scale: AtomicU64;
    }
    // SAFETY: the word is part of the image, where the page of the stubs can be written.
    unsafe { &system_clock_scale }.store(tsc_to_us.fraction(), Relaxed);
}

/// The call whose stub has a SYSCALL that ends at `address`.
pub fn call_at(address: u64) -> Option<Call> {
    let offset = address.wrapping_sub(STUB_PAGE as u64);
    CALLS.get((offset / STUB_BYTES) as usize).copied().filter(|_| offset < SYSTEM_CLOCK_OFFSET)
}

/// What the KIP says.
pub fn system_calls() -> SystemCalls {
    let at = |call: Call| (STUB_PAGE as u64 + call as u64 * STUB_BYTES) as Word;
    SystemCalls {
        ipc: at(Call::Ipc),
        lipc: at(Call::Ipc),
        exchange_registers: at(Call::ExchangeRegisters),
        thread_control: at(Call::ThreadControl),
        system_clock: STUB_PAGE as Word + SYSTEM_CLOCK_OFFSET,
        thread_switch: at(Call::ThreadSwitch),
        schedule: at(Call::Schedule),
        unmap: at(Call::Unmap),
        space_control: at(Call::SpaceControl),
        processor_control: at(Call::ProcessorControl),
        memory_control: at(Call::MemoryControl),
    }
}
