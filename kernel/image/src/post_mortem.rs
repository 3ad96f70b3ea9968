//! What the kernel says when it cannot go on: the reason, registers, who called, for whom it worked.
//!
//! An exception in the kernel notes its registers first, and then is a panic as any other. Everything is printed on all
//! consoles, by any kernel; names of functions are there if it was built with symbols. Then the debugger has it, or the
//! machine stops.

use core::arch::asm;
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use kcore::machine::TcbRef;
use kformats::code::callers;
use khal::msr::Msr;
use khal::probe;

use crate::console::{self, Console};
use crate::symbols::{self, print_address};
use crate::{KERNEL, area, config, kdb};

/// Callers that are shown.
const CALLERS: usize = 24;
const WORD_BYTES: u64 = 8;

/// The general registers, as [`NAMES`] has them.
pub type Registers = [usize; NAMES.len()];

/// What an exception in the kernel saves, in this order: first what functions give back unchanged.
const NAMES: [&str; 15] =
    ["r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rdi", "rsi", "rdx", "rcx", "rax"];

/// Where something went wrong in the kernel.
#[derive(Clone, Copy)]
pub struct Place {
    /// The instruction; 0 if a call of a function says where.
    pub ip: usize,
    /// The stack above which the callers are.
    pub sp: usize,
    /// For whom the kernel worked.
    pub thread: Option<TcbRef>,
}

/// The last exception in the kernel, if one is about to end in a panic: where it was, and all registers.
struct Fault {
    is_noted: AtomicBool,
    ip: AtomicUsize,
    sp: AtomicUsize,
    registers: [AtomicUsize; NAMES.len()],
}

static FAULT: Fault = Fault {
    is_noted: AtomicBool::new(false),
    ip: AtomicUsize::new(0),
    sp: AtomicUsize::new(0),
    registers: [const { AtomicUsize::new(0) }; NAMES.len()],
};

/// Notes an exception in the kernel that is about to end in a panic.
pub fn note_fault(ip: usize, sp: usize, registers: impl Iterator<Item = usize>) {
    FAULT.ip.store(ip, Ordering::Relaxed);
    FAULT.sp.store(sp, Ordering::Relaxed);
    let mut slots = FAULT.registers.iter();
    registers.for_each(|word| slots.next().map_or((), |slot| slot.store(word, Ordering::Relaxed)));
    FAULT.is_noted.store(true, Ordering::Relaxed);
}

impl Fault {
    fn get(&self) -> Option<(usize, usize, Registers)> {
        let mut slots = self.registers.iter();
        let registers = [(); NAMES.len()].map(|()| slots.next().map_or(0, |slot| slot.load(Ordering::Relaxed)));
        let [ip, sp] = [&self.ip, &self.sp].map(|word| word.load(Ordering::Relaxed));
        self.is_noted.load(Ordering::Relaxed).then_some((ip, sp, registers))
    }
}

/// A panic has been told.
static HAS_PANICKED: AtomicBool = AtomicBool::new(false);

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut out = console::of_a_panic();
    let _ = writeln!(out, "\nmarcona: kernel panic: {}", info.message());
    if let Some(location) = info.location() {
        let _ = writeln!(out, "marcona: at {location}");
    }
    if HAS_PANICKED.swap(true, Ordering::AcqRel) {
        let _ = writeln!(out, "marcona: a panic while one is told, or at another processor: nothing more can be shown");
    } else {
        tell(&mut out, info);
    }
    crate::boot::stop_machine()
}

fn tell(out: &mut Console, info: &PanicInfo<'_>) {
    let fault = FAULT.get();
    let (ip, sp) = fault.map_or((0, stack_pointer()), |(ip, sp, _)| (ip, sp));
    let cpu = KERNEL.try_get().and_then(|kernel| kernel.cpus.get(area::cpu().index()));
    let place = Place { ip, sp, thread: cpu.and_then(|cpu| cpu.current.get().thread()) };
    // What cannot be printed is not.
    let _ = print(out, &place, fault.map(|(_, _, registers)| registers));
    if config::TRACEPOINTS && KERNEL.try_get().is_some() {
        crate::trace::print_last(out);
    }
    if config::DEBUG {
        kdb::panicked(format_args!("{}", info.message()), &place);
    }
}

/// Prints registers, callers, the thread. A function of its own, as what it collects must not be on the part of the stack
/// that it looks at.
#[inline(never)]
fn print(out: &mut Console, place: &Place, registers: Option<Registers>) -> fmt::Result {
    let [cr0, cr2, cr3, cr4, _] = control_words();
    let number = if KERNEL.try_get().is_some() { area::cpu().index() } else { 0 };
    let sp = place.sp;
    writeln!(out, "marcona: processor {number}, sp {sp:x}, cr0 {cr0:x}, cr2 {cr2:x}, cr3 {cr3:x}, cr4 {cr4:x}")?;
    if let Some(registers) = registers {
        print_registers(out, registers)?;
    }
    if let (Some(thread), Some(kernel)) = (place.thread, KERNEL.try_get()) {
        let tcb = kernel.tcb(thread).view();
        let (number, version, ip, sp) = (tcb.id.thread_no(), tcb.id.version(), tcb.ip, tcb.sp);
        write!(out, "marcona: for thread {number:x}.{version:x}")?;
        if config::DEBUG {
            kdb::print_name(out, tcb.id)?;
        }
        writeln!(out, ", user ip {ip:x}, sp {sp:x}")?;
    }
    writeln!(out, "marcona: return addresses on the stack:")?;
    if place.ip != 0 {
        print_address(out, place.ip as u64)?;
    }
    let mut addresses = [0; CALLERS];
    let count = find_callers(sp as u64, &mut addresses);
    addresses.into_iter().take(count).try_for_each(|address| print_address(out, address))
}

/// Three in a line.
fn print_registers(out: &mut Console, registers: Registers) -> fmt::Result {
    let mut names = NAMES.into_iter().rev();
    for (index, word) in registers.into_iter().rev().enumerate() {
        let begin = if index % 3 == 0 { "marcona:" } else { "" };
        let end = if index % 3 == 2 { "\n" } else { "" };
        write!(out, "{begin} {:>3} {word:016x}{end}", names.next().unwrap_or_default())?;
    }
    Ok(())
}

/// The control registers 0, 2, 3, 4, and EFER.
pub fn control_words() -> [u64; 5] {
    let (cr0, cr2, cr3, cr4): (u64, u64, u64, u64);
    // SAFETY: reading control registers changes nothing.
    unsafe {
        asm!(
            "mov {a}, cr0", "mov {b}, cr2", "mov {c}, cr3", "mov {d}, cr4",
            a = out(reg) cr0, b = out(reg) cr2, c = out(reg) cr3, d = out(reg) cr4,
            options(nomem, nostack, preserves_flags),
        );
    }
    [cr0, cr2, cr3, cr4, Msr::EFER.try_read().unwrap_or(0)]
}

/// The stack pointer.
#[inline(always)]
pub fn stack_pointer() -> usize {
    let sp: usize;
    // SAFETY: reading the stack pointer changes nothing.
    unsafe { asm!("mov {}, rsp", out(reg) sp, options(nomem, nostack, preserves_flags)) };
    sp
}

/// Reads the kernel's memory, byte by byte as far as it is there; how many bytes were.
pub fn read_kernel(address: u64, bytes: &mut [u8]) -> usize {
    for (index, byte) in bytes.iter_mut().enumerate() {
        let Some(at) = address.checked_add(index as u64) else { return index };
        let aligned = at & !(WORD_BYTES - 1);
        // SAFETY: what is mapped in the kernel is memory, or registers that do not mind being read: those of the local
        // and the I/O APICs, of which only the chosen one shows.
        let Some(word) = (unsafe { probe::read(aligned as usize) }) else { return index };
        *byte = (word >> ((at - aligned) * 8)) as u8;
    }
    bytes.len()
}

/// The kernel's return addresses on a stack from `sp` on; how many there are.
pub fn find_callers(sp: u64, addresses: &mut [u64]) -> usize {
    callers::callers(&read_kernel, &symbols::is_code, sp, addresses)
}
