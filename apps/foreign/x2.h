/* L4 X.2 on amd64 as a C program sees it: words, ids, virtual registers, system calls.
 *
 * Everything here follows the register tables and layouts of the ABI, and nothing is shared with the Rust library:
 * what kernel and library both get wrong shows in programs that include this file. The constraints of the system
 * calls are those of programs that exist: a call may destroy every register but rsp that is not an output, rbp is
 * pushed around it, and what comes back in rdi is believed. Compile without a red zone, as the calls push.
 */
#ifndef X2_H
#define X2_H

typedef unsigned long word;
typedef unsigned char byte;

/* --- ids --- */

#define X2_NIL 0UL
#define X2_ANY (~0UL)
#define X2_ANY_LOCAL (-64UL)

static inline word x2_id(word number, word version) { return number << 32 | version; }
static inline word x2_number(word id) { return id >> 32; }
static inline int x2_is_local(word id) { return (id & 63) == 0; }

/* --- fpages --- */

#define X2_R 4UL
#define X2_W 2UL
#define X2_X 1UL
#define X2_RWX 7UL
#define X2_COMPLETE 0x10UL
#define X2_PAGE 4096UL

static inline word x2_fpage(word base, word log2, word rights) { return (base & ~0x3FFUL) | log2 << 4 | rights; }

/* --- times --- */

#define X2_NEVER 0UL
#define X2_ZERO 0x400UL

/* A period of about `us` microseconds; mantissa 10 bits, exponent 5. */
static inline word x2_period(word us)
{
    word exponent = 0;
    while (us >= 1024) {
        us >>= 1;
        exponent++;
    }
    return exponent << 10 | us;
}
static inline word x2_timeouts(word snd, word rcv) { return snd << 16 | rcv; }

/* --- tags, items, errors --- */

#define X2_PROPAGATED 0x1000UL
#define X2_ERROR 0x8000UL

static inline word x2_tag(word label, word typed, word untyped) { return label << 16 | typed << 6 | untyped; }
static inline word x2_untyped(word tag) { return tag & 63; }
static inline word x2_typed(word tag) { return tag >> 6 & 63; }
static inline word x2_label(word tag) { return tag >> 16; }
/* The number of a kernel protocol: a negative number above four bits of parameters. */
static inline long x2_protocol(word tag) { return (long)tag >> 20; }
static inline word x2_protocol_label(long number) { return (word)(number * 16) & (~0UL >> 16); }

#define X2_PAGE_FAULT (-2L)
#define X2_EXCEPTION (-5L)
#define X2_SIGMA0 (-6L)
#define X2_SIGMA0_EXTENDED (-1001L)

#define X2_ITEM_MAP 8UL
#define X2_ITEM_GRANT 10UL
static inline word x2_map_item(word send_base) { return (send_base & ~0x3FFUL) | X2_ITEM_MAP; }

/* String items: `parts` pointers follow; STRING_MORE continues the string, STRING_NEXT announces another buffer. */
#define X2_STRING_NEXT 1UL
#define X2_STRING_MORE 0x200UL
static inline word x2_string(word bytes, word parts) { return bytes << 10 | (parts - 1) << 4; }
#define X2_ACCEPT_STRINGS 1UL

/* ErrorCode of an IPC: phase, kind, offset. */
#define X2_SEND_PHASE 0UL
#define X2_RECEIVE_PHASE 1UL
enum { IPC_TIMEOUT = 1, IPC_NO_PARTNER, IPC_CANCELED, IPC_OVERFLOW, IPC_XFER_OWN, IPC_XFER_PARTNER, IPC_ABORTED };
static inline word x2_ipc_error(word kind, word phase, word offset) { return offset << 4 | kind << 1 | phase; }

enum { ERR_PRIVILEGE = 1, ERR_THREAD, ERR_SPACE, ERR_SCHEDULER, ERR_PARAMETER, ERR_UTCB, ERR_KIP, ERR_MEMORY };

/* --- virtual registers --- */

#define X2_UTCB_SIZE 1024UL
#define X2_MR0_OFFSET 0x200UL

/* MR0 of the running thread; its address is the local id. */
static inline word *x2_mr(void)
{
    word *mr;
    __asm__ volatile("mov %%gs:0, %0" : "=r"(mr));
    return mr;
}

/* Thread control registers, in words from MR0. */
enum {
    TCR_WORD_SIZE_MASK = -1, TCR_VIRTUAL_SENDER = -6, TCR_XFER_TIMEOUTS = -8, TCR_ERROR = -9, TCR_PREEMPT = -10,
    TCR_EXCEPTION_HANDLER = -11, TCR_PAGER = -12, TCR_HANDLE = -13, TCR_PROCESSOR = -14, TCR_MY_GLOBAL_ID = -15,
    TCR_BR0 = -16
};
static inline word *x2_tcr(int index) { return x2_mr() + index; }
static inline word *x2_br(int index) { return x2_mr() + TCR_BR0 - index; }
static inline word x2_my_local_id(void) { return (word)x2_mr(); }
static inline word x2_my_id(void) { return *x2_tcr(TCR_MY_GLOBAL_ID); }
static inline word x2_error(void) { return *x2_tcr(TCR_ERROR); }

/* --- kernel interface page --- */

/* Words of the page. */
enum {
    KIP_MAGIC = 0, KIP_VERSION = 1, KIP_FLAGS = 2, KIP_KERNEL_DESC = 3, KIP_SIGMA0 = 8, KIP_SIGMA1 = 12, KIP_ROOT = 16,
    KIP_MEMORY_INFO = 21, KIP_UTCB_INFO = 42, KIP_AREA_INFO = 43, KIP_BOOT_INFO = 46, KIP_PROCESSOR_DESC = 47,
    KIP_CLOCK_INFO = 48, KIP_THREAD_INFO = 49, KIP_PAGE_INFO = 50, KIP_PROCESSOR_INFO = 51, KIP_CALLS = 52,
    KIP_ARCH_CALLS = 68
};
/* Of the four words of a server. */
enum { SERVER_SP, SERVER_IP, SERVER_LOW, SERVER_HIGH };

/* The entries of the calls in the order of the page, copied once at the start: pages with this structure are shared by
 * spaces that have the page elsewhere. */
struct x2_calls {
    void (*space_control)(void), (*thread_control)(void), (*processor_control)(void), (*memory_control)(void);
    void (*ipc)(void), (*lipc)(void), (*unmap)(void), (*exchange_registers)(void);
    void (*system_clock)(void), (*thread_switch)(void), (*schedule)(void);
};
extern struct x2_calls x2_calls;
extern word *x2_kip;

struct x2_interface { word *kip, version, flags, kernel_id; };

static inline struct x2_interface x2_kernel_interface(void)
{
    struct x2_interface i;
    __asm__ volatile(".byte 0xF0, 0x90" : "=a"(i.kip), "=c"(i.version), "=d"(i.flags), "=S"(i.kernel_id));
    return i;
}

static inline word x2_system_base(void) { return x2_kip[KIP_THREAD_INFO] >> 8 & 0xFFF; }
static inline word x2_user_base(void) { return x2_kip[KIP_THREAD_INFO] >> 20 & 0xFFF; }
static inline word x2_sigma0_id(void) { return x2_id(x2_user_base(), 1); }
static inline word x2_root_id(void) { return x2_id(x2_user_base() + 2, 1); }

/* --- system calls --- */

#define X2_CALL(entry) "push %%rbp; call *%[" #entry "]; pop %%rbp"

/* One of the two IPC calls. All message registers go through the processor's and come back through them. */
#define X2_DEFINE_IPC(name, entry_field)                                                                               \
    static inline word name(word to, word from_specifier, word timeouts, word *from)                                   \
    {                                                                                                                  \
        word *mr = x2_mr();                                                                                            \
        word rdx = from_specifier, rax = mr[1], rbx = mr[2];                                                           \
        register word r8 __asm__("r8") = timeouts;                                                                     \
        register word r9 __asm__("r9") = mr[0];                                                                        \
        register word r10 __asm__("r10") = mr[3];                                                                      \
        register word r12 __asm__("r12") = mr[4];                                                                      \
        register word r13 __asm__("r13") = mr[5];                                                                      \
        register word r14 __asm__("r14") = mr[6];                                                                      \
        register word r15 __asm__("r15") = mr[7];                                                                      \
        __asm__ volatile(X2_CALL(entry)                                                                                \
                         : "+S"(to), "+d"(rdx), "+r"(r8), "+r"(r9), "+a"(rax), "+b"(rbx), "+r"(r10), "+r"(r12),        \
                           "+r"(r13), "+r"(r14), "+r"(r15)                                                             \
                         : "D"(mr), [entry] "m"(x2_calls.entry_field)                                                  \
                         : "rcx", "r11", "cc", "memory");                                                              \
        /* The compiler takes rdi for unchanged. */                                                                    \
        mr[0] = r9, mr[1] = rax, mr[2] = rbx, mr[3] = r10, mr[4] = r12, mr[5] = r13, mr[6] = r14, mr[7] = r15;         \
        *from = to;                                                                                                    \
        return r9;                                                                                                     \
    }
X2_DEFINE_IPC(x2_ipc, ipc)
X2_DEFINE_IPC(x2_lipc, lipc)

struct x2_registers { word result, control, sp, ip, flags, handle, pager; };

/* ExchangeRegisters control. */
enum {
    EXREGS_HALT = 1 << 0, EXREGS_ABORT_RECEIVE = 1 << 1, EXREGS_ABORT_SEND = 1 << 2, EXREGS_SP = 1 << 3,
    EXREGS_IP = 1 << 4, EXREGS_FLAGS = 1 << 5, EXREGS_HANDLE = 1 << 6, EXREGS_PAGER = 1 << 7,
    EXREGS_APPLY_HALT = 1 << 8, EXREGS_DELIVER = 1 << 9,
    EXREGS_START = EXREGS_APPLY_HALT | EXREGS_ABORT_SEND | EXREGS_ABORT_RECEIVE
};

static inline struct x2_registers x2_exchange_registers(word dest, struct x2_registers in)
{
    struct x2_registers out;
    register word r8 __asm__("r8") = in.ip;
    register word r9 __asm__("r9") = in.flags;
    register word r10 __asm__("r10") = in.handle;
    __asm__ volatile(X2_CALL(entry)
                     : "+a"(dest), "+S"(in.control), "+d"(in.sp), "+r"(r8), "+r"(r9), "+r"(r10), "+D"(in.pager)
                     : [entry] "m"(x2_calls.exchange_registers)
                     : "rbx", "rcx", "r11", "r12", "r13", "r14", "r15", "cc", "memory");
    out.result = dest, out.control = in.control, out.sp = in.sp, out.ip = r8, out.flags = r9, out.handle = r10;
    out.pager = in.pager;
    return out;
}

static inline word x2_thread_control(word dest, word space, word scheduler, word pager, word utcb)
{
    word result;
    register word r8 __asm__("r8") = space;
    register word r9 __asm__("r9") = utcb;
    __asm__ volatile(X2_CALL(entry)
                     : "=a"(result), "+D"(dest), "+S"(pager), "+d"(scheduler), "+r"(r8), "+r"(r9)
                     : [entry] "m"(x2_calls.thread_control)
                     : "rbx", "rcx", "r10", "r11", "r12", "r13", "r14", "r15", "cc", "memory");
    return result;
}

static inline word x2_system_clock(void)
{
    word clock = 0x5A5A5A5A5A5A5A5A;
    __asm__ volatile(X2_CALL(entry)
                     : "+a"(clock)
                     : [entry] "m"(x2_calls.system_clock)
                     : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "cc",
                       "memory");
    return clock;
}

static inline void x2_thread_switch(word dest)
{
    __asm__ volatile(X2_CALL(entry)
                     : "+D"(dest)
                     : [entry] "m"(x2_calls.thread_switch)
                     : "rax", "rbx", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "cc",
                       "memory");
}

static inline word x2_schedule(word dest, word time, word processor, word priority, word preemption, word *old_time)
{
    word result;
    register word r8 __asm__("r8") = processor;
    register word r9 __asm__("r9") = preemption;
    __asm__ volatile(X2_CALL(entry)
                     : "=a"(result), "+D"(dest), "+S"(priority), "+d"(time), "+r"(r8), "+r"(r9)
                     : [entry] "m"(x2_calls.schedule)
                     : "rbx", "rcx", "r10", "r11", "r12", "r13", "r14", "r15", "cc", "memory");
    *old_time = time;
    return result;
}

#define X2_FLUSH 0x40UL

/* Revokes the rights in the fpages MR0 to MRcount-1, whose places take the status. The kernel says where the registers
 * are. */
static inline void x2_unmap(word control)
{
    word *mr = x2_mr();
    word rax = mr[1], rbx = mr[2];
    register word r9 __asm__("r9") = mr[0];
    register word r10 __asm__("r10") = mr[3];
    register word r12 __asm__("r12") = mr[4];
    register word r13 __asm__("r13") = mr[5];
    register word r14 __asm__("r14") = mr[6];
    register word r15 __asm__("r15") = mr[7];
    __asm__ volatile(X2_CALL(entry)
                     : "+D"(mr), "+d"(control), "+r"(r9), "+a"(rax), "+b"(rbx), "+r"(r10), "+r"(r12), "+r"(r13),
                       "+r"(r14), "+r"(r15)
                     : [entry] "m"(x2_calls.unmap)
                     : "rcx", "rsi", "r8", "r11", "cc", "memory");
    mr[0] = r9, mr[1] = rax, mr[2] = rbx, mr[3] = r10, mr[4] = r12, mr[5] = r13, mr[6] = r14, mr[7] = r15;
}

static inline word x2_space_control(word space, word control, word kip_area, word utcb_area, word redirector, word *old)
{
    word result;
    register word r8 __asm__("r8") = utcb_area;
    register word r9 __asm__("r9") = redirector;
    __asm__ volatile(X2_CALL(entry)
                     : "=a"(result), "+D"(space), "+S"(control), "+d"(kip_area), "+r"(r8), "+r"(r9)
                     : [entry] "m"(x2_calls.space_control)
                     : "rbx", "rcx", "r10", "r11", "r12", "r13", "r14", "r15", "cc", "memory");
    *old = kip_area;
    return result;
}

static inline word x2_processor_control(word number, word internal_khz, word external_khz, word voltage)
{
    word result;
    register word r8 __asm__("r8") = voltage;
    __asm__ volatile(X2_CALL(entry)
                     : "=a"(result), "+D"(number), "+S"(internal_khz), "+d"(external_khz), "+r"(r8)
                     : [entry] "m"(x2_calls.processor_control)
                     : "rbx", "rcx", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "cc", "memory");
    return result;
}

/* Attributes in rcx, rsi, r8 and r11, fpages in the message registers. What comes back in rax and rcx goes to the
 * registers of the UTCB that comes back in rdi. */
static inline word x2_memory_control(word control, const word attributes[4])
{
    word *mr = x2_mr();
    word rax = mr[1], rbx = mr[2], rcx = attributes[0], rsi = attributes[1];
    register word r8 __asm__("r8") = attributes[2];
    register word r11 __asm__("r11") = attributes[3];
    register word r9 __asm__("r9") = mr[0];
    register word r10 __asm__("r10") = mr[3];
    register word r12 __asm__("r12") = mr[4];
    register word r13 __asm__("r13") = mr[5];
    register word r14 __asm__("r14") = mr[6];
    register word r15 __asm__("r15") = mr[7];
    __asm__ volatile(X2_CALL(entry)
                     : "+d"(control), "+D"(mr), "+c"(rcx), "+S"(rsi), "+r"(r8), "+r"(r11), "+r"(r9), "+a"(rax),
                       "+b"(rbx), "+r"(r10), "+r"(r12), "+r"(r13), "+r"(r14), "+r"(r15)
                     : [entry] "m"(x2_calls.memory_control)
                     : "cc", "memory");
    mr[0] = rcx, mr[1] = rax;
    return control;
}

/* --- the usual combinations --- */

static inline word x2_send(word to, word timeout)
{
    word from;
    return x2_ipc(to, X2_NIL, x2_timeouts(timeout, X2_NEVER), &from);
}

static inline word x2_receive(word partner, word timeout)
{
    word from;
    return x2_ipc(X2_NIL, partner, x2_timeouts(X2_NEVER, timeout), &from);
}

static inline word x2_wait(word *from) { return x2_ipc(X2_NIL, X2_ANY, X2_NEVER, from); }

static inline word x2_call(word to)
{
    word from;
    return x2_ipc(to, to, X2_NEVER, &from);
}

static inline word x2_reply_wait(word to, word *from)
{
    return x2_ipc(to, X2_ANY, x2_timeouts(X2_ZERO, X2_NEVER), from);
}

/* Waits for itself, in vain. */
static inline void x2_sleep(word period) { x2_mr()[0] = x2_receive(x2_my_id(), period); }

static inline word x2_start(word thread, word sp, word ip)
{
    struct x2_registers in = {.control = EXREGS_START | EXREGS_SP | EXREGS_IP, .sp = sp, .ip = ip};
    return x2_exchange_registers(thread, in).result;
}

static inline word x2_global_id_of(word local)
{
    struct x2_registers in = {.control = 0};
    return x2_is_local(local) ? x2_exchange_registers(local, in).result : local;
}

/* Flushes one page, all rights; returns the page with its status. */
static inline word x2_flush_page(word address)
{
    x2_mr()[0] = x2_fpage(address, 12, X2_RWX);
    x2_unmap(X2_FLUSH);
    return x2_mr()[0];
}

/* Asks sigma0 for 2^log2 bytes at `address` (bit 3 of which may say that a third word follows), to be mapped into
 * `window`; returns the fpage, 0 if refused. */
static inline word x2_sigma0_request(word fpage, word untyped, word attribute, word window)
{
    word *mr = x2_mr();
    *x2_br(0) = window;
    mr[0] = x2_tag(x2_protocol_label(X2_SIGMA0), 0, untyped);
    mr[1] = fpage, mr[2] = attribute, mr[3] = 0;
    word tag = x2_call(x2_sigma0_id());
    *x2_br(0) = 0;
    return (tag & X2_ERROR) != 0 || x2_typed(tag) != 2 ? 0 : mr[2];
}

static inline word x2_sigma0_page(word address, word log2)
{
    return x2_sigma0_request(x2_fpage(address, log2, X2_RWX), 2, 0, X2_COMPLETE);
}

/* Any page: all ones for the base, bit 3 among them, so there is a third word. */
static inline word x2_sigma0_any(word log2)
{
    return x2_sigma0_request((~0UL & ~0x3F7UL) | log2 << 4 | X2_RWX, 3, 0, X2_COMPLETE);
}

#endif
