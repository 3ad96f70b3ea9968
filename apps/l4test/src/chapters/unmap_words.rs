//! The parameters of Unmap: every number of fpages, every size and place, every set of rights.

use l4::{Fpage, MR_COUNT, MapItem, Rights, Word, kip, utcb};

use crate::arch;
use crate::failure::{Outcome, Within, equal};
use crate::registry::chapter;
use crate::world::agent::Agent;
use crate::world::calls::{MARK, flush_outside_the_image, unmap_words};
use crate::world::control;
use crate::world::memory::{PAGE_LOG2, at, page, window};
use crate::world::spaces::{kip_area, utcb_area};
use crate::world::threads::{supervisor, tester};

chapter! { unmap_words:
    "X.2, Unmap, control word" => [
        number_of_fpages_counts_from_one,
        fpages_beyond_the_number_are_left_alone,
        undefined_bits_are_ignored,
        unmap_leaves_error_code,
    ],
    "X.2, Unmap, fpages" => [
        every_size_reaches_the_page,
        sizes_below_a_page_are_a_page,
        misaligned_base_is_aligned_down,
        fpages_outside_user_memory_are_ignored,
        fpages_come_back_with_their_status,
        every_set_of_rights,
        same_fpage_many_times,
    ],
    "X.2, Unmap, protected areas" => [
        unmap_of_protected_areas_changes_nothing,
        flush_of_protected_areas_changes_nothing,
    ],
}

/// An agent that has page 0 at the beginning of the playground.
#[track_caller]
fn agent() -> Outcome<Agent> {
    page(0).set(0x0E);
    let agent = Agent::in_new_space()?;
    give_to(agent)?;
    Ok(agent)
}

#[track_caller]
fn give_to(agent: Agent) -> Outcome {
    agent.take(page(0).map_to(0, Rights::READ_WRITE))
}

/// Page 0 with all rights to be revoked.
fn own_page() -> Word {
    page(0).fpage(Rights::ALL).raw()
}

// --- control word ---

fn number_of_fpages_counts_from_one() -> Outcome {
    let agent = agent()?;
    for last in [0, 1, 2, 7, 8, 31, 62, 63] {
        give_to(agent)?;
        let mut fpages = [0; MR_COUNT];
        fpages[last] = own_page();
        let after = unmap_words(last as Word, &fpages[..=last]);
        equal("the fpage", Fpage::from_raw(after[last]).base(), page(0).address()).within(last)?;
        agent.check_nothing(at(0)).within(last)?;
    }
    Ok(())
}

fn fpages_beyond_the_number_are_left_alone() -> Outcome {
    let agent = agent()?;
    for last in [0, 1, 6, 7, 30, 62] {
        let mut fpages = [0; MR_COUNT];
        fpages[last + 1] = own_page();
        let after = unmap_words(last as Word, &fpages[..last + 2]);
        equal("the fpage beyond", after[last + 1], own_page()).within(last)?;
        for (index, &word) in after.iter().enumerate().skip(last + 2) {
            equal(format_args!("MR{index}"), word, MARK | index as Word).within(last)?;
        }
        agent.check_reads(at(0), 0x0E).within(last)?;
    }
    Ok(())
}

fn undefined_bits_are_ignored() -> Outcome {
    let agent = agent()?;
    for bits in (7..Word::BITS).map(|bit| 1 << bit).chain([Word::MAX << 7]) {
        give_to(agent)?;
        unmap_words(bits, &[own_page()]);
        agent.check_nothing(at(0)).within(format_args!("{bits:#x}"))?;
        // Our own mapping is as it was.
        equal("the page here", page(0).get(), 0x0E)?;
    }
    Ok(())
}

fn unmap_leaves_error_code() -> Outcome {
    utcb().set_error_code(control::MARK);
    for fpage in [0, own_page(), Word::MAX, arch::KERNEL_ADDRESS | 12 << 4 | 7] {
        unmap_words(0, &[fpage]);
        equal("ErrorCode", utcb().error_code(), control::MARK).within(format_args!("{fpage:#x}"))?;
    }
    Ok(())
}

// --- fpages ---

/// Page 0 as the base of an fpage with any size field, all rights.
fn sized(size_field: Word) -> Word {
    page(0).address() | size_field << 4 | 7
}

fn every_size_reaches_the_page() -> Outcome {
    let (giver, taker) = (agent()?, Agent::in_new_space()?);
    for size_log2 in 12..64 {
        giver.pass(taker, MapItem::map(window(0, PAGE_LOG2).with_rights(Rights::ALL), 0))?;
        taker.check_reads(at(0), 0x0E).within(format_args!("size {size_log2}"))?;
        // The base is aligned down to the size.
        giver.unmap([Fpage::from_raw(at(0) | size_log2 << 4 | 7)])?;
        taker.check_nothing(at(0)).within(format_args!("size {size_log2}"))?;
        giver.check_reads(at(0), 0x0E)?;
    }
    Ok(())
}

fn sizes_below_a_page_are_a_page() -> Outcome {
    let agent = agent()?;
    // Size 2 is that of I/O ports.
    for size_log2 in [0, 1, 3, 4, 8, 9, 10, 11] {
        give_to(agent)?;
        unmap_words(0, &[sized(size_log2)]);
        agent.check_nothing(at(0)).within(format_args!("size {size_log2}"))?;
    }
    Ok(())
}

fn misaligned_base_is_aligned_down() -> Outcome {
    let agent = agent()?;
    for (offset, size_log2) in [(0x400, 12), (0xC00, 12), (0x400, 11), (0x1F_FC00, 21)] {
        give_to(agent)?;
        let base = page(0).address() & !((1 << size_log2) - 1) | offset;
        unmap_words(0, &[base & !0x3FF | size_log2 << 4 | 7]);
        agent.check_nothing(at(0)).within(format_args!("{base:#x}, size {size_log2}"))?;
    }
    Ok(())
}

fn fpages_outside_user_memory_are_ignored() -> Outcome {
    let agent = agent()?;
    let rows = [
        1 << 47 | 12 << 4,
        1 << 47 | 47 << 4,
        arch::NON_CANONICAL | 12 << 4,
        arch::NON_CANONICAL | 63 << 4,
        arch::KERNEL_ADDRESS | 12 << 4,
        arch::KERNEL_ADDRESS | 21 << 4,
        Word::MAX & !0xFFF | 12 << 4,
        // The last 1024 bytes, in every size that has a base there.
        Word::MAX << 10 | 10 << 4,
    ];
    for word in rows {
        equal("the fpage", unmap_words(0, &[word | 7])[0], word).within(format_args!("{word:#x}"))?;
    }
    agent.check_reads(at(0), 0x0E)
}

fn fpages_come_back_with_their_status() -> Outcome {
    let agent = agent()?;
    // Nothing is revoked, and the first look resets what there was.
    let look = own_page() & !7;
    unmap_words(0, &[look]);
    equal("untouched", unmap_words(0, &[look])[0], look)?;
    agent.check_reads(at(0), 0x0E)?;
    equal("read", unmap_words(0, &[look])[0], look | 5)?;
    agent.write(at(0), 0x0E)?;
    equal("written", unmap_words(0, &[look])[0] & !5, look | 2)?;
    // Bit 3 comes back too, and makes no difference.
    equal("with bit 3", unmap_words(0, &[look | 8])[0], look | 8)?;
    agent.check_reads(at(0), 0x0E)?;
    equal("read, with bit 3", unmap_words(0, &[look | 8])[0], look | 8 | 5)
}

fn every_set_of_rights() -> Outcome {
    let agent = agent()?;
    // Reading cannot be revoked alone; all rights at once are the mapping itself.
    let rows = [
        (0, Rights::READ_WRITE),
        (1, Rights::READ_WRITE),
        (2, Rights::READ),
        (3, Rights::READ),
        (4, Rights::READ_WRITE),
        (5, Rights::READ_WRITE),
        (6, Rights::READ),
        (7, Rights::NONE),
    ];
    for (revoked, left) in rows {
        unmap_words(0, &[own_page()]);
        give_to(agent)?;
        agent.check_rights(at(0), Rights::READ_WRITE).within(revoked)?;
        unmap_words(0, &[own_page() & !7 | revoked]);
        agent.check_rights(at(0), left).within(format_args!("{revoked} revoked"))?;
    }
    Ok(())
}

fn same_fpage_many_times() -> Outcome {
    let agent = agent()?;
    agent.check_reads(at(0), 0x0E)?;
    let after = unmap_words(63, &[own_page(); MR_COUNT]);
    equal("the status of the first", after[0] & 7, 5)?;
    after.iter().skip(1).try_for_each(|&word| equal("that of the others", word & 7, 0))?;
    agent.check_nothing(at(0))
}

// --- protected areas ---

/// The areas of the kernel's in a space, and its own addresses.
fn protected() -> [Fpage; 5] {
    let kernel = |size_log2| Fpage::new(arch::KERNEL_ADDRESS, size_log2, Rights::ALL).expect("it is aligned");
    [kip_area(), utcb_area(), kernel(12), kernel(21), kernel(30)].map(|area| area.with_rights(Rights::ALL))
}

/// Fails unless the interface page can be read and the registers of two threads can be written.
#[track_caller]
fn check_areas() -> Outcome {
    equal("the magic", kip::kip().magic, l4::KIP_MAGIC)?;
    utcb().set_user_defined_handle(0x4747);
    equal("a register", l4::thread::user_defined_handle_of(tester().id())?, 0x4747)?;
    l4::thread::inspect(supervisor())?;
    Ok(())
}

fn unmap_of_protected_areas_changes_nothing() -> Outcome {
    for area in protected() {
        let word = area.with_rights(Rights::NONE).raw();
        equal("the fpage", unmap_words(0, &[area.raw()])[0], word).within(format_args!("{word:#x}"))?;
        check_areas()?;
    }
    Ok(())
}

fn flush_of_protected_areas_changes_nothing() -> Outcome {
    for area in protected() {
        let mut fpages = [area];
        flush_outside_the_image(&mut fpages);
        let expected = area.with_rights(Rights::NONE);
        equal("the fpage", fpages[0], expected).within(format_args!("{:#x}", area.raw()))?;
        check_areas()?;
    }
    Ok(())
}
