/* A boot loader that does what the stock one does, and no more: three modules become kernel, sigma0 and root task, and
 * the kernel interface page inside the kernel is patched. A kernel that boots from here needs nothing of our loader's
 * own: what it finds is a 32-bit processor as Multiboot left it, and the words written below.
 */

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

enum { PAGE = 4096, MIB = 1 << 20 };
/* Where the modules must have ended: behind it lies the copy of the Multiboot information, then the boot information, then
 * the kernel. */
enum { MULTIBOOT = 0x5FE000, BOOT_INFO = 0x5FF000 };

void load(u32 magic, const u32 *info);
__attribute__((noreturn)) void leave_to(u32 entry);

/* The compiler may call these by itself. */
void *memcpy(void *to, const void *from, u32 bytes);
void *memcpy(void *to, const void *from, u32 bytes)
{
    u8 *target = to;
    for (const u8 *source = from; bytes > 0; bytes--)
        *target++ = *source++;
    return to;
}

void *memset(void *to, int value, u32 bytes);
void *memset(void *to, int value, u32 bytes)
{
    for (u8 *target = to; bytes > 0; bytes--)
        *target++ = (u8)value;
    return to;
}

/* --- failure --- */

static void out_byte(unsigned short port, u8 value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }

__attribute__((noreturn)) static void fail(const char *why)
{
    for (; *why != 0; why++)
        out_byte(0x3F8, (u8)*why);
    out_byte(0x3F8, '\n');
    out_byte(0xF4, 0x7F);
    for (;;)
        __asm__ volatile("hlt");
}

/* --- executables --- */

struct segment {
    u32 type, flags;
    u64 offset, vaddr, paddr, file_bytes, memory_bytes, align;
};

struct image {
    u32 low, high, entry;
    const char *command_line;
    struct { u32 start, bytes; } text, data, bss;
};

/* Puts the segments of a 64-bit executable where they belong; their physical and virtual addresses differ in the
 * kernel alone, which has no record. */
static struct image load_image(const u32 *module, u32 free_from)
{
    enum { EXECUTABLE = 2, LOAD = 1, WRITABLE = 2 };
    const u8 *file = (const u8 *)module[0];
    struct image image = {.low = ~0U, .command_line = (const char *)module[2]};
    if (*(const u32 *)file != 0x464C457F || file[4] != 2)
        fail("foreign kickstart: a module is no 64-bit ELF file");
    if (*(const unsigned short *)(file + 16) != EXECUTABLE)
        fail("foreign kickstart: a module is no EXEC file");
    image.entry = *(const u32 *)(file + 24);
    const struct segment *segment = (const struct segment *)(file + *(const u32 *)(file + 32));
    for (u32 left = *(const unsigned short *)(file + 56); left > 0; left--, segment++) {
        if (segment->type != LOAD)
            continue;
        u32 start = (u32)segment->paddr, bytes = (u32)segment->file_bytes, all = (u32)segment->memory_bytes;
        if (start < free_from)
            fail("foreign kickstart: a segment lies over a module");
        memcpy((void *)start, file + segment->offset, bytes);
        memset((void *)(start + bytes), 0, all - bytes);
        image.low = start < image.low ? start : image.low;
        image.high = start + all > image.high ? start + all : image.high;
        if ((segment->flags & WRITABLE) == 0) {
            image.text.start = start, image.text.bytes = all;
        } else {
            image.data.start = start, image.data.bytes = bytes;
            image.bss.start = start + bytes, image.bss.bytes = all - bytes;
        }
    }
    return image;
}

/* --- the kernel interface page --- */

enum { KIP_SIGMA0 = 8, KIP_ROOT = 16, KIP_MEMORY_INFO = 21, KIP_BOOT_INFO = 46, KIP_PAGE_INFO = 50 };

/* The first place with the magic, from the page on in which the kernel begins. */
static u64 *find_kip(const struct image *kernel)
{
    for (u32 at = kernel->low & -PAGE; at < kernel->high; at += 4) {
        const u32 *words = (const u32 *)at;
        if (words[0] == 0x4BE6344C && words[1] == 0)
            return (u64 *)at;
        if (words[0] == 0x4BE6344C)
            fail("foreign kickstart: the kernel is a 32-bit one");
    }
    fail("foreign kickstart: the kernel has no interface page");
}

static void set_server(u64 *words, const struct image *image)
{
    words[1] = image->entry, words[2] = image->low, words[3] = image->high;
}

enum { CONVENTIONAL = 1, RESERVED = 2, SHARED = 4, BOOT_LOADER = 14, ARCHITECTURE = 15 };

static u64 *descriptors;
static u32 descriptor_count;

/* Adds a range with its last byte inside. */
static void describe(u64 low, u64 high, u32 type, u32 subtype)
{
    descriptors[2 * descriptor_count] = (low & ~0x3FFULL) | subtype << 4 | type;
    descriptors[2 * descriptor_count + 1] = high & ~0x3FFULL;
    descriptor_count++;
}

/* 16 MiB at the end of the first conventional memory with room below 240 MiB, at a multiple of 2 MiB. */
static u32 find_kernel_memory(const u8 *map, const u8 *map_end)
{
    enum { WANTED = 16 * MIB, LIMIT = 240 * MIB };
    for (; map < map_end; map += *(const u32 *)map + 4) {
        u64 start = *(const u64 *)(map + 4), end = start + *(const u64 *)(map + 12);
        if (end > LIMIT)
            end = LIMIT;
        if (*(const u32 *)(map + 20) == 1 && end > start && end - start >= WANTED + 2 * MIB)
            return (u32)(end - WANTED) & -(2 * MIB);
    }
    fail("foreign kickstart: no room for kernel memory");
}

static void describe_memory(const u32 *info, const struct image *sigma0, const struct image *root)
{
    const u8 *map = (const u8 *)info[12], *map_end = map + info[11];
    describe(0, ~0ULL, SHARED, 0);
    for (const u8 *entry = map; entry < map_end; entry += *(const u32 *)entry + 4) {
        u64 start = *(const u64 *)(entry + 4), last = start + *(const u64 *)(entry + 12) - 1;
        u32 type = *(const u32 *)(entry + 20);
        describe(start, last, type == 1 ? CONVENTIONAL : ARCHITECTURE, type);
    }
    describe(0xA0000, 0xBFFFF, SHARED, 0);
    describe(0xC0000, 0xEFFFF, SHARED, 0);
    u32 kernel_memory = find_kernel_memory(map, map_end);
    describe(kernel_memory, kernel_memory + 16 * MIB - 1, RESERVED, 0);
    describe(sigma0->low, sigma0->high - 1, BOOT_LOADER, 2);
    describe(root->low, root->high - 1, BOOT_LOADER, 2);
    describe(BOOT_INFO, BOOT_INFO + PAGE - 1, BOOT_LOADER, 1);
    describe(MULTIBOOT, MULTIBOOT + PAGE - 1, BOOT_LOADER, 1);
}

/* --- boot information --- */

/* Writes a record for an executable, with its command line behind it; returns the place of the next one. */
static u64 *write_record(u64 *record, const struct image *image)
{
    enum { SIMPLE_EXEC = 2, WORDS = 16, CLASS_64 = 2 };
    u8 *text = (u8 *)(record + WORDS);
    u32 length = 0;
    do
        text[length] = (u8)image->command_line[length];
    while (image->command_line[length++] != 0);
    length = (length + 7) & -8U;
    const u64 words[WORDS] = {
        SIMPLE_EXEC, 1, WORDS * 8 + length, image->text.start, image->text.start, image->text.bytes,
        image->data.start, image->data.start, image->data.bytes, image->bss.start, image->bss.start, image->bss.bytes,
        image->entry, CLASS_64, 0, WORDS * 8,
    };
    for (u32 i = 0; i < WORDS; i++)
        record[i] = words[i];
    return (u64 *)(text + length);
}

static void write_boot_info(const struct image *sigma0, const struct image *root)
{
    u64 *header = (u64 *)BOOT_INFO;
    memset(header, 0, PAGE);
    u64 *end = write_record(write_record(header + 8, sigma0), root);
    end[0] = 0x102, end[1] = 1, end[2] = 32, end[3] = MULTIBOOT;
    header[0] = 0x14B0021D, header[1] = 1, header[2] = (u32)end + 32 - BOOT_INFO, header[3] = 64, header[4] = 3;
}

/* Copies the Multiboot information with the entries and command lines of the three modules; the command line is the root
 * task's, and the memory map stays where it is. */
static void write_multiboot(const u32 *info, const u32 *modules, const struct image *images)
{
    enum { HAS_COMMAND_LINE = 1 << 2, HAS_MODULES = 1 << 3, HAS_MAP = 1 << 6, INFO_WORDS = 29, COUNT = 3 };
    u32 *copy = (u32 *)MULTIBOOT, *table = copy + INFO_WORDS;
    char *text = (char *)(table + 4 * COUNT);
    memset(copy, 0, PAGE);
    for (u32 i = 0; i < COUNT; i++) {
        const u32 entry[4] = {modules[4 * i], modules[4 * i + 1], (u32)text, images[i].entry};
        memcpy(table + 4 * i, entry, sizeof entry);
        for (const char *from = images[i].command_line; *from != 0; from++) {
            if ((u32)text >= MULTIBOOT + PAGE - COUNT)
                fail("foreign kickstart: the command lines are too long");
            *text++ = *from;
        }
        text++;
    }
    copy[0] = HAS_COMMAND_LINE | HAS_MODULES | HAS_MAP;
    copy[4] = table[4 * (COUNT - 1) + 2], copy[5] = COUNT, copy[6] = (u32)table, copy[11] = info[11], copy[12] = info[12];
}

void load(u32 magic, const u32 *info)
{
    enum { MODULE_WORDS = 4, HAS_MODULES = 1 << 3, HAS_MAP = 1 << 6 };
    if (magic != 0x2BADB002 || (info[0] & (HAS_MODULES | HAS_MAP)) != (HAS_MODULES | HAS_MAP) || info[5] < 3)
        fail("foreign kickstart: no Multiboot loader with three modules and a memory map");
    const u32 *modules = (const u32 *)info[6];
    for (u32 i = 0; i < 3; i++)
        if (modules[MODULE_WORDS * i + 1] > MULTIBOOT)
            fail("foreign kickstart: the modules are too long");
    struct image kernel = load_image(modules, BOOT_INFO);
    struct image sigma0 = load_image(modules + MODULE_WORDS, kernel.high);
    struct image root = load_image(modules + 2 * MODULE_WORDS, sigma0.high);

    u64 *kip = find_kip(&kernel);
    if (kip[KIP_MEMORY_INFO] >> 32 == 0 || (kip[KIP_PAGE_INFO] & PAGE) == 0)
        fail("foreign kickstart: the interface page is not filled in");
    descriptors = (u64 *)((u32)kip + (u32)(kip[KIP_MEMORY_INFO] >> 32));
    set_server(kip + KIP_SIGMA0, &sigma0);
    set_server(kip + KIP_ROOT, &root);
    describe_memory(info, &sigma0, &root);
    kip[KIP_MEMORY_INFO] = (kip[KIP_MEMORY_INFO] & ~0xFFFFFFFFULL) | descriptor_count;
    write_boot_info(&sigma0, &root);
    const struct image images[] = {kernel, sigma0, root};
    write_multiboot(info, modules, images);
    kip[KIP_BOOT_INFO] = BOOT_INFO;
    leave_to(kernel.entry);
}
