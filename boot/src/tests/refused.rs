//! Boots that must stop with a message.

use super::*;

/// A 64-bit boot after `change` ends with `message`.
fn check(change: impl FnOnce(&mut Machine), message: &str) {
    let mut machine = Machine::new(2);
    change(&mut machine);
    assert_eq!(machine.start().result, Err(message.to_string()));
}

#[test]
fn the_first_three_modules_must_be_there() {
    check(|m| m.modules.truncate(0), "module 0 (kernel): is missing");
    check(|m| m.modules.truncate(1), "module 1 (sigma0): is missing");
    check(|m| m.modules.truncate(2), "module 2 (root task): is missing");
    check(|m| m.modules[2].0 = File::Bytes(vec![]), "module 2 (root a=1 b): is empty");
}

#[test]
fn a_damaged_executable_is_named() {
    check(|m| m.program(1).cut = 40, "module 1 (sigma0 -v): ends inside the ELF header");
    check(|m| m.program(0).cut = 80, "module 0 (kernel): ends before program header 0");
    check(|m| m.program(2).cut = 0x1800, "module 2 (root a=1 b): ends inside segment 0");
    check(|m| m.modules[0].0 = File::Bytes(vec![0x90; 64]), "module 0 (kernel): is not an ELF file");
    check(|m| m.program(1).class = 3, "module 1 (sigma0 -v): has the unknown ELF class 3");
    check(|m| m.program(1).machine = 3, "module 1 (sigma0 -v): is for another machine (number 3)");
    check(|m| m.program(2).machine = 183, "module 2 (root a=1 b): is for another machine (number 183)");
    check(|m| m.program(2).kind = 3, "module 2 (root a=1 b): is not an EXEC file (ELF type 3)");
    check(|m| m.program(1).segment_type = 4, "module 1 (sigma0 -v): has no segment to load");
    check(|m| m.program(1).entry = 0xF0_1234, "module 1 (sigma0 -v): its entry point 0xf01234 is in no loaded segment");
    check(
        |m| m.program(2).memory_bytes = 0x1000,
        "module 2 (root a=1 b): segment 0 is larger in the file than in memory",
    );
    check(|m| m.program(0).address = u64::MAX - 0x1000, "module 0 (kernel): the addresses of segment 0 wrap around");
}

fn link(machine: &mut Machine, index: usize, address: u64) {
    let program = machine.program(index);
    (program.address, program.entry) = (address, address);
}

#[test]
fn executables_may_not_share_a_place() {
    check(|m| link(m, 2, 0xF0_1000), "module 2 (root a=1 b): is linked to 0xf01000-0xf02234, over module 1");
    check(|m| link(m, 1, 0x60_2FFF), "module 1 (sigma0 -v): is linked to 0x602fff-0x604233, over module 0");
    check(|m| link(m, 0, 0xF_E000), "module 0 (kernel): is linked to 0xfe000-0x101000, which is not all free memory");
    check(|m| link(m, 1, 0x11_F000), "module 1 (sigma0 -v): is linked to 0x11f000-0x120234, over kickstart");
}

#[test]
fn executables_must_be_linked_to_memory() {
    check(
        |m| link(m, 2, 0x8000_0000),
        "module 2 (root a=1 b): is linked to 0x80000000-0x80001234, which is not all free memory",
    );
    check(
        |m| link(m, 2, 1 << 40),
        "module 2 (root a=1 b): is linked to 0x10000000000-0x10000001234, which is not all free memory",
    );
    check(
        |m| m.program(2).memory_bytes = 64 * MIB,
        "module 2 (root a=1 b): is linked to 0x1000000-0x5000000, which is not all free memory",
    );
    check(
        |m| m.command_line = "maxmem=16M".into(),
        "module 2 (root a=1 b): is linked to 0x1000000-0x1001234, which is not all free memory",
    );
    check(
        |m| m.map.as_mut().expect("a map").push(region(0xF0_0000, 0xF0_0001, 2)),
        "module 1 (sigma0 -v): is linked to 0xf00000-0xf01234, which is not all free memory",
    );
}

#[test]
fn modules_must_lie_in_memory() {
    let module_at = |index: u64, start: u32, end: u32| {
        move |m: &mut Machine| m.patches.push((0xA000 + 16 * index, [start, end].map(u32::to_le_bytes).concat()))
    };
    check(
        module_at(1, 0xFFFF_0000, 0xFFFF_1000),
        "module 1 (sigma0 -v): lies at 0xffff0000-0xffff1000, where no module can be",
    );
    check(module_at(2, 0x9000, 0x8000), "module 2 (root a=1 b): lies at 0x9000-0x8000, where no module can be");
    check(
        |m| {
            m.add(b"over the loader", "data");
            module_at(3, 0x11_F000, 0x12_0001)(m);
        },
        "module 3 (data): lies at 0x11f000-0x120001, where no module can be",
    );
}

#[test]
fn a_kernel_needs_a_kernel_interface_page() {
    let info = |capacity: u64, offset: u64| move |m: &mut Machine| m.set_kip(21, offset << 32 | capacity);
    let no_array = "module 0 (kernel): its kernel interface page has no array of memory descriptors";
    check(|m| m.set_kip(0, 0), "module 0 (kernel): has no kernel interface page");
    check(
        |m| {
            m.set_kip(0, 0);
            let end = m.program(0).bytes.len() - 8;
            put(&mut m.program(0).bytes, end, b"L4\xE6K").expect("inside the kernel");
        },
        "module 0 (kernel): has no kernel interface page",
    );
    check(info(CAPACITY, 0), no_array);
    check(info(0, 0x800), no_array);
    check(info(CAPACITY, 0x804), no_array);
    check(info(CAPACITY, 0x1FF0), no_array);
    check(info(0xFFFF_FFFF, 0x800), no_array);
    check(info(CAPACITY, 0xFFFF_FFF8), no_array);
    check(|m| m.set_kip(50, 7), "module 0 (kernel): its kernel interface page has no page size");
}

#[test]
fn more_descriptors_than_the_kernel_has_room_for_are_counted() {
    // All memory, six entries of the map, two windows, kernel memory, two servers, two tables.
    check(|m| m.set_kip(21, 0x800 << 32 | 13), "module 0 (kernel): has room for 13 memory descriptors, 14 are needed");
    check(
        |m| {
            m.set_kip(21, 0x800 << 32 | 13);
            (0..3).for_each(|_| m.add(b"data", "data"));
        },
        "module 0 (kernel): has room for 13 memory descriptors, 17 are needed",
    );
}

#[test]
fn a_32_bit_kernel_does_not_start_64_bit_programs() {
    let mut machine = Machine::new(1);
    machine.modules[2].0 = File::Program(program(2, 0x100_0000));
    let message = "module 2 (root a=1 b): is a 64-bit program, the kernel is a 32-bit one";
    assert_eq!(machine.start().result, Err(message.to_string()));
}

#[test]
fn too_much_is_refused_by_name() {
    let modules = |count: usize, text: &str| {
        let text = text.to_string();
        move |m: &mut Machine| (3..count).for_each(|_| m.add(b"data", &text))
    };
    check(modules(33, "d"), "boot loader: brings more than 32 modules");
    check(modules(30, &"x".repeat(151)), "boot loader: all command lines together are longer than 4096 bytes");
    check(modules(4, &"x".repeat(5000)), "boot loader: a command line has no end");
    check(modules(30, &"x".repeat(120)), "memory: has too small a page for the boot information");
    check(|m| m.map = Some(vec![region(0, 64 * MIB, 1); 129]), "boot loader: its memory map has more than 128 entries");
}

#[test]
fn what_the_loader_says_must_make_sense() {
    check(|m| (m.magic, m.map) = (pvh::MAGIC, None), "boot loader: brings no memory map");
    let damage = |m: &mut Machine| (m.magic, m.patches) = (pvh::MAGIC, vec![(INFO, vec![0])]);
    check(damage, "boot loader: its information does not begin as such");
    check(|m| m.magic = 0x1234, "boot loader: is neither Multiboot nor PVH (eax is 0x1234)");
    check(|m| m.map = None, "boot loader: brings no memory map");
    check(|m| m.map = Some(vec![]), "module 0 (kernel): is linked to 0x600000-0x603000, which is not all free memory");
    check(|m| m.patches.push((0x9100, vec![3])), "boot loader: its memory map has an impossible size");
    check(|m| m.patches.push((INFO + 20, vec![0xFF; 4])), "boot loader: its module table is not in memory");
    check(
        |m| {
            m.magic = v2::LOADER_MAGIC;
            m.patches.push((INFO + 12, vec![0xFF; 4]));
        },
        "boot loader: its chain of tags has an impossible size",
    );
    check(|m| m.command_line = "kickstart color=red".into(), "command line: there is no option color=red");
}

#[test]
fn a_module_in_the_way_needs_room_elsewhere() {
    let exactly = [region(0x60_0000, 0x60_3000, 1), region(0xF0_0000, 0xF0_2000, 1), region(0x100_0000, 0x100_2000, 1)];
    check(
        |m| (m.files, m.map) = (0x60_0000, Some(exactly.to_vec())),
        "module 0 (kernel): lies at 0x600000-0x604000, where another is to be loaded, and there is no room to move it",
    );
}

#[test]
fn kernel_memory_must_fit() {
    check(|m| m.command_line = "kmem=60M".into(), "memory: has no 0x3c00000 free bytes in one piece for the kernel");
    check(|m| m.map = Some(pc_map(24 * MIB)), "memory: has no 0x1000000 free bytes in one piece for the kernel");
}
