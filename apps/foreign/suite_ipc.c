/* IPC: phases, words, errors, cancellation; what the registers are afterwards. */
#include "suite.h"

enum { SENDER = 1, RECEIVER = 2 };
#define SHORT_TIME x2_period(10000)

/* What the threads saw. */
static struct { word tag, from, error; int is_right; } seen[THREADS + 1];

static void note(word n, word tag, word from)
{
    seen[n].tag = tag, seen[n].from = from, seen[n].error = x2_error();
}

static void set_words(word first, word base)
{
    for (word i = first; i < 64; i++)
        x2_mr()[i] = base + i;
}

/* Whether MR`first` to MR`last` are what set_words with `base` made them. */
static int are_words(word first, word last, word base)
{
    int are_right = 1;
    for (word i = first; i <= last; i++)
        are_right &= x2_mr()[i] == base + i;
    return are_right;
}

/* --- one message --- */

static void send_one(void)
{
    x2_mr()[0] = x2_tag(0xF00F, 0, 0);
    x2_send(thread_id(RECEIVER), X2_NEVER);
    done();
}

static void send_one_locally(void)
{
    x2_mr()[0] = x2_tag(0xF00F, 0, 0);
    x2_send(thread_local_id(RECEIVER), X2_NEVER);
    done();
}

static void receive_from_anybody(void)
{
    word from, tag = x2_wait(&from);
    note(RECEIVER, tag, from);
    done();
}

static void receive_from_the_sender(void)
{
    note(RECEIVER, x2_receive(thread_id(SENDER), X2_NEVER), 0);
    done();
}

static void between_spaces(void)
{
    make_thread_in_new_space(SENDER);
    make_thread_in_new_space(RECEIVER);
    run_thread(SENDER, send_one);
    run_thread(RECEIVER, receive_from_anybody);
    serve(2);
    check_equal("a message between spaces arrives", seen[RECEIVER].tag, x2_tag(0xF00F, 0, 0));
    check_equal("from the sender's global id", seen[RECEIVER].from, thread_id(SENDER));
    kill_thread(SENDER);
    kill_thread(RECEIVER);
}

static void within_the_space(void)
{
    make_thread(SENDER);
    make_thread(RECEIVER);
    run_thread(RECEIVER, receive_from_anybody);
    run_thread(SENDER, send_one);
    serve(2);
    check_equal("a message within a space comes from the local id", seen[RECEIVER].from, thread_local_id(SENDER));
    kill_thread(SENDER);
    kill_thread(RECEIVER);

    make_thread(SENDER);
    make_thread(RECEIVER);
    seen[RECEIVER].tag = 0;
    run_thread(RECEIVER, receive_from_the_sender);
    run_thread(SENDER, send_one_locally);
    serve(2);
    check_equal("sent to the local id, awaited from the global one", seen[RECEIVER].tag, x2_tag(0xF00F, 0, 0));
    kill_thread(SENDER);
    kill_thread(RECEIVER);
}

/* --- all numbers of words --- */

#define SENT 0x1111000000000000UL
#define ANSWERED 0x2222000000000000UL
#define OWN 0x3333000000000000UL

static void send_words(void)
{
    int is_right = 1;
    for (word n = 0; n < 64; n++) {
        set_words(1, SENT + (n << 8));
        x2_mr()[0] = x2_tag(0xF00F, 0, n);
        is_right &= x2_send(thread_id(RECEIVER), X2_NEVER) == x2_tag(0xF00F, 0, n);
        is_right &= are_words(1, 63, SENT + (n << 8));
    }
    for (word n = 0; n < 64; n++) {
        set_words(1, SENT + (n << 8));
        x2_mr()[0] = x2_tag(0xF00F, 0, n);
        is_right &= x2_call(thread_id(RECEIVER)) == x2_tag(0xF00D, 0, n);
        is_right &= are_words(1, n, ANSWERED + (n << 8)) && are_words(n + 1, 63, SENT + (n << 8));
    }
    seen[SENDER].is_right = is_right;
    done();
}

static void receive_words(void)
{
    int is_right = 1;
    word from;
    for (word n = 0; n < 64; n++) {
        set_words(1, OWN + (n << 8));
        is_right &= x2_receive(thread_id(SENDER), X2_NEVER) == x2_tag(0xF00F, 0, n);
        is_right &= are_words(1, n, SENT + (n << 8)) && are_words(n + 1, 63, OWN + (n << 8));
    }
    word tag = x2_wait(&from);
    for (word n = 0; n < 64; n++) {
        is_right &= tag == x2_tag(0xF00F, 0, n) && are_words(1, n, SENT + (n << 8));
        /* Of the words behind the message, the last are those of the answer before. */
        is_right &= n == 0 || are_words(n + 1, 63, ANSWERED + ((n - 1) << 8));
        set_words(1, ANSWERED + (n << 8));
        x2_mr()[0] = x2_tag(0xF00D, 0, n);
        if (n < 63)
            tag = x2_reply_wait(from, &from);
        else
            is_right &= (x2_send(from, X2_ZERO) & X2_ERROR) == 0;
    }
    seen[RECEIVER].is_right = is_right;
    done();
}

static void all_words(const char *what, void (*make)(word))
{
    make(SENDER);
    make(RECEIVER);
    seen[SENDER].is_right = seen[RECEIVER].is_right = 0;
    run_thread(RECEIVER, receive_words);
    run_thread(SENDER, send_words);
    serve(2);
    check(what, seen[SENDER].is_right && seen[RECEIVER].is_right);
    kill_thread(SENDER);
    kill_thread(RECEIVER);
}

/* --- errors --- */

static void sleep_for_ever(void)
{
    for (;;)
        x2_sleep(X2_NEVER);
}

/* A failed IPC leaves ErrorCode, the tag, and all other registers as they were. */
static void fails(const char *what, word to, word from_specifier, word timeouts, word error, word tag)
{
    word from;
    set_words(1, OWN);
    x2_mr()[0] = x2_tag(0xF00F, 0, 3);
    word result = x2_ipc(to, from_specifier, timeouts, &from);
    check(what, result == tag && x2_error() == error && are_words(1, 63, OWN));
    if (result != tag || x2_error() != error)
        print("    tag %lx, error %lx\n", result, x2_error());
}

static void errors(void)
{
    word own_with_error = x2_tag(0xF00F, 0, 3) | X2_ERROR, nobody = x2_id(x2_number(main_thread) + 99, 1);
    word no_receiver = x2_ipc_error(IPC_NO_PARTNER, X2_SEND_PHASE, 0);
    word no_sender = x2_ipc_error(IPC_NO_PARTNER, X2_RECEIVE_PHASE, 0);
    word partner = thread_id(RECEIVER), stale = x2_id(x2_number(partner), 7);
    make_thread(RECEIVER);
    run_thread(RECEIVER, sleep_for_ever);
    wait_for_state(RECEIVER, STATE_WAITING);
    fails("a send times out", partner, X2_NIL, x2_timeouts(SHORT_TIME, X2_NEVER),
          x2_ipc_error(IPC_TIMEOUT, X2_SEND_PHASE, 0), own_with_error);
    fails("a send without patience fails at once", partner, X2_NIL, x2_timeouts(X2_ZERO, X2_NEVER),
          x2_ipc_error(IPC_TIMEOUT, X2_SEND_PHASE, 0), X2_ERROR);
    fails("a receive times out", X2_NIL, partner, x2_timeouts(X2_NEVER, SHORT_TIME),
          x2_ipc_error(IPC_TIMEOUT, X2_RECEIVE_PHASE, 0), X2_ERROR);
    fails("bits above the timeouts mean nothing", X2_NIL, partner, 0xFFFFFFFF00000000 | X2_ZERO,
          x2_ipc_error(IPC_TIMEOUT, X2_RECEIVE_PHASE, 0), X2_ERROR);
    fails("nobody to send to", nobody, nobody, X2_NEVER, no_receiver, X2_ERROR);
    fails("an old version is nobody", stale, X2_NIL, X2_NEVER, no_receiver, X2_ERROR);
    fails("nobody to receive from", X2_NIL, nobody, X2_NEVER, no_sender, X2_ERROR);
    word error = x2_error();
    fails("no phase at all", X2_NIL, X2_NIL, X2_NEVER, error, x2_tag(0xF00F, 0, 3));
    kill_thread(RECEIVER);
}

/* --- cancellation --- */

static void send_in_vain(void)
{
    x2_mr()[0] = x2_tag(0xF00F, 0, 3);
    note(SENDER, x2_send(thread_id(RECEIVER), X2_NEVER), 0);
    done();
}

static void call_in_vain(void)
{
    x2_mr()[0] = x2_tag(0xF00F, 0, 3);
    note(SENDER, x2_call(thread_id(RECEIVER)), 0);
    done();
}

static void receive_once(void)
{
    x2_receive(thread_id(SENDER), X2_NEVER);
    sleep_for_ever();
}

static void cancel(const char *what, void (*caller)(void), void (*partner)(void), word state, word phase)
{
    struct x2_registers abort = {.control = EXREGS_ABORT_SEND | EXREGS_ABORT_RECEIVE};
    make_thread(SENDER);
    make_thread(RECEIVER);
    run_thread(RECEIVER, partner);
    run_thread(SENDER, caller);
    wait_for_state(SENDER, state);
    struct x2_registers old = x2_exchange_registers(thread_local_id(SENDER), abort);
    serve(1);
    check(what, (seen[SENDER].tag & X2_ERROR) != 0 && seen[SENDER].error == x2_ipc_error(IPC_CANCELED, phase, 0));
    check_equal("  and ExchangeRegisters says what it was doing", old.control,
                phase == X2_SEND_PHASE ? EXREGS_ABORT_SEND : EXREGS_ABORT_RECEIVE);
    kill_thread(SENDER);
    kill_thread(RECEIVER);
}

/* --- page faults in between --- */

static byte fresh_page[4096] __attribute__((aligned(4096)));
static word faults;

static void fault_with_full_registers(void)
{
    set_words(0, OWN);
    *x2_tcr(TCR_ERROR) = 0x77;
    *x2_tcr(TCR_VIRTUAL_SENDER) = 0x88;
    *x2_br(0) = 0x10;
    int is_right = *(volatile byte *)fresh_page == 0x42;
    is_right &= are_words(0, 63, OWN) && x2_error() == 0x77 && *x2_tcr(TCR_VIRTUAL_SENDER) == 0x88 && *x2_br(0) == 0x10;
    seen[SENDER].is_right = is_right;
    done();
}

/* Cancels the first two faults in the page and answers the third. */
static int cancel_fault(word from, word tag, word address, word ip)
{
    struct x2_registers abort = {.control = EXREGS_ABORT_SEND | EXREGS_ABORT_RECEIVE};
    if (address != (word)fresh_page)
        return 1;
    int is_right = tag == (x2_tag(x2_protocol_label(X2_PAGE_FAULT) | X2_R, 0, 2)) && from == thread_id(SENDER);
    is_right &= ip >= (word)fault_with_full_registers && ip < (word)image_end;
    seen[0].is_right &= is_right;
    if (++faults == 3)
        return 1;
    seen[0].is_right &= x2_exchange_registers(from, abort).result != X2_NIL;
    return 0;
}

static void cancelled_faults(void)
{
    fresh_page[0] = 0x42;
    faults = 0, seen[0].is_right = 1, seen[SENDER].is_right = 0;
    fault_filter = cancel_fault;
    make_thread_in_new_space(SENDER);
    run_thread(SENDER, fault_with_full_registers);
    serve(1);
    fault_filter = 0;
    check("a cancelled page fault happens again", faults == 3 && seen[0].is_right);
    check("and leaves all message registers alone", seen[SENDER].is_right);
    kill_thread(SENDER);
}

/* --- registers behind the call --- */

enum { FLAG_DIRECTION = 1 << 10, FLAG_INTERRUPTS = 1 << 9 };

/* Makes an IPC with no word and sees what programs rely on: rdi is the UTCB, rsp is where it was, strings run
 * upwards. */
static int is_sound(word to, word from_specifier, word timeouts)
{
    static word rsp_before, rsp_after;
    word flags, *mr = x2_mr();
    register word r8 __asm__("r8") = timeouts;
    register word r9 __asm__("r9") = x2_tag(0xF00F, 0, 0);
    __asm__ volatile("push %%rbp\n\t"
                     "mov %%rsp, %[before]\n\t"
                     "call *%[entry]\n\t"
                     "mov %%rsp, %[after]\n\t"
                     "pushf\n\t"
                     "pop %%rax\n\t"
                     "pop %%rbp"
                     : "+S"(to), "+d"(from_specifier), "+r"(r8), "+r"(r9), "+D"(mr), "=a"(flags),
                       [before] "=m"(rsp_before), [after] "=m"(rsp_after)
                     : [entry] "m"(x2_calls.ipc)
                     : "rbx", "rcx", "r10", "r11", "r12", "r13", "r14", "r15", "cc", "memory");
    return mr == x2_mr() && rsp_before == rsp_after && (flags & (FLAG_DIRECTION | FLAG_INTERRUPTS)) == FLAG_INTERRUPTS;
}

static void answer_everybody(void)
{
    word from;
    x2_wait(&from);
    for (;;)
        x2_reply_wait(from, &from);
}

static void registers(void)
{
    make_thread(RECEIVER);
    run_thread(RECEIVER, answer_everybody);
    wait_for_state(RECEIVER, STATE_WAITING);
    word partner = thread_id(RECEIVER), local = thread_local_id(RECEIVER);
    word nobody = x2_id(x2_number(main_thread) + 99, 1);
    check("rdi, rsp and flags after a call", is_sound(partner, partner, X2_NEVER));
    check("  after a call with timeouts", is_sound(partner, partner, x2_timeouts(SHORT_TIME, x2_period(10000000))));
    check("  after a call by local id", is_sound(local, local, X2_NEVER));
    check("  after a send", is_sound(partner, X2_NIL, X2_NEVER));
    check("  after a failed send", is_sound(nobody, X2_NIL, X2_NEVER));
    check("  after a failed receive", is_sound(X2_NIL, partner, x2_timeouts(X2_NEVER, X2_ZERO)));
    check("  after a receive that timed out", is_sound(X2_NIL, x2_my_id(), x2_timeouts(X2_NEVER, SHORT_TIME)));
    check("  without any phase", is_sound(X2_NIL, X2_NIL, X2_NEVER));
    kill_thread(RECEIVER);
}

void test_ipc(void)
{
    between_spaces();
    within_the_space();
    all_words("0 to 63 words within a space", make_thread);
    all_words("0 to 63 words between spaces", make_thread_in_new_space);
    errors();
    cancel("a blocked sender is cancelled", send_in_vain, sleep_for_ever, STATE_PENDING_SEND, X2_SEND_PHASE);
    cancel("a caller that waits for its answer is cancelled", call_in_vain, receive_once, STATE_WAITING,
           X2_RECEIVE_PHASE);
    cancelled_faults();
    registers();
}
