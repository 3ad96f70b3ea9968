//! Localities: what the kernel says of memory that is nearer to some processors than to others.

use l4::common::{DISTANCE_HERE, LocalityTable};
use l4::{MemoryType, kip};

use crate::failure::{Failure, Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::localities;

chapter! { localities:
    "Boot, localities" => [
        localities_are_numbered_from_0,
        each_processor_has_a_locality,
        nothing_is_nearer_than_the_own_locality,
        conventional_memory_has_a_locality,
        each_locality_has_kernel_memory,
    ],
}

/// The table; skips the test if there is none.
fn table() -> Outcome<LocalityTable> {
    match l4::locality::page() {
        Some(_) => localities::table(),
        None => Err(Failure::skip("there is one locality")),
    }
}

fn localities_are_numbered_from_0() -> Outcome {
    let table = table()?;
    check((2..=16).contains(&table.localities), format_args!("there are {}", table.localities))?;
    for extent in table.extents() {
        check(extent.start < extent.end, format_args!("{extent:?} is empty"))?;
        check(extent.locality < table.localities.into(), format_args!("{extent:?} has no such locality"))?;
    }
    check(!table.extents().is_empty(), "there is no memory")
}

fn each_processor_has_a_locality() -> Outcome {
    let table = table()?;
    equal("the number of processors", table.processors as usize, kip::num_processors())?;
    for processor in 0..kip::num_processors() {
        let locality = table.of_processor(processor);
        check(locality < table.localities as usize, format_args!("it is {locality}")).within(processor)?;
    }
    Ok(())
}

fn nothing_is_nearer_than_the_own_locality() -> Outcome {
    let table = table()?;
    let all = 0..table.localities as usize;
    for (from, to) in all.clone().flat_map(|from| all.clone().map(move |to| (from, to))) {
        let distance = table.distance(from, to).unwrap_or(0);
        let is_right = if from == to { distance == DISTANCE_HERE } else { distance > DISTANCE_HERE };
        check(is_right, format_args!("from {from} to {to} it is {distance}"))?;
    }
    equal("the distance from where nothing is", table.distance(16, 0), None)
}

fn conventional_memory_has_a_locality() -> Outcome {
    let table = table()?;
    for descriptor in kip::memory_descriptors() {
        if descriptor.kind() == MemoryType::Conventional && !descriptor.is_virtual() {
            let (low, high) = (descriptor.low(), descriptor.high());
            check(table.of_address(low).is_some(), format_args!("{low:#x} has none"))?;
            check(table.of_address(high).is_some(), format_args!("{high:#x} has none"))?;
        }
    }
    Ok(())
}

fn each_locality_has_kernel_memory() -> Outcome {
    let table = table()?;
    let reserved = || kip::memory_descriptors().iter().filter(|d| d.kind() == MemoryType::Reserved && !d.is_virtual());
    for locality in 0..table.localities as usize {
        let is_there = reserved().any(|d| table.of_address(d.low()) == Some(locality));
        check(is_there, "nothing is reserved").within(locality)?;
    }
    Ok(())
}
