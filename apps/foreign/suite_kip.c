/* The kernel interface page, field by field, and the call that finds it. */
#include "suite.h"

static word field(word w) { return x2_kip[w]; }
static int is_inside(word offset) { return offset >= 0x240 && offset < X2_PAGE && (offset & 7) == 0; }

static void test_fields(const byte *bytes)
{
    check("it begins with L4, 0xE6, K, and zeros", field(KIP_MAGIC) == 0x4BE6344C);
    check_equal("ApiVersion", field(KIP_VERSION), 0x84050000);
    check_equal("ApiFlags: little endian, 64 bits", field(KIP_FLAGS), 4);
    check_equal("UtcbInfo: 1 KiB each, in areas from 4 KiB on", field(KIP_UTCB_INFO), 12 << 16 | 10 << 10 | 1);
    check_equal("KipAreaInfo: 4 KiB", field(KIP_AREA_INFO), 12);
    check_equal("ThreadInfo: 18 bits of a thread number", field(KIP_THREAD_INFO) & 0xFF, 18);
    check("SystemBase is above the lines of the oldest controllers", x2_system_base() >= 16);
    check_equal("UserBase", x2_user_base(), x2_system_base() + 32);
    check_equal("the root task is the third user", x2_my_id(), x2_root_id());
    check_equal("PageInfo: three rights", field(KIP_PAGE_INFO) & 0x3FF, X2_RWX);
    check("PageInfo: 4 KiB and 2 MiB", (field(KIP_PAGE_INFO) & 0x201000) == 0x201000);
    check_equal("no architecture calls", field(KIP_ARCH_CALLS) | field(KIP_ARCH_CALLS + 1), 0);
    check_equal("no server between sigma0 and the root task", field(KIP_SIGMA1 + SERVER_HIGH), 0);
    check_equal("the root task begins where it is linked", field(KIP_ROOT + SERVER_LOW), (word)image_start);
    word high = field(KIP_ROOT + SERVER_HIGH);
    check("it ends before its last page does", high > (word)image_end - X2_PAGE && high <= (word)image_end);
    check_equal("its stack pointer is 0", field(KIP_ROOT + SERVER_SP), 0);
    check("ClockInfo has a reading precision", (field(KIP_CLOCK_INFO) & 0xFFFF) != 0);

    word processors = field(KIP_PROCESSOR_INFO);
    check_equal("ProcessorInfo: one processor", processors & 0xFFFF, 0);
    check_equal("ProcessorInfo: descriptors of 32 bytes", processors >> 60, 5);
    word offset = field(KIP_PROCESSOR_DESC);
    check("the processor descriptors are in the page", is_inside(offset));
    const word *processor = (const word *)(bytes + offset);
    check("frequencies in kHz", processor[0] > 1000 && processor[1] > 1000 && processor[1] < 1000 * 1000 * 1000);
}

static void test_kernel_descriptor(const byte *bytes)
{
    word offset = field(KIP_KERNEL_DESC);
    check("the kernel descriptor is in the page", is_inside(offset));
    const word *descriptor = (const word *)(bytes + offset);
    check_equal("KernelId is what KernelInterface returns", descriptor[0], x2_kernel_interface().kernel_id);
    check("a date of generation",
          (descriptor[1] & 31) - 1 < 31 && (descriptor[1] >> 5 & 15) - 1 < 12 && (descriptor[1] >> 9 & 127) > 20);
    /* Version, then features, then an empty string, all in the page. */
    word at = offset + 32, strings = 0;
    while (at < X2_PAGE && bytes[at] != 0) {
        while (at < X2_PAGE && bytes[at] != 0)
            at++;
        at++, strings++;
    }
    check("a version and features, and the end of the list", strings >= 1 && at < X2_PAGE);
}

static void test_calls(void)
{
    int are_alike = 1, are_absolute = 1;
    for (word i = 0; i < 11; i++) {
        are_absolute &= field(KIP_CALLS + i) >= X2_PAGE;
        are_alike &= field(KIP_CALLS + i) == ((const word *)&x2_calls)[i];
    }
    check("11 system calls by address", are_absolute && are_alike);
}

enum { CONVENTIONAL = 1, RESERVED = 2, SHARED = 4, BOOT_LOADER = 14, VIRTUAL = 0x200 };

/* The first descriptor from `from` on of a type (with its subtype, if that is not 0) that covers `address`; -1 if
 * none. */
static long find(const word *list, word count, word from, word type, word address)
{
    for (word i = from; i < count; i++) {
        word mask = (type & 0xF0) != 0 ? 0x2FF : 0x20F;
        if ((list[2 * i] & mask) == type && (list[2 * i] & ~0x3FFUL) <= address && address <= (list[2 * i + 1] | 0x3FF))
            return (long)i;
    }
    return -1;
}

static void test_memory_descriptors(const byte *bytes)
{
    word info = field(KIP_MEMORY_INFO), count = info & 0xFFFFFFFF, offset = info >> 32;
    check("the memory descriptors are in the page", is_inside(offset) && offset + 16 * count <= X2_PAGE);
    const word *list = (const word *)(bytes + offset);
    check("first: everything is shared", list[0] == SHARED && list[1] == ~0x3FFUL);
    long ram = find(list, count, 0, CONVENTIONAL | 0x10, 0x2000000);
    long screen = find(list, count, 1, SHARED, 0xB8000), roms = find(list, count, 1, SHARED, 0xC0000);
    long sigma0 = find(list, count, 0, BOOT_LOADER | 0x20, field(KIP_SIGMA0 + SERVER_LOW));
    long root = find(list, count, 0, BOOT_LOADER | 0x20, field(KIP_ROOT + SERVER_LOW));
    long table = find(list, count, 0, BOOT_LOADER | 0x10, field(KIP_BOOT_INFO));
    check("then memory of the BIOS, with its subtype", ram > 0);
    check("then the screen and the ROMs, shared", screen > ram && roms == screen + 1);
    check("then what is reserved for the kernel, below 240 MiB",
          roms > 0 && (list[2 * (roms + 1)] & 0xF) == RESERVED && list[2 * (roms + 1) + 1] < (240UL << 20));
    check("then sigma0 and the root task", sigma0 > roms && root == sigma0 + 1);
    check("then the boot information", table > root);
    long kernel = find(list, count, (word)table, RESERVED, 0x600000);
    check("then the kernel's image", kernel > table);
    long user = find(list, count, (word)table, CONVENTIONAL | VIRTUAL, (word)image_start);
    check("then user addresses", user > table);
    int has_virtual_reserved = 0;
    for (word i = 0; i < count; i++)
        has_virtual_reserved |= (list[2 * i] & 0x20F) == (RESERVED | VIRTUAL);
    check("no virtual memory is reserved: old programs take that for a trace buffer", !has_virtual_reserved);
}

static int is_found(word depth)
{
    volatile byte deep[64];
    deep[depth & 63] = (byte)depth;
    struct x2_interface i = x2_kernel_interface();
    int is_right = i.kip == x2_kip && i.version == 0x84050000 && i.flags == 4 && i.kernel_id == (unsigned)i.kernel_id;
    return depth == 0 ? is_right : is_right & is_found(depth - 1) & (deep[depth & 63] == (byte)depth);
}

void test_kip(void)
{
    const byte *bytes = (const byte *)x2_kip;
    check_equal("the page is where the root task's is", (word)x2_kip, 0xBFF00000);
    check_equal("and so is the UTCB", x2_my_local_id(), 0xBF000200);
    test_fields(bytes);
    test_kernel_descriptor(bytes);
    test_calls();
    test_memory_descriptors(bytes);
    int is_right = 1;
    for (word i = 0; i < 10000 / 20; i++)
        is_right &= is_found(19);
    check("KernelInterface 10000 times, at all depths of the stack", is_right);
}
