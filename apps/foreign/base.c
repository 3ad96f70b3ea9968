/* See base.h. */
#include <stdarg.h>

#include "base.h"

struct x2_calls x2_calls;
word *x2_kip;

typedef void (*constructor)(void);
extern constructor constructors_start[], constructors_end[];

/* Called by the first instructions, on the first stack. */
__attribute__((noreturn)) void start_program(void);
void start_program(void)
{
    x2_kip = x2_kernel_interface().kip;
    x2_calls = *(struct x2_calls *)(x2_kip + KIP_CALLS);
    for (constructor *each = constructors_start; each < constructors_end; each++)
        (*each)();
    power_off((byte)main());
}

void power_off(byte status)
{
    enum { EXIT_PORT = 0xF4 };
    out_byte(EXIT_PORT, status);
    for (;;)
        x2_sleep(X2_NEVER);
}

/* The compiler may call these by itself. */
void *memcpy(void *to, const void *from, word bytes);
void *memcpy(void *to, const void *from, word bytes)
{
    void *at = to;
    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(bytes) : : "memory");
    return to;
}

void *memset(void *to, int value, word bytes);
void *memset(void *to, int value, word bytes)
{
    void *at = to;
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(bytes) : "a"(value) : "memory");
    return to;
}

/* --- console --- */

enum { COM1 = 0x3F8, LINE_DATA = COM1, LINE_INTERRUPTS, LINE_FIFO, LINE_CONTROL, LINE_MODEM, LINE_STATUS };
enum { HAS_RECEIVED = 0x01, CAN_TAKE = 0x20, HAS_SENT = 0x40 };

static int is_line_set_up;

/* 115200 baud, 8N1; the line may interrupt when something was received, which is nobody's business here. */
static void set_up_line(void)
{
    if (is_line_set_up)
        return;
    is_line_set_up = 1;
    out_byte(LINE_CONTROL, 0x80);
    out_byte(LINE_DATA, 1);
    out_byte(LINE_INTERRUPTS, 0);
    out_byte(LINE_CONTROL, 0x03);
    out_byte(LINE_FIFO, 0x07);
    out_byte(LINE_MODEM, 0x0B);
    out_byte(LINE_INTERRUPTS, 0x01);
}

static void put_byte(char c)
{
    while ((in_byte(LINE_STATUS) & CAN_TAKE) == 0)
        ;
    out_byte(LINE_DATA, (byte)c);
    while ((in_byte(LINE_STATUS) & HAS_SENT) == 0)
        ;
}

void put_char(char c)
{
    set_up_line();
    put_byte(c);
    if (c == '\n')
        put_byte('\r');
}

char get_char(void)
{
    set_up_line();
    while ((in_byte(LINE_STATUS) & HAS_RECEIVED) == 0)
        x2_thread_switch(X2_NIL);
    return (char)in_byte(LINE_DATA);
}

static void put_number(word value, word base, word width, char fill)
{
    char digits[64];
    word count = 0;
    do {
        digits[count++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    for (word i = count; i < width; i++)
        put_char(fill);
    while (count > 0)
        put_char(digits[--count]);
}

static void put_text(const char *text, word width)
{
    word length = 0;
    while (text[length] != 0)
        put_char(text[length++]);
    for (; length < width; length++)
        put_char(' ');
}

void print(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    for (; *format != 0; format++) {
        if (*format != '%') {
            put_char(*format);
            continue;
        }
        char fill = *++format == '0' ? '0' : ' ';
        word width = 0;
        for (; *format >= '0' && *format <= '9'; format++)
            width = width * 10 + (word)(*format - '0');
        while (*format == 'l')
            format++;
        switch (*format) {
        case 's': put_text(va_arg(values, const char *), width); break;
        case 'c': put_char((char)va_arg(values, int)); break;
        case 'u': put_number(va_arg(values, word), 10, width, fill); break;
        case 'x': put_number(va_arg(values, word), 16, width, fill); break;
        default: put_char(*format); break;
        }
    }
    va_end(values);
}

/* --- results --- */

static word passed, failed;

void check(const char *what, int is_so)
{
    print("  %72s %s\n", what, is_so ? "OK" : "FAILED");
    *(is_so ? &passed : &failed) += 1;
}

void check_equal(const char *what, word found, word expected)
{
    check(what, found == expected);
    if (found != expected)
        print("    found %lx, expected %lx\n", found, expected);
}

void finish(void)
{
    print("%lu passed, %lu failed\n", passed, failed);
    power_off(failed != 0 || passed == 0);
}

/* --- memory --- */

void touch(const void *start, word bytes, int is_written)
{
    for (word at = (word)start & -X2_PAGE; at < (word)start + bytes; at += X2_PAGE) {
        volatile byte *page = (volatile byte *)(at < (word)start ? (word)start : at);
        byte value = *page;
        if (is_written)
            *page = value;
    }
}

void touch_image(void) { touch(image_start, (word)(image_end - image_start), 0); }

/* --- boot information --- */

enum { BOOT_MAGIC = 0x14B0021D, BOOT_SIMPLE_EXEC = 2 };
/* Words of the header, and of a record for an executable. */
enum { BOOT_FIRST = 3, BOOT_COUNT = 4, RECORD_TYPE = 0, RECORD_NEXT = 2, EXEC_COMMAND_LINE = 15 };

static const char *find_command_line(void)
{
    word address = x2_kip[KIP_BOOT_INFO];
    if (address == 0 || x2_sigma0_page(address, 12) == 0)
        return "";
    const word *info = (const word *)address;
    if (info[0] != BOOT_MAGIC)
        return "";
    const word *record = (const word *)(address + info[BOOT_FIRST]);
    word executables = 0;
    for (word left = info[BOOT_COUNT]; left > 0; left--) {
        /* sigma0 is the first executable, the root task the second. */
        if (record[RECORD_TYPE] == BOOT_SIMPLE_EXEC && ++executables == 2)
            return record[EXEC_COMMAND_LINE] == 0 ? "" : (const char *)record + record[EXEC_COMMAND_LINE];
        record = (const word *)((word)record + record[RECORD_NEXT]);
    }
    return "";
}

const char *command_line(void)
{
    static const char *line;
    if (line == 0) {
        line = find_command_line();
        while (*line != 0 && *line != ' ')
            line++;
    }
    return line;
}

int has_option(const char *option)
{
    for (const char *at = command_line(); *at != 0;) {
        while (*at == ' ')
            at++;
        word length = 0;
        while (option[length] != 0 && at[length] == option[length])
            length++;
        if (option[length] == 0 && length > 0 && (at[length] == ' ' || at[length] == 0))
            return 1;
        while (*at != 0 && *at != ' ')
            at++;
    }
    return 0;
}
