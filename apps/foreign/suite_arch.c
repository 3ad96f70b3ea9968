/* What only amd64 has: the state at the start, exceptions, floating point. */
#include "suite.h"

enum { FIRST = 1, THIRD = 3 };

/* --- the start --- */

/* rax, rbx, rcx, rdx, rsi, rdi, rbp, r8 to r15, rsp, flags, cs, ss, ds, gs. */
extern word start_registers[21];
word start_registers[21];
void record_start(void);
__asm__(".text\n"
        "record_start:\n"
        "mov %rax, start_registers\n"
        "mov %rbx, start_registers+8\n"
        "mov %rcx, start_registers+16\n"
        "mov %rdx, start_registers+24\n"
        "mov %rsi, start_registers+32\n"
        "mov %rdi, start_registers+40\n"
        "mov %rbp, start_registers+48\n"
        "mov %r8, start_registers+56\n"
        "mov %r9, start_registers+64\n"
        "mov %r10, start_registers+72\n"
        "mov %r11, start_registers+80\n"
        "mov %r12, start_registers+88\n"
        "mov %r13, start_registers+96\n"
        "mov %r14, start_registers+104\n"
        "mov %r15, start_registers+112\n"
        "mov %rsp, start_registers+120\n"
        "pushf\n"
        "pop start_registers+128\n"
        "mov %cs, start_registers+136\n"
        "mov %ss, start_registers+144\n"
        "mov %ds, start_registers+152\n"
        "mov %gs, start_registers+160\n"
        "jmp done\n");

static void test_start(void)
{
    word general = 0;
    make_thread(FIRST);
    run_thread(FIRST, record_start);
    serve(1);
    for (word i = 0; i < 15; i++)
        general |= start_registers[i];
    check_equal("general registers are zero at the start", general, 0);
    check_equal("the stack pointer is the start message's", start_registers[15], thread_stack(FIRST));
    check_equal("ports are open, interrupts on", start_registers[16], 0x3202);
    check_equal("cs", start_registers[17] & 0xFFFF, 0x2B);
    check_equal("ss", start_registers[18] & 0xFFFF, 0x23);
    check_equal("ds", start_registers[19] & 0xFFFF, 0x23);
    check_equal("gs", start_registers[20] & 0xFFFF, 0x33);
    kill_thread(FIRST);
}

/* --- exceptions --- */

/* Registers in the order of the message, without rip, rsp and flags. */
extern word registers_after[15];
word registers_after[15];
void divide_by_zero(void);
void after_division(void);
void record_registers(void);
__asm__(".text\n"
        "divide_by_zero:\n"
        "mov $0xB0, %ebx\n"
        "mov $0x10, %r10d\n"
        "mov $0x12, %r12d\n"
        "mov $0x13, %r13d\n"
        "mov $0x14, %r14d\n"
        "mov $0x15, %r15d\n"
        "mov $0xA0, %eax\n"
        "xor %ecx, %ecx\n"
        "mov $0xD0, %edx\n"
        "mov $0x51, %esi\n"
        "mov $0xD1, %edi\n"
        "mov $0xB9, %ebp\n"
        "mov $0x08, %r8d\n"
        "mov $0x09, %r9d\n"
        "mov $0x11, %r11d\n"
        "div %rcx\n"
        "after_division:\n"
        "ud2\n"
        "record_registers:\n"
        "mov %rbx, registers_after\n"
        "mov %r10, registers_after+8\n"
        "mov %r12, registers_after+16\n"
        "mov %r13, registers_after+24\n"
        "mov %r14, registers_after+32\n"
        "mov %r15, registers_after+40\n"
        "mov %rax, registers_after+48\n"
        "mov %rcx, registers_after+56\n"
        "mov %rdx, registers_after+64\n"
        "mov %rsi, registers_after+72\n"
        "mov %rdi, registers_after+80\n"
        "mov %rbp, registers_after+88\n"
        "mov %r8, registers_after+96\n"
        "mov %r9, registers_after+104\n"
        "mov %r11, registers_after+112\n"
        "jmp done\n");

enum { EXCEPTION_WORDS = 20 };

static void exceptional(void)
{
    *x2_tcr(TCR_EXCEPTION_HANDLER) = *x2_tcr(TCR_PAGER);
    __asm__ volatile("jmp divide_by_zero");
    __builtin_unreachable();
}

/* The next message of thread 1 that is no page fault. */
static word next_exception(void)
{
    word from, tag = x2_wait(&from);
    while (x2_protocol(tag) == X2_PAGE_FAULT) {
        word *mr = x2_mr(), page = mr[1] & ~(X2_PAGE - 1);
        mr[0] = x2_tag(0, 2, 0), mr[1] = x2_map_item(page), mr[2] = x2_fpage(page, 12, X2_RWX);
        tag = x2_reply_wait(from, &from);
    }
    return tag;
}

static void test_exceptions(void)
{
    static const word EXPECTED[15] = {0xB0, 0x10, 0x12, 0x13, 0x14, 0x15, 0xA0, 0, 0xD0, 0x51, 0xD1, 0xB9, 8, 9, 0x11};
    word *mr = x2_mr();
    make_thread_in_new_space(FIRST);
    run_thread(FIRST, exceptional);
    word tag = x2_tag(x2_protocol_label(X2_EXCEPTION), 0, EXCEPTION_WORDS);
    check_equal("a division by zero comes as a message", next_exception(), tag);
    check_equal("MR1 is rip", mr[1], (word)after_division - 3);
    int is_right = 1;
    for (word i = 0; i < 15; i++)
        is_right &= mr[2 + i] == EXPECTED[i];
    check("MR2 to MR16 are general registers", is_right);
    check("MR17 is rsp", mr[17] <= thread_stack(FIRST) && mr[17] + 512 > thread_stack(FIRST));
    check_equal("MR18 is flags", mr[18] & ~0x108D5UL, 0x3202);
    check_equal("MR19 is the exception's number", mr[19], 0);
    check_equal("MR20 is its error code", mr[20], 0);

    /* Only the first word: the thread goes on at the next instruction, which is none. */
    mr[0] = x2_tag(0, 0, 1);
    mr[1] = (word)after_division;
    x2_send(thread_id(FIRST), X2_ZERO);
    check_equal("an answer of one word", next_exception(), tag);
    check("  sets rip alone", mr[1] == (word)after_division && mr[2] == EXPECTED[0] && mr[8] == EXPECTED[6]);
    check_equal("an invalid instruction is exception 6", mr[19], 6);

    mr[0] = x2_tag(0, 0, 18);
    mr[1] = (word)record_registers;
    for (word i = 0; i < 15; i++)
        mr[2 + i] = 0x5000000000000000 + i;
    x2_send(thread_id(FIRST), X2_ZERO);
    serve(1);
    is_right = 1;
    for (word i = 0; i < 15; i++)
        is_right &= registers_after[i] == 0x5000000000000000 + i;
    check("an answer of all words sets all registers", is_right);
    kill_thread(FIRST);
}

/* --- floating point --- */

enum { STEPS = 300 };

static double results[THREADS + 1];
static unsigned modes[THREADS + 1];

/* A sum that depends on each step, with the thread's own rounding. */
static double sum(word n, int gives_way)
{
    double value = (double)n;
    for (word i = 1; i <= STEPS; i++) {
        value = value * 1.0009765625 + 1.0 / (double)(i + n);
        if (gives_way)
            x2_thread_switch(X2_NIL);
    }
    return value;
}

static void compute(word n)
{
    /* Each thread rounds in its own way: bits 13 and 14. */
    unsigned mode = 0x1F80 | (unsigned)(n & 3) << 13;
    __asm__ volatile("ldmxcsr %0" : : "m"(mode));
    results[n] = sum(n, 1);
    __asm__ volatile("stmxcsr %0" : "=m"(modes[n]));
    done();
}

static void compute_1(void) { compute(1); }
static void compute_2(void) { compute(2); }
static void compute_3(void) { compute(3); }

static void test_floating_point(void)
{
    static void (*const CODE[])(void) = {compute_1, compute_2, compute_3};
    unsigned own;
    __asm__ volatile("stmxcsr %0" : "=m"(own));
    check_equal("MXCSR at the start", own & ~0x3FU, 0x1F80);
    for (word n = FIRST; n <= THIRD; n++) {
        make_thread(n);
        run_thread(n, CODE[n - 1]);
    }
    serve(3);
    int is_right = 1;
    for (word n = FIRST; n <= THIRD; n++) {
        unsigned mode = 0x1F80 | (unsigned)(n & 3) << 13;
        __asm__ volatile("ldmxcsr %0" : : "m"(mode));
        is_right &= results[n] == sum(n, 0) && (modes[n] & ~0x3FU) == mode;
        kill_thread(n);
    }
    __asm__ volatile("ldmxcsr %0" : : "m"(own));
    check("three threads compute, each with its own rounding", is_right);
}

static void test_clock(void)
{
    word before = x2_system_clock();
    int is_right = 1;
    for (word i = 0; i < 1000; i++) {
        word now = x2_system_clock();
        is_right &= now >= before;
        before = now;
    }
    check("the clock never goes back", is_right);
    word start = x2_system_clock();
    x2_sleep(x2_period(3000));
    check("a sleep is not shorter than it should be", x2_system_clock() - start >= 3000);
}

void test_arch(void)
{
    test_start();
    test_exceptions();
    test_floating_point();
    test_clock();
}
