/* An IPC benchmark in the manner of those that came with L4: ping calls pong with 0 to 63 words, in two spaces of
 * their own or in one, and the root task makes and deletes them again for each run.
 *
 * What it leans on: threads are given UTCB locations before their space is initialised; a thread is started out of
 * its wait for the start message, others by that message; data pages with the entries of the system calls are shared
 * by spaces; SpaceControl of an initialised space with nil areas does nothing; blocked threads can be deleted and
 * their ids used again; Ipc returns only what was sent and leaves other message registers as they were, even if they
 * came in as garbage.
 */
#include "base.h"

enum { ROUNDS = 200, WORDS = 64, STACK_WORDS = 512 };
#define UTCB_AREA 0x80000000UL
#define UTCB_AREA_LOG2 13UL
#define VERSION 2UL

static word root, pager, ping, pong, ping_id, pong_id;
static int is_table, is_lipc;

static word pager_stack[STACK_WORDS], ping_stack[STACK_WORDS], pong_stack[STACK_WORDS];
/* An entry point is called by nobody: the stack is as after a call. */
#define TOP(stack) ((word)((stack) + STACK_WORDS - 1))

/* --- the pager of the players --- */

static void send_start(word thread, word ip, word sp)
{
    word *mr = x2_mr();
    mr[0] = x2_tag(0, 0, 2);
    mr[1] = ip, mr[2] = sp;
    x2_send(thread, X2_NEVER);
}

/* Starts the players when root says so and answers their page faults with the page at the same address. */
static void pager_main(void)
{
    word *mr = x2_mr();
    word from, tag = x2_wait(&from);
    for (;;) {
        if (x2_global_id_of(from) == root) {
            word ip[2] = {mr[1], mr[2]};
            send_start(ping, ip[0], TOP(ping_stack));
            send_start(pong, ip[1], TOP(pong_stack));
            tag = x2_wait(&from);
        } else if (x2_protocol(tag) == X2_PAGE_FAULT && x2_untyped(tag) == 2) {
            word address = mr[1] & ~(X2_PAGE - 1);
            /* Who runs as several threads at once asks for pages again and again, unless somebody has them. */
            touch((void *)address, 1, 0);
            mr[0] = x2_tag(0, 2, 0);
            mr[1] = x2_map_item(address);
            mr[2] = x2_fpage(address, 12, X2_RWX);
            tag = x2_reply_wait(from, &from);
        } else {
            print("pager: message %lx from %lx\n", tag, from);
            power_off(3);
        }
    }
}

/* --- the players --- */

static word time_stamp(void)
{
    unsigned low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (word)high << 32 | low;
}

/* A call with `tag`, with garbage in the registers of MR1 to MR7. */
static inline word exchange(word to, word tag, word *mr)
{
    word from = to;
    void (*entry)(void) = is_lipc ? x2_calls.lipc : x2_calls.ipc;
    register word r8 __asm__("r8") = X2_NEVER;
    register word r9 __asm__("r9") = tag;
    __asm__ volatile("push %%rbp; call *%%rcx; pop %%rbp"
                     : "+S"(to), "+d"(from), "+c"(entry), "+r"(r8), "+r"(r9)
                     : "D"(mr)
                     : "rax", "rbx", "r10", "r11", "r12", "r13", "r14", "r15", "cc", "memory");
    return r9;
}

static void pong_main(void)
{
    word *mr = x2_mr();
    word tag = exchange(ping_id, 0, mr);
    for (;;) {
        if ((tag & X2_ERROR) != 0) {
            print("pong: error %lx\n", x2_error());
            power_off(4);
        }
        tag = exchange(ping_id, tag, mr);
    }
}

/* Whether rbp and the registers of words that were not sent survive a call with `words` words. The players' messages
 * have the same words in both directions, but pong's are its own. */
static int survives(word words)
{
    word *mr = x2_mr();
    for (word i = 1; i < WORDS; i++)
        mr[i] = 0x1000 * words + i;
    mr[0] = x2_tag(0, 0, words);
    word tag = x2_call(pong_id);
    int is_right = tag == x2_tag(0, 0, words);
    for (word i = words + 1; i < WORDS; i++)
        is_right &= mr[i] == 0x1000 * words + i;
    return is_right && (word)x2_mr() == (word)mr;
}

static void ping_main(void)
{
    word *mr = x2_mr();
    word errors = 0;
    x2_receive(pong_id, X2_NEVER);
    if (is_table)
        print("MRs | cycles | time (us)\n");
    for (word words = 0; words < WORDS; words++) {
        word tag = x2_tag(0, 0, words);
        word clock = x2_system_clock(), start = time_stamp();
        for (word i = 0; i < ROUNDS; i++)
            errors |= exchange(pong_id, tag, mr) ^ tag;
        word ticks = time_stamp() - start, us = x2_system_clock() - clock;
        errors |= !survives(words);
        word per_100 = ticks * 100 / (2 * ROUNDS), us_per_100 = us * 100 / (2 * ROUNDS);
        if (is_table)
            print("%3lu | %lu.%02lu | %lu.%02lu\n", words, per_100 / 100, per_100 % 100, us_per_100 / 100,
                  us_per_100 % 100);
        else
            print("IPC (%2lu MRs): %lu.%02lu cycles, %lu.%02luus\n", words, per_100 / 100, per_100 % 100,
                  us_per_100 / 100, us_per_100 % 100);
    }
    mr[0] = x2_tag(errors != 0, 0, 0);
    x2_send(root, X2_NEVER);
    for (;;)
        x2_sleep(X2_NEVER);
}

/* --- the root thread --- */

static void must(const char *call, word result)
{
    if (result == 0) {
        print("%s failed: error %lu\n", call, x2_error());
        power_off(5);
    }
}

static void start_pager(void)
{
    word utcb = x2_my_local_id() - X2_MR0_OFFSET + X2_UTCB_SIZE;
    must("ThreadControl(pager)", x2_thread_control(pager, root, root, root, utcb));
    must("ExchangeRegisters(pager)", x2_start(pager, TOP(pager_stack), (word)pager_main));
}

/* A new space for one player, as 64-bit as ours: the bit that says otherwise stays clear. */
static void make_space(word player)
{
    word old, bits = 1UL << 63;
    must("ThreadControl(player)", x2_thread_control(player, player, root, X2_NIL, UTCB_AREA));
    word kip_area = x2_fpage((word)x2_kip, 12, 0), utcb_area = x2_fpage(UTCB_AREA, UTCB_AREA_LOG2, 0);
    must("SpaceControl", x2_space_control(player, 0, kip_area, utcb_area, X2_NIL, &old));
    if ((old & bits) != 0)
        must("SpaceControl's old control", 0);
    must("SpaceControl, once more", x2_space_control(player, 0, X2_NIL, X2_NIL, X2_NIL, &old));
    must("ThreadControl(activate)", x2_thread_control(player, player, X2_NIL, pager, ~0UL));
}

static void run(char kind)
{
    word old;
    is_lipc = kind == '3';
    make_space(ping);
    if (kind == '1')
        make_space(pong);
    else
        must("ThreadControl(pong)", x2_thread_control(pong, ping, root, pager, UTCB_AREA + X2_UTCB_SIZE));
    ping_id = ping, pong_id = pong;
    if (is_lipc) {
        ping_id = UTCB_AREA + X2_MR0_OFFSET;
        pong_id = ping_id + X2_UTCB_SIZE;
    }
    must("Schedule", x2_schedule(pong, ~0UL, 0, ~0UL, ~0UL, &old));
    word *mr = x2_mr();
    mr[0] = x2_tag(0, 0, 2);
    mr[1] = (word)ping_main, mr[2] = (word)pong_main;
    x2_send(pager, X2_NEVER);
    word tag = x2_receive(ping, X2_NEVER);
    check("all messages and registers came through", tag == 0);
    must("ThreadControl(delete ping)", x2_thread_control(ping, X2_NIL, X2_NIL, X2_NIL, ~0UL));
    must("ThreadControl(delete pong)", x2_thread_control(pong, X2_NIL, X2_NIL, X2_NIL, ~0UL));
}

/* Old programs take the kernel for one with a hierarchical scheduler as soon as it has any feature with a name. Their
 * requests must fail and leave the threads alone. */
static void ask_for_domains(void)
{
    const word control_of_new_domain = 1UL << 26 | 1UL << 25, no_change = ~0UL;
    word old;
    word result = x2_schedule(pager, root, no_change, 500UL << 16 | 50, control_of_new_domain, &old);
    check("a scheduling domain is refused", result == 0 && x2_error() == ERR_PARAMETER);
    result = x2_schedule(root, pager, no_change, 500UL << 16 | 0, control_of_new_domain, &old);
    check("a second one, too", result == 0 && x2_error() == ERR_PARAMETER);
}

int main(void)
{
    touch_image();
    root = x2_my_id();
    pager = x2_id(x2_number(root) + 1, VERSION);
    ping = x2_id(x2_number(root) + 2, VERSION);
    pong = x2_id(x2_number(root) + 3, VERSION);
    start_pager();
    ask_for_domains();
    for (;;) {
        print("1: two spaces, 2: one space, 3: one space with Lipc, s: table or lines, q: quit\n");
        char key = get_char();
        if (key == 's')
            is_table = !is_table;
        else if (key == 'q')
            finish();
        else if (key >= '1' && key <= '3')
            run(key);
    }
}
