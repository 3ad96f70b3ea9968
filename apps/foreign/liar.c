/* Firmware that lies, for tests. It stands between QEMU's firmware and kickstart, which is its first boot module: spoils tables
 * and the memory map as the words on that module's command line say, and starts kickstart as QEMU would have.
 *
 *   checksum=SIGN   the table's bytes do not add up to zero
 *   gone=SIGN       there is no such table
 *   silent          the last processor has another number than the table says
 *   allram          the memory map has nothing but memory
 *
 * (Multiboot Specification 0.6.96; ACPI Specification, Root System Description Pointer; ELF-64 Object File Format.) */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;

enum { MODS_COUNT = 20, MODS = 24, MMAP_BYTES = 44, MMAP = 48, MODULE_BYTES = 16, LINE = 8 };
enum { TABLE_BYTES = 4, CHECKSUM = 9, HEADER = 36, RSDT = 16 };

static u32 word(u32 at) { return *(volatile u32 *)at; }
static void put(u32 at, u32 value) { *(volatile u32 *)at = value; }
static u8 byte(u32 at) { return *(volatile u8 *)at; }
static void put_byte(u32 at, u8 value) { *(volatile u8 *)at = value; }

static int starts_with(u32 at, const char *text)
{
    for (; *text; at++, text++)
        if (byte(at) != (u8)*text)
            return 0;
    return 1;
}

/* The list of tables that the BIOS names; 0 if there is none. */
static u32 list_of_tables(void)
{
    for (u32 at = 0xE0000; at < 0x100000; at += 16)
        if (starts_with(at, "RSD PTR "))
            return word(at + RSDT);
    return 0;
}

/* The table whose signature stands at `name`; 0 if there is none. */
static u32 table(u32 name)
{
    u32 list = list_of_tables();
    if (!list)
        return 0;
    for (u32 at = HEADER; at + 4 <= word(list + TABLE_BYTES); at += 4)
        if (word(word(list + at)) == word(name))
            return word(list + at);
    return 0;
}

static void sum_up(u32 table)
{
    u8 sum = 0;
    put_byte(table + CHECKSUM, 0);
    for (u32 at = 0; at < word(table + TABLE_BYTES); at++)
        sum += byte(table + at);
    put_byte(table + CHECKSUM, -sum);
}

/* The last processor in the table of interrupt controllers gets a number that no processor has. */
static void silence(void)
{
    enum { ENTRIES = 44, PROCESSOR = 0, NUMBER = 3, NOBODY = 77 };
    u32 found = 0, madt = table((u32) "APIC");
    if (!madt)
        return;
    for (u32 at = ENTRIES; at < word(madt + TABLE_BYTES) && byte(madt + at + 1); at += byte(madt + at + 1))
        if (byte(madt + at) == PROCESSOR)
            found = madt + at;
    if (found)
        put_byte(found + NUMBER, NOBODY);
    sum_up(madt);
}

static void claim_all(u32 info)
{
    enum { KIND = 20, MEMORY = 1 };
    u32 at = word(info + MMAP), end = at + word(info + MMAP_BYTES);
    for (; at < end; at += word(at) + 4)
        put(at + KIND, MEMORY);
}

static void obey(u32 info, u32 words)
{
    for (u32 at = words; byte(at); at++) {
        u32 found = 0;
        if (starts_with(at, " checksum=") && (found = table(at + 10)))
            put_byte(found + CHECKSUM, byte(found + CHECKSUM) + 1);
        if (starts_with(at, " gone=") && (found = table(at + 6)))
            put(found, 0x3F3F3F3F);
        if (starts_with(at, " silent"))
            silence();
        if (starts_with(at, " allram"))
            claim_all(info);
    }
}

/* Puts the segments of a file where they belong, and returns its entry. */
static u32 load(u32 file)
{
    enum { ENTRY = 24, SEGMENTS = 32, COUNT = 56, SEGMENT_BYTES = 56, LOAD = 1 };
    enum { OFFSET = 8, PLACE = 24, FILE_BYTES = 32, BYTES = 40 };
    u32 segment = file + word(file + SEGMENTS);
    for (u32 left = *(u16 *)(file + COUNT); left; left--, segment += SEGMENT_BYTES) {
        if (word(segment) != LOAD)
            continue;
        u32 from = file + word(segment + OFFSET), to = word(segment + PLACE);
        for (u32 at = 0; at < word(segment + BYTES); at++)
            put_byte(to + at, at < word(segment + FILE_BYTES) ? byte(from + at) : 0);
    }
    return word(file + ENTRY);
}

u32 lie(u32 info)
{
    u32 loader = word(info + MODS);
    obey(info, word(loader + LINE));
    put(info + MODS, loader + MODULE_BYTES);
    put(info + MODS_COUNT, word(info + MODS_COUNT) - 1);
    return load(word(loader));
}
