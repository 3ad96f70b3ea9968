/* See world.h. */
#include "world.h"

enum { STACK_WORDS = 1024, VERSION = 1, DONE = 0xD0E };
#define UTCB_AREA_LOG2 20UL

word main_thread;
int (*fault_filter)(word from, word tag, word address, word ip);

static word stacks[THREADS][STACK_WORDS] __attribute__((aligned(16)));

static word number_of(word n) { return x2_number(main_thread) + n; }
word thread_id(word n) { return x2_id(number_of(n), VERSION); }

/* The root task's UTCB area, which the new spaces have at the same place. */
#define UTCB_AREA 0xBF000000UL

/* As many UTCBs from the beginning of the area as the thread's number is away from that of the first user. */
static word utcb_of(word n) { return UTCB_AREA + X2_UTCB_SIZE * (number_of(n) - x2_user_base() + 1); }
word thread_local_id(word n) { return utcb_of(n) + X2_MR0_OFFSET; }

/* An entry point is called by nobody: the stack is as after a call. */
word thread_stack(word n) { return (word)&stacks[n - 1][STACK_WORDS - 1]; }

static void must(const char *call, word result)
{
    if (result == 0) {
        print("%s failed: error %lu\n", call, x2_error());
        check(call, 0);
    }
}

void make_thread(word n)
{
    must("ThreadControl", x2_thread_control(thread_id(n), main_thread, main_thread, main_thread, utcb_of(n)));
}

void make_inactive_thread(word n)
{
    must("ThreadControl", x2_thread_control(thread_id(n), main_thread, main_thread, X2_NIL, ~0UL));
}

word activate_thread(word n)
{
    return x2_thread_control(thread_id(n), thread_id(n), X2_NIL, main_thread, utcb_of(n));
}

void make_thread_in_new_space(word n)
{
    word old, id = thread_id(n);
    word kip_area = x2_fpage((word)x2_kip, 12, 0);
    word utcb_area = x2_fpage(UTCB_AREA, UTCB_AREA_LOG2, 0);
    must("ThreadControl", x2_thread_control(id, id, main_thread, X2_NIL, ~0UL));
    must("SpaceControl", x2_space_control(id, 0, kip_area, utcb_area, X2_NIL, &old));
    must("ThreadControl", activate_thread(n));
}

void run_thread(word n, void (*code)(void))
{
    word *mr = x2_mr();
    mr[0] = x2_tag(0, 0, 2);
    mr[1] = (word)code, mr[2] = thread_stack(n);
    x2_send(thread_id(n), X2_NEVER);
}

void kill_thread(word n) { must("ThreadControl", x2_thread_control(thread_id(n), X2_NIL, X2_NIL, X2_NIL, ~0UL)); }

word tell(void)
{
    x2_mr()[0] = x2_tag(DONE, 0, 0);
    return x2_call(main_thread);
}

void done(void)
{
    x2_mr()[0] = x2_tag(DONE, 0, 0);
    x2_send(main_thread, X2_NEVER);
    for (;;)
        x2_sleep(X2_NEVER);
}

/* Whether the fault in the message registers is answered; the answer is in them then. */
static int answer(word from, word tag)
{
    word *mr = x2_mr();
    word address = mr[1], page = address & ~(X2_PAGE - 1);
    if (fault_filter != 0 && !fault_filter(from, tag, address, mr[2]))
        return 0;
    touch((void *)page, 1, 0);
    mr[0] = x2_tag(0, 2, 0);
    mr[1] = x2_map_item(page);
    mr[2] = x2_fpage(page, 12, X2_RWX);
    return 1;
}

void serve(word count)
{
    word from, tag = x2_wait(&from);
    while ((tag & X2_ERROR) == 0) {
        if (x2_label(tag) == DONE && --count == 0)
            return;
        if (x2_protocol(tag) == X2_PAGE_FAULT && answer(from, tag))
            tag = x2_reply_wait(from, &from);
        else
            tag = x2_wait(&from);
    }
    check("the pager's messages come through", 0);
}

word thread_state(word n)
{
    word old;
    return x2_schedule(thread_id(n), ~0UL, ~0UL, ~0UL, ~0UL, &old);
}

void wait_for_state(word n, word state)
{
    /* All others have lower priorities than the first thread. */
    while (thread_state(n) != state)
        for (word other = 1; other <= THREADS; other++)
            x2_thread_switch(thread_id(other));
}
