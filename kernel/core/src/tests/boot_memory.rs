//! Which memory is the kernel's, by the loader's descriptors (X.2, Memory Descriptor; Generic booting).

use l4_abi::{MemoryDescriptor, MemoryType};

use crate::boot::{is_memory, kernel_memory};
use crate::machine::PhysAddr;

const LIMIT: u64 = 512 << 20;
const IMAGE: (PhysAddr, PhysAddr) = (PhysAddr(0x60_0000), PhysAddr(0x70_0000));

/// Descriptors with their last byte inside; ranges of kernel memory with their ends.
fn check(what: &str, descriptors: &[(MemoryType, u64, u64)], expected: &[(u64, u64)]) {
    let everything = MemoryDescriptor::new(MemoryType::Shared, 0, u64::MAX);
    let own = descriptors.iter().map(|&(kind, low, high)| MemoryDescriptor::new(kind, low, high));
    let list: Vec<_> = [everything].into_iter().chain(own).collect();
    let found = kernel_memory(&list, IMAGE, PhysAddr(LIMIT));
    let found: Vec<_> = found.iter().filter(|(start, end)| start != end).map(|(start, end)| (start.0, end.0)).collect();
    assert_eq!(found, expected, "{what}");
}

#[test]
fn reserved_memory_is_the_kernel_s() {
    use MemoryType::{Conventional, Reserved, Shared};
    check("nothing reserved", &[(Conventional, 0x10_0000, 0xFFF_FFFF)], &[]);
    check(
        "two pieces",
        &[(Reserved, 0x300_0000, 0x3FF_FFFF), (Shared, 0xA_0000, 0xB_FFFF), (Reserved, 0x800_0000, 0x80F_FFFF)],
        &[(0x300_0000, 0x400_0000), (0x800_0000, 0x810_0000)],
    );
    check("whole frames only", &[(Reserved, 0x300_0400, 0x300_2BFF)], &[(0x300_1000, 0x300_2000)]);
    check("less than a frame", &[(Reserved, 0x300_0400, 0x300_0BFF)], &[]);
}

#[test]
fn what_a_later_descriptor_names_is_not() {
    use MemoryType::{Architecture, BootLoader, Reserved};
    let capped = (Reserved, 0x80_0000, 0x3FF_FFFF);
    check(
        "servers above a cap",
        &[capped, (BootLoader, 0xF0_0000, 0xF1_23FF), (BootLoader, 0x100_0000, 0x100_7FFF)],
        &[(0x80_0000, 0xF0_0000), (0xF1_3000, 0x100_0000), (0x100_8000, 0x400_0000)],
    );
    check("an earlier one does not count", &[(Architecture, 0x90_0000, 0x9F_FFFF), capped], &[(0x80_0000, 0x400_0000)]);
    check(
        "reserved twice",
        &[capped, (Reserved, 0x100_0000, 0x1FF_FFFF)],
        &[(0x80_0000, 0x100_0000), (0x200_0000, 0x400_0000), (0x100_0000, 0x200_0000)],
    );
    check("all of it", &[capped, (BootLoader, 0x80_0000, 0x3FF_FFFF)], &[]);
}

#[test]
fn the_image_and_what_is_out_of_reach_are_not() {
    use MemoryType::Reserved;
    check("around the image", &[(Reserved, 0x50_0000, 0x8F_FFFF)], &[(0x50_0000, 0x60_0000), (0x70_0000, 0x90_0000)]);
    check("across the limit", &[(Reserved, LIMIT - 0x10_0000, u64::MAX)], &[(LIMIT - 0x10_0000, LIMIT)]);
    check("above the limit", &[(Reserved, LIMIT, LIMIT + 0xF_FFFF)], &[]);
}

#[test]
fn virtual_descriptors_say_nothing() {
    let list = [
        MemoryDescriptor::new(MemoryType::Reserved, 0x300_0000, 0x3FF_FFFF),
        MemoryDescriptor::new(MemoryType::Conventional, 0, u64::MAX).as_virtual(),
        MemoryDescriptor::new(MemoryType::Reserved, 0x800_0000, 0x8FF_FFFF).as_virtual(),
    ];
    let [first, rest @ ..] = kernel_memory(&list, IMAGE, PhysAddr(LIMIT));
    assert_eq!(first, (PhysAddr(0x300_0000), PhysAddr(0x400_0000)));
    assert!(rest.iter().all(|(start, end)| start == end));
}

#[test]
fn more_pieces_than_there_is_room_for_are_left_out() {
    let pieces: Vec<_> = (8..108).map(|i| (MemoryType::Reserved, i << 20, (i << 20) + 0xFFF)).collect();
    let expected: Vec<_> = (8..8 + crate::kmem::REGIONS_MAX as u64).map(|i| (i << 20, (i << 20) + 0x1000)).collect();
    check("pieces", &pieces, &expected);
}

/// What a firmware's table says to be a device cannot be memory: the last descriptor decides, of each part of the page.
#[test]
fn devices_are_not_where_memory_is() {
    use MemoryType::{Architecture, BootLoader, Conventional, Dedicated, Reserved, Shared};
    const DEVICE: u64 = 0xFEC0_0000;
    let is_memory_with = |own: &[(MemoryType, u64, u64)]| {
        let own = own.iter().map(|&(kind, low, high)| MemoryDescriptor::new(kind, low, high));
        let list: Vec<_> = [MemoryDescriptor::new(Shared, 0, u64::MAX)].into_iter().chain(own).collect();
        is_memory(&list, PhysAddr(DEVICE))
    };
    assert!(!is_memory(&[], PhysAddr(DEVICE)) && !is_memory_with(&[]));
    for kind in [Conventional, Reserved, BootLoader] {
        for (low, high) in [(0, u64::MAX), (DEVICE, DEVICE + 0x3FF), (DEVICE + 0xC00, DEVICE + 0xFFF)] {
            assert!(is_memory_with(&[(kind, low, high)]), "{kind:?} from {low:#x}");
            assert!(!is_memory_with(&[(kind, low, high), (Architecture, DEVICE, DEVICE + 0xFFF)]), "{kind:?}");
        }
        assert!(!is_memory_with(&[(kind, 0, DEVICE - 1), (kind, DEVICE + 0x1000, u64::MAX)]), "{kind:?} around it");
        assert!(is_memory_with(&[(kind, 0, u64::MAX), (Shared, DEVICE, DEVICE + 0xBFF)]), "{kind:?} in its last KiB");
    }
    for kind in [Architecture, Dedicated, Shared] {
        assert!(!is_memory_with(&[(Conventional, 0, u64::MAX), (kind, DEVICE, DEVICE + 0xFFF)]), "{kind:?}");
    }
    let of_programs = MemoryDescriptor::new(Conventional, 0, u64::MAX).as_virtual();
    assert!(!is_memory(&[of_programs], PhysAddr(DEVICE)), "addresses of programs say nothing of devices");
    assert!(!is_memory(&[], PhysAddr(u64::MAX - 0xFFF)), "the last frame has no end");
}
