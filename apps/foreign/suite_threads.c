/* ExchangeRegisters, ThreadControl, Schedule. */
#include "suite.h"

enum { FIRST = 1, SECOND = 2 };

static volatile word count;

static void count_and_sleep(void)
{
    count = count + 1;
    for (;;)
        x2_sleep(X2_NEVER);
}

static word start(word n, void (*code)(void)) { return x2_start(thread_id(n), thread_stack(n), (word)code); }

/* --- ExchangeRegisters --- */

static void translation(void)
{
    struct x2_registers nothing = {.control = 0};
    struct x2_registers old = x2_exchange_registers(x2_id(x2_number(main_thread) + 99, 1), nothing);
    check("nobody", old.result == X2_NIL && x2_error() == ERR_THREAD);
    check_equal("  and all else is zero", old.control | old.sp | old.ip | old.flags | old.handle | old.pager, 0);
    check_equal("global to local", x2_exchange_registers(main_thread, nothing).result, x2_my_local_id());
    check_equal("local to global", x2_exchange_registers(x2_my_local_id(), nothing).result, main_thread);
    word nobody = x2_my_local_id() + 200 * X2_UTCB_SIZE;
    check_equal("a local id of nobody", x2_exchange_registers(nobody, nothing).result, X2_NIL);
}

static void values(void)
{
    make_thread(FIRST);
    run_thread(FIRST, count_and_sleep);
    wait_for_state(FIRST, STATE_WAITING);
    struct x2_registers in = {.control = EXREGS_HANDLE | EXREGS_PAGER | EXREGS_FLAGS | EXREGS_DELIVER, .handle = 0x4711,
                              .pager = thread_id(SECOND), .flags = ~0UL};
    struct x2_registers first = x2_exchange_registers(thread_id(FIRST), in);
    check("a waiting thread receives", first.control == EXREGS_ABORT_RECEIVE);
    check("its pager and handle so far", first.pager == main_thread && first.handle == 0);
    check("its stack is its own, its instruction pointer in the program",
          first.sp <= thread_stack(FIRST) && first.sp + 512 > thread_stack(FIRST) && first.ip >= (word)image_start &&
              first.ip < (word)image_end);
    check_equal("flags of a thread: ports, interrupts", first.flags & ~0x8D5UL, 0x3202);
    struct x2_registers pager = {.control = EXREGS_PAGER, .pager = main_thread};
    struct x2_registers second = x2_exchange_registers(thread_id(FIRST), pager);
    check("pager and handle are exchanged", second.pager == thread_id(SECOND) && second.handle == 0x4711);
    check_equal("of flags only those that are the user's", second.flags, 0x3202 | 0x8D5);
    kill_thread(FIRST);
}

static void restarts(void)
{
    int is_right = 1;
    make_thread(FIRST);
    count = 0;
    run_thread(FIRST, count_and_sleep);
    wait_for_state(FIRST, STATE_WAITING);
    for (word i = 2; i <= 21; i++) {
        is_right &= start(FIRST, count_and_sleep) == thread_local_id(FIRST);
        wait_for_state(FIRST, STATE_WAITING);
        is_right &= count == i;
    }
    check("a sleeping thread is started anew 20 times", is_right);
    for (word i = 0; i < 100; i++)
        is_right &= start(FIRST, count_and_sleep) == thread_local_id(FIRST);
    wait_for_state(FIRST, STATE_WAITING);
    check("100 times without waiting for it", is_right && count > 21);
    kill_thread(FIRST);
}

static void states(void)
{
    check("a thread that does not exist", start(FIRST, count_and_sleep) == X2_NIL && x2_error() == ERR_THREAD);
    count = 0;
    make_thread(FIRST);
    run_thread(FIRST, count_and_sleep);
    wait_for_state(FIRST, STATE_WAITING);
    check_equal("  can be made and run afterwards", count, 1);
    kill_thread(FIRST);

    make_thread(FIRST);
    check_equal("a thread that waits for its start message", thread_state(FIRST), STATE_WAITING);
    struct x2_registers in = {.control = EXREGS_START | EXREGS_SP | EXREGS_IP | EXREGS_PAGER, .sp = thread_stack(FIRST),
                              .ip = (word)count_and_sleep, .pager = main_thread};
    struct x2_registers old = x2_exchange_registers(thread_id(FIRST), in);
    wait_for_state(FIRST, STATE_WAITING);
    check("  is started", old.result == thread_local_id(FIRST) && old.control == EXREGS_ABORT_RECEIVE && count == 2);
    kill_thread(FIRST);

    make_inactive_thread(FIRST);
    check("an inactive thread is refused", start(FIRST, count_and_sleep) == X2_NIL && x2_error() == ERR_THREAD);
    check_equal("  and is dead for Schedule", thread_state(FIRST), STATE_DEAD);
    kill_thread(FIRST);
}

static void count_for_ever(void)
{
    for (;;)
        count = count + 1;
}

static void halting(void)
{
    make_thread(FIRST);
    run_thread(FIRST, count_for_ever);
    x2_thread_switch(thread_id(FIRST));
    struct x2_registers halt = {.control = EXREGS_APPLY_HALT | EXREGS_HALT | EXREGS_DELIVER};
    struct x2_registers resume = {.control = EXREGS_APPLY_HALT};
    check_equal("a running thread is halted", x2_exchange_registers(thread_id(FIRST), halt).control, 0);
    word before = count;
    x2_sleep(x2_period(5000));
    check("  and stands still", count == before && thread_state(FIRST) == STATE_INACTIVE);
    check_equal("  and resumed", x2_exchange_registers(thread_id(FIRST), resume).control, EXREGS_HALT);
    while (count == before)
        x2_thread_switch(thread_id(FIRST));
    check_equal("  and runs", thread_state(FIRST), STATE_RUNNING);
    kill_thread(FIRST);
}

void test_exchange_registers(void)
{
    translation();
    values();
    restarts();
    states();
    halting();
}

/* --- ThreadControl --- */

void test_thread_control(void)
{
    count = 0;
    make_thread_in_new_space(FIRST);
    run_thread(FIRST, done);
    serve(1);
    kill_thread(FIRST);
    check_equal("a thread is made, run and deleted", thread_state(FIRST), STATE_ERROR);

    word result = x2_thread_control(main_thread, X2_NIL, X2_NIL, X2_NIL, ~0UL);
    check("nobody deletes itself", result == 0 && x2_error() == ERR_THREAD);
    result = x2_thread_control(thread_id(FIRST), X2_NIL, X2_NIL, X2_NIL, ~0UL);
    check_equal("who deletes nobody succeeds", result, 1);

    make_thread(FIRST);
    start(FIRST, count_and_sleep);
    wait_for_state(FIRST, STATE_WAITING);
    check_equal("a thread is started by ExchangeRegisters", count, 1);
    result = x2_thread_control(thread_local_id(FIRST), X2_NIL, X2_NIL, X2_NIL, ~0UL);
    check("a local id is no dest", result == 0 && thread_state(FIRST) == STATE_WAITING);
    kill_thread(FIRST);

    result = x2_thread_control(thread_id(FIRST), x2_my_local_id(), x2_my_local_id(), x2_my_local_id(),
                               x2_my_local_id() - X2_MR0_OFFSET + 100 * X2_UTCB_SIZE);
    check("local ids for space, scheduler and pager", result == 1);
    start(FIRST, count_and_sleep);
    wait_for_state(FIRST, STATE_WAITING);
    check_equal("  and the thread runs", count, 2);
    kill_thread(FIRST);

    result = x2_thread_control(x2_id(x2_user_base() - 1, 1), main_thread, main_thread, X2_NIL, ~0UL);
    check("a number of the kernel's is refused", result == 0 && x2_error() == ERR_THREAD);
    result = x2_thread_control(x2_id(1 << 18, 1), main_thread, main_thread, X2_NIL, ~0UL);
    check("a number beyond ThreadInfo, too", result == 0 && x2_error() == ERR_THREAD);
    result = x2_processor_control(0, 0, 0, 0);
    check("ProcessorControl changes nothing", result == 0);
}

/* --- Schedule --- */

void test_schedule(void)
{
    const word no_change = ~0UL;
    word old, interrupt = x2_id(3, 1);
    word result = x2_schedule(interrupt, no_change, no_change, 100, no_change, &old);
    check("interrupt 3 without handler has no priority", result == 0 && x2_error() == ERR_THREAD);
    result = x2_thread_control(interrupt, interrupt, X2_NIL, main_thread, ~0UL);
    check("it takes a handler", result == 1);
    result = x2_schedule(interrupt, no_change, no_change, 100, no_change, &old);
    check("then it has a priority", result != 0 && x2_error() == 0);
    result = x2_thread_control(interrupt, interrupt, X2_NIL, interrupt, ~0UL);
    check("it gives the handler back", result == 1);

    make_thread(FIRST);
    result = x2_schedule(thread_local_id(FIRST), no_change, no_change, 0xFFFF, no_change, &old);
    check("the priority that means none, by local id", result == STATE_WAITING);
    result = x2_schedule(thread_id(FIRST), no_change, 9, no_change, no_change, &old);
    check("a processor that is not there", result == 0 && x2_error() == ERR_PARAMETER);
    result = x2_schedule(thread_id(FIRST), no_change, no_change, no_change, no_change, &old);
    check_equal("a fresh thread's slice is 10 ms", old >> 16, x2_period(10000));
    check_equal("its quantum is endless", old & 0xFFFF, X2_NEVER);
    result = x2_schedule(X2_NIL, no_change, no_change, no_change, no_change, &old);
    check("nilthread", result == 0 && x2_error() == 0);
    kill_thread(FIRST);
}
