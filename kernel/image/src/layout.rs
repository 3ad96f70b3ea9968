//! The memory map of the kernel.
//!
//! ```text
//! 0                    user area, 2^47 bytes
//! FFFFFEFFFFFF8000      32 KiB  task states            of the processors, if there are I/O fpages
//! FFFFFF0000000000      12 KiB  port map               the same, each space its own; task states refer to it
//! FFFFFF8000000000     510 GiB  physical memory from 0: kernel memory; nothing else is mapped
//! FFFFFFFF80000000     512 MiB  physical memory from 0: the image; nothing else is mapped
//! FFFFFFFFA0000000     128 MiB  TCB table              2^18 slots of 512 bytes   gaps read as zero
//! FFFFFFFFB0000000     256 MiB  frame table            2^18 slots of 1024 bytes  gaps read as zero
//! FFFFFFFFC0000000      64 MiB  space table            2^18 slots of 256 bytes   gaps read as zero
//! FFFFFFFFC8000000     512 MiB  table of mapping nodes                           gaps read as zero
//! FFFFFFFFF0000000      16 MiB  areas of the processors  64 KiB each, as many as the kernel can run, see [`AREA_CODE`] and the others
//! FFFFFFFFF2000000      64 MiB  screen                 not cached; if there is one
//! FFFFFFFFF8000000       4 MiB  trace buffer           for user code to read and write; in a kernel with one
//! FFFFFFFFFFA00000    1020 KiB  UTCB pointers          for user code to read, a page per processor
//! FFFFFFFFFFB00000       4 KiB  system-call stubs      for user code to execute
//! FFFFFFFFFFC00000       4 KiB  local APIC             not cached
//! FFFFFFFFFFD00000      64 KiB  I/O APICs              a page each, not cached
//! FFFFFFFFFFD10000       4 KiB  HPET                   not cached; if there is one
//! FFFFFFFFFFE00000       4 KiB  text screen            not cached; in a kernel with spin wheels
//! ```
//!
//! All of it but the first two lies below one entry of the root table, the last, which every space has, and all of that
//! but kernel memory in the last 2 GiB, where code of the kernel model reaches it with 32-bit displacements. User code may read, write or execute what
//! says so, and nothing else.
//!
//! A task state names its port map by a distance of 16 bits, and the map of the space that runs must be there. So the task
//! states end where one entry of the root table does, which every space has, and the map begins where the next one does,
//! which is the space's own: whoever loads the root table of a space has its map.

use core::arch::global_asm;

use crate::config::{DEBUG, MAX_CPUS, SPIN_WHEELS};
use crate::frame::FRAME_SIZE_LOG2;
use kcore::mapdb::Node;
use kcore::thread::TCB_SIZE_LOG2;
use khal::desc::Tss;

// The map for tools that see addresses only: absolute symbols of the image, NAME where a table begins and NAME_stride
// for the distance of its slots.
global_asm!(
    ".macro layout name, start, stride",
    ".global layout_\\name",
    ".global layout_\\name\\()_stride",
    ".set layout_\\name, \\start",
    ".set layout_\\name\\()_stride, \\stride",
    ".endm",
    "layout physical, {physical}, 4096",
    "layout tcb, {tcb}, {tcb_stride}",
    "layout frame, {frame}, {frame_stride}",
    "layout space, {space}, {space_stride}",
    "layout node, {node}, {node_stride}",
    "layout area, {area}, {area_stride}",
    "layout utcb_slot, {utcb_slot}, 4096",
    "layout stubs, {stubs}, 4096",
    "layout local_apic, {local_apic}, 4096",
    "layout io_apic, {io_apic}, 4096",
    physical = const DIRECT_MAP as isize,
    tcb = const TCB_TABLE as isize,
    tcb_stride = const 1 << TCB_SIZE_LOG2,
    frame = const FRAME_TABLE as isize,
    frame_stride = const 1 << FRAME_SIZE_LOG2,
    space = const SPACE_TABLE as isize,
    space_stride = const SPACE_TABLE_BYTES >> MAX_THREADS_LOG2,
    node = const NODE_TABLE as isize,
    node_stride = const size_of::<Node>(),
    area = const AREAS as isize,
    area_stride = const AREA_BYTES,
    utcb_slot = const UTCB_SLOTS as isize,
    stubs = const STUB_PAGE as isize,
    local_apic = const LOCAL_APIC_PAGE as isize,
    io_apic = const IO_APIC_PAGES as isize,
);

/// Where physical address 0 is, of which only kernel memory is mapped. The rough tables map the first 4 GiB there.
pub const DIRECT_MAP: usize = 0xFFFF_FF80_0000_0000;
/// Physical memory below this can be kernel memory.
pub const DIRECT_MAP_BYTES: usize = 510 << 30;
/// What a loader reserves below this is kernel memory (X.2, Memory Descriptor).
pub const LOADER_LIMIT: usize = 512 << 20;

/// Where physical address 0 is, of which only the image is mapped. The linker script knows it too.
pub const KERNEL_BASE: usize = 0xFFFF_FFFF_8000_0000;
/// The image ends below this.
pub const IMAGE_LIMIT: usize = 512 << 20;

/// Bytes of a large page, and that a page table covers.
pub const LARGE_PAGE_BYTES: usize = 1 << 21;

/// Physical memory below this is mapped at its own address until the kernel's own tables are in use.
pub const ROUGH_BYTES: u64 = 4 << 30;

/// Threads that the tables have room for, log2.
pub const MAX_THREADS_LOG2: u32 = 18;

/// Thread control blocks, by thread number.
pub const TCB_TABLE: usize = 0xFFFF_FFFF_A000_0000;
/// Bytes of the TCB table.
pub const TCB_TABLE_BYTES: usize = 512 << MAX_THREADS_LOG2;

/// Saved user registers, by thread number.
pub const FRAME_TABLE: usize = 0xFFFF_FFFF_B000_0000;
/// Bytes of the frame table.
pub const FRAME_TABLE_BYTES: usize = 1024 << MAX_THREADS_LOG2;

/// Address spaces.
pub const SPACE_TABLE: usize = 0xFFFF_FFFF_C000_0000;
/// Bytes of the space table.
pub const SPACE_TABLE_BYTES: usize = 256 << MAX_THREADS_LOG2;

/// Nodes of the mapping database.
pub const NODE_TABLE: usize = 0xFFFF_FFFF_C800_0000;
/// Bytes of the node table.
pub const NODE_TABLE_BYTES: usize = 512 << 20;

/// What each processor has of its own, by number.
pub const AREAS: usize = 0xFFFF_FFFF_F000_0000;
/// Size of an area, and what its address is a multiple of: any address on the stacks in it leads to it.
pub const AREA_BYTES: usize = 64 << 10;
/// In an area: the processor's copy of the entry from SYSCALL, a page.
pub const AREA_CODE: usize = 0;
/// In an area: the page that user code of the processor reads at [`UTCB_SLOTS`].
pub const AREA_UTCB_SLOT: usize = 0x1000;
/// In an area: the processor's words and tables.
pub const AREA_DATA: usize = 0x2000;
/// Bytes of that.
pub const AREA_DATA_BYTES: usize = 0x2000;
/// In an area: the kernel stack, behind a page that is not mapped.
pub const AREA_STACK: usize = 0x5000;
/// Its end, where the stack pointer starts.
pub const AREA_STACK_TOP: usize = 0x7000;
/// In an area: the stack of exceptions that cannot trust the one in use, behind a page that is not mapped.
pub const AREA_INTERRUPT_STACK: usize = 0x8000;
/// Its end: a debugger needs more of it.
pub const AREA_INTERRUPT_STACK_TOP: usize = if DEBUG { 0xC000 } else { 0x9000 };
/// Amid it: the end of the stack of page faults, which may come on the user's stack where the fast path looks at a TCB. A
/// non-maskable interrupt that comes meanwhile has the other part.
pub const AREA_FAULT_STACK_TOP: usize = 0x8800;
/// In an area: where the kernel sees the page it copies from, and behind it the one it copies to.
pub const AREA_COPY_WINDOWS: usize = if DEBUG { 0xD000 } else { 0xA000 };
/// In an area: what the processor itself or the first instructions of an entry touch, [`crate::area::Porch`] and behind it
/// small stacks. Where spaces do not show the kernel, they show this page.
pub const AREA_PORCH: usize = 0xC000;
/// In the porch: the end of the stack on which gates enter from user code then.
pub const AREA_ENTRY_STACK_TOP: usize = 0xC400;
/// In the porch: the end of the stack of debug exceptions; there stands where the stack begins to which they go on.
pub const AREA_DEBUG_STACK_TOP: usize = 0xC800;
/// In the porch: the end of what stands for the stack of page faults then, until the kernel's tables are loaded.
pub const AREA_FAULT_ENTRY_STACK_TOP: usize = 0xCC00;
/// In the porch: the end of what stands for [`AREA_INTERRUPT_STACK`] then, likewise.
pub const AREA_INTERRUPT_ENTRY_STACK_TOP: usize = 0xD000;
/// The bits of an address that say whether it is in the porch of an area or on one of the other stacks.
pub const AREA_PORCH_BITS: usize = 0xC000;

/// The area of processor `cpu`.
pub const fn area(cpu: usize) -> usize {
    AREAS + cpu * AREA_BYTES
}

/// The memory of the screen, from the large page on in which it begins.
pub const SCREEN: usize = 0xFFFF_FFFF_F200_0000;
/// What there is room for.
pub const SCREEN_BYTES: usize = 64 << 20;

/// The trace buffer for programs (X.2, trace buffer).
pub const TRACE_BUFFER: usize = 0xFFFF_FFFF_F800_0000;
/// Its bytes at most.
pub const TRACE_BUFFER_BYTES: usize = 4 << 20;

/// The pages through which user code finds its UTCB (amd64 ABI, UTCB), one for each processor.
pub const UTCB_SLOTS: usize = 0xFFFF_FFFF_FFA0_0000;

/// The page for user code of processor `cpu`.
pub const fn utcb_slot(cpu: usize) -> usize {
    UTCB_SLOTS + cpu * 4096
}

/// The page of system-call stubs (amd64 ABI, KIP).
pub const STUB_PAGE: usize = 0xFFFF_FFFF_FFB0_0000;
/// The registers of the local APIC.
pub const LOCAL_APIC_PAGE: usize = 0xFFFF_FFFF_FFC0_0000;

/// The registers of the I/O APICs, a page each.
pub const IO_APIC_PAGES: usize = 0xFFFF_FFFF_FFD0_0000;
/// The I/O APICs that there is room for.
pub const IO_APICS_MAX: usize = 16;

/// The registers of the high-precision event timer.
pub const HPET_PAGE: usize = IO_APIC_PAGES + IO_APICS_MAX * 4096;

/// The text screen, in a kernel that shows something there.
pub const SCREEN_PAGE: usize = 0xFFFF_FFFF_FFE0_0000;

/// The port map of the space that runs: a bit for each port, set if it is closed, and behind the last ones that are set.
pub const PORT_MAP: usize = 0xFFFF_FF00_0000_0000;
/// The task states of the processors, by number.
pub const TASK_STATES: usize = PORT_MAP - TASK_STATES_BYTES;
/// Bytes of the task states: whole pages.
pub const TASK_STATES_BYTES: usize = (MAX_CPUS * size_of::<Tss>()).next_multiple_of(4096);

/// User addresses are below 2 to this power.
pub const USER_ADDRESS_BITS: u32 = 47;
/// The end of the user area. The last page below 2^47 is left out: a SYSCALL at its end would return to an address that
/// is not canonical.
pub const USER_END: usize = (1 << USER_ADDRESS_BITS) - 4096;

/// Whether `address` is in a table of the core that is backed page by page.
pub const fn is_sparse(address: usize) -> bool {
    let tables = [
        (TCB_TABLE, TCB_TABLE_BYTES),
        (FRAME_TABLE, FRAME_TABLE_BYTES),
        (SPACE_TABLE, SPACE_TABLE_BYTES),
        (NODE_TABLE, NODE_TABLE_BYTES),
    ];
    let mut index = 0;
    while index < tables.len() {
        let (start, bytes) = tables[index];
        if address >= start && address - start < bytes {
            return true;
        }
        index += 1;
    }
    false
}

/// Whether an instruction pointer with this value can exist (Intel SDM 1, Canonical Addressing).
pub const fn is_canonical(address: usize) -> bool {
    let high = address as isize >> USER_ADDRESS_BITS;
    high == 0 || high == -1
}

const _: () = {
    let areas = [
        (DIRECT_MAP, DIRECT_MAP_BYTES),
        (KERNEL_BASE, IMAGE_LIMIT),
        (TCB_TABLE, TCB_TABLE_BYTES),
        (FRAME_TABLE, FRAME_TABLE_BYTES),
        (SPACE_TABLE, SPACE_TABLE_BYTES),
        (NODE_TABLE, NODE_TABLE_BYTES),
        (AREAS, AREA_BYTES * MAX_CPUS),
        (SCREEN, SCREEN_BYTES),
        (TRACE_BUFFER, TRACE_BUFFER_BYTES),
        (UTCB_SLOTS, 4096 * MAX_CPUS),
        (STUB_PAGE, 4096),
        (LOCAL_APIC_PAGE, 4096),
        (IO_APIC_PAGES, (IO_APICS_MAX + 1) * 4096),
        (SCREEN_PAGE, if SPIN_WHEELS { 4096 } else { 0 }),
    ];
    let mut i = 0;
    while i < areas.len() {
        let (start, bytes) = areas[i];
        assert!(bytes < 1 << 21 || start.is_multiple_of(1 << 21), "tables begin at large pages");
        assert!(i == 0 || areas[i - 1].0 + areas[i - 1].1 <= start, "areas do not overlap");
        assert!(start.checked_add(bytes).is_some());
        i += 1;
    }
    assert!(FRAME_TABLE - TCB_TABLE == 2 * (1 << 27) && FRAME_TABLE_BYTES == 2 * TCB_TABLE_BYTES);
};
