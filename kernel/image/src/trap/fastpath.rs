//! The IPC fast path: a call or reply-and-wait with untyped words to a thread that is already waiting.
//!
//! It accepts exactly this state, and leaves every other one, untouched, to the general path:
//!
//! - the tag has no flags and no typed words; the receive timeout is "never" (the send timeout does not matter, as the
//!   receiver is there);
//! - `to` is the exact global id of a thread in a *plain* wait ([`kcore::thread::Tcb::waits_for`]) for the caller or for
//!   anythread;
//! - the caller's receive phase is closed on that same thread, or open with no sender queued;
//! - no floating-point state is live in the processor, `gs` is what the kernel left there, and the return address is
//!   an ordinary user address.
//!
//! Then the effects are those of the general path: the caller waits plainly, the message is the receiver's, and the
//! receiver runs on the caller's time slice. Everything stays in registers but what the two threads need later: the
//! caller's return state in its TCB, and its own MR1 to MR7 in its UTCB, because words that a message does not carry
//! must come back to the receiver as they were.
//!
//! ```text
//! in:   rsi to, rdx from, r8 timeouts, rdi return address (popped by the stub), rcx address behind SYSCALL,
//!       r11 user flags, rsp user stack, r9 rax rbx r10 r12 r13 r14 r15 = MR0..MR7
//! out:  rsi from, rdi local id, MR0..MR7 as above
//! work: rbp caller's TCB offset, rcx receiver's, r11
//! ```

use core::arch::global_asm;
use core::mem::offset_of;

use kcore::sched::Cpu;
use kcore::thread::{TCB_SIZE_LOG2, Tcb};
use khal::desc::Selector;
use l4_abi::{MsgTag, THREAD_ID_BITS, THREAD_NO_SHIFT, ThreadId, UTCB_MR0_OFFSET};

use crate::layout;
use crate::percpu::{CPUS, PER_CPU, PerCpu};
use crate::stubs;

/// Tag bits that the fast path does not take: typed words and flags.
const SLOW_TAG_BITS: u64 = 0x3F << 6 | MsgTag::FLAGS;
/// Bits of the number of untyped words that are set when the message goes beyond the registers.
const BEYOND_REGISTERS: u64 = 0x38;
/// The bits of a TCB offset.
const OFFSET_MASK: u64 = ((1 << THREAD_ID_BITS) - 1) << TCB_SIZE_LOG2;

global_asm!(
    ".pushsection .text.entry, \"ax\"",
    ".balign 64",
    ".global syscall_entry",
    "syscall_entry:",
    // Which stub: its return address tells. A program that forges it merely makes another call.
    "cmp cl, {ipc_return}",
    "jne general_syscall",
    "mov rbp, [rip + {cpus} + {current}]",
    "mov [rbp + {tcbs} + {flags}], r11",
    "test r8w, r8w",
    "jnz 9f",
    "test r9d, {slow_tag_bits}",
    "jnz 9f",
    // The receiver: exactly this id, waiting for us or for anybody.
    "mov rcx, rsi",
    "shr rcx, {offset_shift}",
    "and ecx, {offset_mask}",
    "cmp [rcx + {tcbs} + {id}], rsi",
    "jne 9f",
    "mov r11, [rcx + {tcbs} + {waits_for}]",
    "cmp r11, [rbp + {tcbs} + {id}]",
    "je 2f",
    "cmp r11, {anythread}",
    "jne 9f",
    "2:",
    // Our own receive phase finds nobody queued.
    "cmp rdx, rsi",
    "je 3f",
    "cmp rdx, {anythread}",
    "jne 9f",
    "cmp dword ptr [rbp + {tcbs} + {send_queue}], 0",
    "jne 9f",
    "3:",
    "cmp byte ptr [rip + {per_cpu} + {fpu_is_live}], 0",
    "jne 9f",
    "mov r11d, gs",
    "cmp r11d, {user_gs}",
    "jne 9f",
    "mov r11, rdi",
    "shr r11, {user_bits}",
    "jnz 9f",
    // From here on it happens. The caller waits.
    "mov [rbp + {tcbs} + {ip}], rdi",
    "mov [rbp + {tcbs} + {sp}], rsp",
    "mov [rbp + {tcbs} + {waits_for}], rdx",
    "mov r11, [rbp + {tcbs} + {utcb}]",
    "mov [r11 + {mr} + 1*8], rax",
    "mov [r11 + {mr} + 2*8], rbx",
    "mov [r11 + {mr} + 3*8], r10",
    "mov [r11 + {mr} + 4*8], r12",
    "mov [r11 + {mr} + 5*8], r13",
    "mov [r11 + {mr} + 6*8], r14",
    "mov [r11 + {mr} + 7*8], r15",
    "mov r8, [rcx + {tcbs} + {utcb}]",
    // The words beyond the registers. rsi, rdi and rdx are free: what they held is stored, or comes from the TCB.
    "test r9d, {beyond_registers}",
    "jnz 5f",
    "4:",
    // The receiver runs.
    "mov qword ptr [rcx + {tcbs} + {waits_for}], 0",
    "mov [rip + {cpus} + {current}], rcx",
    "mov r11, [rcx + {tcbs} + {space_word}]",
    "mov rsi, [rbp + {tcbs} + {local_id}]",
    "cmp r11, [rip + {per_cpu} + {space}]",
    "je 6f",
    "mov [rip + {per_cpu} + {space}], r11",
    "mov cr3, r11",
    "mov rsi, [rbp + {tcbs} + {id}]",
    "6:",
    "mov rdi, [rcx + {tcbs} + {local_id}]",
    "mov [rip + {utcb_slot}], rdi",
    "mov rsp, [rcx + {tcbs} + {sp}]",
    "mov r11, [rcx + {tcbs} + {flags}]",
    "mov rcx, [rcx + {tcbs} + {ip}]",
    // The receiver's own words where the message has none.
    "mov edx, r9d",
    "and edx, 63",
    "cmp edx, 7",
    "jae 7f",
    "lea rbp, [rip + 8f]",
    "movzx edx, byte ptr [rip + 10f + rdx]",
    "add rbp, rdx",
    "jmp rbp",
    "8:",
    "mov rax, [r8 + {mr} + 1*8]",
    "81: mov rbx, [r8 + {mr} + 2*8]",
    "82: mov r10, [r8 + {mr} + 3*8]",
    "83: mov r12, [r8 + {mr} + 4*8]",
    "84: mov r13, [r8 + {mr} + 5*8]",
    "85: mov r14, [r8 + {mr} + 6*8]",
    "86: mov r15, [r8 + {mr} + 7*8]",
    // Neither kernel addresses nor others' thread numbers go out.
    "7:",
    "xor r8d, r8d",
    "xor ebp, ebp",
    "sysretq",
    "5:",
    "mov r11, rcx",
    "mov ecx, r9d",
    "and ecx, 63",
    "sub ecx, 7",
    "mov rsi, [rbp + {tcbs} + {utcb}]",
    "add rsi, {mr} + 8*8",
    "lea rdi, [r8 + {mr} + 8*8]",
    "rep movsq",
    "mov rcx, r11",
    "jmp 4b",
    "9:",
    "mov r11, [rbp + {tcbs} + {flags}]",
    "mov rcx, {ipc_stub_return}",
    "jmp general_syscall",
    ".popsection",
    ".pushsection .rodata.entry, \"a\"",
    "10: .byte 0, 81b - 8b, 82b - 8b, 83b - 8b, 84b - 8b, 85b - 8b, 86b - 8b",
    ".popsection",
    ipc_return = const stubs::IPC_RETURN & 0xFF,
    ipc_stub_return = const stubs::IPC_RETURN,
    cpus = sym CPUS,
    current = const offset_of!(Cpu, current),
    per_cpu = sym PER_CPU,
    fpu_is_live = const offset_of!(PerCpu, fpu_is_live),
    space = const offset_of!(PerCpu, space_word),
    utcb_slot = sym crate::percpu::UTCB_SLOTS,
    tcbs = const layout::TCB_TABLE as isize,
    id = const offset_of!(Tcb, id),
    waits_for = const offset_of!(Tcb, waits_for),
    utcb = const offset_of!(Tcb, utcb),
    space_word = const offset_of!(Tcb, space_word),
    ip = const offset_of!(Tcb, ip),
    sp = const offset_of!(Tcb, sp),
    flags = const offset_of!(Tcb, flags),
    local_id = const offset_of!(Tcb, local_id),
    send_queue = const offset_of!(Tcb, send_queue),
    mr = const UTCB_MR0_OFFSET,
    slow_tag_bits = const SLOW_TAG_BITS,
    beyond_registers = const BEYOND_REGISTERS,
    offset_shift = const THREAD_NO_SHIFT - TCB_SIZE_LOG2,
    offset_mask = const OFFSET_MASK,
    anythread = const ThreadId::ANY.raw() as i64,
    user_gs = const Selector::USER_GS.0,
    user_bits = const layout::USER_ADDRESS_BITS,
);
