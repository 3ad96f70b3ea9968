//! Instructions with which a program leaves user mode, or tries to: calls of the debugger, instructions of the kernel's
//! own, every software interrupt, far transfers, segment registers.

use core::arch::{asm, naked_asm};
use core::mem::offset_of;

use l4::Word;

use super::Registers;

/// An instruction that a program may not execute.
#[derive(Clone, Copy, Debug)]
pub struct Trap {
    /// What it is, for messages.
    pub name: &'static str,
    /// The function that has it.
    run: unsafe extern "C" fn(),
    /// The exceptions that may come of it: processors differ.
    pub numbers: &'static [Word],
    /// Whether some processors execute it.
    pub is_optional: bool,
    /// Whether some emulators look for the stack with the kernel's rights, find none where SMAP forbids it, and fault.
    pub may_miss_its_stack: bool,
    /// The error code; `None`: whatever it is.
    pub error_code: Option<Word>,
    /// Where the instruction pointer is, counted from the function's beginning.
    ip_offset: Word,
    /// Bytes from there to the next instruction.
    pub skip: Word,
}

impl Trap {
    /// Executes it; returns if the handler skips the instruction.
    pub fn execute(&self) {
        // SAFETY: the function changes no memory but scratch below the stack pointer; where the handler lets the thread go
        // on is the handler's promise.
        unsafe { (self.run)() };
    }

    /// The instruction pointer in the exception message.
    pub fn ip(&self) -> Word {
        self.run as *const () as Word + self.ip_offset
    }
}

/// `trap!("name", [numbers], error E, ip I, skip S: code...)`.
macro_rules! trap {
    ($name:literal, [$($number:literal),+], error $error:expr, ip $ip_offset:literal, skip $skip:literal: $($asm:expr),+) => {{
        #[unsafe(naked)]
        unsafe extern "C" fn run() {
            naked_asm!($($asm,)+ "ret")
        }
        Trap {
            name: $name,
            run,
            numbers: &[$($number),+],
            is_optional: false,
            may_miss_its_stack: false,
            error_code: $error,
            ip_offset: $ip_offset,
            skip: $skip,
        }
    }};
}

/// An instruction without operands in memory.
macro_rules! plain {
    ($name:literal, [$($number:literal),+], skip $skip:literal: $asm:literal) => {
        trap!($name, [$($number),+], error Some(0), ip 0, skip $skip: $asm)
    };
}

const fn optional(trap: Trap) -> Trap {
    Trap { is_optional: true, ..trap }
}

const fn far(trap: Trap) -> Trap {
    Trap { may_miss_its_stack: true, ..trap }
}

/// Instructions of the kernel, and some that do not exist here (Intel SDM 2, each instruction).
pub const KERNEL_INSTRUCTIONS: &[Trap] = &[
    plain!("swapgs", [13], skip 3: "swapgs"),
    plain!("rdfsbase", [6], skip 5: ".byte 0xF3, 0x48, 0x0F, 0xAE, 0xC0"),
    plain!("rdgsbase", [6], skip 5: ".byte 0xF3, 0x48, 0x0F, 0xAE, 0xC8"),
    plain!("wrfsbase", [6], skip 5: ".byte 0xF3, 0x48, 0x0F, 0xAE, 0xD0"),
    plain!("wrgsbase", [6], skip 5: ".byte 0xF3, 0x48, 0x0F, 0xAE, 0xD8"),
    plain!("sysenter", [6, 13], skip 2: ".byte 0x0F, 0x34"),
    plain!("sysexit", [6, 13], skip 2: ".byte 0x0F, 0x35"),
    plain!("sysretq", [13], skip 3: ".byte 0x48, 0x0F, 0x07"),
    plain!("sysretl", [13], skip 2: ".byte 0x0F, 0x07"),
    plain!("invd", [13], skip 2: "invd"),
    plain!("wbinvd", [13], skip 2: "wbinvd"),
    plain!("clts", [13], skip 2: "clts"),
    plain!("lmsw", [13], skip 3: "lmsw ax"),
    plain!("lldt", [13], skip 3: "lldt ax"),
    plain!("ltr", [13], skip 3: "ltr ax"),
    plain!("lidt", [13], skip 4: "lidt [rsp]"),
    plain!("invlpg", [13], skip 4: "invlpg [rsp]"),
    plain!("mov from cr2", [13], skip 3: "mov rax, cr2"),
    plain!("mov to cr3", [13], skip 3: "mov cr3, rax"),
    plain!("mov to cr4", [13], skip 3: "mov cr4, rax"),
    plain!("mov to cr8", [13], skip 4: "mov cr8, rax"),
    plain!("mov from dr6", [13], skip 3: "mov rax, dr6"),
    plain!("mov to dr7", [13], skip 3: "mov dr7, rax"),
    plain!("xgetbv", [6], skip 3: ".byte 0x0F, 0x01, 0xD0"),
    plain!("xsetbv", [6, 13], skip 3: ".byte 0x0F, 0x01, 0xD1"),
    plain!("monitor", [6, 13], skip 3: ".byte 0x0F, 0x01, 0xC8"),
    plain!("mwait", [6, 13], skip 3: ".byte 0x0F, 0x01, 0xC9"),
    plain!("vmcall", [6], skip 3: ".byte 0x0F, 0x01, 0xC1"),
    plain!("vmmcall", [6], skip 3: ".byte 0x0F, 0x01, 0xD9"),
    plain!("vmrun", [6, 13], skip 3: ".byte 0x0F, 0x01, 0xD8"),
    plain!("clgi", [6, 13], skip 3: ".byte 0x0F, 0x01, 0xDD"),
    plain!("clac", [6], skip 3: ".byte 0x0F, 0x01, 0xCA"),
    plain!("stac", [6], skip 3: ".byte 0x0F, 0x01, 0xCB"),
    plain!("rsm", [6], skip 2: ".byte 0x0F, 0xAA"),
    plain!("push es", [6], skip 1: ".byte 0x06"),
    plain!("pop ss", [6], skip 1: ".byte 0x17"),
    plain!("mov to cs", [6], skip 2: ".byte 0x8E, 0xC8"),
    plain!("mov to no segment register", [6], skip 2: ".byte 0x8E, 0xF8"),
    plain!("lock nop with a prefix", [6], skip 3: ".byte 0x66, 0xF0, 0x90"),
    optional(plain!("sgdt", [13], skip 5: "sgdt [rsp - 16]")),
    optional(plain!("sidt", [13], skip 5: "sidt [rsp - 16]")),
    optional(plain!("sldt", [13], skip 3: "sldt eax")),
    optional(plain!("str", [13], skip 3: "str eax")),
    optional(plain!("smsw", [13], skip 3: "smsw eax")),
    optional(plain!("lar", [13], skip 3: "lar eax, ecx")),
    optional(plain!("lsl", [13], skip 3: "lsl eax, ecx")),
];

/// RDPMC in a kernel that keeps the counters to itself.
pub const CLOSED_COUNTER: Trap = trap!("rdpmc", [13], error Some(0), ip 2, skip 2: "xor ecx, ecx", "rdpmc");
/// The same where programs may read them; some emulators have none.
pub const OPEN_COUNTER: Trap = optional(trap!("rdpmc", [6], error Some(0), ip 2, skip 2: "xor ecx, ecx", "rdpmc"));

/// A push where no stack can be (#SS; some emulators say #GP).
pub const PUSH_TO_NOWHERE: Trap = trap!("push", [12, 13], error Some(0), ip 13, skip 1:
    "mov rcx, rsp", "mov rsp, 0x4000000000000000", "push rax", "mov rsp, rcx");

/// Exceptions of programs that ask for them; some emulators know neither.
pub const ASKED_FOR: [Trap; 2] = [
    optional(trap!("misaligned access with AC", [17], error Some(0), ip 10, skip 5:
        "push 0x40202", "popfq", ".byte 0x0F, 0x1F, 0x40, 0x00", "mov rax, [rsp - 9]", "push 0x202", "popfq")),
    optional(trap!("SSE division by zero, not masked", [19], error Some(0), ip 31, skip 4:
        "mov dword ptr [rsp - 8], 0x1D80", "ldmxcsr [rsp - 8]", "pxor xmm0, xmm0",
        // 1.0
        "pcmpeqd xmm1, xmm1", "pslld xmm1, 25", "psrld xmm1, 2",
        "divss xmm1, xmm0", "mov dword ptr [rsp - 8], 0x1F80", "ldmxcsr [rsp - 8]")),
];

/// Far transfers to what is no 64-bit code of a user: the kernel's segments, data, the task state, none, a local table,
/// beyond the table (Intel SDM 2, RET and IRET).
macro_rules! far_return {
    ($name:literal, $selector:literal) => {
        far(trap!($name, [13], error Some($selector & 0xFFFC), ip 3, skip 2:
            concat!("push ", $selector), "push rax", "retfq", "add rsp, 16"))
    };
}
macro_rules! interrupt_return {
    ($name:literal, $selector:literal) => {
        far(trap!($name, [13], error Some($selector & 0xFFFC), ip 8, skip 2:
            "push 0x23", "push rsp", "pushfq", concat!("push ", $selector), "push rax", ".byte 0x90", "iretq",
            "add rsp, 40"))
    };
}

/// See [`far_return`].
pub const FAR_TRANSFERS: &[Trap] = &[
    far_return!("retf to kernel code", 0x08),
    far_return!("retf to kernel code with RPL 3", 0x0B),
    far_return!("retf to kernel data", 0x13),
    far_return!("retf to 32-bit code", 0x1B),
    far_return!("retf to user data", 0x23),
    far_return!("retf to the segment of gs", 0x33),
    far_return!("retf to the task state", 0x3B),
    far_return!("retf beyond the table", 0x4B),
    far_return!("retf to nowhere", 0x03),
    far_return!("retf to a local table", 0x07),
    interrupt_return!("iret to kernel code", 0x08),
    interrupt_return!("iret to kernel code with RPL 3", 0x0B),
    interrupt_return!("iret to 32-bit code", 0x1B),
    interrupt_return!("iret to the task state", 0x3B),
    interrupt_return!("iret to a local table", 0x07),
];

/// System calls and interrupts in the shadow of a load of `ss`, which holds traps back for an instruction.
pub const SHADOWED: [Trap; 4] = [
    trap!("mov ss, syscall", [6, 13], error Some(0), ip 4, skip 2: "mov eax, ss", "mov ss, eax", "syscall"),
    trap!("mov ss, syscall in single steps", [6, 13], error Some(0), ip 10, skip 2:
        "mov eax, ss", "push 0x302", "popfq", "mov ss, eax", "syscall", "push 0x202", "popfq"),
    trap!("mov ss, int 0x80", [13], error None, ip 4, skip 2: "mov eax, ss", "mov ss, eax", "int 0x80"),
    trap!("mov ss, ud2", [6], error Some(0), ip 4, skip 2: "mov eax, ss", "mov ss, eax", "ud2"),
];

/// SYSCALL with flags that the kernel must not keep: single steps, nested task, alignment check, direction.
pub const FLAGGED: [Trap; 2] = [
    trap!("syscall with NT, AC and DF", [6, 13], error Some(0), ip 6, skip 2:
        "push 0x44602", "popfq", "syscall", "push 0x202", "popfq"),
    trap!("ud2 with NT, AC and DF", [6], error Some(0), ip 6, skip 2:
        "push 0x44602", "popfq", "ud2", "push 0x202", "popfq"),
];

/// Bytes of INT n.
pub const INT_LEN: Word = 2;
/// Bytes of one function of [`all_ints`].
const INT_STRIDE: Word = INT_LEN + 1;

/// A function for each n: INT n.
#[unsafe(naked)]
unsafe extern "C" fn all_ints() {
    naked_asm!(
        ".set l4test_number, 0",
        ".rept 256",
        ".byte 0xCD, l4test_number",
        "ret",
        ".set l4test_number, l4test_number + 1",
        ".endr",
    )
}

/// Where the function with INT `number` is.
pub fn int_ip(number: u8) -> Word {
    all_ints as *const () as Word + Word::from(number) * INT_STRIDE
}

/// Executes INT `number`; returns if the handler skips it, or if it was a call.
pub fn int(number: u8) {
    // SAFETY: the function there changes no memory; where the handler lets the thread go on is the handler's promise.
    unsafe { asm!("call {}", in(reg) int_ip(number), clobber_abi("C")) };
}

// --- the debugger ---

around_instruction!(raw_print_char, "l4test_print_char", "int3", "cmp al, 0");
around_instruction!(raw_print_string, "l4test_print_string", "int3", "cmp al, 1");
around_instruction!(raw_read_char, "l4test_read_char", "int3", "cmp al, 8");
around_instruction!(raw_read_char_blocked, "l4test_read_char_blocked", "int3", "cmp al, 0x0D");
around_instruction!(raw_clear_page, "l4test_clear_page", "int3", "cmp al, 2");
around_instruction!(raw_toggle_breakin, "l4test_toggle_breakin", "int3", "cmp al, 3");
around_instruction!(raw_enter, "l4test_enter", "int3", ".byte 0xEB, 0");
around_instruction!(raw_enter_but_go_on, "l4test_enter_but_go_on", "int3", "nop", ".byte 0xEB, 0");
around_instruction!(raw_breakpoint, "l4test_breakpoint", "int3", "nop", "nop");
around_instruction!(raw_stop, "l4test_stop", "int3", "mov rcx, rcx");

/// A call of the debugger.
#[derive(Clone, Copy, Debug)]
pub struct DebuggerCall {
    /// What it is, for messages.
    pub name: &'static str,
    run: unsafe extern "C" fn(*mut Registers),
    breakpoint: fn() -> Word,
}

impl DebuggerCall {
    /// Makes the call with these registers; what they hold afterwards.
    pub fn execute(&self, registers: &mut Registers) {
        // SAFETY: the registers can be written, and the kernel changes no memory.
        unsafe { (self.run)(registers) };
    }

    /// Where its breakpoint is.
    pub fn ip(&self) -> Word {
        (self.breakpoint)()
    }
}

macro_rules! debugger_call {
    ($name:ident, $label:ident, $run:path) => {
        /// See its name.
        pub const $name: DebuggerCall = {
            unsafe extern "C" {
                safe static $label: u8;
            }
            DebuggerCall { name: stringify!($name), run: $run, breakpoint: || (&raw const $label).addr() as Word }
        };
    };
}
debugger_call!(PRINT_CHAR, l4test_print_char, raw_print_char);
debugger_call!(PRINT_STRING, l4test_print_string, raw_print_string);
debugger_call!(READ_CHAR, l4test_read_char, raw_read_char);
debugger_call!(READ_CHAR_BLOCKED, l4test_read_char_blocked, raw_read_char_blocked);
debugger_call!(CLEAR_PAGE, l4test_clear_page, raw_clear_page);
debugger_call!(TOGGLE_BREAKIN, l4test_toggle_breakin, raw_toggle_breakin);
debugger_call!(ENTER, l4test_enter, raw_enter);
debugger_call!(ENTER_BUT_GO_ON, l4test_enter_but_go_on, raw_enter_but_go_on);
debugger_call!(BREAKPOINT_BUT_GO_ON, l4test_breakpoint, raw_breakpoint);
debugger_call!(BREAKPOINT, l4test_stop, raw_stop);

/// Bytes of a breakpoint.
pub const BREAKPOINT_LEN: Word = 1;
/// Number of the breakpoint exception.
pub const BREAKPOINT_NUMBER: Word = 3;

/// Enters the debugger with a text.
pub fn enter_with_text() {
    l4::kdb_enter!("debugger: a text of the program");
}

/// Code of a function that prints a line with the letter `x`: two characters, each loaded into `al`.
pub const PRINT_LINE_CODE: [u8; 11] = [0xB0, b'x', 0xCC, 0x3C, 0x00, 0xB0, b'\n', 0xCC, 0x3C, 0x00, 0xC3];
/// Code of a function that calls KernelInterface.
pub const KERNEL_INTERFACE_CODE: [u8; 3] = [0xF0, 0x90, 0xC3];
/// Code of a function with a breakpoint that means nothing.
pub const BREAKPOINT_CODE: [u8; 2] = [0xCC, 0xC3];
/// Code of a function with SYSCALL.
pub const SYSCALL_CODE: [u8; 3] = [0x0F, 0x05, 0xC3];

// --- model-specific registers ---

/// Extended features; bits 8 and 10 are set in long mode.
pub const EFER: Word = 0xC000_0080;
/// Long mode is on, and so is SYSCALL.
pub const EFER_SET: Word = 1 << 10 | 1 << 8 | 1;
/// A register that the kernel does not use: the base that SWAPGS would exchange.
pub const KERNEL_GS_BASE: Word = 0xC000_0102;
/// A register that does not take an odd value, or does not exist: where virtual machines save the host.
pub const VM_HSAVE_PA: Word = 0xC001_0117;

around_instruction!(raw_rdmsr, "l4test_rdmsr", "rdmsr");
around_instruction!(raw_wrmsr, "l4test_wrmsr", "wrmsr");

unsafe extern "C" {
    safe static l4test_rdmsr: u8;
    safe static l4test_wrmsr: u8;
}

/// Bytes of RDMSR and WRMSR.
pub const MSR_LEN: Word = 2;

/// Where RDMSR is.
pub fn rdmsr_ip() -> Word {
    (&raw const l4test_rdmsr).addr() as Word
}

/// Where WRMSR is.
pub fn wrmsr_ip() -> Word {
    (&raw const l4test_wrmsr).addr() as Word
}

/// RDMSR of the register in ecx with these registers; what they hold afterwards.
pub fn rdmsr(registers: &mut Registers) {
    // SAFETY: the registers can be written, and reading changes nothing else.
    unsafe { raw_rdmsr(registers) };
}

/// WRMSR with these registers; what they hold afterwards.
///
/// # Panics
/// For a register that the kernel uses.
pub fn wrmsr(registers: &mut Registers) {
    let number = registers.rcx & 0xFFFF_FFFF;
    assert!([KERNEL_GS_BASE, VM_HSAVE_PA].contains(&number), "the kernel's registers are its own");
    // SAFETY: the registers can be written; nobody uses the model-specific register.
    unsafe { raw_wrmsr(registers) };
}

// --- segment registers ---

/// The selectors in `ds`, `es`, `fs`, `gs` and `ss`.
pub fn segments() -> [Word; 5] {
    let (ds, es, fs, gs, ss): (u64, u64, u64, u64, u64);
    // SAFETY: reading selectors changes nothing.
    unsafe {
        asm!(
            "mov {:e}, ds", "mov {:e}, es", "mov {:e}, fs", "mov {:e}, gs", "mov {:e}, ss",
            out(reg) ds, out(reg) es, out(reg) fs, out(reg) gs, out(reg) ss,
            options(nomem, nostack, preserves_flags),
        );
    }
    [ds, es, fs, gs, ss]
}

/// What a fresh thread has in them (amd64 ABI, Thread Start State).
pub const FRESH_SEGMENTS: [Word; 5] = [0x23, 0x23, 0x23, 0x33, 0x23];

/// Loads of segment registers: each takes a selector, and the address of a word with the same selector in it.
pub const SEGMENT_LOADS: &[(&str, extern "C" fn(Word, Word))] = &{
    macro_rules! load {
        ($name:literal: $($asm:literal),+) => {{
            #[unsafe(naked)]
            extern "C" fn load(_selector: Word, _at: Word) {
                naked_asm!($($asm,)+ "ret")
            }
            ($name, load as extern "C" fn(Word, Word))
        }};
    }
    [
        load!("ds from edi": "mov ds, edi"),
        load!("es from rdi": "mov es, rdi"),
        load!("fs from di": ".byte 0x66", "mov fs, edi"),
        load!("gs from r8d": "mov r8d, edi", "mov gs, r8d"),
        load!("ss from edi": "mov ss, edi"),
        load!("ds from [rsi]": "mov ds, [rsi]"),
        load!("es from [rsi + 16]": "sub rsi, 16", "mov es, [rsi + 16]"),
        load!("fs from [rsi + 4096]": "sub rsi, 4096", "mov fs, [rsi + 4096]"),
        load!("gs from [rsi + rax * 2]": "xor eax, eax", "mov gs, [rsi + rax * 2]"),
        load!("ds from [rax * 8 + displacement]": "mov rax, rsi", "shr rax, 3", "mov ds, [rax * 8]"),
        load!("gs from the stack": "push rdi", "mov gs, [rsp]", "pop rdi"),
        // A pop that is left out leaves the stack.
        load!("fs popped": "push rdi", "pop fs", "pop rdi"),
        load!("gs popped": "push rdi", "pop gs", "pop rdi"),
    ]
};

/// Selectors that nobody can load (user data is 0x23): kernel code and data, no segment, the kernel's own `gs`, the task
/// state, a local table, beyond the table.
pub const BAD_SELECTORS: [Word; 7] = [0x08, 0x10, 0x18, 0x33, 0x38, 0x07, 0x4B];

/// Loads `ds` from an address that is not canonical. The instruction is at the function's address.
#[unsafe(naked)]
pub extern "C" fn load_segment_from(_address: Word) {
    naked_asm!("mov ds, [rdi]", "ret")
}
