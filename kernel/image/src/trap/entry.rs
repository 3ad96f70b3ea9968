//! From user mode into the kernel and back.
//!
//! Nothing is kept on the kernel stack across threads: an entry saves the user registers in the frame of the running
//! thread, switches to the empty kernel stack and calls a Rust function that does not return; `resume_user` is the only
//! way out. Kernel code is interrupted only while it waits with nothing on its stack (idle, or between two steps of long
//! work), so an interrupt from kernel mode just starts over.
//!
//! The entry from SYSCALL is linked into the area of processor 0 and copied to the others ([`crate::area`]); what it
//! reaches there it names relative to itself, what is elsewhere by address. All else is there once, and finds the area
//! by the stack.
//!
//! The running thread is known by the byte offset of its TCB ([`kcore::sched::Current`]): `[x + TCBS]` is its TCB,
//! `[2 * x + FRAMES]` its frame.

use core::arch::global_asm;
use core::mem::offset_of;

use kcore::thread::Tcb;
use khal::desc::Selector;
use l4_abi::UTCB_MR0_OFFSET;

use crate::area::{Area, Porch};
use crate::frame::Frame;
use crate::layout;
use crate::stubs;

/// What must be left of the kernel's stack, bytes, for a fault there to be told on it.
const ROOM_TO_TELL: usize = 0x800;

unsafe extern "C" {
    /// Where SYSCALL enters.
    pub fn syscall_entry();
    /// 256 gate entries of [`GATE_BYTES`] each.
    pub static gate_entries: [u8; 256 * GATE_BYTES];
    /// Where a non-maskable interrupt enters.
    pub fn non_maskable_entry();
    /// Where debug exceptions enter.
    pub fn debug_entry();
    /// Leaves to user mode with the registers of the running thread. The kernel stack becomes empty.
    pub fn resume_user() -> !;
    /// Where SYSCALL goes on if the fast path does not take the call.
    pub fn general_syscall();
    /// The end of [`resume_user`], and the form of it that clears buffers.
    pub fn general_exit();
    /// See [`general_exit`].
    pub fn general_exit_clearing();
    /// The ends of the fast path, and the form of them that clears buffers.
    pub fn fast_exit_other_space();
    /// See [`fast_exit_other_space`].
    pub fn fast_exit_same_space();
    /// See [`fast_exit_other_space`].
    pub fn fast_exit_after_send();
    /// See [`fast_exit_other_space`].
    pub fn fast_exit_clearing();
    /// The end of [`resume_from_ipc`].
    pub fn ipc_exit();
    /// Leaves to user mode with the running thread, whose TCB is at `tcb`, behind a call of Ipc: with the message registers from
    /// its UTCB, and `from`. The kernel stack becomes empty.
    pub fn resume_from_ipc(tcb: usize, from: usize) -> !;
}

// Where spaces do not show the kernel, entries and ways out have other forms; `_end` names a part of one that is left out where
// buffers are cleared, and `_clearing` what is done then instead.
unsafe extern "C" {
    /// Where SYSCALL enters.
    pub fn syscall_isolated();
    /// The same, if the fast path takes no call.
    pub fn general_syscall_isolated();
    /// Where gates come together, and what is done there instead.
    pub fn common_gate();
    /// See [`common_gate`].
    pub fn common_gate_isolated();
    /// Instead of [`non_maskable_entry`].
    pub fn non_maskable_isolated();
    /// In [`resume_user`]: where the stack is chosen, and another choice.
    pub fn resume_user_stack();
    /// See [`resume_user_stack`].
    pub fn resume_user_isolated();
    /// Instead of [`general_exit`].
    pub fn general_exit_isolated();
    /// See above.
    pub fn general_exit_isolated_end();
    /// See above.
    pub fn general_exit_isolated_clearing();
    /// In [`resume_from_ipc`]: where the kernel's stack is left, and another way to do it.
    pub fn resume_from_ipc_stack();
    /// See [`resume_from_ipc_stack`].
    pub fn resume_from_ipc_isolated();
    /// Instead of [`ipc_exit`].
    pub fn ipc_exit_isolated();
    /// See above.
    pub fn ipc_exit_isolated_end();
    /// See above.
    pub fn ipc_exit_isolated_clearing();
    /// On the fast path, the instruction that loads the receiver's space.
    pub fn fast_path_space_load();
    /// Instead of [`fast_exit_other_space`], [`fast_exit_same_space`] and [`fast_exit_after_send`].
    pub fn fast_exit_isolated();
    /// See above. What is done instead is [`fast_exit_clearing`].
    pub fn fast_exit_isolated_end();
}

/// Size of a gate entry.
pub const GATE_BYTES: usize = 16;

// Register use of `syscall_entry`:
//   in:  rcx user instruction pointer behind SYSCALL, r11 user flags, rsp user stack; all others the user's
//   out: saved in frame and TCB, but for r11, which SYSCALL destroys; the decoder sets ip from rcx
global_asm!(
    ".pushsection .area_code, \"ax\"",
    ".balign 64",
    // --- SYSCALL, everything that the fast path does not take ---
    ".global general_syscall",
    "general_syscall:",
    "mov [rip + area_data + {scratch}], rsp",
    "mov rsp, [rip + area_data + {current}]",
    "mov [rsp + {tcbs} + {flags}], r11",
    "mov r11, [rip + area_data + {scratch}]",
    "mov [rsp + {tcbs} + {sp}], r11",
    "add rsp, rsp",
    "add rsp, {frames}",
    "mov [rsp + {rcx}], rcx",
    "mov [rsp + {rax}], rax",
    "mov [rsp + {rbx}], rbx",
    "mov [rsp + {rdx}], rdx",
    "mov [rsp + {rsi}], rsi",
    "mov [rsp + {rdi}], rdi",
    "mov [rsp + {rbp}], rbp",
    "mov [rsp + {r8}], r8",
    "mov [rsp + {r9}], r9",
    "mov [rsp + {r10}], r10",
    "mov [rsp + {r12}], r12",
    "mov [rsp + {r13}], r13",
    "mov [rsp + {r14}], r14",
    "mov [rsp + {r15}], r15",
    "lea rsp, [rip + area_stack_top]",
    "xor ebp, ebp",
    // Out of the area: the copies of other processors are at another distance from the function, which is set right when they
    // are made, by the address here ([`crate::boot::paging`]). An address in a register could be led astray.
    "call {syscall}",
    "99:",
    ".pushsection .area_calls, \"a\"",
    ".quad 99b",
    ".popsection",
    "ud2",
    ".popsection",
    // From user mode with rax, the vector, the error code, rip, cs, rflags, rsp and ss on a stack in the area: all into frame and
    // TCB, then to the handler. What spaces show of the stack (`is_seen`) must not keep rax.
    ".macro enter_from_user is_seen",
    "mov rax, rsp",
    "and rax, {to_area}",
    "mov rax, [rax + {area_data} + {current}]",
    "lea rax, [rax*2 + {frames}]",
    "mov [rax + {rbx}], rbx",
    "mov [rax + {rcx}], rcx",
    "mov [rax + {rdx}], rdx",
    "mov [rax + {rsi}], rsi",
    "mov [rax + {rdi}], rdi",
    "mov [rax + {rbp}], rbp",
    "mov [rax + {r8}], r8",
    "mov [rax + {r9}], r9",
    "mov [rax + {r10}], r10",
    "mov [rax + {r11}], r11",
    "mov [rax + {r12}], r12",
    "mov [rax + {r13}], r13",
    "mov [rax + {r14}], r14",
    "mov [rax + {r15}], r15",
    "pop [rax + {rax}]",
    ".if \\is_seen",
    "mov qword ptr [rsp - 8], 0",
    ".endif",
    "pop [rax + {vector}]",
    "pop [rax + {error_code}]",
    "mov rdx, rsp",
    "and rdx, {to_area}",
    "mov rbx, [rdx + {area_data} + {current}]",
    "pop [rbx + {tcbs} + {ip}]",
    "pop rcx",
    "pop [rbx + {tcbs} + {flags}]",
    "pop [rbx + {tcbs} + {sp}]",
    // The user's AC flag would switch SMAP off, and NT would make IRET fault.
    "lea rsp, [rdx + {stack_top}]",
    "push 2",
    "popfq",
    "mov rdi, [rax + {vector}]",
    "xor ebp, ebp",
    "call {user_trap}",
    "ud2",
    ".endm",
    // The exception in kernel mode whose frame is at rdi is mended, or told as a bug. The stack of page faults is too small for
    // that, so they are told on the kernel's: below what is in use there, which tells who called, if there is room. Nobody goes back.
    ".macro mend_or_stop",
    "push rdi",
    "push rdi",
    "call {mend_exception}",
    "pop rdi",
    "pop rdi",
    "test al, al",
    "jnz 8f",
    "cmp dword ptr [rdi], {page_fault}",
    "jne 7f",
    "and rsp, {to_area}",
    "mov rax, [rdi + {fault_sp}]",
    "mov rcx, rax",
    "sub rcx, rsp",
    "sub rcx, {stack_start} + {room_to_tell}",
    "cmp rcx, {stack_top} - {stack_start} - {room_to_tell}",
    "ja 6f",
    "mov rsp, rax",
    "and rsp, -16",
    "jmp 7f",
    "6:",
    "add rsp, {stack_top}",
    "7:",
    // Scratch registers stand below the frame.
    "lea rsi, [rdi - 9*8]",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov rdx, rsp",
    "call {kernel_exception}",
    "ud2",
    "8:",
    ".endm",
    // The registers that functions may use.
    ".macro push_scratch",
    "push rax",
    "push rcx",
    "push rdx",
    "push rsi",
    "push rdi",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    ".endm",
    ".macro pop_scratch",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop rcx",
    "pop rax",
    ".endm",
    ".pushsection .text.entry, \"ax\"",
    // --- gates: the error code (or 0) and the vector on the stack, above what the processor pushed ---
    ".balign 16",
    ".global gate_entries, common_gate",
    "gate_entries:",
    ".set vector, 0",
    ".rept 256",
    ".balign 16",
    ".if (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)",
    ".else",
    "push 0",
    ".endif",
    "push vector",
    "jmp common_gate",
    ".set vector, vector + 1",
    ".endr",
    ".balign 16",
    // Stack at `common_gate`: vector, error code, rip, cs, rflags, rsp, ss.
    "common_gate:",
    "cld",
    "test byte ptr [rsp + 24], 3",
    "jz 3f",
    "push rax",
    "enter_from_user 0",
    // From kernel mode: an interrupt found the kernel waiting, or something is wrong.
    "3:",
    "cmp dword ptr [rsp], 32",
    "jb 4f",
    "interrupted_kernel:",
    "mov rdi, [rsp]",
    "and rsp, {to_area}",
    "add rsp, {stack_top}",
    "push 2",
    "popfq",
    "xor ebp, ebp",
    "call {kernel_interrupt}",
    "ud2",
    "4:",
    // Keep everything: the handler may mend the instruction pointer and return.
    "push_scratch",
    "lea rdi, [rsp + 9*8]",
    "mov rax, rsp",
    "and rsp, -16",
    "push rax",
    "push rax",
    "mend_or_stop",
    "pop rsp",
    "pop_scratch",
    "add rsp, 16",
    "iretq",
    // The same where spaces do not show the kernel: from user mode on a stack that they show. All other code of the kernel
    // but the ends of the ways out runs on its tables; an exception there is a bug, which must show nevertheless, whatever
    // tables are loaded, and if on a stack of the porch, then on the stack that this one stands for.
    ".balign 16",
    ".global common_gate_isolated",
    "common_gate_isolated:",
    "cld",
    "test byte ptr [rsp + 24], 3",
    "jz 3f",
    "push rax",
    "mov rax, rsp",
    "and rax, {to_area}",
    "mov rax, [rax + {porch} + {kernel_word}]",
    "mov cr3, rax",
    "enter_from_user 1",
    "3:",
    "cmp dword ptr [rsp], 32",
    "jae interrupted_kernel",
    "push_scratch",
    "lea rdi, [rsp + 9*8]",
    "mov rax, cr3",
    "push rax",
    "mov rax, rsp",
    "and rax, {to_area}",
    "mov rcx, [rax + {porch} + {kernel_word}]",
    "mov cr3, rcx",
    "mov rdx, rsp",
    "mov ecx, esp",
    "and ecx, {porch_bits}",
    "cmp ecx, {porch_bits}",
    "jne 5f",
    "lea rsp, [rax + {fault_stack_top}]",
    "5:",
    "and rsp, -16",
    "push rdx",
    "push rdx",
    "mend_or_stop",
    "pop rsp",
    "pop rax",
    "mov cr3, rax",
    "pop_scratch",
    "add rsp, 16",
    "iretq",
    // --- a debug exception: on a stack of its own, as it can come where SYSCALL enters, with the user's stack. A load of ss
    // puts it off behind the next instruction, which may be SYSCALL; that has cleared TF by then. So in the kernel it is the
    // echo of a single step in user mode and means nothing; from user mode it goes on as any other does ---
    ".balign 16",
    ".global debug_entry",
    "debug_entry:",
    "test byte ptr [rsp + 8], 3",
    "jz 6f",
    "push rax",
    "lea rax, [rsp + 8]",
    // Above what the processor pushed, 5 words.
    "mov rsp, [rax + 5*8]",
    "push [rax + 4*8]",
    "push [rax + 3*8]",
    "push [rax + 2*8]",
    "push [rax + 1*8]",
    "push [rax]",
    "push 0",
    "push 1",
    "push [rax - 8]",
    "mov qword ptr [rax - 8], 0",
    "pop rax",
    "jmp common_gate",
    "6:",
    "and qword ptr [rsp + 16], ~0x100",
    "iretq",
    // --- a non-maskable interrupt: from anywhere, on a stack of its own, and back ---
    ".balign 16",
    ".global non_maskable_entry",
    "non_maskable_entry:",
    "push_scratch",
    "push rbp",
    "mov rbp, rsp",
    "and rsp, -16",
    "cld",
    "call {non_maskable}",
    "mov rsp, rbp",
    "pop rbp",
    "pop_scratch",
    "iretq",
    // The same where spaces do not show the kernel: it may come ahead of the kernel's tables or behind them. On the stack
    // that spaces show it leaves nothing; the registers go to the one that this one stands for. To load what it found
    // forgets what is known of it, which costs time and does no harm.
    ".balign 16",
    ".global non_maskable_isolated",
    "non_maskable_isolated:",
    "push rax",
    "push rdx",
    "mov rdx, cr3",
    "mov rax, rsp",
    "and rax, {to_area}",
    "mov rax, [rax + {porch} + {kernel_word}]",
    "mov cr3, rax",
    "mov rax, rsp",
    "and rax, {to_area}",
    "lea rsp, [rax + {interrupt_stack_top}]",
    "push rdx",
    "push rcx",
    "push rsi",
    "push rdi",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "cld",
    "call {non_maskable}",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rdi",
    "pop rsi",
    "pop rcx",
    "pop rdx",
    "and rsp, {to_area}",
    // Below what the processor pushed, 5 words, are rax and rdx.
    "add rsp, {interrupt_entry_stack_top} - 7*8",
    "mov cr3, rdx",
    "pop rdx",
    "pop rax",
    "mov qword ptr [rsp - 8], 0",
    "mov qword ptr [rsp - 16], 0",
    "iretq",
    // --- the way out ---
    ".balign 64",
    ".global resume_user, resume_user_stack",
    "resume_user:",
    "and rsp, {to_area}",
    // Where spaces do not show the kernel, a jump is written over this.
    "resume_user_stack:",
    "mov rax, [rsp + {area_data} + {current}]",
    "add rsp, {stack_top}",
    "resume_user_frame:",
    "push {user_data}",
    "push [rax + {tcbs} + {sp}]",
    "push [rax + {tcbs} + {flags}]",
    "push {user_code}",
    "push [rax + {tcbs} + {ip}]",
    "lea rax, [rax*2 + {frames}]",
    "mov rbx, [rax + {rbx}]",
    "mov rcx, [rax + {rcx}]",
    "mov rdx, [rax + {rdx}]",
    "mov rsi, [rax + {rsi}]",
    "mov rdi, [rax + {rdi}]",
    "mov rbp, [rax + {rbp}]",
    "mov r8, [rax + {r8}]",
    "mov r9, [rax + {r9}]",
    "mov r10, [rax + {r10}]",
    "mov r11, [rax + {r11}]",
    "mov r12, [rax + {r12}]",
    "mov r13, [rax + {r13}]",
    "mov r14, [rax + {r14}]",
    "mov r15, [rax + {r15}]",
    // Five bytes, over which a jump can be written.
    ".global general_exit",
    "general_exit:",
    "mov rax, [rax + {rax}]",
    "iretq",
    ".if . - general_exit < 5",
    ".error \"no place for a jump\"",
    ".endif",
    // The same where the processor's buffers must not hold what the kernel has touched: VERW of a segment that can be
    // written clears them.
    ".balign 16, 0xCC",
    ".global general_exit_clearing",
    "general_exit_clearing:",
    "mov rax, [rax + {rax}]",
    "verw word ptr [rip + general_exit_segment]",
    "iretq",
    "general_exit_segment: .word {user_data}",
    // The same, both of it, where spaces do not show the kernel: IRET reads from a stack that they show, on which rax waits
    // until the space is loaded, and does not stay.
    ".balign 16, 0xCC",
    ".global resume_user_isolated",
    "resume_user_isolated:",
    "mov rax, [rsp + {area_data} + {current}]",
    "add rsp, {entry_stack_top}",
    "jmp resume_user_frame",
    ".global general_exit_isolated, general_exit_isolated_end, general_exit_isolated_clearing",
    "general_exit_isolated:",
    "push [rax + {rax}]",
    "mov rax, rsp",
    "and rax, {to_area}",
    "mov rax, [rax + {area_data} + {space}]",
    "mov cr3, rax",
    "pop rax",
    "general_exit_isolated_end:",
    "mov qword ptr [rsp - 8], 0",
    "iretq",
    ".balign 16, 0xCC",
    "general_exit_isolated_clearing:",
    "mov qword ptr [rsp - 8], 0",
    "verw word ptr [rip + general_exit_segment]",
    "iretq",
    // --- the way out of a call of Ipc, with no register that the kernel used ---
    ".balign 64",
    ".global resume_from_ipc, resume_from_ipc_stack",
    "resume_from_ipc:",
    "mov rdx, [rdi + {utcb}]",
    // A jump can be written over this.
    "resume_from_ipc_stack:",
    "mov rsp, [rdi + {sp}]",
    "mov r11, [rdi + {flags}]",
    "resume_from_ipc_registers:",
    "mov rdi, [rdi + {local_id}]",
    "mov r9, [rdx + {mr}]",
    "mov rax, [rdx + {mr} + 1*8]",
    "mov rbx, [rdx + {mr} + 2*8]",
    "mov r10, [rdx + {mr} + 3*8]",
    "mov r12, [rdx + {mr} + 4*8]",
    "mov r13, [rdx + {mr} + 5*8]",
    "mov r14, [rdx + {mr} + 6*8]",
    "mov r15, [rdx + {mr} + 7*8]",
    "xor edx, edx",
    "xor ebp, ebp",
    "xor r8d, r8d",
    // A jump can be written over this, too.
    ".global ipc_exit",
    "ipc_exit:",
    "mov rcx, {ipc_return}",
    "sysretq",
    // The same, both of it, where spaces do not show the kernel: the word of the space waits in rcx.
    ".balign 16, 0xCC",
    ".global resume_from_ipc_isolated",
    "resume_from_ipc_isolated:",
    "and rsp, {to_area}",
    "mov rcx, [rsp + {area_data} + {space}]",
    "mov rsp, [rdi + {sp}]",
    "mov r11, [rdi + {flags}]",
    "jmp resume_from_ipc_registers",
    ".global ipc_exit_isolated, ipc_exit_isolated_end, ipc_exit_isolated_clearing",
    "ipc_exit_isolated:",
    "mov cr3, rcx",
    "ipc_exit_isolated_end:",
    "mov rcx, {ipc_return}",
    "sysretq",
    ".balign 16, 0xCC",
    "ipc_exit_isolated_clearing:",
    "verw word ptr [rip + general_exit_segment]",
    "mov rcx, {ipc_return}",
    "sysretq",
    ".popsection",
    to_area = const -(layout::AREA_BYTES as isize),
    area_data = const layout::AREA_DATA,
    stack_top = const layout::AREA_STACK_TOP,
    porch = const layout::AREA_PORCH,
    porch_bits = const layout::AREA_PORCH_BITS,
    kernel_word = const offset_of!(Porch, kernel_word),
    entry_stack_top = const layout::AREA_ENTRY_STACK_TOP,
    interrupt_stack_top = const layout::AREA_INTERRUPT_STACK_TOP,
    fault_stack_top = const layout::AREA_FAULT_STACK_TOP,
    page_fault = const super::vector::PAGE_FAULT,
    fault_sp = const offset_of!(super::KernelFrame, sp),
    stack_start = const layout::AREA_STACK,
    room_to_tell = const ROOM_TO_TELL,
    interrupt_entry_stack_top = const layout::AREA_INTERRUPT_ENTRY_STACK_TOP,
    space = const offset_of!(Area, space_word),
    scratch = const offset_of!(Area, user_stack),
    current = const offset_of!(Area, cpu.current),
    tcbs = const layout::TCB_TABLE as isize,
    frames = const layout::FRAME_TABLE as isize,
    ip = const offset_of!(Tcb, ip),
    utcb = const offset_of!(Tcb, utcb),
    local_id = const offset_of!(Tcb, local_id),
    mr = const UTCB_MR0_OFFSET,
    ipc_return = const stubs::IPC_RETURN as i64,
    sp = const offset_of!(Tcb, sp),
    flags = const offset_of!(Tcb, flags),
    rax = const offset_of!(Frame, rax),
    rbx = const offset_of!(Frame, rbx),
    rcx = const offset_of!(Frame, rcx),
    rdx = const offset_of!(Frame, rdx),
    rsi = const offset_of!(Frame, rsi),
    rdi = const offset_of!(Frame, rdi),
    rbp = const offset_of!(Frame, rbp),
    r8 = const offset_of!(Frame, r8),
    r9 = const offset_of!(Frame, r9),
    r10 = const offset_of!(Frame, r10),
    r11 = const offset_of!(Frame, r11),
    r12 = const offset_of!(Frame, r12),
    r13 = const offset_of!(Frame, r13),
    r14 = const offset_of!(Frame, r14),
    r15 = const offset_of!(Frame, r15),
    vector = const offset_of!(Frame, vector),
    error_code = const offset_of!(Frame, error_code),
    user_data = const Selector::USER_DATA.0,
    user_code = const Selector::USER_CODE64.0,
    syscall = sym super::syscall,
    user_trap = sym super::user_trap,
    kernel_interrupt = sym super::kernel_interrupt,
    mend_exception = sym super::mend_exception,
    kernel_exception = sym super::kernel_exception,
    non_maskable = sym super::non_maskable,
);
