//! Instructions that no compiler makes: accesses whose address is known, system calls with all registers in view,
//! exceptions, floating-point registers.
//!
//! The functions are naked, so that the first instruction of each is at the function's own address.

use core::arch::{asm, naked_asm};
use core::mem::offset_of;

use l4::thread::my_local_id;
use l4::{ExceptionWord, ThreadId, Time, Timeouts, Word, kip};

/// Machine code of a function that does nothing.
pub const RETURN: Word = 0xC3;

/// Reads a word. The instruction is at the function's address.
///
/// # Safety
/// The address is in nobody's object; if there is no memory, somebody handles the fault.
#[unsafe(naked)]
pub unsafe extern "C" fn read_at(address: Word) -> Word {
    naked_asm!("mov rax, [rdi]", "ret")
}

/// Writes a word. The instruction is at the function's address.
///
/// # Safety
/// As for [`read_at`].
#[unsafe(naked)]
pub unsafe extern "C" fn write_at(address: Word, value: Word) {
    naked_asm!("mov [rdi], rsi", "ret")
}

/// Calls code.
///
/// # Safety
/// The code there is [`RETURN`]; if there is none, somebody handles the fault.
#[unsafe(naked)]
pub unsafe extern "C" fn execute_at(address: Word) {
    naked_asm!("jmp rdi")
}

/// Address of a function, which is that of its first instruction.
macro_rules! address_of {
    ($function:path) => {
        $function as *const () as l4::Word
    };
}
pub(crate) use address_of;

/// Time-stamp counts that a loop of so many times two instructions takes; low half.
#[unsafe(naked)]
extern "C" fn time_of_loop(times: u32) -> u32 {
    naked_asm!("rdtsc", "mov ecx, eax", "2:", "dec edi", "jnz 2b", "rdtsc", "sub eax, ecx", "ret")
}

/// Whether the time-stamp counter counts instructions, as it does under an emulator that is told so: then a longer loop
/// takes exactly as much more, but when an interrupt comes in between.
pub fn counts_instructions() -> bool {
    const LOOPS: u32 = 50;
    let is_exact = |i: &u32| time_of_loop(500 + i).wrapping_sub(time_of_loop(100)) == 2 * (400 + i);
    (0..LOOPS).filter(is_exact).count() > LOOPS as usize * 4 / 5
}

/// The general registers and flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
#[allow(missing_docs, reason = "the processor's names")]
pub struct Registers {
    pub rax: Word,
    pub rbx: Word,
    pub rcx: Word,
    pub rdx: Word,
    pub rsi: Word,
    pub rdi: Word,
    pub rbp: Word,
    pub r8: Word,
    pub r9: Word,
    pub r10: Word,
    pub r11: Word,
    pub r12: Word,
    pub r13: Word,
    pub r14: Word,
    pub r15: Word,
    pub flags: Word,
}

/// Flags by name (Intel SDM 1, EFLAGS Register).
pub mod flag {
    use l4::Word;

    pub const CARRY: Word = 1 << 0;
    /// Always set.
    pub const FIXED: Word = 1 << 1;
    pub const TRAP: Word = 1 << 8;
    pub const INTERRUPT: Word = 1 << 9;
    pub const DIRECTION: Word = 1 << 10;
    pub const IO_PRIVILEGE: Word = 3 << 12;
    pub const NESTED: Word = 1 << 14;
    pub const ALIGNMENT: Word = 1 << 18;
    pub const IDENTIFICATION: Word = 1 << 21;
}

impl Registers {
    /// Something different in each; the flags are those that a program may want to keep over a trap.
    pub const PATTERN: Self = Self {
        rax: 0x1111_0000_AAAA_0001,
        rbx: 0x2222_0000_AAAA_0002,
        rcx: 0x3333_0000_AAAA_0003,
        rdx: 0x4444_0000_AAAA_0004,
        rsi: 0x5555_0000_AAAA_0005,
        rdi: 0x6666_0000_AAAA_0006,
        rbp: 0x7777_0000_AAAA_0007,
        r8: 0x8888_0000_AAAA_0008,
        r9: 0x9999_0000_AAAA_0009,
        r10: 0xAAAA_0000_AAAA_000A,
        r11: 0xBBBB_0000_AAAA_000B,
        r12: 0xCCCC_0000_AAAA_000C,
        r13: 0xDDDD_0000_AAAA_000D,
        r14: 0xEEEE_0000_AAAA_000E,
        r15: 0xFFFF_0000_AAAA_000F,
        flags: l4::USER_FLAGS_MASK as Word | flag::INTERRUPT | flag::FIXED,
    };

    /// The registers that pass MR0 to MR7 (amd64 ABI, Ipc).
    pub fn message(&self) -> [Word; 8] {
        [self.r9, self.rax, self.rbx, self.r10, self.r12, self.r13, self.r14, self.r15]
    }

    /// The same, to be set.
    pub fn message_mut(&mut self) -> [&mut Word; 8] {
        let r = self;
        [&mut r.r9, &mut r.rax, &mut r.rbx, &mut r.r10, &mut r.r12, &mut r.r13, &mut r.r14, &mut r.r15]
    }

    /// The message registers of an exception message that show general registers, with what is in them here.
    pub fn exception_words(&self) -> [(ExceptionWord, Word); 15] {
        use ExceptionWord as E;
        [
            (E::Rax, self.rax),
            (E::Rbx, self.rbx),
            (E::Rcx, self.rcx),
            (E::Rdx, self.rdx),
            (E::Rsi, self.rsi),
            (E::Rdi, self.rdi),
            (E::Rbp, self.rbp),
            (E::R8, self.r8),
            (E::R9, self.r9),
            (E::R10, self.r10),
            (E::R11, self.r11),
            (E::R12, self.r12),
            (E::R13, self.r13),
            (E::R14, self.r14),
            (E::R15, self.r15),
        ]
    }
}

/// A function that loads all registers, executes one instruction and stores all registers.
///
/// Stack, from the top: registers that a caller wants back, address of `registers`.
macro_rules! around_instruction {
    ($name:ident, $label:literal, $($instruction:literal),+) => {
        /// # Safety
        /// 1. `registers` can be written.
        /// 2. What the instruction does besides is as the caller wants it.
        #[unsafe(naked)]
        unsafe extern "C" fn $name(registers: *mut Registers) {
            naked_asm!(
                "push rbx",
                "push rbp",
                "push r12",
                "push r13",
                "push r14",
                "push r15",
                "push rdi",
                "push qword ptr [rdi + {flags}]",
                "mov rax, [rdi + {rax}]",
                "mov rbx, [rdi + {rbx}]",
                "mov rcx, [rdi + {rcx}]",
                "mov rdx, [rdi + {rdx}]",
                "mov rsi, [rdi + {rsi}]",
                "mov rbp, [rdi + {rbp}]",
                "mov r8, [rdi + {r8}]",
                "mov r9, [rdi + {r9}]",
                "mov r10, [rdi + {r10}]",
                "mov r11, [rdi + {r11}]",
                "mov r12, [rdi + {r12}]",
                "mov r13, [rdi + {r13}]",
                "mov r14, [rdi + {r14}]",
                "mov r15, [rdi + {r15}]",
                "mov rdi, [rdi + {rdi}]",
                "popfq",
                concat!(".global ", $label),
                concat!($label, ":"),
                $($instruction,)+
                "pushfq",
                "cld",
                // The address of the registers is below the flags; the user's rdi takes its place.
                "xchg rdi, [rsp + 8]",
                "pop [rdi + {flags}]",
                "pop [rdi + {rdi}]",
                "mov [rdi + {rax}], rax",
                "mov [rdi + {rbx}], rbx",
                "mov [rdi + {rcx}], rcx",
                "mov [rdi + {rdx}], rdx",
                "mov [rdi + {rsi}], rsi",
                "mov [rdi + {rbp}], rbp",
                "mov [rdi + {r8}], r8",
                "mov [rdi + {r9}], r9",
                "mov [rdi + {r10}], r10",
                "mov [rdi + {r11}], r11",
                "mov [rdi + {r12}], r12",
                "mov [rdi + {r13}], r13",
                "mov [rdi + {r14}], r14",
                "mov [rdi + {r15}], r15",
                "pop r15",
                "pop r14",
                "pop r13",
                "pop r12",
                "pop rbp",
                "pop rbx",
                // Some flags that a test may have set disturb ordinary code.
                "push 0x202",
                "popfq",
                "ret",
                flags = const offset_of!(Registers, flags),
                rax = const offset_of!(Registers, rax),
                rbx = const offset_of!(Registers, rbx),
                rcx = const offset_of!(Registers, rcx),
                rdx = const offset_of!(Registers, rdx),
                rsi = const offset_of!(Registers, rsi),
                rdi = const offset_of!(Registers, rdi),
                rbp = const offset_of!(Registers, rbp),
                r8 = const offset_of!(Registers, r8),
                r9 = const offset_of!(Registers, r9),
                r10 = const offset_of!(Registers, r10),
                r11 = const offset_of!(Registers, r11),
                r12 = const offset_of!(Registers, r12),
                r13 = const offset_of!(Registers, r13),
                r14 = const offset_of!(Registers, r14),
                r15 = const offset_of!(Registers, r15),
            )
        }
    };
}

pub mod ports;
pub mod traps;

around_instruction!(raw_kernel_interface, "l4test_kernel_interface", ".byte 0xF0, 0x90");
around_instruction!(raw_invalid_opcode, "l4test_invalid_opcode", "ud2");
// The stub's address is on top of the caller's stack, above the function's own words.
around_instruction!(raw_stub, "l4test_stub", "call qword ptr [rsp + 64]");

unsafe extern "C" {
    safe static l4test_invalid_opcode: u8;
}

/// KernelInterface with these registers; what they hold afterwards.
pub fn around_kernel_interface(registers: &mut Registers) {
    // SAFETY: the registers can be written, and the trap changes nothing else.
    unsafe { raw_kernel_interface(registers) };
}

/// An invalid opcode with these registers; what they hold afterwards, if the handler skips it.
pub fn around_invalid_opcode(registers: &mut Registers) {
    // SAFETY: the registers can be written; where the handler lets the thread go on is the handler's promise.
    unsafe { raw_invalid_opcode(registers) };
}

/// Where [`around_invalid_opcode`] faults.
pub fn invalid_opcode_ip() -> Word {
    (&raw const l4test_invalid_opcode).addr() as Word
}

/// Bytes of an invalid opcode.
pub const INVALID_OPCODE_LEN: Word = 2;

/// Calls a system-call stub with these registers; what they hold afterwards.
///
/// # Safety
/// What the call does to memory and threads is as the caller wants it.
pub unsafe fn call_stub(stub: Word, registers: &mut Registers) {
    // SAFETY: the callee finds the stub's address above its return address and its seven words; the rest is as
    // `registers` and our caller say.
    unsafe {
        asm!(
            "push rax",
            "call {around}",
            "pop rax",
            around = sym raw_stub,
            in("rdi") registers,
            inlateout("rax") stub => _,
            clobber_abi("C"),
        );
    }
}

/// Calls Ipc: sends `tag` and the words in the message registers to `to`, receives from `from`. The registers afterwards.
pub fn ipc(to: ThreadId, from: ThreadId, timeouts: Timeouts, mut registers: Registers) -> Registers {
    registers.rsi = to.raw();
    registers.rdx = from.raw();
    registers.r8 = timeouts.raw();
    registers.rdi = my_local_id().raw();
    // SAFETY: whoever set the acceptor promised that its memory is free.
    unsafe { call_stub(kip::kip().system_calls.ipc, &mut registers) };
    registers
}

/// Calls a stub of the kernel interface page with arguments that ask for nothing: nilthread, nil fpages, empty control
/// words. Only rdi is not zero where the call wants the UTCB there. The registers afterwards.
pub fn idle_call(stub: Word, flags: Word) -> Registers {
    let calls = &kip::kip().system_calls;
    let wants_utcb = [calls.ipc, calls.lipc, calls.unmap, calls.memory_control].contains(&stub);
    let rdi = if wants_utcb { my_local_id().raw() } else { 0 };
    let mut registers = Registers { rdi, flags, ..Registers::default() };
    // SAFETY: the call has nothing to do.
    unsafe { call_stub(stub, &mut registers) };
    registers
}

/// Waits for a message with a foreign selector in `gs`.
pub fn receive_with_gs(selector: Word, from: ThreadId, rcv: Time) {
    let mut registers = Registers { flags: Registers::PATTERN.flags, ..Registers::default() };
    registers.rdx = from.raw();
    registers.r8 = Timeouts::new(Time::NEVER, rcv).raw();
    registers.rdi = my_local_id().raw();
    let stub = kip::kip().system_calls.ipc;
    // SAFETY: the kernel mends `gs` in the system call that follows, and nothing before that uses the UTCB.
    unsafe { load_gs(selector) };
    // SAFETY: as in `ipc`.
    unsafe { call_stub(stub, &mut registers) };
}

// --- exceptions: each function raises one at its address ---

/// An instruction that raises an exception.
#[derive(Clone, Copy, Debug)]
pub struct Raise {
    /// What it is, for messages.
    pub name: &'static str,
    /// The function that has it.
    run: unsafe extern "C" fn(),
    /// The exception's number.
    pub number: Word,
    /// The error code, and what emulators make of it that count an IDT entry as two.
    pub error_codes: [Word; 2],
    /// Where the instruction pointer is, counted from the function's beginning.
    ip_offset: Word,
    /// Bytes from there to the next instruction.
    pub skip: Word,
}

impl Raise {
    /// Raises the exception; returns if the handler skips the instruction.
    pub fn execute(&self) {
        // SAFETY: the function changes no memory; where the handler lets the thread go on is the handler's promise.
        unsafe { (self.run)() };
    }

    /// The instruction pointer in the exception message.
    pub fn ip(&self) -> Word {
        self.run as *const () as Word + self.ip_offset
    }
}

macro_rules! raise {
    ($name:literal, $number:literal, error $error_codes:expr, ip $ip_offset:literal, skip $skip:literal: $($asm:literal),+) => {{
        #[unsafe(naked)]
        unsafe extern "C" fn run() {
            naked_asm!($($asm,)+ "ret")
        }
        Raise { name: $name, run, number: $number, error_codes: $error_codes, ip_offset: $ip_offset, skip: $skip }
    }};
}
pub(crate) use raise;

/// Instructions that a program cannot execute, with what must come of it (Intel SDM 3A, Exception and Interrupt
/// Reference; amd64 ABI, Exception Message).
pub const EXCEPTIONS: [Raise; 9] = [
    raise!("div by zero", 0, error [0; 2], ip 4, skip 3: "xor ecx, ecx", "xor edx, edx", "div rcx"),
    raise!("int 4", 4, error [0; 2], ip 2, skip 0: "int 4"),
    raise!("ud2", 6, error [0; 2], ip 0, skip 2: "ud2"),
    raise!("hlt", 13, error [0; 2], ip 0, skip 1: "hlt"),
    raise!("mov cr0", 13, error [0; 2], ip 0, skip 3: "mov rax, cr0"),
    raise!("lgdt", 13, error [0; 2], ip 0, skip 4: "lgdt [rsp]"),
    raise!("int 0x50", 13, error [0x50 * 8 + 2, 0x50 * 16 + 2], ip 0, skip 2: "int 0x50"),
    raise!("int 0x80", 13, error [0x80 * 8 + 2, 0x80 * 16 + 2], ip 0, skip 2: "int 0x80"),
    // An emulator may not have unmasked SSE exceptions; those of x87 all have.
    raise!("x87 invalid operation", 16, error [0; 2], ip 25, skip 1:
        "sub rsp, 8", "mov word ptr [rsp], 0x37E", "fninit", "fldcw [rsp]", "add rsp, 8",
        "fldz", "fldz", "fdivp", "fwait", "fninit"),
];

/// An address that is not canonical.
pub const NON_CANONICAL: Word = 0x8000_0000_0000_0000;
/// An address of the kernel.
pub const KERNEL_ADDRESS: Word = 0xFFFF_FFFF_8000_0000;

/// SYSCALL outside of any stub. The instruction is at the function's address.
#[unsafe(naked)]
pub extern "C" fn bare_syscall() {
    naked_asm!("syscall", "ret")
}
/// Bytes of SYSCALL.
pub const SYSCALL_LEN: Word = 2;

/// The exception numbers that may come of it: the instruction is invalid, or not allowed.
pub const BARE_SYSCALL_EXCEPTIONS: [Word; 2] = [6, 13];

/// Number of the general protection exception.
pub const GENERAL_PROTECTION: Word = 13;
/// Number of the debug exception.
pub const DEBUG: Word = 1;
/// Number of the invalid opcode exception.
pub const INVALID_OPCODE: Word = 6;

// --- floating point ---

/// Contents of floating-point registers: x87 stack register 0 and control word, MXCSR, xmm0 to xmm15 low halves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct FloatRegisters {
    /// The x87 control word in the low 16 bits.
    pub control: Word,
    /// MXCSR in the low 32 bits.
    pub mxcsr: Word,
    /// Bits of the double on top of the x87 stack.
    pub st0: Word,
    /// Low halves of xmm0 to xmm15.
    pub xmm: [Word; 16],
}

impl FloatRegisters {
    /// What a fresh thread has (amd64 ABI, Thread Start State); nothing is on the x87 stack.
    pub const FRESH: Self = Self { control: 0x37F, mxcsr: 0x1F80, st0: 0, xmm: [0; 16] };

    /// Something different for each `seed`: rounding control, and numbers.
    pub fn pattern(seed: Word) -> Self {
        let xmm = core::array::from_fn(|i| (seed << 32) | (i as Word + 1));
        // A double with a small exponent: 1 plus a fraction.
        let st0 = 0x3FF0_0000_0000_0000 | seed;
        Self { control: 0x37F | ((seed & 3) << 10), mxcsr: 0x1F80 | ((seed & 3) << 13), st0, xmm }
    }
}

/// Loads the floating-point registers. Compiled code of this target does not use them.
#[unsafe(naked)]
pub extern "C" fn load_float_registers(from: &FloatRegisters) {
    naked_asm!(
        "fninit",
        "fldcw [rdi]",
        "ldmxcsr [rdi + 8]",
        "fld qword ptr [rdi + 16]",
        "movq xmm0, [rdi + 24]",
        "movq xmm1, [rdi + 32]",
        "movq xmm2, [rdi + 40]",
        "movq xmm3, [rdi + 48]",
        "movq xmm4, [rdi + 56]",
        "movq xmm5, [rdi + 64]",
        "movq xmm6, [rdi + 72]",
        "movq xmm7, [rdi + 80]",
        "movq xmm8, [rdi + 88]",
        "movq xmm9, [rdi + 96]",
        "movq xmm10, [rdi + 104]",
        "movq xmm11, [rdi + 112]",
        "movq xmm12, [rdi + 120]",
        "movq xmm13, [rdi + 128]",
        "movq xmm14, [rdi + 136]",
        "movq xmm15, [rdi + 144]",
        "ret",
    )
}

/// Stores the floating-point registers; the top of the x87 stack only with `has_st0`, else it is 0.
///
/// # Safety
/// With `has_st0` something is on the x87 stack.
#[unsafe(naked)]
unsafe extern "C" fn store_float_registers(to: &mut FloatRegisters, has_st0: bool) {
    naked_asm!(
        "mov qword ptr [rdi], 0",
        "mov qword ptr [rdi + 8], 0",
        "mov qword ptr [rdi + 16], 0",
        "fnstcw [rdi]",
        "stmxcsr [rdi + 8]",
        "test sil, sil",
        "jz 2f",
        "fst qword ptr [rdi + 16]",
        "2:",
        "movq [rdi + 24], xmm0",
        "movq [rdi + 32], xmm1",
        "movq [rdi + 40], xmm2",
        "movq [rdi + 48], xmm3",
        "movq [rdi + 56], xmm4",
        "movq [rdi + 64], xmm5",
        "movq [rdi + 72], xmm6",
        "movq [rdi + 80], xmm7",
        "movq [rdi + 88], xmm8",
        "movq [rdi + 96], xmm9",
        "movq [rdi + 104], xmm10",
        "movq [rdi + 112], xmm11",
        "movq [rdi + 120], xmm12",
        "movq [rdi + 128], xmm13",
        "movq [rdi + 136], xmm14",
        "movq [rdi + 144], xmm15",
        "ret",
    )
}

/// Whether something is on the x87 stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum X87Stack {
    /// Nothing, as at the start of a thread.
    Empty,
    /// What [`load_float_registers`] put there.
    Loaded,
}

/// The floating-point registers.
pub fn float_registers(stack: X87Stack) -> FloatRegisters {
    let mut registers = FloatRegisters::FRESH;
    // SAFETY: the caller knows what is on the stack; reading an empty one would raise no unmasked exception either.
    unsafe { store_float_registers(&mut registers, stack == X87Stack::Loaded) };
    registers
}

// --- segments and flags ---

/// # Safety
/// No use of the UTCB before the thread has been in the kernel.
#[unsafe(naked)]
unsafe extern "C" fn load_gs(selector: Word) {
    naked_asm!("mov gs, edi", "ret")
}

/// Loads `ds`, `es` and `fs`, which mean nothing to 64-bit code without thread-local storage.
#[unsafe(naked)]
pub extern "C" fn load_data_segments(selector: Word) {
    naked_asm!("mov ds, edi", "mov es, edi", "mov fs, edi", "ret")
}

/// The user data selector, and selectors without a descriptor that a program may load.
pub const DATA_SELECTORS: [Word; 3] = [0, 0x23, 3];

/// CPUID's extended feature bits in edx.
#[unsafe(naked)]
extern "C" fn extended_features() -> u32 {
    naked_asm!("push rbx", "mov eax, 0x80000001", "cpuid", "mov eax, edx", "pop rbx", "ret")
}

/// Whether the processor has pages of 1 GiB.
pub fn has_pages_of_1_gib() -> bool {
    const PAGES_1G: u32 = 1 << 26;
    extended_features() & PAGES_1G != 0
}

/// The flags.
pub fn flags() -> Word {
    let flags;
    // SAFETY: pushing and popping changes nothing but scratch below the stack pointer.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags) };
    flags
}

/// What [`start_probe`] leaves on the stack, from the top down.
pub const START_STATE: [&str; 17] = [
    "flags", "rsp", "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];

/// A place where threads may start: pushes what [`START_STATE`] says and sleeps for ever.
#[unsafe(naked)]
pub unsafe extern "C" fn start_probe() -> ! {
    naked_asm!(
        // The stack pointer is stored by its value before anything was pushed.
        "mov [rsp - 16], rsp",
        "pushfq",
        "lea rsp, [rsp - 8]",
        "push rax",
        "push rbx",
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push rbp",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "call {sleep}",
        "ud2",
        sleep = sym sleep,
    )
}

extern "C" fn sleep() -> ! {
    l4::time::sleep_forever()
}
