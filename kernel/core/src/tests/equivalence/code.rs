//! The machine code of the kernel's image, taken apart: what is reached from the entry from SYSCALL, up to the Rust code
//! that it calls, and the way out to user mode.
//!
//! The instructions are those that the processor would execute, at their addresses. What the code knows of the memory map
//! stands in the symbols of the image.

use std::collections::HashMap;
use std::path::PathBuf;

use iced_x86::{Code as Form, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use object::{Object, ObjectSegment, ObjectSymbol};

use crate::tests::machine::IPC_RETURN_IP;

/// An operand, with what it takes to find its value.
#[derive(Clone, Copy, Debug)]
pub enum Operand {
    /// A general register by number, as in the instruction, and how many of its bytes.
    Register(usize, u32),
    /// A number, sign-extended.
    Immediate(u64),
    /// Memory at `base + index * scale + displacement`, and how many bytes of it.
    Memory { base: Option<usize>, index: Option<(usize, u64)>, displacement: u64, bytes: u32 },
    /// Memory in the area of the processor, which the code names relative to itself: as in the area of processor 0.
    Area { address: u64, bytes: u32 },
    /// The selector in `gs`.
    Gs,
    /// The root of the loaded page tables.
    Cr3,
}

/// What an instruction does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Mov,
    Lea,
    Add,
    And,
    Xor,
    Shl,
    Shr,
    /// Sets a bit of a register.
    Bts,
    Cmp,
    Test,
    Push,
    RepMovsq,
    /// A call of the function at this address.
    Call(u64),
    Sysret,
    Iret,
    Jmp(usize),
    /// A jump if the condition holds.
    Jcc(Condition, usize),
    /// A move of a whole register if the condition holds.
    Cmov(Condition),
}

/// What the code asks of the flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    Equal,
    NotEqual,
    Below,
    ParityEven,
}

/// An instruction.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Where it stands.
    pub address: u64,
    pub action: Action,
    /// Destination and source, as far as there are any.
    pub operands: [Operand; 2],
}

/// What the code knows of the memory map: the symbols of the image.
#[derive(Clone, Copy, Debug)]
pub struct Map {
    /// The table of TCBs, and the distance of two.
    pub tcbs: (u64, u64),
    /// The table of frames, likewise.
    pub frames: (u64, u64),
    /// The areas of the processors, likewise.
    pub areas: (u64, u64),
    /// In the area of processor 0: the word that user code finds its UTCB by.
    pub utcb_slot: u64,
    /// The words of an area.
    pub words: AreaWords,
    /// The end of the stack in an area.
    pub stack_top: u64,
}

/// Addresses of words in the area of processor 0.
#[derive(Clone, Copy, Debug)]
pub struct AreaWords {
    pub current: u64,
    pub space_word: u64,
    pub user_stack: u64,
    pub fast_gs: u64,
    pub plain_mark: u64,
    pub plain_any: u64,
    pub number: u64,
    /// The beginnings of the ready queues.
    pub ready_heads: u64,
    /// The bits of those that are occupied.
    pub ready_occupied: u64,
}

/// The code.
#[derive(Debug)]
pub struct Code {
    pub steps: Vec<Step>,
    pub map: Map,
    /// Where SYSCALL enters.
    pub syscall_entry: usize,
    /// Where it goes on if the fast path does not take the call.
    pub general_syscall: usize,
    /// The way out.
    pub resume_user: usize,
    /// The address of the function that takes words to another processor.
    pub ipc_elsewhere: u64,
}

/// The image: the one that the environment names, or else the one that was built last.
fn file() -> PathBuf {
    let own = std::env::var_os("KCORE_IMAGE").map(PathBuf::from);
    own.unwrap_or_else(|| [env!("CARGO_MANIFEST_DIR"), "../../target/marcona/x86_64/kernel.debug"].iter().collect())
}

/// The bytes of the image of the kernel, with its symbols.
///
/// # Panics
/// If there is no image.
pub fn image() -> Vec<u8> {
    let file = file();
    let read = std::fs::read(&file);
    read.unwrap_or_else(|error| panic!("{}: {error}; build the kernel by `cargo xtask build`", file.display()))
}

impl Code {
    /// The code of the image of the kernel.
    ///
    /// # Panics
    /// If there is no image, or anything in it that is not known here.
    pub fn of_image() -> Self {
        let bytes = image();
        let elf = object::File::parse(bytes.as_slice()).expect("the image is sound");
        let symbols: HashMap<&str, u64> =
            elf.symbols().filter_map(|symbol| Some((symbol.name().ok()?, symbol.address()))).collect();
        let symbol = |name: &str| *symbols.get(name).unwrap_or_else(|| panic!("the image has no symbol {name}"));
        let mut reader = Reader { elf, known: HashMap::new(), steps: Vec::new(), pending: Vec::new() };
        let [syscall_entry, general_syscall, resume_user] =
            ["syscall_entry", "general_syscall", "resume_user"].map(|name| reader.read(symbol(name)));
        let ipc_return = symbol("layout_stubs") + SYSCALL_BYTES;
        assert_eq!(ipc_return, IPC_RETURN_IP as u64, "where a call of Ipc returns to");
        let elsewhere = symbols.iter().find(|(name, _)| name.contains("ipc_elsewhere"));
        let ipc_elsewhere = *elsewhere.expect("words are taken to other processors").1;
        Self { steps: reader.steps, map: Map::of(&symbol), syscall_entry, general_syscall, resume_user, ipc_elsewhere }
    }
}

impl Map {
    fn of(symbol: &dyn Fn(&str) -> u64) -> Self {
        let table = |name: &str| (symbol(&format!("layout_{name}")), symbol(&format!("layout_{name}_stride")));
        let word = |name: &str| symbol("area_data") + symbol(&format!("area_word_{name}"));
        Self {
            tcbs: table("tcb"),
            frames: table("frame"),
            areas: table("area"),
            utcb_slot: symbol("area_utcb_slot"),
            words: AreaWords {
                current: word("current"),
                space_word: word("space_word"),
                user_stack: word("user_stack"),
                fast_gs: word("fast_gs"),
                plain_mark: word("plain_mark"),
                plain_any: word("plain_any"),
                number: word("number"),
                ready_heads: word("ready_heads"),
                ready_occupied: word("ready_occupied"),
            },
            stack_top: symbol("area_stack_top"),
        }
    }
}

/// The first stub is Ipc's, and begins with SYSCALL.
const SYSCALL_BYTES: u64 = 2;

/// Takes code apart along its ways.
struct Reader<'a> {
    elf: object::File<'a>,
    /// The steps by their addresses.
    known: HashMap<u64, usize>,
    steps: Vec<Step>,
    /// Jumps whose aim is not known yet: step and address.
    pending: Vec<(usize, u64)>,
}

impl Reader<'_> {
    /// Takes apart what is reached from `entry`, and returns its step.
    fn read(&mut self, entry: u64) -> usize {
        self.follow(entry);
        while let Some((step, target)) = self.pending.pop() {
            self.follow(target);
            let aim = self.known[&target];
            match &mut self.steps[step].action {
                Action::Jmp(to) | Action::Jcc(_, to) => *to = aim,
                _ => unreachable!("only jumps are pending"),
            }
        }
        self.known[&entry]
    }

    /// Takes apart what stands from `address` on, up to where the processor does not go on behind, or what is known.
    fn follow(&mut self, mut address: u64) {
        if self.known.contains_key(&address) {
            return;
        }
        while !self.known.contains_key(&address) {
            let instruction = self.instruction(address);
            let index = self.steps.len();
            self.known.insert(address, index);
            let action = action(&instruction);
            self.steps.push(Step { address, action, operands: [operand(&instruction, 0), operand(&instruction, 1)] });
            if matches!(action, Action::Jmp(_) | Action::Jcc(..)) {
                self.pending.push((index, instruction.near_branch_target()));
            }
            if matches!(action, Action::Jmp(_) | Action::Call(_) | Action::Sysret | Action::Iret) {
                return;
            }
            address = instruction.next_ip();
        }
        // Steps follow each other in the list; where known ones begin again, a jump leads there.
        let action = Action::Jmp(self.known[&address]);
        self.steps.push(Step { address, action, operands: [Operand::Immediate(0); 2] });
    }

    fn instruction(&self, address: u64) -> Instruction {
        let bytes = self.elf.segments().find_map(|segment| {
            let offset = address.checked_sub(segment.address())?;
            segment.data().ok()?.get(usize::try_from(offset).ok()?..)
        });
        let bytes = bytes.unwrap_or_else(|| panic!("no code at {address:#x}"));
        Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).decode()
    }
}

fn action(instruction: &Instruction) -> Action {
    match instruction.mnemonic() {
        // What is shorter than a register is extended by zeroes anyhow.
        Mnemonic::Mov | Mnemonic::Movzx => Action::Mov,
        Mnemonic::Lea => Action::Lea,
        Mnemonic::Add => Action::Add,
        Mnemonic::And => Action::And,
        Mnemonic::Xor => Action::Xor,
        Mnemonic::Shl => Action::Shl,
        Mnemonic::Shr => Action::Shr,
        Mnemonic::Bts if instruction.op0_register().size() == 8 => Action::Bts,
        Mnemonic::Cmp => Action::Cmp,
        Mnemonic::Test => Action::Test,
        Mnemonic::Push => Action::Push,
        Mnemonic::Movsq if instruction.has_rep_prefix() => Action::RepMovsq,
        Mnemonic::Call if instruction.code() == Form::Call_rel32_64 => Action::Call(instruction.near_branch64()),
        Mnemonic::Sysretq => Action::Sysret,
        Mnemonic::Iretq => Action::Iret,
        Mnemonic::Jmp if instruction.is_jmp_short_or_near() => Action::Jmp(usize::MAX),
        Mnemonic::Je => Action::Jcc(Condition::Equal, usize::MAX),
        Mnemonic::Jne => Action::Jcc(Condition::NotEqual, usize::MAX),
        Mnemonic::Jb => Action::Jcc(Condition::Below, usize::MAX),
        Mnemonic::Jp => Action::Jcc(Condition::ParityEven, usize::MAX),
        Mnemonic::Cmove if instruction.op0_register().size() == 8 => Action::Cmov(Condition::Equal),
        other => panic!("{:#x}: nobody knows here what {other:?} does", instruction.ip()),
    }
}

/// The number of a general register in instructions, and its bytes, the lowest.
fn register(register: Register) -> (usize, u32) {
    let is_second_byte = matches!(register, Register::AH | Register::BH | Register::CH | Register::DH);
    assert!(register.is_gpr() && !is_second_byte, "{register:?} is the lower part of a register");
    // Numbers of bytes count the second ones, too.
    (register.full_register().number(), register.size() as u32)
}

fn operand(instruction: &Instruction, index: u32) -> Operand {
    if index >= instruction.op_count() || instruction.mnemonic() == Mnemonic::Movsq {
        return Operand::Immediate(0);
    }
    match instruction.op_kind(index) {
        OpKind::Register if instruction.op_register(index) == Register::GS => Operand::Gs,
        OpKind::Register if instruction.op_register(index) == Register::CR3 => Operand::Cr3,
        OpKind::Register => {
            let (number, bytes) = register(instruction.op_register(index));
            Operand::Register(number, bytes)
        }
        OpKind::Memory => memory(instruction),
        OpKind::NearBranch64 => Operand::Immediate(0),
        _ => Operand::Immediate(instruction.immediate(index)),
    }
}

fn memory(instruction: &Instruction) -> Operand {
    let bytes = instruction.memory_size().size() as u32;
    assert_eq!(instruction.segment_prefix(), Register::None, "{:#x}", instruction.ip());
    if instruction.is_ip_rel_memory_operand() {
        return Operand::Area { address: instruction.ip_rel_memory_address(), bytes };
    }
    let part = |part: Register| (part != Register::None).then(|| register(part).0);
    let index = part(instruction.memory_index()).map(|index| (index, u64::from(instruction.memory_index_scale())));
    let displacement = instruction.memory_displacement64();
    Operand::Memory { base: part(instruction.memory_base()), index, displacement, bytes }
}
