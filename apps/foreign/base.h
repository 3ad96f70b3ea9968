/* What every program here has: its start, a serial console, the end of the emulation, the debugger's services. */
#ifndef BASE_H
#define BASE_H

#include "x2.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The bounds of the program in memory, from the linker script. */
extern byte image_start[], image_end[];

int main(void);

/* Ends the emulation with `status`. */
__attribute__((noreturn)) void power_off(byte status);

static inline void out_byte(unsigned short port, byte value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline byte in_byte(unsigned short port)
{
    byte value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

/* --- the console on the first serial line --- */

void put_char(char c);
/* Waits for a key. */
char get_char(void);
/* Knows %s, %c, %lu, %lx, a width and 0 before it. */
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* --- results --- */

/* Prints what was looked at and whether it was so, and counts. */
void check(const char *what, int is_so);
/* The same for two values that must be equal. */
void check_equal(const char *what, word found, word expected);
/* Prints the numbers and ends the emulation: status 0 if all was so. */
__attribute__((noreturn)) void finish(void);

/* --- memory --- */

/* Lets the pager map each page of the program, for writing where the program can be written. */
void touch_image(void);
void touch(const void *start, word bytes, int is_written);

/* The root task's command line, behind the name of the file; from the boot information. */
const char *command_line(void);
/* Whether the command line has this word. */
int has_option(const char *option);

/* --- the kernel debugger's services: a breakpoint, then an instruction whose constant says which --- */

static inline void debugger_put_char(char c)
{
    __asm__ volatile("int3; cmp $0x00, %%al" : : "a"((word)(byte)c) : "cc");
}

static inline void debugger_print(const char *text)
{
    __asm__ volatile("int3; cmp $0x01, %%al" : : "a"(text) : "cc", "memory");
}

static inline char debugger_get_char(void)
{
    word key = 0;
    __asm__ volatile("int3; cmp $0x0D, %%al" : "+a"(key) : : "cc");
    return (char)key;
}

/* Stops with a text, which an instruction carries that is jumped over. Without a debugger the program goes on. */
#define debugger_enter(text)                                                                                           \
    __asm__ volatile("int3; jmp 1f; movq %0, %%rax; 1:" : : "i"(text) : "rax", "cc", "memory")

/* A key, or -1 if none was pressed. */
static inline char debugger_poll_char(void)
{
    word key = 0;
    __asm__ volatile("int3; cmp $0x08, %%al" : "+a"(key) : : "cc");
    return (char)key;
}

#ifdef __cplusplus
}
#endif

#endif
