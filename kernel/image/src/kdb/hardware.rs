//! The machine as the debugger asks about it.

use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use kcore::machine::{CpuId, TcbRef};
use kdb::names::{Name, Named};
use kdb::{Breakpoint, BreakpointKind, Control, Entry, Gate, Probe, Registers, Width};
use kformats::symbols::Symbols;
use kformats::trace::{Memory, Store};
use khal::debug::{self, Breakpoints, Condition};
use khal::irq::IrqOff;
use khal::msr::Msr;
use khal::port::Port;

use super::{NAMES, Owned, PARKED, PLACES, Reason, now_us};
use crate::area;
use crate::boot::bring_up;
use crate::frame::frame;
use crate::machine::{HARDWARE, local_apic};
use crate::post_mortem::{control_words, find_callers, read_kernel, stack_pointer};
use crate::trace::{self, Rings};
use crate::{config, console, kip, layout, symbols, trace_buffer};

const PAGE_BYTES: u64 = 4096;
const WORD_BYTES: u64 = 8;

/// The breakpoints of all processors, in user code and in what user code has the kernel do.
static BREAKPOINTS: Owned<([Option<Breakpoint>; debug::BREAKPOINTS], Breakpoints)> =
    Owned(core::cell::UnsafeCell::new(([None; debug::BREAKPOINTS], Breakpoints::NONE)));

/// Makes the breakpoints those of this processor.
///
/// # Safety
/// The owner does not change them meanwhile.
pub unsafe fn load_breakpoints() {
    // SAFETY: by contract.
    let (_, breakpoints) = unsafe { &*BREAKPOINTS.0.get() };
    // SAFETY: debug exceptions of user code come to the debugger; in the kernel they are ignored.
    unsafe { breakpoints.load() };
}

// --- questions to parked processors ---

/// The processor asked, and one more; 0: nobody.
static ASKED: AtomicU32 = AtomicU32::new(0);
/// What is asked: its number, and the number of a register.
static QUESTION: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
static ANSWER: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];

#[derive(Clone, Copy)]
#[repr(u32)]
enum Question {
    Control,
    Msr,
    Apic,
}

/// Answers the owner's question, if there is one for this processor, which is parked.
pub fn answer(own: CpuId) {
    if ASKED.load(Ordering::Acquire) != own.index() as u32 + 1 {
        return;
    }
    let [question, register] = [&QUESTION[0], &QUESTION[1]].map(|word| word.load(Ordering::Relaxed));
    let words = match question {
        _ if question == Question::Control as u32 => control_words(),
        _ if question == Question::Msr as u32 => optional(Msr(register).try_read()),
        _ => [1, local_apic().read_at(register).into(), 0, 0, 0],
    };
    ANSWER.iter().zip(words).for_each(|(slot, word)| slot.store(word, Ordering::Relaxed));
    ASKED.store(0, Ordering::Release);
}

fn optional(word: Option<u64>) -> [u64; 5] {
    [word.is_some().into(), word.unwrap_or(0), 0, 0, 0]
}

// --- the stack ---

const PAINT: u64 = 0x5A5A_5A5A_5A5A_5A5A;
/// What stays unpainted below the stack pointer.
const MARGIN: usize = 512;

/// Paints what is not used of the stack from `begin` to `end`, on which this runs, so that it shows later how much was used.
#[inline(never)]
pub fn paint_stack((begin, end): (usize, usize)) {
    let sp = stack_pointer();
    if !(begin + MARGIN..end).contains(&sp) {
        return;
    }
    for at in (begin..sp - MARGIN).step_by(WORD_BYTES as usize) {
        let word: *mut u64 = core::ptr::with_exposed_provenance_mut(at);
        // SAFETY: the word is part of this processor's stack, far below what is in use; nothing interrupts.
        unsafe { word.write_volatile(PAINT) };
    }
}

fn unpainted((begin, end): (usize, usize)) -> usize {
    let is_painted = |at: &usize| {
        let word: *const u64 = core::ptr::with_exposed_provenance(*at);
        // SAFETY: the word is part of this processor's stack.
        unsafe { word.read_volatile() == PAINT }
    };
    (begin..end).step_by(WORD_BYTES as usize).take_while(is_painted).count() * WORD_BYTES as usize
}

// --- memory ---

/// The saved general registers of a thread.
pub fn registers_of(thread: TcbRef) -> Registers {
    let f = frame(thread);
    let [rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15] =
        f.general().map(|register| register.get() as u64);
    Registers { rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15 }
}

/// The machine during one stay.
pub struct Bench<'r> {
    own: CpuId,
    chosen: CpuId,
    reason: &'r Reason,
    entry: Entry,
    can_go: bool,
    stack: (usize, usize),
}

impl<'r> Bench<'r> {
    /// For a stay at processor `own`.
    pub fn new(own: CpuId, reason: &'r Reason, entry: Entry, can_go: bool, stack: (usize, usize)) -> Self {
        Self { own, chosen: own, reason, entry, can_go, stack }
    }

    /// What the chosen processor answers.
    fn ask(&self, question: Question, register: u32) -> Option<[u64; 5]> {
        const PATIENCE_US: u64 = 100_000;
        if self.chosen == self.own {
            return Some(match question {
                Question::Control => control_words(),
                Question::Msr => optional(Msr(register).try_read()),
                Question::Apic => [1, local_apic().read_at(register).into(), 0, 0, 0],
            });
        }
        if !PARKED[self.chosen.index()].load(Ordering::Acquire) {
            return None;
        }
        QUESTION[0].store(question as u32, Ordering::Relaxed);
        QUESTION[1].store(register, Ordering::Relaxed);
        ASKED.store(self.chosen.index() as u32 + 1, Ordering::Release);
        let end = now_us().saturating_add(PATIENCE_US);
        while ASKED.load(Ordering::Acquire) != 0 {
            if now_us() > end {
                ASKED.store(0, Ordering::Release);
                return None;
            }
            core::hint::spin_loop();
        }
        Some(core::array::from_fn(|index| ANSWER[index].load(Ordering::Relaxed)))
    }
}

fn irq() -> IrqOff {
    // SAFETY: interrupts are off in the kernel, and no other token is in use here.
    unsafe { IrqOff::assume() }
}

impl Probe for Bench<'_> {
    fn cpu(&self) -> CpuId {
        self.chosen
    }

    fn choose_cpu(&mut self, cpu: CpuId) -> bool {
        let answers = cpu == self.own || PARKED[cpu.index()].load(Ordering::Acquire);
        if answers {
            self.chosen = cpu;
        }
        answers
    }

    fn reason(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        f.write_str(self.reason)
    }

    fn can_go(&self) -> bool {
        self.can_go
    }

    fn words(&self) -> &str {
        config::WORDS
    }

    fn next_console(&mut self) -> &'static str {
        console::choose_next()
    }

    fn symbols(&self) -> Symbols<'_> {
        symbols::symbols()
    }

    fn name(&self, named: Named) -> Option<Name> {
        NAMES.get(named)
    }

    fn now_us(&self) -> u64 {
        now_us()
    }

    fn read_kernel(&self, address: u64, bytes: &mut [u8]) -> usize {
        read_kernel(address, bytes)
    }

    fn read_physical(&self, address: u64, bytes: &mut [u8]) -> usize {
        let hardware = HARDWARE.get();
        for (index, byte) in bytes.iter_mut().enumerate() {
            let Some(at) = address.checked_add(index as u64).filter(|&at| at >> 52 == 0) else { return index };
            hardware.show_to_debugger(at & !(PAGE_BYTES - 1));
            let shown = area::copy_windows() as u64 + at % PAGE_BYTES;
            if read_kernel(shown, core::slice::from_mut(byte)) == 0 {
                return index;
            }
        }
        bytes.len()
    }

    fn tcb_table(&self) -> u64 {
        layout::TCB_TABLE as u64
    }

    fn kip(&self) -> u64 {
        kip::address() as u64
    }

    fn registers(&self, thread: TcbRef) -> Option<Registers> {
        Some(registers_of(thread))
    }

    fn exception(&self, thread: TcbRef) -> Option<(u64, u64)> {
        let frame = frame(thread);
        Some((frame.vector.get() as u64, frame.error_code.get() as u64))
    }

    fn entry(&self, cpu: CpuId) -> Option<Entry> {
        if cpu == self.own {
            return Some(self.entry);
        }
        PARKED.get(cpu.index())?.load(Ordering::Acquire).then(|| PLACES[cpu.index()].entry(cpu))
    }

    fn callers(&self, addresses: &mut [u64]) -> usize {
        let entry = self.entry(self.chosen);
        let sp = entry.filter(|entry| !entry.is_user && entry.sp != 0).map(|entry| entry.sp);
        sp.map_or(0, |sp| find_callers(sp, addresses))
    }

    fn control(&mut self) -> Option<Control> {
        let [cr0, cr2, cr3, cr4, efer] = self.ask(Question::Control, 0)?;
        Some(Control { cr0, cr2, cr3, cr4, efer })
    }

    fn msr(&mut self, number: u32) -> Option<u64> {
        self.ask(Question::Msr, number).filter(|words| words[0] != 0).map(|words| words[1])
    }

    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> Option<[u32; 4]> {
        Some(khal::cpu::raw_leaf(leaf, subleaf))
    }

    fn read_port(&mut self, port: u16, width: Width) -> Option<u32> {
        Some(match width {
            // SAFETY: it is what the person asks for, who knows the machine.
            Width::Byte => unsafe { Port::<u8>::new(port) }.read().into(),
            // SAFETY: as above.
            Width::Word => unsafe { Port::<u16>::new(port) }.read().into(),
            // SAFETY: as above.
            Width::Double => unsafe { Port::<u32>::new(port) }.read(),
        })
    }

    fn write_port(&mut self, port: u16, width: Width, value: u32) -> bool {
        match width {
            // SAFETY: it is what the person asks for, who knows the machine.
            Width::Byte => unsafe { Port::<u8>::new(port) }.write(value as u8),
            // SAFETY: as above.
            Width::Word => unsafe { Port::<u16>::new(port) }.write(value as u16),
            // SAFETY: as above.
            Width::Double => unsafe { Port::<u32>::new(port) }.write(value),
        }
        true
    }

    fn apic(&mut self, offset: u32) -> Option<u32> {
        self.ask(Question::Apic, offset).map(|words| words[1] as u32)
    }

    fn redirection(&mut self, io_apic: usize, pin: u8) -> Option<u64> {
        HARDWARE.get().interrupts().redirection_of(io_apic, pin.into())
    }

    fn gate(&self, vector: u8) -> Option<Gate> {
        let [low, high] = bring_up::gate(vector);
        Some(Gate {
            offset: low & 0xFFFF | low >> 32 & 0xFFFF_0000 | high << 32,
            selector: (low >> 16) as u16,
            stack: (low >> 32) as u8 & 7,
            attributes: (low >> 40) as u8,
        })
    }

    fn segment(&self, index: u16) -> Option<u64> {
        area::porch_of(self.chosen).gdt.entry(index.into())
    }

    fn root_pointer(&self) -> Option<u64> {
        find_root_pointer(self)
    }

    fn send_nmi(&mut self, cpu: CpuId) -> bool {
        let is_other = cpu != self.own;
        if is_other {
            local_apic().interrupt_non_maskably(super::area_of(cpu).apic_id.get(), &irq());
        }
        is_other
    }

    fn enable_nmi(&mut self, is_enabled: bool) -> bool {
        const INDEX: u16 = 0x70;
        const OFF: u8 = 1 << 7;
        // SAFETY: the index register of the clock, which programs may drive, too; its highest bit is the chipset's.
        let mut port = unsafe { Port::<u8>::new(INDEX) };
        let index = port.read() & !OFF;
        port.write(if is_enabled { index } else { index | OFF });
        true
    }

    fn screen(&self, line: usize, column: usize) -> Option<u16> {
        const SCREEN: u64 = 0xB8000;
        let mut cell = [0; 2];
        let at = SCREEN + (line * 80 + column) as u64 * 2;
        (self.read_physical(at, &mut cell) == cell.len()).then(|| u16::from_le_bytes(cell))
    }

    fn breakpoint(&self, number: usize) -> Option<Breakpoint> {
        // SAFETY: [KDB-OWNER] this processor is the owner during a stay.
        let (breakpoints, _) = unsafe { &*BREAKPOINTS.0.get() };
        *breakpoints.get(number)?
    }

    fn set_breakpoint(&mut self, number: usize, breakpoint: Option<Breakpoint>) -> bool {
        // SAFETY: [KDB-OWNER] this processor is the owner during a stay; the others read when it is over.
        let (breakpoints, registers) = unsafe { &mut *BREAKPOINTS.0.get() };
        let Some(slot) = breakpoints.get_mut(number) else { return false };
        *slot = breakpoint;
        let condition = |kind| match kind {
            BreakpointKind::Instruction => Condition::Execute,
            BreakpointKind::Write => Condition::Write,
            BreakpointKind::Port => Condition::Port,
            BreakpointKind::Access => Condition::Access,
        };
        let raw = breakpoint.map(|own| (own.address, u32::from(own.len_log2), condition(own.kind)));
        *registers = registers.with(number, raw);
        true
    }

    fn can_step(&self) -> bool {
        self.entry.is_user && self.entry.registers.is_some()
    }

    fn disassemble(&self, code: &[u8], f: &mut dyn fmt::Write) -> Option<usize> {
        if config::KDB_DISAS { kdb::disassemble(code, f) } else { None }
    }

    fn trace_word(&self, index: usize) -> Option<u64> {
        if config::TRACEPOINTS { trace::root_word(index) } else { None }
    }

    fn set_trace_word(&self, index: usize, word: u64) -> bool {
        config::TRACEPOINTS && trace::set_root_word(index, word)
    }

    fn ring_word(&self, at: u64) -> Option<u64> {
        if config::TRACEPOINTS { Rings.load(at) } else { None }
    }

    fn set_ring_word(&self, at: u64, word: u64) -> bool {
        let is_there = self.ring_word(at).is_some();
        if is_there {
            Rings.set(at, word);
        }
        is_there
    }

    fn trace_changed(&self) {
        if config::TRACEPOINTS {
            trace::masks_changed();
        }
    }

    fn trace_buffer_word(&self, index: usize) -> Option<u64> {
        if config::TRACEBUFFER { trace_buffer::word(index) } else { None }
    }

    fn stack_used(&self) -> Option<(usize, usize)> {
        let (begin, end) = self.stack;
        Some((end - begin - unpainted(self.stack), end - begin))
    }

    fn crash(&mut self) {
        panic!("asked for in the debugger");
    }

    fn reset(&mut self) {
        khal::port::reset_machine();
    }
}

/// The firmware's root pointer: on a 16-byte border in the first KiB of the extended data area of the BIOS, or below 1 MiB
/// (ACPI, Finding the RSDP).
fn find_root_pointer(bench: &Bench<'_>) -> Option<u64> {
    const SIGNATURE: &[u8] = b"RSD PTR ";
    let mut segment = [0; 2];
    bench.read_physical(0x40E, &mut segment);
    let extended = u64::from(u16::from_le_bytes(segment)) << 4;
    let places = (extended..extended + 1024).step_by(16).chain((0xE0000..0x10_0000).step_by(16));
    places.into_iter().find(|&at| {
        let mut bytes = [0; 8];
        bench.read_physical(at, &mut bytes) == bytes.len() && bytes == SIGNATURE
    })
}
