/* Fresh memory, status bits and attributes; what sigma0 answers and what it does not. */
#include "suite.h"

enum { FRESH_PAGES = 1000, SENDER = 1, RECEIVER = 2 };
#define FRESH 0x2000000UL

static void status(void)
{
    static byte page[4096] __attribute__((aligned(4096)));
    *(volatile byte *)page = 1;
    word fpage = x2_flush_page((word)page);
    check_equal("a flush tells of reads and writes", fpage & ~7UL, x2_fpage((word)page, 12, 0));
    check("  of this page", (fpage & X2_W) != 0 && (fpage & X2_R) != 0);
    check_equal("the page comes back from the pager with what was in it", *(volatile byte *)page, 1);
    word *mr = x2_mr();
    for (word i = 0; i < 64; i++)
        mr[i] = 0;
    x2_unmap(X2_FLUSH | 63);
    int is_right = 1;
    for (word i = 0; i < 64; i++)
        is_right &= mr[i] == 0;
    check("64 nilpages are harmless", is_right);
}

static void attributes(void)
{
    const word defaults[4] = {0, 0, 0, 0};
    word *mr = x2_mr();
    mr[0] = x2_fpage((word)image_start, 12, 0);
    mr[2] = 0x1111, mr[7] = 0x7777;
    check_equal("the default attribute", x2_memory_control(0, defaults), 1);
    check("  leaves other message registers", mr[2] == 0x1111 && mr[7] == 0x7777);
    check("more fpages than registers", x2_memory_control(64, defaults) == 0 && x2_error() == ERR_PARAMETER);
}

/* sigma0 has an owner for every address, but the processor does not have every address. */
#define BEYOND_MEMORY (1UL << 46)

static word string_tag, string_error;

static void send_from_beyond(void)
{
    word *mr = x2_mr();
    x2_sigma0_page(BEYOND_MEMORY, 12);
    *x2_tcr(TCR_XFER_TIMEOUTS) = x2_timeouts(x2_period(10000), X2_NEVER);
    mr[0] = x2_tag(0, 2, 0);
    mr[1] = x2_string(64, 1);
    mr[2] = BEYOND_MEMORY;
    string_tag = x2_send(thread_id(RECEIVER), X2_NEVER);
    string_error = x2_error();
    done();
}

static void receive_string(void)
{
    static byte buffer[64];
    touch(buffer, sizeof buffer, 1);
    *x2_br(0) = X2_ACCEPT_STRINGS;
    *x2_br(1) = x2_string(sizeof buffer, 1);
    *x2_br(2) = (word)buffer;
    x2_receive(thread_id(SENDER), X2_NEVER);
    done();
}

static int leave_beyond_alone(word from, word tag, word address, word ip)
{
    (void)from;
    (void)tag;
    (void)ip;
    return address != BEYOND_MEMORY;
}

static void beyond_memory(void)
{
    make_thread_in_new_space(SENDER);
    make_thread_in_new_space(RECEIVER);
    fault_filter = leave_beyond_alone;
    run_thread(RECEIVER, receive_string);
    run_thread(SENDER, send_from_beyond);
    serve(2);
    fault_filter = 0;
    check("there is nothing to send beyond physical memory",
          (string_tag & X2_ERROR) != 0 && string_error == x2_ipc_error(IPC_XFER_OWN, X2_SEND_PHASE, 0));
    kill_thread(SENDER);
    kill_thread(RECEIVER);
}

/* The C library of old programs stored what KernelInterface returns through null pointers, before anything else. */
static void page_zero(void)
{
    word read;
    __asm__ volatile("movq %1, 16\n\tmovq 16, %0" : "=r"(read) : "r"(0x4711UL) : "memory");
    check_equal("page zero is memory", read, 0x4711);
}

void test_memory(void)
{
    int is_right = 1;
    for (word i = 0; i < FRESH_PAGES; i++)
        *(volatile word *)(FRESH + i * X2_PAGE) = i;
    for (word i = 0; i < FRESH_PAGES; i++)
        is_right &= *(volatile word *)(FRESH + i * X2_PAGE) == i;
    check("1000 fresh pages from 32 MiB on", is_right);
    page_zero();
    status();
    attributes();
    beyond_memory();
}

/* --- sigma0 --- */

static word ask(word label, word typed, word untyped, word first, word second, word patience)
{
    word from, *mr = x2_mr();
    mr[0] = x2_tag(label, typed, untyped);
    mr[1] = first, mr[2] = second;
    return x2_ipc(x2_sigma0_id(), x2_sigma0_id(), x2_timeouts(X2_NEVER, patience), &from);
}

static void unanswered(const char *what, word label, word typed, word untyped)
{
    word tag = ask(label, typed, untyped, x2_fpage(~0UL, 12, X2_RWX), 0, x2_period(50000));
    check(what, tag == X2_ERROR && x2_error() == x2_ipc_error(IPC_TIMEOUT, X2_RECEIVE_PHASE, 0));
}

void test_sigma0(void)
{
    word request = x2_protocol_label(X2_SIGMA0), *mr = x2_mr();
    check_equal("sigma0 is the root task's pager", *x2_tcr(TCR_PAGER), x2_sigma0_id());
    word any = x2_sigma0_any(12);
    check("any page", any != 0);
    word page = any & ~0x3FFUL;
    check_equal("  answered with no label, no words, one item", mr[0], x2_tag(0, 2, 0));
    check_equal("  a map item with its address", mr[1], x2_map_item(page));
    check_equal("  with all rights", any, x2_fpage(page, 12, X2_RWX));
    *(volatile word *)page = 0x4711;
    check_equal("  which can be used", *(volatile word *)page, 0x4711);
    check_equal("  and asked for again", x2_sigma0_page(page, 12), any);
    word another = x2_sigma0_request(~0x3FFUL | 12 << 4 | X2_RWX, 2, 0, X2_COMPLETE);
    check("any page, all ones without bit 3", another != 0 && another != any && (another >> 4 & 63) == 12);
    check_equal("half a page is refused", x2_sigma0_page(page, 11), 0);
    check_equal("  with nothing in the item", mr[1] | mr[2], X2_ITEM_MAP);
    check_equal("the kernel's memory is refused", x2_sigma0_page(0x600000, 12), 0);
    check_equal("its interrupt controller is refused", x2_sigma0_page(0xFEE00000, 12), 0);
    check_equal("the screen is everybody's", x2_sigma0_page(0xB8000, 12), x2_fpage(0xB8000, 12, X2_RWX));
    word nowhere = 1UL << 40;
    check_equal("undescribed memory is had by its address", x2_sigma0_page(nowhere, 12), x2_fpage(nowhere, 12, X2_RWX));

    unanswered("no label", 0, 0, 2);
    unanswered("a wrong label", x2_protocol_label(-7), 0, 2);
    unanswered("one word", request, 0, 1);
    unanswered("four words", request, 0, 4);

    *x2_br(0) = 0;
    word tag = ask(request, 0, 2, x2_fpage(page, 12, X2_RWX), 0, X2_NEVER);
    check("no receive window", (tag & X2_ERROR) != 0 && x2_error() == x2_ipc_error(IPC_OVERFLOW, X2_RECEIVE_PHASE, 0));
    tag = ask(x2_protocol_label(X2_SIGMA0_EXTENDED), 0, 2, 2, 1, X2_NEVER);
    check_equal("the pools are shown, and that is said", tag, 0);
}
