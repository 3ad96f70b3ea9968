/* Strings between two spaces, without and with page faults: what arrives, and what both sides hear of what does not. */
#include "suite.h"

enum { SENDER = 1, RECEIVER = 2, SIZE = 8192 };
#define LONG_TIME x2_period(30000000)
#define SHORT_TIME x2_period(10000)

/* The program's pages, which both threads map at the same addresses. */
static byte source[SIZE] __attribute__((aligned(4096)));
static byte target[SIZE] __attribute__((aligned(4096)));

/* What the threads do and what comes of it. */
static struct {
    word items[64], item_words, buffers[33], buffer_words;
    word send_timeout, receive_timeout;
    /* Bit 0: the first page is flushed before, bit 1: the second. */
    word flushed_source, flushed_target;
    word sent_tag, send_error, received_tag, receive_error, received[64];
} t;

static word *add(word *at, word item, const byte *const *parts, word count)
{
    *at++ = item;
    for (word i = 0; i < count; i++)
        *at++ = (word)parts[i];
    return at;
}

/* Appends a string item or a buffer of `count` parts with `bytes` each, `distance` apart from `start`. */
static void add_string(word *list, word *used, word flags, word bytes, const byte *start, word count, word distance)
{
    const byte *parts[32];
    for (word i = 0; i < count; i++)
        parts[i] = start + i * distance;
    *used = (word)(add(list + *used, x2_string(bytes, count) | flags, parts, count) - list);
}

static void sent(word flags, word bytes, const byte *start, word count, word distance)
{
    add_string(t.items, &t.item_words, flags, bytes, start, count, distance);
}

static void buffer(word flags, word bytes, const byte *start, word count, word distance)
{
    add_string(t.buffers + 1, &t.buffer_words, flags, bytes, start, count, distance);
}

static void begin(void)
{
    byte *all = (byte *)&t;
    for (word i = 0; i < sizeof t; i++)
        all[i] = 0;
    for (word i = 0; i < SIZE; i++) {
        source[i] = (byte)(i * 7 + (i >> 8));
        target[i] = 0xEE;
    }
}

static void flush_pages(const byte *pages, word which)
{
    for (word i = 0; i < 2; i++)
        if ((which >> i & 1) != 0)
            x2_flush_page((word)pages + i * X2_PAGE);
}

static void sender(void)
{
    word *mr = x2_mr();
    touch(source, SIZE, 0);
    *x2_tcr(TCR_XFER_TIMEOUTS) = x2_timeouts(t.send_timeout, X2_NEVER);
    for (word i = 0; i < t.item_words; i++)
        mr[1 + i] = t.items[i];
    flush_pages(source, t.flushed_source);
    mr[0] = x2_tag(0x57, t.item_words, 0);
    t.sent_tag = x2_send(thread_id(RECEIVER), X2_NEVER);
    t.send_error = x2_error();
    done();
}

static void receiver(void)
{
    touch(target, SIZE, 1);
    *x2_tcr(TCR_XFER_TIMEOUTS) = x2_timeouts(X2_NEVER, t.receive_timeout);
    *x2_br(0) = t.buffer_words > 0 ? X2_ACCEPT_STRINGS : 0;
    for (word i = 1; i <= t.buffer_words; i++)
        *x2_br((int)i) = t.buffers[i];
    flush_pages(target, t.flushed_target);
    t.received_tag = x2_receive(thread_id(SENDER), X2_NEVER);
    t.receive_error = x2_error();
    for (word i = 0; i < 64; i++)
        t.received[i] = x2_mr()[i];
    done();
}

static void transfer(void)
{
    make_thread_in_new_space(SENDER);
    make_thread_in_new_space(RECEIVER);
    run_thread(RECEIVER, receiver);
    run_thread(SENDER, sender);
    serve(2);
    kill_thread(SENDER);
    kill_thread(RECEIVER);
}

static int is_copied(word from, word to, word bytes)
{
    int is_right = 1;
    for (word i = 0; i < bytes; i++)
        is_right &= target[to + i] == source[from + i];
    return is_right;
}

static int is_untouched(word from)
{
    int is_right = 1;
    for (word i = from; i < SIZE; i++)
        is_right &= target[i] == 0xEE;
    return is_right;
}

/* Both sides have the tag, and the receiver has the sender's items. */
static int has_arrived(void)
{
    word tag = x2_tag(0x57, t.item_words, 0);
    int is_right = t.sent_tag == tag && t.received_tag == tag && (t.received[1] >> 3 & 1) == 0;
    for (word i = 0; i < t.item_words; i++)
        is_right &= t.received[1 + i] == t.items[i];
    return is_right;
}

static void check_error(const char *what, word send_kind, word receive_kind, word offset)
{
    word tag = x2_tag(0x57, t.item_words, 0) | X2_ERROR;
    word send = x2_ipc_error(send_kind, X2_SEND_PHASE, offset);
    word receive = x2_ipc_error(receive_kind, X2_RECEIVE_PHASE, offset);
    int is_right = t.sent_tag == tag && t.received_tag == tag && t.send_error == send && t.receive_error == receive;
    check(what, is_right && is_copied(0, 0, offset));
    if (!is_right)
        print("    tags %lx, %lx; errors %lx, %lx\n", t.sent_tag, t.received_tag, t.send_error, t.receive_error);
}

/* --- without page faults --- */

static void simple(void)
{
    begin();
    sent(0, 256, source, 1, 0);
    buffer(0, 256, target, 1, 0);
    transfer();
    check("a string", t.item_words == 2 && has_arrived() && is_copied(0, 0, 256) && is_untouched(256));

    begin();
    sent(0, 256, source, 1, 0);
    buffer(0, 1000, target, 1, 0);
    transfer();
    check("a buffer that is too long", has_arrived() && is_copied(0, 0, 256) && is_untouched(256));
}

static void compound(void)
{
    begin();
    sent(0, 64, source, 4, 64);
    buffer(0, 256, target, 1, 0);
    transfer();
    check("four sub-strings (gather)", t.item_words == 5 && has_arrived() && is_copied(0, 0, 256) && is_untouched(256));

    begin();
    sent(X2_STRING_MORE, 40, source, 4, 40);
    sent(0, 60, source + 160, 2, 60);
    buffer(0, 280, target, 1, 0);
    transfer();
    check("a compound string", t.item_words == 8 && has_arrived() && is_copied(0, 0, 280) && is_untouched(280));

    begin();
    sent(0, 256, source, 1, 0);
    buffer(0, 64, target, 4, 100);
    transfer();
    int is_right = 1;
    for (word i = 0; i < 4; i++)
        is_right &= is_copied(64 * i, 100 * i, 64) && target[100 * i + 64] == 0xEE;
    check("a buffer in four parts (scatter)", has_arrived() && is_right);

    begin();
    sent(0, 64, source, 4, 64);
    buffer(X2_STRING_MORE, 100, target, 1, 0);
    buffer(0, 78, target + 100, 2, 78);
    transfer();
    check("both", has_arrived() && is_copied(0, 0, 256) && is_untouched(256));
}

static void several(void)
{
    begin();
    for (word i = 0; i < 5; i++) {
        sent(0, 32, source + 100 * i, 1, 0);
        buffer(i < 4 ? X2_STRING_NEXT : 0, 40, target + 100 * i, 1, 0);
    }
    transfer();
    int is_right = 1;
    for (word i = 0; i < 5; i++)
        is_right &= is_copied(100 * i, 100 * i, 32) && target[100 * i + 32] == 0xEE;
    check("five strings", t.item_words == 10 && has_arrived() && is_right);
}

/* Two strings, the first of `len` bytes, into buffers of two items each; `first` and `second` are set in the items of the
   first buffer. Whoever appends a buffer in C announces it in the first item of the one before. */
static void announced(word first, word second, word len)
{
    begin();
    sent(0, len, source, 1, 0);
    sent(0, 90, source + 200, 1, 0);
    buffer(X2_STRING_MORE | first, 24, target, 2, 24);
    buffer(second, 72, target + 48, 1, 0);
    buffer(X2_STRING_MORE, 30, target + 200, 1, 0);
    buffer(0, 70, target + 230, 1, 0);
    transfer();
}

static void behind_compounds(void)
{
    for (word len = 20; len <= 120; len += 50) {
        announced(X2_STRING_NEXT, 0, len);
        check("a buffer behind a compound one, announced at its beginning",
              has_arrived() && is_copied(0, 0, len) && is_copied(200, 200, 90) && is_untouched(290));
        announced(0, X2_STRING_NEXT, len);
        check("a buffer behind a compound one, announced at its end",
              has_arrived() && is_copied(0, 0, len) && is_copied(200, 200, 90) && is_untouched(290));
        announced(0, 0, len);
        check_error("a buffer that is not announced", IPC_OVERFLOW, IPC_OVERFLOW, len);
    }
}

static void overflows(void)
{
    begin();
    sent(0, 256, source, 1, 0);
    transfer();
    check_error("no buffer", IPC_OVERFLOW, IPC_OVERFLOW, 0);

    begin();
    sent(0, 128, source, 1, 0);
    sent(0, 128, source + 128, 1, 0);
    buffer(0, 128, target, 1, 0);
    transfer();
    check_error("no second buffer", IPC_OVERFLOW, IPC_OVERFLOW, 128);

    begin();
    sent(0, 256, source, 1, 0);
    buffer(0, 252, target, 1, 0);
    transfer();
    check_error("a buffer that is too short", IPC_OVERFLOW, IPC_OVERFLOW, 252);

    begin();
    sent(0, 100, source, 3, 100);
    buffer(0, 126, target, 2, 126);
    transfer();
    check_error("parts that are too short", IPC_OVERFLOW, IPC_OVERFLOW, 252);
}

/* --- with page faults --- */

static void two_pages(word flushed_source, word flushed_target)
{
    begin();
    sent(0, SIZE, source, 1, 0);
    buffer(0, SIZE, target, 1, 0);
    t.flushed_source = flushed_source, t.flushed_target = flushed_target;
}

static word faults_of_sender, faults_of_receiver;
static int are_faults_right;

/* Reads of the sender, writes of the receiver, which did not execute anything. */
static int count_faults(word from, word tag, word address, word ip)
{
    word access = x2_label(tag) & 7;
    if (address >= (word)source && address < (word)source + SIZE && from == thread_id(SENDER)) {
        faults_of_sender++;
        are_faults_right &= access == X2_R;
    } else if (address >= (word)target && address < (word)target + SIZE && ip == ~0UL) {
        faults_of_receiver++;
        are_faults_right &= access == X2_W && from == thread_id(RECEIVER);
    }
    return 1;
}

static void answered_faults(void)
{
    int is_right = 1;
    fault_filter = count_faults;
    are_faults_right = 1;
    for (word which = 0; which < 16; which++) {
        two_pages(which & 3, which >> 2);
        word timeout = (which & 1) != 0 ? LONG_TIME : X2_NEVER;
        t.send_timeout = t.receive_timeout = timeout;
        transfer();
        is_right &= has_arrived() && is_copied(0, 0, SIZE);
    }
    fault_filter = 0;
    check("page faults in two pages on both sides", is_right);
    /* Each thread touches its two pages once before. */
    check_equal("one fault of the sender for each page and time", faults_of_sender, 16 + 2 * 16);
    check_equal("one of the receiver for each page, while it receives", faults_of_receiver, 16);
    check("reads of the sender and writes of the receiver", are_faults_right);
}

static word faulting, aborted;

/* Leaves the fault in a second page alone, or aborts a thread meanwhile. */
static int leave_alone(word from, word tag, word address, word ip)
{
    (void)tag;
    (void)ip;
    word page = faulting == SENDER ? (word)source : (word)target;
    int is_flushed = address == page + X2_PAGE && (faulting == SENDER ? t.flushed_source : t.flushed_target) != 0;
    /* The thread touches the page before it flushes it. */
    if (from != thread_id(faulting) || !is_flushed || thread_state(faulting) == STATE_WAITING)
        return 1;
    if (aborted != 0) {
        struct x2_registers abort = {.control = EXREGS_ABORT_SEND | EXREGS_ABORT_RECEIVE};
        if (x2_exchange_registers(thread_id(aborted), abort).result == X2_NIL)
            check("a pager may abort", 0);
    }
    return 0;
}

/* The second page of one side is missing and nobody maps it. */
static void unanswered(const char *what, word side, word abort, word snd, word rcv, word send_kind, word receive_kind)
{
    two_pages(side == SENDER ? 2 : 0, side == RECEIVER ? 2 : 0);
    t.send_timeout = snd, t.receive_timeout = rcv;
    faulting = side, aborted = abort;
    fault_filter = leave_alone;
    transfer();
    fault_filter = 0;
    check_error(what, send_kind, receive_kind, X2_PAGE);
}

void test_strings(void)
{
    simple();
    compound();
    several();
    behind_compounds();
    overflows();
    answered_faults();
    for (word side = SENDER; side <= RECEIVER; side++) {
        print("  %s faults:\n", side == SENDER ? "the sender" : "the receiver");
        unanswered("no transfer timeout at all", side, 0, X2_ZERO, X2_ZERO, IPC_XFER_OWN, IPC_XFER_PARTNER);
        unanswered("the sender's timeout", side, 0, SHORT_TIME, LONG_TIME, IPC_XFER_OWN, IPC_XFER_PARTNER);
        unanswered("the receiver's timeout", side, 0, LONG_TIME, SHORT_TIME, IPC_XFER_PARTNER, IPC_XFER_OWN);
        unanswered("the sender is aborted", side, SENDER, X2_NEVER, X2_NEVER, IPC_ABORTED, IPC_ABORTED);
        unanswered("the receiver is aborted", side, RECEIVER, X2_NEVER, X2_NEVER, IPC_ABORTED, IPC_ABORTED);
    }
}
