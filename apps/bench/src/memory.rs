//! Pages that come and go.

use l4::Word;
use l4::space;
use measure::clock::WARM_UP;

use crate::{Bench, client, pages};

/// Page faults of the client; the pager answers each with a page. The table for the pages is there: image and pages are in
/// one part of 2 MiB.
pub fn page_fault(bench: &Bench) {
    // Each fault takes another page.
    let rounds = bench.rounds.min(pages::COUNT as u64 - WARM_UP);
    space::unmap(&mut [pages::first(pages::COUNT)]);
    let ticks = client::tell(client::FAULT, rounds as Word);
    bench.print("inter", Some(ticks), rounds);
}

/// Unmap: a page that the client has or does not have, and all pages at once.
pub fn unmap(bench: &Bench) {
    let modes = [("1 page, nowhere", 1, 0), ("1 page", 1, 1), ("64 pages", pages::COUNT, pages::COUNT)];
    for (mode, count, mapped) in modes {
        let fpage = pages::first(count);
        bench.figure(mode, count as u64, |clock| {
            client::tell(client::TOUCH, mapped as Word);
            clock.time(|| space::unmap(&mut [fpage]));
        });
    }
}
