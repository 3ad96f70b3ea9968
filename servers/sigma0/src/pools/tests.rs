//! Pools on a machine of 64 MiB.

use std::boxed::Box;
use std::vec;
use std::vec::Vec;

use l4_abi::{ServerWords, ThreadInfo, Word};

use super::*;

const THREADS: ThreadInfo = ThreadInfo::new(18, 16, 48);
const ALICE: ThreadId = ThreadId::global(100, 1);
const BOB: ThreadId = ThreadId::global(101, 1);
const MEGABYTE: u64 = 1 << 20;

fn storage(regions: usize) -> &'static mut [Region] {
    Box::leak(vec![Region::UNUSED; regions].into_boxed_slice())
}

fn kip() -> Kip {
    let server = |low, high| ServerWords { sp: 0, ip: low, low, high };
    Kip {
        thread_info: THREADS,
        sigma0: server(0xF0_0000, 0xF0_4321),
        root_server: server(0x100_0000, 0x101_0000),
        ..Kip::ZERO
    }
}

fn descriptors() -> Vec<MemoryDescriptor> {
    let new = |kind, low: Word, high: Word| MemoryDescriptor::new(kind, low, high);
    vec![
        new(MemoryType::Conventional, 0, 0x9_FBFF).with_subtype(1),
        new(MemoryType::Architecture, 0x9_FC00, 0x9_FFFF).with_subtype(2),
        new(MemoryType::Conventional, 0x10_0000, 0x3FF_FFFF).with_subtype(1),
        new(MemoryType::Shared, 0xA_0000, 0xB_FFFF),
        new(MemoryType::Reserved, 0x200_0000, 0x2FF_FFFF),
        new(MemoryType::Undefined, 0x5000, 0x5FFF),
        new(MemoryType::BootLoader, 0x300_0000, 0x300_0FFF).with_subtype(1),
        new(MemoryType::Conventional, 0, Word::MAX).as_virtual(),
    ]
}

fn pools() -> Pools<'static> {
    Pools::new(&kip(), &descriptors(), storage(FIRST_REGIONS), storage(PORT_REGIONS))
}

fn owner_at(pools: &Pools<'_>, address: u64) -> Owner {
    pools.memory().find(|part| part.low <= address && address <= part.high).expect("no holes").owner
}

#[test]
fn descriptors_and_servers_say_who_has_what() {
    let pools = pools();
    let rows = [
        (0x0, Owner::Free),
        (0x1000, Owner::Free),
        (0x5000, Owner::Nobody),
        (0x9_E000, Owner::Free),
        (0x9_F000, Owner::Special),
        (0xA_0000, Owner::Shared),
        (0xC_0000, Owner::Special),
        (0x10_0000, Owner::Free),
        (0xF0_0000, Owner::Thread(THREADS.sigma0())),
        (0xF0_4FFF, Owner::Thread(THREADS.sigma0())),
        (0xF0_5000, Owner::Free),
        (0x100_0000, Owner::Thread(THREADS.root_task())),
        (0x101_0000, Owner::Free),
        (0x200_0000, Owner::Thread(THREADS.kernel())),
        (0x300_0000, Owner::Special),
        (0x3FF_FFFF, Owner::Free),
        (0x400_0000, Owner::Special),
        (u64::MAX, Owner::Special),
    ];
    for (address, owner) in rows {
        assert_eq!(owner_at(&pools, address), owner, "{address:#x}");
    }
}

#[test]
fn specific_page_goes_to_the_first_who_asks() {
    let mut pools = pools();
    assert_eq!(pools.take_memory(ALICE, 0x20_0000, 12, Class::Every), Some(()));
    assert_eq!(pools.take_memory(ALICE, 0x20_0000, 12, Class::Every), Some(()), "again");
    assert_eq!(pools.take_memory(BOB, 0x20_0000, 12, Class::Every), None);
    assert_eq!(pools.take_memory(BOB, 0x20_1000, 12, Class::Every), Some(()));
    assert_eq!(pools.take_memory(BOB, 0x20_0000, 13, Class::Every), None, "one page of two");
}

#[test]
fn page_fault_is_served_from_conventional_memory() {
    // address, for a request, for a page fault
    let rows = [
        (0x20_0000, true, true),
        (0xA_0000, true, true),
        (0xFEE0_0000, true, false),
        (0x300_0000, true, false),
        (0x200_0000, false, false),
        (0x5000, false, false),
        (0xF0_0000, false, false),
    ];
    for (address, on_request, on_fault) in rows {
        let taken = |class| pools().take_memory(ALICE, address, 12, class).is_some();
        assert_eq!((taken(Class::Every), taken(Class::Conventional)), (on_request, on_fault), "{address:#x}");
    }
}

#[test]
fn page_fault_finds_what_the_thread_asked_for_before() {
    let mut pools = pools();
    assert_eq!(pools.take_memory(ALICE, 0xFEE0_0000, 12, Class::Conventional), None);
    assert_eq!(pools.take_memory(ALICE, 0xFEE0_0000, 12, Class::Every), Some(()));
    assert_eq!(pools.take_memory(ALICE, 0xFEE0_0000, 12, Class::Conventional), Some(()));
}

#[test]
fn shared_memory_stays_shared() {
    let mut pools = pools();
    for thread in [ALICE, BOB, ALICE] {
        assert_eq!(pools.take_memory(thread, 0xA_0000, 17, Class::Every), Some(()));
    }
    assert_eq!(owner_at(&pools, 0xB_8000), Owner::Shared);
}

#[test]
fn large_request_may_mix_pools() {
    let mut pools = pools();
    // Free, special, shared and own pages in one megabyte; one page is unusable.
    assert_eq!(pools.take_memory(ALICE, 0, 20, Class::Every), None);
    assert_eq!(pools.take_memory(ALICE, 0x8_0000, 19, Class::Every), Some(()));
    assert_eq!(owner_at(&pools, 0x8_0000), Owner::Thread(ALICE));
    assert_eq!(owner_at(&pools, 0xA_0000), Owner::Shared);
    assert_eq!(owner_at(&pools, 0xF_0000), Owner::Thread(ALICE));
    assert_eq!(owner_at(&pools, 0x10_0000), Owner::Free);
}

#[test]
fn refused_request_takes_nothing() {
    let mut pools = pools();
    let before: Vec<Part> = pools.memory().collect();
    assert_eq!(pools.take_memory(ALICE, 0, 26, Class::Every), None);
    assert_eq!(pools.memory().collect::<Vec<Part>>(), before);
}

#[test]
fn sizes_below_a_page_and_beyond_the_word_are_refused() {
    for size_log2 in [0, 1, 2, 10, 11, 64] {
        assert_eq!(pools().take_memory(ALICE, 0x20_0000, size_log2, Class::Every), None, "{size_log2}");
        assert_eq!(pools().take_any(ALICE, size_log2), None, "{size_log2}");
    }
}

#[test]
fn any_page_comes_from_the_smallest_region_with_room() {
    let mut pools = pools();
    let small = pools.take_any(ALICE, 12).expect("there is memory");
    assert!(small < 0xA_0000 && small != 0, "{small:#x}");
    let large = pools.take_any(ALICE, 22).expect("there is memory");
    assert_eq!((large % (4 * MEGABYTE), owner_at(&pools, large)), (0, Owner::Thread(ALICE)));
}

#[test]
fn any_requests_end_when_free_memory_does() {
    let mut pools = pools();
    let mut total = 0;
    for size_log2 in (PAGE_LOG2..40).rev() {
        while let Some(base) = pools.take_any(ALICE, size_log2) {
            assert!(base % (1 << size_log2) == 0 && base != 0);
            total += 1u64 << size_log2;
        }
    }
    let expected = 64 * MEGABYTE - 16 * MEGABYTE   // reserved
        - 0x6_0000 - 0x1000                         // above 640 KiB, and the page that is only partly conventional
        - 0x1000 - 0x1000                           // page zero, the unusable page
        - 0x5000 - 0x1_0000 - 0x1000; // sigma0, root task, boot information
    assert_eq!(total, expected);
    let free: Vec<_> = pools.memory().filter(|part| part.owner == Owner::Free).collect();
    assert_eq!(free, [Part { low: 0, high: 0xFFF, owner: Owner::Free }]);
    assert_eq!(pools.take_memory(ALICE, 0, PAGE_LOG2, Class::Conventional), Some(()), "page zero by its address");
    assert_eq!(pools.take_memory(BOB, 0, PAGE_LOG2, Class::Every), None, "page zero has an owner");
}

#[test]
fn ports_are_handed_out_exclusively() {
    let mut pools = pools();
    assert_eq!(pools.take_ports(ALICE, 0x3F8, 0x3FF), Some(()));
    assert_eq!(pools.take_ports(ALICE, 0x3F8, 0x3F8), Some(()), "again");
    assert_eq!(pools.take_ports(BOB, 0x3FF, 0x3FF), None);
    assert_eq!(pools.take_ports(BOB, 0, 0xFFFF), None);
    assert_eq!(pools.take_ports(BOB, 0x400, 0xFFFF), Some(()));
    assert_eq!(pools.ports().last(), Some(Part { low: 0x400, high: 0xFFFF, owner: Owner::Thread(BOB) }));
}

#[test]
fn storage_grows_out_of_the_free_pool_and_the_old_one_returns() {
    let mut pools = pools();
    let mut claims = Vec::new();
    // Every other page: each makes two regions.
    for page in 0..4000u64 {
        pools.keep_room(|base, regions| {
            claims.push((base, regions));
            storage(regions)
        });
        assert_eq!(
            pools.take_memory(ALICE, 0x110_0000 + page * 0x1000 * 2, 12, Class::Every),
            (page < 1920).then_some(())
        );
        if page == 1919 {
            break;
        }
    }
    assert_eq!(claims.len(), 2);
    assert!(claims[1].1 >= 2 * claims[0].1 && claims[0].1 >= 2 * FIRST_REGIONS);
    assert_eq!(owner_at(&pools, claims[1].0), Owner::Thread(THREADS.sigma0()));
    assert_eq!(owner_at(&pools, claims[0].0), Owner::Free);
}

#[test]
fn without_memory_for_storage_requests_are_refused() {
    let mut pools = pools();
    let mut refused = 0;
    for page in 0..4096u64 {
        // Far from all memory, so that the regions are the only limit; the pool is empty.
        while pools.take_any(BOB, 12).is_some() {}
        pools.keep_room(|_, _| unreachable!("there is no free memory"));
        refused += usize::from(pools.take_memory(ALICE, 0x1_0000_0000 + page * 0x2000, 12, Class::Every).is_none());
    }
    assert!(refused > 3000, "{refused}");
    assert_eq!(pools.take_memory(ALICE, 0x1_0000_0000, 12, Class::Every), None, "even what it has");
}
