/* A sigma0: the first owner and pager of physical memory, with no more than its protocol.
 *
 * It reads the memory descriptors of the kernel interface page, keeps the whole address range as a list of regions,
 * and takes the memory for that list a page at a time out of what it manages. Its own pages appear as it touches
 * them, at their physical addresses; what it maps to others it need not have touched.
 */
#include "base.h"

/* Owners of regions: thread ids, and values that no requester can have as its id. */
#define FREE 0UL     /* anybody's, for the asking */
#define SPECIAL 64UL /* anybody's who asks for that address */
#define NOBODY 128UL
#define SHARED X2_ANY

struct region {
    word low, high; /* both inside */
    word owner;
    struct region *next;
};

static struct region first_regions[128];
static struct region *regions, *unused;

static void add_unused(struct region *these, word count)
{
    for (word i = 0; i < count; i++) {
        these[i].next = unused;
        unused = &these[i];
    }
}

/* Cuts the region that begins below `at`, if there is one with more behind, so that one begins there. */
static void cut(word at)
{
    for (struct region *r = regions; r != 0; r = r->next) {
        if (r->low < at && at <= r->high) {
            struct region *upper = unused;
            unused = upper->next;
            *upper = (struct region){.low = at, .high = r->high, .owner = r->owner, .next = r->next};
            r->high = at - 1;
            r->next = upper;
            return;
        }
    }
}

/* Joins neighbours of one owner. */
static void join(void)
{
    for (struct region *r = regions; r->next != 0;) {
        struct region *next = r->next;
        if (next->owner == r->owner) {
            r->high = next->high;
            r->next = next->next;
            next->next = unused;
            unused = next;
        } else {
            r = next;
        }
    }
}

static void set_owner(word low, word high, word owner)
{
    cut(low);
    if (high != ~0UL)
        cut(high + 1);
    for (struct region *r = regions; r != 0; r = r->next)
        if (low <= r->low && r->high <= high)
            r->owner = owner;
    join();
}

/* Whether `thread` may have all from `low` to `high`. */
static int may_have(word thread, word low, word high, int also_special)
{
    for (struct region *r = regions; r != 0; r = r->next) {
        int meets = r->low <= high && low <= r->high;
        int is_open = r->owner == FREE || r->owner == SHARED || (also_special && r->owner == SPECIAL);
        if (meets && !is_open && r->owner != thread)
            return 0;
    }
    return 1;
}

static void give(word thread, word low, word high)
{
    cut(low);
    if (high != ~0UL)
        cut(high + 1);
    for (struct region *r = regions; r != 0; r = r->next)
        if (low <= r->low && r->high <= high && r->owner != SHARED)
            r->owner = thread;
    join();
}

/* An address of 2^log2 free bytes, or all ones. */
static word find_free(word log2)
{
    word mask = (1UL << log2) - 1;
    for (struct region *r = regions; r != 0; r = r->next) {
        word base = (r->low + mask) & ~mask;
        if (r->owner == FREE && base >= r->low && base <= r->high && r->high - base >= mask)
            return base;
    }
    return ~0UL;
}

/* Two cuts need two regions; a page holds many more. */
static void keep_unused(void)
{
    if (unused != 0 && unused->next != 0 && unused->next->next != 0 && unused->next->next->next != 0)
        return;
    word page = find_free(12);
    if (page == ~0UL)
        return;
    give(x2_sigma0_id(), page, page + X2_PAGE - 1);
    add_unused((struct region *)page, X2_PAGE / sizeof(struct region));
}

/* --- the beginning --- */

enum { CONVENTIONAL = 1, RESERVED, DEDICATED, SHARED_MEMORY, BOOT_LOADER = 14, ARCHITECTURE };
#define IS_VIRTUAL 0x200UL

static void read_descriptors(void)
{
    word info = x2_kip[KIP_MEMORY_INFO];
    const word *descriptor = (const word *)((word)x2_kip + (info >> 32));
    word kernel = x2_id(x2_system_base(), 1);
    for (word left = info & 0xFFFFFFFF; left > 0; left--, descriptor += 2) {
        word low = descriptor[0] & ~0x3FFUL, high = descriptor[1] | 0x3FF;
        if ((descriptor[0] & IS_VIRTUAL) != 0)
            continue;
        switch (descriptor[0] & 0xF) {
        case CONVENTIONAL:
            /* Whole pages only. */
            low = (low + 0xFFF) & ~0xFFFUL;
            high = ((high + 1) & ~0xFFFUL) - 1;
            if (low < high)
                set_owner(low, high, FREE);
            break;
        case RESERVED: set_owner(low & ~0xFFFUL, high | 0xFFF, kernel); break;
        case SHARED_MEMORY: set_owner(low & ~0xFFFUL, high | 0xFFF, SHARED); break;
        case DEDICATED:
        case BOOT_LOADER:
        case ARCHITECTURE: set_owner(low & ~0xFFFUL, high | 0xFFF, SPECIAL); break;
        default: set_owner(low & ~0xFFFUL, high | 0xFFF, NOBODY); break;
        }
    }
}

static void read_servers(void)
{
    for (word i = 0; i < 3; i++) {
        const word *server = x2_kip + KIP_SIGMA0 + 4 * i;
        if (server[SERVER_LOW] < server[SERVER_HIGH])
            set_owner(server[SERVER_LOW] & ~0xFFFUL, (server[SERVER_HIGH] - 1) | 0xFFF, x2_id(x2_user_base() + i, 1));
    }
}

/* --- requests --- */

/* The page that the request gets, as an fpage, or 0. */
static word request(word from, word fpage, word high_word, word word_size_mask)
{
    word log2 = fpage >> 4 & 63, base = fpage & ~0x3FFUL;
    if (log2 < 12 || log2 >= 63)
        return 0;
    word mask = (1UL << log2) - 1;
    if (base >> 10 == word_size_mask >> 10) {
        base = find_free(log2);
        if (base == ~0UL)
            return 0;
    } else {
        base = (base | high_word << 32) & ~mask;
        if (!may_have(from, base, base | mask, 1))
            return 0;
    }
    give(from, base, base | mask);
    return x2_fpage(base, log2, X2_RWX);
}

static word page_fault(word from, word address)
{
    word base = address & ~(X2_PAGE - 1);
    if (!may_have(from, base, base + X2_PAGE - 1, 0))
        return 0;
    give(from, base, base + X2_PAGE - 1);
    return x2_fpage(base, 12, X2_RWX);
}

static void set_attribute(word *fpage, word attribute)
{
    if (*fpage == 0 || attribute == 0)
        return;
    const word attributes[4] = {attribute, 0, 0, 0};
    x2_mr()[0] = *fpage & ~X2_RWX;
    if (x2_memory_control(0, attributes) == 0)
        *fpage = 0;
}

static void dump(void)
{
    for (struct region *r = regions; r != 0; r = r->next)
        print("foreign sigma0: %016lx - %016lx owner %lx\n", r->low, r->high, r->owner);
}

/* Whether there is an answer; it is in the message registers then. */
static int handle(word from, word tag)
{
    word *mr = x2_mr();
    word mask = *x2_tcr(TCR_WORD_SIZE_MASK), fpage, first = mr[1], second = mr[2], third = mr[3];
    *x2_tcr(TCR_WORD_SIZE_MASK) = ~0UL;
    if ((tag & X2_ERROR) != 0 || x2_typed(tag) != 0 || (x2_untyped(tag) != 2 && x2_untyped(tag) != 3))
        return 0;
    switch (x2_protocol(tag)) {
    case X2_SIGMA0:
        fpage = request(from, first, (first & 8) != 0 && x2_untyped(tag) == 3 ? third : 0, mask);
        set_attribute(&fpage, second);
        break;
    case X2_PAGE_FAULT: fpage = page_fault(from, first); break;
    case X2_SIGMA0_EXTENDED:
        if (!(x2_id(x2_system_base(), 1) <= from && from < x2_sigma0_id()) && from != x2_root_id())
            return 0;
        if (first != 2)
            return 0;
        dump();
        mr[0] = 0;
        return second != 0;
    default: return 0;
    }
    mr[0] = x2_tag(0, 2, 0);
    mr[1] = x2_map_item(fpage & ~0x3FFUL);
    mr[2] = fpage;
    return 1;
}

int main(void)
{
    add_unused(first_regions, sizeof first_regions / sizeof *first_regions);
    regions = unused;
    unused = unused->next;
    *regions = (struct region){.low = 0, .high = ~0UL, .owner = SPECIAL, .next = 0};
    read_descriptors();
    read_servers();
    *x2_br(0) = 0;
    word from, tag = x2_wait(&from);
    for (;;) {
        keep_unused();
        if (handle(from, tag)) {
            tag = x2_reply_wait(from, &from);
            /* Nobody waits for the answer, or it takes no mappings. */
            if ((tag & X2_ERROR) != 0)
                tag = x2_wait(&from);
        } else {
            tag = x2_wait(&from);
        }
    }
}
