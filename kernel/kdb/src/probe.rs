//! What the debugger asks of the machine besides the core's tables.

use core::fmt;

use kcore::machine::{CpuId, TcbRef};

use crate::names::{Name, Named};
use kformats::symbols::Symbols;

/// The general registers of a thread or of an interrupted kernel, by the processor's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs, reason = "the processor's names")]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
}

/// Where a processor was when it came to stand still.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Entry {
    /// The exception or interrupt that brought it here.
    pub vector: u8,
    /// Its error code.
    pub error: u64,
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Flags.
    pub flags: u64,
    /// Whether it was in user mode.
    pub is_user: bool,
    /// The general registers, as far as they were saved: not when it was stopped for another processor's sake in the
    /// kernel.
    pub registers: Option<Registers>,
    /// The thread in user mode, or for which the kernel worked.
    pub thread: Option<TcbRef>,
}

/// Control registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs, reason = "the processor's names")]
pub struct Control {
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
}

/// A gate of the interrupt descriptor table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gate {
    /// Where it leads.
    pub offset: u64,
    /// The code segment.
    pub selector: u16,
    /// The stack of its own, 0 for none.
    pub stack: u8,
    /// Type and privilege: bits 40 to 47 of the descriptor.
    pub attributes: u8,
}

/// Bytes of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// One.
    Byte,
    /// Two.
    Word,
    /// Four.
    Double,
}

/// What a hardware breakpoint waits for (Intel SDM 3B, Debug Registers).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BreakpointKind {
    /// The instruction there is about to be executed.
    Instruction,
    /// Something there is written.
    Write,
    /// The port is used.
    Port,
    /// Something there is read or written.
    Access,
}

/// A hardware breakpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Breakpoint {
    /// The address, or port.
    pub address: u64,
    /// Bytes from there on, log2; 0 for instructions.
    pub len_log2: u8,
    /// What it waits for.
    pub kind: BreakpointKind,
}

/// How many hardware breakpoints there are.
pub const BREAKPOINTS: usize = 4;

/// The machine. What is not to be had, on a dead machine most of it, is `None`, `false` or nothing, as without a method.
pub trait Probe {
    /// The processor that the debugger runs on or looks at.
    fn cpu(&self) -> CpuId;

    /// Lets the commands about a processor be about another one; `false`: that one does not answer.
    fn choose_cpu(&mut self, _cpu: CpuId) -> bool {
        false
    }

    /// Why the debugger was entered.
    fn reason(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        f.write_str("")
    }

    /// Whether the machine can go on.
    fn can_go(&self) -> bool {
        true
    }

    /// What the kernel was built with, in words.
    fn words(&self) -> &str {
        ""
    }

    /// Prints on the next one of the consoles that there are; its name.
    fn next_console(&mut self) -> &'static str {
        "what is here"
    }

    /// The kernel's symbols.
    fn symbols(&self) -> Symbols<'_> {
        Symbols::NONE
    }

    /// The name of a thread or space.
    fn name(&self, _named: Named) -> Option<Name> {
        None
    }

    /// Microseconds on the clock.
    fn now_us(&self) -> u64 {
        0
    }

    /// Reads what the kernel has at `address`; how many bytes there are, from the first on.
    fn read_kernel(&self, _address: u64, _bytes: &mut [u8]) -> usize {
        0
    }

    /// Reads physical memory, likewise.
    fn read_physical(&self, _address: u64, _bytes: &mut [u8]) -> usize {
        0
    }

    /// Where TCBs are in the kernel's memory: the first one's address.
    fn tcb_table(&self) -> u64 {
        0
    }

    /// The kernel interface page, by its address.
    fn kip(&self) -> u64 {
        0
    }

    /// The saved general registers of a thread.
    fn registers(&self, _thread: TcbRef) -> Option<Registers> {
        None
    }

    /// The exception that brought a thread into the kernel last, and its error code.
    fn exception(&self, _thread: TcbRef) -> Option<(u64, u64)> {
        None
    }

    /// Where a processor was when it came to stand still.
    fn entry(&self, _cpu: CpuId) -> Option<Entry> {
        None
    }

    /// Addresses that may be those of callers, the innermost first, at the place where the debugger was entered: from
    /// where in the kernel it was called. How many there are.
    fn callers(&self, _addresses: &mut [u64]) -> usize {
        0
    }

    /// Control registers of the chosen processor.
    fn control(&mut self) -> Option<Control> {
        None
    }

    /// A model-specific register of the chosen processor, if it has that.
    fn msr(&mut self, _number: u32) -> Option<u64> {
        None
    }

    /// EAX, EBX, ECX, EDX of a leaf of CPUID.
    fn cpuid(&mut self, _leaf: u32, _subleaf: u32) -> Option<[u32; 4]> {
        None
    }

    /// Reads a port.
    fn read_port(&mut self, _port: u16, _width: Width) -> Option<u32> {
        None
    }

    /// Writes to a port; `false`: it cannot.
    fn write_port(&mut self, _port: u16, _width: Width, _value: u32) -> bool {
        false
    }

    /// A register of the chosen processor's local APIC, by its offset.
    fn apic(&mut self, _offset: u32) -> Option<u32> {
        None
    }

    /// The redirection of an input of an I/O APIC.
    fn redirection(&mut self, _io_apic: usize, _pin: u8) -> Option<u64> {
        None
    }

    /// A gate.
    fn gate(&self, _vector: u8) -> Option<Gate> {
        None
    }

    /// An entry of the chosen processor's descriptor table.
    fn segment(&self, _index: u16) -> Option<u64> {
        None
    }

    /// The address of the firmware's root pointer (ACPI, RSDP).
    fn root_pointer(&self) -> Option<u64> {
        None
    }

    /// Sends a non-maskable interrupt to a processor; `false`: it cannot.
    fn send_nmi(&mut self, _cpu: CpuId) -> bool {
        false
    }

    /// Lets the chipset pass non-maskable interrupts on, or not; `false`: it cannot.
    fn enable_nmi(&mut self, _is_enabled: bool) -> bool {
        false
    }

    /// A cell of the text screen: character and colours.
    fn screen(&self, _line: usize, _column: usize) -> Option<u16> {
        None
    }

    /// A hardware breakpoint.
    fn breakpoint(&self, _number: usize) -> Option<Breakpoint> {
        None
    }

    /// Sets or clears one; `false`: it cannot.
    fn set_breakpoint(&mut self, _number: usize, _breakpoint: Option<Breakpoint>) -> bool {
        false
    }

    /// Whether steps can be made from where the debugger was entered.
    fn can_step(&self) -> bool {
        false
    }

    /// Writes the first instruction of `code`; how many bytes it has. `None`: these bytes are none, or nobody knows.
    fn disassemble(&self, _code: &[u8], _f: &mut dyn fmt::Write) -> Option<usize> {
        None
    }

    /// A word of the root of the kernel's trace ([`kformats::trace::root`]); `None`: the kernel has no tracepoints.
    fn trace_word(&self, _index: usize) -> Option<u64> {
        None
    }

    /// Replaces one; `false`: it cannot.
    fn set_trace_word(&self, _index: usize, _word: u64) -> bool {
        false
    }

    /// The word at a physical address, which is one of a ring of the trace.
    fn ring_word(&self, _at: u64) -> Option<u64> {
        None
    }

    /// Replaces one; `false`: it cannot.
    fn set_ring_word(&self, _at: u64, _word: u64) -> bool {
        false
    }

    /// A word of the trace buffer for programs ([`l4_abi::trace_buffer`]); `None`: there is none, or it ends before.
    fn trace_buffer_word(&self, _index: usize) -> Option<u64> {
        None
    }

    /// Masks of rings are others now.
    fn trace_changed(&self) {}

    /// The most that was ever used of the stack of the debugger, and how large it is, bytes.
    fn stack_used(&self) -> Option<(usize, usize)> {
        None
    }

    /// Ends the kernel by a panic; returns if it cannot.
    fn crash(&mut self) {}

    /// Resets the machine; returns if it cannot.
    fn reset(&mut self) {}
}

/// A machine of which nothing is known.
pub struct NoProbe;

impl Probe for NoProbe {
    fn cpu(&self) -> CpuId {
        CpuId::new(0)
    }
}
