/* Takes all memory that sigma0 gives away for the asking: any pages, the largest first. What was given is written to
 * and read, so that each byte is the program's alone.
 */
#include "base.h"

/* The memory that must be there, in pages: half of what the smallest machine of the tests has. */
#define EXPECTED_PAGES (32UL << 20 >> 12)

/* Writes its own address into each page, and sees that it reads zero or nothing of ours before. */
static int mark(word base, word log2)
{
    const word mark_of = 0x4D41524B00000000;
    int is_fresh = 1;
    for (word at = base; at < base + (1UL << log2); at += X2_PAGE) {
        volatile word *page = (volatile word *)at;
        is_fresh &= page[0] != (at ^ mark_of) || page[1] != at;
        page[0] = at ^ mark_of;
        page[1] = at;
    }
    return is_fresh;
}

int main(void)
{
    word total = 0;
    int are_fresh = 1;
    for (int round = 0; round < 2; round++) {
        word pages = 0;
        for (word log2 = 63; log2 >= 10; log2--) {
            word count = 0, fpage;
            while ((fpage = x2_sigma0_any(log2)) != 0) {
                if ((fpage >> 4 & 63) != log2 || (fpage & X2_RWX) != X2_RWX)
                    check("the page is of the size that was asked for, with all rights", 0);
                are_fresh &= mark(fpage & ~0x3FFUL, log2);
                count++;
            }
            if (count > 0)
                print("allocated %lu pages of 2^%lu bytes\n", count, log2);
            pages += log2 >= 12 ? count << (log2 - 12) : count;
            if (log2 < 12 && count > 0)
                check("pages smaller than the hardware's are refused", 0);
        }
        print("round %lu: %lu pages\n", (word)round, pages);
        total += pages;
        if (round == 1)
            check_equal("nothing is left for the second round", pages, 0);
    }
    check("there was memory", total >= EXPECTED_PAGES);
    check("no page was given twice", are_fresh);
    finish();
}
