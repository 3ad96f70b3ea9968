//! The IPC fast path: a call, reply-and-wait or send with untyped words to a thread that is already waiting.
//!
//! It accepts exactly this state, and leaves every other one, untouched, to the general path:
//!
//! - the tag has no flags and no typed words; the receive timeout is "never" (the send timeout does not matter, as the
//!   receiver is there);
//! - `to` is the exact global id of a thread in a *plain* wait ([`kcore::thread::Tcb::waits_for`]) for the caller or for
//!   anythread;
//! - the caller's receive phase is closed on that same thread, or open with no sender queued; or it has none, and the receiver
//!   is not above it in priority;
//! - no floating-point state is live in the processor, nobody is queued on the caller in another's name (a closed wait
//!   might be for that name), the caller's space has no redirector, the caller is not delaying a preemption, it is not time to
//!   weigh whom it hands the processor to (it runs on a slice without end), and `gs` is what the kernel left there.
//!
//! A thread of the caller's own space may be named by its local id, too, for both phases, if its UTCB is in the page of the
//! caller's.
//!
//! Then the effects are those of the general path. Who only sends goes on: the receiver becomes ready, behind its equals, with
//! the message in its saved registers. Else the caller waits plainly, the message is the receiver's, and the
//! receiver runs on the caller's time slice. Everything stays in registers but what the two threads need later: the
//! caller's stack pointer and flags in its TCB, and its own MR1 to MR7 in its UTCB, because words that a message does not
//! carry must come back to the receiver as they were. Both return to the same place, the stub of Ipc.
//!
//! ```text
//! in:   rsi to, rdx from, r8 timeouts, rcx address behind SYSCALL, r11 user flags, rsp user stack,
//!       r9 rax rbx r10 r12 r13 r14 r15 = MR0..MR7
//! out:  rsi from, rdi local id, MR0..MR7 as above
//! work: rbp caller's TCB offset, rcx receiver's, r11, in the end rdx; of these only what the receiver may know goes out
//! ```

use core::arch::global_asm;
use core::mem::offset_of;

use kcore::list::Link;
use kcore::sched::ready_queue::ReadyQueue;
use kcore::thread::{Purpose, TCB_SIZE_LOG2, Tcb};
use khal::desc::Selector;
use l4_abi::{MsgTag, THREAD_ID_BITS, THREAD_NO_SHIFT, ThreadId, UTCB_MR0_OFFSET, UTCB_MY_GLOBAL_ID_OFFSET, UTCB_SIZE};

use crate::area::{Area, Porch};
use crate::config;
use crate::frame::Frame;
use crate::layout;
use crate::stubs;

/// Tag bits that the fast path does not take: typed words and flags.
const SLOW_TAG_BITS: u64 = 0x3F << 6 | MsgTag::FLAGS;
/// The bits in which the local ids of UTCBs in one page differ. Kernel addresses of UTCBs differ in the same ones.
const LOCAL_IDS_IN_PAGE: i64 = 4096 - UTCB_SIZE as i64;
/// The bits of a TCB offset.
const OFFSET_MASK: u64 = ((1 << THREAD_ID_BITS) - 1) << TCB_SIZE_LOG2;

global_asm!(
    // To label 80 and the number of words in edx, which are at least one, 87 at most: past what is done for words that a message
    // has not. Goes on behind where there are more words than registers. The number is taken apart by its parity first, which
    // the "and" has left: that way no number takes more than seven steps. An indirect jump would take three, but could be
    // led astray.
    ".macro skip_words",
    "jp 71f",
    "cmp edx, 2",
    "jb 81b",
    "je 82b",
    "cmp edx, 7",
    "jb 84b",
    "je 87b",
    "jmp 72f",
    "71:",
    "cmp edx, 5",
    "jb 83b",
    "je 85b",
    "cmp edx, 6",
    "je 86b",
    "72:",
    ".endm",
    // The way out to the receiver at rcx: its pointer to the UTCB, its stack and flags, its own words where the message has
    // none, or the words beyond the registers. rbp is still the sender; rsi is set.
    ".macro leave_to_receiver which",
    "mov rdi, [rcx + {tcbs} + {local_id}]",
    "mov [rip + area_utcb_slot], rdi",
    "mov rsp, [rcx + {tcbs} + {sp}]",
    "mov r11, [rcx + {tcbs} + {flags}]",
    "mov rcx, [rcx + {tcbs} + {utcb}]",
    "mov edx, r9d",
    "and edx, 63",
    "jnz 70f",
    "mov rax, [rcx + {mr} + 1*8]",
    "81: mov rbx, [rcx + {mr} + 2*8]",
    "82: mov r10, [rcx + {mr} + 3*8]",
    "83: mov r12, [rcx + {mr} + 4*8]",
    "84: mov r13, [rcx + {mr} + 5*8]",
    "85: mov r14, [rcx + {mr} + 6*8]",
    "86: mov r15, [rcx + {mr} + 7*8]",
    // Where buffers must be cleared, a jump is written over the end.
    ".global fast_exit_\\which",
    "fast_exit_\\which:",
    "87: mov rcx, {ipc_return}",
    "sysretq",
    "70:",
    "skip_words",
    "mov r8, rsi",
    "mov rsi, [rbp + {tcbs} + {utcb}]",
    "add rsi, {mr} + 8*8",
    "mov rbp, rdi",
    "lea rdi, [rcx + {mr} + 8*8]",
    "lea ecx, [rdx - 7]",
    "rep movsq",
    "mov rsi, r8",
    "mov rdi, rbp",
    "jmp 87b",
    ".endm",
    // MR1 to MR7 into the UTCB at r11.
    ".macro store_words",
    "mov [r11 + {mr} + 1*8], rax",
    "mov [r11 + {mr} + 2*8], rbx",
    "mov [r11 + {mr} + 3*8], r10",
    "mov [r11 + {mr} + 4*8], r12",
    "mov [r11 + {mr} + 5*8], r13",
    "mov [r11 + {mr} + 6*8], r14",
    "mov [r11 + {mr} + 7*8], r15",
    ".endm",
    // Word `number` of the UTCB at r11 into the frame at rdi.
    ".macro own_word number, place",
    "mov rsi, [r11 + {mr} + \\number*8]",
    "mov [rdi + \\place], rsi",
    ".endm",
    ".pushsection .area_code, \"ax\"",
    ".balign 64",
    ".global syscall_entry",
    "syscall_entry:",
    // Which stub: the address behind SYSCALL tells.
    "cmp rcx, {ipc_return}",
    "jne general_syscall",
    "syscall_of_ipc:",
    "mov rbp, [rip + area_data + {current}]",
    "mov [rbp + {tcbs} + {flags}], r11",
    "test r8w, r8w",
    "jnz 8f",
    "test r9d, {slow_tag_bits}",
    "jnz 8f",
    // The receiver: exactly this id, waiting for us or for anybody.
    "mov rcx, rsi",
    "shr rcx, {offset_shift}",
    "and ecx, {offset_mask}",
    "cmp [rcx + {tcbs} + {id}], rsi",
    "jne 9f",
    "mov r11, [rcx + {tcbs} + {waits_for}]",
    "cmp r11, [rbp + {tcbs} + {plain_name}]",
    "jne 3f",
    // Our own receive phase finds nobody queued.
    "2:",
    "cmp rdx, rsi",
    "jne 4f",
    // gs is as we left it, no floating-point registers are live, nobody is queued on the caller in another's name, there
    // is no redirector, and no preemption is delayed: else nothing equals the selector.
    "5:",
    "mov r11d, gs",
    "cmp r11d, [rip + area_data + {fast_gs}]",
    "jne 8f",
    // From here on it happens. The caller waits.
    "7:",
    "mov [rbp + {tcbs} + {sp}], rsp",
    "xor rdx, [rip + area_data + {plain_mark}]",
    "mov [rbp + {tcbs} + {waits_for}], rdx",
    "mov r11, [rbp + {tcbs} + {utcb}]",
    "store_words",
    // The receiver runs, in its space, and knows the sender by its global id, or in the same space by its local one.
    "mov qword ptr [rcx + {tcbs} + {waits_for}], 0",
    "mov [rip + area_data + {current}], rcx",
    "mov r11, [rcx + {tcbs} + {space_word}]",
    "cmp r11, [rip + area_data + {space}]",
    "je 6f",
    "mov [rip + area_data + {space}], r11",
    // Four bytes, which do nothing where spaces do not show the kernel.
    ".global fast_path_space_load",
    "fast_path_space_load:",
    "mov cr3, r11",
    ".if . - fast_path_space_load != 4",
    ".error \"no place for another instruction\"",
    ".endif",
    "mov rsi, [rbp + {tcbs} + {id}]",
    "leave_to_receiver other_space",
    "6:",
    "mov rsi, [rbp + {tcbs} + {local_id}]",
    "leave_to_receiver same_space",
    // The caller is not awaited by name.
    "3:",
    "cmp r11, [rip + area_data + {plain_any}]",
    "je 2b",
    // Without other processors, that is all.
    ".if {is_multiprocessor}",
    // Does the receiver run here? If not, the caller goes there: with its words in its UTCB that needs no more registers.
    "movzx r11d, word ptr [rcx + {tcbs} + {affinity}]",
    "cmp r11w, [rip + area_data + {number}]",
    "je 8f",
    "mov [rbp + {tcbs} + {sp}], rsp",
    "mov qword ptr [rbp + {tcbs} + {ip}], {ipc_return}",
    "mov r11, [rbp + {tcbs} + {utcb}]",
    "mov [r11 + {mr}], r9",
    "store_words",
    "mov rdi, rcx",
    "mov rcx, r8",
    "lea rsp, [rip + area_stack_top]",
    "xor ebp, ebp",
    "call {ipc_elsewhere}",
    "99:",
    ".pushsection .area_calls, \"a\"",
    ".quad 99b",
    ".popsection",
    "ud2",
    ".else",
    "jmp 8f",
    ".endif",
    // The caller does not wait for the receiver by name.
    "4:",
    "cmp rdx, {anythread}",
    "jne 30f",
    "cmp dword ptr [rbp + {tcbs} + {send_queue}], 0",
    "je 5b",
    "jmp 8f",
    // A local id of a thread whose UTCB is in our page? That UTCB says who it is, and its TCB whether that is so. All is
    // asked that is asked of others before the ids change: the general path must get them as they came.
    "9:",
    "mov r11, [rbp + {tcbs} + {local_id}]",
    "xor r11, rsi",
    "test r11, {not_in_page}",
    "jnz 8f",
    "xor r11, [rbp + {tcbs} + {utcb}]",
    "mov r11, [r11 + {my_global_id}]",
    "mov rcx, r11",
    "shr rcx, {offset_shift}",
    "and ecx, {offset_mask}",
    "cmp [rcx + {tcbs} + {id}], r11",
    "jne 8f",
    "cmp [rcx + {tcbs} + {local_id}], rsi",
    "jne 8f",
    "mov r11, [rcx + {tcbs} + {space_word}]",
    "cmp r11, [rbp + {tcbs} + {space_word}]",
    "jne 8f",
    "mov r11d, gs",
    "cmp r11d, [rip + area_data + {fast_gs}]",
    "jne 8f",
    "mov r11, [rcx + {tcbs} + {waits_for}]",
    "cmp r11, [rbp + {tcbs} + {plain_name}]",
    "je 20f",
    "cmp r11, [rip + area_data + {plain_any}]",
    "jne 8f",
    "20:",
    "cmp rdx, rsi",
    "je 21f",
    "cmp rdx, {anythread}",
    "jne 31f",
    "cmp dword ptr [rbp + {tcbs} + {send_queue}], 0",
    "je 7b",
    "jmp 8f",
    "21:",
    "mov rdx, [rcx + {tcbs} + {id}]",
    "jmp 7b",
    // The caller receives from nobody, or from another one.
    ".global fast_path_send",
    "fast_path_send:",
    "30:",
    "mov r11d, gs",
    "cmp r11d, [rip + area_data + {fast_gs}]",
    "jne 8f",
    "31:",
    "test rdx, rdx",
    "jnz 8f",
    // It goes on, unless the receiver is above it.
    "movzx r11d, byte ptr [rcx + {tcbs} + {priority}]",
    "cmp byte ptr [rbp + {tcbs} + {priority}], r11b",
    "jb 8f",
    // From here on it happens. The receiver waits no more, and is ready: behind the last of its priority, which the first
    // knows, or alone. In lists a thread is its number and one: so much further is its TCB, too.
    "mov qword ptr [rcx + {tcbs} + {waits_for}], 0",
    "mov byte ptr [rcx + {tcbs} + {purpose}], {purpose_user}",
    "mov qword ptr [rcx + {tcbs} + {ip}], {ipc_return}",
    "lea rdi, [rip + area_data + {ready}]",
    "lea esi, [rcx + {tcb_bytes}]",
    "shr esi, {tcb_size_log2}",
    "mov edx, [rdi + r11*4 + {heads}]",
    "test edx, edx",
    "jz 32f",
    "mov r8d, edx",
    "shl rdx, {tcb_size_log2}",
    "mov edi, [rdx + {tcbs} - {tcb_bytes} + {ready_prev}]",
    "mov [rdx + {tcbs} - {tcb_bytes} + {ready_prev}], esi",
    "mov [rcx + {tcbs} + {ready_next}], r8d",
    "mov [rcx + {tcbs} + {ready_prev}], edi",
    "shl rdi, {tcb_size_log2}",
    "mov [rdi + {tcbs} - {tcb_bytes} + {ready_next}], esi",
    "33:",
    // Its registers: the sender, itself, the tag, the words of the message, and its own where the message has none. Those beyond
    // the registers go from UTCB to UTCB.
    "lea rdi, [rcx*2 + {frames}]",
    "mov r11, [rcx + {tcbs} + {utcb}]",
    "mov rsi, [rbp + {tcbs} + {id}]",
    "mov rdx, [rcx + {tcbs} + {space_word}]",
    "cmp rdx, [rip + area_data + {space}]",
    "cmove rsi, [rbp + {tcbs} + {local_id}]",
    "mov [rdi + {frame_rsi}], rsi",
    "mov rsi, [rcx + {tcbs} + {local_id}]",
    "mov [rdi + {frame_rdi}], rsi",
    "mov [rdi + {frame_r9}], r9",
    "mov [rdi + {frame_rax}], rax",
    "mov [rdi + {frame_rbx}], rbx",
    "mov [rdi + {frame_r10}], r10",
    "mov [rdi + {frame_r12}], r12",
    "mov [rdi + {frame_r13}], r13",
    "mov [rdi + {frame_r14}], r14",
    "mov [rdi + {frame_r15}], r15",
    "mov edx, r9d",
    "and edx, 63",
    "jnz 70f",
    "own_word 1, {frame_rax}",
    "81: own_word 2, {frame_rbx}",
    "82: own_word 3, {frame_r10}",
    "83: own_word 4, {frame_r12}",
    "84: own_word 5, {frame_r13}",
    "85: own_word 6, {frame_r14}",
    "86: own_word 7, {frame_r15}",
    // The caller goes on with its own words, and with no address of the kernel.
    "87:",
    "xor esi, esi",
    "mov rdi, [rbp + {tcbs} + {local_id}]",
    "mov r11, [rbp + {tcbs} + {flags}]",
    "xor r8d, r8d",
    ".global fast_exit_after_send",
    "fast_exit_after_send:",
    "mov rcx, {ipc_return}",
    "sysretq",
    "70:",
    "skip_words",
    "mov rsi, [rbp + {tcbs} + {utcb}]",
    "add rsi, {mr} + 8*8",
    "lea rdi, [r11 + {mr} + 8*8]",
    "lea ecx, [rdx - 7]",
    "rep movsq",
    "jmp 87b",
    // Nobody of its priority is ready.
    "32:",
    "mov [rdi + r11*4 + {heads}], esi",
    "mov [rcx + {tcbs} + {ready_next}], esi",
    "mov [rcx + {tcbs} + {ready_prev}], esi",
    "mov edx, r11d",
    "shr edx, 6",
    "mov rsi, [rdi + rdx*8 + {occupied}]",
    "bts rsi, r11",
    "mov [rdi + rdx*8 + {occupied}], rsi",
    "jmp 33b",
    "8:",
    "mov r11, [rbp + {tcbs} + {flags}]",
    "mov rcx, {ipc_return}",
    "jmp general_syscall",
    // The end where the processor's buffers must not hold what the kernel has touched: VERW of a segment that can be
    // written clears them. It leaves all registers alone.
    ".balign 16, 0xCC",
    ".global fast_exit_clearing",
    "fast_exit_clearing:",
    "verw word ptr [rip + fast_exit_segment]",
    "mov rcx, {ipc_return}",
    "sysretq",
    "fast_exit_segment: .word {user_data}",
    // Entry and end where spaces do not show the kernel. A call of Ipc comes from one address, so the register that holds it
    // is free. The page of this code is shown.
    ".balign 16, 0xCC",
    ".global syscall_isolated, general_syscall_isolated, fast_exit_isolated, fast_exit_isolated_end",
    "syscall_isolated:",
    "cmp rcx, {ipc_return}",
    "jne general_syscall_isolated",
    "mov rcx, [rip + area_porch + {kernel_word}]",
    "mov cr3, rcx",
    "jmp syscall_of_ipc",
    "general_syscall_isolated:",
    "mov [rip + area_porch + {porch_user_stack}], rsp",
    "mov rsp, [rip + area_porch + {kernel_word}]",
    "mov cr3, rsp",
    "mov rsp, [rip + area_porch + {porch_user_stack}]",
    "jmp general_syscall",
    "fast_exit_isolated:",
    "mov rcx, [rip + area_data + {space}]",
    "mov cr3, rcx",
    "fast_exit_isolated_end:",
    "mov rcx, {ipc_return}",
    "sysretq",
    ".popsection",
    ipc_return = const stubs::IPC_RETURN as i64,
    ipc_elsewhere = sym super::ipc_elsewhere,
    is_multiprocessor = const config::SMP as u8,
    affinity = const offset_of!(Tcb, affinity),
    number = const offset_of!(Area, number),
    ip = const offset_of!(Tcb, ip),
    current = const offset_of!(Area, cpu.current),
    fast_gs = const offset_of!(Area, fast_gs),
    space = const offset_of!(Area, space_word),
    kernel_word = const offset_of!(Porch, kernel_word),
    porch_user_stack = const offset_of!(Porch, user_stack),
    tcbs = const layout::TCB_TABLE as isize,
    frames = const layout::FRAME_TABLE as isize,
    tcb_bytes = const 1 << TCB_SIZE_LOG2,
    tcb_size_log2 = const TCB_SIZE_LOG2,
    id = const offset_of!(Tcb, id),
    waits_for = const offset_of!(Tcb, waits_for),
    plain_name = const offset_of!(Tcb, plain_name),
    plain_mark = const offset_of!(Area, plain_mark),
    plain_any = const offset_of!(Area, plain_any),
    utcb = const offset_of!(Tcb, utcb),
    space_word = const offset_of!(Tcb, space_word),
    sp = const offset_of!(Tcb, sp),
    flags = const offset_of!(Tcb, flags),
    local_id = const offset_of!(Tcb, local_id),
    send_queue = const offset_of!(Tcb, send_queue),
    priority = const offset_of!(Tcb, priority),
    purpose = const offset_of!(Tcb, purpose),
    purpose_user = const Purpose::User as u8,
    ready_next = const offset_of!(Tcb, ready_link) + Link::NEXT_OFFSET,
    ready_prev = const offset_of!(Tcb, ready_link) + Link::PREV_OFFSET,
    ready = const offset_of!(Area, cpu.ready),
    heads = const ReadyQueue::HEADS_OFFSET,
    occupied = const ReadyQueue::OCCUPIED_OFFSET,
    frame_rax = const offset_of!(Frame, rax),
    frame_rbx = const offset_of!(Frame, rbx),
    frame_rsi = const offset_of!(Frame, rsi),
    frame_rdi = const offset_of!(Frame, rdi),
    frame_r9 = const offset_of!(Frame, r9),
    frame_r10 = const offset_of!(Frame, r10),
    frame_r12 = const offset_of!(Frame, r12),
    frame_r13 = const offset_of!(Frame, r13),
    frame_r14 = const offset_of!(Frame, r14),
    frame_r15 = const offset_of!(Frame, r15),
    mr = const UTCB_MR0_OFFSET,
    my_global_id = const UTCB_MY_GLOBAL_ID_OFFSET,
    not_in_page = const !LOCAL_IDS_IN_PAGE,
    slow_tag_bits = const SLOW_TAG_BITS,
    offset_shift = const THREAD_NO_SHIFT - TCB_SIZE_LOG2,
    offset_mask = const OFFSET_MASK,
    anythread = const ThreadId::ANY.raw() as i64,
    user_data = const Selector::USER_DATA.0,
);
