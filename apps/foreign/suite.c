/* A test suite in the manner of the one that came with L4. By itself it runs all groups; with `menu` on its command
 * line it reads digits with the debugger's services, as that one does.
 */
#include "suite.h"

static const struct {
    const char *name;
    void (*run)(void);
} GROUPS[] = {
    {"kernel interface page", test_kip},
    {"architecture", test_arch},
    {"memory", test_memory},
    {"IPC", test_ipc},
    {"strings", test_strings},
    {"sigma0", test_sigma0},
    {"ExchangeRegisters", test_exchange_registers},
    {"ThreadControl", test_thread_control},
    {"Schedule", test_schedule},
};
enum { GROUP_COUNT = sizeof GROUPS / sizeof *GROUPS };

static void run(word group)
{
    print("%s\n", GROUPS[group].name);
    GROUPS[group].run();
}

/* What the services leave in rax, and that nothing else changes. */
static void test_services(void)
{
    word rax = 0x1234567800000041, rbx = 1, rcx = 2, rdx = 3;
    __asm__ volatile("int3; cmp $0x00, %%al" : "+a"(rax), "+b"(rbx), "+c"(rcx), "+d"(rdx) : : "cc");
    check("PrintChar changes no register", rax == 0x1234567800000041 && rbx == 1 && rcx == 2 && rdx == 3);
    check("ReadChar without a key", debugger_poll_char() == (char)-1);
    debugger_enter("a stop of the suite");
    check("a stop is no end", 1);
}

static void menu(void)
{
    test_services();
    for (;;) {
        for (word i = 0; i < GROUP_COUNT; i++)
            print("%lu: %s\n", i, GROUPS[i].name);
        debugger_print("q: quit\r\n");
        char key = debugger_get_char();
        debugger_put_char(key);
        if (key == 'q')
            return;
        if (key >= '0' && key < '0' + GROUP_COUNT)
            run((word)(key - '0'));
    }
}

int main(void)
{
    main_thread = x2_my_id();
    touch_image();
    if (has_option("menu"))
        menu();
    else
        for (word i = 0; i < GROUP_COUNT; i++)
            run(i);
    finish();
}
