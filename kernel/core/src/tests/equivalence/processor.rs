//! A processor that executes the kernel's code, an instruction at a time.
//!
//! It knows what that code needs and no more. What it does not know it refuses: an address that means nothing to the
//! [`Memory`], flags that the last instruction has not settled.

use super::code::{Action, Code, Condition, Operand, Step};

/// Numbers of registers as instructions count them.
#[allow(missing_docs, reason = "the processor's names")]
pub mod reg {
    pub const RAX: usize = 0;
    pub const RCX: usize = 1;
    pub const RDX: usize = 2;
    pub const RBX: usize = 3;
    pub const RSP: usize = 4;
    pub const RBP: usize = 5;
    pub const RSI: usize = 6;
    pub const RDI: usize = 7;
    pub const R8: usize = 8;
    pub const R9: usize = 9;
    pub const R10: usize = 10;
    pub const R11: usize = 11;
    pub const R12: usize = 12;
    pub const R13: usize = 13;
    pub const R14: usize = 14;
    pub const R15: usize = 15;
}

/// Where loads and stores go.
pub trait Memory {
    /// The `bytes` at `address`, zero-extended.
    fn load(&self, address: u64, bytes: u32) -> u64;
    /// Replaces the `bytes` at `address`.
    fn store(&mut self, address: u64, bytes: u32, value: u64);
    /// Where `address`, in the area of processor 0, is in that of this one.
    fn in_own_area(&self, address: u64) -> u64;
    /// The selector in `gs`.
    fn gs(&self) -> u32;
    /// CR3 is loaded.
    fn set_cr3(&mut self, value: u64);
}

/// The registers of user mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Registers {
    /// The general ones, by number.
    pub general: [u64; 16],
    /// Instruction pointer.
    pub ip: u64,
    /// Flags.
    pub flags: u64,
}

/// How the execution ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// In user mode, by SYSRET.
    Sysret,
    /// In user mode, by IRET.
    Iret,
    /// With the call of the function at this address.
    Call(u64),
}

/// The flags that SYSRET does not load.
const NOT_BY_SYSRET: u64 = 1 << 16 | 1 << 17;
/// Flags that are always set.
const ALWAYS: u64 = 1 << 1;
/// No way through the code is longer.
const STEPS_MAX: usize = 400;

/// The flags of the processor as far as the code asks for them.
#[derive(Clone, Copy)]
struct Flags {
    zero: bool,
    carry: bool,
    parity_even: bool,
}

/// Executes `code` from step `start` until it leaves. The flags of user mode are not touched before.
///
/// # Panics
/// If the code does something that is not known here, or comes to no end.
pub fn execute(code: &Code, start: usize, registers: &mut Registers, memory: &mut impl Memory) -> Exit {
    let mut core = Core { general: registers.general, flags: None, memory };
    let mut at = start;
    for _ in 0..STEPS_MAX {
        let step = &code.steps[at];
        at += 1;
        match step.action {
            Action::Jmp(to) => at = to,
            Action::Jcc(condition, to) => at = if core.holds(condition, step) { to } else { at },
            Action::Call(function) => {
                registers.general = core.general;
                return Exit::Call(function);
            }
            Action::Sysret => {
                registers.ip = core.general[reg::RCX];
                registers.flags = core.general[reg::R11] & !NOT_BY_SYSRET | ALWAYS;
                registers.general = core.general;
                return Exit::Sysret;
            }
            Action::Iret => {
                let frame: [u64; 5] =
                    std::array::from_fn(|i| core.memory.load(core.general[reg::RSP] + 8 * i as u64, 8));
                let [ip, _, flags, stack, _] = frame;
                core.general[reg::RSP] = stack;
                *registers = Registers { general: core.general, ip, flags: flags | ALWAYS };
                return Exit::Iret;
            }
            _ => core.execute(step),
        }
    }
    panic!("the code comes to an end");
}

struct Core<'m, M> {
    general: [u64; 16],
    /// `None` after an instruction that leaves them as they happen to be.
    flags: Option<Flags>,
    memory: &'m mut M,
}

/// The lowest `bytes` of a word.
fn low(value: u64, bytes: u32) -> u64 {
    if bytes == 8 { value } else { value & ((1 << (8 * bytes)) - 1) }
}

impl<M: Memory> Core<'_, M> {
    #[inline]
    fn execute(&mut self, step: &Step) {
        let [to, from] = step.operands;
        match step.action {
            Action::Mov => {
                let value = self.value(from);
                self.put(to, value);
            }
            Action::Cmov(condition) => {
                if self.holds(condition, step) {
                    let value = self.value(from);
                    self.put(to, value);
                }
            }
            Action::Lea => {
                let (address, _) = self.address(from);
                self.put(to, address);
            }
            Action::Push => {
                let value = self.value(to);
                self.general[reg::RSP] -= 8;
                self.memory.store(self.general[reg::RSP], 8, value);
            }
            Action::RepMovsq => self.move_words(),
            Action::Bts => {
                let bit = self.value(from) % u64::from(u64::BITS);
                let value = self.value(to) | 1 << bit;
                self.put(to, value);
                self.flags = None;
            }
            _ => self.compute(step),
        }
    }

    /// An instruction that settles the flags.
    fn compute(&mut self, step: &Step) {
        let [to, from] = step.operands;
        let bytes = width(to);
        let (a, b) = (self.value(to), low(self.value(from), bytes));
        let (result, carry) = match step.action {
            Action::Add => (a.wrapping_add(b), low(a.wrapping_add(b), bytes) < a),
            Action::Cmp => (a.wrapping_sub(b), a < b),
            Action::And | Action::Test => (a & b, false),
            Action::Xor => (a ^ b, false),
            Action::Shl => (a << b, b > 0 && a >> (u64::from(8 * bytes) - b) & 1 != 0),
            Action::Shr => (a >> b, b > 0 && a >> (b - 1) & 1 != 0),
            other => unreachable!("{other:?} is handled elsewhere"),
        };
        let result = low(result, bytes);
        let parity_even = (result as u8).count_ones().is_multiple_of(2);
        self.flags = Some(Flags { zero: result == 0, carry, parity_even });
        if !matches!(step.action, Action::Cmp | Action::Test) {
            self.put(to, result);
        }
    }

    fn move_words(&mut self) {
        for _ in 0..self.general[reg::RCX] {
            let word = self.memory.load(self.general[reg::RSI], 8);
            self.memory.store(self.general[reg::RDI], 8, word);
            self.general[reg::RSI] += 8;
            self.general[reg::RDI] += 8;
        }
        self.general[reg::RCX] = 0;
    }

    fn holds(&self, condition: Condition, step: &Step) -> bool {
        let flags = self.flags.unwrap_or_else(|| panic!("{:#x}: the flags were settled before", step.address));
        match condition {
            Condition::Equal => flags.zero,
            Condition::NotEqual => !flags.zero,
            Condition::Below => flags.carry,
            Condition::ParityEven => flags.parity_even,
        }
    }

    #[inline]
    fn address(&self, operand: Operand) -> (u64, u32) {
        match operand {
            Operand::Memory { base, index, displacement, bytes } => {
                let base = base.map_or(0, |base| self.general[base]);
                let index = index.map_or(0, |(index, scale)| self.general[index].wrapping_mul(scale));
                (base.wrapping_add(index).wrapping_add(displacement), bytes)
            }
            Operand::Area { address, bytes } => (self.memory.in_own_area(address), bytes),
            other => panic!("{other:?} has no address"),
        }
    }

    #[inline]
    fn value(&self, operand: Operand) -> u64 {
        match operand {
            Operand::Register(number, bytes) => low(self.general[number], bytes),
            Operand::Immediate(value) => value,
            Operand::Gs => self.memory.gs().into(),
            Operand::Cr3 => panic!("nobody reads CR3 here"),
            Operand::Memory { .. } | Operand::Area { .. } => {
                let (address, bytes) = self.address(operand);
                self.memory.load(address, bytes)
            }
        }
    }

    #[inline]
    fn put(&mut self, operand: Operand, value: u64) {
        match operand {
            // The upper half of a register becomes zero with the lower half; smaller parts are never written.
            Operand::Register(number, bytes) => {
                assert!(bytes >= 4, "a part of a register is written");
                self.general[number] = low(value, bytes);
            }
            Operand::Cr3 => self.memory.set_cr3(value),
            Operand::Memory { .. } | Operand::Area { .. } => {
                let (address, bytes) = self.address(operand);
                self.memory.store(address, bytes, low(value, bytes));
            }
            other => panic!("{other:?} cannot be written"),
        }
    }
}

fn width(operand: Operand) -> u32 {
    match operand {
        Operand::Register(_, bytes) | Operand::Memory { bytes, .. } | Operand::Area { bytes, .. } => bytes,
        other => panic!("{other:?} is no place to compute in"),
    }
}
